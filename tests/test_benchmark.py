import dataclasses

import pytest

from t2i_tf import benchmark
from t2i_tf.config import BenchmarkConfig
from t2i_tf.errors import UserError

QUICK = BenchmarkConfig(batch_size=2, seconds=0.01, rounds=1)


def test_reading_is_compared_with_pil(blossoms):
    found = benchmark.measure(dataclasses.replace(QUICK, data_dir=str(blossoms)))
    assert found["ratio"] == found["pipeline_images_per_second"] / found["pil_images_per_second"] > 0


def test_reading_needs_a_data_set():
    with pytest.raises(UserError, match="--data_dir is missing"):
        benchmark.measure(QUICK)


def test_attention_is_measured_compiled_and_plain():
    found = benchmark.measure(dataclasses.replace(QUICK, part="attention"))
    for name in ("words_64", "words_128", "regions"):
        plain, compiled = (found[f"{name}_{kind}_milliseconds"] for kind in ("plain", "compiled"))
        assert plain > 0 and found[f"{name}_gain"] == plain / compiled
