"""The two trainers: Keras models whose `train_step` knows no paper, only what a recipe answers.

What both keep to: losses are means over a replica's rows, divided by the number of replicas once (`_scaled`), and the
optimizers sum gradients over replicas, so a step is that of the global batch; noise is a pure function of (seed, step)
and dealt out by rows, so the number of devices changes nothing.
"""

from __future__ import annotations

import zlib

import keras
import tensorflow as tf

from t2i_tf.networks import replicas
from t2i_tf.networks.moving_average import MovingAverage


def to_unit_range(images: tf.Tensor) -> tf.Tensor:
    """uint8 pictures -> float32 in [-1, 1]."""
    return tf.cast(images, tf.float32) / 127.5 - 1.0


class Draw:
    """Noise of one training step for this replica's rows; the same name gives other numbers at every step."""

    def __init__(self, seed: int, step: tf.Tensor, rows: tf.Tensor):
        self.seed, self.step, self.rows = seed, step, rows

    def _seed(self, name):
        stream = zlib.crc32(f"{self.seed}/{name}".encode())
        return tf.stack([tf.constant(stream, tf.int64), tf.cast(self.step, tf.int64)])

    def normal(self, name: str, width: int, rows=None) -> tf.Tensor:
        """[rows, width]; rows: this replica's, default one an example."""
        return replicas.normal(self._seed(name), self.rows if rows is None else rows, width)

    def truncated_normal(self, name: str, width: int, rows=None) -> tf.Tensor:
        """As `normal`, within two standard deviations."""
        return replicas.truncated_normal(self._seed(name), self.rows if rows is None else rows, width)

    def uniform(self, name: str, width: int, rows=None, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
        return replicas.uniform(self._seed(name), self.rows if rows is None else rows, width, low, high)


class _Trainer(keras.Model):
    def __init__(self, recipe, seed: int, steps_per_epoch: int):
        super().__init__()
        self.recipe, self.seed = recipe, seed
        self.networks = recipe.networks
        self.optimizers = recipe.optimizers(steps_per_epoch)
        self.step = tf.Variable(
            0, dtype=tf.int64, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        self.average = MovingAverage.of(recipe)
        self.nonfinite_step = tf.Variable(
            -1, dtype=tf.int64, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        self.built = True  # the networks are; fit() under a strategy would trace call() otherwise
        self.compile(optimizer=None, jit_compile=False)

    def _apply(self, name, gradients, variables) -> dict:
        """Updates, and returns the norm of the gradient; of several replicas that of each one's own, by another name.

        Keras sums gradients over replicas inside `apply` and hands the sum to nobody; a second sum, for the log alone,
        would double what the devices exchange. The mean of the replicas' norms is never below the norm of the sum, and
        far above it where their gradients cancel, as those of in-batch negatives can.
        """
        self.optimizers[name].apply(gradients, variables)
        norm = tf.linalg.global_norm([tf.cast(g, tf.float32) for g in gradients])
        return {"gradient_norm": norm} if replicas.count() == 1 else {"replica_gradient_norm": replicas.count() * norm}

    def _finish(self, logs) -> dict:
        if self.average:
            self.average.update()
        logs = {name: replicas.mean(tf.cast(value, tf.float32)) for name, value in logs.items()}
        # Watched on the device, so that the exact step is known without waiting for every step on the host.
        finite = tf.reduce_all(tf.math.is_finite(tf.stack(list(logs.values()))))
        first = tf.logical_and(tf.logical_not(finite), self.nonfinite_step < 0)
        self.nonfinite_step.assign(tf.where(first, self.step + 1, self.nonfinite_step))
        self.step.assign_add(1)
        return logs

    def _prepared(self, batch) -> dict:
        return {
            name: tuple(map(to_unit_range, value)) if name.endswith("images") else value
            for name, value in batch.items()
        }

    @staticmethod
    def _scaled(loss):
        return loss / replicas.count()

    def _draw(self, batch) -> Draw:
        return Draw(self.seed, self.step, tf.shape(batch["class"])[0])


class GanTrainer(_Trainer):
    """One step: the generator forward; each discriminator on real and stopped fake pictures; then the generator
    against the updated discriminators through the same forward; moving average."""

    def __init__(self, recipe, seed: int, steps_per_epoch: int):
        super().__init__(recipe, seed, steps_per_epoch)
        self.optimizers["generator"].build(recipe.generator.trainable_variables)
        for name, discriminator in recipe.discriminators.items():
            self.optimizers[name].build(discriminator.trainable_variables)

    def train_step(self, batch):
        recipe, batch, logs = self.recipe, self._prepared(batch), {}
        noise, condition = recipe.noise(self._draw(batch)), recipe.condition(batch)
        generator_tape = tf.GradientTape()
        with generator_tape:
            generated = recipe.generate(condition, noise)
        before = []  # networks take turns: side by side, the maps and gradients of all would be in memory at once
        for name, discriminator in recipe.discriminators.items():
            with tf.control_dependencies(before):
                with tf.GradientTape() as tape:
                    named = recipe.discriminator_losses(
                        name, batch, condition, tf.nest.map_structure(tf.stop_gradient, generated)
                    )
                    loss = self._scaled(named["loss"])
                variables = discriminator.trainable_variables
                gradients = tape.gradient(loss, variables)
            before = gradients
            named |= self._apply(name, gradients, variables)
            logs |= {f"{name}/{key}": value for key, value in named.items()}
        with tf.control_dependencies(before):
            with generator_tape:
                named = recipe.generator_losses(batch, condition, generated)
                loss = self._scaled(named["loss"])
            variables = recipe.generator.trainable_variables
            gradients = generator_tape.gradient(loss, variables)
        named |= self._apply("generator", gradients, variables)
        logs |= {f"generator/{key}": value for key, value in named.items()}
        return self._finish(logs)


class SupervisedTrainer(_Trainer):
    """One step: one loss over all trainable weights, one optimizer; moving average."""

    def __init__(self, recipe, seed: int, steps_per_epoch: int):
        super().__init__(recipe, seed, steps_per_epoch)
        (self.optimizer_name,) = self.optimizers
        self.variables_trained = [v for network in self.networks.values() for v in network.trainable_variables]
        self.optimizers[self.optimizer_name].build(self.variables_trained)

    def train_step(self, batch):
        batch = self._prepared(batch)
        with tf.GradientTape() as tape:
            named = self.recipe.losses(batch, self.recipe.noise(self._draw(batch)))
            loss = self._scaled(named["loss"])
        gradients = self._clipped(tape.gradient(loss, self.variables_trained))
        return self._finish(named | self._apply(self.optimizer_name, gradients, self.variables_trained))

    def _clipped(self, gradients) -> list:
        """Scales the gradient of each network in `recipe.clip_norms` down to that norm, of all replicas' rows together.

        The replicas' shares are summed here for the norm alone: the optimizer sums what each of them applies.
        """
        clipped = dict(enumerate(tf.convert_to_tensor(gradient) for gradient in gradients))
        for name, limit in getattr(self.recipe, "clip_norms", {}).items():
            own = {id(variable) for variable in self.networks[name].trainable_variables}
            places = [place for place, variable in enumerate(self.variables_trained) if id(variable) in own]
            norm = tf.linalg.global_norm(replicas.total([clipped[place] for place in places]))
            factor = limit / tf.maximum(norm, limit)
            clipped |= {place: factor * clipped[place] for place in places}
        return list(clipped.values())


def trainer(recipe, seed: int, steps_per_epoch: int) -> GanTrainer | SupervisedTrainer:
    """The trainer a recipe asks for by its `kind`."""
    return {"gan": GanTrainer, "supervised": SupervisedTrainer}[recipe.kind](recipe, seed, steps_per_epoch)
