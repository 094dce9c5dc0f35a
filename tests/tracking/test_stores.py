"""Stores of other people: their addresses and passwords, their old servers and strict proxies, their environment."""

import base64
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import CompletedProcess

import mlflow
import pytest
import requests
from conftest import TINY, all_runs, assert_one_sentence, run_here
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import OperationalError

from fashion_mnist.cli import as_overrides, compose, explain
from fashion_mnist.config import Config, TrackingConfig
from fashion_mnist.data.prepare import prepare
from fashion_mnist.errors import UserError
from fashion_mnist.tracking import store
from fashion_mnist.tracking.description import describe
from fashion_mnist.tracking.outbox import Measured, Parcel, send_kept, send_metrics
from fashion_mnist.tracking.sweep import open_sweep
from fashion_mnist.train import train

Compose = Callable[..., Config]
TAGS = {"git_commit": "0" * 40, "git_dirty": "false", "device": "cpu"}
PASSWORD = "s3cret/w@rd"  # as people type it; as they should, s3cret%2Fw%40rd
LOGIN = "Basic " + base64.b64encode(f"someone:{PASSWORD}".encode()).decode()


class Gate(ThreadingHTTPServer):
    """Stands before a server: asks for a password, and refuses bodies that are too large."""

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), Passing)
        self.behind, self.limit, self.login = behind, 10**9, ""
        self.address = f"127.0.0.1:{self.server_port}"


class Passing(BaseHTTPRequestHandler):
    @property
    def gate(self) -> Gate:
        assert isinstance(self.server, Gate)
        return self.server

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.gate.login and self.headers.get("Authorization") != self.gate.login:
            return self.answer(401, b"")
        if len(body) > self.gate.limit:
            return self.answer(413, b"")
        given = {key: value for key, value in self.headers.items() if key not in ("Host", "Accept-Encoding")}
        told = requests.request(self.command, self.gate.behind + self.path, data=body, headers=given, timeout=30)
        return self.answer(told.status_code, told.content)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def gate(server: str) -> Iterator[Gate]:
    with Gate(server) as gate:
        threading.Thread(target=gate.serve_forever, daemon=True).start()
        yield gate
        gate.shutdown()


@pytest.mark.slow
def test_a_password_in_an_address_is_written_nowhere(gate: Gate, tiny_data: Path, empty_folder: Path) -> None:
    gate.login = LOGIN
    job = [*TINY, "trainer.epochs=1", f"data_root={tiny_data}"]
    address = f"http://someone:{PASSWORD}@{gate.address}"
    told: list[CompletedProcess[str]] = []

    def run(code: int, *arguments: str, uri: str = "", step: str = "train") -> None:
        told.append(run_here(*arguments, step=step, MLFLOW_TRACKING_URI=uri))
        assert told[-1].returncode == code, told[-1].stderr

    run(0, *job, uri=address, step="main")
    run(0, *job, step="evaluate", uri=address)
    run(0, "-m", *job, "seed=1,2", f"--tracking.uri={address}")
    run(0, "runs=params.seed = '0'", f"data_root={tiny_data}", "data=synthetic", uri=address, step="compare")
    gate.limit = 100_000
    run(1, *job, "seed=3", f"tracking.uri={address}")
    run(1, uri=address, step="sync")
    gate.limit = 10**9
    run(0, uri=address, step="sync")
    run(1, *job, f"tracking.uri={address}0")  # nobody is there
    run(1, *job, f"tracking.uri=http://someone:not{PASSWORD}@{gate.address}")
    run(1, *job, "trainer.epochs=many", f"++tracking.uri='{address}'")
    run(1, *job, f"tracking.uri=[{address}")
    run(1, *job, f"tracking.url={address}")
    run(1, *job, f"data.mirrors=[https://someone:{PASSWORD}@mirror.example.com/]")
    run(1, "shoe.png", "run=" + "0" * 32, f"tracking.uri={address}", step="predict")

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    assert {run.info.status for run in all_runs()} == {"FINISHED"}
    written = {str(file): file.read_bytes() for file in empty_folder.rglob("*") if file.is_file()}
    assert any(file.endswith(".hydra/overrides.yaml") for file in written)
    assert any(file.endswith("artifacts/config.yaml") for file in written)
    written |= {f"message {number}": f"{each.stdout}{each.stderr}".encode() for number, each in enumerate(told)}
    assert not [file for file, content in written.items() if b"s3cret" in content or b"w@rd" in content]


@pytest.mark.parametrize(
    ("address", "clean", "environment"),
    [
        ("https://me:p%40ss@host/mlflow", "https://host/mlflow", {"MLFLOW_TRACKING_PASSWORD": "p@ss"}),
        ("postgresql://me:p%40ss@host/db", "postgresql://host/db", {"PGUSER": "me", "PGPASSWORD": "p@ss"}),
        ("https://token@host", "https://host", {"MLFLOW_TRACKING_USERNAME": "token"}),
    ],
)
def test_the_tools_still_get_the_password(
    address: str, clean: str, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "PGUSER", "PGPASSWORD"):
        monkeypatch.setenv(name, "")  # so that it is as before at the end
    assert as_overrides(["--tracking.uri", address]) == [f"tracking.uri={clean}"]
    assert environment.items() <= os.environ.items()


@pytest.mark.parametrize(
    "setting",
    [
        "tracking.uri=mysql+pymysql://me:s3cret@host/db",
        "tracking.uri=postgresql://host/db?user=me&password=s3cret",
        "tracking.uri=mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Ds3cret",
        "data.mirrors=[https://s3cret@host/]",
        "data.mirrors=https://me:s3cret@host/",
        "http://me:s3cret@host",
    ],
)
def test_a_password_that_cannot_be_moved_is_refused_unseen(setting: str, empty_folder: Path) -> None:
    process = run_here(setting, "data=synthetic")
    assert_one_sentence(process, "MLFLOW_TRACKING_PASSWORD", "~/.netrc")
    assert "s3cret" not in process.stderr
    assert not list(empty_folder.rglob(".hydra"))


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "MLFLOW_TRACKING_TOKEN", "my_api_key"])
def test_a_secret_for_the_jobs_is_not_for_hydras_files(name: str, empty_folder: Path) -> None:
    process = run_here("-m", f"+hydra.job.env_set.{name}=s3cret", "seed=0,1", "data=synthetic", step="main")
    assert_one_sentence(process, f"export {name}=", ".hydra/hydra.yaml")
    assert "s3cret" not in process.stderr
    assert not list(empty_folder.rglob(".hydra"))


def test_a_password_from_a_file_of_conf_is_refused_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cret@host")  # as if it stood there: nothing has moved it
    with pytest.raises(UserError, match=r"^tracking\.uri holds a password") as refused:
        compose(["data=synthetic"])
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("address", ["127.0.0.1:5000", "localhost:5000", "mlflow.example.com", "mlruns", "file:runs"])
def test_an_address_without_its_beginning_is_told_which_there_are(address: str) -> None:
    with pytest.raises(UserError, match=r"begins with http://.* sqlite:///") as refused:
        store.check(TrackingConfig(address, "Default"))
    assert address in str(refused.value)


@pytest.mark.parametrize(
    "address", ["databricks", "databricks-uc", "databricks://me", "arn:aws:x:y:12:z/1", "uc:http://h"]
)
def test_what_mlflow_serves_is_passed_on(address: str) -> None:
    store.check(TrackingConfig(address, "Default"))


def test_an_empty_variable_is_as_if_it_were_not_set(empty_folder: Path, tiny_data: Path) -> None:
    names = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID")
    empty = dict.fromkeys((*names, "MLFLOW_HTTP_REQUEST_TIMEOUT", "FASHION_MNIST_PARENT_RUN_ID"), "")
    done = run_here(*TINY, "trainer.epochs=1", f"data_root={tiny_data}", **empty)
    assert done.returncode == 0, done.stderr
    (run,) = mlflow.MlflowClient(f"sqlite:///{empty_folder}/mlflow.db").search_runs(["0"])
    assert run.info.status == "FINISHED"


def test_a_server_that_is_too_old_is_found_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old(Passing):
        def do_GET(self) -> None:
            self.answer(200 if self.path == "/version" else 404, b"2.22.1")

    with Gate("") as gate:
        gate.RequestHandlerClass = Old
        threading.Thread(target=gate.serve_forever, daemon=True).start()
        process = run_here("data=synthetic", f"tracking.uri=http://{gate.address}")
        gate.shutdown()
    assert_one_sentence(process, "2.22.1", "MLflow 3", "tracking.uri=sqlite:///mlflow.db")


@pytest.mark.slow
def test_what_a_proxy_refuses_holds_up_nothing_else(gate: Gate, tiny_data: Path) -> None:
    gate.limit = 200_000
    here = {"MLFLOW_TRACKING_URI": f"http://{gate.address}"}
    done = run_here(*TINY, f"data_root={tiny_data}", step="main", **here)
    assert_one_sentence(done, " refuses: ", "model (413", "python -m fashion_mnist.sync")
    (run,) = all_runs()
    assert run.info.status == "FINISHED"
    assert {"loss", "val_loss", "test_accuracy"} <= set(run.data.metrics)
    client = mlflow.MlflowClient(here["MLFLOW_TRACKING_URI"])
    files = {
        file.path for folder in ("", "plots", "predictions") for file in client.list_artifacts(run.info.run_id, folder)
    }
    assert {"config.yaml", "model_summary.txt", "plots/learning_curves.png", "predictions/test.npz"} <= files
    assert not list(Path("checkpoints").glob("*.npz"))
    assert_one_sentence(run_here(step="sync", **here), "model (413")
    gate.limit = 10**9
    assert run_here(step="sync", **here).returncode == 0
    assert mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    assert not list(Path("checkpoints").rglob("*.*"))
    gate.limit = 10_000
    done = run_here("data=synthetic", f"data_root={tiny_data}", step="compare", **here)
    assert done.returncode == 1
    assert "does not take comparison.html (413" in done.stderr
    assert {run.info.status for run in all_runs()} == {"FINISHED"}


@pytest.mark.parametrize("status", ["FINISHED", "RUNNING"])
def test_a_run_that_is_used_already_is_not_mixed_with_another(
    status: str, tiny: Compose, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = mlflow.MlflowClient(tiny().tracking.uri)
    used = client.create_run("0", tags={"variant": "cnn"}, run_name="mine").info.run_id
    client.set_terminated(used) if status == "FINISHED" else None
    monkeypatch.setenv("MLFLOW_RUN_ID", used)
    before = client.get_run(used).to_dictionary()
    assert train(tiny("trainer.epochs=1")) != used
    assert f"MLFLOW_RUN_ID={used} is not heeded" in capsys.readouterr().err
    monkeypatch.setenv("MLFLOW_RUN_ID", used)
    store.label_step(tiny().tracking, "fetch", "")
    monkeypatch.setenv("MLFLOW_RUN_ID", used)
    assert open_sweep(tiny().tracking, ["seed=1,2"], "digest", go_on=False) != used
    assert client.get_run(used).to_dictionary() == before


def test_a_run_of_another_folder_is_told_how_to_be_found(empty_folder: Path, tiny_data: Path) -> None:
    known = {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db", "MLFLOW_RUN_ID": "0" * 32, "MLFLOW_EXPERIMENT_ID": "7"}
    process = run_here(*TINY, f"data_root={tiny_data}", **known)
    assert_one_sentence(process, 'MLFLOW_TRACKING_URI="sqlite:///$PWD/mlflow.db"', str(empty_folder))


def test_metrics_that_do_not_arrive_are_never_taken_for_sent(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ENABLE_ASYNC_LOGGING", "true")  # with which MLflow says nothing of it
    client = store.connect(tiny().tracking)
    with pytest.raises(MlflowException, match="not found"):
        send_metrics(client, "0" * 32, [Measured("loss", 0.5, 0, 0, False)])


def test_what_an_interrupted_attempt_kept_does_not_undo_the_end_of_its_run(tiny: Compose) -> None:
    client = store.connect(tiny().tracking)
    run_id = client.create_run("0").info.run_id
    interrupted = Parcel(tiny().tracking.uri, run_id, tags={"told": "late"}, status="KILLED", ended=1)
    interrupted.keep()
    client.set_terminated(run_id, "FINISHED")
    ended = client.get_run(run_id).info.end_time
    assert send_kept(client, interrupted.uri) == ([run_id], {})
    run = client.get_run(run_id)
    assert (run.info.status, run.info.end_time, run.data.tags.get("told")) == ("FINISHED", ended, None)


def test_a_database_that_refuses_is_explained_in_a_sentence() -> None:
    error = OperationalError("SELECT 1", {}, Exception("server closed the connection"))
    assert (
        explain(error) == "the database refuses, or does not answer: (builtins.Exception) server closed the connection"
    )


def test_runs_that_begin_at_once_add_what_they_share_together(tiny: Compose, empty_folder: Path) -> None:
    config = tiny()
    card = prepare(config.data, config.data_root).card
    client = store.connect(config.tracking)
    identifier = client.create_experiment(config.tracking.experiment)
    runs = [client.create_run(identifier) for _ in range(4)]
    together = threading.Barrier(len(runs))

    def begin(run: Run) -> None:
        together.wait()
        store.experiment(config.tracking, client)
        describe(client, run, config, card, TAGS)

    with ThreadPoolExecutor(len(runs)) as threads:
        list(threads.map(begin, runs))
    inputs = [client.get_run(run.info.run_id).inputs for run in runs]
    assert [each and each.dataset_inputs[0].dataset.digest for each in inputs] == [card.digest] * len(runs)
