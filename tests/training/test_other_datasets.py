"""Every variant learns images of other sizes, colours and numbers of classes; classes can be made to weigh the same."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT, assert_one_sentence, run_here

from fashion_mnist.cli import compose
from fashion_mnist.config import Config
from fashion_mnist.data.dataset import Split
from fashion_mnist.errors import UserError
from fashion_mnist.training import saving
from fashion_mnist.training.build import balanced, build
from fashion_mnist.training.fit import fit

Compose = Callable[..., Config]
OF_EACH_KIND = ("mlp_dropout", "cnn_dropout", "resnet")  # with all the layers that their functions know
VARIANTS = [
    file.stem if file.stem in OF_EACH_KIND else pytest.param(file.stem, marks=pytest.mark.slow)
    for file in sorted((ROOT / "conf/model").glob("*.yaml"))
]


def some(shape: tuple[int, ...], classes: int, count: int = 64) -> Split:
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    return Split(
        rng.integers(0, 256, (count, *shape), np.uint8), labels.astype(np.uint8 if classes < 257 else np.uint16)
    )


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("shape", "classes"), [((8, 8), 2), ((32, 32, 3), 300)])
def test_every_variant_takes_other_images_and_classes(
    variant: str, shape: tuple[int, ...], classes: int, tiny: Compose
) -> None:
    config = tiny(f"model={variant}", "trainer.epochs=1", "trainer.batch_size=32", "trainer.precision=float32")
    model = build(config, shape, classes)
    history = fit(model, some(shape, classes), some(shape, classes, 20), config)
    assert np.isfinite(history["loss"]).all()
    answers = np.asarray(model(some(shape, classes, 3).images))
    assert answers.shape == (3, classes)
    assert answers.sum(axis=1) == pytest.approx(np.ones(3), abs=1e-4)


@pytest.mark.parametrize("augment", ["flip", "shift", "erasing", "cutout"])
def test_augmentation_treats_all_colours_of_a_pixel_alike(augment: str) -> None:
    from fashion_mnist.config import AugmentConfig
    from fashion_mnist.training.augment import layers_of

    settings = {
        "flip": False,
        "shift": 0,
        "erasing": 0.0,
        "cutout": 0,
        augment: {"flip": True, "erasing": 1.0}.get(augment, 3),
    }
    (layer,) = layers_of(AugmentConfig(**settings))
    grey = some((12, 9), 2, 40).images
    changed = np.asarray(layer(np.stack([grey] * 3, axis=-1), training=True))
    assert changed.shape == (40, 12, 9, 3)
    assert (changed != np.stack([grey] * 3, axis=-1)).any()
    if augment != "erasing":  # which fills with coloured noise
        assert (changed == changed[..., :1]).all()


def test_images_that_are_too_small_for_a_variant_are_refused(tiny: Compose) -> None:
    with pytest.raises(UserError, match="halve the image 3 times, and 4 x 4 pixels are too few"):
        build(tiny("model=resnet"), (4, 4), 2)


def test_mirroring_follows_the_dataset(tiny: Compose) -> None:
    assert tiny("model=cnn_augmented").augment.flip
    other = tiny("model=cnn_augmented", "data.mirrorable=false").augment
    assert (other.flip, other.test_time_flip) == (False, False)
    assert tiny("model=cnn_augmented", "data.mirrorable=false", "augment.flip=true").augment.flip
    assert compose(["data=tfds", "augment=mirrored"]).augment.flip
    assert not compose(["data=tfds", "data.dataset=emnist/letters", "augment=mirrored"]).augment.flip


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.array([0] * 6 + [1] * 3 + [2], np.uint8)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert balanced(labels) == pytest.approx(expected)


@pytest.mark.parametrize("jit_compile", [True, False])
def test_class_weights_do_what_keras_fit_does_with_them(jit_compile: bool, tiny: Compose) -> None:
    split = some((8, 8), 2, 64)
    split.labels[:56] = 0
    config = tiny(
        "model=linear", "trainer.class_weight=balanced", "trainer.batch_size=64", "trainer.epochs=1",
        "optimizer=sgd", f"trainer.jit_compile={str(jit_compile).lower()}",
    )  # fmt: skip
    model, other = build(config, (8, 8), 2), build(config, (8, 8), 2)
    fit(model, split, some((8, 8), 2, 10), config)
    settings = {key: value for key, value in config.optimizer.items() if key != "_target_"}
    other.compile(keras.optimizers.SGD(**settings), "sparse_categorical_crossentropy")
    weights = dict(enumerate(balanced(split.labels).tolist()))
    other.fit(split.images, split.labels, batch_size=64, shuffle=False, class_weight=weights, verbose=0)  # pyright: ignore
    for one, same in zip(model.get_weights(), other.get_weights(), strict=True):
        assert one == pytest.approx(same, abs=1e-5)


def test_another_class_weight_is_refused(empty_folder: Path) -> None:
    assert_one_sentence(run_here("trainer.class_weight=rare"), "trainer.class_weight must be one of balanced, or null")


@pytest.mark.parametrize("overrides", [["trainer.members=2"], ["augment.test_time_flip=true"], []])
@pytest.mark.parametrize("model", ["cnn", "resnet"])
def test_a_model_of_bfloat16_that_is_loaded_and_saved_again_is_the_same_file(
    model: str, overrides: list[str], tiny: Compose, tmp_path: Path
) -> None:
    files = []
    for number in range(2):
        saving.save(
            build(tiny(f"model={model}", "trainer.precision=bfloat16", *overrides)), tmp_path / f"{number}.keras"
        )
        files.append((tmp_path / f"{number}.keras").read_bytes())
    keras.config.set_dtype_policy("float32")
    saving.save(saving.load(tmp_path / "0.keras"), tmp_path / "again.keras")
    assert files[0] == files[1] == (tmp_path / "again.keras").read_bytes()
