"""How a run trains on its devices, and how the processes of several hosts keep together.

Each host runs the same command with its own TF_CONFIG. Worker 0 is the chief: the run folder is its alone, and what it
restores is sent to the others, who need to see the data set and the runs that flags name, but no run folder.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator

import tensorflow as tf

from t2i_tf import devices as of_this_machine
from t2i_tf.config import TrainConfig
from t2i_tf.errors import UserError
from t2i_tf.training.trainers import Execution

_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)
"""What TensorFlow raises in a worker when another one is gone."""


def workers() -> tuple[int, int]:
    """-> (this process's number, how many there are), as TF_CONFIG says; (0, 1) without it.

    Raises UserError for a TF_CONFIG that cannot be read, or with other tasks than workers.
    """
    if not os.environ.get("TF_CONFIG"):
        return 0, 1
    wanted = 'want {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": NUMBER}}'
    try:
        found = json.loads(os.environ["TF_CONFIG"])
        (kind, addresses), *others = found["cluster"].items()
        index = found["task"]["index"]
        fits = not others and kind == found["task"]["type"] == "worker" and 0 <= index < len(addresses)
    except (ValueError, KeyError, TypeError, AttributeError):
        fits = False
    if not fits:
        raise UserError(f"TF_CONFIG={os.environ['TF_CONFIG']}: {wanted}; see docs/scale.md")
    return index, len(addresses)


def strategy(devices: str | None) -> tf.distribute.Strategy:
    """That of this machine; with TF_CONFIG of several workers MultiWorkerMirroredStrategy, which waits here until all
    are there. Raises UserError for devices that are not there, or named with TF_CONFIG."""
    if workers()[1] > 1:
        if devices is not None:
            raise UserError(
                f"--devices={devices}: with TF_CONFIG each worker takes all GPUs it sees: leave the flag out and set "
                "CUDA_VISIBLE_DEVICES"
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    return of_this_machine.strategy(devices)


def check_batch(batch_size: int, replicas: int, parts: int = 1) -> None:
    """Raises UserError when the global batch cannot be dealt out evenly; papers may pair a replica's rows."""
    blocks = replicas * parts
    if blocks > 1 and batch_size % (2 * blocks):
        each = f" of {parts} parts each" if parts > 1 else ""
        raise UserError(
            f"--batch_size={batch_size} does not divide evenly, in pairs, over {replicas} devices{each}: give a "
            f"multiple of {2 * blocks}"
        )


def execution(training: TrainConfig, recipe, replicas: int) -> Execution:
    """How the trainer computes a step. Raises UserError for what cannot be."""
    if training.jit == "step" and replicas > 1:
        raise UserError(
            f"--jit=step: XLA compiles the step of one device, here are {replicas}: leave it out, or train on one"
        )
    reason = getattr(recipe, "whole_batch", None)
    if training.accumulate > 1 and reason:
        raise UserError(
            f"--accumulate={training.accumulate}: {reason}, and parts would be another training: leave the flag out, "
            "and give a smaller --batch_size or more devices"
        )
    count = training.steps_per_execution
    for name in ("steps", "checkpoint_every", "log_every", "sample_every"):
        value = getattr(training, name)
        if value is not None and value % count:
            raise UserError(f"--{name}={value} is no multiple of --steps_per_execution={count}: give one")
    scaled, compiled = training.precision == "mixed_float16", training.jit == "step"
    return Execution(scaled, compiled, training.accumulate, count)


def with_jit(training: TrainConfig, given: dict, fields: set[str]) -> dict:
    """The paper's settings with --jit. Raises UserError when it has no attention that could be compiled."""
    if training.jit is None or "compile_attention" not in fields:
        if training.jit == "attention":
            raise UserError(
                f"--jit=attention: {training.paper} has no attention that is compiled apart: leave the flag out"
            )
        return given
    return {**given, "compile_attention": training.jit == "attention"}


def described(strategy: tf.distribute.Strategy) -> str:
    """What a strategy of this process computes on: "2 GPUs (NVIDIA H200)", "the CPU, 16 threads"."""
    plain = strategy is tf.distribute.get_strategy()  # outside of any scope that is the one of a CPU alone
    chosen = ["CPU:0"] if plain else strategy.extended.worker_devices
    if not all("GPU" in device for device in chosen):
        threads = tf.config.threading.get_intra_op_parallelism_threads() or len(os.sched_getaffinity(0))
        return f"the CPU, {threads} threads" if len(chosen) == 1 else f"{len(chosen)} logical CPUs, {threads} threads"
    physical = tf.config.list_physical_devices("GPU")
    names = {
        tf.config.experimental.get_device_details(physical[int(device.rsplit(":", 1)[-1])]).get("device_name", "?")
        for device in chosen
    }
    return f"{len(chosen)} GPU{'s' if len(chosen) > 1 else ''} ({', '.join(sorted(names))})"


class Team:
    """The workers of a strategy. Its methods are for all of them to call, in the same order; alone they do nothing."""

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy
        self.index, self.count = workers()
        self._totals: dict = {}

    @property
    def chief(self) -> bool:
        return self.index == 0

    def distributed(self, stream: tf.data.Dataset, batch_size: int):
        """This worker's part of every batch, dealt out to its replicas."""
        if self.count == 1:
            return stream
        rows = batch_size // self.strategy.num_replicas_in_sync
        return self.strategy.distribute_datasets_from_function(lambda context: stream.rebatch(rows))

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Which flags are set in any worker. Also how they wait for each other."""
        if self.count == 1:
            return flags
        return tuple(bool(total) for total in self._total(tf.constant(flags, tf.float32)).numpy() > 0.0)

    def wait(self) -> None:
        """Until all workers are here."""
        self.any(True)

    def take_from_chief(self, variables: list[tf.Variable]) -> None:
        """Gives variables the values that they have in the chief."""
        if self.count == 1:
            return
        for variable in variables:  # one by one, since together they would be in memory twice
            # As float64, whole numbers are exact up to 2**53.
            value = tf.cast(variable, tf.float64 if variable.dtype.is_integer else variable.dtype)
            value = self._total(value if self.chief else tf.zeros_like(value))
            variable.assign(tf.cast(value, variable.dtype))

    def _total(self, value: tf.Tensor) -> tf.Tensor:
        """The sum over the workers; of the replicas of a worker the first alone counts."""
        if value.dtype not in self._totals:
            specification = tf.TensorSpec([None], value.dtype)  # flat, so that it is traced once
            self._totals[value.dtype] = tf.function(self._flat_total, input_signature=[specification])
        return tf.reshape(self._totals[value.dtype](tf.reshape(value, [-1])), value.shape)

    def _flat_total(self, value):
        def own():
            context = tf.distribute.get_replica_context()
            first = context.replica_id_in_sync_group % (context.num_replicas_in_sync // self.count) == 0
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(first, value, tf.zeros_like(value)))

        return self.strategy.experimental_local_results(self.strategy.run(own))[0]


@contextlib.contextmanager
def told_when_lost() -> Iterator[None]:
    """Says in one line when another worker is gone. Raises UserError."""
    try:
        yield
    except _LOST as error:
        index, count = workers()
        if count == 1:
            raise
        raise UserError(
            f"worker {index} of {count} stops, since another one has ended or cannot be reached: see its log; the same "
            "command on all hosts goes on from the last checkpoint"
        ) from error
