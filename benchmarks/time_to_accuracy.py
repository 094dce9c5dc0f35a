"""The accuracy ladder: what each step reaches on the test images, and what its training costs on this machine.

    uv run python benchmarks/time_to_accuracy.py --json ladder.json
    uv run python benchmarks/time_to_accuracy.py --steps ladder_94 --seeds 3 --json ladder.json --output ladder

A turn is a step of the ladder with one seed; right before it, the unit of cost is measured anew, so that whatever else
the machine does meets both alike. Every program is a process of its own. What --json holds of the same code and presets
is not measured again: a benchmark that was killed goes on, and with --output its training does too.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import mean_and_deviation
from common import ROOT, environment, machine, official_folder, positive, prepare, wide_console
from rich import box
from rich.table import Table

from fashion_mnist.cli import compose
from fashion_mnist.data.dataset import read_dataset
from fashion_mnist.files import complete
from fashion_mnist.tracking.lineage import code_digest, config_digest, processor

FOLDER = Path(__file__).with_name("programs")
GOALS = {  # test accuracy, and what its training may cost, in units
    "ladder_91": (0.91, 0.3),
    "ladder_92": (0.92, 0.8),
    "ladder_93": (0.93, 3),
    "ladder_94": (0.94, 10),
    "ladder_95": (0.95, 80),
}
LONGEST = {"ladder_95": 6000}  # seconds that a training may take, whatever the unit
UNIT, OURS, PYTORCH, COMPILED = "unit", "ours", "PyTorch", "PyTorch compiled"
BESIDE_PYTORCH, GOAL_BESIDE_PYTORCH = "ladder_93", 0.8
LEGEND = (
    "Test accuracy: mean ± sample standard deviation over n seeds, by our own evaluation, once a seed. Seconds: of one "
    "training, median. They begin with the images in memory and a model that is built, and end after the last step: "
    "compilation, the choice of a block of steps, validation, checkpoints and tracking belong to it; imports, saving "
    "and evaluation are not. Unit: one epoch of the plain Keras CNN in programs/unit.py, 60,000 images in batches of "
    "128, float32, compiled beforehand. Units: median of the ratios to the unit measured right before."
)
PEER_LEGEND = (
    "PyTorch: the same network, recipe and images, channels last, its compilation part of the seconds. With the first "
    "seed both ways are trained to the end, with the others the one that was faster then (compiled again, but for what "
    "PyTorch caches)."
)


@dataclass(frozen=True)
class Measurement:
    """What a program printed of one training, or of the unit."""

    seconds: float
    parameters: int
    wall: float  # of the whole process, from its start to its end
    test_accuracy: float | None = None
    threads: int | None = None  # of PyTorch
    version: str | None = None


@dataclass(frozen=True)
class Turn:
    """A step with a seed, beside the unit and, where they were wanted, beside peers."""

    step: str
    seed: int
    digest: str  # of the code and the preset
    processor: str  # a step may be measured on another machine than the rest
    measured: dict[str, Measurement]

    @property
    def units(self) -> dict[str, float]:
        """What each training cost."""
        unit = self.measured[UNIT].seconds
        return {name: each.seconds / unit for name, each in self.measured.items() if name != UNIT}

    @property
    def peers(self) -> list[str]:
        return [name for name in self.measured if name not in (UNIT, OURS)]


def main() -> None:
    """Prepares, measures and shows."""
    arguments = parse_arguments()
    official_folder()
    load = os.getloadavg()[0]
    wanted = {(step, seed): digest_of(step, seed) for seed in range(arguments.seeds) for step in arguments.steps}
    known = read(arguments.json) if arguments.json else []
    turns = [turn for turn in known if turn.digest == wanted.get((turn.step, turn.seed), turn.digest)]
    with tempfile.TemporaryDirectory(prefix="fashion-mnist-benchmark-") as temporary:
        folder = (arguments.output or Path(temporary)).resolve()
        prepare(folder / "data")
        measure_all(wanted, turns, folder, arguments)
    facts = {**machine(), "load_before": round(load, 2)}
    show(turns, facts)
    if arguments.json:
        write(arguments.json, turns, facts)


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    there = sorted(file.stem for file in (ROOT / "conf" / "experiment").glob("ladder_*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--steps", default=",".join(there), help="presets of conf/experiment/ (default: %(default)s)")
    add("--seeds", type=positive, default=5, help="trainings of each step: seeds 0, 1, ... (default: %(default)s)")
    add(
        "--peers-python",
        type=Path,
        metavar="FILE",
        help=f"measure {BESIDE_PYTORCH} in PyTorch too, by this interpreter",
    )
    add("--output", type=Path, metavar="FOLDER", help="keep models, checkpoints, runs and prepared data here")
    add("--json", type=Path, metavar="FILE", help="write every turn to this file; those it holds are not run again")
    arguments = parser.parse_args()
    arguments.steps = [step for step in arguments.steps.split(",") if step]
    if unknown := set(arguments.steps) - set(there):
        parser.error(f"argument --steps: there is no {min(unknown)}; choose from {', '.join(there) or 'none yet'}")
    if not arguments.steps:
        parser.error("argument --steps: it names none")
    if arguments.peers_python and not arguments.peers_python.is_file():
        parser.error(f"argument --peers-python: there is no {arguments.peers_python}")
    return arguments


def digest_of(step: str, seed: int) -> str:
    """Stands for the code and the preset that a training is made from."""
    return f"{code_digest()}-{config_digest(compose([f'experiment={step}', f'seed={seed}']))}"


def read(file: Path) -> list[Turn]:
    """The turns that an earlier call has written."""
    if not file.is_file():
        return []
    return [
        Turn(**{**turn, "measured": {name: Measurement(**each) for name, each in turn["measured"].items()}})
        for turn in json.loads(file.read_text())["turns"]
    ]


def write(file: Path, turns: Sequence[Turn], facts: dict[str, Any] | None = None) -> None:
    """Writes all turns; the machine is known at the end, and stands beside those of earlier calls."""
    machines = json.loads(file.read_text()).get("machines", {}) if file.is_file() else {}
    content = {
        "measured": f"{LEGEND} {PEER_LEGEND}",
        "machines": machines | ({facts["processor"]: facts} if facts else {}),
        "goals": {step: {"test_accuracy": accuracy, "units": units} for step, (accuracy, units) in GOALS.items()},
        "longest": LONGEST,
        "turns": [asdict(turn) for turn in turns],
    }
    with complete(file) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def measure_all(
    wanted: dict[tuple[str, int], str], turns: list[Turn], folder: Path, arguments: argparse.Namespace
) -> None:
    """Adds the turns that are missing, and tells how long the rest will take."""
    console = wide_console()
    done = {
        (turn.step, turn.seed)
        for turn in turns
        if turn.peers or turn.step != BESIDE_PYTORCH or not arguments.peers_python
    }
    missing = [key for key in wanted if key not in done]
    for number, (step, seed) in enumerate(missing, start=1):
        peers = peers_of(turns) if arguments.peers_python and step == BESIDE_PYTORCH else []
        measured = {}
        for program in (UNIT, OURS, *peers):
            measured[program] = told = measure(program, step, seed, folder, arguments.peers_python)
            accuracy = "" if told.test_accuracy is None else f"  test accuracy {told.test_accuracy:.4f}"
            console.print(f"  {told.seconds:8.2f} s  {step} seed {seed}: {program:<18}{accuracy}", highlight=False)
        turns[:] = [turn for turn in turns if (turn.step, turn.seed) != (step, seed)]
        turns.append(Turn(step, seed, wanted[step, seed], processor(), measured))
        turns.sort(key=lambda turn: (turn.step, turn.seed))
        if arguments.json:
            write(arguments.json, turns)
        left = sum(expected(other, turns) for other, _ in missing[number:])
        console.print(f"turn {number} of {len(missing)}: {left / 60:.1f} min left", highlight=False)


def peers_of(turns: Sequence[Turn]) -> list[str]:
    """What to run in PyTorch: both ways at first, then the faster one. Compilation needs a C++ compiler."""
    if shutil.which("c++") is None and shutil.which("g++") is None:
        return [PYTORCH]
    tried = [turn for turn in turns if len(turn.peers) == 2]
    if not tried:
        return [PYTORCH, COMPILED]
    return [min(tried[0].peers, key=lambda name: tried[0].measured[name].seconds)]


def expected(step: str, turns: Sequence[Turn]) -> float:
    """Seconds that a turn will take: as long as it did, or else as its goal allows."""
    if own := [turn for turn in turns if turn.step == step]:
        return sum(each.wall for each in own[-1].measured.values())
    return (1 + GOALS.get(step, (0, 1))[1]) * statistics.median(turn.measured[UNIT].wall for turn in turns)


def measure(program: str, step: str, seed: int, folder: Path, peers_python: Path | None) -> Measurement:
    """Runs a program once; ends everything if it fails."""
    data = folder / "data"
    if program == UNIT:
        command = [sys.executable, str(FOLDER / "unit.py"), str(data / "fashion_mnist")]
    elif program == OURS:
        output = folder / f"{step}-seed{seed}"
        command = [sys.executable, str(FOLDER / "ladder_step.py"), f"experiment={step}", f"seed={seed}"]
        command += [f"data_root={data}", f"output_dir={output}"]
    else:
        command = [f"{peers_python.absolute() if peers_python else sys.executable}"]
        command += [str(FOLDER / "ladder_with_torch.py"), str(for_peers(step, folder)), str(seed)]
        command += ["--compiled"] if program == COMPILED else []
    variables = environment(
        MLFLOW_TRACKING_URI=f"sqlite:///{folder / 'mlflow.db'}",
        CUDA_VISIBLE_DEVICES="-1",
        TF_CPP_MIN_LOG_LEVEL="3",
        TORCHINDUCTOR_CACHE_DIR=str(folder / "inductor"),  # else of the whole machine
    )
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stderr[-3000:]}\nerror: '{program}' of {step} ended with code {done.returncode}.")
    return Measurement(**json.loads(done.stdout.splitlines()[-1]), wall=round(time.perf_counter() - start, 2))


def for_peers(step: str, folder: Path) -> Path:
    """A folder with what a peer needs: the composed preset, and the images that ours learns from and is tested on."""
    config = compose([f"experiment={step}"])
    dataset = read_dataset(folder / "data" / "fashion_mnist", config.data.validation)
    place = folder / f"{step}-peers"
    place.mkdir(exist_ok=True)
    for name, split in (("train", dataset.training), ("test", dataset.test)):
        np.save(place / f"{name}_images.npy", split.images)
        np.save(place / f"{name}_labels.npy", split.labels)
    (place / "recipe.json").write_text(json.dumps(config.composed(), indent=2))
    return place


def show(turns: Sequence[Turn], facts: dict[str, Any]) -> None:
    """Prints the table, the comparison with PyTorch, what was measured, and on which machine."""
    table = Table(title="Time to accuracy on Fashion-MNIST", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("step", no_wrap=True)
    for heading in ("n", "test accuracy", "goal", "seconds", "min - max", "unit, s", "units", "goal", "", "parameters"):
        table.add_column(heading, justify="right", no_wrap=True)
    for step in sorted({turn.step for turn in turns}):
        own = [turn for turn in turns if turn.step == step]
        for name in (OURS, PYTORCH, COMPILED):
            if measured := [turn for turn in own if name in turn.measured]:
                table.add_row(*row(step, name, measured))
    console = wide_console()
    console.print(table)
    if beside := [turn for turn in turns if turn.peers]:
        ratios = [turn.units[OURS] / min(turn.units[name] for name in turn.peers) for turn in beside]
        median = statistics.median(ratios)
        verdict = "reached" if median <= GOAL_BESIDE_PYTORCH else "missed"
        console.print(
            f"{BESIDE_PYTORCH}, ours ÷ PyTorch: {median:.2f} ({min(ratios):.2f} - {max(ratios):.2f}), "
            f"median of {len(ratios)}; goal ≤ {GOAL_BESIDE_PYTORCH}: {verdict}.",
            highlight=False,
        )
    console.print(f"{LEGEND} {PEER_LEGEND}" if beside else LEGEND, highlight=False)
    for other in sorted({turn.processor for turn in turns} - {facts["processor"]}):
        steps = sorted({turn.step for turn in turns if turn.processor == other})
        console.print(f"Measured before, on {other}: {', '.join(steps)}.", highlight=False)
    dirty = " with uncommitted changes" if facts["git_dirty"] else ""
    peer = beside[0].measured[beside[0].peers[0]] if beside else None
    torch = f", PyTorch {peer.version} on {peer.threads} threads" if peer else ""
    packages = f"TensorFlow {facts['tensorflow']}, Keras {facts['keras']}{torch}"
    console.print(
        f"{facts['processor']}, {facts['cores']} cores (load {facts['load_before']} before); Python {facts['python']}, "
        f"{packages}; commit {facts['git_commit'][:12]}{dirty}.",
        highlight=False,
    )


def row(step: str, name: str, turns: Sequence[Turn]) -> list[str]:
    """A line of the table."""
    seconds = [turn.measured[name].seconds for turn in turns]
    accuracies = [turn.measured[name].test_accuracy or 0.0 for turn in turns]
    accuracy, cost = statistics.mean(accuracies), statistics.median(turn.units[name] for turn in turns)
    goals = ("", "", "")
    if name == OURS and step in GOALS:
        wanted, units = GOALS[step]
        reached = accuracy >= wanted and cost <= units and max(seconds) <= LONGEST.get(step, math.inf)
        time = f", {LONGEST[step]:,} s" if step in LONGEST else ""
        goals = (f"≥ {wanted}", f"≤ {units}{time}", "reached" if reached else "missed")
    return [
        step if name == OURS else f" {name}",
        str(len(turns)),
        mean_and_deviation(accuracies),
        goals[0],
        f"{statistics.median(seconds):,.1f}",
        f"{min(seconds):,.1f} - {max(seconds):,.1f}",
        f"{statistics.median(turn.measured[UNIT].seconds for turn in turns):.1f}",
        f"{cost:.2f}",
        *goals[1:],
        f"{turns[0].measured[name].parameters:,}",
    ]


if __name__ == "__main__":
    main()
