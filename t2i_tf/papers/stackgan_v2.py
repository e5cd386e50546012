"""StackGAN++: Realistic Image Synthesis with Stacked Generative Adversarial Networks (Zhang et al., TPAMI 2018).

A tree of generators: each scale draws a picture from its features and hands these on to the next, and each has a
discriminator of its own. All are trained together. With text, the discriminators judge a picture alone and with its
text; without, colour consistency keeps the scales alike.

Where the paper and the published code differ this follows the code: widths of 64, 32 and 16 channels at 64, 128 and 256
pixels; the discriminators' terms are summed; a picture of another class is a mismatch with the text, and real without
it; mu conditions the discriminators, and takes a gradient from them in the generator's step. Wrong pictures are always
of another class, where the code draws a second time at most; the moving average never overwrites the trained weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import tensorflow as tf

from t2i_tf import losses
from t2i_tf.config import option
from t2i_tf.errors import UserError
from t2i_tf.networks.adam import TORCH_EPSILON, Adam
from t2i_tf.networks.blocks import LogitHead, everywhere, flat
from t2i_tf.networks.composite import Composite, Network
from t2i_tf.networks.constant import of_weights
from t2i_tf.networks.convolutions import folds
from t2i_tf.networks.gated import (
    DiscriminatorTrunk,
    GatedConditioningAugmentation,
    GatedConvolution,
    GatedResidual,
    GeneratorStem,
    LeakyConvolution,
    ToImage,
    glu,
    orthogonal_convolution,
)
from t2i_tf.networks.normalisation import BatchNormalization
from t2i_tf.papers import BatchRequest, Context

COVARIANCE_WEIGHT = 5.0
"""Colour covariances count so much more than colour means (the paper's lambda_2 against lambda_1)."""


@dataclass(frozen=True)
class Hyperparameters:
    conditional: bool = option(True, "pictures of captions; --noconditional: pictures from noise alone, without text")
    num_scales: int = option(3, "scales of the tree, each of twice the size of the one before", minimum=1)
    base_size: int = option(64, "size of the smallest scale in pixels, a power of two from 8", minimum=8)
    generator_width: int = option(
        64, "channels of the smallest scale's features, halved from scale to scale", minimum=1
    )
    discriminator_width: int = option(64, "channels of the discriminators' first layer", minimum=1)
    noise_dim: int = option(100, "width of the noise z", minimum=1)
    condition_dim: int = option(128, "width of the condition made from the text", minimum=1)
    residual_blocks: int = option(2, "residual blocks of each scale above the smallest", minimum=0)
    kl_weight: float = option(2.0, "weight of the conditions' KL divergence from N(0, 1)")
    unconditional_weight: float = option(
        1.0, "with text: weight of the judgement of pictures without it, 0 leaves it out", minimum=0
    )
    color_weight: float = option(0.0, "weight of colour consistency between the scales; 50 without text")
    sampling: str = option(
        "shuffled",
        "shuffled: every picture once an epoch, wrong ones are drawn evenly from the other classes (without classes, "
        "from all others); uniform: both are drawn evenly, whatever their class",
        choices=("shuffled", "uniform"),
    )
    generator_learning_rate: float = option(2e-4, "Adam learning rate of the generator")
    discriminator_learning_rate: float = option(2e-4, "Adam learning rate of the discriminators")
    beta_1: float = option(0.5, "Adam beta 1")
    batch_size: int = option(24, "global batch size in images", minimum=2)
    epochs: int = option(600, "epochs of floor(images / batch_size) steps", minimum=1)
    ema_decay: float = option(0.999, "decay of the moving average of the generator's weights, 0 turns it off")


class JointConvolution(keras.layers.Layer):
    """Features [B,S,S,C] and code [B,K] -> [B,S,S,filters]: convolution 3x3 of the code at every place before the
    features, batch norm, GLU.

    The code is the same at every place, so what the convolution makes of it is too, but for the border, where it meets
    padding: that is computed on 3x3 places and spread out, instead of on as many as the features have. At 128 pixels of
    the published width this leaves out four fifths of the work.
    """

    def __init__(self, filters: int, **kwargs):
        super().__init__(**kwargs)
        self.conv = orthogonal_convolution(2 * filters, 3, name="conv")
        self.norm = BatchNormalization(activation=glu, name="norm")

    def build(self, features_shape, code_shape):
        inputs = (*features_shape[:-1], code_shape[-1] + features_shape[-1])
        self.conv.build(inputs)
        self.norm.build(self.conv.compute_output_shape(inputs))

    def call(self, features, code, training=False):
        inputs = [code.shape[-1], features.shape[-1]]
        places = tf.tile(code[:, None, None, :], [1, 3, 3, 1])
        if training or not folds(self.conv, features):
            of_code, of_features = tf.split(self.conv.kernel, inputs, axis=2)
            x = self.conv.convolution_op(features, of_features)
            x += self._spread(tf.nn.conv2d(places, of_code, 1, "SAME"), features.shape[1], features.shape[2])
            return self.norm(x, training=training)

        def parts(kernel):
            """Batch norm folded in, of value and gate: kernel of the code, kernel of the features, offset."""
            halves = (tf.split(weights, 2, axis=-1) for weights in self.norm.folded(kernel))
            return [(*tf.split(kernel, inputs, axis=2), offset) for kernel, offset in zip(*halves, strict=True)]

        made = []
        for of_code, of_features, offset in of_weights(parts, self.conv.kernel):
            x = self.conv.drawn(features, lambda convolved, kernel=of_features: convolved(kernel))
            small = tf.nn.bias_add(tf.nn.conv2d(places, of_code, 1, "SAME"), offset)
            made.append(x + self._spread(small, features.shape[1], features.shape[2]))
        value, gate = made
        return value * tf.sigmoid(gate)

    @staticmethod
    def _spread(small, height, width):
        """[B,3,3,C] -> [B,height,width,C]: the borders stay at the borders, the middle fills what is between."""
        for axis, size in ((1, height), (2, width)):
            first, middle, last = tf.split(small, 3, axis=axis)
            shape = [size - 2 if place == axis else 1 for place in range(4)]
            small = tf.concat([first, tf.tile(middle, shape), last], axis=axis)
        return small


class Refinement(Composite):
    """One scale above the smallest: features [B,S,S,2C] and code [B,K] -> features [B,2S,2S,C].

    Joint convolution of code and features, residual blocks, upsampling.
    """

    def __init__(self, width: int, residual_blocks: int, **kwargs):
        super().__init__(**kwargs)
        self.joint = JointConvolution(2 * width, name="joint")
        self.residuals = [GatedResidual(2 * width, name=f"residual_{i}") for i in range(residual_blocks)]
        self.upsampling = GatedConvolution(width, upsample=True, name="upsampling")

    def call(self, features, code, training=False):
        x = self.joint(features, code, training=training)
        for residual in self.residuals:
            x = residual(x, training=training)
        return self.upsampling(x, training=training)


class Generator(Network):
    """Noise, and with text its embedding -> pictures of all scales.

    call: z [B, noise_dim], text [B, D] and augmentation [B, condition_dim] from N(0, 1) -> dict:
        images: list of [B,S,S,3] in [-1, 1], small to large;
        features: list of [B,S,S,C], what the pictures are made from;
        condition, mu, log_variance: [B, condition_dim] each, with text.

    Args:
        condition_dim: None for a generator without text.
    """

    def __init__(
        self,
        width: int = 64,
        num_scales: int = 3,
        base_size: int = 64,
        condition_dim: int | None = 128,
        residual_blocks: int = 2,
        name: str = "generator",
    ):
        super().__init__(name=name)
        self.sizes = [base_size * 2**i for i in range(num_scales)]
        self.conditioning = (
            None if condition_dim is None else GatedConditioningAugmentation(condition_dim, name="conditioning")
        )
        self.stem = GeneratorStem(width, base_size, name="stem")
        self.refinements = [
            Refinement(width // 2**i, residual_blocks, name=f"refinement_{size}")
            for i, size in enumerate(self.sizes[1:], 1)
        ]
        self.to_images = [ToImage(name=f"to_image_{size}") for size in self.sizes]

    def call(self, z, text=None, augmentation=None, training=False):
        conditioned, code, stem_input = {}, z, z
        if self.conditioning is not None:
            code, mu, log_variance = self.conditioning(text, augmentation)
            conditioned = {"condition": code, "mu": mu, "log_variance": log_variance}
            stem_input = tf.concat([code, z], axis=-1)
        features = [self.stem(stem_input, training=training)]
        for refinement in self.refinements:
            features.append(refinement(features[-1], code, training=training))
        images = [to_image(x, training=training) for to_image, x in zip(self.to_images, features, strict=True)]
        return {"images": images, "features": features, **conditioned}


class Discriminator(Network):
    """Is this a real picture, and is it what the text says?

    call: image [B,size,size,3] in [-1, 1] and condition [B, condition_dim] -> {head: logits [B]}; the heads are
    "conditional" and "unconditional", one or both.
    """

    def __init__(
        self,
        width: int = 64,
        size: int = 64,
        conditional: bool = True,
        unconditional: bool = True,
        name: str = "discriminator",
    ):
        super().__init__(name=name)
        self.trunk = DiscriminatorTrunk(width, size, name="trunk")
        self.joint = LeakyConvolution(8 * width, 3, name="joint") if conditional else None
        self.conditional_head = LogitHead(name="conditional_head") if conditional else None
        self.unconditional_head = LogitHead(name="unconditional_head") if unconditional else None

    def call(self, image, condition=None, training=False, groups=1):
        """groups: see `BatchNormalization`."""
        features = self.trunk(image, training=training, groups=groups)
        return self.judge(features, condition, training=training, groups=groups)

    def judge(self, features, condition=None, training=False, groups=1) -> dict:
        """The heads on features of the trunk."""
        logits = {}
        if self.conditional_head is not None:
            joint = tf.concat([everywhere(condition, features), features], axis=-1)
            logits["conditional"] = self.conditional_head(self.joint(joint, training=training, groups=groups))
        if self.unconditional_head is not None:
            logits["unconditional"] = self.unconditional_head(features)
        return logits


class Recipe:
    """See `t2i_tf.papers` for what each part is asked for. Without text, the condition is None."""

    kind = "gan"

    def __init__(self, hyperparameters: Hyperparameters, context: Context, judges: bool = True):
        hp = self.hyperparameters = hyperparameters
        if hp.base_size & (hp.base_size - 1):
            raise UserError(f"--base_size={hp.base_size}: give a power of two, e.g. 64")
        if hp.generator_width % 2 ** (hp.num_scales - 1):
            raise UserError(
                f"--generator_width={hp.generator_width}: it is halved from scale to scale, give a multiple of "
                f"{2 ** (hp.num_scales - 1)} for --num_scales={hp.num_scales}"
            )
        if hp.conditional and context.text_dim is None:
            raise UserError(
                "stackgan_v2 needs sentence embeddings: give --text_encoder_run=RUN of a trained char_cnn_rnn, prepare "
                "the data set with --embeddings, or train --noconditional"
            )
        self.score_metrics = ("caption_fidelity", "diversity") if hp.conditional else ("diversity",)
        self.generator = Generator(
            hp.generator_width,
            hp.num_scales,
            hp.base_size,
            hp.condition_dim if hp.conditional else None,
            hp.residual_blocks,
        )
        sizes = self.generator.sizes
        self.discriminators = {
            f"discriminator_{size}": Discriminator(
                hp.discriminator_width,
                size,
                hp.conditional,
                not hp.conditional or hp.unconditional_weight > 0,
                name=f"discriminator_{size}",
            )
            for size in (sizes if judges else ())
        }
        self.networks = {"generator": self.generator, **self.discriminators}
        self.request = BatchRequest(
            image_sizes=tuple(sizes),
            sampling=hp.sampling,
            wrong_images=hp.conditional,
            text="embedding" if hp.conditional else None,
        )
        self._build(context, judges)

    def _build(self, context, judges):
        hp = self.hyperparameters
        noise = {"z": tf.zeros([1, hp.noise_dim])}
        if hp.conditional:
            noise["augmentation"] = tf.zeros([1, hp.condition_dim])
        text = tf.zeros([1, context.text_dim]) if hp.conditional else None
        generated = self.generator(text=text, **noise)
        if judges:
            for discriminator, image in zip(self.discriminators.values(), generated["images"], strict=True):
                discriminator(image, generated.get("mu"))

    def steps_per_epoch(self, num_images: int) -> int:
        return max(1, num_images // self.hyperparameters.batch_size)

    def optimizers(self, steps_per_epoch: int) -> dict:
        hp = self.hyperparameters

        def adam(name):
            rate = hp.generator_learning_rate if name == "generator" else hp.discriminator_learning_rate
            return Adam(rate, beta_1=hp.beta_1, beta_2=0.999, epsilon=TORCH_EPSILON, name=f"adam_{name}")

        return {name: adam(name) for name in self.networks}

    def noise(self, draw) -> dict:
        hp = self.hyperparameters
        noise = {"z": draw.normal("z", hp.noise_dim)}
        if hp.conditional:
            noise["augmentation"] = draw.normal("augmentation", hp.condition_dim)
        return noise

    def condition(self, batch) -> tf.Tensor | None:
        """batch["embedding"] [B, 1, D] -> [B, D]."""
        return batch["embedding"][:, 0] if self.hyperparameters.conditional else None

    def generate(self, text, noise) -> dict:
        made = self.generator(text=text, **noise, training=True)
        return {name: made[name] for name in ("images", "mu", "log_variance") if name in made}

    def discriminator_losses(self, name, batch, text, generated) -> dict:
        """Real, wrong and fake pictures pass together, each kind with batch statistics of its own.

        The published program has a forward for each, with the same result: here each weight meets all pictures at once,
        and has one gradient instead of three.
        """
        scale, critic = list(self.discriminators).index(name), self.discriminators[name]
        conditional = self.hyperparameters.conditional
        kinds = ("images", "wrong_images") if conditional else ("images",)
        shown = [*(batch[kind][scale] for kind in kinds), generated["images"][scale]]
        condition = tf.tile(generated["mu"], [len(shown), 1]) if conditional else None
        logits = critic(tf.concat(shown, axis=0), condition, training=True, groups=len(shown))
        parts = {head: tf.split(of_all, len(shown)) for head, of_all in logits.items()}
        judged = [{head: part[i] for head, part in parts.items()} for i in range(len(shown))]

        def share(right):
            return tf.reduce_mean(tf.cast(right, tf.float32))

        if not conditional:
            real, fake = (of_kind["unconditional"] for of_kind in judged)
            loss = losses.real_loss(real) + losses.fake_loss(fake)
            return {"loss": loss, "accuracy_real": share(real > 0), "accuracy_fake": share(fake < 0)}
        real, wrong, fake = judged
        return {
            "loss": losses.joint_discriminator_loss(real, wrong, fake, self.hyperparameters.unconditional_weight),
            "accuracy_real": share(real["conditional"] > 0),
            "accuracy_mismatched": share(wrong["conditional"] < 0),
            "accuracy_fake": share(fake["conditional"] < 0),
        }

    def generator_losses(self, batch, text, generated) -> dict:
        """The sum over the scales, colour consistency between each two of them, and the KL divergence."""
        hp, images, logs = self.hyperparameters, generated["images"], {}
        total = 0.0
        for size, critic, image in zip(self.generator.sizes, self.discriminators.values(), images, strict=True):
            fake = critic(image, generated.get("mu"), training=True)
            if hp.conditional:
                logs[f"adversarial_{size}"] = losses.joint_generator_loss(fake, hp.unconditional_weight)
            else:
                logs[f"adversarial_{size}"] = losses.real_loss(fake["unconditional"])
            total += logs[f"adversarial_{size}"]
        for size, small, large in zip(self.generator.sizes[1:], images[:-1], images[1:], strict=True):
            mean, covariance = losses.color_consistency_losses(large, small)
            logs |= {f"color_mean_{size}": mean, f"color_covariance_{size}": covariance}
            total += hp.color_weight * (mean + COVARIANCE_WEIGHT * covariance)
        if hp.conditional:
            logs["kl"] = losses.kl_divergence(generated["mu"], generated["log_variance"])
            total += hp.kl_weight * logs["kl"]
        return {"loss": total, **logs}

    def sampling_noise(self, draw) -> dict:
        return self.noise(draw)

    def sample(self, text, noise) -> list:
        """Test time: running statistics."""
        return self.generator(text=text, **noise, training=False)["images"]

    def image_features(self, images) -> tf.Tensor:
        """Of the largest scale: [B,S,S,3] in [-1, 1] -> [B, F]."""
        return flat(self.discriminators[f"discriminator_{self.generator.sizes[-1]}"].trunk(images, training=False))
