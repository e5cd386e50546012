import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf.networks import blocks

RNG = np.random.default_rng(7)


def test_a_vector_stands_at_every_place_of_the_maps():
    vector, maps = tf.constant(RNG.normal(size=(2, 3)), tf.float32), tf.zeros([2, 4, 5, 7], tf.float16)
    spread = blocks.everywhere(vector, maps)
    assert spread.shape == (2, 4, 5, 3) and spread.dtype == tf.float16
    np.testing.assert_array_equal(spread[:, 3, 4], tf.cast(vector, tf.float16))


@pytest.mark.parametrize("kernel, stride, size", [(1, 1, 5), (3, 1, 5), (4, 2, 8)])
def test_convolutions_pad_as_torch_does(kernel, stride, size):
    torch = pytest.importorskip("torch")
    layer = blocks.convolution(3, kernel, stride)
    x = RNG.normal(size=(2, size, size, 4)).astype(np.float32)
    y = layer(x)
    assert len(layer.weights) == 1, "no bias"
    weight = torch.tensor(layer.kernel.numpy().transpose(3, 2, 0, 1))
    theirs = torch.nn.functional.conv2d(torch.tensor(x.transpose(0, 3, 1, 2)), weight, None, stride, (kernel - 1) // 2)
    np.testing.assert_allclose(y, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-5)


def test_transposed_convolution_doubles_as_torch_does():
    torch = pytest.importorskip("torch")
    layer = blocks.transposed_convolution(3)
    x = RNG.normal(size=(2, 4, 4, 5)).astype(np.float32)
    y = layer(x)
    assert y.shape == (2, 8, 8, 3) and len(layer.weights) == 1
    weight = torch.tensor(layer.kernel.numpy().transpose(3, 2, 0, 1))
    theirs = torch.nn.functional.conv_transpose2d(torch.tensor(x.transpose(0, 3, 1, 2)), weight, None, 2, 1)
    np.testing.assert_allclose(y, theirs.numpy().transpose(0, 2, 3, 1), atol=1e-5)


@pytest.mark.parametrize("activate_sum", [True, False])
def test_the_bottleneck_adds_its_input_and_activates_the_sum_once(activate_sum):
    block = blocks.BottleneckResidual(6, 2, tf.nn.relu, activate_sum=activate_sum)
    x = tf.constant(RNG.normal(size=(3, 4, 4, 6)), tf.float32)
    block(x)
    shapes = [tuple(layer.kernel.shape) for layer in (block.conv1, block.conv2, block.conv3)]
    assert shapes == [(1, 1, 6, 2), (3, 3, 2, 2), (3, 3, 2, 6)]
    block.norm3.gamma.assign(tf.zeros(6))  # the branch then gives its shift alone
    block.norm3.beta.assign(tf.fill([6], 0.25))
    for training in (True, False):
        expected = x.numpy() + 0.25
        np.testing.assert_allclose(
            block(x, training=training), np.maximum(expected, 0) if activate_sum else expected, atol=1e-6
        )


def test_the_bottleneck_against_torch():
    torch = pytest.importorskip("torch")
    block = blocks.BottleneckResidual(6, 2, blocks.leaky_relu)
    x = RNG.normal(size=(3, 5, 5, 6)).astype(np.float32)
    block(x)
    parts = []
    for conv, norm, padding in (
        (block.conv1, block.norm1, 0),
        (block.conv2, block.norm2, 1),
        (block.conv3, block.norm3, 1),
    ):
        kernel = conv.kernel.numpy() * 20  # of a size that the sum feels
        conv.kernel.assign(kernel)
        theirs = torch.nn.Conv2d(kernel.shape[2], kernel.shape[3], kernel.shape[0], padding=padding, bias=False)
        theirs.weight.data = torch.tensor(kernel.transpose(3, 2, 0, 1))
        their_norm = torch.nn.BatchNorm2d(kernel.shape[3])
        their_norm.weight.data = torch.tensor(norm.gamma.numpy())
        parts += [theirs, their_norm, torch.nn.LeakyReLU(0.2)]
    their_x = torch.tensor(x.transpose(0, 3, 1, 2))
    expected = torch.nn.functional.leaky_relu(their_x + torch.nn.Sequential(*parts[:-1])(their_x), 0.2)
    np.testing.assert_allclose(block(x, training=True), expected.detach().numpy().transpose(0, 2, 3, 1), atol=1e-4)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("normalised", [True, False])
def test_a_bias_before_a_normalisation_has_no_gradient_in_training(training, normalised):
    dense = blocks.Dense(3, normalised=normalised, bias_initializer="ones")
    x = tf.constant(RNG.normal(size=(4, 2)), tf.float32)
    dense(x)
    with tf.GradientTape() as tape:
        y = dense(x, training=training)
        loss = tf.reduce_sum(y**2)
    np.testing.assert_allclose(y, x.numpy() @ dense.kernel.numpy() + 1, rtol=1e-5, atol=1e-6)
    gradient = tape.gradient(loss, dense.bias.value).numpy()
    assert (gradient == 0).all() == (training and normalised)


def test_a_dense_layer_may_have_no_bias():
    dense = blocks.Dense(3, normalised=True, use_bias=False)
    x = tf.constant(RNG.normal(size=(4, 2)), tf.float32)
    np.testing.assert_allclose(dense(x, training=True), x.numpy() @ dense.kernel.numpy(), rtol=1e-5, atol=1e-6)
    assert len(dense.variables) == 1


def test_a_bottleneck_hands_on_initial_values_and_the_kind_of_variance():
    block = blocks.BottleneckResidual(6, 2, tf.nn.relu, initializer=keras.initializers.Ones, unbiased=False)
    block(tf.zeros([1, 4, 4, 6]))
    for conv, norm in ((block.conv1, block.norm1), (block.conv2, block.norm2), (block.conv3, block.norm3)):
        assert (conv.kernel.numpy() == 1).all() and not norm.unbiased


def test_a_head_without_bias_scores_each_picture():
    head = blocks.LogitHead(keras.initializers.Ones, use_bias=False)
    features = tf.constant(RNG.normal(size=(2, 4, 4, 3)), tf.float32)
    np.testing.assert_allclose(head(features), features.numpy().sum(axis=(1, 2, 3)), rtol=1e-4, atol=1e-4)
    assert len(head.variables) == 1
