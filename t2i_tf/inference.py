"""Trained runs in use: load(run_dir) -> captions to vectors, captions to pictures, pictures to captions, interpolation.

Never imports training. A `Run` is also what the training loop wraps around its live networks to draw samples.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from t2i_tf import checkpoints, devices, papers
from t2i_tf.config import RunConfig
from t2i_tf.data import text
from t2i_tf.data.images import BadImage, centre_corner, margin_size, middle_square, opened
from t2i_tf.errors import UserError
from t2i_tf.networks.moving_average import MovingAverage

TEXT_ENCODER = "text_encoder"
"""Folder inside a generator's run that holds the frozen text encoder it was trained with: a small run of its own."""

VOCABULARY = "vocabulary"
"""File inside a run that reads words: the words it knows, one a line, in the order of their numbers from 1."""


BATCH_SIZE = devices.BLOCK
"""Pictures that are drawn at once on a device."""


def read_vocabulary(run_dir: str | Path) -> list[str] | None:
    """The words a run knows; None when it reads none."""
    path = Path(run_dir) / VOCABULARY
    return path.read_text(encoding="utf-8").split("\n") if path.is_file() else None


def write_vocabulary(run_dir: str | Path, vocabulary: list[str] | None) -> None:
    """The other way."""
    if vocabulary is not None:
        (Path(run_dir) / VOCABULARY).write_text("\n".join(vocabulary), encoding="utf-8")


class SeedDraw:
    """Noise for pictures to be looked at: row i follows from seed i and the noise's name, whatever its neighbours."""

    def __init__(self, seeds):
        self.seeds = [int(seed) for seed in seeds]

    def _rows(self, draw, name, width):
        stream = zlib.crc32(name.encode())
        return np.stack([draw([width], [seed, stream]).numpy() for seed in self.seeds])

    def normal(self, name: str, width: int) -> np.ndarray:
        """float32 [len(seeds), width]."""
        return self._rows(tf.random.stateless_normal, name, width)

    def truncated_normal(self, name: str, width: int) -> np.ndarray:
        """As `normal`, within two standard deviations."""
        return self._rows(tf.random.stateless_truncated_normal, name, width)


@dataclass(frozen=True)
class Descriptions:
    """What a captioner says of N pictures, and where it looked for each word; the end of a caption is no word."""

    captions: list[str]
    """Words joined by blanks."""
    costs: np.ndarray
    """float32 [N]: -log p of each, its end included."""
    attention: list[np.ndarray] | None
    """Of each picture float32 [words,h,w], which sums to 1 for a word; None for a run without attention."""
    selectors: list[np.ndarray] | None
    """Of each picture float32 [words], how much of what was seen was let through."""

    @property
    def words(self) -> list[list[str]]:
        """Of each caption; "UNK" is one that the vocabulary lacks."""
        return [caption.split() for caption in self.captions]


@dataclass
class Run:
    """A recipe with its weights, and the text encoder in front of it where it needs one."""

    config: RunConfig
    recipe: object
    step: int
    text_encoder: Run | None = None
    average: MovingAverage | None = None
    vocabulary: list[str] | None = None
    """Words that the recipe was trained on, in the order of their numbers, where it reads words."""

    @property
    def paper(self) -> str:
        return self.config.training.paper

    def __post_init__(self):
        captions = [tf.TensorSpec([None], tf.string)]
        unknown = self.recipe.request.unknown_words
        self._tokenizer = None if self.vocabulary is None else text.WordTokenizer(self.vocabulary, unknown)
        self._encode = tf.function(self._encode_batch, input_signature=captions)
        self._condition = tf.function(self._condition_batch, input_signature=captions)
        self._sample = tf.function(self._sample_batch)
        self._features = tf.function(self._features_batch, reduce_retracing=True)
        self._encode_pictures = tf.function(self._encode_pictures_batch, reduce_retracing=True)
        self._classify = tf.function(self._classify_batch, reduce_retracing=True)
        self._tell_words = tf.function(self._tell_words_batch, reduce_retracing=True)
        self._attend = tf.function(self._attend_batch)
        self._attend_pictures = tf.function(self._attend_pictures_batch)
        self._annotate = tf.function(self._annotate_batch, reduce_retracing=True)
        self._caption = tf.function(self._caption_batch, reduce_retracing=True)
        self._costs = tf.function(self._costs_batch, reduce_retracing=True)

    def _read(self, captions) -> dict:
        """String [B] -> what the recipe reads of them, by name as in a training batch."""
        if self.recipe.request.text == "words":
            found = self._tokenizer(captions)
            return {"words": found.ids, "word_lengths": found.lengths}
        return {"characters": text.character_ids(captions, rule=self.recipe.hyperparameters.character_rule)}

    def _encode_batch(self, captions):
        return self.recipe.encode_captions(self._read(captions))

    def _condition_batch(self, captions):
        return self.recipe.condition({name: rows[:, None] for name, rows in self._read(captions).items()})

    def _known_words(self) -> set[str]:
        if self.vocabulary is None:
            raise UserError(
                f"this run of {self.paper} knows no words and reads no captions: import its text encoder along, with "
                "--captions=captions.pickle (t2i-import-weights)"
            )
        return set(self.vocabulary)

    def encode(self, captions: list[str], batch_size: int = 256) -> np.ndarray:
        """Captions -> sentence vectors float32 [N, D], for a run of a text encoder.

        Raises UserError for an empty caption or one without a single known character.
        """
        if not hasattr(self.recipe, "encode_captions"):
            raise UserError(f"a run of {self.paper} encodes no captions: give the run of a text encoder")
        if self.recipe.request.text == "words":
            self._known_words()
        parts = [
            self._encode(tf.constant(captions[i : i + batch_size])).numpy() for i in range(0, len(captions), batch_size)
        ]
        return np.concatenate(parts) if parts else np.zeros([0, self.recipe.hyperparameters.embedding_dim], np.float32)

    def _encode_pictures_batch(self, pictures):
        return self.recipe.encode_pictures(pictures)

    def encode_pictures(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures uint8 [N,S,S,3] -> their vectors float32 [N, embedding_dim], to compare with those of captions."""
        return devices.rows_of(self._encode_pictures, pictures)

    def _classify_batch(self, pictures):
        return self.recipe.classify(tf.cast(pictures, tf.float32) / 127.5 - 1.0)

    def classify(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pictures uint8 [N,S,S,3] -> features float32 [N,F] and logits [N,C] of a classifier."""
        return devices.rows_of(self._classify, pictures)

    def _tell_words_batch(self, pictures):
        return self.recipe.tell_words(tf.cast(pictures, tf.float32) / 127.5 - 1.0)

    def tell_words(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures uint8 [N,S,S,3] -> float32 [N,V], how likely each word of `vocabulary` is said of them, as logits in
        its order."""
        return devices.rows_of(self._tell_words, pictures)[:, 1:]

    def embed(self, captions: list[str]):
        """Captions -> what conditions the generator, arrays of N rows as `recipe.condition` nests them.

        Captions are checked first. Raises UserError for one that says nothing, or when nothing can read it.
        """
        if self.recipe.request.text == "words":
            known = self._known_words()
            for caption in captions:
                text.check_words(caption, known)
            return _in_filled_batches(self._condition, captions)
        if self.text_encoder is None:
            raise UserError(
                "this run was trained on ready-made embeddings and has no text encoder: add one with "
                "t2i-import-weights or train with --text_encoder_run"
            )
        for caption in captions:
            text.check(caption, self.text_encoder.recipe.hyperparameters.character_rule)
        embedding = _in_filled_batches(self.text_encoder._encode, captions)
        return self.recipe.condition({"embedding": tf.constant(embedding[:, None])}).numpy()

    @property
    def takes_text(self) -> bool:
        """False for a generator that draws from noise alone."""
        return self.recipe.request.text is not None

    def _conditions(self, captions: list[str] | None):
        """What conditions the generator, see `embed`; None without text."""
        if self.takes_text and captions is None:
            raise UserError(f"this run of {self.paper} draws pictures of captions: give some")
        if not self.takes_text and captions is not None:
            raise UserError(f"this run of {self.paper} was trained without text and takes no captions: leave them out")
        return self.embed(captions) if self.takes_text else None

    def _sample_batch(self, condition, noise):
        return [to_uint8(image) for image in self.recipe.sample(condition, noise)]

    def _attend_batch(self, condition, noise):
        made = self.recipe.attend(condition, noise)
        return {"images": [to_uint8(image) for image in made["images"]], "attention": made["attention"]}

    def _attend_pictures_batch(self, pictures, captions):
        return self.recipe.attend({"images": (tf.cast(pictures, tf.float32) / 127.5 - 1.0,), **self._read(captions)})

    def noise(self, seeds, truncation: float = 1.0) -> dict:
        """int seeds [N] -> the recipe's sampling noise, arrays of N rows: a row depends on its seed alone."""
        noise = self.recipe.sampling_noise(SeedDraw(seeds))
        return {name: truncation * np.asarray(rows) for name, rows in noise.items()}

    def render(self, conditions, noise: dict, batch_size: int = BATCH_SIZE) -> list[np.ndarray]:
        """Conditions of N rows, as `embed` gives them, and noise -> pictures uint8 [N,S,S,3] of every scale, small to
        large."""
        return _in_batches(self._sample, conditions, noise, batch_size)

    def generate(self, captions: list[str] | None, seeds: list[int], truncation: float = 1.0) -> list[np.ndarray]:
        """Captions [N] and noise seeds [N] -> pictures uint8 [N,S,S,3] of every scale, small to large.

        Captions are None for a run without text. Raises UserError for captions that say nothing, or that the run does
        not take, and when the run is no generator.
        """
        if captions is not None and len(captions) != len(seeds):
            raise ValueError(f"{len(captions)} captions but {len(seeds)} seeds")
        if self.recipe.kind != "gan":
            raise UserError(f"a run of {self.paper} draws no pictures: give the run of a generator")
        return self.render(self._conditions(captions), self.noise(seeds, truncation))

    def attend(
        self, captions: list[str], seeds: list[int], truncation: float = 1.0
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """As `generate`, and where each word was looked at on the way.

        Returns pictures uint8 [N,S,S,3] of every scale, and the attention float32 [N,S,S,T] of every stage, small to
        large: sums of 1 over the words; those of a caption are its `tokens`. Raises UserError as `generate`, and for
        a paper without attention to words.
        """
        if self.recipe.kind != "gan" or not hasattr(self.recipe, "attend"):
            raise UserError(f"a run of {self.paper} draws no pictures by attention to words: give one that does")
        made = _in_batches(self._attend, self._conditions(captions), self.noise(seeds, truncation), BATCH_SIZE)
        return made["images"], made["attention"]

    def attend_pictures(self, pictures: np.ndarray, captions: list[str]) -> np.ndarray:
        """Where in its own picture each word of a caption looks: pictures uint8 [N,S,S,3] and captions [N] -> float32
        [N,T,h,w], sums of 1 over the places; behind the `tokens` of a caption it means nothing. One batch."""
        return self._attend_pictures(pictures, tf.constant(captions)).numpy()

    def tokens(self, caption: str) -> list[str]:
        """The words of a caption that the run reads."""
        known = set(self.vocabulary)
        return [word for word in text.words(caption) if word in known]

    def _features_batch(self, images):
        return self.recipe.image_features(tf.cast(images, tf.float32) / 127.5 - 1.0)

    def image_features(self, images: np.ndarray) -> np.ndarray:
        """Pictures uint8 [N,S,S,3] of the largest scale -> what its discriminator makes of them, float32 [N, F]."""
        return devices.rows_of(self._features, images)

    @property
    def describes(self) -> bool:
        """Whether it says what pictures show."""
        return hasattr(self.recipe, "caption")

    def prepared(self, pictures: np.ndarray | Sequence[str | Path]) -> np.ndarray:
        """Pictures as a captioner takes them: uint8 [N,S,S,3].

        Args:
            pictures: uint8 [N,H,W,3], the shorter side of which becomes S and the middle of which is cut out; or files,
                which are resized and cut as the pictures of the training set were.

        Raises UserError for a file that holds no picture.
        """
        size = self.recipe.request.image_sizes[-1]
        if isinstance(pictures, np.ndarray):
            if pictures.shape[1:3] == (size, size):
                return pictures
            squares = [middle_square(Image.fromarray(picture), size) for picture in pictures]
        else:
            stored, squashed = (self.config.context.get(name) for name in ("stored_size", "squashed"))
            margin = margin_size(size, stored) if stored else size
            squares = [middle_square(_opened(path), size, margin, squashed) for path in pictures]
        return np.stack(squares) if squares else np.zeros([0, size, size, 3], np.uint8)

    def annotations(self, pictures: np.ndarray) -> tf.Tensor:
        """uint8 [B,S,S,3], see `prepared`, -> float32 [B,L,D], what a captioner looks at; one batch of the network."""
        self._check_describes()
        return self._annotate(tf.constant(pictures))

    def _annotate_batch(self, pictures):
        return self.recipe.annotations({"images": pictures})

    def seen(self, pictures: np.ndarray) -> np.ndarray:
        """[N,S,S,...] -> [N,s,s,...]: the square that the annotations cover, and so the maps of attention."""
        size = pictures.shape[1]
        side = round(size * self.recipe.seen_share)
        corner = centre_corner(size, side)
        return pictures[:, corner : corner + side, corner : corner + side]

    def _check_describes(self):
        if not self.describes:
            raise UserError(f"a run of {self.paper} describes no pictures: give the run of a captioner")
        if self.vocabulary is None:
            raise UserError(
                f"this run of {self.paper} knows no words: write those that it was trained on into the file "
                f"{VOCABULARY} of its folder, one a line in the order of their numbers"
            )

    def _caption_batch(self, annotations, beam_size, length_normalised):
        return self.recipe.caption({"annotations": annotations}, beam_size, length_normalised)

    def describe_annotations(
        self, annotations: tf.Tensor, beam_size: int = 1, length_normalised: bool = False
    ) -> Descriptions:
        """See `describe`; of one batch of `annotations` [B,L,D]."""
        self._check_describes()
        found = self._caption(annotations, beam_size, length_normalised)
        captions = papers.get(self.paper).to_text(found.ids.numpy(), self.vocabulary)
        counts = [len(caption.split()) for caption in captions]
        if found.attention is None:
            return Descriptions(captions, found.costs.numpy(), None, None)
        side = math.isqrt(annotations.shape[1])  # the maps of a square picture are square
        attention = [
            rows[:count].reshape(count, side, side) for rows, count in zip(found.attention.numpy(), counts, strict=True)
        ]
        selectors = [row[:count] for row, count in zip(found.selector.numpy(), counts, strict=True)]
        return Descriptions(captions, found.costs.numpy(), attention, selectors)

    def describe(
        self,
        pictures: np.ndarray | Sequence[str | Path],
        beam_size: int = 1,
        length_normalised: bool = False,
        batch_size: int = 32,
    ) -> Descriptions:
        """Pictures -> captions, and where each word was looked for, for a run of a captioner.

        Args:
            pictures: uint8 [N,H,W,3] or files of any size, see `prepared`.
            beam_size: hypotheses kept; 1, as published, takes the likeliest word at each step.
            length_normalised: choose the caption of the least cost a word, not of the least cost.

        Raises UserError when the run is no captioner, or a file holds no picture.
        """
        self._check_describes()
        pictures = self.prepared(pictures)
        parts = [
            self.describe_annotations(self.annotations(pictures[i : i + batch_size]), beam_size, length_normalised)
            for i in range(0, len(pictures), batch_size)
        ]

        def joined(name):
            return [row for part in parts for row in getattr(part, name)]

        attends = all(part.attention is not None for part in parts)
        looked = [joined(name) if attends else None for name in ("attention", "selectors")]
        return Descriptions(joined("captions"), np.array(joined("costs"), np.float32), *looked)

    def _costs_batch(self, annotations, words, lengths):
        batch = {"annotations": annotations, "words": words[:, None], "word_lengths": lengths[:, None]}
        return self.recipe.negative_log_likelihood(batch)

    def caption_costs(self, annotations: tf.Tensor, captions: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Annotations [B,L,D] and a caption of each -> -log p of the caption float32 [B], and its words int32 [B].

        The end of a caption counts in both, a word that the vocabulary lacks is the unknown word.
        """
        self._check_describes()
        found = self._tokenizer(tf.constant(captions, tf.string))
        return self._costs(annotations, found.ids, found.lengths).numpy(), found.lengths.numpy() + 1

    def interpolate_text(
        self, first: str, second: str, steps: int, seeds: list[int], truncation: float = 1.0
    ) -> np.ndarray:
        """Pictures uint8 [len(seeds), steps, S,S,3] of the largest scale, from one caption's condition to another's."""
        shares = np.tile(np.linspace(0.0, 1.0, steps, dtype=np.float32), len(seeds))
        rows = _each(lambda ends: _straight(ends, shares), self._conditions([first, second]))
        images = self.render(rows, self.noise(np.repeat(seeds, steps), truncation))[-1]
        return images.reshape(len(seeds), steps, *images.shape[1:])

    def interpolate_noise(
        self, caption: str | None, steps: int, seeds: list[int], truncation: float = 1.0
    ) -> np.ndarray:
        """Pictures uint8 [len(seeds)-1, steps, S,S,3]: one caption or no text, noise moved from each seed to the next.

        The way is along the great circle, so that every point on it has the length of normal noise.
        """
        ends = self.noise(seeds)
        shares = np.linspace(0.0, 1.0, steps, dtype=np.float32)
        noise = {
            name: truncation * np.concatenate([_great_circle(a, b, shares) for a, b in zip(z[:-1], z[1:], strict=True)])
            for name, z in ends.items()
        }
        condition = self._conditions(None if caption is None else [caption])
        count = steps * (len(seeds) - 1)
        rows = _each(lambda of_one: np.repeat(of_one, count, axis=0), condition)
        images = self.render(rows, noise)[-1]
        return images.reshape(len(seeds) - 1, steps, *images.shape[1:])

    def save(self, folder: Path) -> None:
        """Writes a run folder with configuration and weights alone, the configuration last: it makes it a run."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        swapped = self.average is not None and self.average.swapped
        if swapped:
            self.average.swap()
        checkpoints.save_weights(folder, self.step, self.recipe.networks, self.average)
        if swapped:
            self.average.swap()
        write_vocabulary(folder, self.vocabulary)
        if self.text_encoder is not None:
            self.text_encoder.save(folder / TEXT_ENCODER)
        beside = folder / "config.json.partial"
        beside.write_text(self.config.to_json())
        beside.replace(folder / "config.json")


def to_uint8(images):
    """[-1, 1] -> 0 to 255, rounded."""
    return tf.cast(tf.round(tf.clip_by_value(images * 127.5 + 127.5, 0.0, 255.0)), tf.uint8)


def _in_filled_batches(function, captions: list[str]):
    """The function of captions [N], in batches of one size as of `Run.render`; its nest of arrays of N rows.

    Word vectors of batches with shorter captions are followed by zeros.
    """
    parts = []
    for start in range(0, len(captions), BATCH_SIZE):
        batch = captions[start : start + BATCH_SIZE]
        made, kept = function(tf.constant([*batch, *batch[:1] * (BATCH_SIZE - len(batch))])), len(batch)
        parts.append(tf.nest.map_structure(lambda rows, kept=kept: rows.numpy()[:kept], made))

    def joined(*rows):
        longest = [max(lengths) for lengths in zip(*(x.shape[1:] for x in rows), strict=True)]
        return np.concatenate(
            [np.pad(x, [(0, 0), *((0, n - m) for n, m in zip(longest, x.shape[1:], strict=True))]) for x in rows]
        )

    return tf.nest.map_structure(joined, *parts)


def _in_batches(function, conditions, noise: dict, batch_size: int):
    """The function of conditions and noise of N rows, batch by batch on all devices; its nest of arrays of N rows."""
    count = len(next(iter(noise.values())))

    # Every batch has the same size, so that a picture does not depend on its neighbours' number.
    def filled(start):
        return _each(
            lambda x: np.resize(x[start : start + batch_size], (batch_size, *x.shape[1:])).astype(x.dtype),
            (conditions, noise),
        )

    made = devices.each(function, [filled(start) for start in range(0, count, batch_size)])
    return tf.nest.map_structure(lambda *rows: np.concatenate(rows)[:count], *made)


def _opened(path: str | Path) -> Image.Image:
    picture = opened(path)
    if isinstance(picture, BadImage):
        raise UserError(f"{path} holds no picture ({picture.reason}): give picture files, e.g. JPEG or PNG")
    return picture


def _each(function, arrays):
    """The function of every array of a nest; None stays what it is."""
    return tf.nest.map_structure(lambda x: None if x is None else function(x), arrays)


def _straight(ends: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Two rows -> [len(shares), ...] between them. Of whole numbers, which are lengths of captions, the larger on the
    way: behind the end of the shorter caption stand zeros, which fade into the other's words."""
    shares = shares.reshape(-1, *[1] * (ends.ndim - 1))
    if np.issubdtype(ends.dtype, np.integer):
        return np.select([shares == 0.0, shares == 1.0], [ends[:1], ends[1:]], ends.max(axis=0, keepdims=True))
    return (1.0 - shares) * ends[:1] + shares * ends[1:]


def _great_circle(a: np.ndarray, b: np.ndarray, shares: np.ndarray) -> np.ndarray:
    cosine = np.clip(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), -1.0, 1.0)
    angle = np.arccos(cosine)
    if np.sin(angle) < 1e-6:
        return np.outer(1 - shares, a) + np.outer(shares, b)
    return (np.outer(np.sin((1 - shares) * angle), a) + np.outer(np.sin(shares * angle), b)) / np.sin(angle)


def build(config: RunConfig):
    """The recipe of a run, with fresh weights."""
    module = papers.get(config.training.paper)
    hyperparameters = papers.resolve(config.training.paper, **config.hyperparameters)
    return module.Recipe(hyperparameters, papers.Context(**config.context))


def load(run_dir: str | Path, weights: str = "best", checkpoint: str = "best") -> Run:
    """Loads a readable checkpoint of a run.

    Args:
        weights: "ema", "raw", or "best": EMA where the run keeps it.
        checkpoint: "newest", or "best": that of the best score where the run chooses by one.

    Raises UserError: no run folder, no readable checkpoint, EMA asked for and not kept.
    """
    config = RunConfig.read(run_dir)
    recipe = build(config)
    average = MovingAverage.of(recipe)
    if weights == "ema" and average is None:
        raise UserError(f"--weights=ema: {run_dir} was trained without a moving average: use --weights=raw")
    step = checkpoints.load_weights(run_dir, recipe.networks, average, newest=checkpoint == "newest")
    if average is not None and weights != "raw":
        average.swap()
    encoder = Path(run_dir) / TEXT_ENCODER
    text_encoder = load(encoder) if encoder.is_dir() else None
    return Run(config, recipe, step, text_encoder, average, read_vocabulary(run_dir))


def restore(run: Run, run_dir: str | Path, step: int) -> None:
    """Takes the weights of another step of its folder into a run, which keeps to raw or EMA as it was loaded.

    Raises UserError when there is no readable checkpoint of that step.
    """
    averaged = run.average is not None and run.average.swapped
    if averaged:
        run.average.swap()
    try:
        run.step = checkpoints.load_weights(run_dir, run.recipe.networks, run.average, newest=True, step=step)
    finally:
        if averaged:
            run.average.swap()
