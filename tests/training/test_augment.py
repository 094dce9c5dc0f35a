"""Augmentation: what each layer may change in an image, and when."""

import itertools
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from fashion_mnist.cli import compose
from fashion_mnist.errors import UserError
from fashion_mnist.training.augment import Augmentation, Cutout, Flip, RandomErasing, Shift, check_reach, layers_of

Kind = Callable[[], Augmentation]
KINDS = {
    "flip": Flip,
    "shift": lambda: Shift(2),
    "erasing": lambda: RandomErasing(0.5),
    "cutout": lambda: Cutout(8),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@pytest.fixture(autouse=True)
def seed() -> None:
    """Layers take the first state of their generators from here."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Noise without black, so that what enters from outside shows; no image is its own mirror."""
    return np.random.default_rng(0).integers(1, 256, (400, 28, 28)).astype(np.uint8)


def changed(layer: Augmentation, images: np.ndarray) -> np.ndarray:
    return np.asarray(layer(images, training=True))


def stretch(places: np.ndarray) -> tuple[int, int]:
    """Where a row of trues without gaps starts and stops."""
    (where,) = np.nonzero(places)
    assert len(where) == where[-1] - where[0] + 1
    return int(where[0]), int(where[-1]) + 1


@every_kind
def test_shape_and_type_stay(kind: Kind, images: np.ndarray) -> None:
    result = changed(kind(), images)
    assert (result.shape, result.dtype) == (images.shape, np.uint8)
    assert not np.array_equal(result, images)


@every_kind
def test_nothing_changes_outside_training(kind: Kind, images: np.ndarray) -> None:
    layer = kind()
    assert np.array_equal(layer(images, training=False), images)
    assert np.array_equal(layer(images), images)


@every_kind
def test_each_image_draws_its_own(kind: Kind, images: np.ndarray) -> None:
    copies = np.repeat(images[:1], 50, axis=0)
    assert len({result.tobytes() for result in changed(kind(), copies)}) > 1


@every_kind
def test_each_call_draws_afresh(kind: Kind, images: np.ndarray) -> None:
    layer = kind()
    assert not np.array_equal(changed(layer, images), changed(layer, images))


@every_kind
def test_the_same_state_of_the_generator_gives_the_same_result(kind: Kind, images: np.ndarray) -> None:
    layer, other = kind(), kind()
    other.seed_generator.state.assign(layer.seed_generator.state)
    assert np.array_equal(changed(layer, images), changed(other, images))


@every_kind
def test_xla_makes_the_same_of_the_same_random_numbers(
    kind: Kind, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    # XLA draws other numbers from the same state of a generator, at least on a CPU.
    layer = kind()

    def draw(shape: tuple[tf.Tensor | int, ...], low: float, high: float) -> tf.Tensor:
        exact = np.random.default_rng(next(calls)).uniform(low, high, (len(images), *shape[1:]))
        return tf.constant(exact, tf.float32)

    monkeypatch.setattr(layer, "draw", draw)
    calls = itertools.count()
    without = changed(layer, images)
    calls = itertools.count()
    assert np.array_equal(tf.function(layer, jit_compile=True)(tf.constant(images), training=True), without)
    assert not np.array_equal(without, images)


@every_kind
def test_xla_draws_afresh_for_each_call(kind: Kind, images: np.ndarray) -> None:
    with_xla = tf.function(kind(), jit_compile=True)
    first, second = (with_xla(tf.constant(images), training=True) for _ in range(2))
    assert not np.array_equal(first, second)


@every_kind
def test_the_precision_of_the_model_changes_nothing(kind: Kind, images: np.ndarray) -> None:
    exact = changed(kind(), images)
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert np.array_equal(changed(kind(), images), exact)
    finally:
        keras.config.set_dtype_policy("float32")


@every_kind
def test_one_image_or_none_is_no_special_case(kind: Kind, images: np.ndarray) -> None:
    assert changed(kind(), images[:1]).shape == (1, 28, 28)
    assert changed(kind(), images[:0]).shape == (0, 28, 28)


def test_a_flip_mirrors_about_half_of_the_images_and_leaves_the_others(images: np.ndarray) -> None:
    result = changed(Flip(), images)
    mirrored = (result == images[:, :, ::-1]).all(axis=(1, 2))
    same = (result == images).all(axis=(1, 2))
    assert (mirrored ^ same).all()
    assert 0.4 < mirrored.mean() < 0.6


@pytest.mark.parametrize("pixels", [1, 3])
def test_a_shift_moves_by_any_offset_in_range_and_black_enters(pixels: int, images: np.ndarray) -> None:
    result = changed(Shift(pixels), images)
    padded = np.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels)))
    offsets = [(down, right) for down in range(2 * pixels + 1) for right in range(2 * pixels + 1)]
    moved = [padded[:, down : down + 28, right : right + 28] for down, right in offsets]
    matches = np.array([(result == candidate).all(axis=(1, 2)) for candidate in moved])
    assert (matches.sum(axis=0) == 1).all()
    assert matches.any(axis=1).all()


@pytest.mark.parametrize("side", [1, 8, 9])
def test_cutout_blackens_a_square_around_a_pixel_of_the_image(side: int, images: np.ndarray) -> None:
    result = changed(Cutout(side), images)
    starts = [centre - side // 2 for centre in range(28)]
    possible = {(max(start, 0), min(start + side, 28)) for start in starts}
    seen = set()
    for before, after in zip(images, result, strict=True):
        rows, columns = stretch((after == 0).any(axis=1)), stretch((after == 0).any(axis=0))
        expected = before.copy()
        expected[slice(*rows), slice(*columns)] = 0
        assert np.array_equal(after, expected)
        seen.add((rows, columns))
    assert {rows for rows, _ in seen} == {columns for _, columns in seen} == possible
    assert len(seen) > 10 * len(possible)  # rows and columns have nothing to do with each other


def test_cutout_of_twice_the_side_leaves_nothing(images: np.ndarray) -> None:
    assert not changed(Cutout(56), images).any()


def rectangles(layer: RandomErasing, count: int) -> np.ndarray:
    """Which pixels are erased, bool (count, 28, 28): those that come out the same from black as from white."""
    state = layer.seed_generator.state.numpy()
    black = changed(layer, np.zeros((count, 28, 28), np.uint8))
    layer.seed_generator.state.assign(state)
    return black == changed(layer, np.full((count, 28, 28), 255, np.uint8))


def test_erasing_fills_one_rectangle_of_two_to_forty_percent() -> None:
    areas, places = [], set()
    for erased in rectangles(RandomErasing(1), 2000):
        (top, bottom), (left, right) = stretch(erased.any(axis=1)), stretch(erased.any(axis=0))
        assert erased[top:bottom, left:right].all()
        tall, wide = bottom - top, right - left
        # Each side is rounded to pixels, and cut to the image.
        assert (tall + 0.5) * (wide + 0.5) > 0.02 * 784
        assert (tall - 0.5) * (wide - 0.5) < 0.4 * 784
        assert (tall + 0.5) / (wide - 0.5) > 0.3
        assert (tall - 0.5) / (wide + 0.5) < 1 / 0.3
        areas.append(tall * wide / 784)
        places |= {("down", top, bottom), ("across", left, right)}
    assert 0.18 < np.mean(areas) < 0.22
    assert min(areas) < 0.03
    assert max(areas) > 0.37
    for axis in ("down", "across"):  # up to both edges
        assert places >= {(axis, 0, 20), (axis, 8, 28)}


def test_erasing_leaves_the_other_pixels_alone(images: np.ndarray) -> None:
    layer = RandomErasing(1)
    state = layer.seed_generator.state.numpy()
    erased = rectangles(layer, len(images))
    layer.seed_generator.state.assign(state)
    assert np.array_equal(changed(layer, images)[~erased], images[~erased])


def test_erasing_fills_with_noise_of_every_brightness() -> None:
    black = np.zeros((400, 28, 28), np.uint8)
    noise = changed(RandomErasing(1), black)
    assert np.bincount(noise[noise > 0], minlength=256)[1:].min() > 0
    assert 126 < noise[noise > 0].mean() < 130


@pytest.mark.parametrize("probability", [0, 0.25, 1])
def test_erasing_happens_as_often_as_its_probability_says(probability: float) -> None:
    erased = rectangles(RandomErasing(probability), 2000).any(axis=(1, 2))
    assert erased.mean() == pytest.approx(probability, abs=0.03 if 0 < probability < 1 else 0)


def test_no_augmentation_has_no_layers() -> None:
    assert layers_of(compose(["augment=none"]).augment) == []
    assert compose([]).augment == compose(["augment=none"]).augment


def test_standard_augmentation_flips_shifts_and_erases() -> None:
    flip, shift, erasing = layers_of(compose(["augment=standard"]).augment)
    assert isinstance(flip, Flip)
    assert isinstance(shift, Shift)
    assert shift.pixels == 2
    assert isinstance(erasing, RandomErasing)
    assert erasing.probability == 0.25


def test_each_key_asks_for_its_layer_and_cutout_comes_last() -> None:
    keys = {"augment.flip=true": Flip, "augment.shift=3": Shift, "augment.erasing=1": RandomErasing}
    keys["augment.cutout=8"] = Cutout
    for key, kind in keys.items():
        assert [type(layer) for layer in layers_of(compose([key]).augment)] == [kind]
    assert [type(layer) for layer in layers_of(compose(list(keys)).augment)] == list(keys.values())


@pytest.mark.parametrize(("key", "limit"), [("shift", 28), ("cutout", 56)])
def test_what_leaves_nothing_of_an_image_is_refused_by_the_images_own_size(key: str, limit: int) -> None:
    check_reach(compose([f"augment.{key}={limit - 1}"]).augment, (28, 28))
    reaching = compose([f"augment.{key}={limit}"]).augment
    check_reach(reaching, (224, 224, 3))
    with pytest.raises(UserError, match=f"augment.{key}={limit} leaves nothing of 28 x 28 pixels"):
        check_reach(reaching, (28, 28))
