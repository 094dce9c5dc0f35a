"""Image classification as TensorFlow Datasets has it, by default Fashion-MNIST.

https://www.tensorflow.org/datasets/catalog/overview#image_classification
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import requests
from PIL import Image

from fashion_mnist.config import DataConfig
from fashion_mnist.data.dataset import Arrays, check_classes, in_parts, set_aside
from fashion_mnist.data.decode import Look, as_bytes
from fashion_mnist.data.images import shape_of
from fashion_mnist.data.official import LICENSE
from fashion_mnist.errors import SourceUnavailableError, UserError, progress
from fashion_mnist.startup import import_tensorflow

DEFAULT = "fashion_mnist"
# `content` of the official files. TensorFlow Datasets keeps the same images, but in another order.
CONTENT = "a0118132194891f2"
SETTINGS = ("side", "channels", "test", "drawing_seed")  # which change what a dataset is made to


def tfds_arrays(config: DataConfig) -> tuple[Arrays, dict]:
    """Reads the dataset, and downloads it where `config.dir`, or else `~/tensorflow_datasets`, does not hold it yet.

    Gives the four arrays, in the order of the files, and what the card says of them, from the dataset's own metadata.

    Raises:
        UserError: it is none of images with a label each, or cannot be read.
        SourceUnavailableError: it is not there, and cannot be downloaded.
    """
    import_tensorflow()
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise UserError("data=tfds needs TensorFlow Datasets: uv sync --inexact --extra tfds.") from None
    name = config.dataset
    try:
        builder: Any = tfds.builder(name, data_dir=config.dir, try_gcs=False)
        if not builder.is_prepared():
            # A download would try for minutes before it gives up.
            requests.head(next(iter(builder.url_infos), "https://www.tensorflow.org"), timeout=config.timeout)
            builder.download_and_prepare()
    except Exception as error:  # of whichever library it uses for a download
        if type(error).__name__ == "DatasetNotFoundError" and name != DEFAULT:
            raise UserError(
                f"TensorFlow Datasets knows no {name}, and {config.dir or 'its folder'} has none."
            ) from error
        raise SourceUnavailableError(
            f"TensorFlow Datasets has no {name} in {config.dir or 'its own folder'} and cannot download it "
            f"({type(error).__name__}); name a folder that has it with data.dir=..., or use data=fashion_mnist."
        ) from error
    keys = builder.info.supervised_keys or ("image", "label")
    features = builder.info.features
    if not all(key in features for key in keys) or not (
        isinstance(features[keys[0]], tfds.features.Image) and isinstance(features[keys[1]], tfds.features.ClassLabel)
    ):
        raise UserError(f"{name} of TensorFlow Datasets is no set of images with one label each.")
    parts = [part for part in ("train", "test") if part in builder.info.splits]
    if "train" not in parts:
        raise UserError(
            f"{name} of TensorFlow Datasets has no split called train, but {', '.join(builder.info.splits)}."
        )
    try:
        shape = common_shape(builder, keys, config)
        read = [read_split(builder, part, keys, shape) for part in parts]
    except UserError:
        raise
    except Exception as error:  # of TensorFlow, for each kind of damage another
        raise UserError(
            f"{builder.data_dir} cannot be read ({type(error).__name__}); delete it, and it is downloaded anew."
        ) from error
    arrays, class_names = as_dataset(read, list(features[keys[1]].names), config)
    called = config.name or ("tfds" if content(arrays) == CONTENT else "tfds_unofficial")
    return arrays, {
        "source": source_of(builder.info.full_name, config),
        "class_names": class_names,
        **({"license": LICENSE, "name": called} if name == DEFAULT else {"license": license_of(builder.info)}),
    }


def source_of(full_name: str, config: DataConfig) -> str:
    """Where a dataset is from, with what is not as usual."""
    unusual = [f"{key}={getattr(config, key)}" for key in SETTINGS if getattr(config, key) != getattr(DataConfig, key)]
    return f"tensorflow_datasets: {full_name}" + (f" ({', '.join(unusual)})" if unusual else "")


def license_of(info: Any) -> str:
    stated = getattr(info.redistribution_info, "license", "") if info.redistribution_info else ""
    return stated or f"not stated; see {info.homepage}"


def common_shape(builder: Any, keys: tuple[str, str], config: DataConfig) -> tuple[int, ...] | None:
    """What images of different sizes are made; None if they are alike, and stay as they are."""
    feature = builder.info.features[keys[0]]
    *size, channels = feature.shape
    if (
        None not in size
        and channels in (1, 3)
        and feature.np_dtype == np.uint8
        and not (config.side or config.channels)
    ):
        return None
    if config.side is None and None in size:
        sides = [max(picture.size) for picture in pictures(builder, "train", keys[0])]
    else:
        sides = [max(side for side in size if side) if config.side is None else config.side]
    return shape_of([Look(side, channels == 1) for side in sides], config)


def pictures(builder: Any, part: str, key: str) -> Iterator[Image.Image]:
    import tensorflow_datasets as tfds

    for example in tfds.as_numpy(builder.as_dataset(split=part)):
        yield picture_of(example[key])


def picture_of(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def read_split(
    builder: Any, part: str, keys: tuple[str, str], shape: tuple[int, ...] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Images, as they are or made of a shape, and labels of one split."""
    import tensorflow_datasets as tfds

    if shape is None:
        examples: Any = tfds.as_numpy(builder.as_dataset(split=part, batch_size=-1))
        images = examples[keys[0]]
        return images[..., 0] if images.shape[-1] == 1 else images, examples[keys[1]]
    count = range(builder.info.splits[part].num_examples)
    images, labels = np.zeros((len(count), *shape), np.uint8), np.zeros(len(count), np.int64)
    examples = tfds.as_numpy(builder.as_dataset(split=part))
    for index, example in zip(progress(count, f"reading {part}"), examples, strict=True):
        images[index], labels[index] = as_bytes(picture_of(example[keys[0]]), shape), example[keys[1]]
    return images, labels


def as_dataset(
    read: list[tuple[np.ndarray, np.ndarray]], names: list[str], config: DataConfig
) -> tuple[Arrays, list[str]]:
    """The four arrays, and the names of the classes that have images: the catalogue has some that none are of."""
    used = np.unique(np.concatenate([labels for _, labels in read]))
    class_names = [names[label] for label in used]
    check_classes(class_names)
    kind = np.uint8 if len(used) <= 256 else np.uint16
    parts = [(images, np.searchsorted(used, labels).astype(kind)) for images, labels in read]
    if len(parts) == 1:
        of_test = set_aside(parts[0][1], config.test, "data.test", class_names, config.drawing_seed, of_each=True)
        return in_parts(*parts[0], of_test), class_names
    return {
        f"{part}_{what}": array
        for part, found in zip(("train", "test"), parts, strict=True)
        for what, array in zip(("images", "labels"), found, strict=True)
    }, class_names


def content(arrays: Arrays) -> str:
    """Sixteen hexadecimal digits that stand for the images with their labels, in whatever order each split has them."""
    digest = hashlib.sha256()
    for split in ("train", "test"):
        pairs = zip(arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True)
        for single in sorted(hashlib.sha256(image.tobytes() + label.tobytes()).digest() for image, label in pairs):
            digest.update(single)
        digest.update(split.encode())
    return digest.hexdigest()[:16]
