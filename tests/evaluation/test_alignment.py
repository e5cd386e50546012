"""Scores of trained encoders: on real runs of the smallest sizes."""

import dataclasses
import json
import logging
import types

import numpy as np
import pytest
from PIL import Image

from t2i_tf import inference
from t2i_tf.config import EvaluateConfig, PrepareConfig
from t2i_tf.data import records
from t2i_tf.data.prepare import prepare
from t2i_tf.data.sources import blossoms as drawn
from t2i_tf.errors import UserError
from t2i_tf.evaluation import alignment, evaluate, fidelity, metrics, sources


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """16 test pictures with 160 captions."""
    folder = tmp_path_factory.mktemp("data") / "blossoms"
    options = PrepareConfig(source="blossoms", data_dir=str(folder), num_images=176, workers=1)
    return records.Dataset.open(prepare(options, progress=lambda done, total: None)).split("test")


@pytest.fixture(scope="module")
def damsm(damsm_run):
    return inference.load(damsm_run.path)


@pytest.fixture(scope="module")
def attngan(attngan_run):
    return inference.load(attngan_run.path)


@pytest.mark.parametrize("attributes", [None, fidelity.ATTRIBUTES])
def test_pairs_of_flowers_are_true_of_each_other_alone(split, attributes):
    pictures, captions = alignment._telling_pairs(split, split.captions(), np.random.default_rng(0), 100, attributes)
    assert len(pictures) == len(set(pictures.tolist())) > 5
    truths = split.attributes()
    for row, caption in enumerate(captions):
        assert caption in split.captions()[pictures[row]]
        named = drawn.parse_caption(caption)
        told = {name: value for name, value in named.items() if attributes is None or name in attributes}
        assert [drawn.is_true_of(told, truths[picture]) for picture in pictures] == [
            other == row for other in range(len(pictures))
        ]


def test_recall_of_a_run_is_that_of_its_vectors(damsm, split):
    score = evaluate.evaluate(damsm, "recall", split, EvaluateConfig(num_images=5, seed=2))
    assert score["pairs"] == 5 and score["image_to_text_5"] == score["text_to_image_10"] == 1.0
    pictures, captions = alignment._telling_pairs(split, split.captions(), np.random.Generator(np.random.Philox(2)), 5)
    images = alignment._image_vectors(damsm, split, pictures)
    texts = damsm.encode(captions)
    cosines = (images / np.linalg.norm(images, axis=1, keepdims=True)) @ (
        texts / np.linalg.norm(texts, axis=1, keepdims=True)
    ).T
    expected = metrics.recall_both_ways(cosines)
    assert {name: score[name] for name in expected} == pytest.approx(expected)


def test_vectors_of_all_pictures_come_in_their_order(damsm, split):
    """With batches of 64, one that is smaller at the end and one alone."""
    together = alignment._image_vectors(damsm, split)
    alone = alignment._image_vectors(damsm, split, np.array([7]))
    np.testing.assert_allclose(together[7], alone[0], atol=1e-5)


def test_r_precision_names_its_judge_and_says_when_it_flatters(attngan, damsm_run, split, caplog):
    options = EvaluateConfig(num_images=20, seed=1)
    with caplog.at_level(logging.WARNING):
        score = evaluate.evaluate(attngan, "r_precision", split, options)
    assert "flatters" in caplog.text and score["trained_against_encoder"]
    assert (score["images"], score["folds"], score["captions"]) == (20, 10, 160)
    assert score["r_precision_of_chance"] == 0.01 and 0 <= score["r_precision"] <= 1
    same = EvaluateConfig(num_images=20, seed=1, damsm_run=str(damsm_run.path))
    outside = evaluate.evaluate(attngan, "r_precision", split, same)
    assert outside["encoder"] == str(damsm_run.path) and outside["encoder_sha256"] == score["encoder_sha256"]
    assert outside["trained_against_encoder"] and outside["r_precision"] == score["r_precision"]


def test_a_judge_with_other_weights_does_not_flatter(attngan, damsm_run, split, tmp_path, caplog):
    other = inference.load(damsm_run.path)
    kernel = other.recipe.image_encoder.region_map.kernel
    kernel.assign(kernel + 1.0)
    other.save(tmp_path / "other")
    options = EvaluateConfig(num_images=12, damsm_run=str(tmp_path / "other"))
    with caplog.at_level(logging.WARNING):
        score = evaluate.evaluate(attngan, "r_precision", split, options)
    assert not score["trained_against_encoder"] and "flatters" not in caplog.text


def test_a_run_without_its_picture_encoder_is_judged_by_another(attngan, damsm_run, split):
    """And its text encoder tells that it was trained against that one."""
    config = dataclasses.replace(attngan.config, untrained=("image_encoder",))
    imported = inference.Run(config, attngan.recipe, attngan.step, vocabulary=attngan.vocabulary)
    assert "r_precision" in evaluate.fitting(attngan, split)
    assert "r_precision" not in evaluate.fitting(imported, split)
    assert "r_precision" in evaluate.fitting(imported, split, str(damsm_run.path))
    with pytest.raises(UserError, match="--metrics=r_precision: .*its image_encoder was in no file.* give --damsm_run"):
        evaluate.evaluate(imported, "r_precision", split, EvaluateConfig())
    options = EvaluateConfig(num_images=12, damsm_run=str(damsm_run.path))
    assert evaluate.evaluate(imported, "r_precision", split, options)["trained_against_encoder"]


def test_other_generators_can_be_judged_at_other_sizes(gan_run, damsm_run, split):
    """64 pixels for a judge of 32."""
    options = EvaluateConfig(num_images=3, damsm_run=str(damsm_run.path))
    score = evaluate.evaluate(inference.load(gan_run.path), "r_precision", split, options)
    assert score["images"] == score["folds"] == 3 and not score["trained_against_encoder"]


def test_r_precision_encodes_no_caption_that_it_does_not_look_at(attngan, split, monkeypatch):
    """And scores as if all were encoded."""
    encode, encoded = attngan.encode, []
    monkeypatch.setattr(attngan, "encode", lambda captions: encoded.append(captions) or encode(captions))
    alone = evaluate.evaluate(attngan, "r_precision", split, EvaluateConfig(num_images=1))
    assert [len(captions) for captions in encoded] == [100] and alone["captions"] == 160
    score = evaluate.evaluate(attngan, "r_precision", split, EvaluateConfig(num_images=20, seed=1))
    source = sources.Drawn(attngan, split, 20, 1, "r_precision")
    pictures = np.concatenate([attngan.encode_pictures(images) for images in source.batches()])
    groups = np.repeat(np.arange(split.num_images), split.caption_counts)
    candidates = metrics.drawn_candidates(source.own, groups, seed=1)
    wanted = metrics.r_precision(pictures, encode(source.captions), candidates)
    assert wanted.items() <= score.items()


def test_captions_of_the_own_picture_are_not_enough(attngan, tmp_path):
    """Of 160 captions the picture with most leaves 62."""
    lines = []
    for name, count in (("many.png", 62), ("few.png", 98)):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
        captions = [f"a red flower {i}" for i in range(count)]
        lines.append(json.dumps({"image": name, "captions": captions, "split": "test"}))
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    options = PrepareConfig(source="folder", source_dir=str(tmp_path), data_dir=str(tmp_path / "set"), workers=1)
    split = records.Dataset.open(prepare(options, progress=lambda done, total: None)).split("test")
    assert "r_precision" not in evaluate.fitting(attngan, split)
    with pytest.raises(UserError, match="62 captions of other pictures, 99 are needed"):
        evaluate.evaluate(attngan, "r_precision", split, EvaluateConfig())
    enough = types.SimpleNamespace(captions_of=lambda split: [["red"] * 120, ["blue"] * 99])
    assert alignment.tells_captions(enough, split)


def test_pictures_that_nothing_is_said_of_have_no_pairs(damsm, without_captions):
    silent = records.Dataset.open(without_captions).split("test")
    with pytest.raises(UserError, match="--metrics=recall: .* has no captions: give another --data_dir"):
        evaluate.evaluate(damsm, "recall", silent, EvaluateConfig())
    with pytest.raises(UserError, match="attention: .* has no captions: give another --data_dir"):
        alignment.attention_figure(damsm, silent, 4)


def test_what_cannot_be_judged_is_refused(attngan, damsm, gan_run, blossoms):
    few = records.Dataset.open(blossoms).split("test")
    assert "r_precision" not in evaluate.fitting(attngan, few)
    with pytest.raises(UserError, match="50 captions of other pictures, 99 are needed"):
        evaluate.evaluate(attngan, "r_precision", few, EvaluateConfig())
    with pytest.raises(UserError, match="this is one of damsm"):
        evaluate.evaluate(damsm, "r_precision", few, EvaluateConfig())
    with pytest.raises(UserError, match="holds no encoder of pictures: give --damsm_run"):
        evaluate.evaluate(inference.load(gan_run.path), "r_precision", few, EvaluateConfig())
    with pytest.raises(UserError, match="--metrics=recall needs a run of a text encoder"):
        evaluate.evaluate(inference.load(gan_run.path), "recall", few, EvaluateConfig())
