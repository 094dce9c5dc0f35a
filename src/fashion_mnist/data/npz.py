"""Arrays in one file, as `keras.datasets.mnist` keeps them: x_train, y_train, x_test, y_test."""

from pathlib import Path

import numpy as np

from fashion_mnist.config import DataConfig
from fashion_mnist.data.dataset import PARTS, Arrays, check_classes
from fashion_mnist.errors import UserError, say

KEYS = ("x_train", "y_train", "x_test", "y_test")  # in the order of `dataset.PARTS`


def npz_arrays(file: Path, config: DataConfig) -> tuple[Arrays, tuple[str, ...]]:
    """Reads the four arrays and the names of the classes; pickled objects in the file are refused, and never run.

    Raises:
        UserError: an array is missing, or holds something else than images or labels.
    """
    try:
        with np.load(file, allow_pickle=False) as content:
            if lacking := [key for key in KEYS if key not in content]:
                raise UserError(f"{file} lacks {', '.join(lacking)}; it holds {', '.join(content.files) or 'nothing'}.")
            found = {key: content[key] for key in KEYS}
            names = np.atleast_1d(content["class_names"]).tolist() if "class_names" in content else []
            given = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    except UserError:
        raise
    except Exception as error:  # damage comes up as anything, from zlib.error to NotImplementedError
        pickled = "pickled objects, which could run anything, " if "allow_pickle" in str(error) else ""
        reason = f"it holds {pickled}in place of arrays" if pickled else " ".join(str(error).split())[:200]
        raise UserError(f"{file} cannot be read as an .npz file of arrays ({reason}).") from error
    images = [images_of(file, key, found[key]) for key in KEYS[::2]]
    if images[0].shape[1:] != images[1].shape[1:]:
        raise UserError(f"x_train and x_test in {file} have images of different shapes.")
    labels = [labels_of(file, key, found[key], len(of)) for key, of in zip(KEYS[1::2], images, strict=True)]
    names = names_of(file, labels, config.class_names or given)
    labels = [each.astype(np.uint8 if len(names) <= 256 else np.uint16) for each in labels]
    return dict(zip(PARTS, (images[0], labels[0], images[1], labels[1]), strict=True)), names


def images_of(file: Path, key: str, array: np.ndarray) -> np.ndarray:
    """Images as bytes; those with numbers from 0 to 1 are made so, and this is said."""
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[3] != 3) or min(array.shape[1:3]) < 4:
        raise UserError(
            f"{key} in {file} must be (n, height, width) or (n, height, width, 3), of at least 4 x 4 pixels; "
            f"it is {array.shape}."
        )
    if array.dtype == np.uint8 and array.max(initial=0) > 1:
        return array
    if array.dtype.kind not in "buif" or not len(array):
        raise UserError(f"{key} in {file} must hold numbers from 0 to 255; it holds {len(array)} x {array.dtype}.")
    low, high = float(array.min()), float(array.max())
    if low >= 0 and 0 < high <= 1:
        say(f"{key} in {file} has numbers from {low:g} to {high:g}; they are multiplied by 255.")
        return np.rint(array * np.float32(255)).astype(np.uint8)
    whole = array.dtype.kind != "f" or not any((array[at : at + 1000] % 1).any() for at in range(0, len(array), 1000))
    if not (low >= 0 and high <= 255 and whole):  # NaN fails, too
        raise UserError(
            f"{key} in {file} has numbers from {low:g} to {high:g}; images need whole ones from 0 to 255, or 0 to 1."
        )
    return array.astype(np.uint8)


def labels_of(file: Path, key: str, array: np.ndarray, images: int) -> np.ndarray:
    """Labels as a single column of whole numbers."""
    if array.shape == (images, 1):  # as in Keras's CIFAR-10
        array = array[:, 0]
    if array.shape != (images,) or not np.issubdtype(array.dtype, np.integer):
        raise UserError(
            f"{key} in {file} must be a whole number for each of {images:,} images, not {array.dtype} of shape "
            f"{array.shape}."
        )
    return array


def names_of(file: Path, labels: list[np.ndarray], given: list[str]) -> tuple[str, ...]:
    """The classes' names; refuses labels that are not 0, 1, 2 and so on, each in both parts."""
    found = np.unique(np.concatenate(labels))
    count = len(given) if given else len(found)
    check_classes(given or [str(label) for label in found])
    if list(found) != list(range(count)):
        some = f"{found[0]} to {found[-1]}, {len(found)} different ones"
        names = f" for the {count} names of its classes" if given else ""
        raise UserError(
            f"labels in {file} must be 0, 1, 2 ... without a gap{names}; they are {some}: number them anew."
        )
    return tuple(given or (str(label) for label in range(count)))
