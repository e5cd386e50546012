"""How fast an exported generator answers: seconds to load, milliseconds of single requests, pictures a second.

    python experiments/serving_speed.py EXPORT

It needs TensorFlow alone.
"""

import argparse
import itertools
import json
import os
import time
from pathlib import Path

CAPTION = "this flower has five round red petals and a yellow center"
BATCHES = (1, 8, 32)


def main(export, seconds):
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # left off without AVX-512, where it is quicker too
    import numpy as np  # here, so that --help does not wait for them
    import tensorflow as tf

    began = time.perf_counter()
    model = tf.saved_model.load(export)
    loaded = time.perf_counter()
    found = {"megabytes": sum(path.stat().st_size for path in Path(export).rglob("*") if path.is_file()) / 1e6}
    function, seeds = model.signatures["generate"], itertools.count()
    text = {"captions": [CAPTION]} if "captions" in function.structured_input_signature[1] else {}

    def draw(rows):
        given = {name: tf.constant(value * rows) for name, value in text.items()}
        numbers = tf.constant([next(seeds) for _ in range(rows)], tf.int64)
        return function(**given, seeds=numbers, truncation=tf.constant(1.0))["images"].numpy()

    draw(1)
    found |= {"load_seconds": loaded - began, "first_request_seconds": time.perf_counter() - loaded}
    for rows in BATCHES:
        draw(rows)
        times = []
        while sum(times) < seconds:
            began = time.perf_counter()
            draw(rows)
            times.append(time.perf_counter() - began)
        p50, p99 = 1000 * np.percentile(times, [50, 99])
        found[f"batch_{rows}"] = {
            "p50_ms": p50,
            "p99_ms": p99,
            "requests": len(times),
            "pictures_a_second": rows * len(times) / sum(times),
        }
    print(json.dumps(found, indent=2, default=float))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("export", metavar="EXPORT")
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement (default: 20)")
    main(**vars(parser.parse_args()))
