"""The prepared dataset on disk: arrays that can be memory-mapped, their card and a sheet of samples."""

import contextlib
import errno
import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
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
    read_card,
    read_dataset,
)
from fashion_mnist.data.official import DIGEST, HOME, LICENSE, official_arrays
from fashion_mnist.data.synthetic import generate
from fashion_mnist.errors import SourceUnavailableError, UserError, say, terminal
from fashion_mnist.files import alone_in, tidy, workplace, write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def prepare(config: DataConfig, root: str | Path) -> Dataset:
    """Makes sure that the prepared dataset lies on disk, and makes it if it does not.

    It is `root/<name>`, a folder with `{train,test}_{images,labels}.npy`, `dataset.json` and `samples.png`.

    Raises:
        UserError: the dataset cannot be had.
    """
    prepare_source = {"synthetic": prepare_synthetic, "tfds": prepare_tfds}.get(config.name, prepare_official)
    try:
        folder = prepare_source(config, Path(root))
    except SourceUnavailableError as error:
        if config.name != "auto":
            raise
        reason = str(error).partition(";")[0]  # not the ways out, of which this is one
        text = f"{reason}.\n\nDrawn garments are used instead. Their accuracies say nothing about Fashion-MNIST."
        terminal(stderr=True).print(Panel(text, title="NOT Fashion-MNIST", style="bold red", padding=(1, 2)))
        folder = prepare_synthetic(config, Path(root))
    return read_dataset(folder, config.validation)


def prepare_official(config: DataConfig, root: Path) -> Path:
    about = {"name": "fashion_mnist", "source": HOME, "license": LICENSE, "class_names": CLASS_NAMES}
    return keep_or_make(root / "fashion_mnist", {**about, "digest": DIGEST}, lambda: (official_arrays(config), about))


def prepare_tfds(config: DataConfig, root: Path) -> Path:
    from fashion_mnist.data.tfds import tfds_arrays

    # Other images may have come from another data.dir.
    return keep_or_make(root / "tfds", {"name": "tfds"}, lambda: tfds_arrays(config))


def prepare_synthetic(config: DataConfig, root: Path) -> Path:
    """Other sizes or another seed replace what lies there."""
    train, test, seed = config.train_images, config.test_images, config.drawing_seed
    source = f"fashion_mnist.synthetic: {train} + {test} images, seed {seed}"
    about = {"name": "synthetic", "source": source, "license": "MIT", "class_names": CLASS_NAMES}

    def make() -> tuple[Arrays, dict[str, Any]]:
        drawn = (*generate(train, seed, "train"), *generate(test, seed, "test"))
        return dict(zip(PARTS, drawn, strict=True)), about

    return keep_or_make(root / "synthetic", about, make)


def keep_or_make(folder: Path, wanted: dict[str, Any], make: Callable[[], tuple[Arrays, dict[str, Any]]]) -> Path:
    """Keeps a prepared dataset that is unharmed, and whose card says what is wanted; otherwise makes it.

    It says so if there was another one. `make` gives the arrays, and what the card says of them.
    """

    def is_ready() -> bool:
        card = intact_card(folder)
        return card is not None and all(getattr(card, key) == value for key, value in wanted.items())

    if is_ready():
        tidy(folder.parent)
        return folder
    with alone_in(folder.parent):
        if is_ready():  # another process was quicker
            return folder
        found = ""
        if folder.exists():
            found = "holds other images" if intact_card(folder) else "was changed after fetch"
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
    """Writes the arrays, their card and the samples beside `folder`, then puts them in its place in one move."""
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
    """The same data gives the same bytes."""
    files = {}
    for part in PARTS:
        buffer = io.BytesIO()
        np.save(buffer, arrays[part])
        content = buffer.getbuffer()
        (folder / f"{part}.npy").write_bytes(content)
        files[f"{part}.npy"] = {"sha256": hashlib.sha256(content).hexdigest(), "shape": list(arrays[part].shape)}
    card = Card(**about, files=files)
    (folder / CARD).write_text(card.text, encoding="utf-8")
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
