"""GAN-INT-CLS: Generative Adversarial Text to Image Synthesis (Reed et al., ICML 2016).

A DCGAN whose generator and discriminator both read a sentence embedding. Two ideas make it obey the sentence:
CLS shows the discriminator real pictures of the wrong class beside the text, INT trains the generator on midpoints of
two embeddings as well. The four variants of the paper are two weights: `cls_weight` (0: off) and
`interpolation_weight` (0: off).

Two published programs differ in details, chosen by `program`: "int" (CUB, Oxford-102) and "cls" (MS-COCO).
Where the paper and the published code differ this follows the code: the mismatching pair is a wrong *image* of another
class with the right text; four caption embeddings are averaged; interpolants pair row i with row i + B/2.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import tensorflow as tf

from t2i_tf import losses
from t2i_tf.config import option
from t2i_tf.errors import UserError
from t2i_tf.networks import replicas
from t2i_tf.networks.adam import Adam
from t2i_tf.networks.blocks import (
    BottleneckResidual,
    TorchDense,
    convolution,
    everywhere,
    flat,
    leaky_relu,
    transposed_convolution,
)
from t2i_tf.networks.composite import Network
from t2i_tf.networks.halving import EpochHalving
from t2i_tf.networks.initial import conv_initializer
from t2i_tf.networks.normalisation import BatchNormalization
from t2i_tf.papers import BatchRequest, Context


@dataclass(frozen=True)
class Hyperparameters:
    program: str = option("int", "published program: int (CUB, Oxford-102) or cls (MS-COCO)", choices=("int", "cls"))
    cls_weight: float = option(0.5, "CLS: share of the mismatching pairs in the discriminator's loss, 0 turns it off")
    interpolation_weight: float = option(
        1.0, "INT: weight of interpolated captions in the generator's loss, 0 turns it off"
    )
    interpolation_type: int = option(1, "1: midpoints; 2: midpoint + U(-1,1) times the difference", choices=(1, 2))
    unweighted_interpolants: bool = option(
        True,
        "with --interpolation_weight=0, still let interpolated rows through the networks, as published: batch "
        "normalisation sees them",
    )
    captions_averaged: int = option(4, "caption embeddings averaged for each training example", minimum=1)
    sampling: str = option(
        "class",
        "class: classes are drawn evenly, wrong pictures are of another class; uniform: "
        "pictures are drawn evenly (data without classes)",
        choices=("class", "uniform"),
    )
    generator_width: int = option(128, "channels of the generator's last hidden layer (ngf)", minimum=1)
    discriminator_width: int = option(64, "channels of the discriminator's first layer (ndf)", minimum=1)
    noise_dim: int = option(100, "width of the noise z", minimum=1)
    text_projection: int = option(128, "width the sentence embedding is projected to (nt)", minimum=1)
    large_generator: bool = option(False, "a second residual block at 4x4 and 8x8 (option of the cls program)")
    discriminator_residual: bool = option(True, "residual block in the discriminator (absent before October 2016)")
    shared_generator_forward: bool = option(
        False,
        "show the discriminator the pictures that train the generator "
        "instead of generating again with other noise (published: again)",
    )
    learning_rate: float = option(2e-4, "Adam learning rate of both networks")
    beta_1: float = option(0.5, "Adam beta 1")
    decay_every: int = option(100, "epochs after which the learning rate is halved", minimum=1)
    batch_size: int = option(64, "global batch size in images; even", minimum=2)
    epochs: int = option(600, "epochs of ceil(images / batch_size) steps", minimum=1)
    ema_decay: float = option(0.0, "decay of the moving average of the generator's weights, 0 turns it off")


class Generator(Network):
    """Noise and sentence embedding -> picture.

    call: z [B, noise_dim] and text [B, D], unbounded -> image [B,64,64,3] in [-1, 1].
    """

    def __init__(self, width: int = 128, text_projection: int = 128, large: bool = False, name: str = "generator"):
        super().__init__(name=name)
        g = width

        self.text_projection = TorchDense(text_projection, name="text_projection")
        self.project = transposed_convolution(8 * g, first=True, name="project")
        self.project_norm = BatchNormalization(name="project_norm")
        self.residual_4 = BottleneckResidual(8 * g, 2 * g, tf.nn.relu, activate_sum=not large, name="residual_4")
        self.residual_4_second = (
            BottleneckResidual(8 * g, 2 * g, tf.nn.relu, name="residual_4_second") if large else None
        )
        self.upsample_8, self.norm_8 = (
            transposed_convolution(4 * g, name="upsample_8"),
            BatchNormalization(name="norm_8"),
        )
        self.residual_8 = BottleneckResidual(4 * g, g, tf.nn.relu, activate_sum=not large, name="residual_8")
        self.residual_8_second = BottleneckResidual(4 * g, g, tf.nn.relu, name="residual_8_second") if large else None
        self.upsample_16, self.norm_16 = (
            transposed_convolution(2 * g, name="upsample_16"),
            BatchNormalization(name="norm_16"),
        )
        self.upsample_32, self.norm_32 = (
            transposed_convolution(g, name="upsample_32"),
            BatchNormalization(name="norm_32"),
        )
        self.to_image = transposed_convolution(3, name="to_image")

    def features(self, z, text, training=False) -> dict:
        """All that parity tests look at: text_code [B,nt], h4 [B,4,4,8g], h8 [B,8,8,4g], image."""
        text_code = leaky_relu(self.text_projection(text))
        x = tf.concat([z, text_code], axis=-1)[:, None, None, :]
        # No activation before the residual blocks: the sum is activated once, behind them.
        h4 = self.residual_4(self.project_norm(self.project(x), training=training), training=training)
        if self.residual_4_second is not None:
            h4 = self.residual_4_second(h4, training=training)
        h8 = self.residual_8(self.norm_8(self.upsample_8(h4), training=training), training=training)
        if self.residual_8_second is not None:
            h8 = self.residual_8_second(h8, training=training)
        h16 = tf.nn.relu(self.norm_16(self.upsample_16(h8), training=training))
        h32 = tf.nn.relu(self.norm_32(self.upsample_32(h16), training=training))
        image = tf.tanh(tf.cast(self.to_image(h32), tf.float32))
        return {"text_code": text_code, "h4": h4, "h8": h8, "image": image}

    def call(self, z, text, training=False):
        return self.features(z, text, training=training)["image"]


class Discriminator(Network):
    """Is this a real picture of what the sentence says?

    call: image [B,64,64,3] in [-1, 1] and text [B, D] -> logits [B].
    """

    def __init__(
        self,
        width: int = 64,
        text_projection: int = 128,
        program: str = "int",
        residual: bool = True,
        name: str = "discriminator",
    ):
        super().__init__(name=name)
        d = width
        self.program = program
        self.conv_32 = convolution(d, 4, 2, name="conv_32")
        self.conv_16, self.norm_16 = convolution(2 * d, 4, 2, name="conv_16"), BatchNormalization(name="norm_16")
        self.conv_8, self.norm_8 = convolution(4 * d, 4, 2, name="conv_8"), BatchNormalization(name="norm_8")
        self.conv_4, self.norm_4 = convolution(8 * d, 4, 2, name="conv_4"), BatchNormalization(name="norm_4")
        self.residual = BottleneckResidual(8 * d, 2 * d, leaky_relu, name="residual") if residual else None
        self.text_projection = TorchDense(text_projection, normalised=program == "int", name="text_projection")
        self.text_norm = BatchNormalization(name="text_norm") if program == "int" else None
        self.joint_conv, self.joint_norm = (
            convolution(8 * d, 1, name="joint_conv"),
            BatchNormalization(name="joint_norm"),
        )
        self.score = keras.layers.Conv2D(1, 4, use_bias=False, kernel_initializer=conv_initializer(), name="score")

    def image_features(self, image, training=False):
        """[B,64,64,3] -> [B,4,4,8d]."""
        x = leaky_relu(self.conv_32(image))
        x = leaky_relu(self.norm_16(self.conv_16(x), training=training))
        x = self.norm_8(self.conv_8(x), training=training)
        if self.program == "cls":  # the int program has no activation here
            x = leaky_relu(x)
        x = self.norm_4(self.conv_4(x), training=training)
        return leaky_relu(x) if self.residual is None else self.residual(x, training=training)

    def text_code(self, text, training=False):
        """[B, D] -> [B, nt]."""
        code = self.text_projection(text, training=training)
        return leaky_relu(code if self.text_norm is None else self.text_norm(code, training=training))

    def call(self, image, text, training=False):
        features, code = self.image_features(image, training=training), self.text_code(text, training=training)
        x = tf.concat([features, everywhere(code, features)], axis=-1)
        x = leaky_relu(self.joint_norm(self.joint_conv(x), training=training))
        return tf.cast(self.score(x)[:, 0, 0, 0], tf.float32)


def interpolate(text: tf.Tensor, alpha: tf.Tensor | None = None) -> tf.Tensor:
    """Rows i and i + B/2 of [B, D] -> their midpoints [B/2, D], moved by alpha [B/2] times the difference (type 2)."""
    first, second = tf.split(text, 2, axis=0)
    middle = 0.5 * first + 0.5 * second
    return middle if alpha is None else middle + alpha[:, None] * (second - first)


class Recipe:
    """See `t2i_tf.papers` for what each part is asked for."""

    kind = "gan"
    score_metrics = ("caption_fidelity", "diversity")

    def __init__(self, hyperparameters: Hyperparameters, context: Context, judges: bool = True):
        hp = self.hyperparameters = hyperparameters
        if hp.program == "cls" and hp.interpolation_weight:
            raise UserError("--program=cls has no interpolation: add --interpolation_weight=0")
        if hp.batch_size % 2:
            raise UserError(
                f"--batch_size={hp.batch_size}: interpolation pairs the rows of a batch, give an even number"
            )
        if context.text_dim is None:
            raise UserError(
                "gan_int_cls needs sentence embeddings: give --text_encoder_run=RUN of a trained "
                "char_cnn_rnn, or prepare the data set with --embeddings"
            )
        self.request = BatchRequest(
            image_sizes=(64,),
            sampling=hp.sampling,
            wrong_images=hp.cls_weight > 0,
            text="embedding",
            captions=hp.captions_averaged,
            captions_with_replacement=hp.program == "int",
        )
        self.generator = Generator(hp.generator_width, hp.text_projection, hp.large_generator)
        self.discriminators = {}
        if judges:
            self.discriminator = Discriminator(
                hp.discriminator_width, hp.text_projection, hp.program, hp.discriminator_residual
            )
            self.discriminators["discriminator"] = self.discriminator
        self.networks = {"generator": self.generator, **self.discriminators}
        text = tf.zeros([1, context.text_dim])
        image = self.generator(tf.zeros([1, hp.noise_dim]), text)
        for discriminator in self.discriminators.values():
            discriminator(image, text)

    def steps_per_epoch(self, num_images: int) -> int:
        return -(-num_images // self.hyperparameters.batch_size)

    def optimizers(self, steps_per_epoch: int) -> dict:
        hp = self.hyperparameters

        def adam(name):
            schedule = EpochHalving(hp.learning_rate, steps_per_epoch, hp.decay_every)
            return Adam(schedule, beta_1=hp.beta_1, epsilon=1e-8, name=f"adam_{name}")

        return {name: adam(name) for name in self.networks}

    def noise(self, draw) -> dict:
        width = self.hyperparameters.noise_dim
        noise = {"z": draw.normal("z", width)}
        if not self.hyperparameters.shared_generator_forward:
            noise["z_discriminator"] = draw.normal("z_discriminator", width)
        if self._interpolates:
            noise["z_interpolated"] = draw.normal("z_interpolated", width, rows=draw.rows // 2)
            if self.hyperparameters.interpolation_type == 2:
                noise["alpha"] = draw.uniform("alpha", 1, rows=draw.rows // 2, low=-1.0)[:, 0]
        return noise

    @property
    def _interpolates(self) -> bool:
        hp = self.hyperparameters
        return hp.program == "int" and (hp.interpolation_weight > 0 or hp.unweighted_interpolants)

    def condition(self, batch) -> tf.Tensor:
        """batch["embedding"] [B, captions, D] -> their mean [B, D]."""
        return tf.reduce_mean(batch["embedding"], axis=1)

    def generate(self, text, noise) -> dict:
        """One forward on the true rows and, in the int program, their interpolants; one more for the discriminator.

        At weight 0 the published program still passes the interpolants through, and nothing holds them to look real.
        In a small run the generator was seen to use them: shaped so that the batch statistics of the discriminator made
        the others look real, until both losses were 0. `unweighted_interpolants=False` leaves them out.
        """
        rows_text, rows_z, count = text, noise["z"], tf.shape(text)[0]
        if "z_interpolated" in noise:
            interpolated = replicas.own(self._interpolants(replicas.gather(text), noise))
            rows_text = tf.concat([text, interpolated], axis=0)
            rows_z = tf.concat([noise["z"], noise["z_interpolated"]], axis=0)
        if "z_discriminator" in noise:
            fake = self.generator(noise["z_discriminator"], text, training=True)
            images = self.generator(rows_z, rows_text, training=True)
        else:
            images = self.generator(rows_z, rows_text, training=True)
            fake = images[:count]
        return {"images": images, "text": rows_text, "fake": tf.stop_gradient(fake)}

    def _interpolants(self, text, noise):
        return interpolate(text, replicas.gather(noise["alpha"]) if "alpha" in noise else None)

    def discriminator_losses(self, name, batch, text, generated) -> dict:
        """Three separate forwards, since each has batch statistics of its own."""
        critic, weight = self.discriminators[name], self.hyperparameters.cls_weight
        real = critic(batch["images"][0], text, training=True)
        wrong = critic(batch["wrong_images"][0], text, training=True) if weight else None
        fake = critic(generated["fake"], text, training=True)
        logs = {
            "loss": losses.matching_aware_discriminator_loss(real, fake, wrong, weight),
            "accuracy_real": tf.reduce_mean(tf.cast(real > 0, tf.float32)),
            "accuracy_fake": tf.reduce_mean(tf.cast(fake < 0, tf.float32)),
        }
        if weight:
            logs["accuracy_mismatched"] = tf.reduce_mean(tf.cast(wrong < 0, tf.float32))
        return logs

    def generator_losses(self, batch, text, generated) -> dict:
        logits = self.discriminator(generated["images"], generated["text"], training=True)
        count = tf.shape(text)[0]
        return {
            "loss": losses.interpolation_generator_loss(
                logits[:count], logits[count:], self.hyperparameters.interpolation_weight
            )
        }

    def sampling_noise(self, draw) -> dict:
        return {"z": draw.normal("z", self.hyperparameters.noise_dim)}

    def sample(self, text, noise) -> list:
        """Test time: running statistics, one caption's embedding a row."""
        return [self.generator(noise["z"], text, training=False)]

    def image_features(self, images) -> tf.Tensor:
        """[B,64,64,3] in [-1, 1] -> [B, F]."""
        return flat(self.discriminator.image_features(images, training=False))
