"""Trains a captioner for three steps on one or two logical CPU devices and writes its weights: a process of its own.

usage: captioning_replicas.py REPLICAS OUT.npz
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from t2i_tf.papers import Context, show_attend_tell
from t2i_tf.training.trainers import SupervisedTrainer


def main(replicas, out):
    count, cpu = int(replicas), tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(count)])
    hyperparameters = show_attend_tell.Hyperparameters(
        attention="hard",
        image_encoder="conv",
        image_encoder_width=4,
        image_size=16,
        word_dim=6,
        state_dim=7,
        doubly_stochastic_hard=True,
        doubly_stochastic_form="code",
        coin="step",
        optimizer="rmsprop",
        batch_size=4,
    )
    keras.utils.set_random_seed(0)
    with strategy.scope():
        recipe = show_attend_tell.Recipe(hyperparameters, Context(vocabulary_size=10))
        trainer = SupervisedTrainer(recipe, seed=0, steps_per_epoch=1)
    rng = np.random.default_rng(0)
    stream = {
        "images": (rng.integers(0, 256, (12, 16, 16, 3), np.uint8),),
        "words": rng.integers(1, 11, (12, 1, 5)).astype(np.int32),
        "word_lengths": np.full((12, 1), 5, np.int32),
        "class": np.zeros(12, np.int32),
    }
    trainer.fit(tf.data.Dataset.from_tensor_slices(stream).batch(4), epochs=1, verbose=0, shuffle=False)
    variables = {
        f"{name}/{variable.path}": variable.numpy()
        for name, network in recipe.networks.items()
        for variable in network.variables
    }
    np.savez(out, **variables)


if __name__ == "__main__":
    main(*sys.argv[1:])
