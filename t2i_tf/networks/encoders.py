"""Encoders: of words (Xu et al., CVPR 2018), and of pictures, pretrained ones behind one flag.

A source of Inception-v3 weights is one of
    "keras"   ImageNet weights of keras.applications, fetched once;
    "random"  no training: for tests of speed;
    a Keras weights file (.h5), downloaded before;
    a TF Hub handle: URL or SavedModel folder of an Inception-v3 feature vector.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from t2i_tf.networks.blocks import leaky_relu
from t2i_tf.networks.composite import Composite, Network
from t2i_tf.networks.inception import SIZE as INCEPTION_SIZE
from t2i_tf.networks.inception import InceptionV3
from t2i_tf.networks.initial import uniform
from t2i_tf.networks.normalisation import BatchNormalization
from t2i_tf.networks.precision import computing_in

HUB_HANDLE = "https://tfhub.dev/google/imagenet/inception_v3/feature_vector/5"
HUB_REGIONS = "InceptionV3/Mixed_6e"
"""Name of the region features among the endpoints of a TF Hub module."""
_SEED_OF_RANDOM = 2015


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _is_hub(source: str) -> bool:
    return source not in ("keras", "random") and not source.endswith((".h5", ".keras"))


def draw_weights(network: keras.Model) -> None:
    """Weights of a network without training, the same in every process and on every machine.

    Kernels from N(0, 2 / inputs), which keeps the size of what passes through ReLUs.
    """
    generator = np.random.Generator(np.random.Philox(_SEED_OF_RANDOM))
    for variable in network.trainable_variables:
        if len(variable.shape) > 1:
            scale = np.sqrt(2.0 / np.prod(variable.shape[:-1]))
            variable.assign(scale * generator.standard_normal(variable.shape, np.float32))


def _from_keras(source: str) -> keras.Model:
    """keras.applications.InceptionV3 without its top, pooled. Raises ValueError."""
    build = functools.partial(keras.applications.InceptionV3, include_top=False, pooling="avg")
    if source == "random":
        logging.warning("Inception-v3 with random weights: good for timing, not for training")
        with computing_in("float32"):
            network = build(weights=None)
        draw_weights(network)
        return network
    try:
        with computing_in("float32"):
            return build(weights="imagenet" if source == "keras" else source)
    except Exception as error:  # keras raises bare Exceptions for downloads and ValueErrors for shapes
        raise ValueError(
            f"{source}: no Inception-v3 weights there ({_one_line(error)}); download "
            "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5 from the Keras releases and give its path"
        ) from error


def _from_hub(source: str):
    """The module of a TF Hub handle. Raises ValueError."""
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
            f"{source}: cannot be loaded ({_one_line(error)}); download {HUB_HANDLE} and give the unpacked folder"
        ) from error


class InceptionFeatures:
    """Frozen Inception-v3: pictures -> pooled features. float32 whatever the policy: they are kept for other runs.

    Args:
        source: see the head of this module.

    Raises:
        ValueError: the source cannot be reached or is of another shape; the message says what to download where.
    """

    width = 2048

    def __init__(self, source: str):
        self.source = source
        if _is_hub(source):
            self.trunk, self._span = _from_hub(source), (0.0, 1.0)
            width = self(tf.zeros([1, INCEPTION_SIZE, INCEPTION_SIZE, 3], tf.uint8)).shape[-1]
            if width != self.width:
                raise ValueError(
                    f"{source} gives {width} features, Inception-v3 has {self.width}: give an Inception-v3 feature "
                    "vector"
                )
        else:
            self.trunk, self._span = _from_keras(source), (-1.0, 1.0)
            self.trunk.trainable = False

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


class HubInception:
    """A TF Hub module as a trunk: pictures [B,299,299,3] in [-1, 1] -> (regions [B,17,17,768], features [B,2048]).

    Frozen, and no weight of ours: it lets the gradient through to the pictures. Raises ValueError as InceptionFeatures.
    """

    def __init__(self, source: str):
        self.module = _from_hub(source)
        try:
            regions, features = self(tf.zeros([1, INCEPTION_SIZE, INCEPTION_SIZE, 3]))
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(
                f"{source}: gives no endpoint {HUB_REGIONS} when called with return_endpoints=True "
                f"({_one_line(error)}); download {HUB_HANDLE} and give the unpacked folder"
            ) from error
        if regions.shape[1:] != (17, 17, 768) or features.shape[1:] != (2048,):
            raise ValueError(
                f"{source}: gives regions {regions.shape[1:]} and features {features.shape[1:]}, Inception-v3 has "
                "(17, 17, 768) and (2048,): give an Inception-v3 feature vector"
            )

    def __call__(self, images, training=False):
        endpoints = self.module((tf.cast(images, tf.float32) + 1.0) / 2.0, training=False, return_endpoints=True)
        return endpoints[HUB_REGIONS], endpoints["default"]


class ConvolutionalTrunk(Composite):
    """Pictures [B,S,S,3] -> (regions [B,S/8,S/8,4w], features [B,8w]); for data on which a small network sees enough.

    Convolutions with batch norm and leaky ReLU: three of 4x4 and stride 2, two of 3x3. Regions are the maps behind the
    third, each of which sees 22 pixels of the picture around it, features the mean and maximum of the last maps, which
    see 54: as Inception-v3 has its regions in the middle and its features at the end.
    """

    def __init__(self, width: int, **kwargs):
        super().__init__(**kwargs)
        shapes = [(width, 4, 2), (2 * width, 4, 2), (4 * width, 4, 2), (4 * width, 3, 1), (4 * width, 3, 1)]
        self.convs = [
            keras.layers.Conv2D(filters, size, stride, "same", use_bias=False, name=f"conv{i}")
            for i, (filters, size, stride) in enumerate(shapes)
        ]
        self.norms = [BatchNormalization(name=f"norm{i}") for i in range(len(shapes))]

    def call(self, images, training=False):
        maps, all_maps = images, []
        for conv, norm in zip(self.convs, self.norms, strict=True):
            maps = leaky_relu(norm(conv(maps), training=training))
            all_maps.append(maps)
        return all_maps[2], tf.concat([tf.reduce_mean(maps, axis=[1, 2]), tf.reduce_max(maps, axis=[1, 2])], axis=-1)


class RegionEncoder(Network):
    """The image side of the DAMSM: pictures -> vectors of their regions, and one of the whole.

    call: images [B,S,S,3] in [-1, 1] of any size -> (regions [B,h,w,width], code [B,width]), float32; h = w = 17 for
        Inception-v3, which sees pictures of 299 pixels (bilinear resize), S / 8 for the small network.

    Inception-v3 is frozen; two linear maps behind it are trained: of Mixed_6e without bias, of the pooled features
    with. The small network is trained along, unless it is frozen too.

    Args:
        source: "conv" for the small network; else as the head of this module says, or "inception" for the layout
            whose weights come from elsewhere. Weights are set by `start`, not here: a run has them in its checkpoint.
        trunk_width: channels of the small network's first layer.
        moving_statistics: in training the frozen Inception-v3 normalises with each batch's statistics and goes on
            averaging them, as published, so that they become those of the data set; never with a TF Hub handle.
        frozen: the small network and its statistics stay as they are.
        aligned_corners: how pictures are resized for Inception-v3: so that the centres of the corner pixels stay in
            place, as PyTorch did up to 0.3; False as TensorFlow and later PyTorch do.

    Raises ValueError for a TF Hub handle that cannot be used.
    """

    def __init__(
        self,
        source: str = "inception",
        width: int = 256,
        trunk_width: int = 64,
        moving_statistics: bool = True,
        frozen: bool = False,
        aligned_corners: bool = False,
        name: str = "image_encoder",
    ):
        super().__init__(name=name)
        self.source, self.moving_statistics, self.aligned_corners = source, moving_statistics, aligned_corners
        self.layout = image_layout(source)
        if self.layout == "conv":
            self.trunk = ConvolutionalTrunk(trunk_width, name="trunk")
            self.trunk.trainable = not frozen
        elif self.layout == "inception":
            self.trunk = InceptionV3(name="trunk")
            self.trunk.trainable = False
        else:
            self.trunk = HubInception(source)
        self.region_map = keras.layers.Conv2D(
            width, 1, use_bias=False, kernel_initializer=uniform(0.1), name="region_map"
        )
        self.code_map = keras.layers.Dense(
            width, kernel_initializer=uniform(0.1), bias_initializer=uniform(2048**-0.5), name="code_map"
        )

    def call(self, images, training=False):
        if self.layout != "conv" and images.shape[1:3] != (INCEPTION_SIZE, INCEPTION_SIZE):
            images = tf.raw_ops.ResizeBilinear(
                images=tf.cast(images, tf.float32),
                size=[INCEPTION_SIZE, INCEPTION_SIZE],
                align_corners=self.aligned_corners,
                half_pixel_centers=not self.aligned_corners,
            )
        moving = self.trunk.trainable if self.layout == "conv" else self.moving_statistics
        regions, features = self.trunk(images, training=training and moving)
        return tf.cast(self.region_map(regions), tf.float32), tf.cast(self.code_map(features), tf.float32)

    def start(self) -> None:
        """Sets the weights that the source names, for a run that has none yet. Raises ValueError."""
        if self.source == "inception":
            raise ValueError(
                "inception names no weights to start from: give keras, random, a .h5 file or a TF Hub handle"
            )
        if self.layout == "inception":
            start_inception(self.trunk, self.source)


def start_inception(network: InceptionV3, source: str) -> None:
    """Sets the weights that a source of Keras names, see the head of this module. Raises ValueError."""
    network.set_from_keras(_from_keras(source))


def image_layout(source: str) -> str:
    """What is built for a source of `RegionEncoder`: "conv", "inception", or the TF Hub handle itself."""
    if source in ("conv", "inception"):
        return source
    return source if _is_hub(source) else "inception"


class _Cell(keras.layers.Layer):
    """A step of a recurrence as PyTorch has it.

    Against Keras, every gate has two biases: their gradients count twice when they are clipped, and both are updated.
    All weights start from U(-1/sqrt(units), 1/sqrt(units)).
    """

    gates: int

    def __init__(self, units: int, **kwargs):
        super().__init__(**kwargs)
        self.units, self.output_size = units, units

    def build(self, input_shape):
        def weight(name, *shape):
            initializer = uniform(self.units**-0.5)
            return self.add_weight(shape=(*shape, self.gates * self.units), initializer=initializer, name=name)

        self.kernel, self.recurrent_kernel = weight("kernel", input_shape[-1]), weight("recurrent_kernel", self.units)
        self.bias, self.recurrent_bias = weight("bias"), weight("recurrent_bias")

    def _gates(self, x, hidden) -> tuple[list, list]:
        """What the input and what the last state say, for each gate."""
        of_input, of_state = tf.matmul(x, self.kernel) + self.bias, tf.matmul(hidden, self.recurrent_kernel)
        return tf.split(of_input, self.gates, -1), tf.split(of_state + self.recurrent_bias, self.gates, -1)


class LSTMCell(_Cell):
    """Gates in the order input, forget, cell, output."""

    gates = 4

    @property
    def state_size(self) -> list[int]:
        return [self.units, self.units]

    def call(self, x, states, training=False):
        hidden, cell = states
        write, keep, new, show = (a + b for a, b in zip(*self._gates(x, hidden), strict=True))
        cell = tf.sigmoid(keep) * cell + tf.sigmoid(write) * tf.tanh(new)
        hidden = tf.sigmoid(show) * tf.tanh(cell)
        return hidden, [hidden, cell]


class GRUCell(_Cell):
    """Gates in the order reset, update, new; the reset acts behind the recurrent product."""

    gates = 3

    @property
    def state_size(self) -> list[int]:
        return [self.units]

    def call(self, x, states, training=False):
        (hidden,) = states
        (reset, update, new), (state_reset, state_update, state_new) = self._gates(x, hidden)
        new = tf.tanh(new + tf.sigmoid(reset + state_reset) * state_new)
        update = tf.sigmoid(update + state_update)
        hidden = (1.0 - update) * new + update * hidden
        return hidden, [hidden]


class WordEncoder(Network):
    """The text side of the DAMSM: a bi-directional recurrent network.

    call: words int32 [B,T], lengths int [B] -> (word vectors [B,T,width], sentence vectors [B,width]), float32. A
        word's vector joins the states of both directions there, and is exactly zero behind the end of the caption; the
        sentence joins the last state of each, the backward direction having begun at the last word.
        dropout: factors [B,T,word_dim] on the embeddings, drawn outside; None for none.

    Args:
        vocabulary_size: words, 0 for padding included.
        width: of word and sentence vectors, even: half of it for each direction.
        recurrent: "lstm" or "gru".
    """

    def __init__(
        self,
        vocabulary_size: int,
        word_dim: int = 300,
        width: int = 256,
        recurrent: str = "lstm",
        name: str = "text_encoder",
    ):
        super().__init__(name=name)
        self.word_dim = word_dim
        self.embedding = keras.layers.Embedding(
            vocabulary_size, word_dim, embeddings_initializer=uniform(0.1), name="embedding"
        )
        cell = {"lstm": LSTMCell, "gru": GRUCell}[recurrent]
        self.forward, self.backward = (
            keras.layers.RNN(
                cell(width // 2),
                return_sequences=True,
                return_state=True,
                go_backwards=backwards,
                zero_output_for_mask=True,
                name=name,
            )
            for name, backwards in (("forward", False), ("backward", True))
        )

    def call(self, words, lengths, dropout=None, training=False):
        x = self.embedding(words)
        if dropout is not None:
            x *= dropout
        mask = tf.sequence_mask(lengths, tf.shape(words)[1])
        onwards, last, *_ = self.forward(x, mask=mask)
        back, first, *_ = self.backward(x, mask=mask)
        vectors, sentences = tf.concat([onwards, tf.reverse(back, axis=[1])], -1), tf.concat([last, first], -1)
        return tf.cast(vectors, tf.float32), tf.cast(sentences, tf.float32)


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
    float32 whatever the policy: they are kept for other runs.

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
            with computing_in("float32"):
                network = self.backbone.build(include_top=False, weights=weights)
        except Exception as error:  # keras raises bare Exceptions for downloads and ValueErrors for shapes
            raise ValueError(
                f"{source}: no weights of {name} there ({error}); download {self.backbone.weights_file} from the Keras "
                "releases and give its path"
            ) from error
        if source == "random":
            draw_weights(network)
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

    @property
    def seen_share(self) -> float:
        """Side of the square that is seen, of the shorter side of a picture."""
        return self.backbone.size / (self.backbone.size * 8 // 7)

    def weights(self) -> list:
        """The weights as arrays, to tell one network from another."""
        return [variable.numpy() for variable in self._variables]
