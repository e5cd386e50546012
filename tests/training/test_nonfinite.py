"""A run whose losses are no numbers any more, and the way on that its message names."""

import dataclasses
import re

import keras
import numpy as np
import pytest

from t2i_tf import checkpoints, inference
from t2i_tf.errors import UserError
from t2i_tf.papers import gan_int_cls
from t2i_tf.training import loop
from t2i_tf.training.session import Session


def _exploding(self, steps_per_epoch):
    """Two quiet steps, and then one whose update leaves no number that a loss could be taken of."""
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([1], [1e-4, 1e30])
    return {name: keras.optimizers.Adam(rate) for name in ("generator", "discriminator")}


def _stopped(training, given):
    with pytest.raises(UserError, match="a loss or gradient became NaN or infinite at step 3: ") as error:
        loop.run(training, given)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.slow
def test_the_advice_after_a_nan_can_be_followed(gan_run, tmp_path, monkeypatch):
    training = dataclasses.replace(gan_run.training, run_dir=str(tmp_path / "run"), steps=9, checkpoint_every=2)
    with monkeypatch.context() as changed:
        changed.setattr(gan_int_cls.Recipe, "optimizers", _exploding)
        message = _stopped(training, gan_run.given)
    assert "the checkpoint of step 2 stands" in message and checkpoints.steps(tmp_path / "run") == [2]
    (source,) = re.findall(r"--init_from=(\S+),", message)
    (rate,) = re.findall(r"lower --(\w+)", message)
    with pytest.raises(UserError, match="holds a run with other settings"):  # what the advice is not
        loop.run(training, {**gan_run.given, rate: 1e-9})
    again = dataclasses.replace(training, run_dir=str(tmp_path / "again"), init_from=source, steps=2)
    outcome = loop.run(again, {**gan_run.given, rate: 1e-9})
    assert outcome.step == 2
    before, after = (inference.load(path, weights="raw").recipe.generator for path in (source, outcome.run_dir))
    for old, new in zip(before.trainable_variables, after.trainable_variables, strict=True):
        np.testing.assert_allclose(new, old, atol=1e-7)


def test_without_a_checkpoint_it_begins_anew(gan_run, tmp_path, monkeypatch):
    monkeypatch.setattr(gan_int_cls.Recipe, "optimizers", _exploding)
    training = dataclasses.replace(gan_run.training, run_dir=str(tmp_path / "run"), steps=9, checkpoint_every=9)
    message = _stopped(training, gan_run.given)
    assert "start a new run (another --run_dir, or none) with lower --learning_rate" in message
    assert "--init_from" not in message


def test_the_rates_are_named_as_the_paper_names_them(attngan_run):
    session = Session(attngan_run.training, attngan_run.given)
    advice = loop._way_on(session, attngan_run.path)
    assert f"--init_from={attngan_run.path}, lower --generator_learning_rate or --discriminator_learning_rate" in advice


def test_a_small_training_set_is_said_to_be_one(gan_run, caplog, monkeypatch):
    Session(gan_run.training, gan_run.given)
    assert "has only 60 pictures to train on, which a network soon knows by heart" in caplog.text
    caplog.clear()
    monkeypatch.setattr("t2i_tf.training.session.FEW_IMAGES", 60)
    Session(gan_run.training, gan_run.given)
    assert "by heart" not in caplog.text
