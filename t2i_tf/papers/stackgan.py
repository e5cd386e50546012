"""StackGAN: Text to Photo-realistic Image Synthesis with Stacked Generative Adversarial Networks.

Zhang et al., ICCV 2017. Stage-I draws a picture of 64 pixels from a sentence and noise; Stage-II, trained after it,
reads that picture and the sentence again and draws 256 pixels. Conditioning augmentation makes the condition of each
from the sentence: a sample of N(mu, sigma^2), held near N(0, 1) by its KL divergence.

The authors published two models, chosen by `form`: "tensorflow" (CUB, Oxford-102) and "pytorch" (MS-COCO).

|                              | tensorflow                          | pytorch                              |
|------------------------------|-------------------------------------|--------------------------------------|
| mu and spread                | leaky ReLU; log sigma               | ReLU; log sigma^2                    |
| augmentation noise           | within two standard deviations      | normal                               |
| Stage-I generator            | [c, z]; bottlenecks at 4x4 and 8x8  | [z, c]; upsamplings alone            |
| discriminator                | ends in a bottleneck; its own text  | no bottleneck; mu, without gradient  |
| judges pictures without text | no                                  | Stage-II                             |
| wrong pairs                  | picture of another class            | next text of the batch               |
| generator forwards a step    | one a side, with other noise        | one                                  |

Where the paper and the published code differ this follows the code: the KL divergence is a mean over dimensions (its
weight of 2 is 2/128 of the usual sum), the generator's loss is -log D, and Stage-I stays in training mode while
Stage-II is trained: its weights are fixed, its running statistics move. Wrong pictures are always of another class,
where the code can miss, and Stage-II starts from Stage-I's running statistics in both forms.
"""

from __future__ import annotations

from dataclasses import dataclass

import keras
import tensorflow as tf

from t2i_tf import losses
from t2i_tf.config import RunConfig, option
from t2i_tf.errors import UserError
from t2i_tf.networks import replicas
from t2i_tf.networks.adam import TORCH_EPSILON, Adam
from t2i_tf.networks.blocks import BottleneckResidual, Dense, LogitHead, convolution, everywhere, flat, leaky_relu
from t2i_tf.networks.composite import Composite, Network
from t2i_tf.networks.convolutions import UpsampledConvolution
from t2i_tf.networks.initial import conv_initializer
from t2i_tf.networks.normalisation import BatchNormalization
from t2i_tf.papers import BatchRequest, Context


@dataclass(frozen=True)
class Hyperparameters:
    form: str = option(
        "tensorflow",
        "published model: tensorflow (CUB, Oxford-102) or pytorch (MS-COCO)",
        choices=("tensorflow", "pytorch"),
    )
    stage: int = option(
        1, "1: pictures of 64 pixels; 2: pictures of 256 pixels from those of --stage1_run", choices=(1, 2)
    )
    stage1_run: str | None = option(
        None,
        "stage 2: run folder of the trained Stage-I, of the same form and widths, or of a Stage-II, whose Stage-I is "
        "taken",
    )
    generator_width: int = option(
        128, "unit of the generators' channels, a multiple of 4 for stage 2 (GF_DIM)", minimum=1
    )
    discriminator_width: int = option(64, "channels of the discriminator's first layer (DF_DIM)", minimum=1)
    residual_blocks: int = option(4, "residual blocks of the Stage-II generator", minimum=0)
    noise_dim: int = option(100, "width of the noise z", minimum=1)
    condition_dim: int = option(128, "width of the condition made from the text", minimum=1)
    conditioning_activation: str = option(
        "published",
        "on mu and spread: published (leaky ReLU in the tensorflow form, ReLU in the pytorch form) or linear (paper)",
        choices=("published", "linear"),
    )
    augmentation_noise: str = option(
        "published",
        "of the condition: published (truncated in the tensorflow form, normal in the pytorch form), normal (paper), "
        "truncated, or none: no conditioning augmentation, the condition is mu and its KL divergence no loss",
        choices=("published", "normal", "truncated", "none"),
    )
    kl_weight: float = option(2.0, "weight of the condition's KL divergence from N(0, 1)")
    wrong_pairs: bool = option(True, "tensorflow form: show the discriminator mismatching pairs too")
    captions_averaged: int = option(4, "caption embeddings averaged for each training example", minimum=1)
    sampling: str = option(
        "shuffled",
        "shuffled: every picture once an epoch, wrong ones are drawn evenly from the other classes (without classes, "
        "from all others); uniform: both are drawn evenly, whatever their class",
        choices=("shuffled", "uniform"),
    )
    shared_generator_forward: bool = option(
        False,
        "tensorflow form: show the discriminator the pictures that train the generator "
        "instead of generating again with other noise (published: again)",
    )
    learning_rate: float = option(2e-4, "Adam learning rate of both networks")
    beta_1: float = option(0.5, "Adam beta 1")
    decay_every: int = option(50, "epochs after which the learning rate is halved, again and again", minimum=1)
    decay_after: int = option(0, "epochs before those of --decay_every are counted", minimum=0)
    batch_size: int = option(64, "global batch size in images", minimum=2)
    epochs: int = option(600, "epochs of floor(images / batch_size) steps", minimum=1)
    ema_decay: float = option(0.0, "decay of the moving average of the generator's weights, 0 turns it off")


def kernel_initializer(form: str):
    """Makes the initializer of a convolution of this form."""
    return conv_initializer if form == "pytorch" else lambda: keras.initializers.TruncatedNormal(stddev=0.02)


class Convolution(Composite):
    """Convolution, batch norm, activation (None leaves it out); with `upsample`, after doubling the size."""

    def __init__(
        self, form: str, filters: int, kernel: int = 3, stride: int = 1, activation=None, upsample=False, **kwargs
    ):
        super().__init__(**kwargs)
        self.activation, initializer = activation, kernel_initializer(form)
        if upsample:
            self.conv = UpsampledConvolution(filters, initializer=initializer(), name="conv")
        else:
            self.conv = convolution(filters, kernel, stride, name="conv", initializer=initializer)
        self.norm = BatchNormalization(unbiased=form == "pytorch", name="norm")

    def call(self, x, training=False, gathered=False):
        """gathered: see `BatchNormalization`."""
        x = self.norm(self.conv(x), training=training, gathered=gathered)
        return x if self.activation is None else self.activation(x)


class Residual(Composite):
    """ReLU of x + (convolution, ReLU, convolution), both 3x3 with batch norm."""

    def __init__(self, form: str, filters: int, **kwargs):
        super().__init__(**kwargs)
        self.first = Convolution(form, filters, activation=tf.nn.relu, name="first")
        self.second = Convolution(form, filters, name="second")

    def call(self, x, training=False):
        return tf.nn.relu(x + self.second(self.first(x, training=training), training=training))


def bottleneck(form: str, filters: int, between: int, activation, name: str) -> BottleneckResidual:
    return BottleneckResidual(
        filters,
        between,
        activation,
        initializer=kernel_initializer(form),
        unbiased=form == "pytorch",
        name=name,
    )


class ConditioningAugmentation(Composite):
    """Sentence vector [B, D] and noise [B, width] -> (condition, mu, log variance), each [B, width].

    condition = mu + noise * sigma. An activated dense layer gives mu and the spread, which is log sigma in the
    tensorflow form and log sigma^2 in the pytorch form. mu and log variance are float32 whatever the policy.
    """

    def __init__(self, form: str, width: int, linear: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.spread_scale = 2.0 if form == "tensorflow" else 1.0
        published = leaky_relu if form == "tensorflow" else tf.nn.relu
        self.activation = tf.identity if linear else published
        self.dense = Dense(2 * width, kernel_initializer=conv_initializer(), name="dense")

    def call(self, text, noise):
        mu, spread = tf.split(tf.cast(self.activation(self.dense(text)), tf.float32), 2, axis=-1)
        log_variance = self.spread_scale * spread
        condition = mu + tf.cast(noise, tf.float32) * tf.exp(log_variance / 2)
        return tf.cast(condition, self.compute_dtype), mu, log_variance


class Stage1Generator(Network):
    """Noise and sentence embedding -> picture of 64 pixels.

    call: z [B, noise_dim], text [B, D] and augmentation [B, condition_dim] -> dict:
        image: [B,64,64,3] in [-1, 1];
        condition, mu, log_variance: [B, condition_dim] each;
        features: name of each block, and "project" -> its maps.
    """

    def __init__(
        self, form: str, width: int = 128, condition_dim: int = 128, linear: bool = False, name: str = "generator"
    ):
        super().__init__(name=name)
        g, relu = width, tf.nn.relu
        self.form, self.channels = form, 8 * g
        self.conditioning = ConditioningAugmentation(form, condition_dim, linear, name="conditioning")
        self.project = Dense(
            4 * 4 * self.channels,
            normalised=True,
            use_bias=form == "tensorflow",
            kernel_initializer=conv_initializer(),
            name="project",
        )
        self.project_norm = BatchNormalization(unbiased=form == "pytorch", name="project_norm")

        def up(size, filters, activation=relu):
            return Convolution(form, filters, activation=activation, upsample=True, name=f"up_{size}")

        if form == "tensorflow":  # the bottlenecks activate their sums; the last doubling makes the picture
            self.blocks = [
                bottleneck(form, 8 * g, 2 * g, relu, "residual_4"),
                up(8, 4 * g, activation=None),
                bottleneck(form, 4 * g, g, relu, "residual_8"),
                up(16, 2 * g),
                up(32, g),
            ]
            self.to_image = UpsampledConvolution(3, initializer=kernel_initializer(form)(), name="to_image")
        else:
            self.blocks = [up(8, 4 * g), up(16, 2 * g), up(32, g), up(64, g // 2)]
            self.to_image = convolution(3, 3, name="to_image", initializer=kernel_initializer(form))

    def call(self, z, text, augmentation, training=False):
        condition, mu, log_variance = self.conditioning(text, augmentation)
        inputs = [condition, z] if self.form == "tensorflow" else [z, condition]
        x = self.project(tf.concat(inputs, axis=-1), training=training)
        x = tf.reshape(self.project_norm(x, training=training), [-1, 4, 4, self.channels])
        if self.form == "pytorch":
            x = tf.nn.relu(x)
        features = {"project": x}
        for block in self.blocks:
            x = features[block.name] = block(x, training=training)
        image = tf.tanh(tf.cast(self.to_image(x), tf.float32))
        return {"image": image, "condition": condition, "mu": mu, "log_variance": log_variance, "features": features}


class Stage2Generator(Network):
    """Picture of Stage-I and sentence embedding -> picture of 256 pixels. Its only noise is the augmentation's.

    call: small [B,64,64,3] in [-1, 1], text [B, D] and augmentation [B, condition_dim] -> dict as of Stage1Generator,
        with image [B,256,256,3]; features: "encoder", "residual" and the upsamplings.
    """

    def __init__(
        self,
        form: str,
        width: int = 128,
        condition_dim: int = 128,
        residual_blocks: int = 4,
        linear: bool = False,
        name: str = "generator",
    ):
        super().__init__(name=name)
        g, relu = width, tf.nn.relu
        self.conditioning = ConditioningAugmentation(form, condition_dim, linear, name="conditioning")
        self.first = convolution(g, 3, name="first", initializer=kernel_initializer(form))
        self.downs = [
            Convolution(form, 2 * g, 4, 2, relu, name="down_32"),
            Convolution(form, 4 * g, 4, 2, relu, name="down_16"),
        ]
        self.joint = Convolution(form, 4 * g, activation=relu, name="joint")
        self.residuals = [Residual(form, 4 * g, name=f"residual_{i}") for i in range(residual_blocks)]
        self.ups = [
            Convolution(form, filters, activation=relu, upsample=True, name=f"up_{size}")
            for size, filters in ((32, 2 * g), (64, g), (128, g // 2), (256, g // 4))
        ]
        self.to_image = convolution(3, 3, name="to_image", initializer=kernel_initializer(form))

    def call(self, small, text, augmentation, training=False):
        condition, mu, log_variance = self.conditioning(text, augmentation)
        x = tf.nn.relu(self.first(small))
        for down in self.downs:
            x = down(x, training=training)
        features = {"encoder": x}
        x = self.joint(tf.concat([x, everywhere(condition, x)], axis=-1), training=training)
        for residual in self.residuals:
            x = residual(x, training=training)
        features["residual"] = x
        for up in self.ups:
            x = features[up.name] = up(x, training=training)
        image = tf.tanh(tf.cast(self.to_image(x), tf.float32))
        return {"image": image, "condition": condition, "mu": mu, "log_variance": log_variance, "features": features}


class Discriminator(Network):
    """Is this a real picture of what the sentence says?

    call: image [B,S,S,3] in [-1, 1], S of the stage, and condition -> {head: logits [B]}: "conditional" and, in the
        pytorch form of Stage-II, "unconditional". The condition is the text [B, D] in the tensorflow form, mu
        [B, condition_dim] in the pytorch form.
    """

    def __init__(self, form: str, stage: int, width: int = 64, condition_dim: int = 128, name: str = "discriminator"):
        super().__init__(name=name)
        tensorflow, d, initializer = form == "tensorflow", width, kernel_initializer(form)
        size = 64 if stage == 1 else 256
        downs = [2, 4, 8] if stage == 1 else [2, 4, 8, 16, 32]
        narrows = [] if stage == 1 else [16, 8]
        self.first = convolution(d, 4, 2, name=f"down_{size // 2}", initializer=initializer)
        self.convolutions = [
            Convolution(form, factor * d, 4, 2, leaky_relu, name=f"down_{size // 2 // factor}") for factor in downs
        ] + [
            Convolution(form, factor * d, 1 if tensorflow else 3, 1, leaky_relu, name=f"narrow_{factor}")
            for factor in narrows
        ]
        if tensorflow:  # no activation before the bottleneck, and in Stage-I none before that either
            for layer in self.convolutions[-2 if stage == 1 else -1 :]:
                layer.activation = None
        self.residual = bottleneck(form, 8 * d, 2 * d, leaky_relu, "residual") if tensorflow else None
        self.text_projection = (
            Dense(condition_dim, kernel_initializer=conv_initializer(), name="text_projection") if tensorflow else None
        )
        self.joint = Convolution(form, 8 * d, 1 if tensorflow else 3, 1, leaky_relu, name="joint")
        self.conditional_head = LogitHead(initializer, use_bias=not tensorflow, name="conditional_head")
        self.unconditional_head = (
            None if tensorflow or stage == 1 else LogitHead(initializer, name="unconditional_head")
        )

    def image_features(self, image, training=False):
        """[B,S,S,3] -> [B,4,4,8d]."""
        x = leaky_relu(self.first(image))
        for layer in self.convolutions:
            x = layer(x, training=training)
        return x if self.residual is None else self.residual(x, training=training)

    def code(self, condition):
        """What stands beside the features: the text, projected [B, D] -> [B, condition_dim], or mu itself."""
        return condition if self.text_projection is None else leaky_relu(self.text_projection(condition))

    def match(self, features, condition, training=False, gathered=False):
        """Logits [B] of the conditional head on features. gathered: see `BatchNormalization`."""
        joint = tf.concat([features, everywhere(self.code(condition), features)], axis=-1)
        return self.conditional_head(self.joint(joint, training=training, gathered=gathered))

    def judge(self, features, condition, training=False) -> dict:
        """All heads on features."""
        logits = {"conditional": self.match(features, condition, training=training)}
        if self.unconditional_head is not None:
            logits["unconditional"] = self.unconditional_head(features)
        return logits

    def call(self, image, condition, training=False):
        return self.judge(self.image_features(image, training=training), condition, training=training)


class Halvings(keras.optimizers.schedules.LearningRateSchedule):
    """Halves the rate at the start of the epochs after + every, after + 2 every, ..., counted from 0."""

    def __init__(self, initial: float, steps_per_epoch: int, every: int, after: int = 0):
        self.initial, self.steps_per_epoch, self.every, self.after = initial, steps_per_epoch, every, after

    def __call__(self, step):
        epoch = tf.cast(step, tf.int64) // self.steps_per_epoch
        halvings = tf.maximum(epoch - self.after, 0) // self.every
        return self.initial * 0.5 ** tf.cast(halvings, tf.float32)

    def get_config(self):
        names = ("initial", "steps_per_epoch", "every", "after")
        return {name: getattr(self, name) for name in names}


class Recipe:
    """See `t2i_tf.papers` for what each part is asked for."""

    kind = "gan"
    score_metrics = ("caption_fidelity", "diversity")

    def __init__(self, hyperparameters: Hyperparameters, context: Context, judges: bool = True):
        hp = self.hyperparameters = hyperparameters
        self.tensorflow = hp.form == "tensorflow"
        parts = 4 if hp.stage == 2 else 1 if self.tensorflow else 2
        if hp.generator_width % parts:
            raise UserError(
                f"--generator_width={hp.generator_width}: the largest maps are {parts} times narrower, give a multiple "
                f"of {parts}"
            )
        if not self.tensorflow and not hp.wrong_pairs:
            raise UserError("--nowrong_pairs: the pytorch form always has them; add --form=tensorflow or leave it out")
        if hp.stage == 1 and hp.stage1_run:
            raise UserError("--stage1_run is what --stage=2 starts from: add --stage=2 or leave it out")
        if context.text_dim is None:
            raise UserError(
                "stackgan needs sentence embeddings: give --text_encoder_run=RUN of a trained char_cnn_rnn, or prepare "
                "the data set with --embeddings"
            )
        self.request = BatchRequest(
            image_sizes=(64 if hp.stage == 1 else 256,),
            sampling=hp.sampling,
            wrong_images=self.tensorflow and hp.wrong_pairs,
            text="embedding",
            captions=hp.captions_averaged,
            captions_with_replacement=False,
        )
        linear = hp.conditioning_activation == "linear"
        stage1 = Stage1Generator(
            hp.form, hp.generator_width, hp.condition_dim, linear, "generator" if hp.stage == 1 else "stage1_generator"
        )
        self.discriminators = {}
        if judges:
            self.discriminator = Discriminator(hp.form, hp.stage, hp.discriminator_width, hp.condition_dim)
            self.discriminators["discriminator"] = self.discriminator
        if hp.stage == 1:
            self.stage1_generator, self.generator = None, stage1
        else:
            stage1.trainable = False
            self.stage1_generator = stage1
            self.generator = Stage2Generator(hp.form, hp.generator_width, hp.condition_dim, hp.residual_blocks, linear)
        self.networks = {"generator": self.generator, **self.discriminators}
        if self.stage1_generator is not None:
            self.networks["stage1_generator"] = self.stage1_generator
        self._build(context)

    def _build(self, context):
        text = tf.zeros([1, context.text_dim])
        noise = {name: tf.zeros([1, width]) for name, width in self._noise_widths().items()}
        made = self._pictures(text, noise, training=False)
        for discriminator in self.discriminators.values():
            discriminator(made["images"][-1], text if self.tensorflow else made["mu"])

    @property
    def pretrained(self) -> dict:
        """Raises UserError when the generator of --stage1_run is another than the one that was built here."""
        hp = self.hyperparameters
        if hp.stage1_run is None:
            return {}
        run = RunConfig.read(hp.stage1_run)
        if run.training.paper != "stackgan":
            raise UserError(
                f"--stage1_run={hp.stage1_run} is a run of {run.training.paper}: give one of --paper=stackgan"
            )
        decisive = ("form", "generator_width", "condition_dim", "noise_dim", "conditioning_activation")
        settings = run.hyperparameters
        differing = [f"--{name}={settings[name]}" for name in decisive if settings[name] != getattr(hp, name)]
        if differing:
            raise UserError(f"--stage1_run={hp.stage1_run} was trained with other settings: add {' '.join(differing)}")
        theirs = "generator" if settings["stage"] == 1 else "stage1_generator"
        run.need(f"--stage1_run={hp.stage1_run}", theirs)
        return {"stage1_generator": (hp.stage1_run, theirs)}

    def start(self, fresh: set[str]) -> None:
        if "stage1_generator" in fresh and self.hyperparameters.stage1_run is None:
            raise UserError("--stage=2 draws on the pictures of Stage-I: give --stage1_run=RUN of a trained --stage=1")

    def steps_per_epoch(self, num_images: int) -> int:
        return max(1, num_images // self.hyperparameters.batch_size)

    def optimizers(self, steps_per_epoch: int) -> dict:
        hp = self.hyperparameters
        epsilon = 1e-8 if self.tensorflow else TORCH_EPSILON  # TensorFlow adds it where Keras does

        def adam(name):
            schedule = Halvings(hp.learning_rate, steps_per_epoch, hp.decay_every, hp.decay_after)
            return Adam(schedule, beta_1=hp.beta_1, beta_2=0.999, epsilon=epsilon, name=f"adam_{name}")

        return {name: adam(name) for name in ("generator", *self.discriminators)}

    def _noise_widths(self) -> dict:
        hp = self.hyperparameters
        widths = {"z": hp.noise_dim, "augmentation": hp.condition_dim}
        return widths if hp.stage == 1 else {**widths, "stage1_augmentation": hp.condition_dim}

    def _noise(self, draw, suffix: str = "") -> dict:
        kind = self.hyperparameters.augmentation_noise
        truncated = kind == "truncated" or (kind == "published" and self.tensorflow)
        augment = draw.truncated_normal if truncated else draw.normal
        if kind == "none":

            def augment(name, width):
                return tf.zeros_like(draw.normal(name, width))

        return {
            name: (draw.normal if name == "z" else augment)(name + suffix, width)
            for name, width in self._noise_widths().items()
        }

    def noise(self, draw) -> dict:
        """Of the pictures that train the generator, and of those that the discriminator is shown where they differ."""
        noise = {"generator": self._noise(draw)}
        if self.tensorflow and not self.hyperparameters.shared_generator_forward:
            noise["discriminator"] = self._noise(draw, "_discriminator")
        return noise

    def condition(self, batch) -> tf.Tensor:
        """batch["embedding"] [B, captions, D] -> their mean [B, D]."""
        return tf.reduce_mean(batch["embedding"], axis=1)

    def _pictures(self, text, noise, training) -> dict:
        """images: of Stage-I, and of Stage-II behind it; mu and log_variance of the last stage."""
        if self.stage1_generator is None:
            made = self.generator(noise["z"], text, noise["augmentation"], training=training)
            images = [made["image"]]
        else:
            small = self.stage1_generator(noise["z"], text, noise["stage1_augmentation"], training=training)["image"]
            small = tf.stop_gradient(small)
            made = self.generator(small, text, noise["augmentation"], training=training)
            images = [small, made["image"]]
        return {"images": images, "mu": made["mu"], "log_variance": made["log_variance"]}

    def generate(self, text, noise) -> dict:
        """As `_pictures`; fake: the pictures [B,S,S,3] that the discriminator is shown."""
        fake = None
        if "discriminator" in noise:
            fake = self._pictures(text, noise["discriminator"], training=True)["images"][-1]
        made = self._pictures(text, noise["generator"], training=True)
        return {**made, "fake": tf.stop_gradient(made["images"][-1] if fake is None else fake)}

    def _judged_by(self, text, generated):
        return text if self.tensorflow else tf.stop_gradient(generated["mu"])

    def discriminator_losses(self, name, batch, text, generated) -> dict:
        """Real, wrong and fake pairs pass one after the other, since each has batch statistics of its own."""
        critic, condition = self.discriminators[name], self._judged_by(text, generated)
        features = critic.image_features(batch["images"][0], training=True)
        real = critic.judge(features, condition, training=True)
        wrong = self._mismatched(critic, batch, features, condition)
        fake = critic(generated["fake"], condition, training=True)
        of_wrong = [] if wrong is None else [wrong]
        logs = {
            "loss": losses.averaged_discriminator_loss([*real.values()], [*of_wrong, *fake.values()]),
            "loss_real": losses.averaged_discriminator_loss([*real.values()], []),
            "loss_fake": losses.averaged_discriminator_loss([], [*fake.values()]),
            "accuracy_real": tf.reduce_mean(tf.cast(real["conditional"] > 0, tf.float32)),
            "accuracy_fake": tf.reduce_mean(tf.cast(fake["conditional"] < 0, tf.float32)),
        }
        if wrong is not None:
            logs["loss_mismatched"] = losses.fake_loss(wrong)
            logs["accuracy_mismatched"] = tf.reduce_mean(tf.cast(wrong < 0, tf.float32))
        return logs

    def _mismatched(self, critic, batch, features, condition):
        """Logits of wrong pairs: pictures of another class; or each real picture but the last with the next one's mu.

        The second are B - 1 of the global batch, which cannot be dealt out: every replica has them all.
        """
        if not self.tensorflow:
            features, following = replicas.gather(features)[:-1], replicas.gather(condition)[1:]
            return critic.match(features, following, training=True, gathered=True)
        if not self.hyperparameters.wrong_pairs:
            return None
        return critic(batch["wrong_images"][0], condition, training=True)["conditional"]

    def generator_losses(self, batch, text, generated) -> dict:
        """The heads' terms are summed, where the discriminator's are averaged, as published."""
        fake = self.discriminator(generated["images"][-1], self._judged_by(text, generated), training=True)
        adversarial = tf.add_n([losses.real_loss(logits) for logits in fake.values()])
        if self.hyperparameters.augmentation_noise == "none":
            return {"loss": adversarial, "adversarial": adversarial}
        kl = losses.kl_divergence(generated["mu"], generated["log_variance"])
        return {"loss": adversarial + self.hyperparameters.kl_weight * kl, "adversarial": adversarial, "kl": kl}

    def sampling_noise(self, draw) -> dict:
        return self._noise(draw)

    def sample(self, text, noise) -> list:
        """Test time: running statistics, one caption's embedding a row; pictures of all stages."""
        return self._pictures(text, noise, training=False)["images"]

    def image_features(self, images) -> tf.Tensor:
        """Of the last stage: [B,S,S,3] in [-1, 1] -> [B, F]."""
        return flat(self.discriminator.image_features(images, training=False))
