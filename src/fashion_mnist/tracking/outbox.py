"""What one run tells the tracking store once it is open: metrics in the background, everything else at its end.

What the store does not take is kept on disk as a parcel. Whatever is sent twice arrives once: metrics keep their time
and step, tags and files replace themselves, and a model is only logged where there is none yet. So a sender may be
killed at any moment, and another one starts from the beginning.
"""

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from fashion_mnist.config import TrackingConfig
from fashion_mnist.errors import UserError, progress, reason_of, say
from fashion_mnist.files import FOLDER, alone_in, workplace
from fashion_mnist.tracking.logged_model import log_model, logged_model
from fashion_mnist.tracking.store import UNFINISHED, connect
from fashion_mnist.trials.trial import Trial

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EVERY = 2.0  # seconds between two messages to the store, of which one for each epoch would be too many
UNSENT = FOLDER / "unsent"
BATCH = 1000  # metrics that MLflow takes at once


class Outbox:
    def __init__(self, client: "MlflowClient", uri: str, run: "Run", trial: Trial | None = None) -> None:
        self.client, self.run_id = client, run.info.run_id
        self.trial = trial  # of a search, which hears of each epoch too
        self.parcel = Parcel(uri, self.run_id)
        self.tags = dict(run.data.tags)  # what the run has, and will have
        self.temporary = tempfile.TemporaryDirectory(prefix="fashion-mnist-")
        self.folder = Path(self.temporary.name)  # where files may be made that are only for the store
        self.values = dict(run.data.metrics)  # the latest that are told
        history = client.get_metric_history
        self.steps = {key: {point.step for point in history(self.run_id, key)} for key in self.values}  # told already
        self.closed = self.kept = False  # whether something is left to `sync`
        self.refused: str | None = None  # by a store that is there, and why; nothing if it has taken all
        self.closing = threading.Event()

    def measure(self, values: Mapping[str, float], step: int = 0, of_model: bool = False) -> None:
        """Tells metrics, except those that are told already; a model may be evaluated again, with other results."""
        now = int(time.time() * 1000)
        for key, value in values.items():
            other_result = of_model and not key.startswith("system/") and value != self.values.get(key)
            if step not in self.steps.setdefault(key, set()) or other_result:
                self.steps[key].add(step)
                self.values[key] = value
                self.parcel.metrics.append(Measured(key, float(value), now, step, of_model))

    def tag(self, tags: dict[str, str]) -> None:
        self.tags |= tags
        self.parcel.tags |= tags

    def add(self, file: Path, place: str) -> None:
        """Tells a file as it is now, for a folder of the run's artifacts."""
        copy = self.folder / "files" / str(len(self.parcel.files)) / file.name
        copy.parent.mkdir(parents=True)
        shutil.copyfile(file, copy)
        self.parcel.files.append((str(copy), place))

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
        """What does not arrive is sent again, and what `measure` appends meanwhile is sent next time."""
        uri, away = self.parcel.uri, False
        while not self.closing.wait(EVERY):
            if not (waiting := list(self.parcel.metrics)):
                continue
            try:
                send_metrics(self.client, self.run_id, waiting)
            except Exception as error:  # whatever it is: training goes on
                if not away:
                    say(f"{uri} takes nothing now ({reason_of(error)}); training goes on, and the rest waits.")
                away = True
                continue
            del self.parcel.metrics[: len(waiting)]  # as atomic as appending: neither needs a lock
            if away:
                say(f"{uri} is back, and has been told everything so far.")
            away = False

    def close(self, status: str | None = None) -> None:
        """Sends everything, and gives the run a status, if any; what the store does not take is kept on disk.

        A UserError says what a store refuses that does answer, or that nothing can be kept.
        """
        if self.closed:
            return
        self.closed = True
        self.parcel.status, self.parcel.ended = status, int(time.time() * 1000) if status else None
        try:
            self.refused = deliver(self.client, self.parcel)
            rest = self.parcel.keep() if self.refused else ""
        except BaseException as error:
            rest, self.kept = self.parcel.keep(), True
            say(f"{self.parcel.uri} cannot be told all of run {self.run_id} ({reason_of(error)}). The rest is {rest}")
            if not isinstance(error, Exception):
                raise
        finally:
            self.temporary.cleanup()
        if self.refused:
            raise UserError(f"run {self.run_id} lacks what {self.parcel.uri} refuses: {self.refused}. It is {rest}")


class Measured(NamedTuple):
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

    def keep(self) -> str:
        """Writes the parcel to disk, whole or not at all, and says where it is kept and how it is sent."""
        folder = UNSENT / f"{time.time_ns()}-{self.run_id}"
        content = asdict(self)
        try:
            UNSENT.mkdir(parents=True, exist_ok=True)
            with alone_in(UNSENT), workplace(UNSENT) as unfinished:
                partial = Path(unfinished) / "parcel"
                partial.mkdir()
                for number, (file, place) in enumerate(self.files):
                    copy = partial / "files" / str(number) / Path(file).name
                    copy.parent.mkdir(parents=True)
                    shutil.copyfile(file, copy)
                    content["files"][number] = [str(copy.relative_to(partial)), place]
                if self.model:
                    shutil.copytree(self.model, partial / "model")
                    content["model"] = "model"
                (partial / "parcel.json").write_text(json.dumps(content), encoding="utf-8")
                partial.rename(folder)
        except OSError as error:
            raise UserError(
                f"{self.uri} cannot be told everything of run {self.run_id}, and the rest cannot be kept in {UNSENT} "
                f"({error.strerror}); mend that, and start the same command again."
            ) from error
        return f"kept in {folder}; when the store takes it: python -m fashion_mnist.sync"

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Reads what `keep` wrote, or says in a UserError that it is damaged."""
        try:
            content = json.loads((folder / "parcel.json").read_text(encoding="utf-8"))
            content["metrics"] = [Measured(*values) for values in content["metrics"]]
            content["files"] = [(str(folder / file), place) for file, place in content["files"]]
            content["model"] = content["model"] and str(folder / content["model"])
            return cls(**content)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder} is damaged ({error}); delete it.") from error


def deliver(client: "MlflowClient", parcel: Parcel) -> str:
    """In such an order that a run which is finished lacks nothing but what the store refuses, which is returned."""
    from mlflow.entities import RunTag

    send_metrics(client, parcel.run_id, [metric for metric in parcel.metrics if not metric.of_model])
    files = {file: partial(client.log_artifact, parcel.run_id, file, place or None) for file, place in parcel.files}
    if parcel.model:
        files[parcel.model] = partial(log_model, client, parcel.run_id, Path(parcel.model))
    refused: dict[str, str] = {}
    for file, send in files.items():
        with suppress(Exception):
            send()
            continue
        client.get_run(parcel.run_id)  # fails too where the store is away; else it may refuse this file alone
        try:
            send()
        except Exception as error:
            if getattr(error, "errno", None):  # a disk in trouble, which may take everything later
                raise
            refused[Path(file).name] = reason_of(error)
    if of_model := [metric for metric in parcel.metrics if metric.of_model]:
        model = logged_model(client, parcel.run_id)
        send_metrics(client, parcel.run_id, of_model, model.model_id if model else None)
    if parcel.tags:
        client.log_batch(parcel.run_id, tags=[RunTag(key, value) for key, value in parcel.tags.items()])
    if parcel.status:
        client.set_terminated(parcel.run_id, parcel.status, parcel.ended)
    return f"{', '.join(refused)} ({next(iter(refused.values()))})" if refused else ""


def forget(client: "MlflowClient", run_id: str) -> None:
    """Takes from a finished run the mark that it is unfinished."""
    if UNFINISHED in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, UNFINISHED)


def send_kept(client: "MlflowClient", uri: str) -> tuple[list[str], dict[str, str]]:
    """Sends what is kept for a store, oldest first; the runs that lack nothing now, and why which folder stays."""
    sent: list[str] = []
    stays: dict[str, str] = {}
    with alone_in(UNSENT):
        for folder in progress(kept(), "sending"):
            try:
                parcel = Parcel.read(folder)
                if parcel.uri != uri or any(parcel.run_id in each for each in stays):  # in their order, or not at all
                    continue
                unfinished = parcel.status not in (None, "FINISHED")
                if unfinished and client.get_run(parcel.run_id).info.status == "FINISHED":
                    parcel = Parcel(parcel.uri, parcel.run_id)  # it has gone on meanwhile, and was told all of it again
                if refused := deliver(client, parcel):
                    raise UserError(refused)
                if parcel.status == "FINISHED":
                    forget(client, parcel.run_id)
                shutil.rmtree(folder)
                sent.append(parcel.run_id)
            except Exception as error:  # whatever it is: the parcel stays, and others may go
                stays[str(folder)] = reason_of(error)
    return list(dict.fromkeys(sent)), stays


def catch_up(config: TrackingConfig) -> None:
    """Sends what the store could not be told earlier, so that what is about to be looked up there is complete."""
    if kept():
        _, stays = send_kept(connect(config), config.uri)
        for folder, reason in stays.items():
            say(f"{folder} cannot be sent yet ({reason}); python -m fashion_mnist.sync tries again.")


def kept() -> list[Path]:
    """The folders of all parcels, oldest first."""
    return sorted(UNSENT.glob("[0-9]*"))


def send_metrics(client: "MlflowClient", run_id: str, metrics: list[Measured], model_id: str | None = None) -> None:
    """Sends metrics, and links them with a model and the data that the run is about."""
    from mlflow.entities import Metric

    about: dict[str, str] = {}
    if model_id:
        about = {"model_id": model_id, "run_id": run_id}
        inputs = client.get_run(run_id).inputs
        for data in inputs.dataset_inputs[:1] if inputs else ():
            about |= {"dataset_name": data.dataset.name, "dataset_digest": data.dataset.digest}
    entries = [Metric(key, value, when, step, **about) for key, value, when, step, _ in metrics]
    for start in range(0, len(entries), BATCH):
        client.log_batch(run_id, metrics=entries[start : start + BATCH])
