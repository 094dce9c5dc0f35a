"""Pictures as people have them: of any size, mode, depth and background, cut out, badly lit, or showing nothing."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import needs_real_data
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps
from scipy import ndimage

from fashion_mnist import pictures
from fashion_mnist.data.synthetic import generate
from fashion_mnist.errors import UserError

NEAR = 12  # mean difference in grey, of 255, to the same garment on black; another garment is 60 away
PULLOVER = generate(10, seed=1, split="test")[0][0]


def enlarged(image: np.ndarray = PULLOVER, side: int = 112, margin: int = 20) -> np.ndarray:
    """On black with a margin, float (side + 2 * margin, the same)."""
    large = Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)
    return np.pad(np.asarray(large, dtype=float), margin)


def grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def on(background: np.ndarray | float, garment: np.ndarray, lighter: bool) -> np.ndarray:
    """The garment on another background, as far from it as white is, or black."""
    room = 255 - background if lighter else background
    return background + (garment if lighter else -garment) / 255 * room


PLAIN = pictures.as_dataset(grey(enlarged())).astype(int)


def distance(picture: Image.Image) -> float:
    return float(np.abs(pictures.as_dataset(picture).astype(int) - PLAIN).mean())


def test_an_image_of_the_dataset_passes_unchanged(shoe: np.ndarray, tmp_path: Path) -> None:
    Image.fromarray(shoe).save(tmp_path / "shoe.png")
    assert np.array_equal(pictures.read(tmp_path / "shoe.png"), shoe)


def test_nearly_all_drawn_images_pass_unchanged() -> None:
    images, _ = generate(300, seed=3, split="train")
    assert np.mean([np.array_equal(pictures.as_dataset(Image.fromarray(image)), image) for image in images]) >= 0.98


@needs_real_data
def test_nearly_all_official_test_images_pass_unchanged() -> None:
    packed = (Path(os.environ["FASHION_MNIST_DIR"]) / "t10k-images-idx3-ubyte.gz").read_bytes()
    images = np.frombuffer(gzip.decompress(packed), np.uint8, offset=16).reshape(-1, 28, 28)
    unchanged = sum(np.array_equal(pictures.as_dataset(Image.fromarray(image)), image) for image in images[::4])
    assert unchanged >= 0.998 * len(images[::4])


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK"])
@pytest.mark.parametrize("size", [(28, 28), (40, 28), (300, 500), (70, 2000)])
def test_every_size_and_mode_gives_28_by_28_bytes(mode: str, size: tuple[int, int]) -> None:
    picture = Image.new("L", size, 255)
    picture.paste(0, (size[0] // 4, size[1] // 4, size[0] // 2 + 1, size[1] // 2))
    result = pictures.as_dataset(picture.convert(mode))
    assert (result.shape, result.dtype) == ((28, 28), np.uint8)
    assert result.max() > 100


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK", "I", "F", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (28, 28), (300, 500)])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_picture_that_shows_nothing_is_refused(mode: str, size: tuple[int, int], level: int) -> None:
    if mode == "1" and level == 128:
        pytest.skip("is dithered, and shows a pattern")
    picture = Image.new(mode, size, level) if mode in ("I", "F", "I;16") else Image.new("L", size, level).convert(mode)
    if size == (28, 28) and level == 0:
        assert pictures.as_dataset(picture).max() == 0  # an image of the dataset may be dark
        return
    with pytest.raises(ValueError, match="nothing stands out"):
        pictures.as_dataset(picture)


def test_what_is_transparent_throughout_or_noise_alone_shows_nothing() -> None:
    noise = np.random.default_rng(0).normal(128, 10, (200, 200))
    for picture in (Image.new("RGBA", (80, 80), (0, 0, 0, 0)), grey(noise)):
        with pytest.raises(ValueError, match="nothing stands out"):
            pictures.as_dataset(picture)


def test_a_photograph_is_seen_upright_however_the_camera_was_held(shoe: np.ndarray, tmp_path: Path) -> None:
    lying = Image.fromarray(shoe).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned by 90 degrees, clockwise
    lying.save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(pictures.read(tmp_path / "photo.png"), shoe)


DEPTHS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "scan.png": lambda shoe: shoe.astype(np.uint16) * 257,
    "scan.tif": lambda shoe: shoe.astype(np.int32) * 257,
    "twelve-bits.png": lambda shoe: (shoe * (4095 / 255)).round().astype(np.uint16),
    "share.tif": lambda shoe: (shoe / 255).astype(np.float32),
    "float.tif": lambda shoe: shoe.astype(np.float32),
}


@pytest.mark.parametrize("name", DEPTHS)
def test_no_depth_of_grey_is_cut_off(name: str, tmp_path: Path) -> None:
    Image.fromarray(DEPTHS[name](np.asarray(grey(enlarged())))).save(tmp_path / name)
    assert np.abs(pictures.read(tmp_path / name).astype(int) - PLAIN).max() <= 1


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 40), np.nan, np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(UserError, match="values that are no numbers"):
        pictures.read(tmp_path / "nan.tif")


@given(background=st.integers(0, 255), lighter=st.booleans(), side=st.sampled_from([28, 100, 300]))
@settings(deadline=None, max_examples=40)
def test_not_the_background_but_what_stands_out_from_it_tells_light_from_dark(
    background: int, lighter: bool, side: int
) -> None:
    if (255 - background if lighter else background) < 25:
        lighter = not lighter
    small = side == 28
    garment = PULLOVER.astype(float) if small else enlarged(side=side, margin=side // 5)
    seen = pictures.as_dataset(grey(on(background, garment, lighter)))
    assert np.abs(seen.astype(int) - (PULLOVER.astype(int) if small else PLAIN)).mean() < NEAR


def uneven(kind: str, garment: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray | float]:
    """A background, float of the garment's shape, and the noise that comes upon the picture."""
    y, x = (np.linspace(-1, 1, length) for length in garment.shape)
    if kind == "light falls off to one side":
        return level + 40 * x + 20 * y[:, None], 0
    if kind == "dark corners":
        return level - 25 * (x**2 + y[:, None] ** 2), 0
    if kind == "a shadow":
        shadow = np.roll(ndimage.gaussian_filter((garment > 8).astype(float), 6), (14, 14), axis=(0, 1))
        return level * (1 - 0.2 * shadow), 0
    return np.full(garment.shape, level), np.random.default_rng(0).normal(0, 12, garment.shape)


@pytest.mark.parametrize("lighter", [True, False], ids=["lighter", "darker"])
@pytest.mark.parametrize("level", [90, 150])
@pytest.mark.parametrize("kind", ["light falls off to one side", "dark corners", "a shadow", "noise"])
def test_an_uneven_background_is_estimated(kind: str, level: float, lighter: bool) -> None:
    garment = enlarged(side=224, margin=40)
    background, noise = uneven(kind, garment, level)
    assert distance(grey(on(background, garment, lighter) + noise)) < 2 * NEAR


def test_dark_on_light_becomes_light_on_dark(shoe: np.ndarray) -> None:
    assert np.array_equal(pictures.as_dataset(ImageOps.invert(Image.fromarray(shoe))), shoe)


def test_margins_and_size_do_not_matter(shoe: np.ndarray) -> None:
    large = Image.fromarray(shoe).resize((280, 280), Image.Resampling.NEAREST)
    photo = ImageOps.invert(ImageOps.expand(large, 100, 0))
    near = pictures.as_dataset(photo).astype(int)
    centred = np.roll(shoe, 2, axis=0)  # its rows 4 to 19 come into the middle
    assert np.abs(near - centred).mean() < 6


@pytest.mark.parametrize("garment", [0, 40, 200, 255])
def test_what_is_transparent_is_background_whatever_the_garments_own_grey(garment: int) -> None:
    picture = Image.new("LA", (100, 100), (255 - garment, 0))
    picture.paste((garment, 255), (20, 20, 80, 60))
    result = pictures.as_dataset(picture)
    assert result[:4].max() == 0
    assert result[14, 14] >= 150


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\nbroken"])
def test_what_is_no_picture_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "shoe.png").write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as a picture"):
        pictures.read(tmp_path / "shoe.png")


def test_folders_are_looked_through_once_and_what_is_left_out_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.png", "below/b.JPG", "._a.png", ".ipynb_checkpoints/a.png", "c.heic", "below/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "below/again").symlink_to(tmp_path)
    (tmp_path / "linked").symlink_to(tmp_path / "below")
    found = [file.relative_to(tmp_path).as_posix() for file in pictures.files_of([tmp_path])]
    assert sorted(file.rpartition("/")[2] for file in found) == ["a.png", "b.JPG"]
    assert "ends so: 1 x .heic, 1 x .txt" in capsys.readouterr().err
