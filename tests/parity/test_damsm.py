"""The DAMSM against the published PyTorch program: its losses and its text encoders.

Tolerances are relative to the largest element of an array.
"""

import json
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import importing, inference, losses, published
from t2i_tf.config import ImportConfig
from t2i_tf.networks import attention, encoders, matching

from .arrays import every_file, folder, gradients

FORWARD = 1e-5
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


@every_file("damsm_text_encoder*")
def test_text_encoder(parity):
    config = parity.config
    encoder = encoders.WordEncoder(
        config["vocab"], config["embedding"], config["hidden_total"], config["rnn_type"].lower()
    )
    captions, lengths = parity.tensor("in/captions"), parity.tensor("in/cap_lens")
    encoder(captions, lengths)
    layers = published.damsm.text_encoder_layers(encoder)
    published.assign(layers, parity.below("param/"), "param")
    variables = encoder.trainable_variables
    longest = config["seq_len"]
    for mode, dropout in {"eval": None, "train": parity.tensor("in/dropout_multiplier")}.items():

        def objective(dropout=dropout):
            words, sentences = encoder(captions, lengths, dropout)
            words = tf.transpose(words, [0, 2, 1])
            total = tf.reduce_sum(words[..., :longest] * parity["in/cotangent_words"])
            return total + tf.reduce_sum(sentences * parity["in/cotangent_sent"]), words, sentences

        (_, words, sentences), (of_weights,) = gradients(objective, variables)
        assert np.all(words[..., longest:] == 0)
        for row, length in enumerate(lengths):
            assert np.all(words[row, :, length:] == 0), "exact zeros after the end"
        parity.compare(f"out/{mode}/words_embs", words[..., :longest], FORWARD)
        parity.compare(f"out/{mode}/sent_emb", sentences, FORWARD)
        of_weights = [tf.convert_to_tensor(g) for g in of_weights]
        compare_all(parity, f"grad/{mode}/", published.to_published(layers, variables, of_weights))
    clipped, norm = tf.clip_by_global_norm(of_weights, config["clip"])
    parity.compare("out/train/grad_norm_before_clip", norm, FORWARD)
    compare_all(parity, "grad_clipped/train/", published.to_published(layers, variables, clipped))
    parity.finish()


@every_file("damsm_text_encoder*")
def test_an_imported_text_encoder_reads_sentences(parity, tmp_path):
    """By `t2i-import-weights`: words of a captions.pickle stand for the published ids."""
    words = {0: "<end>", **{number: f"word{number}" for number in range(1, parity.config["vocab"])}}
    tables = [words, {word: number for number, word in words.items()}]
    (tmp_path / "captions.pickle").write_bytes(pickle.dumps([[], [], *tables], 2))
    np.savez(tmp_path / "text_encoder.npz", **parity.below("param/"))
    importing.import_weights(
        ImportConfig(
            paper="damsm",
            scheme="damsm_text_encoder",
            weights=str(tmp_path / "text_encoder.npz"),
            captions=str(tmp_path / "captions.pickle"),
            run_dir=str(tmp_path / "run"),
        )
    )
    rows = zip(parity["in/captions"], parity["in/cap_lens"], strict=True)
    sentences = inference.load(tmp_path / "run").encode([" ".join(words[i] for i in ids[:n]) for ids, n in rows])
    parity.compare("out/eval/sent_emb", sentences, FORWARD)
    assert not parity.failures


def compare_all(parity, prefix, ours):
    assert parity.below(prefix).keys() == ours.keys()
    for name, gradient in ours.items():
        parity.compare(prefix + name, gradient, GRADIENT)


@pytest.mark.parametrize("name, vocabulary_size", [("bird", 5450), ("coco", 27297)])
def test_text_encoder_at_published_width(name, vocabulary_size):
    counts = json.loads((folder() / "param_counts_stackgan2_attngan.json").read_text())
    encoder = encoders.WordEncoder(vocabulary_size)
    encoder(tf.zeros([1, 2], tf.int32), tf.ones([1], tf.int32))
    theirs = counts[f"damsm/{name}/text_encoder_V{vocabulary_size}"]
    assert encoder.count_params() == theirs["parameters"]
    compare_shapes(theirs, published.damsm.text_encoder_layers(encoder))


def test_image_encoder_at_published_width():
    counts = json.loads((folder() / "param_counts_stackgan2_attngan.json").read_text())
    encoder = encoders.RegionEncoder()
    regions, code = encoder(tf.zeros([1, 299, 299, 3]))
    assert regions.shape == (1, 17, 17, 256) and code.shape == (1, 256)
    theirs = counts["damsm/image_encoder"]
    assert encoder.count_params() == theirs["parameters"] + theirs["bn_statistics"]
    of_trunk = sum(keras.ops.size(v) for v in encoder.trunk.variables)
    assert of_trunk - theirs["bn_statistics"] == 21_785_568
    compare_shapes(theirs, published.damsm.image_encoder_layers(encoder))


def compare_shapes(theirs, layers):
    shapes = {key: list(array.shape) for key, array in published.extract(layers).items()}
    assert shapes == {key: list(shape) for key, shape in theirs["shapes"].items()}
