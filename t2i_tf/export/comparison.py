"""An export beside the live run: all that they give must be equal."""

from __future__ import annotations

import numpy as np

from t2i_tf.errors import UserError


class ExportDiffers(UserError):
    """What was exported gives other numbers than the live run."""


def check_equal(name: str, exported, live) -> None:
    """Raises ExportDiffers for arrays that differ."""
    for one, other in zip(exported, live, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        if one.shape != other.shape or not np.array_equal(one, other):
            differing = int((one != other).sum()) if one.shape == other.shape else "all"
            raise ExportDiffers(
                f"{name}: the export gives other results than the live model ({differing} of {other.size} values): "
                "nothing was written"
            )
