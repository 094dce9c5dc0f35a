"""Datasets that were changed, damaged or made up, and `fetch` in company, or killed: noticed, mended or refused."""

import gzip
import hashlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY, assert_one_sentence, needs_real_data, run_here, run_step

from fashion_mnist.cli import compose
from fashion_mnist.config import DataConfig
from fashion_mnist.data import official
from fashion_mnist.data import prepare as preparation
from fashion_mnist.data.dataset import CARD, CLASS_NAMES, PARTS, Card, intact_card, load_part, read_card, read_dataset
from fashion_mnist.data.official import official_arrays
from fashion_mnist.data.prepare import prepare
from fashion_mnist.errors import SourceUnavailableError, UserError
from fashion_mnist.evaluation.predictions import read_predictions, write_predictions

Survived = Callable[[str, int, int], None]

SMALL = DataConfig(source="synthetic", validation=20, train_images=60, test_images=20)
NOBODY_TO_ASK = DataConfig(source="fashion_mnist", validation=20, mirrors=[])
PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Sign in to this network.</body></html>\n"
FILES = (*(f"{part}.npy" for part in PARTS), CARD)
CHANGES: dict[str, Callable[[Path], object]] = {
    "one byte": lambda file: flip(file, file.stat().st_size // 2),
    "truncated": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "a web page": lambda file: file.write_bytes(PAGE),
    "deleted": lambda file: file.unlink(),
}


def flip(file: Path, position: int) -> None:
    """Changes one byte of a file by one bit."""
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with drawn garments, and the same as what passes for the official images; for reading only."""
    root = tmp_path_factory.mktemp("prepared")
    drawn = prepare(SMALL, root).folder
    arrays = {part: np.array(load_part(drawn, read_card(drawn), part)) for part in PARTS}
    about = {"name": "fashion_mnist", "source": official.HOME, "license": official.LICENSE, "class_names": CLASS_NAMES}
    preparation.write(root / "fashion_mnist", arrays, about)
    return root


@pytest.fixture
def drawn(tmp_path: Path, prepared: Path) -> Path:
    """A folder of drawn garments that may be changed."""
    return shutil.copytree(prepared / "synthetic", tmp_path / "drawn" / "synthetic")


@pytest.fixture
def without_source(tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What passes for the official images, though small, on a machine where they cannot be had again."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    folder = shutil.copytree(prepared / "fashion_mnist", tmp_path / "root" / "fashion_mnist")
    monkeypatch.setattr(preparation, "DIGEST", read_card(folder).digest)
    assert prepare(NOBODY_TO_ASK, folder.parent).folder == folder
    return folder


def test_a_file_changed_after_fetch_is_prepared_again(
    drawn: Path, full: bool, capsys: pytest.CaptureFixture[str], survived: Survived
) -> None:
    before, count = digests(drawn), 0
    changes = [(name, change) for name in FILES for change in CHANGES]
    changes = changes if full else changes[::6]
    for name, change in changes:
        CHANGES[change](drawn / name)
        prepare(SMALL, drawn.parent)
        said = capsys.readouterr().err == f"{drawn} was changed after fetch; it is prepared again.\n"
        count += said and digests(drawn) == before
    survived(
        "a dataset file changed, cut, deleted or replaced after `fetch`: noticed, prepared again", count, len(changes)
    )


def test_a_file_changed_after_fetch_that_cannot_be_had_again_is_refused(
    without_source: Path, prepared: Path, survived: Survived
) -> None:
    count = 0
    for name in FILES:
        for change in CHANGES.values():
            change(without_source / name)
            with pytest.raises(SourceUnavailableError, match="was changed after fetch, and cannot be prepared again: "):
                prepare(NOBODY_TO_ASK, without_source.parent)
            count += 1
            shutil.copy(prepared / "fashion_mnist" / name, without_source)
    assert prepare(NOBODY_TO_ASK, without_source.parent).folder == without_source
    survived("a dataset file changed after `fetch` that cannot be had again: refused before training", count, 20)


def test_no_byte_of_the_card_can_change_unnoticed(without_source: Path, full: bool, survived: Survived) -> None:
    """Not even a blank, which JSON would not mind."""
    file = without_source / CARD
    content = file.read_bytes()
    positions = range(0, len(content), 1 if full else 40)
    count = 0
    for position in positions:
        for byte in (content[position] ^ 1, ord("\n" if content[position] == ord(" ") else " ")):
            file.write_bytes(content[:position] + bytes([byte]) + content[position + 1 :])
            with pytest.raises(SourceUnavailableError):
                prepare(NOBODY_TO_ASK, without_source.parent)
            count += 1
    file.write_bytes(content)
    assert prepare(NOBODY_TO_ASK, without_source.parent).folder == without_source
    survived("one byte of a dataset's card changed", count, 2 * len(positions))


def test_a_change_between_preparing_and_reading_is_refused(drawn: Path) -> None:
    dataset = read_dataset(drawn, SMALL.validation)
    flip(drawn / "train_images.npy", -1)
    with pytest.raises(UserError, match=r"train_images\.npy was changed after fetch"):
        _ = dataset.parts


def test_other_images_in_the_place_of_the_real_ones_are_refused(drawn: Path, without_source: Path) -> None:
    """All digests of the folder agree with one another, though not with the official ones."""
    arrays = {part: 255 - load_part(drawn, read_card(drawn), part) for part in PARTS}
    about = {"name": "fashion_mnist", "source": official.HOME, "license": official.LICENSE, "class_names": CLASS_NAMES}
    preparation.write(without_source, arrays, about)
    with pytest.raises(SourceUnavailableError, match="holds other images, and cannot be prepared again"):
        prepare(NOBODY_TO_ASK, without_source.parent)


@pytest.mark.slow
def test_a_real_training_says_that_its_data_were_changed(tiny_data: Path, empty_folder: Path) -> None:
    shutil.copytree(tiny_data, empty_folder / "data")
    flip(empty_folder / "data/synthetic/test_labels.npy", -1)
    process = run_here(*TINY, "trainer.epochs=1")
    assert process.returncode == 0, process.stderr
    assert "data/synthetic was changed after fetch; it is prepared again." in process.stderr.splitlines()
    assert digests(empty_folder / "data/synthetic") == digests(tiny_data / "synthetic")


def test_a_real_training_on_changed_data_that_cannot_be_had_again_does_not_start(
    without_source: Path, empty_folder: Path
) -> None:
    (without_source / "train_labels.npy").unlink()
    overrides = [f"data_root={without_source.parent}", "data.dir=null", "data.mirrors=[]"]
    process = run_step(*overrides, KERAS_HOME=str(empty_folder / "keras"))
    assert_one_sentence(process, "fashion_mnist was changed after fetch, and cannot be prepared again: none of the 0")


def mutate(content: bytes, dice: random.Random) -> bytes:
    """Changes a file as broken disks, broken downloads and people do."""
    result = bytearray(content)
    for _ in range(dice.choice((1, 1, 1, 2, 5))):
        start = dice.randrange(len(result) + 1)
        if dice.random() < 0.5:  # most of what decides lies at both ends
            start = min(len(result), dice.choice((start % 40, max(0, len(result) - 1 - start % 80))))
        stop = min(len(result), start + dice.choice((1, 1, 2, 4, 30)))
        match dice.randrange(8):
            case 0 if stop > start:
                result[start] ^= 1 << dice.randrange(8)
            case 1:
                del result[start:stop]
            case 2:
                result[start:start] = dice.randbytes(stop - start)
            case 3:
                result[start:stop] = dice.randbytes(stop - start)
            case 4:
                result[start:stop] = dice.choice((b"\0", b"\xff")) * (stop - start)
            case 5:
                result[start:start] = result[start:stop]
            case 6:
                del result[start:]
            case 7 if dice.random() < 0.1:
                result[:] = dice.choice((b"", PAGE, dice.randbytes(100), bytes(5000), content + content))
    return bytes(result)


def idx(array: np.ndarray) -> bytes:
    """An array as an IDX file of unsigned bytes, not compressed yet."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


@pytest.fixture
def tiny_official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files that are official by their digests, though small."""
    dice = np.random.default_rng(0)
    published = {}
    for part, (name, _, shape) in official.OFFICIAL.items():
        shape = (20, *shape[1:])
        content = gzip.compress(idx(dice.integers(0, 256, shape).astype(np.uint8)), mtime=0)
        (tmp_path / name).write_bytes(content)
        published[part] = (name, hashlib.md5(content).hexdigest(), shape)
    monkeypatch.setattr(official, "OFFICIAL", published)
    monkeypatch.setattr(official, "LEAKED", ((1, 2),))
    monkeypatch.setattr(official, "DUPLICATED", {"train_images": ((3, 4),)})
    return tmp_path


def same_or_refused(read: Callable[[], dict[str, np.ndarray]], original: dict[str, np.ndarray]) -> bool:
    """Whether a file gives the original arrays, or the project's own error in one line; other errors go through."""
    try:
        found = read()
    except UserError as error:
        return "\n" not in str(error)
    return all(np.array_equal(found[part], array) for part, array in original.items())


def test_mutated_official_files_are_read_right_or_refused(tiny_official: Path, full: bool, survived: Survived) -> None:
    def read() -> dict[str, np.ndarray]:
        return official_arrays(DataConfig(source="fashion_mnist", validation=0, dir=str(tiny_official)))

    original, dice, count, of = read(), random.Random(0), 0, 5000 if full else 300
    for number in range(of):
        part = list(official.OFFICIAL)[number % 4]
        file = tiny_official / official.OFFICIAL[part][0]
        content = file.read_bytes()
        changed = mutate(content, dice)
        if number % 2:  # an intact archive of a damaged file
            changed = gzip.compress(mutate(gzip.decompress(content), dice), 1)
        file.write_bytes(changed)
        count += same_or_refused(read, original)
        file.write_bytes(content)
    survived("a mutated IDX or gzip file", count, of)


def test_mutated_arrays_are_read_right_or_refused(drawn: Path, full: bool, survived: Survived) -> None:
    card, dice, count, of = read_card(drawn), random.Random(1), 0, 2500 if full else 150
    original = {part: np.array(load_part(drawn, card, part)) for part in PARTS}
    for number in range(of):
        part = PARTS[number % 4]
        file = drawn / f"{part}.npy"
        content = file.read_bytes()
        file.write_bytes(mutate(content, dice))
        count += same_or_refused(lambda part=part: {part: load_part(drawn, card, part)}, {part: original[part]})
        file.write_bytes(content)
    survived("a mutated NPY file", count, of)


def test_mutated_predictions_are_read_right_or_refused(tmp_path: Path, full: bool, survived: Survived) -> None:
    file, dice, count, of = tmp_path / "test.npz", random.Random(2), 0, 2500 if full else 150
    write_predictions(file, np.arange(50) % 10, np.random.default_rng(0).random((50, 10), dtype=np.float32))
    original, content = read_predictions(file)._asdict(), file.read_bytes()
    for _ in range(of):
        file.write_bytes(mutate(content, dice))
        count += same_or_refused(lambda: read_predictions(file)._asdict(), original)
    survived("a mutated NPZ file of predictions", count, of)


def npy(shape: tuple[int, ...], dtype: str) -> bytes:
    """The header of an NPY file, and a little content."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(1000)


def claims_as_idx(folder: Path) -> None:
    for name, _, shape in official.OFFICIAL.values():
        header = bytes([0, 0, 8, len(shape)]) + np.array([10**9, *shape[1:]], dtype=">u4").tobytes()
        (folder / name).write_bytes(gzip.compress(header + bytes(1000)))
    official_arrays(DataConfig(source="fashion_mnist", validation=0, dir=str(folder)))


def unpacks_without_end(folder: Path) -> None:
    for name, _, shape in official.OFFICIAL.values():
        header = bytes([0, 0, 8, len(shape)]) + np.array(shape, dtype=">u4").tobytes()
        (folder / name).write_bytes(gzip.compress(header + bytes(60_000_000), 1))
    tracemalloc.reset_peak()
    official_arrays(DataConfig(source="fashion_mnist", validation=0, dir=str(folder)))


def claims_as_npy(folder: Path) -> None:
    content = npy((10**9, 28, 28), "|u1")
    (folder / "train_images.npy").write_bytes(content)
    files = {"train_images.npy": {"sha256": hashlib.sha256(content).hexdigest(), "shape": [10**9, 28, 28]}}
    load_part(folder, Card("fashion_mnist", "", "", (), files), "train_images")


def claims_as_npz(folder: Path) -> None:
    with zipfile.ZipFile(folder / "test.npz", "w") as archive:
        archive.writestr("labels.npy", npy((10**9,), "|u1"))
        archive.writestr("predicted.npy", npy((10**9,), "|u1"))
        archive.writestr("probabilities.npy", npy((10**9, 10), "<f2"))
    read_predictions(folder / "test.npz")


def is_a_bomb(folder: Path) -> None:
    with zipfile.ZipFile(folder / "test.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, dtype in (("labels", "|u1"), ("predicted", "|u1"), ("probabilities", "<f2")):
            archive.writestr(f"{name}.npy", npy((60_000_000,), dtype) + bytes(60_000_000))
    tracemalloc.reset_peak()
    read_predictions(folder / "test.npz")


CLAIMS = (claims_as_idx, unpacks_without_end, claims_as_npy, claims_as_npz, is_a_bomb)


@pytest.mark.usefixtures("tiny_official")
def test_what_claims_a_billion_images_costs_no_memory(tmp_path: Path, survived: Survived) -> None:
    count = 0
    for claim in CLAIMS:
        tracemalloc.start()
        with pytest.raises(UserError) as caught:
            claim(tmp_path)
        count += tracemalloc.get_traced_memory()[1] < 5_000_000 and "\n" not in str(caught.value)
        tracemalloc.stop()
    survived("a header that claims 10^9 images, or an archive that unpacks without end", count, len(CLAIMS))


SEVERAL = ["data=synthetic", "data.train_images=1500", "data.test_images=100", "data.validation=100"]


@contextmanager
def fetching(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A real `fetch`, started as people do and not waited for; gone at the end, whatever happens."""
    command = [sys.executable, "-m", "fashion_mnist.fetch", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def at_once(number: int, arguments: list[str], root: Path) -> dict[str, str]:
    """Starts several real fetches at the same time; gives the digests of what lies in the root when all have ended."""
    command = [sys.executable, "-m", "fashion_mnist.fetch", *arguments, f"data_root={root}"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(number)
    ]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * number, outputs
    (folder,) = root.iterdir()
    return digests(folder)


@pytest.mark.slow
def test_fetches_at_once_all_succeed(empty_folder: Path, full: bool, survived: Survived) -> None:
    reference = digests(prepare(compose(SEVERAL).data, empty_folder / "reference").folder)
    rounds = [2] * 4 + [4] * 2 if full else [2]
    count = sum(
        at_once(number, SEVERAL, empty_folder / f"root{turn}") == reference for turn, number in enumerate(rounds)
    )
    survived("2 or 4 `fetch` at once", count, len(rounds))


@needs_real_data
@pytest.mark.slow
def test_fetches_of_the_real_images_at_once_all_succeed(empty_folder: Path) -> None:
    at_once(2, [], empty_folder / "root")
    assert read_card(empty_folder / "root/fashion_mnist").digest == official.DIGEST


def test_a_second_process_waits_and_does_not_do_the_work_again(
    empty_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with fetching(*SEVERAL, f"data_root={empty_folder}/root") as first:
        wait_for(lambda: any(empty_folder.glob("root/.unfinished-*")))
        monkeypatch.setattr(preparation, "generate", None)  # would fail if it were called
        folder = prepare(compose(SEVERAL).data, empty_folder / "root").folder
        first.wait(60)
    assert intact_card(folder)
    assert capsys.readouterr().err == f"Waiting for another process that is at work in {folder.parent}.\n"


def wait_for(condition: Callable[[], bool]) -> None:
    """Waits until something is so, at most half a minute."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.slow
def test_a_killed_fetch_leaves_nothing_that_stays(empty_folder: Path, full: bool, survived: Survived) -> None:
    dice, count, of, left = random.Random(0), 0, 20 if full else 2, 0
    start = time.monotonic()
    assert run_step(*SEVERAL, "data_root=reference", step="fetch").returncode == 0
    usual, reference = time.monotonic() - start, digests(empty_folder / "reference/synthetic")
    for number in range(of):
        root = empty_folder / f"root{number}"
        with fetching(*SEVERAL, f"data_root={root}") as process:
            if number % 2:
                time.sleep(dice.uniform(0, usual))
            else:
                wait_for(lambda root=root: any(root.glob(".unfinished-*")))
                time.sleep(dice.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
        left += any(root.glob(".unfinished-*"))
        assert run_step(*SEVERAL, f"data_root={root}", step="fetch").returncode == 0
        count += list(root.iterdir()) == [root / "synthetic"] and digests(root / "synthetic") == reference
    assert left  # else no kill has come in the middle
    survived("`fetch` killed while it prepares, then started again", count, of)


def test_what_is_left_of_a_killed_fetch_goes_even_when_nothing_else_is_to_do(drawn: Path) -> None:
    with preparation.workplace(drawn.parent) as unfinished:
        Path(unfinished, "half.npy").write_bytes(b"half")
        kept = drawn.parent / ".of-somebody-else"
        kept.touch()
        prepare(SMALL, drawn.parent)
        assert sorted(drawn.parent.iterdir()) == [kept, drawn]
        Path(unfinished).mkdir()  # for its own end


def test_a_lock_that_cannot_be_had_breaks_nothing(drawn: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its file may belong to another person, or the folder for temporary files may be of no use."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "no" / "such" / "folder"))
    os.mkfifo(tmp_path / "no")
    changed = replace(SMALL, drawing_seed=1)
    assert intact_card(prepare(changed, drawn.parent).folder)
    assert list(drawn.parent.iterdir()) == [drawn]
