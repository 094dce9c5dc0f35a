"""What a model says of the test images, as an NPZ file: the same predictions give the same bytes."""

import math
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fashion_mnist.errors import UserError
from fashion_mnist.files import complete

LARGEST = 1 << 28  # bytes of one array of predictions; those of a thousand classes for 100,000 images take 200 MB
# Of what an archive must hold, in NumPy's letters; more than 256 classes take two bytes.
KINDS = {"labels": ("u1", "u2"), "predicted": ("u1", "u2"), "probabilities": ("f2",)}


class Predictions(NamedTuple):
    labels: np.ndarray  # the truth, uint8 (n,), or uint16 of more than 256 classes
    predicted: np.ndarray  # of the same type
    probabilities: np.ndarray  # float16 (n, classes)


def write_predictions(file: Path, labels: np.ndarray, probabilities: np.ndarray) -> None:
    """Writes the true labels (n,) and probabilities, float32 (n, classes), to a `.npz` file of about 100 kB.

    The probabilities are kept as float16, and the most probable class beside them, since rounding can make two equal.
    """
    kind = np.uint8 if probabilities.shape[1] <= 256 else np.uint16
    predicted = probabilities.argmax(axis=1)
    kept = Predictions(labels.astype(kind), predicted.astype(kind), probabilities.astype(np.float16))
    with complete(file) as partial:
        np.savez_compressed(partial, allow_pickle=False, **kept._asdict())


def read_predictions(file: Path) -> Predictions:
    """Reads what `write_predictions` wrote.

    The file may come from anywhere: nothing is unpickled, and no more memory is taken than a million predictions need,
    whatever it claims to hold.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            labels, predicted, probabilities = (read_array(archive, name, kinds) for name, kinds in KINDS.items())
        if not labels.shape == predicted.shape == probabilities.shape[:1] or probabilities.ndim != 2:
            raise ValueError("its arrays do not belong together")
        if max(labels.max(initial=0), predicted.max(initial=0)) >= probabilities.shape[1]:
            raise ValueError("it names classes that it has no probabilities of")
    except FileNotFoundError:
        raise UserError(f"there are no predictions in {file}; python -m fashion_mnist.evaluate makes them.") from None
    except Exception as error:  # damage comes up as anything, from NotImplementedError to struct.error
        raise UserError(f"{file} is damaged; python -m fashion_mnist.evaluate makes it again.") from error
    return Predictions(labels, predicted, probabilities)


def read_array(archive: zipfile.ZipFile, name: str, kinds: tuple[str, ...]) -> np.ndarray:
    """Reads one array; `np.load` would allocate whatever its header announces, so that is looked at first.

    Raises:
        ValueError: it is of another kind, too large, or not as long as its header says.
    """
    entry = archive.getinfo(f"{name}.npy")  # no more than its `file_size` is unpacked, even if it holds more
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(member)
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        announced = member.tell() + math.prod(shape) * dtype.itemsize
    if version != (1, 0) or dtype.str[1:] not in kinds or not announced == entry.file_size <= LARGEST:
        raise ValueError(f"{name} is not what it should be")
    with archive.open(entry) as member:
        return np.load(member, allow_pickle=False)
