"""The comparison as one HTML page that needs no network: light or dark, on a phone or a screen.

Its charts are SVG that takes the page's text colour, so that it suits a light page and a dark one.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from adjustText import adjust_text
from jinja2 import Environment, PackageLoader
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator, PercentFormatter
from PIL import Image

from fashion_mnist.comparison import report, significance
from fashion_mnist.comparison.groups import Comparison, Group
from fashion_mnist.files import plain_style
from fashion_mnist.help import docstring_of

TILES = 20
INK = "#010203"  # stands for the page's text colour
COLORS = ("#4c78d8", "#e07b39", "#3f9f6b", "#c9547a", "#8d6cc9", "#b08d3e", "#3aa0b8", "#8a8f98", "#d06bbf", "#7f9a36")
MARKERS = ("o", "s")  # each with all colours: more than enough for MOST_CURVES
MOST_CURVES = 12  # lines that an eye can tell apart
IN_LOSS = ("trainer.label_smoothing", "model.l2")  # parameters that add to the loss on validation images as well
MOST_SEEDS = 10  # trainings of a group whose curves are read
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}
ROUNDS = 300  # of moving names apart; not a time, which would not always give the same picture
COST_LABELS = {
    "training_seconds": "seconds of training",
    "flops_per_image": "floating-point operations per image",
    "parameters": "parameters",
}


def as_html(comparison: Comparison, images: np.ndarray | None) -> str:
    """The page, with its style, charts and test images, uint8, in it."""
    other = comparison.groups[0] if comparison.groups[0] is not comparison.baseline else comparison.groups[-1]
    steps = [step.verdict.difference for step in comparison.steps]
    drawn = [group.trainings[0] for group in comparison.groups[:MOST_CURVES] if group.values("val_loss")]
    environment = Environment(loader=PackageLoader("fashion_mnist.comparison", "."), autoescape=True, trim_blocks=True)
    return environment.get_template("page.html.j2").render(
        comparison=comparison,
        other=other,
        report=report,
        scale=74 / (max((abs(end) for each in steps for end in each.interval or [each.value]), default=0) or 1),
        charts=charts(comparison),
        losses_differ=len({tuple(first.params.get(key, "0") for key in IN_LOSS) for first in drawn}) > 1,
        losses_unknown=not all(first.params for first in drawn),
        tiles=tiles(comparison, other, images) if images is not None else {},
        class_names=comparison.tested.class_names,
        shown=report.classes_shown(comparison),
        method=docstring_of(significance.__file__),
    )


def tiles(comparison: Comparison, other: Group, images: np.ndarray) -> dict[str, list[dict[str, str]]]:
    """Test images worth looking at: where two groups disagree, and where all fail."""
    chosen = {"hardest": np.argsort(comparison.tested.of_truth, kind="stable")[:TILES]}
    if other is not comparison.baseline:
        gain = other.right.mean(axis=0) - comparison.baseline.right.mean(axis=0)
        order = np.argsort(-gain, kind="stable")
        chosen["won"] = order[gain[order] > 0][:TILES]
        chosen["lost"] = order[::-1][gain[order[::-1]] < 0][:TILES]
    return {kind: [tile(comparison, images[index], int(index)) for index in each] for kind, each in chosen.items()}


def tile(comparison: Comparison, image: np.ndarray, index: int) -> dict[str, str]:
    """One image with its label, and what most trainings take it for."""
    votes = comparison.tested.votes[index]
    written = io.BytesIO()
    Image.fromarray(image).save(written, "PNG", optimize=True)
    label = int(comparison.tested.labels[index])
    mistaken = int(np.where(np.arange(len(votes)) == label, -1, votes).argmax())
    said = f"{comparison.tested.class_names[mistaken]}: {votes[mistaken]} of {votes.sum()}"
    return {
        "source": f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}",
        "label": comparison.tested.class_names[label],
        "mistake": said if votes[mistaken] else "no mistake",
        "index": str(index),
    }


def charts(comparison: Comparison) -> dict[str, str]:
    """All charts that the comparison has material for, by name, as SVG elements."""
    with plain_style(), mpl.rc_context(STYLE):
        drawn = {"differences": differences(comparison), "pareto": pareto(comparison)}
        drawn |= validation_curves(comparison.groups[:MOST_CURVES])
        return {name: svg(figure, name) for name, figure in drawn.items() if figure is not None}


def svg(figure: Figure, name: str) -> str:
    """An SVG element; the same figure always gives the same text."""
    written = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(written, format="svg", transparent=True, metadata=metadata)
    text = written.getvalue()
    element = text[text.index("<svg") :].replace(INK, "currentColor")
    head, rest = element.split(">", 1)
    kept = [word for word in head.split() if not word.startswith(("width=", "height="))]
    return f'{" ".join(kept)} role="img" aria-label="{name.replace("_", " ")}">{rest}'


def chart(height: float) -> tuple[Figure, Axes]:
    """An empty chart, so many inches high, without what is not needed to read it."""
    figure = Figure(figsize=(5.2, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def differences(comparison: Comparison) -> Figure | None:
    """Every group's difference from the baseline with its interval; hollow where none is shown."""
    upwards = [group for group in reversed(comparison.groups) if group is not comparison.baseline]
    if not upwards:
        return None
    figure, axes = chart(0.9 + 0.32 * len(upwards))
    for row, group in enumerate(upwards):
        verdict = comparison.verdicts[group.name]
        value, interval = 100 * verdict.difference.value, verdict.difference.interval
        color = INK if not verdict.shown else COLORS[2] if value > 0 else COLORS[3]
        if interval:
            low, high = (100 * end for end in interval)
            axes.plot([low, high], [row, row], color=color, linewidth=1.6, solid_capstyle="butt")
        face = color if verdict.shown else "none"
        axes.plot(value, row, "o", color=color, markerfacecolor=face, markersize=5.5)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(upwards)), [group.name for group in upwards])
    axes.set_xlabel(f"points of accuracy more than {comparison.baseline.name}")
    axes.set_ylim(-0.6, len(upwards) - 0.4)
    axes.tick_params(axis="y", length=0)
    return figure


def pareto(comparison: Comparison) -> Figure | None:
    """Accuracy against cost; the line joins what nothing beats in both."""
    groups = comparison.groups
    name = next((cost for cost in COST_LABELS if all(group.cost(cost) for group in groups)), None)
    if name is None or len(groups) < 2:
        return None
    figure, axes = chart(3.9)
    spent = {group: group.cost(name) or 0 for group in groups}
    front: list[Group] = []
    beaten: list[Group] = []
    for group in sorted(groups, key=lambda group: (spent[group], group.accuracy)):
        unbeaten = not front or group.accuracy > front[-1].accuracy
        (front if unbeaten else beaten).append(group)
        color, deviation = COLORS[0] if unbeaten else INK, group.deviation("test_accuracy") or 0
        axes.errorbar(spent[group], group.accuracy, deviation, fmt="o", color=color, markersize=5)
    named = [sorted(each, key=lambda group: -group.accuracy)[:MOST_CURVES] for each in (front, beaten)]
    costs, accuracies = [spent[group] for group in front], [group.accuracy for group in front]
    axes.plot(costs, accuracies, color=COLORS[0], linewidth=1, alpha=0.6, drawstyle="steps-post")
    axes.set_xscale("log")
    axes.set(xlabel=COST_LABELS[name], ylabel="test accuracy")
    axes.margins(x=0.2, y=0.14)
    # In full, millions would run into one another.
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:,g}M" if value >= 1e6 else f"{value:,.10g}")
    axes.xaxis.set_minor_formatter(LogFormatter())  # labels where there is no power of ten; its default is in TeX
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    names = [axes.text(spent[group], group.accuracy, group.name, fontsize=8.5) for group in (*named[0], *named[1])]
    everywhere = {"x": list(spent.values()), "y": [group.accuracy for group in groups]}
    lines = {"arrowstyle": "-", "color": INK, "alpha": 0.4, "linewidth": 0.6}
    adjust_text(names, **everywhere, ax=axes, expand=(1.15, 1.3), iter_lim=ROUNDS, arrowprops=lines)
    return figure


def validation_curves(groups: Sequence[Group]) -> dict[str, Figure]:
    """Accuracy and loss on the validation images in each epoch: mean over the seeds, and a band of ± one deviation."""
    curves = {group.name: [training.curves() for training in group.trainings[:MOST_SEEDS]] for group in groups}
    figures = {}
    for key, label in (("val_accuracy", "validation accuracy"), ("val_loss", "validation loss")):
        having = {name: each for name, each in curves.items() if all(key in curve for curve in each)}
        if not having:
            continue
        figure, axes = chart(3.9)
        styles = [(color, marker) for marker in MARKERS for color in COLORS]
        for (name, each), (color, marker) in zip(having.items(), styles, strict=False):
            epochs = min(len(curve[key]) for curve in each)  # trainings that stop early have fewer
            values = np.array([curve[key][:epochs] for curve in each])
            steps, mean = np.arange(1, epochs + 1), values.mean(axis=0)
            axes.plot(steps, mean, marker=marker, markersize=3, linewidth=1.3, color=color, label=name)
            if len(values) > 1:
                band = values.std(axis=0, ddof=1)
                axes.fill_between(steps, mean - band, mean + band, color=color, alpha=0.15, linewidth=0)
        axes.set(xlabel="epoch", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
        figures[label.replace(" ", "_")] = figure
    return figures
