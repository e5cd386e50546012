"""The functions of a captioner's export: caption, see."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from t2i_tf import papers
from t2i_tf.export.comparison import check_equal
from t2i_tf.export.picture_files import decoded, example_pictures, png
from t2i_tf.export.rows import in_blocks
from t2i_tf.export.signatures import TEXTS, takes
from t2i_tf.inference import BATCH_SIZE, Run


class Captioning:
    """A run that says what pictures show."""

    def __init__(self, run: Run, beam_size: int, length_normalised: bool):
        self.run, self.recipe, self.reader = run, run.recipe, None
        self.beam_size, self.length_normalised = beam_size, length_normalised
        self.end, self.longest = papers.get(run.paper).END, papers.get(run.paper).MAX_LENGTH

    def examples(self) -> tuple:
        return (tf.constant(example_pictures(BATCH_SIZE, self.recipe.request.image_sizes[-1])),)

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

        @takes(TEXTS)
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

        @takes(TEXTS)
        def see(images):
            pictures, problem = decoded(images, self.run)
            return {"seen": self.run.seen(pictures), "problem": problem}

        return {"caption": caption, "see": see}

    def compare(self, loaded) -> str:
        """As of `Drawing`."""
        (pictures,) = self.examples()
        live = self.run.describe(pictures[:5].numpy(), self.beam_size, self.length_normalised)
        files = png(pictures[:5])
        together = loaded.caption(files)
        alone = [loaded.caption(files[row : row + 1])["captions"][0] for row in range(5)]
        for name, captions in (("caption", together["captions"].numpy()), ("caption of one picture", np.array(alone))):
            check_equal(name, [captions], [np.array([caption.encode() for caption in live.captions])])
        return "captions of 5 pictures, together and alone"
