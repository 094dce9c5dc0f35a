"""Accounts for every second of our main job, from the prompt to the prompt: medians over several runs.

The job runs as a person would start it, except that a few of its functions are wrapped in a clock beforehand. A phase
has the time inside its functions, less the time inside other phases' functions that they call; what no phase claims is
listed as well.
"""

import argparse
import functools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from common import environment, positive, prepare, wide_console
from rich import box
from rich.table import Table

PHASES = {
    "interpreter, configuration": "Python itself, Hydra, the checks",
    "import TensorFlow": "with Keras",
    "import MLflow": "with SQLAlchemy and Alembic",
    "data": "check the digests, split, copy to the device",
    "build and compile": "layers, tracing, XLA, the choice of a block",
    "train": "Keras's fit, with validation and the tracing of what the block left out",
    "evaluate": "load the model, predict the test set, metrics",
    "plots": "three pictures; Matplotlib's import",
    "save the model": "as a file without dates",
    "log the model": "MLflow's copy, loaded and tried out once",
    "tracking store": "the database: migrations if it is fresh, the run, parameters, metrics, files",
    "other": "what no phase claims",
    "end of the program": "Python tears down",
}


class Clock:
    """Adds up the time of nested phases."""

    def __init__(self, started: float) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.stack: list[str] = ["interpreter, configuration"]
        self.last = started

    def switch(self) -> None:
        """Gives the time since the last switch to the innermost phase."""
        now = time.time()
        self.seconds[self.stack[-1]] += now - self.last
        self.last = now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the time inside for this phase."""
        self.switch()
        self.stack.append(name)
        try:
            yield
        finally:
            self.switch()
            self.stack.pop()

    def also(self, name: str, other: Callable[[], AbstractContextManager[None]]) -> Callable[[], Any]:
        """Another context, with this phase around it."""

        @contextmanager
        def both() -> Iterator[None]:
            with self.phase(name), other():
                yield

        return both

    def wrap(self, owner: ModuleType | type, phase: str, *names: str) -> None:
        """Puts the clock around functions of a module or methods of a class."""
        for name in names:
            setattr(owner, name, self.timed(getattr(owner, name), phase))

    def timed(self, function: Callable[..., Any], phase: str) -> Callable[..., Any]:
        """The function with the clock around it."""

        @functools.wraps(function)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            with self.phase(phase):
                return function(*arguments, **named)

        return wrapped


def job(started: float, report: Path, overrides: list[str]) -> None:
    """Runs the main job in this process, and writes the seconds of each phase to a file."""
    clock = Clock(started)
    from fashion_mnist import __main__, evaluate, startup, train
    from fashion_mnist.cli import main as command_line
    from fashion_mnist.data import dataset
    from fashion_mnist.tracking import logged_model, outbox, store
    from fashion_mnist.tracking import run as tracked

    def import_everything() -> None:
        with clock.phase("import TensorFlow"):
            startup.import_tensorflow()
        wrap_training(clock)

    clock.wrap(tracked, "data", "prepare")
    clock.wrap(dataset, "data", "load_part")
    clock.wrap(
        evaluate, "evaluate", "predict", "confusion", "summarize", "per_class_table", "write_predictions", "show"
    )
    for step in (train, evaluate):
        clock.wrap(step, "plots", "write_figure")
    store.importing = clock.also("import MLflow", store.importing)
    clock.wrap(store, "tracking store", "connect")
    clock.wrap(tracked, "tracking store", "run_of", "describe")
    clock.wrap(train, "tracking store", "recorder")
    clock.wrap(outbox, "tracking store", "deliver")
    clock.wrap(logged_model, "log the model", "save_model")
    clock.wrap(outbox, "log the model", "log_model")
    tracked.import_tensorflow = import_everything
    run = clock.timed(__main__.main_job, "other")
    sys.argv = ["python -m fashion_mnist", *overrides]
    try:
        command_line(run)
    finally:
        clock.switch()
        report.write_text(json.dumps({"seconds": clock.seconds, "ended": clock.last}))


def wrap_training(clock: Clock) -> None:
    """Puts the clock around what can be imported only after TensorFlow."""
    with clock.phase("plots"):
        from fashion_mnist.evaluation import plots
        from fashion_mnist.training import history
    from keras.src.backend.tensorflow.trainer import TensorFlowTrainer

    from fashion_mnist.training import build, compiled, saving

    clock.wrap(plots, "plots", "confusion_matrix", "predictions")
    clock.wrap(history, "plots", "learning_curves")
    clock.wrap(saving, "save the model", "save")
    clock.wrap(saving, "evaluate", "load")
    clock.wrap(compiled.CompiledModel, "data", "__init__")
    clock.wrap(compiled.CompiledModel, "build and compile", "choose_block")
    clock.wrap(build, "build and compile", "build")
    clock.wrap(TensorFlowTrainer, "train", "fit")


def measure(overrides: list[str], folder: Path) -> dict[str, float]:
    """The phases of one run of the job, in a process of its own."""
    report = folder / "phases.json"
    started = time.time()
    command = ["python", str(Path(__file__)), "--job", str(report), str(started), *overrides]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True)
    ended = time.time()
    if done.returncode:
        sys.exit(f"error: the job failed:\n{done.stderr}")
    told = json.loads(report.read_text())
    return told["seconds"] | {"end of the program": ended - told["ended"], "sum": ended - started}


def main() -> None:
    """Runs the job several times and shows the table."""
    if sys.argv[1:2] == ["--job"]:
        report, started, *overrides = sys.argv[2:]
        job(float(started), Path(report), overrides)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=positive, default=5, help="how often (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the seconds of every run to this file")
    parser.add_argument("overrides", nargs="*", help="keys for the job, such as model=cnn trainer.epochs=3")
    arguments = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory(prefix="fashion-mnist-phases-") as temporary:
        folder = Path(temporary)
        prepare(folder / "data")
        measure([*arguments.overrides, "trainer.epochs=1"], folder)  # fills the file caches, and makes the database
        for turn in range(arguments.runs):
            runs.append(measure(arguments.overrides, folder))
            print(f"run {turn + 1} of {arguments.runs}: {runs[-1]['sum']:.1f} s", flush=True)
    show(runs, arguments.overrides)
    if arguments.json:
        arguments.json.write_text(json.dumps(runs, indent=2) + "\n")


def show(runs: list[dict[str, float]], overrides: list[str]) -> None:
    """Prints median and range of each phase."""
    table = Table(title=f"python -m fashion_mnist {' '.join(overrides)}".strip(), box=box.SIMPLE)
    for heading, justify in (("phase", "left"), ("seconds", "right"), ("min - max", "right"), ("share", "right")):
        table.add_column(heading, justify="right" if justify == "right" else "left")
    table.add_column("what it is")
    total = statistics.median(run["sum"] for run in runs)
    for phase, meaning in {**PHASES, "sum": "from the prompt to the prompt"}.items():
        values = [run.get(phase, 0.0) for run in runs]
        middle = statistics.median(values)
        table.add_row(
            phase, f"{middle:.2f}", f"{min(values):.2f} - {max(values):.2f}", f"{middle / total:.0%}", meaning
        )
    console = wide_console()
    console.print(table)
    console.print(f"Medians of {len(runs)} runs, on a database that exists; the data is prepared.")


if __name__ == "__main__":
    main()
