"""`t2i-export`: a trained run -> a SavedModel that takes strings and numbers, and needs nothing of this package.

Tokenizer, vocabulary, text encoder, noise and networks are inside. Its functions are

    generators      generate, generate_png, attend (where places look at words), interpolate (with text)
    captioners      caption, see
    text encoders   encode, encode_pictures, attend (where words look at places)

each a signature and, in Python, a method of the loaded object. docs/serving.md says what they take and give.

A picture follows from its caption and seed, whatever stands beside them in a batch, and is that of `t2i-sample` to the
bit. Kernels make that hard: for another number of rows they may add in another order. `t2i-sample` always passes 32
rows; a server that did so for one caption would be slow. So batches are filled up to one of ROWS, and it is measured,
before anything is written, from which of them on all numbers agree to the last bit. (Seen on a CPU: powers of two did,
from 1 or 2 on, 17 and 31 rows did not.)
"""

from __future__ import annotations

import functools
import json
import math
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from t2i_tf import papers
from t2i_tf.config import ExportConfig
from t2i_tf.data import text
from t2i_tf.data.images import margin_size
from t2i_tf.data.orientation import upright
from t2i_tf.errors import UserError
from t2i_tf.inference import BATCH_SIZE, Run, load, to_uint8

MOST_WORDS = 64
"""Known words of a caption; of more it is said that they are too many. (Papers train on 12 to 18.)"""

GREY = 128
"""Every value of the picture of a caption that says nothing."""

ROWS = (1, 2, 4, 8, 16, BATCH_SIZE)
"""Rows that pass the networks at a time."""


class InGraphDraw:
    """`inference.SeedDraw` with seeds that are a tensor, int64 [B]: the same numbers, to the bit."""

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


class Reader:
    """Captions, string [B] -> what a run reads of them, and what is to be said about them."""

    def __init__(self, run: Run):
        words = run.recipe.request.text == "words"
        self.vocabulary = run.vocabulary if words else None
        self.tokenizer = text.WordTokenizer(run.vocabulary) if words else None
        self.rule = None if words else run.recipe.hyperparameters.character_rule

    def read(self, captions: tf.Tensor) -> tuple[dict, dict]:
        """-> inputs of `encode_captions`, rows of numbers; and notes:
        problem: string [B], empty where there is none, else as `t2i-sample` would refuse the caption;
        unknown_words or unknown_characters: string [B], what was left out of each, joined by ", ".
        """
        empty = tf.strings.strip(captions) == ""
        inputs, notes, silent, why = self._words(captions) if self.tokenizer else self._characters(captions)
        problem = tf.where(silent, why, notes.pop("problem", ""))
        problem = tf.where(empty, "the caption is empty: write what the picture shows", problem)
        return inputs, {"problem": problem, **notes}

    def _characters(self, captions):
        ids = text.character_ids(captions, self.rule)
        silent = ~tf.reduce_any((ids > 0) & (ids != text.ALPHABET.index(" ") + 1), axis=1)
        why = "the caption has no character the text encoder knows: write it in English"
        return {"characters": ids}, {"unknown_characters": text.unknown_characters(captions, self.rule)}, silent, why

    def _words(self, captions):
        found, (words, known) = self.tokenizer(captions), self._sorted_out(captions)
        unknown = tf.strings.reduce_join(tf.ragged.boolean_mask(words, ~known), axis=-1, separator=", ")
        lengths = tf.minimum(found.lengths, MOST_WORDS)
        problem = tf.where(
            found.lengths > MOST_WORDS, f"the caption has more than {MOST_WORDS} words: shorten it", tf.constant("")
        )
        why = "the caption has no word that this run was trained on: use words of its data set"
        notes = {"problem": problem, "unknown_words": unknown}
        return {"words": _columns(found.ids), "word_lengths": lengths}, notes, found.lengths == 0, why

    def examples(self, count: int) -> list[str]:
        """Captions of one to twelve words for tests of an export."""
        words = self.vocabulary or sorted(text.ALPHABET.strip())
        draw = np.random.default_rng(0)
        return [" ".join(draw.choice(words, 1 + number % 12)) for number in range(count)]

    def tokens(self, captions: tf.Tensor) -> tf.Tensor:
        """The words that are read, string [B,T], "" behind the last one; T as of `read`."""
        return _columns(tf.ragged.boolean_mask(*self._sorted_out(captions)).to_tensor(""))

    def _sorted_out(self, captions):
        """-> the words of each caption, ragged [B, words], and which of them are known."""
        words = text.tokenize(captions)
        return words, words.with_flat_values(self.tokenizer.table.lookup(words.flat_values) > 0)


def _columns(rows: tf.Tensor) -> tf.Tensor:
    """[B,T] -> one column at least, since recurrences need a step, and no more than MOST_WORDS."""
    missing = tf.maximum(0, 1 - tf.shape(rows)[1])
    empty = tf.constant("" if rows.dtype == tf.string else 0, rows.dtype)
    return tf.pad(rows, [[0, 0], [0, missing]], constant_values=empty)[:, :MOST_WORDS]


def in_blocks(function: Callable, rows, least: int):
    """The function of a nest of arrays of B rows, BATCH_SIZE at a time; its nest of arrays of B rows.

    The last block is filled up with zeros to the next of ROWS that is at least `least`.
    """
    count = tf.shape(tf.nest.flatten(rows)[0])[0]
    rest = count % BATCH_SIZE
    sizes = tf.constant([size for size in ROWS if size >= least])
    wanted = tf.reduce_min(tf.where(sizes >= rest, sizes, BATCH_SIZE))
    missing = tf.where((rest > 0) | (count == 0), wanted - rest, 0)
    rows = tf.nest.map_structure(lambda x: tf.pad(x, [[0, missing], *[[0, 0]] * (x.shape.rank - 1)]), rows)
    specs = tf.nest.map_structure(lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), rows)
    of_block = tf.function(function, autograph=False).get_concrete_function(specs)

    def array(of):
        return tf.TensorArray(of.dtype, 0, True, infer_shape=False, element_shape=[None, *of.shape[1:]])

    def step(block, made):
        part = tf.nest.map_structure(lambda x: x[block * BATCH_SIZE : (block + 1) * BATCH_SIZE], rows)
        written = tf.nest.map_structure(lambda array, x: array.write(block, x), made, of_block(part))
        return block + 1, written

    made = tf.nest.map_structure(array, of_block.structured_outputs)
    blocks = (count + missing + BATCH_SIZE - 1) // BATCH_SIZE
    _, made = tf.while_loop(lambda block, _: block < blocks, step, (0, made), parallel_iterations=1)
    return tf.nest.map_structure(lambda array: array.concat()[:count], made)


def agreeing_rows(function: Callable, rows) -> int:
    """The smallest of ROWS from which on what the function makes of a row is the same to the bit, on this machine.

    rows: tuple of nests of arrays of BATCH_SIZE rows, its arguments.
    """
    specs = tf.nest.map_structure(lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), list(rows))
    function, least = tf.function(function, specs, autograph=False), BATCH_SIZE

    def made(count):
        outputs = function(*tf.nest.map_structure(lambda x: x[:count], rows))
        return [x.numpy() for x in tf.nest.flatten(outputs)]

    whole = made(BATCH_SIZE)
    for count in reversed(ROWS[:-1]):
        if not all(np.array_equal(part, x[:count]) for part, x in zip(made(count), whole, strict=True)):
            break
        least = count
    return least


def _takes(*specs) -> Callable:
    """Decorates a function of tensors of these kinds and shapes."""
    return functools.partial(
        tf.function, input_signature=[tf.TensorSpec(shape, kind) for kind, shape in specs], autograph=False
    )


_TEXTS, _SEEDS, _TEXT, _SEED = (tf.string, [None]), (tf.int64, [None]), (tf.string, []), (tf.int64, [])
_STEPS, _TRUNCATION = (tf.int32, []), (tf.float32, [])


def _png(images: tf.Tensor) -> tf.Tensor:
    return tf.map_fn(tf.io.encode_png, images, fn_output_signature=tf.string)


def _as_png(made: dict) -> dict:
    """The largest pictures as PNG files; by TensorFlow Serving's rule, "_bytes" makes them base64 in JSON."""
    notes = {name: rows for name, rows in made.items() if not name.startswith("images")}
    return {"png_bytes": _png(made["images"]), **notes}


def _straight(ends: tf.Tensor, shares: tf.Tensor) -> tf.Tensor:
    """As `inference` has it: two rows -> [len(shares), ...] between them; of whole numbers, the larger on the way."""
    shares = tf.reshape(shares, [-1, *[1] * (ends.shape.rank - 1)])
    if ends.dtype.is_integer:
        between = tf.reduce_max(ends, axis=0, keepdims=True)
        return tf.where(shares == 0.0, ends[:1], tf.where(shares == 1.0, ends[1:], between))
    return (1.0 - shares) * ends[:1] + shares * ends[1:]


class Drawing:
    """A run that draws pictures."""

    def __init__(self, run: Run):
        self.run, self.recipe, self.reader = run, run.recipe, None
        if run.takes_text:
            reads_words = self.recipe.request.text == "words"
            if not reads_words and run.text_encoder is None:
                raise UserError(
                    "this run was trained on ready-made embeddings and has no text encoder: add one with "
                    "t2i-import-weights or train with --text_encoder_run"
                )
            self.reader = Reader(run if reads_words else run.text_encoder)

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
        if "words" in inputs:
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
        @_takes(_SEEDS, _TRUNCATION)
        def generate(seeds, truncation):
            return self._named(self._drawn(self._pictures, {}, seeds, truncation, least))

        @_takes(_SEEDS, _TRUNCATION)
        def generate_png(seeds, truncation):
            return _as_png(generate(seeds, truncation))

        return {"generate": generate, "generate_png": generate_png}

    def _with_text(self, least):
        drawn = _takes(_TEXTS, _SEEDS, _TRUNCATION)

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

        @_takes(_TEXT, _TEXT, _STEPS, _SEED, _TRUNCATION)
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

        made = exported(loaded.generate, slice(None))
        _check("generate", [made.get(f"images_{images.shape[1]}", made["images"]) for images in live], live)
        for row in range(len(seeds)):
            alone = exported(loaded.generate, slice(row, row + 1))["images"]
            _check("generate with one row", [alone], [live[-1][row : row + 1]])
        pictures = [tf.io.decode_png(png) for png in exported(loaded.generate_png, slice(None))["png_bytes"]]
        _check("generate_png", pictures, live[-1])
        return f"{len(seeds)} pictures of {len(live)} scales, together and alone"


class Captioning:
    """A run that says what pictures show."""

    def __init__(self, run: Run, beam_size: int, length_normalised: bool):
        self.run, self.recipe, self.reader = run, run.recipe, None
        self.beam_size, self.length_normalised = beam_size, length_normalised
        self.end, self.longest = papers.get(run.paper).END, papers.get(run.paper).MAX_LENGTH

    def examples(self) -> tuple:
        return (tf.constant(_example_pictures(BATCH_SIZE, self.recipe.request.image_sizes[-1])),)

    def numbers(self, pictures):
        """All captions as long as the longest possible, so that blocks can be joined."""
        annotations = self.recipe.annotations({"images": pictures})
        found = self.recipe.caption({"annotations": annotations}, self.beam_size, self.length_normalised)
        missing = self.longest - tf.shape(found.ids)[1]

        def long(x, length=self.longest):
            padded = tf.pad(x, [[0, 0], [0, missing], *[[0, 0]] * (x.shape.rank - 2)])
            return tf.ensure_shape(padded, [None, length, *x.shape[2:]])

        made = {"ids": long(found.ids), "costs": found.costs}
        if found.attention is not None:
            side = math.isqrt(annotations.shape[1])  # the maps of a square picture are square
            made["attention"] = tf.reshape(long(found.attention), [-1, self.longest, side, side])
        return made

    def functions(self, least: int) -> dict[str, Callable]:
        names = tf.constant(["", "UNK", *self.run.vocabulary])

        @_takes(_TEXTS)
        def caption(images):
            pictures, problem = decoded(images, self.run)
            made = in_blocks(self.numbers, pictures, least)
            ended = tf.cumsum(tf.cast(made["ids"] == self.end, tf.int32), axis=1) > 0
            words = tf.where(ended | (problem != "")[:, None], "", tf.gather(names, made["ids"]))
            longest = tf.reduce_max(tf.reduce_sum(tf.cast(words != "", tf.int32), axis=1))
            found = {"words": words[:, :longest], "costs": made["costs"], "problem": problem}
            if "attention" in made:
                found["attention"] = made["attention"][:, :longest]
            return {"captions": tf.strings.strip(tf.strings.reduce_join(words, axis=1, separator=" ")), **found}

        @_takes(_TEXTS)
        def see(images):
            pictures, problem = decoded(images, self.run)
            return {"seen": self.run.seen(pictures), "problem": problem}

        return {"caption": caption, "see": see}

    def compare(self, loaded) -> str:
        """As of `Drawing`."""
        (pictures,) = self.examples()
        live = self.run.describe(pictures[:5].numpy(), self.beam_size, self.length_normalised)
        files = _png(pictures[:5])
        together = loaded.caption(files)
        alone = [loaded.caption(files[row : row + 1])["captions"][0] for row in range(5)]
        for name, captions in (("caption", together["captions"].numpy()), ("caption of one picture", np.array(alone))):
            _check(name, [captions], [np.array([caption.encode() for caption in live.captions])])
        return "captions of 5 pictures, together and alone"


class Encoding:
    """A run that turns captions, and pictures, into vectors."""

    def __init__(self, run: Run):
        self.run, self.recipe, self.reader = run, run.recipe, Reader(run)

    def examples(self) -> tuple:
        return (self.reader.read(tf.constant(self.reader.examples(BATCH_SIZE)))[0],)

    def numbers(self, inputs):
        return self.recipe.encode_captions(inputs)

    def functions(self, least: int) -> dict[str, Callable]:
        @_takes(_TEXTS)
        def encode(captions):
            inputs, notes = self.reader.read(captions)
            vectors = in_blocks(self.numbers, inputs, least)
            return {"vectors": tf.where((notes["problem"] != "")[:, None], 0.0, vectors), **notes}

        @_takes(_TEXTS)
        def encode_pictures(images):
            pictures, problem = decoded(images, self.run)
            vectors = in_blocks(self.recipe.encode_pictures, pictures, least)
            return {"vectors": tf.where((problem != "")[:, None], 0.0, vectors), "problem": problem}

        @_takes(_TEXTS, _TEXTS)
        def attend(images, captions):
            pictures, of_picture = decoded(images, self.run)
            inputs, notes = self.reader.read(captions)
            scaled = tf.cast(pictures, tf.float32) / 127.5 - 1.0
            maps = in_blocks(
                lambda rows: self.recipe.attend({**rows, "images": (rows["images"],)}),
                {**inputs, "images": scaled},
                least,
            )
            notes["problem"] = tf.where(of_picture != "", of_picture, notes["problem"])
            return {"attention": maps, "tokens": self.reader.tokens(captions), **notes}

        attends = {"attend": attend} if hasattr(self.recipe, "attend") else {}
        return {"encode": encode, "encode_pictures": encode_pictures, **attends}

    def compare(self, loaded) -> str:
        """As of `Drawing`."""
        captions = self.reader.examples(BATCH_SIZE)
        live = self.run.encode(captions)
        _check("encode", [loaded.encode(tf.constant(captions))["vectors"]], [live])
        alone = [loaded.encode(tf.constant(captions[row : row + 1]))["vectors"][0] for row in range(5)]
        _check("encode with one row", [np.stack(alone)], [live[:5]])
        return f"vectors of {len(captions)} captions, together and alone"


def decoded(files: tf.Tensor, run: Run) -> tuple[tf.Tensor, tf.Tensor]:
    """Bytes of JPEG or PNG files, string [B] -> uint8 [B,S,S,3] as `Run.prepared` makes them, and problems [B].

    Turned upright by EXIF. Equal to it where nothing is resized, else within rounding: Pillow rounds between rows and
    columns. What is no such file gives a grey picture and a problem; a damaged one fails, as TensorFlow decodes it.
    """
    size, context = run.recipe.request.image_sizes[-1], run.config.context
    margin = margin_size(size, context["stored_size"]) if context.get("stored_size") else size
    start = tf.strings.substr(files, 0, 3)
    is_picture = (start == b"\xff\xd8\xff") | (start == b"\x89PN")

    def one(file):
        # Reads PNG too; this is how Pillow decodes, TensorFlow's own way differs by some levels.
        picture = upright(tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE"), file)
        shape = tf.shape(picture)[:2]
        wanted = tf.fill([2], margin) if context.get("squashed") else shape * margin // tf.reduce_min(shape)

        def resized():
            x = tf.image.resize(picture, wanted, antialias=True)
            return tf.cast(tf.round(tf.clip_by_value(x, 0.0, 255.0)), tf.uint8)

        picture = tf.cond(tf.reduce_all(shape == wanted), lambda: picture, resized)
        top, left = tf.unstack((wanted - size + 1) // 2)  # as `images.centre_corner`
        return tf.ensure_shape(picture[top : top + size, left : left + size], [size, size, 3])

    def maybe(row):
        file, good = row
        return tf.cond(good, lambda: one(file), lambda: tf.fill([size, size, 3], tf.constant(GREY, tf.uint8)))

    pictures = tf.map_fn(maybe, (files, is_picture), fn_output_signature=tf.TensorSpec([size, size, 3], tf.uint8))
    return pictures, tf.where(is_picture, "", "this is no JPEG or PNG file")


def _example_pictures(count: int, size: int) -> np.ndarray:
    """Smooth random colours, uint8 [count,size,size,3]."""
    coarse = np.random.default_rng(0).uniform(0, 255, [count, 4, 4, 3])
    return np.asarray(tf.image.resize(coarse, [size, size], "bicubic").numpy().clip(0, 255), np.uint8)


class ExportDiffers(UserError):
    """What was exported gives other numbers than the live run."""


def _check(name: str, exported, live) -> None:
    """Raises ExportDiffers for arrays that differ."""
    for one, other in zip(exported, live, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        if one.shape != other.shape or not np.array_equal(one, other):
            differing = int((one != other).sum()) if one.shape == other.shape else "all"
            raise ExportDiffers(
                f"{name}: the export gives other results than the live model ({differing} of {other.size} values): "
                "nothing was written"
            )


def _serving(run: Run, options: ExportConfig):
    if run.recipe.kind == "gan":
        return Drawing(run)
    if run.describes:
        return Captioning(run, options.beam_size, options.length_normalised)
    return Encoding(run)


def export(options: ExportConfig) -> Iterator[str]:
    """Writes the SavedModel; yields the lines to print. Raises UserError, and leaves nothing behind then."""
    out = Path(options.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out={out} exists already: give a new folder, or remove it")
    run = load(options.run_dir, options.weights, options.checkpoint)
    serving = _serving(run, options)
    beside = out.with_name(out.name + ".partial")
    try:
        loaded, seconds, equal, least = _compared(serving, options.least_rows, beside)
        (beside / "assets.extra").mkdir()
        about = {"paper": run.paper, "step": run.step, "least_rows": least}
        (beside / "assets.extra" / "export.json").write_text(json.dumps(about, indent=2) + "\n")
        beside.replace(out)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    yield f"{run.paper} of step {run.step}, loaded again and compared: equal to the live model in {equal}"
    for name, function in loaded.signatures.items():
        yield f"  {name}({_shapes(function.structured_input_signature[1])}) -> {_shapes(function.structured_outputs)}"
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    yield f"{size / 1e6:.1f} MB in {out}; loads in {seconds:.1f} s; at least {least} at a time pass the networks"
    yield f"next: saved_model_cli show --dir={out} --tag_set=serve --all"


def _compared(serving, least_rows: int | None, folder: Path) -> tuple:
    """Writes and loads again. Returns what was loaded, the seconds that took, what was equal, and rows at a time."""
    seconds = 0.0

    def written(least):
        nonlocal seconds
        shutil.rmtree(folder, ignore_errors=True)
        save(serving, least, folder)
        began = time.perf_counter()
        loaded = tf.saved_model.load(str(folder))
        seconds = time.perf_counter() - began
        return loaded

    loaded, equal, least = _first_equal(serving, least_rows, written)
    return loaded, seconds, equal, least


def in_memory(run: Run) -> tf.Module:
    """What loading an export of the run would give, without writing one; compared with the run as an export is.

    Raises UserError for a run that cannot be exported.
    """
    serving = _serving(run, ExportConfig())
    return _first_equal(serving, None, lambda least: _module(serving, serving.functions(least)))[0]


def _first_equal(serving, least_rows: int | None, made: Callable) -> tuple:
    """What is made with the fewest rows at a time with which it equals the live run.

    Measured agreement holds for the rows it was measured on, and may miss a last bit in others: then it takes more.
    """
    measured = least_rows or agreeing_rows(serving.numbers, serving.examples())
    allowed = [least_rows] if least_rows else [rows for rows in ROWS if rows >= measured]
    for least in allowed:
        model = made(least)
        try:
            return model, serving.compare(model), least
        except ExportDiffers:
            if least == allowed[-1]:
                raise


def _module(serving, functions: dict[str, Callable]) -> tf.Module:
    """The functions as methods, beside the table of words that they use."""
    module = tf.Module()
    module.tokenizer = getattr(serving.reader, "tokenizer", None)
    for name, function in functions.items():
        setattr(module, name, function)
    return module


def save(serving, least: int, folder: Path) -> None:
    """Writes the functions with the variables and tables they use, and no other."""
    functions = serving.functions(least)
    traced = {name: function.get_concrete_function() for name, function in functions.items()}
    used = {id(v): v for function in traced.values() for v in function.graph.variables}
    module = _module(serving, functions)
    module.used_variables = list(used.values())
    first = next(iter(traced.values()))
    tf.saved_model.save(module, str(folder), signatures={"serving_default": first, **traced})


def _shapes(specs: dict) -> str:
    def one(name, spec):
        sizes = ",".join("?" if size is None else str(size) for size in spec.shape)
        return f"{name} {spec.dtype.name}[{sizes}]"

    return ", ".join(one(name, specs[name]) for name in sorted(specs))
