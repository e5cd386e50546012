"""Captions as a run reads them, in graph: strings in, numbers and notes out."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from t2i_tf.data import text
from t2i_tf.inference import Run

MOST_WORDS = 64
"""Known words of a caption; of more it is said that they are too many. (Papers train on 12 to 18.)"""


class Reader:
    """Captions, string [B] -> what a run reads of them, and what is to be said about them."""

    def __init__(self, run: Run):
        self.vocabulary = run.vocabulary if run.reads_words else None
        self.tokenizer = text.WordTokenizer(run.vocabulary) if run.reads_words else None
        self.rule = None if run.reads_words else run.recipe.hyperparameters.character_rule

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
        why = "the caption has no character the text encoder knows: write it in English"
        notes = {"unknown_characters": text.unknown_characters(captions, self.rule)}
        return {"characters": ids}, notes, text.says_nothing(ids), why

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
