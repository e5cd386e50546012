"""Grids of pictures with their captions, as people look at them."""

from __future__ import annotations

import math
import re
import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from t2i_tf import files

_GAP = 4
_SPREAD = 0.6  # standard deviation of a place's Gaussian, in places
_BACKGROUND, _INK = (255, 255, 255), (30, 30, 30)


def enlarged(images: np.ndarray, size: int) -> np.ndarray:
    """[..., H, W, 3] -> [..., size, size, 3] by nearest neighbour: every pixel stays what it is."""
    rows, columns = (np.arange(size) * length // size for length in images.shape[-3:-1])
    return images[..., rows[:, None], columns, :]


def smooth(weights: np.ndarray, size: int) -> np.ndarray:
    """Weights of places [..., h, w] -> float64 [..., size, size]: each place is a Gaussian around its middle.

    What lies between places is a mean of them: nothing exceeds the largest weight.
    """

    def along(length):
        distances = (np.arange(size)[:, None] + 0.5) * length / size - (np.arange(length) + 0.5)
        shares = np.exp(-0.5 * (distances / _SPREAD) ** 2)
        return shares / shares.sum(axis=1, keepdims=True)

    return along(weights.shape[-2]) @ weights.astype(np.float64) @ along(weights.shape[-1]).T


def overlaid(picture: np.ndarray, light: np.ndarray, opacity: float = 0.7) -> np.ndarray:
    """A picture uint8 [H,W,3] under a map [H,W] in [0, 1]: white where it is 1, darkened where it is 0."""
    mixed = (1.0 - opacity) * picture + opacity * 255.0 * light[..., None]
    return np.round(mixed).astype(np.uint8)


def labelled_grid(
    images: np.ndarray,
    row_labels: list[str],
    column_labels: list[str] | None = None,
    scale: int = 1,
    notes: list[list[str]] | None = None,
    right_labels: list[str] | None = None,
) -> Image.Image:
    """Pictures in rows, each row's caption wrapped at its left.

    Args:
        images: uint8 [rows, columns, H, W, 3].
        row_labels: one a row, empty strings for none; column_labels: one a column, printed above.
        scale: whole-number enlargement of the pictures, without smoothing.
        notes: a few signs for each picture [rows][columns], printed below it.
        right_labels: one a row, wrapped at its right.
    """
    rows, columns, height, width = images.shape[:4]
    height, width = height * scale, width * scale
    font = ImageFont.load_default(size=max(11, min(16, height // 6)))
    captions, ends = (
        [_wrapped(label, font, max(180, min(320, 3 * width)), height) for label in labels]
        for labels in (row_labels, right_labels or [""] * rows)
    )
    widest, widest_end = (
        max((font.getlength(line) for lines in texts for line in lines), default=0) for texts in (captions, ends)
    )
    left = _GAP + (math.ceil(widest) + 3 * _GAP if widest else 0)
    right = math.ceil(widest_end) + 3 * _GAP if widest_end else 0
    top = _GAP + (font.size + 3 * _GAP if column_labels else 0)
    row_height = height + _GAP + (font.size + 2 * _GAP if notes else 0)
    end = left + columns * (width + _GAP)
    canvas = Image.new("RGB", (end + right, top + rows * row_height), _BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for column, label in enumerate(column_labels or []):
        draw.text((left + column * (width + _GAP), _GAP), label, fill=_INK, font=font)
    for row in range(rows):
        y = top + row * row_height
        draw.multiline_text((_GAP, y), "\n".join(captions[row]), fill=_INK, font=font, spacing=3)
        draw.multiline_text((end + _GAP, y), "\n".join(ends[row]), fill=_INK, font=font, spacing=3)
        for column in range(columns):
            x = left + column * (width + _GAP)
            canvas.paste(Image.fromarray(images[row, column].repeat(scale, 0).repeat(scale, 1)), (x, y))
            if notes:
                draw.text((x, y + height + 2), notes[row][column], fill=_INK, font=font)
    return canvas


def _wrapped(caption: str, font, width: float, height: int) -> list[str]:
    """Lines of about a width, no more than a height holds; "..." says that some are left out."""
    letter = font.getlength("abcdefghij klmnopqrst") / 21
    lines = textwrap.wrap(caption, max(8, int(width / letter) - 1))
    most = max(1, height // (font.size + 3))
    return lines if len(lines) <= most else [*lines[: most - 1], lines[most - 1] + " ..."]


def file_stem(text: str) -> str:
    """A caption or name as a part of a file name: at most 60 letters, digits and hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:60]


def save(image: Image.Image, path: Path) -> Path:
    """Writes a PNG beside and renames it."""
    with files.written_beside(path) as beside:
        image.save(beside, format="PNG")
    return path
