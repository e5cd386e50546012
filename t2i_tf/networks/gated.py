"""What StackGAN++ and AttnGAN share: gated generators, and discriminators of the same trunk.

Convolutions and dense layers start orthogonal.
"""

from __future__ import annotations

import math
from functools import partial

import keras
import tensorflow as tf

from t2i_tf.networks.blocks import leaky_relu
from t2i_tf.networks.composite import Composite
from t2i_tf.networks.constant import of_weights
from t2i_tf.networks.convolutions import Convolution, UpsampledConvolution, folds
from t2i_tf.networks.initial import orthogonal
from t2i_tf.networks.normalisation import BatchNormalization


def orthogonal_convolution(filters: int, kernel: int, stride: int = 1, name: str | None = None) -> Convolution:
    """As `convolution`, with orthonormal filters to start from."""
    return Convolution(filters, kernel, stride, orthogonal(), name=name)


def glu(x: tf.Tensor) -> tf.Tensor:
    """Gated linear unit [..., 2C] -> [..., C]: the first half of the channels times the sigmoid of the second."""
    value, gate = tf.split(x, 2, axis=-1)
    return value * tf.sigmoid(gate)


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
        if training:
            return self.norm(self.conv(x), training=True)
        if not folds(self.conv, x):
            return self.norm(self.conv.drawn(x, lambda convolved: convolved(self.conv.kernel)))
        # Value and gate by convolutions of their own: the library adds offsets and takes the sigmoid as it convolves.
        kernels, offsets = of_weights(self._folded, self.conv.kernel)

        def draw(convolved):
            value, gate = (tf.nn.bias_add(convolved(k), offset) for k, offset in zip(kernels, offsets, strict=True))
            return value * tf.sigmoid(gate)

        return self.conv.drawn(x, draw)

    def _folded(self, kernel):
        return [tf.split(weights, 2, axis=-1) for weights in self.norm.folded(kernel)]


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
        kernel, offset = of_weights(self.norm.folded, self.conv.kernel)
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
