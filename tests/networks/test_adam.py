"""The fused update against Keras' own, on the same gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf.networks.adam import Adam

RNG = np.random.default_rng(3)


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.1 * 0.5 ** tf.cast(step, tf.float32)


def _apply_to(optimizer, variables):
    return lambda gradients: optimizer.apply(gradients, variables)


@pytest.mark.parametrize("rate", [0.1, Halving()])
@pytest.mark.parametrize("settings", [{}, {"beta_1": 0.5, "epsilon": 1e-8}])
def test_steps_are_those_of_keras(settings, rate):
    start = [RNG.normal(size=shape).astype("f4") for shape in ((3, 4), (5,), ())]
    gradients = [[RNG.normal(0, 10.0**scale, s.shape).astype("f4") for s in start] for scale in (0, -3, -8, 2)]
    results = []
    for kind in (Adam, keras.optimizers.Adam):
        variables = [keras.Variable(value) for value in start]
        optimizer = kind(rate, **settings)
        optimizer.build(variables)
        apply = tf.function(_apply_to(optimizer, variables))
        for step in gradients:
            apply([tf.constant(g) for g in step])
        results.append([v.numpy() for v in [*variables, *optimizer.variables]])
    for fused, plain in zip(*results, strict=True):
        np.testing.assert_allclose(fused, plain, rtol=2e-5, atol=5e-6)


def test_gradients_of_single_rows():
    """Of a lookup: the other rows' moments decay all the same, as in Keras and PyTorch."""
    table = keras.Variable(np.ones((4, 2), "f4"))
    optimizer = Adam(0.1)
    optimizer.build([table])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.gather(table.value, [1, 1]))
    optimizer.apply(tape.gradient(loss, [table.value]), [table])
    np.testing.assert_allclose(table.numpy()[1], 0.9, rtol=1e-5)
    np.testing.assert_array_equal(table.numpy()[[0, 2, 3]], 1.0)


def test_losses_may_be_scaled():
    """Keras' wrapper for float16 takes the same steps, and none whose gradients overflow; they halve the scale."""
    plain, scaled = keras.Variable(np.ones(3, "f4")), keras.Variable(np.ones(3, "f4"))
    optimizer, wrapped = Adam(0.1), keras.optimizers.LossScaleOptimizer(Adam(0.1), initial_scale=8.0)
    optimizer.build([plain]), wrapped.build([scaled])
    apply, apply_scaled = (tf.function(_apply_to(*pair)) for pair in ((optimizer, [plain]), (wrapped, [scaled])))
    for gradient, scale in (([1.0, -2.0, 0.5], 8.0), ([np.inf, 0.0, 0.0], 8.0), ([0.1, 1.0, 3.0], 4.0)):
        if np.isfinite(gradient).all():
            apply([tf.constant(gradient)])
        apply_scaled([scale * tf.constant(gradient)])
        np.testing.assert_allclose(scaled, plain, rtol=1e-6)
