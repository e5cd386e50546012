"""Caption fidelity: has a picture of a flower the colours its caption names? Measured on the pixels alone.

The reader is for `blossoms` and what is generated from it. It knows how such pictures look (one flower near the
middle, a centre inside its petals, background all round, the palettes) and nothing of how one was made. It
works on an area average of 32 x 32, so that its answer hardly depends on the image size:

1. background: the median colour outside the inscribed circle; most pixels there must be near it;
2. flower: what differs from the background by half the contrast of the middle, and is not leaf-coloured; it
   must lie near the middle and be neither tiny nor everything, or else there is no flower and nothing is read,
   so that a plain colour, stripes or noise have no attribute at all;
3. petals: each pixel of the flower outside its centre votes for the colour nearest to the mean of the petal pixels
   around it, as an eye mixes a speckled surface; two in five must agree;
4. centre: the mean colour of the innermost pixels, which must differ from the petals'.

Distances are in CIE Lab with lightness halved, since light varies more than colour. A colour far from its whole
palette is read as "", which is never right. One picture has one value of each attribute: hedging gains nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from t2i_tf.data.sources.blossoms import parse_caption
from t2i_tf.data.sources.blossoms_drawing import BACKGROUNDS, CENTER_COLORS, LEAF_COLOR, PETAL_COLORS, RGB
from t2i_tf.evaluation.metrics import area_average

ATTRIBUTES = ("petal_color", "center_color", "background")

_GRID = 32
_CHUNK = 256  # images measured at once, which bounds the memory
_AXIS = (np.arange(_GRID, dtype=np.float32) + 0.5) / _GRID - 0.5
_X, _Y = _AXIS[None, None, :], _AXIS[None, :, None]  # from the middle, in image sides
_RADIUS = np.hypot(_X, _Y)[0]
_CORE, _OUTSIDE_DISK = 0.06, 0.15  # radii about the flower's centroid
_NONE = -1

# What must hold, and in brackets what holds on drawn flowers; lengths in image sides, colours in Lab units.
_UNIFORM_SHARE = 0.6  # of the corners lies near their median (1.0)
_SMALLEST, _LARGEST = 0.05, 0.65  # area of the flower (0.12 to 0.44)
_OFF_MIDDLE = 0.15  # distance of its centroid from the middle of the picture (up to 0.05)
_VOTE_SHARE = 0.4  # of the petal pixels agree on the colour (0.75 and more)
_CENTER_CONTRAST = 15.0  # between centre and petals (27 and more)
_FARTHEST = 30.0  # from a colour to the palette's nearest (centres up to 12, backgrounds up to 9)
_LEAST_CONTRAST, _NEAR_SURROUND, _NEAR_LEAF = 12.0, 20.0, 12.0

# Linear sRGB to XYZ relative to the D65 white, transposed (IEC 61966-2-1).
_XYZ_OF_RGB = np.array([[0.4339, 0.2126, 0.0177], [0.3762, 0.7152, 0.1095], [0.1899, 0.0722, 0.8728]], np.float32)


def caption_fidelity(images: np.ndarray, captions: Sequence[str]) -> dict[str, float | int | None]:
    """Return the share of images, uint8 [B, H, W, 3] RGB, that have the attributes their captions name.

    Keys: petal_color, center_color, background (shares; None where no caption names the attribute),
    `<attribute>_count` (captions that name it) and images. Raises ValueError for any other shape or type.
    """
    images = _checked(images)
    if len(images) != len(captions):
        raise ValueError(f"{len(images)} images but {len(captions)} captions")
    seen, named = read_attributes(images), [parse_caption(caption) for caption in captions]
    scores: dict[str, float | int | None] = {"images": len(images)}
    for attribute in ATTRIBUTES:
        pairs = zip(seen[attribute], named, strict=True)
        right = [value == names[attribute] for value, names in pairs if attribute in names]
        scores[attribute] = float(np.mean(right)) if right else None
        scores[f"{attribute}_count"] = len(right)
    return scores


def read_attributes(images: np.ndarray) -> dict[str, np.ndarray]:
    """Return what is seen of each of ATTRIBUTES in images, uint8 [B, H, W, 3] RGB: strings [B], "" for nothing.

    Raises ValueError for any other shape or type.
    """
    labels: dict[str, list[np.ndarray]] = {attribute: [np.zeros(0, "<U1")] for attribute in ATTRIBUTES}
    for chunk in _chunks(_checked(images)):
        measured = _measure(chunk)
        for attribute in ATTRIBUTES:
            labels[attribute].append(getattr(measured, attribute))
    return {attribute: np.concatenate(parts) for attribute, parts in labels.items()}


def petal_masks(images: np.ndarray) -> np.ndarray:
    """Return where the petals are, bool [B, H, W], in images, uint8 [B, H, W, 3] RGB; nowhere without a flower.

    A pixel is petal where it is nearer to the petals' mean colour than to the centre's, the background's and the
    leaves'. Raises ValueError for any other shape or type.
    """
    masks = [np.zeros((0, *_checked(images).shape[1:3]), bool)]
    for chunk in _chunks(images):
        found, pixels = _measure(chunk), _lab(chunk)
        leaves = np.broadcast_to(_lab(LEAF_COLOR), found.petals.shape)
        to_petals, *to_others = (
            _distance(pixels, color[:, None, None]) for color in (found.petals, found.center, found.surround, leaves)
        )
        masks.append((to_petals < np.min(to_others, axis=0)) & found.is_flower[:, None, None])
    return np.concatenate(masks)


@dataclass(frozen=True)
class _Measured:
    """Labels, strings [B]; whether there is a flower, bool [B]; mean colours, Lab [B, 3]."""

    petal_color: np.ndarray
    center_color: np.ndarray
    background: np.ndarray
    is_flower: np.ndarray
    petals: np.ndarray
    center: np.ndarray
    surround: np.ndarray


def _measure(images: np.ndarray) -> _Measured:
    averaged = area_average(images, _GRID)
    pixels = _lab(averaged)

    corners = pixels[:, _RADIUS > 0.5]
    surround = np.median(corners, axis=1)
    uniform = np.mean(_distance(corners, surround[:, None]) < _NEAR_SURROUND, axis=1)

    contrast = _distance(pixels, surround[:, None, None])
    contrast[_distance(pixels, _lab(LEAF_COLOR)) < _NEAR_LEAF] = 0
    level = 0.5 * np.percentile(contrast[:, _RADIUS < 0.25], 70, axis=1)
    flower = (contrast > np.maximum(level, _LEAST_CONTRAST)[:, None, None]) & (_RADIUS < 0.5)
    extent = _total(flower) / _GRID**2
    x, y = (_total(flower * axis) / np.maximum(_total(flower), 1) for axis in (_X, _Y))
    in_place = (extent >= _SMALLEST) & (extent <= _LARGEST) & (np.hypot(x, y) <= _OFF_MIDDLE)
    is_flower = in_place & (uniform >= _UNIFORM_SHARE)

    radius = np.hypot(_X - x[:, None, None], _Y - y[:, None, None])
    ring = flower & (radius > _OUTSIDE_DISK)
    petals, center = _mean(pixels, ring), _mean(pixels, radius < _CORE)
    ballot = np.where(ring, _nearest(_lab(_smoothed(averaged, ring)), PETAL_COLORS), _NONE)
    votes = np.stack([_total(ballot == index) for index in range(len(PETAL_COLORS))], axis=1)
    elected = np.where(votes.max(axis=1) >= _VOTE_SHARE * _total(ring), votes.argmax(axis=1), _NONE)
    center_seen = np.where(_distance(center, petals) >= _CENTER_CONTRAST, _nearest(center, CENTER_COLORS), _NONE)
    return _Measured(
        petal_color=_label(elected, PETAL_COLORS, is_flower),
        center_color=_label(center_seen, CENTER_COLORS, is_flower),
        background=_label(_nearest(surround, BACKGROUNDS), BACKGROUNDS, is_flower),
        is_flower=is_flower,
        petals=petals,
        center=center,
        surround=surround,
    )


def _checked(images: np.ndarray) -> np.ndarray:
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(f"images must be uint8 [B, H, W, 3], not {images.dtype} {list(images.shape)}")
    return images


def _chunks(images: np.ndarray) -> Iterator[np.ndarray]:
    return (images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK))


def _smoothed(images: np.ndarray, where: np.ndarray) -> np.ndarray:
    """[B, H, W, 3] -> the same, each pixel the mean of those in the 5 x 5 around it that are in `where` [B, H, W]."""
    inside = np.concatenate([images * where[..., None], where[..., None]], axis=-1, dtype=np.float32)
    for axis in (1, 2):
        padding = [(2, 2) if a == axis else (0, 0) for a in range(4)]
        inside = np.lib.stride_tricks.sliding_window_view(np.pad(inside, padding), 5, axis=axis).sum(axis=-1)
    return inside[..., :3] / np.maximum(inside[..., 3:], 1)


def _lab(rgb: np.ndarray | RGB) -> np.ndarray:
    """sRGB in [0, 255] -> CIE Lab (D65), lightness halved; any leading axes."""
    encoded = np.asarray(rgb, np.float32) / 255
    linear = np.where(encoded > 0.04045, ((encoded + 0.055) / 1.055) ** 2.4, encoded / 12.92)
    xyz = linear @ _XYZ_OF_RGB
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), xyz * (841 / 108) + 4 / 29)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([0.5 * (116 * y - 16), 500 * (x - y), 200 * (y - z)], axis=-1)


def _distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.linalg.norm(one - other, axis=-1)


def _difference(colors: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """CIE94 colour difference, textile constants (lightness halved, as `_lab` gives it), from a reference.

    Against `_distance` it weighs chroma by how strong the reference is: a dull red is red, not pink.
    """
    strength = np.linalg.norm(reference[..., 1:], axis=-1)
    chroma = np.linalg.norm(colors[..., 1:], axis=-1) - strength
    hue_squared = np.maximum(np.sum((colors - reference)[..., 1:] ** 2, axis=-1) - chroma**2, 0)
    lightness = (colors - reference)[..., 0]
    return np.sqrt(lightness**2 + (chroma / (1 + 0.048 * strength)) ** 2 + hue_squared / (1 + 0.014 * strength) ** 2)


def _total(values: np.ndarray) -> np.ndarray:
    return values.sum(axis=(1, 2))


def _mean(pixels: np.ndarray, where: np.ndarray) -> np.ndarray:
    total = np.einsum("bhwc,bhw->bc", pixels, where.astype(np.float32))
    return total / np.maximum(_total(where), 1)[:, None]


def _nearest(colors: np.ndarray, palette: Mapping[str, RGB]) -> np.ndarray:
    """The index of the palette colour nearest to each Lab colour, or _NONE where all are far."""
    distances = np.stack([_difference(colors, _lab(rgb)) for rgb in palette.values()])
    return np.where(distances.min(axis=0) <= _FARTHEST, distances.argmin(axis=0), _NONE)


def _label(indices: np.ndarray, palette: Mapping[str, RGB], is_flower: np.ndarray) -> np.ndarray:
    return np.array([*palette, ""])[np.where(is_flower, indices, _NONE)]
