"""Pictures and captions pass the networks in batches of one size, so that none depends on its neighbours' number."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from t2i_tf import devices

BATCH_SIZE = devices.BLOCK
"""Pictures that are drawn at once on a device."""


def to_uint8(images):
    """[-1, 1] -> 0 to 255, rounded."""
    return tf.cast(tf.round(tf.clip_by_value(images * 127.5 + 127.5, 0.0, 255.0)), tf.uint8)


def to_floats(pictures):
    """The other way, float32."""
    return tf.cast(pictures, tf.float32) / 127.5 - 1.0


def in_filled_batches(function, captions: list[str]):
    """The function of captions [N], in batches of one size as of `Run.render`; its nest of arrays of N rows.

    Word vectors of batches with shorter captions are followed by zeros.
    """
    parts = []
    for start in range(0, len(captions), BATCH_SIZE):
        batch = captions[start : start + BATCH_SIZE]
        made, kept = function(tf.constant([*batch, *batch[:1] * (BATCH_SIZE - len(batch))])), len(batch)
        parts.append(tf.nest.map_structure(lambda rows, kept=kept: rows.numpy()[:kept], made))

    def joined(*rows):
        longest = [max(lengths) for lengths in zip(*(x.shape[1:] for x in rows), strict=True)]
        return np.concatenate(
            [np.pad(x, [(0, 0), *((0, n - m) for n, m in zip(longest, x.shape[1:], strict=True))]) for x in rows]
        )

    return tf.nest.map_structure(joined, *parts)


def in_batches(function, conditions, noise: dict, batch_size: int):
    """The function of conditions and noise of N rows, batch by batch on all devices; its nest of arrays of N rows."""
    count = len(next(iter(noise.values())))

    # Every batch has the same size, so that a picture does not depend on its neighbours' number.
    def filled(start):
        return map_arrays(
            lambda x: np.resize(x[start : start + batch_size], (batch_size, *x.shape[1:])).astype(x.dtype),
            (conditions, noise),
        )

    made = devices.each(function, [filled(start) for start in range(0, count, batch_size)])
    return tf.nest.map_structure(lambda *rows: np.concatenate(rows)[:count], *made)


def map_arrays(function, arrays):
    """The function of every array of a nest; None stays what it is."""
    return tf.nest.map_structure(lambda x: None if x is None else function(x), arrays)
