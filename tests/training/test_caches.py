import subprocess
import sys

import numpy as np
import pytest

from t2i_tf import inference
from t2i_tf.data import records
from t2i_tf.training import caches


@pytest.fixture(scope="module")
def encoder(text_encoder_run):
    return inference.load(text_encoder_run.path)


@pytest.fixture
def split(blossoms):
    return records.Dataset.open(blossoms).split("test")


def test_a_fingerprint_changes_with_weights_shapes_and_settings():
    weights = [np.arange(6.0), np.ones(2)]
    prints = {
        caches.fingerprint(weights, "rule"),
        caches.fingerprint(weights, "other rule"),
        caches.fingerprint([weights[0] + 1e-7, weights[1]], "rule"),
        caches.fingerprint(weights[:1], "rule"),
    }
    assert len(prints) == 4
    assert caches.fingerprint([w.copy() for w in weights], "rule") in prints


def test_captions_are_encoded_in_their_order_and_once(encoder, split, monkeypatch):
    embeddings = caches.caption_embeddings(encoder, split)
    captions = split.captions()
    assert embeddings.shape == (split.caption_offsets[-1], 16) and embeddings.dtype == np.float32
    for image in (0, 3, 5):
        start, end = split.caption_offsets[image : image + 2]
        np.testing.assert_allclose(embeddings[start:end], encoder.encode(captions[image]), atol=1e-6)
    monkeypatch.setattr(encoder, "encode", lambda captions: pytest.fail("encoded again"))
    np.testing.assert_array_equal(caches.caption_embeddings(encoder, split), embeddings)


def test_other_weights_are_encoded_anew(encoder, split):
    before = caches.caption_embeddings(encoder, split).copy()
    bias = encoder.recipe.text_encoder.projection.bias
    bias.assign(bias.value + 1.0)
    try:
        np.testing.assert_allclose(caches.caption_embeddings(encoder, split), before + 1.0, atol=1e-5)
    finally:
        bias.assign(bias.value - 1.0)


def test_a_cache_that_was_not_finished_is_none(tmp_path):
    def parts():
        yield np.ones((2, 3), np.float32)
        raise KeyboardInterrupt

    path = tmp_path / "cache" / "train.npy"
    with pytest.raises(KeyboardInterrupt):
        caches._kept(path, (4, 3), parts(), "ones")
    assert not list(path.parent.iterdir())
    whole = caches._kept(path, (4, 3), iter([np.ones((3, 3)), np.full((1, 3), 2.0)]), "ones")
    np.testing.assert_array_equal(whole[:, 0], [1, 1, 1, 2])


@pytest.mark.slow
def test_picture_features_are_those_of_each_view(blossoms, split):
    from t2i_tf.data import pipeline

    class Mean:
        """Stands for Inception-v3: the mean colour of a picture and of its left half."""

        width, source = 6, "mean colour"

        def weights(self):
            return [np.zeros(1)]

        def __call__(self, pictures):
            import tensorflow as tf

            values = tf.cast(pictures, tf.float32)
            return tf.concat([tf.reduce_mean(values, [1, 2]), tf.reduce_mean(values[:, :, :16], [1, 2])], axis=1)

    features = caches.image_features(Mean(), split, 32, 6, False)
    assert features.shape == (6, 6, 6)
    for view in (0, 2, 5):
        (pictures,) = pipeline.views(split, 32, 6, view).as_numpy_iterator()
        np.testing.assert_allclose(features[:, view, :3], pictures.mean((1, 2)), rtol=1e-4)
    mirrored = features[:, 0, :3] * 2 - features[:, 0, 3:]  # the right half of view 0 is the left half of view 5
    np.testing.assert_allclose(features[:, 5, 3:], mirrored, rtol=1e-3)


def test_a_data_set_without_published_vectors_has_none(split):
    assert caches.published_embeddings(split) is None


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    """In a process of its own, since the limit holds for all that it writes."""
    code = f"""
import resource, signal
import numpy as np
from pathlib import Path
from t2i_tf.errors import UserError
from t2i_tf.training import caches
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    caches._kept(Path({str(tmp_path)!r}) / "cache/train.npy", (64, 64), iter([np.zeros((64, 64), np.float32)]), "zeros")
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "cannot be written" in done.stdout and "make room" in done.stdout, done.stderr[-1000:]
    assert list((tmp_path / "cache").iterdir()) == []


def test_annotations_are_kept_in_half_precision(blossoms, split, caplog):
    import logging

    import tensorflow as tf

    from t2i_tf.data import pipeline

    class Halves:
        """Stands for VGG-19: the mean colours of the upper and the lower half, one of them beyond float16."""

        shape, source = (2, 3), "halves"

        def weights(self):
            return [np.zeros(1)]

        def __call__(self, pictures):
            values = tf.cast(pictures, tf.float32)
            return tf.stack(
                [tf.reduce_mean(values[:, :32], [1, 2]), tf.reduce_mean(values[:, 32:], [1, 2]) * 1e6], axis=1
            )

    with caplog.at_level(logging.INFO):
        annotations = caches.image_annotations(Halves(), split, 64, False)
    assert annotations.shape == (6, 2, 3) and annotations.dtype == np.float16
    assert "computing annotations of 6 pictures by halves once: 6x2x3 values, 0 MB in " in caplog.text
    (pictures,) = pipeline.views(split, 64, 6).as_numpy_iterator()
    np.testing.assert_allclose(annotations[:, 0], pictures[:, :32].mean((1, 2)), rtol=1e-3)
    assert np.isfinite(annotations).all() and (annotations[:, 1] == np.finfo(np.float16).max).all()
    again = caches.image_annotations(Halves(), split, 64, False)
    np.testing.assert_array_equal(again, annotations)
