"""The truth of where petals are in the pictures of a prepared `blossoms`: drawn once more, not found in pixels.

A picture follows from the data set's seed, its split and its number, all of which a data set keeps. So do its petals,
whose geometry is in fractions of the side and thus the same at every size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from t2i_tf.data import records
from t2i_tf.data.images import centre_corner, margin_size
from t2i_tf.data.sources import blossoms
from t2i_tf.data.sources.blossoms_drawing import draw
from t2i_tf.errors import UserError


def petal_masks(
    split: records.Split, numbers: Sequence[int] | np.ndarray, size: int, augmentation: bool = True
) -> np.ndarray:
    """Where the petals are, bool [N,size,size], in the pictures of these numbers as `pipeline.views` shows them.

    True where petals cover half of a pixel and more; the centre disk is none of them. The view is the middle one, not
    mirrored, at `size` pixels. Raises UserError for another data set than `blossoms`.
    """
    manifest = split.dataset.manifest
    if manifest["name"] != "blossoms":
        raise UserError(f"{split.dataset.path}: petals are known of --source=blossoms, not of {manifest['name']}")
    whole = margin_size(size, manifest["image_size"], augmentation=augmentation)
    corner = centre_corner(whole, size)
    masks = np.zeros([len(numbers), size, size], bool)
    for mask, number in zip(masks, numbers, strict=True):
        name = split.names[number]
        drawing = blossoms.example(manifest["seed"], split.name, int(name.rpartition("_")[2]), whole).image
        _, shares = draw(drawing.flower, whole, drawing.key, return_mask=True)
        mask[:] = shares[corner : corner + size, corner : corner + size] >= 0.5
    return masks
