"""Reading beside PIL, and attention compiled and plain."""

import dataclasses

import pytest

from t2i_tf import benchmark
from t2i_tf.config import BenchmarkConfig
from t2i_tf.errors import UserError

TINY = {"generator_width": 4, "discriminator_width": 4, "batch_size": 2}
QUICK = BenchmarkConfig(paper="gan_int_cls", part="input", seconds=0.01, rounds=1)


def test_reading_is_compared_with_pil(blossoms):
    found = benchmark.measure(dataclasses.replace(QUICK, data_dir=str(blossoms)), TINY)
    assert found["ratio"] == found["pipeline_images_per_second"] / found["pil_images_per_second"] > 0
    assert (found["image_size"], found["batch_size"]) == (64, 2)
    assert "ratio: " in benchmark.shown(found)


def test_reading_needs_a_data_set():
    with pytest.raises(UserError, match="--data_dir is missing"):
        benchmark.measure(QUICK, TINY)


def test_attention_is_measured_compiled_and_plain():
    found = benchmark.measure(dataclasses.replace(QUICK, part="attention"), TINY)
    for name in ("words_64", "words_128", "regions"):
        plain, compiled = (found[f"{name}_{kind}_milliseconds"] for kind in ("plain", "compiled"))
        assert plain > 0 and found[f"{name}_gain"] == plain / compiled


@pytest.mark.parametrize("name, value", [("compare", "--batch_size=4"), ("profile", "folder")])
def test_parts_refuse_what_belongs_to_steps(name, value):
    with pytest.raises(UserError, match=f"--{name} goes with --part=step"):
        benchmark.measure(dataclasses.replace(QUICK, **{name: value}), TINY)
