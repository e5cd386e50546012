"""Extractors: real SavedModels of small networks, Keras' Inception-v3, and resizing against PIL and by hand."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from t2i_tf.errors import UserError
from t2i_tf.evaluation import features


class Network(tf.Module):
    """Mean colours -> features; the pictures it saw can be read from them."""

    def __init__(self, size=8, width=4, outputs=("pool_3", "logits"), pooled=False):
        super().__init__()
        self.weight = tf.Variable(np.random.default_rng(0).normal(size=(size * size * 3, width)), dtype=tf.float32)
        self.outputs, self.pooled, self.width = outputs, pooled, width

        def call(images):
            found = tf.reshape(images, [-1, size * size * 3]) @ self.weight
            if not self.outputs:
                return found
            named = {"pool_3": found, "logits": 2.0 * found[:, :3]}
            named["pool_3"] = found[:, None, None] if self.pooled else found
            return {name: named.get(name, found) for name in self.outputs}

        self.call = tf.function(call, input_signature=[tf.TensorSpec([None, size, size, 3])])

    @tf.function
    def __call__(self, images):
        return self.call(images)


def saved(folder, network, size=8):
    network.__call__.get_concrete_function(tf.TensorSpec([None, size, size, 3]))
    tf.saved_model.save(network, str(folder))
    return str(folder)


@pytest.fixture
def pictures():
    return np.random.default_rng(1).integers(0, 256, (3, 8, 8, 3), np.uint8)


@pytest.mark.parametrize("pooled", [False, True])
def test_a_saved_model_sees_pictures_in_minus_one_to_one(tmp_path, pictures, pooled):
    network = Network(pooled=pooled)
    extractor = features.extractor(saved(tmp_path / "model", network))
    assert (extractor.size, extractor.width, extractor.num_classes) == (8, 4, 3)
    found, logits = extractor(pictures)
    expected = (pictures.reshape(3, -1) / 127.5 - 1.0) @ network.weight.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(logits, 2.0 * expected[:, :3], rtol=1e-4, atol=1e-4)
    alone, _ = extractor(pictures[1:2])
    np.testing.assert_allclose(alone[0], found[1], rtol=1e-5, atol=1e-5)


def test_a_saved_model_of_keras_has_its_signature_and_no_logits(tmp_path, pictures):
    model = keras.Sequential([keras.Input([8, 8, 3]), keras.layers.Flatten(), keras.layers.Dense(5)])
    model.export(str(tmp_path / "model"), verbose=False)
    extractor = features.extractor(str(tmp_path / "model"))
    assert (extractor.size, extractor.width, extractor.num_classes) == (8, 5, None)
    found, logits = extractor(pictures)
    np.testing.assert_allclose(found, model(pictures / 127.5 - 1.0), rtol=1e-4, atol=1e-4)
    assert logits is None


def test_outputs_without_a_known_name_are_refused(tmp_path):
    folder = saved(tmp_path / "model", Network(outputs=("embedding", "logits")))
    with pytest.raises(UserError, match="gives embedding, logits; its features must be called features or pool_3"):
        features.extractor(folder)


def test_the_hash_is_of_the_weights_not_of_the_place(tmp_path):
    network = Network()
    first = features.extractor(saved(tmp_path / "first", network))
    moved = shutil.copytree(tmp_path / "first", tmp_path / "moved")
    assert features.extractor(str(moved)).sha256 == first.sha256
    network.weight.assign(network.weight + 1.0)
    assert features.extractor(saved(tmp_path / "second", network)).sha256 != first.sha256
    assert first.describe() == {
        "extractor": str(tmp_path / "first"),
        "extractor_sha256": first.sha256,
        "resize": "antialiased to 8",
    }


def test_the_graph_of_2015_from_a_folder_resizes_as_tensorflow_1_did(tmp_path):
    class Graph(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 299, 299, 3])])
        def __call__(self, images):
            row = images[:, 0, :, 0]
            return {"pool_3": tf.pad(row, [[0, 0], [0, 2048 - 299]])[:, None, None], "logits": tf.zeros([1, 1008])}

    tf.saved_model.save(Graph(), str(tmp_path / "2015"))
    extractor = features.extractor(f"inception2015:{tmp_path / '2015'}")
    assert (extractor.width, extractor.num_classes, extractor.resize) == (2048, 1008, "tf1_bilinear")
    picture = np.zeros([1, 13, 13, 3], np.uint8)  # 299 = 23 x 13: pixel i comes from i / 23, from the corner on
    picture[:, :, :, 0] = np.arange(13) * 10
    row = (extractor(picture)[0][0, :299] + 1.0) * 127.5
    np.testing.assert_allclose(row, np.minimum(np.arange(299) / 23, 12) * 10, atol=1e-3)


def test_a_graph_that_is_not_that_of_2015_is_refused(tmp_path):
    folder = saved(tmp_path / "other", Network(size=299), 299)
    with pytest.raises(UserError, match="gives 4 features and 3 classes, Inception has 2048 and 1008; download"):
        features.extractor(f"inception2015:{folder}")
    with pytest.raises(UserError, match="no saved_model.pb in .*tf-hub-format=compressed, unpack it"):
        features.extractor(f"inception2015:{tmp_path}")


@pytest.mark.parametrize("size, target", [(64, 32), (64, 99), (17, 11), (32, 32), (5, 64)])
def test_antialiased_resizing_is_that_of_pil(size, target):
    picture = np.random.default_rng(2).integers(0, 256, (size, size, 3), np.uint8)
    expected = np.asarray(Image.fromarray(picture).resize((target, target), Image.Resampling.BILINEAR), np.float32)
    given = tf.constant(picture[None], tf.float32)
    rounded = features.RESIZES["antialiased_8bit"](given, [target, target])[0].numpy()
    differences = np.abs(rounded - expected)  # PIL rounds after each of its two passes
    assert differences.max() <= 1.0 and np.mean(differences) < 0.25
    assert np.array_equal(rounded, np.round(rounded))
    assert np.abs(features.RESIZES["antialiased"](given, [target, target])[0] - expected).max() < 1.001


def test_plain_bilinear_resizing_keeps_pixel_centres_and_skips():
    row = tf.constant(np.arange(8, dtype=np.float32) ** 2)[None, None, :, None] * tf.ones([1, 8, 1, 3])
    half = features.RESIZES["bilinear"](row, [4, 4])[0, 0, :, 0].numpy()
    np.testing.assert_allclose(half, [(0 + 1) / 2, (4 + 9) / 2, (16 + 25) / 2, (36 + 49) / 2])
    np.testing.assert_allclose(features.RESIZES["tf1_bilinear"](row, [4, 4])[0, 0, :, 0], [0, 4, 16, 36])


def test_a_resize_can_be_asked_for(tmp_path, pictures):
    folder = saved(tmp_path / "model", Network())
    large = np.random.default_rng(3).integers(0, 256, (2, 16, 16, 3), np.uint8)
    plain, smooth = (features.extractor(folder, how)(large)[0] for how in ("bilinear", "antialiased"))
    assert np.abs(plain - smooth).max() > 0.1
    same = [features.extractor(folder, how)(pictures)[0] for how in features.RESIZES]
    assert all(np.array_equal(same[0], other) for other in same), "a picture of the right size is left alone"


@pytest.mark.slow
def test_random_inception_is_the_same_everywhere(caplog):
    keras.utils.set_random_seed(5)
    first = features.extractor("random")
    assert "compare" in caplog.text
    keras.utils.set_random_seed(6)
    assert features.extractor("random").sha256 == first.sha256
    assert (first.size, first.width, first.num_classes) == (299, 2048, 1000)
    images = np.random.default_rng(4).integers(0, 256, (2, 40, 40, 3), np.uint8)
    found, logits = first(images)
    assert np.all(np.isfinite(found)) and found.std() > 1e-3 and np.abs(logits[0] - logits[1]).max() > 1e-3


@pytest.mark.parametrize(
    "name, message",
    [
        ("inception2016", "must be inception2015, .*run:RUN_DIR, random or a folder with saved_model.pb"),
        ("run:", "must be inception2015"),
        ("nowhere.h5", "--extractor=nowhere.h5: no Inception-v3 weights there .*; download inception_v3_weights"),
    ],
)
def test_what_is_no_extractor_is_told_in_a_line(name, message):
    with pytest.raises(UserError, match=message) as caught:
        features.extractor(name)
    assert "\n" not in str(caught.value)


def test_a_run_of_another_paper_tells_no_classes(text_encoder_run):
    with pytest.raises(UserError, match="is a run of char_cnn_rnn, which tells no classes: give one of --paper=classi"):
        features.extractor(f"run:{text_encoder_run.path}")
