"""One training as one MLflow run: opened or continued, described, told everything, and closed however it ends.

An evaluation finds that run again; a report gets a run of its own.
"""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashion_mnist.config import Config, TrackingConfig
from fashion_mnist.data.dataset import Card, Dataset
from fashion_mnist.data.prepare import prepare
from fashion_mnist.errors import Pruned, StorageAwayError, UserError, say
from fashion_mnist.files import digest_here, lock_of
from fashion_mnist.startup import import_tensorflow
from fashion_mnist.tracking import lineage, store
from fashion_mnist.tracking.description import describe
from fashion_mnist.tracking.outbox import Outbox, Parcel, catch_up, deliver, forget
from fashion_mnist.tracking.store import PARENT, UNFINISHED
from fashion_mnist.training.checkpoint import Checkpoint
from fashion_mnist.training.precision import faster_precision
from fashion_mnist.trials.study import RUN
from fashion_mnist.trials.trial import Trial

if TYPE_CHECKING:
    import keras
    from mlflow import MlflowClient
    from mlflow.entities import Run

SKIPPED = "skipped."  # and the id of a run that made a job needless: a tag of the sweep


def ready(config: Config) -> Dataset:
    """Makes sure, before any work is done, that runs can be recorded, results be written and the data be had."""
    store.check(config.tracking, config.overrides)
    catch_up(config.tracking)
    config.make_folders()
    dataset = prepare(config.data, config.data_root)
    config.data.name = dataset.card.name
    if config.data.source == "auto":
        config.data.source = dataset.card.name  # decided once
    if config.trainer.precision == "auto":
        config.trainer.precision = faster_precision()  # as well, and recorded
    return dataset


@contextmanager
def opened(config: Config, dataset: Dataset) -> Iterator[tuple["keras.Model", Outbox, Checkpoint]]:
    """Opens the run of one training: the one that an interruption left behind, that of `mlflow run`, or a new one.

    It is closed however the training ends. Gives the model with its first weights, what tells the run everything, and
    the checkpoint to go on from and to write. Imports TensorFlow.
    """
    _ = dataset.parts  # what cannot be read fails before anything else
    with (
        Checkpoint(lineage.checkpoint_file(config, dataset.card), config.trainer.resume) as checkpoint,
        trial_of(config) as trial,
    ):
        import_tensorflow()
        from fashion_mnist.training.build import build

        checkpoint.read(lineage.origin())
        card = dataset.card
        model = build(config, card.image_shape, len(card.class_names))  # what cannot be built leaves no run behind
        tags = lineage.tags(config, dataset.card)
        client = store.connect(config.tracking)
        run = run_of(client, config, tags, checkpoint)
        outbox = None
        try:
            describe(client, run, config, dataset.card, tags)
            outbox = Outbox(client, config.tracking.uri, client.get_run(run.info.run_id), trial)
            if trial:
                trial.note({RUN: run.info.run_id})
                outbox.tag({"trial": str(trial.number)})
            if progress := checkpoint.progress:
                for epoch in range(progress.epoch):  # what was not told when the training was killed
                    outbox.measure({name: values[epoch] for name, values in progress.history.items()}, epoch)
                if trial:
                    trial.report(dict(enumerate(progress.history["val_accuracy"])))
            yield model, outbox, checkpoint
            try:
                outbox.close("FINISHED")
            finally:
                if trial:
                    trial.complete(outbox.values["val_accuracy"])
        except BaseException as error:
            interrupted, pruned = isinstance(error, KeyboardInterrupt), isinstance(error, Pruned)
            with suppress(Exception):  # what went wrong first is what should be heard
                status = "KILLED" if interrupted or pruned else "FAILED"
                if outbox and pruned:
                    outbox.tag({"pruned": str(error)})
                outbox.close(status) if outbox else client.set_terminated(run.info.run_id, status)
            if interrupted and outbox and outbox.kept and outbox.parcel.status == "FINISHED":
                checkpoint.remove()
                raise KeyboardInterrupt("all epochs are done; python -m fashion_mnist.sync tells the rest.") from None
            if interrupted and checkpoint.progress:
                done = f"{checkpoint.progress.epoch} of {config.trainer.epochs} epochs"
                raise KeyboardInterrupt(f"{done} are done; the same command goes on from there.") from None
            if pruned and trial:  # it does not go on
                trial.prune()
                forget(client, run.info.run_id)
                checkpoint.remove()
            if outbox and outbox.refused and outbox.parcel.status == "FINISHED":  # nothing is left to be trained
                checkpoint.remove()
            raise
        checkpoint.remove()
        if outbox.refused == "":
            forget(client, outbox.run_id)


@contextmanager
def trial_of(config: Config) -> Iterator[Trial | None]:
    """The trial of a search that this training is, if it is one; of values that cannot be trained with, it is told."""
    if config.search is None:
        yield None
        return
    trial = Trial(config.search, config.trainer)
    try:
        yield trial
    except UserError as error:
        from mlflow.exceptions import MlflowException

        # A full disk, or a store that is away, says nothing of the values.
        if not isinstance(error, StorageAwayError) and not isinstance(error.__cause__, OSError | MlflowException):
            trial.fail(str(error))
        raise


def run_of(client: "MlflowClient", config: Config, tags: dict[str, str], checkpoint: Checkpoint) -> "Run":
    """The run to record in, with status RUNNING, nested below the sweep's run where there is one."""
    from mlflow.tracking.context.registry import resolve_tags

    parent = os.environ.get(PARENT)
    given = None if parent else store.given_run(client)
    place = store.experiment(config.tracking, client)
    marks = {UNFINISHED: checkpoint.digest} if checkpoint.ours else {}
    if parent:
        marks["mlflow.parentRunId"] = parent
    run = unfinished_run(client, place, tags, checkpoint) if checkpoint.ours else None
    if run is not None:
        done = f"after epoch {checkpoint.progress.epoch}" if checkpoint.progress else "from its beginning"
        say(f"Run {run.info.run_id} ({run.info.run_name}) was not finished; it goes on {done}.")
        if given:
            note = f"Recorded in run `{run.info.run_id}`."
            store.label_step(config.tracking, f"goes on: {run.info.run_name}", note, given)
    elif (run := given) is None:
        return client.create_run(place, tags=resolve_tags(marks))
    for key, value in marks.items():
        client.set_tag(run.info.run_id, key, value)
    client.update_run(run.info.run_id, "RUNNING")
    return run


def unfinished_run(client: "MlflowClient", place: str, tags: dict[str, str], checkpoint: Checkpoint) -> "Run | None":
    """The run that a killed process left behind for this checkpoint; others like it are closed.

    None of them can be at work, since only one process at a time has the checkpoint.
    """
    found = None
    for run in client.search_runs([place], f"tags.{UNFINISHED} = '{checkpoint.digest}'"):  # the latest first
        same = all(run.data.tags.get(key, tags[key]) == tags[key] for key in (*lineage.DECISIVE, "device"))
        complete = run.info.status == "FINISHED" and checkpoint.progress is None
        if found is None and same and not complete and checkpoint.resume != "never":
            found = run
            continue
        if run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, "KILLED")
        client.delete_tag(run.info.run_id, UNFINISHED)
    return found


def finished_run(config: Config, card: Card, evaluated: bool) -> "Run | None":
    """For a job of a sweep: the latest run, of any sweep, that has finished the same, and is evaluated where wanted."""
    parent = os.environ.get(PARENT)
    if not (parent and config.skip_finished):
        return None
    client = store.connect(config.tracking)
    same = lineage.decisive_tags(config, card)
    environment = same.pop("environment")  # which may hold quotes, and which older runs lack
    wanted = ["attributes.status = 'FINISHED'", *(f"tags.{key} = '{value}'" for key, value in same.items())]
    if evaluated:
        wanted.append("metrics.test_accuracy >= 0")
    place = store.experiment(config.tracking, client)
    for run in client.search_runs([place], " AND ".join(wanted)):  # the latest first
        if run.data.tags.get("environment", "none") == environment and UNFINISHED not in run.data.tags:
            if run.data.tags.get("mlflow.parentRunId") != parent:
                client.set_tag(parent, f"{SKIPPED}{run.info.run_id}", str(run.info.run_name))
            say(f"{run.info.run_name}: finished already, run {run.info.run_id}; skip_finished=false trains it again.")
            return run
    return None


def recorder(outbox: Outbox, checkpoint: Checkpoint) -> Any:
    """The callback that records every epoch, the model's summary and the time."""
    import keras

    before = checkpoint.progress.seconds if checkpoint.progress else 0.0  # until the interruption

    class Recorder(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            summary = outbox.folder / "model_summary.txt"
            self.model.summary(print_fn=lambda text, **_: summary.write_text(text, encoding="utf-8"))  # pyright: ignore
            outbox.add(summary, "")
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            outbox.measure(logs or {}, epoch)
            if outbox.trial and logs:
                outbox.trial.report({epoch: logs["val_accuracy"]})

        def on_train_end(self, logs: Any = None) -> None:
            outbox.measure({"system/training_seconds": before + time.perf_counter() - self.start})

    return Recorder()


def find_run(client: "MlflowClient", config: Config, card: Card) -> "Run":
    """The latest run that trained the model in the variant's folder on this dataset; else a run of its own."""
    digest = lineage.file_digest(config.model_file)
    everywhere = [place.experiment_id for place in client.search_experiments()]
    same = f"tags.model_digest = '{digest}' AND tags.dataset_digest = '{card.digest}'"
    if found := client.search_runs(everywhere, same, max_results=1):
        return found[0]
    tags = {
        "model_digest": digest,
        "variant": config.variant,
        "dataset": card.name,
        "dataset_digest": card.digest,
        "mlflow.note.content": "Evaluation of a model that was trained elsewhere or on other data.",
    }
    place = store.experiment(config.tracking, client)
    run = client.create_run(place, run_name=f"{config.variant} (evaluation only)", tags=tags)
    client.set_terminated(run.info.run_id)
    return run


def log_report(config: TrackingConfig, name: str, note: str, tags: dict[str, str], files: Sequence[Path]) -> str:
    """Records a report as a run of its own, or in the run that `mlflow run` has opened, and returns the run's id."""
    client = store.connect(config)
    given = store.given_run(client)
    place, mark = store.experiment(config, client), digest_here("report")
    with lock_of("report", mark):
        for left in client.search_runs([place], f"tags.{UNFINISHED} = '{mark}'"):  # of a process that was killed
            client.set_terminated(left.info.run_id, "KILLED")
            client.delete_tag(left.info.run_id, UNFINISHED)
        run_id = (given or client.create_run(place, tags={UNFINISHED: mark})).info.run_id
        # No parameters: `mlflow run -P` has recorded its own, and a parameter never changes.
        about = {"mlflow.runName": name[:200], "mlflow.note.content": note, "report": "comparison", UNFINISHED: mark}
        for key, value in (about | tags).items():
            client.set_tag(run_id, key, value)
        parcel = Parcel(config.uri, run_id, files=[(str(file), "") for file in files], status="FINISHED")
        refused = deliver(client, parcel)
        client.delete_tag(run_id, UNFINISHED)
    if refused:
        raise UserError(f"{config.uri} does not take {refused}; run {run_id} has the rest.")
    return run_id
