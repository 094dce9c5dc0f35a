"""One picture, of whatever kind its file is, as bytes of a given shape.

It is turned upright, put on white or black where it is transparent, made grey or coloured, and stretched to its shape,
as Keras's `image_dataset_from_directory` does it. So are training images, and pictures that a model is asked about.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fashion_mnist.errors import UserError

MOST_PIXELS = 1 << 28  # of a photograph; telephones take 200 million


class Look(NamedTuple):
    """What the head of a file says of its picture."""

    side: int  # pixels of the longer one
    grey: bool


@contextmanager
def no_bombs() -> Iterator[None]:
    """Within, for all threads, a small file that says it has more pixels than any photograph is an error.

    Pillow itself warns of a third of so many already, and goes on.
    """
    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS
    try:
        with warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning):
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


@contextmanager
def opened(file: Path) -> Iterator[Image.Image]:
    """A picture of any kind; whatever cannot be read is a UserError, also while one is at work with it."""
    try:
        if file.exists() and not file.is_file():
            raise ValueError("it is no file")
        with Image.open(file) as picture:
            yield picture
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"there is no file {file}.") from None
    except UnidentifiedImageError as error:
        reason = "it is empty" if file.is_file() and not file.stat().st_size else "it is of no kind that is known"
        raise UserError(f"{file} cannot be read as a picture ({reason}).") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UserError(f"{file} cannot be read as a picture (it has far more pixels than any photograph).") from error
    except Exception as error:  # damage comes up as anything, from struct.error to RuntimeError
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"{file} cannot be read as a picture ({reason}).") from error


def look(file: Path) -> Look:
    with opened(file) as picture:
        refuse_frames(picture)
        return Look(max(picture.size), is_grey(picture))


def refuse_frames(picture: Image.Image) -> None:
    if getattr(picture, "is_animated", False) and picture.format != "MPO":  # as cameras write photographs
        raise ValueError(f"it has {getattr(picture, 'n_frames', 'several')} frames")


def is_grey(picture: Image.Image) -> bool:
    if picture.mode in ("P", "PA"):
        palette = np.array(picture.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return picture.mode[0] in "1LIF" and picture.mode != "LAB"


def read(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A picture as images of this shape are made of it, uint8."""
    with opened(file) as picture:
        refuse_frames(picture)
        picture.draft(None, (4 * shape[1], 4 * shape[0]))  # a large JPEG is decoded smaller, in a fraction of the time
        return as_bytes(ImageOps.exif_transpose(picture), shape)


def as_bytes(picture: Image.Image, shape: tuple[int, ...]) -> np.ndarray:
    """A picture that is upright, as images of this shape are made of it, uint8."""
    height, width, *colours = shape
    plain = opaque(in_bytes(picture)).convert("RGB" if colours else "L")
    if plain.size != (width, height):
        plain = plain.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(plain)


def in_bytes(picture: Image.Image) -> Image.Image:
    """The same picture with values from 0 to 255; raises ValueError where nobody can tell which value is white."""
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise ValueError("its values have 32 bits; save it with 8")
    return picture


def opaque(picture: Image.Image) -> Image.Image:
    """The same picture, with what is cut out put on what it stands out from, black or white."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture
    coloured = picture.convert("RGBA")
    cover = np.asarray(coloured.getchannel("A"), dtype=float)
    light = (np.asarray(coloured.convert("RGB").convert("L")) * cover).sum() > 127 * cover.sum()
    return Image.alpha_composite(Image.new("RGBA", coloured.size, "black" if light else "white"), coloured)
