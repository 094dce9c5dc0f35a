"""The prepared dataset: checked whenever it is read, and split the same way every time."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fashion_mnist.data.dataset import (
    CARD,
    PARTS,
    SAMPLES,
    Card,
    images_at_once,
    intact_card,
    load_part,
    read_card,
    read_dataset,
    stratified,
)
from fashion_mnist.errors import UserError

TRAIN, TEST = 600, 100  # as in conftest.TINY


@pytest.fixture(scope="module")
def prepared(tiny_data: Path) -> Path:
    """A folder of drawn garments; for reading only."""
    return tiny_data / "synthetic"


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return shutil.copytree(prepared, tmp_path / "synthetic")


@st.composite
def balanced_labels_and_counts(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Labels as in our datasets, where class sizes differ by at most one, and how many of them to choose."""
    size, classes = draw(st.integers(1, 200)), draw(st.integers(1, 10))
    labels = np.random.default_rng(draw(st.integers(0, 9))).permutation(np.arange(size) % classes)
    return labels.astype(np.uint8), draw(st.integers(0, size))


@st.composite
def any_labels_and_counts(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    """Any labels at all, and how many of them to choose."""
    labels = draw(npst.arrays(np.uint8, st.integers(1, 100), elements=st.integers(0, 9), fill=st.nothing()))
    return labels, draw(st.integers(0, len(labels)))


def farthest_from_proportional(labels: np.ndarray, count: int) -> float:
    """By how many examples the most unlucky class misses its share."""
    chosen = np.bincount(labels[stratified(labels, count)], minlength=10)
    return np.abs(chosen - count * np.bincount(labels, minlength=10) / len(labels)).max()


@given(any_labels_and_counts())
def test_stratified_chooses_exactly_as_many_as_asked_for(case: tuple[np.ndarray, int]) -> None:
    labels, count = case
    mask = stratified(labels, count)
    assert (mask.dtype, mask.shape, mask.sum()) == (np.dtype(bool), labels.shape, count)


@given(any_labels_and_counts())
def test_stratified_always_chooses_the_same(case: tuple[np.ndarray, int]) -> None:
    labels, count = case
    assert np.array_equal(stratified(labels, count), stratified(labels.copy(), count))


@given(balanced_labels_and_counts())
def test_stratified_gives_each_class_its_share(case: tuple[np.ndarray, int]) -> None:
    assert farthest_from_proportional(*case) <= 1


def test_stratified_gives_each_class_its_share_when_one_class_is_much_larger() -> None:
    labels = np.array([0] * 100 + list(range(1, 10)), dtype=np.uint8)
    assert farthest_from_proportional(labels, 50) <= 1


def test_stratified_does_not_just_take_the_first_ones() -> None:
    labels = np.arange(1000, dtype=np.uint8) % 10
    assert not stratified(labels, 100)[:100].all()


def test_the_two_parts_have_the_sizes_asked_for(prepared: Path) -> None:
    training, validation = read_dataset(prepared, 100).parts
    assert (training.images.shape, training.labels.shape) == ((TRAIN - 100, 28, 28), (TRAIN - 100,))
    assert (validation.images.shape, validation.labels.shape) == ((100, 28, 28), (100,))
    assert {part.dtype for part in (*training, *validation)} == {np.dtype(np.uint8)}


def test_validation_holds_every_class_in_proportion(prepared: Path) -> None:
    _, validation = read_dataset(prepared, 100).parts
    assert np.bincount(validation.labels).tolist() == [10] * 10


def test_no_image_is_in_both_parts_and_none_is_lost(prepared: Path) -> None:
    card = read_card(prepared)
    training, validation = read_dataset(prepared, 100).parts
    mine, kept = ({image.tobytes() for image in part.images} for part in (training, validation))
    everything = {image.tobytes() for image in load_part(prepared, card, "train_images")}
    assert len(everything) == TRAIN  # no two garments are drawn alike, so bytes tell them apart
    assert not mine & kept
    assert mine | kept == everything


def test_images_keep_their_labels(prepared: Path) -> None:
    card = read_card(prepared)
    images, labels = load_part(prepared, card, "train_images"), load_part(prepared, card, "train_labels")
    label_of = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for part in read_dataset(prepared, 100).parts:
        assert [label_of[image.tobytes()] for image in part.images] == part.labels.tolist()


def test_the_parts_are_the_same_every_time(prepared: Path) -> None:
    first, second = (read_dataset(prepared, 100).parts for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.images, other.images)
        assert np.array_equal(one.labels, other.labels)


def test_without_validation_all_images_are_for_training(prepared: Path) -> None:
    training, validation = read_dataset(prepared, 0).parts
    assert (len(training.images), len(training.labels)) == (TRAIN, TRAIN)
    assert (validation.images.shape, validation.labels.shape) == ((0, 28, 28), (0,))


def test_without_validation_the_images_stay_on_the_disk(prepared: Path) -> None:
    training, _ = read_dataset(prepared, 0).parts
    assert isinstance(training.images, np.memmap)
    assert not training.images.flags.writeable


def test_a_single_image_may_be_left_to_learn_from(prepared: Path) -> None:
    training, validation = read_dataset(prepared, TRAIN - 1).parts
    assert (len(training.images), len(validation.images)) == (1, TRAIN - 1)


@pytest.mark.parametrize("validation", [TRAIN, TRAIN + 1, 59_999])
def test_a_validation_split_that_leaves_nothing_is_refused(validation: int, prepared: Path) -> None:
    with pytest.raises(UserError, match=f"data.validation={validation} leaves nothing of the {TRAIN}"):
        _ = read_dataset(prepared, validation).parts


def test_the_test_set_comes_whole(prepared: Path) -> None:
    images, labels = read_dataset(prepared).test
    assert (images.shape, labels.shape) == ((TEST, 28, 28), (TEST,))


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("position", [0, 64, -1])
def test_a_file_that_was_changed_after_fetch_is_named(position: int, part: str, folder: Path) -> None:
    file = folder / f"{part}.npy"
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"{part}\.npy was changed after fetch; .*fashion_mnist\.fetch"):
        read_dataset(folder, 100).parts if "train" in part else read_dataset(folder).test


@pytest.mark.parametrize("part", PARTS)
def test_a_file_that_is_gone_is_named(part: str, folder: Path) -> None:
    (folder / f"{part}.npy").unlink()
    with pytest.raises(UserError, match=rf"{part}\.npy cannot be read; .*fashion_mnist\.fetch"):
        load_part(folder, read_card(folder), part)


def test_training_does_not_read_the_test_set(folder: Path) -> None:
    for part in ("test_images", "test_labels"):
        (folder / f"{part}.npy").unlink()
    assert len(read_dataset(folder, 100).parts[0].labels) == 500


def test_a_folder_without_a_card_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no dataset in .*fashion_mnist\.fetch data=\.\.\. prepares it"):
        read_card(tmp_path)
    with pytest.raises(UserError, match=r"there is no dataset in .*fashion_mnist\.fetch prepares it"):
        read_card(tmp_path / "fashion_mnist")


@given(st.integers(1, 2048), st.integers(1, 2048))
def test_no_more_large_images_are_asked_about_at_once_than_memory_holds(height: int, width: int) -> None:
    at_once = images_at_once((height, width))
    assert 1 <= at_once <= images_at_once((28, 28)) == 1000
    assert at_once == 1 or at_once * height * width <= 1000 * 28 * 28


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b'{"class_names": null}', b'{"class_names": [], "name": "x"}', b"\xff\xfe\x00"],
    ids=str,
)
def test_a_damaged_card_is_named(content: bytes, folder: Path) -> None:
    (folder / CARD).write_bytes(content)
    with pytest.raises(UserError, match=rf"{CARD} is damaged; delete .*"):
        read_card(folder)
    assert not intact_card(folder)


@pytest.mark.parametrize("files", [None, [], {}, {"train_images.npy": None}, {"train_images.npy": "digest"}], ids=str)
def test_a_card_without_digests_is_no_proof(files: object, folder: Path) -> None:
    content = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**content, "files": files}))
    assert not intact_card(folder)


def test_intact_is_what_was_prepared(prepared: Path) -> None:
    assert intact_card(prepared)


def test_the_digest_of_the_dataset_changes_with_each_file(prepared: Path) -> None:
    card = read_card(prepared)
    others = {
        Card(**{**vars(card), "files": {**card.files, f"{part}.npy": {"sha256": "0" * 64}}}).digest for part in PARTS
    }
    assert len({card.digest, *others}) == 5
    assert all(len(digest) == 16 for digest in others)


def test_the_digest_of_the_dataset_is_about_its_arrays_alone(prepared: Path, folder: Path) -> None:
    (folder / SAMPLES).unlink()
    content = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**content, "source": "elsewhere"}))
    assert read_card(folder).digest == read_card(prepared).digest
