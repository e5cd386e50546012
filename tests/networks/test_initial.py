import keras
import numpy as np
import pytest

from t2i_tf.networks import blocks, gated, initial
from t2i_tf.networks.normalisation import BatchNormalization


def test_initial_values_are_torchs():
    keras.utils.set_random_seed(0)
    convolution = blocks.convolution(64, 4)
    convolution.build((None, 8, 8, 64))
    assert convolution.kernel.numpy().std() == pytest.approx(0.02, rel=0.05)
    dense = blocks.TorchDense(400)
    dense.build((None, 256))
    for weight in (dense.kernel.numpy(), dense.bias.numpy()):
        assert np.abs(weight).max() == pytest.approx(1 / 16, rel=0.05)
        assert np.abs(weight).max() <= 1 / 16
        assert weight.std() == pytest.approx(1 / 16 / np.sqrt(3), rel=0.1)
    norm = BatchNormalization()
    norm.build((None, 4096))
    assert norm.gamma.numpy().mean() == pytest.approx(1.0, abs=2e-3)
    assert norm.gamma.numpy().std() == pytest.approx(0.02, rel=0.1)


def test_other_initial_values():
    head = blocks.LogitHead()
    head.build((None, 4, 4, 8))
    assert 0 < abs(float(head.bias[0])) <= 1 / np.sqrt(4 * 4 * 8)
    augmentation = gated.GatedConditioningAugmentation(5)
    augmentation(np.ones([2, 7], "f4"), np.ones([2, 5], "f4"))
    assert not np.any(augmentation.dense.bias)


@pytest.mark.parametrize("shape", [(4, 4, 32, 16), (3, 3, 8, 3), (200, 900), (6, 6), (3, 3, 4, 30), (3, 3, 130, 515)])
def test_orthonormal_filters_are_those_that_keras_draws(shape):
    """Tall, wide, square and nearly square ones, and one of more columns than are made orthonormal at once."""
    drawn = np.asarray(initial.Orthogonal(seed=3)(shape))
    np.testing.assert_allclose(drawn, keras.initializers.Orthogonal(seed=3)(shape), atol=2e-6)
    flat = drawn.reshape(-1, shape[-1])
    product = flat.T @ flat if flat.shape[0] >= flat.shape[1] else flat @ flat.T
    np.testing.assert_allclose(product, np.eye(len(product)), atol=2e-6)


def test_weights_that_a_file_will_give_are_not_drawn():
    def drawn():
        layer = gated.orthogonal_convolution(8, 3)
        layer.build((None, 8, 8, 4))
        return np.any(layer.kernel)

    with initial.from_a_file():
        assert not drawn()
    assert drawn()
    with pytest.raises(KeyError), initial.from_a_file():
        raise KeyError
    assert drawn()
