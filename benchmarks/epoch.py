"""How long one epoch takes, on the processor: ours against the tutorials' way of training, and against peers.

The programs take turns, each time in a process of its own, so that whatever else the machine does meets them all
alike. Every process goes through an epoch that does not count, which compiles and fills caches, before those that do.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common import environment, machine, official_folder, positive, prepare, wide_console
from rich import box
from rich.table import Table

from fashion_mnist.startup import ONEDNN
from fashion_mnist.training.precision import faster_precision

FOLDER = Path(__file__).with_name("programs")
STEPS = 1875  # of an epoch: 60,000 images in batches of 32
BUSY = 0.5  # load average from which on something else is running
LEGEND = (
    "Medians over n turns; a turn is a process, and counts with its median epoch. ÷ ours: median divided by the one of "
    "the work's first line; a goal says how often ours should at least fit in. Loss and accuracy: of the last epoch, "
    "on the images trained on. mlp, ours: validation on 5,000 images and tracking by MLflow are part of the epoch; "
    "untracked, 0.971 is reached where tracking costs at most 3 %. Peers keep loss and accuracy as Keras does, and "
    "validate nothing. Bare: nothing but these operations of every step, in NumPy and TensorFlow."
)


@dataclass(frozen=True)
class Program:
    """A program to be measured."""

    work: str
    name: str  # in the table
    script: str
    key: str  # its name in the script
    goal: float | None = None  # so many times as long as ours, or longer
    peer: bool = False  # runs with the peers' interpreter
    variables: Mapping[str, str] = field(default_factory=dict, hash=False)  # of its environment


@dataclass(frozen=True)
class Measurement:
    """What a program printed in one turn."""

    work: str
    program: str
    turn: int
    seconds: list[float]  # of each timed epoch, scaled to `STEPS` where it had fewer steps
    learned: dict[str, float] | None  # loss and accuracy
    threads: int | None
    versions: dict[str, str]


# The first of each work is what the others are compared with.
PROGRAMS = (
    Program("mlp", "ours", "with_keras", "ours"),
    Program("mlp", "ours, untracked", "with_keras", "untracked", goal=1 / 1.03),
    Program("mlp", "Keras, reference.py", "with_keras", "reference", goal=12),
    Program("mlp", "PyTorch, DataLoader", "with_torch", "data_loader", goal=5, peer=True),
    Program("mlp", "PyTorch, by hand", "with_torch", "by_hand", goal=3, peer=True),
    Program("mlp", "JAX, lax.scan", "with_jax", "scan", goal=1.3, peer=True),
    Program("mlp", "bare training, XLA by hand", "floor", "step"),
    Program("mlp", "bare matrix products", "floor", "products"),
    Program("cnn float32", "ours", "with_keras", "our_cnn"),
    Program("cnn float32", "ours, without oneDNN", "with_keras", "our_cnn", variables={ONEDNN: "0"}),
    Program("cnn float32", "Keras, defaults", "with_keras", "cnn", goal=1.5),
    Program("cnn float32", "PyTorch, by hand", "with_torch", "cnn", goal=1, peer=True),
    Program("cnn float32", "PyTorch, channels last", "with_torch", "cnn_channels_last", goal=1, peer=True),
    Program("cnn float32", "bare convolutions", "floor", "convolutions"),
    Program("cnn bfloat16", "ours", "with_keras", "our_cnn_bfloat16"),
    Program("cnn bfloat16", "PyTorch, by hand", "with_torch", "cnn_bfloat16", goal=1, peer=True),
    Program("cnn bfloat16", "PyTorch, channels last", "with_torch", "cnn_bfloat16_channels_last", goal=1, peer=True),
)


def main() -> None:
    """Prepares, measures and shows."""
    arguments = parse_arguments()
    official_folder()
    chosen = [
        program
        for program in PROGRAMS
        if arguments.only in (None, program.work[:3]) and (arguments.peers_python or not program.peer)
        if "bfloat16" not in program.work or faster_precision() == "bfloat16"  # imitated, it takes minutes
    ]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="fashion-mnist-benchmark-") as temporary:
        folder = Path(temporary).resolve()
        prepare(folder / "data")
        measurements = measure_all(chosen, folder, arguments)
    versions = {name: number for m in measurements for name, number in m.versions.items()}
    limits = {name: value for name, value in os.environ.items() if name.endswith("_NUM_THREADS")}
    facts = {**machine(), **versions, "load_before": round(load, 2), "limits": limits}
    show(chosen, measurements, facts, arguments)
    if arguments.json:
        content = {
            "measured": LEGEND,
            "machine": facts,
            "cnn_steps": arguments.cnn_steps,
            "goals": {f"{program.work}: {program.name}": program.goal for program in chosen if program.goal},
            "runs": [asdict(measurement) for measurement in measurements],
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--turns", type=positive, default=5, help="how often each program is measured (default: %(default)s)")
    add("--epochs", type=positive, default=3, help="timed epochs in each turn (default: %(default)s)")
    add("--cnn-steps", type=positive, default=300, help="of each epoch of the cnn (default: %(default)s)")
    add("--only", choices=("mlp", "cnn"), help="measure only this network")
    add("--peers-python", type=Path, metavar="FILE", help="an interpreter that has peers.txt installed")
    add("--json", type=Path, metavar="FILE", help="write every single measurement to this file")
    arguments = parser.parse_args()
    if arguments.cnn_steps > STEPS:
        parser.error(f"argument --cnn-steps: an epoch has {STEPS} steps")
    if arguments.peers_python and not arguments.peers_python.is_file():
        parser.error(f"argument --peers-python: there is no {arguments.peers_python}")
    return arguments


def measure_all(programs: Sequence[Program], folder: Path, arguments: argparse.Namespace) -> list[Measurement]:
    """Measures every program once a turn, and tells how long the rest will take."""
    console = wide_console()
    if not arguments.peers_python:
        console.print("PyTorch and JAX are left out: --peers-python names no interpreter.", highlight=False)
    measurements: list[Measurement] = []
    took: dict[Program, float] = {}
    for turn in range(1, arguments.turns + 1):
        for place, program in enumerate(programs):
            start = time.perf_counter()
            measurement = measure(program, turn, folder, arguments)
            took[program] = time.perf_counter() - start
            measurements.append(measurement)
            usual = statistics.mean(took.values())
            every = [took.get(program, usual) for program in programs]
            left = sum(every[place + 1 :]) + (arguments.turns - turn) * sum(every)
            told = f"{statistics.median(measurement.seconds):6.2f} s  {program.work}: {program.name}"
            console.print(f"turn {turn} of {arguments.turns}: {told:<50} {left / 60:4.1f} min left", highlight=False)
    return measurements


def measure(program: Program, turn: int, folder: Path, arguments: argparse.Namespace) -> Measurement:
    """Runs a program once; ends everything if it fails."""
    steps = STEPS if program.work == "mlp" else arguments.cnn_steps
    interpreter = arguments.peers_python.absolute() if program.peer else sys.executable
    script = [str(interpreter), str(FOLDER / f"{program.script}.py"), program.key]
    variables = environment(
        MLFLOW_TRACKING_URI=f"sqlite:///{folder / 'mlflow.db'}",
        CUDA_VISIBLE_DEVICES="-1",
        TF_CPP_MIN_LOG_LEVEL="3",
        **program.variables,
    )
    data = str(folder / "data" / "fashion_mnist")
    done = subprocess.run(
        [*script, data, str(arguments.epochs), str(steps)], cwd=folder, env=variables, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{done.stderr[-3000:]}\nerror: '{program.work}: {program.name}' ended with code {done.returncode}.")
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    printed["seconds"] = [round(seconds * STEPS / steps, 4) for seconds in printed["seconds"]]
    return Measurement(program.work, program.name, turn, **printed)


def show(
    programs: Sequence[Program],
    measurements: Sequence[Measurement],
    facts: dict[str, Any],
    arguments: argparse.Namespace,
) -> None:
    """Prints the table, what was measured, and on which machine."""
    table = Table(title="One epoch of Fashion-MNIST's 60,000 training images, in batches of 32", box=box.SIMPLE)
    table.add_column("")
    table.add_column("program")
    for heading in ("n", "seconds", "min - max", "÷ ours", "goal", "", "loss", "accuracy"):
        table.add_column(heading, justify="left" if heading == "" else "right")
    base: dict[str, float] = {}
    for place, program in enumerate(programs):
        own = [m for m in measurements if (m.work, m.program) == (program.work, program.name)]
        seconds = [statistics.median(m.seconds) for m in own]
        median = statistics.median(seconds)
        ratio = median / base.setdefault(program.work, median)
        goal = (f"≥ {program.goal:.3g}", "reached" if ratio >= program.goal else "missed") if program.goal else ("", "")
        learned = [m.learned for m in own if m.learned]
        means = [f"{statistics.median(m[key] for m in learned):.4f}" if learned else "" for key in ("loss", "accuracy")]
        spread = f"{min(seconds):,.2f} - {max(seconds):,.2f}"
        last = program.work != programs[min(place + 1, len(programs) - 1)].work
        cells = (str(len(own)), f"{median:,.3f}", spread, f"{ratio:,.2f}", *goal, *means)
        table.add_row(program.work, program.name, *cells, end_section=last)
    console = wide_console()
    console.print(table)
    scaled = f" cnn: timed over epochs of {arguments.cnn_steps} steps, on as many images as that takes, and scaled up."
    console.print(LEGEND + (scaled if arguments.cnn_steps < STEPS and arguments.only != "mlp" else ""), highlight=False)
    torch = {f"PyTorch {m.threads}" for m in measurements if m.threads}
    threads = ", ".join(["as each library chooses", *torch, *(f"{k}={v}" for k, v in facts["limits"].items())])
    packages = {"TensorFlow": "tensorflow", "Keras": "keras", "MLflow": "mlflow", "NumPy": "numpy"}
    packages |= {"PyTorch": "torch", "JAX": "jax"}
    known = ", ".join(f"{title} {facts[name]}" for title, name in packages.items() if name in facts)
    dirty = " with uncommitted changes" if facts["git_dirty"] else ""
    if facts["load_before"] > BUSY:
        console.print("The machine was busy beforehand: these ratios say little, least of all PyTorch's.", style="red")
    console.print(
        f"{facts['processor']}, {facts['cores']} cores (load {facts['load_before']} before), threads: {threads}; "
        f"Python {facts['python']}, {known}; commit {facts['git_commit'][:12]}{dirty}.",
        highlight=False,
    )


if __name__ == "__main__":
    main()
