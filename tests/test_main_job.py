"""The main job as people start it: with `mlflow run`, with any key as a parameter, in one process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import yaml
from conftest import FEW, ROOT, needs_real_data
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run
from phases import PHASES

from fashion_mnist.__main__ import main_job
from fashion_mnist.config import Config
from fashion_mnist.data.dataset import SAMPLES
from fashion_mnist.data.prepare import prepare
from fashion_mnist.evaluate import add_evaluation
from fashion_mnist.evaluation.predictions import read_predictions
from fashion_mnist.tracking.lineage import file_digest
from fashion_mnist.train import train_model
from fashion_mnist.training.saving import load

Compose = Callable[..., Config]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, migrated_store: Path) -> Path:
    """The folder of one main job that `mlflow run` has done, with undeclared parameters, a dotted one among them."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "mlflow.db").write_bytes(migrated_store.read_bytes())
    keys = [*FEW[1:], "trainer.epochs=2", "data=auto", "data.mirrors=[]", "seed=7", "model.hidden=[16]"]
    keys += [f"output_dir={folder}", f"data_root={folder}/data"]
    command = ["mlflow", "run", str(ROOT), "--env-manager=local", "--experiment-name=lessons"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "FASHION_MNIST"))}
    environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "KERAS_HOME": str(folder / "keras")}
    environment["COLUMNS"] = "200"  # for the summary, whose paths are long here
    for key in keys:
        command += ["-P", key]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=120)
    (folder / "output.txt").write_text(process.stdout + process.stderr)
    assert process.returncode == 0, process.stdout + process.stderr
    return folder


@pytest.fixture
def run(job: Path) -> Run:
    mlflow.set_tracking_uri(f"sqlite:///{job}/mlflow.db")
    experiment = mlflow.get_experiment_by_name("lessons")
    assert experiment is not None
    runs = mlflow.MlflowClient().search_runs([experiment.experiment_id])
    assert len(runs) == 1
    return runs[0]


def artifacts(run: Run, folder: str | None = None) -> set[str]:
    return {file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id, folder)}


def test_it_gives_exactly_one_finished_run_with_test_metrics(run: Run) -> None:
    assert run.info.status == "FINISHED"
    assert 0 < run.data.metrics["test_accuracy"] <= 1
    assert {"test_loss", "test_macro_f1", "loss", "accuracy", "val_loss", "val_accuracy"} <= set(run.data.metrics)


def test_the_test_metrics_belong_to_the_model_too(run: Run) -> None:
    assert run.outputs is not None
    model = mlflow.get_logged_model(run.outputs.model_outputs[0].model_id)
    assert model.metrics is not None
    values = {metric.key: metric.value for metric in model.metrics}
    assert values["test_accuracy"] == run.data.metrics["test_accuracy"]


def test_metrics_are_logged_for_every_epoch_once(run: Run) -> None:
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        history = mlflow.MlflowClient().get_metric_history(run.info.run_id, name)
        assert [metric.step for metric in history] == [0, 1]


def test_the_composed_configuration_is_in_parameters_and_artifacts(run: Run, tmp_path: Path) -> None:
    assert run.data.params["trainer.epochs"] == "2"
    assert run.data.params["model.hidden"].strip("'") == "[16]"  # `mlflow run` records it quoted for the shell
    assert run.data.params["seed"] == "7"
    assert run.data.params["optimizer.learning_rate"] == "0.001"
    assert not [key for key in run.data.params if key.startswith(("opt_", "tracking."))]
    file = mlflow.MlflowClient().download_artifacts(run.info.run_id, "config.yaml", str(tmp_path))
    trainer = yaml.safe_load(Path(file).read_text())["trainer"]
    assert (trainer["epochs"], trainer["batch_size"]) == (2, 32)
    assert "overrides.yaml" in artifacts(run)


def test_tags_say_what_the_run_was_made_of(run: Run) -> None:
    tags = run.data.tags
    digests = ("dataset_digest", "config_digest", "lock_digest", "model_digest")
    assert all(len(tags[name]) == 16 and int(tags[name], 16) >= 0 for name in digests)
    assert tags["dataset"] == "synthetic"
    assert tags["seed"] == "7"
    assert tags["variant"] == "mlp"
    assert tags["git_dirty"] in ("true", "false")
    assert {"git_commit", "python", "tensorflow", "keras", "device"} <= set(tags)


def test_a_person_finds_it_by_name_and_description(run: Run) -> None:
    assert run.info.run_name is not None
    assert run.info.run_name.startswith("mlp synthetic ")
    assert "seed=7" in run.info.run_name
    assert "not Fashion-MNIST" in run.data.tags["mlflow.note.content"]
    assert "Test accuracy" in run.data.tags["mlflow.note.content"]


def test_the_dataset_is_an_input_of_the_run(run: Run) -> None:
    assert run.inputs is not None
    (dataset,) = [entry.dataset for entry in run.inputs.dataset_inputs]
    assert dataset.name == "synthetic"
    assert dataset.digest == run.data.tags["dataset_digest"]


def test_pictures_and_tables_are_artifacts(run: Run) -> None:
    names = ("learning_curves.png", "confusion_matrix.png", "predictions.png", "samples.png", "per_class.csv")
    assert {f"plots/{name}" for name in names} <= artifacts(run, "plots")


def test_the_logged_model_takes_raw_images_and_is_the_saved_one(run: Run, job: Path) -> None:
    logged = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    assert logged.metadata.signature is not None
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    probabilities = logged.predict(images)
    assert probabilities.shape == (5, 10)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    saved = load(job / "models/mlp/model.keras")
    assert np.array_equal(saved(images), probabilities)
    assert file_digest(job / "models/mlp/model.keras") == run.data.tags["model_digest"]


def test_the_summary_says_what_came_out_and_what_to_type_next(run: Run, job: Path) -> None:
    output = (job / "output.txt").read_text()
    assert f"{run.data.metrics['test_accuracy']:.4f}" in output
    assert "model.keras" in output
    assert "mlflow ui" in output
    assert run.info.run_id in output


def test_drawn_garments_come_with_a_banner_that_nobody_can_miss(job: Path) -> None:
    assert (job / "output.txt").read_text().count("NOT Fashion-MNIST") == 1


@pytest.mark.slow
def test_the_model_tells_pictures_through_mlflow_run(job: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{job}/mlflow.db"
    parameters = ["-P", f"pictures={job}/plots/mlp/learning_curves.png", "-P", f"output_dir={job}"]
    command = ["mlflow", "run", str(ROOT), "--env-manager=local", "-e", "predict", *parameters]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=job, timeout=120)
    assert process.returncode == 0, process.stderr
    assert "most probable" in process.stdout
    (run,) = mlflow.MlflowClient(environment["MLFLOW_TRACKING_URI"]).search_runs(["0"])
    assert run.info.run_name == "predict"
    assert run.data.tags["mlflow.note.content"] == f"Told by {job}/models/mlp/model.keras; pictures: 1."


def test_results_lie_where_dvc_looks_for_them(job: Path) -> None:
    assert set(json.loads((job / "metrics/mlp/test.json").read_text())) == {
        "test_accuracy",
        "test_loss",
        "test_macro_f1",
        "test_calibration_error",
        "flops_per_image",
    }
    assert (job / "plots/mlp/history.csv").read_text().startswith("epoch,accuracy,loss,val_accuracy,val_loss\n1,")
    assert (job / "plots/mlp/test/predictions.csv").read_text().startswith("actual,predicted\n")
    assert len(read_predictions(job / "predictions/mlp/test.npz").labels) == 100


def test_the_experiment_opens_in_the_view_for_training_runs(run: Run) -> None:
    experiment = mlflow.MlflowClient().get_experiment(run.info.experiment_id)
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_another_process_may_prepare_other_images_meanwhile(
    tiny: Compose, empty_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(
        f"data_root={empty_folder}/data", "data.train_images=100", "data.test_images=50", "data.validation=40"
    )
    dataset = prepare(config.data, config.data_root)
    test_labels, samples = dataset.test.labels.copy(), (dataset.folder / SAMPLES).read_bytes()

    def trained(*arguments: Any) -> None:
        train_model(*arguments)
        prepare(replace(config.data, drawing_seed=1), config.data_root)

    monkeypatch.setattr("fashion_mnist.__main__.train_model", trained)
    run_id = main_job(config)
    assert (read_predictions(config.predictions_file).labels == test_labels).all()
    assert Path(download_artifacts(f"runs:/{run_id}/plots/{SAMPLES}")).read_bytes() == samples


def test_what_a_run_is_told_is_what_lay_there_then(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    config, told = tiny(), []

    def added(*arguments: Any) -> None:
        add_evaluation(*arguments)
        told.append(config.predictions_file.read_bytes())
        config.predictions_file.write_bytes(b"of another run of this variant")

    monkeypatch.setattr("fashion_mnist.__main__.add_evaluation", added)
    file = download_artifacts(f"runs:/{main_job(config)}/predictions/test.npz")
    assert [Path(file).read_bytes()] == told


@needs_real_data
@pytest.mark.slow
def test_every_second_of_the_main_job_is_accounted_for(empty_folder: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/phases.py"), "--runs", "1", "--json", "phases.json"]
    process = subprocess.run([*command, "trainer.epochs=1"], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    (seconds,) = json.loads((empty_folder / "phases.json").read_text())
    total = seconds.pop("sum")
    assert set(seconds) == set(PHASES)  # so each has taken some time
    assert sum(seconds.values()) == pytest.approx(total, rel=0.01)
