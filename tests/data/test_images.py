"""Folders of pictures become a dataset as they are; what cannot be one is refused in a sentence, and leaves nothing."""

import io
import os
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, assert_one_sentence, needs_real_data, run_here
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fashion_mnist.config import DataConfig
from fashion_mnist.data import images
from fashion_mnist.data.dataset import Dataset, card_in, set_aside
from fashion_mnist.data.decode import Look, as_bytes, look, no_bombs, read
from fashion_mnist.data.prepare import prepare
from fashion_mnist.errors import UserError
from fashion_mnist.files import prefix

Draw = Callable[..., Path]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Puts a picture into `pictures/<name>`: bright noise that depends on the name, unless told otherwise."""

    def put(name: str, size: tuple[int, int] = (8, 8), mode: str = "L", **settings: object) -> Path:
        file = tmp_path / "pictures" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(zlib.crc32(name.encode())).integers(64, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(noise).convert(mode).save(file, **settings)  # pyright: ignore[reportArgumentType]
        return file

    return put


@pytest.fixture
def cats_and_dogs(draw: Draw, tmp_path: Path) -> Path:
    for kind in ("cat", "dog"):
        for number in range(10):
            draw(f"{kind}/{number}.png")
    return tmp_path / "pictures"


def prepared(folder: Path, root: Path | None = None, **settings: object) -> Dataset:
    defaults = {"validation": 0.25, "dir": str(folder), **settings}
    return prepare(DataConfig("images", **defaults), root or folder.parent / "data")  # pyright: ignore[reportArgumentType]


def refusal(folder: Path, **settings: object) -> str:
    """What is said to a folder that is refused, which leaves nothing behind."""
    root = folder.parent / "data"
    with pytest.raises(UserError) as caught:
        prepared(folder, root, **settings)
    assert "\n" not in str(caught.value)
    assert not [entry for entry in root.glob("*") if entry.is_dir()]
    assert not list(root.glob(f"{prefix()}*"))
    return str(caught.value)


def test_classes_are_the_folders_and_pixels_are_as_they_were(cats_and_dogs: Path) -> None:
    dataset = prepared(cats_and_dogs)
    assert dataset.card.class_names == ("cat", "dog")
    assert dataset.card.title == dataset.card.name == "pictures"
    assert dataset.card.image_shape == (8, 8)
    assert [len(part.labels) for part in (dataset.training, dataset.validation, dataset.test)] == [12, 4, 4]
    files = {np.asarray(Image.open(file)).tobytes(): file.parent.name for file in cats_and_dogs.rglob("*.png")}
    for part in (*dataset.parts, dataset.test):
        for image, label in zip(*part, strict=True):
            assert files.pop(image.tobytes()) == dataset.card.class_names[label]
    assert not files


def test_a_folder_that_is_divided_already_stays_so(draw: Draw, tmp_path: Path) -> None:
    for part, count in (("train", 4), ("test", 2)):
        for kind in ("b", "a"):
            for number in range(count):
                draw(f"{part}/{kind}/{number}.png")
    dataset = prepared(tmp_path / "pictures", validation=0)
    assert dataset.training.labels.tolist() == [0, 1] * 4  # in the order of the files' names, not of the classes
    assert dataset.test.labels.tolist() == [0, 1] * 2


@pytest.mark.parametrize(
    ("sizes", "wanted", "words"),
    [
        ([10, 10], 0.01, "data.test=0.01 of 20 images is none; take more"),
        ([1000, 2], 0.2, "'dog' has 2: take more, or add some"),
        ([1000, 2], 0.8, "'dog' has 2: take fewer, or add some"),
        ([1000, 1], 0.2, "'dog' has 1: add some, or leave the class out"),
    ],
)
def test_what_cannot_be_set_aside_is_refused_with_a_way_out(sizes: list[int], wanted: float, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        set_aside(np.repeat([0, 1], sizes), wanted, "data.test", ["cat", "dog"], of_each=True)


@given(st.lists(st.integers(2, 40), min_size=2, max_size=6), st.floats(0.05, 0.6), st.integers(0, 99))
def test_a_share_is_set_aside_of_every_class(sizes: list[int], share: float, seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes).astype(np.uint8)
    names = [str(label) for label in range(len(sizes))]
    try:
        chosen = set_aside(labels, share, "data.test", names, seed)
    except UserError:  # a class of too few
        return
    assert chosen.sum() == round(share * len(labels))
    for label, size in enumerate(sizes):
        assert abs(chosen[labels == label].sum() - share * size) <= 1 + 0.5 * len(sizes) / len(labels) * size
    assert (chosen == set_aside(labels, share, "data.test", names, seed)).all()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 10**6), min_size=1, unique=True))
def test_numbers_are_sorted_by_their_value(numbers: list[int]) -> None:
    names = [f"image-{number}.png" for number in numbers]
    assert sorted(names, key=images.natural) == [f"image-{number}.png" for number in sorted(numbers)]


def test_size_and_channels_are_those_of_the_files(draw: Draw, tmp_path: Path) -> None:
    for kind in ("a", "b"):
        for number in range(5):
            draw(f"{kind}/{number}.png", (20, 10), "RGB")
        draw(f"{kind}/other.png", (30, 30), "RGB")
    folder = tmp_path / "pictures"
    assert prepared(folder).card.image_shape == (20, 20, 3)
    assert prepared(folder, channels=1).card.image_shape == (20, 20)
    assert prepared(folder, side=12).card.image_shape == (12, 12, 3)
    for number in range(13):
        draw(f"a/large-{number}.png", (300, 200), "RGB")
    assert prepared(folder).card.image_shape == (64, 64, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_picture_is_read(mode: str, tmp_path: Path) -> None:
    grey = np.tile(np.array([0, 85, 170, 255], np.uint8), (4, 1))
    picture = Image.fromarray(grey)
    if mode == "I;16":
        picture = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "1":
        picture = Image.fromarray(np.where(grey > 127, 255, 0).astype(np.uint8)).convert("1")
    else:
        picture = picture.convert(mode)
    file = tmp_path / ("picture.tiff" if mode == "CMYK" else "picture.png")
    picture.save(file)
    expected = grey if mode != "1" else np.where(grey > 127, 255, 0)
    assert np.abs(read(file, (4, 4)).astype(int) - expected).max() <= 1
    assert read(file, (4, 4, 3)).shape == (4, 4, 3)


def test_photographs_are_turned_upright_and_what_is_cut_out_gets_a_ground(tmp_path: Path) -> None:
    lying = np.zeros((8, 8), np.uint8)
    lying[:, 6:] = 255  # light at the right; turned a quarter to the left by the camera
    tag = Image.Exif()
    tag[0x0112] = 8
    Image.fromarray(lying).save(tmp_path / "lying.png", exif=tag)
    assert read(tmp_path / "lying.png", (8, 8))[:2].min() == 255
    for tone, ground in ((0, 255), (255, 0)):
        cut_out = Image.new("RGBA", (8, 8), (tone, tone, tone, 0))
        cut_out.paste((tone, tone, tone, 255), (2, 2, 6, 6))
        pixels = as_bytes(cut_out, (8, 8))
        assert (pixels[0, 0], pixels[4, 4]) == (ground, tone)
        cut_out.save(tmp_path / "palette.gif", transparency=0)
        pixels = read(tmp_path / "palette.gif", (8, 8))
        assert (pixels[0, 0], pixels[4, 4]) == (ground, tone)


def test_damaged_files_are_named_all_at_once_or_left_out(
    cats_and_dogs: Path, draw: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = {
        "cat/empty.png": b"",
        "cat/page.png": b"<!DOCTYPE html><html></html>",
        "dog/cut.png": draw("dog/cut.png", (64, 64)).read_bytes()[:200],
        "dog/bomb.png": bomb(20_000),
    }
    for name, content in broken.items():
        (cats_and_dogs / name).write_bytes(content)
    frames = [Image.new("L", (8, 8), tone) for tone in (80, 160)]
    frames[0].save(cats_and_dogs / "dog/moving.gif", save_all=True, append_images=frames[1:])
    (cats_and_dogs / "cat/nowhere.png").symlink_to("nowhere.png")
    told = refusal(cats_and_dogs)
    for name in ("empty.png", "page.png", "cut.png", "bomb.png", "moving.gif"):
        assert name in told
    assert "data.skip_damaged=true" in told
    dataset = prepared(cats_and_dogs, skip_damaged=True)
    assert len(dataset.training.labels) + len(dataset.validation.labels) + len(dataset.test.labels) == 20
    said = capsys.readouterr().err
    for name in (*broken, "dog/moving.gif"):
        assert name in said
    assert "left out" in said


def bomb(side: int) -> bytes:
    """A PNG file of a few bytes that says it has so many pixels a side."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_photographs_of_today_are_read_and_what_says_to_be_larger_is_not(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS
    sides = [10_400, 1 << 14, (1 << 14) + 1]  # of 108, 268 and a little more than 268 million pixels
    files = [tmp_path / f"{side}.png" for side in sides]
    for file, side in zip(files, sides, strict=True):
        file.write_bytes(bomb(side))
    with no_bombs():
        *looks, error = images.for_each(images.unless_damaged(look), files, "looking")
    assert looks == [Look(side, grey=True) for side in sides[:2]]
    assert "far more pixels than any photograph" in str(error)
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_library_that_fails_in_its_own_way_is_a_damaged_picture(
    cats_and_dogs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("Failed to decode image")

    monkeypatch.setattr(Image, "open", fail)
    assert "20 of 20 pictures" in refusal(cats_and_dogs)


def test_as_few_images_for_the_test_as_classes_are_enough(draw: Draw, tmp_path: Path) -> None:
    for kind in range(12):
        for number in range(2):
            draw(f"{kind}/{number}.png")
    assert "take data.test=12 or more" in refusal(tmp_path / "pictures")
    assert len(prepared(tmp_path / "pictures", test=12, validation=0).test.labels) == 12


def test_test_images_that_are_training_images_too_are_told(
    draw: Draw, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("a", "b"):
        for number in range(3):
            file, other = draw(f"train/{kind}/{number}.png"), draw(f"test/{kind}/{number}.png")
            if number:
                other.write_bytes(file.read_bytes())
    prepared(tmp_path / "pictures", validation=0)
    assert "4 of 6 test images are among the training images, too" in capsys.readouterr().err


def test_pictures_that_change_places_are_noticed_though_size_and_time_stay(draw: Draw, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for kind in ("cat", "dog"):
        for number in range(5):
            os.utime(draw(f"{kind}/{number}.bmp"), (1, 1))  # an old time, and all of one size
    first = prepared(folder).card
    for name, new in (("cat", "bird"), ("dog", "cat"), ("bird", "dog")):
        (folder / name).rename(folder / new)
    assert prepared(folder).card.source != first.source


NAMES = [
    "T-shirt top",
    "Ärmel é",
    "v1.2",
    "shoe 👟",
    "50 % $x^$ <b>&amp;",
    "a,b;'c\"d",
    "[bold]red",
    "-x",
    "con",
    "名前",
]


def test_names_of_classes_may_be_anything_that_a_folder_may(empty_folder: Path, draw: Draw, tmp_path: Path) -> None:
    for name in NAMES:
        for number in range(8):
            draw(f"{name}/{number}.png")
    command = ["data=images", "data.dir=pictures", "model=linear", "trainer.epochs=2", "trainer.batch_size=8"]
    done = run_here(*command, step="main")
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        assert name in done.stdout.replace("\n", " ") or len(name) > 12
    listed = sorted(str(file) for place in ("outputs", "data") for file in Path(place).rglob("*"))
    assert not [file for file in listed if not file.isascii() or " " in file]
    told = run_here("pictures", "model=linear", "--json", "--picture", "seen.png", step="predict")
    assert told.returncode == 0, told.stderr
    assert (tmp_path / "seen.png").stat().st_size > 1000
    compared = run_here(step="compare")
    assert compared.returncode == 0, compared.stderr
    page = Path("reports/comparison.html").read_text()
    assert "50 % $x^$ &lt;b&gt;&amp;amp;" in page


def test_what_is_no_dataset_is_refused(draw: Draw, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    assert "there is no folder" in refusal(folder)
    folder.mkdir()
    assert "there is no folder of pictures" in refusal(folder)
    draw("loose.png")
    assert "there is no folder of pictures" in refusal(folder)
    for number in range(5):
        draw(f"cat/{number}.png")
    assert "this one has 1" in refusal(folder)
    (folder / "dog").mkdir()
    assert re.search(r"no pictures in .*dog", refusal(folder))
    draw("dog/0.png")
    assert "data.test=0.2 needs images of every class on both sides, and 'dog' has 1: add some" in refusal(folder)
    assert "data.test=0.6 needs images of every class on both sides, and 'dog' has 1" in refusal(folder, test=0.6)
    for number in range(5):
        draw(f"dog/{number}.png")
    assert "hold each of the folders once: cat, dog" in refusal(folder, class_names=["cat", "bird"])
    assert "data.test=10 leaves nothing" in refusal(folder, test=10)
    (folder / "back").symlink_to(folder)
    assert "back is a link to a folder of the same dataset, or around it" in refusal(folder)
    (folder / "back").unlink()
    (folder / "cat/back").symlink_to("..")  # by which dogs would be cats
    assert "cat/back is a link to a folder of the same dataset, or around it" in refusal(folder)
    (folder / "cat/back").unlink()
    (folder / "bird").symlink_to("nowhere")
    assert "bird is a link that leads nowhere" in refusal(folder)
    (folder / "bird").unlink()
    os.mkfifo(folder / "cat/pipe.png")  # which would never end
    assert len(prepared(folder).test.labels) == 2


def test_parts_are_not_taken_for_classes(draw: Draw, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for part in ("train", "val"):
        for kind in ("cat", "dog"):
            draw(f"{part}/{kind}/1.png")
    assert "holds train, val: call the parts train and test" in refusal(folder)
    for kind in ("cat", "dog", "bird"):
        draw(f"test/{kind}/1.png")
    assert "holds val/ beside train/ and test/" in refusal(folder)
    (folder / "val").rename(tmp_path / "val")
    assert "must hold the same classes, and 'bird' is in one of them" in refusal(folder)


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("TRAIN", "test")])
def test_parts_are_known_whatever_the_case_of_their_letters(train: str, test: str, draw: Draw, tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        draw(f"{train}/{name}")
    for kind in ("cat", "dog"):
        draw(f"{test}/{kind}/3.png")
    dataset = prepared(tmp_path / "pictures", validation=0)
    assert dataset.card.class_names == ("cat", "dog")
    assert (len(dataset.training.labels), len(dataset.test.labels)) == (3, 2)


def test_a_part_that_is_there_twice_is_refused(draw: Draw, tmp_path: Path) -> None:
    for part in ("TRAIN", "train", "test"):
        for kind in ("cat", "dog"):
            draw(f"{part}/{kind}/1.png")
    assert "holds TRAIN/ beside train/ and test/" in refusal(tmp_path / "pictures")


@pytest.mark.parametrize("names", [("Train", "Validation"), ("training", "testing"), ("TEST", "Dev", "Valid")])
def test_other_names_of_parts_are_not_learned_as_classes(names: tuple[str, ...], draw: Draw, tmp_path: Path) -> None:
    for name in names:
        for number in range(5):
            draw(f"{name}/{number}.png")
    assert f"holds {', '.join(sorted(names))}: call the parts train and test" in refusal(tmp_path / "pictures")


def test_a_class_among_others_may_have_the_name_of_a_part(cats_and_dogs: Path, draw: Draw) -> None:
    for number in range(10):
        draw(f"Test/{number}.png")
    assert prepared(cats_and_dogs).card.class_names == ("Test", "cat", "dog")


@pytest.mark.parametrize("link", ["bird", "dog/more"])
def test_a_picture_that_links_put_into_two_classes_is_refused(link: str, cats_and_dogs: Path, draw: Draw) -> None:
    elsewhere = draw("../elsewhere/x/1.png").parents[1]
    (cats_and_dogs / "cat/others").symlink_to(elsewhere)
    (cats_and_dogs / link).symlink_to(elsewhere / "x")
    told = refusal(cats_and_dogs)
    assert f"{cats_and_dogs}/cat/others/x/1.png" in told
    assert f"{cats_and_dogs / link}" in told
    assert "are one picture, by a link" in told


def test_a_picture_that_a_link_puts_into_training_and_test_is_refused(draw: Draw, tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        elsewhere = draw(f"../elsewhere/{kind}/1.png").parent
        for part in ("train", "test"):
            (tmp_path / "pictures" / part).mkdir(parents=True, exist_ok=True)
            (tmp_path / "pictures" / part / kind).symlink_to(elsewhere)
    assert re.search("train/cat/1.png and .*test/cat/1.png are one picture", refusal(tmp_path / "pictures"))


def test_files_may_be_links_to_one_place_as_in_a_cache_that_keeps_equal_ones_once(cats_and_dogs: Path) -> None:
    for kind in ("cat", "dog"):
        (cats_and_dogs / kind / "again.png").symlink_to(cats_and_dogs / "cat/1.png")
    assert len(images.find(DataConfig("images", 0, dir=str(cats_and_dogs))).files) == 22


def test_a_link_may_repeat_a_picture_within_its_class(cats_and_dogs: Path) -> None:
    (cats_and_dogs / "cat/again.png").symlink_to("1.png")
    assert len(images.find(DataConfig("images", 0, dir=str(cats_and_dogs))).files) == 21


def test_images_that_are_all_but_black_are_refused(tmp_path: Path) -> None:
    for kind in ("a", "b"):
        for number in range(4):
            file = tmp_path / f"pictures/{kind}/{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8), 4095, np.uint16)).save(file)  # twelve bits in sixteen
    assert "all but black" in refusal(tmp_path / "pictures")
    Image.fromarray(np.ones((8, 8), np.float32)).save(tmp_path / "pictures/a/0.tiff")
    assert "its values have 32 bits" in refusal(tmp_path / "pictures")


@pytest.mark.slow
def test_more_than_a_thousand_classes_are_refused_and_three_hundred_are_not(draw: Draw, tmp_path: Path) -> None:
    for kind in range(300):
        for number in range(3):
            draw(f"{kind}/{number}.png", (4, 4))
    dataset = prepared(tmp_path / "pictures", test=300, validation=0)
    assert dataset.test.labels.dtype == np.uint16
    assert dataset.card.class_names[299] == "299"
    for kind in range(300, 1001):
        (tmp_path / f"pictures/{kind}").mkdir()
        os.link(tmp_path / "pictures/0/0.png", tmp_path / f"pictures/{kind}/0.png")
    assert "this one has 1,001" in refusal_of_many(tmp_path / "pictures")


def refusal_of_many(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        prepared(folder)
    return str(caught.value)


def test_a_picture_that_changes_is_noticed_and_one_that_does_not_is_not_read_again(
    cats_and_dogs: Path, draw: Draw, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepared(cats_and_dogs).card
    content = (cats_and_dogs / "cat/3.png").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", lambda file: pytest.fail(f"{file} is read again"))
        patched.setattr(Image, "open", lambda file: pytest.fail(f"{file} is opened again"))
        assert images.digest_of(images.find(DataConfig("images", 0, dir=str(cats_and_dogs))), DIGESTS(cats_and_dogs))
    draw("cat/3.png", (9, 9))
    assert prepared(cats_and_dogs).card.source != first.source
    assert "holds other images; it is prepared again" in capsys.readouterr().err
    (cats_and_dogs / "cat/3.png").write_bytes(content)
    assert prepared(cats_and_dogs).card == first
    assert prepared(cats_and_dogs, drawing_seed=1).card.digest != first.digest


def DIGESTS(pictures: Path) -> Path:  # noqa: N802
    return pictures.parent / "data/.pictures.json"


def test_what_is_prepared_can_be_named_without_the_pictures(cats_and_dogs: Path, tmp_path: Path) -> None:
    first = prepared(cats_and_dogs).card
    cats_and_dogs.rename(tmp_path / "elsewhere")
    assert prepare(DataConfig("images", 0, name="pictures"), tmp_path / "data").card == first
    with pytest.raises(UserError, match="data=images needs a folder"):
        prepare(DataConfig("images", 0, name="others"), tmp_path / "data")
    with pytest.raises(UserError, match="was prepared otherwise"):
        prepare(DataConfig("images", 0, name="pictures", side=16), tmp_path / "data")
    with pytest.raises(UserError, match="was prepared otherwise"):
        prepare(DataConfig("npz", 0, name="pictures"), tmp_path / "data")


@pytest.mark.parametrize("name", ["fashion_mnist", "synthetic", "auto", "tfds"])
def test_nothing_else_takes_the_name_of_an_official_dataset(cats_and_dogs: Path, name: str) -> None:
    assert f"{name} is the name of another dataset" in refusal(cats_and_dogs, name=name)


def test_a_command_without_a_folder_says_what_it_needs(empty_folder: Path) -> None:
    assert_one_sentence(run_here("data=images"), "data.dir=FOLDER")
    assert_one_sentence(run_here("data=images", "data.dir=nowhere"), "there is no folder nowhere")
    assert_one_sentence(run_here("data=images", "data.side=2"), "data.side must be at least 4")
    assert_one_sentence(run_here("data=images", "data.channels=2"), "data.channels must be 1 or 3")
    assert not Path("data").exists()


@needs_real_data
@pytest.mark.slow
def test_fashion_mnist_in_folders_is_fashion_mnist(tmp_path: Path, empty_folder: Path) -> None:
    """The same arrays, and the same model but for the card, as from one file; a tenth of the images, to save time."""
    root, names, arrays = tmp_path / "data", [str(label) for label in range(10)], {}
    official = prepare(DataConfig("fashion_mnist", 0, dir=os.environ["FASHION_MNIST_DIR"]), root)
    for part, (pixels, labels), count in (("train", official.training, 6000), ("test", official.test, 1000)):
        arrays |= {f"x_{part}": pixels[:count], f"y_{part}": labels[:count]}
        for name in names:
            (tmp_path / "garments" / part / name).mkdir(parents=True)
        for index, (image, label) in enumerate(zip(pixels[:count], labels, strict=False)):
            Image.fromarray(np.asarray(image)).save(tmp_path / f"garments/{part}/{label}/{index}.png", compress_level=1)
    np.savez(tmp_path / "arrays.npz", **arrays)
    in_file = prepare(DataConfig("npz", 0, file=str(tmp_path / "arrays.npz")), root)
    exported = prepared(tmp_path / "garments", root, validation=0)
    assert exported.card.digest == in_file.card.digest
    models = []
    for data in (["data=npz", f"data.file={tmp_path}/arrays.npz"], ["data=images", f"data.dir={tmp_path}/garments"]):
        done = run_here("model=linear", "trainer.epochs=1", "trainer.batch_size=1000", f"data_root={root}", *data)
        assert done.returncode == 0, done.stderr
        models.append(Path("outputs/models/linear/model.keras").read_bytes())
        card = card_in(Path("outputs/models/linear/model.keras"))
    assert card is not None
    assert card.class_names == tuple(names)
    assert members(models[1]).pop("dataset.json")
    assert {**members(models[1]), "dataset.json": b""} == {**members(models[0]), "dataset.json": b""}


def members(archive: bytes) -> dict[str, bytes]:
    import zipfile

    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_every_key_of_the_option_is_one_that_the_schema_has() -> None:
    text = (ROOT / "conf/data/images.yaml").read_text()
    keys = re.findall(r"(?m)^(\w+):", text)
    assert set(keys) <= set(DataConfig.__dataclass_fields__)
