"""The functions of a generator's export: generate, generate_png, attend, interpolate."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import tensorflow as tf

from t2i_tf.errors import UserError
from t2i_tf.export.caption_reader import Reader
from t2i_tf.export.comparison import check_equal
from t2i_tf.export.picture_files import GREY, png
from t2i_tf.export.rows import in_blocks
from t2i_tf.export.signatures import SEED, SEEDS, STEPS, TEXT, TEXTS, TRUNCATION, takes
from t2i_tf.inference import BATCH_SIZE, Run
from t2i_tf.inference.batches import to_uint8


class InGraphDraw:
    """`inference.drawing.SeedDraw` with seeds that are a tensor, int64 [B]: the same numbers, to the bit."""

    def __init__(self, seeds: tf.Tensor):
        self.seeds = seeds

    def _rows(self, draw, name, width):
        stream = tf.constant(zlib.crc32(name.encode()), tf.int64)
        rows = tf.map_fn(
            lambda seed: draw([width], tf.stack([seed, stream])), self.seeds, fn_output_signature=tf.float32
        )
        return tf.ensure_shape(rows, [None, width])

    def normal(self, name: str, width: int) -> tf.Tensor:
        """float32 [B, width]."""
        return self._rows(tf.random.stateless_normal, name, width)

    def truncated_normal(self, name: str, width: int) -> tf.Tensor:
        """As `normal`, within two standard deviations."""
        return self._rows(tf.random.stateless_truncated_normal, name, width)


class Drawing:
    """A run that draws pictures."""

    def __init__(self, run: Run, tolerance: int = 0):
        """tolerance: levels of 255 by which values may differ from those of the run."""
        self.run, self.recipe, self.tolerance, self.reader = run, run.recipe, tolerance, None
        run.need_generator()
        if run.takes_text:
            if run.reader is None:
                raise UserError(
                    "this run was trained on ready-made embeddings and has no text encoder: add one with "
                    "t2i-import-weights or train with --text_encoder_run"
                )
            self.reader = Reader(run.reader)

    def examples(self) -> tuple:
        inputs = {} if self.reader is None else self.reader.read(tf.constant(self.reader.examples(BATCH_SIZE)))[0]
        return inputs, tf.range(BATCH_SIZE, dtype=tf.int64)

    def numbers(self, inputs, seeds):
        """What `agreeing_rows` compares: pictures before they are rounded."""
        return self._sample(self._condition(inputs), self._noise(seeds, 1.0))

    def _condition(self, inputs):
        """What the reader read of B captions -> what conditions the generator; nothing of nothing."""
        if self.reader is None:
            return {}
        if self.run.reads_words:
            return self.recipe.condition({name: rows[:, None] for name, rows in inputs.items()})
        return self.recipe.condition({"embedding": self.run.text_encoder.recipe.encode_captions(inputs)[:, None]})

    def _noise(self, seeds, truncation):
        return {name: truncation * rows for name, rows in self.recipe.sampling_noise(InGraphDraw(seeds)).items()}

    def _sample(self, condition, noise):
        return self.recipe.sample(None if self.reader is None else condition, noise)

    def _pictures(self, rows):
        return [to_uint8(images) for images in self._sample(*rows)]

    def _attended(self, rows):
        made = self.recipe.attend(*rows)
        return {"images": [to_uint8(images) for images in made["images"]], "attention": made["attention"]}

    def _drawn(self, function, inputs, seeds, truncation, least):
        conditions = in_blocks(self._condition, inputs, least) if inputs else {}
        return in_blocks(function, (conditions, self._noise(seeds, truncation)), least)

    @staticmethod
    def _named(pictures, problem=None) -> dict:
        """Pictures of every scale -> "images", the largest, and "images_<size>"; grey where there is a problem."""
        if problem is not None:
            grey = (problem != "")[:, None, None, None]
            pictures = [tf.where(grey, tf.constant(GREY, tf.uint8), images) for images in pictures]
        *smaller, largest = pictures
        return {"images": largest, **{f"images_{images.shape[1]}": images for images in smaller}}

    def functions(self, least: int) -> dict[str, Callable]:
        return self._without_text(least) if self.reader is None else self._with_text(least)

    def _without_text(self, least):
        @takes(SEEDS, TRUNCATION)
        def generate(seeds, truncation):
            return self._named(self._drawn(self._pictures, {}, seeds, truncation, least))

        @takes(SEEDS, TRUNCATION)
        def generate_png(seeds, truncation):
            return _as_png(generate(seeds, truncation))

        return {"generate": generate, "generate_png": generate_png}

    def _with_text(self, least):
        drawn = takes(TEXTS, SEEDS, TRUNCATION)

        @drawn
        def generate(captions, seeds, truncation):
            inputs, notes = self.reader.read(captions)
            pictures = self._drawn(self._pictures, inputs, seeds, truncation, least)
            return {**self._named(pictures, notes["problem"]), **notes}

        @drawn
        def generate_png(captions, seeds, truncation):
            return _as_png(generate(captions, seeds, truncation))

        @drawn
        def attend(captions, seeds, truncation):
            inputs, notes = self.reader.read(captions)
            made = self._drawn(self._attended, inputs, seeds, truncation, least)
            found = {f"attention_{weights.shape[1]}": weights for weights in made["attention"]}
            found |= {"tokens": self.reader.tokens(captions), **notes}
            return {**self._named(made["images"], notes["problem"]), **found}

        @takes(TEXT, TEXT, STEPS, SEED, TRUNCATION)
        def interpolate(caption_a, caption_b, steps, seed, truncation):
            inputs, notes = self.reader.read(tf.stack([caption_a, caption_b]))
            last = tf.cast(tf.maximum(steps - 1, 1), tf.float64)
            shares = tf.cast(tf.range(tf.cast(steps, tf.float64)) / last, tf.float32)
            ends = in_blocks(self._condition, inputs, least)
            conditions = tf.nest.map_structure(lambda x: _straight(x, shares), ends)
            noise = self._noise(tf.fill([steps], seed), truncation)
            pictures = in_blocks(self._pictures, (conditions, noise), least)
            problem = tf.fill([steps], tf.where(notes["problem"][0] != "", notes["problem"][0], notes["problem"][1]))
            return {"images": self._named(pictures, problem)["images"], **notes}

        attends = {"attend": attend} if hasattr(self.recipe, "attend") else {}
        return {"generate": generate, "generate_png": generate_png, **attends, "interpolate": interpolate}

    def compare(self, loaded) -> str:
        """Draws with the export and with the live run. Returns what was equal, raises UserError for what was not."""
        captions = None if self.reader is None else self.reader.examples(5)
        seeds, truncation = [0, 1, 2, 2**31, 2**40], tf.constant(0.9)
        live = self.run.generate(captions, seeds, 0.9)

        def exported(function, rows):
            given = [] if captions is None else [tf.constant(captions[rows])]
            return function(*given, tf.constant(seeds[rows], tf.int64), truncation)

        def differing(name, pictures, wanted):
            return check_equal(name, pictures, wanted, self.tolerance)

        made = exported(loaded.generate, slice(None))
        of_scales = [made.get(f"images_{images.shape[1]}", made["images"]) for images in live]
        together = differing("generate", of_scales, live)
        alone = [exported(loaded.generate, slice(row, row + 1))["images"][0] for row in range(len(seeds))]
        apart = differing("generate with one row", alone, live[-1])
        files = exported(loaded.generate_png, slice(None))["png_bytes"]
        differing("generate_png", [tf.io.decode_png(png) for png in files], live[-1])
        equal = f"{len(seeds)} pictures of {len(live)} scales, together and alone"
        if not together + apart:
            return equal
        size = sum(images.size for images in live)
        return (
            f"{equal}, but for {together} of {size:,} values together and {apart} of {live[-1].size:,} alone, which "
            f"differ by at most {self.tolerance} of 255"
        )


def _as_png(made: dict) -> dict:
    """The largest pictures as PNG files; by TensorFlow Serving's rule, "_bytes" makes them base64 in JSON."""
    notes = {name: rows for name, rows in made.items() if not name.startswith("images")}
    return {"png_bytes": png(made["images"]), **notes}


def _straight(ends: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
    """As `inference.paths`: two rows -> [len(shares), ...] between them; of whole numbers, the larger on the way."""
    shares = tf.reshape(shares, [-1, *[1] * (ends.shape.rank - 1)])
    if ends.dtype.is_integer:
        between = tf.reduce_max(ends, axis=0, keepdims=True)
        return tf.where(shares == 0.0, ends[:1], tf.where(shares == 1.0, ends[1:], between))
    return (1.0 - shares) * ends[:1] + shares * ends[1:]
