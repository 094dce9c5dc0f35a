"""`data=tfds` reads what TensorFlow Datasets keeps on disk."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, all_runs, assert_one_sentence, needs_real_data, run_here, run_step

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
    tfds = pytest.importorskip("tensorflow_datasets", reason="uv sync --inexact --extra tfds")
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


def test_it_is_called_as_one_asks(folder: Path, tmp_path: Path) -> None:
    prepared = prepare(compose(["data=tfds", f"data.dir={folder}", "data.name=mine"]).data, tmp_path).folder
    assert (prepared.name, read_card(prepared).name) == ("mine", "mine")


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
def test_the_preset_trains_on_it_and_its_run_is_made_again(folder: Path, empty_folder: Path) -> None:
    process = run_here("experiment=tfds_ann", f"data.dir={folder}", "trainer.epochs=1", step="main")
    assert process.returncode == 0, process.stderr
    assert "on the test set of tfds_unofficial (not Fashion-MNIST)" in " ".join(process.stdout.split())
    (run,) = all_runs()
    process = run_here(f"run={run.info.run_id}", step="reproduce")
    assert process.returncode == 0, process.stderr
    assert "identical: the model is the same byte for byte" in process.stdout


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
    pytest.importorskip("tensorflow_datasets", reason="uv sync --inexact --extra tfds")
    proxies = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    process = run_here("data=tfds", f"data.dir={empty_folder}/empty", "data.timeout=1", step="fetch", **proxies)
    assert process.returncode == 1
    assert "cannot download it" in process.stderr.splitlines()[-1]
    assert "Traceback" not in process.stderr


def test_without_the_extra_the_way_to_it_is_named(empty_folder: Path) -> None:
    (empty_folder / "tensorflow_datasets.py").write_text("raise ImportError")
    path = os.pathsep.join([str(empty_folder), str(ROOT / "src")])
    assert_one_sentence(run_step("data=tfds", step="fetch", PYTHONPATH=path), "uv sync --inexact --extra tfds")


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


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets of other kinds: coloured ones of different sizes without a test, and one with a class of no images."""
    tfds = pytest.importorskip("tensorflow_datasets", reason="uv sync --inexact --extra tfds")
    import tensorflow as tf

    folder, rng = tmp_path_factory.mktemp("catalogue"), np.random.default_rng(0)

    def store(name: str, shape: tuple, names: list[str], **splits: list[tuple[np.ndarray, int]]) -> None:
        signature = {
            "image": tf.TensorSpec(shape, tf.uint8),  # pyright: ignore[reportArgumentType]
            "label": tf.TensorSpec((), tf.int64),  # pyright: ignore[reportArgumentType]
        }

        def dataset(examples: list) -> tf.data.Dataset:
            rows = [{"image": image, "label": label} for image, label in examples]
            return tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=signature)

        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version="1.0.0",
            data_dir=folder,
            features=tfds.features.FeaturesDict(
                {"image": tfds.features.Image(shape=shape), "label": tfds.features.ClassLabel(names=names)}
            ),
            split_datasets={split: dataset(examples) for split, examples in splits.items()},
        )

    sizes = [(12, 10), (20, 20), (20, 20), (9, 30)] * 5
    flowers = [(rng.integers(0, 256, (*size, 3), np.uint8), index % 2) for index, size in enumerate(sizes)]
    store("flowers", (None, None, 3), ["rose", "tulip"], train=flowers)
    letters = [(rng.integers(0, 256, (8, 8, 1), np.uint8), 1 + index % 3) for index in range(30)]
    store("letters", (8, 8, 1), ["none", "a", "b", "c"], train=letters, test=letters[:9])
    return folder


def test_any_set_of_the_catalogue_can_be_had(catalogue: Path, tmp_path: Path) -> None:
    chosen = ["data=tfds", f"data.dir={catalogue}"]
    flowers = prepare(compose([*chosen, "data.dataset=flowers", "data.validation=0.25"]).data, tmp_path)
    assert flowers.card.class_names == ("rose", "tulip")
    assert flowers.card.image_shape == (20, 20, 3)
    assert [len(part.labels) for part in (flowers.training, flowers.validation, flowers.test)] == [12, 4, 4]
    letters = prepare(compose([*chosen, "data.dataset=letters", "data.validation=3"]).data, tmp_path)
    assert letters.card.class_names == ("a", "b", "c")  # none are of the first name
    assert (letters.card.name, letters.card.title, letters.card.image_shape) == ("letters", "letters", (8, 8))
    assert sorted(set(letters.test.labels.tolist())) == [0, 1, 2]
    larger = prepare(compose([*chosen, "data.dataset=letters", "data.side=16", "data.channels=3"]).data, tmp_path)
    assert larger.card.image_shape == (16, 16, 3)


def test_a_set_that_nobody_knows_is_named(tmp_path: Path, empty_folder: Path) -> None:
    pytest.importorskip("tensorflow_datasets", reason="uv sync --inexact --extra tfds")
    process = run_here("data=tfds", "data.dataset=no_such_set", f"data.dir={tmp_path}/none")
    assert_one_sentence(process, "knows no no_such_set")
