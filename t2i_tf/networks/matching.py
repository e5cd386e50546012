"""How well pictures and captions match: the similarities of the DAMSM (Xu et al., CVPR 2018, section 3.2)."""

from __future__ import annotations

import keras
import tensorflow as tf

from t2i_tf.networks import replicas
from t2i_tf.networks.attention import NOT_ATTENDED, compiled, is_word, region_attention


def _cosine(products, squares, other_squares):
    """<a, b> / max(|a| |b|, 1e-8), whose gradient is a number for zero vectors too."""
    return products * tf.math.rsqrt(tf.maximum(squares * other_squares, 1e-16))


def _squares(vectors):
    return tf.reduce_sum(tf.square(vectors), axis=-1)


def word_similarities(contexts: tf.Tensor, words: tf.Tensor, lengths: tf.Tensor, gamma2: float) -> tf.Tensor:
    """Word by word (equation 10): log sum over the words of exp(gamma2 * cos(context, word)).

    As published, where the paper divides by gamma2: long captions score higher, by the logarithm of their length.

    Args:
        contexts: [I,J,T,D] of `region_attention`; words: [J,T,D]; lengths: int [J].

    Returns [I, J].
    """
    cosines = _cosine(tf.reduce_sum(contexts * words, axis=-1), _squares(contexts), _squares(words))
    return tf.reduce_logsumexp(tf.where(is_word(lengths, words), gamma2 * cosines, NOT_ATTENDED), axis=-1)


def sentence_similarities(images: tf.Tensor, sentences: tf.Tensor) -> tf.Tensor:
    """Cosines [I, J] of pictures [I, D] and sentences [J, D]."""
    products = tf.matmul(images, sentences, transpose_b=True)
    return _cosine(products, _squares(images)[:, None], _squares(sentences))


class Matching(keras.layers.Layer):
    """Both similarities of every picture and every caption of the global batch.

    call: this replica's regions [b,h,w,D], picture codes [b,D], word vectors [b,T,D], sentence vectors [b,D] and
        lengths int [b] -> {"word": [B,B], "sentence": [B,B]}; rows are pictures, columns captions of all replicas.

    Each replica compares its own pictures with all captions, and the rows are gathered. It has no weights, and computes
    in float32 whatever the policy.

    Args:
        gamma1: of `region_attention`; gamma2: of `word_similarities`; jit_compile: of `attention.compiled`.
    """

    def __init__(self, gamma1: float = 4.0, gamma2: float = 5.0, jit_compile: bool | None = None, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.gamma1, self.gamma2 = gamma1, gamma2
        self._compare = compiled(self._compared, jit_compile)

    def _compared(self, regions, words, lengths):
        contexts, _ = region_attention(regions, words, lengths, self.gamma1)
        return word_similarities(contexts, words, lengths, self.gamma2)

    def call(self, regions, codes, words, sentences, lengths):
        _, height, width, depth = regions.shape
        regions = tf.reshape(regions, [-1, height * width, depth])
        word_rows = self._compare(regions, replicas.gather(words), replicas.gather(lengths))
        sentence_rows = sentence_similarities(codes, replicas.gather(sentences))
        return {"word": replicas.gather(word_rows), "sentence": replicas.gather(sentence_rows)}
