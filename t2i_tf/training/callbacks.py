"""What happens beside the steps: status line, TensorBoard, sample grids, scores, checkpoints, stop on NaN."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf

from t2i_tf.errors import UserError


def duration(seconds: float) -> str:
    """75 -> "1m15s"; 4000 -> "1h07m"."""
    seconds = int(max(seconds, 0))
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds % 60:02d}s" if minutes else f"{seconds}s"


def peak_memory_megabytes() -> float:
    """Peak of this process, and of the first GPU where there is one."""
    if tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class StepCallback(keras.callbacks.Callback):
    """Counts in steps of the run, not of this call of fit(). `step` is the number of steps done."""

    def __init__(self, start: int):
        super().__init__()
        self.step = self.first = start

    def on_train_batch_end(self, batch, logs=None):
        self.step += self.model.steps_per_execution
        self.on_step(logs or {})

    def on_step(self, logs: dict) -> None:
        raise TypeError(f"{type(self).__name__} does nothing at a step")


class StopOnNonFinite(StepCallback):
    """Ends the run when a loss or gradient is NaN or infinite; the checkpoint before stands.

    Must stand before `Checkpoints` in the list: nothing is saved past the first bad step.

    Args:
        advice: gives what to do then.
    """

    def __init__(self, start: int, every: int, advice: Callable[[], str]):
        super().__init__(start)
        self.every, self.advice = every, advice

    def on_step(self, logs):
        if self.step % self.every == 0:
            self.check()

    def on_train_end(self, logs=None):
        self.check()

    def check(self):
        bad = int(self.model.nonfinite_step.numpy())
        if bad >= 0:
            raise UserError(f"a loss or gradient became NaN or infinite at step {bad}: {self.advice()}")


class Together(StepCallback):
    """Ends the run of all workers at the same step: when one is told to, and when the chief's scores get no better.

    Must stand behind the callbacks that set `stop_training`.
    """

    def __init__(self, start: int, team):
        super().__init__(start)
        self.team, self.asked, self.ended = team, False, False

    def ask(self, signum=None, frame=None) -> None:
        """A signal handler. Asked once, the run ends with its step; asked again, at once and with nothing saved."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        # Not by `sys.stderr`, in whose midst the signal may have come.
        os.write(2, b"\nending with this step, or the score being taken; asked again, at once, unsaved\n")

    def on_step(self, logs):
        self.ended, self.model.stop_training = self.team.any(self.asked, self.model.stop_training)
        if self.ended:
            raise KeyboardInterrupt


class Checkpoints(StepCallback):
    """Saves every so many steps and at the end, an interruption included."""

    def __init__(self, start: int, every: int, keeper):
        super().__init__(start)
        self.every, self.keeper, self.saved = every, keeper, start if start else -1

    def on_step(self, logs):
        if self.step % self.every == 0:
            self.save()

    def on_train_end(self, logs=None):
        self.save()

    def save(self):
        if self.saved != self.step and int(self.model.nonfinite_step.numpy()) < 0:
            self.keeper.save()
            self.saved = self.step


class Scalars(StepCallback):
    """Every logged value, the learning rates and images a second to TensorBoard."""

    def __init__(self, start: int, every: int, writer, batch_size: int):
        super().__init__(start)
        self.every, self.writer, self.batch_size = every, writer, batch_size
        self.clock, self.clock_step = time.monotonic(), start

    def on_step(self, logs):
        if self.step % self.every:
            return
        now = time.monotonic()
        rate = (self.step - self.clock_step) * self.batch_size / max(now - self.clock, 1e-9)
        self.clock, self.clock_step = now, self.step
        with self.writer.as_default(step=self.step):
            for name, value in logs.items():
                tf.summary.scalar(name, value)
            for name, optimizer in self.model.optimizers.items():
                tf.summary.scalar(f"learning_rate/{name}", optimizer.learning_rate)
            tf.summary.scalar("images_per_second", rate)


class Periodic(StepCallback):
    """Calls `action(step)` every so many steps and, when asked, at the end."""

    def __init__(self, start: int, every: int, action: Callable[[int], None], at_end: bool = True):
        super().__init__(start)
        self.every, self.action, self.at_end, self.last = every, action, at_end, start

    def on_step(self, logs):
        if self.step % self.every == 0:
            self._act()

    def on_train_end(self, logs=None):
        if self.at_end and self.last != self.step:
            self._act()

    def _act(self):
        self.last = self.step
        self.action(self.step)


class StatusLine(StepCallback):
    """Step, epoch, images/s, losses, time left and memory: a live line on a terminal, else a line every ten seconds.

    A line every ten seconds also goes to the file `log`, behind those of the process before.
    """

    def __init__(self, start: int, stop: int, steps_per_epoch: int, batch_size: int, log: Path, stream=None):
        super().__init__(start)
        self.stop, self.steps_per_epoch = stop, steps_per_epoch
        self.batch_size, self.stream = batch_size, stream or sys.stderr
        self.live, self.log, self.logged = self.stream.isatty(), log, 0.0
        self.period = 0.5 if self.live else 10.0
        self.began = self.shown = None
        self.began_step = start

    def on_step(self, logs):
        now = time.monotonic()
        if self.began is None:  # the first step compiles: it does not count for the rate
            self.began, self.shown, self.began_step = now, now - self.period + 1.0, self.step
            return
        if now - self.shown < self.period and self.step != self.stop:
            return
        self.shown = now
        rate = (self.step - self.began_step) / max(now - self.began, 1e-9)
        shown = [
            f"{name.removesuffix('loss').rstrip('/')} {float(value):.3f}".strip()
            for name, value in logs.items()
            if name == "loss" or name.endswith("/loss")
        ]
        left = duration((self.stop - self.step) / rate) if rate else "?"
        epoch = self.step / self.steps_per_epoch
        self._show(
            f"step {self.step}/{self.stop} (epoch {epoch:.1f})  {rate * self.batch_size:.0f} images/s  "
            f"loss {'  '.join(shown)}  {left} left  {peak_memory_megabytes():.0f} MB"
        )

    def _show(self, line):
        self.stream.write(f"\r\033[K{line}" if self.live else f"{line}\n")
        self.stream.flush()
        if self.shown - self.logged >= 10.0 or self.step == self.stop:
            self.logged = self.shown
            with open(self.log, "a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")

    def on_train_end(self, logs=None):
        if self.live:
            self.stream.write("\n")
