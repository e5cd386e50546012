"""An export beside the live run: all that they give must be equal."""

from __future__ import annotations

import numpy as np

from t2i_tf.errors import UserError


class ExportDiffers(UserError):
    """What was exported gives other numbers than the live run."""


def check_equal(name: str, exported, live, tolerance: int = 0) -> int:
    """How many values of some arrays differ, by no more than the tolerance.

    Raises ExportDiffers for arrays of which any differ by more.
    """
    count = 0
    for one, other in zip(exported, live, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        differing = one != other if one.shape == other.shape else np.ones(other.shape, bool)
        near = tolerance and one.shape == other.shape and np.abs(one.astype(int) - other).max() <= tolerance
        if differing.any() and not near:
            raise ExportDiffers(
                f"{name}: the export gives other results than the live model ({differing.sum()} of {other.size} "
                "values): nothing was written"
            )
        count += int(differing.sum())
    return count
