"""What a training tells of each epoch: the epoch that counts, a table, the learning curves."""

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fashion_mnist.config import Config
from fashion_mnist.files import plain_style


def epoch_kept(history: dict[str, list[float]], config: Config) -> int:
    """The epoch, counted from 0, whose weights the model has: the last, or with early stopping the best."""
    if config.trainer.patience is None:
        return len(history["loss"]) - 1
    return history["val_loss"].index(min(history["val_loss"]))


def by_epoch(history: dict[str, list[float]]) -> list[dict[str, float]]:
    """Turns a list for each metric into a row for each epoch, counted from 1."""
    columns = {"epoch": range(1, len(history["loss"]) + 1), **history}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@plain_style()
def learning_curves(history: dict[str, list[float]], title: str) -> Figure:
    """Loss and accuracy of every epoch, side by side, for training and, where there is one, validation."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for key, label, style in ((name, "training", "o-"), (f"val_{name}", "validation", "s--")):
            if key in history:
                axes.plot(range(1, len(history[key]) + 1), history[key], style, markersize=4, label=label)
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    figure.suptitle(title, fontsize=11)
    return figure
