"""Batch normalisation as Torch computes it."""

from __future__ import annotations

import keras
import tensorflow as tf

from t2i_tf.networks import processor, replicas


class BatchNormalization(keras.layers.Layer):
    """Batch normalisation over the last axis of [B,C] or [B,H,W,C].

    Against `keras.layers.BatchNormalization`: epsilon 1e-5, momentum 0.9 (Torch's 0.1 on the new value), the running
    variance stores the unbiased estimate n/(n-1), and with several replicas the moments are those of the global batch:
    the published programs ran each batch on one device, and the number of devices must not change the result. Whatever
    the policy, it computes in float32; only what comes and goes is in half precision.

    Args:
        activation: follows. For the gradient both are computed again from x, so that of all between one convolution and
            the next only its end is kept in memory.
    """

    def __init__(self, epsilon: float = 1e-5, momentum: float = 0.9, unbiased: bool = True, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.epsilon, self.momentum, self.unbiased, self.activation = epsilon, momentum, unbiased, activation

    def build(self, input_shape):
        width = (input_shape[-1],)

        def weight(name, initializer, trainable):
            return self.add_weight(
                shape=width,
                name=name,
                initializer=initializer,
                trainable=trainable,
                dtype="float32",
                autocast=False,
                aggregation="mean",
            )

        self.gamma = weight("gamma", keras.initializers.RandomNormal(1.0, 0.02), True)
        self.beta = weight("beta", "zeros", True)
        self.moving_mean = weight("moving_mean", "zeros", False)
        self.moving_variance = weight("moving_variance", "ones", False)

    def call(self, x, training=False, gathered=False, groups=1):
        """Normalises; in training with the moments of the batch, which also move the running ones.

        Args:
            gathered: x holds the rows of the global batch, the same on every replica, as of `replicas.gather`.
            groups: x is so many batches, one behind the other: each has moments of its own, as if it came alone.
        """
        alone = gathered or replicas.count() == 1
        if training and groups > 1 and not alone:
            return tf.concat([self.call(batch, True) for batch in tf.split(x, groups)], axis=0)
        flat = x.shape.rank == 2
        maps = x[:, None, None, :] if flat else x
        gamma, beta = tf.convert_to_tensor(self.gamma.value), tf.convert_to_tensor(self.beta.value)
        if not training:
            moments = self.moving_mean.value, self.moving_variance.value
            y = self._activated(self._normalised_by(maps, gamma, beta, *moments))
        elif alone:
            y, moments = self._normalised_batches(maps, gamma, beta, groups)
            self._move(moments)
        else:
            y, *moments = self._normalised_globally(maps, gamma, beta)
            self._move([moments])
        return y[:, 0, 0, :] if flat else y

    def _activated(self, maps):
        return self.activation(maps) if self.activation else maps

    def _normalised_by(self, maps, gamma, beta, mean, variance):
        """Maps normalised by moments that are not theirs."""
        if processor.on_cpu():
            return self._normalised(maps, gamma, beta, mean, variance)
        # One kernel in place of five, which a GPU waits for longer than it computes; its gradient is slower on a CPU.
        moments = {"mean": mean, "variance": variance, "epsilon": self.epsilon, "is_training": False}
        return tf.raw_ops.FusedBatchNormV3(x=maps, scale=gamma, offset=beta, **moments)[0]

    def _normalised_batches(self, maps, gamma, beta, count: int):
        """-> activated maps, and of each of so many batches its mean and the variance that the running one moves to,
        [C] each."""
        batches = tf.split(maps, count) if count > 1 else [maps]
        nothing = tf.zeros([0])
        training = {"epsilon": self.epsilon, "is_training": True}

        def fused(batch):
            given = {"scale": gamma, "offset": beta, "mean": nothing, "variance": nothing}
            return tf.raw_ops.FusedBatchNormV3(x=batch, **given, **training)

        def joined(parts):
            return tf.concat(parts, axis=0) if count > 1 else parts[0]

        normalised = [fused(batch) for batch in batches]

        @tf.custom_gradient
        def activated(maps, gamma, beta):
            def gradients(upstream):
                parts = zip(batches, normalised, tf.split(upstream, count) if count > 1 else [upstream], strict=True)
                of_maps, of_gamma, of_beta = zip(*(of_batch(*part) for part in parts), strict=True)
                return joined(of_maps), tf.add_n(of_gamma), tf.add_n(of_beta)

            def of_batch(batch, made, upstream):
                if self.activation:
                    with tf.control_dependencies([upstream]), tf.GradientTape() as tape:  # again, and not before
                        again = fused(batch).y
                        tape.watch(again)
                        upstream = tape.gradient(self.activation(again), again, upstream)
                reserved = {f"reserve_space_{place}": made[2 + place] for place in (1, 2, 3)}
                given = {"y_backprop": upstream, "x": batch, "scale": gamma}
                return tf.raw_ops.FusedBatchNormGradV3(**given, **reserved, **training)[:3]

            return joined([self._activated(made.y) for made in normalised]), gradients

        y, n = activated(maps, gamma, beta), self._values(batches[0])
        return y, [(made.batch_mean, self._kept(made.batch_variance, n)) for made in normalised]

    def _kept(self, variance, n: int | tf.Tensor):
        """What the running variance moves to. That of the fused kernel is unbiased, and of a single value on a GPU no
        number."""
        if isinstance(n, int) and n > 1:
            return variance if self.unbiased else variance * ((n - 1) / n)
        n = tf.cast(n, tf.float32)
        factor = tf.cast(n > 1.0, tf.float32) if self.unbiased else (n - 1.0) / n
        return tf.math.multiply_no_nan(variance, factor)

    def _normalised_globally(self, maps, gamma, beta):
        """-> activated maps, and mean and variance as of `_normalised_batches`, of the rows of all replicas."""

        def forward(maps, gamma, beta):
            values = tf.cast(maps, tf.float32)
            mean = replicas.mean(tf.reduce_mean(values, [0, 1, 2]))
            variance = replicas.mean(tf.reduce_mean(tf.square(values - mean), [0, 1, 2]))
            y = self._activated(self._normalised(maps, gamma, beta, mean, variance))
            return y, *map(tf.stop_gradient, (mean, variance))

        y, mean, variance = (tf.recompute_grad(forward) if self.activation else forward)(maps, gamma, beta)
        n = tf.cast(self._values(maps) * replicas.count(), tf.float32)
        return y, mean, variance * (n / tf.maximum(n - 1.0, 1.0)) if self.unbiased else variance

    @staticmethod
    def _values(maps) -> int | tf.Tensor:
        """Of each channel; a number where the batch is known, which saves a graph some operations."""
        return maps.shape[:3].num_elements() or tf.size(maps) // maps.shape[-1]

    def folded(self, kernel: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What a convolution's kernel [...,C] and bias [C] are for its output to be that of this layer behind it,
        outside training."""
        kernel = tf.convert_to_tensor(kernel)
        running = self.moving_mean.value, self.moving_variance.value
        scale, offset = self._scale_and_offset(self.gamma.value, self.beta.value, *running)
        return kernel * tf.cast(scale, kernel.dtype), tf.cast(offset, kernel.dtype)

    def _normalised(self, x, gamma, beta, mean, variance):
        scale, offset = self._scale_and_offset(gamma, beta, mean, variance)
        return tf.cast(tf.cast(x, scale.dtype) * scale + offset, x.dtype)

    def _scale_and_offset(self, gamma, beta, mean, variance):
        scale = gamma * tf.math.rsqrt(variance + self.epsilon)
        return scale, beta - mean * scale

    def _move(self, moments):
        """By the mean and variance of one batch after the other."""
        rate = tf.constant(1 - self.momentum)
        for batch in moments:
            for moving, new in zip((self.moving_mean.value, self.moving_variance.value), batch, strict=True):
                moving.assign_sub((moving - new) * rate)

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon, "momentum": self.momentum, "unbiased": self.unbiased}
