"""The blocks of StackGAN++ and AttnGAN; that they compute what was published is seen in tests/parity."""

from functools import partial

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf.networks import convolutions, gated, processor

RANDOM = np.random.RandomState(0)


def normal(*shape):
    return tf.constant(RANDOM.randn(*shape), tf.float32)


def test_the_second_half_of_the_channels_is_the_gate():
    x = np.array([[1.0, -2.0, 0.0, np.log(3.0)]], np.float32)
    np.testing.assert_allclose(gated.glu(x), [[0.5, -1.5]], rtol=1e-6)


@pytest.mark.parametrize("filters, kernel, channels", [(5, 3, 2), (8, 4, 3), (40, 1, 6)])
def test_filters_start_orthonormal(filters, kernel, channels):
    layer = gated.orthogonal_convolution(filters, kernel)
    layer.build((None, 8, 8, channels))
    matrix = np.reshape(layer.kernel, (-1, filters)).T  # rows (out) x (rows, columns, in)
    product = matrix @ matrix.T if filters <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-5)


def test_conditioning_augmentation():
    augmentation = gated.GatedConditioningAugmentation(5)
    text, noise = normal(2, 7), normal(2, 5)
    condition, mu, log_variance = augmentation(text, noise)
    np.testing.assert_allclose(condition, mu + noise * np.exp(log_variance / 2), rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(augmentation(text, tf.zeros([2, 5]))[0], mu)
    dense = np.matmul(text, augmentation.dense.kernel)
    wanted = dense[:, :10] / (1 + np.exp(-dense[:, 10:]))
    np.testing.assert_allclose(tf.concat([mu, log_variance], 1), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size, sizes", [(8, [8]), (32, [8, 16, 32]), (64, [8, 16, 32, 64])])
def test_a_stem_doubles_up_to_its_size(size, sizes):
    stem = gated.GeneratorStem(3, size)
    maps = stem(normal(2, 10), training=True)
    assert maps.shape == (2, size, size, 3)
    assert [block.name for block in stem.upsamplings] == [f"upsample_{size}" for size in sizes]
    assert stem.project.kernel.shape == (10, 4 * 4 * 2 * 3 * size // 4)


@pytest.mark.parametrize(
    "size, channels", [(8, [2]), (32, [2, 4, 8]), (64, [2, 4, 8, 16]), (256, [2, 4, 8, 16, 32, 64, 32, 16])]
)
def test_a_trunk_ends_at_4x4(size, channels):
    trunk = gated.DiscriminatorTrunk(2, size)
    assert trunk(normal(1, size, size, 3)).shape == (1, 4, 4, channels[-1])
    layers = [trunk.first, *(layer.conv for layer in [*trunk.downs, *trunk.narrows])]
    assert [layer.filters for layer in layers] == channels
    assert len(trunk.variables) == 1 + 5 * (len(channels) - 1), "no batch norm behind the first convolution"


@pytest.mark.parametrize("side", [1, 4, 5, 32])
@pytest.mark.parametrize(
    "block", [gated.GatedConvolution, partial(gated.GatedConvolution, upsample=True), gated.GatedResidual]
)
def test_a_folded_norm_gives_the_same_maps(monkeypatch, block, side):
    """On a CPU outside training; a kernel of 288 or 576 weights a filter is folded at 32x32 places, not at 4x4."""
    monkeypatch.setattr(processor, "on_cpu", lambda: True)
    layer, maps = block(16, name="layer"), normal(2, side, side, 16)
    layer(maps)
    for weight in layer.weights:
        weight.assign(
            RANDOM.uniform(0.5, 1.5, weight.shape) if "variance" in weight.path else RANDOM.normal(0, 0.1, weight.shape)
        )
    found = tf.function(layer)(maps)
    asked = []
    monkeypatch.setattr(gated, "folds", lambda *given: asked.append(convolutions.folds(*given)))
    np.testing.assert_allclose(found, layer(maps), rtol=1e-5, atol=1e-5)
    assert asked == [side == 32] * len(asked) and asked
