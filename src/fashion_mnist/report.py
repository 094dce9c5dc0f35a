"""A comparison for people and machines: tables in the terminal, Markdown, JSON; and the page of page.py."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from fashion_mnist import tables
from fashion_mnist.comparison import Comparison, Group, Verdict
from fashion_mnist.files import complete
from fashion_mnist.page import as_html

MOST_GROUPS, MOST_LINKS = 11, 5  # in a description, which MLflow cuts off after 8,000 characters
SCORES = ("test_accuracy", "test_loss", "test_macro_f1", "test_calibration_error", "val_accuracy", "accuracy")


def show(comparison: Comparison, files: Sequence[Path]) -> None:
    """Prints two tables, which fit a terminal of 80 characters, and the verdicts."""
    console = Console()
    tested = f"{len(comparison.tested.labels):,} test images of {comparison.tested.title}"
    for title, names, rows in (
        (f"Accuracy on {tested}", tables.QUALITY, [tables.quality(group) for group in comparison.groups]),
        (
            "What they cost",
            tables.cost_headings(comparison),
            [tables.costs(comparison, group) for group in comparison.groups],
        ),
    ):
        table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        for heading in tables.headings(comparison):
            table.add_column(heading, overflow="fold")
        for heading in names:
            table.add_column(heading, justify="right", no_wrap=True)
        for group, row in zip(comparison.groups, rows, strict=True):
            table.add_row(*tables.cells(comparison, group), *row)
        console.print(table)
    console.print(f"{tables.LEGEND}\n", style="dim", highlight=False)
    for verdict in comparison.verdicts.values():
        console.print(f"- {verdict.sentence}", highlight=False, markup=False)
    console.print(tables.classes_apart(comparison), highlight=False, markup=False)
    for line in tables.left_out(comparison):
        console.print(f"left out: {line}", style="yellow", highlight=False, markup=False)
    console.print(f"Report: {', '.join(str(file) for file in files)}", highlight=False, soft_wrap=True)


def write(comparison: Comparison, folder: Path, images: np.ndarray | None) -> list[Path]:
    """Writes comparison.json, .md and .html; each is complete or not there."""
    contents = {
        "comparison.json": json.dumps(as_json(comparison), indent=1, allow_nan=False) + "\n",
        "comparison.md": as_markdown(comparison),
        "comparison.html": as_html(comparison, images),
    }
    for name, content in contents.items():
        with complete(folder / name) as partial:
            partial.write_text(content, encoding="utf-8")
    return [folder / name for name in contents]


def as_markdown(comparison: Comparison) -> str:
    """The tables and verdicts."""
    names = [*tables.headings(comparison), *tables.QUALITY, *tables.cost_headings(comparison)]
    texts = len(tables.headings(comparison))
    rule = ["---"] * texts + ["---:"] * (len(names) - texts)
    rows = [
        [*tables.cells(comparison, group), *tables.quality(group), *tables.costs(comparison, group)]
        for group in comparison.groups
    ]
    lines = [
        f"# Comparison on {len(comparison.tested.labels):,} test images of {comparison.tested.title}",
        "",
        *("| " + " | ".join(row) + " |" for row in (names, rule, *rows)),
        "",
        tables.LEGEND,
        "",
        *(f"- {verdict.sentence} {verdict.pairs}" for verdict in comparison.verdicts.values()),
        "",
        tables.classes_apart(comparison),
    ]
    if comparison.left_out:
        lines += ["", "Left out:", "", *(f"- {line}" for line in tables.left_out(comparison))]
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
        lines.append(f"| `{group.name}` | {tables.quality(group)[1]} | {' '.join(links[:MOST_LINKS])} |")
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
        "facts": tables.facts(comparison),
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
        "costs": {name: rounded(group.cost(name), 3) for name in tables.COSTS if group.cost(name) is not None},
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
