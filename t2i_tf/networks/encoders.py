"""Pretrained image encoders behind one flag."""

from __future__ import annotations

import logging
from pathlib import Path

import keras
import tensorflow as tf

INCEPTION_SIZE = 299
HUB_HANDLE = "https://tfhub.dev/google/imagenet/inception_v3/feature_vector/5"


class InceptionFeatures:
    """Frozen Inception-v3: pictures -> pooled features.

    Args:
        source: "keras" (ImageNet weights of keras.applications, fetched once), "random" (no training; for tests of
            speed), a Keras weights file (.h5), or a TF Hub handle: URL or SavedModel folder of a feature vector.

    Raises:
        ValueError: the source cannot be reached or is of another shape; the message says what to download where.
    """

    width = 2048

    def __init__(self, source: str):
        self.source = source
        if source in ("keras", "random") or source.endswith((".h5", ".keras")):
            self.trunk, self._span = self._keras(source), (-1.0, 1.0)
        else:
            self.trunk, self._span = self._hub(source), (0.0, 1.0)
            width = self(tf.zeros([1, INCEPTION_SIZE, INCEPTION_SIZE, 3], tf.uint8)).shape[-1]
            if width != self.width:
                raise ValueError(
                    f"{source} gives {width} features, Inception-v3 has {self.width}: give an Inception-v3 feature "
                    "vector"
                )

    @staticmethod
    def _keras(source):
        build = keras.applications.InceptionV3
        if source == "random":
            logging.warning("Inception-v3 with random weights: good for timing, not for training")
            return build(include_top=False, weights=None, pooling="avg")
        try:
            network = build(include_top=False, weights="imagenet" if source == "keras" else source, pooling="avg")
        except Exception as error:  # keras raises bare Exceptions for downloads and ValueErrors for shapes
            raise ValueError(
                f"{source}: no Inception-v3 weights there ({error}); download "
                "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5 from the Keras releases and give its path"
            ) from error
        network.trainable = False
        return network

    @staticmethod
    def _hub(source):
        import tensorflow_hub as hub

        if not source.startswith(("http://", "https://", "gs://")) and not Path(source, "saved_model.pb").is_file():
            raise ValueError(
                f"{source}: neither keras, random, a .h5 file, a URL nor a folder with "
                f"saved_model.pb; download {HUB_HANDLE} and give the unpacked folder"
            )
        try:
            return hub.load(source)
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"{source}: cannot be loaded ({error}); download {HUB_HANDLE} and give the unpacked folder"
            ) from error

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """uint8 [B,S,S,3] of any size -> float32 [B,2048]; bilinear resize to 299x299."""
        low, high = self._span
        scaled = tf.image.resize(
            tf.cast(images, tf.float32) * ((high - low) / 255.0) + low, [INCEPTION_SIZE, INCEPTION_SIZE]
        )
        return self.trunk(scaled, training=False)

    def weights(self) -> list:
        """The weights as arrays, to tell one network from another."""
        return [variable.numpy() for variable in self.trunk.variables]
