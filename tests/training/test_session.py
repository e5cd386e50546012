"""What a run refuses before it makes a folder, and what a fine-tuned one starts from."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import inference
from t2i_tf.config import TrainConfig
from t2i_tf.data import records
from t2i_tf.errors import UserError
from t2i_tf.training import loop
from t2i_tf.training.session import Session


@pytest.fixture
def refused(tmp_path, gan_run):
    """-> the message of a run of the tiny generator with these changes; no folder may be left."""

    def call(given=None, **changes):
        training = replace(gan_run.training, run_dir=str(tmp_path / "run"), **changes)
        with pytest.raises(UserError) as error:
            loop.run(training, {**gan_run.given, **(given or {})})
        assert not (tmp_path / "run").exists() and "\n" not in str(error.value)
        return str(error.value)

    return call


def test_settings_and_runs_that_do_not_fit_leave_no_folder(refused, gan_run, tmp_path):
    assert "is a run of gan_int_cls, which encodes no captions" in refused(text_encoder_run=str(gan_run.path))
    assert "needs sentence embeddings" in refused(text_encoder_run=None)
    assert "is not a run folder" in refused(text_encoder_run=str(tmp_path))
    assert "no such data set folder" in refused(data_dir=str(tmp_path / "nothing"))
    assert "--captions_averaged=7: at most 6" in refused({"captions_averaged": 7})


def test_data_that_do_not_fit_leave_no_folder(refused, without_captions):
    message = refused({"captions_averaged": 1}, data_dir=str(without_captions))
    assert "an image has 0 captions, but 1 are drawn" in message


def test_pictures_without_boxes_are_not_cropped_around_them(refused):
    assert "--box_crop: 60 of the 60 pictures of split train" in refused(box_crop=True)


@pytest.mark.parametrize(
    "paper, given, needed",
    [
        ("char_cnn_rnn", {"image_encoder": "keras", "image_size": 299}, "299 are needed: .* --image_size=355"),
        ("show_attend_tell", {}, "256 are needed: .* --image_size=256"),
    ],
)
def test_pictures_too_small_for_a_frozen_network_leave_no_folder(blossoms, tmp_path, paper, given, needed):
    training = TrainConfig(paper=paper, data_dir=str(blossoms), run_dir=str(tmp_path / "run"), steps=1)
    with pytest.raises(UserError, match=f"prepared at 64 pixels, {needed}"):
        loop.run(training, given)
    assert not (tmp_path / "run").exists()


def test_views_that_a_picture_does_not_have_leave_no_folder(text_encoder_run, tmp_path):
    training = replace(text_encoder_run.training, run_dir=str(tmp_path / "run"))
    with pytest.raises(UserError, match="--image_views=11: a picture has 10 fixed views"):
        loop.run(training, {**text_encoder_run.given, "image_encoder": "random", "image_views": 11})
    assert not (tmp_path / "run").exists()


class Colours(tf.Module):
    """In place of Inception-v3: pictures [B,299,299,3] in [0, 1] -> their mean colour, over and over [B,2048]."""

    variables = ()  # a property of tf.Module otherwise, which a SavedModel does not keep

    def __init__(self):
        super().__init__()
        self.variables = [tf.Variable(1.0)]

    @tf.function(input_signature=[tf.TensorSpec([None, 299, 299, 3]), tf.TensorSpec([], tf.bool)])
    def __call__(self, pictures, training=False):
        return self.variables[0] * tf.tile(tf.reduce_mean(pictures, axis=[1, 2]), [1, 683])[:, :2048]


def test_the_frozen_network_is_needed_for_pictures_alone(text_encoder_run, tmp_path):
    source = tmp_path / "colours"
    tf.saved_model.save(Colours(), str(source))
    given = {**text_encoder_run.given, "image_encoder": str(source), "image_views": 1}
    training = replace(text_encoder_run.training, run_dir=str(tmp_path / "run"), steps=1)
    loop.run(training, given)
    split = records.Dataset.open(training.data_dir).split("test")
    before = inference.load(tmp_path / "run")
    wanted = before.encode(split.captions()[0])
    pictures = np.zeros([2, 64, 64, 3], np.uint8)
    assert before.encode_pictures(pictures).shape == (2, 16)

    shutil.rmtree(source)
    after = inference.load(tmp_path / "run")
    np.testing.assert_array_equal(after.encode(split.captions()[0]), wanted)
    message = f"--image_encoder={source}: neither keras, random"
    with pytest.raises(UserError, match=message):
        after.encode_pictures(pictures)
    with pytest.raises(UserError, match=message):
        loop.run(replace(training, run_dir=str(tmp_path / "fresh")), given)
    assert not (tmp_path / "fresh").exists()
    dry = Session(replace(training, run_dir=str(tmp_path / "fresh"), dry_run=True), given)
    assert dry.batch_spec()["features"].shape == (8, 2048)


def test_fine_tuning_starts_weights_and_average_at_the_other_run(text_encoder_run, tmp_path):
    training = TrainConfig(
        paper="char_cnn_rnn",
        data_dir=text_encoder_run.training.data_dir,
        init_from=str(text_encoder_run.path),
        run_dir=str(tmp_path / "tuned"),
        seed=5,
        steps=1,
    )
    outcome = loop.run(training, {**text_encoder_run.given, "learning_rate": 0.0, "ema_decay": 0.5})
    assert outcome.step == 1
    before, after = inference.load(text_encoder_run.path), inference.load(outcome.run_dir, "raw")
    starts = [v for network in before.recipe.networks.values() for v in network.trainable_variables]
    for variables in zip(starts, after.average.sources, after.average.shadows, strict=True):
        start, tuned, shadow = map(np.array, variables)
        np.testing.assert_array_equal(tuned, start)  # the learning rate is 0
        np.testing.assert_allclose(shadow, start, rtol=1e-6)
