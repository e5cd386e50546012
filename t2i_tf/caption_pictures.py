"""Where a captioner looked: its attention over time, a panel a word, as Show, Attend and Tell shows it.

The published figure: the maps of 14 x 14 places are enlarged 16 times, smoothed with a Gaussian of 20 pixels, each
scaled to its own smallest and largest value, and laid over the picture in grey at an opacity of 0.8.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from t2i_tf import pictures

SMOOTHNESS = 20 / 16
"""Standard deviation of the Gaussian, in places."""

OPACITY = 0.8
_PANEL, _GAP = 192, 4  # pixels; pictures smaller than a panel are enlarged
_PAPER, _INK = (255, 255, 255), (30, 30, 30)


def enlarged_map(weights: np.ndarray, height: int, width: int, smoothness: float = SMOOTHNESS) -> np.ndarray:
    """float [h,w] -> float64 [height,width]: bilinear, then a Gaussian with reflecting borders; 0 leaves that out."""
    rows, columns = (
        _enlargement(places, size, smoothness) for places, size in zip(weights.shape, (height, width), strict=True)
    )
    return rows @ weights.astype(np.float64) @ columns.T


def _enlargement(places: int, size: int, smoothness: float) -> np.ndarray:
    """[size,places]: the share of each place in each pixel of a line."""
    at = np.clip((np.arange(size) + 0.5) * places / size - 0.5, 0, places - 1)
    bilinear = np.clip(1 - np.abs(at[:, None] - np.arange(places)), 0, None)
    deviation = smoothness * size / places
    offsets = np.arange(-int(4 * deviation + 0.5), int(4 * deviation + 0.5) + 1)
    kernel = np.exp(-0.5 * (offsets / max(deviation, 1e-9)) ** 2)
    around = (np.arange(size)[:, None] + offsets) % (2 * size)
    around = np.minimum(around, 2 * size - 1 - around)
    return np.einsum("k,ikp->ip", kernel / kernel.sum(), bilinear[around])


def overlaid(picture: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """A picture uint8 [H,W,3] under a map of attention float [h,w] -> uint8 [H,W,3]: bright where the weights are.

    The map is scaled to its own range: panels show where, not how strongly. One without differences is dark.
    """
    smooth = enlarged_map(weights, *picture.shape[:2])
    smooth = smooth - smooth.min()
    return pictures.overlaid(picture, smooth / max(smooth.max(), 1e-12), OPACITY)


def attention_figure(
    picture: np.ndarray, words: Sequence[str], attention: Sequence[np.ndarray], selectors: Sequence[float] | None = None
) -> np.ndarray:
    """The picture, then a panel for each word: where was looked, and over it the word -> uint8 [H',W',3].

    Args:
        picture: uint8 [H,W,3], the part of it that the maps cover.
        words: T; attention: [T,h,w]; selectors: [T], shown behind the words as published: red (0.71).
    """
    height, width = picture.shape[:2]
    factor = max(1, -(-_PANEL // max(height, width)))
    picture = picture.repeat(factor, 0).repeat(factor, 1)
    behind = [f" ({selector:.2f})" for selector in selectors] if selectors is not None else [""] * len(words)
    panels = [(picture, "")]
    panels += [
        (overlaid(picture, weights), word + note) for weights, word, note in zip(attention, words, behind, strict=True)
    ]
    rows = round(len(panels) ** 0.5)
    columns = -(-len(panels) // rows)
    made = [_titled(*panel) for panel in panels]
    made += [np.full_like(made[0], 255)] * (rows * columns - len(made))
    sheet = np.concatenate([np.concatenate(made[row * columns :][:columns], axis=1) for row in range(rows)])
    return np.pad(sheet, [(_GAP, 0), (_GAP, 0), (0, 0)], constant_values=255)


def _titled(panel: np.ndarray, title: str) -> np.ndarray:
    """The panel under a line of text, with a margin to the right and below."""
    height, width = panel.shape[:2]
    size = 16
    while size > 7 and ImageFont.load_default(size=size).getlength(title) > width:
        size -= 1
    canvas = Image.new("RGB", (width + _GAP, height + 16 + 3 * _GAP), _PAPER)
    line = Image.new("RGB", (width, 16 + 2 * _GAP), _PAPER)  # text that is still too long ends with its panel
    ImageDraw.Draw(line).text((0, 0), title, fill=_INK, font=ImageFont.load_default(size=size))
    canvas.paste(line, (0, 0))
    canvas.paste(Image.fromarray(panel), (0, line.height))
    return np.asarray(canvas)
