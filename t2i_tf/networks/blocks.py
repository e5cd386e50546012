"""Building blocks that several papers use unchanged.

Initial values are those of the published Torch programs: convolutions N(0, 0.02), batch-norm scales N(1, 0.02),
dense layers Torch's U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weight and bias.
"""

from __future__ import annotations

import math
from functools import partial

import keras
import tensorflow as tf

from t2i_tf.networks import processor, replicas
from t2i_tf.networks.composite import Composite
from t2i_tf.networks.convolutions import (
    Convolution,
    TransposedConvolution,
    UpsampledConvolution,
    folds,
)

LEAKY_SLOPE = 0.2


def conv_initializer() -> keras.Initializer:
    return keras.initializers.RandomNormal(stddev=0.02)


def leaky_relu(x: tf.Tensor) -> tf.Tensor:
    return tf.nn.leaky_relu(x, LEAKY_SLOPE)


class BatchNormalization(keras.layers.Layer):
    """Batch normalisation as Torch computes it, over the last axis of [B,C] or [B,H,W,C].

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
        if training and groups > 1:
            return tf.concat([self.call(batch, True, gathered) for batch in tf.split(x, groups)], axis=0)
        flat = x.shape.rank == 2
        maps = x[:, None, None, :] if flat else x
        gamma, beta = tf.convert_to_tensor(self.gamma.value), tf.convert_to_tensor(self.beta.value)
        if not training:
            moments = self.moving_mean.value, self.moving_variance.value
            y = self._activated(self._normalised_by(maps, gamma, beta, *moments))
        else:
            alone = gathered or replicas.count() == 1
            y, *moments = (self._normalised_batch if alone else self._normalised_globally)(maps, gamma, beta)
            self._move(*moments)
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

    def _normalised_batch(self, maps, gamma, beta):
        """-> activated maps, the batch's mean and the variance that the running one moves to, [C] each."""

        def fused():
            given = {"x": maps, "scale": gamma, "offset": beta, "mean": [], "variance": []}
            return tf.raw_ops.FusedBatchNormV3(**given, epsilon=self.epsilon, is_training=True)

        y, mean, variance, *reserved = fused()

        @tf.custom_gradient
        def activated(maps, gamma, beta):
            def gradients(upstream):
                if self.activation:
                    with tf.control_dependencies([upstream]), tf.GradientTape() as tape:  # again, and not before
                        again = fused().y
                        tape.watch(again)
                        upstream = tape.gradient(self.activation(again), again, upstream)
                given = {f"reserve_space_{place}": value for place, value in enumerate(reserved, 1)}
                return tf.raw_ops.FusedBatchNormGradV3(
                    y_backprop=upstream, x=maps, scale=gamma, **given, epsilon=self.epsilon, is_training=True
                )[:3]

            return self._activated(y), gradients

        # The fused kernel returns the unbiased variance, of a single value on a GPU no number.
        n = self._values(maps)
        if isinstance(n, int) and n > 1:
            return activated(maps, gamma, beta), mean, variance if self.unbiased else variance * ((n - 1) / n)
        n = tf.cast(n, tf.float32)
        factor = tf.cast(n > 1.0, tf.float32) if self.unbiased else (n - 1.0) / n
        return activated(maps, gamma, beta), mean, tf.math.multiply_no_nan(variance, factor)

    def _normalised_globally(self, maps, gamma, beta):
        """As `_normalised_batch`, by the moments of the rows of all replicas."""

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

    def _move(self, mean, variance):
        for moving, new in ((self.moving_mean.value, mean), (self.moving_variance.value, variance)):
            moving.assign_sub((moving - new) * (1 - self.momentum))

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon, "momentum": self.momentum, "unbiased": self.unbiased}


def convolution(
    filters: int, kernel: int, stride: int = 1, name: str | None = None, initializer=conv_initializer
) -> Convolution:
    return Convolution(filters, kernel, stride, initializer(), name=name)


def transposed_convolution(filters: int, first: bool = False, name: str | None = None) -> TransposedConvolution:
    return TransposedConvolution(filters, first, conv_initializer(), name=name)


def flat(maps: tf.Tensor) -> tf.Tensor:
    """[B,H,W,C] -> float32 [B, H*W*C]."""
    return tf.cast(tf.reshape(maps, [tf.shape(maps)[0], -1]), tf.float32)


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
        bound = 1.0 / math.sqrt(input_shape[-1])
        self.kernel_initializer = keras.initializers.RandomUniform(-bound, bound)
        self.bias_initializer = keras.initializers.RandomUniform(-bound, bound)
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


# StackGAN++ and AttnGAN: gated generators, discriminators of the same trunk. Convolutions and dense layers start
# orthogonal.


class Orthogonal(keras.initializers.Orthogonal):
    """Orthonormal filters: rows of (out, in * rows * columns) as Torch has it.

    The same as Keras draws, but of a tall matrix A as A R^-1 with the Cholesky factor R of A'A, which is that of its QR
    decomposition with a positive diagonal: two products in place of a decomposition by one thread. AttnGAN at published
    width is built in less than half the time.
    """

    def __call__(self, shape, dtype=None):
        rows, columns = math.prod(shape[:-1]), shape[-1]
        large, small = max(rows, columns), min(rows, columns)
        if large < 2 * small:  # near a square A'A is close to singular
            return super().__call__(shape, dtype)
        drawn = keras.random.normal([large, small], seed=self.seed, dtype=dtype)
        factor = tf.linalg.cholesky(tf.matmul(drawn, drawn, transpose_a=True))
        # Well conditioned, so that a product with the inverse is as exact as solving, which takes longer.
        inverse = tf.linalg.triangular_solve(factor, tf.eye(small, dtype=drawn.dtype))
        filters = tf.matmul(drawn, inverse, transpose_b=True)
        return self.gain * tf.reshape(filters if rows >= columns else tf.transpose(filters), shape)


def orthogonal() -> keras.Initializer:
    return Orthogonal()


def orthogonal_convolution(filters: int, kernel: int, stride: int = 1, name: str | None = None) -> Convolution:
    """As `convolution`, with orthonormal filters to start from."""
    return Convolution(filters, kernel, stride, orthogonal(), name=name)


def glu(x: tf.Tensor) -> tf.Tensor:
    """Gated linear unit [..., 2C] -> [..., C]: the first half of the channels times the sigmoid of the second."""
    value, gate = tf.split(x, 2, axis=-1)
    return value * tf.sigmoid(gate)


def everywhere(vector: tf.Tensor, maps: tf.Tensor) -> tf.Tensor:
    """[B, C] -> [B,H,W,C], the same at every place of the maps [B,H,W,...]."""
    _, height, width, _ = maps.shape
    tiled = tf.broadcast_to(vector[:, None, None, :], [tf.shape(maps)[0], height, width, vector.shape[-1]])
    return tf.cast(tiled, maps.dtype)


class GatedConvolution(keras.layers.Layer):
    """Convolution 3x3 to twice the filters, batch norm, GLU; with `upsample`, after doubling the size."""

    def __init__(self, filters: int, upsample: bool = False, **kwargs):
        super().__init__(**kwargs)
        convolution = UpsampledConvolution if upsample else partial(Convolution, kernel=3)
        self.conv = convolution(2 * filters, initializer=orthogonal(), name="conv")
        self.norm = BatchNormalization(activation=glu, name="norm")

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.norm.build(self.conv.compute_output_shape(input_shape))

    def call(self, x, training=False):
        if training or not folds(self.conv, x):
            return self.norm(self.conv(x), training=training)
        # Value and gate by convolutions of their own: the library adds offsets and takes the sigmoid as it convolves.
        kernels, offsets = (tf.split(weights, 2, axis=-1) for weights in self.norm.folded(self.conv.kernel))

        def draw(convolved):
            value, gate = (tf.nn.bias_add(convolved(k), offset) for k, offset in zip(kernels, offsets, strict=True))
            return value * tf.sigmoid(gate)

        return self.conv.drawn(x, draw)


class GatedResidual(keras.layers.Layer):
    """x + (gated convolution, convolution 3x3, batch norm), all of as many channels as x; the sum stays as it is."""

    def __init__(self, filters: int, **kwargs):
        super().__init__(**kwargs)
        self.gated = GatedConvolution(filters, name="gated")
        self.conv, self.norm = orthogonal_convolution(filters, 3, name="conv"), BatchNormalization(name="norm")

    def build(self, input_shape):
        for layer in (self.gated, self.conv, self.norm):  # all keep the shape
            layer.build(input_shape)

    def call(self, x, training=False):
        y = self.gated(x, training=training)
        if training or not folds(self.conv, x):
            return x + self.norm(self.conv(y), training=training)
        kernel, offset = self.norm.folded(self.conv.kernel)
        return x + self.conv.drawn(y, lambda convolved: tf.nn.bias_add(convolved(kernel), offset))


class ToImage(Convolution):
    """Convolution 3x3 to a picture: [B,S,S,C] -> float32 [B,S,S,3] in [-1, 1]."""

    def __init__(self, **kwargs):
        super().__init__(3, 3, initializer=orthogonal(), **kwargs)

    def call(self, maps, training=False):
        if training:
            return self._image(super().call(maps))
        kernel = tf.convert_to_tensor(self.kernel)
        return self.drawn(maps, lambda convolved: self._image(convolved(kernel)))

    @staticmethod
    def _image(maps):
        return tf.tanh(tf.cast(maps, tf.float32))


class LeakyConvolution(Composite):
    """Convolution, batch norm, leaky ReLU: 4x4 of stride 2 halves the size, 3x3 of stride 1 keeps it."""

    def __init__(self, filters: int, kernel: int, stride: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.conv = orthogonal_convolution(filters, kernel, stride, name="conv")
        self.norm = BatchNormalization(activation=leaky_relu, name="norm")

    def call(self, x, training=False, gathered=False, groups=1):
        """gathered, groups: see `BatchNormalization`."""
        return self.norm(self.conv(x), training=training, gathered=gathered, groups=groups)


class GatedConditioningAugmentation(Composite):
    """Sentence vector [B, D] and noise N(0,1) [B, width] -> (condition, mu, log variance), each [B, width].

    condition = mu + noise * exp(log variance / 2); mu and log variance are a dense layer of the text behind a GLU, and
    float32 whatever the policy.
    """

    def __init__(self, width: int, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(4 * width, kernel_initializer=orthogonal(), name="dense")

    def call(self, text, noise):
        mu, log_variance = tf.split(tf.cast(glu(self.dense(text)), tf.float32), 2, axis=-1)
        condition = mu + tf.cast(noise, tf.float32) * tf.exp(log_variance / 2)
        return tf.cast(condition, self.compute_dtype), mu, log_variance


class GeneratorStem(Composite):
    """The first stage of a generator: a vector [B, K] -> maps [B,size,size,width].

    A dense layer to 4x4, batch norm over its single features, GLU, then one upsampling gated convolution for each
    doubling, which halves the channels.

    Args:
        size: 4 times a power of two.
    """

    def __init__(self, width: int, size: int = 64, **kwargs):
        super().__init__(**kwargs)
        self.channels = width * size // 4
        self.project = keras.layers.Dense(
            4 * 4 * 2 * self.channels, use_bias=False, kernel_initializer=orthogonal(), name="project"
        )
        self.project_norm = BatchNormalization(name="project_norm")
        sizes = [8 * 2**i for i in range(int(math.log2(size // 4)))]
        self.upsamplings = [
            GatedConvolution(self.channels * 4 // to, upsample=True, name=f"upsample_{to}") for to in sizes
        ]

    def call(self, vector, training=False):
        x = self.project_norm(self.project(vector), training=training)
        x = glu(tf.reshape(x, [-1, 4, 4, 2 * self.channels]))
        for upsampling in self.upsamplings:
            x = upsampling(x, training=training)
        return x


class DiscriminatorTrunk(Composite):
    """Image [B,size,size,3] in [-1, 1] -> features [B,4,4,C], C = 8 * width for sizes of 64 pixels and more.

    Convolutions 4x4 of stride 2 down to 4x4, each of twice the channels, the first without batch norm; then
    convolutions 3x3 that halve the channels until 8 * width are left.

    Args:
        size: 4 times a power of two, 8 or more.
    """

    def __init__(self, width: int, size: int = 64, **kwargs):
        super().__init__(**kwargs)
        halvings = int(math.log2(size // 4))
        self.first = orthogonal_convolution(width, 4, 2, name=f"down_{size // 2}")
        self.downs = [
            LeakyConvolution(width * 2**i, 4, 2, name=f"down_{size // 2 ** (i + 1)}") for i in range(1, halvings)
        ]
        self.narrows = [LeakyConvolution(width * 2**i, 3, name=f"narrow_{2**i}") for i in range(halvings - 2, 2, -1)]

    def call(self, image, training=False, groups=1):
        """groups: see `BatchNormalization`."""
        x = leaky_relu(self.first(image))
        for layer in [*self.downs, *self.narrows]:
            x = layer(x, training=training, groups=groups)
        return x


class LogitHead(keras.layers.Conv2D):
    """Features [B,4,4,C] -> logits float32 [B]; a bias starts as Torch's U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""

    def __init__(self, initializer=orthogonal, **kwargs):
        super().__init__(1, 4, kernel_initializer=initializer(), **kwargs)

    def build(self, input_shape):
        bound = 1.0 / math.sqrt(4 * 4 * input_shape[-1])
        self.bias_initializer = keras.initializers.RandomUniform(-bound, bound)
        super().build(input_shape)

    def call(self, features):
        return tf.cast(super().call(features)[:, 0, 0, 0], tf.float32)
