"""The steps by themselves and together, on a few hundred drawn garments."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from conftest import ROOT, TINY, run_step
from mlflow.entities import Run

from fashion_mnist import saving, tracking
from fashion_mnist.cli import compose
from fashion_mnist.config import Config
from fashion_mnist.costs import of_prediction
from fashion_mnist.data import read_card
from fashion_mnist.errors import UserError
from fashion_mnist.evaluate import evaluate
from fashion_mnist.fetch import fetch
from fashion_mnist.fit import build
from fashion_mnist.lineage import config_digest, file_digest, run_name
from fashion_mnist.outbox import Outbox
from fashion_mnist.parcel import Parcel
from fashion_mnist.results import read_predictions, write_predictions
from fashion_mnist.scores import calibration_error, confusion, per_class_table, summarize
from fashion_mnist.train import train

Compose = Callable[..., Config]
VARIANTS = sorted(file.stem for file in (ROOT / "conf/model").glob("*.yaml"))
WITHOUT_DOWNLOADS = {
    "transfer": ["model.weights=random", "model.side=32", "trainer.epochs=2", "trainer.frozen_epochs=1"]
}


def all_runs() -> list[Run]:
    client = mlflow.MlflowClient()
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains_and_gives_the_same_bytes_again(variant: str, tiny: Compose) -> None:
    def outcome(folder: str) -> list[bytes]:
        config = tiny(f"model={variant}", f"output_dir={folder}", *WITHOUT_DOWNLOADS.get(variant, []))
        run_id = train(config)
        assert 0 < evaluate(config)["test_accuracy"] <= 1
        run = mlflow.get_run(run_id)
        assert run.info.status == "FINISHED"
        assert "test_accuracy" in run.data.metrics
        return [file.read_bytes() for file in sorted(Path(folder).rglob("*")) if file.is_file()]

    assert outcome("first") == outcome("again")
    assert len(all_runs()) == 2


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant not in WITHOUT_DOWNLOADS])
def test_another_seed_gives_other_weights(variant: str, tiny: Compose) -> None:
    weights = [build(tiny(f"model={variant}", f"seed={seed}")).get_weights() for seed in (1, 2)]
    assert not all(np.array_equal(one, other) for one, other in zip(*weights, strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_models_have_the_parameters_their_files_promise(variant: str, tiny: Compose) -> None:
    parameters = build(tiny(f"model={variant}", *WITHOUT_DOWNLOADS.get(variant, []))).count_params()
    assert f": {parameters:,} parameters" in (ROOT / f"conf/model/{variant}.yaml").read_text().splitlines()[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_models_take_raw_pixels_and_give_probabilities(variant: str, tiny: Compose) -> None:
    model = build(tiny(f"model={variant}", *WITHOUT_DOWNLOADS.get(variant, [])))
    images = np.full((3, 28, 28), 255, dtype=np.uint8)
    probabilities = np.asarray(model(images))
    assert probabilities.shape == (3, 10)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    rescaling = next(layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Rescaling))
    assert np.max(rescaling(images)) == pytest.approx(1.0)


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
    assert set(json.loads(Path("metrics/mlp/train.json").read_text())) == {"accuracy", "loss", "parameters"}
    assert (empty_folder / "plots/mlp/learning_curves.png").stat().st_size > 5_000


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

    monkeypatch.setattr("fashion_mnist.registry.save_model", broken)
    with pytest.raises(RuntimeError, match="out of luck"):
        train(tiny())
    assert [run.info.status for run in all_runs()] == ["FAILED"]


def test_a_training_that_diverges_is_a_failure_and_leaves_no_model(tiny: Compose, empty_folder: Path) -> None:
    with pytest.raises(UserError, match=r"diverged.*optimizer\.learning_rate"):
        train(tiny("optimizer.learning_rate=1e30"))
    assert [run.info.status for run in all_runs()] == ["FAILED"]
    assert not list(empty_folder.rglob("*.keras"))


@pytest.mark.parametrize("kind", ["models", "metrics", "plots", "predictions"])
def test_a_results_folder_that_cannot_be_written_is_refused_before_training(
    kind: str, tiny: Compose, empty_folder: Path
) -> None:
    (empty_folder / kind).touch()
    with pytest.raises(UserError, match=f"cannot write to {kind}/mlp.*output_dir="):
        train(tiny())
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    assert not all_runs()


def test_evaluation_on_other_data_does_not_touch_the_run_of_the_training(tiny: Compose, tmp_path: Path) -> None:
    run_id = train(tiny())
    evaluate(tiny("data.drawing_seed=9", f"data_root={tmp_path}/other"))
    runs = {run.info.run_id: run for run in all_runs()}
    assert "test_accuracy" not in runs.pop(run_id).data.metrics
    assert [run.info.run_name for run in runs.values()] == ["mlp (evaluation only)"]


def test_results_of_another_runs_model_are_not_recorded(tiny: Compose) -> None:
    first = train(tiny("trainer.epochs=1"))
    second = tiny("trainer.epochs=1", "seed=1")
    train(second)  # into the same folder
    client = mlflow.MlflowClient()
    with pytest.raises(UserError, match="another run has replaced"):
        evaluate(second, Outbox(client, second.tracking.uri, client.get_run(first)))
    assert "test_accuracy" not in mlflow.get_run(first).data.metrics


@pytest.mark.slow
def test_a_sweep_of_evaluations_takes_the_models_where_they_are(tiny: Compose, tiny_data: Path) -> None:
    train(tiny("trainer.epochs=1"))
    train(tiny("model=mlp_wide", "trainer.epochs=1"))
    process = run_step("-m", *TINY, f"data_root={tiny_data}", "model=mlp,mlp_wide", step="evaluate")
    assert process.returncode == 0, process.stderr
    assert all("test_accuracy" in run.data.metrics for run in all_runs())
    assert len(all_runs()) == 2


@pytest.mark.parametrize(
    ("swept", "runs", "kind"),
    [([], 1, signal.SIGINT), ([], 1, signal.SIGTERM), (["-m", "seed=0,1"], 2, signal.SIGINT)],
    ids=["run", "run of a scheduler", "sweep"],
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
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    assert [run.info.status for run in all_runs()] == ["KILLED"] * runs


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, migrated_store: Path, tiny_data: Path) -> Path:
    """The folder of a sweep over two variants and two seeds, in one process."""
    folder = tmp_path_factory.mktemp("sweep")
    shutil.copy(migrated_store, folder / "mlflow.db")
    jobs = ["-m", *TINY, f"data_root={tiny_data}", "model=mlp,cnn", "seed=3,4", "trainer.epochs=1"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
    process = subprocess.run(
        [sys.executable, "-m", "fashion_mnist.train", *jobs],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    (folder / "output.txt").write_text(process.stdout)
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    return folder


def test_a_sweep_is_one_parent_with_nested_children(sweep: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{sweep}/mlflow.db")
    runs = all_runs()
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {(run.data.tags["variant"], run.data.tags["seed"]) for run in children} == {
        ("mlp", "3"), ("mlp", "4"), ("cnn", "3"), ("cnn", "4"),
    }  # fmt: skip


def test_a_sweep_ends_with_its_jobs_side_by_side(sweep: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{sweep}/mlflow.db")
    (parent,) = [run for run in all_runs() if "mlflow.parentRunId" not in run.data.tags]
    table = [line for line in parent.data.tags["mlflow.note.content"].splitlines() if line.startswith("|")]
    assert table[0].startswith("| run | training | validation | seconds |")
    assert [line.split(" | ")[0] for line in table[2:]] == [
        "| mlp seed=3",
        "| mlp seed=4",
        "| cnn seed=3",
        "| cnn seed=4",
    ]
    printed = (sweep / "output.txt").read_text()
    (job,) = [run for run in all_runs() if (run.data.tags.get("variant"), run.data.tags.get("seed")) == ("cnn", "4")]
    assert f"{job.data.metrics['val_accuracy']:.4f}" in table[-1]
    assert f"{job.data.metrics['val_accuracy']:.4f}" in printed
    jobs = [run for run in all_runs() if "mlflow.parentRunId" in run.data.tags]
    best = max(jobs, key=lambda run: run.data.metrics["val_accuracy"])
    assert parent.data.tags["best_child"] == best.info.run_id
    assert f"Best by validation accuracy: [{best.info.run_name}]" in parent.data.tags["mlflow.note.content"]
    variant, seed = best.data.tags["variant"], best.data.tags["seed"]
    assert f"best by validation accuracy: {variant} seed={seed}" in printed


@pytest.mark.slow
def test_a_preset_can_be_a_sweep_of_its_own(tiny_data: Path, empty_folder: Path) -> None:
    keys = [*TINY[:3], f"data_root={tiny_data}", "trainer.epochs=1"]
    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    given = client.create_run(client.create_experiment("test"))  # as `mlflow run` does
    process = run_step("experiment=mlp_vs_cnn", *keys, step="main", MLFLOW_RUN_ID=given.info.run_id)
    assert process.returncode == 0, process.stderr
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    names = [run.data.tags.get("variant") for run in all_runs() if "test_accuracy" in run.data.metrics]
    assert sorted(f"{name}" for name in names) == ["cnn_dropout", "mlp"]
    assert "Accuracies of the sweep's runs" in process.stdout
    assert f"{mlflow.get_run(given.info.run_id).info.run_name}".startswith("sweep experiment=mlp_vs_cnn")


def test_a_job_of_a_sweep_gives_the_same_bytes_as_a_run_of_its_own(sweep: Path, tiny: Compose) -> None:
    alone = tiny("model=cnn", "seed=4", "trainer.epochs=1")
    train(alone)
    (in_sweep,) = sweep.glob("multirun/*/*/3/models/cnn/model.keras")
    assert in_sweep.read_bytes() == alone.model_file.read_bytes()


@pytest.mark.slow
def test_a_sweep_with_a_job_that_fails_goes_on_and_ends_as_failed(empty_folder: Path, tiny_data: Path) -> None:
    filters = "model.filters=[8,8,8,8,8],[4]"
    process = run_step("-m", *TINY, f"data_root={tiny_data}", "model=cnn", filters, "trainer.epochs=1")
    assert process.returncode == 1
    assert "refuses its arguments" in process.stderr
    assert "Traceback" not in process.stderr
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    runs = {run.info.run_id: run for run in all_runs()}
    (parent,) = [run for run in runs.values() if "sweep" in run.data.tags]
    (best,) = [run for run in runs.values() if run.info.status == "FINISHED"]
    assert sorted(run.info.status for run in runs.values()) == ["FAILED", "FINISHED"]
    assert parent.data.tags["best_child"] == best.info.run_id


@pytest.mark.slow
def test_several_first_runs_at_once_set_the_database_up_together(empty_folder: Path, tiny_data: Path) -> None:
    (empty_folder / "mlflow.db").unlink()
    command = [sys.executable, "-m", "fashion_mnist.train", *TINY[:4], f"data_root={tiny_data}", "trainer.epochs=1"]
    started = [subprocess.Popen([*command, f"output_dir={number}"], stderr=subprocess.PIPE) for number in range(3)]
    errors = [process.communicate(timeout=200)[1].decode() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], errors
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
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

    assert all(tracking.is_made_up(_generate_random_name()) for _ in range(100))
    assert not any(map(tracking.is_made_up, ("lesson-cnn-2", "my-run-1", "mlp", "", None)))


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


def test_runs_are_named_after_what_departs_from_the_defaults(tiny: Compose, tiny_data: Path) -> None:
    card = read_card(tiny_data / "synthetic")
    overrides = ["model=cnn", "augment=none", "optimizer=adam", "trainer.schedule=cosine", "seed=7"]
    assert run_name(compose(overrides), replace(card, name="fashion_mnist")) == "cnn schedule=cosine seed=7"
    assert run_name(compose(["optimizer=sgd"]), card) == "mlp synthetic optimizer=sgd"


def test_metrics_agree_with_counting_by_hand() -> None:
    labels = np.array([0, 0, 1, 2], dtype=np.uint8)
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.0, 0.0, 1.0]], dtype=np.float32)
    counts = confusion(labels, probabilities.argmax(axis=1), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    metrics = summarize(labels, probabilities, counts)
    assert metrics["test_accuracy"] == 0.75
    assert metrics["test_loss"] == pytest.approx(-np.log([0.7, 0.1, 0.5, 1.0]).mean(), abs=1e-6)
    assert metrics["test_macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    first = per_class_table(counts, ["a", "b", "c"])[0]
    assert (first["precision"], first["recall"], first["most often taken for"]) == (1.0, 0.5, "b")


def test_the_calibration_error_is_that_of_the_definition() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.35, 0.65]])
    # One bin holds three images of confidence 0.9, two of them right; another holds one of 0.65, which is right.
    assert calibration_error(labels, probabilities) == pytest.approx((3 * abs(0.9 - 2 / 3) + abs(0.65 - 1)) / 4)
    assert calibration_error(np.array([0]), np.array([[1.0, 0.0]])) == 0


def test_predictions_survive_being_written(tmp_path: Path) -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(10), 50).astype(np.float32)
    probabilities[0] = [0.50001, 0.49999] + [0] * 8  # equal as float16
    for name in ("one.npz", "other.npz"):
        write_predictions(tmp_path / name, np.arange(50) % 10, probabilities)
    read = read_predictions(tmp_path / "one.npz")
    assert read.labels.tolist() == (np.arange(50) % 10).tolist()
    assert read.predicted.tolist() == probabilities.argmax(axis=1).tolist()
    assert read.probabilities == pytest.approx(probabilities, abs=5e-4)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()
    for damaged in (b"", b"PK", (tmp_path / "one.npz").read_bytes()[:-100]):
        (tmp_path / "one.npz").write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged"):
            read_predictions(tmp_path / "one.npz")


def test_multiply_adds_are_counted_as_two_operations(tiny: Compose) -> None:
    operations = of_prediction(build(tiny("model=mlp")), np.zeros((2, 28, 28), np.uint8))["system/flops_per_image"]
    assert 2 * (784 * 128 + 128 * 10) <= operations <= 2.1 * (784 * 128 + 128 * 10)


def test_the_loss_is_the_one_that_keras_computes(tiny: Compose) -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(10), 200).astype(np.float32)
    labels = random.integers(0, 10, 200).astype(np.uint8)
    expected = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
    counts = confusion(labels, probabilities.argmax(axis=1), 10)
    assert summarize(labels, probabilities, counts)["test_loss"] == pytest.approx(
        np.mean(np.asarray(expected)), rel=1e-5
    )
