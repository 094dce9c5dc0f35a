"""Measures our main job against the tutorials' script: time from prompt to prompt, and memory.

The programs take turns, so that whatever else the machine does meets them all alike. The data is there beforehand for
each of them, and every program runs once untimed, so that compiled bytecode and cached files are there as well.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import ROOT, environment, machine, official_folder, peak_bytes, positive, prepare, wide_console
from rich import box
from rich.table import Table

# Nothing heavy is imported here: the system charges a new process with what this one occupies.
MEASURED = (
    "Wall time from the start of the program to its end, output written to a file. "
    "Memory: peak resident memory (ru_maxrss of os.wait4) of the largest process in the program's process tree, "
    "not the sum over its processes. Accuracy: on the 10,000 test images, as the program prints it. "
    "x ref: median divided by the reference's median."
)


@dataclass(frozen=True)
class Setting:
    """What every run of every program is given."""

    folder: Path  # temporary; holds the prepared data and the Keras cache
    epochs: int
    shared_store: bool

    def store(self, own: Path) -> str:
        """The tracking database of a run that happens in the folder `own`."""
        return f"sqlite:///{(self.folder if self.shared_store else own) / 'mlflow.db'}"

    def overrides(self, own: Path) -> list[str]:
        """The keys that our main job is given, so that it does what the reference does, and leaves no files behind."""
        return [
            f"trainer.epochs={self.epochs}",
            "data.validation=0",  # all 60,000 images are trained on, as in the reference
            f"output_dir={own / 'output'}",
            f"data_root={self.folder / 'data'}",
            f"hydra.run.dir={own / 'hydra'}",
        ]


@dataclass(frozen=True)
class Program:
    """A program to be measured: its name in the table, and how it is called."""

    name: str
    command: Callable[[Setting, Path], list[str]]
    trains: bool = False
    exit_code: int = 0


@dataclass(frozen=True)
class Measurement:
    """One run of one program."""

    program: str
    turn: int
    seconds: float
    peak_bytes: int
    test_accuracy: float | None


def reference(setting: Setting, own: Path) -> list[str]:
    """The tutorials' script."""
    return ["python", str(ROOT / "benchmarks" / "reference.py"), str(setting.epochs)]


def mlflow_run(setting: Setting, own: Path) -> list[str]:
    """Our main job as an MLflow project."""
    parameters = [word for override in setting.overrides(own) for word in ("-P", override)]
    return ["mlflow", "run", str(ROOT), "--env-manager=local", *parameters]


def python_m(setting: Setting, own: Path) -> list[str]:
    """Our main job as a Python program."""
    return ["python", "-m", "fashion_mnist", *setting.overrides(own)]


REFERENCE = Program("reference.py", reference, trains=True)
PROGRAMS = (
    REFERENCE,
    Program("mlflow run .", mlflow_run, trains=True),
    Program("python -m fashion_mnist", python_m, trains=True),
    Program("python -m fashion_mnist --help", lambda *_: ["python", "-m", "fashion_mnist", "--help"]),
    Program(
        "python -m fashion_mnist trainer.epochs=0",
        lambda *_: ["python", "-m", "fashion_mnist", "trainer.epochs=0"],
        exit_code=1,
    ),
    Program("import tensorflow", lambda *_: ["python", "-c", "import tensorflow"]),
    Program("dvc repro, nothing to do", lambda *_: ["dvc", "--cd", str(ROOT), "repro"]),
    Program("import tensorflow, mlflow", lambda *_: ["python", "-c", "import tensorflow, mlflow"]),
)


def main() -> None:
    """Prepares, measures and shows."""
    arguments = parse_arguments()
    files = official_folder()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="fashion-mnist-benchmark-") as temporary:
        folder = Path(temporary).resolve()
        prepare(folder / "data")
        fill_keras_cache(folder / "keras", files)
        setting = Setting(folder, arguments.epochs, arguments.shared_store)
        measurements = measure_all(setting, arguments.runs)
    facts = {**machine(), "load_before": round(load, 2)}
    show(measurements, facts, setting)
    if arguments.json:
        content = {
            "measured": MEASURED,
            "machine": facts,
            "epochs": arguments.epochs,
            "shared_store": arguments.shared_store,
            "runs": [asdict(measurement) for measurement in measurements],
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=positive, default=5, help="how often each program is measured (default: 5)")
    parser.add_argument("--epochs", type=positive, default=10, help="epochs of each training (default: 10)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single measurement to this file")
    parser.add_argument(
        "--shared-store",
        action="store_true",
        help="all runs are recorded in one database, made beforehand, as in everyday work; "
        "without it, each run makes its own, as in a fresh clone, which takes some seconds",
    )
    return parser.parse_args()


def fill_keras_cache(home: Path, files: Path) -> None:
    """Puts links to the official files where `keras.datasets.fashion_mnist.load_data()` looks for them."""
    cache = home / "datasets" / "fashion-mnist"
    cache.mkdir(parents=True)
    for file in files.glob("*-ubyte.gz"):
        (cache / file.name).symlink_to(file)


def measure_all(setting: Setting, runs: int) -> list[Measurement]:
    """Measures every program once a turn, after a turn that does not count."""
    console = wide_console()
    one_epoch = Setting(setting.folder, 1, setting.shared_store)
    for number, program in enumerate(PROGRAMS, start=1):
        console.print(f"untimed, {number} of {len(PROGRAMS)}: {program.name}", highlight=False)
        measure(program, one_epoch, turn=0)
    measurements = []
    for turn in range(1, runs + 1):
        for program in PROGRAMS:
            measurement = measure(program, setting, turn)
            measurements.append(measurement)
            told = f"{measurement.seconds:7.2f} s {measurement.peak_bytes / 1e6:7,.0f} MB  {program.name}"
            console.print(f"turn {turn} of {runs}: {told}", highlight=False)
    return measurements


def measure(program: Program, setting: Setting, turn: int) -> Measurement:
    """Runs a program once, in a folder of its own that is removed afterwards; ends everything if the program fails."""
    with tempfile.TemporaryDirectory(dir=setting.folder) as temporary, tempfile.TemporaryFile("w+") as output:
        own = Path(temporary)
        variables = environment(MLFLOW_TRACKING_URI=setting.store(own), KERAS_HOME=str(setting.folder / "keras"))
        command = program.command(setting, own)
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=own, env=variables, stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode != program.exit_code:
        sys.exit(f"{text[-3000:]}\nerror: '{program.name}' ended with exit code {process.returncode}.")
    accuracy = re.search(r"test accuracy.*?(\d\.\d{4})", text, flags=re.IGNORECASE)
    if program.trains and not accuracy:
        sys.exit(f"{text[-3000:]}\nerror: '{program.name}' printed no test accuracy.")
    return Measurement(
        program.name,
        turn,
        round(seconds, 3),
        peak_bytes(usage),
        float(accuracy[1]) if program.trains and accuracy else None,
    )


def show(measurements: Sequence[Measurement], facts: dict[str, Any], setting: Setting) -> None:
    """Prints the table, what was measured, and on which machine."""
    table = Table(title=f"Fashion-MNIST, all 60,000 training images, epochs: {setting.epochs}", box=box.SIMPLE)
    table.add_column("program")
    for heading in ("n", "seconds", "min - max", "x ref", "MB", "min - max", "x ref", "test accuracy"):
        table.add_column(heading, justify="right")
    base = [m for m in measurements if m.program == REFERENCE.name]
    last_training = [program for program in PROGRAMS if program.trains][-1]
    for program in PROGRAMS:
        own = [m for m in measurements if m.program == program.name]
        seconds = columns([m.seconds for m in own], [m.seconds for m in base], ",.2f")
        memory = columns([m.peak_bytes / 1e6 for m in own], [m.peak_bytes / 1e6 for m in base], ",.0f")
        if not program.trains:  # does something else than the reference does
            seconds[2] = memory[2] = ""
        accuracies = [m.test_accuracy for m in own if m.test_accuracy is not None]
        accuracy = f"{statistics.median(accuracies):.4f}" if accuracies else ""
        table.add_row(program.name, str(len(own)), *seconds, *memory, accuracy, end_section=program is last_training)
    console = wide_console()
    console.print(table)
    store = "one database for all runs, made beforehand" if setting.shared_store else "a new database for each run"
    console.print(f"Medians. {MEASURED} Our runs were recorded in {store}.", highlight=False)
    dirty = " with uncommitted changes" if facts["git_dirty"] else ""
    console.print(
        f"{facts['processor']}, {facts['cores']} cores (load {facts['load_before']} before), "
        f"trained on {facts['training_device']}; Python {facts['python']}, TensorFlow {facts['tensorflow']}, "
        f"Keras {facts['keras']}, MLflow {facts['mlflow']}; commit {facts['git_commit'][:12]}{dirty}.",
        highlight=False,
    )


def columns(values: Sequence[float], base: Sequence[float], form: str) -> list[str]:
    """Median, spread, and ratio of the median to the median of `base`."""
    median = statistics.median(values)
    return [
        format(median, form),
        f"{min(values):{form}} - {max(values):{form}}",
        f"{median / statistics.median(base):.2f}",
    ]


if __name__ == "__main__":
    main()
