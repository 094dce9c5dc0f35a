"""Pictures from anywhere, made to look like Fashion-MNIST: 28 x 28 pixels, grey, light on dark."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fashion_mnist.errors import UserError

SIDE = 28
EMPTY = 13  # a pixel at most this far from the background belongs to it: 5 % of the range, as in the dataset's paper


def files_of(places: Iterable[Path]) -> Iterator[Path]:
    """The files among `places`, and every picture, by its suffix, in the folders among them and below."""
    known = Image.registered_extensions()
    for place in places:
        if place.is_dir():
            yield from (file for file in sorted(place.rglob("*")) if file.suffix.lower() in known and file.is_file())
        else:
            yield place


def read(file: Path) -> np.ndarray:
    """Reads a picture of any size and mode as a model expects it, uint8 (28, 28).

    Raises:
        UserError: the file is missing or no picture.
    """
    try:
        with Image.open(file) as picture:
            return as_dataset(ImageOps.exif_transpose(picture))  # upright, however the camera was held
    except FileNotFoundError:
        raise UserError(f"there is no file {file}.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{file} cannot be read as a picture ({' '.join(str(error).split())}).") from error


def as_dataset(picture: Image.Image) -> np.ndarray:
    """Follows the steps by which Fashion-MNIST was made (https://arxiv.org/abs/1708.07747, figure 1), uint8 (28, 28).

    Transparency is put on white. The background is the median of the picture's edge; where it is lighter than the
    middle grey, light and dark are exchanged. What is empty around the garment is cut off, its longer side is made 28
    pixels, and it is put into the middle. A picture of 28 x 28 pixels keeps its place and size.
    """
    if picture.mode.startswith("I;16"):  # Pillow would cut off all greys but the darkest
        picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
    if "A" in picture.getbands() or "transparency" in picture.info:
        coloured = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", coloured.size, "white"), coloured)
    pixels = np.asarray(picture.convert("L"))
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    background = int(np.median(edge))
    if background > 127:
        pixels, background = 255 - pixels, 255 - background
    if pixels.shape == (SIDE, SIDE):
        return pixels
    drawn = np.abs(pixels.astype(int) - background) > EMPTY
    if drawn.any():
        rows, columns = (np.flatnonzero(drawn.any(axis=axis)) for axis in (1, 0))
        pixels = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    height, width = pixels.shape
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)).astype(int) - background
    result = np.zeros((SIDE, SIDE), dtype=np.uint8)
    top, left = (SIDE - size[1]) // 2, (SIDE - size[0]) // 2
    result[top : top + size[1], left : left + size[0]] = small.clip(0, 255)
    return result
