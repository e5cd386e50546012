"""Picture files as networks take them, in graph: bytes in, pixels and problems out."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from t2i_tf.data.orientation import upright
from t2i_tf.inference import Run

GREY = 128
"""Every value of the picture of a caption that says nothing."""


def decoded(files: tf.Tensor, run: Run) -> tuple[tf.Tensor, tf.Tensor]:
    """Bytes of JPEG or PNG files, string [B] -> uint8 [B,S,S,3] as `Run.prepared` makes them, and problems [B].

    Turned upright by EXIF. Equal to it where nothing is resized, else within rounding. What is no such file gives a
    grey picture and a problem; a damaged one fails, as TensorFlow decodes it.
    """
    size, (margin, squashed, resample) = run.recipe.request.image_sizes[-1], run.picture_shape
    start = tf.strings.substr(files, 0, 3)
    is_picture = (start == b"\xff\xd8\xff") | (start == b"\x89PN")

    def one(file):
        # Reads PNG too; this is how Pillow decodes, TensorFlow's own way differs by some levels.
        picture = upright(tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE"), file)
        shape = tf.shape(picture)[:2]
        wanted = tf.fill([2], margin) if squashed else shape * margin // tf.reduce_min(shape)

        picture = tf.cond(
            tf.reduce_all(shape == wanted), lambda: picture, lambda: _resized(picture, shape, wanted, resample)
        )
        top, left = tf.unstack((wanted - size + 1) // 2)  # as `images.centre_corner`
        return tf.ensure_shape(picture[top : top + size, left : left + size], [size, size, 3])

    def maybe(row):
        file, good = row
        return tf.cond(good, lambda: one(file), lambda: tf.fill([size, size, 3], tf.constant(GREY, tf.uint8)))

    pictures = tf.map_fn(maybe, (files, is_picture), fn_output_signature=tf.TensorSpec([size, size, 3], tf.uint8))
    return pictures, tf.where(is_picture, "", "this is no JPEG or PNG file")


_METHODS = {"bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "lanczos3"}
"""TensorFlow's names of Pillow's filters."""


def _resized(picture: tf.Tensor, shape: tf.Tensor, wanted: tf.Tensor, resample: str) -> tf.Tensor:
    """uint8 [*shape,3] -> uint8 [*wanted,3], by a filter of `images.FILTERS`; rounded between columns and rows."""
    for target in (tf.stack([shape[0], wanted[1]]), wanted):
        x = tf.cast(picture, tf.float32)
        if resample in _METHODS:
            x = tf.image.resize(x, target, _METHODS[resample], antialias=True)
        else:
            rows, columns = (_box(tf.shape(x)[axis], target[axis]) for axis in (0, 1))
            x = tf.einsum("ij,jkc,lk->ilc", rows, x, columns)
        picture = tf.cast(tf.floor(tf.clip_by_value(x, 0.0, 255.0) + 0.5), tf.uint8)
    return picture


def _box(length: tf.Tensor, wanted: tf.Tensor) -> tf.Tensor:
    """[wanted, length]: Pillow's box counts whole pixels, by their centres, where TensorFlow's "area" shares them."""
    step = tf.cast(length, tf.float64) / tf.cast(wanted, tf.float64)
    centres = (tf.range(tf.cast(wanted, tf.float64)) + 0.5) * step
    offsets = (tf.range(tf.cast(length, tf.float64)) - centres[:, None] + 0.5) * (1.0 / tf.maximum(step, 1.0))
    inside = tf.cast((offsets > -0.5) & (offsets <= 0.5), tf.float32)
    return inside / tf.reduce_sum(inside, axis=1, keepdims=True)


def png(images: tf.Tensor) -> tf.Tensor:
    """uint8 [B,H,W,3] -> PNG files, string [B]."""
    return tf.map_fn(tf.io.encode_png, images, fn_output_signature=tf.string)


def example_pictures(count: int, size: int) -> np.ndarray:
    """Smooth random colours, uint8 [count,size,size,3]."""
    coarse = np.random.default_rng(0).uniform(0, 255, [count, 4, 4, 3])
    return np.asarray(tf.image.resize(coarse, [size, size], "bicubic").numpy().clip(0, 255), np.uint8)
