"""Callbacks in a real fit() of a small trainer whose losses are told beforehand."""

import io
from types import SimpleNamespace

import keras
import pytest
import tensorflow as tf

from t2i_tf.errors import UserError
from t2i_tf.training import callbacks
from t2i_tf.training.trainers import SupervisedTrainer


class Told:
    """A recipe whose loss at a step is the number that the batch brings."""

    kind = "supervised"

    def __init__(self):
        self.network = keras.Sequential([keras.Input([1]), keras.layers.Dense(1, use_bias=False)])
        self.networks = {"network": self.network}
        self.hyperparameters = SimpleNamespace(ema_decay=0.0)

    def optimizers(self, steps_per_epoch):
        return {"network": keras.optimizers.SGD(0.0)}

    def noise(self, draw):
        return {}

    def losses(self, batch, noise):
        return {"loss": tf.reduce_mean(self.network(batch["number"]) * 0.0 + batch["number"])}


def fit(numbers, *beside):
    trainer = SupervisedTrainer(Told(), seed=0, steps_per_epoch=10)
    rows = {"number": tf.constant(numbers)[:, None, None], "class": tf.zeros([len(numbers), 1], tf.int32)}
    stream = tf.data.Dataset.from_tensor_slices(rows)
    trainer.fit(stream, steps_per_epoch=len(numbers), verbose=0, shuffle=False, callbacks=beside)
    return trainer


class Keeper:
    """Stands for the disk: notes when it is asked to save."""

    def __init__(self):
        self.saved = []

    def save(self):
        self.saved.append(None)


def stop_on_nonfinite(every):
    return callbacks.StopOnNonFinite(0, every, lambda: "rest")


NAN = float("nan")


@pytest.mark.parametrize("bad", [NAN, float("inf"), float("-inf")])
@pytest.mark.parametrize("every, last", [(1, 4), (2, 4), (100, 4)])
def test_a_loss_that_is_no_number_stops_the_run_and_names_its_step(bad, every, last):
    with pytest.raises(UserError, match="became NaN or infinite at step 3: rest$"):
        fit([1.0, 2.0, bad, 4.0], stop_on_nonfinite(every))


def test_the_step_named_is_the_first_bad_one():
    with pytest.raises(UserError, match="at step 2:"):
        fit([1.0, NAN, NAN, 1.0], stop_on_nonfinite(4))


def test_finite_losses_stop_nothing():
    assert int(fit([1.0] * 5, stop_on_nonfinite(1)).step.numpy()) == 5


class Saves(callbacks.Checkpoints):
    """Notes the steps at which it saved."""

    def __init__(self, *args):
        super().__init__(*args)
        self.steps = []

    def save(self):
        before = len(self.keeper.saved)
        super().save()
        if len(self.keeper.saved) > before:
            self.steps.append(self.step)


@pytest.mark.parametrize(
    "start, count, every, steps",
    [(0, 5, 2, [2, 4, 5]), (0, 4, 2, [2, 4]), (3, 4, 5, [5, 7]), (0, 1, 100, [1]), (6, 3, 3, [9])],
)
def test_checkpoints_are_saved_at_round_steps_and_at_the_end(start, count, every, steps):
    saves = Saves(start, every, Keeper())
    fit([1.0] * count, saves)
    assert saves.steps == steps


def test_nothing_is_saved_past_a_bad_step():
    saves = Saves(0, 1, Keeper())
    fit([1.0, 1.0, NAN, 1.0, 1.0], saves)
    assert saves.steps == [1, 2]


@pytest.mark.parametrize("start, count, every, steps", [(0, 5, 2, [2, 4, 5]), (0, 4, 2, [2, 4]), (7, 2, 4, [8, 9])])
def test_periodic_actions_also_end_the_run(start, count, every, steps):
    acted = []
    fit([1.0] * count, callbacks.Periodic(start, every, acted.append))
    assert acted == steps
    acted.clear()
    fit([1.0] * count, callbacks.Periodic(start, every, acted.append, at_end=False))
    assert acted == [step for step in steps if step % every == 0]


def test_scalars_go_to_tensorboard_with_rates(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path))
    fit([1.0, 2.0, 3.0, 4.0], callbacks.Scalars(0, 2, writer, 8))
    writer.close()
    found = {}
    for path in tmp_path.iterdir():
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    assert found["loss", 2] == pytest.approx(2.0) and found["loss", 4] == pytest.approx(4.0)
    assert ("loss", 1) not in found and ("loss", 3) not in found
    assert {"gradient_norm", "learning_rate/network", "images_per_second"} <= {tag for tag, _ in found}


def test_the_status_line_says_where_the_run_stands(tmp_path):
    stream = io.StringIO()
    fit([1.0, 2.0, 3.5], callbacks.StatusLine(10, 13, 5, 8, tmp_path / "log", stream))
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("step 13/13 (epoch 2.6)  ")
    assert "images/s  loss 3.500  0s left" in line and line.endswith(" MB")
    assert (tmp_path / "log").read_text().strip().endswith(line)


@pytest.mark.parametrize(
    "seconds, text", [(-3, "0s"), (0, "0s"), (59.9, "59s"), (75, "1m15s"), (3600, "1h00m"), (4021, "1h07m")]
)
def test_durations_are_short(seconds, text):
    assert callbacks.duration(seconds) == text
