"""The blocks of StackGAN++ and AttnGAN; that they compute what was published is seen in tests/parity."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf.networks import blocks

RANDOM = np.random.RandomState(0)


def normal(*shape):
    return tf.constant(RANDOM.randn(*shape), tf.float32)


def test_the_second_half_of_the_channels_is_the_gate():
    x = np.array([[1.0, -2.0, 0.0, np.log(3.0)]], np.float32)
    np.testing.assert_allclose(blocks.glu(x), [[0.5, -1.5]], rtol=1e-6)


def test_a_vector_stands_at_every_place_of_the_maps():
    vector, maps = normal(2, 3), tf.zeros([2, 4, 5, 7], tf.float16)
    spread = blocks.everywhere(vector, maps)
    assert spread.shape == (2, 4, 5, 3) and spread.dtype == tf.float16
    np.testing.assert_array_equal(spread[:, 3, 4], tf.cast(vector, tf.float16))


@pytest.mark.parametrize("filters, kernel, channels", [(5, 3, 2), (8, 4, 3), (40, 1, 6)])
def test_filters_start_orthonormal(filters, kernel, channels):
    layer = blocks.orthogonal_convolution(filters, kernel)
    layer.build((None, 8, 8, channels))
    matrix = np.reshape(layer.kernel, (-1, filters)).T  # rows (out) x (rows, columns, in)
    product = matrix @ matrix.T if filters <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-5)


def test_other_initial_values():
    head = blocks.LogitHead()
    assert head(normal(3, 4, 4, 8)).shape == (3,)
    assert abs(float(head.bias[0])) <= 1 / np.sqrt(4 * 4 * 8)
    augmentation = blocks.GatedConditioningAugmentation(5)
    augmentation(normal(2, 7), normal(2, 5))
    assert not np.any(augmentation.dense.bias)


def test_conditioning_augmentation():
    augmentation = blocks.GatedConditioningAugmentation(5)
    text, noise = normal(2, 7), normal(2, 5)
    condition, mu, log_variance = augmentation(text, noise)
    np.testing.assert_allclose(condition, mu + noise * np.exp(log_variance / 2), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(augmentation(text, tf.zeros([2, 5]))[0], mu)
    dense = np.matmul(text, augmentation.dense.kernel)
    wanted = dense[:, :10] / (1 + np.exp(-dense[:, 10:]))
    np.testing.assert_allclose(tf.concat([mu, log_variance], 1), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size, sizes", [(8, [8]), (32, [8, 16, 32]), (64, [8, 16, 32, 64])])
def test_a_stem_doubles_up_to_its_size(size, sizes):
    stem = blocks.GeneratorStem(3, size)
    maps = stem(normal(2, 10), training=True)
    assert maps.shape == (2, size, size, 3)
    assert [block.name for block in stem.upsamplings] == [f"upsample_{size}" for size in sizes]
    assert stem.project.kernel.shape == (10, 4 * 4 * 2 * 3 * size // 4)


@pytest.mark.parametrize(
    "size, channels", [(8, [2]), (32, [2, 4, 8]), (64, [2, 4, 8, 16]), (256, [2, 4, 8, 16, 32, 64, 32, 16])]
)
def test_a_trunk_ends_at_4x4(size, channels):
    trunk = blocks.DiscriminatorTrunk(2, size)
    assert trunk(normal(1, size, size, 3)).shape == (1, 4, 4, channels[-1])
    layers = [trunk.first, *(layer.conv for layer in [*trunk.downs, *trunk.narrows])]
    assert [layer.filters for layer in layers] == channels
    assert len(trunk.variables) == 1 + 5 * (len(channels) - 1), "no batch norm behind the first convolution"


@pytest.mark.parametrize("shape", [(4, 4, 32, 16), (3, 3, 8, 3), (200, 900), (6, 6), (3, 3, 4, 30)])
def test_orthonormal_filters_are_those_that_keras_draws(shape):
    """Tall, wide, square and nearly square ones."""
    drawn = np.asarray(blocks.Orthogonal(seed=3)(shape))
    np.testing.assert_allclose(drawn, keras.initializers.Orthogonal(seed=3)(shape), atol=2e-6)
    flat = drawn.reshape(-1, shape[-1])
    product = flat.T @ flat if flat.shape[0] >= flat.shape[1] else flat @ flat.T
    np.testing.assert_allclose(product, np.eye(len(product)), atol=2e-6)
