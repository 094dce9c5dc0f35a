"""The dataset: load, verify, split, digest. Images are uint8 of shape (n, 28, 28), labels uint8 of shape (n,)."""

import hashlib
import json
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
SAMPLES = "samples.png"

Arrays = dict[str, np.ndarray]


class Split(NamedTuple):
    """Images, uint8 (n, 28, 28), and their labels, uint8 (n,)."""

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
        """The dataset's name for titles and tables; nothing but the official images is called Fashion-MNIST."""
        return {
            "fashion_mnist": "Fashion-MNIST",
            "tfds": "Fashion-MNIST (TensorFlow Datasets)",
            "synthetic": "synthetic garments (not Fashion-MNIST)",
        }.get(self.name, f"{self.name} (not Fashion-MNIST)")


def read_card(folder: Path) -> Card:
    try:
        content = json.loads((folder / CARD).read_text(encoding="utf-8"))
        return Card(**{**content, "class_names": tuple(content["class_names"])})
    except FileNotFoundError:
        raise UserError(f"there is no dataset in {folder}; python -m fashion_mnist.fetch prepares it.") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{folder / CARD} is damaged; delete {folder} and run python -m fashion_mnist.fetch.") from None


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset; its arrays are mapped into memory when they are asked for, after a check of their digests.

    Whatever it gives raises UserError where a file is missing or damaged.
    """

    folder: Path
    card: Card
    kept: int  # how many training images are kept for validation

    @cached_property
    def parts(self) -> tuple[Split, Split]:
        """The training set in two parts: to learn from, and to validate on; without `kept`, the second is empty."""
        images, labels = (load_part(self.folder, self.card, f"train_{part}") for part in ("images", "labels"))
        if self.kept == 0:
            return Split(images, labels), Split(images[:0], labels[:0])
        if self.kept >= len(labels):
            raise UserError(f"data.validation={self.kept} leaves nothing of the {len(labels)} images to learn from.")
        chosen = stratified(labels, self.kept)
        return Split(images[~chosen], labels[~chosen]), Split(images[chosen], labels[chosen])

    @property
    def training(self) -> Split:
        return self.parts[0]

    @property
    def validation(self) -> Split:
        """To validate on: for choosing epochs, models and settings."""
        return self.parts[1]

    @property
    def test(self) -> Split:
        """For evaluation, never for choosing anything."""
        return Split(*(load_part(self.folder, self.card, f"test_{part}") for part in ("images", "labels")))


def read_dataset(folder: Path, validation: int = 0) -> Dataset:
    """The prepared dataset in a folder, with so many training images kept for validation."""
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
            raise UserError(f"{file} was changed after fetch; delete {folder} and run python -m fashion_mnist.fetch.")
        return np.load(file, mmap_mode="r")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file} cannot be read; delete {folder} and run python -m fashion_mnist.fetch.") from error


def stratified(labels: np.ndarray, count: int) -> np.ndarray:
    """A mask, bool (n,), of `count` labels with each class in proportion.

    Always the same ones, so that runs can be compared.
    """
    order = np.random.default_rng(0).permutation(len(labels))
    classes, sizes = np.unique(labels, return_counts=True)
    shares, remainders = np.divmod(count * sizes, len(labels))
    shares[np.argsort(-remainders, kind="stable")[: count - shares.sum()]] += 1  # the largest remainders round up
    mask = np.zeros(len(labels), dtype=bool)
    for label, share in zip(classes, shares, strict=True):
        mask[order[labels[order] == label][:share]] = True
    return mask
