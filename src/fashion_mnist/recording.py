"""One training as one MLflow run: opened or continued, described, told everything, and closed however it ends."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from fashion_mnist import lineage
from fashion_mnist.config import Config
from fashion_mnist.data.dataset import Card
from fashion_mnist.errors import say
from fashion_mnist.outbox import Outbox
from fashion_mnist.parcel import UNFINISHED, forget
from fashion_mnist.tracking import PARENT, SKIPPED, connect, experiment, is_made_up, label_step
from fashion_mnist.training.checkpoint import Checkpoint

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


@contextmanager
def recorded(config: Config, card: Card, tags: dict[str, str], checkpoint: Checkpoint) -> Iterator[Outbox]:
    """Records one training in the run that an interruption left behind, in that of `mlflow run`, or in a new one.

    Yields:
        What tells the run everything.
    """
    client = connect(config.tracking)
    run = opened(client, config, tags, checkpoint)
    outbox = None
    try:
        describe(client, run, config, card, tags)
        outbox = Outbox(client, config.tracking.uri, client.get_run(run.info.run_id))
        progress = checkpoint.progress
        for epoch in range(progress.epoch if progress else 0):  # what was not told when the training was killed
            outbox.measure({name: values[epoch] for name, values in progress.history.items()}, epoch)  # pyright: ignore
        yield outbox
        outbox.close("FINISHED")
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        with suppress(Exception):  # what went wrong first is what should be heard
            status = "KILLED" if interrupted else "FAILED"
            outbox.close(status) if outbox else client.set_terminated(run.info.run_id, status)
        if interrupted and checkpoint.progress:
            done = f"{checkpoint.progress.epoch} of {config.trainer.epochs} epochs"
            raise KeyboardInterrupt(f"{done} are done; the same command goes on from there.") from None
        raise
    checkpoint.remove()
    if outbox.delivered:
        forget(client, outbox.run_id)


def opened(client: "MlflowClient", config: Config, tags: dict[str, str], checkpoint: Checkpoint) -> "Run":
    """The run to record in, with status RUNNING, nested below the sweep's run where there is one."""
    from mlflow.tracking.context.registry import resolve_tags

    place = experiment(config.tracking, client)
    parent = os.environ.get(PARENT)
    marks = {UNFINISHED: checkpoint.digest} if checkpoint.ours else {}
    if parent:
        marks["mlflow.parentRunId"] = parent
    given = None if parent else os.environ.pop("MLFLOW_RUN_ID", None)
    run = unfinished_run(client, place, tags, checkpoint)
    if run is not None:
        done = f"after epoch {checkpoint.progress.epoch}" if checkpoint.progress else "from its beginning"
        say(f"Run {run.info.run_id} ({run.info.run_name}) was not finished; it goes on {done}.")
        if given and given != run.info.run_id:
            name, note = f"goes on: {run.info.run_name}", f"Recorded in run `{run.info.run_id}`."
            label_step(config.tracking, name, note, given)
    elif given:
        run = client.get_run(given)
    else:
        return client.create_run(place, tags=resolve_tags(marks))
    for key, value in marks.items():
        client.set_tag(run.info.run_id, key, value)
    client.update_run(run.info.run_id, "RUNNING")
    return run


def unfinished_run(client: "MlflowClient", place: str, tags: dict[str, str], checkpoint: Checkpoint) -> "Run | None":
    """The run that a killed process left behind for this checkpoint; others like it are closed.

    None of them can be at work, since only one process at a time has the checkpoint.
    """
    if not checkpoint.ours:
        return None
    left = client.search_runs(
        [place], f"tags.{UNFINISHED} = '{checkpoint.digest}'", order_by=["attributes.start_time DESC"]
    )
    found = None
    for run in left:
        same = all(run.data.tags.get(key, tags[key]) == tags[key] for key in (*lineage.DECISIVE, "device"))
        complete = run.info.status == "FINISHED" and checkpoint.progress is None
        if found is None and same and not complete and checkpoint.resume != "never":
            found = run
            continue
        if run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, "KILLED")
        client.delete_tag(run.info.run_id, UNFINISHED)
    return found


def describe(client: "MlflowClient", run: "Run", config: Config, card: Card, tags: dict[str, str]) -> None:
    """Puts into a run everything that is known before training starts."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.http_dataset_source import HTTPDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.entities import DatasetInput, InputTag, Param, RunTag

    identifier = run.info.run_id
    tags = {**tags, "mlflow.note.content": lineage.note(config, card, tags)}
    if is_made_up(run.info.run_name) or config.tracking.run_name:
        tags["mlflow.runName"] = lineage.run_name(config, card)
    # `mlflow run -P` has recorded its own parameters, and a parameter never changes.
    params = {key: value for key, value in lineage.params(config).items() if key not in run.data.params}
    client.log_batch(
        identifier,
        params=[Param(key, value[:6000]) for key, value in params.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    client.log_text(identifier, OmegaConf.to_yaml(config.composed()), "config.yaml")
    client.log_text(identifier, OmegaConf.to_yaml(config.overrides), "overrides.yaml")
    if tags["git_dirty"] == "true" and (patch := lineage.uncommitted()) is not None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / lineage.PATCH
            file.write_bytes(patch)
            client.log_artifact(identifier, str(file))
    official = card.source.startswith("http")
    source = HTTPDatasetSource(card.source) if official else CodeDatasetSource({"mlflow.source.name": card.source})
    dataset = MetaDataset(source, card.name, card.digest)._to_mlflow_entity()
    client.log_inputs(identifier, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def finished_run(config: Config, card: Card, evaluated: bool) -> "Run | None":
    """For a job of a sweep: the latest run that has finished the same with the same code, perhaps in another sweep.

    Args:
        config: what is to be trained.
        card: on what.
        evaluated: whether the model must have been evaluated too.
    """
    parent = os.environ.get(PARENT)
    if not (parent and config.skip_finished):
        return None
    client = connect(config.tracking)
    wanted = [f"tags.{key} = '{value}'" for key, value in lineage.decisive_tags(config, card).items()]
    if evaluated:
        wanted.append("metrics.test_accuracy >= 0")
    found = client.search_runs(
        [experiment(config.tracking, client)],
        " AND ".join(["attributes.status = 'FINISHED'", *wanted]),
        order_by=["attributes.start_time DESC"],
    )
    run = next((run for run in found if UNFINISHED not in run.data.tags), None)
    if run is None:
        return None
    if run.data.tags.get("mlflow.parentRunId") != parent:
        client.set_tag(parent, f"{SKIPPED}{run.info.run_id}", str(run.info.run_name))
    say(f"{run.info.run_name}: finished already, run {run.info.run_id}; skip_finished=false trains it again.")
    return run


def recorder(outbox: Outbox, checkpoint: Checkpoint) -> Any:
    """The callback that records every epoch, the model's summary and the time."""
    import keras

    before = checkpoint.progress.seconds if checkpoint.progress else 0.0

    class Recorder(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            """Records the model's summary, and starts the clock."""
            lines: list[str] = []
            self.model.summary(print_fn=lambda line, **_: lines.append(line))  # pyright: ignore
            summary = outbox.folder / "model_summary.txt"
            summary.write_text("\n".join(lines))
            outbox.add(summary, "")
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            """Records the epoch's metrics."""
            outbox.measure(logs or {}, epoch)

        def on_train_end(self, logs: Any = None) -> None:
            """Records the time, over all interruptions."""
            outbox.measure({"system/training_seconds": before + time.perf_counter() - self.start})

    return Recorder()
