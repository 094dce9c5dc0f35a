"""The dataset: load, verify, split, digest.

Images are uint8, grey of shape (n, height, width) or coloured of shape (n, height, width, 3); Fashion-MNIST's are grey,
28 x 28. Labels, of shape (n,), count from 0: uint8, or uint16 of more than 256 classes.
"""

import hashlib
import json
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fashion_mnist.errors import UserError

CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
PARTS = ("train_images", "train_labels", "test_images", "test_labels")
CARD = "dataset.json"
LARGEST_CARD = 1 << 22  # bytes
LARGEST_IMAGE = 1 << 24  # pixels
MOST_AT_ONCE, PIXELS_AT_ONCE = 1000, 1000 * 28 * 28  # that a network answers to
MOST_CLASSES = 1000
DARK = 16  # of 255: twelve bits in sixteen look so, and numbers from 0 to 1
SAMPLES = "samples.png"

Arrays = dict[str, np.ndarray]


class Split(NamedTuple):
    """Images and their labels."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Card:
    """What a prepared dataset says of itself in `dataset.json`."""

    name: str
    source: str
    license: str
    class_names: tuple[str, ...]
    files: dict[str, dict]

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that stand for the bytes of all four arrays."""
        return hashlib.sha256("".join(self.files[f"{part}.npy"]["sha256"] for part in PARTS).encode()).hexdigest()[:16]

    @property
    def text(self) -> str:
        """The content of `dataset.json`: nothing that differs from machine to machine."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @property
    def title(self) -> str:
        return title_of(self.name)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height and width of its images, and 3 where they have colours."""
        return tuple(self.files["train_images.npy"]["shape"][1:])

    @property
    def of_garments(self) -> bool:
        """Whether a model knows its classes without being told: those of Fashion-MNIST."""
        return self.class_names == CLASS_NAMES and self.image_shape == (28, 28)


def title_of(name: str) -> str:
    """A dataset's name for titles and tables; nothing but the official images is called Fashion-MNIST."""
    return {
        "fashion_mnist": "Fashion-MNIST",
        "tfds": "Fashion-MNIST (TensorFlow Datasets)",
        "tfds_unofficial": "tfds_unofficial (not Fashion-MNIST)",
        "synthetic": "synthetic garments (not Fashion-MNIST)",
    }.get(name, name)


def card_of(text: str | bytes) -> Card:
    """The card that `Card.text` wrote; the text may come from anywhere.

    Raises ValueError, KeyError, TypeError or AttributeError if it is none, before any memory is taken.
    """
    content = json.loads(text)
    card = Card(**{**content, "class_names": tuple(content["class_names"])})
    height, width, *colours = card.image_shape
    if not all(isinstance(name, str) for name in card.class_names):
        raise ValueError("its classes have no names")
    if colours not in ([], [3]) or not 0 < height * width <= LARGEST_IMAGE:
        raise ValueError("its images are of no possible shape")
    return card


def card_in(model: Path) -> Card | None:
    """The card that a model's file carries; None if it has none, and so is of garments.

    The file may come from anywhere. Raises UserError if it is no file of a model.
    """
    try:
        with zipfile.ZipFile(model) as archive:
            if CARD not in archive.namelist():
                return None
            if archive.getinfo(CARD).file_size > LARGEST_CARD:
                raise ValueError("its card is too large")
            return card_of(archive.read(CARD))
    except Exception as error:  # damage comes up as anything, from struct.error to RecursionError
        raise UserError(f"{model} is not a Keras model ({error}); train it again.") from error


def read_card(folder: Path) -> Card:
    try:
        return card_of((folder / CARD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no dataset in {folder}; {fetching(folder)} prepares it.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{folder / CARD} is damaged; delete {folder} and run {fetching(folder)}.") from None


def fetching(folder: Path) -> str:
    """What prepares the dataset in a folder, which tells no more than whether it is the default one."""
    return "python -m fashion_mnist.fetch" + ("" if folder.name == "fashion_mnist" else " data=...")


def images_at_once(image_shape: Sequence[int]) -> int:
    """How many images a network is asked about in one go outside of training: large ones take more of its memory."""
    height, width = image_shape[:2]
    return max(1, min(MOST_AT_ONCE, PIXELS_AT_ONCE // (height * width)))


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset; its arrays are mapped into memory when they are asked for, after a check of their digests.

    From then on, another process may put other images in the folder. Whatever it gives raises UserError where a file is
    missing or damaged.
    """

    folder: Path
    card: Card
    kept: float  # how many training images are kept for validation, or which share of them

    @cached_property
    def parts(self) -> tuple[Split, Split]:
        """The training set in two parts: to learn from, and to validate on; without `kept`, the second is empty."""
        images, labels = (load_part(self.folder, self.card, f"train_{part}") for part in ("images", "labels"))
        if self.kept == 0:
            return Split(images, labels), Split(images[:0], labels[:0])
        chosen = set_aside(labels, self.kept, "data.validation", self.card.class_names)
        return Split(images[~chosen], labels[~chosen]), Split(images[chosen], labels[chosen])

    @property
    def training(self) -> Split:
        return self.parts[0]

    @property
    def validation(self) -> Split:
        """To validate on: for choosing epochs, models and settings."""
        return self.parts[1]

    @cached_property
    def test(self) -> Split:
        """For evaluation, never for choosing anything."""
        return Split(*(load_part(self.folder, self.card, f"test_{part}") for part in ("images", "labels")))


def read_dataset(folder: Path, validation: float = 0) -> Dataset:
    """The prepared dataset in a folder, with so many training images, or such a share, kept for validation."""
    return Dataset(folder, read_card(folder), validation)


def intact_card(folder: Path) -> Card | None:
    """The card of a complete prepared dataset; None if anything is missing, or does not agree with the rest."""
    try:
        card = read_card(folder)
        shapes = {f"{part}.npy": list(load_part(folder, card, part).shape) for part in PARTS}
        as_written = (folder / CARD).read_bytes() == card.text.encode()
    except (UserError, OSError):
        return None
    agrees = shapes == {name: about.get("shape") for name, about in card.files.items()}
    return card if as_written and agrees and (folder / SAMPLES).is_file() else None


def load_part(folder: Path, card: Card, part: str) -> np.ndarray:
    """Memory-maps one of the four arrays, so that parallel runs share one copy, after a check of its digest."""
    file = folder / f"{part}.npy"
    try:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if digest != card.files[file.name]["sha256"]:
            raise UserError(f"{file} was changed after fetch; delete {folder} and run {fetching(folder)}.")
        return np.load(file, mmap_mode="r")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be read; delete {folder} and run {fetching(folder)}.") from error


def check_classes(class_names: Sequence[str]) -> None:
    """Refuses what is no classification, one of more classes than anything here was made for, and what is no name."""
    if not 2 <= len(class_names) <= MOST_CLASSES:
        raise UserError(f"a dataset has 2 to {MOST_CLASSES:,} classes; this one has {len(class_names):,}.")
    for name in class_names:
        if not name.strip() or any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            raise UserError(f"{name!r} cannot name a class: it is empty, or has letters that cannot be shown.")
    if len(set(class_names)) < len(class_names):
        raise UserError(f"two classes have the same name: {Counter(class_names).most_common(1)[0][0]!r}.")


def check_arrays(arrays: Arrays, class_names: Sequence[str]) -> None:
    """Refuses images that are all but black, and classes without an image to learn from, or to be tested with."""
    brightest = int(arrays["train_images"].max(initial=0))
    if brightest < DARK:
        raise UserError(
            f"no pixel of the training images is above {brightest} of 255, so they are all but black; "
            "give bytes from 0 to 255."
        )
    for part in ("train", "test"):
        counts = np.bincount(arrays[f"{part}_labels"], minlength=len(class_names))
        if not counts.all():
            name = class_names[int(counts.argmin())]
            raise UserError(f"the class {name!r} has no {part} images: add some, or leave the class out.")


def in_parts(images: np.ndarray, labels: np.ndarray, of_test: np.ndarray) -> Arrays:
    """The four arrays; `of_test`, bool (n,), says which images are for the test."""
    return dict(zip(PARTS, (images[~of_test], labels[~of_test], images[of_test], labels[of_test]), strict=True))


def set_aside(
    labels: np.ndarray, wanted: float, key: str, class_names: Sequence[str], seed: int = 0, of_each: bool = False
) -> np.ndarray:
    """A mask, bool (n,), of so many labels, or of such a share of them, with each class in proportion.

    Raises:
        UserError: nothing is left, or set aside, or a class has too few images to be on both sides, where there are as
            many images as classes, or `of_each` is asked for. `key` says how many are wanted.
    """
    count = round(wanted * len(labels)) if wanted < 1 else int(wanted)
    if wanted and not count:
        raise UserError(f"{key}={wanted} of {len(labels)} images is none; take more.")
    if count >= len(labels):
        raise UserError(f"{key}={wanted} leaves nothing of the {len(labels)} images to learn from.")
    chosen = stratified(labels, count, seed)
    sizes = np.bincount(labels, minlength=len(class_names))
    aside = np.bincount(labels[chosen], minlength=len(class_names))
    for part in (aside, sizes - aside):
        if part.all() or (part.sum() < len(class_names) and not of_each):  # who wants so few wants some classes only
            continue
        label = int(part.argmin())
        way_out = f"take {'more' if part is aside else 'fewer'}, or add some"
        if sizes.min() == 1:
            way_out = "add some, or leave the class out"
        elif sizes.min() == sizes.max() and part is aside:
            way_out = f"take {key}={len(sizes)} or more"
        raise UserError(
            f"{key}={wanted} needs images of every class on both sides, and {class_names[label]!r} has "
            f"{sizes[label]}: {way_out}."
        )
    return chosen


def stratified(labels: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """A mask, bool (n,), of `count` labels with each class in proportion.

    Always the same ones, so that runs can be compared.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    classes, sizes = np.unique(labels, return_counts=True)
    shares, remainders = np.divmod(count * sizes, len(labels))
    shares[np.argsort(-remainders, kind="stable")[: count - shares.sum()]] += 1  # the largest remainders round up
    mask = np.zeros(len(labels), dtype=bool)
    for label, share in zip(classes, shares, strict=True):
        mask[order[labels[order] == label][:share]] = True
    return mask
