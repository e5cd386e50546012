"""Losses of Show, Attend and Tell by hand; tests/parity compares them with the published program."""

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import losses

RNG = np.random.default_rng(5)


def attention_of(batch, steps, places):
    scores = np.exp(RNG.normal(size=(batch, steps, places)))
    return (scores / scores.sum(-1, keepdims=True)).astype(np.float32)


def test_the_likelihood_of_even_logits_is_that_of_a_guess():
    mask = tf.constant([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    rows = losses.caption_negative_log_likelihood(tf.zeros([2, 3, 7]), tf.constant([[3, 0, 0], [1, 6, 0]]), mask)
    np.testing.assert_allclose(rows, np.log(7.0) * mask.numpy(), rtol=1e-6)


def test_a_certain_word_costs_nothing_and_an_excluded_one_is_finite():
    logits = tf.constant([[[200.0, 0.0, 0.0], [200.0, 0.0, 0.0]]])
    rows = losses.caption_negative_log_likelihood(logits, tf.constant([[0, 2]]), tf.ones([1, 2]))
    np.testing.assert_allclose(rows, [[0.0, 200.0]])


def test_even_attention_for_as_many_steps_as_places_costs_nothing():
    even = tf.fill([3, 4, 4], 0.25)
    for form in ("paper", "code"):
        assert float(losses.doubly_stochastic_penalty(even, form)) == 0.0


@pytest.mark.parametrize("batch, steps, places", [(1, 1, 1), (1, 5, 3), (3, 2, 6)])
def test_the_two_forms_of_the_penalty(batch, steps, places):
    attention = attention_of(batch, steps, places)
    squares = (1.0 - attention.astype(np.float64).sum(1)) ** 2
    paper = float(losses.doubly_stochastic_penalty(tf.constant(attention)))
    code = float(losses.doubly_stochastic_penalty(tf.constant(attention), "code"))
    assert paper == pytest.approx(squares.sum(1).mean(), rel=1e-5)
    assert code == pytest.approx(paper * batch / places, rel=1e-5)
    assert paper >= (places - steps) ** 2 / places - 1e-5  # attention sums to the number of steps


@pytest.mark.parametrize("drawn", [True, False])
def test_the_gradient_for_the_attention(drawn):
    attention = attention_of(2, 3, 4)
    weights = np.eye(4, dtype=np.float32)[[[0, 3, 1], [2, 2, 2]]] if drawn else attention
    mask = np.array([[1, 1, 1], [1, 1, 0]], np.float32)
    rows = RNG.uniform(1, 5, (2, 3)).astype(np.float32) * mask
    source = tf.Variable(attention)
    with tf.GradientTape() as tape:
        loss = losses.sampled_attention_loss(source, weights, tf.constant(rows), tf.constant(mask), 1.5, 0.1, 0.02)
    assert float(loss) == 0.0
    reward = rows.sum(1) / mask.sum(1) - 1.5
    wanted = 0.1 * reward[:, None, None] * weights / attention + 0.02 * (np.log(attention) + 1)
    np.testing.assert_allclose(tape.gradient(loss, source), mask[:, :, None] * wanted, rtol=1e-5)


def test_a_place_that_is_never_looked_at_has_a_finite_gradient():
    source = tf.Variable([[[1.0, 0.0]]])
    with tf.GradientTape() as tape:
        loss = losses.sampled_attention_loss(
            source, tf.constant([[[1.0, 0.0]]]), tf.ones([1, 1]), tf.ones([1, 1]), 0.0, 1.0, 1.0
        )
    gradient = tape.gradient(loss, source).numpy()
    assert np.isfinite(gradient).all() and gradient[0, 0, 0] == pytest.approx(2.0)


def test_the_baseline_follows_the_mean_row_loss():
    rows, mask = tf.constant([[2.0, 4.0], [6.0, 0.0]]), tf.constant([[1.0, 1.0], [1.0, 0.0]])
    assert float(losses.moving_baseline(tf.constant(10.0), rows, mask)) == pytest.approx(9.0 + 0.4)
    value = tf.constant(0.0)
    for _ in range(200):
        value = losses.moving_baseline(value, rows, mask)
    assert float(value) == pytest.approx(4.0, rel=1e-5)
