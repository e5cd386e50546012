"""`t2i-benchmark`: how fast batches are read, beside a plain PIL loader; what XLA gains in the attention layers."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from PIL import Image

from t2i_tf.config import BenchmarkConfig
from t2i_tf.data import pipeline, records
from t2i_tf.data.images import margin_size
from t2i_tf.errors import UserError
from t2i_tf.networks import attention, matching
from t2i_tf.papers import BatchRequest

WORDS, FEATURES, REGIONS, EMBEDDING = 18, 32, 17, 256
"""Sizes of AttnGAN and DAMSM on CUB: words of a caption, channels of the features, sides of the map, vector width."""


def measure(options: BenchmarkConfig) -> dict:
    """What `options.part` names. Raises UserError."""
    return {"input": input_pipeline, "attention": attention_layers}[options.part](options)


def _rate(next_batch: Callable[[], object], rows: int, seconds: float) -> float:
    """Rows a second over at least `seconds`."""
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        next_batch()
        count += rows
    return count / (time.perf_counter() - began)


def _pil_batches(split: records.Split, size: int, rows: int, seed: int) -> Iterator[np.ndarray]:
    """What a plain loader does for the same batch: open, shrink or keep, random crop, flip, stack; one process."""
    encoded = [
        tf.train.Example.FromString(record).features.feature["image"].bytes_list.value[0]
        for record in split.read(np.arange(split.num_images))
    ]
    rng = np.random.default_rng(seed)
    stored = split.dataset.manifest["image_size"]
    margin = margin_size(size, stored)
    while True:
        batch = []
        for number in rng.integers(len(encoded), size=rows):
            image = Image.open(io.BytesIO(encoded[number])).convert("RGB")
            shorter = min(image.size)
            if shorter != margin:
                shape = tuple(max(margin, side * margin // shorter) for side in image.size)
                image = image.resize(shape, Image.Resampling.BILINEAR)
            left, top = (int(rng.integers(side - size + 1)) for side in image.size)
            image = image.crop((left, top, left + size, top + size))
            if rng.random() < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            batch.append(np.asarray(image))
        yield np.stack(batch)


def input_pipeline(options: BenchmarkConfig) -> dict:
    """Alternates the pipeline and the PIL loader; medians of images a second, and their ratio. Raises UserError."""
    if options.data_dir is None:
        raise UserError("--data_dir is missing: the data set whose reading is measured")
    split = records.Dataset.open(options.data_dir).split("train")
    request = BatchRequest(image_sizes=(options.image_size,), sampling="shuffled")
    ours = iter(pipeline.batches(split, request, options.batch_size))
    plain = _pil_batches(split, options.image_size, options.batch_size, 0)
    for _ in range(8):
        next(ours)
    rates: dict[str, list[float]] = {"pipeline": [], "pil": []}
    for _ in range(options.rounds):
        rates["pil"].append(_rate(lambda: next(plain), options.batch_size, options.seconds))
        # The pipeline works ahead while PIL runs: what it has in store is not counted.
        for _ in range(8):
            next(ours)
        rates["pipeline"].append(_rate(lambda: next(ours), options.batch_size, options.seconds))
    medians = {f"{name}_images_per_second": statistics.median(values) for name, values in rates.items()}
    spread = {f"{name}_range": [min(values), max(values)] for name, values in rates.items()}
    ratio = medians["pipeline_images_per_second"] / medians["pil_images_per_second"]
    return {**medians, **spread, "ratio": ratio, "image_size": options.image_size, "batch_size": options.batch_size}


def attention_layers(options: BenchmarkConfig) -> dict:
    """Milliseconds of forward and backward at the CUB sizes, compiled and plain in turn: medians, and plain / compiled.

    "words_64" and "words_128" are the attention stages of AttnGAN at these sizes, "regions" all pairs of the DAMSM.
    """
    rows, rng = options.batch_size, np.random.default_rng(0)

    def normal(*shape):
        return tf.constant(rng.normal(size=shape), tf.float32)

    lengths, words = tf.constant(rng.integers(4, WORDS + 1, rows), tf.int32), normal(rows, WORDS, EMBEDDING)
    code = normal(rows, EMBEDDING)
    cases = {
        f"words_{size}": (attention.WordAttention, [normal(rows, size, size, FEATURES), words, lengths])
        for size in (64, 128)
    }
    cases["regions"] = (matching.Matching, [normal(rows, REGIONS, REGIONS, EMBEDDING), code, words, code, lengths])
    found: dict = {"batch_size": rows, "device": tf.config.list_logical_devices()[-1].device_type}
    for name, (layer, inputs) in cases.items():
        steps = {kind: _training_step(layer(jit_compile=kind == "compiled"), inputs) for kind in ("plain", "compiled")}
        times: dict[str, list[float]] = {kind: [] for kind in steps}
        for _ in range(options.rounds):
            for kind, step in steps.items():
                times[kind].append(1e3 / _rate(step, 1, options.seconds))
        medians = {kind: statistics.median(values) for kind, values in times.items()}
        found |= {f"{name}_{kind}_milliseconds": value for kind, value in medians.items()}
        found[f"{name}_gain"] = medians["plain"] / medians["compiled"]
    return found


def _training_step(layer, inputs) -> Callable[[], object]:
    """Forward and backward of a layer, already traced and compiled; returns when the result is there."""

    sources = [x for x in inputs if x.dtype.is_floating]

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            tape.watch(sources)
            objective = tf.add_n([tf.reduce_sum(tf.square(part)) for part in tf.nest.flatten(layer(*inputs))])
        return tf.add_n([tf.reduce_sum(g) for g in tape.gradient(objective, sources) if g is not None])

    step()
    return lambda: step().numpy()
