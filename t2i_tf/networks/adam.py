"""Adam whose update is one kernel a variable."""

from __future__ import annotations

import keras
import tensorflow as tf

TORCH_EPSILON = 1e-8 * (1 - 0.999) ** 0.5
"""Torch's 1e-8 on the first step, with its beta_2 of 0.999: it adds it behind the bias correction, Keras before."""


class Adam(keras.optimizers.Adam):
    """Keras' Adam (its epsilon stands before the bias correction), updated by TensorFlow's fused kernel.

    Keras' own update writes some ten temporaries, each as large as the weights: StackGAN++ at its published width has
    117 million. Same variables and same numbers to rounding; without amsgrad.
    """

    def apply(self, grads, trainable_variables=None):
        # Once for all variables: a graph of hundreds of them is traced and optimised the sooner.
        steps = tf.cast(self.iterations + 1, tf.float32)
        decays = [tf.constant(decay, tf.float32) for decay in (self.beta_1, self.beta_2)]
        self._constants = {
            **dict(zip(("beta1", "beta2"), decays, strict=True)),
            **dict(zip(("beta1_power", "beta2_power"), (decay**steps for decay in decays), strict=True)),
            "epsilon": tf.constant(self.epsilon, tf.float32),
        }
        return super().apply(grads, trainable_variables)

    def update_step(self, gradient, variable, learning_rate):
        index, kind = self._get_variable_index(variable), variable.dtype
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            lr=tf.cast(learning_rate, kind),
            grad=tf.cast(tf.convert_to_tensor(gradient), kind),
            **{name: tf.cast(value, kind) for name, value in self._constants.items()},
        )
