"""Records -> batches: read, decode, crop, flip, size pyramid, captions, mismatched pictures.

Pictures leave as uint8, as the published loaders hand on PIL images; networks scale them to [-1, 1] on the device.
The order and every augmentation are planned by `t2i_tf.data.sampling`, so the stream can start at any step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import tensorflow as tf

from t2i_tf.data import records, text
from t2i_tf.data.images import margin_size
from t2i_tf.data.sampling import Sampler
from t2i_tf.errors import UserError

as_written = tf.autograph.experimental.do_not_convert
"""Of functions whose Python has no branch on a tensor: converting them takes seconds before the first batch."""


def box_windows(boxes: tf.Tensor, shapes: tf.Tensor) -> tf.Tensor:
    """The square of 1.5 times the longer side of a box around its centre, clipped to the picture.

    Boxes [B,4] (x, y, width, height) and picture shapes int32 [B,2] (height, width) -> windows int32 [B,4] (top, left,
    height, width); the published rule of StackGAN, StackGAN++ and AttnGAN, truncations included.
    """
    x, y, width, height = tf.unstack(tf.cast(boxes, tf.int32), axis=1)
    radius = tf.cast(tf.cast(tf.maximum(width, height), tf.float32) * 0.75, tf.int32)
    centre_x, centre_y = (2 * x + width) // 2, (2 * y + height) // 2
    top, bottom = tf.maximum(0, centre_y - radius), tf.minimum(shapes[:, 0], centre_y + radius)
    left, right = tf.maximum(0, centre_x - radius), tf.minimum(shapes[:, 1], centre_x + radius)
    return tf.stack([top, left, bottom - top, right - left], axis=1)


def _resize(images: tf.Tensor, size) -> tf.Tensor:
    """uint8 [...,H,W,3] -> uint8 [...,*size,3]: anti-aliased bilinear, rounded, as PIL does."""
    resized = tf.image.resize(tf.cast(images, tf.float32), size, method="bilinear", antialias=True)
    return tf.cast(tf.round(tf.clip_by_value(resized, 0.0, 255.0)), tf.uint8)


class _Decoder:
    """Parsed records -> pictures of the sizes asked for.

    What is arithmetic is done for the whole batch; the pictures themselves pass one by one, unrolled in one graph,
    which runs them side by side. A graph for each picture, as `unbatch` and `map` would make, costs several times what
    it takes to decode a picture of 64 pixels.
    """

    def __init__(self, sizes: tuple[int, ...], stored_size: int, use_box: bool, augmentation: bool):
        self.sizes, self.size, self.use_box = sizes, sizes[-1], use_box
        self.margin_size = margin_size(self.size, stored_size, use_box, augmentation)
        self.resizes = use_box or stored_size != self.margin_size

    def __call__(self, examples: dict, augmentation: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """examples: of `records.parse` for B records, B known; augmentation: float32 [B,3], crop offsets in [0, 1] of
        the margin, vertical and horizontal, and a flip below 0.5. -> uint8 [B,S,S,3] for each size, small to large."""
        whole = tf.cast(tf.stack([examples["height"], examples["width"]], axis=1), tf.int32)
        windows = tf.concat([tf.zeros_like(whole), whole], axis=1)
        if self.use_box:
            windows = box_windows(examples["box"], whole)
        shapes = windows[:, 2:]
        if self.resizes:
            shapes = shapes * self.margin_size // tf.reduce_min(shapes, axis=1, keepdims=True)
        spare = tf.cast(shapes - self.size, tf.float32)
        corners = tf.cast(tf.minimum(tf.floor(augmentation[:, :2] * (spare + 1.0)), spare), tf.int32)
        if not self.resizes:  # then the cut alone is decoded
            windows = tf.concat([corners, tf.fill(tf.shape(corners), self.size)], axis=1)
        rows = (examples["image"], windows, shapes, corners, augmentation[:, 2] < 0.5)
        pictures = tf.stack([self._picture(*row) for row in zip(*map(tf.unstack, rows), strict=True)])
        return tuple(pictures if size == self.size else _resize(pictures, [size, size]) for size in self.sizes)

    def _picture(self, jpeg, window, shape, corner, flip):
        image = tf.io.decode_and_crop_jpeg(jpeg, window, channels=3, dct_method="INTEGER_ACCURATE")
        if self.resizes:
            image = tf.slice(_resize(image, shape), tf.concat([corner, [0]], 0), [self.size, self.size, 3])
        image = tf.ensure_shape(image, [self.size, self.size, 3])
        return tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)  # far faster than a negative stride


def _options(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)


def _check_size(split: records.Split, size: int, augmentation: bool) -> None:
    """Raises UserError for pictures stored at fewer pixels than are needed."""
    stored = split.dataset.manifest["image_size"]
    if stored < size:
        raise UserError(
            f"the data set was prepared at {stored} pixels, {size} are needed: prepare it again with "
            f"--image_size={margin_size(size, stored, augmentation=augmentation)}"
        )


def check_boxes(split: records.Split) -> None:
    """Raises UserError when pictures cannot be cropped around boxes while training."""
    path, manifest = split.dataset.path, split.dataset.manifest
    if manifest["crop"] == "box":
        raise UserError(f"--box_crop: the pictures of {path} are cropped already: leave the flag out")
    without = split.num_images - manifest["splits"][split.name]["boxes"]
    if without:
        raise UserError(
            f"--box_crop: {without:,} of the {split.num_images:,} pictures of split {split.name} of {path} have no "
            "bounding box: leave the flag out, or prepare the data set with all boxes"
        )


def batches(
    split: records.Split,
    request,
    batch_size: int,
    *,
    seed: int = 0,
    start_step: int = 0,
    embeddings: np.ndarray | None = None,
    features: np.ndarray | None = None,
    annotations: np.ndarray | None = None,
    character_rule: str = "lower_zero",
    vocabulary: Sequence[str] | None = None,
    box_crop: bool = False,
    captions_read: np.ndarray | None = None,
    share: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """The endless stream of training batches from `start_step` on.

    Args:
        split: the records; request: a `t2i_tf.papers.BatchRequest`; batch_size: global, in rows.
        embeddings: float [all captions, D], rows in the order of the split's captions (request.text "embedding").
        features: float [N, views, F], cached features that stand for the pictures.
        annotations: float16 [N,L,D], cached annotations that stand for the pictures (request.annotations).
        character_rule, vocabulary: how captions are read (request.text "characters", "words").
        captions_read: bool [all captions], those that are drawn (None: all); every image has one.
        share: (k, n) cuts every batch into n blocks of rows and yields, and reads, block k alone: what worker k of n
            trains on. The blocks together are the batch that one worker would get.

    Returns a dataset of dicts: "images" and "wrong_images" (tuples of uint8 [B,S,S,3], small to large), "class" int32
    [B] (a picture without one is a class of its own, below -1), "embedding" float32 [B,captions,D], "characters" int32
    [B,captions,201], "words" int32 [B,captions,words] with "word_lengths" int32 [B,captions], "features" float32 [B,F],
    "annotations" float16 [B,L,D].
    """
    captions = request.captions if request.text else 0
    counts, lengths = split.caption_counts, _lengths(split) if request.sampling == "caption_length" else None
    if captions_read is not None:
        counts = counts_of(captions_read, split)
        lengths = None if lengths is None else lengths[captions_read]
        places = np.flatnonzero(captions_read)
        first = np.cumsum(counts) - counts
    sampler = Sampler(
        split.class_ids,
        counts,
        request.sampling,
        batch_size,
        wrong_images=request.wrong_images,
        captions=captions,
        captions_with_replacement=request.captions_with_replacement,
        caption_lengths=lengths,
        longest_caption=request.longest_caption,
        seed=seed,
    )
    with_pictures = request.pictures and features is None and annotations is None
    with_captions = request.text in ("characters", "words")
    with_records = with_pictures or with_captions
    if request.pictures:  # those that features or annotations stand for, too
        _check_size(split, request.image_sizes[-1], request.augmentation)
    if request.image_views > 2 * len(VIEWS):
        raise UserError(
            f"--image_views={request.image_views}: a picture has {2 * len(VIEWS)} fixed views, give no more"
        )
    if box_crop:
        check_boxes(split)
    whole_batch, part, batch_size = batch_size, share[0], batch_size // share[1]

    def fetch(step):
        """All that Python does for a batch: plan it and read its bytes."""
        plan = sampler.plan(int(step)).rows(part * batch_size, (part + 1) * batch_size)
        starts, picked = split.caption_offsets[plan.images][:, None], plan.captions
        if captions_read is not None:
            picked = places[first[plan.images][:, None] + picked] - starts
        empty = np.zeros(0, np.float32)
        rows = np.array(split.read(plan.images), object) if with_records else np.array([b""] * batch_size, object)
        wrong = np.array(split.read(plan.wrong_images), object) if request.wrong_images else rows
        embedding = feature = empty
        if request.text == "embedding":
            embedding = np.asarray(embeddings[starts + picked], np.float32)
        if features is not None:
            view = np.minimum((plan.augmentation[:, 0] * features.shape[1]).astype(int), features.shape[1] - 1)
            feature = np.asarray(features[plan.images, view], np.float32)
        if annotations is not None:
            feature = np.asarray(annotations[plan.images], np.float16)
        classes = split.class_ids[plan.images]
        classes = np.where(classes < 0, -2 - plan.images, classes).astype(np.int32)
        augmentation = plan.augmentation if request.augmentation else np.tile(CENTRE, (batch_size, 1))
        return rows, wrong, augmentation, plan.wrong_augmentation, picked, classes, embedding, feature

    def read(step):
        feature_kind = tf.float32 if annotations is None else tf.float16
        kinds = (tf.string, tf.string, tf.float32, tf.float32, tf.int64, tf.int32, tf.float32, feature_kind)
        rows, wrong, augmentation, wrong_augmentation, picked, classes, embedding, feature = tf.numpy_function(
            fetch, [step], kinds, stateful=False
        )
        batch = {
            "record": tf.ensure_shape(rows, [batch_size]),
            "class": tf.ensure_shape(classes, [batch_size]),
            "augmentation": tf.ensure_shape(augmentation, [batch_size, 3]),
        }
        if request.wrong_images:
            batch["wrong_record"] = tf.ensure_shape(wrong, [batch_size])
            batch["wrong_augmentation"] = tf.ensure_shape(wrong_augmentation, [batch_size, 3])
        if request.text == "embedding":
            batch["embedding"] = tf.ensure_shape(embedding, [batch_size, captions, embeddings.shape[-1]])
        elif with_captions:
            batch["picked"] = tf.ensure_shape(picked, [batch_size, captions])
            batch["step"] = step
        if features is not None:
            batch["features"] = tf.ensure_shape(feature, [batch_size, features.shape[-1]])
        if annotations is not None:
            batch["annotations"] = tf.ensure_shape(feature, [batch_size, *annotations.shape[1:]])
        return batch

    tokenizer = text.WordTokenizer(vocabulary, request.unknown_words) if request.text == "words" else None
    stored_size, decoder = split.dataset.manifest["image_size"], None
    if with_pictures:
        decoder = _Decoder(request.image_sizes, stored_size, box_crop, request.augmentation)

    def decode(batch):
        """The batch as it leaves; several are made side by side."""
        out = {name: batch[name] for name in ("class", "embedding", "features", "annotations") if name in batch}
        for prefix in ("", "wrong_"):
            if f"{prefix}record" in batch:
                examples = records.parse(batch[f"{prefix}record"])
                if with_pictures:
                    out[f"{prefix}images"] = decoder(examples, batch[f"{prefix}augmentation"])
                if not prefix and with_captions:
                    picked = tf.gather(examples["captions"], batch["picked"], batch_dims=1)
                    out |= tokenize(tf.reshape(picked, [-1]), batch["step"])
        return out

    def tokenize(picked, step):
        if request.text == "characters":
            ids = text.character_ids(picked, rule=character_rule)
            return {"characters": tf.reshape(ids, [batch_size, captions, text.TEXT_LENGTH])}
        found = tokenizer(picked)
        ids, lengths = found.ids, found.lengths
        if request.words:
            draw = tf.stack([tf.constant(seed, tf.int64), step])
            ids, lengths = text.drawn_words(
                found, request.words, draw, part * batch_size * captions, whole_batch * captions
            )
        return {
            "words": tf.reshape(ids, [batch_size, captions, request.words or tf.shape(ids)[1]]),
            "word_lengths": tf.reshape(lengths, [batch_size, captions]),
        }

    steps = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
    stream = steps.map(as_written(read)).map(as_written(decode), num_parallel_calls=tf.data.AUTOTUNE)
    return _options(stream).prefetch(tf.data.AUTOTUNE)


def steps_of_lengths(split: records.Split, request, batch_size: int) -> int:
    """Batches of an epoch with sampling "caption_length": the captions of each length fill batches of their own."""
    lengths = _lengths(split)
    counts = np.bincount(lengths[(lengths > 0) & (lengths <= request.longest_caption)])
    return int(np.sum(-(-counts // batch_size)))


def counts_of(captions: np.ndarray, split: records.Split) -> np.ndarray:
    """bool [all captions] -> int64 [N], how many of each image are set."""
    return np.diff(np.concatenate([[0], np.cumsum(captions)])[split.caption_offsets])


@lru_cache(maxsize=1)
def _lengths(split: records.Split) -> np.ndarray:
    """int [all captions]: words of each."""
    return np.array([len(text.words(caption)) for caption in split.all_captions()])


CENTRE = np.array([0.5, 0.5, 1.0], np.float32)
"""Augmentation that is none: the middle of the picture, not mirrored."""

VIEWS = ((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))
"""Crop offsets of the fixed views 0 to 4, the centre and the corners; 5 to 9 are the same mirrored."""


def views(
    split: records.Split,
    image_size: int,
    batch_size: int,
    view: int = 0,
    *,
    box_crop: bool = False,
    chosen: np.ndarray | None = None,
    augmentation: bool = True,
) -> tf.data.Dataset:
    """Every picture once and in order, or those of the numbers `chosen` [N] in theirs.

    augmentation: as in the `BatchRequest` of whom they are shown to; without, they are cut out of no larger ones.

    Returns a dataset of uint8 [<=batch_size,S,S,3] of one fixed view (0: the centre).
    """
    _check_size(split, image_size, augmentation)
    decoder = _Decoder((image_size,), split.dataset.manifest["image_size"], box_crop, augmentation)
    chosen = np.arange(split.num_images) if chosen is None else np.asarray(chosen, np.int64)
    augmentation = [*VIEWS[view % len(VIEWS)], 1.0 if view < len(VIEWS) else 0.0]
    shape = [None, image_size, image_size, 3]

    def part(first, last, rows):
        def fetch(start):
            return np.array(split.read(chosen[start : start + rows]), object)

        def decode(start):
            found = tf.ensure_shape(tf.numpy_function(fetch, [start], tf.string, stateful=False), [rows])
            return tf.ensure_shape(decoder(records.parse(found), tf.constant([augmentation] * rows))[-1], shape)

        starts = tf.data.Dataset.range(first, last, rows)
        return starts.map(as_written(decode), num_parallel_calls=tf.data.AUTOTUNE)

    rest = len(chosen) % batch_size
    stream = part(0, len(chosen) - rest, batch_size)
    if rest:
        stream = stream.concatenate(part(len(chosen) - rest, len(chosen), rest))
    return _options(stream).prefetch(tf.data.AUTOTUNE)
