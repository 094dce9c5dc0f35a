"""A comparison for people and machines: tables in the terminal, Markdown, JSON; page.py says the same as a page."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from fashion_mnist.comparison.groups import Comparison, Group, Verdict, variant
from fashion_mnist.data.dataset import CLASS_NAMES
from fashion_mnist.files import complete

MOST_GROUPS, MOST_LINKS = 11, 5  # in a description, which MLflow cuts off after 8,000 characters
SCORES = ("test_accuracy", "test_loss", "test_macro_f1", "test_calibration_error", "val_accuracy", "accuracy")
COSTS = {
    "parameters": "parameters",
    "flops_per_image": "MFLOP",
    "training_seconds": "training s",
    "prediction_microseconds": "prediction µs",
}
QUALITY = ("n", "accuracy", "95 %", "loss", "F1", "ECE")
MARKUP = str.maketrans("<>|`", "    ")  # names of runs are anybody's, and go into Markdown
LEGEND = (
    "Mean ± sample standard deviation over n seeds; 95 %: interval over seeds and test images. F1: macro. ECE: "
    "expected calibration error. MFLOP: million floating-point operations for one image. Times, of a training and of "
    "one image: medians, on the machine of the runs. McNemar: the test of that name, on pairs of trainings with the "
    "same seed."
)


def show(comparison: Comparison, files: Sequence[Path]) -> None:
    """Prints two tables, which fit a terminal of 80 characters, and the verdicts."""
    console = Console()
    tested = f"{len(comparison.tested.labels):,} test images of {comparison.tested.title}"
    for title, names, rows in (
        (f"Accuracy on {tested}", QUALITY, [quality(group) for group in comparison.groups]),
        (
            "What they cost",
            cost_headings(comparison),
            [costs(comparison, group) for group in comparison.groups],
        ),
    ):
        table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        for heading in headings(comparison):
            table.add_column(heading, overflow="fold")
        for heading in names:
            table.add_column(heading, justify="right", no_wrap=True)
        for group, row in zip(comparison.groups, rows, strict=True):
            table.add_row(*cells(comparison, group), *row)
        console.print(table)
    console.print(f"{LEGEND}\n", style="dim", highlight=False)
    for verdict in comparison.verdicts.values():
        console.print(f"- {verdict.sentence}", highlight=False, markup=False)
    console.print(classes_apart(comparison), highlight=False, markup=False)
    for line in left_out(comparison):
        console.print(f"left out: {line}", style="yellow", highlight=False, markup=False)
    console.print(f"Report: {', '.join(str(file) for file in files)}", highlight=False, soft_wrap=True)


def write(comparison: Comparison, folder: Path, page: str) -> list[Path]:
    """Writes comparison.json, .md and .html; each is complete or not there."""
    contents = {
        "comparison.json": json.dumps(as_json(comparison), indent=1, allow_nan=False) + "\n",
        "comparison.md": as_markdown(comparison),
        "comparison.html": page,
    }
    for name, content in contents.items():
        with complete(folder / name) as partial:
            partial.write_text(content, encoding="utf-8")
    return [folder / name for name in contents]


def as_markdown(comparison: Comparison) -> str:
    """The tables and verdicts."""
    names = [*headings(comparison), *QUALITY, *cost_headings(comparison)]
    texts = len(headings(comparison))
    rule = ["---"] * texts + ["---:"] * (len(names) - texts)
    rows = [[*cells(comparison, group), *quality(group), *costs(comparison, group)] for group in comparison.groups]
    lines = [
        f"# Comparison on {len(comparison.tested.labels):,} test images of {comparison.tested.title}",
        "",
        *("| " + " | ".join(row) + " |" for row in (names, rule, *rows)),
        "",
        LEGEND,
        "",
        *(f"- {verdict.sentence} {verdict.pairs}" for verdict in comparison.verdicts.values()),
        "",
        classes_apart(comparison),
    ]
    if comparison.left_out:
        lines += ["", "Left out:", "", *(f"- {line}" for line in left_out(comparison))]
    return "\n".join(lines) + "\n"


def as_note(comparison: Comparison, experiment: str) -> str:
    """The description of the report's run in MLflow: the verdicts, and links to the runs that were compared."""
    groups = comparison.groups[:MOST_GROUPS]
    lines = [f"- {comparison.verdicts[group.name].sentence}" for group in groups if group.name in comparison.verdicts]
    lines += ["", "| group | test accuracy | runs |", "| --- | --- | --- |"]
    for group in groups:
        links = [
            f"[{training.seed}](#/experiments/{experiment}/runs/{training.run_id})"
            for training in group.trainings
            if training.run_id
        ]
        lines.append(f"| `{group.name}` | {quality(group)[1]} | {' '.join(links[:MOST_LINKS])} |")
    if len(groups) < len(comparison.groups):
        lines += ["", f"{len(comparison.groups) - len(groups)} more are in the report."]
    return "\n".join(lines)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain dictionaries: no times of day, so that the same results give the same bytes."""
    return {
        "dataset": comparison.tested.dataset,
        "dataset_digest": comparison.tested.digest,
        "test_images": len(comparison.tested.labels),
        "baseline": comparison.baseline.name,
        "facts": facts(comparison),
        "groups": [group_as_json(group, comparison.verdicts.get(group.name)) for group in comparison.groups],
        "left_out": [entry._asdict() for entry in comparison.left_out],
    }


def group_as_json(group: Group, verdict: Verdict | None) -> dict[str, Any]:
    """One group of the JSON report."""
    content: dict[str, Any] = {
        "name": group.name,
        "params": group.params,
        "n": group.n,
        "seeds": [training.seed for training in group.trainings],
        "runs": [training.run_id for training in group.trainings if training.run_id],
        "accuracy_interval": rounded(group.interval),
        "metrics": {
            name: {"mean": rounded(group.mean(name)), "std": rounded(group.deviation(name)), "values": rounded(values)}
            for name in SCORES
            if (values := group.values(name))
        },
        "costs": {name: rounded(group.cost(name), 3) for name in COSTS if group.cost(name) is not None},
        "accuracy_per_class": rounded(group.recall.tolist()),
    }
    if verdict:
        content["verdict"] = {
            "sentence": verdict.sentence,
            "difference": rounded(verdict.difference),
            "interval": rounded(verdict.interval),
            "p_holm": rounded(verdict.p),
            "p_mcnemar_holm": rounded(verdict.mcnemar),
            "shown": verdict.shown,
        }
    return content


def rounded(value: Any, digits: int = 6) -> Any:
    """Numbers, alone or in lists, to a few digits."""
    if isinstance(value, list | tuple):
        return [rounded(each, digits) for each in value]
    return value if value is None else round(float(value), digits)


def quality(group: Group) -> list[str]:
    """A group's cells below `QUALITY`."""
    deviation = group.deviation("test_accuracy")
    accuracy = f"{group.accuracy:.4f}" + (f" ± {deviation:.4f}" if deviation is not None else "")
    low, high = group.interval
    scores = [group.mean(name) for name in ("test_loss", "test_macro_f1", "test_calibration_error")]
    return [
        str(group.n),
        accuracy,
        f"{low:.3f} - {high:.3f}",
        *("" if each is None else f"{each:.3f}" for each in scores),
    ]


def costs(comparison: Comparison, group: Group) -> list[str]:
    """A group's cells below `cost_headings`."""
    digits = {"parameters": 0, "flops_per_image": 2, "training_seconds": 1, "prediction_microseconds": 1}
    values = {name: group.cost(name) for name in known_costs(comparison)}
    scaled = {name: value and value / (1e6 if name == "flops_per_image" else 1) for name, value in values.items()}
    return ["" if value is None else f"{value:,.{digits[name]}f}" for name, value in scaled.items()]


def known_costs(comparison: Comparison) -> list[str]:
    """The costs that any group has; the pipeline, which gives the same bytes each time, records no times."""
    return [name for name in COSTS if any(group.values(f"system/{name}") for group in comparison.groups)]


def cost_headings(comparison: Comparison) -> list[str]:
    """The columns of costs."""
    return [COSTS[name] for name in known_costs(comparison)]


def headings(comparison: Comparison) -> list[str]:
    """The columns that tell groups apart."""
    return ["variant", *(key.rpartition(".")[2] for key in comparison.columns)]


def cells(comparison: Comparison, group: Group) -> list[str]:
    """A group's cells below `headings`."""
    return [variant(group), *(group.params.get(key, "") for key in comparison.columns)]


def classes_apart(comparison: Comparison) -> str:
    """Says in which classes the groups differ most, and what to be careful with."""
    if len(comparison.groups) < 2:
        more = "python -m fashion_mnist -m model=mlp,cnn seed=0,1,2 trains more"
        return f"Only one group: nothing to compare `{comparison.groups[0].name}` with; {more}."
    recalls = np.array([group.recall for group in comparison.groups])
    once = any(group.n == 1 for group in comparison.groups)
    remark = " Where n = 1, another seed may say otherwise: train with -m seed=0,1,2." if once else ""
    codes = [{training.tags.get("code_digest") for training in group.trainings} for group in comparison.groups]
    if mixed := [f"`{group.name}`" for group, found in zip(comparison.groups, codes, strict=True) if len(found) > 1]:
        remark += f" The code changed between the trainings of {', '.join(mixed)} (their tag code_digest)."
    widest = np.argsort(recalls.min(axis=0) - recalls.max(axis=0))[:3]
    told = [
        f"{CLASS_NAMES[label]} ({comparison.groups[recalls[:, label].argmin()].name} {recalls[:, label].min():.3f}, "
        f"{comparison.groups[recalls[:, label].argmax()].name} {recalls[:, label].max():.3f})"
        for label in widest
    ]
    return f"Accuracy per class differs most for {'; '.join(told)}.{remark}"


def left_out(comparison: Comparison, most: int = 20) -> list[str]:
    """A line for each run that is not compared."""
    names = [" ".join(entry.name.translate(MARKUP).split()) for entry in comparison.left_out]
    pairs = zip(names, comparison.left_out, strict=True)
    lines = [f"{name} ({entry.run_id[:8]}): {entry.reason}" for name, entry in pairs]
    return lines if len(lines) <= most else [*lines[:most], f"and {len(lines) - most} more, in the JSON report"]


def facts(comparison: Comparison) -> str:
    """Where and with what the trainings were made, as their runs say."""
    keys = {"device": "", "python": "Python ", "tensorflow": "TensorFlow ", "keras": "Keras ", "git_commit": "commit "}
    said = []
    for key, prefix in keys.items():
        length = 12 if key == "git_commit" else None
        found = sorted({each.tags[key][:length] for each in comparison.trainings if key in each.tags})
        said += [f"{prefix}{' / '.join(found)}"] if found else []
    return ", ".join(said)
