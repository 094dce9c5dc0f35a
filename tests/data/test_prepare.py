"""Preparing a dataset: once, the same bytes everywhere, and never a substitute that nobody asked for."""

import hashlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import needs_real_data
from matplotlib.text import Text

from fashion_mnist.config import DataConfig
from fashion_mnist.data.dataset import CARD, CLASS_NAMES, PARTS, SAMPLES, Split, intact_card, load_part, read_card
from fashion_mnist.data.official import DIGEST, OFFICIAL
from fashion_mnist.data.prepare import prepare, replace_folder, samples
from fashion_mnist.errors import SourceUnavailableError, UserError

SYNTHETIC = DataConfig(source="synthetic", validation=100, train_images=300, test_images=60)
FILES = {*(f"{part}.npy" for part in PARTS), CARD, SAMPLES}


def digests(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def marks(folder: Path) -> dict[str, tuple[int, int]]:
    """What changes when a file is written again, even with the same bytes, or beside the folder for a while."""
    files = [folder.parent, folder, *folder.iterdir()]
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of drawn garments; for reading only."""
    return prepare(SYNTHETIC, tmp_path_factory.mktemp("prepared")).folder


@pytest.fixture
def root(prepared: Path, tmp_path: Path) -> Path:
    """A root with a copy of the drawn garments that may be changed."""
    shutil.copytree(prepared, tmp_path / "root" / "synthetic")
    return tmp_path / "root"


@pytest.fixture(scope="module")
def real_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the real dataset; for reading only."""
    root = tmp_path_factory.mktemp("real")
    prepare(DataConfig(source="fashion_mnist", validation=5000, dir=os.environ["FASHION_MNIST_DIR"]), root)
    return root


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of mirrors that do not run, while the Keras cache is empty."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return [f"http://127.0.0.1:{listening.getsockname()[1]}"]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 100 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_folder_holds_the_arrays_the_card_and_the_samples(prepared: Path) -> None:
    assert prepared.name == "synthetic"
    assert {file.name for file in prepared.iterdir()} == FILES
    assert (prepared / SAMPLES).read_bytes().startswith(b"\x89PNG")


def test_nothing_but_the_dataset_is_left_in_the_root(prepared: Path) -> None:
    assert list(prepared.parent.iterdir()) == [prepared]


def test_the_card_says_what_the_dataset_is(prepared: Path) -> None:
    content = json.loads((prepared / CARD).read_text())
    assert content["name"] == "synthetic"
    assert content["license"] == "MIT"
    assert "300 + 60 images, seed 0" in content["source"]
    assert content["class_names"] == list(CLASS_NAMES)
    shapes = {name: entry["shape"] for name, entry in content["files"].items()}
    assert shapes == {
        "train_images.npy": [300, 28, 28],
        "train_labels.npy": [300],
        "test_images.npy": [60, 28, 28],
        "test_labels.npy": [60],
    }


def test_the_card_holds_the_digest_of_each_file(prepared: Path) -> None:
    found = digests(prepared)
    assert {name: entry["sha256"] for name, entry in read_card(prepared).files.items()} == {
        f"{part}.npy": found[f"{part}.npy"] for part in PARTS
    }


@pytest.mark.parametrize(("classes", "blocks"), [(3, 1), (75, 4)])
def test_the_samples_show_the_whole_names_of_all_classes(classes: int, blocks: int) -> None:
    names = [f"{label} {letter * 15}" for label, letter in zip(range(classes), "Wi漢" * 25, strict=False)]
    labels = np.repeat(np.arange(classes), [20_000, *[6] * (classes - 1)])
    images = np.broadcast_to(np.zeros((28, 28), np.uint8), (len(labels), 28, 28))
    figure = samples(Split(images, labels), names, "pictures")
    assert len(figure.axes) == blocks  # one for each image would take seconds to draw
    with warnings.catch_warnings(action="ignore"):  # letters that the font lacks
        figure.draw_without_rendering()
        places = [text.get_window_extent() for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    assert len(places) == classes + 1  # and the title
    assert min(place.x0 for place in places) >= 0
    assert max(place.x1 for place in places) <= figure.bbox.x1


def test_drawn_garments_are_never_called_fashion_mnist(prepared: Path) -> None:
    assert read_card(prepared).title == "synthetic garments (not Fashion-MNIST)"


@pytest.mark.parametrize("part", PARTS)
def test_arrays_come_memory_mapped_with_the_shape_of_the_card(part: str, prepared: Path) -> None:
    card = read_card(prepared)
    array = load_part(prepared, card, part)
    assert isinstance(array, np.memmap)
    assert array.dtype == np.uint8
    assert list(array.shape) == card.files[f"{part}.npy"]["shape"]


def test_others_may_read_the_prepared_folder(prepared: Path) -> None:
    assert prepared.stat().st_mode & 0o055 == 0o055


def test_a_second_call_does_nothing(prepared: Path) -> None:
    before = marks(prepared)
    assert prepare(SYNTHETIC, prepared.parent).folder == prepared
    assert marks(prepared) == before


def test_another_validation_size_does_not_draw_again(prepared: Path) -> None:
    before = marks(prepared)
    prepare(replace(SYNTHETIC, validation=50), prepared.parent)
    assert marks(prepared) == before


@pytest.mark.parametrize("change", [{"train_images": 310, "test_images": 70}, {"drawing_seed": 1}], ids=str)
def test_other_sizes_or_another_seed_replace_what_lies_there(change: dict, root: Path) -> None:
    before = digests(root / "synthetic")
    config = replace(SYNTHETIC, **change)
    folder = prepare(config, root).folder
    assert intact_card(folder)
    assert len(load_part(folder, read_card(folder), "train_images")) == config.train_images
    assert len(load_part(folder, read_card(folder), "test_images")) == config.test_images
    assert digests(folder) != before
    assert list(root.iterdir()) == [folder]


def test_the_same_bytes_come_out_in_every_root(prepared: Path, tmp_path: Path) -> None:
    assert digests(prepare(SYNTHETIC, tmp_path / "another" / "root").folder) == digests(prepared)


def test_a_changed_file_is_noticed_and_prepared_again(root: Path, prepared: Path) -> None:
    content = bytearray((root / "synthetic" / "train_images.npy").read_bytes())
    content[len(content) // 2] ^= 0xFF
    (root / "synthetic" / "train_images.npy").write_bytes(content)
    assert digests(prepare(SYNTHETIC, root).folder) == digests(prepared)


def test_a_missing_file_is_noticed_and_prepared_again(root: Path, prepared: Path) -> None:
    (root / "synthetic" / "test_images.npy").unlink()
    assert digests(prepare(SYNTHETIC, root).folder) == digests(prepared)


def test_arrays_in_use_outlive_the_folder_that_is_replaced(root: Path) -> None:
    """A run that reads its images from the disk goes on while another run prepares other ones."""
    folder = root / "synthetic"
    images = load_part(folder, read_card(folder), "train_images")
    before = images.sum()
    (root / "new").mkdir()
    replace_folder(root / "new", folder)
    assert list(folder.iterdir()) == []
    assert images.sum() == before


def test_auto_falls_back_on_drawn_garments_with_a_banner(
    nowhere: list[str], root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = prepare(replace(SYNTHETIC, source="auto", mirrors=nowhere), root).folder
    assert folder == root / "synthetic"
    printed = capsys.readouterr()
    assert printed.out == ""
    banner = " ".join(printed.err.replace("│", " ").split())
    assert "NOT Fashion-MNIST" in banner
    assert "none of the 1 mirrors of Fashion-MNIST answers" in banner
    assert "Drawn garments are used instead" in banner
    assert "FASHION_MNIST_DIR" not in banner  # a way out, of which this is one


def test_the_strict_dataset_never_falls_back(nowhere: list[str], root: Path) -> None:
    with pytest.raises(SourceUnavailableError, match="data=auto"):
        prepare(replace(SYNTHETIC, source="fashion_mnist", mirrors=nowhere), root)


def test_auto_does_not_fall_back_when_the_folder_it_was_given_lacks_a_file(
    nowhere: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    names = [name for name, _, _ in OFFICIAL.values()]
    for name in names[1:]:
        (given / name).write_bytes(b"")
    with pytest.raises(UserError, match=f"lacks {names[0]}"):
        prepare(replace(SYNTHETIC, source="auto", mirrors=nowhere, dir=str(given)), tmp_path / "root")
    assert not (tmp_path / "root").exists()
    assert "NOT Fashion-MNIST" not in capsys.readouterr().err


@needs_real_data
def test_the_official_files_become_the_four_arrays(real_root: Path) -> None:
    folder = real_root / "fashion_mnist"
    assert {file.name for file in folder.iterdir()} == FILES
    card = read_card(folder)
    assert card.title == "Fashion-MNIST"
    assert [load_part(folder, card, part).shape for part in PARTS] == [shape for _, _, shape in OFFICIAL.values()]


@needs_real_data
def test_the_digest_of_the_real_dataset_is_the_same_everywhere(real_root: Path) -> None:
    """Tags of runs made elsewhere, and dvc.lock, rely on these bytes."""
    assert read_card(real_root / "fashion_mnist").digest == DIGEST


@needs_real_data
def test_another_dataset_in_the_place_of_the_real_one_is_not_taken_for_it(prepared: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared, tmp_path / "fashion_mnist")
    config = DataConfig(source="fashion_mnist", validation=5000, dir=os.environ["FASHION_MNIST_DIR"])
    assert read_card(prepare(config, tmp_path).folder).title == "Fashion-MNIST"


@needs_real_data
def test_auto_takes_the_prepared_real_dataset_without_asking_anybody(
    nowhere: list[str], real_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(replace(SYNTHETIC, source="auto", mirrors=nowhere), real_root).folder == real_root / "fashion_mnist"
    assert capsys.readouterr().err == ""


def test_a_root_that_cannot_be_written_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"cannot write to .*/file/root .*data_root=") as caught:
        prepare(SYNTHETIC, tmp_path / "file" / "root")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    with pytest.raises((UserError, OSError)):
        prepare(SYNTHETIC, tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_reported_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        prepare(SYNTHETIC, tmp_path / "root")


def test_processes_that_prepare_the_same_root_at_once_all_succeed(prepared: Path, tmp_path: Path) -> None:
    program = f"""
import sys
from fashion_mnist.config import DataConfig
from fashion_mnist.data.dataset import PARTS, load_part, read_card
from fashion_mnist.data.prepare import prepare
print("ready", flush=True)
sys.stdin.readline()
folder = prepare({SYNTHETIC!r}, sys.argv[1]).folder
for part in PARTS:
    load_part(folder, read_card(folder), part)
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "root")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert list((tmp_path / "root").iterdir()) == [tmp_path / "root" / "synthetic"]
    assert digests(tmp_path / "root" / "synthetic") == digests(prepared)
