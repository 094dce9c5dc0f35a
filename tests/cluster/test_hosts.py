"""Two machines with networks and folders of their own, one sweep or search: everything arrives on the server."""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY
from hosts import Host, cluster
from servers import DATABASES, Team, program
from teams import NEEDS_POSTGRESQL, NEEDS_S3, a_team

pytest.importorskip("ray", reason="Ray is not installed: uv sync --extra cluster")
pytest.importorskip("optuna", reason="Optuna is not installed: uv sync --extra search")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), NEEDS_POSTGRESQL, NEEDS_S3]
TRIALS, KILLS = 6, 20
RUNS = """
import json, mlflow, sys, tempfile
from pathlib import Path
from fashion_mnist.tracking.lineage import file_digest
from fashion_mnist.tracking.logged_model import keras_file
from fashion_mnist.training import saving

client, told = mlflow.MlflowClient(), []
for run in client.search_runs(["0"]):
    told.append({"id": run.info.run_id, "status": run.info.status, "tags": run.data.tags, "metrics": run.data.metrics})
    if "digests" in sys.argv and "model_digest" in run.data.tags:
        with tempfile.TemporaryDirectory() as folder:
            model = saving.load(keras_file(client, f"runs:/{run.info.run_id}/model", Path(folder)))
            saving.save(model, file := Path(folder, "again.keras"))
            told[-1]["digest"] = file_digest(file)
print(json.dumps(told))
"""


class Cluster:
    """Two machines; the first has the team's servers, and is where one types."""

    def __init__(self, first: Host, second: Host, address: str, team: Team) -> None:
        self.first, self.second, self.address, self.team = first, second, address, team

    def type(self, module: str, *typed: str) -> tuple[int, str]:
        """Runs a step on the first machine; gives its exit code and what it said."""
        launcher = ["hydra/launcher=ray", f"hydra.launcher.init.address={self.address}"]
        process = self.first.start("-m", module, *typed, *launcher, **self.team.variables)
        said = process.communicate(timeout=300)[0]
        return process.returncode, said

    def search(self, study: str, *typed: str) -> "subprocess.Popen[str]":
        """Starts a search on the first machine."""
        launcher = ["hydra/launcher=ray", f"hydra.launcher.init.address={self.address}"]
        named = [f"hydra.sweeper.study={study}", f"tracking.run_name={study}", f"hydra.sweeper.trials={TRIALS}"]
        keys = [*TINY, *typed, *named, *launcher, f"hydra.sweeper.storage={self.team.storage}"]
        return self.first.start("-m", "fashion_mnist.search", *keys, **self.team.variables)

    def is_complete(self, study: str) -> bool:
        """Whether each trial of a search has come to its end once, the winner is tested, and nothing is left open."""
        runs = {run["id"]: run for run in self.runs()}
        (parent,) = [
            each for each in runs.values() if each["tags"]["mlflow.runName"] == study and "sweep" in each["tags"]
        ]
        trials = [run for run in runs.values() if run["tags"].get("mlflow.parentRunId") == parent["id"]]
        ended = [run["tags"]["trial"] for run in trials if run["status"] == "FINISHED" or "pruned" in run["tags"]]
        return (
            parent["status"] == "FINISHED"
            and sorted(map(int, ended)) == list(range(TRIALS))
            and "test_accuracy" in runs[parent["tags"]["best_child"]]["metrics"]
            and all(run["status"] != "RUNNING" for run in trials)
        )

    def strike(self, victim: str, driver: "subprocess.Popen[str]") -> None:
        """Kills something, and has it there again where nobody else would."""
        if victim == "driver":
            driver.kill()
        elif victim == "database":
            self.team.kill("postgresql")
            self.team.start_postgresql()
        elif victim == "machine":
            self.second.kill()
            self.second.join(f"--address={self.address}")
        elif workers := self.first.processes_called("ray::work"):
            os.kill(workers[0], signal.SIGKILL)

    def runs(self, *wanted: str) -> list[dict[str, Any]]:
        """All runs of the server, as one sees them who is on the first machine; with the models' digests, if wanted."""
        process = self.first.start("-c", RUNS, *wanted, **self.team.variables)
        said = process.communicate(timeout=300)[0]
        assert process.returncode == 0, said
        return json.loads(said.splitlines()[-1])


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with (
        cluster(tmp_path_factory.mktemp("hosts")) as (first, second, address),
        a_team(first.address, first.within) as team,
    ):
        team.start()
        yield Cluster(first, second, address, team)


def test_a_sweep_is_made_on_both_and_complete_on_the_server(hosts: Cluster) -> None:
    code, said = hosts.type("fashion_mnist", "-m", *TINY, "seed=0,1,2,3")
    assert code == 0, said
    runs = hosts.runs("digests")
    (parent,) = [run for run in runs if "sweep" in run["tags"]]
    jobs = [run for run in runs if run is not parent]
    assert sorted(run["tags"]["seed"] for run in jobs) == ["0", "1", "2", "3"]
    assert {run["status"] for run in runs} == {"FINISHED"}
    assert {run["tags"]["mlflow.parentRunId"] for run in jobs} == {parent["id"]}
    assert all("test_accuracy" in run["metrics"] for run in jobs)
    assert [run["digest"] for run in jobs] == [run["tags"]["model_digest"] for run in jobs]
    made = [list(host.folder.glob("multirun/*/*/*/models/mlp/model.keras")) for host in (hosts.first, hosts.second)]
    assert [len(files) > 0 for files in made] == [True, True]
    assert sum(map(len, made)) == 4


@pytest.mark.parametrize(
    ("module", "key"),
    [("fashion_mnist", "tracking.uri"), ("fashion_mnist.search", "hydra.sweeper.storage")],
)
def test_what_other_machines_cannot_reach_is_refused(hosts: Cluster, module: str, key: str) -> None:
    if not hosts.first.within:
        pytest.skip("both machines share a network")
    many = ["-m"] if module == "fashion_mnist" else []
    uri = ["tracking.uri=sqlite:///mlflow.db"] if key == "tracking.uri" else []
    code, said = hosts.type(module, *many, *TINY, "optimizer.learning_rate=0.001,0.002", *uri)
    assert code == 1
    assert f"error: {key}=sqlite:///" in said
    assert "cannot be reached by jobs on 10.77.0.2" in said
    assert "Traceback" not in said


def test_a_search_is_made_on_both_and_a_server_that_dies_in_its_middle_loses_nothing(hosts: Cluster) -> None:
    keys = ["away", "trainer.epochs=40", "optimizer.learning_rate=interval(0.001,0.01)"]
    process = hosts.search(*keys)
    while not list(hosts.second.folder.glob("checkpoints/*.npz")):  # so it is at work there, too
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)
    hosts.team.kill("mlflow")
    process.communicate(timeout=300)
    hosts.team.start_mlflow()
    again = hosts.search(*keys)
    said = again.communicate(timeout=300)[0]
    assert again.returncode == 0, said
    assert "oneDNN" not in said  # nor whatever else TensorFlow tells of the processor
    assert hosts.is_complete("away")
    assert list(hosts.first.folder.glob("outputs/searches/*/models/mlp/model.keras"))


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_whatever_is_killed_the_search_comes_to_its_end(
    hosts: Cluster, survived: Callable[[str, int, int], None]
) -> None:
    moments, count = random.Random(11), 0
    for number in range(KILLS):
        study = f"killed-{number}"
        # A seed of its own: what another search has trained with the same values would not be trained again.
        keys = [study, "trainer.epochs=200", f"seed={number}", "optimizer.learning_rate=interval(0.001,0.01)"]
        process = hosts.search(*keys)
        time.sleep(moments.uniform(6, 16))
        assert process.poll() is None, process.communicate()[0]
        hosts.strike(("driver", "worker", "machine", "database")[number % 4], process)
        process.communicate(timeout=300)
        if process.returncode:
            again = hosts.search(*keys)
            said = again.communicate(timeout=300)[0]
            assert again.returncode == 0, said
        count += hosts.is_complete(study)
    survived("`kill -9` of driver, worker, machine or database of a search on two machines: complete", count, KILLS)


def test_no_secret_is_written_down(hosts: Cluster) -> None:
    secret, own = hosts.team.password.encode(), {"password", "environment", "s3.json"}
    places = [hosts.team.folder, hosts.first.folder, hosts.second.folder]
    places += [Path(host.own.name) for host in (hosts.first, hosts.second)]
    files = [file for place in places for file in place.rglob("*") if file.is_file() and file.name not in own]
    assert len(files) > 100
    assert [file for file in files if secret in file.read_bytes()] == []
    for name in DATABASES:
        dump = [*hosts.first.within, program("pg_dump"), f"{hosts.team.address}/{name}"]
        told = subprocess.run(dump, env={**os.environ, **hosts.team.variables}, capture_output=True, check=True).stdout
        assert len(told) > 1000
        assert secret not in told
