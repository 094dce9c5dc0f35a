"""Sweeps: one run with its jobs nested below, that can be interrupted and goes on."""

import os
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import hydra
import mlflow
import pytest
from conftest import FEW, TINY, all_runs, run_here, run_step

from fashion_mnist.config import CONF, Config
from fashion_mnist.tracking import store, sweep
from fashion_mnist.train import train

Compose = Callable[..., Config]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, migrated_store: Path, tiny_data: Path) -> Path:
    """The folder of a sweep over two variants and two seeds, in one process."""
    folder = tmp_path_factory.mktemp("sweep")
    shutil.copy(migrated_store, folder / "mlflow.db")
    jobs = ["-m", *TINY, f"data_root={tiny_data}", "model=mlp,cnn", "seed=3,4", "trainer.epochs=1"]
    with chdir(folder):
        process = run_here(*jobs, MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db")
    assert process.returncode == 0, process.stderr
    (folder / "output.txt").write_text(process.stdout)
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    return folder


def test_a_sweep_is_one_parent_with_nested_children(swept: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{swept}/mlflow.db")
    runs = all_runs()
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {(run.data.tags["variant"], run.data.tags["seed"]) for run in children} == {
        ("mlp", "3"), ("mlp", "4"), ("cnn", "3"), ("cnn", "4"),
    }  # fmt: skip


def test_a_sweep_ends_with_its_jobs_side_by_side(swept: Path) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{swept}/mlflow.db")
    (parent,) = [run for run in all_runs() if "mlflow.parentRunId" not in run.data.tags]
    table = [line for line in parent.data.tags["mlflow.note.content"].splitlines() if line.startswith("|")]
    assert table[0].startswith("| run | training | validation | seconds |")
    assert [line.split(" | ")[0] for line in table[2:]] == [
        "| mlp seed=3",
        "| mlp seed=4",
        "| cnn seed=3",
        "| cnn seed=4",
    ]
    printed = (swept / "output.txt").read_text()
    (job,) = [run for run in all_runs() if (run.data.tags.get("variant"), run.data.tags.get("seed")) == ("cnn", "4")]
    assert f"{job.data.metrics['val_accuracy']:.4f}" in table[-1]
    assert f"{job.data.metrics['val_accuracy']:.4f}" in printed
    jobs = [run for run in all_runs() if "mlflow.parentRunId" in run.data.tags]
    best = max(jobs, key=lambda run: run.data.metrics["val_accuracy"])
    assert parent.data.tags["best_child"] == best.info.run_id
    assert f"Best by validation accuracy: [{best.info.run_name}]" in parent.data.tags["mlflow.note.content"]
    variant, seed = best.data.tags["variant"], best.data.tags["seed"]
    assert f"best by validation accuracy: {variant} seed={seed}" in printed


def test_a_job_of_a_sweep_gives_the_same_bytes_as_a_run_of_its_own(swept: Path, tiny: Compose) -> None:
    alone = tiny("model=cnn", "seed=4", "trainer.epochs=1")
    train(alone)
    (in_sweep,) = swept.glob("multirun/*/*/3/models/cnn/model.keras")
    assert in_sweep.read_bytes() == alone.model_file.read_bytes()


def test_of_a_sweeps_jobs_as_many_are_described_as_there_is_room_for() -> None:
    rows = [["run", "seconds"], *([f"mlp seed={seed}", "1.0"] for seed in range(500))]
    told = sweep.fitting(rows, 2_000)
    assert len(told) <= 2_000
    shown = told.count("mlp seed=")
    assert shown > 50
    assert told.endswith(f"{500 - shown} more are nested below.")
    assert sweep.fitting(rows[:3], 2_000) == sweep.markdown(rows[:3])


@pytest.mark.slow
def test_a_preset_can_be_a_sweep_of_its_own(tiny_data: Path, empty_folder: Path) -> None:
    keys = [*FEW[:3], f"data_root={tiny_data}", "trainer.epochs=1"]
    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    given = client.create_run(client.create_experiment("test"))  # as `mlflow run` does
    process = run_here("experiment=mlp_vs_cnn", *keys, step="main", MLFLOW_RUN_ID=given.info.run_id)
    assert process.returncode == 0, process.stderr
    names = [run.data.tags.get("variant") for run in all_runs() if "test_accuracy" in run.data.metrics]
    assert sorted(f"{name}" for name in names) == ["cnn_dropout", "mlp"]
    assert "Accuracies of the sweep's runs" in process.stdout
    assert f"{mlflow.get_run(given.info.run_id).info.run_name}".startswith("sweep experiment=mlp_vs_cnn")


@pytest.mark.slow
def test_jobs_may_be_named_by_what_hydra_knows_of_them(tiny_data: Path, empty_folder: Path) -> None:
    named = ["tracking.run_name=job${hydra:job.num}", "output_dir=${hydra:runtime.output_dir}"]
    process = run_here("-m", *TINY, f"data_root={tiny_data}", "trainer.epochs=1", "seed=3,4", *named)
    assert process.returncode == 0, process.stderr
    assert {run.info.run_name for run in all_runs() if "mlflow.parentRunId" in run.data.tags} == {"job0", "job1"}
    (parent,) = [run for run in all_runs() if "mlflow.parentRunId" not in run.data.tags]
    assert f"{parent.info.run_name}".startswith("sweep data=synthetic")
    assert "job${hydra:job.num}" in parent.data.tags["mlflow.note.content"]
    assert len(list(empty_folder.glob("multirun/*/*/*/models/mlp/model.keras"))) == 2


@pytest.mark.slow
def test_a_sweep_with_a_job_that_fails_goes_on_and_ends_as_failed(empty_folder: Path, tiny_data: Path) -> None:
    filters = "model.filters=[8,8,8,8,8],[4]"
    process = run_step("-m", *TINY, f"data_root={tiny_data}", "model=cnn", filters, "trainer.epochs=1")
    assert process.returncode == 1
    assert "refuses its arguments" in process.stderr
    assert "Traceback" not in process.stderr
    runs = {run.info.run_id: run for run in all_runs()}
    (parent,) = [run for run in runs.values() if "sweep" in run.data.tags]
    (best,) = [run for run in runs.values() if run.info.status == "FINISHED"]
    assert sorted(run.info.status for run in runs.values()) == ["FAILED", "FINISHED"]
    assert parent.data.tags["best_child"] == best.info.run_id


@pytest.mark.slow
def test_a_sweep_of_evaluations_takes_the_models_where_they_are(tiny: Compose, tiny_data: Path) -> None:
    train(tiny("trainer.epochs=1"))
    train(tiny("model=mlp_wide", "trainer.epochs=1"))
    process = run_here("-m", *TINY, f"data_root={tiny_data}", "model=mlp,mlp_wide", step="evaluate")
    assert process.returncode == 0, process.stderr
    assert all("test_accuracy" in run.data.metrics for run in all_runs())
    assert len(all_runs()) == 2


@pytest.mark.slow
def test_a_sweep_that_is_started_again_trains_only_what_is_missing(empty_folder: Path, tiny_data: Path) -> None:
    jobs = [*TINY, f"data_root={tiny_data}", "-m", "optimizer.learning_rate=0.001,1e30"]
    for attempt in range(2):
        done = run_step(*jobs)
        assert done.returncode == 1
        assert "diverged" in done.stderr
        assert done.stderr.count("finished already") == attempt
        assert sorted(run.info.status for run in all_runs()) == [
            "FAILED",
            "FAILED",
            "FINISHED",
        ]


@pytest.mark.slow
def test_what_was_trained_under_other_orders_to_tensorflow_is_trained_again(
    empty_folder: Path, tiny_data: Path
) -> None:
    jobs = ["-m", *TINY, f"data_root={tiny_data}", "trainer.epochs=1", "seed=3"]
    orders = {"XLA_FLAGS": "--xla_dump_to='a b'"}
    for environment, trainings in ((orders, 1), (orders, 1), ({}, 2), ({}, 2)):
        assert run_here(*jobs, **environment).returncode == 0
        assert len([run for run in all_runs() if "model_digest" in run.data.tags]) == trainings


@pytest.mark.slow
def test_a_sweep_that_was_killed_goes_on_in_its_own_run(empty_folder: Path, tiny_data: Path) -> None:
    jobs = [*TINY, f"data_root={tiny_data}", "-m", "seed=0,1"]
    assert run_here(*jobs).returncode == 0
    (parent,) = [run for run in all_runs() if "sweep" in run.data.tags]
    (last,) = [run for run in all_runs() if run.data.tags.get("seed") == "1"]
    mlflow.MlflowClient().delete_run(last.info.run_id)  # as if it had never come to it
    mlflow.MlflowClient().update_run(parent.info.run_id, "RUNNING")
    shutil.rmtree("multirun")
    again = run_here(*jobs)
    assert again.stderr.count("finished already") == 1
    assert f"The sweep goes on in run {parent.info.run_id}" in again.stderr
    parents = [run for run in all_runs() if "sweep" in run.data.tags]
    assert [(run.info.run_id, run.info.status) for run in parents] == [(parent.info.run_id, "FINISHED")]
    children = [run for run in all_runs() if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.data.tags["seed"] for run in children) == ["0", "1"]
    assert run_here(*jobs, "skip_finished=false").returncode == 0
    assert len([run for run in all_runs() if "sweep" in run.data.tags]) == 2


@pytest.mark.slow
def test_a_sweep_that_has_finished_everything_is_finished(empty_folder: Path, tiny_data: Path) -> None:
    jobs = [*TINY, f"data_root={tiny_data}", "-m", "seed=0,1"]
    assert run_here(*jobs).returncode == 0
    (parent,) = [run for run in all_runs() if "sweep" in run.data.tags]
    interrupted = mlflow.MlflowClient().create_run("0", tags={"mlflow.parentRunId": parent.info.run_id})
    mlflow.MlflowClient().set_terminated(interrupted.info.run_id, "KILLED")
    assert run_here(*jobs).returncode == 0
    assert mlflow.get_run(parent.info.run_id).info.status == "FINISHED"


def test_all_jobs_of_a_sweep_are_found_however_many_there_are(swept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow.set_tracking_uri(f"sqlite:///{swept}/mlflow.db")
    (parent,) = [run for run in all_runs() if "sweep" in run.data.tags]
    jobs = sweep.jobs_of(mlflow.MlflowClient(), parent)
    assert len(jobs) > 1
    monkeypatch.setattr(store, "PAGE", 1)
    again = sweep.jobs_of(mlflow.MlflowClient(), parent)
    assert [job.info.run_id for job in again] == [job.info.run_id for job in jobs]


def test_a_sweep_does_not_go_on_in_a_run_that_was_deleted(empty_folder: Path) -> None:
    run_id = mlflow.MlflowClient().create_run("0").info.run_id
    mlflow.MlflowClient().delete_run(run_id)
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        composed = hydra.compose("config", return_hydra_config=True)
    assert not sweep.Sweep(composed).resume(run_id)


def test_another_option_in_conf_makes_another_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sweep.CONF, tmp_path / "conf")
    monkeypatch.setattr(sweep, "CONF", tmp_path / "conf")
    before = sweep.sweep_digest("train", ["seed=0,1"])
    (tmp_path / "conf/pipeline.yaml").open("a").write("# changed\n")  # which no sweep composes
    assert sweep.sweep_digest("train", ["seed=0,1"]) == before
    (tmp_path / "conf/trainer/default.yaml").open("a").write("# changed\n")
    assert sweep.sweep_digest("train", ["seed=0,1"]) != before
