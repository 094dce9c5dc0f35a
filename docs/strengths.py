"""How much of a technique: each strength over seeds, beside none of it; a table of docs/tricks.md."""

import statistics

from scipy import stats
from tables import Accuracies, spread

NONE = "mlp_l2 l2=0"  # which is the network and the recipe of mlp_wide
STRENGTHS = (
    *(f"mlp_l2 l2={strength}" for strength in ("1e-06", "3e-06", "1e-05", "3e-05", "0.0001", "0.0003")),
    *(f"mlp_dropout dropout={strength}" for strength in (0.05, 0.1, 0.2, 0.3, 0.5)),
)
HEADINGS = ("change to `mlp_wide`", "n", "training accuracy", "validation accuracy", "points", "95 %")


def rows(accuracies: Accuracies) -> list[list[str]]:
    """Every strength, under `HEADINGS`."""
    without = accuracies[NONE]["metrics"]["val_accuracy"]
    told = []
    for name in (NONE, *STRENGTHS):
        values = accuracies[name]["metrics"]["val_accuracy"]
        change = "none" if name == NONE else f"`model.{name.partition(' ')[2]}`"
        gain = ["", ""] if name == NONE else gained(values, without)
        told.append([change, str(len(values)), spread(accuracies[name]["metrics"]["accuracy"]), spread(values), *gain])
    return told


def gained(values: list[float], without: list[float]) -> list[str]:
    """Mean and 95 % interval of the differences, in points, of trainings with the same seeds (Student's t)."""
    differences = [100 * (one - other) for one, other in zip(values, without, strict=True)]
    mean, error = statistics.mean(differences), stats.sem(differences)
    margin = stats.t.ppf(0.975, len(differences) - 1) * error
    return [f"{mean:+z.2f}", f"{mean - margin:+z.2f} to {mean + margin:+z.2f}"]
