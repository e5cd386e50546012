"""DAMSM: the Deep Attentional Multimodal Similarity Model (Xu et al., CVPR 2018, section 3.2), which AttnGAN rests on.

A caption becomes a vector for each word and one for the sentence, a picture a vector for each of its regions and one
for the whole; trained so that what belongs together is similar among all pairs of a batch, word by word and as a whole.
AttnGAN is conditioned on its text side and judged by both, frozen.

Where the paper and the published code differ this follows the code: gamma1 is 4; the similarity of words is not divided
by gamma2, so that long captions score higher; pairs of one class are no mismatch; the frozen Inception-v3 goes on
averaging its statistics. One moving Adam serves the whole training, where the code makes a new one every epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
import tensorflow as tf

from t2i_tf import losses
from t2i_tf.config import RunConfig, option
from t2i_tf.errors import UserError
from t2i_tf.networks import attention, encoders, matching, replicas
from t2i_tf.networks.adam import TORCH_EPSILON, Adam
from t2i_tf.papers import BatchRequest, Context, Selection


@dataclass(frozen=True)
class Hyperparameters:
    recurrent: str = option("lstm", "recurrent network over the words, both ways", choices=("lstm", "gru"))
    word_dim: int = option(300, "width of the word embeddings", minimum=1)
    embedding_dim: int = option(256, "width of word, sentence, region and picture vectors, even", minimum=2)
    words: int = option(18, "longest caption in words that is trained on (MS-COCO: 15)", minimum=1)
    dropout: float = option(0.5, "share of the word embeddings' numbers that is set to zero in training")
    image_encoder: str = option(
        "keras",
        "picture side: frozen Inception-v3 behind trained maps, its weights from keras (ImageNet), random, a weights "
        "file, a SavedModel folder or TF Hub URL, or inception (those of --init_from); or conv (small, trained along, "
        "or that of --trunk_run)",
    )
    trunk_run: str | None = option(
        None, "run folder of --paper=visual_words whose network --image_encoder=conv starts from"
    )
    frozen_trunk: bool = option(True, "keep the network of --trunk_run as it is, as Inception-v3; else train it along")
    image_encoder_width: int = option(64, "channels of the first layer of --image_encoder=conv", minimum=1)
    image_size: int = option(299, "picture size in pixels that is trained on (Inception-v3: 299)", minimum=8)
    moving_statistics: bool = option(
        True,
        "frozen Inception-v3 normalises with the statistics of each batch and goes on averaging them, as published; "
        "--nomoving_statistics: it keeps those it has (always so with TF Hub)",
    )
    aligned_corners: bool = option(
        False, "pictures are resized for Inception-v3 with aligned corners, as PyTorch 0.3 did (old runs)"
    )
    gamma1: float = option(4.0, "how sharply a word picks its regions")
    gamma2: float = option(5.0, "how much the best words of a caption count")
    gamma3: float = option(10.0, "how sharply matching pairs are told from the others of the batch")
    compile_attention: bool | None = option(None, "compile attention with XLA (default: where there is a GPU)")
    sampling: str = option(
        "shuffled",
        "shuffled: every picture once an epoch; distinct_classes: no class twice in a batch",
        choices=("shuffled", "distinct_classes"),
    )
    learning_rate: float = option(0.002, "Adam learning rate")
    beta_1: float = option(0.5, "Adam beta 1")
    decay: float = option(0.98, "factor on the learning rate after every epoch, until a tenth is left")
    restart_adam: bool = option(False, "forget Adam's moments after every epoch, as published")
    clip_norm: float = option(0.25, "largest global norm of the text encoder's gradient, 0 turns it off")
    batch_size: int = option(48, "global batch size: a pair is told from so many", minimum=2)
    epochs: int = option(
        600, "epochs of floor(images / batch_size) steps; the released encoders are of epoch 200 (CUB) and 100 (COCO)"
    )
    ema_decay: float = option(0.0, "decay of the moving average of the encoders' weights, 0 turns it off")


class DecayToATenth(keras.optimizers.schedules.LearningRateSchedule):
    """Multiplied by `decay` after every epoch for as long as it is above a tenth of where it started."""

    def __init__(self, initial: float, steps_per_epoch: int, decay: float):
        self.initial, self.steps_per_epoch, self.decay = initial, steps_per_epoch, decay
        self.decays = math.ceil(math.log(0.1) / math.log(decay)) if decay < 1.0 else 0

    def __call__(self, step):
        epoch = tf.cast(step, tf.int64) // self.steps_per_epoch
        return self.initial * self.decay ** tf.cast(tf.minimum(epoch, self.decays), tf.float32)

    def get_config(self):
        return {name: getattr(self, name) for name in ("initial", "steps_per_epoch", "decay")}


class RestartedAdam(Adam):
    """Adam that begins anew, moments and bias correction, every `restart_every` steps."""

    def __init__(self, learning_rate, restart_every: int, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.restart_every = restart_every

    def update_step(self, gradient, variable, learning_rate):
        place = self.iterations % self.restart_every
        index = self._get_variable_index(variable)
        for moment in (self._momentums[index], self._velocities[index]):
            self.assign(moment, tf.where(place == 0, tf.zeros_like(moment), moment))

        def correction(steps):
            steps = tf.cast(steps, variable.dtype)
            return tf.sqrt(1.0 - self.beta_2**steps) / (1.0 - self.beta_1**steps)

        # Adam counts all steps: its correction is exchanged for that of the steps since the restart.
        rate = learning_rate * correction(place + 1) / correction(self.iterations + 1)
        super().update_step(gradient, variable, rate)

    def get_config(self):
        return {**super().get_config(), "restart_every": self.restart_every}


class Recipe:
    """See `t2i_tf.papers` for what each part is asked for."""

    kind = "supervised"
    score_metrics = ("retrieval", "recall", "attention_on_petals")
    selection = Selection("recall", "mean_recall")
    whole_batch = "the loss of damsm compares every caption with every picture of the batch"

    def __init__(self, hyperparameters: Hyperparameters, context: Context):
        hp = self.hyperparameters = hyperparameters
        if hp.embedding_dim % 2:
            raise UserError(f"--embedding_dim={hp.embedding_dim}: each direction has half of it, give an even number")
        if not 0.0 <= hp.dropout < 1.0:
            raise UserError(f"--dropout={hp.dropout}: give a number from 0 to below 1")
        if hp.decay <= 0.0:
            raise UserError(f"--decay={hp.decay}: the learning rate is multiplied by it, give a number above 0")
        if hp.trunk_run is not None and hp.image_encoder != "conv":
            raise UserError(f"--trunk_run={hp.trunk_run} goes with --image_encoder=conv: add that, or leave it out")
        if not context.vocabulary_size:
            raise UserError("damsm reads words: give a data set with captions")
        self.request = BatchRequest(image_sizes=(hp.image_size,), sampling=hp.sampling, text="words", words=hp.words)
        self.clip_norms = {"text_encoder": hp.clip_norm} if hp.clip_norm else {}
        self.text_encoder = encoders.WordEncoder(
            context.vocabulary_size, hp.word_dim, hp.embedding_dim, hp.recurrent, name="text_encoder"
        )
        try:
            self.image_encoder = encoders.RegionEncoder(
                hp.image_encoder,
                hp.embedding_dim,
                hp.image_encoder_width,
                hp.moving_statistics,
                aligned_corners=hp.aligned_corners,
                frozen=hp.trunk_run is not None and hp.frozen_trunk,
                name="image_encoder",
            )
        except ValueError as error:
            raise UserError(f"--image_encoder={error}") from error
        self.matching = matching.Matching(hp.gamma1, hp.gamma2, hp.compile_attention)
        self.text_encoder(tf.zeros([1, hp.words], tf.int32), tf.ones([1], tf.int32))
        self.image_encoder(tf.zeros([1, hp.image_size, hp.image_size, 3]))
        self.networks = {"text_encoder": self.text_encoder, "image_encoder": self.image_encoder}

    @property
    def pretrained(self) -> dict:
        """Raises UserError when the network of --trunk_run is another than the one that was built here."""
        hp = self.hyperparameters
        if hp.trunk_run is None:
            return {}
        run = RunConfig.read(hp.trunk_run)
        if run.training.paper != "visual_words":
            raise UserError(
                f"--trunk_run={hp.trunk_run} is a run of {run.training.paper}: give one of --paper=visual_words"
            )
        for name in ("image_encoder_width", "image_size"):
            if run.hyperparameters[name] != getattr(hp, name):
                raise UserError(
                    f"--trunk_run={hp.trunk_run} was trained with other settings: add --{name}="
                    f"{run.hyperparameters[name]}"
                )
        return {"image_encoder.trunk": (hp.trunk_run, "trunk")}

    def start(self, fresh: set[str]) -> None:
        try:
            if "image_encoder" in fresh and self.image_encoder.layout == "inception":
                self.image_encoder.start()
        except ValueError as error:
            raise UserError(f"--image_encoder={error}") from error

    def steps_per_epoch(self, num_images: int) -> int:
        return max(1, num_images // self.hyperparameters.batch_size)

    def optimizers(self, steps_per_epoch: int) -> dict:
        hp = self.hyperparameters
        schedule = DecayToATenth(hp.learning_rate, steps_per_epoch, hp.decay)
        settings = {"beta_1": hp.beta_1, "beta_2": 0.999, "epsilon": TORCH_EPSILON, "name": "adam"}
        if hp.restart_adam:
            return {"encoders": RestartedAdam(schedule, steps_per_epoch, **settings)}
        return {"encoders": Adam(schedule, **settings)}

    def noise(self, draw) -> dict:
        hp = self.hyperparameters
        return {"dropout": draw.uniform("dropout", hp.words * hp.word_dim)} if hp.dropout else {}

    def _dropout_factors(self, noise):
        """[b, words * word_dim] in [0, 1) -> factors [b, words, word_dim], 0 or 1 / (1 - dropout)."""
        if "dropout" not in noise:
            return None
        hp = self.hyperparameters
        kept = tf.cast(noise["dropout"] >= hp.dropout, tf.float32)
        return tf.reshape(kept / (1.0 - hp.dropout), [-1, hp.words, hp.word_dim])

    def losses(self, batch, noise) -> dict:
        """batch["words"] int32 [b, 1, words], batch["word_lengths"] int32 [b, 1]: the pairs of all replicas' rows."""
        lengths = batch["word_lengths"][:, 0]
        words, sentences = self.text_encoder(batch["words"][:, 0], lengths, self._dropout_factors(noise), training=True)
        regions, codes = self.image_encoder(batch["images"][0], training=True)
        similarities = self.matching(regions, codes, words, sentences, lengths)
        own, classes = replicas.own_positions(tf.shape(codes)[0]), replicas.gather(batch["class"])
        terms = losses.damsm_losses(similarities, own, classes, self.hyperparameters.gamma3)
        hits = tf.equal(tf.argmax(tf.gather(similarities["sentence"], own), axis=1, output_type=tf.int32), own)
        return {"loss": tf.add_n(list(terms.values())), **terms, "accuracy": tf.reduce_mean(tf.cast(hits, tf.float32))}

    def encode_captions(self, batch) -> tf.Tensor:
        """batch["words"] int32 [B,T], batch["word_lengths"] int32 [B] -> sentence vectors [B, embedding_dim]."""
        return self.text_encoder(batch["words"], batch["word_lengths"])[1]

    def encode_pictures(self, pictures) -> tf.Tensor:
        """uint8 [B,S,S,3] of any size -> picture vectors [B, embedding_dim]. The small network sees them at the size
        that it was trained at, anti-aliased; Inception-v3 resizes on its own."""
        pictures, size = tf.cast(pictures, tf.float32) / 127.5 - 1.0, self.hyperparameters.image_size
        if self.image_encoder.layout == "conv" and pictures.shape[1:3] != (size, size):
            pictures = tf.image.resize(pictures, [size, size], antialias=True)
        return self.image_encoder(pictures)[1]

    @staticmethod
    def similarity(images, captions) -> tf.Tensor:
        """Picture vectors [I, D] and sentence vectors [J, D] -> their cosines [I, J], by which pairs are ranked."""
        return matching.sentence_similarities(images, captions)

    def attend(self, batch) -> tf.Tensor:
        """Where in its own picture each word of a caption looks: [B,T,h,w], sums of 1 over places.

        batch: "images", "words" int32 [B,T], "word_lengths" int32 [B]. Maps behind the end of a caption mean nothing.
        """
        regions, _ = self.image_encoder(batch["images"][0])
        words, _ = self.text_encoder(batch["words"], batch["word_lengths"])
        _, height, width, depth = regions.shape
        pairs = tf.reshape(regions, [-1, 1, height * width, depth]), words[:, None], batch["word_lengths"][:, None]

        def own_pair(pair):
            return attention.region_attention(*pair, self.hyperparameters.gamma1)[1][0, 0]

        maps = tf.map_fn(own_pair, pairs, fn_output_signature=tf.float32)
        return tf.reshape(maps, [-1, tf.shape(words)[1], height, width])
