"""Convolutions computed by the least work for their size: same weights, same result to rounding.

The weights are those of a plain convolution in every case, so checkpoints do not know how one was computed. Which form
is chosen hangs on the sizes of maps and kernel and on the machine, not on the batch, but for a single picture that is
drawn without AVX-512 (`Convolution.drawn`), which the library itself computes otherwise than those of a batch. Times
are of float32 on 2 CPU cores, forward and backward; on a GPU only `UpsampledConvolution` differs from Keras.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import tensorflow as tf

from t2i_tf.networks import processor
from t2i_tf.networks.constant import of_weights
from t2i_tf.networks.kernel_gradients import convolve, convolve_transposed, patches_of

WEIGHTS_A_PLACE = 2**16
"""From so many weights for each place of the output, a convolution on a CPU is a product of patches and kernel.

The library's kernel brings all weights into another order at every call, which few places do not repay. At batch 12:
8x8x1024 to 4x4x2048 takes a third of the time, 4x4x2048 to 4x4x1024 too, 16x16x512 to 8x8x1024 two thirds; at an eighth
of the weights, and with few channels, the library is up to twice as fast.
"""
SMALL_SIDE, SMALL_SIDE_WITHOUT_AVX512 = 8, 16
"""Maps up to this side are upsampled by taps on a CPU: with AVX-512 4x4x1024 in a third to a sixth of the time, 8x8x512
in under a half, and 16x16x256 would take 1.5 times that of the transposed convolution; without, it takes 0.6 to 0.8
(forward) and 0.5 (with gradients), and 32x32x128 would take 1.0 to 1.2 and 0.5 to 0.7."""
HALVED_SIDE = 32
"""From this side on a single picture is drawn as its two halves, where that is faster; see `Convolution.drawn`."""
SMALL_TRANSPOSED_SIDE = 4
"""Maps up to this side pass a transposed convolution by taps on a CPU: 4x4x1024 to 8x8x512 in half the time of the
library at batch 64, in a sixth at batch 1 (forward alone); 8x8x512 would take 1.2 times as long at batch 64."""


def folds(convolution: keras.layers.Conv2D, maps: tf.Tensor) -> bool:
    """Whether the scale of a batch norm behind this convolution of these maps [B,H,W,C] is better multiplied into the
    kernel: on a CPU, whose library adds offsets and activates as it convolves, where the kernel is smaller than the
    maps that it makes of a picture. (AttnGAN at published width draws in 0.86 of the time, eight pictures at a time.)
    """
    made = convolution.compute_output_shape(maps.shape)[1:]
    return None not in made and processor.on_cpu() and math.prod(convolution.kernel.shape) <= math.prod(made)


def _convolved(maps: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """Pads as TensorFlow's "same"."""
    rows, columns, channels, filters = kernel.shape
    height, width = (None if side is None else -(-side // stride) for side in maps.shape[1:3])
    if not (processor.was_measured(maps) and rows * columns * channels * filters >= WEIGHTS_A_PLACE * height * width):
        return convolve(maps, kernel, stride)
    products = tf.matmul(patches_of(maps, kernel.shape, stride), tf.reshape(kernel, [-1, filters]))
    return tf.reshape(products, [-1, height, width, filters])


def _by_halves(maps, draw):
    """The upper and the lower half of each picture as two pictures, each with a row of the other beside it."""
    _, height, width, channels = maps.shape
    halves = tf.reshape(maps, [-1, 2, height // 2, width, channels])
    last, first = halves[:, :1, -1:], halves[:, 1:, :1]  # row of the upper half, of the lower
    above = tf.concat([tf.zeros_like(last), last], axis=1)
    below = tf.concat([first, tf.zeros_like(first)], axis=1)
    halves = tf.concat([above, halves, below], axis=2)
    halves = tf.reshape(halves, [-1, height // 2 + 2, width, channels])
    made = draw(lambda kernel: tf.nn.conv2d(halves, kernel, 1, [[0, 0], [0, 0], [1, 1], [0, 0]]))
    return tf.reshape(made, [-1, height, width, made.shape[-1]])


class Convolution(keras.layers.Conv2D):
    """Convolution without bias whose padding equals Torch's (kernel - 1) // 2 at even sizes.

    Maps [B,H,W,C] -> [B,H/stride,W/stride,filters].
    """

    def __init__(self, filters: int, kernel: int, stride: int = 1, initializer="glorot_uniform", **kwargs):
        super().__init__(
            filters, kernel, stride, padding="same", use_bias=False, kernel_initializer=initializer, **kwargs
        )

    def convolution_op(self, inputs, kernel):
        return _convolved(inputs, tf.convert_to_tensor(kernel), self.strides[0])

    def drawn(self, maps: tf.Tensor, draw: Callable) -> tf.Tensor:
        """draw(convolved), outside training; draw may add to the maps convolved(kernel) and activate them, but each
        place by itself.

        Without AVX-512 the library convolves a single picture at half the speed of the pictures of a batch, or less;
        there it passes as a batch of its upper and lower half.
        """

        def whole():
            return draw(lambda kernel: self.convolution_op(maps, kernel))

        batch, height, width, _ = maps.shape
        halved = (
            batch in (None, 1)
            and self.kernel_size == (3, 3)
            and self.strides == (1, 1)
            and processor.was_measured(maps)
            and not processor.has_avx512()
        )
        if not (halved and height % 2 == 0 and min(height, width) >= HALVED_SIDE):
            return whole()
        return tf.cond(tf.equal(tf.shape(maps)[0], 1), lambda: _by_halves(maps, draw), whole)


def double_size(x: tf.Tensor) -> tf.Tensor:
    """[B,H,W,C] -> [B,2H,2W,C], nearest neighbour.

    By joining copies, whose gradient adds in a fixed order; that of `tf.image.resize` does not on a GPU.
    """
    _, height, width, channels = x.shape
    wide = tf.reshape(tf.concat([x, x], axis=3), [-1, height, 2 * width * channels])
    return tf.reshape(tf.concat([wide, wide], axis=2), [-1, 2 * height, 2 * width, channels])


def _shifted(maps, by: int, axis: int):
    """Moved on by one place, or back by -1; zeros come in."""
    padded = tf.pad(maps, [[1, 1] if place == axis else [0, 0] for place in range(maps.shape.rank)])
    return tf.split(padded, [1 - by, maps.shape[axis], 1 + by], axis)[1]


def _pairs(first, second, axis: int):
    """Two maps -> one of twice the places along the axis, taken from them by turns."""
    shape = [-1 if side is None else side for side in first.shape]
    shape[axis] *= 2
    return tf.reshape(tf.stack([first, second], axis + 1), shape)


def _doubled(taps, axis: int):
    """What the three taps of a kernel make of each place -> their sums at twice the places along the axis.

    Behind doubling, the first and second place of a pair see (the one before, own, own) and (own, own, the next).
    """
    before, own, following = taps
    return _pairs(_shifted(before, 1, axis) + own + following, before + own + _shifted(following, -1, axis), axis)


def _upsampled_by_taps(maps, kernel):
    """Each of the nine taps meets each place once, before doubling, and the products are added where they belong.

    A quarter of the multiplications; nine maps as large as the smaller ones in between.
    """
    _, height, width, channels = maps.shape
    # One product of all taps: of nine, TensorFlow adds the results in another order once it knows the batch.
    products = tf.matmul(tf.reshape(maps, [1, -1, channels]), tf.reshape(kernel, [9, channels, -1]))
    products = tf.reshape(products, [3, 3, -1, height, width, kernel.shape[-1]])
    wide = _doubled(tf.unstack(products, axis=1), axis=3)
    return _doubled(tf.unstack(wide), axis=1)


def _upsampled_by_folding(maps, kernel, drawn=False):
    """One transposed convolution of stride 2 whose 4x4 kernel holds the sums of taps that meet the same place.

    Four ninths of the multiplications, and the doubled maps are never made.
    """
    return convolve_transposed(maps, of_weights(_folded, kernel) if drawn else _folded(kernel))


def _folded(kernel):
    """[3,3,C,filters] -> [4,4,filters,C]"""
    for axis in (0, 1):
        first, middle, last = tf.split(kernel, 3, axis)
        kernel = tf.concat([last, middle + last, first + middle, first], axis)
    return tf.transpose(kernel, [0, 1, 3, 2])


class UpsampledConvolution(Convolution):
    """Convolution 3x3 of maps doubled in size, nearest neighbour: [B,H,W,C] -> [B,2H,2W,filters]."""

    def __init__(self, filters: int, **kwargs):
        super().__init__(filters, 3, **kwargs)

    def drawn(self, maps, draw):
        return draw(lambda kernel: self._upsampled(maps, kernel, drawn=True))

    def convolution_op(self, inputs, kernel):
        return self._upsampled(inputs, kernel, drawn=False)

    @staticmethod
    def _upsampled(maps, kernel, drawn):
        small = SMALL_SIDE_WITHOUT_AVX512 if processor.on_cpu() and not processor.has_avx512() else SMALL_SIDE
        if max(maps.shape[1:3]) > small:
            return _upsampled_by_folding(maps, kernel, drawn)
        kernel = tf.convert_to_tensor(kernel)
        return _upsampled_by_taps(maps, kernel) if processor.on_cpu() else _convolved(double_size(maps), kernel, 1)

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return batch, 2 * height, 2 * width, self.filters


def _spread(taps, axis: int):
    """What the four taps of a transposed kernel make of each place -> their sums at twice the places along the axis.

    A place lies under the taps 1 and 2 of its own pair, under tap 3 of the pair before and tap 0 of the next.
    """
    before, first, second, behind = taps
    return _pairs(first + _shifted(behind, 1, axis), second + _shifted(before, -1, axis), axis)


def _transposed_by_taps(maps, kernel):
    """Each of the sixteen taps [filters, channels] meets each place once, and the products are added where they belong:
    as many multiplications, as plain products of matrices."""
    _, height, width, channels = maps.shape
    taps = tf.reshape(kernel, [16, -1, channels])
    products = tf.matmul(tf.reshape(maps, [1, -1, channels]), tf.transpose(taps, [0, 2, 1]))
    products = tf.reshape(products, [4, 4, -1, height, width, kernel.shape[2]])
    wide = _spread(tf.unstack(products, axis=1), axis=3)
    return _spread(tf.unstack(wide), axis=1)


class TransposedConvolution(keras.layers.Conv2DTranspose):
    """Transposed convolution 4x4 without bias: [B,H,W,C] -> [B,2H,2W,filters] as Torch's of stride 2 and padding 1; or,
    with `first`, of a vector [B,1,1,C] -> [B,4,4,filters]."""

    def __init__(self, filters: int, first: bool = False, initializer="glorot_uniform", **kwargs):
        stride, padding = (1, "valid") if first else (2, "same")
        super().__init__(filters, 4, stride, padding, use_bias=False, kernel_initializer=initializer, **kwargs)
        self.first = first

    def call(self, maps):
        kernel = tf.convert_to_tensor(self.kernel)
        if self.first:
            weights = tf.reshape(kernel, [-1, kernel.shape[-1]])
            return tf.reshape(tf.matmul(maps[:, 0, 0], weights, transpose_b=True), [-1, 4, 4, self.filters])
        if processor.on_cpu() and max(maps.shape[1:3]) <= SMALL_TRANSPOSED_SIDE:
            return _transposed_by_taps(maps, kernel)
        return convolve_transposed(maps, kernel)
