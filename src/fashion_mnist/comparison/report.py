"""A comparison for people and machines: tables in the terminal, Markdown, JSON; page.py says the same as a page."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.markdown import Markdown
from rich.table import Table

from fashion_mnist.comparison.groups import Comparison, Group, Step, Verdict, one_of_each
from fashion_mnist.comparison.trainings import Training
from fashion_mnist.errors import terminal
from fashion_mnist.files import complete, write_table
from fashion_mnist.tracking.description import MOST_CHARACTERS
from fashion_mnist.training.history import by_epoch

MOST_GROUPS, MOST_LINKS = 11, 5  # in a description
MOST_CLASSES = 20  # columns of a table
MOST_LEFT_OUT = 20  # lines
SCORES = ("test_accuracy", "test_loss", "test_macro_f1", "test_calibration_error", "val_accuracy", "accuracy")
COSTS = {  # each with its heading, and with the unit and the digits that it is written in
    "parameters": ("parameters", 1, 0),
    "flops_per_image": ("MFLOP", 1e6, 2),
    "training_seconds": ("training s", 1, 1),
    "prediction_microseconds": ("prediction µs", 1, 1),
}
SPENT = {"training s": "s of training", "MFLOP": "MFLOP an image", "parameters": "parameters"}  # in sentences
Cells = list[tuple[str, str]]  # headings and texts, from left to right
LEGEND = (
    "Mean ± sample standard deviation over n seeds; 95 %: interval over seeds and test images. F1: macro. ECE: "
    "expected calibration error. MFLOP: million floating-point operations for one image. Times, of a training and of "
    "one image: medians, on the machine of the runs. McNemar: the test of that name, on pairs of trainings with the "
    "same seed."
)


def show(comparison: Comparison, files: Sequence[Path]) -> None:
    """Prints two tables, which fit a terminal of 80 characters where Markdown's one would not, and what they say."""
    console = terminal()
    of_costs = partial(costs, comparison)
    for title, cells in ((f"Accuracy on {tested_on(comparison)}", quality), ("What they cost", of_costs)):
        table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
        for heading, _ in names(comparison, comparison.baseline):
            table.add_column(heading, overflow="fold")
        for heading, _ in cells(comparison.baseline):
            table.add_column(heading, justify="right", no_wrap=True)
        for group in comparison.groups:
            table.add_row(*(text for _, text in (*names(comparison, group), *cells(group))))
        console.print(table)
    console.print(Markdown(in_words(comparison)))
    console.print(f"\nReport: {', '.join(str(file) for file in files)}", soft_wrap=True)


def write(comparison: Comparison, folder: Path, page: str) -> list[Path]:
    """Writes comparison.json, .md and .html; each is complete or not there."""
    contents = {
        "comparison.json": json.dumps(as_json(comparison), indent=1, allow_nan=False) + "\n",
        "comparison.md": as_markdown(comparison),
        "comparison.html": page,
    }
    for name, content in contents.items():
        with complete(folder / name) as unfinished:
            unfinished.write_text(content, encoding="utf-8")
    return [folder / name for name in contents]


def write_curves(trainings: Sequence[Training], file: Path) -> None:
    """Writes a row for each variant and epoch: a chart of `dvc plots` that names no variant can read one file only."""
    names = ("epoch", "val_accuracy", "val_loss")
    rows = [(training.variant, row) for training in trainings for row in by_epoch(training.curves())]
    write_table(file, [{"variant": variant, **{name: row.get(name) for name in names}} for variant, row in rows])


def as_markdown(comparison: Comparison) -> str:
    """One table, and what it says."""
    rows = table(comparison)
    texts = len(names(comparison, comparison.baseline))
    headings = [name for name, _ in rows[0]]
    rule = ["---"] * texts + ["---:"] * (len(headings) - texts)
    lines = [headings, rule, *([text for _, text in row] for row in rows)]
    written = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"# Comparison on {tested_on(comparison)}\n\n{written}\n\n{in_words(comparison)}\n"


def in_words(comparison: Comparison) -> str:
    """What the tables mean, the verdicts, and what was left out, in Markdown."""
    lines = [LEGEND, "", *(f"- {verdict.sentence} {verdict.pairs}" for verdict in comparison.verdicts.values()), ""]
    lines += [*step_by_step(comparison), classes_apart(comparison)]
    if comparison.left_out:
        lines += ["", "Left out:", "", *(f"- {line}" for line in left_out(comparison))]
    return "\n".join(lines)


def step_by_step(comparison: Comparison) -> list[str]:
    lines = [f"- {in_a_sentence(comparison, step)}" for step in comparison.steps]
    return ["Step by step:", "", *lines, ""] if lines else []


def in_a_sentence(comparison: Comparison, step: Step) -> str:
    """What a technique bought, and what it cost; as many operations are told only where no time is known."""
    difference, shown = step.verdict.difference, step.verdict.shown
    value, *ends = (f"{100 * each:+z.1f}" for each in (difference.value, *(difference.interval or ())))
    p = "" if shown else f", corrected p = {step.verdict.p:.2f}"
    seeds = dict.fromkeys(each.seed and f" of seed {each.seed}" for each in one_of_each(step.group, step.parent))
    alone = f"between these two trainings{' and'.join(seeds)} (McNemar{p})"
    points = f"{value} points {f'(95 % {ends[0]} to {ends[1]}{p})' if ends else alone}"
    loss = "" if difference.value > 0 else "a loss that is "
    told = [f"{points}, {loss}shown" if shown else f"it bought nothing that is shown, {points}"]
    now, before = (dict(costs(comparison, group)) for group in (step.group, step.parent))
    for name, unit in SPENT.items():
        same = now.get(name) == before.get(name)
        timed = now.get("training s") and before.get("training s")
        if now.get(name) and before.get(name) and not (name == "MFLOP" and same and timed):
            told.append(f"{now[name]} {unit} {'each' if same else f'in place of {before[name]}'}")
    return f"`{step.group.name}` beside `{step.parent.name}` ({step.technique}): {'; '.join(told)}."


def as_note(comparison: Comparison, experiment: str) -> str:
    """The description of the report's run in MLflow: the verdicts, and links to the runs that were compared."""
    groups = comparison.groups[:MOST_GROUPS]
    lines = [f"- {comparison.verdicts[group.name].sentence}" for group in groups if group.name in comparison.verdicts]
    lines += ["", "| group | test accuracy | macro F1 | runs |", "| --- | --- | --- | --- |"]
    runs = f"#/experiments/{experiment}/runs"
    for group in groups:
        links = [f"[{each.seed}]({runs}/{each.run_id})" for each in group.trainings if each.run_id]
        f1 = group.mean("test_macro_f1")
        cells = [f"`{group.name}`", group.accuracy_in_words, "" if f1 is None else f"{f1:.4f}"]
        lines.append(f"| {' | '.join([*cells, ' '.join(links[:MOST_LINKS])])} |")
    if len(groups) < len(comparison.groups):
        lines += ["", f"{len(comparison.groups) - len(groups)} more are in the report."]
    note, steps = ("\n".join(each) for each in (lines, step_by_step(comparison)))
    return f"{note}\n\n{steps}".rstrip() if len(note + steps) < MOST_CHARACTERS else note


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain dictionaries, rounded: no times of day, so that the same results give the same bytes."""
    content = {
        "dataset": comparison.tested.dataset,
        "dataset_digest": comparison.tested.digest,
        "test_images": len(comparison.tested.labels),
        "baseline": comparison.baseline.name,
        "facts": facts(comparison),
        "groups": [group_as_json(group, comparison.verdicts.get(group.name)) for group in comparison.groups],
        "steps": [
            {"name": step.group.name, "parent": step.parent.name, "technique": step.technique}
            | (verdict_as_json(step.verdict) | {"sentence": in_a_sentence(comparison, step)})
            for step in comparison.steps
        ],
        "left_out": [entry._asdict() for entry in comparison.left_out],
    }
    return rounded(json.loads(json.dumps(content)))


def rounded(value: Any, key: str = "") -> Any:
    """Nested values with six digits behind the point; of a small p, which is never 0, with three that count."""
    if isinstance(value, dict):
        return {key: rounded(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each, key) for each in value]
    if not isinstance(value, float):
        return value
    return float(f"{value:.3g}") if key.startswith("p_") and value < 1e-6 else round(value, 6)


def group_as_json(group: Group, verdict: Verdict | None) -> dict[str, Any]:
    content: dict[str, Any] = {
        "name": group.name,
        "params": group.params,
        "n": group.n,
        "seeds": [training.seed for training in group.trainings],
        "runs": [training.run_id for training in group.trainings if training.run_id],
        "accuracy_interval": group.interval,
        "metrics": {
            name: {"mean": group.mean(name), "std": group.deviation(name), "values": values}
            for name in SCORES
            if (values := group.values(name))
        },
        "costs": {name: round(float(cost), 3) for name in COSTS if (cost := group.cost(name)) is not None},
        "accuracy_per_class": group.recall.tolist(),
    }
    return content | ({"verdict": verdict_as_json(verdict)} if verdict else {})


def verdict_as_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "sentence": verdict.sentence,
        "difference": verdict.difference.value,
        "interval": verdict.difference.interval,
        "p_holm": verdict.p,
        "p_mcnemar_holm": verdict.mcnemar,
        "shown": verdict.shown,
    }


def tested_on(comparison: Comparison) -> str:
    return f"{len(comparison.tested.labels):,} test images of {comparison.tested.title}"


def table(comparison: Comparison) -> list[Cells]:
    return [[*names(comparison, group), *quality(group), *costs(comparison, group)] for group in comparison.groups]


def names(comparison: Comparison, group: Group) -> Cells:
    params = [(key.rpartition(".")[2], group.params.get(key, "")) for key in comparison.columns]
    return [("variant", group.variant), *params]


def quality(group: Group) -> Cells:
    low, high = group.interval
    scores = {"loss": "test_loss", "F1": "test_macro_f1", "ECE": "test_calibration_error"}
    means = {heading: group.mean(name) for heading, name in scores.items()}
    return [
        ("n", str(group.n)),
        ("accuracy", group.accuracy_in_words),
        ("95 %", f"{low:.3f} - {high:.3f}"),
        *((heading, "" if mean is None else f"{mean:.3f}") for heading, mean in means.items()),
    ]


def costs(comparison: Comparison, group: Group) -> Cells:
    """What a group costs, of what any group says; the pipeline, which gives the same bytes each time, has no times."""
    known = [name for name in COSTS if any(each.cost(name) is not None for each in comparison.groups)]
    cells = [(*COSTS[name], group.cost(name)) for name in known]
    return [(heading, "" if cost is None else f"{cost / unit:,.{digits}f}") for heading, unit, digits, cost in cells]


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
    for tag, what, measured in (("code_digest", "code", "accuracy"), ("device", "machine", "seconds")):
        found = [{training.tags.get(tag) for training in group.trainings} for group in comparison.groups]
        if any(each != found[0] for each in found):
            remark += f" The {what} differs between groups (tag {tag}): a difference in {measured} may come from that."
    told = []
    for label in np.argsort(recalls.min(axis=0) - recalls.max(axis=0))[:3]:
        of_class = recalls[:, label]
        worst, best = (comparison.groups[index].name for index in (of_class.argmin(), of_class.argmax()))
        name = comparison.tested.class_names[label]
        told.append(f"{name} ({worst} {of_class.min():.3f}, {best} {of_class.max():.3f})")
    return f"Accuracy per class differs most for {'; '.join(told)}.{remark}"


def classes_shown(comparison: Comparison) -> list[int]:
    """The labels that a table has room for: all, or those in which the groups differ most."""
    recalls = np.array([group.recall for group in comparison.groups])
    apart = np.argsort(recalls.min(axis=0) - recalls.max(axis=0), kind="stable")
    return sorted(apart[:MOST_CLASSES].tolist())


def left_out(comparison: Comparison) -> list[str]:
    lines = []
    for run_id, name, reason in comparison.left_out[:MOST_LEFT_OUT]:
        lines.append(f"`{' '.join(name.replace('`', ' ').split())}` ({run_id[:8]}): {reason}")
    more = len(comparison.left_out) - MOST_LEFT_OUT
    return [*lines, f"and {more} more, in the JSON report"] if more > 0 else lines


def facts(comparison: Comparison) -> str:
    """Where and with what the trainings were made, as their runs say."""
    keys = {"device": "", "python": "Python ", "tensorflow": "TensorFlow ", "keras": "Keras ", "git_commit": "commit "}
    said = []
    for key, prefix in keys.items():
        length = 12 if key == "git_commit" else None
        found = sorted({each.tags[key][:length] for each in comparison.trainings if key in each.tags})
        said += [f"{prefix}{' / '.join(found)}"] if found else []
    return ", ".join(said)
