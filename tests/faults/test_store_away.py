"""The tracking server goes away in the middle of a training; many trainings at once share a database."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from conftest import FEW, TINY, run_here
from mlflow.entities import Run
from tracking_server import Server, serve

EPOCH_SECONDS = 0.05  # about what one takes with a thousand images


@pytest.fixture
def server(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve(empty_folder) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
        yield server


def training(seconds: float, tiny_data: Path) -> subprocess.Popen[str]:
    """The main job with so many epochs that training takes about as long."""
    overrides = [*FEW, f"trainer.epochs={round(seconds / EPOCH_SECONDS)}", f"data_root={tiny_data}"]
    command = [sys.executable, "-m", "fashion_mnist", *overrides]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_epochs(client: mlflow.MlflowClient) -> Run:
    """Waits until the run has told its first epochs."""
    for _ in range(300):
        for run in client.search_runs([place.experiment_id for place in client.search_experiments()]):
            if run.info.status == "RUNNING" and "loss" in run.data.metrics:
                return run
        time.sleep(0.2)
    raise TimeoutError("no run has started")


def what_is_wrong(run_id: str) -> list[str]:
    """What the run lacks, or has twice."""
    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    run = client.get_run(run_id)
    wrong = [f"it is {run.info.status}"] * (run.info.status != "FINISHED")
    wrong += ["it is marked as unfinished"] * ("unfinished" in run.data.tags)
    epochs = int(run.data.params["trainer.epochs"])
    by_epoch = dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy"), epochs)
    for name, count in {**by_epoch, "test_accuracy": 1, "system/training_seconds": 1}.items():
        steps = [point.step for point in client.get_metric_history(run_id, name)]
        wrong += [f"{name} has steps {steps}"] * (steps != [*range(count)])
    models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
    wrong += [f"it has {len(models)} models"] * ([f"{model.status}" for model in models] != ["READY"])
    files = {file.path for folder in ("", "plots", "predictions") for file in client.list_artifacts(run_id, folder)}
    needed = {"config.yaml", "model_summary.txt", "plots/learning_curves.png", "predictions/test.npz"}
    wrong += [f"it lacks {needed - files}"] * (not needed <= files)
    if not wrong:
        mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
        mlflow.pyfunc.load_model(f"runs:/{run_id}/model")
    return wrong


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", ["stopped", pytest.param("killed", marks=pytest.mark.full)])
def test_a_server_that_is_away_for_a_while_costs_nothing(
    how: str, server: Server, tiny_data: Path, full: bool, survived: Callable
) -> None:
    away, count = (30, 3) if full else (12, 1)  # longer than a request waits for its answer
    complete = 0
    for _ in range(count):
        process = training(away + 10, tiny_data)
        run = wait_for_epochs(mlflow.MlflowClient(server.url))
        server.send(signal.SIGSTOP if how == "stopped" else signal.SIGKILL)
        time.sleep(away)
        if how == "stopped":
            server.send(signal.SIGCONT)
        else:
            server.start()
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        if "python -m fashion_mnist.sync" in errors:  # the server took longer to start than the training to end
            assert run_here(step="sync").returncode == 0
        wrong = what_is_wrong(run.info.run_id)
        print(wrong, errors)
        complete += not wrong
        assert not list(Path("checkpoints").rglob("*.*"))
    survived(f"tracking server {how} for {away} s in the middle of a training, then back", complete, count)


def train_while_the_server_dies(server: Server, tiny_data: Path) -> tuple[Run, str, str]:
    """Trains, and kills the server meanwhile; returns the run, and what the training printed."""
    process = training(12, tiny_data)  # long enough to notice it
    run = wait_for_epochs(mlflow.MlflowClient(server.url))
    server.send(signal.SIGKILL)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return run, output, errors


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_that_never_comes_back_is_told_by_sync(
    server: Server, tiny_data: Path, full: bool, survived: Callable
) -> None:
    complete, count = 0, 3 if full else 1
    for _ in range(count):
        run, output, errors = train_while_the_server_dies(server, tiny_data)
        assert "training goes on" in errors
        assert "python -m fashion_mnist.sync" in errors
        assert "test accuracy" in output
        refused = run_here(step="sync")
        assert refused.returncode == 1
        assert refused.stderr.startswith("error: not everything could be sent")
        server.start()
        for sentence in (f"Run {run.info.run_id} has been told everything.", "Everything has been sent."):
            done = run_here(step="sync")
            assert done.returncode == 0, done.stderr
            assert sentence in done.stdout
        wrong = what_is_wrong(run.info.run_id)
        print(wrong)
        complete += not wrong
        assert not list(Path("checkpoints").rglob("*.*"))
    survived("tracking server killed for good in the middle of a training, told by `sync` afterwards", complete, count)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.full
def test_a_sync_that_is_killed_is_done_by_the_next(server: Server, tiny_data: Path, survived: Callable) -> None:
    complete, count = 0, 5
    for number in range(count):
        run, _, _ = train_while_the_server_dies(server, tiny_data)
        server.start()
        killed = subprocess.Popen([sys.executable, "-m", "fashion_mnist.sync"], stdout=subprocess.DEVNULL)
        time.sleep(1.5 + 0.3 * number)
        killed.kill()
        killed.wait()
        assert run_here(step="sync").returncode == 0
        wrong = what_is_wrong(run.info.run_id)
        print(wrong)
        complete += not wrong
    survived("`sync` killed in the middle, then started again", complete, count)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("database", ["fresh", pytest.param("existing", marks=pytest.mark.full)])
def test_trainings_at_once_share_one_database(
    database: str, empty_folder: Path, tiny_data: Path, full: bool, survived: Callable
) -> None:
    if database == "fresh":
        Path("mlflow.db").unlink()
    count = 8 if full else 3
    job = [sys.executable, "-m", "fashion_mnist", *TINY, f"data_root={tiny_data}"]
    processes = [
        subprocess.Popen(
            [*job, f"seed={seed}", f"output_dir=out/{seed}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(count)
    ]
    errors = [process.communicate(timeout=500)[1] for process in processes]
    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    assert sum(place.name == "test" for place in client.search_experiments()) == 1
    (place,) = [place.experiment_id for place in client.search_experiments() if place.name == "test"]
    runs = client.search_runs([place])
    assert len(runs) == count
    complete = [run for run in runs if run.info.status == "FINISHED" and not what_is_wrong(run.info.run_id)]
    assert not any("locked" in error for error in errors), errors
    survived(f"{count} trainings at once on one {database} SQLite database", len(complete), count)
