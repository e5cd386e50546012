"""Draws one flower of `blossoms`: its palettes, its attributes, and the picture.

All geometry is in fractions of the image side, so that the same flower comes out at every size. It is
drawn on a canvas three or four times as large and reduced with a box filter, which makes its edges smooth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

RGB = tuple[int, int, int]

# Any two petal colours are 40 units of CIE Lab apart, so that neither blur nor light turns one into another.
PETAL_COLORS: dict[str, RGB] = {
    "red": (212, 24, 36),
    "orange": (248, 134, 20),
    "yellow": (252, 222, 44),
    "pink": (247, 164, 196),
    "magenta": (212, 28, 142),
    "violet": (124, 46, 170),
    "blue": (34, 104, 216),
    "white": (246, 246, 242),
}
CENTER_COLORS: dict[str, RGB] = {
    "dark yellow": (206, 158, 16),
    "brown": (84, 46, 22),
    "white": (244, 242, 232),
    "green": (142, 186, 62),
}
BACKGROUNDS: dict[str, RGB] = {
    "green": (58, 112, 52),
    "soil": (62, 46, 36),
    "sky": (172, 208, 236),
    "stone": (128, 126, 122),
}
PETAL_SHAPES = ("round", "pointed", "heart-shaped")
PETAL_COUNTS = {"five": 5, "six": 6, "eight": 8}
PETAL_SIZES = {"small": 0.32, "large": 0.39}  # length from the flower's middle to the tip, of the image side
LEAF_COLOR: RGB = (70, 128, 60)

_OUTLINE_POINTS = 32
# A petal is its outline drawn six times, ever smaller and lighter: (share of its size, light).
_PETAL_SHADES = ((1.0, -0.26), (0.95, -0.10), (0.82, -0.04), (0.64, 0.01), (0.44, 0.06), (0.24, 0.10))
_CENTER_RADIUS = 0.115


@dataclass(frozen=True)
class Flower:
    """What a caption can say of a flower; every field is a key or member of the tables above."""

    petal_color: str
    petal_count: str
    petal_shape: str
    petal_size: str
    center_color: str
    background: str

    @property
    def class_name(self) -> str:
        """The class: petal colour, shape, centre and background; count and size vary within it."""
        center = self.center_color.replace(" ", "_")
        return f"{self.petal_color}-{self.petal_shape}-{center}-on-{self.background}"


def draw(
    flower: Flower, size: int, key: Sequence[int], return_mask: bool = False
) -> Image.Image | tuple[Image.Image, np.ndarray]:
    """Return the RGB picture of `size` x `size` pixels; with `return_mask` also the truth of its petals.

    `key` (non-negative integers) decides pose, light and texture. The mask is [size, size] float32 in [0, 1]:
    the share of each pixel that petals cover; the centre disk is not part of it.
    """
    rng = np.random.default_rng(key)
    factor = 4 if size <= 128 else 3
    canvas = size * factor
    pose = _Pose(rng, canvas)
    image = _background(flower.background, rng).resize((canvas, canvas), Image.Resampling.BICUBIC)
    mask = Image.new("L", (canvas, canvas))
    pen, mask_pen = ImageDraw.Draw(image), ImageDraw.Draw(mask)
    if flower.background == "sky":
        _draw_stem(pen, pose, rng)
    _draw_petals(pen, mask_pen, flower, pose, rng)
    _draw_center(pen, mask_pen, CENTER_COLORS[flower.center_color], pose, rng)
    pixels = np.asarray(image.reduce(factor), np.float32) * _light(size, rng)
    picture = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
    return (picture, np.asarray(mask.reduce(factor), np.float32) / 255) if return_mask else picture


class _Pose:
    """Maps flower coordinates (middle at 0, y up the first petal) to canvas pixels."""

    def __init__(self, rng: np.random.Generator, canvas: int):
        self.canvas = canvas
        self.middle = 0.5 + rng.uniform(-0.03, 0.03, 2)
        self.scale = rng.uniform(0.95, 1.05)
        squash, axis, turn = rng.uniform(0.86, 1.0), rng.uniform(0, math.pi), rng.uniform(0, 2 * math.pi)
        self.matrix = self.scale * (_rotation(axis) * [1.0, squash]) @ _rotation(turn - axis)

    def __call__(self, points: np.ndarray) -> list[float]:
        return ((points @ self.matrix.T + self.middle) * self.canvas).ravel().tolist()


def _rotation(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _shade(color: RGB, light: float) -> RGB:
    """Lighten (> 0, towards white) or darken (< 0, towards black) by a share."""
    target = 255 if light > 0 else 0
    red, green, blue = (round(value + (target - value) * abs(light)) for value in color)
    return red, green, blue


def _petal_outline(shape: str, length: float, width: float) -> np.ndarray:
    """One petal along +y from the flower's middle, [points, 2]."""
    angle = np.linspace(0, 2 * math.pi, _OUTLINE_POINTS, endpoint=False)
    along = (1 - np.cos(angle)) / 2  # 0 at the base, 1 at the tip
    side = np.sign(np.sin(angle))
    if shape == "pointed":
        across = np.sin(math.pi * along**0.85) ** 0.8 * (1 - 0.35 * along)
    else:
        across = np.abs(np.sin(angle)) ** 0.85 * (0.42 + 0.58 * along) / 0.87
    if shape == "heart-shaped":
        along = along * (1 - 0.24 * np.exp(-((across / 0.5) ** 2)) * along**4)
    return np.stack([side * across * width, along * length], axis=1)


def _draw_petals(pen, mask_pen, flower: Flower, pose: _Pose, rng: np.random.Generator) -> None:
    color, count = PETAL_COLORS[flower.petal_color], PETAL_COUNTS[flower.petal_count]
    length = PETAL_SIZES[flower.petal_size]
    width = length * 0.7 * math.tan(math.pi / count) * (0.86 if flower.petal_shape == "pointed" else 1.0)
    for petal in range(count):
        turn = 2 * math.pi * petal / count + rng.uniform(-0.06, 0.06)
        long, wide = length * rng.uniform(0.95, 1.0), width * rng.uniform(0.95, 1.08)
        tone = rng.uniform(-0.05, 0.05)
        outline = _petal_outline(flower.petal_shape, long, wide)
        spot = np.array([0, 0.62 * long])
        turned = _rotation(turn).T
        mask_pen.polygon(pose(outline @ turned), fill=255)
        for share, light in _PETAL_SHADES:
            pen.polygon(pose((spot + (outline - spot) * share) @ turned), fill=_shade(color, light + tone))
        for bend in (-0.3, 0.0, 0.3):
            vein = np.array([[0.0, 0.2 * long], [bend * wide, 0.55 * long], [0.9 * bend * wide, 0.78 * long]])
            pen.line(pose(vein @ turned), fill=_shade(color, tone - 0.08), width=max(1, pose.canvas // 200))


def _draw_center(pen, mask_pen, color: RGB, pose: _Pose, rng: np.random.Generator) -> None:
    angle = np.linspace(0, 2 * math.pi, _OUTLINE_POINTS, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    mask_pen.polygon(pose(circle * _CENTER_RADIUS), fill=0)
    for radius, light in ((1.0, -0.28), (0.9, -0.08), (0.7, 0.0), (0.45, 0.05)):
        pen.polygon(pose(circle * _CENTER_RADIUS * radius), fill=_shade(color, light))
    for seed in range(28):  # the golden angle packs them as a real flower head does
        place = _CENTER_RADIUS * 0.88 * math.sqrt((seed + 0.5) / 28)
        spot = place * np.array([math.cos(2.39996 * seed), math.sin(2.39996 * seed)])
        dot = spot + circle[::4] * _CENTER_RADIUS * 0.08
        pen.polygon(pose(dot), fill=_shade(color, (0.22, -0.2)[seed % 2] + rng.uniform(-0.06, 0.06)))


def _draw_stem(pen, pose: _Pose, rng: np.random.Generator) -> None:
    """A stem from the middle to the lower edge; drawn before the petals, in image coordinates."""
    canvas, height = pose.canvas, np.linspace(0, 1, 12)[:, None]
    foot = np.array([0.5 + rng.uniform(-0.12, 0.12), 1.02])
    bow = np.array([rng.uniform(-0.05, 0.05), 0])
    line = pose.middle + (foot - pose.middle) * height + bow * np.sin(math.pi * height)
    half = np.array([0.011, 0])
    for share, light in ((1.0, -0.2), (0.55, 0.08)):
        ribbon = np.concatenate([line - half * share, (line + half * share)[::-1]])
        pen.polygon((ribbon * canvas).ravel().tolist(), fill=_shade(LEAF_COLOR, light))


def _background(kind: str, rng: np.random.Generator) -> Image.Image:
    """A soft 48 x 48 picture: leaves, pebbles in soil, clouds, or veins in stone."""
    side, color = 48, BACKGROUNDS[kind]
    count, shortest, longest, roundness, darkest, lightest, grain, blur = {
        "green": (16, 5, 13, 0.38, -0.3, 0.16, 0.0, 0.8),
        "soil": (10, 1.5, 4, 0.9, -0.3, 0.16, 0.7, 0.8),
        "sky": (4, 5, 13, 0.38, 0.15, 0.4, 0.0, 2.5),
        "stone": (7, 10, 26, 0.06, -0.25, 0.2, 0.3, 0.8),
    }[kind]
    down = np.linspace(-1, 1, side, dtype=np.float32)[:, None, None]
    paler_below = 0.10 if kind == "sky" else -0.10
    speckle = 1 + grain * (rng.random((side, side, 1), np.float32) - 0.5)
    base = np.array(color, np.float32) * (1 + paler_below * down) * speckle
    image = Image.fromarray(np.clip(base, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    along = np.linspace(-1, 1, 9)
    half = (1 - along**2) * roundness
    leaf = np.concatenate([np.stack([along, half], 1), np.stack([along, -half], 1)[::-1]])
    for _ in range(count):
        place, length = rng.uniform(0, side, 2), rng.uniform(shortest, longest)
        turn = 0.0 if kind == "sky" else rng.uniform(0, math.pi)
        tone = _shade(color, rng.uniform(darkest, lightest))
        pen.polygon((length * leaf @ _rotation(turn).T + place).ravel().tolist(), fill=tone)
    return image.filter(ImageFilter.GaussianBlur(blur))


def _light(size: int, rng: np.random.Generator) -> np.ndarray:
    """Exposure, a slight tint, and a fall-off across the picture: factors about 1, [size, size, 3]."""
    exposure, tint = rng.uniform(0.93, 1.05), rng.uniform(0.98, 1.02, 3)
    direction, fall = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.08)
    across = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    ramp = across[None, :] * math.cos(direction) + across[:, None] * math.sin(direction)
    return ((1 + fall * ramp)[..., None] * (exposure * tint)).astype(np.float32)
