"""Encoders; that the recurrent ones compute what was published is seen in tests/parity."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf.networks import encoders
from t2i_tf.networks.constant import constant_weights
from t2i_tf.networks.inception import Block

RANDOM = np.random.RandomState(0)


def pictures(batch, size):
    return tf.constant(RANDOM.uniform(-1, 1, (batch, size, size, 3)), tf.float32)


@pytest.fixture(scope="module")
def keras_inception():
    """keras.applications.InceptionV3 with made-up norms, which start as they would never be."""
    network = keras.applications.InceptionV3(include_top=False, weights=None, pooling="avg")
    for variable in network.variables:
        if "variance" in variable.path:
            variable.assign(RANDOM.uniform(0.5, 1.5, variable.shape))
        elif len(variable.shape) == 1:
            variable.assign(RANDOM.normal(0, 0.1, variable.shape))
    return network


@pytest.fixture(scope="module")
def region_encoder():
    encoder = encoders.RegionEncoder("random", width=8)
    encoder(tf.zeros([1, 299, 299, 3]))
    return encoder


# Words.


@pytest.fixture(params=["lstm", "gru"])
def word_encoder(request):
    return encoders.WordEncoder(vocabulary_size=11, word_dim=5, width=6, recurrent=request.param)


def test_a_caption_means_the_same_whatever_stands_beside_and_behind_it(word_encoder):
    words = tf.constant([[3, 1, 4, 1, 5], [9, 2, 0, 0, 0], [6, 0, 0, 0, 0]])
    vectors, sentences = word_encoder(words, tf.constant([5, 2, 1]))
    assert vectors.shape == (3, 5, 6) and sentences.shape == (3, 6)
    alone, sentence = word_encoder(words[1:2, :2], tf.constant([2]))
    np.testing.assert_allclose(vectors[1, :2], alone[0], atol=1e-6)
    np.testing.assert_allclose(sentences[1], sentence[0], atol=1e-6)
    garbage, _ = word_encoder(tf.constant([[9, 2, 7, 8, 7]]), tf.constant([2]))
    np.testing.assert_allclose(garbage[0], vectors[1], atol=1e-6)
    assert np.all(garbage[0, 2:] == 0) and np.all(vectors[2, 1:] == 0), "exact zeros after the end"


def test_a_sentence_joins_the_ends_of_both_directions(word_encoder):
    vectors, sentences = word_encoder(tf.constant([[3, 1, 4, 0]]), tf.constant([3]))
    np.testing.assert_allclose(sentences[0], np.r_[vectors[0, 2, :3], vectors[0, 0, 3:]], atol=1e-6)


def test_an_empty_caption_is_zero_and_breaks_nothing(word_encoder):
    words, lengths = tf.constant([[0, 0], [5, 0]]), tf.constant([0, 1])
    with tf.GradientTape() as tape:
        vectors, sentences = word_encoder(words, lengths)
        total = tf.reduce_sum(vectors) + tf.reduce_sum(sentences)
    assert np.all(vectors[0] == 0) and np.all(sentences[0] == 0)
    found = tape.gradient(total, [v.value for v in word_encoder.trainable_variables])
    assert all(np.all(np.isfinite(tf.convert_to_tensor(g))) for g in found)


def test_dropout_is_what_it_is_given(word_encoder):
    words, lengths = tf.constant([[3, 1, 4]]), tf.constant([3])
    plain = word_encoder(words, lengths)
    ones = word_encoder(words, lengths, tf.ones([1, 3, 5]), training=True)
    np.testing.assert_array_equal(plain[0], ones[0])
    deaf, _ = word_encoder(words, lengths, tf.zeros([1, 3, 5]), training=True)
    other, _ = word_encoder(tf.constant([[7, 8, 9]]), lengths, tf.zeros([1, 3, 5]), training=True)
    np.testing.assert_array_equal(deaf, other)


def test_initial_values_are_those_published(word_encoder):
    word_encoder(tf.constant([[1]]), tf.constant([1]))
    assert 0.05 < np.abs(word_encoder.embedding.embeddings).max() <= 0.1
    for direction in (word_encoder.forward, word_encoder.backward):
        for variable in direction.trainable_variables:
            assert 0.2 < np.abs(variable).max() <= 3**-0.5


# Inception-v3.


def test_the_trunk_is_that_of_keras_but_for_its_pools(keras_inception, region_encoder):
    """The same regions and features for the same weights; counted padding is another network."""
    trunk, images = region_encoder.trunk, pictures(1, 299)
    trunk.set_from_keras(keras_inception)
    ends = keras.Model(keras_inception.input, [keras_inception.get_layer("mixed7").output, keras_inception.output])
    theirs, counting = ends(images, training=False), trunk(images)
    for block in trunk.blocks:
        block.count_padding = False
    ours = trunk(images)
    for block in trunk.blocks:
        block.count_padding = True
    assert ours[0].shape == (1, 17, 17, 768) and ours[1].shape == (1, 2048)
    for mine, counted, their in zip(ours, counting, theirs, strict=True):
        np.testing.assert_allclose(mine, their, atol=1e-5 * np.abs(their).max())
        assert np.abs(counted - their).max() > 1e-2 * np.abs(their).max()


def test_average_pools_count_the_padding():
    block = Block({"branch1x1": [(1, 1)]}, 1)
    ones = tf.ones([1, 3, 3, 1])
    wanted = np.array([[4, 6, 4], [6, 9, 6], [4, 6, 4]]) / 9
    np.testing.assert_allclose(block._pool(ones)[0, ..., 0], wanted, rtol=1e-6)
    block.count_padding = False
    np.testing.assert_allclose(block._pool(ones)[0, ..., 0], 1, rtol=1e-6)


def test_frozen_inception_lets_the_gradient_through_to_the_picture(region_encoder):
    assert [v.path.split("/")[-2:] for v in region_encoder.trainable_variables] == [
        ["region_map", "kernel"],
        ["code_map", "kernel"],
        ["code_map", "bias"],
    ]
    for size in (64, 299):
        images = pictures(2, size)
        with tf.GradientTape() as tape:
            tape.watch(images)
            regions, code = region_encoder(images)
            total = tf.reduce_sum(tf.square(regions)) + tf.reduce_sum(tf.square(code))
        assert regions.shape == (2, 17, 17, 8) and code.shape == (2, 8)
        gradient = tape.gradient(total, images).numpy()
        assert np.all(np.isfinite(gradient)) and np.mean(gradient != 0) > 0.9


def test_pictures_are_resized_as_either_pytorch_did(region_encoder):
    """A ramp: its ends stay at the ends with aligned corners, else half a pixel of the smaller grid from the edge."""
    seen, trunk = [], region_encoder.trunk
    region_encoder.trunk = lambda images, training: seen.append(images) or trunk(images)
    ramp = tf.tile(tf.linspace(0.0, 1.0, 150)[None, None, :, None], [1, 150, 1, 3])
    for region_encoder.aligned_corners in (True, False):
        region_encoder(ramp)
    region_encoder.trunk = trunk
    aligned, other = (images[0, 0, :, 0].numpy() for images in seen)
    np.testing.assert_allclose(aligned, np.linspace(0, 1, 299), atol=1e-5)
    centres = (np.arange(299) + 0.5) * 150 / 299 - 0.5
    np.testing.assert_allclose(other, np.clip(centres, 0, 149) / 149, atol=1e-5)


def test_statistics_of_frozen_inception_move_in_training_unless_told_not_to(region_encoder):
    def statistics():
        return region_encoder.trunk.units["Mixed_7c.branch_pool"].norm.moving_mean.numpy()

    images, before = pictures(2, 299), statistics()
    region_encoder(images)
    region_encoder.moving_statistics = False
    still = region_encoder(images, training=True)
    np.testing.assert_array_equal(statistics(), before)
    np.testing.assert_allclose(still[1], region_encoder(images)[1])
    region_encoder.moving_statistics = True
    moved = region_encoder(images, training=True)
    assert not np.allclose(statistics(), before) and not np.allclose(moved[1], still[1])


def test_constant_weights_are_those_of_the_trace_and_compute_the_same(keras_inception):
    encoder = encoders.RegionEncoder("random", width=8)
    images = pictures(2, 256)
    encoder(images)
    encoder.trunk.set_from_keras(keras_inception)

    held, read = tf.function(lambda images: encoder(images)), tf.function(lambda images: encoder(images))
    with constant_weights():
        constants = held(images)
    expected = read(images)
    for one, other in zip(constants, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())
    sizes = [len(f.get_concrete_function(images).graph.get_operations()) for f in (held, read)]
    assert sizes[0] < sizes[1] / 2
    kernel = encoder.trunk.units["Mixed_7c.branch_pool"].conv.kernel
    kernel.assign(kernel + 1.0)
    np.testing.assert_array_equal(held(images)[1], constants[1])
    assert not np.allclose(read(images)[1], expected[1])


@pytest.mark.parametrize(("name", "channels"), [("Conv2d_1a_3x3", 3), ("Mixed_6b.branch7x7_2", 128)])
def test_gradients_pass_constant_weights(keras_inception, region_encoder, name, channels):
    """A unit's, and only where its ReLU is open by more than rounding: through the whole network an input moved by one
    part in ten million was seen to move the gradient by a hundredth."""
    region_encoder.trunk.set_from_keras(keras_inception)
    unit, x = region_encoder.trunk.units[name], tf.constant(RANDOM.normal(size=(2, 19, 17, channels)), tf.float32)
    weight = tf.constant(RANDOM.normal(size=unit(x).shape), tf.float32) * tf.cast(unit(x) > 1e-4, tf.float32)

    def passed(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(unit(x) * weight)
        return tape.gradient(loss, x)

    with constant_weights():
        held = tf.function(passed)(x)
    expected = tf.function(passed)(x)
    np.testing.assert_allclose(held, expected, atol=1e-5 * np.abs(expected).max())


def test_weights_of_a_keras_file(keras_inception, region_encoder, tmp_path):
    path = tmp_path / "inception.weights.h5"
    keras_inception.save_weights(path)
    region_encoder.source = str(path)
    assert encoders.image_layout(region_encoder.source) == "inception"
    region_encoder.start()
    kernel = region_encoder.trunk.units["Conv2d_1a_3x3"].conv.kernel
    np.testing.assert_array_equal(kernel, keras_inception.get_layer(index=1).kernel)


def test_random_weights_are_warned_of(region_encoder, caplog):
    region_encoder.source = "random"
    with caplog.at_level(logging.WARNING):
        region_encoder.start()
    assert "random weights: good for timing, not for training" in caplog.text


@pytest.mark.parametrize("source, message", [("inception", "names no weights to start from"), ("no.h5", "download")])
def test_weights_that_are_not_there(region_encoder, source, message):
    region_encoder.source = source
    with pytest.raises(ValueError, match=message):
        region_encoder.start()


# TF Hub.


class Module(tf.Module):
    """What a feature vector module answers, made of a mean colour."""

    def __init__(self, regions=768, name="InceptionV3/Mixed_6e"):
        super().__init__()
        self.regions, self.endpoint = regions, name

    @tf.function(input_signature=[tf.TensorSpec([None, 299, 299, 3])])
    def endpoints(self, images):
        cut = images[:, 8:280]
        maps = tf.reduce_mean(tf.reshape(cut[:, :, 8:280], [-1, 17, 16, 17, 16, 3]), [2, 4])
        return {
            self.endpoint: tf.tile(maps, [1, 1, 1, self.regions // 3]),
            "default": tf.tile(tf.reduce_mean(images, [1, 2])[:, :1], [1, 2048]),
        }

    @tf.function
    def __call__(self, images, training=False, return_endpoints=False):
        ends = self.endpoints(images)
        return ends if return_endpoints else ends["default"]


def saved(folder, module):
    spec = tf.TensorSpec([None, 299, 299, 3])
    for ends in (True, False):
        module.__call__.get_concrete_function(spec, training=False, return_endpoints=ends)
    tf.saved_model.save(module, str(folder))
    return str(folder)


def test_a_hub_module_is_a_frozen_trunk(tmp_path):
    source = saved(tmp_path / "module", Module())
    encoder = encoders.RegionEncoder(source, width=4)
    assert encoders.image_layout(source) == source
    images = pictures(2, 299)
    with tf.GradientTape() as tape:
        tape.watch(images)
        regions, code = encoder(images, training=True)
        total = tf.reduce_sum(regions) + tf.reduce_sum(code)
    assert regions.shape == (2, 17, 17, 4) and code.shape == (2, 4)
    assert np.abs(tape.gradient(total, images)).max() > 0
    assert len(encoder.trainable_variables) == len(encoder.variables) == 3
    encoder.start()  # nothing to set
    ends = encoder.trunk(tf.ones([1, 299, 299, 3]))
    np.testing.assert_allclose(ends[1], 1.0)  # a picture of [-1, 1] is given as [0, 1]
    np.testing.assert_allclose(encoder.trunk(-tf.ones([1, 299, 299, 3]))[0], 0.0)


@pytest.mark.parametrize(
    "module, message",
    [
        (Module(name="other"), "gives no endpoint InceptionV3/Mixed_6e .*download"),
        (Module(regions=33), r"gives regions \(17, 17, 33\).*give an Inception-v3 feature vector"),
    ],
)
def test_hub_modules_of_another_kind(tmp_path, module, message):
    source = saved(tmp_path / "module", module)
    with pytest.raises(ValueError, match=message):
        encoders.RegionEncoder(source)


def test_a_handle_that_leads_nowhere(tmp_path):
    with pytest.raises(ValueError, match="neither keras, random.*download https://tfhub"):
        encoders.RegionEncoder(str(tmp_path / "nowhere"))


# The small network.


@pytest.mark.parametrize("size, grid", [(64, 8), (32, 4), (72, 9), (8, 1)])
def test_the_small_network_is_trained_as_a_whole(size, grid):
    encoder = encoders.RegionEncoder("conv", width=6, trunk_width=2)
    images = pictures(2, size)
    with tf.GradientTape() as tape:
        regions, code = encoder(images, training=True)
        total = tf.reduce_sum(tf.square(regions)) + tf.reduce_sum(tf.square(code))
    assert regions.shape == (2, grid, grid, 6) and code.shape == (2, 6)
    found = tape.gradient(total, [v.value for v in encoder.trainable_variables])
    assert len(found) == 5 * 3 + 3 and not any(g is None for g in found)


def test_regions_of_the_small_network_see_their_surroundings():
    """22 pixels around each place, by the gradient of the picture; the features see all of it."""
    keras.utils.set_random_seed(0)
    trunk, image = encoders.ConvolutionalTrunk(4), tf.Variable(tf.random.normal([1, 64, 64, 3]))
    with tf.GradientTape(persistent=True) as tape:
        regions, features = trunk(image)
        region, whole = tf.reduce_sum(regions[0, 4, 3]), tf.reduce_sum(features)
    seen = np.argwhere(np.abs(tape.gradient(region, image)[0]).max(axis=-1))
    np.testing.assert_array_equal([seen.min(axis=0), seen.max(axis=0)], [[25, 17], [46, 38]])
    assert regions.shape == (1, 8, 8, 16) and features.shape == (1, 32)
    assert np.all(np.abs(tape.gradient(whole, image)[0]).max(axis=-1) > 0)
