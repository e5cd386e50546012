"""Pictures -> captions, and where was looked for each word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from t2i_tf import papers
from t2i_tf.data.images import BadImage, centre_corner, margin_size, middle_square, opened
from t2i_tf.errors import UserError
from t2i_tf.inference.folder import VOCABULARY


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


class DescribesPictures:
    """The part of a `Run` that is a captioner's."""

    @tf.function(reduce_retracing=True, autograph=False)
    def _annotate(self, pictures):
        return self.recipe.annotations({"images": pictures})

    @tf.function(reduce_retracing=True, autograph=False)
    def _caption(self, annotations, beam_size, length_normalised):
        return self.recipe.caption({"annotations": annotations}, beam_size, length_normalised)

    @tf.function(reduce_retracing=True, autograph=False)
    def _costs(self, annotations, words, lengths):
        batch = {"annotations": annotations, "words": words[:, None], "word_lengths": lengths[:, None]}
        return self.recipe.negative_log_likelihood(batch)

    @property
    def describes(self) -> bool:
        """Whether it says what pictures show."""
        return hasattr(self.recipe, "caption")

    def _check_describes(self):
        if not self.describes:
            raise UserError(f"a run of {self.paper} describes no pictures: give the run of a captioner")
        if self.vocabulary is None:
            raise UserError(
                f"this run of {self.paper} knows no words: write those that it was trained on into the file "
                f"{VOCABULARY} of its folder, one a line in the order of their numbers"
            )

    @property
    def picture_shape(self) -> tuple[int, bool, str]:
        """What a picture file becomes before its middle is cut out, as in training: the length of its shorter side,
        whether it is squashed to a square, and by which filter of `images.FILTERS`."""
        request, context = self.recipe.request, self.config.context
        size, stored = request.image_sizes[-1], context.get("stored_size")
        margin = margin_size(size, stored, augmentation=request.augmentation) if stored else size
        return margin, bool(context.get("squashed")), context.get("resample", "bilinear")

    def prepared(self, pictures: np.ndarray | Sequence[str | Path]) -> np.ndarray:
        """Pictures as a captioner takes them: uint8 [N,S,S,3].

        Args:
            pictures: uint8 [N,H,W,3], the shorter side of which becomes S and the middle of which is cut out; or files,
                which are resized, by the same filter, and cut as the pictures of the training set were.

        Raises UserError for a file that holds no picture.
        """
        size = self.recipe.request.image_sizes[-1]
        if isinstance(pictures, np.ndarray):
            if pictures.shape[1:3] == (size, size):
                return pictures
            squares = [middle_square(Image.fromarray(picture), size) for picture in pictures]
        else:
            shape = self.picture_shape
            squares = [middle_square(_opened(path), size, *shape) for path in pictures]
        return np.stack(squares) if squares else np.zeros([0, size, size, 3], np.uint8)

    def annotations(self, pictures: np.ndarray) -> tf.Tensor:
        """uint8 [B,S,S,3], see `prepared`, -> float32 [B,L,D], what a captioner looks at; one batch of the network."""
        self._check_describes()
        return self._annotate(tf.constant(pictures))

    def seen(self, pictures: np.ndarray) -> np.ndarray:
        """[N,S,S,...] -> [N,s,s,...]: the square that the annotations cover, and so the maps of attention."""
        size = pictures.shape[1]
        side = round(size * self.recipe.seen_share)
        corner = centre_corner(size, side)
        return pictures[:, corner : corner + side, corner : corner + side]

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

    def caption_costs(self, annotations: tf.Tensor, captions: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Annotations [B,L,D] and a caption of each -> -log p of the caption float32 [B], and its words int32 [B].

        The end of a caption counts in both, a word that the vocabulary lacks is the unknown word.
        """
        self._check_describes()
        found = self._tokenizer(tf.constant(captions, tf.string))
        return self._costs(annotations, found.ids, found.lengths).numpy(), found.lengths.numpy() + 1


def _opened(path: str | Path) -> Image.Image:
    picture = opened(path)
    if isinstance(picture, BadImage):
        raise UserError(f"{path} holds no picture ({picture.reason}): give picture files, e.g. JPEG or PNG")
    return picture
