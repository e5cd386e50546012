"""char-CNN-RNN: its optimizer, its recipe for captions alone, and what it needs to read captions."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from t2i_tf import inference
from t2i_tf.config import EvaluateConfig, PrepareConfig, TrainConfig
from t2i_tf.data import records
from t2i_tf.data.prepare import prepare
from t2i_tf.errors import UserError
from t2i_tf.evaluation import evaluate
from t2i_tf.export.encoding import Encoding
from t2i_tf.papers import Context, char_cnn_rnn
from t2i_tf.training import loop
from t2i_tf.training.session import Session

GRADIENTS = np.array([[2.0, -1e-3, 1e-9, 0.0], [-0.5, 1e-5, 1e-9, 0.0], [0.1, -1e-7, -3e-9, 0.0]], np.float32)
START = np.array([0.5, -0.5, 0.0, 1.0], np.float32)


class Falling(keras.optimizers.schedules.LearningRateSchedule):
    """0.1, 0.05, 0.025, ..."""

    def __call__(self, step):
        return 0.1 * 0.5 ** tf.cast(step, tf.float32)


def stepped(optimizer, gradients=GRADIENTS):
    variable = keras.Variable(START)
    optimizer.build([variable])
    apply = tf.function(lambda gradient: optimizer.apply([gradient], [variable]))
    for gradient in gradients:
        apply(tf.constant(gradient))
    return variable.numpy()


def by_hand(rates):
    weights, mean_square = START.astype(np.float64), np.zeros(4)
    for gradient, rate in zip(GRADIENTS.astype(np.float64), rates, strict=True):
        mean_square = 0.99 * mean_square + 0.01 * gradient**2
        weights -= rate * gradient / (np.sqrt(mean_square) + 1e-8)
    return weights


@pytest.mark.parametrize("rate, rates", [(7e-4, [7e-4] * 3), (Falling(), [0.1, 0.05, 0.025])])
def test_rmsprop_has_epsilon_outside_the_root(rate, rates):
    moved = stepped(char_cnn_rnn.RMSprop(rate, rho=0.99, epsilon=1e-8)) - START
    np.testing.assert_allclose(moved, by_hand(rates) - START, rtol=1e-3, atol=1e-7)
    assert moved[3] == 0.0 and abs(moved[2]) > 0.01 * rates[0]  # inside, 1e-9 would move it by 1e-5 of the rate


def test_rmsprop_is_that_of_torch():
    torch = pytest.importorskip("torch")
    weights = torch.nn.Parameter(torch.tensor(START))
    optimizer = torch.optim.RMSprop([weights], lr=7e-4, alpha=0.99, eps=1e-8)
    for gradient in GRADIENTS:
        weights.grad = torch.tensor(gradient)
        optimizer.step()
    ours = stepped(char_cnn_rnn.RMSprop(7e-4, rho=0.99, epsilon=1e-8))
    np.testing.assert_allclose(ours, weights.detach().numpy(), rtol=1e-6, atol=1e-9)


def test_rmsprop_under_the_loss_scale_takes_the_same_steps():
    """Gradients in float16 come multiplied by the scale, and are divided before the update."""
    scaled = keras.optimizers.LossScaleOptimizer(char_cnn_rnn.RMSprop(7e-4, rho=0.99, epsilon=1e-8), 2.0**15)
    got = stepped(scaled, GRADIENTS * 2.0**15)
    np.testing.assert_allclose(got, stepped(char_cnn_rnn.RMSprop(7e-4, rho=0.99, epsilon=1e-8)), rtol=1e-6, atol=1e-9)


def test_checkpoints_of_keras_own_rmsprop_still_load():
    """What older runs were trained with: the same variables by the same names."""

    def variables(kind):
        optimizer = kind(1e-3, name="rmsprop")
        optimizer.build([keras.Variable(np.zeros((2, 3)), name="kernel")])
        return [(v.path, v.shape, v.dtype) for v in optimizer.variables]

    assert variables(char_cnn_rnn.RMSprop) == variables(keras.optimizers.RMSprop)


def recipe(**given):
    return char_cnn_rnn.Recipe(char_cnn_rnn.Hyperparameters(**given), Context(num_classes=150))


PUBLISHED_COCO = {"objective": "captions", "learning_rate": 2e-4, "batch_size": 64}


def test_captions_alone_are_trained_on_by_the_schedule_of_coco():
    made = recipe(**PUBLISHED_COCO, text_channels=(2, 2, 2), embedding_dim=2)
    assert made.steps_per_epoch(82_783) == 1294
    adam = made.optimizers(10)["encoders"]
    assert isinstance(adam, keras.optimizers.Adam)
    assert (adam.beta_1, adam.beta_2, adam.epsilon) == (0.5, 0.999, 1e-8)
    variable = keras.Variable(0.0)
    adam.build([variable])
    for epoch, halvings in ((1, 0), (49, 0), (50, 1), (99, 1), (100, 2), (150, 3), (199, 3), (200, 4)):
        for step in (10 * (epoch - 1), 10 * epoch - 1):
            adam.iterations.assign(step)
            assert float(adam.learning_rate) == pytest.approx(2e-4 / 2**halvings)
    assert set(made.networks) == {"text_encoder"}


def test_weights_at_the_start():
    of_captions = recipe(**PUBLISHED_COCO).text_encoder
    for layer in (of_captions.conv1, of_captions.conv2, of_captions.conv3):
        assert np.std(layer.kernel) == pytest.approx(0.02, rel=0.02)
        assert not np.any(layer.bias)
    for layer in (of_captions.recurrent.h2h_reset, of_captions.projection):
        for weights in (layer.kernel, layer.bias):
            assert np.max(np.abs(weights)) == pytest.approx(1 / np.sqrt(512), rel=0.02)
    of_pictures = recipe().text_encoder
    assert of_pictures.count_params() == of_captions.count_params() == 4_045_184
    for layer in (of_pictures.conv3, of_pictures.recurrent.h2h_reset, of_pictures.projection):
        for weights in (layer.kernel, layer.bias):
            assert np.max(np.abs(weights)) == pytest.approx(0.08, rel=0.02)


@pytest.fixture(scope="module")
def without_classes(tmp_path_factory):
    """Eight pictures of 16 pixels, each with three captions of its own letter."""
    source, lines = tmp_path_factory.mktemp("source"), []
    for letter in "abcdefgh":
        Image.new("RGB", (16, 16)).save(source / f"{letter}.png")
        captions = [40 * letter + " bird", "bird " + 50 * letter, 60 * letter]
        lines.append(json.dumps({"image": f"{letter}.png", "captions": captions, "split": "train"}))
    (source / "captions.jsonl").write_text("\n".join(lines))
    folder = str(source.with_name("without_classes"))
    options = PrepareConfig(source="folder", source_dir=str(source), data_dir=folder, image_size=16, workers=1)
    return prepare(options, progress=lambda done, total: None)


def test_captions_alone_need_neither_classes_nor_pictures(without_classes, tmp_path):
    """In the end the products of two captions of a picture are larger than those with captions of the others."""
    training = TrainConfig(
        paper="char_cnn_rnn", data_dir=str(without_classes), run_dir=str(tmp_path / "run"), steps=100, log_every=1000
    )
    sizes = {"text_channels": (16, 16, 16), "embedding_dim": 16, "batch_size": 8}
    session = Session(training, {**sizes, "objective": "captions"})
    batch = next(iter(session.batches(0)))
    assert set(batch) == {"class", "characters"} and batch["characters"].shape == (8, 2, 201)
    assert not np.any(np.all(batch["characters"][:, 0] == batch["characters"][:, 1], axis=1)), "the same caption twice"
    loop.run(training, {**sizes, "objective": "captions", "learning_rate": 0.01})

    run = inference.load(tmp_path / "run")
    split = records.Dataset.open(without_classes).split("train")
    first, second, third = (run.encode(list(captions)) for captions in zip(*split.captions(), strict=True))
    for queries, keys in ((second, first), (first, third)):
        assert np.mean(np.argmax(queries @ keys.T, axis=1) == np.arange(8)) >= 0.75  # at the start 1/8
    with pytest.raises(
        UserError, match="recall needs a run of a text encoder, .* char_cnn_rnn trained without pictures"
    ):
        evaluate.evaluate(run, "recall", split, EvaluateConfig())
    assert set(Encoding(run).functions(1)) == {"encode"}
