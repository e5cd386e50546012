"""Grids of pictures with their captions, as people look at them."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_GAP = 4
_BACKGROUND, _INK = (255, 255, 255), (30, 30, 30)


def labelled_grid(
    images: np.ndarray, row_labels: list[str], column_labels: list[str] | None = None, scale: int = 1
) -> Image.Image:
    """Pictures in rows, each row's caption wrapped at its left.

    Args:
        images: uint8 [rows, columns, H, W, 3].
        row_labels: one a row, empty strings for none; column_labels: one a column, printed above.
        scale: whole-number enlargement of the pictures, without smoothing.
    """
    rows, columns, height, width = images.shape[:4]
    height, width = height * scale, width * scale
    font = ImageFont.load_default(size=max(11, min(16, height // 6)))
    letter = font.getlength("abcdefghij klmnopqrst") / 21
    label_width = 0 if not any(row_labels) else int(max(180, min(320, 3 * width)))
    top = 0 if not column_labels else font.size + 3 * _GAP
    canvas = Image.new(
        "RGB", (label_width + columns * (width + _GAP) + _GAP, top + rows * (height + _GAP) + _GAP), _BACKGROUND
    )
    draw = ImageDraw.Draw(canvas)
    for column, label in enumerate(column_labels or []):
        draw.text((label_width + _GAP + column * (width + _GAP), _GAP), label, fill=_INK, font=font)
    for row in range(rows):
        y = top + _GAP + row * (height + _GAP)
        lines = textwrap.wrap(row_labels[row], max(8, int((label_width - 2 * _GAP) / letter)))
        most = max(1, height // (font.size + 3))
        if len(lines) > most:
            lines = [*lines[: most - 1], lines[most - 1] + " ..."]
        draw.multiline_text((_GAP, y), "\n".join(lines), fill=_INK, font=font, spacing=3)
        for column in range(columns):
            picture = Image.fromarray(images[row, column])
            if scale > 1:
                picture = picture.resize((width, height), Image.Resampling.NEAREST)
            canvas.paste(picture, (label_width + _GAP + column * (width + _GAP), y))
    return canvas


def save(image: Image.Image, path: Path) -> Path:
    """Writes a PNG beside and renames it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".partial")
    image.save(beside, format="PNG")
    beside.replace(path)
    return path
