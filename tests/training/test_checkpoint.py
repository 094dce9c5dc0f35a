"""Interrupted trainings go on: the same bytes, in the same MLflow run, and nobody is misled about it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
from conftest import RESULTS, assert_one_sentence, run_step
from mlflow.entities import Run

from fashion_mnist.config import Config
from fashion_mnist.data.dataset import read_card
from fashion_mnist.errors import UserError
from fashion_mnist.files import FOLDER
from fashion_mnist.tracking import lineage, outbox
from fashion_mnist.tracking.store import UNFINISHED
from fashion_mnist.train import train
from fashion_mnist.training import checkpoint
from fashion_mnist.training.checkpoint import Checkpoint

Compose = Callable[..., Config]
EPOCHS = 3
KINDS = {
    "dropout and augmentation": ["model=mlp_dropout", "augment=standard"],
    "a schedule": ["optimizer=sgd", "trainer.schedule=one_cycle"],
    "batch normalisation": ["model=resnet", "model.filters=[4]", "model.blocks=[1]", "augment.test_time_flip=true"],
    "early stopping": ["trainer.patience=2"],
    "networks side by side, in bfloat16": ["model=mlp", "trainer.members=2", "trainer.precision=bfloat16"],
}


@contextmanager
def interruption(after: int) -> Iterator[None]:
    """Interrupts trainings once so many epochs are done."""
    write = Checkpoint.write

    def write_and_stop(self: Checkpoint, progress: checkpoint.Progress, arrays: checkpoint.Arrays) -> None:
        write(self, progress, arrays)
        if progress.epoch == after:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "write", write_and_stop)
        with pytest.raises(KeyboardInterrupt, match=r"epochs are done; the same command goes on from there\."):
            yield


def client() -> mlflow.MlflowClient:
    return mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])


def runs() -> list[Run]:
    return client().search_runs([place.experiment_id for place in client().search_experiments()])


def steps(run: Run, metric: str) -> list[int]:
    return [point.step for point in client().get_metric_history(run.info.run_id, metric)]


def results() -> dict[str, bytes]:
    files = [file for kind in RESULTS for file in Path(kind).rglob("*") if file.is_file()]
    return {str(file): file.read_bytes() for file in files}


def left() -> list[Path]:
    return [file for file in FOLDER.rglob("*") if file.is_file() and file.name != "id"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_training_ends_in_the_bytes_of_an_undisturbed_one(kind: str, tiny: Compose) -> None:
    config = tiny(*KINDS[kind], f"trainer.epochs={EPOCHS}", "trainer.jit_compile=null")
    train(config)
    undisturbed = results()
    for after in (2, EPOCHS):
        with interruption(after):
            train(config)
        train(config)
        assert results() == undisturbed


def test_a_training_goes_on_in_its_run_without_doubled_or_missing_steps(
    tiny: Compose, capsys: pytest.CaptureFixture
) -> None:
    config = tiny(f"trainer.epochs={EPOCHS}")
    with interruption(after=2):
        train(config)
    (run,) = runs()
    assert run.info.status == "KILLED"
    run_id = train(config)
    said = capsys.readouterr().err
    assert f"Run {run_id} " in said
    assert "was not finished; it goes on after epoch 2." in said
    (run,) = runs()
    assert (run.info.run_id, run.info.status) == (run_id, "FINISHED")
    assert all(steps(run, metric) == [*range(EPOCHS)] for metric in ("loss", "accuracy", "val_loss", "val_accuracy"))
    assert steps(run, "system/training_seconds") == [0]
    assert len(run.outputs.model_outputs if run.outputs else []) == 1
    assert not left()


@pytest.mark.slow
def test_what_a_killed_process_had_not_told_is_told_by_the_next(tiny: Compose) -> None:
    config = tiny(f"trainer.epochs={EPOCHS}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fashion_mnist.tracking.outbox.deliver", lambda *_: None)  # as if there had been no time for it
        with interruption(after=2):
            train(config)
    (run,) = runs()
    assert run.info.status == "RUNNING"
    assert not run.data.metrics
    train(config)
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert steps(run, "val_loss") == [*range(EPOCHS)]


def test_ctrl_c_while_a_finished_run_is_told_makes_no_second_one(tiny: Compose) -> None:
    config, deliver = tiny(), outbox.deliver

    def interrupted(client: mlflow.MlflowClient, parcel: outbox.Parcel) -> str:
        if parcel.status == "FINISHED":
            raise KeyboardInterrupt
        return deliver(client, parcel)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outbox, "deliver", interrupted)
        with pytest.raises(KeyboardInterrupt, match=r"all epochs are done; python -m fashion_mnist\.sync"):
            train(config)
    outbox.catch_up(config.tracking)
    (run,) = runs()
    assert run.info.status == "FINISHED"
    assert UNFINISHED not in run.data.tags
    assert not left()


def test_a_training_that_was_killed_before_its_first_epoch_leaves_no_orphan(tiny: Compose) -> None:
    config = tiny()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fashion_mnist.tracking.outbox.deliver", lambda *_: None)
        patch.setattr("fashion_mnist.training.fit.fit", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(config)
    assert [run.info.status for run in runs()] == ["RUNNING"]
    train(config)
    assert [run.info.status for run in runs()] == ["FINISHED"]


@pytest.mark.slow
def test_a_finished_training_starts_anew_when_it_is_asked_for_again(tiny: Compose) -> None:
    assert train(tiny()) != train(tiny())


@pytest.mark.slow
def test_another_configuration_does_not_go_on_from_there(tiny: Compose) -> None:
    with interruption(after=1):
        train(tiny())
    train(tiny("seed=1"))
    assert sorted(run.info.status for run in runs()) == ["FINISHED", "KILLED"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["code", "TensorFlow", "Keras", "device", "environment"])
def test_a_checkpoint_of_other_origin_is_recognised(
    kind: str, tiny: Compose, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    with interruption(after=1):
        train(tiny())
    here = lineage.origin()
    if kind == "code":
        monkeypatch.setattr(lineage, "code_here", lambda: "other")
    monkeypatch.setattr(lineage, "origin", lambda: {**here, kind: "other"})
    with pytest.raises(UserError, match=f"was made with other {kind}.*trainer.resume=never"):
        train(tiny("trainer.resume=required"))
    train(tiny())
    assert f"was made with other {kind} ({here[kind]}, here other): training starts anew." in capsys.readouterr().err
    assert not left()


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["empty", "truncated", "a byte"])
def test_a_damaged_checkpoint_is_recognised(damage: str, tiny: Compose, capsys: pytest.CaptureFixture) -> None:
    with interruption(after=1):
        train(tiny())
    (file,) = left()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes({"empty": b"", "truncated": content[:-1], "a byte": content}[damage])
    train(tiny())
    assert "is damaged: training starts anew." in capsys.readouterr().err
    (run,) = runs()
    assert steps(run, "loss") == [0, 1]


def test_resume_never_starts_anew(tiny: Compose) -> None:
    with interruption(after=1):
        train(tiny())
    again = train(tiny("trainer.resume=never"))
    assert {run.info.run_id: run.info.status for run in runs()}[again] == "FINISHED"
    assert sorted(run.info.status for run in runs()) == ["FINISHED", "KILLED"]
    assert not any("unfinished" in run.data.tags for run in runs())


def test_resume_required_refuses_to_start_anew(tiny: Compose) -> None:
    with pytest.raises(UserError, match=r"there is no checkpoint .*mlp-seed0.* to go on from"):
        train(tiny("trainer.resume=required"))
    assert not runs()
    with interruption(after=1):
        train(tiny())
    train(tiny("trainer.resume=required"))
    assert [run.info.status for run in runs()] == ["FINISHED"]


@pytest.mark.slow
def test_two_processes_do_not_share_a_checkpoint(tiny: Compose, capsys: pytest.CaptureFixture) -> None:
    config = tiny()
    card = read_card(Path(config.data_root) / "synthetic")
    with Checkpoint(lineage.checkpoint_file(config, card), "auto") as other:
        train(config)
        assert "Another process trains the same at this moment" in capsys.readouterr().err
        other.file.parent.mkdir(exist_ok=True)
        other.file.touch()
        with pytest.raises(UserError, match="another process is just using"):
            train(tiny("trainer.resume=required"))
    assert [run.info.status for run in runs()] == ["FINISHED"]


def test_whether_to_go_on_is_one_of_three_words(empty_folder: Path) -> None:
    assert_one_sentence(run_step("trainer.resume=maybe"), "trainer.resume must be one of auto, never, required")
