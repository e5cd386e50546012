import json

import numpy as np
import pytest

from t2i_tf import inference
from t2i_tf.config import EvaluateConfig
from t2i_tf.data import records
from t2i_tf.errors import UserError
from t2i_tf.evaluation import evaluate


@pytest.fixture(scope="module")
def split(blossoms):
    return records.Dataset.open(blossoms).split("test")


@pytest.fixture(scope="module")
def encoder(text_encoder_run):
    return inference.load(text_encoder_run.path)


def test_training_leaves_scores_that_say_how_they_were_measured(gan_run, text_encoder_run):
    for run, metric, weights in ((gan_run, "caption_fidelity", "ema"), (text_encoder_run, "retrieval", "raw")):
        (line,) = (run.path / "scores.jsonl").read_text().splitlines()
        score = json.loads(line)
        expected = {"metric": metric, "data": "blossoms", "split": "test", "seed": 0, "weights": weights}
        assert {name: score[name] for name in expected} == expected
        assert score["step"] == run.outcome.step


def test_retrieval_is_over_the_whole_split(encoder, split):
    score = evaluate.evaluate(encoder, "retrieval", split)
    assert (score["images"], score["captions"], score["classes"]) == (6, 60, 6)
    assert 0 <= score["accuracy"] <= 1 and score["accuracy_of_chance"] == pytest.approx(1 / 6)
    assert score == evaluate.evaluate(encoder, "retrieval", split)


def test_caption_fidelity_repeats_and_counts(gan, split):
    score = evaluate.evaluate(gan, "caption_fidelity", split, num_images=20, seed=3)
    assert score["images"] == 20
    assert score == evaluate.evaluate(gan, "caption_fidelity", split, num_images=20, seed=3)


def test_metrics_that_do_not_fit_are_refused(gan, encoder, split):
    with pytest.raises(UserError, match="--metrics=beauty: must be one of retrieval, caption_fidelity"):
        evaluate.evaluate(gan, "beauty", split)
    with pytest.raises(UserError, match="--metrics=retrieval needs a run of a text encoder, this is one of gan_int"):
        evaluate.evaluate(gan, "retrieval", split)
    with pytest.raises(UserError, match="a run of char_cnn_rnn draws no pictures"):
        evaluate.evaluate(encoder, "caption_fidelity", split)


def test_classes_are_needed_to_retrieve(encoder, blossoms):
    single = records.Dataset.open(blossoms).split("test")
    single.class_ids = np.zeros_like(single.class_ids)
    assert evaluate.fitting(encoder, single) == []
    with pytest.raises(UserError, match="has no captions or fewer than two classes in split test"):
        evaluate.evaluate(encoder, "retrieval", single)


def test_the_verb_adds_a_line_to_the_runs_scores(text_encoder_run, tmp_path):
    import shutil

    run_dir = shutil.copytree(text_encoder_run.path, tmp_path / "run")
    lines = list(evaluate.evaluate_run(EvaluateConfig(run_dir=str(run_dir))))
    assert lines[-1] == f"added to {run_dir / 'scores.jsonl'}"
    kept = (run_dir / "scores.jsonl").read_text().splitlines()
    assert len(kept) == 2 and kept[1] == lines[0]
    with pytest.raises(UserError, match="has no split 'val': it has train, test"):
        list(evaluate.evaluate_run(EvaluateConfig(run_dir=str(run_dir), split="val")))
