"""How fast training batches are read, alone and beside a plain PIL loader."""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from PIL import Image

from t2i_tf.benchmark.clock import rate
from t2i_tf.benchmark.subject import Subject
from t2i_tf.data import pipeline, records
from t2i_tf.data.images import margin_size
from t2i_tf.errors import UserError
from t2i_tf.papers import BatchRequest

IN_STORE = 8
"""Batches that the pipeline may have made ahead: they are taken first, and not counted."""


def speed(subject: Subject, seconds: float) -> float:
    """Images a second of a preset's batches, read and not trained on."""
    stream = iter(subject.batches())
    for _ in range(IN_STORE):
        next(stream)
    return rate(lambda: next(stream), subject.batch_size, seconds)


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


def beside_pil(subject: Subject) -> dict:
    """Alternates the pipeline and the PIL loader, pictures of the preset's largest size alone.

    Returns medians of images a second, their ranges, and the ratio of the medians. Raises UserError without a data set.
    """
    options, rows, size = subject.options, subject.batch_size, subject.request.image_sizes[-1]
    if subject.split is None:
        raise UserError("--data_dir is missing: the data set whose reading is measured")
    request = BatchRequest(image_sizes=(size,), sampling="shuffled")
    ours = iter(pipeline.batches(subject.split, request, rows))
    plain = _pil_batches(subject.split, size, rows, 0)
    rates: dict[str, list[float]] = {"pipeline": [], "pil": []}
    for _ in range(options.rounds):
        rates["pil"].append(rate(lambda: next(plain), rows, options.seconds))
        # The pipeline works ahead while PIL runs: what it has in store is not counted.
        for _ in range(IN_STORE):
            next(ours)
        rates["pipeline"].append(rate(lambda: next(ours), rows, options.seconds))
    medians = {f"{name}_images_per_second": statistics.median(values) for name, values in rates.items()}
    spread = {f"{name}_range": [min(values), max(values)] for name, values in rates.items()}
    ratio = medians["pipeline_images_per_second"] / medians["pil_images_per_second"]
    return {**medians, **spread, "ratio": ratio, "image_size": size, "batch_size": rows}
