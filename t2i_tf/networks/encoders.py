"""Pretrained image encoders behind one flag."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Backbone:
    """A network of keras.applications whose maps are annotations, and its counterpart on TF Hub."""

    build: Callable
    layer: str
    shape: tuple[int, int]
    """Places and numbers of each."""
    size: int
    """Side in pixels of the square it sees."""
    preprocess: Callable
    """float pictures in [0, 255] -> its input."""
    weights_file: str
    endpoint: str
    """Name of the layer in the endpoints of a feature vector of TF Hub."""


BACKBONES = {
    "vgg19": Backbone(
        keras.applications.VGG19,
        "block5_conv4",
        (14 * 14, 512),
        224,
        keras.applications.vgg19.preprocess_input,
        "vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "vgg_19/conv5/conv5_4",
    ),
    "inception_v3": Backbone(
        keras.applications.InceptionV3,
        "mixed7",
        (17 * 17, 768),
        INCEPTION_SIZE,
        keras.applications.inception_v3.preprocess_input,
        "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "InceptionV3/Mixed_6e",
    ),
}


class AnnotationFeatures:
    """Frozen convolutional network: pictures -> annotations [B,L,D], a vector a place, places row by row.

    VGG-19 gives those of Show, Attend and Tell: the last convolution of block 5 after its ReLU, before pooling.

    Args:
        backbone: a key of BACKBONES.
        source: "keras" (ImageNet weights of keras.applications, fetched once), "random" (no training), a Keras weights
            file (.h5), or a TF Hub handle: URL or SavedModel folder of any network that takes pictures in [0, 1] of the
            backbone's size and gives maps [B,h,w,D], alone or, by the backbone's name, among its endpoints.

    Raises:
        ValueError: the source cannot be reached or gives no maps; the message says what to download where.
    """

    def __init__(self, backbone: str, source: str):
        self.source, self.backbone = source, BACKBONES[backbone]
        if source in ("keras", "random") or source.endswith((".h5", ".keras")):
            self._trunk = self._keras(backbone, source)
            self._maps = lambda pictures: self._trunk(self.backbone.preprocess(pictures), training=False)
            self._variables = self._trunk.variables
        else:
            self._trunk = self._hub(source)
            self._maps = lambda pictures: self._hub_maps(pictures / 255.0)
            self._variables = getattr(self._trunk, "variables", [])
        _, height, width, numbers = self._maps(tf.zeros([1, self.backbone.size, self.backbone.size, 3])).shape
        self.shape = (height * width, numbers)
        """Places and numbers of each."""

    def _keras(self, name, source):
        if source == "random":
            logging.warning("%s with random weights: its annotations tell little of the pictures", name)
        try:
            weights = {"keras": "imagenet", "random": None}.get(source, source)
            network = self.backbone.build(include_top=False, weights=weights)
        except Exception as error:  # keras raises bare Exceptions for downloads and ValueErrors for shapes
            raise ValueError(
                f"{source}: no weights of {name} there ({error}); download {self.backbone.weights_file} from the Keras "
                "releases and give its path"
            ) from error
        network.trainable = False
        return keras.Model(network.input, network.get_layer(self.backbone.layer).output)

    def _hub(self, source):
        import tensorflow_hub as hub

        advice = "give keras, random, a .h5 file, or the URL or folder of a SavedModel whose output are maps [B,h,w,D]"
        if not source.startswith(("http://", "https://", "gs://")) and not Path(source, "saved_model.pb").is_file():
            raise ValueError(f"{source}: no such network; {advice}")
        try:
            return hub.load(source)
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(f"{source}: cannot be loaded ({error}); {advice}") from error

    def _hub_maps(self, pictures):
        try:
            maps = self._trunk(pictures, training=False)
            if isinstance(maps, tf.Tensor) and maps.shape.rank == 2:
                maps = self._trunk(pictures, training=False, return_endpoints=True)
        except (TypeError, ValueError, tf.errors.OpError) as error:
            raise ValueError(
                f"{self.source}: takes no pictures {tuple(pictures.shape)} ({str(error).splitlines()[0]}): give a "
                "network that does, and whose output are maps"
            ) from error
        if isinstance(maps, dict):
            maps = maps.get(self.backbone.endpoint)
        if not isinstance(maps, tf.Tensor) or maps.shape.rank != 4:
            raise ValueError(
                f"{self.source}: gives no maps [B,h,w,D], nor any by the name {self.backbone.endpoint}: give a network "
                "that does"
            )
        return maps

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """uint8, or float in [0, 255], [B,H,W,3] of any size -> float32 [B,L,D].

        As published: the shorter side is brought to 8/7 of what the network sees (256 pixels for VGG-19) and the square
        in the middle cut out.
        """
        size = self.backbone.size
        pictures, shape = tf.cast(images, tf.float32), tf.shape(images)[1:3]
        resized = shape * (size * 8 // 7) // tf.reduce_min(shape)
        pictures = tf.cond(
            tf.reduce_all(resized == shape),
            lambda: pictures,
            lambda: tf.clip_by_value(tf.image.resize(pictures, resized, "bicubic", antialias=True), 0.0, 255.0),
        )
        top, left = tf.unstack((resized - size) // 2)
        square = tf.ensure_shape(pictures[:, top : top + size, left : left + size], [None, size, size, 3])
        return tf.reshape(self._maps(square), [-1, *self.shape])

    def weights(self) -> list:
        """The weights as arrays, to tell one network from another."""
        return [variable.numpy() for variable in self._variables]
