"""The library's convolutions, but where it is slow the gradient of kernels by products of matrices.

On a CPU without AVX-512 oneDNN convolves at 100 to 140 GFLOP/s (float32, 2 cores), and takes the gradient of maps so,
but that of kernels at 20 to 85. Milliseconds there, by the maps that are convolved (batch 4, * 64, ** 96):

                                        library   here
    3x3, 128x128x64 to 128 channels         330     97   by lines
    3x3, 64x64x64 to 128                     46     27
    4x4 of stride 2, 256x256x64 to 64       418    151
    4x4 of stride 2, 128x128x64 to 128       85     53
    4x4 of stride 2, 32x32x256 to 512        64     43   by patches
    4x4 of stride 2, 16x16x256 to 512 **    534    240
    3x3, 8x8x128 to 512 **                   88     66
    4x4 of stride 2, 32x32x64 to 128 *       49     64   by lines: so it is left to the library

Elsewhere, at other sizes and in half precision the library does it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from t2i_tf.networks import processor

FILTERS_FOR_PATCHES = 512
"""From so many filters on, the patch of a place is used often enough to be worth cutting out."""
CHANNELS_FOR_LINES = 32
"""From so many channels and filters on, taps are taken by lines, from these sides of maps on."""
SIDE_FOR_LINES = {(3, 1): 32, (4, 2): 128}
"""By kernel and stride."""


def convolve(maps: tf.Tensor, kernel: tf.Tensor, stride: int) -> tf.Tensor:
    """`tf.nn.conv2d` of maps [B,H,W,C] by a kernel [h,w,C,filters], padded as "SAME"."""
    kernel_gradient = _quick(kernel.shape, stride, maps.shape[1:3]) if processor.was_measured(maps) else None

    def convolved(maps, kernel):
        def gradients(upstream):
            of_maps = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(maps),
                filter=kernel,
                out_backprop=upstream,
                strides=[1, stride, stride, 1],
                padding="SAME",
            )
            return of_maps, kernel_gradient(maps, upstream, kernel.shape, stride)

        return tf.nn.conv2d(maps, kernel, stride, "SAME"), gradients

    return tf.custom_gradient(convolved)(maps, kernel) if kernel_gradient else convolved(maps, kernel)[0]


def convolve_transposed(maps: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """`tf.nn.conv2d_transpose` of stride 2: maps [B,H,W,C], kernel [h,w,filters,C] -> [B,2H,2W,filters]."""
    sides = [2 * side for side in maps.shape[1:3]]
    kernel_gradient = _quick(kernel.shape, 2, sides) if processor.was_measured(maps) else None

    def convolved(maps, kernel):
        def gradients(upstream):  # is convolved, and meets the maps as the gradient of a convolution would
            return tf.nn.conv2d(upstream, kernel, 2, "SAME"), kernel_gradient(upstream, maps, kernel.shape, 2)

        shape = [tf.shape(maps)[0], *sides, kernel.shape[2]]
        return tf.nn.conv2d_transpose(maps, kernel, shape, 2, "SAME"), gradients

    return tf.custom_gradient(convolved)(maps, kernel) if kernel_gradient else convolved(maps, kernel)[0]


def _quick(kernel: Sequence[int], stride: int, sides: Sequence[int]) -> Callable | None:
    """The form that is faster than the library for a kernel of this shape and convolved maps of these sides."""
    size, _, channels, filters = kernel
    if processor.has_avx512() or kernel[0] != kernel[1] or size == 1:
        return None
    if filters >= FILTERS_FOR_PATCHES:
        return by_patches
    if (size, stride) not in SIDE_FOR_LINES or any(side % stride for side in sides):
        return None
    large = min(sides) >= SIDE_FOR_LINES[size, stride] and min(channels, filters) >= CHANNELS_FOR_LINES
    return by_lines if large else None


def patches_of(maps: tf.Tensor, kernel: Sequence[int], stride: int) -> tf.Tensor:
    """What a kernel of this shape meets at each place of its output, padded as "SAME": [places, h*w*C]."""
    patches = tf.image.extract_patches(maps, [1, *kernel[:2], 1], [1, stride, stride, 1], [1, 1, 1, 1], "SAME")
    return tf.reshape(patches, [-1, patches.shape[-1]])


def by_patches(maps: tf.Tensor, upstream: tf.Tensor, kernel: Sequence[int], stride: int) -> tf.Tensor:
    """One product of the patches that the kernel met, and the gradient [B,h,w,filters] at their places."""
    upstream = tf.reshape(upstream, [-1, upstream.shape[-1]])
    return tf.reshape(tf.matmul(patches_of(maps, kernel, stride), upstream, transpose_a=True), kernel)


def by_lines(maps: tf.Tensor, upstream: tf.Tensor, kernel: Sequence[int], stride: int) -> tf.Tensor:
    """Products of all places, line behind line, with the gradient moved along them: no patch is cut out.

    For kernels 3x3 of stride 1 and 4x4 of stride 2, the latter as 2x2 behind space-to-depth.
    """
    maps = tf.pad(maps, [[0, 0], [1, 1], [1, 1], [0, 0]])
    if stride == 2:
        maps = tf.nn.space_to_depth(maps, 2)
    reach = kernel[0] // stride - 1  # how many places a kernel goes beyond its first, down and to the right
    upstream = tf.pad(upstream, [[0, 0], [0, reach], [0, reach], [0, 0]])  # zeros where a line is left
    _, _, width, channels = maps.shape
    maps, upstream = (tf.reshape(x, [-1, x.shape[-1]]) for x in (maps, upstream))
    length = maps.shape[0] or tf.shape(maps)[0]  # a number where the batch is known: less to trace
    places = length - reach * (width + 1)
    upstream = upstream[:places]

    def products(lines, shifts):
        moved = (tf.slice(lines, [shift, 0], [places, lines.shape[-1]]) for shift in shifts)
        return tf.stack([tf.matmul(one, upstream, transpose_a=True) for one in moved])

    if stride == 1:  # few channels: neighbours are joined
        joined = [tf.slice(maps, [right, 0], [length - reach, channels]) for right in range(3)]
        joined = tf.concat(joined, axis=1)
        return tf.reshape(products(joined, [down * width for down in range(3)]), kernel)
    taps = products(maps, [down * width + right for down in range(2) for right in range(2)])
    taps = tf.reshape(taps, [2, 2, 2, 2, *kernel[2:]])  # down, right, and both inside a place of the smaller maps
    return tf.reshape(tf.transpose(taps, [0, 2, 1, 3, 4, 5]), kernel)
