"""The classifier: against Keras' own Inception-v3, by hand, and a real small run as an extractor."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import inference, papers
from t2i_tf.config import EvaluateConfig, PrepareConfig, TrainConfig
from t2i_tf.data import pipeline, records, sampling
from t2i_tf.data.prepare import prepare
from t2i_tf.errors import UserError
from t2i_tf.evaluation import evaluate, features
from t2i_tf.papers import classifier
from t2i_tf.training import loop
from t2i_tf.training.session import Session

SMALL = {"image_encoder": "conv", "image_encoder_width": 8, "image_size": 32, "batch_size": 16, "held_out": 0.5}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """1,056 flowers of 32 pixels, of which the 96 test pictures are two of each of 48 classes."""
    folder = tmp_path_factory.mktemp("data") / "blossoms"
    options = PrepareConfig(source="blossoms", data_dir=str(folder), num_images=1056, image_size=32, workers=1)
    return prepare(options, progress=lambda done, total: None)


@pytest.fixture(scope="module")
def run_dir(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "classifier"
    training = TrainConfig(paper="classifier", data_dir=str(data_dir), run_dir=str(folder), steps=4, sample_every=2)
    loop.run(training, {**SMALL, "learning_rate": 1e-3})
    return folder


def recipe(class_ids=(3, 5, 9), **given):
    hyperparameters = papers.resolve("classifier", **{**SMALL, "image_encoder_width": 2, **given})
    return classifier.Recipe(hyperparameters, papers.Context(class_ids=class_ids))


@pytest.mark.slow
def test_inception_is_that_of_keras(tmp_path):
    keras.utils.set_random_seed(1)
    theirs = keras.applications.InceptionV3(include_top=False, weights=None, pooling="avg")
    generator = np.random.default_rng(0)
    for variable in theirs.variables:  # statistics too, so that none can be mistaken for another
        variable.assign(
            np.abs(variable.numpy() + 0.05 * generator.normal(size=variable.shape))
            if "variance" in variable.path
            else variable.numpy() + 0.05 * generator.normal(size=variable.shape)
        )
    theirs.save_weights(tmp_path / "weights.weights.h5")
    theirs.save(tmp_path / "whole.h5")
    ours = recipe(image_encoder=str(tmp_path / "weights.weights.h5"), image_size=299)
    ours.start({"classifier"})
    images = generator.uniform(-1, 1, (1, 299, 299, 3)).astype(np.float32)
    found, logits = ours.classify(images)
    expected = theirs(images, training=False).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    assert logits.shape == (1, 3) and ours.input_size == 299


def test_smaller_pictures_are_resized_for_inception():
    ours = recipe(image_encoder="random", image_size=64)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    large = tf.image.resize(image, [299, 299])
    np.testing.assert_allclose(ours.classify(image)[1], ours.classify(large)[1], atol=1e-5)
    assert len(ours.classifier.trainable_variables) == 94 * 3 + 2, "all of it is tuned"


def test_loss_is_the_cross_entropy_with_the_smoothed_class():
    ours = recipe(dropout=0.0, label_smoothing=0.3)
    ours.classifier.head.kernel.assign(tf.zeros_like(ours.classifier.head.kernel))
    ours.classifier.head.bias.assign([0.5, 1.5, -1.0])
    logarithms = np.array([0.5, 1.5, -1.0]) - np.log(np.exp([0.5, 1.5, -1.0]).sum())
    batch = {"images": (tf.zeros([4, 32, 32, 3]),), "class": tf.constant([5, 9, 3, 5])}
    found = ours.losses(batch, {})
    truth = np.array([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    assert float(found["loss"]) == pytest.approx(-np.mean(truth @ logarithms), rel=1e-5)
    assert float(found["accuracy"]) == 0.5


def test_dropout_leaves_the_mean_and_is_drawn_outside():
    ours = recipe(dropout=0.5, label_smoothing=0.0)
    width = ours.feature_width
    assert ours.noise(type("Draw", (), {"uniform": lambda self, name, width: (name, width)})()) == {
        "dropout": ("dropout", width)
    }
    ours.classifier.head.kernel.assign(tf.ones([width, 3]) * [[0.1, 0.0, 0.0]])
    batch = {"images": (tf.random.stateless_uniform([2, 32, 32, 3], [1, 2]),), "class": tf.constant([3, 3])}
    images, kept = batch["images"][0], np.tile([0.4, 0.6], [2, width // 2]).astype(np.float32)
    features_, _ = ours.classifier(images, training=True)
    expected = 0.2 * features_.numpy()[:, 1::2].sum(axis=1)
    losses = np.log(np.exp(expected) + 2.0) - expected
    assert float(ours.losses(batch, {"dropout": kept})["loss"]) == pytest.approx(losses.mean(), rel=1e-4)


def test_held_out_pictures_are_of_every_class_and_never_all():
    classes = np.repeat([4, 7, 9, -1], [10, 2, 1, 3])
    out = sampling.held_out(classes, 0.2, seed=3)
    assert [int(out[classes == c].sum()) for c in (4, 7, 9, -1)] == [2, 1, 0, 0]
    assert np.array_equal(out, sampling.held_out(classes, 0.2, seed=3))
    assert any(not np.array_equal(out, sampling.held_out(classes, 0.2, seed=seed)) for seed in range(4, 9))
    assert not sampling.held_out(classes, 0.0, seed=3).any()


def test_it_trains_on_the_test_classes_less_what_is_held_out(data_dir):
    training = TrainConfig(paper="classifier", data_dir=str(data_dir), run_dir="unused")
    session = Session(training, SMALL)
    whole = session.dataset.split("test")
    out = sampling.held_out(whole.class_ids, 0.5, 0)
    assert out.sum() == 48 and session.split.num_images == 48
    assert sorted(session.split.names) == sorted(np.array(whole.names)[~out])
    assert session.config.context["class_ids"] == tuple(np.unique(whole.class_ids))
    batch = next(iter(session.batches(0)))
    assert batch["images"][0].shape == (16, 32, 32, 3) and set(batch["class"].numpy()) <= set(whole.class_ids)


def test_a_subset_answers_as_a_split_does(data_dir):
    whole = records.Dataset.open(data_dir).split("test")
    numbers = np.array([5, 0, 95])
    part = records.Subset(whole, numbers)
    assert part.num_images == 3 and part.names == [whole.names[n] for n in numbers]
    assert part.captions() == [whole.captions()[n] for n in numbers]
    assert part.caption_offsets.tolist() == [0, 10, 20, 30]
    assert part.read([2, 0]) == whole.read([95, 5]) and part.attributes()[1] == whole.attributes()[0]


def test_accuracy_is_of_the_pictures_held_out(run_dir, data_dir):
    run = inference.load(run_dir, "raw", "newest")
    test = records.Dataset.open(data_dir).split("test")
    score = evaluate.evaluate(run, "accuracy", test, EvaluateConfig())
    assert (score["images"], score["classes"], score["accuracy_of_chance"]) == (48, 48, 1 / 48)
    out = np.flatnonzero(sampling.held_out(test.class_ids, 0.5, 0))
    (pictures,) = pipeline.views(test, 32, 48, chosen=out).as_numpy_iterator()
    logits = run.classify(pictures)[1]
    right = np.unique(test.class_ids)[logits.argmax(axis=1)] == test.class_ids[out]
    assert score["accuracy"] == right.mean() and score["accuracy"] <= score["accuracy_of_5"] <= 1
    whichever = evaluate.evaluate(run, "accuracy", records.Dataset.open(data_dir).split("train"), EvaluateConfig())
    assert whichever == score
    lines = [json.loads(line) for line in (run_dir / "scores.jsonl").read_text().splitlines()]
    assert [(line["metric"], line["step"]) for line in lines] == [("accuracy", 2), ("accuracy", 4)]


def test_a_run_is_an_extractor(run_dir):
    extractor = features.extractor(f"run:{run_dir}")
    run = inference.load(run_dir)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    for found, expected in zip(extractor(images), run.classify(images), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (extractor.size, extractor.width, extractor.num_classes) == (32, 64, 48)
    assert extractor.resize == "antialiased_8bit"
    again = features.extractor(f"run:{run_dir}")
    assert again.sha256 == extractor.sha256


def test_other_data_than_it_was_trained_on_is_refused(run_dir, blossoms):
    run = inference.load(run_dir)
    with pytest.raises(UserError, match="the run was trained on other data than"):
        evaluate.evaluate(run, "accuracy", records.Dataset.open(blossoms).split("test"), EvaluateConfig())


@pytest.mark.parametrize(
    "given, message",
    [
        ({"class_ids": (4,)}, "split test has 1: give another --split"),
        ({"dropout": 1.0}, "--dropout=1.0: give a number from 0 to below 1"),
        ({"held_out": -0.1}, "--held_out=-0.1: give a number"),
        ({"image_encoder": "inception"}, "--image_encoder=inception names no weights"),
        ({"image_encoder": "nowhere"}, "--image_encoder=nowhere: neither keras, random"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        recipe(**given)


def test_weights_that_are_not_there_are_told_when_a_run_starts(tmp_path):
    ours = recipe(image_encoder=str(tmp_path / "nowhere.h5"), image_size=64)
    with pytest.raises(UserError, match="--image_encoder=.*no Inception-v3 weights there"):
        ours.start({"classifier"})
