import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf.networks.composite import Composite, Network


def pair(base, calls):
    """A kind of layer that is made of two, of which the second is such a layer again, down to depth 0."""

    class Pair(base):
        def __init__(self, depth):
            super().__init__()
            self.first = keras.layers.Dense(3)
            self.second = pair(Composite, calls)(depth - 1) if depth else keras.layers.Dense(2)

        def call(self, x):
            calls.append(base)
            return self.second(self.first(x))

    return Pair


@pytest.mark.parametrize("base", [Composite, Network])
def test_each_layer_is_called_once_to_be_built(base):
    calls = []
    layer = pair(base, calls)(depth=2)
    made = layer(tf.ones([1, 4]))
    assert len(calls) == 3 and layer.built and made.shape == (1, 2)
    assert [tuple(weight.shape) for weight in layer.weights] == [(4, 3), (3,), (3, 3), (3,), (3, 3), (3,), (3, 2), (2,)]
    np.testing.assert_array_equal(layer(tf.ones([1, 4])), made)
