"""AttnGAN against the published PyTorch program, with its attention mask and with the right one.

Tolerances are relative to the largest element of an array; tiny widths make the last scales ill-conditioned.
"""

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import published
from t2i_tf.networks import attention

from .arrays import channels_first, every_file, gradients

FORWARD = 1e-4
GRADIENT = 1e-4
MASKS = {"official": True, "fixed_mask": False}


def lengths_of(parity):
    """The published mask is True at padding."""
    return tf.constant(np.sum(~parity["in/mask"], axis=1), tf.int32)


def word_vectors(parity):
    """(B, D, T) -> [B, T, D]."""
    return tf.constant(parity["in/words_embs"].transpose(0, 2, 1))


def from_channels_first(array):
    return tf.constant(array.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("jit_compile", [False, True], ids=["plain", "compiled"])
@every_file("attngan_attention")
def test_attention(parity, jit_compile):
    features, words = from_channels_first(parity["in/h_code"]), word_vectors(parity)
    upstream = from_channels_first(parity["in/cotangent_context"])
    for version, published_mask in MASKS.items():
        layer = attention.WordAttention(published_mask, jit_compile)
        layer(features, words, lengths_of(parity))
        layers = {"conv_context": published.blocks.pointwise(layer.projection)}
        published.assign(layers, parity.below("param/"), "param")

        def objective(layer=layer):
            context, weights = layer(features, words, lengths_of(parity))
            return tf.reduce_sum(context * upstream), context, weights

        kernel = layer.projection.kernel
        (_, context, weights), (of_features, of_words, of_kernel) = gradients(objective, [features], [words], [kernel])
        parity.compare(f"out_{version}/context", channels_first(context), FORWARD)
        parity.compare(f"out_{version}/attention", channels_first(weights), FORWARD)
        parity.compare(f"grad_{version}/h_code", channels_first(of_features[0]), GRADIENT)
        parity.compare(f"grad_{version}/words_embs", np.transpose(of_words[0], (0, 2, 1)), GRADIENT)
        (weight,) = published.to_published(layers, [kernel], of_kernel).values()
        parity.compare(f"grad_{version}/conv_context.weight", weight, GRADIENT)
    parity.finish()
