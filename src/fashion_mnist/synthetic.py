"""A stand-in for Fashion-MNIST: ten kinds of garment, drawn by program instead of photographed.

It serves machines that can reach no host to download the real images from. The classes, their order, the
size, the type and the look (light garment, black background, shoes pointing left) are those of
Fashion-MNIST, and some shirts could pass for coats there as here. The accuracy of a model on these images
says nothing about its accuracy on the real ones.
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

SIDE = 28
# Pillow draws hard edges; drawing larger and averaging down gives the soft edges of a shrunk photograph.
SUPERSAMPLING = 4

Point = tuple[float, float]
Range = tuple[float, float]


class Sketch:
    """One garment being drawn; x runs from -14 (left) to 14 (right), y from 0 (top) to 28 (bottom).

    Brightness is given as a tone relative to the fabric: 1 is as bright as the fabric, 0 is black.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        """Take an empty canvas and choose the fabric's brightness and the garment's position."""
        self.rng = rng
        self.canvas = Image.new("L", (SIDE * SUPERSAMPLING, SIDE * SUPERSAMPLING))
        self.pen = ImageDraw.Draw(self.canvas)
        self.shade = self.between(75, 255)
        # Trimmings come darker and lighter than the fabric, but a lighter one shows on dark fabric only.
        lighter = self.shade < 160 and self.chance(0.7)
        self.accent = self.between(1.4, 1.8) if lighter else self.between(0.2, 0.6)
        self.tilt, self.scale = rng.normal(0, 0.05), self.between(0.9, 1.06)
        self.right, self.down = self.between(-1.4, 1.4), self.between(-1.2, 1.2)

    def between(self, low: float, high: float) -> float:
        """Return a random number from [low, high)."""
        return low + (high - low) * self.rng.random()

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.rng.random() < probability

    def place(self, points: Sequence[Point]) -> list[Point]:
        """Return the points rotated, scaled and shifted, in pixels of the canvas."""
        middle, size = SIDE / 2, self.scale * SUPERSAMPLING
        right, down = (middle + self.right) * SUPERSAMPLING, (middle + self.down) * SUPERSAMPLING
        cosine, sine = size * math.cos(self.tilt), size * math.sin(self.tilt)
        centred = [(x, y - middle) for x, y in points]
        return [(right + cosine * x - sine * y, down + sine * x + cosine * y) for x, y in centred]

    def shape(self, points: Sequence[Point], tone: float = 1.0) -> None:
        """Fill the polygon with these corners."""
        self.pen.polygon(self.place(points), fill=min(255, round(self.shade * tone)))

    def pair(self, points: Sequence[Point], tone: float = 1.0) -> None:
        """Fill the polygon with these corners and its mirror image."""
        self.shape(points, tone)
        self.shape([(-x, y) for x, y in points], tone)

    def line(self, points: Sequence[Point], width: float, tone: float) -> None:
        """Draw a line through the points."""
        pixels = max(1, round(width * self.scale * SUPERSAMPLING))
        self.pen.line(self.place(points), min(255, round(self.shade * tone)), pixels, joint="curve")

    def trim(self, points: Sequence[Point], low: float, high: float) -> None:
        """Draw a trimming as wide as a random number from [low, high), or none if that is negative."""
        width = self.between(low, high)
        if width > 0:
            self.line(points, width, self.accent)

    def dots(self, start: Point, end: Point, tone: float) -> None:
        """Draw a row of buttons or laces."""
        for part in np.linspace(0.1, 0.9, int(self.rng.integers(4, 8))).tolist():
            x, y = start[0] + part * (end[0] - start[0]), start[1] + part * (end[1] - start[1])
            self.line([(x - 0.6, y), (x + 0.6, y)], 0.8, tone)


def _arch(x: float, y: float, width: float, height: float) -> list[Point]:
    """Return points on half an ellipse that stands on (x, y); one of negative height hangs."""
    angles = [math.pi * step / 10 for step in range(11)]
    return [(x - width * math.cos(angle), y - height * math.sin(angle)) for angle in angles]


def _body(
    sketch: Sketch, sleeve: float, cuff: float, flare: float, shoulder: Range = (5.2, 6.8)
) -> tuple[float, float, float]:
    """Draw sleeves and body of an upper garment; return its top, half its waist's width and its bottom."""
    top, bottom, half = sketch.between(1, 2.2), sketch.between(24.3, 27.8), sketch.between(*shoulder)
    waist = half - sketch.between(-0.3, 1.2)
    if sleeve > 0:
        # The longer a sleeve, the closer it hangs to the body.
        spread = sketch.between(0.8, 1.0) - 0.033 * sleeve
        right, down = math.cos(spread), math.sin(spread)
        x, y = -half - sleeve * down, top + 2 + sleeve * right
        arm = [(2 - half, top + 0.6), (-half, top + 1.8), (x, y), (x + cuff * right, y + cuff * down)]
        sketch.pair([*arm, (1 - half, top + 7)], sketch.between(0.8, 1.05))
    side = [(-half, top + 1.8), (-0.5 * (half + waist) - 0.2, top + 7), (-waist, 0.5 * (top + bottom))]
    left = [(0, top), (-0.4 * half, top), *side, (-waist - flare, bottom), (0, bottom)]
    # A slightly wider body in another tone shows as the seam between sleeve and body.
    sketch.pair([(1.07 * x, y) for x, y in left], sketch.between(0.3, 0.9))
    sketch.pair(left)
    return top, waist, bottom


def _neckline(sketch: Sketch, top: float, width: float) -> None:
    edge = _arch(0, top - 0.5, width, sketch.between(-3.5, -1))
    if sketch.chance(0.3):
        edge = [edge[0], edge[5], edge[10]]
    sketch.shape(edge, 0)
    sketch.line(edge, 0.6, sketch.between(0.6, 1.2))


def _collar(sketch: Sketch, top: float, size: float) -> None:
    sketch.shape([(-2.4, top - 0.3), (0, top + size), (2.4, top - 0.3)], sketch.accent)
    flap = [(-2.2, top - 1), (-0.2, top + size), (-3, top + size), (-3.6, top)]
    sketch.pair(flap, sketch.between(0.8, 1.2))


def _tshirt(sketch: Sketch) -> None:
    sleeve = sketch.between(9, 19) if sketch.chance(0.12) else sketch.between(2, 7)
    top, _, _ = _body(sketch, sleeve, sketch.between(3.5, 5.5), sketch.between(-0.2, 1))
    _neckline(sketch, top, sketch.between(2, 3.6))
    width, y = sketch.between(1.5, 4), top + sketch.between(5, 10)
    sketch.trim([(-width, y), (width, y)], -3, 4)


def _trouser(sketch: Sketch) -> None:
    waist, hip, gap = sketch.between(2.8, 4.6), sketch.between(4, 5.6), sketch.between(0.3, 2.4)
    top, bottom, crotch = sketch.between(0.5, 1.5), sketch.between(25.5, 27.5), sketch.between(8, 10.5)
    ankle = gap + sketch.between(1.8, 3.2)
    sketch.pair([(0, top), (-waist, top), (-hip, crotch - 2), (-ankle, bottom), (-gap, bottom), (0, crotch)])
    sketch.line([(-waist, top + 0.8), (waist, top + 0.8)], 0.7, sketch.between(0.5, 1.2))
    sketch.line([(0, top), (0, crotch)], 0.6, sketch.between(0.3, 0.8))


def _pullover(sketch: Sketch) -> None:
    flare = sketch.between(-0.4, 0.8)
    top, waist, bottom = _body(sketch, sketch.between(17, 23), sketch.between(2.8, 4.2), flare)
    if sketch.chance(0.2):
        _collar(sketch, top, sketch.between(1.5, 3.5))
    else:
        _neckline(sketch, top, sketch.between(1.8, 3.2))
    sketch.trim([(-waist - flare, bottom - 1), (waist + flare, bottom - 1)], -1.2, 2.4)
    width, y = sketch.between(1.5, 4), top + sketch.between(5, 10)
    sketch.trim([(-width, y), (width, y)], -3, 4)


def _dress(sketch: Sketch) -> None:
    sleeve = sketch.between(2.5, 6) if sketch.chance(0.5) else sketch.between(-25, 19)
    flare = sketch.between(0.3, 5)
    top, waist, _ = _body(sketch, sleeve, sketch.between(2.2, 3.6), flare, shoulder=(3, 5.2))
    _neckline(sketch, top, 0.4 * waist + sketch.between(0, 0.8))
    belt = top + sketch.between(9, 12)
    sketch.trim([(-waist, belt), (waist, belt)], -1.5, 1.5)


def _coat(sketch: Sketch) -> None:
    sleeve, cuff = sketch.between(17, 23), sketch.between(2.8, 4.3)
    top, _, bottom = _body(sketch, sleeve, cuff, sketch.between(-0.2, 1.2))
    if sketch.chance(0.8):
        _collar(sketch, top, sketch.between(3, 8))
    else:
        _neckline(sketch, top, sketch.between(1.8, 3.2))
    sketch.trim([(0, top + 2), (0, bottom)], -0.2, 3)
    if sketch.chance(0.6):
        y = bottom - 7
        sketch.pair([(-5, y - 1), (-2.4, y - 0.5), (-2.4, y + 0.5), (-5, y)], sketch.accent)


def _sandal(sketch: Sketch) -> None:
    heel = sketch.between(5, 14) if sketch.chance(0.35) else sketch.between(0.4, 2.5)
    ground, width = 18 + 0.4 * heel, sketch.between(0.8, 2.4)
    arch, back = ground - 0.6 * heel, ground - heel
    sketch.line([(-13, ground - 0.5), (-6, ground), (3, arch), (12.5, back)], sketch.between(1, 2), 1)
    if heel > 3:
        sketch.shape([(8, ground - 0.8 * heel), (12.8, back - 0.5), (12, ground), (10.6, ground)])
    else:
        sketch.shape([(-1, ground), (12.8, back), (12.8, ground + 1), (-12.5, ground + 1)])
    for _ in range(int(sketch.rng.integers(1, 5))):
        x = sketch.between(-9, 3)
        strap = _arch(x, ground if x < -4 else arch, sketch.between(1.5, 5), sketch.between(2, 7))
        sketch.line(strap, width, sketch.between(0.7, 1.1))
    if sketch.chance(0.6):
        ankle = back - sketch.between(3, 8)
        sketch.line([(12, back), (11.5, ankle), (5, ankle + 1), (0, arch)], width, 1)


def _shirt(sketch: Sketch) -> None:
    sleeve = sketch.between(14, 22) if sketch.chance(0.65) else sketch.between(3, 9)
    top, _, bottom = _body(sketch, sleeve, sketch.between(2.6, 4.5), sketch.between(-0.2, 1))
    if sketch.chance(0.8):
        _collar(sketch, top, sketch.between(1.5, 4))
    else:
        _neckline(sketch, top, sketch.between(2, 3.4))
    sketch.trim([(0, top + 2), (0, bottom)], -0.2, 1.5)
    if sketch.chance(0.75):
        sketch.dots((0, top + 2), (0, bottom), 2 - sketch.accent)
    if sketch.chance(0.6):
        # A shirt tail: the hem hangs lower in the middle than at the sides.
        sketch.pair([(-8, bottom - 2), (-8, SIDE), (-2, SIDE)], 0)


def _sneaker(sketch: Sketch) -> None:
    ankle = sketch.between(10, 16) if sketch.chance(0.2) else sketch.between(7, 10)
    ground, x = 15.5 + 0.5 * ankle, sketch.between(-2, 1.5)
    top = ground - ankle
    toe = [(-13, ground), (-12.8, ground - 2), (-11, ground - 3.6), (-7, ground - 4.6)]
    opening = [(x, top + 0.2 * ankle), (x + 3, top), (6, top + 1.6), (10, top + 0.8), (12.2, top - 0.3)]
    sketch.shape([*toe, *opening, (13, ground)])
    sketch.trim([(-13.2, ground), (13.2, ground)], 1.4, 3)
    sketch.dots((-6, ground - 4), (x + 2, top + 1.5), sketch.accent)
    sketch.trim([(-1, ground - 1.5), (7, ground - 0.6 * ankle)], -1.4, 2)


def _bag(sketch: Sketch) -> None:
    width, height, taper = sketch.between(7.5, 12.8), sketch.between(7, 16), sketch.between(-1.5, 2.5)
    handle = min(sketch.between(3, 11), 26 - height)
    top = 14 - (height - handle) / 2
    if sketch.chance(0.8):
        arch = _arch(0, top + 0.5, sketch.between(0.3, 0.75) * width, handle)
        sketch.line(arch, sketch.between(0.7, 1.6), sketch.between(0.7, 1.1))
    bottom, flap = top + height, top + sketch.between(0.3, 0.6) * height
    sketch.pair([(0, top), (taper - width, top), (-width, bottom - 1), (1 - width, bottom), (0, bottom)])
    sketch.trim([(-width, top + 2), (0, flap), (width, top + 2)], -0.8, 0.8)
    sketch.trim([(-1, flap), (1, flap)], -2, 3)


def _boot(sketch: Sketch) -> None:
    height = sketch.between(10, 16) if sketch.chance(0.25) else sketch.between(16, 23)
    heel, ground, shaft = sketch.between(0.5, 0.3 * height), 15 + 0.5 * height, sketch.between(-3.5, 0.5)
    top, toe, back = ground - height, ground - sketch.between(2.5, 4.5), ground - heel
    leg = [(shaft, top), (11.5, top - sketch.between(-0.5, 1)), (11, back - 6), (12, back)]
    foot = [(2, ground - 0.5 * heel), (-5, ground), (-12.5, ground), (-12.8, toe + 1), (-11, toe)]
    instep = (shaft - 1, min(toe - 5, ground - 8) - 0.15 * heel)
    sketch.shape([*leg, *foot, (-7, toe - 1.5 - 0.5 * heel), instep])
    sketch.shape([(5, back - 0.8), (12.2, back - 0.8), (12, ground), (7, ground)], 0.75)
    sketch.trim([(-12.5, ground), (-4, ground), (3, ground - 0.5 * heel)], 0.6, 2)
    sketch.trim([(5, top), (4.5, toe - 3)], -4, 3)
    if sketch.chance(0.4):
        sketch.dots((shaft + 1.5, top), instep, sketch.accent)


# In the order of the labels.
GARMENTS = (_tshirt, _trouser, _pullover, _dress, _coat, _sandal, _shirt, _sneaker, _bag, _boot)


def _fabric(rng: np.random.Generator) -> np.ndarray:
    """Return shading, weave and pattern: (28, 28) float64 factors of the brightness."""
    across, down = np.linspace(-1, 1, SIDE), np.linspace(-1, 1, SIDE)[:, None]
    fabric = 1 + rng.uniform(-0.4, 0.4) * across + rng.uniform(-0.3, 0.3) * down
    fabric += rng.uniform(0, 0.07) * rng.standard_normal((SIDE, SIDE))
    if rng.random() < 0.2:
        stripes = np.arange(SIDE) % rng.integers(3, 7) < rng.integers(1, 3)
        pattern = (stripes[:, None], stripes, stripes ^ stripes[:, None])[rng.integers(3)]
        fabric *= np.where(pattern, rng.uniform(0.4, 0.9), 1)
    return fabric


def generate(count: int, seed: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Draw a balanced, shuffled set of garments; the same arguments give the same bytes.

    Args:
        count: Number of images.
        seed: Any number from 0 up; another seed draws other garments.
        split: Name of the split, "train" or "test"; each has its own independent stream of garments.

    Returns:
        The images, (count, 28, 28) uint8, and their labels, (count,) uint8, in Fashion-MNIST's order.
        The sizes of any two classes differ by at most one.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, *split.encode()]))
    labels = rng.permutation(np.arange(count) % len(GARMENTS)).astype(np.uint8)
    images = np.zeros((count, SIDE, SIDE), dtype=np.uint8)
    for index, label in enumerate(labels.tolist()):
        sketch = Sketch(rng)
        GARMENTS[label](sketch)
        image = np.asarray(sketch.canvas.reduce(SUPERSAMPLING)) * _fabric(rng)
        images[index] = image.clip(0, 255)
    return images, labels
