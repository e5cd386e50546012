"""Checkpoints of a run: all that the next step depends on, or the weights alone.

They are ordinary TensorFlow checkpoints in `<run>/checkpoints`, which `tf.train.latest_checkpoint` reads. A kill while
one is written leaves the one before.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import tensorflow as tf

from t2i_tf.errors import UserError

_UNREADABLE = (IndexError, tf.errors.OpError)
"""What TensorFlow raises for a truncated or damaged file; a ValueError is a shape that does not fit."""


def _group(parts: dict) -> tf.Module:
    module = tf.Module()
    for name, part in parts.items():
        setattr(module, name, part)
    return module


def _weights(networks: dict, average) -> dict:
    return {"networks": _group(networks), **({"average": average} if average is not None else {})}


class Keeper:
    """Saves and restores a trainer.

    Args:
        trainer: has step, networks, optimizers, average.
        keep: how many checkpoints stay.
    """

    def __init__(self, run_dir: Path, trainer, keep: int):
        self.folder, self.trainer = Path(run_dir) / "checkpoints", trainer
        self._checkpoint = tf.train.Checkpoint(
            step=trainer.step, optimizers=_group(trainer.optimizers), **_weights(trainer.networks, trainer.average)
        )
        for leftover in self.folder.glob("*_temp"):  # of a run killed while it saved; TensorFlow never removes them
            shutil.rmtree(leftover)
        self._manager = tf.train.CheckpointManager(self._checkpoint, self.folder, keep, checkpoint_name="ckpt")

    def save(self) -> Path:
        step = int(self.trainer.step.numpy())
        return Path(self._manager.save(checkpoint_number=step))

    def restore(self) -> int:
        """Restores the newest readable checkpoint and returns its step; 0 when there is none.

        Raises UserError when there are checkpoints and none can be read.
        """
        for path in reversed(self._manager.checkpoints):
            try:
                self._checkpoint.restore(path).assert_consumed()
            except _UNREADABLE as error:
                logging.warning("checkpoint %s cannot be read (%s): trying the one before", path, error)
            else:
                return int(self.trainer.step.numpy())
        if self._manager.checkpoints:
            raise UserError(
                f"none of the checkpoints in {self.folder} can be read: restore one from a backup, or start a new run"
            )
        return 0


def newest(run_dir: Path) -> str:
    """Path of the newest checkpoint of a run. Raises UserError when there is none."""
    path = tf.train.latest_checkpoint(str(Path(run_dir) / "checkpoints"))
    if path is None:
        raise UserError(f"{run_dir} has no checkpoint yet: train it first (t2i-train --run_dir={run_dir})")
    return path


def step_of(path: str) -> int:
    """.../ckpt-1200 -> 1200."""
    return int(path.rsplit("-", 1)[-1])


def save_weights(folder: Path, step: int, networks: dict, average=None) -> None:
    """Writes the weights alone as a checkpoint of a run folder."""
    checkpoint = tf.train.Checkpoint(**_weights(networks, average))
    manager = tf.train.CheckpointManager(checkpoint, Path(folder) / "checkpoints", 1, checkpoint_name="ckpt")
    manager.save(checkpoint_number=step)


def load_weights(path: str, networks: dict, average=None) -> None:
    """Loads networks and moving averages from a checkpoint, leaving optimizers out.

    Raises UserError naming what does not fit: a checkpoint of another paper or another width.
    """
    try:
        shapes = dict(tf.train.list_variables(path))
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    have = {key.split("/")[1] for key in shapes if key.startswith("networks/")}
    missing = sorted(set(networks) - have)
    if missing:
        raise UserError(
            f"checkpoint {path} is of another paper: it has no {', '.join(missing)}, only {', '.join(sorted(have))}"
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
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> UserError:
    reason = str(error).splitlines()[0]
    return UserError(
        f"checkpoint {path} cannot be read ({reason}): give the run's t2i-train command again, which goes on from the "
        "checkpoint before"
    )
