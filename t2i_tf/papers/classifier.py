"""A classifier of pictures, with which generated ones are scored: the Inception Score of a data set's own classes.

StackGAN, StackGAN++ and AttnGAN score CUB and Oxford-102 with an Inception-v3 fine-tuned on their classes. Its
published heads have 50 and 20 classes, as many as the zero-shot test splits, so it was evidently tuned on pictures of
the test classes, and so is this one by default: generators never train on them, but the classifier must know them. A
part of the pictures of each class is held out to see how well it does.

From the published program: pictures of 299 pixels in [-1, 1] and a moving average of the weights. Its background class,
which it leaves out of the score, is not there at all. How it was tuned was not published: optimizer, dropout, label
smoothing and steps are ours. Scores of this classifier compare with each other, and with the papers' only as far as the
classifiers agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import tensorflow as tf

from t2i_tf.config import option
from t2i_tf.errors import UserError
from t2i_tf.networks import encoders
from t2i_tf.networks.adam import Adam
from t2i_tf.networks.composite import Network
from t2i_tf.networks.inception import SIZE as INCEPTION_SIZE
from t2i_tf.networks.inception import InceptionV3
from t2i_tf.papers import BatchRequest, Context, Selection


@dataclass(frozen=True)
class Hyperparameters:
    image_encoder: str = option(
        "keras",
        "Inception-v3 that is tuned, its weights from keras (ImageNet), random, or a weights file; a SavedModel folder "
        "or TF Hub URL, which stays as it is behind a trained head; or conv (small, from scratch)",
    )
    image_encoder_width: int = option(64, "channels of the first layer of --image_encoder=conv", minimum=1)
    image_size: int = option(256, "picture size in pixels; Inception-v3 sees them resized to 299", minimum=8)
    split: str = option("test", "split whose classes are told apart; the papers' classifiers know the test classes")
    held_out: float = option(0.1, "share of the pictures of each class that is not trained on but scored")
    dropout: float = option(0.2, "share of the features that is set to zero in training")
    label_smoothing: float = option(0.1, "share of the truth that is spread evenly over all classes")
    learning_rate: float = option(1e-4, "Adam learning rate")
    decay: float = option(0.94, "factor on the learning rate after every epoch")
    batch_size: int = option(32, "global batch size", minimum=1)
    epochs: int = option(30, "passes over the pictures", minimum=1)
    ema_decay: float = option(0.999, "decay of the moving average of the weights (published: 0.9999), 0 turns it off")


class Classifier(Network):
    """Pictures [B,S,S,3] in [-1, 1] -> (features [B,F], logits [B,C]).

    F is 2,048 of Inception-v3, which sees 299 pixels (bilinear resize), eight times the width of the small network.

    call: dropout: factors [B,F] on the features, drawn outside; None for none.
    """

    def __init__(self, source: str, num_classes: int, width: int = 64, name: str = "classifier"):
        super().__init__(name=name)
        self.layout = encoders.image_layout(source)
        if self.layout == "conv":
            self.trunk = encoders.ConvolutionalTrunk(width, name="trunk")
        elif self.layout == "inception":
            self.trunk = InceptionV3(count_padding=False, name="trunk")
        else:
            self.trunk = encoders.HubInception(source)
        self.head = keras.layers.Dense(num_classes, name="head")

    def call(self, images, dropout=None, training=False):
        if self.layout != "conv" and images.shape[1:3] != (INCEPTION_SIZE, INCEPTION_SIZE):
            images = tf.image.resize(images, [INCEPTION_SIZE, INCEPTION_SIZE])
        _, features = self.trunk(images, training=training)
        logits = self.head(features if dropout is None else features * dropout)
        return tf.cast(features, tf.float32), tf.cast(logits, tf.float32)


class Recipe:
    """See `t2i_tf.papers` for what each part is asked for."""

    kind = "supervised"
    score_metrics = ("accuracy",)
    selection = Selection("accuracy", "accuracy")

    def __init__(self, hyperparameters: Hyperparameters, context: Context):
        hp = self.hyperparameters = hyperparameters
        for name in ("held_out", "dropout", "label_smoothing"):
            if not 0.0 <= getattr(hp, name) < 1.0:
                raise UserError(f"--{name}={getattr(hp, name)}: give a number from 0 to below 1")
        if len(context.class_ids) < 2:
            raise UserError(
                f"classifier tells classes apart, split {hp.split} has {len(context.class_ids)}: give another --split "
                "or --data_dir"
            )
        if hp.image_encoder == "inception":
            raise UserError("--image_encoder=inception names no weights: give keras, random, a .h5 file or conv")
        self.class_ids = tuple(context.class_ids)
        self.request = BatchRequest(image_sizes=(hp.image_size,))
        try:
            self.classifier = Classifier(hp.image_encoder, len(self.class_ids), hp.image_encoder_width)
        except ValueError as error:
            raise UserError(f"--image_encoder={error}") from error
        features, _ = self.classifier(tf.zeros([1, hp.image_size, hp.image_size, 3]))
        self.feature_width = features.shape[-1]
        self.networks = {"classifier": self.classifier}

    def start(self, fresh: set[str]) -> None:
        if "classifier" in fresh and self.classifier.layout == "inception":
            try:
                encoders.start_inception(self.classifier.trunk, self.hyperparameters.image_encoder)
            except ValueError as error:
                raise UserError(f"--image_encoder={error}") from error

    def steps_per_epoch(self, num_images: int) -> int:
        return max(1, num_images // self.hyperparameters.batch_size)

    def optimizers(self, steps_per_epoch: int) -> dict:
        hp = self.hyperparameters
        schedule = keras.optimizers.schedules.ExponentialDecay(
            hp.learning_rate, steps_per_epoch, hp.decay, staircase=True
        )
        return {"classifier": Adam(schedule, name="adam")}

    def noise(self, draw) -> dict:
        return {"dropout": draw.uniform("dropout", self.feature_width)} if self.hyperparameters.dropout else {}

    def losses(self, batch, noise) -> dict:
        """Cross-entropy with batch["class"], int32 [b], positions in the data set's list of classes."""
        hp, dropout = self.hyperparameters, None
        if "dropout" in noise:
            dropout = tf.cast(noise["dropout"] >= hp.dropout, tf.float32) / (1.0 - hp.dropout)
        _, logits = self.classifier(batch["images"][0], dropout, training=True)
        labels = tf.searchsorted(tf.constant(self.class_ids), batch["class"])
        truth = tf.one_hot(labels, len(self.class_ids), 1.0 - hp.label_smoothing) + hp.label_smoothing / len(
            self.class_ids
        )
        loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(truth, logits))
        hits = tf.equal(tf.argmax(logits, axis=1, output_type=tf.int32), labels)
        return {"loss": loss, "accuracy": tf.reduce_mean(tf.cast(hits, tf.float32))}

    def classify(self, images) -> tuple[tf.Tensor, tf.Tensor]:
        """[B,S,S,3] in [-1, 1] -> (features [B,F], logits [B,C]), classes in the order of `class_ids`."""
        return self.classifier(images, training=False)

    @property
    def input_size(self) -> int:
        """Pixels that the network itself sees."""
        return self.hyperparameters.image_size if self.classifier.layout == "conv" else INCEPTION_SIZE

    def frozen_weights(self) -> list:
        """Weights that no checkpoint holds: of a TF Hub module, as arrays."""
        trunk = self.classifier.trunk
        return [v.numpy() for v in trunk.module.variables] if isinstance(trunk, encoders.HubInception) else []
