"""Building blocks that several papers use unchanged."""

from __future__ import annotations

import keras
import tensorflow as tf

from t2i_tf.networks.composite import Composite
from t2i_tf.networks.convolutions import Convolution, TransposedConvolution
from t2i_tf.networks.initial import conv_initializer, orthogonal, torch_uniform
from t2i_tf.networks.normalisation import BatchNormalization

LEAKY_SLOPE = 0.2


def leaky_relu(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.leaky_relu(x, LEAKY_SLOPE)


def convolution(
    filters: int, kernel: int, stride: int = 1, name: str | None = None, initializer=conv_initializer
) -> Convolution:
    return Convolution(filters, kernel, stride, initializer(), name=name)


def transposed_convolution(filters: int, first: bool = False, name: str | None = None) -> TransposedConvolution:
    return TransposedConvolution(filters, first, conv_initializer(), name=name)


def flat(maps: tf.Tensor) -> tf.Tensor:
    """[B,H,W,C] -> float32 [B, H*W*C]."""
    return tf.cast(tf.reshape(maps, [tf.shape(maps)[0], -1]), tf.float32)


def everywhere(vector: tf.Tensor, maps: tf.Tensor) -> tf.Tensor:
    """[B, C] -> [B,H,W,C], the same at every place of the maps [B,H,W,...]."""
    _, height, width, _ = maps.shape
    tiled = tf.broadcast_to(vector[:, None, None, :], [tf.shape(maps)[0], height, width, vector.shape[-1]])
    return tf.cast(tiled, maps.dtype)


@tf.custom_gradient
def _with_zero_gradient(x):
    return x, tf.zeros_like


class Dense(keras.layers.Dense):
    """Dense layer.

    Args:
        normalised: a batch normalisation follows. In training the bias then cancels and its gradient is exactly zero;
            rounding would leave noise, which Adam blows up to whole steps that differ from device to device.
    """

    def __init__(self, units: int, normalised: bool = False, **kwargs):
        super().__init__(units, **kwargs)
        self.normalised = normalised

    def call(self, x, training=False):
        y = tf.matmul(x, self.kernel)
        if self.bias is None:
            return y
        return y + (_with_zero_gradient(tf.convert_to_tensor(self.bias)) if self.normalised and training else self.bias)


class TorchDense(Dense):
    """`Dense` with Torch's initial weights and bias: U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""

    def build(self, input_shape):
        self.kernel_initializer = torch_uniform(input_shape[-1])
        self.bias_initializer = torch_uniform(input_shape[-1])
        super().build(input_shape)


class BottleneckResidual(Composite):
    """x + conv 1x1 -> conv 3x3 -> conv 3x3, each batch-normalised; the activation follows the sum.

    GAN-INT-CLS and StackGAN (TensorFlow form) have it in generator and discriminator.

    Args:
        filters: channels of input and output.
        bottleneck: channels between.
        activation: between the convolutions and after the sum.
        activate_sum: False leaves the sum as it is ("large" COCO generator of GAN-INT-CLS).
        initializer: makes the initializer of each convolution.
        unbiased: of `BatchNormalization`.
    """

    def __init__(
        self,
        filters: int,
        bottleneck: int,
        activation,
        activate_sum: bool = True,
        initializer=conv_initializer,
        unbiased: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.activation, self.activate_sum = activation, activate_sum
        self.conv1 = convolution(bottleneck, 1, name="conv1", initializer=initializer)
        self.norm1 = BatchNormalization(unbiased=unbiased, name="norm1")
        self.conv2 = convolution(bottleneck, 3, name="conv2", initializer=initializer)
        self.norm2 = BatchNormalization(unbiased=unbiased, name="norm2")
        self.conv3 = convolution(filters, 3, name="conv3", initializer=initializer)
        self.norm3 = BatchNormalization(unbiased=unbiased, name="norm3")

    def call(self, x, training=False):
        y = self.activation(self.norm1(self.conv1(x), training=training))
        y = self.activation(self.norm2(self.conv2(y), training=training))
        y = x + self.norm3(self.conv3(y), training=training)
        return self.activation(y) if self.activate_sum else y


class LogitHead(keras.layers.Conv2D):
    """Features [B,4,4,C] -> logits float32 [B]; a bias starts as Torch's U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""

    def __init__(self, initializer=orthogonal, **kwargs):
        super().__init__(1, 4, kernel_initializer=initializer(), **kwargs)

    def build(self, input_shape):
        self.bias_initializer = torch_uniform(4 * 4 * input_shape[-1])
        super().build(input_shape)

    def call(self, features):
        return tf.cast(super().call(features)[:, 0, 0, 0], tf.float32)
