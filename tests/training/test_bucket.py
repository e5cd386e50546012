"""Data sets that are read from a bucket, for which TensorFlow's file system in memory stands."""

import dataclasses
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import inference, papers
from t2i_tf.config import EvaluateConfig, PrepareConfig, RunConfig, TrainConfig
from t2i_tf.data import pipeline, records
from t2i_tf.data.prepare import prepare
from t2i_tf.errors import UserError
from t2i_tf.evaluation import evaluate
from t2i_tf.training import caches, dry_run, loop
from t2i_tf.training.session import Session

BUCKET = "ram://bucket/deep/blossoms"


def copied(folder, bucket):
    """TensorFlow's file system in memory would write on at the end of files that are there."""
    if tf.io.gfile.exists(bucket):
        tf.io.gfile.rmtree(bucket)
    for path in Path(folder).rglob("*"):
        if path.is_file() and "cache" not in path.relative_to(folder).parts:
            target = f"{bucket}/{path.relative_to(folder).as_posix()}"
            tf.io.gfile.makedirs(os.path.dirname(target))
            tf.io.gfile.copy(str(path), target)
    return bucket


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches" / "t2i_tf"


@pytest.fixture
def bucket(blossoms, tmp_path, monkeypatch):
    """A copy of the drawn flowers; no folder of its name may appear here."""
    monkeypatch.chdir(tmp_path)
    yield copied(blossoms, BUCKET)
    assert not [name for name in os.listdir(tmp_path) if "ram" in name or "bucket" in name]


def test_batches_are_those_of_the_folder(blossoms, bucket):
    request = papers.BatchRequest(text="characters", image_sizes=(32, 64), wrong_images=True, captions=2)
    local, remote = (
        list(pipeline.batches(records.Dataset.open(path, verify=True).split("train"), request, 6).take(3))
        for path in (blossoms, f"{bucket}/")
    )
    for mine, other in zip(local, remote, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, mine, other)


@pytest.mark.slow
def test_a_run_is_that_of_the_folder(bucket, cache, gan_run, tmp_path):
    """Two steps with the pictures and, computed once and kept beside, the captions' embeddings; then the third."""
    training = dataclasses.replace(gan_run.training, data_dir=bucket, run_dir=str(tmp_path / "run"), steps=2)
    loop.run(training, gan_run.given)
    loop.run(dataclasses.replace(training, steps=3), gan_run.given)
    mine, theirs = (inference.load(path) for path in (tmp_path / "run", gan_run.path))
    assert mine.step == 3
    for own, other in zip(mine.recipe.generator.get_weights(), theirs.recipe.generator.get_weights(), strict=True):
        np.testing.assert_allclose(own, other, atol=1e-6)
    assert "train.npy" in [path.name for path in cache.rglob("captions-*/*")]
    assert RunConfig.read(tmp_path / "run").identity()["training"]["data_dir"] == bucket


@pytest.mark.slow
def test_a_text_encoder_reads_its_pictures(bucket, text_encoder_run, tmp_path):
    training = dataclasses.replace(text_encoder_run.training, data_dir=bucket, runs_dir=str(tmp_path), run_dir=None)
    outcome = loop.run(training, text_encoder_run.given)
    assert outcome.run_dir.name == "00001-char_cnn_rnn-blossoms-b8"
    assert bucket in dry_run.report(Session(training, text_encoder_run.given))


@pytest.mark.slow
def test_scores_keep_beside_what_they_saw_of_the_real_pictures(bucket, cache, gan):
    options = EvaluateConfig(extractor="random", num_images=6)
    first, again = (evaluate.evaluate(gan, "fid", records.Dataset.open(bucket).split("test"), options) for _ in "ab")
    assert first == again
    assert [path.name for path in cache.rglob("scores-*/*")] == ["test.npz"]


def test_published_embeddings_are_copied_once(tmp_path, cache):
    source = tmp_path / "embeddings"
    options = PrepareConfig(source="blossoms", data_dir=str(tmp_path / "set"), image_size=32, num_images=4, workers=1)
    plain = records.Dataset.open(prepare(options))
    for split in plain.manifest["splits"]:
        names = plain.split(split).names
        (source / split).mkdir(parents=True)
        rows = np.random.default_rng(0).normal(size=(len(names), 10, 3)).astype(np.float32)
        (source / split / "char-CNN-RNN-embeddings.pickle").write_bytes(pickle.dumps(list(rows), 2))
        (source / split / "filenames.pickle").write_bytes(pickle.dumps(names, 2))
    folder = prepare(dataclasses.replace(options, data_dir=str(tmp_path / "with"), embeddings=str(source)))
    remote = records.Dataset.open(copied(folder, "ram://bucket/with")).split("train")
    local = records.Dataset.open(folder).split("train")
    np.testing.assert_array_equal(caches.published_embeddings(remote), caches.published_embeddings(local))
    (kept,) = cache.rglob("train.npy")
    tf.io.gfile.remove("ram://bucket/with/embeddings/published/train.npy")
    np.testing.assert_array_equal(caches.published_embeddings(remote), np.load(kept))
    kept.unlink()
    with pytest.raises(UserError, match="cannot be copied to"):
        caches.published_embeddings(remote)


def test_what_is_wrong_with_a_bucket_is_told(bucket):
    with pytest.raises(UserError, match="ram://bucket/nothing: no such data set folder"):
        records.Dataset.open("ram://bucket/nothing")
    manifest = json.loads(tf.io.gfile.GFile(f"{bucket}/dataset.json").read())
    shard = f"{bucket}/{manifest['splits']['test']['shards'][0]['file']}"
    split = records.Dataset.open(bucket).split("test")
    content = tf.io.gfile.GFile(shard, "rb").read()
    tf.io.gfile.remove(shard)
    with tf.io.gfile.GFile(shard, "wb") as file:
        file.write(content[:-9])
    with pytest.raises(UserError, match=f"{shard} has .* bytes instead of"):
        records.Dataset.open(bucket)
    with pytest.raises(UserError, match=f"{shard} ends within a record"):
        split.read([5])
    with pytest.raises(UserError, match="local folders"):
        prepare(PrepareConfig(source="blossoms", data_dir=bucket))


def test_its_address_is_kept_as_it_is():
    training = TrainConfig(paper="gan_int_cls", data_dir="gs://bucket/a//b/../c")
    identity = RunConfig(training, {}, {}, "").identity()
    assert identity["training"]["data_dir"] == "gs://bucket/a//b/../c"
