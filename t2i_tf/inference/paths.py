"""Ways from one point to another, for interpolation."""

from __future__ import annotations

import numpy as np


def straight(ends: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Two rows -> [len(shares), ...] between them. Of whole numbers, which are lengths of captions, the larger on the
    way: behind the end of the shorter caption stand zeros, which fade into the other's words."""
    shares = shares.reshape(-1, *[1] * (ends.ndim - 1))
    if np.issubdtype(ends.dtype, np.integer):
        return np.select([shares == 0.0, shares == 1.0], [ends[:1], ends[1:]], ends.max(axis=0, keepdims=True))
    return (1.0 - shares) * ends[:1] + shares * ends[1:]


def great_circle(a: np.ndarray, b: np.ndarray, shares: np.ndarray) -> np.ndarray:
    cosine = np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1.0, 1.0)
    angle = np.arccos(cosine)
    if np.sin(angle) < 1e-6:
        return np.outer(1 - shares, a) + np.outer(shares, b)
    return (np.outer(np.sin((1 - shares) * angle), a) + np.outer(np.sin(shares * angle), b)) / np.sin(angle)
