"""char-CNN-RNN: Learning Deep Representations of Fine-Grained Visual Descriptions (Reed et al., CVPR 2016).

A caption's characters -> one sentence vector, trained so that the dot product with a picture's vector is larger for
the picture's own caption than for the caption of another class, and the other way round (DS-SJE). The GAN papers
condition on it, frozen. For MS-COCO, which has no classes, their program looks at no picture: the dot product of two
captions of one picture is to be larger than that of captions of two (`--objective=captions`).

Two recurrent forms are in circulation: "gru" (18 steps, a GRU of its own kind; ICML birds, COCO) and "rnn" (8 steps
behind a third max-pool, ReLU; ICML flowers with 512 units, CVPR with 256). Time pooling is the mean over all steps,
padding included, as in the published code. The published image vectors are fixed GoogLeNet features; here they are
frozen Inception-v3 features behind a trained projection, or a small convolutional network trained along.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import keras
import tensorflow as tf

from t2i_tf import losses
from t2i_tf.config import option
from t2i_tf.errors import UserError
from t2i_tf.networks import encoders, replicas
from t2i_tf.networks.adam import Adam
from t2i_tf.networks.blocks import TorchDense, leaky_relu
from t2i_tf.networks.composite import Composite, Network
from t2i_tf.networks.halving import EpochHalving
from t2i_tf.networks.initial import conv_initializer, uniform
from t2i_tf.networks.normalisation import BatchNormalization
from t2i_tf.papers import BatchRequest, Context

ALPHABET_SIZE = 70
TEXT_LENGTH = 201
PICTURE_LENGTH = 4.0
HALVED_EVERY = 50
"""Epochs, in the published program of COCO."""


@dataclass(frozen=True)
class Hyperparameters:
    objective: str = option(
        "images",
        "what captions are matched with: images (pictures of distinct classes; CVPR), or captions (another one of the "
        "same picture, no pictures; published for COCO, with --learning_rate=2e-4 --batch_size=64)",
        choices=("images", "captions"),
    )
    recurrent: str = option(
        "gru", "recurrent form: gru (18 steps; birds, COCO) or rnn (8 steps, ReLU; flowers)", choices=("gru", "rnn")
    )
    text_channels: tuple[int, ...] = option(
        (384, 512, 512), "channels of the three character convolutions; the last is the recurrent width", minimum=1
    )
    embedding_dim: int = option(1024, "width of the sentence vector", minimum=1)
    character_rule: str = option(
        "lower_zero",
        "unknown characters: lower_zero (lower-case, zero column), demo (no "
        "lower-casing), port (a space), file_stop (end of text)",
        choices=("lower_zero", "demo", "port", "file_stop"),
    )
    image_encoder: str = option(
        "conv",
        "picture side: conv (small, trained along), or frozen Inception-v3 features: "
        "keras (ImageNet weights), random, or a SavedModel folder, TF Hub URL or weights file",
    )
    image_encoder_width: int = option(64, "channels of the first layer of --image_encoder=conv", minimum=1)
    image_size: int = option(64, "picture size in pixels seen by the image encoder (Inception-v3: 299)", minimum=1)
    image_views: int = option(
        10,
        "fixed views of a picture whose frozen features are cached: 10 are centre and "
        "corners, plain and mirrored; 1 the centre",
        minimum=1,
    )
    symmetric: bool = option(True, "images: train both directions, image to text and text to image (DS-SJE)")
    learning_rate: float = option(
        7e-4, "learning rate of RMSprop, or, with captions, of Adam, then halved in epochs 50, 100, 150, ..."
    )
    decay: float = option(0.98, 'images: factor on the learning rate every `classes` steps, the published "epoch"')
    batch_size: int = option(40, "global batch size; images: each row is of another class if enough", minimum=1)
    epochs: int = option(
        200,
        "images: epochs of as many steps as there are training classes, as published; captions: of all pictures",
        minimum=1,
    )
    ema_decay: float = option(0.0, "decay of the moving average of the text encoder's weights, 0 turns it off")


class UniformLayers:
    """Layers as the published program of CUB and Oxford-102 starts them: weights and biases from U(-0.08, 0.08)."""

    @staticmethod
    def dense(units: int, name: str) -> keras.layers.Dense:
        return keras.layers.Dense(units, kernel_initializer=uniform(0.08), bias_initializer=uniform(0.08), name=name)

    @staticmethod
    def convolution(filters: int, name: str) -> keras.layers.Conv1D:
        return keras.layers.Conv1D(
            filters, 4, kernel_initializer=uniform(0.08), bias_initializer=uniform(0.08), name=name
        )


class TorchLayers:
    """As that of COCO starts them: convolutions N(0, 0.02) without a bias at first, dense layers Torch's own."""

    @staticmethod
    def dense(units: int, name: str) -> TorchDense:
        return TorchDense(units, name=name)

    @staticmethod
    def convolution(filters: int, name: str) -> keras.layers.Conv1D:
        return keras.layers.Conv1D(filters, 4, kernel_initializer=conv_initializer(), name=name)


class ReluRecurrence(Composite):
    """h_t = relu(W x_t + b + U h_{t-1} + c), without U and c at the first step. [B,T,H] -> hidden states [B,T,H]."""

    def __init__(self, width: int, dense: Callable, **kwargs):
        super().__init__(**kwargs)
        self.i2h, self.h2h = dense(width, "i2h"), dense(width, "h2h")

    def call(self, x):
        inputs = tf.unstack(self.i2h(x), axis=1)
        states = [tf.nn.relu(inputs[0])]
        for step_input in inputs[1:]:
            states.append(tf.nn.relu(step_input + self.h2h(states[-1])))
        return tf.stack(states, axis=1)


class GatedRecurrence(Composite):
    """The published "FixedGRU". [B,T,H] -> hidden states [B,T,H].

    Not `keras.layers.GRU`: z weighs the new state, the reset gate acts before the recurrent product, every gate has
    two biases, and the first step is tanh(W x + b) without gates.
    """

    def __init__(self, width: int, dense: Callable, **kwargs):
        super().__init__(**kwargs)
        self.i2h_update, self.h2h_update = dense(width, "i2h_update"), dense(width, "h2h_update")
        self.i2h_reset, self.h2h_reset = dense(width, "i2h_reset"), dense(width, "h2h_reset")
        self.i2h, self.h2h = dense(width, "i2h"), dense(width, "h2h")

    def call(self, x):
        # The inputs' parts of all steps at once: three large products instead of three a step.
        candidates = tf.unstack(self.i2h(x), axis=1)
        updates = tf.unstack(self.i2h_update(x), axis=1)
        resets = tf.unstack(self.i2h_reset(x), axis=1)
        states = [tf.tanh(candidates[0])]
        for candidate, update, reset in zip(candidates[1:], updates[1:], resets[1:], strict=True):
            h = states[-1]
            z = tf.sigmoid(update + self.h2h_update(h))
            r = tf.sigmoid(reset + self.h2h_reset(h))
            new = tf.tanh(candidate + self.h2h(r * h))
            states.append(z * new + (1.0 - z) * h)
        return tf.stack(states, axis=1)


class TextEncoder(Network):
    """Character indices int32 [B,201], 1 to 70, 0 for nothing -> sentence vector [B, embedding_dim], unbounded."""

    def __init__(
        self,
        recurrent: str = "gru",
        channels: tuple[int, ...] = (384, 512, 512),
        embedding_dim: int = 1024,
        layers: type = UniformLayers,
        name: str = "text_encoder",
    ):
        super().__init__(name=name)
        first, second, third = channels
        self.third_pool = recurrent == "rnn"
        self.conv1 = layers.convolution(first, "conv1")
        self.conv2 = layers.convolution(second, "conv2")
        self.conv3 = layers.convolution(third, "conv3")
        recurrence = ReluRecurrence if recurrent == "rnn" else GatedRecurrence
        self.recurrent = recurrence(third, layers.dense, name="recurrent")
        self.projection = layers.dense(embedding_dim, "projection")

    def recurrent_input(self, characters):
        """int32 [B,201] -> [B, 18 or 8, H]."""
        x = tf.one_hot(characters - 1, ALPHABET_SIZE)  # index 0 gives a zero row
        x = tf.nn.max_pool1d(tf.nn.relu(self.conv1(x)), 3, 3, "VALID")
        x = tf.nn.max_pool1d(tf.nn.relu(self.conv2(x)), 3, 3, "VALID")
        x = tf.nn.relu(self.conv3(x))
        return tf.nn.max_pool1d(x, 3, 2, "VALID") if self.third_pool else x

    def call(self, characters, training=False):
        states = self.recurrent(self.recurrent_input(characters))
        return tf.cast(self.projection(tf.reduce_mean(states, axis=1)), tf.float32)


class ConvolutionalImageEncoder(Network):
    """Pictures [B,S,S,3] in [-1, 1] -> [B, embedding_dim] of length 4; for data on which a small network sees enough.

    The loss sees only dot products, so what one side gains in scale the other may lose. The published picture vectors
    are fixed; a trained one is held at a length at which the sentence vectors come out large enough to condition on
    (standard deviation 0.3 on `blossoms`; left free it was 0.04, and a generator hardly heard the words).
    """

    def __init__(self, width: int, embedding_dim: int, image_size: int, name: str = "image_encoder"):
        super().__init__(name=name)
        self.convs, self.norms = [], []
        size, filters = image_size, width
        while size > 4:
            index = len(self.convs)
            self.convs.append(keras.layers.Conv2D(filters, 4, 2, "same", use_bias=False, name=f"conv{index}"))
            self.norms.append(BatchNormalization(name=f"norm{index}"))
            size, filters = size // 2, min(2 * filters, 4 * width)
        self.projection = keras.layers.Dense(embedding_dim, name="projection")

    def call(self, image, training=False):
        x = image
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = leaky_relu(norm(conv(x), training=training))
        vector = self.projection(tf.reshape(x, [tf.shape(x)[0], x.shape[1] * x.shape[2] * x.shape[3]]))
        return PICTURE_LENGTH * tf.math.l2_normalize(tf.cast(vector, tf.float32), axis=-1)


class ProjectedFeatures(Network):
    """Features [B, F] of a frozen network -> [B, embedding_dim]."""

    def __init__(self, embedding_dim: int, name: str = "image_encoder"):
        super().__init__(name=name)
        self.projection = keras.layers.Dense(embedding_dim, name="projection")

    def call(self, features, training=False):
        return tf.cast(self.projection(features), tf.float32)


class RMSprop(keras.optimizers.RMSprop):
    """Torch's, which the published program calls: w -= rate * g / (sqrt(v) + epsilon), v the moving mean of g^2.

    Keras has epsilon inside the root. Gradients here are often smaller than the 1e-4 that an epsilon of 1e-8 amounts to
    there, and their steps would be cut down. Same variables as Keras', without momentum and not centred.
    """

    def update_step(self, gradient, variable, learning_rate):
        gradient = keras.ops.cast(gradient, variable.dtype)
        velocity = self._velocities[self._get_variable_index(variable)]
        self.assign(velocity, self.rho * velocity + (1.0 - self.rho) * keras.ops.square(gradient))
        rate = keras.ops.cast(learning_rate, variable.dtype)
        self.assign_sub(variable, rate * gradient / (keras.ops.sqrt(velocity) + self.epsilon))


class Recipe:
    """See `t2i_tf.papers` for what each part is asked for."""

    kind = "supervised"
    score_metrics = ("retrieval",)
    feature_width = encoders.InceptionFeatures.width

    def __init__(self, hyperparameters: Hyperparameters, context: Context):
        hp = self.hyperparameters = hyperparameters
        if len(hp.text_channels) != 3:
            raise UserError(f"--text_channels={','.join(map(str, hp.text_channels))}: give three numbers, one a layer")
        self.num_classes = context.num_classes
        self.of_captions = hp.objective == "captions"
        layers = TorchLayers if self.of_captions else UniformLayers
        self.text_encoder = TextEncoder(hp.recurrent, hp.text_channels, hp.embedding_dim, layers)
        self.networks = {"text_encoder": self.text_encoder}
        if self.of_captions:
            self.score_metrics = ()
            self.request = BatchRequest(
                image_sizes=(hp.image_size,),
                pictures=False,
                text="characters",
                captions=2,
                captions_with_replacement=False,
            )
        else:
            self._add_pictures()
        self.text_encoder(tf.zeros([1, TEXT_LENGTH], tf.int32))

    def _add_pictures(self):
        """The side of the pictures; `encode_pictures` is there where it is."""
        hp = self.hyperparameters
        frozen = hp.image_encoder != "conv"
        self.request = BatchRequest(
            image_sizes=(hp.image_size,),
            sampling="distinct_classes",
            text="characters",
            image_views=hp.image_views if frozen else 0,
        )
        if frozen:
            self.image_encoder = ProjectedFeatures(hp.embedding_dim)
            self.image_encoder(tf.zeros([1, self.feature_width]))
        else:
            self.image_encoder = ConvolutionalImageEncoder(hp.image_encoder_width, hp.embedding_dim, hp.image_size)
            self.image_encoder(tf.zeros([1, hp.image_size, hp.image_size, 3]))
        self.networks["image_encoder"] = self.image_encoder
        self.encode_pictures = self._encode_pictures

    @functools.cached_property
    def frozen_features(self) -> encoders.InceptionFeatures | None:
        """The frozen network in front of pictures, None for --image_encoder=conv; loaded when first asked for, so that
        a run whose captions alone are read goes without. Raises UserError when it cannot be had."""
        if self.hyperparameters.image_encoder == "conv":
            return None
        try:
            with tf.init_scope():
                return encoders.InceptionFeatures(self.hyperparameters.image_encoder)
        except ValueError as error:
            raise UserError(f"--image_encoder={error}") from error

    whole_batch = "char_cnn_rnn compares every caption with all others, or with every picture, of the batch"

    def steps_per_epoch(self, num_images: int) -> int:
        if self.of_captions:
            return -(-num_images // self.hyperparameters.batch_size)
        return max(self.num_classes, 1)

    def optimizers(self, steps_per_epoch: int) -> dict:
        if self.of_captions:
            schedule = EpochHalving(self.hyperparameters.learning_rate, steps_per_epoch, HALVED_EVERY)
            return {"encoders": Adam(schedule, beta_1=0.5, epsilon=1e-8, name="adam")}
        schedule = keras.optimizers.schedules.ExponentialDecay(
            self.hyperparameters.learning_rate, steps_per_epoch, self.hyperparameters.decay, staircase=True
        )
        return {"encoders": RMSprop(schedule, rho=0.99, epsilon=1e-8, name="rmsprop")}

    def noise(self, draw) -> dict:
        return {}

    def encode_captions(self, batch) -> tf.Tensor:
        """batch["characters"] int32 [B,201] -> [B, embedding_dim]."""
        return self.text_encoder(batch["characters"], training=False)

    def encode_images(self, batch, training: bool = False) -> tf.Tensor:
        """batch["images"], or the cached batch["features"] [B, F] of the frozen network -> [B, embedding_dim]."""
        return self.image_encoder(batch["features"] if "features" in batch else batch["images"][0], training=training)

    def _encode_pictures(self, pictures) -> tf.Tensor:
        """uint8 [B,S,S,3] -> [B, embedding_dim]."""
        if self.frozen_features is not None:
            return self.image_encoder(self.frozen_features(pictures), training=False)
        return self.image_encoder(tf.cast(pictures, tf.float32) / 127.5 - 1.0, training=False)

    def losses(self, batch, noise) -> dict:
        """Rows of this replica against the rows of all replicas; of pictures, pairs of one class are no mismatch."""
        if self.of_captions:
            return {"loss": self._caption_loss(batch["characters"])}
        texts = self.text_encoder(batch["characters"][:, 0], training=True)
        images = self.encode_images(batch, training=True)
        all_texts, all_images = replicas.gather(texts), replicas.gather(images)
        matching = replicas.own_positions(tf.shape(texts)[0])
        same_class = (batch["class"][:, None] == replicas.gather(batch["class"])) & (batch["class"][:, None] != -1)
        image_loss = losses.structured_joint_embedding_loss(images, all_texts, matching, same_class)
        text_loss = losses.structured_joint_embedding_loss(texts, all_images, matching, same_class)
        loss = image_loss + text_loss if self.hyperparameters.symmetric else image_loss
        return {"loss": loss, "image_to_text": image_loss, "text_to_image": text_loss}

    def _caption_loss(self, characters) -> tf.Tensor:
        """Two captions of each picture, int32 [B,2,201] -> the loss of finding by the second one the first."""
        keys, queries = tf.split(self.text_encoder(tf.concat(tf.unstack(characters, axis=1), 0), training=True), 2)
        matching = replicas.own_positions(tf.shape(queries)[0])
        return losses.structured_joint_embedding_loss(queries, replicas.gather(keys), matching)
