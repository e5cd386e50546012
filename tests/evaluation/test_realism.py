"""IS, FID and KID of a real run and of a folder of pictures, with a small network; caching; watching."""

import json
import logging
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from t2i_tf import checkpoints, inference
from t2i_tf.config import EvaluateConfig
from t2i_tf.data import pipeline, records
from t2i_tf.errors import UserError
from t2i_tf.evaluation import evaluate, features, real_pictures, score_file, sources
from t2i_tf.evaluation.distributions import squared_mmd
from t2i_tf.evaluation.realism import Realism


class Network(tf.Module):
    """Pictures [B,16,16,3] -> six features and four logits."""

    def __init__(self, logits=True):
        super().__init__()
        generator = np.random.default_rng(0)
        self.weight = tf.Variable(generator.normal(size=(16 * 16 * 3, 6)) / 16, dtype=tf.float32)
        self.logits = logits

    @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3])])
    def __call__(self, images):
        found = tf.nn.relu(tf.reshape(images, [-1, 16 * 16 * 3]) @ self.weight)
        return {"features": found, **({"logits": found[:, :4] - found[:, 2:]} if self.logits else {})}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network") / "model"
    tf.saved_model.save(Network(), str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def extractor(network):
    return features.extractor(network)


@pytest.fixture(scope="module")
def data_dir(blossoms, tmp_path_factory):
    """A copy of its own, for what is cached in it."""
    return shutil.copytree(blossoms, tmp_path_factory.mktemp("data") / "blossoms")


@pytest.fixture
def split(data_dir):
    return records.Dataset.open(data_dir).split("train")


def real_views(split, size=64, count=None):
    chosen = np.random.Generator(np.random.Philox(0)).permutation(split.num_images)[:count]
    return np.concatenate(list(pipeline.views(split, size, 32, chosen=chosen).as_numpy_iterator()))


def in_folder(folder, images, kind="png"):
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03d}.{kind}")
    return folder


def test_scores_of_a_run_are_those_of_its_pictures(gan, split, network, extractor):
    options = EvaluateConfig(extractor=network, num_images=33, seed=5)
    found = {score["metric"]: score for score in evaluate.scores(gan, ["is", "fid", "kid"], split, options)}
    captions = [caption for of_image in split.captions() for caption in of_image]
    chosen = np.random.Generator(np.random.Philox(5)).permutation(len(captions))[:33]
    fake = gan.generate([captions[i] for i in chosen], list(range(5, 38)))[-1]
    (fake, logits), (real, _) = extractor(fake), extractor(real_views(split))
    fake, real = fake.astype(np.float64), real.astype(np.float64)

    covariances = [np.cov(rows, rowvar=False) for rows in (real, fake)]
    roots = np.sqrt(np.maximum(np.linalg.eigvals(covariances[0] @ covariances[1]).real, 0.0)).sum()
    difference = real.mean(axis=0) - fake.mean(axis=0)
    expected = difference @ difference + sum(map(np.trace, covariances)) - 2 * roots
    assert found["fid"]["fid"] == pytest.approx(expected, rel=1e-4) and found["fid"]["fid_deviation"] is None
    assert found["kid"]["kid"] == pytest.approx(squared_mmd(real, fake), rel=1e-4)
    assert (found["kid"]["blocks"], found["kid"]["kid_deviation"]) == (1, None)
    p = tf.nn.softmax(logits.astype(np.float64)).numpy()
    parts = [p[i * 33 // 10 : (i + 1) * 33 // 10] for i in range(10)]
    scores = [np.exp(np.mean(np.sum(q * (np.log(q) - np.log(q.mean(axis=0))), axis=1))) for q in parts]
    assert found["is"]["is"] == pytest.approx(np.mean(scores), rel=1e-4)
    assert found["is"]["is_deviation"] == pytest.approx(np.std(scores), rel=1e-3, abs=1e-6)

    common = {"version": 1, "step": 3, "weights": "ema", "data": "blossoms", "split": "train", "seed": 5}
    common |= {"fake_images": 33, "num_images": 33, "image_size": 64, **extractor.describe()}
    for name, real_images in (("is", 0), ("fid", 60), ("kid", 60)):
        expected = {**common, "metric": name, "real_images": real_images}
        assert {key: found[name][key] for key in expected} == expected


def test_metrics_that_share_pictures_draw_them_once(gan, split, network, monkeypatch):
    drawn, generate = [], gan.generate
    monkeypatch.setattr(gan, "generate", lambda captions, seeds: drawn.append(len(seeds)) or generate(captions, seeds))
    monkeypatch.setattr(sources, "AT_ONCE", 8)
    options = EvaluateConfig(extractor=network, num_images=20)
    together = {score["metric"]: score for score in evaluate.scores(gan, ["fid", "is", "kid"], split, options)}
    assert drawn == [8, 8, 4]
    alone = evaluate.evaluate(gan, "kid", split, options)
    assert alone["kid"] == pytest.approx(together["kid"]["kid"], rel=1e-9)


def test_scored_pictures_are_kept_as_files(gan, split, network, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "AT_ONCE", 8)
    folder = tmp_path / "kept"
    options = EvaluateConfig(extractor=network, num_images=20, seed=5, save_images=str(folder))
    (score,) = evaluate.scores(gan, ["kid"], split, options)
    captions = (folder / "captions.txt").read_text(encoding="utf-8").splitlines()
    files = sorted(folder.glob("*.png"))
    assert [file.name for file in files] == [f"{number:06d}.png" for number in range(20)]
    kept = np.stack([np.asarray(Image.open(file)) for file in files])
    np.testing.assert_array_equal(kept, gan.generate(captions, list(range(5, 25)))[-1])
    (again,) = evaluate.scores_of_images(["kid"], split, EvaluateConfig(extractor=network, images=str(folder)))
    assert again["kid"] == pytest.approx(score["kid"], rel=1e-6)

    with pytest.raises(UserError, match="not an empty folder"):
        list(evaluate.scores(gan, ["kid"], split, options))
    with pytest.raises(UserError, match="name one of them with --metrics"):
        list(evaluate.scores(gan, ["diversity"], split, EvaluateConfig(save_images=str(tmp_path / "other"))))
    with pytest.raises(UserError, match="leave out --images and --watch"):
        list(evaluate.evaluate_run(EvaluateConfig(images=str(folder), save_images=str(tmp_path / "other"))))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        list(evaluate.scores(gan, ["kid"], split, EvaluateConfig(extractor=network, save_images=f"{tmp_path}/file/in")))


def test_more_pictures_than_captions_begin_again_at_them(gan, blossoms):
    test = records.Dataset.open(blossoms).split("test")
    source = sources.Drawn(gan, test, 130, 0, "fid")
    counts = np.bincount(source.own, minlength=60)
    assert len(source.own) == 130 and counts.min() == 2 and counts.max() == 3


def test_real_pictures_against_themselves(split, network, tmp_path):
    """The folder holds the split's own pictures, in another order: FID is 0, and KID is not far from it."""
    folder = in_folder(tmp_path / "images", real_views(split)[::-1])
    options = EvaluateConfig(images=str(folder), data_dir=split.dataset.path, split="train", extractor=network)
    lines = list(evaluate.evaluate_run(options))
    assert lines[-1] == f"added to {folder / 'scores.jsonl'}"
    scores = {score["metric"]: score for score in map(json.loads, lines[:-1])}
    assert list(scores) == ["is", "fid", "kid"]
    assert scores["fid"]["fid"] == pytest.approx(0.0, abs=1e-6)
    assert scores["fid"]["images"] == str(folder) and "step" not in scores["fid"]
    assert scores["fid"]["fake_images"] == scores["fid"]["real_images"] == 60
    assert [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()] == list(scores.values())
    assert len(list(evaluate.evaluate_run(options))) == 4, "its own scores.jsonl is no picture"


def test_a_folder_gives_all_its_pictures_or_some_at_random(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (11, 9, 9, 3), np.uint8)
    folder = in_folder(tmp_path / "images", images[:6])
    in_folder(folder / "deeper", images[6:])
    Image.fromarray(images[0]).convert("L").save(folder / "grey.png")
    monkeypatch.setattr(sources, "AT_ONCE", 5)
    source = sources.Folder(str(folder), None, 3)
    batches = list(source.batches())
    assert [len(batch) for batch in batches] == [5, 5, 2] and (source.count, source.image_size) == (12, 9)
    found = {image.tobytes() for image in np.concatenate(batches)}
    assert {image.tobytes() for image in images} <= found and len(found) == 12
    some = np.concatenate(list(sources.Folder(str(folder), 4, 3).batches()))
    assert np.array_equal(some, np.concatenate(batches)[:4])


def test_folders_that_cannot_be_scored_are_told_in_a_line(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    folder = in_folder(tmp_path / "images", images)

    def refused(message, count=None, path=folder):
        with pytest.raises(UserError, match=message) as caught:
            list(sources.Folder(str(path), count, 0).batches())
        assert "\n" not in str(caught.value)

    refused("--images=.*nowhere: no such folder", path=tmp_path / "nowhere")
    refused("holds 3 pictures, --num_images=4 asks for more", count=4)
    (tmp_path / "empty").mkdir()
    refused("no pictures in it", path=tmp_path / "empty")
    Image.fromarray(images[0][:, :7]).save(folder / "odd.png")
    refused("odd.png is 7x8 pixels, .*000.png 8x8: bring all to one size")
    whole = (folder / "001.png").read_bytes()
    (folder / "odd.png").write_bytes(whole[: len(whole) // 2])
    refused("odd.png: .*remove it or make it again")
    (folder / "odd.png").write_bytes(b"no picture")
    refused("odd.png: not an image: remove it")
    refused(
        "000.png is 7x8 pixels: the pictures to score must be square",
        path=in_folder(tmp_path / "f", [images[0][:, :7]]),
    )


def test_real_pictures_pass_once_and_a_stale_cache_is_not_used(split, network, caplog):
    seen = []

    class Counting(features.Extractor):
        def __call__(self, images):
            seen.append(len(images))
            return super().__call__(images)

    def numbers(size=64, count=60, weights="a", resize="bilinear", box_crop=False):
        found = Counting("counting", lambda x: (x[:, 0, :, 0], None), weights, 16, resize)
        seen.clear()
        real = real_pictures.real_pictures(found, split, size, box_crop, count, lambda done, total: None)
        return real, sum(seen)

    first, passed = numbers()
    assert passed == 60 and first.moments.count == 60 and first.rows.shape == (60, 16)
    again, passed = numbers()
    assert passed == 0 and np.array_equal(again.rows, first.rows)
    np.testing.assert_array_equal(again.moments.covariance, first.moments.covariance)
    np.testing.assert_allclose(first.moments.covariance, np.cov(first.rows, rowvar=False), atol=1e-6)
    for other in ({"size": 32}, {"count": 50}, {"weights": "b"}, {"resize": "antialiased"}):
        assert numbers(**other)[1] == other.get("count", 60), other
    split.dataset.manifest["splits"]["train"]["shards"][0]["sha256"] = "other pictures"
    assert numbers()[1] == 60
    assert numbers()[1] == 0
    for path in (Path(split.dataset.path) / "cache").rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:-400])
    with caplog.at_level(logging.WARNING):
        assert numbers()[1] == 60
    assert "is damaged" in caplog.text
    assert numbers()[1] == 0
    assert not list((Path(split.dataset.path) / "cache").rglob("*partial*"))


def test_rows_that_are_kept_are_limited(split, monkeypatch, extractor):
    monkeypatch.setattr(real_pictures, "KEPT_ROWS", 40)
    real = real_pictures.real_pictures(extractor, split, 64, False, 60, lambda done, total: None)
    assert real.moments.count == 60
    np.testing.assert_allclose(real.rows, extractor(real_views(split))[0][:40], atol=1e-4)


def test_few_pictures_are_warned_of_and_too_few_refused(gan, encoder_run, split, network, caplog):
    with caplog.at_level(logging.WARNING):
        evaluate.evaluate(gan, "fid", split, EvaluateConfig(extractor=network, num_images=5))
    assert "fid: 5 pictures are no more than the 6 features" in caplog.text

    def refused(name, message, run=gan, of=split, **options):
        with pytest.raises(UserError, match=message):
            evaluate.evaluate(run, name, of, EvaluateConfig(**{"extractor": network, "num_images": 20, **options}))

    refused("is", "--metrics=is: 9 pictures cannot be cut into 10 splits", num_images=9)
    refused("fid", "and 1 to score: two of each are needed", num_images=1)
    refused("kid", "61 real pictures of the 60 in split train", real_images=61)
    refused("fid", "needs a run of a generator, this is one of char_cnn_rnn", run=encoder_run)
    silent = records.Dataset.open(split.dataset.path).split("train")
    silent.caption_offsets = np.zeros_like(silent.caption_offsets)
    refused("is", "--metrics=is: .* has no captions", of=silent)


@pytest.fixture(scope="module")
def encoder_run(text_encoder_run):
    return inference.load(text_encoder_run.path)


def test_an_extractor_without_logits_gives_no_inception_score(gan, split, tmp_path):
    tf.saved_model.save(Network(logits=False), str(tmp_path / "model"))
    with pytest.raises(UserError, match="gives no logits: choose another"):
        evaluate.evaluate(gan, "is", split, EvaluateConfig(extractor=str(tmp_path / "model"), num_images=20))


def test_inception_score_of_birds_by_imagenet_is_warned_of(gan, split, network, caplog, monkeypatch):
    split.dataset.manifest["name"] = "cub"
    source = sources.Drawn(gan, split, 20, 0, "is")
    scorer = Realism(["is"], source, split, False, EvaluateConfig(extractor=network))
    assert not caplog.text
    monkeypatch.setattr(scorer.extractor, "name", "inception2015")
    scorer._inception_score()
    assert "fine-tuned on its classes" in caplog.text


def test_what_is_asked_of_the_verb(tmp_path, blossoms, network):
    def refused(message, **options):
        with pytest.raises(UserError, match=message):
            list(evaluate.evaluate_run(EvaluateConfig(**options)))

    folder = in_folder(tmp_path / "images", np.zeros([2, 128, 128, 3], np.uint8))
    refused("give one of --run_dir .* and --images")
    refused("give one of --run_dir .* and --images", run_dir="a", images="b")
    refused("--images needs --data_dir", images=str(folder))
    refused("is not a run folder", run_dir=str(folder), watch=True)
    of_images = {"images": str(folder), "data_dir": str(blossoms), "extractor": network}
    refused("--metrics=diversity: pictures of a folder have is, fid, kid alone", metrics=("diversity",), **of_images)
    refused("prepared at 64 pixels, 128 are needed", metrics=("fid",), **of_images)


def test_every_checkpoint_is_scored_once_while_watching(gan_run, data_dir, network, tmp_path, monkeypatch):
    run_dir = shutil.copytree(gan_run.path, tmp_path / "run")
    (run_dir / "scores.jsonl").unlink()
    assert checkpoints.steps(run_dir) == [1, 2, 3]

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    options = EvaluateConfig(
        run_dir=str(run_dir),
        data_dir=str(data_dir),
        metrics=("fid", "is"),
        extractor=network,
        num_images=12,
        watch=True,
    )
    lines = list(evaluate.evaluate_run(options))
    assert lines[-1] == f"no longer watching {run_dir}; checkpoints seen: 3"
    scores = score_file.read(run_dir)
    assert [(score["metric"], score["step"]) for score in scores] == [(m, s) for s in (1, 2, 3) for m in ("fid", "is")]
    assert len({score["fid"] for score in scores if "fid" in score}) == 3, "each has its own weights"
    newest = inference.load(run_dir)
    split = records.Dataset.open(data_dir).split("test")
    assert evaluate.evaluate(newest, "fid", split, options)["fid"] == pytest.approx(scores[-2]["fid"], rel=1e-6)
    assert list(evaluate.evaluate_run(options)) == [f"no longer watching {run_dir}; checkpoints seen: 3"]
    assert len(score_file.read(run_dir)) == 6


def test_a_checkpoint_that_cannot_be_read_is_passed_over(gan_run, data_dir, network, tmp_path, monkeypatch, caplog):
    run_dir = shutil.copytree(gan_run.path, tmp_path / "run")
    (run_dir / "scores.jsonl").write_text('{"metric": "fid", "st\n')
    data = run_dir / "checkpoints" / "ckpt-2.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:100])

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    options = EvaluateConfig(run_dir=str(run_dir), data_dir=str(data_dir), metrics=("fid",), extractor=network)
    options = type(options)(**{**options.__dict__, "num_images": 12, "watch": True})
    with caplog.at_level(logging.WARNING):
        list(evaluate.evaluate_run(options))
    assert [score["step"] for score in score_file.read(run_dir)] == [1, 3]
    assert "passed over" in caplog.text and "a line is no JSON object" in caplog.text


@pytest.mark.slow
def test_thirty_thousand_pictures_take_constant_memory(split, tmp_path, capsys):
    """Through a small convolutional network; prints how much of the time was the network's own (86 % alone on 2 cores,
    less beside other work)."""
    import keras

    inputs = keras.Input([64, 64, 3])
    x = inputs
    for filters in (16, 32, 64, 128):
        x = keras.layers.Conv2D(filters, 4, 2, "same", activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, {"features": x, "logits": keras.layers.Dense(48)(x)})
    model.export(str(tmp_path / "model"), verbose=False)
    count, generator = 30000, np.random.default_rng(0)
    images = generator.integers(0, 256, (sources.AT_ONCE, 64, 64, 3), np.uint8)
    source = type("Source", (), {"count": count, "image_size": 64})()
    scorer = Realism(["is", "fid", "kid"], source, split, False, EvaluateConfig(extractor=str(tmp_path / "model")))
    inside, network, memory = 0.0, scorer.extractor, []

    def timed(pictures):
        nonlocal inside
        began = time.perf_counter()
        found = network(pictures)
        inside += time.perf_counter() - began
        return found

    scorer.extractor = timed
    began = time.perf_counter()
    for start in range(0, count, sources.AT_ONCE):
        scorer.add(images[: min(sources.AT_ONCE, count - start)])
        memory.append(resident_megabytes())
    whole = time.perf_counter() - began
    scorer.extractor = network
    assert set(scorer.results()) == {"is", "fid", "kid"}
    with capsys.disabled():
        print(f"\n{count / whole:.0f} images/s, {inside / whole:.0%} of it the extractor, {max(memory):.0f} MB")
    assert max(memory) - memory[len(memory) // 10] < 20


def resident_megabytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
