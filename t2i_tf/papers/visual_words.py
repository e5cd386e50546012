"""Visual words: a picture network learns to see what captions speak of, by telling which words they have.

In the manner of Joulin et al. (Learning Visual Features from Large Weakly Supervised Data, ECCV 2016), one-versus-all:
no labels but the words themselves. The DAMSM rests on an Inception-v3 that knew ImageNet before; where no such network
sees enough, as on small or drawn pictures, this one stands in for it (`--paper=damsm --trunk_run=RUN`). It matters:
trained along with the DAMSM from nothing, the same network learns the colours of the drawn flowers and never the number
and form of their petals, since text and picture each wait for the other to tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import tensorflow as tf

from t2i_tf.config import option
from t2i_tf.errors import UserError
from t2i_tf.networks import encoders
from t2i_tf.networks.adam import Adam
from t2i_tf.papers import BatchRequest, Context, Selection


@dataclass(frozen=True)
class Hyperparameters:
    image_encoder_width: int = option(64, "channels of the first layer of the small network", minimum=1)
    image_size: int = option(64, "picture size in pixels", minimum=8)
    captions_averaged: int = option(
        5, "captions of each picture whose words are to be told, no more than every picture has"
    )
    learning_rate: float = option(0.002, "Adam learning rate; a tenth of it in the last fifth of the epochs")
    batch_size: int = option(48, "global batch size", minimum=1)
    epochs: int = option(45, "passes over the pictures", minimum=1)
    ema_decay: float = option(0.0, "decay of the moving average of the weights, 0 turns it off")


class Recipe:
    """See `t2i_tf.papers` for what each part is asked for."""

    kind = "supervised"
    score_metrics = ("word_precision",)
    selection = Selection("word_precision", "mean_average_precision")

    def __init__(self, hyperparameters: Hyperparameters, context: Context):
        hp = self.hyperparameters = hyperparameters
        if not context.vocabulary_size:
            raise UserError("visual_words reads words: give a data set with captions")
        self.vocabulary_size = context.vocabulary_size
        self.request = BatchRequest(
            image_sizes=(hp.image_size,),
            text="words",
            captions=hp.captions_averaged,
            captions_with_replacement=False,
        )
        self.trunk = encoders.ConvolutionalTrunk(hp.image_encoder_width, name="trunk")
        self.head = keras.layers.Dense(context.vocabulary_size, name="head")
        self.tell_words(tf.zeros([1, hp.image_size, hp.image_size, 3]))
        self.networks = {"trunk": self.trunk, "head": self.head}

    def tell_words(self, images, training=False) -> tf.Tensor:
        """[B,S,S,3] in [-1, 1] -> logits [B,V] of each word by its number; number 0 is padding and means nothing."""
        _, features = self.trunk(images, training=training)
        return tf.cast(self.head(features), tf.float32)

    def steps_per_epoch(self, num_images: int) -> int:
        return max(1, num_images // self.hyperparameters.batch_size)

    def optimizers(self, steps_per_epoch: int) -> dict:
        hp = self.hyperparameters
        # Number and form of petals are learned late and only at the full rate: one that falls early stops before.
        schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
            [hp.epochs * steps_per_epoch * 4 // 5], [hp.learning_rate, 0.1 * hp.learning_rate]
        )
        return {"trunk": Adam(schedule, name="adam")}

    def noise(self, draw) -> dict:
        return {}

    def losses(self, batch, noise) -> dict:
        """Cross-entropy of every word with the share of the picture's captions that have it, summed over the words.

        batch["words"]: int32 [b, captions, T], 0 behind the end.
        """
        logits, words = self.tell_words(batch["images"][0], training=True), batch["words"]
        flat = tf.reshape(words, [-1, tf.shape(words)[2]])
        has = tf.math.bincount(
            flat,
            minlength=self.vocabulary_size,
            maxlength=self.vocabulary_size,
            axis=-1,
            binary_output=True,
            dtype=tf.float32,
        )
        share = tf.reduce_mean(tf.reshape(has, [-1, words.shape[1], self.vocabulary_size]), axis=1)
        entropies = tf.nn.sigmoid_cross_entropy_with_logits(share[:, 1:], logits[:, 1:])
        return {"loss": tf.reduce_mean(tf.reduce_sum(entropies, axis=1))}
