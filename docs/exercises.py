"""The tutorials' exercises over seeds: their page and its picture, which `docs/results.py` writes."""

import statistics

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from tables import Accuracies, markdown, spread

EXERCISES = (
    ("Neurons", "-m 'model.hidden=[128],[512],[1024]' seed=0,1,2", [f"mlp hidden=[{n}]" for n in (128, 512, 1024)]),
    (
        "Layers",
        "-m 'model.hidden=[],[128],[128,128],[128,128,128]' seed=0,1,2",
        ["mlp hidden=[]", *(f"mlp hidden=[{','.join(['128'] * n)}]" for n in (1, 2, 3))],
    ),
    ("Epochs", "-m trainer.epochs=5,10,20,40 seed=0,1,2", [f"mlp epochs={n}" for n in (5, 10, 20, 40)]),
)


def page_of(accuracies: Accuracies) -> str:
    """The tutorials' exercises, each as one line to type, and what came out."""
    lines = [
        "# The tutorials' exercises",
        "",
        "Each is one line to type. Mean ± sample standard deviation over n seeds; 10 epochs where nothing else is "
        "said; 5,000 of the training images are kept for validation. This page and its picture are made by "
        "`uv run python docs/results.py`.",
        "",
        "![Neurons, layers and epochs](exercises.png)",
    ]
    for title, command, names in EXERCISES:
        rows = []
        for name in names:
            group = accuracies[name]
            metrics = group["metrics"]
            values = [spread(metrics[key]) for key in ("accuracy", "val_accuracy", "test_accuracy")]
            seconds = f"{group['seconds']:.1f}"
            rows.append(
                [name.partition(" ")[2], f"{group['parameters']:,}", str(len(metrics["loss"])), *values, seconds]
            )
        headings = [
            "",
            "parameters",
            "n",
            "training accuracy",
            "validation accuracy",
            "test accuracy",
            "whole run, s (median)",
        ]
        lines += ["", f"## {title}", "", "```bash", f"uv run python -m fashion_mnist {command}", "```"]
        lines += ["", markdown(headings, rows)]
    facts = accuracies[EXERCISES[0][2][0]]["facts"]
    lines += [
        "",
        "With 40 epochs, overfitting shows: the training loss falls on, while the validation loss rises from its "
        f"lowest value, after epoch {lowest(accuracies)} (mean over the seeds). `trainer.patience=3` stops after three "
        "epochs without a lower one, and keeps the weights of the best before them. Seconds: from the start of the "
        "MLflow run to its end, without imports.",
        "",
        f"{facts}.",
        "",
    ]
    return "\n".join(lines)


def lowest(accuracies: Accuracies) -> int:
    """The epoch, counted from 1, with the lowest mean validation loss of the longest training."""
    losses = accuracies[EXERCISES[2][2][-1]]["history"]["val_loss"]
    return losses.index(min(losses)) + 1


def picture_of(accuracies: Accuracies) -> Figure:
    """Accuracy by neurons and by layers, and the losses of a long training."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    neurons, layers, losses = figure.subplots(1, 3)
    for axes, (_, _, names), label in ((neurons, EXERCISES[0], "neurons"), (layers, EXERCISES[1], "hidden layers")):
        ticks = [name.partition("=")[2].strip("[]") for name in names]
        if axes is layers:
            ticks = [str(len(tick.split(",")) if tick else 0) for tick in ticks]
        for key, what, marker in (("accuracy", "training", "o-"), ("test_accuracy", "test", "s--")):
            values = [accuracies[name]["metrics"][key] for name in names]
            means, deviations = zip(*((statistics.mean(each), statistics.stdev(each)) for each in values), strict=True)
            axes.errorbar(ticks, means, deviations, fmt=marker, markersize=4, capsize=3, label=what)
        axes.set(xlabel=label, ylabel="accuracy after 10 epochs")
    longest = accuracies[EXERCISES[2][2][-1]]["history"]
    for key, what, style in (("loss", "training", "-"), ("val_loss", "validation", "--")):
        losses.plot(range(1, len(longest[key]) + 1), longest[key], style, label=what)
    losses.axvline(lowest(accuracies), color="grey", linewidth=0.8, linestyle=":")
    losses.set(xlabel="epoch", ylabel="loss, 128 neurons")
    losses.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (neurons, layers, losses):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    return figure
