"""Fashion-MNIST as TensorFlow Datasets has it (https://www.tensorflow.org/datasets/catalog/fashion_mnist)."""

import hashlib
from typing import Any

import numpy as np
import requests

from fashion_mnist.config import DataConfig
from fashion_mnist.data.dataset import Arrays
from fashion_mnist.data.official import LICENSE
from fashion_mnist.errors import SourceUnavailableError, UserError
from fashion_mnist.startup import import_tensorflow

# `content` of the official files. TensorFlow Datasets keeps the same images, but in another order.
CONTENT = "a0118132194891f2"


def tfds_arrays(config: DataConfig) -> tuple[Arrays, dict]:
    """Reads the dataset, and downloads it where `config.dir`, or else `~/tensorflow_datasets`, does not hold it yet.

    Gives the four arrays, uint8, in the order of the files, and what the card says of them, from the dataset's own
    metadata. Raises SourceUnavailableError if the dataset is not there, and cannot be downloaded.
    """
    import_tensorflow()
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise UserError("data=tfds needs TensorFlow Datasets: uv sync --extra tfds.") from None
    where = {"name": "fashion_mnist", "data_dir": config.dir, "try_gcs": False}
    try:
        builder: Any = tfds.builder(**where)
        if not builder.is_prepared():
            requests.head(builder.URL, timeout=config.timeout)  # a download would try for minutes before it gives up
            builder.download_and_prepare()
    except Exception as error:  # of whichever library it uses for a download
        raise SourceUnavailableError(
            f"TensorFlow Datasets has no fashion_mnist in {config.dir or 'its own folder'} and cannot download it "
            f"({type(error).__name__}); name a folder that has it with data.dir=..., or use data=fashion_mnist."
        ) from error
    try:
        loaded: Any = tfds.load(**where, split=["train", "test"], batch_size=-1, with_info=True, download=False)
    except Exception as error:  # of TensorFlow, for each kind of damage another
        raise UserError(
            f"{builder.data_dir} cannot be read ({type(error).__name__}); delete it, and it is downloaded anew."
        ) from error
    splits, info = loaded
    arrays: Arrays = {}
    for split, examples in zip(("train", "test"), map(tfds.as_numpy, splits), strict=True):
        arrays[f"{split}_images"] = examples["image"][..., 0]
        arrays[f"{split}_labels"] = examples["label"].astype(np.uint8)
    return arrays, {
        "name": "tfds" if content(arrays) == CONTENT else "tfds_unofficial",
        "source": f"tensorflow_datasets: {info.full_name}",
        "license": LICENSE,
        "class_names": list(info.features["label"].names),
    }


def content(arrays: Arrays) -> str:
    """Sixteen hexadecimal digits that stand for the images with their labels, in whatever order each split has them."""
    digest = hashlib.sha256()
    for split in ("train", "test"):
        pairs = zip(arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True)
        for single in sorted(hashlib.sha256(image.tobytes() + label.tobytes()).digest() for image, label in pairs):
            digest.update(single)
        digest.update(split.encode())
    return digest.hexdigest()[:16]
