"""The numbers of an evaluation are what their definitions say."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from fashion_mnist.config import Config
from fashion_mnist.errors import UserError
from fashion_mnist.evaluate import predict
from fashion_mnist.evaluation.metrics import (
    calibration_error,
    confusion,
    per_class_table,
    prediction_costs,
    summarize,
)
from fashion_mnist.evaluation.predictions import read_predictions, write_predictions
from fashion_mnist.training.build import build

Compose = Callable[..., Config]


def test_large_images_are_asked_about_in_small_batches() -> None:
    sizes: list[int] = []

    def model(batch: np.ndarray, training: bool) -> np.ndarray:
        sizes.append(len(batch))
        return np.zeros((len(batch), 2), np.float32)

    assert len(predict(model, np.zeros((40, 224, 224), np.uint8))) == 40  # pyright: ignore[reportArgumentType]
    assert sizes == [15, 15, 10]


def test_metrics_agree_with_counting_by_hand() -> None:
    labels = np.array([0, 0, 1, 2], dtype=np.uint8)
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.0, 0.0, 1.0]], dtype=np.float32)
    counts = confusion(labels, probabilities.argmax(axis=1), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    metrics = summarize(labels, probabilities, counts)
    assert metrics["test_accuracy"] == 0.75
    assert metrics["test_loss"] == pytest.approx(-np.log([0.7, 0.1, 0.5, 1.0]).mean(), abs=1e-6)
    assert metrics["test_macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    first = per_class_table(counts, ["a", "b", "c"])[0]
    assert (first["precision"], first["recall"], first["most often taken for"]) == (1.0, 0.5, "b")


def test_the_calibration_error_is_that_of_the_definition() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.35, 0.65]])
    # One bin holds three images of confidence 0.9, two of them right; another holds one of 0.65, which is right.
    assert calibration_error(labels, probabilities) == pytest.approx((3 * abs(0.9 - 2 / 3) + abs(0.65 - 1)) / 4)
    assert calibration_error(np.array([0]), np.array([[1.0, 0.0]])) == 0


def test_predictions_survive_being_written(tmp_path: Path) -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(10), 50).astype(np.float32)
    probabilities[0] = [0.50001, 0.49999] + [0] * 8  # equal as float16
    for name in ("one.npz", "other.npz"):
        write_predictions(tmp_path / name, np.arange(50) % 10, probabilities)
    read = read_predictions(tmp_path / "one.npz")
    assert read.labels.tolist() == (np.arange(50) % 10).tolist()
    assert read.predicted.tolist() == probabilities.argmax(axis=1).tolist()
    assert read.probabilities == pytest.approx(probabilities, abs=5e-4)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()
    for damaged in (b"", b"PK", (tmp_path / "one.npz").read_bytes()[:-100]):
        (tmp_path / "one.npz").write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged"):
            read_predictions(tmp_path / "one.npz")


def test_predictions_of_a_class_that_does_not_exist_are_refused(tmp_path: Path) -> None:
    write_predictions(tmp_path / "test.npz", np.arange(50) % 11, np.zeros((50, 10), np.float32))
    with pytest.raises(UserError, match="is damaged"):
        read_predictions(tmp_path / "test.npz")


def test_an_array_that_holds_more_than_its_header_says_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "test.npz"
    write_predictions(file, np.arange(50) % 10, np.zeros((50, 10), np.float32))
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content.replace(b"(50, 10)", b"(50, 1) "))
    with pytest.raises(UserError, match="is damaged"):
        read_predictions(file)


def test_multiply_adds_are_counted_as_two_operations(tiny: Compose) -> None:
    operations = prediction_costs(build(tiny("model=mlp")), np.zeros((2, 28, 28), np.uint8))["system/flops_per_image"]
    assert 2 * (784 * 128 + 128 * 10) <= operations <= 2.1 * (784 * 128 + 128 * 10)


def test_the_loss_is_the_one_that_keras_computes(tiny: Compose) -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(10), 200).astype(np.float32)
    labels = random.integers(0, 10, 200).astype(np.uint8)
    expected = keras.losses.sparse_categorical_crossentropy(labels, probabilities)
    counts = confusion(labels, probabilities.argmax(axis=1), 10)
    assert summarize(labels, probabilities, counts)["test_loss"] == pytest.approx(
        np.mean(np.asarray(expected)), rel=1e-5
    )
