"""Which example stands at which place of the training stream: a pure function of (seed, position).

Every place of the endless stream has its own row of random numbers, drawn from a counter-based generator (Philox), so
any place can be reached at once: a run resumed at step s sees what it would have seen, and neither thread timing nor
the batch size changes a draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from t2i_tf.errors import UserError

_DRAWS = 16
"""Uniform numbers a place owns: 4 to choose examples, 3 to augment the picture, 3 the wrong picture, then captions."""
_CAPTION_DRAWS = slice(10, 16)
MAX_CAPTIONS = 6


@dataclass(frozen=True)
class Plan:
    """One batch before anything is read; arrays of B rows."""

    images: np.ndarray
    """int64 [B]: example."""
    wrong_images: np.ndarray | None
    """int64 [B]: example of another class."""
    captions: np.ndarray
    """int64 [B, captions]: which of the example's captions, from 0."""
    augmentation: np.ndarray
    """float32 [B, 3] in [0, 1): vertical and horizontal crop offset, flip."""
    wrong_augmentation: np.ndarray

    def rows(self, first: int, last: int) -> Plan:
        """The plan of rows `first` to `last` alone, the last one excluded."""
        parts = {name: None if rows is None else rows[first:last] for name, rows in vars(self).items()}
        return Plan(**parts)


def held_out(class_ids: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which examples are left out of training to be scored on: bool [N], the same for the same classes and seed.

    `share` of each class, rounded, but at least one of a class and at least one left; none of -1, no class.
    """
    out = np.zeros(len(class_ids), bool)
    for c in np.unique(class_ids[class_ids >= 0]) if share else ():
        members = np.flatnonzero(class_ids == c)
        count = min(max(1, round(share * len(members))), len(members) - 1)
        generator = np.random.Generator(np.random.Philox(key=[seed, int(c)]))
        out[generator.permutation(members)[:count]] = True
    return out


def _choose(uniform: np.ndarray, count) -> np.ndarray:
    """Uniform numbers in [0,1) -> integers below count."""
    return np.minimum((uniform * count).astype(np.int64), np.asarray(count) - 1)


class Sampler:
    """Plans the batches of a split.

    Args:
        class_ids: int [N], -1 for no class; caption_counts: int [N].
        sampling: "shuffled", "class", "uniform", "distinct_classes" or "caption_length", as in
            `t2i_tf.papers.BatchRequest`.
        batch_size: rows of a global batch.
        captions: captions drawn for a row, 0 for none; at most 6.
        caption_lengths: int [all captions], words of each in the order of the images, for "caption_length"; captions of
            more than `longest_caption` words, and empty ones, are left out.

    Raises:
        UserError: the data has no classes or too few images for the sampling asked for.
    """

    def __init__(
        self,
        class_ids: np.ndarray,
        caption_counts: np.ndarray,
        sampling: str,
        batch_size: int,
        *,
        wrong_images: bool = False,
        captions: int = 1,
        captions_with_replacement: bool = True,
        caption_lengths: np.ndarray | None = None,
        longest_caption: int = 0,
        seed: int = 0,
    ):
        if captions > MAX_CAPTIONS:
            raise UserError(f"--captions_averaged={captions}: at most {MAX_CAPTIONS} captions are drawn for an image")
        self.sampling, self.batch_size, self.seed = sampling, batch_size, seed
        self.wrong_images, self.captions, self.with_replacement = wrong_images, captions, captions_with_replacement
        self.caption_counts = caption_counts.astype(np.int64)
        self.num_images = len(class_ids)
        if sampling == "shuffled":  # as published, a picture without a class is of its own
            class_ids = np.where(class_ids < 0, class_ids.max(initial=0) + 1 + np.arange(self.num_images), class_ids)
        self.by_class = [np.flatnonzero(class_ids == c) for c in np.unique(class_ids[class_ids >= 0])]
        if sampling in ("class", "distinct_classes") and not self.by_class:
            raise UserError(
                "the data set has no classes to draw by: give some when preparing it, or --sampling=shuffled or "
                "uniform where the paper has it (char_cnn_rnn: --objective=captions)"
            )
        if wrong_images and (self.num_images if sampling == "uniform" else len(self.by_class)) < 2:
            raise UserError(
                "the split has a single class (or picture), but mismatching pairs need two: prepare more data"
            )
        if captions and self.num_images and self.caption_counts.min() < (1 if captions_with_replacement else captions):
            raise UserError(
                f"an image has {self.caption_counts.min()} captions, but {captions} are drawn for each: "
                "lower --captions_averaged or prepare data with more captions"
            )
        self.class_of = np.full(self.num_images, -1)
        for place, members in enumerate(self.by_class):
            self.class_of[members] = place
        self._in_order = np.concatenate([np.empty(0, np.int64), *self.by_class])
        self._class_sizes = np.array([len(members) for members in self.by_class])
        self._epoch_order: tuple[int, np.ndarray] | None = None
        if sampling == "caption_length":
            self._image_of = np.repeat(np.arange(self.num_images), self.caption_counts)
            self._place_of = np.arange(len(self._image_of)) - np.repeat(
                np.cumsum(self.caption_counts) - self.caption_counts, self.caption_counts
            )
            usable = [n for n in np.unique(caption_lengths) if 0 < n <= longest_caption]
            self.by_length = [np.flatnonzero(caption_lengths == n) for n in usable]
            if not self.by_length:
                raise UserError(f"no caption of the data set has 1 to {longest_caption} words: prepare other captions")

    def plan(self, step: int) -> Plan:
        """The batch of a step, counted from 0."""
        first = step * self.batch_size
        bits = np.random.Philox(key=self.seed, counter=[first * (_DRAWS // 4), 0, 0, 0])
        draws = np.random.Generator(bits).random((self.batch_size, _DRAWS))
        if self.sampling == "caption_length":
            rows = self._of_one_length(step)
            images, wrong, captions = self._image_of[rows], None, self._place_of[rows][:, None]
        else:
            images, wrong = self._examples(step, first, draws)
            captions = self._captions(images, draws[:, _CAPTION_DRAWS])
        return Plan(images, wrong, captions, draws[:, 4:7].astype(np.float32), draws[:, 7:10].astype(np.float32))

    def _examples(self, step, first, draws):
        if self.sampling == "uniform":
            images = _choose(draws[:, 0], self.num_images)
            other = (images + 1 + _choose(draws[:, 1], self.num_images - 1)) % self.num_images
            return images, other if self.wrong_images else None
        if self.sampling == "shuffled":
            images = np.array([self._shuffled(place) for place in range(first, first + self.batch_size)])
            return images, self._of_other_classes(images, draws[:, 1]) if self.wrong_images else None
        distinct = self.sampling == "distinct_classes"
        classes = self._distinct_classes(step) if distinct else _choose(draws[:, 0], len(self.by_class))
        images = self._members(classes, draws[:, 2])
        if not self.wrong_images:
            return images, None
        other = (classes + 1 + _choose(draws[:, 1], len(self.by_class) - 1)) % len(self.by_class)
        return images, self._members(other, draws[:, 3])

    def _of_one_length(self, step):
        """The captions of a step's batch, all of one length. Lengths take turns, in another order every epoch; the last
        batch of a length begins again at its first captions."""
        batches = [-(-len(members) // self.batch_size) for members in self.by_length]
        epoch, place = divmod(step, sum(batches))
        order = self._permutation(len(batches), 3, epoch)
        turns = [(turn, length) for turn in range(max(batches)) for length in order if turn < batches[length]]
        turn, length = turns[place]
        members = self.by_length[length]
        shuffled = members[self._permutation(len(members), 4 + int(length), epoch)]
        return shuffled[np.arange(turn * self.batch_size, (turn + 1) * self.batch_size) % len(members)]

    def _of_other_classes(self, images, draws):
        """Each picture of another class is as likely as any other, so large classes are drawn more often."""
        classes = self.class_of[images]
        sizes, starts = self._class_sizes[classes], (np.cumsum(self._class_sizes) - self._class_sizes)[classes]
        places = _choose(draws, self.num_images - sizes)
        return self._in_order[np.where(places < starts, places, places + sizes)]

    def _members(self, classes, draws):
        return np.array(
            [self.by_class[c][_choose(u, len(self.by_class[c]))] for c, u in zip(classes, draws, strict=True)]
        )

    def _permutation(self, count, stream, number):
        return np.random.Generator(np.random.Philox(key=[self.seed, stream], counter=[0, 0, 0, number])).permutation(
            count
        )

    def _shuffled(self, place):
        epoch, offset = divmod(place, self.num_images)
        order = self._epoch_order  # several threads may plan: each keeps to what it has seen
        if order is None or order[0] != epoch:
            order = self._epoch_order = (epoch, self._permutation(self.num_images, 1, epoch))
        return order[1][offset]

    def _distinct_classes(self, step):
        """No class twice while there are enough, else every class equally often."""
        rounds = -(-self.batch_size // len(self.by_class))
        order = self._permutation(len(self.by_class), 2, step)
        return np.tile(order, rounds)[: self.batch_size]

    def _captions(self, images, draws):
        counts = self.caption_counts[images][:, None]
        if self.with_replacement or self.captions <= 1:
            return _choose(draws[:, : self.captions], counts)
        picked = np.zeros((len(images), self.captions), np.int64)
        for row, count in enumerate(counts[:, 0]):
            left = list(range(count))
            for column in range(self.captions):
                picked[row, column] = left.pop(int(_choose(draws[row, column], len(left))))
        return picked
