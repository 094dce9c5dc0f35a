"""What a run is still to be told: sent to the tracking store, or kept on disk while that does not answer.

Whatever is sent twice arrives once: metrics keep their time and step, tags and files replace themselves, and a model is
only logged where there is none yet. So a sender may be killed at any moment, and another one starts from the beginning.
"""

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from fashion_mnist.checkpoint import FOLDER, say
from fashion_mnist.errors import UserError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

UNSENT = FOLDER / "unsent"
UNFINISHED = "unfinished"  # the tag of runs that a checkpoint belongs to
EVERY = 2.0  # seconds between two messages to the store, of which one for each epoch would be too many
BATCH = 1000  # metrics that MLflow takes at once


class Measured(NamedTuple):
    """A metric's value."""

    key: str
    value: float
    timestamp: int  # in milliseconds
    step: int
    of_model: bool  # whether MLflow is to show it with the logged model too


@dataclass
class Parcel:
    """Everything that the store does not know yet of one run."""

    uri: str
    run_id: str
    metrics: list[Measured] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    files: list[tuple[str, str]] = field(default_factory=list)  # a path here, and a folder of the run's artifacts
    model: str | None = None  # a folder, in MLflow's format
    status: str | None = None
    ended: int | None = None  # in milliseconds

    def keep(self) -> Path:
        """Writes the parcel to disk, whole or not at all, and returns its folder.

        Raises:
            UserError: the disk is full, or cannot be written.
        """
        folder = UNSENT / f"{time.time_ns()}-{self.run_id}"
        partial = folder.with_name(f".{folder.name}.partial")
        content = asdict(self)
        try:
            for number, (file, place) in enumerate(self.files):
                copy = partial / "files" / str(number) / Path(file).name
                copy.parent.mkdir(parents=True)
                shutil.copyfile(file, copy)
                content["files"][number] = [str(copy.relative_to(partial)), place]
            if self.model:
                shutil.copytree(self.model, partial / "model")
                content["model"] = "model"
            partial.mkdir(parents=True, exist_ok=True)
            (partial / "parcel.json").write_text(json.dumps(content))
            partial.rename(folder)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise UserError(
                f"{self.uri} cannot be told everything of run {self.run_id}, and the rest cannot be kept in {UNSENT} "
                f"({error.strerror}); mend that, and start the same command again."
            ) from error
        return folder

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads what `keep` wrote.

        Raises:
            UserError: it is damaged.
        """
        try:
            content = json.loads((folder / "parcel.json").read_text())
            content["metrics"] = [Measured(*values) for values in content["metrics"]]
            content["files"] = [(str(folder / file), place) for file, place in content["files"]]
            content["model"] = content["model"] and str(folder / content["model"])
            return cls(**content)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder} is damaged ({error}); delete it.") from error


def deliver(client: "MlflowClient", parcel: Parcel) -> None:
    """Tells the store everything in the parcel; the order is such that a run which is finished lacks nothing."""
    from mlflow.entities import RunTag

    from fashion_mnist.registry import log_model, logged_model

    send_metrics(client, parcel.run_id, [metric for metric in parcel.metrics if not metric.of_model])
    for file, place in parcel.files:
        client.log_artifact(parcel.run_id, file, place or None)
    if parcel.model:
        log_model(client, parcel.run_id, Path(parcel.model))
    if of_model := [metric for metric in parcel.metrics if metric.of_model]:
        model = logged_model(client, parcel.run_id)
        send_metrics(client, parcel.run_id, of_model, model.model_id if model else None)
    if parcel.tags:
        client.log_batch(parcel.run_id, tags=[RunTag(key, value) for key, value in parcel.tags.items()])
    if parcel.status:
        client.set_terminated(parcel.run_id, parcel.status, parcel.ended)


def forget(client: "MlflowClient", run_id: str) -> None:
    """Takes from a finished run the mark that it is unfinished."""
    if UNFINISHED in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, UNFINISHED)


def send_metrics(client: "MlflowClient", run_id: str, metrics: list[Measured], model_id: str | None = None) -> None:
    """Sends metrics, and links them with a model and the data that the run is about."""
    from mlflow.entities import Metric

    about: dict[str, str] = {}
    if model_id:
        about = {"model_id": model_id, "run_id": run_id}
        inputs = client.get_run(run_id).inputs
        for data in inputs.dataset_inputs[:1] if inputs else ():
            about |= {"dataset_name": data.dataset.name, "dataset_digest": data.dataset.digest}
    for start in range(0, len(metrics), BATCH):
        batch = [
            Metric(key, value, when, step, **about) for key, value, when, step, _ in metrics[start : start + BATCH]
        ]
        client.log_batch(run_id, metrics=batch)


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
        for key in run.data.metrics:
            self.steps[key] = {point.step for point in client.get_metric_history(self.run_id, key)}
        self.away = ""  # why the store does not answer at the moment
        self.closing = threading.Event()
        self.access = threading.Lock()

    @property
    def folder(self) -> Path:
        """Where files may be made that are only for the store."""
        return Path(self.temporary.name)

    def measure(self, values: Mapping[str, float], step: int = 0, of_model: bool = False) -> None:
        """Tells metrics, except those that are told already."""
        now = int(time.time() * 1000)
        for key, value in values.items():
            if step not in self.steps.setdefault(key, set()):
                self.steps[key].add(step)
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
                waiting = [metric for metric in self.parcel.metrics if not metric.of_model]
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
            say(f"{self.parcel.uri} does not answer ({away}); training goes on, and what is to be told waits.")
        if self.away and not away:
            say(f"{self.parcel.uri} answers again; it has been told everything.")
        self.away = away

    def close(self, status: str | None = None) -> None:
        """Sends everything, and ends the run; what the store does not take is kept on disk.

        Args:
            status: of the run from now on, as MLflow calls it; None leaves it as it is.

        Raises:
            UserError: the store does not answer, and nothing can be kept.
        """
        self.delivered = False
        self.parcel.status, self.parcel.ended = status, int(time.time() * 1000) if status else None
        try:
            deliver(self.client, self.parcel)
            self.delivered = True
        except Exception as error:
            folder = self.parcel.keep()
            say(
                f"{self.parcel.uri} cannot be told everything of run {self.run_id} ({reason_of(error)}). The rest is "
                f"kept in {folder}; when the store is back: python -m fashion_mnist.sync"
            )
        finally:
            self.temporary.cleanup()


def reason_of(error: Exception) -> str:
    """The first line of what went wrong, without the details of retries."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    text = text.rpartition("failed with exception ")[2]
    return text.partition(" with url")[0].partition("(Background")[0].strip()[:200]
