"""Several processes with folders of their own, one search: a study in PostgreSQL, runs on a tracking server."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from conftest import TINY, all_runs
from teams import NEEDS_POSTGRESQL, Team, a_team

optuna = pytest.importorskip("optuna", reason="Optuna is not installed: uv sync --extra search")
TRIALS = 8
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), NEEDS_POSTGRESQL]


@pytest.fixture
def team(monkeypatch: pytest.MonkeyPatch) -> Iterator[Team]:
    """PostgreSQL, and in the environment what it wants to know of who asks."""
    with a_team() as running:
        for name in ("PGUSER", "PGPASSWORD"):
            monkeypatch.setenv(name, running.variables[name])
        running.start_postgresql()
        yield running


def join(folder: Path, team: Team, server: str, data: Path) -> "subprocess.Popen[str]":
    """A process at the search, in a folder that nobody else uses."""
    folder.mkdir(exist_ok=True)
    typed = [*TINY, f"data_root={data}", "trainer.epochs=3", "optimizer.learning_rate=interval(0.001,0.01)"]
    study = ["hydra.sweeper.study=together", f"hydra.sweeper.storage={team.storage}"]
    return subprocess.Popen(
        [sys.executable, "-m", "fashion_mnist.search", *typed, *study, f"hydra.sweeper.trials={TRIALS}"],
        cwd=folder,
        env={**os.environ, "MLFLOW_TRACKING_URI": server},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(team: Team) -> int:
    """How many trials need nothing more; none where there is no study yet."""
    try:
        study = optuna.load_study(study_name="together", storage=team.storage)
    except Exception:  # of a database that is just being made
        return 0
    return sum(trial.state.is_finished() for trial in study.trials)


def wait_for(count: int, team: Team, process: "subprocess.Popen[str]") -> None:
    while finished(team) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.3)


def test_exactly_the_trials_that_were_asked_for_below_one_parent_whatever_dies(
    team: Team, server: str, tmp_path: Path, tiny_data: Path
) -> None:
    dies, lives = (join(tmp_path / name, team, server, tiny_data) for name in ("dies", "lives"))
    wait_for(2, team, lives)
    dies.kill()
    dies.communicate()
    wait_for(4, team, lives)
    team.kill("postgresql", signal.SIGQUIT)  # as a power cut does, in the middle of whatever is told
    time.sleep(2)
    team.start_postgresql()
    said = lives.communicate(timeout=400)[1]
    assert lives.returncode == 0, said
    mlflow.set_tracking_uri(server)
    runs = all_runs()
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert {run.data.tags["mlflow.parentRunId"] for run in runs if run is not parent} == {parent.info.run_id}
    told = [run.data.tags["trial"] for run in runs if run is not parent and run.info.status == "FINISHED"]
    pruned = [run.data.tags["trial"] for run in runs if "pruned" in run.data.tags]
    states = [(run.info.status, run.data.tags.get("trial"), "pruned" in run.data.tags) for run in runs]
    assert sorted(map(int, told + pruned)) == list(range(TRIALS)), states
    assert parent.info.status == "FINISHED"
    assert [run for run in runs if "test_accuracy" in run.data.metrics] != []
