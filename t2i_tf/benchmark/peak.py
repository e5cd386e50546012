"""What this machine can do at best: convolutions of the sizes that the papers' networks are made of."""

from __future__ import annotations

import time

import tensorflow as tf

SHAPES = ((64, 64), (32, 128), (16, 256), (8, 512))
"""(side of the maps, channels in and out) of 3x3 convolutions."""
BATCHES = (1, 4, 16, 64, 256)
CALLS = 5
"""Of each convolution, after one that is not timed; the fastest counts."""
KINDS = ("float32", "bfloat16")


def convolution_peak(seconds: float) -> dict[str, float]:
    """Type of numbers -> floating-point operations a second of the fastest convolution.

    Args:
        seconds: larger batches of a convolution are no longer tried after this time.
    """
    return {
        kind: max(_fastest(side, channels, tf.as_dtype(kind), seconds) for side, channels in SHAPES) for kind in KINDS
    }


def _fastest(side: int, channels: int, kind: tf.DType, seconds: float) -> float:
    kernel = tf.cast(tf.random.normal([3, 3, channels, channels]), kind)

    @tf.function(reduce_retracing=True)
    def convolve(maps):
        return tf.nn.conv2d(maps, kernel, 1, "SAME")[0, 0, 0, 0]

    fastest, began = 0.0, time.perf_counter()
    for batch in BATCHES:
        maps = tf.cast(tf.random.normal([batch, side, side, channels]), kind)
        convolve(maps).numpy()
        for _ in range(CALLS):
            start = time.perf_counter()
            convolve(maps).numpy()  # one number comes to the host: the call is over
            fastest = max(fastest, 2 * 9 * channels**2 * batch * side**2 / (time.perf_counter() - start))
        if time.perf_counter() - began > seconds:
            break
    return fastest
