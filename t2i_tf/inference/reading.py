"""What a run reads of captions: vectors, and what conditions a generator."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from t2i_tf.data import text
from t2i_tf.errors import UserError
from t2i_tf.inference.batches import in_filled_batches

_CAPTIONS = [tf.TensorSpec([None], tf.string)]


class ReadsCaptions:
    """The part of a `Run` that takes captions."""

    def _read(self, captions) -> dict:
        """String [B] -> what the recipe reads of them, by name as in a training batch."""
        if self.recipe.request.text == "words":
            found = self._tokenizer(captions)
            return {"words": found.ids, "word_lengths": found.lengths}
        return {"characters": text.character_ids(captions, rule=self.recipe.hyperparameters.character_rule)}

    @tf.function(input_signature=_CAPTIONS, autograph=False)
    def _encode(self, captions):
        return self.recipe.encode_captions(self._read(captions))

    @tf.function(input_signature=_CAPTIONS, autograph=False)
    def _condition(self, captions):
        return self.recipe.condition({name: rows[:, None] for name, rows in self._read(captions).items()})

    def _known_words(self) -> set[str]:
        if self.vocabulary is None:
            raise UserError(
                f"this run of {self.paper} knows no words and reads no captions: import its text encoder along, with "
                "--captions=captions.pickle (t2i-import-weights)"
            )
        return set(self.vocabulary)

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
        if self.recipe.request.text == "words":
            self._known_words()
        parts = [
            self._encode(tf.constant(captions[i : i + batch_size])).numpy() for i in range(0, len(captions), batch_size)
        ]
        return np.concatenate(parts) if parts else np.zeros([0, self.recipe.hyperparameters.embedding_dim], np.float32)

    def embed(self, captions: list[str]):
        """Captions -> what conditions the generator, arrays of N rows as `recipe.condition` nests them.

        Captions are checked first. Raises UserError for one that says nothing, or when nothing can read it.
        """
        if self.recipe.request.text == "words":
            known = self._known_words()
            for caption in captions:
                text.check_words(caption, known)
            return in_filled_batches(self._condition, captions)
        if self.text_encoder is None:
            raise UserError(
                "this run was trained on ready-made embeddings and has no text encoder: add one with "
                "t2i-import-weights or train with --text_encoder_run"
            )
        text.check(captions, self.text_encoder.recipe.hyperparameters.character_rule)
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
        known = set(self.vocabulary)
        return [word for word in text.words(caption) if word in known]
