"""Attention; that it computes what was published is seen in tests/parity."""

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf.networks import attention, replicas

RANDOM = np.random.RandomState(0)


def normal(*shape):
    return tf.constant(RANDOM.randn(*shape), tf.float32)


def softmax(x):
    x = np.exp(x - x.max())
    return x / x.sum()


def word_attention_by_loops(features, projected, lengths):
    """As the equation says, place by place; lengths int [B,H,W]."""
    batch, height, width, _ = features.shape
    context, weights = np.zeros_like(features), np.zeros((batch, height, width, projected.shape[1]), "f4")
    for b, y, x in np.ndindex(batch, height, width):
        words = projected[b, : lengths[b, y, x]]
        weights[b, y, x, : len(words)] = softmax(words @ features[b, y, x])
        context[b, y, x] = weights[b, y, x, : len(words)] @ words
    return context, weights


def published_lengths(lengths, height, width):
    rows = np.arange(len(lengths) * height * width) % len(lengths)
    return np.asarray(lengths)[rows].reshape(len(lengths), height, width)


@pytest.mark.parametrize("published_mask", [False, True])
@pytest.mark.parametrize("batch, height, width, words", [(1, 1, 1, 1), (1, 3, 2, 4), (3, 5, 7, 6), (4, 2, 2, 3)])
def test_word_attention_by_loops(batch, height, width, words, published_mask):
    features, vectors = normal(batch, height, width, 5), normal(batch, words, 8)
    lengths = tf.constant(RANDOM.randint(1, words + 1, batch), tf.int32)
    layer = attention.WordAttention(published_mask, jit_compile=False)
    context, weights = layer(features, vectors, lengths)
    used = (
        published_lengths(lengths, height, width)
        if published_mask
        else np.tile(np.reshape(lengths, (-1, 1, 1)), (1, height, width))
    )
    wanted = word_attention_by_loops(features.numpy(), layer.projection(vectors).numpy(), used)
    np.testing.assert_allclose(context, wanted[0], atol=1e-5)
    np.testing.assert_allclose(weights, wanted[1], atol=1e-6)
    np.testing.assert_allclose(np.sum(weights, axis=-1), 1, rtol=1e-5)


def test_the_published_mask_mixes_up_captions_of_unequal_length_alone():
    features, vectors = normal(3, 4, 4, 5), normal(3, 6, 8)
    right, published = (attention.WordAttention(mask, jit_compile=False) for mask in (False, True))
    for layer in (right, published):
        layer(features, vectors, tf.constant([6, 6, 6]))
    published.projection.set_weights(right.projection.get_weights())
    for lengths, same in (([4, 4, 4], True), ([6, 4, 2], False)):
        ours, theirs = (layer(features, vectors, tf.constant(lengths))[1] for layer in (right, published))
        assert np.allclose(ours, theirs) == same
    alone = [layer(features[:1], vectors[:1], tf.constant([2]))[0] for layer in (right, published)]
    np.testing.assert_allclose(*alone)


def test_what_stands_behind_the_end_of_a_caption_means_nothing():
    features, vectors, lengths = normal(2, 3, 3, 4), normal(2, 5, 6), tf.constant([5, 2])
    layer = attention.WordAttention(jit_compile=False)
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        context, weights = layer(features, vectors, lengths)
    gradient = tape.gradient(context, vectors, output_gradients=normal(2, 3, 3, 4))
    assert np.all(weights[1, ..., 2:] == 0) and np.all(gradient[1, 2:] == 0)
    other = tf.concat([vectors[:, :2], normal(2, 3, 6)], axis=1)
    np.testing.assert_array_equal(layer(features, other, tf.constant([2, 2]))[0][1], context[1])


def test_an_empty_caption_says_nothing_and_breaks_nothing():
    features, vectors = normal(1, 2, 2, 4), tf.zeros([1, 3, 6])
    layer = attention.WordAttention(jit_compile=False)
    with tf.GradientTape() as tape:
        tape.watch([features, vectors])
        context, _ = layer(features, vectors, tf.constant([0]))
    assert np.all(context == 0)
    assert all(np.all(np.isfinite(g)) for g in tape.gradient(context, [features, vectors]))


@pytest.mark.parametrize("images, captions, regions, words", [(1, 1, 1, 1), (2, 3, 5, 4), (3, 2, 4, 1)])
def test_region_attention_by_loops(images, captions, regions, words):
    maps, vectors = normal(images, regions, 6), normal(captions, words, 6)
    lengths = RANDOM.randint(1, words + 1, captions)
    contexts, weights = attention.region_attention(maps, vectors, tf.constant(lengths, tf.int32), gamma1=3.0)
    for i, j in np.ndindex(images, captions):
        real = slice(0, lengths[j])
        over_words = np.stack([softmax(vectors[j, real].numpy() @ region) for region in maps[i].numpy()])
        over_regions = np.stack([softmax(3.0 * scores) for scores in over_words.T])
        np.testing.assert_allclose(weights[i, j, real], over_regions, atol=1e-6)
        np.testing.assert_allclose(contexts[i, j, real], over_regions @ maps[i].numpy(), atol=1e-5)


@pytest.mark.parametrize("published_mask", [False, True])
def test_compiled_and_plain_agree(published_mask):
    """Results and gradients, inside a function that is not compiled, inside a tape, for two batch sizes."""
    plain, fast = (attention.WordAttention(published_mask, jit_compile) for jit_compile in (False, True))
    for layer in (plain, fast):
        layer(normal(1, 4, 4, 8), normal(1, 5, 6), tf.constant([5]))
    fast.projection.set_weights(plain.projection.get_weights())

    @tf.function
    def step(layer, features, words, lengths, upstream):
        with tf.GradientTape() as tape:
            tape.watch([features, words])
            context, weights = layer(features, words, lengths)
            objective = tf.reduce_sum(context * upstream)
        return context, weights, *tape.gradient(objective, [features, words, layer.projection.kernel.value])

    for batch in (3, 2):
        inputs = normal(batch, 4, 4, 8), normal(batch, 5, 6), tf.constant([5, 1, 3][:batch]), normal(batch, 4, 4, 8)
        for ours, theirs in zip(step(fast, *inputs), step(plain, *inputs), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_compiled_means_one_xla_program():
    def graph(jit_compile):
        layer = attention.WordAttention(jit_compile=jit_compile)
        run = tf.function(lambda x, w, n: layer(x, w, n))
        return run.get_concrete_function(normal(1, 2, 2, 4), normal(1, 3, 5), tf.constant([3])).graph

    def must_compile(graph):
        return [f for f in graph.as_graph_def().library.function if f.attr["_XlaMustCompile"].b]

    assert must_compile(graph(True)) and not must_compile(graph(False))
    gpu = bool(tf.config.list_physical_devices("GPU"))
    assert bool(must_compile(graph(None))) == gpu, "by itself where there is a GPU"


def test_the_published_mask_is_that_of_the_global_batch(monkeypatch):
    """Rows of the second of two replicas: as if it held the whole batch."""
    features, vectors, lengths = normal(4, 3, 3, 5), normal(4, 6, 8), tf.constant([6, 5, 3, 1])
    layer = attention.WordAttention(published_mask=True, jit_compile=False)
    whole = layer(features, vectors, lengths)[1]
    monkeypatch.setattr(replicas, "gather", lambda rows: lengths)
    monkeypatch.setattr(replicas, "own_positions", lambda rows: 2 + tf.range(rows))
    np.testing.assert_allclose(layer(features[2:], vectors[2:], lengths[2:])[1], whole[2:], atol=1e-6)
