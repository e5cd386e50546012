"""Losses as pure functions of logits and tensors; each is a mean over the rows it is given, unless it says else.

Whatever precision layers compute in, these compute in float32.
"""

from __future__ import annotations

import functools

import tensorflow as tf


def in_float32(function):
    """Casts tensors of half precision among the arguments, lists and dicts of them too."""

    def cast(value):
        half = tf.is_tensor(value) and value.dtype in (tf.bfloat16, tf.float16)
        return tf.cast(value, tf.float32) if half else value

    @functools.wraps(function)
    def in_full(*args, **settings):
        return function(*tf.nest.map_structure(cast, args), **tf.nest.map_structure(cast, settings))

    return in_full


@in_float32
def real_loss(logits: tf.Tensor) -> tf.Tensor:
    """mean of -log sigmoid(logits): "this is a real, matching pair". logits [B]."""
    return tf.reduce_mean(tf.nn.softplus(-logits))


@in_float32
def fake_loss(logits: tf.Tensor) -> tf.Tensor:
    """mean of -log(1 - sigmoid(logits)). logits [B]."""
    return tf.reduce_mean(tf.nn.softplus(logits))


@in_float32
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


@in_float32
def interpolation_generator_loss(true_rows: tf.Tensor, interpolated: tf.Tensor, weight: float) -> tf.Tensor:
    """GAN-INT, non-saturating, as the published program weighs it: the divisor counts all rows, whatever the weight.

    (sum over B of -log D(G(z,h)) + weight * sum over B/2 of -log D(G(z,h_interpolated))) / (1.5 B)

    Args:
        true_rows: logits [B]; interpolated: logits [B/2].
    """
    rows = tf.cast(tf.size(true_rows) + tf.size(interpolated), true_rows.dtype)
    total = tf.reduce_sum(tf.nn.softplus(-true_rows)) + weight * tf.reduce_sum(tf.nn.softplus(-interpolated))
    return total / rows


@in_float32
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


@in_float32
def kl_divergence(mu: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """KL(N(mu, exp(log_variance)) || N(0, 1)) of conditioning augmentation: the mean over rows *and* dimensions.

    mean of -0.5 * (1 + log_variance - mu^2 - exp(log_variance)); [B, C] each.
    """
    return -0.5 * tf.reduce_mean(1.0 + log_variance - tf.square(mu) - tf.exp(log_variance))


@in_float32
def averaged_discriminator_loss(real: list, fake: list) -> tf.Tensor:
    """StackGAN: the mean of the losses of what is real, plus the mean of the losses of what is not.

    Args:
        real: logits [B], one for each head of the discriminator, of real images with their text.
        fake: logits, one for each head, of fake images and of mismatching pairs, maybe of fewer rows.
            Either list may be empty.
    """
    terms = [[real_loss(logits) for logits in real], [fake_loss(logits) for logits in fake]]
    return tf.add_n([tf.add_n(group) / len(group) for group in terms if group])


@in_float32
def joint_discriminator_loss(real: dict, wrong: dict, fake: dict, unconditional_weight: float) -> tf.Tensor:
    """StackGAN++: is it real, and is it what the text says? Terms are summed, not averaged, as published.

    A wrong image is a mismatch to the conditional head and real to the unconditional one. Without the latter
    (unconditional_weight 0): real + (wrong + fake) / 2.

    Args:
        real, wrong, fake: {"conditional": logits [B], "unconditional": logits [B]} of three images, one text.
    """
    real_pair = real_loss(real["conditional"])
    other_pairs = fake_loss(wrong["conditional"]) + fake_loss(fake["conditional"])
    if not unconditional_weight:
        return real_pair + 0.5 * other_pairs
    alone = real_loss(real["unconditional"]) + real_loss(wrong["unconditional"]) + fake_loss(fake["unconditional"])
    return real_pair + other_pairs + unconditional_weight * alone


@in_float32
def joint_generator_loss(fake: dict, unconditional_weight: float) -> tf.Tensor:
    """StackGAN++: the non-saturating counterpart of `joint_discriminator_loss`. fake: as there."""
    loss = real_loss(fake["conditional"])
    return loss + unconditional_weight * real_loss(fake["unconditional"]) if unconditional_weight else loss


@in_float32
def color_statistics(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean [B,3] and covariance [B,3,3], divisor H*W, of the colours of each image [B,H,W,3]."""
    pixels = tf.reshape(images, [tf.shape(images)[0], -1, 3])
    mean = tf.reduce_mean(pixels, axis=1)
    centred = pixels - mean[:, None, :]
    count = tf.cast(tf.shape(pixels)[1], pixels.dtype)
    return mean, tf.matmul(centred, centred, transpose_a=True) / count


@in_float32
def color_consistency_losses(large: tf.Tensor, small: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """StackGAN++, section 3.3: how far the colours of an image are from those of its smaller version.

    Mean squared differences, over rows and channels, of the means and of the covariances. The paper sums over channels
    where the published code, as here, averages: its terms are 3 and 9 times these. No gradient reaches the small image.
    """
    mean, covariance = color_statistics(large)
    small_mean, small_covariance = color_statistics(tf.stop_gradient(small))
    return tf.reduce_mean(tf.square(mean - small_mean)), tf.reduce_mean(tf.square(covariance - small_covariance))


@in_float32
def matching_logits(
    similarities: tf.Tensor, matching: tf.Tensor, same_class: tf.Tensor | None = None, gamma3: float = 10.0
) -> tf.Tensor:
    """gamma3 * similarities [Q, K], where keys of the query's class that are not its own can never be chosen."""
    logits = gamma3 * similarities
    if same_class is None:
        return logits
    own = tf.one_hot(matching, tf.shape(logits)[1], on_value=True, off_value=False)
    return tf.where(same_class & ~own, -1e9, logits)


@in_float32
def matching_loss(
    similarities: tf.Tensor, matching: tf.Tensor, same_class: tf.Tensor | None = None, gamma3: float = 10.0
) -> tf.Tensor:
    """One direction of the DAMSM loss (AttnGAN, equations 11 and 12): -log of the softmax at each query's own key.

    Args:
        similarities: [Q, K] of queries and keys; matching: int [Q], the place of each query's own key.
        same_class: bool [Q, K], pairs of one class: they are left out, but for the query's own.
        gamma3: how sharply keys are told apart.
    """
    logits = matching_logits(similarities, matching, same_class, gamma3)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(matching, logits))


@in_float32
def damsm_losses(similarities: dict, own: tf.Tensor, classes: tf.Tensor, gamma3: float = 10.0) -> dict:
    """The terms of the DAMSM loss (AttnGAN, equation 13), to be summed: word by word and of whole sentences, each the
    caption given the picture and the picture given the caption.

    Args:
        similarities: {"word": [B, B], "sentence": [B, B]}; rows are pictures, columns captions of the global batch.
        own: int [b], the rows and columns that are this replica's: each term is a mean over them.
        classes: int [B]; other captions and pictures of one's class are left out. -1 is no class.
    """
    of_own = tf.gather(classes, own)
    same_class = (of_own[:, None] == classes) & (of_own[:, None] != -1)
    terms = {}
    for kind, table in similarities.items():
        terms[f"{kind}_of_image"] = matching_loss(tf.gather(table, own), own, same_class, gamma3)
        terms[f"image_of_{kind}"] = matching_loss(tf.gather(tf.transpose(table), own), own, same_class, gamma3)
    return terms


# Show, Attend and Tell (Xu et al., ICML 2015). The rows of a caption are its words and the end.


@in_float32
def caption_negative_log_likelihood(logits: tf.Tensor, words: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """-log p of every row, [B,T], zero where the mask is. The published code adds 1e-8 to the probability.

    Args:
        logits: [B,T,V]; words: int [B,T]; mask: float [B,T], 1 on the rows of the caption.
    """
    return mask * tf.nn.sparse_softmax_cross_entropy_with_logits(labels=words, logits=logits)


@in_float32
def doubly_stochastic_penalty(attention: tf.Tensor, form: str = "paper") -> tf.Tensor:
    """How far each place is from being looked at once in all: (1 - sum over the steps of its attention)^2.

    Args:
        attention: [B,T,L], zero on rows behind the caption's end.
        form: "paper" (section 4.2.1) sums over the places and averages over the images; "code" sums over the images and
            averages over the places, B / L times as much.
    """
    squares = tf.square(1.0 - tf.reduce_sum(attention, axis=1))
    if form == "paper":
        return tf.reduce_mean(tf.reduce_sum(squares, axis=1))
    return tf.reduce_mean(tf.reduce_sum(squares, axis=0))


@in_float32
def sampled_attention_loss(
    attention: tf.Tensor,
    weights: tf.Tensor,
    row_losses: tf.Tensor,
    mask: tf.Tensor,
    baseline: tf.Tensor,
    reward_weight: float,
    entropy_weight: float,
) -> tf.Tensor:
    """Hard attention, section 4.1: a loss of value zero whose gradient is the estimate for the sampled places.

    Its gradient for the attention is, in every row of a caption,
        reward_weight * (r - baseline) * weights / attention + entropy_weight * (log attention + 1),
    r the caption's mean row loss: REINFORCE, and less entropy costs. As in the published code it is summed, not
    averaged, over the images, and r is the mean where the paper has the sum over the rows. Rows that used the
    attention itself (weights = attention) learn nothing from r: the softmax cancels what is equal at all places.

    Args:
        attention: [B,T,L], the distribution that the places were drawn from.
        weights: [B,T,L], what mixed the annotations: a one-hot place, or the attention itself.
        row_losses: [B,T] of `caption_negative_log_likelihood`; mask: as there.
        baseline: scalar, see `moving_baseline`.
    """
    distribution = tf.stop_gradient(attention)
    reward = tf.reduce_sum(row_losses, axis=1) / tf.reduce_sum(mask, axis=1) - baseline
    logarithm = tf.math.log(tf.maximum(distribution, tf.constant(1e-37, distribution.dtype)))
    gradient = reward_weight * reward[:, None, None] * tf.math.divide_no_nan(weights, distribution)
    gradient = mask[:, :, None] * (gradient + entropy_weight * (logarithm + 1.0))
    return tf.reduce_sum(tf.stop_gradient(gradient) * (attention - distribution))


@in_float32
def moving_baseline(baseline: tf.Tensor, row_losses: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """The baseline after a batch: 0.9 of the old one and 0.1 of the mean row loss. Arguments as above."""
    return 0.9 * baseline + 0.1 * tf.reduce_sum(row_losses) / tf.reduce_sum(mask)
