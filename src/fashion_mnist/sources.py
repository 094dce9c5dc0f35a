"""The prepared dataset on disk: arrays that can be memory-mapped, their card and a sheet of samples."""

import contextlib
import errno
import hashlib
import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.panel import Panel

from fashion_mnist.config import DataConfig
from fashion_mnist.data import CARD, CLASS_NAMES, PARTS, SAMPLES, Arrays, Split, is_intact, read_card
from fashion_mnist.errors import SourceUnavailableError, UserError
from fashion_mnist.official import DIGEST, HOME, LICENSE, official_arrays
from fashion_mnist.synthetic import generate


def prepare(config: DataConfig, root: str | Path) -> Path:
    """Makes sure that the prepared dataset lies on disk, and makes it if it does not.

    Args:
        config: which dataset.
        root: the folder of all prepared datasets.

    Returns:
        The dataset's folder, `root/<name>`, with `{train,test}_{images,labels}.npy`, `dataset.json` and `samples.png`.

    Raises:
        UserError: the dataset cannot be had.
    """
    if config.name == "synthetic":
        return prepare_synthetic(config, Path(root))
    if config.name == "tfds":
        return prepare_tfds(config, Path(root))
    try:
        return prepare_official(config, Path(root))
    except SourceUnavailableError as error:
        if config.name != "auto":
            raise
        reason = str(error).partition(";")[0]  # not the ways out, of which this is one
        text = f"{reason}.\n\nDrawn garments are used instead. Their accuracies say nothing about Fashion-MNIST."
        Console(stderr=True).print(Panel(text, title="NOT Fashion-MNIST", style="bold red", padding=(1, 2)))
        return prepare_synthetic(config, Path(root))


def prepare_official(config: DataConfig, root: Path) -> Path:
    """Prepares the real 70,000 images as `root/fashion_mnist`."""
    folder = root / "fashion_mnist"
    if not is_intact(folder) or read_card(folder).digest != DIGEST:
        write(folder, official_arrays(config), {"name": "fashion_mnist", "source": HOME, "license": LICENSE})
    return folder


def prepare_tfds(config: DataConfig, root: Path) -> Path:
    """Prepares what TensorFlow Datasets has as `root/tfds`."""
    folder = root / "tfds"
    if not is_intact(folder) or read_card(folder).name != "tfds":  # other images may have come from another data.dir
        from fashion_mnist.tfds import tfds_arrays

        write(folder, *tfds_arrays(config))
    return folder


def prepare_synthetic(config: DataConfig, root: Path) -> Path:
    """Prepares drawn garments as `root/synthetic`; other sizes or another seed replace what lies there."""
    folder = root / "synthetic"
    sizes = {"train": config.train_images, "test": config.test_images}
    source = f"fashion_mnist.synthetic: {sizes['train']} + {sizes['test']} images, seed {config.drawing_seed}"
    if not is_intact(folder) or read_card(folder).source != source:
        arrays: Arrays = {}
        for split, count in sizes.items():
            arrays[f"{split}_images"], arrays[f"{split}_labels"] = generate(count, config.drawing_seed, split)
        write(folder, arrays, {"name": "synthetic", "source": source, "license": "MIT"})
    return folder


def write(folder: Path, arrays: Arrays, card: dict[str, Any]) -> None:
    """Writes the arrays, their card and the samples beside `folder`, then puts them in its place in one move.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            new = Path(temporary) / folder.name
            new.mkdir()
            write_files(new, arrays, card)
            if not is_intact(folder) or read_card(folder) != read_card(new):  # else another process was quicker
                replace_folder(new, folder)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"cannot write to {folder.parent} ({reason}); choose another folder: data_root=...") from error


def write_files(folder: Path, arrays: Arrays, card: dict[str, Any]) -> None:
    """Writes what a prepared dataset consists of.

    The card holds nothing that differs from machine to machine, so the same data gives the same bytes.
    """
    files = {}
    for part in PARTS:
        buffer = io.BytesIO()
        np.save(buffer, arrays[part])
        content = buffer.getbuffer()
        (folder / f"{part}.npy").write_bytes(content)
        files[f"{part}.npy"] = {"sha256": hashlib.sha256(content).hexdigest(), "shape": list(arrays[part].shape)}
    description = {**card, "class_names": list(card.get("class_names", CLASS_NAMES)), "files": files}
    (folder / CARD).write_text(json.dumps(description, indent=2) + "\n")
    from fashion_mnist import plots  # matplotlib takes half a second

    training = Split(arrays["train_images"], arrays["train_labels"])
    written = read_card(folder)
    plots.write(plots.samples(training, written.class_names, written.title), folder / SAMPLES)


def replace_folder(new: Path, folder: Path) -> None:
    """Renames `new` to `folder`; what was there before goes only once `new` is complete."""
    while True:
        try:
            new.replace(folder)
            return
        except OSError as error:  # a folder that is not empty cannot be replaced in one step
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
        with contextlib.suppress(FileNotFoundError):  # another process was quicker
            folder.replace(aside)
        shutil.rmtree(aside)
