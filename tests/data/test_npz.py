"""Arrays in an .npz file become a dataset; what is no images, or no labels of them, is refused in a sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import assert_one_sentence, run_here

from fashion_mnist.config import DataConfig
from fashion_mnist.data.dataset import Dataset
from fashion_mnist.data.prepare import prepare
from fashion_mnist.errors import UserError

RNG = np.random.default_rng(0)
GOOD = {
    "x_train": RNG.integers(0, 256, (60, 8, 8), np.uint8),
    "y_train": np.arange(60, dtype=np.uint8) % 3,
    "x_test": RNG.integers(0, 256, (30, 8, 8), np.uint8),
    "y_test": np.arange(30, dtype=np.uint8) % 3,
}


def prepared(folder: Path, changed: dict[str, Any], **settings: Any) -> Dataset:
    file = folder / "mine.npz"
    arrays = {key: value for key, value in {**GOOD, **changed}.items() if value is not None}
    np.savez(file, allow_pickle=True, **arrays)
    return prepare(DataConfig("npz", 0, file=str(file), **settings), folder / "data")


def test_arrays_are_taken_as_they_are(tmp_path: Path) -> None:
    dataset = prepared(tmp_path, {})
    assert (dataset.training.images == GOOD["x_train"]).all()
    assert (dataset.test.labels == GOOD["y_test"]).all()
    assert dataset.card.class_names == ("0", "1", "2")
    assert dataset.card.name == "mine"


def test_classes_are_named_by_the_file_or_by_the_key(tmp_path: Path) -> None:
    assert prepared(tmp_path, {"class_names": np.array(["a", "b", "é"])}).card.class_names == ("a", "b", "é")
    assert prepared(tmp_path, {"class_names": np.array([b"a", b"b", b"c"])}).card.class_names == ("a", "b", "c")
    assert prepared(tmp_path, {}, class_names=["x", "y", "z"]).card.class_names == ("x", "y", "z")


SAME: list[tuple[str, Callable[[np.ndarray], np.ndarray]]] = [
    ("with a channel", lambda images: images[..., None]),
    ("as whole numbers of eight bytes", lambda images: images.astype(np.int64)),
    ("as floats", lambda images: images.astype(np.float64)),
    ("from 0 to 1", lambda images: (images / 255).astype(np.float32)),
]


@pytest.mark.parametrize(("how", "change"), SAME, ids=[how for how, _ in SAME])
def test_the_same_pixels_may_be_written_in_several_ways(
    how: str, change: Callable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = {key: change(GOOD[key]) for key in ("x_train", "x_test")}
    dataset = prepared(tmp_path, {**images, "y_train": GOOD["y_train"][:, None].astype(np.int64)})
    assert (dataset.training.images == GOOD["x_train"]).all()
    assert ("multiplied by 255" in capsys.readouterr().err) == (how == "from 0 to 1")


def test_colours_are_kept(tmp_path: Path) -> None:
    coloured = {key: np.stack([GOOD[key]] * 3, axis=-1) for key in ("x_train", "x_test")}
    assert prepared(tmp_path, coloured).card.image_shape == (8, 8, 3)


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("it was unpickled",)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"x_test": None}, "lacks x_test; it holds x_train"),
    ({"x_train": np.array([Payload()], object)}, "pickled objects, which could run anything"),
    ({"class_names": np.array(["a", "b", "c"], object)}, "pickled objects"),
    ({"x_train": GOOD["x_train"].reshape(60, 64)}, "x_train in .* must be .n, height, width."),
    ({"x_train": GOOD["x_train"].reshape(60, 4, 16)}, "images of different shapes"),
    ({"x_train": np.stack([GOOD["x_train"]] * 4, axis=-1)}, "must be .n, height, width."),
    ({"x_train": GOOD["x_train"] - 128.0}, "from -128 to 127"),
    ({"x_train": GOOD["x_train"] / 10}, "need whole ones from 0 to 255, or 0 to 1"),
    ({"x_train": np.full((60, 8, 8), np.nan)}, "has numbers from nan"),
    ({"x_train": np.zeros((60, 8, 8), np.uint8)}, "has numbers from 0 to 0|all but black"),
    ({"x_train": np.minimum(GOOD["x_train"], 5)}, "all but black"),
    ({"x_train": GOOD["x_train"].astype(str)}, "must hold numbers"),
    ({"x_train": GOOD["x_train"][:0], "y_train": GOOD["y_train"][:0]}, "must hold numbers"),
    ({"y_train": GOOD["y_train"] + 1, "y_test": GOOD["y_test"] + 1}, "without a gap; they are 1 to 3, 3 different"),
    ({"y_train": GOOD["y_train"] * 2, "y_test": GOOD["y_test"] * 2}, "0 to 4, 3 different"),
    ({"y_train": GOOD["y_train"] * 0, "y_test": GOOD["y_test"] * 0}, "this one has 1"),
    ({"y_test": GOOD["y_test"] * 0}, "the class '1' has no test images"),
    ({"y_train": np.eye(3)[GOOD["y_train"]]}, "a whole number for each of 60 images"),
    ({"y_train": GOOD["y_train"][:-1]}, "a whole number for each of 60 images"),
    ({"class_names": np.array(["a", "b"])}, "for the 2 names of its classes"),
    ({"class_names": np.array(["a", "a", "b"])}, "two classes have the same name: 'a'"),
    ({"class_names": np.array(["a", "", "b"])}, "'' cannot name a class"),
    ({"class_names": np.array(["a", "b\nc", "d"])}, "cannot name a class"),
    ({"x_train": np.tile(GOOD["x_train"], (20, 1, 1)) + np.arange(1200)[:, None, None] // 1199 / 2}, "whole ones"),
]


@pytest.mark.parametrize(("changed", "words"), BAD)
def test_what_is_no_dataset_is_refused_and_leaves_nothing(changed: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words) as caught:
        prepared(tmp_path, changed)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "data").glob("*"))


def test_damage_of_any_kind_is_one_sentence(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "mine.npz", **GOOD)
    whole, rng = (tmp_path / "mine.npz").read_bytes(), np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            damaged[place] = rng.integers(0, 256)
        (tmp_path / "mine.npz").write_bytes(damaged)
        try:
            prepare(DataConfig("npz", 0, file=str(tmp_path / "mine.npz")), tmp_path / "data")
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY", b"not an archive"])
def test_what_is_no_archive_is_refused(content: bytes, empty_folder: Path) -> None:
    Path("mine.npz").write_bytes(content)
    assert_one_sentence(run_here("data=npz", "data.file=mine.npz"), "mine.npz", "cannot be read")


def test_a_file_must_be_named(empty_folder: Path) -> None:
    assert_one_sentence(run_here("data=npz"), "data.file=FILE")
    assert_one_sentence(run_here("data=npz", "data.file=nowhere.npz"), "nowhere.npz")
