"""How much of a technique: each strength over seeds, beside none of it; tables of docs/tricks.md."""

import statistics
from dataclasses import dataclass

from scipy import stats
from tables import Accuracies, markdown, spread


@dataclass(frozen=True)
class Strengths:
    """What was tried on one network, by the names of docs/accuracy.json."""

    network: str
    without: str
    changed: dict[str, str]  # what one types, and its name there


WIDE = Strengths(
    network="mlp_wide",
    without="mlp_l2 l2=0",  # which is the network and the recipe of mlp_wide
    changed={
        f"model.{key}={strength}": f"mlp_{key} {key}={strength}"
        for key, strengths in {
            "l2": ("1e-06", "3e-06", "1e-05", "3e-05", "0.0001", "0.0003"),
            "dropout": (0.05, 0.1, 0.2, 0.3, 0.5),
        }.items()
        for strength in strengths
    },
)
CNN = Strengths(
    network="cnn",
    without="cnn",
    changed={
        "augment=mirrored": "cnn augment=mirrored",
        "augment=mirrored model.dropout=0.25": "cnn augment=mirrored dropout=0.25",
        "augment=mirrored augment.shift=1": "cnn augment=mirrored shift=1",
    },
)


def table(accuracies: Accuracies, tried: Strengths) -> str:
    """Every strength over its seeds: training and validation accuracy, and what it gained."""
    without = accuracies[tried.without]["metrics"]["val_accuracy"]
    rows = []
    for change, name in {
        "none": tried.without,
        **{f"`{typed}`": name for typed, name in tried.changed.items()},
    }.items():
        values = accuracies[name]["metrics"]["val_accuracy"]
        gain = ["", ""] if name == tried.without else gained(values, without)
        rows.append([change, str(len(values)), spread(accuracies[name]["metrics"]["accuracy"]), spread(values), *gain])
    headings = [f"change to `{tried.network}`", "n", "training accuracy", "validation accuracy", "points", "95 %"]
    return markdown(headings, rows)


def gained(values: list[float], without: list[float]) -> list[str]:
    """Mean and 95 % interval of the differences, in points, of trainings with the same seeds (Student's t)."""
    differences = [100 * (one - other) for one, other in zip(values, without, strict=True)]
    mean, error = statistics.mean(differences), stats.sem(differences)
    margin = stats.t.ppf(0.975, len(differences) - 1) * error
    return [f"{mean:+z.2f}", f"{mean - margin:+z.2f} to {mean + margin:+z.2f}"]
