"""All devices of this machine in use: the network is mirrored on each, and blocks of rows are dealt out to them.

A command makes its networks and computes inside `strategy(...).scope()`. What deals rows out asks TensorFlow for the
strategy in whose scope it is; outside of any there is one device. Blocks are the same whatever the number of devices,
and so are the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import tensorflow as tf

from t2i_tf.errors import UserError

Item = TypeVar("Item")

BLOCK = 32
"""Rows that pass through a network at once, on one device."""


def strategy(names: str | None) -> tf.distribute.Strategy:
    """MirroredStrategy on the devices of --devices, e.g. "GPU:0,GPU:1"; None: on all GPUs, or plainly on the CPU.

    A CPU alone needs no mirror: without one AttnGAN at published width has its networks and its first step after 48
    seconds instead of 51, and later steps take 0.94 of the time.

    Raises UserError for a device that is not there.
    """
    if names is None:
        count = len(tf.config.list_logical_devices("GPU"))
        if not count:
            return tf.distribute.get_strategy()
        return tf.distribute.MirroredStrategy([f"GPU:{number}" for number in range(count)])
    chosen = names.split(",")
    known = {f"{d.device_type}:{d.name.rsplit(':', 1)[-1]}" for d in tf.config.list_logical_devices()}
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise UserError(
            f"--devices={names}: there is no {', '.join(unknown)}; this machine has {', '.join(sorted(known))}"
        )
    return tf.distribute.MirroredStrategy(chosen)


def used_by(names: str | None, items: Iterator[Item]) -> Iterator[Item]:
    """The items of an iterator, each of them made in the scope of `strategy(names)`, which is left in between."""
    mirrored, end = strategy(names), object()
    while True:
        with mirrored.scope():
            item = next(items, end)
        if item is end:
            return
        yield item


def count() -> int:
    """Devices of the strategy in whose scope we are; 1 outside of any."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def rows_at_once() -> int:
    """Rows that give every device a block."""
    return BLOCK * count()


def traced(**options) -> Callable:
    """Decorator: a method as a tf.function that `each` deals blocks to, its Python traced as it is written.

    tf.function(autograph=False) says the same, but a strategy of several devices then runs the method without its
    object.
    """
    return lambda method: tf.function(tf.autograph.experimental.do_not_convert(method), **options)


def each(function: Callable, blocks: Sequence[tuple]) -> Iterator:
    """What a tf.function makes of each block, in their order: nests of arrays. Each device has a block at a time.

    Args:
        blocks: arguments of the function, nests of arrays; None stays what it is.
    """
    current, devices = tf.distribute.get_strategy(), count()
    for start in range(0, len(blocks), devices):
        some = list(blocks[start : start + devices])
        used = len(some)
        some += some[-1:] * (devices - used)  # a device without a block repeats the last one

        def dealt(*rows):
            if rows[0] is None:
                return None
            return current.experimental_distribute_values_from_function(
                lambda context: tf.convert_to_tensor(rows[context.replica_id_in_sync_group])
            )

        made = current.run(function, tf.nest.map_structure(dealt, *some))
        for found in current.experimental_local_results(made)[:used]:
            yield tf.nest.map_structure(lambda rows: rows.numpy(), found)


def rows_of(function: Callable, rows: np.ndarray):
    """What a tf.function makes of N rows, block by block: its nest of arrays of N rows. The last block is smaller."""
    blocks = [(rows[start : start + BLOCK],) for start in range(0, max(len(rows), 1), BLOCK)]
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *each(function, blocks))
