"""The prepared dataset on disk: arrays that can be memory-mapped, their card and a sheet of samples."""

import contextlib
import errno
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.panel import Panel

from fashion_mnist.config import DataConfig
from fashion_mnist.data.dataset import (
    CARD,
    CLASS_NAMES,
    PARTS,
    SAMPLES,
    Arrays,
    Card,
    Dataset,
    Split,
    intact_card,
    is_intact,
    read_card,
    read_dataset,
)
from fashion_mnist.data.official import DIGEST, HOME, LICENSE, official_arrays
from fashion_mnist.data.synthetic import generate
from fashion_mnist.errors import SourceUnavailableError, UserError, say
from fashion_mnist.files import alone_in, tidy, workplace, write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def prepare(config: DataConfig, root: str | Path) -> Dataset:
    """Makes sure that the prepared dataset lies on disk, and makes it if it does not.

    It is `root/<name>`, a folder with `{train,test}_{images,labels}.npy`, `dataset.json` and `samples.png`.

    Args:
        config: which dataset.
        root: the folder of all prepared datasets.

    Raises:
        UserError: the dataset cannot be had.
    """
    return read_dataset(prepared_folder(config, Path(root)), config.validation)


def prepared_folder(config: DataConfig, root: Path) -> Path:
    """Where the prepared dataset lies, once it does."""
    if config.name == "synthetic":
        return prepare_synthetic(config, root)
    if config.name == "tfds":
        return prepare_tfds(config, root)
    try:
        return prepare_official(config, root)
    except SourceUnavailableError as error:
        if config.name != "auto":
            raise
        reason = str(error).partition(";")[0]  # not the ways out, of which this is one
        text = f"{reason}.\n\nDrawn garments are used instead. Their accuracies say nothing about Fashion-MNIST."
        Console(stderr=True).print(Panel(text, title="NOT Fashion-MNIST", style="bold red", padding=(1, 2)))
        return prepare_synthetic(config, root)


def prepare_official(config: DataConfig, root: Path) -> Path:
    """Prepares the real 70,000 images as `root/fashion_mnist`."""
    about = {"name": "fashion_mnist", "source": HOME, "license": LICENSE}
    return keep_or_make(
        root / "fashion_mnist",
        lambda card: card.digest == DIGEST and says(card, about),
        lambda: (official_arrays(config), about),
    )


def prepare_tfds(config: DataConfig, root: Path) -> Path:
    """Prepares what TensorFlow Datasets has as `root/tfds`."""

    def make() -> tuple[Arrays, dict[str, Any]]:
        from fashion_mnist.data.tfds import tfds_arrays

        return tfds_arrays(config)

    # Other images may have come from another data.dir.
    return keep_or_make(root / "tfds", lambda card: card.name == "tfds", make)


def prepare_synthetic(config: DataConfig, root: Path) -> Path:
    """Prepares drawn garments as `root/synthetic`; other sizes or another seed replace what lies there."""
    sizes = {"train": config.train_images, "test": config.test_images}
    source = f"fashion_mnist.synthetic: {sizes['train']} + {sizes['test']} images, seed {config.drawing_seed}"
    about = {"name": "synthetic", "source": source, "license": "MIT"}

    def make() -> tuple[Arrays, dict[str, Any]]:
        arrays: Arrays = {}
        for split, count in sizes.items():
            arrays[f"{split}_images"], arrays[f"{split}_labels"] = generate(count, config.drawing_seed, split)
        return arrays, about

    return keep_or_make(root / "synthetic", lambda card: says(card, about), make)


def says(card: Card, about: dict[str, Any]) -> bool:
    """Whether a card says what `write_files` would write for `about`."""
    return all(getattr(card, key) == value for key, value in {"class_names": CLASS_NAMES, **about}.items())


def keep_or_make(
    folder: Path, is_wanted: Callable[[Card], bool], make: Callable[[], tuple[Arrays, dict[str, Any]]]
) -> Path:
    """Keeps a prepared dataset that is unharmed and wanted; makes it otherwise, and says so if it was changed.

    Args:
        folder: of the prepared dataset.
        is_wanted: whether an unharmed dataset with this card will do.
        make: gives the arrays, and what the card says of them.

    Returns:
        The folder.

    Raises:
        UserError: the dataset cannot be had, or not be written.
    """

    def is_ready() -> bool:
        card = intact_card(folder)
        return card is not None and is_wanted(card)

    if is_ready():
        tidy(folder.parent)
        return folder
    with alone_in(folder.parent):
        if is_ready():  # another process was quicker
            return folder
        found = "" if not folder.exists() else "holds other images" if is_intact(folder) else "was changed after fetch"
        try:
            arrays, about = make()
        except UserError as error:
            if found:
                raise type(error)(f"{folder} {found}, and cannot be prepared again: {error}") from error
            raise
        if found:
            say(f"{folder} {found}; it is prepared again.")
        write(folder, arrays, about)
    return folder


def write(folder: Path, arrays: Arrays, about: dict[str, Any]) -> None:
    """Writes the arrays, their card and the samples beside `folder`, then puts them in its place in one move.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with workplace(folder.parent) as temporary:
            new = Path(temporary) / folder.name
            new.mkdir()
            write_files(new, arrays, about)
            if intact_card(folder) != read_card(new):  # else another process was quicker
                replace_folder(new, folder)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"cannot write to {folder.parent} ({reason}); choose another folder: data_root=...") from error


def write_files(folder: Path, arrays: Arrays, about: dict[str, Any]) -> None:
    """Writes what a prepared dataset consists of; the same data gives the same bytes."""
    files = {}
    for part in PARTS:
        buffer = io.BytesIO()
        np.save(buffer, arrays[part])
        content = buffer.getbuffer()
        (folder / f"{part}.npy").write_bytes(content)
        files[f"{part}.npy"] = {"sha256": hashlib.sha256(content).hexdigest(), "shape": list(arrays[part].shape)}
    card = Card(**{"class_names": CLASS_NAMES, **about, "files": files})
    (folder / CARD).write_text(card.text)
    training = Split(arrays["train_images"], arrays["train_labels"])
    write_figure(samples(training, card.class_names, card.title), folder / SAMPLES)


def samples(split: Split, class_names: Sequence[str], title: str, columns: int = 12) -> "Figure":
    """A sheet of the first images of each class, a row a class."""
    from matplotlib.figure import Figure  # which takes half a second

    figure = Figure(figsize=(columns * 0.62 + 1.3, len(class_names) * 0.62 + 0.5), layout="constrained")
    grid = figure.subplots(len(class_names), columns, gridspec_kw={"wspace": 0, "hspace": 0})
    for label, row in enumerate(grid):
        chosen = np.flatnonzero(split.labels == label)[:columns]
        for axes in row:
            axes.set_axis_off()
        for axes, index in zip(row, chosen, strict=False):
            axes.imshow(split.images[index], cmap="gray", vmin=0, vmax=255)
        row[0].text(-0.15, 0.5, class_names[label], transform=row[0].transAxes, ha="right", va="center", fontsize=9)
    figure.suptitle(f"{title}: the first {columns} training images of each class", fontsize=11)
    return figure


def replace_folder(new: Path, folder: Path) -> None:
    """Renames `new` to `folder`; what was there before goes only once `new` is complete."""
    while True:
        try:
            new.replace(folder)
            return
        except OSError as error:  # a folder that is not empty cannot be replaced in one step
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        with workplace(folder.parent) as aside, contextlib.suppress(FileNotFoundError):  # another process was quicker
            folder.replace(Path(aside) / folder.name)
