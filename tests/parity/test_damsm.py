"""The DAMSM against the published PyTorch program: its losses and its text encoders.

Tolerances are relative to the largest element of an array.
"""

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import losses
from t2i_tf.networks import attention, matching

from .arrays import every_file, gradients

LOSS = 1e-5
GRADIENT = 1e-4
VERSIONS = {"class_mask": True, "no_class_mask": False}


def channels_last(array):
    """(B, C, ...) -> (B, ..., C)."""
    return tf.constant(np.moveaxis(array, 1, -1))


def channels_second(array):
    return np.moveaxis(np.asarray(array), -1, 1)


def classes(parity, masked):
    ids = parity["in/class_ids"]
    return tf.constant(ids if masked else np.full_like(ids, -1))


def compare_both_directions(parity, kind, version, table, terms):
    """The losses and the logits they come from; the file's names do not say which side is given."""
    of_class = classes(parity, VERSIONS[version])
    own = tf.range(len(of_class))
    same_class = (of_class[:, None] == of_class) & (of_class >= 0)
    logits = losses.matching_logits(table, own, same_class, parity.config["gamma3"])
    parity.compare(f"out/{version}/{'similarities' if kind == 'word' else 'scores'}", logits, LOSS)
    parity.compare(f"out/{version}/loss0", terms[f"{kind}_of_image"], LOSS)
    parity.compare(f"out/{version}/loss1", terms[f"image_of_{kind}"], LOSS)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["plain", "compiled"])
@every_file("damsm_words_loss")
def test_word_loss(parity, jit_compile):
    config = parity.config
    words, regions = channels_last(parity["in/words_embs"]), channels_last(parity["in/region_features"])
    lengths = parity.tensor("in/cap_lens")
    layer = matching.Matching(config["gamma1"], config["gamma2"], jit_compile)
    none = tf.zeros([len(words), 1])
    flat = tf.reshape(regions, [len(regions), -1, regions.shape[-1]])
    _, weights = attention.region_attention(flat, words, lengths, config["gamma1"])
    for version, masked in VERSIONS.items():

        def objective(masked=masked):
            table = layer(regions, none, words, none, lengths)["word"]
            own = tf.range(len(words))
            terms = losses.damsm_losses({"word": table}, own, classes(parity, masked), config["gamma3"])
            return tf.add_n(list(terms.values())), table, terms

        (_, table, terms), (of_inputs,) = gradients(objective, [words, regions])
        compare_both_directions(parity, "word", version, table, terms)
        parity.compare(f"grad/{version}/words_embs", channels_second(of_inputs[0]), GRADIENT)
        parity.compare(f"grad/{version}/region_features", channels_second(of_inputs[1]), GRADIENT)
        for row, length in enumerate(parity["in/cap_lens"]):
            maps = tf.reshape(weights[row, row, :length], [1, length, *regions.shape[1:3]])
            parity.compare(f"out/{version}/attention_{row}", maps, LOSS)
    parity.finish()


@every_file("damsm_sent_loss")
def test_sentence_loss(parity):
    codes, sentences = parity.tensor("in/cnn_code"), parity.tensor("in/sent_emb")
    for version, masked in VERSIONS.items():

        def objective(masked=masked):
            table = matching.sentence_similarities(codes, sentences)
            own = tf.range(len(codes))
            terms = losses.damsm_losses({"sentence": table}, own, classes(parity, masked), parity.config["gamma3"])
            return tf.add_n(list(terms.values())), table, terms

        (_, table, terms), (of_inputs,) = gradients(objective, [codes, sentences])
        compare_both_directions(parity, "sentence", version, table, terms)
        parity.compare(f"grad/{version}/cnn_code", of_inputs[0], GRADIENT)
        parity.compare(f"grad/{version}/sent_emb", of_inputs[1], GRADIENT)
    parity.finish()
