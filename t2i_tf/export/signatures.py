"""What the functions of an export take: kinds and shapes of their arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

TEXTS, SEEDS, TEXT, SEED = (tf.string, [None]), (tf.int64, [None]), (tf.string, []), (tf.int64, [])
STEPS, TRUNCATION = (tf.int32, []), (tf.float32, [])


def takes(*specs) -> Callable:
    """Decorates a function of tensors of these kinds and shapes."""
    return functools.partial(
        tf.function, input_signature=[tf.TensorSpec(shape, kind) for kind, shape in specs], autograph=False
    )
