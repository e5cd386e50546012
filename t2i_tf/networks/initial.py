"""Values that weights start from where Keras has others: those of the published Torch programs.

Convolutions N(0, 0.02), dense layers Torch's U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weight and bias; convolutions and
dense layers of StackGAN++ and AttnGAN orthogonal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import keras
import tensorflow as tf

ORTHONORMALISED_AT_ONCE = 256
"""Columns; more are split in halves, which takes 0.6 of the time for a matrix of 24,576 by 3,072."""

_from_a_file = ContextVar("_from_a_file", default=False)


@contextmanager
def from_a_file() -> Iterator[None]:
    """Networks built inside get all their weights from a file afterwards: orthogonal ones, which take longer to draw
    than to read, start as zeros. (AttnGAN at published width is loaded in 8 in place of 12 seconds.)"""
    token = _from_a_file.set(True)
    try:
        yield
    finally:
        _from_a_file.reset(token)


def conv_initializer() -> keras.Initializer:
    return keras.initializers.RandomNormal(stddev=0.02)


def uniform(bound: float) -> keras.Initializer:
    """U(-bound, bound)."""
    return keras.initializers.RandomUniform(-bound, bound)


def torch_uniform(fan_in: int) -> keras.Initializer:
    """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), Torch's own for weights and biases alike."""
    return uniform(1.0 / math.sqrt(fan_in))


def _orthonormalised(matrix: tf.Tensor) -> tf.Tensor:
    """Tall matrix [N, M] -> the Q of its QR decomposition with a positive diagonal.

    A R^-1 with the Cholesky factor R of A'A: products in place of a decomposition by one thread.
    """
    columns = matrix.shape[1]
    if columns > ORTHONORMALISED_AT_ONCE:
        left, right = tf.split(matrix, [columns // 2, columns - columns // 2], axis=1)
        left = _orthonormalised(left)
        right -= tf.matmul(left, tf.matmul(left, right, transpose_a=True))
        return tf.concat([left, _orthonormalised(right)], axis=1)
    factor = tf.linalg.cholesky(tf.matmul(matrix, matrix, transpose_a=True))
    # Well conditioned, so that a product with the inverse is as exact as solving, which takes longer.
    inverse = tf.linalg.triangular_solve(factor, tf.eye(columns, dtype=matrix.dtype))
    return tf.matmul(matrix, inverse, transpose_b=True)


class Orthogonal(keras.initializers.Orthogonal):
    """Orthonormal filters: rows of (out, in * rows * columns) as Torch has it; what Keras draws, in less time. (AttnGAN
    at published width is built in less than half of it.)"""

    def __call__(self, shape, dtype=None):
        if _from_a_file.get():
            return tf.zeros(shape, dtype)
        rows, columns = math.prod(shape[:-1]), shape[-1]
        large, small = max(rows, columns), min(rows, columns)
        if large < 2 * small:  # near a square A'A is close to singular
            return super().__call__(shape, dtype)
        filters = _orthonormalised(keras.random.normal([large, small], seed=self.seed, dtype=dtype))
        return self.gain * tf.reshape(filters if rows >= columns else tf.transpose(filters), shape)


def orthogonal() -> keras.Initializer:
    return Orthogonal()
