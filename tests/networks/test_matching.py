"""The similarities of the DAMSM; that they are the published ones is seen in tests/parity."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf.networks import matching

ROOT = Path(__file__).parents[2]
RANDOM = np.random.RandomState(0)


def test_word_similarities_by_hand():
    # one picture, two captions of two words and of one; gamma2 = 2
    words = tf.constant([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 4.0], [7.0, 7.0]]])
    contexts = tf.constant([[[[5.0, 0.0], [1.0, 1.0]], [[-3.0, -4.0], [7.0, 7.0]]]])
    # cosines: 1 and 1/sqrt(2); -1, and a word that is not there
    got = matching.word_similarities(contexts, words, tf.constant([2, 1]), 2.0)
    np.testing.assert_allclose(got, [[np.log(np.exp(2.0) + np.exp(np.sqrt(2.0))), -2.0]], rtol=1e-5)


def test_sentence_similarities_are_cosines():
    images, sentences = tf.constant([[3.0, 4.0], [0.0, 0.0]]), tf.constant([[4.0, 3.0], [-3.0, -4.0], [0.0, 2.0]])
    got = matching.sentence_similarities(images, sentences)
    np.testing.assert_allclose(got, [[0.96, -1.0, 0.8], [0.0, 0.0, 0.0]], rtol=1e-5, atol=1e-7)


def test_zero_vectors_and_empty_captions_have_finite_gradients():
    regions, codes, words, sentences = (tf.zeros(shape) for shape in ([2, 2, 2, 4], [2, 4], [2, 3, 4], [2, 4]))
    layer = matching.Matching(jit_compile=False)
    with tf.GradientTape() as tape:
        tape.watch([regions, codes, words, sentences])
        table = layer(regions, codes, words, sentences, tf.constant([0, 2]))
        total = tf.add_n([tf.reduce_sum(part) for part in table.values()])
    assert all(np.all(np.isfinite(g)) for g in tape.gradient(total, [regions, codes, words, sentences]))
    assert np.isfinite(total)


def test_a_batch_of_one():
    shapes = ([1, 2, 2, 4], [1, 4], [1, 3, 4], [1, 4])
    table = matching.Matching(jit_compile=False)(*(tf.ones(shape) for shape in shapes), tf.constant([3]))
    np.testing.assert_allclose(table["word"], [[5.0 + np.log(3.0)]], rtol=1e-6)
    np.testing.assert_allclose(table["sentence"], [[1.0]], rtol=1e-6)


@pytest.mark.slow
def test_two_replicas_equal_one(tmp_path):
    """Losses and gradients of the DAMSM, and of word attention with the published mask, compiled and plain."""
    results = []
    for replicas in (1, 2):
        out = tmp_path / f"{replicas}.npz"
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("matching_worker.py")), str(replicas), str(out)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        results.append(np.load(out))
    one, two = results
    assert set(one.files) == set(two.files) and len(one.files) == 2 * (4 + 4 + 3)
    for name in one.files:
        assert np.abs(one[name]).max() > 1e-4, name
        np.testing.assert_allclose(one[name], two[name], rtol=1e-4, atol=1e-6, err_msg=name)
