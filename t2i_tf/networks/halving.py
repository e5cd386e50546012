"""The learning rate of the published Torch programs that train with Adam."""

from __future__ import annotations

import keras
import tensorflow as tf


class EpochHalving(keras.optimizers.schedules.LearningRateSchedule):
    """Halves the rate at the start of every epoch whose number, counted from 1, `every` divides."""

    def __init__(self, initial: float, steps_per_epoch: int, every: int):
        self.initial, self.steps_per_epoch, self.every = initial, steps_per_epoch, every

    def __call__(self, step):
        halvings = (tf.cast(step, tf.int64) // self.steps_per_epoch + 1) // self.every
        return self.initial * 0.5 ** tf.cast(halvings, tf.float32)

    def get_config(self):
        return {"initial": self.initial, "steps_per_epoch": self.steps_per_epoch, "every": self.every}
