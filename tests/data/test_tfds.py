"""`data=tfds` reads what TensorFlow Datasets keeps on disk."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, assert_one_sentence, needs_real_data, run_here, run_step

from fashion_mnist.cli import compose
from fashion_mnist.data.dataset import CLASS_NAMES, Arrays, read_card, read_dataset
from fashion_mnist.data.prepare import prepare
from fashion_mnist.data.synthetic import generate
from fashion_mnist.data.tfds import CONTENT, content
from fashion_mnist.errors import UserError


@pytest.fixture(scope="module")
def drawn() -> Arrays:
    arrays: Arrays = {}
    for split, count in (("train", 300), ("test", 100)):
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = generate(count, 0, split)
    return arrays


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, drawn: Arrays) -> Path:
    """The folder of TensorFlow Datasets, with a small dataset that is named and stored as its Fashion-MNIST is."""
    tfds = pytest.importorskip("tensorflow_datasets", reason="uv sync --extra tfds")
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(28, 28, 1)), "label": tfds.features.ClassLabel(names=list(CLASS_NAMES))}
    )

    import tensorflow as tf

    def examples(split: str) -> tf.data.Dataset:
        images, labels = drawn[f"{split}_images"][..., None], drawn[f"{split}_labels"].astype(np.int64)
        return tf.data.Dataset.from_tensor_slices((images, labels)).map(lambda x, y: {"image": x, "label": y})

    folder = tmp_path_factory.mktemp("tfds")
    tfds.dataset_builders.store_as_tfds_dataset(
        name="fashion_mnist",
        version="3.0.1",
        data_dir=folder,
        features=features,
        split_datasets={split: examples(split) for split in ("train", "test")},
    )
    return folder


def test_images_labels_and_class_names_arrive(folder: Path, drawn: Arrays, tmp_path: Path) -> None:
    prepared = prepare(compose(["data=tfds", f"data.dir={folder}"]).data, tmp_path).folder
    card = read_card(prepared)
    assert card.class_names == CLASS_NAMES
    assert "fashion_mnist/3.0.1" in card.source
    (training, _), test = read_dataset(prepared, 0).parts, read_dataset(prepared).test
    arrived = {
        "train_images": training.images,
        "train_labels": training.labels,
        "test_images": test.images,
        "test_labels": test.labels,
    }
    assert {part: array.dtype for part, array in arrived.items()} == dict.fromkeys(arrived, np.dtype(np.uint8))
    assert content(arrived) == content(drawn)


def test_other_images_under_the_same_name_are_not_called_fashion_mnist(folder: Path, tmp_path: Path) -> None:
    card = read_card(prepare(compose(["data=tfds", f"data.dir={folder}"]).data, tmp_path).folder)
    assert "not Fashion-MNIST" in card.title


@pytest.mark.slow
def test_the_preset_trains_on_it(folder: Path, empty_folder: Path) -> None:
    process = run_here("experiment=tfds_ann", f"data.dir={folder}", "trainer.epochs=1", step="main")
    assert process.returncode == 0, process.stderr
    assert "on the test set of tfds_unofficial (not Fashion-MNIST)" in " ".join(process.stdout.split())


def test_a_damaged_dataset_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "tfds")
    (file,) = (tmp_path / "tfds").rglob("*train.tfrecord*")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="cannot be read"):
        prepare(compose(["data=tfds", f"data.dir={tmp_path}/tfds"]).data, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_other_images_are_read_again_from_where_they_are(folder: Path, tmp_path: Path) -> None:
    prepare(compose(["data=tfds", f"data.dir={folder}"]).data, tmp_path)
    with pytest.raises(UserError):  # not the ones that lie there already
        prepare(compose(["data=tfds", f"data.dir={tmp_path}/empty", "data.timeout=1"]).data, tmp_path)


def test_a_dataset_that_is_not_there_and_cannot_be_downloaded(empty_folder: Path) -> None:
    pytest.importorskip("tensorflow_datasets", reason="uv sync --extra tfds")
    proxies = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    process = run_here("data=tfds", f"data.dir={empty_folder}/empty", "data.timeout=1", step="fetch", **proxies)
    assert process.returncode == 1
    assert "cannot download it" in process.stderr.splitlines()[-1]
    assert "Traceback" not in process.stderr


def test_without_the_extra_the_way_to_it_is_named(empty_folder: Path) -> None:
    (empty_folder / "tensorflow_datasets.py").write_text("raise ImportError")
    path = os.pathsep.join([str(empty_folder), str(ROOT / "src")])
    assert_one_sentence(run_step("data=tfds", step="fetch", PYTHONPATH=path), "uv sync --extra tfds")


@needs_real_data
def test_the_official_images_are_known_in_any_order(tmp_path: Path) -> None:
    dataset = prepare(compose(["data=fashion_mnist", "data.validation=0"]).data, tmp_path)
    training, test = dataset.training, dataset.test
    order = np.random.default_rng(0).permutation(len(training.labels))
    arrays = {"train_images": training.images[order], "train_labels": training.labels[order]}
    arrays |= {"test_images": test.images, "test_labels": test.labels}
    assert content(arrays) == CONTENT
    arrays["train_labels"] = np.roll(arrays["train_labels"], 1)
    assert content(arrays) != CONTENT
