"""char-CNN-RNN: its optimizer, its recipe for captions alone, and what it needs to read captions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf.papers import char_cnn_rnn

GRADIENTS = np.array([[2.0, -1e-3, 1e-9, 0.0], [-0.5, 1e-5, 1e-9, 0.0], [0.1, -1e-7, -3e-9, 0.0]], np.float32)
START = np.array([0.5, -0.5, 0.0, 1.0], np.float32)


class Falling(keras.optimizers.schedules.LearningRateSchedule):
    """0.1, 0.05, 0.025, ..."""

    def __call__(self, step):
        return 0.1 * 0.5 ** tf.cast(step, tf.float32)


def stepped(optimizer, gradients=GRADIENTS):
    variable = keras.Variable(START)
    optimizer.build([variable])
    apply = tf.function(lambda gradient: optimizer.apply([gradient], [variable]))
    for gradient in gradients:
        apply(tf.constant(gradient))
    return variable.numpy()


def by_hand(rates):
    weights, mean_square = START.astype(np.float64), np.zeros(4)
    for gradient, rate in zip(GRADIENTS.astype(np.float64), rates, strict=True):
        mean_square = 0.99 * mean_square + 0.01 * gradient**2
        weights -= rate * gradient / (np.sqrt(mean_square) + 1e-8)
    return weights


@pytest.mark.parametrize("rate, rates", [(7e-4, [7e-4] * 3), (Falling(), [0.1, 0.05, 0.025])])
def test_rmsprop_has_epsilon_outside_the_root(rate, rates):
    moved = stepped(char_cnn_rnn.RMSprop(rate, rho=0.99, epsilon=1e-8)) - START
    np.testing.assert_allclose(moved, by_hand(rates) - START, rtol=1e-3, atol=1e-7)
    assert moved[3] == 0.0 and abs(moved[2]) > 0.01 * rates[0]  # inside, 1e-9 would move it by 1e-5 of the rate


def test_rmsprop_is_that_of_torch():
    torch = pytest.importorskip("torch")
    weights = torch.nn.Parameter(torch.tensor(START))
    optimizer = torch.optim.RMSprop([weights], lr=7e-4, alpha=0.99, eps=1e-8)
    for gradient in GRADIENTS:
        weights.grad = torch.tensor(gradient)
        optimizer.step()
    ours = stepped(char_cnn_rnn.RMSprop(7e-4, rho=0.99, epsilon=1e-8))
    np.testing.assert_allclose(ours, weights.detach().numpy(), rtol=1e-6, atol=1e-9)


def test_rmsprop_under_the_loss_scale_takes_the_same_steps():
    """Gradients in float16 come multiplied by the scale, and are divided before the update."""
    scaled = keras.optimizers.LossScaleOptimizer(char_cnn_rnn.RMSprop(7e-4, rho=0.99, epsilon=1e-8), 2.0**15)
    got = stepped(scaled, GRADIENTS * 2.0**15)
    np.testing.assert_allclose(got, stepped(char_cnn_rnn.RMSprop(7e-4, rho=0.99, epsilon=1e-8)), rtol=1e-6, atol=1e-9)


def test_checkpoints_of_keras_own_rmsprop_still_load():
    """What older runs were trained with: the same variables by the same names."""

    def variables(kind):
        optimizer = kind(1e-3, name="rmsprop")
        optimizer.build([keras.Variable(np.zeros((2, 3)), name="kernel")])
        return [(v.path, v.shape, v.dtype) for v in optimizer.variables]

    assert variables(char_cnn_rnn.RMSprop) == variables(keras.optimizers.RMSprop)
