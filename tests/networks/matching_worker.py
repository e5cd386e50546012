"""DAMSM losses and word attention of one global batch with their gradients, on one or more logical CPU devices.

A process of its own, since two MirroredStrategies with collectives do not live in one.

usage: matching_worker.py REPLICAS OUT.npz
"""

import sys

import numpy as np
import tensorflow as tf

from t2i_tf import losses
from t2i_tf.networks import attention, matching, replicas

BATCH = 4
SHAPES = {"regions": (BATCH, 2, 3, 6), "codes": (BATCH, 6), "words": (BATCH, 5, 6), "sentences": (BATCH, 6)}
OTHERS = {"features": (BATCH, 3, 3, 2), "upstream": (BATCH, 3, 3, 2)}
RANDOM = np.random.RandomState(0)
GIVEN = {
    **{name: RANDOM.randn(*shape).astype("f4") for name, shape in {**SHAPES, **OTHERS}.items()},
    "lengths": np.array([5, 3, 1, 4], "i4"),
    "classes": np.array([7, 2, 7, -1], "i4"),
}


def damsm(jit_compile, rows):
    model, inputs = matching.Matching(jit_compile=jit_compile), [rows[name] for name in SHAPES]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        table = model(*inputs, rows["lengths"])
        own, classes = replicas.own_positions(tf.shape(inputs[0])[0]), replicas.gather(rows["classes"])
        terms = losses.damsm_losses(table, own, classes)
        total = tf.add_n(list(terms.values())) / replicas.count()
    gradients = dict(zip(SHAPES, tape.gradient(total, inputs), strict=True))
    return {name: replicas.mean(term) for name, term in terms.items()}, gradients


def words(layer, rows):
    inputs = [rows["features"], rows["words"]]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        context, _ = layer(*inputs, rows["lengths"])
        total = tf.reduce_sum(context * rows["upstream"])
    of_features, of_words = tape.gradient(total, inputs)
    return context, of_features, of_words


def main(count, out):
    count = int(count)
    cpus = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpus[0], [tf.config.LogicalDeviceConfiguration()] * count)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(count)])

    def deal(context):
        place = context.replica_id_in_sync_group * BATCH // count
        return {name: tf.constant(value[place : place + BATCH // count]) for name, value in GIVEN.items()}

    def joined(value):
        return np.concatenate([part.numpy() for part in strategy.experimental_local_results(value)])

    rows = strategy.experimental_distribute_values_from_function(deal)
    results = {}
    for mode, jit_compile in (("plain", False), ("compiled", True)):
        with strategy.scope():
            layer = attention.WordAttention(published_mask=True, jit_compile=jit_compile)
            layer.build((None, *OTHERS["features"][1:]))
            layer.projection.build((None, *SHAPES["words"][1:]))
        layer.projection.set_weights([np.random.RandomState(1).randn(6, 2)])

        @tf.function
        def step(rows, layer=layer, jit_compile=jit_compile):
            return strategy.run(lambda rows: (damsm(jit_compile, rows), words(layer, rows)), args=(rows,))

        (terms, gradients), attended = step(rows)
        for name, term in terms.items():
            results[f"{mode}/{name}"] = strategy.experimental_local_results(term)[0].numpy()
        results |= {f"{mode}/gradient_{name}": joined(value) for name, value in gradients.items()}
        results |= {f"{mode}/attention_{i}": joined(value) for i, value in enumerate(attended)}
    np.savez(out, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
