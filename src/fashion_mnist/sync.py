"""Sends what tracking stores could not be told when they did not answer.

A training goes on when its tracking server is away, and keeps what it has to say in checkpoints/unsent/. Each parcel
goes to the store that it was meant for; what is sent twice arrives once.
"""

import shutil

from rich.console import Console

from fashion_mnist.cli import main
from fashion_mnist.config import SyncConfig, TrackingConfig
from fashion_mnist.errors import UserError
from fashion_mnist.outbox import UNSENT, Parcel, deliver, forget, reason_of
from fashion_mnist.progress import progress


def sync(config: SyncConfig) -> None:
    """Sends every parcel, in the order in which they were made.

    Raises:
        UserError: a store takes nothing; what could be sent is sent, and the rest stays.
    """
    from fashion_mnist import store, tracking
    from fashion_mnist.locks import lock_of

    failed: dict[str, str] = {}  # stores, and why they take nothing
    sent: list[str] = []
    with lock_of("sync", str(UNSENT.absolute())):
        for folder in progress(sorted(UNSENT.glob("[0-9]*")), "sending"):
            parcel = Parcel.read(folder)
            if parcel.uri in failed:
                continue
            place = TrackingConfig(parcel.uri, config.tracking.experiment, None, config.tracking.timeout)
            try:
                store.check(place)
                client = tracking.connect(place)
                deliver(client, parcel)
                if parcel.status == "FINISHED":
                    forget(client, parcel.run_id)
            except Exception as error:  # whatever it is: the parcel stays
                failed[parcel.uri] = reason_of(error)
                continue
            shutil.rmtree(folder)
            sent.append(parcel.run_id)
    for run_id in dict.fromkeys(sent):
        Console().print(f"Run {run_id} is complete.", highlight=False, soft_wrap=True)
    if failed:
        reasons = "; ".join(f"{uri}: {reason}" for uri, reason in failed.items())
        raise UserError(f"not everything could be sent, and the rest stays in {UNSENT} ({reasons}).")
    if not sent:
        Console().print("Everything has been sent.", highlight=False)


if __name__ == "__main__":
    main(sync, "sync")
