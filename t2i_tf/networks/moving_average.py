"""Exponential moving average of weights."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import tensorflow as tf


class MovingAverage(tf.Module):
    """Exponential moving average of the trainable weights of some networks; statistics are taken as they are."""

    def __init__(self, networks: dict[str, keras.Model], decay: float):
        super().__init__()
        self.decay, self.swapped = decay, False
        # In a plain holder: as an attribute, checkpoints would name the weights after this average.
        self._averaged = SimpleNamespace(
            variables=[v for network in networks.values() for v in network.trainable_variables]
        )
        self.shadows = [
            tf.Variable(v.value, trainable=False, aggregation=tf.VariableAggregation.MEAN) for v in self.sources
        ]

    @property
    def sources(self) -> list:
        """The weights that are averaged."""
        return self._averaged.variables

    def update(self) -> None:
        kept, new = tf.constant(self.decay), tf.constant(1.0 - self.decay)
        for shadow, source in zip(self.shadows, self.sources, strict=True):
            shadow.assign(shadow * kept + tf.cast(source.value, shadow.dtype) * new)

    def restart(self) -> None:
        """Begins the averages anew at the present weights."""
        for shadow, source in zip(self.shadows, self.sources, strict=True):
            shadow.assign(source.value)

    def swap(self) -> None:
        """Exchanges averages and weights; twice is nothing. `swapped` tells where they are."""
        self._exchange()
        self.swapped = not self.swapped

    @tf.function
    def _exchange(self):
        # One call for Python, so that no exception can come between two weights.
        for shadow, source in zip(self.shadows, self.sources, strict=True):
            value = tf.identity(source.value)
            source.assign(shadow)
            shadow.assign(value)

    @classmethod
    def of(cls, recipe) -> MovingAverage | None:
        """The average a recipe asks for with `ema_decay`: of the generator, or of all networks; None when it is 0."""
        decay = recipe.hyperparameters.ema_decay
        if not decay:
            return None
        return cls({"generator": recipe.generator} if recipe.kind == "gan" else recipe.networks, decay)
