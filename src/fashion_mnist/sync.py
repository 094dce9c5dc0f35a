"""Sends what tracking stores could not be told when they did not answer.

A training goes on when its tracking server is away, and keeps what it has to say in checkpoints/unsent/. Each parcel
goes to the store that it was meant for; what is sent twice arrives once.
"""

from fashion_mnist.cli import main
from fashion_mnist.config import SyncConfig, TrackingConfig
from fashion_mnist.errors import UserError, reason_of
from fashion_mnist.tracking import store
from fashion_mnist.tracking.outbox import Parcel, kept, send_kept


def sync(config: SyncConfig) -> None:
    """Sends every parcel, oldest first; what a store refuses stays, and the others are still told theirs."""
    if elsewhere := [override for override in config.overrides if not override.startswith("tracking.timeout=")]:
        raise UserError(f"{elsewhere[0]} has no effect: each parcel goes to the store that it was meant for.")
    sent: list[str] = []
    stays: dict[str, str] = {}
    stores: dict[str, None] = {}  # in their order
    for folder in kept():
        try:
            stores[Parcel.read(folder).uri] = None
        except UserError as error:
            stays[str(folder)] = str(error)
    for uri in stores:
        place = TrackingConfig(uri, config.tracking.experiment, None, config.tracking.timeout)
        try:
            store.check(place)
            told, refused = send_kept(store.connect(place), uri)
            sent += told
            stays |= refused
        except Exception as error:  # whatever it is: other stores may answer
            stays[uri] = reason_of(error)
    for run_id in sent:
        print(f"Run {run_id} has been told everything.")
    if stays:
        reasons = "; ".join(f"{what}: {reason}" for what, reason in stays.items())
        raise UserError(f"not everything could be sent; try again later, or delete what is to be given up: {reasons}")
    if not sent:
        print("Everything has been sent.")
    store.label_step(config.tracking, "sync", f"Sent what {len(sent)} runs were still to be told.")


if __name__ == "__main__":
    main(sync, "sync")
