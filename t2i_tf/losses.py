"""Losses as pure functions of logits and tensors; each is a mean over the rows given, unless it says otherwise."""

from __future__ import annotations

import tensorflow as tf


def real_loss(logits: tf.Tensor) -> tf.Tensor:
    """mean of -log sigmoid(logits): "this is a real, matching pair". logits [B]."""
    return tf.reduce_mean(tf.nn.softplus(-logits))


def fake_loss(logits: tf.Tensor) -> tf.Tensor:
    """mean of -log(1 - sigmoid(logits)). logits [B]."""
    return tf.reduce_mean(tf.nn.softplus(logits))


def matching_aware_discriminator_loss(
    real: tf.Tensor, fake: tf.Tensor, wrong: tf.Tensor | None, cls_weight: float
) -> tf.Tensor:
    """GAN-CLS, Algorithm 1: real + cls_weight * wrong + (1 - cls_weight) * fake; 0.5 in the paper.

    Args:
        real, fake, wrong: logits [B] of (real image, its text), (fake image, text), (real image, mismatching text).
        wrong: not used, and may be None, when cls_weight is 0 (plain GAN).
    """
    loss = real_loss(real) + (1.0 - cls_weight) * fake_loss(fake)
    return loss + cls_weight * fake_loss(wrong) if cls_weight else loss


def interpolation_generator_loss(true_rows: tf.Tensor, interpolated: tf.Tensor, weight: float) -> tf.Tensor:
    """GAN-INT, non-saturating, as the published program weighs it: the divisor counts all rows, whatever the weight.

    (sum over B of -log D(G(z,h)) + weight * sum over B/2 of -log D(G(z,h_interpolated))) / (1.5 B)

    Args:
        true_rows: logits [B]; interpolated: logits [B/2].
    """
    rows = tf.cast(tf.size(true_rows) + tf.size(interpolated), true_rows.dtype)
    total = tf.reduce_sum(tf.nn.softplus(-true_rows)) + weight * tf.reduce_sum(tf.nn.softplus(-interpolated))
    return total / rows


def structured_joint_embedding_loss(
    queries: tf.Tensor, keys: tf.Tensor, matching: tf.Tensor, same_class: tf.Tensor | None = None
) -> tf.Tensor:
    """One direction of Reed et al. (CVPR 2016), equation 1 with 0/1 margin: every violating pair counts.

    1/(Q K) * sum_i sum_{j != m_i} max(0, 1 + q_i.k_j - q_i.k_{m_i}): raw dot products, no temperature, no norms.
    The divisor counts the matching pairs too, as published.

    Args:
        queries: [Q, D]; keys: [K, D]; matching: int [Q], the place m_i of each query's own key.
        same_class: bool [Q, K], further pairs that are no mismatch. Published batches hold no class twice.
    """
    similarities = tf.matmul(queries, keys, transpose_b=True)
    own = tf.gather(similarities, matching, axis=1, batch_dims=1)
    violation = tf.nn.relu(1.0 + similarities - own[:, None])
    excluded = tf.one_hot(matching, tf.shape(keys)[0], on_value=True, off_value=False)
    if same_class is not None:
        excluded |= same_class
    return tf.reduce_mean(tf.where(excluded, tf.zeros_like(violation), violation))
