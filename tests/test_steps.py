"""The steps by themselves and together, on a few hundred drawn garments."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest
from conftest import RESULTS, TINY, all_runs

from fashion_mnist.cli import compose
from fashion_mnist.config import Config
from fashion_mnist.data.dataset import read_card
from fashion_mnist.data.prepare import prepare
from fashion_mnist.errors import UserError
from fashion_mnist.evaluate import add_evaluation, evaluate
from fashion_mnist.fetch import fetch
from fashion_mnist.tracking.description import is_made_up, run_name
from fashion_mnist.tracking.lineage import config_digest, file_digest
from fashion_mnist.tracking.outbox import Outbox, Parcel
from fashion_mnist.train import train
from fashion_mnist.training import saving
from fashion_mnist.training.build import build

Compose = Callable[..., Config]


def test_a_model_that_refuses_its_arguments_is_named(tiny: Compose) -> None:
    config = tiny("model=cnn", "model.filters=[8,8,8,8,8]")  # five halvings of 28 pixels leave nothing
    with pytest.raises(UserError, match="cnn refuses its arguments"):
        build(config)


def test_a_saved_model_is_a_plain_keras_model_without_optimizer(tiny: Compose, empty_folder: Path) -> None:
    config = tiny()
    model = build(config)
    saving.save(model, config.model_file)
    loaded = saving.load(config.model_file)
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    assert all(np.array_equal(a, b) for a, b in zip(loaded.get_weights(), model.get_weights(), strict=True))
    assert config.model_file.stat().st_size < 4 * model.count_params() + 50_000
    assert [file.name for file in config.model_file.parent.iterdir()] == ["model.keras"]


def test_a_file_that_is_no_model_is_refused(tiny: Compose, empty_folder: Path) -> None:
    config = tiny()
    config.model_file.parent.mkdir(parents=True)
    config.model_file.write_bytes(b"not a model")
    with pytest.raises(UserError, match="is not a Keras model"):
        saving.load(config.model_file)


def test_without_validation_all_images_are_learned_from(tiny: Compose, empty_folder: Path) -> None:
    train(tiny("data.validation=0", "trainer.epochs=1"))
    assert set(json.loads(Path("outputs/metrics/mlp/train.json").read_text())) == {"accuracy", "loss", "parameters"}
    assert (empty_folder / "outputs/plots/mlp/learning_curves.png").stat().st_size > 5_000


def test_evaluation_of_a_model_from_elsewhere_gets_a_run_of_its_own(tiny: Compose, empty_folder: Path) -> None:
    config = tiny()
    saving.save(build(config), config.model_file)
    evaluate(config)
    (run,) = all_runs()
    assert run.info.run_name == "mlp (evaluation only)"
    assert run.info.status == "FINISHED"
    assert run.data.tags["model_digest"] == file_digest(config.model_file)


def test_a_failed_training_leaves_a_failed_run(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr("fashion_mnist.tracking.logged_model.save_model", broken)
    with pytest.raises(RuntimeError, match="out of luck"):
        train(tiny())
    assert [run.info.status for run in all_runs()] == ["FAILED"]


def test_a_training_that_diverges_is_a_failure_and_leaves_no_model(tiny: Compose, empty_folder: Path) -> None:
    with pytest.raises(UserError, match=r"diverged.*optimizer\.learning_rate"):
        train(tiny("optimizer.learning_rate=1e30"))
    assert [run.info.status for run in all_runs()] == ["FAILED"]
    assert not list(empty_folder.rglob("*.keras"))


@pytest.mark.parametrize("validation", [0, 100])
def test_a_training_whose_last_update_diverges_is_one_too(validation: int, tiny: Compose, empty_folder: Path) -> None:
    one_step = ["trainer.epochs=1", "trainer.batch_size=1000", f"data.validation={validation}"]
    with pytest.raises(UserError, match=r"diverged in epoch 1.*optimizer\.learning_rate"):
        train(tiny(*one_step, "optimizer=adamw", "optimizer.learning_rate=3e38", "optimizer.beta_1=0.999"))
    assert not list(empty_folder.rglob("*.keras"))


@pytest.mark.parametrize("folder", RESULTS)
def test_a_results_folder_that_cannot_be_written_is_refused_before_training(
    folder: str, tiny: Compose, empty_folder: Path
) -> None:
    (empty_folder / "outputs").mkdir()
    (empty_folder / folder).touch()
    with pytest.raises(UserError, match=f"cannot write to {folder}/mlp.*output_dir="):
        train(tiny())
    assert not all_runs()


def test_evaluation_on_other_data_does_not_touch_the_run_of_the_training(tiny: Compose, tmp_path: Path) -> None:
    run_id = train(tiny())
    evaluate(tiny("data.drawing_seed=9", "data.train_images=200", f"data_root={tmp_path}/other"))
    runs = {run.info.run_id: run for run in all_runs()}
    assert "test_accuracy" not in runs.pop(run_id).data.metrics
    assert [run.info.run_name for run in runs.values()] == ["mlp (evaluation only)"]


def test_results_of_another_runs_model_are_not_recorded(tiny: Compose) -> None:
    first = train(tiny("trainer.epochs=1"))
    second = tiny("trainer.epochs=1", "seed=1")
    train(second)  # into the same folder
    dataset, client = prepare(second.data, second.data_root), mlflow.MlflowClient()
    with pytest.raises(UserError, match="another run has replaced"):
        add_evaluation(second, dataset.card, {}, Outbox(client, second.tracking.uri, client.get_run(first)))
    assert "test_accuracy" not in mlflow.get_run(first).data.metrics


@pytest.mark.parametrize(
    ("swept", "runs", "kind"),
    [
        pytest.param([], 1, signal.SIGINT, id="run"),
        pytest.param([], 1, signal.SIGTERM, id="run of a scheduler", marks=pytest.mark.slow),
        pytest.param(["-m", "seed=0,1"], 2, signal.SIGINT, id="sweep", marks=pytest.mark.slow),
    ],
)
def test_ctrl_c_marks_the_run_as_killed_and_says_how_to_go_on(
    swept: list[str], runs: int, kind: signal.Signals, empty_folder: Path, tiny_data: Path
) -> None:
    keys = [*TINY, f"data_root={tiny_data}", "trainer.epochs=100000", *swept]
    command = [sys.executable, "-m", "fashion_mnist.train", *keys]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    assert any("Epoch 3/" in line for line in process.stdout)
    process.send_signal(kind)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert " of 100000 epochs are done; the same command goes on from there." in output
    assert [run.info.status for run in all_runs()] == ["KILLED"] * runs


@pytest.mark.slow
def test_several_first_runs_at_once_set_the_database_up_together(empty_folder: Path, tiny_data: Path) -> None:
    (empty_folder / "mlflow.db").unlink()
    command = [sys.executable, "-m", "fashion_mnist.train", *TINY, f"data_root={tiny_data}", "trainer.epochs=1"]
    started = [subprocess.Popen([*command, f"output_dir={number}"], stderr=subprocess.PIPE) for number in range(3)]
    errors = [process.communicate(timeout=200)[1].decode() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], errors
    assert sorted(run.info.status for run in all_runs()) == ["FINISHED"] * 3


@pytest.mark.slow
def test_a_tracking_server_works_like_the_database(server: str, tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    config = tiny()
    run_id = train(config)
    evaluate(config)
    run = mlflow.MlflowClient(server).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert "test_accuracy" in run.data.metrics
    loaded = mlflow.pyfunc.load_model(f"runs:/{run_id}/model")
    assert loaded.predict(np.zeros((1, 28, 28), np.uint8)).shape == (1, 10)


def test_the_run_of_mlflow_run_is_continued(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny()
    client = mlflow.MlflowClient(config.tracking.uri)
    given = client.create_run(client.create_experiment("given"), run_name="my own name").info
    monkeypatch.setenv("MLFLOW_RUN_ID", given.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", given.experiment_id)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    assert train(config) == given.run_id
    assert client.get_run(given.run_id).info.run_name == "my own name"


def test_a_name_that_somebody_gave_is_kept() -> None:
    from mlflow.utils.name_utils import _generate_random_name

    assert all(is_made_up(_generate_random_name()) for _ in range(100))
    assert not any(map(is_made_up, ("lesson-cnn-2", "my-run-1", "mlp", "", None)))


@pytest.mark.slow
def test_what_cannot_be_sent_is_said(tiny: Compose, empty_folder: Path, capsys: pytest.CaptureFixture) -> None:
    Parcel(tiny().tracking.uri, "0" * 32, tags={"a": "b"}).keep()
    train(tiny("trainer.epochs=1"))
    assert "cannot be sent yet (" in capsys.readouterr().err


def test_the_run_that_mlflow_opens_for_a_single_step_says_what_it_is(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny()
    trained = train(config)
    client = mlflow.MlflowClient(config.tracking.uri)
    for step, name in ((fetch, "fetch synthetic"), (evaluate, "evaluate mlp")):
        run_id = client.create_run("0").info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
        step(config)
        assert client.get_run(run_id).info.run_name == name
    assert trained in client.get_run(run_id).data.tags["mlflow.note.content"]
    assert "test_accuracy" in client.get_run(trained).data.metrics


def test_the_configuration_digest_ignores_where_results_go(tiny: Compose) -> None:
    assert config_digest(tiny()) == config_digest(tiny("output_dir=elsewhere", "tracking.run_name=x"))
    for change in (
        "seed=5",
        "augment=standard",
        "model=cnn",
        "optimizer=sgd",
        "trainer.epochs=3",
        "data.validation=50",
    ):
        assert config_digest(tiny()) != config_digest(tiny(change))


def test_a_whole_number_for_a_fraction_is_the_same_configuration(tiny: Compose) -> None:
    whole, fraction = (tiny("model=cnn_dropout", f"model.dropout={value}") for value in ("0", "0.0"))
    assert config_digest(whole) == config_digest(fraction)


def test_runs_are_named_after_what_departs_from_the_defaults(tiny: Compose, tiny_data: Path) -> None:
    card = read_card(tiny_data / "synthetic")
    for typed, name in (
        (["optimizer=sgd"], "mlp optimizer=sgd"),
        (["augment=none", "optimizer=adam", "trainer.schedule=cosine", "seed=7"], "mlp schedule=cosine seed=7"),
        (["model=cnn", "optimizer=adamw", "trainer=one_cycle", "seed=7"], "cnn seed=7"),  # which cnn.yaml says, too
        (["model=cnn", "optimizer=adam", "trainer=default"], "cnn optimizer=adam trainer=default"),
        (["model=cnn_augmented", "augment=mirrored", "optimizer=adamw"], "cnn_augmented"),
        (["experiment=ladder_91", "optimizer=adamw"], "ladder_91 experiment=ladder_91"),
        (
            ["experiment=ladder_91", "optimizer=adam", "~optimizer.weight_decay"],
            "ladder_91 experiment=ladder_91 optimizer=adam ~weight_decay",
        ),
    ):
        assert run_name(compose(typed), replace(card, name="fashion_mnist")) == name
    assert run_name(compose(["seed=7"]), card) == "mlp synthetic seed=7"
