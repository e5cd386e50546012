"""Captions -> words and characters, inside the graph: in tf.data and in SavedModels alike.

Only ASCII letters count in both alphabets, and only two letters outside ASCII have a lower case with an ASCII letter in
it; so text is lowered by our own rule rather than by tf.strings.lower(encoding="utf-8"), which follows the locale of
the machine (under a Turkish one "I" becomes a dotless i).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from t2i_tf.errors import UserError

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "
"""The 70 symbols of char-CNN-RNN, numbered from 1. The hyphen is there twice and the last one counts: it is 60."""

TEXT_LENGTH = 201
"""Characters that char-CNN-RNN reads."""

RULES = ("lower_zero", "demo", "port", "file_stop")

_SPACE = ALPHABET.index(" ") + 1
_INDEX = {symbol: number for number, symbol in enumerate(ALPHABET, 1)}  # a later hyphen replaces the earlier


def caption_lines(path: str) -> list[str]:
    """The captions of --captions_file, a text file, one a line; empty lines are none. Raises UserError."""
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(
            f"--captions_file={path} cannot be read ({error.strerror}): give a text file, one caption a line"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"--captions_file={path} is not UTF-8 ({error}): save it as UTF-8") from None
    captions = [line.strip() for line in lines if line.strip()]
    if not captions:
        raise UserError(f"--captions_file={path} holds no caption: write one a line")
    return captions


def character_ids(captions: tf.Tensor, rule: str = "lower_zero", length: int = TEXT_LENGTH) -> tf.Tensor:
    """UTF-8 captions, string [B] -> numbers of their characters in ALPHABET, int32 [B, length], 0 = no character.

    Longer captions are cut, shorter ones followed by zeros. `rule` says what becomes of one outside the alphabet:
        lower_zero  lower case first; 0 at its place, later characters kept (recommended)
        demo        no lower-casing, so upper case is outside; 0 at its place (the authors' demonstration programs)
        port        lower case first; a space (the PyTorch port)
        file_stop   lower case first; it ends the text (the authors' pre-indexed training files)
    """
    if rule not in RULES:
        raise ValueError(f"rule {rule!r} is none of {', '.join(RULES)}")
    captions = captions if rule == "demo" else _lower(captions)
    unknown = _SPACE if rule == "port" else 0
    # One entry for each ASCII code, one for all other characters, one for the padding.
    table = np.array([_INDEX.get(chr(code), unknown) for code in range(128)] + [unknown, 0], np.int32)
    codes = tf.strings.unicode_decode(captions, "UTF-8").to_tensor(-1, shape=[None, length])
    ids = tf.gather(table, tf.where(codes < 0, 129, tf.minimum(codes, 128)))
    if rule == "file_stop":
        ids *= tf.math.cumprod(tf.cast(ids > 0, tf.int32), axis=1)
    return ids


def unknown_characters(captions: tf.Tensor, rule: str = "lower_zero") -> tf.Tensor:
    """UTF-8 captions, string [B] -> their characters outside ALPHABET under the rule of `character_ids`, string [B]."""
    captions = captions if rule == "demo" else _lower(captions)
    known = "".join(rf"\x{ord(symbol):02x}" for symbol in sorted(set(ALPHABET)))
    return tf.strings.regex_replace(captions, f"[{known}]+", "")


def words(caption: str) -> list[str]:
    """The words of a caption by AttnGAN's rule; the twin of `tokenize` in Python.

    Lower case; runs of letters, digits and underscores; each reduced to its ASCII characters; empty ones dropped.
    """
    tokens = re.findall(r"\w+", caption.lower())
    return [word for token in tokens if (word := token.encode("ascii", "ignore").decode())]


def tokenize(captions: tf.Tensor) -> tf.RaggedTensor:
    """UTF-8 captions, string [B] -> their words as `words` finds them, ragged string [B, words]."""
    text = tf.strings.regex_replace(_lower(captions), r"[^\p{L}\p{N}_]+", " ")
    return tf.strings.split(tf.strings.regex_replace(text, r"[^\x00-\x7f]+", ""))


class WordIds(NamedTuple):
    """`ids` int32 [B, T], 0 after the end, T the longest caption; `lengths` int32 [B], known words of each;
    `unknown` int32 [B], words that were dropped because the vocabulary lacks them."""

    ids: tf.Tensor
    lengths: tf.Tensor
    unknown: tf.Tensor


class WordTokenizer(tf.Module):
    """Captions -> word ids. Word i of `vocabulary` has the id i + 1; 0 is padding ("<end>" of AttnGAN's tables).

    Unknown words are dropped, as AttnGAN does, and counted; or, with `keep_unknown`, they have the id 1 and word i has
    i + 2, as in Show, Attend and Tell. No file is needed to save it in a SavedModel.
    """

    def __init__(self, vocabulary: Sequence[str], keep_unknown: bool = False):
        super().__init__(name="word_tokenizer")
        if len(set(vocabulary)) != len(vocabulary):
            raise ValueError("the vocabulary names a word twice")
        first, unknown = (2, 1) if keep_unknown else (1, 0)
        self.size = len(vocabulary) + first
        keys = tf.constant(list(vocabulary), tf.string)
        ids = tf.range(first, self.size, dtype=tf.int64)
        self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, ids), default_value=unknown)

    def __call__(self, captions: tf.Tensor) -> WordIds:
        """UTF-8 captions, string [B]."""
        found = tokenize(captions)
        ids = found.with_flat_values(tf.cast(self.table.lookup(found.flat_values), tf.int32))
        known = tf.ragged.boolean_mask(ids, ids > 0)
        lengths = tf.cast(known.row_lengths(), tf.int32)
        return WordIds(known.to_tensor(0), lengths, tf.cast(found.row_lengths(), tf.int32) - lengths)


def drawn_words(
    found: WordIds, words: int, seed: tf.Tensor, first: int = 0, total: int | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """Captions of at most `words` words: ids int32 [B, words], lengths int32 [B]. seed: int [2].

    Of a longer caption so many words are drawn, without replacement, and stay in their order (AttnGAN's loader).
    Where these captions are those from `first` on of `total`, what is drawn is what it would be among them.
    """
    ids = tf.pad(found.ids, [[0, 0], [0, tf.maximum(0, words - tf.shape(found.ids)[1])]])
    places = tf.range(tf.shape(ids)[1])
    count, longest = tf.unstack(tf.shape(ids))
    # Word by word, so that the numbers of a caption do not depend on how long the longest of the others is.
    uniform = tf.random.stateless_uniform([longest, count if total is None else total], seed)
    drawn = tf.transpose(uniform[:, first : first + count])
    drawn += tf.cast(places >= found.lengths[:, None], tf.float32)
    kept = tf.sort(tf.math.top_k(-drawn, words).indices, axis=1)
    return tf.ensure_shape(tf.gather(ids, kept, batch_dims=1), [None, words]), tf.minimum(found.lengths, words)


def _lower(captions: tf.Tensor) -> tf.Tensor:
    """Lower case as far as ASCII letters are concerned, in every locale; invalid UTF-8 becomes U+FFFD."""
    text = tf.strings.unicode_transcode(captions, "UTF-8", "UTF-8")
    text = tf.strings.regex_replace(text, "\u0130", "i\u0307")  # capital I with a dot
    text = tf.strings.regex_replace(text, "\u212a", "k")  # the Kelvin sign
    return tf.strings.lower(text)


def says_nothing(ids: tf.Tensor) -> tf.Tensor:
    """Numbers of characters [B, length] -> bool [B]: whether there is none, or none but spaces."""
    return ~tf.reduce_any((ids > 0) & (ids != _SPACE), axis=1)


def silent(captions: Sequence[str], rule: str = "lower_zero") -> np.ndarray:
    """Bool [N]: of which captions char-CNN-RNN reads nothing, under the rule of `character_ids`."""
    parts = [captions[start : start + 4096] for start in range(0, len(captions), 4096)]
    found = [says_nothing(character_ids(tf.constant(part, tf.string), rule)).numpy() for part in parts]
    return np.concatenate([np.zeros(0, bool), *found])


def check(captions: Sequence[str], rule: str = "lower_zero") -> None:
    """Raises UserError for the first caption of which char-CNN-RNN reads nothing; warns of those that are cut."""
    for caption, nothing in zip(captions, silent(captions, rule), strict=True):
        if not caption.strip():
            raise UserError("the caption is empty: write what the picture shows")
        if nothing:
            stops = ", up to the first other one" if rule == "file_stop" else ""
            raise UserError(
                f"caption {caption!r} has no character the text encoder knows ({ALPHABET.strip()}) where it is read, "
                f"its first {TEXT_LENGTH} characters{stops}: write it in English"
            )
        if len(caption) > TEXT_LENGTH:
            logging.warning("caption of %d characters: the text encoder reads the first %d", len(caption), TEXT_LENGTH)


def check_words(caption: str, vocabulary: Collection[str]) -> None:
    """Raises UserError for a caption of which a reader of words knows none; warns of single unknown ones."""
    if not caption.strip():
        raise UserError("the caption is empty: write what the picture shows")
    unknown = [word for word in words(caption) if word not in vocabulary]
    if len(unknown) == len(words(caption)):
        raise UserError(f"caption {caption!r} has no word that this run was trained on: use words of its data set")
    if unknown:
        logging.warning("not in the vocabulary, left out of the caption: %s", ", ".join(unknown))
