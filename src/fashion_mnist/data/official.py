"""The official Fashion-MNIST files: found, checked against their published digests, decoded."""

import gzip
import hashlib
import io
import os
import zlib
from pathlib import Path

import numpy as np

from fashion_mnist.config import DataConfig
from fashion_mnist.data.dataset import Arrays
from fashion_mnist.errors import UserError
from fashion_mnist.files import home

HOME = "https://github.com/zalandoresearch/fashion-mnist"
LICENSE = "MIT, Copyright 2017 Zalando SE"

# File names and MD5 digests as published in the README of https://github.com/zalandoresearch/fashion-mnist
OFFICIAL = {
    "train_images": ("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", (60_000, 28, 28)),
    "train_labels": ("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe", (60_000,)),
    "test_images": ("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79", (10_000, 28, 28)),
    "test_labels": ("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310", (10_000,)),
}
DIGEST = "14c0a117097d609e"  # of the four arrays that these files hold, as `dataset.Card.digest` computes it
# The same file names hold handwritten digits at http://yann.lecun.com/exdb/mnist/; MD5 digests of the images there.
DIGIT_MNIST = {"f68b3c2dcbeaaa9fbdd348bbdeb94873", "9fb629c4189551a2d022fa330f9573f3"}
DIGIT_MNIST_FIRST_LABELS = {
    "train_labels": bytes([5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 3, 5]),
    "test_labels": bytes([7, 2, 1, 0, 4, 1, 4, 9, 5, 9, 0, 6]),
}
# Training image and test image that were one and the same in the files from before 31 August 2017, and images that
# stood twice in one file: https://github.com/zalandoresearch/fashion-mnist/issues/44
LEAKED = ((3763, 7243), (4944, 7781), (6168, 9227), (12404, 4037), (15943, 6659))
DUPLICATED = {"train_images": ((601, 39865), (831, 24228), (1826, 23718)), "test_images": ((6334, 8569),)}


def official_arrays(config: DataConfig) -> Arrays:
    """Fashion-MNIST from `config.dir` and nowhere else, if that is set; else from the Keras cache or the mirrors.

    The four arrays are uint8, with the names and shapes of `OFFICIAL`.

    Raises:
        UserError: a file in `config.dir` is missing, or is not the official one.
        SourceUnavailableError: there is no local copy, and no mirror answers.
    """
    if config.dir:
        folder = Path(config.dir).expanduser()
        missing = [name for name, _, _ in OFFICIAL.values() if not (folder / name).is_file()]
        if missing:
            raise UserError(f"{folder} (data.dir or FASHION_MNIST_DIR) lacks {', '.join(missing)}.")
    else:
        from fashion_mnist.data.download import download  # a folder with all files needs none of its libraries

        # Where `keras.datasets.fashion_mnist.load_data()` keeps the same four files.
        folder = Path(os.environ.get("KERAS_HOME") or home() / ".keras") / "datasets" / "fashion-mnist"
        download({name: digest for name, digest, _ in OFFICIAL.values()}, folder, config.mirrors, config.timeout)
    contents = {part: (folder / name).read_bytes() for part, (name, _, _) in OFFICIAL.items()}
    refuse_strangers(folder, contents)
    return {part: read_idx(contents[part], shape) for part, (_, _, shape) in OFFICIAL.items()}


def refuse_strangers(folder: Path, contents: dict[str, bytes]) -> None:
    """Compares the files with the published digests, and says what other ones are, where that can be known."""
    digests = {part: hashlib.md5(content).hexdigest() for part, content in contents.items()}
    strangers = [part for part, digest in digests.items() if digest != OFFICIAL[part][1]]
    if not strangers:
        return
    names = ", ".join(OFFICIAL[part][0] for part in strangers)
    verb = "is" if len(strangers) == 1 else "are"
    decoded: Arrays = {}
    for part in strangers:
        try:
            decoded[part] = read_idx(contents[part], OFFICIAL[part][2])
        except ValueError as error:
            raise UserError(f"{folder / OFFICIAL[part][0]} is damaged ({error}); fetch it again from {HOME}.") from None
    if any(digests[part] in DIGIT_MNIST for part in strangers) or any(
        decoded[part][: len(first)].tobytes() == first
        for part, first in DIGIT_MNIST_FIRST_LABELS.items()
        if part in decoded
    ):
        raise UserError(f"{names} in {folder} {verb} digit MNIST, not Fashion-MNIST; fetch the files from {HOME}.")
    if holds_leak(decoded):
        raise UserError(
            f"{names} in {folder} {verb} from before 31 August 2017, when test images leaked into the training set; "
            f"fetch the present files from {HOME}."
        )
    raise UserError(f"{names} in {folder} {verb} not the official Fashion-MNIST: the digest differs; see {HOME}.")


def holds_leak(decoded: Arrays) -> bool:
    """Whether images are equal that were so only in the files from before 31 August 2017."""
    for part, pairs in DUPLICATED.items():
        if part in decoded and all(np.array_equal(*decoded[part][list(pair)]) for pair in pairs):
            return True
    if {"train_images", "test_images"} <= decoded.keys():
        train, test = decoded["train_images"], decoded["test_images"]
        return all(np.array_equal(train[first], test[second]) for first, second in LEAKED)
    return False


def read_idx(compressed: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Decodes a gzipped IDX file of unsigned bytes (http://yann.lecun.com/exdb/mnist/).

    Never decompresses more than `shape` needs, whatever the header claims.

    Raises:
        ValueError: truncated, corrupt, of another shape, or longer than announced.
    """
    expected = bytes([0, 0, 8, len(shape)]) + np.array(shape, dtype=">u4").tobytes()
    size = int(np.prod(shape))
    try:
        with gzip.open(io.BytesIO(compressed)) as file:
            if file.read(len(expected)) != expected:
                raise ValueError(f"its header does not announce unsigned bytes of shape {shape}")
            body, rest = file.read(size), file.read(1)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"gzip: {error}") from error
    if len(body) != size or rest:
        raise ValueError(f"it does not hold exactly {size} bytes")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)
