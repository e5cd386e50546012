"""Records -> batches: read, decode, crop, flip, size pyramid, captions, mismatched pictures.

Pictures leave as uint8, as the published loaders hand on PIL images; networks scale them to [-1, 1] on the device.
The order and every augmentation are planned by `t2i_tf.data.sampling`, so the stream can start at any step.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from t2i_tf.data import records, text
from t2i_tf.data.sampling import Sampler
from t2i_tf.errors import UserError

CROP_RATIO = 76 / 64
"""The published loaders resize to 76/64 of the size they train on and cut a random square out of it."""


def box_crop(image: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    """The square of 1.5 times the longer side of a box (x, y, width, height) around its centre, clipped to the picture.

    uint8 [H,W,3] -> uint8 [h,w,3]; the published rule of StackGAN, StackGAN++ and AttnGAN, truncations included.
    """
    shape = tf.shape(image)
    x, y, width, height = tf.unstack(tf.cast(box, tf.int32))
    radius = tf.cast(tf.cast(tf.maximum(width, height), tf.float32) * 0.75, tf.int32)
    centre_x, centre_y = (2 * x + width) // 2, (2 * y + height) // 2
    top, bottom = tf.maximum(0, centre_y - radius), tf.minimum(shape[0], centre_y + radius)
    left, right = tf.maximum(0, centre_x - radius), tf.minimum(shape[1], centre_x + radius)
    return image[top:bottom, left:right]


def _resize(image: tf.Tensor, size) -> tf.Tensor:
    """uint8 [H,W,3] -> uint8 [*size,3]: anti-aliased bilinear, rounded, as PIL does."""
    resized = tf.image.resize(tf.cast(image, tf.float32), size, method="bilinear", antialias=True)
    return tf.cast(tf.round(tf.clip_by_value(resized, 0.0, 255.0)), tf.uint8)


def _resize_shorter_side(image: tf.Tensor, size: int) -> tf.Tensor:
    shape = tf.shape(image)[:2]
    return _resize(image, shape * size // tf.reduce_min(shape))


class _Decoder:
    """A record -> pictures of the sizes asked for."""

    def __init__(self, sizes: tuple[int, ...], stored_size: int, use_box: bool, views: int = 0):
        self.sizes, self.size, self.use_box, self.views = sizes, sizes[-1], use_box, views
        if stored_size < self.size:
            raise UserError(
                f"the data set was prepared at {stored_size} pixels, training needs {self.size}: prepare it "
                f"again with --image_size={int(self.size * CROP_RATIO)}"
            )
        # Pictures stored at the training size are used whole; larger ones are brought to 76/64 of it and cropped.
        self.margin_size = self.size if stored_size == self.size and not use_box else int(self.size * CROP_RATIO)

    def __call__(self, serialized: tf.Tensor, vertical, horizontal, flip) -> tuple[tf.Tensor, ...]:
        """vertical, horizontal: crop offsets in [0, 1] of the margin; flip: bool."""
        example = records.parse(serialized)
        image = tf.io.decode_jpeg(example["image"], channels=3, dct_method="INTEGER_ACCURATE")
        if self.use_box:
            image = tf.cond(example["has_box"], lambda: box_crop(image, example["box"]), lambda: image)
        shorter = tf.minimum(tf.shape(image)[0], tf.shape(image)[1])
        image = tf.cond(
            tf.equal(shorter, self.margin_size), lambda: image, lambda: _resize_shorter_side(image, self.margin_size)
        )
        spare = tf.cast(tf.shape(image)[:2] - self.size, tf.float32)
        top = tf.minimum(tf.cast(vertical * (spare[0] + 1.0), tf.int32), tf.cast(spare[0], tf.int32))
        left = tf.minimum(tf.cast(horizontal * (spare[1] + 1.0), tf.int32), tf.cast(spare[1], tf.int32))
        image = image[top : top + self.size, left : left + self.size]
        image = tf.cond(flip, lambda: image[:, ::-1], lambda: image)
        image = tf.ensure_shape(image, [self.size, self.size, 3])
        return tuple(image if size == self.size else _resize(image, [size, size]) for size in self.sizes)

    def view(self, serialized: tf.Tensor, number: int) -> tf.Tensor:
        """One of the fixed views: 0 the centre, 1 to 4 the corners, 5 to 9 the same mirrored."""
        vertical, horizontal = ((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))[number % 5]
        return self(serialized, vertical, horizontal, tf.constant(number >= 5))[-1]


def _options(dataset: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)


def check_boxes(split: records.Split) -> None:
    """Raises UserError when pictures cannot be cropped around boxes while training."""
    manifest = split.dataset.manifest
    if manifest["crop"] == "box":
        raise UserError(f"--box_crop: the pictures of {split.dataset.path} are cropped already: leave the flag out")
    if not bool(records.parse(tf.constant(split.read(np.array([0]))[0]))["has_box"]):
        raise UserError(f"--box_crop: {split.dataset.path} has no bounding boxes: leave the flag out")


def batches(
    split: records.Split,
    request,
    batch_size: int,
    *,
    seed: int = 0,
    start_step: int = 0,
    embeddings: np.ndarray | None = None,
    features: np.ndarray | None = None,
    character_rule: str = "lower_zero",
    box_crop: bool = False,
) -> tf.data.Dataset:
    """The endless stream of training batches from `start_step` on.

    Args:
        split: the records; request: a `t2i_tf.papers.BatchRequest`; batch_size: global, in rows.
        embeddings: float [all captions, D], rows in the order of the split's captions (request.text "embedding").
        features: float [N, views, F], cached features that stand for the pictures.

    Returns a dataset of dicts: "images" and "wrong_images" (tuples of uint8 [B,S,S,3], small to large), "class" int32
    [B], "embedding" float32 [B,captions,D] or "characters" int32 [B,captions,201], "features" float32 [B,F].
    """
    captions = request.captions if request.text else 0
    sampler = Sampler(
        split.class_ids,
        split.caption_counts,
        request.sampling,
        batch_size,
        wrong_images=request.wrong_images,
        captions=captions,
        captions_with_replacement=request.captions_with_replacement,
        seed=seed,
    )
    with_pictures = features is None
    with_records = with_pictures or request.text == "characters"
    if box_crop:
        check_boxes(split)

    def fetch(step):
        """All that Python does for a batch: plan it and read its bytes."""
        plan = sampler.plan(int(step))
        empty = np.zeros(0, np.float32)
        rows = np.array(split.read(plan.images), object) if with_records else np.array([b""] * batch_size, object)
        wrong = np.array(split.read(plan.wrong_images), object) if request.wrong_images else rows
        embedding = feature = empty
        if request.text == "embedding":
            embedding = np.asarray(embeddings[split.caption_offsets[plan.images][:, None] + plan.captions], np.float32)
        if features is not None:
            view = np.minimum((plan.augmentation[:, 0] * features.shape[1]).astype(int), features.shape[1] - 1)
            feature = np.asarray(features[plan.images, view], np.float32)
        classes = split.class_ids[plan.images].astype(np.int32)
        return rows, wrong, plan.augmentation, plan.wrong_augmentation, plan.captions, classes, embedding, feature

    def read(step):
        kinds = (tf.string, tf.string, tf.float32, tf.float32, tf.int64, tf.int32, tf.float32, tf.float32)
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
        elif request.text:
            batch["picked"] = tf.ensure_shape(picked, [batch_size, captions])
        if features is not None:
            batch["features"] = tf.ensure_shape(feature, [batch_size, features.shape[-1]])
        return batch

    decoder = _Decoder(request.image_sizes, split.dataset.manifest["image_size"], box_crop) if with_pictures else None

    def decode(row):
        """One example; runs on all cores."""
        out = {name: row[name] for name in ("class", "embedding", "features") if name in row}
        for prefix in ("", "wrong_"):
            if with_pictures and f"{prefix}record" in row:
                vertical, horizontal, flip = tf.unstack(row[f"{prefix}augmentation"])
                out[f"{prefix}images"] = decoder(row[f"{prefix}record"], vertical, horizontal, flip < 0.5)
        if "picked" in row:
            out["captions"] = tf.ensure_shape(
                tf.gather(records.parse(row["record"])["captions"], row["picked"]), [captions]
            )
        return out

    def tokenize(batch):
        if request.text == "characters":
            flat = tf.reshape(batch.pop("captions"), [-1])
            batch["characters"] = tf.reshape(
                text.character_ids(flat, rule=character_rule), [batch_size, captions, text.TEXT_LENGTH]
            )
        return batch

    steps = tf.data.Dataset.range(start_step, np.iinfo(np.int64).max)
    stream = steps.map(read).unbatch().map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    stream = stream.batch(batch_size, drop_remainder=True).map(tokenize)
    return _options(stream).prefetch(tf.data.AUTOTUNE)


def views(
    split: records.Split,
    image_size: int,
    batch_size: int,
    view: int = 0,
    *,
    box_crop: bool = False,
    chosen: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Every picture once and in order, or those of the numbers `chosen` [N] in theirs.

    Returns a dataset of uint8 [<=batch_size,S,S,3] of one fixed view (0: the centre).
    """
    decoder = _Decoder((image_size,), split.dataset.manifest["image_size"], box_crop)
    chosen = np.arange(split.num_images) if chosen is None else np.asarray(chosen, np.int64)

    def fetch(start):
        return np.array(split.read(chosen[start : start + batch_size]), object)

    starts = tf.data.Dataset.range(0, len(chosen), batch_size)
    rows = starts.map(lambda start: tf.numpy_function(fetch, [start], tf.string, stateful=False))
    rows = rows.map(lambda batch: tf.ensure_shape(batch, [None])).unbatch()
    pictures = rows.map(lambda record: decoder.view(record, view), num_parallel_calls=tf.data.AUTOTUNE)
    return _options(pictures.batch(batch_size)).prefetch(tf.data.AUTOTUNE)
