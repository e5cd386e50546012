"""AttnGAN: Fine-Grained Text to Image Generation with Attentional Generative Adversarial Networks (CVPR 2018).

Xu et al. The first scale is drawn from the sentence; every further one looks, at each of its places, at the words that
matter there. Each scale has a discriminator, and the largest picture must also match its caption word by word, judged
by the frozen encoders of a trained DAMSM (`damsm`), through which the gradient reaches the picture.

AttnGAN1 has two scales, AttnGAN2 three. AttnDCGAN (`form="dcgan"`) draws the largest scale alone, without residual
blocks, and its one discriminator judges pictures with their text only.

Where the paper and the published code differ this follows the code: the discriminators are shown mismatching pairs, a
picture with the next sentence of the batch; the generator's terms are summed, not halved; the features keep their width
from scale to scale. The published mask of attention, which mixes up the captions of a batch, is a switch.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from t2i_tf import losses
from t2i_tf.config import RunConfig, option
from t2i_tf.errors import UserError
from t2i_tf.networks import encoders, matching, replicas
from t2i_tf.networks.adam import TORCH_EPSILON, Adam
from t2i_tf.networks.attention import WordAttention
from t2i_tf.networks.blocks import LogitHead, everywhere, flat
from t2i_tf.networks.composite import Composite, Network
from t2i_tf.networks.constant import constant_weights
from t2i_tf.networks.gated import (
    DiscriminatorTrunk,
    GatedConditioningAugmentation,
    GatedConvolution,
    GatedResidual,
    GeneratorStem,
    LeakyConvolution,
    ToImage,
)
from t2i_tf.papers import BatchRequest, Context


@dataclass(frozen=True)
class Hyperparameters:
    form: str = option(
        "attngan",
        "attngan: a picture and a discriminator for every scale; dcgan (AttnDCGAN): for the largest alone, judged only "
        "with its text",
        choices=("attngan", "dcgan"),
    )
    num_scales: int = option(
        3, "scales, each of twice the size of the one before: 3 is AttnGAN2, 2 is AttnGAN1", minimum=1
    )
    base_size: int = option(64, "size of the smallest scale in pixels, a power of two from 8", minimum=8)
    generator_width: int = option(32, "channels of the generator's features at every scale (GF_DIM)", minimum=1)
    discriminator_width: int = option(64, "channels of the discriminators' first layer (DF_DIM)", minimum=1)
    noise_dim: int = option(100, "width of the noise z", minimum=1)
    condition_dim: int = option(100, "width of the condition made from the sentence", minimum=1)
    residual_blocks: int = option(2, "residual blocks of each scale above the smallest", minimum=0)
    published_mask: bool = option(
        False, "attention masks words by the lengths of other captions of the batch, as the published program does"
    )
    compile_attention: bool | None = option(None, "compile attention with XLA (default: where there is a GPU)")
    damsm_run: str | None = option(None, "run folder of the trained DAMSM whose encoders are used, frozen")
    damsm_weight: float = option(5.0, "weight of the DAMSM loss (lambda): 5 on CUB, 50 on MS-COCO, 0 leaves it out")
    gamma1: float = option(4.0, "DAMSM loss: how sharply a word picks its regions")
    gamma2: float = option(5.0, "DAMSM loss: how much the best words of a caption count")
    gamma3: float = option(10.0, "DAMSM loss: how sharply matching pairs are told from the others of the batch")
    kl_weight: float = option(1.0, "weight of the condition's KL divergence from N(0, 1)")
    words: int = option(18, "longest caption in words that is trained on (MS-COCO: 12)", minimum=1)
    recurrent: str = option("lstm", "of the DAMSM: recurrent network over the words", choices=("lstm", "gru"))
    word_dim: int = option(300, "of the DAMSM: width of the word embeddings", minimum=1)
    embedding_dim: int = option(256, "of the DAMSM: width of word and sentence vectors", minimum=2)
    image_encoder: str = option(
        "inception", "of the DAMSM: inception, conv, or the SavedModel folder or TF Hub URL it was trained with"
    )
    image_encoder_width: int = option(64, "of the DAMSM: channels of the first layer of conv", minimum=1)
    aligned_corners: bool = option(
        False, "pictures are resized for Inception-v3 with aligned corners, as PyTorch 0.3 did (old runs)"
    )
    sampling: str = option(
        "shuffled",
        "shuffled: every picture once an epoch; uniform: pictures are drawn evenly",
        choices=("shuffled", "uniform"),
    )
    generator_learning_rate: float = option(2e-4, "Adam learning rate of the generator")
    discriminator_learning_rate: float = option(2e-4, "Adam learning rate of the discriminators")
    beta_1: float = option(0.5, "Adam beta 1")
    batch_size: int = option(20, "global batch size in images", minimum=2)
    epochs: int = option(600, "epochs of floor(images / batch_size) steps", minimum=1)
    ema_decay: float = option(0.999, "decay of the moving average of the generator's weights, 0 turns it off")


class AttentionStage(Composite):
    """One scale above the smallest: features [B,S,S,C] and words -> (features [B,2S,2S,C], weights [B,S,S,T]).

    What each place reads in the caption is put beside its features; residual blocks, upsampling.
    """

    def __init__(self, width: int, residual_blocks: int, published_mask: bool, jit_compile: bool | None, **kwargs):
        super().__init__(**kwargs)
        self.attention = WordAttention(published_mask, jit_compile, name="attention")
        self.residuals = [GatedResidual(2 * width, name=f"residual_{i}") for i in range(residual_blocks)]
        self.upsampling = GatedConvolution(width, upsample=True, name="upsampling")

    def call(self, features, words, lengths, training=False):
        context, weights = self.attention(features, words, lengths)
        x = tf.concat([features, context], axis=-1)
        for residual in self.residuals:
            x = residual(x, training=training)
        return self.upsampling(x, training=training), weights


class Generator(Network):
    """Noise, a sentence and its words -> pictures of all scales, or of the largest alone.

    call: z [B, noise_dim], sentence [B, D], words [B,T,D], lengths int [B] and augmentation [B, condition_dim] from
        N(0, 1) -> dict:
        images: list of [B,S,S,3] in [-1, 1], small to large;
        features: list of [B,S,S,C], one a scale;
        attention: list of [B,S,S,T], the weights of the words at each place, for each scale but the largest: they made
            the next one;
        condition, mu, log_variance: [B, condition_dim] each.

    Args:
        all_images: False for the largest picture alone.
        published_mask, jit_compile: see `WordAttention`.
    """

    def __init__(
        self,
        width: int = 32,
        num_scales: int = 3,
        base_size: int = 64,
        condition_dim: int = 100,
        residual_blocks: int = 2,
        all_images: bool = True,
        published_mask: bool = False,
        jit_compile: bool | None = None,
        name: str = "generator",
    ):
        super().__init__(name=name)
        self.sizes = [base_size * 2**i for i in range(num_scales)]
        self.conditioning = GatedConditioningAugmentation(condition_dim, name="conditioning")
        self.stem = GeneratorStem(width, base_size, name="stem")
        self.stages = [
            AttentionStage(width, residual_blocks, published_mask, jit_compile, name=f"stage_{size}")
            for size in self.sizes[1:]
        ]
        drawn = self.sizes if all_images else self.sizes[-1:]
        self.to_images = [ToImage(name=f"to_image_{size}") for size in drawn]

    def call(self, z, sentence, words, lengths, augmentation, training=False):
        condition, mu, log_variance = self.conditioning(sentence, augmentation)
        features, attention = [self.stem(tf.concat([condition, z], axis=-1), training=training)], []
        for stage in self.stages:
            made, weights = stage(features[-1], words, lengths, training=training)
            features.append(made)
            attention.append(weights)
        drawn = features[-len(self.to_images) :]
        images = [to_image(x, training=training) for to_image, x in zip(self.to_images, drawn, strict=True)]
        conditioned = {"condition": condition, "mu": mu, "log_variance": log_variance}
        return {"images": images, "features": features, "attention": attention, **conditioned}


class Discriminator(Network):
    """Is this a real picture, and is it what the sentence says?

    call: image [B,size,size,3] in [-1, 1] and sentence [B, D] -> {head: logits [B]}: "conditional" and maybe
        "unconditional".
    """

    def __init__(self, width: int = 64, size: int = 64, unconditional: bool = True, name: str = "discriminator"):
        super().__init__(name=name)
        self.trunk = DiscriminatorTrunk(width, size, name="trunk")
        self.joint = LeakyConvolution(8 * width, 3, name="joint")
        self.conditional_head = LogitHead(name="conditional_head")
        self.unconditional_head = LogitHead(name="unconditional_head") if unconditional else None

    def match(self, features, sentence, training=False, gathered=False, groups=1):
        """Logits [B] of the conditional head on features of the trunk. gathered, groups: see `BatchNormalization`."""
        joint = tf.concat([features, everywhere(sentence, features)], axis=-1)
        return self.conditional_head(self.joint(joint, training=training, gathered=gathered, groups=groups))

    def judge(self, features, sentence, training=False, groups=1) -> dict:
        """All heads on features of the trunk."""
        logits = {"conditional": self.match(features, sentence, training=training, groups=groups)}
        if self.unconditional_head is not None:
            logits["unconditional"] = self.unconditional_head(features)
        return logits

    def call(self, image, sentence, training=False):
        return self.judge(self.trunk(image, training=training), sentence, training=training)


def vocabulary_run(hyperparameters: Hyperparameters) -> str | None:
    """Encoders and vocabulary belong together: captions are read by the words of the DAMSM."""
    return hyperparameters.damsm_run


class Recipe:
    """See `t2i_tf.papers` for what each part is asked for."""

    kind = "gan"
    score_metrics = ("caption_fidelity", "r_precision", "diversity", "attention_on_petals")

    def __init__(self, hyperparameters: Hyperparameters, context: Context, judges: bool = True):
        hp = self.hyperparameters = hyperparameters
        self.context = context
        if hp.base_size & (hp.base_size - 1):
            raise UserError(f"--base_size={hp.base_size}: give a power of two, e.g. 64")
        if not context.vocabulary_size:
            raise UserError("attngan reads words: give a data set with captions")
        every_scale = hp.form == "attngan"
        self.generator = Generator(
            hp.generator_width,
            hp.num_scales,
            hp.base_size,
            hp.condition_dim,
            hp.residual_blocks,
            all_images=every_scale,
            published_mask=hp.published_mask,
            jit_compile=hp.compile_attention,
        )
        self.sizes = self.generator.sizes if every_scale else self.generator.sizes[-1:]
        self.discriminators = {
            f"discriminator_{size}": Discriminator(
                hp.discriminator_width, size, unconditional=every_scale, name=f"discriminator_{size}"
            )
            for size in (self.sizes if judges else [])
        }
        self.text_encoder = encoders.WordEncoder(
            context.vocabulary_size, hp.word_dim, hp.embedding_dim, hp.recurrent, name="text_encoder"
        )
        self.text_encoder.trainable = False
        self.networks = {"generator": self.generator, **self.discriminators, "text_encoder": self.text_encoder}
        if judges:
            self.image_encoder = self._image_encoder()
            self.matching = matching.Matching(hp.gamma1, hp.gamma2, hp.compile_attention)
            self.networks["image_encoder"] = self.image_encoder
        self.request = BatchRequest(image_sizes=tuple(self.sizes), sampling=hp.sampling, text="words", words=hp.words)
        self._build(judges)

    def _image_encoder(self) -> encoders.RegionEncoder:
        hp = self.hyperparameters
        try:
            encoder = encoders.RegionEncoder(
                hp.image_encoder,
                hp.embedding_dim,
                hp.image_encoder_width,
                aligned_corners=hp.aligned_corners,
                name="image_encoder",
            )
        except ValueError as error:
            raise UserError(f"--image_encoder={error}") from error
        encoder.trainable = False
        return encoder

    def _build(self, judges):
        hp = self.hyperparameters
        batch = {"words": tf.zeros([1, 1, hp.words], tf.int32), "word_lengths": tf.ones([1, 1], tf.int32)}
        condition = self.condition(batch)
        noise = {"z": tf.zeros([1, hp.noise_dim]), "augmentation": tf.zeros([1, hp.condition_dim])}
        images = self.generator(**condition, **noise)["images"]
        if judges:
            for discriminator, image in zip(self.discriminators.values(), images, strict=True):
                discriminator(image, condition["sentence"])
            self.image_encoder(images[-1])

    @property
    def pretrained(self) -> dict:
        """Raises UserError when the DAMSM of --damsm_run is another than the one that was built here."""
        hp = self.hyperparameters
        if hp.damsm_run is None:
            raise UserError("attngan reads captions with a trained DAMSM: give --damsm_run=RUN of --paper=damsm")
        run = RunConfig.read(hp.damsm_run)
        if run.training.paper != "damsm":
            raise UserError(f"--damsm_run={hp.damsm_run} is a run of {run.training.paper}: give one of --paper=damsm")
        run.need(
            f"--damsm_run={hp.damsm_run}",
            "text_encoder",
            "image_encoder",
            advice="give a DAMSM with both encoders (t2i-import-weights --scheme=damsm)",
        )
        theirs = run.hyperparameters
        shared = ["recurrent", "word_dim", "embedding_dim"]
        if hp.image_encoder == "conv":
            shared.append("image_encoder_width")
        differing = [f"--{name}={theirs[name]}" for name in shared if theirs[name] != getattr(hp, name)]
        if theirs.get("aligned_corners") and not hp.aligned_corners:
            differing.append("--aligned_corners")
        layout = encoders.image_layout(theirs["image_encoder"])
        if layout != encoders.image_layout(hp.image_encoder):
            differing.append(f"--image_encoder={layout}")
        if differing:
            raise UserError(f"--damsm_run={hp.damsm_run} was trained with other settings: add {' '.join(differing)}")
        if layout == "conv" and theirs["image_size"] != self.sizes[-1]:
            raise UserError(
                f"--damsm_run={hp.damsm_run} was trained on pictures of {theirs['image_size']} pixels, the largest "
                f"here have {self.sizes[-1]}: train a DAMSM of that --image_size, or change --base_size or --num_scales"
            )
        if run.context["vocabulary_size"] != self.context.vocabulary_size:
            raise UserError(
                f"--damsm_run={hp.damsm_run} knows {run.context['vocabulary_size']} words, this data set has "
                f"{self.context.vocabulary_size}: encoders and vocabulary belong together, train a DAMSM on these data"
            )
        return {name: (hp.damsm_run, name) for name in ("text_encoder", "image_encoder")}

    @property
    def whole_batch(self) -> str | None:
        weight = self.hyperparameters.damsm_weight
        return f"--damsm_weight={weight}: that loss compares all captions and pictures of a batch" if weight else None

    def steps_per_epoch(self, num_images: int) -> int:
        return max(1, num_images // self.hyperparameters.batch_size)

    def optimizers(self, steps_per_epoch: int) -> dict:
        hp = self.hyperparameters

        def adam(name):
            rate = hp.generator_learning_rate if name == "generator" else hp.discriminator_learning_rate
            return Adam(rate, beta_1=hp.beta_1, beta_2=0.999, epsilon=TORCH_EPSILON, name=f"adam_{name}")

        return {name: adam(name) for name in ("generator", *self.discriminators)}

    def noise(self, draw) -> dict:
        hp = self.hyperparameters
        return {"z": draw.normal("z", hp.noise_dim), "augmentation": draw.normal("augmentation", hp.condition_dim)}

    def condition(self, batch) -> dict:
        """batch["words"] int32 [B, 1, T], batch["word_lengths"] int32 [B, 1] -> sentence [B, D], words [B,T,D], lengths
        int32 [B]."""
        lengths = batch["word_lengths"][:, 0]
        words, sentence = self.text_encoder(batch["words"][:, 0], lengths)
        return {"sentence": sentence, "words": words, "lengths": lengths}

    def generate(self, condition, noise) -> dict:
        made = self.generator(**condition, **noise, training=True)
        return {name: made[name] for name in ("images", "mu", "log_variance")}

    def discriminator_losses(self, name, batch, condition, generated) -> dict:
        """Real and fake pictures pass together, each kind with batch statistics of its own, and wrong pairs after them.

        Wrong pairs are each real picture but the last with the next one's sentence: B - 1 of the global batch, which
        cannot be dealt out, so every replica has them all. (The published program sorts its batch by length first.)
        """
        scale, critic = list(self.discriminators).index(name), self.discriminators[name]
        sentence = condition["sentence"]
        shown = tf.concat([batch["images"][scale], generated["images"][scale]], axis=0)
        features = critic.trunk(shown, training=True, groups=2)
        logits = critic.judge(features, tf.tile(sentence, [2, 1]), training=True, groups=2)
        real, fake = ({head: tf.split(of_both, 2)[kind] for head, of_both in logits.items()} for kind in range(2))
        of_real, _ = tf.split(features, 2)
        wrong = critic.match(replicas.gather(of_real)[:-1], replicas.gather(sentence)[1:], training=True, gathered=True)

        def share(right):
            return tf.reduce_mean(tf.cast(right, tf.float32))

        return {
            "loss": losses.averaged_discriminator_loss([*real.values()], [*fake.values(), wrong]),
            "accuracy_real": share(real["conditional"] > 0),
            "accuracy_mismatched": share(wrong < 0),
            "accuracy_fake": share(fake["conditional"] < 0),
        }

    def generator_losses(self, batch, condition, generated) -> dict:
        """The sum over the scales, the DAMSM loss of the largest picture, and the KL divergence."""
        hp, images, logs = self.hyperparameters, generated["images"], {}
        total = 0.0
        for size, critic, image in zip(self.sizes, self.discriminators.values(), images, strict=True):
            fake = critic(image, condition["sentence"], training=True)
            logs[f"adversarial_{size}"] = losses.joint_generator_loss(fake, float("unconditional" in fake))
            total += logs[f"adversarial_{size}"]
        if hp.damsm_weight:
            terms = self.damsm_losses(batch, condition, images[-1])
            total += hp.damsm_weight * tf.add_n(list(terms.values()))
            logs |= terms
        logs["kl"] = losses.kl_divergence(generated["mu"], generated["log_variance"])
        return {"loss": total + hp.kl_weight * logs["kl"], **logs}

    def damsm_losses(self, batch, condition, images) -> dict:
        """Terms of the DAMSM loss of pictures [b,S,S,3] in [-1, 1]; the encoders use their running statistics."""
        with constant_weights():  # frozen, so a step need not read them again
            regions, codes = self.image_encoder(images)
        similarities = self.matching(regions, codes, condition["words"], condition["sentence"], condition["lengths"])
        own, classes = replicas.own_positions(tf.shape(codes)[0]), replicas.gather(batch["class"])
        return losses.damsm_losses(similarities, own, classes, self.hyperparameters.gamma3)

    def sampling_noise(self, draw) -> dict:
        return self.noise(draw)

    def sample(self, condition, noise) -> list:
        """Test time: running statistics."""
        return self.generator(**condition, **noise)["images"]

    def encode_captions(self, batch) -> tf.Tensor:
        """By the DAMSM: batch["words"] int32 [B,T], batch["word_lengths"] int32 [B] -> [B, embedding_dim]."""
        return self.text_encoder(batch["words"], batch["word_lengths"])[1]

    def encode_pictures(self, pictures) -> tf.Tensor:
        """By the DAMSM: uint8 [B,S,S,3] of the largest scale -> [B, embedding_dim]."""
        return self.image_encoder(tf.cast(pictures, tf.float32) / 127.5 - 1.0)[1]

    @property
    def trained_against(self) -> tuple[str, ...]:
        """Names of the encoders whose loss it was trained with: as judges they flatter."""
        return ("text_encoder", "image_encoder") if self.hyperparameters.damsm_weight else ()

    def image_features(self, images) -> tf.Tensor:
        """Of the largest scale: [B,S,S,3] in [-1, 1] -> [B, F]."""
        return flat(self.discriminators[f"discriminator_{self.sizes[-1]}"].trunk(images, training=False))

    def attend(self, condition, noise) -> dict:
        """As `sample`, and what the words' weights were on the way: {"images": list of [B,S,S,3], "attention": list of
        [B,S,S,T], sums of 1 over the words, of each scale but the largest}."""
        made = self.generator(**condition, **noise)
        return {"images": made["images"], "attention": made["attention"]}
