"""The official files: decoded as published, and every impostor refused by its name."""

import gzip
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import needs_real_data
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from fashion_mnist.config import DataConfig
from fashion_mnist.data import official
from fashion_mnist.data.dataset import Arrays
from fashion_mnist.data.official import (
    DIGIT_MNIST,
    DIGIT_MNIST_FIRST_LABELS,
    DUPLICATED,
    LEAKED,
    OFFICIAL,
    official_arrays,
    read_idx,
)
from fashion_mnist.errors import SourceUnavailableError, UserError

REAL = Path(os.environ.get("FASHION_MNIST_DIR", "/nowhere"))
NAMES = {part: name for part, (name, _, _) in OFFICIAL.items()}

Impostor = Callable[..., Path]


def idx(array: np.ndarray, level: int = 1) -> bytes:
    """An array as a gzipped IDX file of unsigned bytes."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return gzip.compress(header + array.tobytes(), level, mtime=0)


def read(folder: Path) -> Arrays:
    return official_arrays(DataConfig(source="fashion_mnist", validation=5000, dir=str(folder)))


@pytest.fixture(scope="module")
def real() -> Arrays:
    return read(REAL)


@pytest.fixture
def impostor(tmp_path: Path) -> Impostor:
    """Makes a folder with the real files, some of them replaced by other contents."""

    def make(**contents: bytes) -> Path:
        for part, name in NAMES.items():
            if part in contents:
                (tmp_path / name).write_bytes(contents[part])
            else:
                (tmp_path / name).symlink_to(REAL / name)
        return tmp_path

    return make


@needs_real_data
def test_real_files_decode_to_the_published_shapes(real: Arrays) -> None:
    assert {part: array.shape for part, array in real.items()} == {
        "train_images": (60_000, 28, 28),
        "train_labels": (60_000,),
        "test_images": (10_000, 28, 28),
        "test_labels": (10_000,),
    }
    assert {array.dtype for array in real.values()} == {np.dtype(np.uint8)}


@needs_real_data
def test_every_class_has_as_many_real_images_as_any_other(real: Arrays) -> None:
    assert np.bincount(real["train_labels"]).tolist() == [6000] * 10
    assert np.bincount(real["test_labels"]).tolist() == [1000] * 10


@needs_real_data
def test_real_images_hold_none_of_the_pairs_that_once_leaked(real: Arrays) -> None:
    assert not any(np.array_equal(real["train_images"][train], real["test_images"][test]) for train, test in LEAKED)


@needs_real_data
@pytest.mark.parametrize("part", OFFICIAL)
def test_a_missing_file_is_named(part: str, impostor: Impostor) -> None:
    folder = impostor()
    (folder / NAMES[part]).unlink()
    with pytest.raises(UserError, match=NAMES[part]) as caught:
        read(folder)
    # data=auto must not fall back when somebody pointed at a folder.
    assert not isinstance(caught.value, SourceUnavailableError)
    assert not any(name in str(caught.value) for name in NAMES.values() if name != NAMES[part])


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="elsewhere"):
        read(tmp_path / "elsewhere")


@needs_real_data
@pytest.mark.parametrize("kept", [0, 5, 10, 15_000, -9, -1])
def test_a_truncated_file_is_called_damaged(kept: int, impostor: Impostor) -> None:
    content = (REAL / NAMES["train_labels"]).read_bytes()
    with pytest.raises(UserError, match=f"{NAMES['train_labels']} is damaged"):
        read(impostor(train_labels=content[:kept]))


@needs_real_data
@pytest.mark.parametrize("position", [0, 2, 3, 4, 9, 40, 1000, 14_000, 29_000, -8, -5, -4, -1])
def test_one_flipped_byte_is_refused(position: int, impostor: Impostor) -> None:
    content = bytearray((REAL / NAMES["train_labels"]).read_bytes())
    content[position] ^= 0xFF
    with pytest.raises(UserError, match=rf"{NAMES['train_labels']}.* (is damaged|the digest differs)"):
        read(impostor(train_labels=bytes(content)))


@needs_real_data
def test_one_flipped_byte_in_the_middle_of_the_images_is_refused(impostor: Impostor) -> None:
    content = bytearray((REAL / NAMES["train_images"]).read_bytes())
    content[len(content) // 2] ^= 1
    with pytest.raises(UserError, match=f"{NAMES['train_images']} is damaged"):
        read(impostor(train_images=bytes(content)))


@pytest.mark.parametrize("part", DIGIT_MNIST_FIRST_LABELS)
def test_digit_mnist_is_known_by_its_labels(part: str, tmp_path: Path) -> None:
    """All four files are there under their usual names, as in yann.lecun.com/exdb/mnist."""
    for other, (name, _, shape) in OFFICIAL.items():
        array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        if other == part:
            array[:12] = np.frombuffer(DIGIT_MNIST_FIRST_LABELS[part], dtype=np.uint8)
        (tmp_path / name).write_bytes(idx(array))
    with pytest.raises(UserError, match="digit MNIST, not Fashion-MNIST"):
        read(tmp_path)


@needs_real_data
@pytest.mark.parametrize("part", ["train_images", "test_images"])
def test_digit_mnist_is_known_by_the_digest_of_its_images(
    part: str, impostor: Impostor, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = idx(np.zeros(OFFICIAL[part][2], dtype=np.uint8))
    monkeypatch.setattr(official, "DIGIT_MNIST", DIGIT_MNIST | {official.hashlib.md5(content).hexdigest()})
    with pytest.raises(UserError, match=rf"{NAMES[part]} in .* is digit MNIST"):
        read(impostor(**{part: content}))


@needs_real_data
@pytest.mark.parametrize("part", DUPLICATED)
def test_images_that_stood_twice_before_august_2017_betray_the_old_file(
    part: str, real: Arrays, impostor: Impostor
) -> None:
    images = real[part].copy()
    for first, second in DUPLICATED[part]:
        images[second] = images[first]
    with pytest.raises(UserError, match=rf"{NAMES[part]} in .* is from before 31 August 2017"):
        read(impostor(**{part: idx(images, level=0)}))


@needs_real_data
def test_training_images_in_the_test_set_betray_the_old_files(real: Arrays, impostor: Impostor) -> None:
    train, test = real["train_images"].copy(), real["test_images"].copy()
    for first, second in LEAKED:
        train[first] = test[second]
    test[0, 0, 0] ^= 1  # the old test file differed as well
    with pytest.raises(UserError, match="from before 31 August 2017, when test images leaked"):
        read(impostor(train_images=idx(train, level=0), test_images=idx(test, level=0)))


@needs_real_data
def test_the_same_content_compressed_again_is_not_the_official_file(real: Arrays, impostor: Impostor) -> None:
    with pytest.raises(UserError, match=rf"{NAMES['test_labels']} in .* is not the official Fashion-MNIST"):
        read(impostor(test_labels=idx(real["test_labels"])))


@needs_real_data
def test_several_strangers_are_all_named(real: Arrays, impostor: Impostor) -> None:
    with pytest.raises(UserError, match=f"{NAMES['train_labels']}, {NAMES['test_labels']} in .* are not"):
        read(impostor(train_labels=idx(real["train_labels"]), test_labels=idx(real["test_labels"])))


@needs_real_data
def test_the_cache_of_keras_is_found_without_any_network(
    real: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "datasets" / "fashion-mnist"
    cache.mkdir(parents=True)
    for name in NAMES.values():
        (cache / name).symlink_to(REAL / name)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    arrays = official_arrays(DataConfig(source="fashion_mnist", validation=5000, mirrors=[]))  # nobody to ask
    assert all(np.array_equal(arrays[part], real[part]) for part in OFFICIAL)


SMALL = npst.arrays(np.uint8, npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=8))


@given(SMALL)
def test_every_array_survives_the_round_trip(array: np.ndarray) -> None:
    decoded = read_idx(idx(array), array.shape)
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, array)


@st.composite
def mutations(draw: st.DrawFn) -> tuple[np.ndarray, bytes]:
    """A small array, and its file after a few bytes were changed, cut out or put in."""
    array = draw(SMALL)
    content = bytearray(idx(array))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        stop = min(len(content), start + draw(st.integers(0, 4)))
        content[start:stop] = draw(st.binary(max_size=4))
    return array, bytes(content)


@given(mutations())
def test_a_changed_file_gives_the_same_array_or_a_value_error(mutation: tuple[np.ndarray, bytes]) -> None:
    array, content = mutation
    try:
        decoded = read_idx(content, array.shape)
    except ValueError:
        return
    assert np.array_equal(decoded, array)


@given(SMALL, st.binary(max_size=30), st.integers(0, 30))
def test_a_changed_idx_in_an_intact_gzip_keeps_its_shape_or_is_a_value_error(
    array: np.ndarray, change: bytes, start: int
) -> None:
    content = bytearray(gzip.decompress(idx(array)))
    content[start : start + len(change)] = change
    try:
        decoded = read_idx(gzip.compress(content, 1), array.shape)
    except ValueError:
        return
    assert decoded.shape == array.shape


@pytest.mark.parametrize("extra", [-1, 1], ids=["one too few", "one too many"])
def test_a_file_with_other_than_the_announced_number_of_bytes_is_refused(extra: int) -> None:
    content = bytes([0, 0, 8, 1, 0, 0, 0, 5]) + bytes(5 + extra)
    with pytest.raises(ValueError, match="exactly 5 bytes"):
        read_idx(gzip.compress(content), (5,))


def test_a_header_that_claims_a_billion_images_allocates_nothing() -> None:
    header = bytes([0, 0, 8, 3]) + np.array([1_000_000_000, 28, 28], dtype=">u4").tobytes()
    content = gzip.compress(header + bytes(1000))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="does not announce"):
            read_idx(content, OFFICIAL["train_images"][2])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000


def test_zeros_without_end_are_not_unpacked() -> None:
    content = gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 5]) + bytes(50_000_000), 1)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="exactly 5 bytes"):
            read_idx(content, (5,))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
