"""What a run reads of captions: vectors, and what conditions a generator."""

from __future__ import annotations

import logging
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from t2i_tf.data import records, text
from t2i_tf.errors import UserError
from t2i_tf.inference.batches import in_filled_batches
from t2i_tf.inference.folder import VOCABULARY

if TYPE_CHECKING:
    from t2i_tf.inference.run import Run

_CAPTIONS = [tf.TensorSpec([None], tf.string)]


class ReadsCaptions:
    """The part of a `Run` that takes captions."""

    def _read(self, captions) -> dict:
        """String [B] -> what the recipe reads of them, by name as in a training batch."""
        if self.reads_words:
            found = self._tokenizer(captions)
            return {"words": found.ids, "word_lengths": found.lengths}
        return {"characters": text.character_ids(captions, rule=self.recipe.hyperparameters.character_rule)}

    @tf.function(input_signature=_CAPTIONS, autograph=False)
    def _encode(self, captions):
        return self.recipe.encode_captions(self._read(captions))

    @tf.function(input_signature=_CAPTIONS, autograph=False)
    def _condition(self, captions):
        return self.recipe.condition({name: rows[:, None] for name, rows in self._read(captions).items()})

    @cached_property
    def known_words(self) -> frozenset[str]:
        """Raises UserError for a run without."""
        if self.vocabulary is None and self.config.training.data_dir:
            raise UserError(
                f"this run of {self.paper} knows no words: the file {VOCABULARY} is missing from its folder; copy it "
                "from where it was"
            )
        if self.vocabulary is None:
            raise UserError(
                f"this run of {self.paper} knows no words and reads no captions: import its text encoder along, with "
                "--captions=captions.pickle (t2i-import-weights)"
            )
        return frozenset(self.vocabulary)

    @property
    def reads_words(self) -> bool:
        """Else it reads characters, vectors of its text encoder, or nothing."""
        return self.recipe.request.text == "words"

    @property
    def reading_rule(self) -> str | tuple[str, ...]:
        """What says how captions become numbers: the words in their order, or the rule for characters."""
        return tuple(self.vocabulary) if self.reads_words else self.recipe.hyperparameters.character_rule

    @property
    def reader(self) -> Run | None:
        """The run that reads its captions: itself, or its text encoder where it has one."""
        return self.text_encoder if self.recipe.request.text == "embedding" else self if self.takes_text else None

    def _check_captions(self, captions: list[str]) -> None:
        if not self.reads_words:
            text.check(captions, self.recipe.hyperparameters.character_rule)
            return
        for caption in captions:
            text.check_words(caption, self.known_words)

    def captions_of(self, split: records.Split) -> list[list[str]]:
        """The captions of each picture of a split, less those that say nothing to the run.

        What is left out is counted and told once for a split, and no more when these captions are drawn. Raises
        UserError for a run without words.
        """
        if self.reader is None:
            return split.captions()
        if split not in self._captions_of:
            kept = self.reader._sorted_out(split)
            self._captions_of[split] = kept
            self._told.update(caption for of_one in kept for caption in of_one)
        return self._captions_of[split]

    def all_captions(self, split: records.Split, asked_by: str) -> tuple[list[str], np.ndarray]:
        """Those of `captions_of` one behind the other, and int [captions], the picture that each is of.

        Raises UserError, naming what asks for them, where there are none.
        """
        of_images = self.captions_of(split)
        captions = [caption for of_one in of_images for caption in of_one]
        if not captions:
            split.check_captions(asked_by)
            raise UserError(f"{asked_by}: {split.dataset.path} has no captions that the run can read: give another one")
        return captions, np.repeat(np.arange(split.num_images), [len(of_one) for of_one in of_images])

    def some_captions(self, split: records.Split, count: int) -> list[str]:
        """The first caption, of those of `captions_of`, of `count` pictures from all over the split, or of all."""
        captions = [of_one[0] for of_one in self.captions_of(split) if of_one]
        places = np.linspace(0, len(captions) - 1, min(count, len(captions))).astype(int)
        return [captions[place] for place in places]

    def _sorted_out(self, split) -> list[list[str]]:
        captions, unknown, total, what = split.captions(), Counter(), 0, f"{split.dataset.path} ({split.name})"
        if self.reads_words:
            said = {caption: text.words(caption) for of_one in captions for caption in of_one}
            silent = {caption for caption, found in said.items() if self.known_words.isdisjoint(found)}
            for caption in (caption for of_one in captions for caption in of_one if caption not in silent):
                total += len(said[caption])
                unknown.update(word for word in said[caption] if word not in self.known_words)
        else:
            flat = [caption for of_one in captions for caption in of_one]
            nothing = text.silent(flat, self.recipe.hyperparameters.character_rule)
            silent = {caption for caption, empty in zip(flat, nothing, strict=True) if empty}
        kept = [[caption for caption in of_one if caption not in silent] for of_one in captions]
        count = sum(map(len, captions)) - sum(map(len, kept))
        if count:
            logging.warning("%s: %d captions say nothing to the run, left out: e.g. %r", what, count, min(silent))
        if unknown:
            logging.warning(
                "%s: %d words that the run does not know, %.2f%% of the text, are left out of captions: %s%s",
                what,
                len(unknown),
                100.0 * unknown.total() / total,
                ", ".join(word for word, _ in unknown.most_common(10)),
                ", ..." if len(unknown) > 10 else "",
            )
        return kept

    @property
    def takes_text(self) -> bool:
        """False for a generator that draws from noise alone."""
        return self.recipe.request.text is not None

    def encode(self, captions: list[str], batch_size: int = 256) -> np.ndarray:
        """Captions -> sentence vectors float32 [N, D], for a run of a text encoder.

        Raises UserError for an empty caption or one without a single known character.
        """
        if not hasattr(self.recipe, "encode_captions"):
            raise UserError(f"a run of {self.paper} encodes no captions: give the run of a text encoder")
        self.need("text_encoder")
        if self.reads_words:
            _ = self.known_words  # raises without
        parts = [
            self._encode(tf.constant(captions[i : i + batch_size])).numpy() for i in range(0, len(captions), batch_size)
        ]
        return np.concatenate(parts) if parts else np.zeros([0, self.recipe.hyperparameters.embedding_dim], np.float32)

    def embed(self, captions: list[str]):
        """Captions -> what conditions the generator, arrays of N rows as `recipe.condition` nests them.

        Captions are checked first. Raises UserError for one that says nothing, or when nothing can read it.
        """
        if self.reader is None:
            raise UserError(
                "this run was trained on ready-made embeddings and has no text encoder: add one with "
                "t2i-import-weights or train with --text_encoder_run"
            )
        self.reader._check_captions([caption for caption in captions if caption not in self._told])
        if self.reads_words:
            return in_filled_batches(self._condition, captions)
        embedding = in_filled_batches(self.text_encoder._encode, captions)
        return self.recipe.condition({"embedding": tf.constant(embedding[:, None])}).numpy()

    def _conditions(self, captions: list[str] | None):
        """What conditions the generator, see `embed`; None without text."""
        if self.takes_text and captions is None:
            raise UserError(f"this run of {self.paper} draws pictures of captions: give some")
        if not self.takes_text and captions is not None:
            raise UserError(f"this run of {self.paper} was trained without text and takes no captions: leave them out")
        return self.embed(captions) if self.takes_text else None

    def tokens(self, caption: str) -> list[str]:
        """The words of a caption that the run reads."""
        return [word for word in text.words(caption) if word in self.known_words]
