"""Graphs that hold their weights: the same numbers by fewer operations, whatever is set later."""

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf.networks.constant import constant_weights, of_weights
from t2i_tf.networks.gated import GatedConvolution, GatedResidual
from t2i_tf.papers.stackgan_v2 import JointConvolution

RANDOM = np.random.default_rng(0)


def numbers(*shape):
    return tf.constant(RANDOM.normal(size=shape), tf.float32)


class Joint(JointConvolution):
    """With its code, to be called with maps alone."""

    def __init__(self, filters):
        super().__init__(filters)
        self.code = numbers(1, 3)

    def build(self, shape):
        super().build(shape, self.code.shape)

    def call(self, maps, training=False):
        return super().call(maps, tf.tile(self.code, [tf.shape(maps)[0], 1]), training=training)


def shaken(layer, maps):
    layer(maps)
    for variable in layer.variables:
        variable.assign(RANDOM.uniform(0.2, 0.6, variable.shape))
    return layer


@pytest.fixture(params=["convolution", "upsampling by taps", "upsampling by folding", "residual", "joint"])
def layer_and_maps(request):
    """Layers whose kernels are smaller than what they make, so that batch norm is folded into them on a CPU."""
    side = 8 if request.param.endswith("taps") else 20
    maps = numbers(2, side, side, 4)
    layer = {
        "convolution": lambda: GatedConvolution(3),
        "residual": lambda: GatedResidual(4),
        "joint": lambda: Joint(3),
    }.get(request.param, lambda: GatedConvolution(3, upsample=True))()
    return shaken(layer, maps), maps


def test_numbers_are_those_of_the_weights_when_traced(layer_and_maps):
    layer, maps = layer_and_maps

    def holding(maps):
        with constant_weights():
            return layer(maps)

    plain, held = (tf.function(f).get_concrete_function(maps) for f in (layer.__call__, holding))
    wanted = plain(maps)
    np.testing.assert_array_equal(held(maps), wanted)
    np.testing.assert_allclose(layer(maps), wanted, rtol=1e-5, atol=1e-5)
    fewer = len(plain.graph.get_operations()) - len(held.graph.get_operations())
    assert fewer > 5 and not any(outside.dtype == tf.resource for outside, _ in held.graph.captures)
    for variable in layer.variables:
        variable.assign(0.5 * variable)
    np.testing.assert_array_equal(held(maps), wanted)
    assert np.abs(plain(maps) - wanted).max() > 1e-3
    np.testing.assert_array_equal(holding(maps), layer(maps))  # eagerly they are read at every call


def test_training_sees_weights_change(layer_and_maps):
    layer, maps = layer_and_maps

    @tf.function
    def trained(maps):
        with constant_weights():
            return layer(maps, training=True)

    before = trained(maps)
    layer.conv.kernel.assign(RANDOM.normal(size=layer.conv.kernel.shape))
    assert np.abs(trained(maps) - before).max() > 1e-3


def test_the_joint_convolution_is_one_of_tiled_codes():
    """Batch norm folded in, borders included: against a plain convolution of features and code side by side."""
    maps = numbers(2, 12, 20, 4)
    layer = shaken(Joint(3), maps)
    tiled = tf.tile(layer.code[:, None, None], [2, 12, 20, 1])
    made = layer.norm(tf.nn.conv2d(tf.concat([tiled, maps], axis=-1), layer.conv.kernel, 1, "SAME"))
    np.testing.assert_allclose(layer(maps), made, rtol=1e-4, atol=1e-5)


def test_what_hangs_on_a_graph_is_computed_in_it():
    @tf.function
    def call(x):
        with constant_weights():
            return of_weights(lambda weight: 2 * weight, x)

    assert float(call(tf.constant(3.0))) == 6.0 and float(call(tf.constant(4.0))) == 8.0
