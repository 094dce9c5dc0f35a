"""Several processes with folders of their own, one search: a study in PostgreSQL, runs on a tracking server."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import gettempdir

import mlflow
import pytest
from conftest import TINY, all_runs

optuna = pytest.importorskip("optuna", reason="Optuna is not installed: uv sync --extra search")
TRIALS = 8
(BINARIES,) = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:] or (Path("/usr/bin"),)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_spec("psycopg") is None, reason="there is no driver for PostgreSQL: uv sync --extra team"),
    pytest.mark.skipif(not (BINARIES / "initdb").is_file(), reason="PostgreSQL is not installed"),
]


class Database:
    """A PostgreSQL of its own, on a port of its own; it refuses to run as root."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder / "postgresql"
        self.user = "postgres" if os.getuid() == 0 else None
        self.folder.mkdir()
        if self.user:
            shutil.chown(self.folder, self.user)
            for parent in self.folder.parents[: len(folder.relative_to(gettempdir()).parts)]:
                parent.chmod(0o755)  # pytest's own may be entered by their owner alone
        self.call("initdb", "--auth=trust", "--username=search", "--no-sync")
        self.start()
        self.call("createdb", "--host=127.0.0.1", f"--port={self.port}", "--username=search", "studies", data=False)

    @property
    def address(self) -> str:
        return f"postgresql://search@127.0.0.1:{self.port}/studies"

    def call(self, program: str, *arguments: str, data: bool = True) -> None:
        command = [str(BINARIES / program), *(["--pgdata", str(self.folder)] if data else []), *arguments]
        subprocess.run(command, user=self.user, check=True, stdout=subprocess.DEVNULL, cwd="/")

    def start(self) -> None:
        options = f"-p {self.port} -k '' -c listen_addresses=127.0.0.1 -c fsync=off"
        self.call("pg_ctl", "--wait", "--log", str(self.folder / "log"), "--options", options, "start")

    def kill(self) -> None:
        """As a power cut does."""
        self.call("pg_ctl", "--mode=immediate", "stop")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    running = Database(tmp_path)
    yield running
    running.kill()


def join(folder: Path, database: Database, server: str, data: Path) -> "subprocess.Popen[str]":
    """A process at the search, in a folder that nobody else uses."""
    folder.mkdir(exist_ok=True)
    typed = [*TINY, f"data_root={data}", "trainer.epochs=3", "optimizer.learning_rate=interval(0.001,0.01)"]
    study = ["hydra.sweeper.study=together", f"hydra.sweeper.storage={database.address}"]
    return subprocess.Popen(
        [sys.executable, "-m", "fashion_mnist.search", *typed, *study, f"hydra.sweeper.trials={TRIALS}"],
        cwd=folder,
        env={**os.environ, "MLFLOW_TRACKING_URI": server},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(database: Database) -> int:
    """How many trials need nothing more; none where there is no study yet."""
    try:
        study = optuna.load_study(study_name="together", storage=database.address)
    except Exception:  # of a database that is just being made
        return 0
    return sum(trial.state.is_finished() for trial in study.trials)


def wait_for(count: int, database: Database, process: "subprocess.Popen[str]") -> None:
    while finished(database) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.3)


def test_exactly_the_trials_that_were_asked_for_below_one_parent_whatever_dies(
    database: Database, server: str, tmp_path: Path, tiny_data: Path
) -> None:
    dies, lives = (join(tmp_path / name, database, server, tiny_data) for name in ("dies", "lives"))
    wait_for(2, database, lives)
    dies.kill()
    dies.communicate()
    wait_for(4, database, lives)
    database.kill()  # in the middle of whatever is told
    time.sleep(2)
    database.start()
    said = lives.communicate(timeout=400)[1]
    assert lives.returncode == 0, said
    mlflow.set_tracking_uri(server)
    runs = all_runs()
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert {run.data.tags["mlflow.parentRunId"] for run in runs if run is not parent} == {parent.info.run_id}
    told = [run.data.tags["trial"] for run in runs if run is not parent and run.info.status == "FINISHED"]
    pruned = [run.data.tags["trial"] for run in runs if "pruned" in run.data.tags]
    assert sorted(map(int, told + pruned)) == list(range(TRIALS))
    assert parent.info.status == "FINISHED"
    assert [run for run in runs if "test_accuracy" in run.data.metrics] != []
