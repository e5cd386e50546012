"""A run's words are checked when it is loaded; sentence vectors of a DAMSM condition a generator of another paper."""

import dataclasses
import hashlib
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_GAN

from t2i_tf import export, inference, sampling
from t2i_tf.config import EvaluateConfig, ExportConfig, SampleConfig, TrainConfig
from t2i_tf.data import records
from t2i_tf.errors import UserError
from t2i_tf.evaluation import evaluate
from t2i_tf.training import caches, loop

CAPTIONS = ["a red flower", "this big zorgly blue flower has a yellow center"]


@pytest.fixture
def copy(damsm_run, tmp_path):
    return shutil.copytree(damsm_run.path, tmp_path / "damsm")


def test_the_words_are_kept_in_the_configuration(copy):
    content = (copy / "vocabulary").read_bytes()
    kept = json.loads((copy / "config.json").read_text())["vocabulary"]
    assert kept == {"words": content.count(b"\n") + 1, "sha256": hashlib.sha256(content).hexdigest()}


def test_two_words_in_each_others_place_are_refused(copy):
    first, second, *rest = (copy / "vocabulary").read_text().split("\n")
    (copy / "vocabulary").write_text("\n".join([second, first, *rest]))
    with pytest.raises(UserError, match="vocabulary is not what the run was trained with: .* restore it") as error:
        inference.load(copy)
    assert "\n" not in str(error.value)


def test_a_missing_vocabulary_is_named_and_no_pickle(copy):
    (copy / "vocabulary").unlink()
    with pytest.raises(UserError, match="vocabulary is missing, the .* words that the run reads") as error:
        inference.load(copy)
    assert "pickle" not in str(error.value)


def test_runs_of_before_are_loaded_and_a_missing_vocabulary_is_told_when_it_is_wanted(copy):
    content = json.loads((copy / "config.json").read_text())
    del content["vocabulary"]
    (copy / "config.json").write_text(json.dumps(content))
    assert inference.load(copy).encode(["a red flower"]).shape == (1, 8)
    (copy / "vocabulary").unlink()
    with pytest.raises(UserError, match="the file vocabulary is missing from its folder"):
        inference.load(copy).encode(["a red flower"])


def test_an_encoder_without_its_words_conditions_nothing(copy, blossoms, tmp_path):
    content = json.loads((copy / "config.json").read_text())
    del content["vocabulary"]
    (copy / "config.json").write_text(json.dumps(content))
    (copy / "vocabulary").unlink()
    training = TrainConfig(
        paper="gan_int_cls", data_dir=str(blossoms), run_dir=str(tmp_path / "run"), text_encoder_run=str(copy)
    )
    with pytest.raises(UserError, match="the file vocabulary is missing"):
        loop.run(training, TINY_GAN)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def run_dir(blossoms, damsm_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "gan_on_damsm"
    training = TrainConfig(
        paper="gan_int_cls",
        data_dir=str(blossoms),
        run_dir=str(folder),
        text_encoder_run=str(damsm_run.path),
        steps=2,
        sample_every=1,
    )
    return loop.run(training, TINY_GAN).run_dir


def test_a_generator_is_conditioned_on_the_sentence_vectors_of_a_damsm(run_dir, damsm_run, blossoms):
    damsm, split = inference.load(damsm_run.path), records.Dataset.open(blossoms).split("train")
    embeddings = caches.caption_embeddings(damsm, split)
    captions = [caption for of_one in split.captions() for caption in of_one]
    np.testing.assert_allclose(embeddings[:40], damsm.encode(captions[:40]), atol=1e-6)
    assert (run_dir / "samples" / "step-0000001.png").is_file()
    run = inference.load(run_dir)
    vectors = damsm.encode(CAPTIONS)
    np.testing.assert_allclose(run.embed(CAPTIONS), run.recipe.condition({"embedding": vectors[:, None]}), atol=1e-6)


def test_other_words_make_another_cache(damsm_run, blossoms):
    damsm, split = inference.load(damsm_run.path), records.Dataset.open(blossoms).split("test")
    caches.caption_embeddings(damsm, split)
    other = dataclasses.replace(damsm, vocabulary=damsm.vocabulary[::-1])
    embeddings = caches.caption_embeddings(other, split)
    np.testing.assert_allclose(embeddings[:10], other.encode(split.captions()[0]), atol=1e-6)


def test_it_draws_sentences_and_says_which_words_it_leaves_out(run_dir, tmp_path, caplog):
    options = SampleConfig(run_dir=str(run_dir), caption=tuple(CAPTIONS), seeds="0-1", out=str(tmp_path / "drawn"))
    assert list(sampling.sample(options)) and (tmp_path / "drawn" / "grid.png").is_file()
    assert "not in the vocabulary, left out of the caption: zorgly" in caplog.text
    with pytest.raises(UserError, match="has no word that this run was trained on"):
        inference.load(run_dir).generate(["zorgly"], [0])


@pytest.mark.slow
def test_its_export_draws_the_same(run_dir, tmp_path):
    list(export.export(ExportConfig(run_dir=str(run_dir), out=str(tmp_path / "model"))))
    model = tf.saved_model.load(str(tmp_path / "model"))
    made = model.generate(tf.constant(CAPTIONS), tf.constant([3, 4], tf.int64), tf.constant(1.0))
    wanted = inference.load(run_dir, judges=False).generate(CAPTIONS, [3, 4])[-1]
    np.testing.assert_array_equal(made["images"], wanted)
    assert [words.decode() for words in made["unknown_words"].numpy()] == ["", "zorgly"]


def test_it_is_scored(run_dir, blossoms):
    run, split = inference.load(run_dir), records.Dataset.open(blossoms).split("test")
    names = evaluate.fitting(run, split)
    assert {"diversity", "caption_fidelity"} <= set(names)
    scored = list(evaluate.scores(run, ["diversity", "caption_fidelity"], split, EvaluateConfig(num_images=8)))
    assert all(np.isfinite([value for value in score.values() if isinstance(value, float)]).all() for score in scored)
