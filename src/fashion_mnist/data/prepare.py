"""The prepared dataset on disk: arrays that can be memory-mapped, their card and a sheet of samples."""

import contextlib
import errno
import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.cells import cell_len
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
    check_arrays,
    intact_card,
    read_card,
    read_dataset,
)
from fashion_mnist.data.official import DIGEST, HOME, LICENSE, official_arrays
from fashion_mnist.data.synthetic import generate
from fashion_mnist.errors import SourceUnavailableError, UserError, say, terminal
from fashion_mnist.files import alone_in, plain_style, shorter, tidy, workplace, write_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS, MOST_SHOWN = 20, 100  # classes on the sheet of samples: one above the other, and altogether
SETTINGS = {
    "images": ("side", "channels", "test", "drawing_seed", "class_names", "skip_damaged"),
    "npz": ("class_names",),
}
TAKEN = ("fashion_mnist", "synthetic", "auto", "tfds", "tfds_unofficial")  # names of datasets that are not one's own


def prepare(config: DataConfig, root: str | Path) -> Dataset:
    """Makes sure that the prepared dataset lies on disk, and makes it if it does not.

    It is `root/<name>`, a folder with `{train,test}_{images,labels}.npy`, `dataset.json` and `samples.png`.

    Raises:
        UserError: the dataset cannot be had.
    """
    of_other_sources = {
        "synthetic": prepare_synthetic,
        "tfds": prepare_tfds,
        "images": prepare_images,
        "npz": prepare_npz,
    }
    prepare_source = of_other_sources.get(config.source, prepare_official)
    try:
        folder = prepare_source(config, Path(root))
    except SourceUnavailableError as error:
        if config.source != "auto":
            raise
        reason = str(error).rpartition(";")[0] or str(error)  # not the ways out, of which this is one
        text = f"{reason}.\n\nDrawn garments are used instead. Their accuracies say nothing about Fashion-MNIST."
        terminal(stderr=True).print(Panel(text, title="NOT Fashion-MNIST", style="bold red", padding=(1, 2)))
        folder = prepare_synthetic(config, Path(root))
    return read_dataset(folder, config.validation)


def prepare_official(config: DataConfig, root: Path) -> Path:
    about = {"name": "fashion_mnist", "source": HOME, "license": LICENSE, "class_names": CLASS_NAMES}
    return keep_or_make(
        root / "fashion_mnist",
        lambda card: all(getattr(card, key) == value for key, value in {**about, "digest": DIGEST}.items()),
        lambda: (official_arrays(config), about),
    )


def prepare_tfds(config: DataConfig, root: Path) -> Path:
    from fashion_mnist.data import tfds

    name = name_of(config, config.dataset) if config.name or config.dataset != tfds.DEFAULT else "tfds"

    def is_wanted(card: Card) -> bool:  # of Fashion-MNIST, other images may have come from another data.dir
        full_name = card.source.removeprefix("tensorflow_datasets: ").partition(" ")[0]
        same = full_name.startswith(f"{config.dataset}/") and card.source == tfds.source_of(full_name, config)
        return same and card.name == name

    def make() -> tuple[Arrays, dict[str, Any]]:
        arrays, about = tfds.tfds_arrays(config)
        return checked(arrays, {"name": name, **about})

    return keep_or_make(root / name, is_wanted, make)


def prepare_images(config: DataConfig, root: Path) -> Path:
    """Pictures or settings that have changed replace what lies there."""
    if config.dir is None:
        return prepared_before(config, root, "a folder with a folder of pictures for each class: data.dir=FOLDER")
    from fashion_mnist.data import images

    name = name_of(config, Path(config.dir).expanduser().resolve().name)
    folder = images.find(config)
    digest = images.digest_of(folder, root / f".{name}.json")
    about = {
        "name": name,
        "source": f"fashion_mnist.images: {len(folder.files)} files, digest {digest}, {settings_of(config)}",
        "license": "not stated",
        "class_names": folder.class_names,
    }
    return keep_or_make(
        root / name,
        lambda card: card.name == name and card.source == about["source"],
        lambda: checked(images.image_arrays(folder, config), about),
    )


def prepare_npz(config: DataConfig, root: Path) -> Path:
    """Another file, or other names of classes, replace what lies there."""
    if config.file is None:
        return prepared_before(config, root, "a file: data.file=FILE.npz")
    from fashion_mnist.data.npz import npz_arrays

    file = Path(config.file).expanduser()
    name = name_of(config, file.stem)
    try:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()[:16]
    except OSError as error:
        raise UserError(f"cannot read {file} ({error.strerror}); data.file=FILE names an .npz file.") from error
    source = f"fashion_mnist.npz: digest {digest}, {settings_of(config)}"

    def make() -> tuple[Arrays, dict[str, Any]]:
        arrays, class_names = npz_arrays(file, config)
        return checked(arrays, {"name": name, "source": source, "license": "not stated", "class_names": class_names})

    return keep_or_make(root / name, lambda card: card.name == name and card.source == source, make)


def prepared_before(config: DataConfig, root: Path, what: str) -> Path:
    """What was prepared under this name, where only that is named; `what` else must be."""
    card = intact_card(root / config.name) if config.name and config.name not in TAKEN else None
    if card is None:
        raise UserError(f"data={config.source} needs {what}.")
    if not (card.source.startswith(f"fashion_mnist.{config.source}:") and card.source.endswith(settings_of(config))):
        raise UserError(f"{root / card.name} was prepared otherwise ({card.source}); this needs {what}.")
    return root / card.name


def settings_of(config: DataConfig) -> str:
    """The keys that decide what is made of pictures, or of a file."""
    return ", ".join(f"{key}={getattr(config, key)}" for key in SETTINGS[config.source])


def name_of(config: DataConfig, found: str) -> str:
    """What a dataset is called here: as is configured, or as it is `found`, in letters that files may be named with."""
    plain = unicodedata.normalize("NFKD", found).encode("ascii", "ignore").decode()
    name = config.name or re.sub(r"[^\w.-]+", "_", plain).strip("_.-")[:100] or config.source
    if name in TAKEN:
        raise UserError(f"{name} is the name of another dataset: give this one its own, data.name=...")
    return name


def checked(arrays: Arrays, about: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """Refuses what cannot be learned from, and says what makes a test say little."""
    check_arrays(arrays, about["class_names"])
    train, test = (
        [hashlib.md5(image.tobytes(), usedforsecurity=False).digest() for image in arrays[f"{part}_images"]]
        for part in ("train", "test")
    )
    learned = set(train)
    if known := sum(each in learned for each in test):
        count = f"{known:,} of {len(test):,} test images"
        say(f"{count} are among the training images, too: whoever learns those by heart gets these right.")
    return arrays, about


def prepare_synthetic(config: DataConfig, root: Path) -> Path:
    """Other sizes or another seed replace what lies there."""
    train, test, seed = config.train_images, config.test_images, config.drawing_seed
    source = f"fashion_mnist.synthetic: {train} + {test} images, seed {seed}"
    about = {"name": "synthetic", "source": source, "license": "MIT", "class_names": CLASS_NAMES}

    def make() -> tuple[Arrays, dict[str, Any]]:
        drawn = (*generate(train, seed, "train"), *generate(test, seed, "test"))
        return dict(zip(PARTS, drawn, strict=True)), about

    return keep_or_make(root / "synthetic", lambda card: (card.name, card.source) == ("synthetic", source), make)


def keep_or_make(
    folder: Path, is_wanted: Callable[[Card], bool], make: Callable[[], tuple[Arrays, dict[str, Any]]]
) -> Path:
    """Keeps a prepared dataset that is unharmed, and whose card is the one that is wanted; otherwise makes it.

    It says so if there was another one. `make` gives the arrays, and what the card says of them.
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
        with (folder / f"{part}.npy").open("wb+") as opened:
            np.save(opened, np.ascontiguousarray(arrays[part]))
            opened.seek(0)
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        files[f"{part}.npy"] = {"sha256": digest, "shape": list(arrays[part].shape)}
    card = Card(**about, files=files)
    (folder / CARD).write_text(card.text, encoding="utf-8")
    training = Split(arrays["train_images"], arrays["train_labels"])
    write_figure(samples(training, card.class_names, card.title), folder / SAMPLES)


@plain_style()
def samples(split: Split, class_names: Sequence[str], title: str) -> "Figure":
    """A sheet of the first images of each class, and how many there are where that differs; of at most 100 classes."""
    from matplotlib.figure import Figure  # which takes half a second

    counts, shown = np.bincount(split.labels, minlength=len(class_names)), min(len(class_names), MOST_SHOWN)
    names = [shorter(name) for name in class_names[:shown]]
    if np.ptp(counts) > 1:
        names = [f"{name}\n{count:,}" for name, count in zip(names, counts, strict=False)]
    blocks = -(-shown // ROWS)  # side by side
    rows, columns = -(-shown // blocks), 12 if blocks == 1 else 5
    room = 0.3 + 0.08 * max(cell_len(line) for name in names for line in name.splitlines())  # inches, about
    # One pair of axes for all images of a block: one for each would take ten times as long to draw.
    figure = Figure(figsize=(blocks * (columns * 0.62 + room), rows * 0.62 + 0.5))
    figure.set_layout_engine("compressed", w_pad=0.1)  # which makes room for names that are wider after all
    for first, axes in zip(range(0, shown, rows), figure.subplots(1, blocks, squeeze=False)[0], strict=True):
        labels = range(first, min(first + rows, shown))
        for row, label in enumerate(labels):
            for column, index in enumerate(np.flatnonzero(split.labels == label)[:columns]):
                image = split.images[index]
                down, right = 0.47 * np.array(image.shape[:2]) / max(image.shape[:2])  # from its middle
                extent = (column - right, column + right, row + down, row - down)
                axes.imshow(image, cmap="gray", vmin=0, vmax=255, extent=extent)
        axes.set_yticks(range(len(labels)), names[first : first + rows], fontsize=9, parse_math=False)
        axes.tick_params(length=0, bottom=False, labelbottom=False)
        axes.set_frame_on(False)
        axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), aspect="equal")
    of = "each class" if shown == len(class_names) else f"the first {shown} of {len(class_names):,} classes"
    figure.suptitle(f"{title}: the first {columns} training images of {of}", fontsize=11)
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
