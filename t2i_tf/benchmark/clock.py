"""Taking times."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np


def process_seconds() -> float:
    """Since this process began."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def rate(next_batch: Callable[[], object], rows: int, seconds: float) -> float:
    """Rows a second over at least `seconds`."""
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        next_batch()
        count += rows
    return count / (time.perf_counter() - began)


def alternate(actions: Sequence[Callable[[], int]], rounds: int) -> list[list[float]]:
    """Seconds of each action in each round; every other round in the opposite order, so that none always comes first.

    An action returns how often it did what it does; its time is that of one.
    """
    times: list[list[float]] = [[] for _ in actions]
    for number in range(rounds):
        for place in range(len(actions))[:: -1 if number % 2 else 1]:
            began = time.perf_counter()
            done = actions[place]()
            times[place].append((time.perf_counter() - began) / done)
    return times


def spread(seconds: Sequence[float]) -> dict:
    """Median and quartiles, the extremes, and all values in their order."""
    first, median, third = np.percentile(seconds, [25, 50, 75])
    return {
        "median": median,
        "quartiles": [first, third],
        "range": [min(seconds), max(seconds)],
        "all": list(seconds),
    }
