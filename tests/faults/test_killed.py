"""A job that is killed with `kill -9`, whenever that is, and started again: the same bytes, and one complete run."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import NamedTuple

import mlflow
import pytest
from conftest import RESULTS, TINY, run_here, run_step
from mlflow.entities import Run

EPOCHS = 40
JOB = [*TINY[:1], "data.train_images=12000", "data.test_images=500", "data.validation=1000", f"trainer.epochs={EPOCHS}"]
# Functions in the middle of which the job is killed, when they are called for the n-th time.
MOMENTS = [
    ("fashion_mnist.tracking.store", "experiment", 1),
    ("fashion_mnist.tracking.run", "describe", 1),
    ("fashion_mnist.tracking.description", "params", 1),
    ("fashion_mnist.training.fit", "fit", 1),
    ("numpy", "savez", 1),
    ("numpy", "savez", EPOCHS // 2),
    ("numpy", "savez", EPOCHS),
    ("fashion_mnist.tracking.outbox", "send_metrics", 1),
    ("fashion_mnist.training.saving", "save", 1),
    ("fashion_mnist.files", "write_table", 1),
    ("fashion_mnist.tracking.logged_model", "save_model", 1),
    ("fashion_mnist.evaluate", "predict", 1),
    ("fashion_mnist.tracking.outbox", "deliver", 1),
    ("fashion_mnist.tracking.outbox", "log_model", 1),
    ("mlflow.MlflowClient", "log_outputs", 1),
    ("mlflow.MlflowClient", "log_model_artifacts", 1),
    ("mlflow.MlflowClient", "finalize_logged_model", 1),
    ("mlflow.MlflowClient", "set_terminated", 1),
    ("fashion_mnist.training.checkpoint.Checkpoint", "remove", 1),
    ("fashion_mnist.tracking.run", "forget", 1),
]
KILLER = """
import importlib, os, runpy, signal, sys
place, name, count, when, *sys.argv[1:] = sys.argv[1:]
module, _, owner = (place, "", "") if not place.split(".")[-1][0].isupper() else place.rpartition(".")
from fashion_mnist import startup
import_tensorflow = startup.import_tensorflow
def patch():
    here = importlib.import_module(module)
    here = getattr(here, owner) if owner else here
    original, calls = getattr(here, name), []
    def killed(*arguments, **settings):
        calls.append(0)
        if len(calls) == int(count) and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **settings)
        if len(calls) == int(count):
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(here, name, killed)
if module.startswith(("mlflow", "fashion_mnist")):
    import_tensorflow()
patch()
from fashion_mnist import __main__
from fashion_mnist.cli import main
main(__main__.main_job)
"""


class Undisturbed(NamedTuple):
    """What the job gives that nobody kills."""

    results: dict[str, bytes]
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, migrated_store: Path) -> Undisturbed:
    """The job in a folder of its own, whose drawn garments serve the other ones, too."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copy(migrated_store, folder / "mlflow.db")
    with chdir(folder):
        assert run_here(*JOB[:-1], data_root(tmp_path_factory), step="fetch").returncode == 0
        start = time.monotonic()
        store = f"sqlite:///{folder}/mlflow.db"
        done = run_step(*JOB, data_root(tmp_path_factory), step="main", MLFLOW_TRACKING_URI=store)
        assert done.returncode == 0, done.stderr
        return Undisturbed(results(), time.monotonic() - start)


def data_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"data_root={tmp_path_factory.getbasetemp()}/killed"


@pytest.fixture
def job(empty_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The job's overrides, in a folder of its own."""
    yield [*JOB, data_root(tmp_path_factory)]
    shutil.rmtree(empty_folder, ignore_errors=True)


def results() -> dict[str, bytes]:
    files = [file for kind in RESULTS for file in Path(kind).rglob("*") if file.is_file()]
    return {str(file): file.read_bytes() for file in files}


def new_runs(before: set[str]) -> list[Run]:
    client = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    places = [place.experiment_id for place in client.search_experiments()]
    return [run for run in client.search_runs(places) if run.info.run_id not in before]


def what_is_wrong(run: Run) -> list[str]:
    """What a complete run of the job would not look like; nothing, it is to be hoped."""
    client, wrong = mlflow.MlflowClient(os.environ["MLFLOW_TRACKING_URI"]), []
    wrong += [f"a run is {run.info.status}"] * (run.info.status != "FINISHED")
    wrong += ["it is marked as unfinished"] * ("unfinished" in run.data.tags)
    wrong += ["no test accuracy"] * ("test_accuracy" not in run.data.metrics)
    for name in run.data.metrics:
        steps = [point.step for point in client.get_metric_history(run.info.run_id, name)]
        wanted = [0] if name.startswith(("system/", "test_")) else [*range(EPOCHS)]
        wrong += [f"steps of {name}: {steps}"] * (steps != wanted)
    models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    wrong += [f"models: {[str(model.status) for model in models]}"] * (
        [f"{model.status}" for model in models] != ["READY"]
    )
    linked = len(run.outputs.model_outputs) if run.outputs else 0
    wrong += [f"{linked} links to models"] * (linked != 1)
    folders = ("", "plots", "predictions")
    kept = {file.path for folder in folders for file in client.list_artifacts(run.info.run_id, folder)}
    needed = {"config.yaml", "model_summary.txt", "plots/learning_curves.png", "predictions/test.npz"}
    return wrong + [f"artifacts lack {needed - kept}"] * (not needed <= kept)


def attempt(job: list[str], wanted: dict[str, bytes], kill: Callable[[], None]) -> list[str]:
    """Starts from nothing, kills, starts again; returns what is wrong then."""
    for kind in RESULTS:
        shutil.rmtree(kind, ignore_errors=True)
    before = {run.info.run_id for run in new_runs(set())}
    kill()
    # Killed when nothing was left to do but to tidy up, the job is complete, and done once more.
    was_complete = not left() and [run.info.status for run in new_runs(before)] == ["FINISHED"]
    again = run_here(*job, step="main")
    if again.returncode:
        return [again.stderr]
    runs = new_runs(before)
    wrong = [f"{len(runs)} runs"] * (len(runs) != 1 + was_complete)
    wrong += [reason for run in runs for reason in what_is_wrong(run)]
    wrong += [f"{file} is left" for file in left()]
    return wrong + [f"{name} is other" for name in wanted if results().get(name) != wanted[name]]


def left() -> list[Path]:
    """Half-written files, and checkpoints."""
    kept = [file for file in Path("checkpoints").rglob("*") if file.is_file() and file.name != "id"]
    return kept + [file for kind in RESULTS for file in Path(kind).rglob(".*")]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_random_moments(job: list[str], undisturbed: Undisturbed, full: bool, survived: Callable) -> None:
    (wanted, duration), count, moments = undisturbed, 25 if full else 1, random.Random(0)
    failures = []
    for number in range(count):
        when = (number + moments.random()) / count * duration

        def kill(when: float = when) -> None:
            process = subprocess.Popen(
                [sys.executable, "-m", "fashion_mnist", *job], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                process.wait(when)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

        if wrong := attempt(job, wanted, kill):
            failures.append(f"killed after {when:.2f} of {duration:.2f} s: {'; '.join(wrong)}")
    print("\n".join(failures))
    survived("`kill -9` at random moments of the main job, then started again", count - len(failures), count)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_the_worst_moments(job: list[str], undisturbed: Undisturbed, full: bool, survived: Callable) -> None:
    wanted, failures = undisturbed.results, []
    moments = [(*moment, when) for moment in MOMENTS for when in ("before", "after")]
    moments = moments if full else moments[11::17]
    for place, name, number, when in moments:

        def kill(command: tuple[str, ...] = (place, name, str(number), when)) -> None:
            done = subprocess.run([sys.executable, "-c", KILLER, *command, *job], capture_output=True, text=True)
            assert done.returncode == -signal.SIGKILL, f"{command}: {done.stderr}"

        if wrong := attempt(job, wanted, kill):
            failures.append(f"killed {when} {place}.{name} {number}: {'; '.join(wrong)}")
    print("\n".join(failures))
    count = len(moments)
    survived("`kill -9` while a checkpoint, the model or the run is written", count - len(failures), count)


@pytest.mark.slow
def test_the_longest_training_goes_on(empty_folder: Path, tiny_data: Path) -> None:
    """The ladder's last step, made short and small, killed while it writes a checkpoint."""
    small = ["model.filters=[4]", "model.blocks=[1]", "trainer.epochs=4", "trainer.jit_compile=null"]
    job = [*TINY, f"data_root={tiny_data}", "experiment=ladder_95", *small]
    assert run_here(*job, step="main").returncode == 0
    undisturbed = results()
    for kind in RESULTS:
        shutil.rmtree(kind)
    done = subprocess.run([sys.executable, "-c", KILLER, "numpy", "savez", "3", "before", *job], capture_output=True)
    assert done.returncode == -signal.SIGKILL
    gone_on = run_here(*job, step="main")
    assert "goes on" in gone_on.stdout + gone_on.stderr
    assert results() == undisturbed
    assert not left()
