"""The best weights of a run: kept, found again, and a reason to stop."""

import json

import keras
import numpy as np
import pytest

from t2i_tf import checkpoints, inference
from t2i_tf.config import TrainConfig
from t2i_tf.errors import UserError
from t2i_tf.papers import Selection
from t2i_tf.training import loop
from t2i_tf.training.best import BestWeights


@pytest.fixture
def network():
    network = keras.Sequential([keras.layers.Input([2]), keras.layers.Dense(1)])
    return network


def _take(best, network, step, value):
    network.set_weights([np.full([2, 1], step, "f4"), np.zeros(1, "f4")])
    best.consider(step, {"accuracy": value}, {"network": network}, None)


@pytest.mark.parametrize("largest, values", [(True, [0.2, 0.5, 0.4, 0.5]), (False, [4.0, 1.0, 2.0, 1.0])])
def test_the_best_is_kept_and_the_first_of_equals(tmp_path, network, largest, values):
    best = BestWeights(tmp_path, Selection("retrieval", "accuracy", largest), patience=2)
    for step, value in enumerate(values[:3], 1):
        _take(best, network, step, value)
        assert not best.exhausted
    _take(best, network, 4, values[3])
    assert best.exhausted and (best.step, best.value) == (2, values[1])
    assert checkpoints.load_weights(tmp_path, {"network": network}) == 2
    np.testing.assert_array_equal(network.get_weights()[0], [[2.0], [2.0]])
    assert len(list((tmp_path / "best" / "checkpoints").glob("*.index"))) == 1, "the one before it is gone"


def test_a_run_that_goes_on_knows_its_best_and_counts_a_step_once(tmp_path, network):
    selection = Selection("retrieval", "accuracy")
    best = BestWeights(tmp_path, selection, patience=2)
    for step, value in ((1, 0.5), (2, 0.3)):
        _take(best, network, step, value)
    again = BestWeights(tmp_path, selection, patience=2)
    assert (again.step, again.value, again.no_better) == (1, 0.5, 1)
    _take(again, network, 2, 0.3)  # trained anew from a checkpoint before it
    assert not again.exhausted
    _take(again, network, 3, 0.3)
    assert again.exhausted and not BestWeights(tmp_path, selection, patience=None).exhausted


def test_a_damaged_note_says_what_to_do(tmp_path):
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "score.json").write_text("{")
    with pytest.raises(UserError, match="score.json is damaged .* remove"):
        BestWeights(tmp_path, Selection("retrieval", "accuracy"), None)


@pytest.mark.slow
def test_training_stops_when_it_gets_no_better_and_the_best_is_what_is_loaded(blossoms, damsm_run, tmp_path):
    training = TrainConfig(
        paper="damsm", data_dir=str(blossoms), run_dir=str(tmp_path / "run"), steps=9, sample_every=1, patience=2
    )
    given = {**damsm_run.given, "learning_rate": 0.0, "dropout": 0.0}
    outcome = loop.run(training, given)
    # Batch statistics move on, so scores may too: what matters is that two in a row were no better than the best.
    lines = [json.loads(line) for line in (tmp_path / "run" / "scores.jsonl").read_text().splitlines()]
    values = {line["step"]: line["mean_recall"] for line in lines if line["metric"] == "recall"}
    assert outcome.stopped and outcome.step == len(values) < 9
    best = max(values, key=lambda step: (values[step], -step))
    assert best == outcome.step - 2 and f"at step {best}" in outcome.best
    assert inference.load(tmp_path / "run").step == best
    assert inference.load(tmp_path / "run", checkpoint="newest").step == outcome.step
    again = loop.run(training, given)
    assert again.stopped and again.step == outcome.step, "the same command does not go on"


def test_patience_without_a_score_to_choose_by_is_refused(blossoms, tmp_path):
    training = TrainConfig(paper="stackgan_v2", data_dir=str(blossoms), run_dir=str(tmp_path / "run"), patience=3)
    with pytest.raises(UserError, match="--patience: stackgan_v2 does not choose its weights by a score"):
        loop.run(training, {"conditional": False, "base_size": 16, "num_scales": 2, "generator_width": 8})


def test_a_score_without_the_value_keeps_nothing_and_says_so(tmp_path, network, caplog):
    best = BestWeights(tmp_path, Selection("captions", "bleu_4"), patience=1)
    best.consider(1, {"negative_log_likelihood": 2.0}, {"network": network}, None)
    assert not best.exhausted and not (tmp_path / "best").exists() and "no bleu_4 in the scores" in caplog.text
