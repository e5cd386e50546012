"""Ctrl-C in the worst moments: while averages stand in the weights' place, while scores are taken, and twice."""

import os
import signal

import numpy as np
import pytest

from t2i_tf import inference
from t2i_tf.config import TrainConfig
from t2i_tf.evaluation import evaluate, score_file
from t2i_tf.networks.moving_average import MovingAverage
from t2i_tf.training import loop
from tests.conftest import TINY_TEXT_ENCODER


@pytest.fixture
def start(blossoms, tmp_path):
    """Trains a tiny text encoder that keeps averages, with scores after every step."""

    def call():
        training = TrainConfig(
            paper="char_cnn_rnn", data_dir=str(blossoms), run_dir=str(tmp_path / "run"), steps=3, sample_every=1
        )
        return loop.run(training, {**TINY_TEXT_ENCODER, "ema_decay": 0.5})

    return call


def test_the_trained_weights_are_saved_whenever_the_signal_comes(start, monkeypatch):
    trained, exchange = [], MovingAverage._exchange

    def interrupted(average):
        if not trained:
            trained.extend(np.array(source) for source in average.sources)
            exchange(average)
            os.kill(os.getpid(), signal.SIGINT)
        else:
            exchange(average)

    monkeypatch.setattr(MovingAverage, "_exchange", interrupted)
    outcome = start()
    assert outcome.interrupted and outcome.step == 1
    saved = inference.load(outcome.run_dir, weights="raw")
    for own, shadow, was in zip(saved.average.sources, saved.average.shadows, trained, strict=True):
        np.testing.assert_array_equal(own, was)
        assert not np.array_equal(shadow, was)


def test_of_the_scores_only_the_one_being_taken_is_ended(start, monkeypatch):
    asked, measure = [], evaluate.evaluate

    def interrupted(run, metric, split, options):
        asked.append(metric)
        os.kill(os.getpid(), signal.SIGTERM)
        return measure(run, metric, split, options)

    monkeypatch.setattr(evaluate, "fitting", lambda run, split: ["recall", "retrieval"])
    monkeypatch.setattr(evaluate, "evaluate", interrupted)
    outcome = start()
    assert outcome.interrupted and outcome.step == 1 and asked == ["recall"]
    assert [score["metric"] for score in score_file.read(outcome.run_dir)] == ["recall"]


def test_a_second_signal_ends_at_once_and_saves_nothing(start, monkeypatch, tmp_path):
    def interrupted(*args):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(evaluate, "evaluate", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        start()
    assert not (tmp_path / "run" / "checkpoints" / "checkpoint").exists()
    assert signal.getsignal(signal.SIGINT) is before
