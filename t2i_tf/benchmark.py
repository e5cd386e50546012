"""`t2i-benchmark`: how fast batches are read, beside a plain PIL loader in the same run."""

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
from t2i_tf.papers import BatchRequest


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
    margin = size if stored == size else int(size * pipeline.CROP_RATIO)
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
    """Alternates the pipeline and the PIL loader; medians of images a second, and their ratio."""
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
