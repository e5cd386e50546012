"""How fast a preset draws pictures, or writes captions, with fresh weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from t2i_tf.benchmark.subject import Subject

LEAST_REQUESTS = 3


def speed(subject: Subject, batches: Sequence[int], seconds: float) -> dict[str, dict]:
    """Rows of a request -> its latency ("p50_ms", "p99_ms"), "rows_per_second" and the number of "requests".

    A generator draws pictures of all its scales, uint8 on the host, from vectors of captions that are ready and from
    seeds. A captioner writes captions of `Subject.longest_caption` words from annotations or pictures: fresh weights
    would not know where to end. Nothing for what does neither.

    Args:
        batches: rows of each request.
        seconds: the least of one measurement; of no fewer than LEAST_REQUESTS requests.
    """
    found = {}
    for rows in batches:
        request = _request(subject, rows)
        if request is None:
            return {}
        request()
        times: list[float] = []
        while sum(times) < seconds or len(times) < LEAST_REQUESTS:
            began = time.perf_counter()
            request()
            times.append(time.perf_counter() - began)
        p50, p99 = 1e3 * np.percentile(times, [50, 99])
        speeds = {"p50_ms": p50, "p99_ms": p99, "rows_per_second": rows * len(times) / sum(times)}
        found[str(rows)] = {**speeds, "requests": len(times)}
    return found


def _request(subject: Subject, rows: int) -> Callable[[], object] | None:
    recipe = subject.recipe
    batch = subject.made_batch(rows)
    if recipe.kind == "gan":
        run = subject.run()
        conditions = tf.nest.map_structure(lambda x: x.numpy(), recipe.condition(batch)) if run.takes_text else None
        return lambda: run.render(conditions, run.noise(range(rows)), rows)
    if hasattr(recipe, "caption"):
        rows_of_any_number = tf.nest.map_structure(lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), batch)
        caption = tf.function(
            lambda batch: recipe.caption(batch, max_length=subject.longest_caption).ids,
            input_signature=[rows_of_any_number],
            autograph=False,
        )
        return lambda: caption(batch).numpy()
    return None
