"""The two trainers: Keras models whose `train_step` knows no paper, only what a recipe answers.

What both keep to: losses are means over a replica's rows, divided by the number of replicas once (`_scaled`), and the
optimizers sum gradients over replicas, so a step is that of the global batch; noise is a pure function of (seed, step)
and dealt out by rows, so the number of devices changes nothing. `accumulate` cuts a replica's rows into parts that pass
one after the other; their gradients are averaged before the one update.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from t2i_tf.networks import replicas
from t2i_tf.networks.moving_average import MovingAverage


def to_unit_range(images: tf.Tensor) -> tf.Tensor:
    """uint8 pictures -> float32 in [-1, 1]."""
    return tf.cast(images, tf.float32) / 127.5 - 1.0


class Draw:
    """Noise of one training step for this replica's rows; the same name gives other numbers at every step.

    Args:
        rows: how many rows of the batch this is for.
        part: (k, n): they are part k of n of the replica's rows, and get the noise that they would get among them.
        words: of the longest caption, where the batch holds words.
    """

    def __init__(
        self,
        seed: int,
        step: tf.Tensor,
        rows: tf.Tensor,
        part: tuple[int, int] = (0, 1),
        words: tf.Tensor | None = None,
    ):
        self.seed, self.step, self.rows, self.part, self.words = seed, step, rows, part, words

    def _drawn(self, draw, name, width, rows, *limits):
        stream = zlib.crc32(f"{self.seed}/{name}".encode())
        seed = tf.stack([tf.constant(stream, tf.int64), tf.cast(self.step, tf.int64)])
        rows, (place, parts) = self.rows if rows is None else rows, self.part
        return draw(seed, rows * parts, width, *limits)[place * rows : (place + 1) * rows]

    def normal(self, name: str, width: int, rows=None) -> tf.Tensor:
        """[rows, width]; rows: this part's, default one an example."""
        return self._drawn(replicas.normal, name, width, rows)

    def truncated_normal(self, name: str, width: int, rows=None) -> tf.Tensor:
        """As `normal`, within two standard deviations."""
        return self._drawn(replicas.truncated_normal, name, width, rows)

    def uniform(self, name: str, width: int, rows=None, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
        return self._drawn(replicas.uniform, name, width, rows, low, high)


@dataclass(frozen=True)
class Execution:
    """How a step is computed; only the rounding depends on it, but for what a part of a batch does not see."""

    scale_loss: bool = False
    """Losses are multiplied, and gradients divided, by a number that float16 gradients do not vanish with. A step whose
    gradients overflow is left out, and the number halved."""
    jit_step: bool = False
    """One replica: the whole step is compiled by XLA, all but its noise."""
    accumulate: int = 1
    """Parts that a replica's rows are cut into."""
    steps: int = 1
    """Steps for each return to Python."""


AT_ONCE = Execution()
"""The whole batch in one pass, in float32, step by step."""


class _Tape(tf.GradientTape):
    """Records what depends on these variables alone: the gradients of all others that a loss passes would be traced,
    optimised and thrown away."""

    def __init__(self, variables):
        super().__init__(watch_accessed_variables=False)
        self._variables = [variable.value for variable in variables]

    def __enter__(self):
        super().__enter__()
        self.watch(self._variables)
        return self


class _Trainer(keras.Model):
    def __init__(self, recipe, seed: int, steps_per_epoch: int, execution: Execution = AT_ONCE):
        super().__init__()
        self.recipe, self.seed, self.execution = recipe, seed, execution
        self.networks = recipe.networks
        self.optimizers = recipe.optimizers(steps_per_epoch)
        if execution.scale_loss:
            self.optimizers = {
                name: keras.optimizers.LossScaleOptimizer(optimizer, name=f"{name}_loss_scale")
                for name, optimizer in self.optimizers.items()
            }
        self.step = tf.Variable(
            0, dtype=tf.int64, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        self.average = MovingAverage.of(recipe)
        self.nonfinite_step = tf.Variable(
            -1, dtype=tf.int64, trainable=False, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
        )
        self.built = True  # the networks are; fit() under a strategy would trace call() otherwise
        self.compile(optimizer=None, jit_compile=False, steps_per_execution=execution.steps)

    @property
    def state(self) -> list:
        """Every variable that the next step depends on."""
        owners = [*self.networks.values(), *self.optimizers.values()]
        averages = self.average.shadows if self.average else []
        return [self.step, *averages, *(variable.value for owner in owners for variable in owner.variables)]

    def make_train_function(self, force=False):
        """In place of Keras' own, which cannot bring together what several workers log: `_finish` does, in the step."""
        strategy, count = self.distribute_strategy, self.execution.steps

        def of_noise(batch, noise):
            logs = strategy.run(self.train_step, args=(batch, noise))
            return {name: strategy.experimental_local_results(value)[0] for name, value in logs.items()}

        if self.execution.jit_step:
            of_noise = tf.function(of_noise, jit_compile=True, autograph=False)

        def step(batch):
            # Drawn outside: compiled by XLA, the same seed gives other numbers.
            return of_noise(batch, strategy.run(self.noise, args=(batch,)))

        # A function inside a function, and a loop around one step, would each be optimised once more: StackGAN++ at
        # published width would wait half as long again for its first step. None of it needs converting either.
        step = tf.function(step, autograph=False) if count > 1 else step

        @tf.function(autograph=False)
        def steps(iterator):
            logs = step(next(iterator))
            if count == 1:
                return logs
            _, logs = tf.while_loop(
                lambda taken, _: taken < count, lambda taken, _: (taken + 1, step(next(iterator))), (1, logs)
            )
            return logs

        self.train_function = steps

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing: the networks are built. Keras would average a batch over the workers first, and fail."""

    def _gradients(self, name: str, variables, parts: list, losses: Callable, before=()) -> tuple[list, dict]:
        """-> the mean over the parts of the gradients of losses(*part)["loss"], times the loss scale of that optimizer,
        and of what `losses` names. The parts take turns, after `before`: side by side all would be in memory."""
        totals, logs = list(before), []
        for place, part in enumerate(parts):
            with tf.control_dependencies(totals):
                with _Tape(variables) as tape:
                    logs.append(losses(*part))
                    loss = self.optimizers[name].scale_loss(self._scaled(logs[-1]["loss"]))
                gradients = tape.gradient(loss, variables)
                if len(parts) > 1 or self.execution.scale_loss:
                    gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
                if place:
                    gradients = [total + gradient for total, gradient in zip(totals, gradients, strict=True)]
            totals = gradients
        return totals, {key: tf.add_n([named[key] for named in logs]) / len(parts) for key in logs[0]}

    def _loss_scale(self, name) -> tf.Tensor | float:
        return self.optimizers[name].dynamic_scale.value if self.execution.scale_loss else 1.0

    def _apply(self, name, gradients, variables) -> dict:
        """Updates, and returns the norm of the gradient; of several replicas that of each one's own, by another name.

        Keras sums gradients over replicas inside `apply` and hands the sum to nobody; a second sum, for the log alone,
        would double what the devices exchange. The mean of the replicas' norms is never below the norm of the sum, and
        far above it where their gradients cancel, as those of in-batch negatives can.
        """
        scale = tf.identity(self._loss_scale(name))
        norm = tf.linalg.global_norm([tf.cast(g, tf.float32) for g in gradients]) / scale
        logs = {"gradient_norm": norm} if replicas.count() == 1 else {"replica_gradient_norm": replicas.count() * norm}
        if self.execution.scale_loss:
            # Keras asks the first replica alone whether gradients are finite: all must tell it the same.
            (overflows,) = replicas.total([tf.cast(tf.math.logical_not(tf.math.is_finite(norm)), tf.float32)])
            gradients = [gradients[0] + tf.where(overflows > 0.0, np.nan, 0.0), *gradients[1:]]
            logs = {key: tf.where(overflows > 0.0, 0.0, value) for key, value in logs.items()} | {"loss_scale": scale}
        self.optimizers[name].apply(gradients, variables)
        return logs

    def _finish(self, logs) -> dict:
        if self.average:
            self.average.update()
        logs = {name: replicas.mean(tf.cast(value, tf.float32)) for name, value in logs.items()}
        # Watched on the device, so that the exact step is known without waiting for every step on the host.
        finite = tf.reduce_all(tf.math.is_finite(tf.stack(list(logs.values()))))
        for name, value in logs.items():
            if name.endswith("loss_scale"):  # what overflows unscaled is no accident of float16
                finite &= value >= 1.0
        first = tf.logical_and(tf.logical_not(finite), self.nonfinite_step < 0)
        self.nonfinite_step.assign(tf.where(first, self.step + 1, self.nonfinite_step))
        self.step.assign_add(1)
        return logs

    def _prepared(self, batch) -> dict:
        return {
            name: tuple(map(to_unit_range, value)) if name.endswith("images") else value
            for name, value in batch.items()
        }

    def _scaled(self, loss):
        return loss / (replicas.count() * self.execution.accumulate)

    def noise(self, batch) -> list[dict]:
        """The noise of this replica's rows at this step, of each part."""
        count = self.execution.accumulate
        rows = tf.shape(batch["class"])[0] // count
        words = tf.shape(batch["words"])[-1] if "words" in batch else None
        return [self.recipe.noise(Draw(self.seed, self.step, rows, (k, count), words)) for k in range(count)]

    def _parts(self, batch, noise) -> list[tuple[dict, dict]]:
        """The rows of this replica in parts, with the noise of each."""
        batch, count = self._prepared(batch), self.execution.accumulate
        cut = [tf.split(rows, count) if count > 1 else [rows] for rows in tf.nest.flatten(batch)]
        parts = [tf.nest.pack_sequence_as(batch, of_part) for of_part in zip(*cut, strict=True)]
        return [*zip(parts, self.noise(batch) if noise is None else noise, strict=True)]


class GanTrainer(_Trainer):
    """One step: the generator forward; each discriminator on real and stopped fake pictures; then the generator
    against the updated discriminators through the same forward; moving average."""

    def __init__(self, recipe, seed: int, steps_per_epoch: int, execution: Execution = AT_ONCE):
        super().__init__(recipe, seed, steps_per_epoch, execution)
        self.optimizers["generator"].build(recipe.generator.trainable_variables)
        for name, discriminator in recipe.discriminators.items():
            self.optimizers[name].build(discriminator.trainable_variables)

    def train_step(self, batch, noise=None):
        """noise: see there; drawn here when it is not given."""
        parts = self._parts(batch, noise)
        return self._in_parts(parts) if len(parts) > 1 else self._at_once(*parts[0])

    def _at_once(self, batch, noise):
        recipe, logs = self.recipe, {}
        condition = recipe.condition(batch)
        variables = recipe.generator.trainable_variables
        generator_tape = _Tape(variables)
        with generator_tape:
            generated = recipe.generate(condition, noise)
        stopped = tf.nest.map_structure(tf.stop_gradient, generated)
        before = self._train_discriminators([(batch, condition, stopped)], logs)
        with tf.control_dependencies(before):
            with generator_tape:
                named = recipe.generator_losses(batch, condition, generated)
                loss = self.optimizers["generator"].scale_loss(self._scaled(named["loss"]))
            gradients = generator_tape.gradient(loss, variables)
        return self._train_generator(gradients, named, logs)

    def _in_parts(self, parts):
        """As `_at_once`, with less memory: the generator draws the pictures of every part twice, first for the
        discriminators and, when these are updated, with a tape, so that the layers of one part alone are kept. The
        running statistics of all that draws move with the second."""
        recipe, logs = self.recipe, {}
        parts = [(part, recipe.condition(part), noise) for part, noise in parts]
        drawing = [network for name, network in recipe.networks.items() if name not in recipe.discriminators]
        # By name: of a frozen network every weight is one that is not trained.
        moving = [v for n in drawing for v in n.non_trainable_variables if v.name in ("moving_mean", "moving_variance")]
        before = statistics = [tf.identity(variable.value) for variable in moving]
        shown = []
        for part, condition, noise in parts:
            with tf.control_dependencies(before):
                stopped = tf.nest.map_structure(tf.stop_gradient, recipe.generate(condition, noise))
            shown.append((part, condition, stopped))
            before = tf.nest.flatten(stopped)
        for variable, statistic in zip(moving, statistics, strict=True):
            variable.assign(statistic)
        before = self._train_discriminators(shown, logs)

        def losses(part, condition, noise):
            return recipe.generator_losses(part, condition, recipe.generate(condition, noise))

        variables = recipe.generator.trainable_variables
        gradients, named = self._gradients("generator", variables, parts, losses, before)
        return self._train_generator(gradients, named, logs)

    def _train_discriminators(self, parts, logs) -> list:
        """Networks take turns: side by side, the maps and gradients of all would be in memory at once."""
        before = []
        for name, discriminator in self.recipe.discriminators.items():
            losses = functools.partial(self.recipe.discriminator_losses, name)
            variables = discriminator.trainable_variables
            before, named = self._gradients(name, variables, parts, losses, before)
            named |= self._apply(name, before, variables)
            logs |= {f"{name}/{key}": value for key, value in named.items()}
        return before

    def _train_generator(self, gradients, named, logs):
        named = named | self._apply("generator", gradients, self.recipe.generator.trainable_variables)
        return self._finish(logs | {f"generator/{key}": value for key, value in named.items()})


class SupervisedTrainer(_Trainer):
    """One step: one loss over all trainable weights, one optimizer; moving average."""

    def __init__(self, recipe, seed: int, steps_per_epoch: int, execution: Execution = AT_ONCE):
        super().__init__(recipe, seed, steps_per_epoch, execution)
        (self.optimizer_name,) = self.optimizers
        self.variables_trained = [v for network in self.networks.values() for v in network.trainable_variables]
        self.optimizers[self.optimizer_name].build(self.variables_trained)

    def train_step(self, batch, noise=None):
        """noise: see there; drawn here when it is not given."""
        name, variables = self.optimizer_name, self.variables_trained
        gradients, named = self._gradients(name, variables, self._parts(batch, noise), self.recipe.losses)
        return self._finish(named | self._apply(name, self._clipped(gradients), variables))

    def _clipped(self, gradients) -> list:
        """Scales the gradient of each network in `recipe.clip_norms` down to that norm, of all replicas' rows together.

        The replicas' shares are summed here for the norm alone: the optimizer sums what each of them applies.
        """
        clipped = dict(enumerate(tf.convert_to_tensor(gradient) for gradient in gradients))
        for name, limit in getattr(self.recipe, "clip_norms", {}).items():
            own = {id(variable) for variable in self.networks[name].trainable_variables}
            places = [place for place, variable in enumerate(self.variables_trained) if id(variable) in own]
            norm = tf.linalg.global_norm(replicas.total([clipped[place] for place in places]))
            limit *= self._loss_scale(self.optimizer_name)
            factor = limit / tf.maximum(norm, limit)
            clipped |= {place: factor * clipped[place] for place in places}
        return list(clipped.values())


def trainer(recipe, seed: int, steps_per_epoch: int, execution: Execution = AT_ONCE) -> GanTrainer | SupervisedTrainer:
    """The trainer a recipe asks for by its `kind`."""
    kind = {"gan": GanTrainer, "supervised": SupervisedTrainer}[recipe.kind]
    return kind(recipe, seed, steps_per_epoch, execution)
