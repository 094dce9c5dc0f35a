"""What every form of the report says in the same words: a row for each group, and what stands out."""

import numpy as np

from fashion_mnist.comparison import Comparison, Group, variant
from fashion_mnist.data.dataset import CLASS_NAMES

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
