"""A pretrained backbone, frozen first and thawed later; here with random weights, which need no download."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import assert_one_sentence, run_step

from fashion_mnist.cli import compose
from fashion_mnist.config import Config
from fashion_mnist.data.dataset import read_dataset
from fashion_mnist.errors import UserError
from fashion_mnist.training.build import build, optimizer_of
from fashion_mnist.training.fit import fit

Compose = Callable[..., Config]
SMALL = ["model=transfer", "model.weights=random", "model.side=32"]


class Weights(keras.callbacks.Callback):
    """Keeps the weights of two layers as they are after each epoch."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.backbone, self.last = model.layers[-3], model.layers[-1]
        self.seen: list[tuple[list[np.ndarray], list[np.ndarray]]] = []

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        self.seen.append((self.backbone.get_weights(), self.last.get_weights()))


@pytest.fixture(scope="module")
def epochs(tiny_data: Path) -> Weights:
    """Three epochs, the first two of them frozen."""
    trainer = ["trainer.epochs=3", "trainer.frozen_epochs=2", "trainer.batch_size=100"]
    config = compose([*SMALL, "data=synthetic", "data.validation=0", *trainer])
    folder = tiny_data / "synthetic"
    training, validation = read_dataset(folder, 0).parts
    model = build(config)
    weights = Weights(model)
    fit(model, training, validation, config, [weights])
    return weights


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.slow
def test_the_backbone_stays_as_it_is_while_it_is_frozen(epochs: Weights) -> None:
    (backbone_1, last_1), (backbone_2, last_2), _ = epochs.seen
    assert same(backbone_1, backbone_2)
    assert not same(last_1, last_2)


@pytest.mark.slow
def test_the_backbone_learns_once_it_has_thawed(epochs: Weights) -> None:
    _, (backbone_2, last_2), (backbone_3, last_3) = epochs.seen
    assert not same(backbone_2, backbone_3)
    assert not same(last_2, last_3)


@pytest.mark.slow
def test_its_batch_normalisation_keeps_what_it_has_learned(epochs: Weights) -> None:
    parts = epochs.backbone._flatten_layers()
    normalisations = [layer for layer in parts if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(normalisations) > 10
    for layer in normalisations:
        assert all(
            len(np.unique(weights)) == 1 for weights in layer.get_weights()
        )  # all 0 or all 1, as in the beginning


def test_steps_are_smaller_from_the_thaw_on() -> None:
    config = compose([*SMALL, "trainer.frozen_epochs=2", "trainer.fine_tuning=0.01", "optimizer.learning_rate=0.1"])
    optimizer = optimizer_of(config, 500)
    optimizer.build([keras.Variable(0.0)])

    def rate(step: int) -> float:
        optimizer._iterations.assign(step)
        return float(np.asarray(optimizer.learning_rate))

    assert [rate(step) for step in (0, 999, 1000, 2999)] == pytest.approx([0.1, 0.1, 0.001, 0.001])


def test_nothing_can_thaw_in_a_model_that_has_no_frozen_layers(tiny: Compose) -> None:
    config = tiny("trainer.frozen_epochs=1")
    training, validation = read_dataset(Path(config.data_root) / "synthetic", 100).parts
    with pytest.raises(UserError, match="mlp has none"):
        fit(build(config), training, validation, config)


@pytest.mark.slow
def test_weights_that_are_not_there_are_asked_for(empty_folder: Path, tiny_data: Path) -> None:
    proxies = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    data = ["data=synthetic", "data.train_images=600", "data.test_images=100", "data.validation=100"]
    process = run_step("model=transfer", *data, f"data_root={tiny_data}", KERAS_HOME=f"{empty_folder}/keras", **proxies)
    assert_one_sentence(process, "MobileNetV3Small", "model.weights=FILE")


@pytest.mark.slow
def test_weights_come_from_a_file(empty_folder: Path) -> None:
    source = build(compose(SMALL)).layers[-3]
    source.save_weights(empty_folder / "own.weights.h5")
    model = build(compose([*SMALL[:1], SMALL[2], "seed=1", f"model.weights={empty_folder}/own.weights.h5"]))
    assert same(model.layers[-3].get_weights(), source.get_weights())


def test_a_file_that_does_not_exist_is_refused_at_once(empty_folder: Path) -> None:
    assert_one_sentence(run_step("model=transfer", "model.weights=nowhere.h5"), "model.weights", "a file that exists")
