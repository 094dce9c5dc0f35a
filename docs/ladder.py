"""The accuracy ladder: its table in the README, its picture, and what each step's file says of it."""

import re
import statistics
from collections.abc import Sequence

import numpy as np
from adjustText import adjust_text
from matplotlib.figure import Figure
from tables import spread

Ladder = dict[str, dict[str, list[dict]]]  # what was measured, by step and program
OURS, UNIT = "ours", "unit"
HEADINGS = ("`experiment=`", "test accuracy", "n", "two cores of", "training, s", "units", "parameters")


def steps_of(turns: Sequence[dict]) -> Ladder:
    """What `benchmarks/time_to_accuracy.py` measured; in each measurement, too, units of cost and the processor."""
    steps: Ladder = {}
    for turn in turns:
        unit = turn["measured"][UNIT]["seconds"]
        for program, measured in turn["measured"].items():
            told = {**measured, "units": measured["seconds"] / unit, "processor": named(turn["processor"])}
            steps.setdefault(turn["step"], {}).setdefault(program, []).append(told)
    return steps


def named(processor: str) -> str:
    """A processor's name as people say it: `Intel Xeon (amx_bf16)` for `Intel(R) Xeon(R) Processor (amx_bf16)`."""
    return " ".join(re.sub(r"\((R|TM)\)|\b(Processor|CPU)\b[^(]*", "", processor).split())


def processors_of(measured: Sequence[dict]) -> str:
    return " and ".join(sorted({each["processor"] for each in measured}))


def median(measured: Sequence[dict], key: str) -> float:
    return statistics.median(each[key] for each in measured)


def rows(ladder: Ladder) -> list[list[str]]:
    """What each step reaches, and what its training costs, under `HEADINGS`; then the unit of each processor."""
    told = []
    for step, programs in ladder.items():
        ours = programs[OURS]
        accuracy = spread([each["test_accuracy"] for each in ours])
        costs = [f"{median(ours, 'seconds'):,.0f}", f"{median(ours, 'units'):.2g}", f"{ours[0]['parameters']:,}"]
        told.append([f"`{step}`", accuracy, str(len(ours)), processors_of(ours), *costs])
    units = [unit for programs in ladder.values() for unit in programs[UNIT]]
    for processor in sorted({unit["processor"] for unit in units}, reverse=True):
        took = [unit["seconds"] for unit in units if unit["processor"] == processor]
        seconds = f"{statistics.median(took):,.0f} ({min(took):,.0f} to {max(took):,.0f})"
        told.append(["one unit", "", str(len(took)), processor, seconds, "1", f"{units[0]['parameters']:,}"])
    return told


def comment_on(ours: Sequence[dict]) -> str:
    """What the file of a step says that it reaches."""
    accuracy, processors = spread([each["test_accuracy"] for each in ours]), processors_of(ours)
    seconds, units = median(ours, "seconds"), median(ours, "units")
    return (
        f"Test accuracy {accuracy} (n = {len(ours)}), {seconds:,.0f} s of training on two cores of {processors}, "
        f"{units:.2g} units."
    )


def picture_of(variants: Sequence[tuple[str, float, float]], processor: str, ladder: Ladder) -> Figure:
    """Test accuracy against seconds of training: the ladder, its peer, and the variants.

    Args:
        variants: names, seconds, accuracies.
        processor: where the variants were timed.
        ladder: what was measured of its steps.
    """
    figure = Figure(figsize=(10.5, 6), layout="constrained")
    axes = figure.subplots()
    _, seconds, values = zip(*variants, strict=True)
    axes.plot(seconds, values, "o", color="#8a8a8a", label=f"variants, {processor}")
    steps = [(step, *place_of(programs[OURS]), processors_of(programs[OURS])) for step, programs in ladder.items()]
    _, seconds, values, _ = zip(*steps, strict=True)
    axes.plot(seconds, values, "-", color="#0b6e99", alpha=0.35)  # names may lie across it
    for number, processors in enumerate(sorted({step[-1] for step in steps}, reverse=True)):
        filled = "none" if number else "full"
        _, seconds, values, _ = zip(*(step for step in steps if step[-1] == processors), strict=True)
        axes.plot(seconds, values, "s", color="#0b6e99", fillstyle=filled, label=f"the ladder, {processors}")
    for step, programs in ladder.items():
        for name in programs:
            if name.startswith("PyTorch"):
                marker = "v" if "compiled" in name else "^"
                axes.plot(*place_of(programs[name]), marker, color="#c2571a", label=f"{step} in {name}")
    axes.set(xscale="log", xlabel="seconds of training on two cores", ylabel="test accuracy")
    axes.margins(x=0.12)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    places = [*variants, *(step[:3] for step in steps)]
    names = [axes.text(seconds, value, name, fontsize=8) for name, seconds, value in places]
    drawn = np.concatenate([line.get_xydata() for line in axes.lines])
    adjust_text(names, x=drawn[:, 0], y=drawn[:, 1], ax=axes, expand=(1.2, 1.4), iter_lim=300)
    return figure


def place_of(measured: Sequence[dict]) -> tuple[float, float]:
    """Seconds of training, and test accuracy."""
    return median(measured, "seconds"), statistics.mean(each["test_accuracy"] for each in measured)
