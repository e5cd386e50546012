"""The functions of a text encoder's export: encode, encode_pictures, attend."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from t2i_tf.export.caption_reader import Reader
from t2i_tf.export.comparison import check_equal
from t2i_tf.export.picture_files import decoded
from t2i_tf.export.rows import in_blocks
from t2i_tf.export.signatures import TEXTS, takes
from t2i_tf.inference import BATCH_SIZE, Run
from t2i_tf.inference.batches import to_floats


class Encoding:
    """A run that turns captions, and pictures, into vectors."""

    def __init__(self, run: Run):
        run.need("text_encoder")
        self.run, self.recipe, self.reader = run, run.recipe, Reader(run)

    def examples(self) -> tuple:
        return (self.reader.read(tf.constant(self.reader.examples(BATCH_SIZE)))[0],)

    def numbers(self, inputs):
        return self.recipe.encode_captions(inputs)

    def functions(self, least: int) -> dict[str, Callable]:
        @takes(TEXTS)
        def encode(captions):
            inputs, notes = self.reader.read(captions)
            vectors = in_blocks(self.numbers, inputs, least)
            return {"vectors": tf.where((notes["problem"] != "")[:, None], 0.0, vectors), **notes}

        @takes(TEXTS)
        def encode_pictures(images):
            pictures, problem = decoded(images, self.run)
            vectors = in_blocks(self.recipe.encode_pictures, pictures, least)
            return {"vectors": tf.where((problem != "")[:, None], 0.0, vectors), "problem": problem}

        @takes(TEXTS, TEXTS)
        def attend(images, captions):
            pictures, of_picture = decoded(images, self.run)
            inputs, notes = self.reader.read(captions)
            maps = in_blocks(
                lambda rows: self.recipe.attend({**rows, "images": (rows["images"],)}),
                {**inputs, "images": to_floats(pictures)},
                least,
            )
            notes["problem"] = tf.where(of_picture != "", of_picture, notes["problem"])
            return {"attention": maps, "tokens": self.reader.tokens(captions), **notes}

        if "image_encoder" in self.run.config.untrained:
            return {"encode": encode}
        of_pictures = {"encode_pictures": encode_pictures, "attend": attend}
        return {"encode": encode, **{name: made for name, made in of_pictures.items() if hasattr(self.recipe, name)}}

    def compare(self, loaded) -> str:
        """As of `Drawing`."""
        captions = self.reader.examples(BATCH_SIZE)
        live = self.run.encode(captions)
        check_equal("encode", [loaded.encode(tf.constant(captions))["vectors"]], [live])
        alone = [loaded.encode(tf.constant(captions[row : row + 1]))["vectors"][0] for row in range(5)]
        check_equal("encode with one row", [np.stack(alone)], [live[:5]])
        return f"vectors of {len(captions)} captions, together and alone"
