import numpy as np
import pytest
import tensorflow as tf

from t2i_tf.networks import processor, replicas
from t2i_tf.networks.blocks import leaky_relu
from t2i_tf.networks.gated import glu
from t2i_tf.networks.normalisation import BatchNormalization

RNG = np.random.default_rng(7)
SHAPES = [(4, 5, 3, 6), (1, 4, 4, 2), (1, 2, 1, 3), (8, 5), (2, 3)]


def normalised_by_hand(x, gamma, beta, epsilon=1e-5):
    """Training output, input gradient for an output gradient g, and the moments, in float64."""
    axes = tuple(range(x.ndim - 1))
    n = x.size // x.shape[-1]
    mean, variance = x.mean(axes), x.var(axes)
    scale = 1.0 / np.sqrt(variance + epsilon)
    centred = (x - mean) * scale

    def gradient(g):
        return gamma * scale * (g - g.mean(axes) - centred * (g * centred).mean(axes))

    return centred * gamma + beta, gradient, mean, variance * n / (n - 1), centred


@pytest.fixture
def make():
    def layer(width, **settings):
        norm = BatchNormalization(**settings)
        norm.build((None, width))
        norm.gamma.assign(RNG.normal(1, 0.5, width))
        norm.beta.assign(RNG.normal(0, 0.5, width))
        norm.moving_mean.assign(RNG.normal(0, 1, width))
        norm.moving_variance.assign(RNG.uniform(0.5, 2, width))
        return norm

    return layer


def in_training(norm, x, batch_known):
    """The layer in training, traced for this batch or for any."""
    shape = x.shape if batch_known else [None, *x.shape[1:]]
    return tf.function(lambda x: norm(x, training=True), input_signature=[tf.TensorSpec(shape)])(x)


@pytest.mark.parametrize("batch_known", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_normalisation_trains_as_worked_by_hand(make, shape, batch_known):
    norm = make(shape[-1])
    x, g = RNG.normal(2, 3, shape), RNG.normal(size=shape)
    gamma, beta = norm.gamma.numpy().astype(np.float64), norm.beta.numpy().astype(np.float64)
    before = norm.moving_mean.numpy(), norm.moving_variance.numpy()
    output, gradient, mean, variance, centred = normalised_by_hand(x, gamma, beta)

    inputs = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        y = in_training(norm, inputs, batch_known)
        loss = tf.reduce_sum(y * tf.constant(g, tf.float32))
    of_x, of_gamma, of_beta = tape.gradient(loss, [inputs, norm.gamma.value, norm.beta.value])

    np.testing.assert_allclose(y, output, atol=2e-4)
    np.testing.assert_allclose(of_x, gradient(g), atol=1e-6 + 2e-3 * np.abs(gradient(g)).max())
    axes = tuple(range(x.ndim - 1))
    np.testing.assert_allclose(of_gamma, (g * centred).sum(axes), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(of_beta, g.sum(axes), rtol=1e-4, atol=1e-4)
    # Torch's 0.1 on the new value; the variance is the unbiased one
    np.testing.assert_allclose(norm.moving_mean, 0.9 * before[0] + 0.1 * mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance, 0.9 * before[1] + 0.1 * variance, rtol=1e-5)


@pytest.mark.parametrize("activation", [None, leaky_relu])
@pytest.mark.parametrize("shape", SHAPES)
def test_groups_are_batches_one_after_the_other(make, shape, activation):
    """Values, gradients and running statistics."""
    norm = make(shape[-1], activation=activation)
    before = norm.get_weights()
    batches = [tf.constant(RNG.normal(size=shape), tf.float32) for _ in range(3)]
    joined = tf.concat(batches, axis=0)
    weights = tf.constant(RNG.normal(size=joined.shape), tf.float32)

    def passed(normalised):
        with tf.GradientTape() as tape:
            tape.watch(joined)
            y = normalised()
            loss = tf.reduce_sum(y * weights)
        return y, *tape.gradient(loss, [joined, norm.gamma.value, norm.beta.value])

    apart = passed(lambda: tf.concat([norm(batch, training=True) for batch in tf.split(joined, 3)], axis=0))
    moved = norm.get_weights()
    norm.set_weights(before)
    together = passed(lambda: norm(joined, training=True, groups=3))
    np.testing.assert_array_equal(together[0], apart[0])
    for one, other in zip(together[1:], apart[1:], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6 * np.abs(other).max())
    for one, other in zip(norm.get_weights(), moved, strict=True):
        np.testing.assert_array_equal(one, other)
    in_use = norm(batches[0]), norm(joined, groups=3)  # running statistics know no groups
    np.testing.assert_array_equal(in_use[1][: len(batches[0])], in_use[0])


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("activation", [glu, leaky_relu])
def test_an_activation_inside_is_one_behind(make, activation, compiled):
    """Values, gradients and running statistics, which move once although the forward is computed twice."""
    inside, apart = make(6, activation=activation), make(6)
    apart.set_weights(inside.get_weights())
    x = tf.constant(RNG.normal(2, 3, (4, 5, 3, 6)), tf.float32)

    def step(norm, behind):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = behind(norm(x, training=True))
            loss = tf.reduce_sum(y * tf.cast(tf.range(y.shape[-1]), y.dtype))
        return y, tape.gradient(loss, [x, norm.gamma.value, norm.beta.value])

    step = tf.function(step) if compiled else step
    for one, other in zip(
        tf.nest.flatten(step(inside, tf.identity)), tf.nest.flatten(step(apart, activation)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    for one, other in zip(inside.get_weights(), apart.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("batch_known", [True, False])
@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 1, 3)])
def test_a_single_value_has_no_variance_and_stays_finite(make, shape, batch_known):
    norm = make(3)
    before = norm.moving_variance.numpy()
    y = in_training(norm, tf.fill(shape, 5.0), batch_known)
    np.testing.assert_allclose(tf.reshape(y, [3]), norm.beta.numpy(), atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance, 0.9 * before, rtol=1e-6)


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_batch_normalisation_in_use_takes_the_running_statistics(monkeypatch, make, shape, on_cpu):
    """In the form for either device."""
    monkeypatch.setattr(processor, "on_cpu", lambda: on_cpu)
    norm = make(shape[-1])
    x = RNG.normal(size=shape)
    expected = (x - norm.moving_mean.numpy()) / np.sqrt(norm.moving_variance.numpy() + 1e-5)
    before = norm.moving_mean.numpy()
    y = norm(tf.constant(x, tf.float32), training=False)
    np.testing.assert_allclose(y, expected * norm.gamma.numpy() + norm.beta.numpy(), atol=1e-4)
    np.testing.assert_array_equal(norm.moving_mean, before)


@pytest.mark.parametrize("batch_known", [True, False])
def test_the_biased_variance_can_be_asked_for(make, batch_known):
    norm = make(2, unbiased=False, momentum=0.0)
    x = RNG.normal(size=(5, 2))
    in_training(norm, tf.constant(x, tf.float32), batch_known)
    np.testing.assert_allclose(norm.moving_variance, x.var(0), rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_normalisation_against_torch(make, shape):
    torch = pytest.importorskip("torch")
    width = shape[-1]
    norm = make(width)
    theirs = (torch.nn.BatchNorm1d if len(shape) == 2 else torch.nn.BatchNorm2d)(width)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(norm.gamma.numpy()))
        theirs.bias.copy_(torch.tensor(norm.beta.numpy()))
        theirs.running_mean.copy_(torch.tensor(norm.moving_mean.numpy()))
        theirs.running_var.copy_(torch.tensor(norm.moving_variance.numpy()))
    first = (0, 1) if len(shape) == 2 else (0, 3, 1, 2)
    last = (0, 1) if len(shape) == 2 else (0, 2, 3, 1)
    for _ in range(3):
        x = RNG.normal(1, 2, shape).astype(np.float32)
        g = RNG.normal(size=shape).astype(np.float32)
        inputs = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            y = norm(inputs, training=True)
            loss = tf.reduce_sum(tf.square(y) * g)
        their_input = torch.tensor(x.transpose(first), requires_grad=True)
        their_y = theirs(their_input)
        (their_y.square() * torch.tensor(g.transpose(first))).sum().backward()
        np.testing.assert_allclose(y, their_y.detach().numpy().transpose(last), atol=1e-4)
        expected = their_input.grad.numpy().transpose(last)
        np.testing.assert_allclose(tape.gradient(loss, inputs), expected, atol=2e-3 * max(1.0, np.abs(expected).max()))
        np.testing.assert_allclose(norm.moving_mean, theirs.running_mean.numpy(), atol=1e-5)
        np.testing.assert_allclose(norm.moving_variance, theirs.running_var.numpy(), rtol=1e-4)


def test_gathered_rows_are_normalised_as_they_stand(make, monkeypatch):
    """Each of two replicas holds all rows: the result is that of one."""
    x = tf.constant(RNG.normal(1, 2, (5, 3)), tf.float32)
    alone, among_two = make(3), make(3)
    for mine, theirs in zip(among_two.variables, alone.variables, strict=True):
        mine.assign(theirs.value)
    expected = alone(x, training=True)
    monkeypatch.setattr(replicas, "count", lambda: 2)
    np.testing.assert_allclose(among_two(x, training=True, gathered=True), expected, atol=1e-6)
    np.testing.assert_allclose(among_two.moving_variance, alone.moving_variance, rtol=1e-6)


def test_normalisation_is_saved_by_its_configuration():
    norm = BatchNormalization(epsilon=1e-3, momentum=0.5, unbiased=False)
    again = BatchNormalization.from_config(norm.get_config())
    assert (again.epsilon, again.momentum, again.unbiased) == (1e-3, 0.5, False)
