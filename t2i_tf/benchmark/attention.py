"""What XLA gains in the attention layers."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from t2i_tf.benchmark.clock import rate
from t2i_tf.networks import attention, matching

WORDS, FEATURES, REGIONS, EMBEDDING = 18, 32, 17, 256
"""Sizes of AttnGAN and DAMSM on CUB: words of a caption, channels of the features, sides of the map, vector width."""


def layers(rows: int, rounds: int, seconds: float) -> dict:
    """Milliseconds of forward and backward at the CUB sizes, compiled and plain in turn: medians, and plain / compiled.

    "words_64" and "words_128" are the attention stages of AttnGAN at these sizes, "regions" all pairs of the DAMSM.
    """
    rng = np.random.default_rng(0)

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
        for _ in range(rounds):
            for kind, step in steps.items():
                times[kind].append(1e3 / rate(step, 1, seconds))
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
