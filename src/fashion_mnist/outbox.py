"""What one run tells the tracking store once it is open: metrics in the background, everything else at its end."""

import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fashion_mnist.errors import reason_of, say
from fashion_mnist.parcel import Measured, Parcel, deliver, send_metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EVERY = 2.0  # seconds between two messages to the store, of which one for each epoch would be too many


class Outbox:
    """Everything that one run tells the tracking store once it is open: metrics meanwhile, the rest at its end.

    Args:
        client: of the store.
        uri: its address.
        run: the run.
    """

    def __init__(self, client: "MlflowClient", uri: str, run: "Run") -> None:
        self.client, self.run_id = client, run.info.run_id
        self.parcel = Parcel(uri, self.run_id)
        self.tags = dict(run.data.tags)  # what the run has, and will have
        self.temporary = tempfile.TemporaryDirectory(prefix="fashion-mnist-")
        self.steps: dict[str, set[int]] = {}  # which are told already
        self.values = dict(run.data.metrics)  # the latest that are told
        for key in self.values:
            self.steps[key] = {point.step for point in client.get_metric_history(self.run_id, key)}
        self.away = ""  # why the store does not answer at the moment
        self.closed = self.delivered = False
        self.closing = threading.Event()
        self.access = threading.Lock()

    @property
    def folder(self) -> Path:
        """Where files may be made that are only for the store."""
        return Path(self.temporary.name)

    def measure(self, values: Mapping[str, float], step: int = 0, of_model: bool = False) -> None:
        """Tells metrics, except those that are told already; a model may be evaluated again, with other results."""
        now = int(time.time() * 1000)
        for key, value in values.items():
            other_result = of_model and not key.startswith("system/") and value != self.values.get(key)
            if step not in self.steps.setdefault(key, set()) or other_result:
                self.steps[key].add(step)
                self.values[key] = value
                with self.access:
                    self.parcel.metrics.append(Measured(key, float(value), now, step, of_model))

    def tag(self, tags: dict[str, str]) -> None:
        """Tells tags; later ones replace earlier ones."""
        self.tags |= tags
        self.parcel.tags |= tags

    def add(self, file: Path, place: str) -> None:
        """Tells a file, which must stay until the run is closed, for a folder of the run's artifacts."""
        self.parcel.files.append((str(file), place))

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Sends metrics in the background, so that a store which does not answer holds nothing up."""
        sender = threading.Thread(target=self.send_now_and_then, daemon=True)
        sender.start()
        try:
            yield
        finally:
            self.closing.set()
            sender.join()

    def send_now_and_then(self) -> None:
        """Sends what has come together, until the run is closed; what does not arrive is sent again."""
        while not self.closing.wait(EVERY):
            with self.access:
                waiting = list(self.parcel.metrics)
            if not waiting:
                continue
            try:
                send_metrics(self.client, self.run_id, waiting)
            except Exception as error:  # whatever it is: training goes on
                self.notice(reason_of(error))
                continue
            self.notice("")
            with self.access:
                self.parcel.metrics = self.parcel.metrics[len(waiting) :]

    def notice(self, away: str) -> None:
        """Says when the store does not answer any more, and when it does again."""
        if away and not self.away:
            say(f"{self.parcel.uri} takes nothing now ({away}); training goes on, and what is to be told waits.")
        if self.away and not away:
            say(f"{self.parcel.uri} is back, and has been told everything so far.")
        self.away = away

    def close(self, status: str | None = None) -> None:
        """Sends everything, and ends the run; what the store does not take is kept on disk.

        Args:
            status: of the run from now on, as MLflow calls it; None leaves it as it is.

        Raises:
            UserError: the store does not answer, and nothing can be kept.
        """
        if self.closed:
            return
        self.closed = True
        self.parcel.status, self.parcel.ended = status, int(time.time() * 1000) if status else None
        try:
            deliver(self.client, self.parcel)
            self.delivered = True
        except BaseException as error:
            folder = self.parcel.keep()
            say(
                f"{self.parcel.uri} cannot be told everything of run {self.run_id} ({reason_of(error)}). The rest is "
                f"kept in {folder}; when the store is back: python -m fashion_mnist.sync"
            )
            if not isinstance(error, Exception):
                raise
        finally:
            self.temporary.cleanup()
