"""Frozen networks whose maps are annotations."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf.networks import encoders

RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def vgg():
    keras.utils.set_random_seed(0)
    return encoders.AnnotationFeatures("vgg19", "random")


def pictures(height, width, batch=1):
    return RNG.integers(0, 256, (batch, height, width, 3)).astype(np.uint8)


def test_vgg_annotations_are_conv5_4_behind_its_relu(vgg):
    """Computed anew from the weights, convolution by convolution, in the published program's terms."""
    image = pictures(224 * 8 // 7, 224 * 8 // 7)
    x = tf.constant(image[:, 16:240, 16:240, ::-1].astype(np.float32) - [103.939, 116.779, 123.68], tf.float32)  # BGR
    weights = vgg.weights()
    assert len(weights) == 2 * 16
    layers = iter(zip(weights[::2], weights[1::2], strict=True))
    for block, convolutions in enumerate((2, 2, 4, 4, 4), 1):
        for _ in range(convolutions):
            kernel, bias = next(layers)
            x = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME") + bias)
        if block < 5:
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")
    assert vgg.shape == (196, 512)
    found = vgg(image)
    assert found.dtype == tf.float32
    scale = float(tf.reduce_max(x))
    np.testing.assert_allclose(found / scale, tf.reshape(x, [1, 196, 512]) / scale, atol=1e-5)


@pytest.mark.parametrize("height, width", [(256, 341), (341, 256), (257, 256), (100, 333), (700, 300)])
def test_the_square_in_the_middle_counts(vgg, monkeypatch, height, width):
    """The shorter side is brought to 256 and a square of 224 cut out, in whole numbers."""
    seen = []
    monkeypatch.setattr(vgg, "_maps", lambda square: seen.append(square) or tf.zeros([1, 14, 14, 512]))
    image = pictures(height, width)
    vgg(image)
    shorter = min(height, width)
    size = (height * 256 // shorter, width * 256 // shorter)
    whole = image.astype(np.float32)
    if size != (height, width):
        whole = np.clip(tf.image.resize(whole, size, "bicubic", antialias=True), 0, 255)
    top, left = (size[0] - 224) // 2, (size[1] - 224) // 2
    np.testing.assert_allclose(seen[0], whole[:, top : top + 224, left : left + 224], atol=1e-3)


def test_in_a_graph_of_any_batch(vgg):
    call = tf.function(vgg, input_signature=[tf.TensorSpec([None, 256, 256, 3], tf.uint8)])
    image = pictures(256, 256)
    found = call(image)
    assert found.shape == (1, 196, 512) and call.get_concrete_function().structured_outputs.shape[1:] == (196, 512)


class Maps(tf.Module):
    """A network as TF Hub has them: maps of the mean colours of a grid, alone or among the endpoints of a vector."""

    def __init__(self, endpoint):
        super().__init__()
        self.endpoint, self.gain = endpoint, tf.Variable(2.0)

    @tf.function
    def __call__(self, images, training=False, return_endpoints=False):
        maps = self.gain * tf.nn.avg_pool2d(images, 32, 32, "VALID")
        vector = tf.reduce_mean(maps, [1, 2])
        if self.endpoint is None:
            return maps
        return {"default": vector, self.endpoint: maps} if return_endpoints else vector


def saved(folder, endpoint, size=None):
    module, pictures = Maps(endpoint), tf.TensorSpec([None, size, size, 3])
    for endpoints in (False, True):
        module.__call__.get_concrete_function(pictures, training=False, return_endpoints=endpoints)
    module.__call__.get_concrete_function(pictures, training=False)
    tf.saved_model.save(module, str(folder))
    return str(folder)


@pytest.mark.parametrize("endpoint", [None, "vgg_19/conv5/conv5_4"])
def test_a_saved_network_that_gives_maps(tmp_path, endpoint):
    network = encoders.AnnotationFeatures("vgg19", saved(tmp_path, endpoint))
    assert network.shape == (49, 3)
    image = pictures(256, 256, batch=2)
    square = image[:, 16:240, 16:240].reshape(2, 7, 32, 7, 32, 3).astype(np.float64)
    wanted = 2.0 * square.mean((2, 4)).reshape(2, 49, 3) / 255.0
    np.testing.assert_allclose(network(image), wanted, atol=1e-5)


def test_sources_that_are_none(tmp_path):
    with pytest.raises(ValueError, match="no such network; give keras, random"):
        encoders.AnnotationFeatures("vgg19", str(tmp_path))
    (tmp_path / "w.h5").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="no weights of vgg19 there .*download vgg19_weights_tf_dim_ordering"):
        encoders.AnnotationFeatures("vgg19", str(tmp_path / "w.h5"))
    with pytest.raises(ValueError, match="gives no maps .* nor any by the name InceptionV3/Mixed_6e"):
        encoders.AnnotationFeatures("inception_v3", saved(tmp_path / "vgg", "vgg_19/conv5/conv5_4"))
    with pytest.raises(ValueError, match=r"takes no pictures \(1, 299, 299, 3\) \(.*give a network that does"):
        encoders.AnnotationFeatures("inception_v3", saved(tmp_path / "small", None, 224))


def test_a_weights_file_is_the_network_it_was_written_from(vgg, tmp_path):
    path = str(tmp_path / "some.weights.h5")
    whole = keras.applications.VGG19(include_top=False, weights=None)
    whole.save_weights(path)
    network = encoders.AnnotationFeatures("vgg19", path)
    for theirs, ours in zip(whole.get_weights(), network.weights(), strict=True):
        np.testing.assert_array_equal(theirs, ours)


def test_a_network_without_training_is_the_same_in_every_run():
    """Annotations that were kept must be those of the process that describes pictures with them."""
    pictures = tf.random.stateless_uniform([1, 256, 256, 3], [0, 0], 0.0, 255.0)
    keras.utils.set_random_seed(1)
    first = encoders.AnnotationFeatures("vgg19", "random")(pictures)
    keras.utils.set_random_seed(2)
    second = encoders.AnnotationFeatures("vgg19", "random")(pictures)
    np.testing.assert_array_equal(first, second)
    assert 0.1 < np.std(first) < 100.0
