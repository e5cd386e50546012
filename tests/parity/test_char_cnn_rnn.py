"""char-CNN-RNN against the PyTorch port, run one caption at a time, and its losses against their definition.

Tolerances are relative to the largest element of an array. The convolutions of the published program cut at 1e-6
where ours are plain ReLUs.
"""

import re

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import losses, published
from t2i_tf.data import text
from t2i_tf.papers import Context, char_cnn_rnn

from .arrays import every_file, gradients

FORWARD = 1e-4
GRADIENT = 1e-4
LOSS = 1e-5


def parameters(parity):
    """Stored, or drawn as the file's recipe says."""
    stored = parity.below("param/")
    if stored:
        return stored
    interval = re.search(r"uniform\((-?[\d.]+), (-?[\d.]+), size=shape\)", parity.config["param_recipe"])
    low, high = map(float, interval.groups())
    random = np.random.RandomState(parity.config["seed"])
    return {
        name: random.uniform(low, high, size=shape).astype(np.float32) for name, shape in parity.config["param_order"]
    }


def compare_text_encoder(parity):
    config = parity.config
    recurrent = {"gru": "gru", "relu_rnn": "rnn"}[config["recurrent"]]
    encoder = char_cnn_rnn.TextEncoder(recurrent, tuple(config["conv_channels"]), config["embedding_dim"])
    encoder(tf.zeros([1, config["text_length"]], tf.int32))
    layers = published.char_cnn_rnn.text_encoder_layers(encoder)
    values = parameters(parity)
    published.assign(layers, values, "parameters")
    assert config["alphabet"] == text.ALPHABET
    assert encoder.count_params() == config.get("num_params", encoder.count_params())
    if "check/param_sum" in parity:
        parity.compare("check/param_sum", [array.astype(np.float64).sum() for array in values.values()], LOSS)

    rules = sorted({name.split("/")[0] for name in parity.below("out/")})
    for rule in rules:
        characters = text.character_ids(parity.tensor("in/text"), rule, config["text_length"])
        parity.compare_equal(f"out/{rule}/index", characters)
        parity.compare(f"out/{rule}/embedding", encoder(characters), FORWARD)
        if f"out/{rule}/rnn_input" in parity:
            inputs = encoder.recurrent_input(characters)
            assert inputs.shape[1:] == (config["steps"], config["hidden"])
            parity.compare(f"out/{rule}/rnn_input", inputs[: len(parity[f"out/{rule}/rnn_input"])], FORWARD)
            parity.compare(f"out/{rule}/rnn_mean", tf.reduce_mean(encoder.recurrent(inputs), axis=1), FORWARD)
        if parity.below(f"grad/{rule}/"):
            variables = encoder.trainable_variables
            _, (of_weights,) = gradients(
                lambda c=characters: tf.reduce_sum(encoder(c) * parity["in/cotangent"]), variables
            )
            parity.compare_gradients(f"grad/{rule}", published.to_published(layers, variables, of_weights), GRADIENT)
    parity.finish()


@every_file("char_cnn_rnn_birds")
def test_birds(parity):
    compare_text_encoder(parity)


@every_file("char_cnn_rnn_flowers")
def test_flowers(parity):
    compare_text_encoder(parity)


def loss_of_captions(first, second):
    """Through the recipe, whose encoder gives these vectors of the first and the second caption of each picture."""
    hyperparameters = char_cnn_rnn.Hyperparameters(objective="captions", text_channels=(2, 2, 2), embedding_dim=2)
    recipe = char_cnn_rnn.Recipe(hyperparameters, Context())
    count = 2 * len(first)
    recipe.text_encoder = lambda ids, training: tf.one_hot(ids[:, 0], count) @ tf.concat([first, second], axis=0)
    ids = tf.reshape(tf.range(count), [2, -1])
    return recipe.losses({"characters": tf.transpose(ids)[:, :, None]}, {})["loss"]


@every_file("char_cnn_rnn_loss")
def test_losses(parity):
    names = ("image_features", "text_features", "caption_a", "caption_b")
    images, texts, a, b = (parity.tensor(f"in/{name}") for name in names)
    own = tf.range(len(images))

    def loss(queries, keys):
        return losses.structured_joint_embedding_loss(queries, keys, own)

    terms = {
        "loss_image": (lambda: loss(images, texts), names[:2], [images, texts]),
        "loss_text": (lambda: loss(texts, images), names[:2], [images, texts]),
        "loss_symmetric": (lambda: loss(images, texts) + loss(texts, images), names[:2], [images, texts]),
        "loss_caption_pairs": (lambda: loss_of_captions(a, b), names[2:], [a, b]),
    }
    for name, (term, inputs, tensors) in terms.items():
        value, (of_tensors,) = gradients(term, tensors)
        parity.compare(f"out/{name}", value, LOSS)
        for key, gradient in zip(inputs, of_tensors, strict=True):
            if f"grad/{name}/{key}" in parity:
                parity.compare(f"grad/{name}/{key}", gradient, LOSS)

    # What the file says of its own inputs, so that a damaged file is not taken for a wrong loss.
    similarities = images @ tf.transpose(texts)
    parity.compare("out/similarities", similarities, LOSS)
    violations = [
        1 + s - tf.linalg.diag_part(s)[:, None] > 0
        for s in (similarities, tf.transpose(similarities), b @ tf.transpose(a))
    ]
    parity.compare_equal("out/active_pairs", [np.sum(v) - len(own) for v in violations])
    assert parity.config["margin"] == pytest.approx(1.0)
    parity.finish()
