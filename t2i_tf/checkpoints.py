"""Checkpoints of a run: all that the next step depends on, or the weights alone.

They are ordinary TensorFlow checkpoints in `<run>/checkpoints`, which `tf.train.latest_checkpoint` reads. A kill while
one is written leaves the one before.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from t2i_tf.errors import UserError

BEST = "best"
"""Folder inside a run with the weights of its best score, for papers that choose by one."""

_UNREADABLE = (IndexError, tf.errors.OpError)
"""What TensorFlow raises for a truncated or damaged file; a ValueError is a shape that does not fit."""


def _variables(owners: dict) -> dict[str, list]:
    """Name -> every variable of a network or an optimizer, in its order.

    Listed one by one: TensorFlow's object graph reaches no layer that a Keras model keeps in a list, nor those of a
    Sequential, and would leave them out without a word.
    """
    return {name: [variable.value for variable in owner.variables] for name, owner in owners.items()}


def _weights(networks: dict, average) -> dict:
    return {"networks": _variables(networks), **({"average": average} if average is not None else {})}


class Keeper:
    """Saves and restores a trainer.

    Args:
        trainer: has step, networks, optimizers, average.
        keep: how many checkpoints stay.
    """

    def __init__(self, run_dir: Path, trainer, keep: int):
        self.folder, self.trainer = Path(run_dir) / "checkpoints", trainer
        self._checkpoint = tf.train.Checkpoint(
            step=trainer.step, optimizers=_variables(trainer.optimizers), **_weights(trainer.networks, trainer.average)
        )
        for leftover in self.folder.glob("*_temp"):  # of a run killed while it saved; TensorFlow never removes them
            shutil.rmtree(leftover)
        self._manager = tf.train.CheckpointManager(self._checkpoint, self.folder, keep, checkpoint_name="ckpt")

    def save(self) -> Path:
        return Path(self._manager.save(checkpoint_number=int(self.trainer.step.numpy())))

    def restore(self) -> int:
        """Restores the newest readable checkpoint and returns its step; 0 when there is none.

        Raises UserError when there are checkpoints and none can be read.
        """
        if not self._manager.checkpoints:
            return 0
        return _read_newest(self._manager.checkpoints, lambda path: self._checkpoint.restore(path).assert_consumed())


def _step(path: str) -> int:
    """.../ckpt-1200 -> 1200."""
    return int(path.rsplit("-", 1)[-1])


def steps(run_dir: str | Path) -> list[int]:
    """The steps that a run has checkpoints of, oldest first; the one kept for its score is not among them."""
    state = tf.train.get_checkpoint_state(str(Path(run_dir) / "checkpoints"))
    return [] if state is None else [_step(path) for path in state.all_model_checkpoint_paths]


def _read_newest(paths: Sequence[str], read: Callable[[str], object]) -> int:
    """Calls `read` with the last of some checkpoints, with the one before when it is damaged, and so on.

    Returns the step of the one that was read. Raises UserError when none can be.
    """
    damaged = {}
    for path in reversed(paths):
        try:
            read(path)
        except _UNREADABLE as error:
            damaged[path] = str(error).splitlines()[0]
        else:
            step = _step(path)
            if damaged:
                named = ", ".join(f"{path} ({reason})" for path, reason in damaged.items())
                logging.warning("checkpoint %s cannot be read: using the one of step %d", named, step)
            return step
    raise UserError(
        f"none of the checkpoints in {Path(paths[-1]).parent} can be read ({damaged[paths[-1]]}): restore one from a "
        "backup, or start a new run"
    )


def save_weights(folder: Path, step: int, networks: dict, average=None) -> None:
    """Writes the weights alone as a checkpoint of a run folder."""
    checkpoint = tf.train.Checkpoint(**_weights(networks, average))
    manager = tf.train.CheckpointManager(checkpoint, Path(folder) / "checkpoints", 1, checkpoint_name="ckpt")
    manager.save(checkpoint_number=step)


def load_weights(
    run_dir: str | Path, networks: dict, average=None, newest: bool = False, step: int | None = None
) -> int:
    """Loads networks and moving averages from a readable checkpoint of a run, leaving optimizers out.

    It is that of the best score where the run keeps one, else, or with `newest`, the newest; or that of `step`.

    Returns its step. Raises UserError when there is none, when none can be read, and, naming what does not fit, for a
    checkpoint of another paper or another width.
    """
    folders = [Path(run_dir), *([] if newest else [Path(run_dir) / BEST])]
    states = [tf.train.get_checkpoint_state(str(folder / "checkpoints")) for folder in folders]
    paths = [path for state in states if state is not None for path in state.all_model_checkpoint_paths]
    if not paths:
        raise UserError(f"{run_dir} has no checkpoint yet: train it first (t2i-train --run_dir={run_dir})")
    if step is not None:
        there = ", ".join(map(str, sorted({_step(path) for path in paths})))
        paths = [path for path in paths if _step(path) == step]
        if not paths:
            raise UserError(f"{run_dir} has no checkpoint of step {step}: it has those of {there}")
    return _read_newest(paths, lambda path: _load_weights(path, networks, average))


def _load_weights(path: str, networks: dict, average) -> None:
    have = _network_sizes(path)
    missing = sorted(set(networks) - set(have))
    if missing:
        raise UserError(
            f"checkpoint {path} is of another paper: it has no {', '.join(missing)}, only {', '.join(sorted(have))}"
        )
    for name, variables in _variables(networks).items():
        if have[name] != len(variables):
            raise UserError(
                f"checkpoint {path} does not fit this model (its {name} has {have[name]} variables, here are "
                f"{len(variables)}): use the settings it was trained with"
            )
    try:
        status = tf.train.Checkpoint(**_weights(networks, average)).restore(path)
        status.assert_existing_objects_matched().expect_partial()
    except ValueError as error:
        raise UserError(
            f"checkpoint {path} does not fit this model ({str(error).splitlines()[0]}): use the widths it was "
            "trained with"
        ) from error
    except AssertionError as error:
        raise UserError(
            f"checkpoint {path} lacks weights of this model ({str(error).splitlines()[0]}): use the settings "
            "it was trained with"
        ) from error


def fingerprint(weights: Iterable[np.ndarray], *settings) -> str:
    """SHA-256 of a network's weights, their types and shapes, and of the settings that change what it says."""
    digest = hashlib.sha256(repr(settings).encode())
    for weight in weights:
        digest.update(f"{weight.dtype.str}{weight.shape}".encode() + np.ascontiguousarray(weight).tobytes())
    return digest.hexdigest()


def _network_sizes(path: str) -> dict[str, int]:
    """How many variables each network in a checkpoint has."""
    graph = TrackableObjectGraph.FromString(tf.train.load_variable(path, "_CHECKPOINTABLE_OBJECT_GRAPH"))

    def children(node):
        return {child.local_name: graph.nodes[child.node_id] for child in node.children}

    networks = children(graph.nodes[0]).get("networks")
    return {} if networks is None else {name: len(node.children) for name, node in children(networks).items()}
