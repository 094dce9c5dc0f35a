"""What a search has found: a sentence, a table of the best, one of all for spreadsheets, and Optuna's pictures."""

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fashion_mnist.files import complete, plain_style, write_table
from fashion_mnist.trials.study import REASON, RUN

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

TARGET = "validation accuracy"
SHOWN = 10  # trials in the table of the best
MOST_NAMED = 12  # trials with a name of their own beside the curves


def write_trials(
    trials: "Sequence[FrozenTrial]", values: Sequence[Mapping[str, str]], keys: Sequence[str], file: Path
) -> None:
    """Writes a line for each trial: its state, what was tried, how far and how well, which run, and what went wrong."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            **{key: tried.get(key, "") for key in keys},
            "val_accuracy": trial.value if trial.value is not None else "",
            "epochs": len(trial.intermediate_values),
            "run": trial.user_attrs.get(RUN, ""),
            "reason": trial.user_attrs.get(REASON, ""),
        }
        for trial, tried in zip(trials, values, strict=True)
    ]
    write_table(file, rows)


def summary_of(trials: "Sequence[FrozenTrial]") -> str:
    """How many trials ended how, and what pruning has spared."""
    states = [trial.state.name.lower() for trial in trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in ("complete", "pruned", "fail") if state in states)
    epochs = sum(len(trial.intermediate_values) for trial in trials)
    return f"{len(trials)} trials: {counts or 'none has ended'}; {epochs} epochs in all."


def best_of(
    trials: "Sequence[FrozenTrial]", values: Sequence[Mapping[str, str]], keys: Sequence[str]
) -> list[list[str]]:
    """The best trials: the headings, and a row for each with what was tried."""
    complete = [pair for pair in zip(trials, values, strict=True) if pair[0].state.name == "COMPLETE"]
    best = sorted(complete, key=lambda pair: pair[0].value or 0.0, reverse=True)[:SHOWN]
    rows = [["run", *keys, "validation", "epochs"]]
    for trial, tried in best:
        epochs = str(len(trial.intermediate_values))
        rows.append([str(trial.number), *(tried[key] for key in keys), f"{trial.value:.4f}", epochs])
    return rows


def write_pictures(study: "optuna.Study", folder: Path) -> list[Path]:
    """Draws what there is to be seen, and returns the files; of a single trial, or a single value, there is less."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter
    from optuna.visualization import matplotlib as plots

    pictures = {
        "history": partial(plots.plot_optimization_history, target_name=TARGET),
        "learning_curves": plots.plot_intermediate_values,
        "importances": partial(plots.plot_param_importances, target_name=TARGET),
        "parallel_coordinates": partial(plots.plot_parallel_coordinate, target_name=TARGET),
        "slices": partial(plots.plot_slice, target_name=TARGET),
    }
    accuracies = [trial.value for trial in study.trials if trial.value is not None and trial.state.name == "COMPLETE"]
    best, middle = max(accuracies, default=1.0), float(np.median(accuracies or [0.0]))
    lowest = (
        middle - 3 * (best - middle) if best > middle else 0.0
    )  # one that learned nothing would leave no room for the others
    files = []
    for name, draw in pictures.items():
        with warnings.catch_warnings(action="ignore"), plain_style(), plt.rc_context({"figure.figsize": (9, 5)}):
            try:
                drawn: Any = draw(study)
            except (ValueError, RuntimeError, ArithmeticError):  # such as importances, where all trials came out alike
                continue
            panels = np.atleast_1d(drawn).ravel()
            for axes in panels:
                axes.xaxis.set_minor_formatter(NullFormatter())  # numbers would overlap on an axis of powers of ten
                if name in ("history", "learning_curves", "slices") and axes.get_ylim()[0] < lowest:
                    axes.set_ylim(lowest, (top := axes.dataLim.y1) + 0.1 * (top - lowest))
            if name == "learning_curves":
                panels[0].set(title="Learning curves", xlabel="epoch, from 0", ylabel=TARGET)
                if len(study.trials) > MOST_NAMED and (legend := panels[0].get_legend()):
                    legend.remove()
            files.append(folder / f"{name}.png")
            with complete(files[-1]) as unfinished:
                panels[0].figure.savefig(unfinished, dpi=120, facecolor="white", bbox_inches="tight")
            plt.close("all")
    return files
