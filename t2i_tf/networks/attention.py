"""Attention between the words of captions and the places of pictures, one XLA program each where that is asked for.

Xu et al., CVPR 2018 (AttnGAN): words for every place of a generator's features (section 3.1), and places of a picture
for every word of a caption (section 3.2, the DAMSM).
"""

from __future__ import annotations

import keras
import tensorflow as tf

from t2i_tf.networks import replicas

NOT_ATTENDED = -1e9
"""A score that leaves a weight of exactly 0; infinity would leave gradients that are no numbers."""


def compiled(function, jit_compile: bool | None = None):
    """The function as one XLA program, gradient included, or as it is.

    Args:
        jit_compile: None compiles where there is a GPU; on a CPU, XLA was as fast or slower (see `t2i-benchmark`).
    """
    if jit_compile is None:
        jit_compile = bool(tf.config.list_physical_devices("GPU"))
    return tf.function(function, jit_compile=True, autograph=False) if jit_compile else function


def is_word(lengths: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
    """Lengths int [...] of captions in words [J,T,D] -> bool [...,T]: is there a word at this place?

    An empty caption counts as one word, a zero.
    """
    return tf.sequence_mask(tf.maximum(lengths, 1), tf.shape(words)[1])


class WordAttention(keras.layers.Layer):
    """Every place of the features looks at the words of its caption (AttnGAN, equation 3).

    call: features [B,H,W,C], word vectors [B,T,D], lengths int [B] -> (context [B,H,W,C], weights [B,H,W,T]).

    Words are projected to e' = U e without bias; a place's weights are the softmax over the words of <h, e'>, its
    context is the weighted sum of e'. Words behind the end of the caption get no weight. Scores and weights are float32
    whatever the policy.

    Args:
        published_mask: as the published program, which mixes up rows and takes for place p of sample b the length of
            caption (b * H * W + p) mod B: a picture then depends on its neighbours in the batch.
        jit_compile: see `compiled`.
    """

    def __init__(self, published_mask: bool = False, jit_compile: bool | None = None, **kwargs):
        super().__init__(**kwargs)
        self.published_mask = published_mask
        self._attend = compiled(self._attended, jit_compile)

    def build(self, features_shape, *_):
        self.projection = keras.layers.Dense(
            features_shape[-1], use_bias=False, kernel_initializer=keras.initializers.Orthogonal(), name="projection"
        )

    @staticmethod
    def _attended(places, words, lengths):
        """[B,P,C], [B,T,C], int [B, P or 1] -> ([B,P,C], [B,P,T])."""
        kind, places, words = words.dtype, tf.cast(places, tf.float32), tf.cast(words, tf.float32)
        scores = tf.matmul(places, words, transpose_b=True)
        weights = tf.nn.softmax(tf.where(is_word(lengths, words), scores, NOT_ATTENDED))
        return tf.cast(tf.matmul(weights, words), kind), weights

    def call(self, features, words, lengths):
        _, height, width, channels = features.shape
        places = tf.reshape(features, [-1, height * width, channels])
        lengths = self._published_lengths(lengths, height * width) if self.published_mask else lengths[:, None]
        context, weights = self._attend(places, self.projection(words), lengths)
        return tf.reshape(context, tf.shape(features)), tf.reshape(weights, [-1, height, width, tf.shape(words)[1]])

    @staticmethod
    def _published_lengths(lengths, places):
        """int [b] -> int [b, places], of the global batch."""
        all_lengths, own = replicas.gather(lengths), replicas.own_positions(tf.shape(lengths)[0])
        rows = own[:, None] * places + tf.range(places)
        return tf.gather(all_lengths, rows % tf.shape(all_lengths)[0])


def region_attention(
    regions: tf.Tensor, words: tf.Tensor, lengths: tf.Tensor, gamma1: float = 4.0
) -> tuple[tf.Tensor, tf.Tensor]:
    """Every word of every caption looks at the regions of every picture (AttnGAN, equations 7 to 9).

    <region, word> is normalised by a softmax over the words of the caption, then, times gamma1, by one over the
    regions; the context is the weighted sum of regions. What stands behind the end of a caption means nothing.

    Args:
        regions: [I,R,D]; words: [J,T,D]; lengths: int [J].
        gamma1: how sharply a word picks its regions.

    Returns contexts [I,J,T,D] and weights [I,J,T,R], float32.
    """
    regions, words = tf.cast(regions, tf.float32), tf.cast(words, tf.float32)
    _, region_count, width = regions.shape
    images, (captions, word_count, _) = tf.shape(regions)[0], tf.unstack(tf.shape(words))
    # One product for all pairs: as an einsum over pairs it took twice as long on a CPU.
    scores = tf.matmul(regions, tf.reshape(words, [-1, width]), transpose_b=True)
    scores = tf.reshape(scores, [images, region_count, captions, word_count])
    scores = tf.nn.softmax(tf.where(is_word(lengths, words), scores, NOT_ATTENDED))
    weights = tf.nn.softmax(gamma1 * scores, axis=1)
    flat = tf.reshape(weights, [images, region_count, captions * word_count])
    contexts = tf.reshape(tf.matmul(flat, regions, transpose_a=True), [images, captions, word_count, width])
    return contexts, tf.transpose(weights, [0, 2, 3, 1])
