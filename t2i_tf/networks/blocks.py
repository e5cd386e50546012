"""Building blocks that several papers use unchanged.

Initial values are those of the published Torch programs: convolutions N(0, 0.02), batch-norm scales N(1, 0.02),
dense layers Torch's U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weight and bias.
"""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from t2i_tf.networks import replicas

LEAKY_SLOPE = 0.2


def conv_initializer() -> keras.Initializer:
    return keras.initializers.RandomNormal(stddev=0.02)


def leaky_relu(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.leaky_relu(x, LEAKY_SLOPE)


class BatchNormalization(keras.layers.Layer):
    """Batch normalisation as Torch computes it, over the last axis of [B,C] or [B,H,W,C].

    Against `keras.layers.BatchNormalization`: epsilon 1e-5, momentum 0.9 (Torch's 0.1 on the new value), the running
    variance stores the unbiased estimate n/(n-1), and with several replicas the moments are those of the global batch:
    the published programs ran each batch on one device, and the number of devices must not change the result.
    """

    def __init__(self, epsilon: float = 1e-5, momentum: float = 0.9, unbiased: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.epsilon, self.momentum, self.unbiased = epsilon, momentum, unbiased

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

    def call(self, x, training=False):
        flat = x.shape.rank == 2
        maps = x[:, None, None, :] if flat else x
        if not training:
            y = self._normalise(maps, self.moving_mean.value, self.moving_variance.value)
        elif replicas.count() == 1:
            y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
                x=maps,
                scale=self.gamma.value,
                offset=self.beta.value,
                mean=[],
                variance=[],
                epsilon=self.epsilon,
                is_training=True,
            )
            if not self.unbiased:  # the fused kernel returns the unbiased one
                n = tf.cast(tf.size(maps) / maps.shape[-1], tf.float32)
                variance *= (n - 1.0) / n
            self._move(mean, variance)
        else:
            values = tf.cast(maps, tf.float32)
            mean = replicas.mean(tf.reduce_mean(values, [0, 1, 2]))
            variance = replicas.mean(tf.reduce_mean(tf.square(values - mean), [0, 1, 2]))
            y = self._normalise(maps, mean, variance)
            if self.unbiased:
                n = tf.cast(tf.size(maps) / maps.shape[-1] * replicas.count(), tf.float32)
                variance *= n / tf.maximum(n - 1.0, 1.0)
            self._move(mean, variance)
        return y[:, 0, 0, :] if flat else y

    def _normalise(self, x, mean, variance):
        scale = self.gamma.value * tf.math.rsqrt(variance + self.epsilon)
        return x * tf.cast(scale, x.dtype) + tf.cast(self.beta.value - mean * scale, x.dtype)

    def _move(self, mean, variance):
        keep = self.momentum
        self.moving_mean.assign(self.moving_mean.value * keep + tf.stop_gradient(mean) * (1 - keep))
        self.moving_variance.assign(self.moving_variance.value * keep + tf.stop_gradient(variance) * (1 - keep))

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon, "momentum": self.momentum, "unbiased": self.unbiased}


def convolution(filters: int, kernel: int, stride: int = 1, name: str | None = None) -> keras.layers.Conv2D:
    """Convolution without bias whose padding equals Torch's (kernel - 1) // 2 at even sizes."""
    return keras.layers.Conv2D(
        filters, kernel, stride, padding="same", use_bias=False, kernel_initializer=conv_initializer(), name=name
    )


def upsampling_convolution(filters: int, name: str | None = None) -> keras.layers.Conv2DTranspose:
    """Transposed convolution 4x4, stride 2, without bias: doubles the size."""
    return keras.layers.Conv2DTranspose(
        filters, 4, 2, padding="same", use_bias=False, kernel_initializer=conv_initializer(), name=name
    )


@tf.custom_gradient
def _with_zero_gradient(x):
    return x, tf.zeros_like


class TorchDense(keras.layers.Dense):
    """Dense layer with Torch's initial weights and bias: U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Args:
        normalised: a batch normalisation follows. In training the bias then cancels and its gradient is exactly zero;
            rounding would leave noise, which Adam blows up to whole steps that differ from device to device.
    """

    def __init__(self, units: int, normalised: bool = False, **kwargs):
        super().__init__(units, **kwargs)
        self.normalised = normalised

    def call(self, x, training=False):
        bias = _with_zero_gradient(tf.convert_to_tensor(self.bias)) if self.normalised and training else self.bias
        return tf.matmul(x, self.kernel) + bias

    def build(self, input_shape):
        bound = 1.0 / math.sqrt(input_shape[-1])
        self.kernel_initializer = keras.initializers.RandomUniform(-bound, bound)
        self.bias_initializer = keras.initializers.RandomUniform(-bound, bound)
        super().build(input_shape)


class BottleneckResidual(keras.layers.Layer):
    """x + conv 1x1 -> conv 3x3 -> conv 3x3, each batch-normalised; the activation follows the sum.

    GAN-INT-CLS and StackGAN (TensorFlow form) have it in generator and discriminator.

    Args:
        filters: channels of input and output.
        bottleneck: channels between.
        activation: between the convolutions and after the sum.
        activate_sum: False leaves the sum as it is ("large" COCO generator of GAN-INT-CLS).
    """

    def __init__(self, filters: int, bottleneck: int, activation, activate_sum: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.activation, self.activate_sum = activation, activate_sum
        self.conv1, self.norm1 = convolution(bottleneck, 1, name="conv1"), BatchNormalization(name="norm1")
        self.conv2, self.norm2 = convolution(bottleneck, 3, name="conv2"), BatchNormalization(name="norm2")
        self.conv3, self.norm3 = convolution(filters, 3, name="conv3"), BatchNormalization(name="norm3")

    def call(self, x, training=False):
        y = self.activation(self.norm1(self.conv1(x), training=training))
        y = self.activation(self.norm2(self.conv2(y), training=training))
        y = x + self.norm3(self.conv3(y), training=training)
        return self.activation(y) if self.activate_sum else y
