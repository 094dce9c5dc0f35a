"""Pictures from anywhere, made to look like Fashion-MNIST: 28 x 28 pixels, grey, light on dark."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fashion_mnist.data.decode import opaque, opened
from fashion_mnist.data.images import is_picture, visible
from fashion_mnist.errors import say

SIDE = 28
LARGEST = 560  # pixels each way that are looked at
EMPTY = 0.05  # of what the background leaves for contrast; so much is cut off in the dataset's paper, too
NOISE = 4  # standard deviations
LIMITS = (1, 255, 4095, 65535)  # what white may be where a file does not say so


def files_of(places: Iterable[Path]) -> Iterator[Path]:
    """The files among `places`, and every picture, by its suffix, in the folders among them and below.

    Says how many other files there are; what is hidden, as copies of the system's are, is not looked at.
    """
    for place in places:
        if not place.is_dir():
            yield place
            continue
        files = sorted(visible(place))
        yield from (file for file in files if is_picture(file))
        if others := Counter(file.suffix or "no suffix" for file in files if not is_picture(file)):
            counts = ", ".join(f"{count} x {suffix}" for suffix, count in sorted(others.items()))
            say(f"left out in {place}, since no picture that can be read here ends so: {counts}.")


def read(file: Path) -> np.ndarray:
    """Reads a picture of any size and mode as a model expects it, uint8 (28, 28).

    Raises:
        UserError: the file is missing, no picture, or shows nothing.
    """
    with opened(file) as picture:
        return as_dataset(ImageOps.exif_transpose(picture))  # upright, however the camera was held


def as_dataset(picture: Image.Image) -> np.ndarray:
    """Follows the steps by which Fashion-MNIST was made (https://arxiv.org/abs/1708.07747, figure 1), uint8 (28, 28).

    What is drawn is lighter than the background, or darker, and becomes light on black, as light as it stands out from
    the background. What is empty around it is cut off, its longer side is made 28 pixels, and it is put into the
    middle. A picture of 28 x 28 pixels keeps its place and size, and one of the dataset every pixel.

    Raises:
        ValueError: nothing is drawn.
    """
    from scipy import ndimage

    grey = brightness(picture)
    as_large = grey.size == (SIDE, SIDE)
    grey.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    pixels = np.asarray(grey)
    if as_large and (pixels[rim(pixels)] == 0).mean() >= 0.25:  # so it is with all but 6 of the dataset's 70,000 images
        return pixels.astype(np.uint8)
    pixels = pixels.astype(float)
    ground = background(pixels)
    difference = pixels - ground
    smooth = difference if as_large else ndimage.gaussian_filter(difference, 1 + min(pixels.shape) / 150)
    noise = 1.4826 * np.median(np.abs(smooth[rim(smooth)]))  # the standard deviation, whatever lies at the rim
    room = np.where(smooth > 0, 255 - ground, ground)
    drawn = np.abs(smooth) > np.maximum(EMPTY * room, max(NOISE * noise, 2))
    if not drawn.any():
        raise ValueError("nothing stands out from its background")
    lighter = (smooth * np.abs(smooth))[drawn].sum() > 0
    drawn &= np.where(lighter, difference, -difference) > EMPTY * room
    garment = 255 * (difference / np.maximum(255 - ground, 1) if lighter else -difference / np.maximum(ground, 1))
    if as_large:
        return garment.clip(0, 255).round().astype(np.uint8)
    rows, columns = (np.flatnonzero(drawn.any(axis=axis)) for axis in (1, 0))
    return in_the_middle(garment[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])


def brightness(picture: Image.Image) -> Image.Image:
    """Greys from 0 to 255 as floats, of whatever a file holds; what is cut out is put on what it stands out from."""
    if picture.mode[0] in "IF":
        values = np.asarray(picture).astype(float)
        if not np.isfinite(values).all():
            raise ValueError("it holds values that are no numbers")
        values -= min(values.min(), 0)
        white = next((limit for limit in LIMITS if values.max() <= limit), values.max())
        return Image.fromarray((values / white * 255).astype(np.float32))
    return opaque(picture).convert("L").convert("F")


def rim(pixels: np.ndarray, width: int = 1) -> np.ndarray:
    """Where the edge of a picture is, bool of its shape."""
    edge = np.ones(pixels.shape, dtype=bool)
    edge[width:-width, width:-width] = False
    return edge


def background(pixels: np.ndarray) -> np.ndarray:
    """What lies behind the garment, float of the picture's shape: light that falls off changes it but slowly.

    A surface of the second degree is put through the edge of the picture; Cauchy's loss hardly minds a garment that
    reaches it.
    """
    from scipy.optimize import least_squares

    y, x = (np.linspace(-1, 1, length) for length in pixels.shape)
    y, x = np.broadcast_arrays(y[:, None], x)
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    edge = rim(pixels, max(1, round(0.04 * min(pixels.shape))))
    at_edge, values = terms[edge], pixels[edge]

    def misses(weights: np.ndarray) -> np.ndarray:
        return at_edge @ weights - values

    start = np.array([np.median(values), 0, 0, 0, 0, 0])
    weights = least_squares(misses, start, loss="cauchy", f_scale=4).x
    return (terms @ weights).clip(0, 255)


def in_the_middle(garment: np.ndarray) -> np.ndarray:
    """Makes the longer side 28 pixels, and puts it into the middle of black, uint8 (28, 28)."""
    scale = SIDE / max(garment.shape)
    height, width = (max(1, round(length * scale)) for length in garment.shape)
    resized = Image.fromarray(garment.astype(np.float32)).resize((width, height), Image.Resampling.LANCZOS)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    result = np.zeros((SIDE, SIDE), dtype=np.uint8)
    result[top : top + height, left : left + width] = np.asarray(resized).clip(0, 255)
    return result
