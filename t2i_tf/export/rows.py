"""So many rows pass the networks at a time that a row does not depend on what stands beside it.

Kernels make that hard: for another number of rows they may add in another order. `t2i-sample` always passes 32 rows; a
server that did so for one caption would be slow. So batches are filled up to one of ROWS, and it is measured, before
anything is written, from which of them on all numbers agree to the last bit. (Seen on a CPU: powers of two did, from 1
or 2 on, 17 and 31 rows did not.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from t2i_tf.inference import BATCH_SIZE

ROWS = (1, 2, 4, 8, 16, BATCH_SIZE)
"""Rows that pass the networks at a time."""


def in_blocks(function: Callable, rows, least: int):
    """The function of a nest of arrays of B rows, BATCH_SIZE at a time; its nest of arrays of B rows.

    The last block is filled up with zeros to the next of ROWS that is at least `least`.
    """
    count = tf.shape(tf.nest.flatten(rows)[0])[0]
    rest = count % BATCH_SIZE
    sizes = tf.constant([size for size in ROWS if size >= least])
    wanted = tf.reduce_min(tf.where(sizes >= rest, sizes, BATCH_SIZE))
    missing = tf.where((rest > 0) | (count == 0), wanted - rest, 0)
    rows = tf.nest.map_structure(lambda x: tf.pad(x, [[0, missing], *[[0, 0]] * (x.shape.rank - 1)]), rows)
    specs = tf.nest.map_structure(lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), rows)
    of_block = tf.function(function, autograph=False).get_concrete_function(specs)

    def array(of):
        return tf.TensorArray(of.dtype, 0, True, infer_shape=False, element_shape=[None, *of.shape[1:]])

    def step(block, made):
        part = tf.nest.map_structure(lambda x: x[block * BATCH_SIZE : (block + 1) * BATCH_SIZE], rows)
        written = tf.nest.map_structure(lambda array, x: array.write(block, x), made, of_block(part))
        return block + 1, written

    made = tf.nest.map_structure(array, of_block.structured_outputs)
    blocks = (count + missing + BATCH_SIZE - 1) // BATCH_SIZE
    _, made = tf.while_loop(lambda block, _: block < blocks, step, (0, made), parallel_iterations=1)
    return tf.nest.map_structure(lambda array: array.concat()[:count], made)


def agreeing_rows(function: Callable, rows) -> int:
    """The smallest of ROWS from which on what the function makes of a row is the same to the bit, on this machine.

    rows: tuple of nests of arrays of BATCH_SIZE rows, its arguments.
    """
    specs = tf.nest.map_structure(lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), list(rows))
    function, least = tf.function(function, specs, autograph=False), BATCH_SIZE

    def made(count):
        outputs = function(*tf.nest.map_structure(lambda x: x[:count], rows))
        return [x.numpy() for x in tf.nest.flatten(outputs)]

    whole = made(BATCH_SIZE)
    for count in reversed(ROWS[:-1]):
        if not all(np.array_equal(part, x[:count]) for part, x in zip(made(count), whole, strict=True)):
            break
        least = count
    return least
