"""Jobs that Ray makes on this machine: the same runs, the same bytes, and an end as clean."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest
from conftest import ROOT, TINY, all_runs, assert_one_sentence, run_here, run_step

from fashion_mnist.cluster.jobs import is_of_one_machine, shares
from fashion_mnist.cluster.worker import environment
from fashion_mnist.config import Config
from fashion_mnist.tracking import lineage
from fashion_mnist.train import train

pytest.importorskip("ray", reason="Ray is not installed: uv sync --extra cluster")
Compose = Callable[..., Config]
RAY = "hydra/launcher=ray"
pytestmark = pytest.mark.timeout(300)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("uv") is None, reason="uv is not installed")
def test_a_sweep_makes_the_same_models_as_trainings_alone(empty_folder: Path, tiny_data: Path, tiny: Compose) -> None:
    """Typed with `uv run`, whose environment the workers then use."""
    keys = ["-m", *TINY, f"data_root={tiny_data}", "seed=0,1,2", RAY]
    command = ["uv", "run", "--no-sync", "--project", str(ROOT), "python", "-m", "fashion_mnist", *keys]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    runs = all_runs()
    (parent,) = [run for run in runs if "sweep" in run.data.tags]
    jobs = {run.data.tags["seed"]: run for run in runs if run is not parent}
    assert sorted(jobs) == ["0", "1", "2"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert {run.data.tags["mlflow.parentRunId"] for run in jobs.values()} == {parent.info.run_id}
    for seed, run in jobs.items():
        alone = tiny(f"seed={seed}", "output_dir=alone")
        train(alone)
        (file,) = empty_folder.glob(f"multirun/*/*/{seed}/models/mlp/model.keras")
        assert file.read_bytes() == alone.model_file.read_bytes()
        assert "test_accuracy" in run.data.metrics


@pytest.mark.slow
def test_what_workers_print_does_not_reach_the_terminal_but_what_failed_does(
    empty_folder: Path, tiny_data: Path
) -> None:
    keys = [*TINY, f"data_root={tiny_data}", "optimizer.learning_rate=0.001,1e30"]
    process = run_step("-m", *keys, RAY, step="main")
    assert process.returncode == 1
    assert "2 of 2 jobs" in process.stderr
    assert "diverged" in process.stderr
    assert "Traceback" not in process.stderr
    assert "Epoch" not in process.stdout + process.stderr
    assert sorted(run.info.status for run in all_runs() if "sweep" not in run.data.tags) == ["FAILED", "FINISHED"]


@pytest.mark.slow
def test_a_search_gives_the_next_trial_to_whoever_is_free(empty_folder: Path, tiny_data: Path, tiny: Compose) -> None:
    pytest.importorskip("optuna", reason="Optuna is not installed: uv sync --extra search")
    keys = [*TINY, f"data_root={tiny_data}", "optimizer.learning_rate=tag(log,interval(1e-4,1e-1))"]
    process = run_step(*keys, "hydra.sweeper.trials=5", "hydra.sweeper.confirm=2", RAY, step="search")
    assert process.returncode == 0, process.stderr
    runs = all_runs()
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert sorted(int(run.data.tags["trial"]) for run in runs if "trial" in run.data.tags) == list(range(5))
    assert len([run for run in runs if run.data.tags.get("seed") in ("1", "2")]) == 2
    assert parent.info.status == "FINISHED"
    winner = mlflow.get_run(parent.data.tags["best_child"])
    rate = f"optimizer.learning_rate={winner.data.params['optimizer.learning_rate']}"
    alone = tiny(rate, "output_dir=alone")
    train(alone)
    (file,) = empty_folder.glob("outputs/searches/*/models/mlp/model.keras")
    assert file.read_bytes() == alone.model_file.read_bytes()


@pytest.mark.slow
def test_ctrl_c_closes_all_runs_and_the_same_command_goes_on(empty_folder: Path, tiny_data: Path) -> None:
    keys = [*TINY, f"data_root={tiny_data}", "trainer.epochs=3000", "seed=0,1,2", RAY]
    process = start(*keys)
    try:
        wait_for_checkpoints(empty_folder, 2, process)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)  # three seconds where nothing else runs
    finally:
        process.kill()
    assert process.returncode == 130
    assert {run.info.status for run in all_runs()} == {"KILLED"}
    assert len(list(empty_folder.glob("checkpoints/*.npz"))) == 2
    again = start(*keys)
    try:
        wait_until(lambda: sum(run.info.status == "RUNNING" for run in all_runs()) == 3, again)
    finally:
        again.send_signal(signal.SIGINT)
        again.communicate(timeout=30)
    assert len(all_runs()) == 3  # the sweep and two jobs


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_its_job_goes_on(
    empty_folder: Path, tiny_data: Path, tiny: Compose
) -> None:
    keys = ["trainer.epochs=100", "seed=1"]  # Ray's workers have niceness 15, and are slow beside other tests
    process = start(*TINY, f"data_root={tiny_data}", *keys[:1], "seed=1,2", RAY)
    wait_for_checkpoints(empty_folder, 2, process)
    os.kill(workers_below(process.pid)[0], signal.SIGKILL)  # an IndexError if none is at work any more
    said = process.communicate(timeout=200)[1]
    assert process.returncode == 0, said
    jobs = [run for run in all_runs() if "sweep" not in run.data.tags]
    assert [run.info.status for run in jobs] == ["FINISHED"] * 2
    alone = tiny(*keys, "output_dir=alone")
    train(alone)
    (file,) = empty_folder.glob("multirun/*/*/0/models/mlp/model.keras")
    assert file.read_bytes() == alone.model_file.read_bytes()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("hydra.launcher.num_cpus=0", "hydra.launcher.num_cpus must be a whole number above 0, or a share"),
        ("hydra.launcher.num_cpus=1.5", "hydra.launcher.num_cpus must be a whole number above 0, or a share"),
        ("hydra.launcher.num_gpus=-1", "hydra.launcher.num_gpus must be a whole number, or a share"),
        ("+hydra.launcher.init.runtime_env.env_vars.PGPASSWORD=x", "export PGPASSWORD="),
        ("hydra.launcher.num_cpus=many", "hydra.launcher.num_cpus"),
        ("hydra.launcher.max_calls=0", "hydra.launcher.max_calls must be at least 1"),
        ("hydra.launcher.max_retries=0.5", "hydra.launcher.max_retries"),
    ],
)
def test_settings_that_cannot_be_are_refused(empty_folder: Path, setting: str, words: str) -> None:
    before = sorted(empty_folder.rglob("*"))
    assert_one_sentence(run_here("-m", *TINY, RAY, setting, step="main"), words)
    assert sorted(empty_folder.rglob("*")) == before


def test_a_typed_password_is_not_shown_to_everyone_on_a_cluster(empty_folder: Path) -> None:
    typed = ["-m", *TINY, "seed=0,1", RAY, "tracking.uri=http://me:s3cret@127.0.0.1:9"]
    process = run_step(*typed, step="main")
    assert_one_sentence(process, "Ray shows this command line")
    assert "s3cret" not in process.stderr
    assert not list(empty_folder.glob("multirun"))


@pytest.mark.parametrize(
    ("address", "is_of_one"),
    [
        ("sqlite:///mlflow.db", True),
        ("sqlite+pysqlite:////srv/mlflow.db", True),
        ("postgresql:///optuna", True),
        ("postgresql+psycopg://me@localhost/optuna", True),
        ("mysql+pymysql://127.0.0.1:3306/x", True),
        ("http://[::1]:5000", True),
        ("http://0.0.0.0:5000", True),
        ("http://10.0.0.1:5000", False),
        ("https://localhost.example.com", False),
        ("postgresql://db.example.com/optuna", False),
    ],
)
def test_an_address_that_other_machines_take_for_their_own_is_known(address: str, is_of_one: bool) -> None:
    assert is_of_one_machine(address) == is_of_one


def test_a_machine_has_room_for_as_many_shares_as_ray_gives_it() -> None:
    for count in (1, 2, 3, 5, 10, 50, 100):
        assert shares(1.0) // shares(1 / count) == count
    assert shares(2.0) // shares(0.1) == 20


@pytest.mark.parametrize(
    "name",
    ["TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS", "ONEDNN_MAX_CPU_ISA", "CUBLAS_WORKSPACE_CONFIG", "KERAS_MAX_EPOCHS"],
)
def test_what_decides_a_result_goes_with_the_job(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert lineage.ORDERS.match(name)
    assert environment()[name] == "1"


def test_without_the_extra_one_is_told_how_to_get_it(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert_one_sentence(
        run_here("-m", *TINY, "seed=0,1", RAY, step="main"), "needs Ray: uv sync --inexact --extra cluster"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("hydra.launcher.num_cpus=1000", "no machine has what a job is to get: num_cpus=1000"),
        ("hydra.launcher.init.address=127.0.0.1:9", "hydra.launcher.init.address=127.0.0.1:9 does not answer"),
        ("+hydra.launcher.init.colour=blue", "hydra.launcher.init: "),
    ],
)
def test_a_cluster_that_is_not_there_or_too_small_is_said(empty_folder: Path, setting: str, words: str) -> None:
    process = run_step("-m", *TINY, "seed=0,1", RAY, setting, step="main")
    assert process.returncode == 1
    assert words in process.stderr
    assert "Traceback" not in process.stderr


def start(*typed: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "fashion_mnist", "-m", *typed]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
        # What a script starts in the background ignores Ctrl-C, and so would all below it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for_checkpoints(folder: Path, count: int, process: "subprocess.Popen[str]") -> None:
    # Those that are just being written have a dot before their name.
    wait_until(lambda: len(list(folder.glob("checkpoints/[!.]*.npz"))) >= count, process)


def wait_until(is_so: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    while not is_so():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)


def workers_below(pid: int) -> list[int]:
    """Ray's workers of a driver on this machine that are at a job; they call themselves after it."""
    told = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    parents = {int(line.split()[0]): int(line.split()[1]) for line in told.splitlines()}
    busy = [int(line.split()[0]) for line in told.splitlines() if "ray::work" in line]

    def is_below(each: int) -> bool:
        while each > 1 and each != pid:
            each = parents.get(each, 0)
        return each == pid

    return [each for each in busy if is_below(each)]
