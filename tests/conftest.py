"""What the tests share: the real steps, in a folder and with a tracking store of their own."""

import gc
import io
import json
import logging
import os
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from common import official_folder
from tracking_server import serve

from fashion_mnist.cli import compose
from fashion_mnist.config import Config
from fashion_mnist.startup import orders

if TYPE_CHECKING:
    import numpy as np
    from mlflow.entities import Run

ROOT = Path(__file__).parents[1]
FEW = ["data=synthetic", "data.train_images=600", "data.test_images=100", "data.validation=100"]
TINY = [*FEW, "trainer.epochs=2", "trainer.jit_compile=false"]  # XLA compiles for longer than so short a training takes
RESULTS = tuple(f"outputs/{kind}" for kind in ("models", "metrics", "plots", "predictions"))  # of what people try

LONGEST = (  # first, so that no worker is left alone with one of them at the end
    "test_docs.py",
    "trials/test_search.py",
    "test_own_images.py",
    "cluster/test_jobs.py",
    "test_pipeline.py",
    "cluster/test_hosts.py",
    "training/test_compiled.py",
)

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.update(orders())  # for tests that import TensorFlow themselves: all processes calculate alike


def real_data() -> bool:
    """Whether the four official files are at hand; from then on, `$FASHION_MNIST_DIR` is their folder."""
    try:
        os.environ["FASHION_MNIST_DIR"] = str(official_folder())
    except SystemExit:
        return False
    return True


needs_real_data = pytest.mark.skipif(
    not real_data(),
    reason="the four official files are not in $FASHION_MNIST_DIR or, where that is not set, in Keras's cache",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Without an option, a run takes what a change can break every day."""
    parser.addoption("--all", action="store_true", help="run everything, tests marked slow too; of faults, a sample")
    parser.addoption("--full", action="store_true", help="--all, and every fault in full, for docs/faults.json")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is slow, unless it is asked for or named, and what takes part in `--full` alone."""
    full, named = config.getoption("--full"), any("::" in argument for argument in config.args)
    if not (full or named or config.getoption("--all")):
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
    for item in items:
        if item.get_closest_marker("full") and not full:
            item.add_marker(pytest.mark.skip(reason="only with --full"))
    order = {ROOT / "tests" / file: place for place, file in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(LONGEST)))


@pytest.fixture(scope="module", autouse=True)
def _without_looking_through_all_imports() -> None:
    """Spares the garbage collector what is there already; Keras asks for a collection whenever a model is built."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _precision_of_its_own() -> Iterator[None]:
    """Leaves the next test Keras's own arithmetic, whatever a model was built with."""
    yield
    if "keras" in sys.modules:
        sys.modules["keras"].config.set_dtype_policy("float32")


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether every fault is to be driven in full."""
    return bool(request.config.getoption("--full"))


@pytest.fixture
def survived(request: pytest.FixtureRequest) -> Callable[[str, int, int], None]:
    """Reports how often a fault was survived, for the table, and fails unless it was each time."""

    def report(fault: str, count: int, of: int) -> None:
        request.node.user_properties.append((fault, [count, of]))
        assert count == of, f"survived {count} of {of}: {fault}"

    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Prints how often each fault was survived; in full, and if nothing failed, it is kept for docs/faults.md."""
    reports = [report for outcome in terminalreporter.stats.values() for report in outcome]
    faults = dict(sorted(found for report in reports for found in getattr(report, "user_properties", ())))
    for fault, (count, of) in faults.items():
        terminalreporter.write_line(f"survived {count:,} of {of:,}: {fault}")
    if faults and config.getoption("--full") and not {"failed", "error"} & set(terminalreporter.stats):
        file = ROOT / "docs/faults.json"
        known = json.loads(file.read_text()) if file.is_file() else {}
        file.write_text(json.dumps(dict(sorted({**known, **faults}.items())), indent=2) + "\n")


@pytest.fixture(scope="session")
def migrated_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; a copy is much quicker than its three seconds of migrations."""
    import mlflow
    from sqlalchemy import Engine, event

    # This process need not wait for the disk: what is killed in tests are other processes, and no machine loses power.
    @event.listens_for(Engine, "connect")
    def without_waiting(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root folder of prepared datasets, with a few hundred drawn garments in it."""
    from fashion_mnist.data.prepare import prepare

    root = tmp_path_factory.mktemp("data")
    prepare(compose(TINY).data, root)
    return root


@pytest.fixture
def empty_folder(tmp_path: Path, migrated_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with an empty MLflow database."""
    import mlflow

    shutil.copy(migrated_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    # Absolute, so that artifacts of the database's first experiment go below this folder too.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")  # else it keeps that of the last test
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "test")
    return tmp_path


@pytest.fixture
def tiny(empty_folder: Path, tiny_data: Path) -> Callable[..., Config]:
    """Composes the real configuration, shrunk: `tiny("model=cnn")`."""
    return lambda *overrides: compose([*TINY, f"data_root={tiny_data}", *overrides])


@pytest.fixture
def server(empty_folder: Path) -> Iterator[str]:
    """The address of a real tracking server over the folder's database."""
    with serve(empty_folder) as server:
        yield server.url


def all_runs() -> "list[Run]":
    """All runs of the current store."""
    import mlflow

    client = mlflow.MlflowClient()
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def run_step(*arguments: str, step: str = "train", **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a step as a person does, in the current folder."""
    module = "fashion_mnist" if step == "main" else f"fashion_mnist.{step}"
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def run_here(*arguments: str, step: str = "train", **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a step as `run_step` does, but in this process, which has imported already what takes seconds.

    Not for sweeps in which a job fails: their run is closed at the end of the process.
    """
    module = "fashion_mnist.__main__" if step == "main" else f"fashion_mnist.{step}"
    terminate, code = signal.getsignal(signal.SIGTERM), 0
    with (
        logging_left_alone(),
        mock.patch.dict(os.environ, environment),
        mock.patch.object(sys, "argv", [module, *arguments]),
        redirect_stdout(io.StringIO()) as output,
        redirect_stderr(io.StringIO()) as errors,
        warnings.catch_warnings(action="ignore", category=RuntimeWarning),  # that the module is imported already
    ):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            code = ended.code
        finally:
            signal.signal(signal.SIGTERM, terminate)
        if isinstance(code, str):  # as Python does at its end
            print(code, file=errors)
            code = 1
    return subprocess.CompletedProcess(arguments, code or 0, output.getvalue(), errors.getvalue())


@contextmanager
def logging_left_alone() -> Iterator[None]:
    """Undoes what Hydra does to logging; else it would close handlers, and one of absl's the stream of pytest."""
    handlers, level = logging.root.handlers[:], logging.root.level
    with mock.patch.object(logging, "_handlerList", []):
        try:
            yield
        finally:
            logging.root.handlers[:], logging.root.level = handlers, level


def assert_one_sentence(process: subprocess.CompletedProcess[str], *words: str) -> None:
    """What a person who made a mistake must see: one clear sentence, no traceback, an exit code."""
    assert process.returncode == 1, process.stdout + process.stderr
    lines = process.stderr.strip().splitlines()
    assert len(lines) == 1, process.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


@pytest.fixture
def shoe() -> "np.ndarray":
    """Something light on black that is not symmetric, uint8 (28, 28)."""
    import numpy as np

    image = np.zeros((28, 28), dtype=np.uint8)
    image[10:20, 0:28] = 120
    image[4:12, 18:27] = 200
    return image
