"""A picture network that learns the words of captions, and the DAMSM that rests on it."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import inference, papers
from t2i_tf.config import EvaluateConfig, RunConfig, TrainConfig
from t2i_tf.data import pipeline, records
from t2i_tf.errors import UserError
from t2i_tf.evaluation import evaluate
from t2i_tf.papers import damsm, visual_words
from t2i_tf.training import loop

SMALL = {"image_encoder_width": 2, "image_size": 32, "batch_size": 6, "epochs": 1}
DAMSM = {
    "image_encoder": "conv",
    "image_encoder_width": 2,
    "image_size": 32,
    "embedding_dim": 8,
    "word_dim": 6,
    "batch_size": 6,
}


@pytest.fixture(scope="module")
def trained(blossoms, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "visual_words"
    training = TrainConfig(paper="visual_words", data_dir=str(blossoms), run_dir=str(folder), steps=3, sample_every=3)
    loop.run(training, SMALL)
    return folder


def recipe(vocabulary_size=5, **given):
    context = papers.Context(vocabulary_size=vocabulary_size)
    return visual_words.Recipe(papers.resolve("visual_words", **{**SMALL, **given}), context)


def test_loss_is_the_cross_entropy_of_the_share_of_captions_that_have_a_word():
    made = recipe(captions_averaged=2)
    made.head.kernel.assign(tf.zeros_like(made.head.kernel))
    made.head.bias.assign([9.0, 0.5, -1.0, 2.0, 0.0])  # of word 0, which is padding, nothing is asked
    words = tf.constant([[[1, 1, 2], [1, 0, 0]], [[4, 3, 0], [2, 4, 4]]])
    found = made.losses({"images": (tf.zeros([2, 32, 32, 3]),), "words": words}, {})
    likely = 1 / (1 + np.exp(-np.array([0.5, -1.0, 2.0, 0.0])))
    shares = np.array([[1.0, 0.5, 0.0, 0.0], [0.0, 0.5, 0.5, 1.0]])
    entropies = -(shares * np.log(likely) + (1 - shares) * np.log(1 - likely))
    assert float(found["loss"]) == pytest.approx(entropies.sum(axis=1).mean(), rel=1e-5)


def test_its_score_is_that_of_its_own_answers(trained, blossoms):
    run, split = inference.load(trained), records.Dataset.open(blossoms).split("test")
    score = evaluate.evaluate(run, "word_precision", split, EvaluateConfig())
    pictures = np.concatenate(list(pipeline.views(split, 32, 32).as_numpy_iterator()))
    scores = run.tell_words(pictures)
    assert scores.shape == (6, len(run.vocabulary))
    precisions = []
    for place, word in enumerate(run.vocabulary):
        said = [any(word in re.findall(r"\w+", caption) for caption in captions) for captions in split.captions()]
        if any(said) and not all(said):
            ranked = [said[row] for row in np.argsort(-scores[:, place], kind="stable")]
            at_hits = [np.mean(ranked[: rank + 1]) for rank in range(6) if ranked[rank]]
            precisions.append(np.mean(at_hits))
    assert score["mean_average_precision"] == pytest.approx(np.mean(precisions))
    assert score["words"] == len(precisions) and score["images"] == 6
    assert run.recipe.selection.metric == "word_precision" and (trained / "best").is_dir()
    lines = [json.loads(line) for line in (trained / "scores.jsonl").read_text().splitlines()]
    assert [line["metric"] for line in lines] == ["word_precision"]


def test_other_runs_tell_no_words(damsm_run, blossoms):
    run, split = inference.load(damsm_run.path), records.Dataset.open(blossoms).split("test")
    with pytest.raises(UserError, match="word_precision needs a run of visual_words, this is one of damsm"):
        evaluate.evaluate(run, "word_precision", split, EvaluateConfig())


def test_without_captions_there_are_no_words():
    with pytest.raises(UserError, match="visual_words reads words: give a data set with captions"):
        recipe(vocabulary_size=0)


def test_a_damsm_keeps_its_network_frozen(trained, blossoms, tmp_path):
    training = TrainConfig(paper="damsm", data_dir=str(blossoms), run_dir=str(tmp_path / "damsm"), steps=2)
    loop.run(training, {**DAMSM, "trunk_run": str(trained)})
    theirs, ours = inference.load(trained), inference.load(tmp_path / "damsm")
    pairs = zip(theirs.recipe.trunk.variables, ours.recipe.image_encoder.trunk.variables, strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs), "statistics too"
    names = {variable.path.split("/")[1] for variable in ours.recipe.image_encoder.trainable_variables}
    assert names == {"region_map", "code_map"}
    image = tf.Variable(tf.zeros([1, 32, 32, 3]))
    with tf.GradientTape() as tape:
        code = ours.recipe.image_encoder(image)[1]
    assert np.abs(tape.gradient(code, image)).max() > 0, "a generator learns from it"


@pytest.mark.parametrize(
    "given, message",
    [
        ({"image_encoder_width": 3}, "was trained with other settings: add --image_encoder_width=2"),
        ({"image_size": 64}, "was trained with other settings: add --image_size=32"),
        ({"image_encoder": "random"}, "--trunk_run=.* goes with --image_encoder=conv"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(trained, given, message):
    hyperparameters = papers.resolve("damsm", **{**DAMSM, "trunk_run": str(trained), **given})
    with pytest.raises(UserError, match=message):
        _ = damsm.Recipe(hyperparameters, papers.Context(vocabulary_size=5)).pretrained


def test_a_run_of_another_paper_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(RunConfig(TrainConfig(paper="attngan", data_dir=""), {}, {}).to_json())
    hyperparameters = papers.resolve("damsm", **DAMSM, trunk_run=str(tmp_path))
    with pytest.raises(UserError, match="is a run of attngan: give one of --paper=visual_words"):
        _ = damsm.Recipe(hyperparameters, papers.Context(vocabulary_size=5)).pretrained


@pytest.mark.slow
def test_a_damsm_may_train_its_network_along(trained, blossoms, tmp_path):
    training = TrainConfig(paper="damsm", data_dir=str(blossoms), run_dir=str(tmp_path / "damsm"), steps=2)
    loop.run(training, {**DAMSM, "trunk_run": str(trained), "frozen_trunk": False})
    theirs, ours = inference.load(trained), inference.load(tmp_path / "damsm")
    pairs = zip(theirs.recipe.trunk.variables, ours.recipe.image_encoder.trunk.variables, strict=True)
    assert not any(np.array_equal(a, b) for a, b in pairs), "statistics too"
