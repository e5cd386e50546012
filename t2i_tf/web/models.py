"""What a page shows: the functions of an export, or of a run in memory, with words and arrays in and out."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import ExifTags, Image

from t2i_tf import export, inference, sampling
from t2i_tf.config import DemoConfig, SampleConfig
from t2i_tf.data import images, text
from t2i_tf.errors import UserError

EXAMPLES = 3
"""Captions of unseen pictures that are offered, where the run's data set is there."""

MOST_PIXELS = 50_000_000
"""Of a picture that is read."""


@dataclass(frozen=True)
class Piece:
    """A part of a caption: a word that the run reads, with its number among them; what it does not know; or what
    stands between."""

    text: str
    kind: str
    """word, unknown or between."""
    number: int | None = None


@dataclass(frozen=True)
class Drawn:
    """A caption, its picture, and where each word was looked at on the way."""

    caption: str
    seed: int
    truncation: float
    pieces: list[Piece]
    pictures: list[np.ndarray]
    """uint8 [S,S,3] of every scale, small to large."""
    attention: list[np.ndarray]
    """float32 [h,w,T] of every stage, small to large: sums of 1 over the words; empty without attention."""


@dataclass(frozen=True)
class Way:
    """The way from one caption to another."""

    captions: tuple[str, str]
    seed: int
    truncation: float
    pictures: np.ndarray
    """uint8 [steps,S,S,3], both ends included."""


@dataclass(frozen=True)
class Described:
    """A picture, its caption, and where each word was looked for."""

    seen: np.ndarray
    """uint8 [S,S,3], the part of the picture that the maps cover."""
    words: list[str]
    attention: np.ndarray | None
    """float32 [T,h,w], sums of 1 over the places; None for a captioner without attention."""


class Painter:
    """Captions (or nothing) and seeds -> pictures."""

    def __init__(self, model, about: str, examples: list[str]):
        self.model, self.about, self.examples = model, about, examples
        self.takes_text, self.attends = hasattr(model, "interpolate"), hasattr(model, "attend")

    def prepare(self) -> None:
        """Makes the graphs, so that the first visitor does not wait for them."""
        self._made("a", 0, 1.0)
        if self.takes_text:
            self._way(("a", "a"), 2, 0, 1.0)

    def _made(self, caption, seed, truncation):
        given = [tf.constant([caption])] if self.takes_text else []
        function = self.model.attend if self.attends else self.model.generate
        return function(*given, tf.constant([seed], tf.int64), tf.constant(truncation, tf.float32))

    def _way(self, captions, steps, seed, truncation):
        numbers = tf.constant(steps), tf.constant(seed, tf.int64), tf.constant(truncation, tf.float32)
        return self.model.interpolate(*map(tf.constant, captions), *numbers)

    def draw(self, caption: str, seed: int, truncation: float) -> Drawn:
        """Raises UserError for a caption that says nothing to the run."""
        made = self._made(caption, seed, truncation)
        _check(made)
        words = int(np.count_nonzero(made["tokens"][0].numpy() != b"")) if self.attends else 0
        attention = [rows[..., :words] for rows in _by_size(made, "attention")]
        return Drawn(caption, seed, truncation, _pieces(caption, made), _by_size(made, "images"), attention)

    def between(self, captions: tuple[str, str], steps: int, seed: int, truncation: float) -> Way:
        """Raises UserError as `draw`."""
        made = self._way(captions, steps, seed, truncation)
        _check(made)
        return Way(captions, seed, truncation, made["images"].numpy())


class Captioner:
    """Picture files -> captions."""

    def __init__(self, model, about: str):
        self.model, self.about = model, about

    def prepare(self) -> None:
        """As of `Painter`."""
        self._made(tf.io.encode_png(np.full([32, 32, 3], 128, np.uint8)).numpy())

    def _made(self, file):
        return self.model.caption(tf.constant([file])), self.model.see(tf.constant([file]))

    def describe(self, path: str | Path) -> Described:
        """Raises UserError for a file that is no picture, or too large."""
        made, seen = self._made(_readable(Path(path)))
        _check(made)
        words = [word.decode() for word in made["words"][0].numpy() if word]
        attention = made["attention"][0].numpy()[: len(words)] if "attention" in made else None
        return Described(seen["seen"][0].numpy(), words, attention)


def load(options: DemoConfig) -> Painter | Captioner:
    """What --run_dir or --saved_model holds. Raises UserError when it is neither, or draws and describes nothing."""
    if (options.run_dir is None) == (options.saved_model is None):
        raise UserError("give one of --run_dir=R, a run folder, and --saved_model=DIR, a folder that t2i-export wrote")
    if options.saved_model is not None:
        return _shown(*_loaded(options.saved_model), options.saved_model, [])
    run = inference.load(options.run_dir, options.weights, options.checkpoint, judges=False)
    if run.recipe.kind != "gan" and not run.describes:
        raise UserError(_nothing_to_show(f"--run_dir={options.run_dir} is a run of {run.paper}, which"))
    about = f"{run.paper}, step {run.step:,}"
    return _shown(export.in_memory(run), about, options.run_dir, _examples(run, options.run_dir))


def _shown(model, about, folder, examples):
    if hasattr(model, "generate"):
        return Painter(model, about, examples)
    if hasattr(model, "caption") and hasattr(model, "see"):
        return Captioner(model, about)
    if hasattr(model, "caption"):
        raise UserError(f"--saved_model={folder} does not say what a captioner sees: export the run again")
    if hasattr(model, "encode"):
        raise UserError(_nothing_to_show(f"--saved_model={folder}"))
    raise UserError(f"--saved_model={folder} has neither generate nor caption: give a folder that t2i-export wrote")


def _nothing_to_show(what: str) -> str:
    return f"{what} turns captions into vectors, and there is nothing to see: give a generator or a captioner"


def _loaded(folder: str) -> tuple:
    """-> the SavedModel and what it is."""
    if not (Path(folder) / "saved_model.pb").is_file():
        raise UserError(f"--saved_model={folder} is no SavedModel: give a folder that t2i-export wrote")
    try:
        model = tf.saved_model.load(folder)
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise UserError(f"--saved_model={folder} cannot be loaded ({' '.join(str(error).split())[:200]})") from None
    path = Path(folder) / "assets.extra" / "export.json"
    about = json.loads(path.read_text()) if path.is_file() else {}
    return model, f"{about['paper']}, step {about['step']:,}" if about else Path(folder).name


def _examples(run: inference.Run, run_dir: str) -> list[str]:
    """Captions that the run never saw; none when its data set is gone."""
    if run.recipe.kind != "gan" or not run.takes_text:
        return []
    try:
        return sampling.captions_of(SampleConfig(run_dir=run_dir), run)[:EXAMPLES]
    except UserError:
        return []


def _check(made: dict) -> None:
    """Raises UserError with what an export says to be wrong."""
    problems = [problem.decode() for problem in np.atleast_1d(made.get("problem", tf.constant(b"")).numpy()) if problem]
    if problems:
        raise UserError(problems[0])


def _by_size(made: dict, name: str) -> list[np.ndarray]:
    """The first row of each array "<name>_<size>", small to large, and of "<name>" last."""
    found = {int(key.rpartition("_")[2]): key for key in made if re.fullmatch(rf"{name}_\d+", key)}
    keys = [found[size] for size in sorted(found)] + ([name] if name in made else [])
    return [made[key][0].numpy() for key in keys]


def _pieces(caption: str, made: dict) -> list[Piece]:
    if "unknown_characters" in made:
        return _characters(caption, set(made["unknown_characters"][0].numpy().decode()))
    return (
        _words(caption, set(made["unknown_words"][0].numpy().decode().split(", "))) if "unknown_words" in made else []
    )


def _words(caption: str, unknown: set[str]) -> list[Piece]:
    pieces, number = [], 0
    for part in re.split(r"(\w+)", caption):
        known = [word for word in text.words(part) if word not in unknown]
        if known:
            pieces.append(Piece(part, "word", number))
        else:  # what has letters but no word is left out too: none is ASCII
            pieces.append(Piece(part, "unknown" if re.search(r"\w", part) else "between"))
        number += len(known)
    return [piece for piece in pieces if piece.text]


def _characters(caption: str, unknown: set[str]) -> list[Piece]:
    """Runs of characters that are read, and of others: unknown ones, and those behind the last one that is read."""

    def kind(place):
        outside = place >= text.TEXT_LENGTH or {*caption[place], *caption[place].lower()} & unknown
        return "unknown" if outside else "between"

    pieces: list[Piece] = []
    for place, character in enumerate(caption):
        if pieces and pieces[-1].kind == kind(place):
            pieces[-1] = Piece(pieces[-1].text + character, kind(place))
        else:
            pieces.append(Piece(character, kind(place)))
    return pieces


def _readable(path: Path) -> bytes:
    """A picture file of any kind as the JPEG or PNG that a captioner takes: its own bytes where they will do."""
    try:
        with Image.open(path) as picture:
            size, kind, mode = picture.size, picture.format, picture.mode
            upright = picture.getexif().get(ExifTags.Base.Orientation, 1) == 1
    except Exception as error:  # a decoder may raise anything on damaged bytes
        raise UserError(f"this is no picture that can be read ({images.reason(error)})") from None
    if size[0] * size[1] > MOST_PIXELS:
        raise UserError(
            f"the picture has {size[0]} x {size[1]} pixels, and {MOST_PIXELS:,} is the most: make it smaller"
        )
    picture = images.opened(path)
    if isinstance(picture, images.BadImage):
        raise UserError(f"this is no picture that can be read ({picture.reason})")
    if kind in ("JPEG", "PNG") and mode in ("RGB", "L") and upright:
        return path.read_bytes()
    return tf.io.encode_png(np.asarray(picture)).numpy()
