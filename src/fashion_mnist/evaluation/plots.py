"""Pictures, made with matplotlib's objects and no global state; each function returns a figure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.cells import cell_len

from fashion_mnist.files import plain_style, shorter

MOST_NAMED, MOST_COUNTED = 100, 60  # classes whose names, and whose counts, one can read in a confusion matrix
RIGHT, WRONG = "tab:blue", "tab:red"  # as in the tutorials: blue titles for right predictions, red for wrong ones


@plain_style()
def confusion_matrix(counts: np.ndarray, class_names: Sequence[str], title: str) -> Figure:
    """How often images of each class (row) were taken for each class (column): `counts`, int (classes, classes).

    It grows with the classes; of very many, only every so many has its name, and none its counts.
    """
    classes = len(class_names)
    larger = min(max(1.0, classes / 14), 3.0)
    figure = Figure(figsize=(7.4 * larger, 6.4 * larger), layout="constrained")
    axes = figure.subplots()
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # The diagonal outshines everything on a linear scale, so the colour is the square root of the share.
    shade = np.sqrt(share)
    axes.imshow(shade, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count and classes <= MOST_COUNTED:
            color = "white" if shade[row, column] > 0.6 else "black"
            axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=color)
    each = -(-classes // MOST_NAMED)
    named = [shorter(name) for name in class_names[::each]]
    steep = {"rotation": 40, "ha": "right"} if classes <= 30 else {"rotation": 90}
    style: dict[str, Any] = {"parse_math": False} | ({} if classes <= 30 else {"fontsize": 8})
    axes.set_xticks(range(0, classes, each), named, **steep, **style)
    axes.set_yticks(range(0, classes, each), named, **style)
    axes.set(xlabel="predicted", ylabel="actual")
    axes.set_title(title, fontsize=11)
    return figure


@plain_style()
def predictions(
    images: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], title: str
) -> Figure:
    """The first thirty images with what the model takes them for, and below them the next ten that it gets wrong.

    Images are uint8 (n, height, width[, 3]), labels whole numbers (n,), and probabilities float (n, classes).
    """
    class_names = [shorter(name) for name in class_names]
    predicted = probabilities.argmax(axis=1)
    mistakes = np.flatnonzero(predicted != labels)
    more = mistakes[mistakes >= 30][:10]
    shown = [*range(min(30, len(predicted))), *more]
    titles, colors = [], []
    for label, guess in zip(labels[shown], predicted[shown], strict=True):
        titles.append(class_names[guess] if guess == label else f"{class_names[guess]}\n({class_names[label]})")
        colors.append(RIGHT if guess == label else WRONG)
    share = 1 - len(mistakes) / len(predicted)
    rest = ". Last row: its next mistakes (red, with the truth in brackets)" if len(more) else ""
    heading = f"{title}: {share:.1%} right (blue){rest}"
    return sheet(images[shown], titles, heading, colors)


@plain_style()
def sheet(images: np.ndarray, titles: Sequence[str], heading: str = "", colors: Sequence[str] = ()) -> Figure:
    """Images, uint8 (n, height, width[, 3]), in rows of ten, each below its title.

    As many are shown as there are titles, and at most forty. The colors are those of the titles, or else black.
    """
    titles = titles[:40]
    lines = max(2, 1 + max(title.count("\n") for title in titles))
    columns, cell, space, top = min(10, len(titles)), 1.1, 0.35 + 0.14 * (lines - 2), 0.4 if heading else 0.05  # inches
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(columns * cell, rows * (cell + space) + top))
    figure.suptitle(heading, fontsize=11)
    # One pair of axes for all images, in units of cells: forty pairs would take ten times as long to draw.
    axes = figure.add_axes((0, 0, 1, 1 - top / figure.get_figheight()))
    axes.set_axis_off()
    height = 1 + space / cell
    for index, (image, title) in enumerate(zip(images, titles, strict=False)):
        above, left = index // columns * height + space / cell, index % columns
        axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=(left + 0.06, left + 0.94, above + 0.94, above + 0.06))
        color = colors[index] if colors else "black"
        size = min(8, 126 / max(map(cell_len, title.split("\n"))))  # long names would run into their neighbours
        style: dict[str, Any] = {"fontsize": size, "color": color, "linespacing": 0.95, "parse_math": False}
        axes.text(left + 0.5, above, title, ha="center", va="bottom", **style)
    axes.set(xlim=(0, columns), ylim=(rows * height, 0), aspect="auto")
    return figure
