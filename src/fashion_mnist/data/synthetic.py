"""A stand-in for Fashion-MNIST: ten kinds of garment, drawn by program instead of photographed.

It serves machines that can reach no host to download the real images from. Classes, order, size, type and look (light
garment, black background, shoes pointing left) are those of Fashion-MNIST; here too some shirts could pass for coats.
Accuracy on these images says nothing about accuracy on the real ones.
"""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

SIDE = 28
SUPERSAMPLING = 4  # Pillow draws hard edges; drawn larger and averaged down, they are soft as in a shrunk photograph

Point = tuple[float, float]


class Sketch:
    """One garment being drawn: x from -14 to 14, y from 0 to 28; tone 0 is black, tone 1 the fabric."""

    def __init__(self, rng: np.random.Generator) -> None:
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
        return low + (high - low) * self.rng.random()

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def place(self, points: Sequence[Point]) -> list[Point]:
        """The points rotated, scaled and shifted, in pixels of the canvas."""
        middle, size = SIDE / 2, self.scale * SUPERSAMPLING
        right, down = (middle + self.right) * SUPERSAMPLING, (middle + self.down) * SUPERSAMPLING
        cosine, sine = size * math.cos(self.tilt), size * math.sin(self.tilt)
        centred = [(x, y - middle) for x, y in points]
        return [(right + cosine * x - sine * y, down + sine * x + cosine * y) for x, y in centred]

    def shape(self, points: Sequence[Point], tone: float = 1.0) -> None:
        """Fills the polygon with these corners."""
        self.pen.polygon(self.place(points), fill=min(255, round(self.shade * tone)))

    def pair(self, points: Sequence[Point], tone: float = 1.0) -> None:
        """Fills the polygon with these corners and its mirror image."""
        self.shape(points, tone)
        self.shape([(-x, y) for x, y in points], tone)

    def line(self, points: Sequence[Point], width: float, tone: float, chance: float = 1.0) -> None:
        if self.chance(chance):
            pixels = max(1, round(width * self.scale * SUPERSAMPLING))
            self.pen.line(self.place(points), min(255, round(self.shade * tone)), pixels, joint="curve")

    def dots(self, start: Point, end: Point, tone: float, chance: float) -> None:
        """Draws, with the given probability, a row of buttons or laces."""
        count = int(self.rng.integers(4, 8)) if self.chance(chance) else 0
        for x, y in np.linspace(start, end, count).tolist():
            self.line([(x - 0.6, y), (x + 0.6, y)], 0.8, tone)


def _arch(x: float, y: float, width: float, height: float) -> list[Point]:
    """Points on half an ellipse that stands on (x, y); one of negative height hangs."""
    angles = [math.pi * step / 10 for step in range(11)]
    return [(x - width * math.cos(angle), y - height * math.sin(angle)) for angle in angles]


def _body(sketch: Sketch, shoulder: float, flare: float, sleeve: float) -> Point:
    """Draws the sleeves and the body of an upper garment; returns the heights of its top and its bottom."""
    top, bottom = sketch.between(1, 2.2), sketch.between(24.3, 27.8)
    waist, cuff = shoulder - sketch.between(-0.3, 1.2), shoulder * sketch.between(0.45, 0.7)
    if sleeve > 0:
        # The longer a sleeve, the closer it hangs to the body.
        spread = sketch.between(0.8, 1.0) - 0.033 * sleeve
        right, down = math.cos(spread), math.sin(spread)
        x, y = -shoulder - sleeve * down, top + 2 + sleeve * right
        hand = [(x, y), (x + cuff * right, y + cuff * down), (1 - shoulder, top + 7)]
        sketch.pair([(2 - shoulder, top + 0.6), (-shoulder, top + 1.8), *hand], sketch.between(0.8, 1.05))
    side = [(-shoulder, top + 1.8), (-0.5 * (shoulder + waist) - 0.2, top + 7), (-waist, (top + bottom) / 2)]
    left = [(0, top), (-0.4 * shoulder, top), *side, (-waist - flare, bottom), (0, bottom)]
    # A slightly wider body in another tone shows as the seam between sleeve and body.
    sketch.pair([(1.07 * x, y) for x, y in left], sketch.between(0.3, 0.9))
    sketch.pair(left)
    return top, bottom


def _neck(sketch: Sketch, top: float, width: float, collar: float = 0.0) -> None:
    """Draws a collar of the given size or, where that is not positive, cuts out a neckline."""
    if collar > 0:
        sketch.shape([(-2.4, top - 0.3), (0, top + collar), (2.4, top - 0.3)], sketch.accent)
        flap = [(-2.2, top - 1), (-0.2, top + collar), (-3, top + collar), (-3.6, top)]
        sketch.pair(flap, sketch.between(0.8, 1.2))
    else:
        edge = _arch(0, top - 0.5, width, sketch.between(-3.5, -1))
        sketch.shape(edge, 0)
        sketch.line(edge, 0.6, sketch.between(0.6, 1.2))


def _tshirt(sketch: Sketch) -> None:
    sleeve = sketch.between(9, 19) if sketch.chance(0.12) else sketch.between(2, 7)
    top, _ = _body(sketch, sketch.between(5.3, 7), sketch.between(-0.2, 1), sleeve)
    _neck(sketch, top, sketch.between(2, 3.6))
    width, y = sketch.between(1.5, 4), top + sketch.between(6, 10)
    sketch.line([(-width, y), (width, y)], sketch.between(1, 4), sketch.accent, chance=0.4)


def _trouser(sketch: Sketch) -> None:
    waist, hip, gap = sketch.between(2.8, 4.6), sketch.between(4, 5.6), sketch.between(0.3, 2.4)
    top, bottom, crotch = sketch.between(0.5, 1.5), sketch.between(25.5, 27.5), sketch.between(8, 10.5)
    leg = [(-gap - sketch.between(1.8, 3.2), bottom), (-gap, bottom), (0, crotch)]
    sketch.pair([(0, top), (-waist, top), (-hip, crotch - 2), *leg])
    sketch.line([(-waist, top + 1), (0, top + 1), (0, crotch)], 0.6, sketch.between(0.3, 0.9))


def _pullover(sketch: Sketch) -> None:
    shoulder = sketch.between(5.2, 6.8)
    top, bottom = _body(sketch, shoulder, sketch.between(-0.4, 0.8), sketch.between(17, 23))
    _neck(sketch, top, sketch.between(1.8, 3.2), collar=sketch.between(-12, 3.5))
    sketch.line([(-shoulder, bottom - 1), (shoulder, bottom - 1)], 1.8, sketch.accent, chance=0.6)
    width, y = sketch.between(1.5, 4), top + sketch.between(6, 10)
    sketch.line([(-width, y), (width, y)], sketch.between(1, 4), sketch.accent, chance=0.5)


def _dress(sketch: Sketch) -> None:
    shoulder, sleeve = sketch.between(3, 5.2), sketch.between(-18, 18)
    top, _ = _body(sketch, shoulder, sketch.between(0.3, 5), sleeve)
    _neck(sketch, top, 0.4 * shoulder + sketch.between(0, 0.6))
    belt = top + sketch.between(9, 12)
    sketch.line([(0.5 - shoulder, belt), (shoulder - 0.5, belt)], 1, sketch.accent, chance=0.5)


def _coat(sketch: Sketch) -> None:
    top, bottom = _body(sketch, sketch.between(5.2, 6.8), sketch.between(-0.2, 1.2), sketch.between(17, 23))
    _neck(sketch, top, sketch.between(1.8, 3.2), collar=sketch.between(3, 8) if sketch.chance(0.8) else 0)
    sketch.line([(0, top + 2), (0, bottom)], sketch.between(1.4, 3), sketch.accent, chance=0.9)
    y = bottom - sketch.between(6, 9)
    sketch.pair([(-5, y - 1), (-2.4, y - 0.5), (-2.4, y + 0.3), (-5, y)], sketch.accent)


def _sandal(sketch: Sketch) -> None:
    heel = sketch.between(5, 14) if sketch.chance(0.35) else sketch.between(0.4, 2.5)
    ground, width, inner = 18 + 0.4 * heel, sketch.between(0.8, 2.4), 8 if heel > 3 else -9
    arch, back = ground - 0.6 * heel, ground - heel
    sketch.line([(-13, ground - 0.5), (-6, ground), (3, arch), (12.5, back)], sketch.between(1, 2), 1)
    sketch.shape([(inner, ground - 0.8 * heel), (12.8, back - 0.5), (12.4, ground), (inner + 2.6, ground)])
    for x in sketch.rng.uniform(-9, 3, size=sketch.rng.integers(1, 5)).tolist():
        strap = _arch(x, ground if x < -4 else arch, sketch.between(1.5, 5), sketch.between(2, 7))
        sketch.line(strap, width, sketch.between(0.7, 1.1))
    ankle = back - sketch.between(3, 8)
    sketch.line([(12, back), (11.5, ankle), (5, ankle + 1), (0, arch)], width, tone=1, chance=0.6)


def _shirt(sketch: Sketch) -> None:
    sleeve = sketch.between(14, 22) if sketch.chance(0.65) else sketch.between(3, 9)
    top, bottom = _body(sketch, sketch.between(5.2, 6.8), sketch.between(-0.2, 1), sleeve)
    _neck(sketch, top, sketch.between(2, 3.4), collar=sketch.between(1.5, 4) if sketch.chance(0.8) else 0)
    sketch.line([(0, top + 2), (0, bottom)], sketch.between(0.6, 1.5), sketch.accent, chance=0.9)
    sketch.dots((0, top + 3), (0, bottom - 2), 2 - sketch.accent, chance=0.75)  # the accent's opposite
    # A shirt tail: the hem hangs lower in the middle than at the sides.
    sketch.pair([(-13, bottom - sketch.between(-1, 6)), (-13, SIDE), (-2, SIDE)], 0)


def _sneaker(sketch: Sketch) -> None:
    ankle = sketch.between(10, 16) if sketch.chance(0.2) else sketch.between(7, 10)
    ground, top, x = 15.5 + 0.5 * ankle, 15.5 - 0.5 * ankle, sketch.between(-2, 1.5)
    toe = [(-13, ground), (-12.8, ground - 2), (-11, ground - 3.6), (-7, ground - 4.6)]
    opening = [(x, top + 0.2 * ankle), (x + 3, top), (6, top + 1.6), (10, top + 0.8), (12.2, top - 0.3)]
    sketch.shape([*toe, *opening, (13, ground)])
    sketch.line([(-13.2, ground), (13.2, ground)], sketch.between(1.4, 3), sketch.accent)
    sketch.dots((-5, ground - 4.5), (x + 1, top + 2), sketch.accent, chance=0.8)
    sketch.line([(-1, ground - 1.5), (7, ground - 0.6 * ankle)], 1.4, sketch.accent, chance=0.6)


def _bag(sketch: Sketch) -> None:
    width, height, taper = sketch.between(7.5, 12.8), sketch.between(7, 16), sketch.between(-1.5, 2.5)
    # A handle too low to see is a bag without one.
    handle = min(sketch.between(-1, 11), 26 - height)
    top, bottom = 14 - (height - handle) / 2, 14 + (height + handle) / 2
    arch = _arch(0, top + 0.5, sketch.between(0.3, 0.75) * width, handle)
    sketch.line(arch, sketch.between(0.7, 1.6), sketch.between(0.7, 1.1))
    sketch.pair([(0, top), (taper - width, top), (-width, bottom - 1), (1 - width, bottom), (0, bottom)])
    flap = top + sketch.between(0.3, 0.6) * height
    sketch.line([(-width, top + 2), (0, flap), (width, top + 2)], 0.6, sketch.accent, chance=0.5)
    sketch.line([(-1, flap), (1, flap)], sketch.between(1.5, 3), sketch.accent, chance=0.5)


def _boot(sketch: Sketch) -> None:
    height = sketch.between(10, 16) if sketch.chance(0.25) else sketch.between(16, 23)
    heel, shaft = sketch.between(0.5, 0.3 * height), sketch.between(-3.5, 0.5)
    top, ground, back = 15 - 0.5 * height, 15 + 0.5 * height, 15 + 0.5 * height - heel
    toe, arch = ground - sketch.between(2.5, 4.5), ground - 0.5 * heel
    leg = [(shaft, top), (11.5, top - sketch.between(-0.5, 1)), (11, back - 6), (12, back)]
    foot = [(2, arch), (-5, ground), (-12.5, ground), (-12.8, toe + 1), (-11, toe), (-7, toe - 2)]
    instep = (shaft - 1, min(toe - 5, ground - 8) - 0.15 * heel)
    sketch.shape([*leg, *foot, instep])
    sketch.shape([(5, back - 0.8), (12.2, back - 0.8), (12, ground), (7, ground)], 0.75)
    sketch.line([(-12.5, ground), (-4, ground), (3, arch)], sketch.between(0.6, 2), sketch.accent)
    sketch.line([(5, top), (4.5, toe - 3)], sketch.between(1, 3), sketch.accent, chance=0.4)
    sketch.dots((shaft + 2, top + 1), instep, sketch.accent, chance=0.4)


GARMENTS = (_tshirt, _trouser, _pullover, _dress, _coat, _sandal, _shirt, _sneaker, _bag, _boot)  # by label


def _fabric(rng: np.random.Generator) -> np.ndarray:
    """Shading, weave and pattern, as factors of the brightness, float64 (28, 28)."""
    across, down = np.linspace(-1, 1, SIDE), np.linspace(-1, 1, SIDE)[:, None]
    fabric = 1 + rng.uniform(-0.4, 0.4) * across + rng.uniform(-0.3, 0.3) * down
    fabric += rng.uniform(0, 0.07) * rng.standard_normal((SIDE, SIDE))
    if rng.random() < 0.2:
        stripes = np.arange(SIDE) % rng.integers(3, 7) < rng.integers(1, 3)
        pattern = (stripes[:, None], stripes, stripes ^ stripes[:, None])[rng.integers(3)]
        fabric *= np.where(pattern, rng.uniform(0.4, 0.9), 1)
    return fabric


def generate(count: int, seed: int, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Draws a shuffled set of garments: images, uint8 (count, 28, 28), and labels, uint8 (count,).

    The sizes of any two classes differ by at most one. The same arguments give the same bytes; another seed, from 0
    up, draws other garments, and so does another split, "train" or "test".
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, *split.encode()]))
    labels = rng.permutation(np.arange(count) % len(GARMENTS)).astype(np.uint8)
    images = np.zeros((count, SIDE, SIDE), dtype=np.uint8)
    for index, label in enumerate(labels.tolist()):
        sketch = Sketch(rng)
        GARMENTS[label](sketch)
        images[index] = np.clip(np.asarray(sketch.canvas.reduce(SUPERSAMPLING)) * _fabric(rng), 0, 255)
    return images, labels
