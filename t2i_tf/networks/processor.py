"""What computes: layers choose among forms that are equal but not equally fast."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import tensorflow as tf


def on_cpu() -> bool:
    """Whether this machine has no GPU."""
    return not tf.config.list_physical_devices("GPU")


@cache
def has_avx512() -> bool:
    """Whether the processor has AVX-512; so it is said as well where it cannot be asked."""
    told = Path("/proc/cpuinfo")
    return not told.exists() or "avx512f" in told.read_text()


def was_measured(maps: tf.Tensor) -> bool:
    """Whether figures taken with maps [B,H,W,C] can choose: on a CPU, in float32 and at known sizes."""
    return maps.shape[1:].is_fully_defined() and maps.dtype.size >= 4 and on_cpu()
