"""What one replica must know of the others, so that the number of devices does not change the mathematics.

Every helper works alike with one replica, with many, and outside any strategy. "Rows" are examples of the global
batch, which `tf.distribute` deals out to the replicas in contiguous blocks of equal size.
"""

from __future__ import annotations

import tensorflow as tf


def _context():
    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None


def count() -> int:
    """Number of replicas that train in step."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def mean(value: tf.Tensor) -> tf.Tensor:
    """The mean of a value over the replicas; differentiable."""
    context = _context()
    return value if context is None else context.all_reduce(tf.distribute.ReduceOp.MEAN, value)


def total(values: list[tf.Tensor]) -> list[tf.Tensor]:
    """The sums of values over the replicas."""
    context = _context()
    return values if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, values)


def gather(rows: tf.Tensor) -> tf.Tensor:
    """[b, ...] of each replica -> [B, ...], the rows of all in order; differentiable."""
    context = _context()
    if context is None:
        return rows
    if rows.dtype in (tf.bfloat16, tf.float16):  # gradients meet here, and are summed in float32
        return tf.cast(gather(tf.cast(rows, tf.float32)), rows.dtype)
    if isinstance(tf.distribute.get_strategy(), tf.distribute.MultiWorkerMirroredStrategy):
        # Its all_gather fails where a worker has one replica ("destinations can not be empty", TensorFlow 2.21).
        place, share = context.replica_id_in_sync_group, tf.shape(rows)[0]
        before, behind = place * share, (context.num_replicas_in_sync - 1 - place) * share
        whole = tf.pad(rows, [[before, behind], *[[0, 0]] * (rows.shape.rank - 1)])
        whole = context.all_reduce(tf.distribute.ReduceOp.SUM, whole)
    else:
        whole = context.all_gather(rows, axis=0)
    return tf.ensure_shape(whole, [None, *rows.shape[1:]])


def own(rows: tf.Tensor) -> tf.Tensor:
    """[B, ...] known to every replica -> [b, ...], this replica's share."""
    context = _context()
    if context is None:
        return rows
    share = tf.shape(rows)[0] // context.num_replicas_in_sync
    start = context.replica_id_in_sync_group * share
    return rows[start : start + share]


def own_positions(rows: tf.Tensor) -> tf.Tensor:
    """Places [rows] of this replica's rows among the rows that `gather` returns."""
    context = _context()
    start = 0 if context is None else context.replica_id_in_sync_group * rows
    return start + tf.range(rows)


def normal(seed: tf.Tensor, rows: tf.Tensor, width: int) -> tf.Tensor:
    """Standard normal noise [rows, width] for this replica's rows, cut from the noise of the global batch.

    Args:
        seed: int [2]; the same on every replica.
        rows: number of rows of this replica.
    """
    return own(tf.random.stateless_normal(tf.stack([rows * count(), width]), seed))


def truncated_normal(seed: tf.Tensor, rows: tf.Tensor, width: int) -> tf.Tensor:
    """As `normal`, within two standard deviations."""
    return own(tf.random.stateless_truncated_normal(tf.stack([rows * count(), width]), seed))


def uniform(seed: tf.Tensor, rows: tf.Tensor, width: int, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
    """As `normal`, uniform in [low, high)."""
    return own(tf.random.stateless_uniform(tf.stack([rows * count(), width]), seed, low, high))
