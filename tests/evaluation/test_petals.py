"""The attention of a petal colour's word, measured against where petals are."""

import numpy as np
import pytest

from t2i_tf import inference
from t2i_tf.config import EvaluateConfig
from t2i_tf.data import records
from t2i_tf.errors import UserError
from t2i_tf.evaluation import evaluate, petals


@pytest.fixture(scope="module")
def split(blossoms):
    return records.Dataset.open(blossoms).split("test")


def test_the_share_of_even_weights_is_the_share_of_the_area():
    masks = np.zeros((2, 12, 12), bool)
    masks[0, :3] = masks[1] = True
    np.testing.assert_allclose(petals.share_on(np.full((2, 4, 4), 7.0), masks), [0.25, 1.0])


def test_weights_count_where_they_are():
    masks = np.zeros((1, 32, 32), bool)
    masks[:, :16] = True
    weights = np.zeros((1, 4, 4))
    weights[0, 0, 2] = 3.0
    assert petals.share_on(weights, masks)[0] > 0.98
    weights[0, 3, 1] = 1.0
    assert petals.share_on(weights, masks)[0] == pytest.approx(0.75, abs=0.03)
    assert petals.share_on(0 * weights, masks)[0] == 0.0


def test_the_word_of_the_petals_is_found_among_those_that_are_read(damsm_run):
    run = inference.load(damsm_run.path)
    captions = ["the heart-shaped petals of this flower are red", "a yellow center ringed by five pink petals"]
    places = petals._color_places(run, captions)
    assert [run.tokens(caption)[place] for caption, place in zip(captions, places, strict=True)] == ["red", "pink"]


def test_a_damsm_is_measured_against_what_was_drawn(damsm_run, split):
    """Untrained, its attention is even: on petals it is what petals cover."""
    score = evaluate.evaluate(inference.load(damsm_run.path), "attention_on_petals", split, EvaluateConfig())
    assert (score["images"], score["flowers"]) == (6, 6) and 0.1 < score["petal_area"] < 0.5
    assert score["on_petals_4"] == pytest.approx(score["petal_area"], rel=0.6)
    assert score["times_denser_4"] > 0


def test_a_generator_is_measured_where_it_painted(attngan_run, split):
    score = evaluate.evaluate(inference.load(attngan_run.path), "attention_on_petals", split, EvaluateConfig())
    assert score["images"] == 6 and 0 <= score["petal_area"] <= 1
    assert ("on_petals_16" in score) == (score["flowers"] > 0)


def test_captions_are_needed(damsm_run, without_captions):
    silent = records.Dataset.open(without_captions).split("test")
    with pytest.raises(UserError, match="--metrics=attention_on_petals: .* has no captions: give another --data_dir"):
        evaluate.evaluate(inference.load(damsm_run.path), "attention_on_petals", silent, EvaluateConfig())


def test_papers_without_attention_are_refused(gan_run, split):
    with pytest.raises(UserError, match="gan_int_cls attends to no words"):
        evaluate.evaluate(inference.load(gan_run.path), "attention_on_petals", split, EvaluateConfig())
