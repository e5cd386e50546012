"""Graphs that hold weights as they were when traced, and what follows from weights alone already computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import tensorflow as tf

_constant = ContextVar("_constant", default=False)


@contextmanager
def constant_weights(constant: bool = True) -> Iterator[None]:
    """Graphs traced inside hold what `of_weights` makes, and do not see what is set later. Called eagerly, or with
    False, nothing is different."""
    token = _constant.set(constant)
    try:
        yield
    finally:
        _constant.reset(token)


def traced_with_constant_weights() -> bool:
    """Whether a graph is being traced inside `constant_weights`."""
    return _constant.get() and not tf.executing_eagerly()


def of_weights(function: Callable, *weights):
    """function(*weights), of variables, or of what came from here. Inside `constant_weights` it is computed once,
    beside the graph, else in it at every call."""
    if traced_with_constant_weights() and not any(tf.is_symbolic_tensor(weight) for weight in weights):
        with tf.init_scope():
            return function(*weights)
    return function(*weights)
