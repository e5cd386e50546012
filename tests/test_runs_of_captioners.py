"""Captioners, end to end: trained for a few steps, describing pictures, files and figures, scored, reading back."""

import dataclasses
import json
import logging
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from t2i_tf import describing, inference, sampling
from t2i_tf.config import EvaluateConfig, PrepareConfig, SampleConfig, TrainConfig
from t2i_tf.data import pipeline, records
from t2i_tf.data.images import FILTERS
from t2i_tf.data.prepare import prepare
from t2i_tf.data.sources.blossoms_masks import petal_masks
from t2i_tf.errors import UserError
from t2i_tf.evaluation import captioning, captions, evaluate, petals
from t2i_tf.training import loop

SIZES = {
    "image_encoder": "conv",
    "image_encoder_width": 4,
    "image_size": 64,
    "word_dim": 8,
    "state_dim": 12,
    "batch_size": 8,
}


def score_of(run, metric, split, **given):
    """Without what starts Java."""
    return evaluate.evaluate(run, metric, split, EvaluateConfig(**{"tokenization": "words", "meteor": False, **given}))


def trained(blossoms, folder, steps=2, **given):
    training = TrainConfig(paper="show_attend_tell", data_dir=str(blossoms), run_dir=str(folder), steps=steps)
    return loop.run(training, {**SIZES, **given})


@pytest.fixture(scope="module")
def outcome(blossoms, tmp_path_factory):
    return trained(blossoms, tmp_path_factory.mktemp("runs") / "captioner")


@pytest.fixture(scope="module")
def captioner(outcome):
    """Its weights redrawn large, so that captions differ, and such that they end. Tests do not change it."""
    run = inference.load(outcome.run_dir)
    rng = np.random.default_rng(1)
    for variable in run.recipe.decoder.trainable_variables:
        variable.assign(rng.normal(0, 0.8, variable.shape))
    bias = run.recipe.decoder.output_words.bias
    bias.assign([2.5, -9.0, *bias.numpy()[2:]])  # of the end and of the unknown word
    return run


@pytest.fixture(scope="module")
def captioner_run(captioner, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "sharpened"
    captioner.save(folder)
    return folder


@pytest.fixture(scope="module")
def split(blossoms):
    return records.Dataset.open(blossoms).split("test")


@pytest.fixture(scope="module")
def pictures(split):
    (found,) = pipeline.views(split, 64, 6).as_numpy_iterator()
    return found


# Describing pictures.


@pytest.mark.parametrize("beam_size", [1, 2])
def test_a_run_describes_one_picture_first(captioner, captioner_run, pictures, beam_size):
    """Graphs of one row, as `t2i-sample --images=picture.jpg` makes them first of all."""
    found = inference.load(captioner_run).describe(pictures[:1], beam_size)
    assert found.captions == captioner.describe(pictures, beam_size).captions[:1]


def test_captions_words_and_attention_go_together(captioner, pictures):
    found = captioner.describe(pictures, beam_size=2)
    assert len(found.captions) == 6 and len(set(found.captions)) > 1
    assert found.costs.shape == (6,) and (found.costs > 0).all()
    assert any(found.words)
    for words, maps, selectors in zip(found.words, found.attention, found.selectors, strict=True):
        assert maps.shape == (len(words), 8, 8) and selectors.shape == (len(words),)
        np.testing.assert_allclose(maps.sum(axis=(1, 2)), 1.0, rtol=1e-5)
        assert set(words) <= {"UNK", *captioner.vocabulary}


def test_the_cost_of_a_caption_is_that_of_the_search(captioner, pictures):
    """What search returns and what the likelihood of that very caption is are computed in two ways."""
    annotations = captioner.annotations(pictures)
    found = captioner.describe_annotations(annotations, beam_size=3)
    ended = [i for i, words in enumerate(found.words) if len(words) < 200 and "UNK" not in words]
    assert ended
    costs, words = captioner.caption_costs(annotations, found.captions)
    np.testing.assert_allclose(costs[ended], found.costs[ended], rtol=1e-4)
    assert [words[i] for i in ended] == [len(found.words[i]) + 1 for i in ended]


def test_a_caption_does_not_depend_on_its_company(captioner, pictures):
    together = captioner.describe(pictures, batch_size=4)
    for i in (0, 3, 5):
        alone = captioner.describe(pictures[i : i + 1])
        assert alone.captions == [together.captions[i]]
        np.testing.assert_allclose(alone.attention[0], together.attention[i], atol=1e-5)
    nothing = captioner.describe(pictures[:0])
    assert nothing.captions == [] and nothing.costs.shape == (0,)


def test_files_are_described_as_the_pictures_they_hold(captioner, pictures, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, picture in zip(paths, pictures, strict=False):
        Image.fromarray(picture).save(path)
    np.testing.assert_array_equal(captioner.prepared(paths), pictures[:3])
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 200), np.uint8))
    grey.save(tmp_path / "grey.jpg")
    prepared = captioner.prepared([tmp_path / "grey.jpg"])
    with Image.open(tmp_path / "grey.jpg") as image:
        squashed = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(prepared[0], squashed)  # as t2i-prepare stored the flowers: --resize=square
    assert captioner.prepared(np.zeros([2, 90, 200, 3], np.uint8)).shape == (2, 64, 64, 3)
    assert captioner.prepared([]).shape == (0, 64, 64, 3)


@pytest.mark.parametrize("resample", FILTERS)
def test_files_are_resized_as_the_pictures_of_the_training_set(captioner, tmp_path, resample):
    """The shorter side to the size of the network, whatever the set was stored at, and the middle of the other."""
    context = {**captioner.config.context, "stored_size": 76, "squashed": False, "resample": resample}
    run = dataclasses.replace(captioner, config=dataclasses.replace(captioner.config, context=context))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (76, 100, 3), np.uint8))
    found = run.prepared([_saved(picture, tmp_path / "larger.png")])
    resized = np.asarray(picture.resize((84, 64), getattr(Image.Resampling, resample.upper())))
    np.testing.assert_array_equal(found[0], resized[:, 10:74])


def test_a_run_of_before_knew_no_filter(captioner, tmp_path):
    context = {name: value for name, value in captioner.config.context.items() if name != "resample"}
    old = dataclasses.replace(captioner.config, context=context)
    assert inference.build(old).vocabulary_size == captioner.recipe.vocabulary_size
    run = dataclasses.replace(captioner, config=old)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8))
    wanted = np.asarray(picture.resize((64, 64), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(run.prepared([_saved(picture, tmp_path / "any.png")])[0], wanted)


def test_a_captioner_loses_no_margin(tmp_path):
    """Pictures stored larger than its network are made smaller, not cut; too small ones are asked for at its size."""
    options = PrepareConfig(
        source="blossoms", data_dir=str(tmp_path / "larger"), num_images=12, image_size=96, resample="box", workers=1
    )
    folder = prepare(options, progress=lambda done, total: None)
    outcome = trained(folder, tmp_path / "run")
    run = inference.load(outcome.run_dir)
    assert run.config.context["resample"] == "box"
    train = records.Dataset.open(folder).split("train")
    request = dataclasses.replace(run.recipe.request, sampling="shuffled", text=None)
    (batch,) = pipeline.batches(train, request, 4).take(1).as_numpy_iterator()
    stored = [
        tf.io.decode_jpeg(records.parse(record)["image"], dct_method="INTEGER_ACCURATE").numpy()
        for record in train.read(range(train.num_images))
    ]
    whole = [np.asarray(Image.fromarray(one).resize((64, 64), Image.Resampling.BILINEAR)).astype(int) for one in stored]
    for seen in batch["images"][-1]:
        assert min(np.abs(seen - one).max() for one in whole) <= 2
    (views,) = pipeline.views(train, 64, len(whole), augmentation=False).as_numpy_iterator()
    assert np.abs(views - np.stack(whole)).max() <= 2
    with pytest.raises(UserError, match="prepared at 96 pixels, 128 are needed: .* --image_size=128"):
        trained(folder, tmp_path / "too_small", image_size=128)


def _saved(image, path):
    image.save(path)
    return path


def test_what_is_no_picture_is_named(captioner, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.jpg").touch()
    for name, reason in (
        ("missing.jpg", "no such file"),
        ("text.jpg", "not an image"),
        ("empty.jpg", "not an image"),
        ("", "a folder"),
    ):
        with pytest.raises(UserError, match=f"holds no picture \\({reason}\\)") as error:
            captioner.describe([tmp_path / name])
        assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


def test_other_runs_describe_nothing(gan, text_encoder_run, captioner, pictures):
    with pytest.raises(UserError, match="a run of gan_int_cls describes no pictures: give the run of a captioner"):
        gan.describe(pictures)
    with pytest.raises(UserError, match="a run of show_attend_tell draws no pictures"):
        captioner.generate(["a red flower"], [0])
    wordless = inference.Run(captioner.config, captioner.recipe, 0)
    with pytest.raises(UserError, match="knows no words: write those .* into the file vocabulary"):
        wordless.describe(pictures)


# The sampler.


@pytest.fixture
def sample(captioner, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "load", lambda *_, **parts: captioner)

    def call(**given):
        out = tmp_path / "out"
        return list(sampling.sample(SampleConfig(run_dir="runs/1", out=str(out), **given))), out

    return call


def test_a_figure_for_every_file(sample, captioner, pictures, tmp_path):
    paths = tuple(str(_saved(Image.fromarray(pictures[i]), tmp_path / f"A flower {i}.png")) for i in range(2))
    lines, out = sample(images=paths, beam_size=2)
    found = captioner.describe(pictures[:2], beam_size=2)
    for i, line in enumerate(lines[:2]):
        path = out / f"{i + 1:03d}-a-flower-{i}.png"
        assert line == f"{paths[i]}: {found.captions[i]}\n  {path}"
        panels = len(found.words[i]) + 1
        width, height = Image.open(path).size
        rows = round(panels**0.5)
        assert height == 4 + rows * (192 + 28) and width == 4 + -(-panels // rows) * (192 + 4)
    assert lines[2] == "next: t2i-evaluate --run_dir=runs/1"


def test_without_files_the_test_split_is_described(sample, split):
    lines, out = sample()
    assert [line.split(": ")[0] for line in lines[:6]] == split.names
    assert len(list(out.iterdir())) == 6


def test_flags_of_generators_are_refused(sample):
    flags = {"caption": ("a flower",), "seeds": "0", "mode": "scales", "captioner_run": "runs/2", "film": True}
    for given in ({name: value} for name, value in flags.items()):
        with pytest.raises(UserError, match=f"--{next(iter(given))}: .* describes pictures and draws none: leave it"):
            sample(**given)


def test_a_generator_takes_no_pictures(gan, monkeypatch):
    monkeypatch.setattr(sampling, "load", lambda *_, **parts: gan)
    with pytest.raises(UserError, match="--images: .* is a run of gan_int_cls, which describes no pictures"):
        list(sampling.sample(SampleConfig(run_dir="runs/1", images=("a.jpg",))))


def test_an_imported_captioner_needs_pictures(captioner):
    config = dataclasses.replace(captioner.config, training=TrainConfig(paper="show_attend_tell", data_dir=""))
    run = inference.Run(config, captioner.recipe, 0, vocabulary=captioner.vocabulary)
    with pytest.raises(UserError, match="was imported and knows no data set: give --images or --data_dir"):
        list(describing.describe(run, SampleConfig(run_dir="runs/1")))


def test_after_training_pictures_are_described(outcome):
    assert loop.next_command(outcome) == f"t2i-sample --run_dir={outcome.run_dir}"


# Scores.


def test_training_scores_captions_without_java(outcome):
    (line,) = map(json.loads, (outcome.run_dir / "scores.jsonl").read_text().splitlines())
    assert line["metric"] == "captions" and line["tokenization"] == "words" and "meteor" not in line
    assert {"bleu_4", "bleu_4_without_brevity_penalty", "negative_log_likelihood", "petal_color"} <= set(line)
    words = len(inference.load(outcome.run_dir).vocabulary) + 2
    assert line["negative_log_likelihood_per_word"] == pytest.approx(np.log(words), rel=0.05), "hardly trained yet"


def test_captions_are_scored_against_all_references(captioner, split, pictures):
    given = {"num_images": 4, "seed": 3, "beam_size": 2}
    score = score_of(captioner, "captions", split, **given)
    assert score == score_of(captioner, "captions", split, **given)
    numbers = np.random.Generator(np.random.Philox(3)).permutation(6)[:4]
    found = captioner.describe(pictures[numbers], beam_size=2)
    references = [split.captions()[number] for number in numbers]
    with captions.Scorer("words", meteor=False) as scorer:
        wanted = scorer(found.captions, references).corpus
    assert {name: score[name] for name in wanted} == pytest.approx(wanted)
    assert (score["images"], score["references"], score["beam_size"]) == (4, 40, 2)
    assert score["length_normalised"] is False
    costs = [captioner.caption_costs(captioner.annotations(pictures[[n] * 10]), split.captions()[n]) for n in numbers]
    total, words = (float(np.concatenate(parts).sum()) for parts in zip(*costs, strict=True))
    assert score["negative_log_likelihood"] == pytest.approx(total / 40, rel=1e-5)
    assert score["negative_log_likelihood_per_word"] == pytest.approx(total / words, rel=1e-5)


def test_colours_named_by_hand():
    truths = [{"petal_color": "red", "center_color": "brown", "background": "sky"}] * 4
    said = ["a red flower with a brown center", "a blue flower with a green center", "flower", "a crimson sky"]
    assert captioning.colors_named(said, truths) == {
        "petal_color": 0.25,
        "petal_color_count": 4,
        "center_color": 0.5,
        "center_color_count": 2,
        "background": 1.0,
        "background_count": 1,
    }
    assert captioning.colors_named([], [])["petal_color"] is None


def test_attention_on_petals_by_hand():
    """Petals fill the left half of a picture."""
    mask = np.zeros([3, 16, 16], bool)
    mask[:, :, :8] = True
    alike, left, right = np.full([4, 4], 1 / 16), np.zeros([4, 4]), np.zeros([4, 4])
    left[1, 0] = right[1, 3] = 1.0
    maps = [np.stack([right, alike]), np.stack([right]), np.stack([right, left, right])]
    looks = captioning._attention_on_petals(["a red", "flower", "one blue flower"], maps, mask)
    np.testing.assert_allclose(looks, [[0.5, 0.5], [1.0, 0.5]], atol=0.02)
    assert captioning._attention_on_petals(["a flower"], [maps[1]], mask[:1]).shape == (0, 2)
    assert captioning._attention_on_petals([], [], mask[:0]).shape == (0, 2)


def test_attention_is_measured_on_the_pictures_petals(captioner, split, pictures, monkeypatch):
    """Captions are given; one map for all words, so that what is measured can be had from masks alone."""
    place = np.zeros([8, 8])
    place[2, 5] = 1.0
    monkeypatch.setattr(
        captioner,
        "describe_annotations",
        lambda annotations, *_: inference.Descriptions(
            ["this flower is red"] * len(annotations), None, [np.stack([place] * 4)] * len(annotations), None
        ),
    )
    score = score_of(captioner, "captions", split)
    masks = petal_masks(split, range(6), 64)
    assert score["attention_on_petals_count"] == 6
    assert score["petal_area"] == pytest.approx(masks.mean())
    assert score["attention_on_petals"] == pytest.approx(petals.share_on(np.stack([place] * 6), masks).mean())
    colors = [attributes["petal_color"] for attributes in split.attributes()]
    assert score["petal_color"] == pytest.approx(np.mean([color == "red" for color in colors]))


def test_without_the_package_training_goes_on(captioner, split, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    captioning._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            score = score_of(captioner, "captions", split, num_images=2, seed=0)
    assert "bleu_4" not in score and score["negative_log_likelihood"] > 0 and "petal_color" in score
    assert [record.message for record in caplog.records if record.name != "tensorflow"] == [  # it counts retracing
        "scores of captions need pycocoevalcap: pip install -e '.[captions]'; until then there is the likelihood alone"
    ]


def test_captions_that_cannot_be_scored(captioner, gan, split, blossoms):
    with pytest.raises(UserError, match="--metrics=captions needs a run of a captioner, this is one of gan_int_cls"):
        score_of(gan, "captions", split)
    silent = records.Dataset.open(blossoms).split("test")
    silent.caption_offsets = np.zeros_like(silent.caption_offsets)
    with pytest.raises(UserError, match="--metrics=captions: .* has no captions"):
        score_of(captioner, "captions", silent)
    assert evaluate.fitting(captioner, silent) == []
    assert evaluate.fitting(captioner, split) == ["captions"]


@pytest.mark.slow
def test_no_attention_has_no_maps(blossoms, split, pictures, tmp_path):
    run = inference.load(trained(blossoms, tmp_path / "none", 1, attention="none").run_dir)
    assert run.describe(pictures).attention is None
    score = score_of(run, "captions", split, num_images=6, seed=0)
    assert "bleu_4" in score and "petal_color" in score and "attention_on_petals" not in score
    lines = list(describing.describe(run, SampleConfig(run_dir="runs/1", out=str(tmp_path / "out"))))
    assert lines[0] == f"6 pictures with their captions: {tmp_path / 'out' / 'captions.png'}"
    assert len(lines) == 8


# A frozen network in front.


class Patches(tf.Module):
    """Pictures [B,224,224,3] in [0, 1] -> the means of 4 x 4 patches."""

    @tf.function
    def __call__(self, pictures, training=False):
        return tf.nn.avg_pool2d(pictures, 56, 56, "VALID")


@pytest.mark.slow
def test_annotations_of_unseen_pictures_come_from_the_frozen_network(blossoms, split, pictures, tmp_path):
    module = Patches()
    module.__call__.get_concrete_function(tf.TensorSpec([None, None, None, 3]), training=False)
    tf.saved_model.save(module, str(tmp_path / "patches"))
    given = {"image_encoder": str(tmp_path / "patches"), "image_size": 64}
    run = inference.load(trained(blossoms, tmp_path / "run", 1, **given).run_dir)
    annotations = run.annotations(pictures)
    assert annotations.shape == (6, 16, 3)
    whole = tf.image.resize(tf.cast(pictures, tf.float32), [256, 256], "bicubic", antialias=True)
    wanted = tf.nn.avg_pool2d(tf.clip_by_value(whole, 0, 255)[:, 16:240, 16:240] / 255.0, 56, 56, "VALID")
    np.testing.assert_allclose(annotations, tf.reshape(wanted, [6, 16, 3]), atol=1e-4)
    seen = run.seen(pictures)
    np.testing.assert_array_equal(seen, pictures[:, 4:60, 4:60])  # 7/8
    score = score_of(run, "captions", split, num_images=6, seed=0)
    assert score["attention_on_petals_count"] <= 6 and score["negative_log_likelihood"] > 0
    if score["attention_on_petals_count"] == 6:
        assert score["petal_area"] == pytest.approx(run.seen(petal_masks(split, range(6), 64)).mean())


# There and back.


def test_what_comes_back_is_scored_against_the_caption_that_went_in(gan, captioner_run, captioner, split):
    score = score_of(gan, "round_trip", split, num_images=7, seed=2, captioner_run=str(captioner_run))
    every = [caption for of_image in split.captions() for caption in of_image]
    chosen = np.random.Generator(np.random.Philox(2)).permutation(len(every))[:7]
    given = [every[i] for i in chosen]
    images = gan.generate(given, list(range(2, 9)))[-1]
    (real,) = pipeline.views(split, 64, 7, chosen=chosen // 10).as_numpy_iterator()
    with captions.Scorer("words", meteor=False) as scorer:
        for prefix, shown in (("", images), ("real_", real)):
            read = captioner.describe(shown).captions
            wanted = scorer(read, [[caption] for caption in given]).corpus
            for name in ("bleu_1", "bleu_4", "cider", "rouge_l", "brevity_penalty"):
                assert score[prefix + name] == pytest.approx(wanted[name]), prefix + name
            assert score[f"{prefix}petal_color"] is not None
    assert (score["images"], score["tokenization"], score["captioner_run"]) == (7, "words", str(captioner_run))
    assert score["references"] == "the caption that a picture was made from"


def test_a_perfect_pair_comes_back_whole(gan, split, captioner_run, monkeypatch):
    """A captioner that reads the caption that went in scores highest."""
    given = []
    generate = gan.generate
    monkeypatch.setattr(gan, "generate", lambda texts, seeds: given.extend(texts) or generate(texts, seeds))
    monkeypatch.setattr(
        inference.Run, "describe", lambda run, images, *_: inference.Descriptions(list(given), None, None, None)
    )
    score = score_of(gan, "round_trip", split, num_images=9, seed=0, captioner_run=str(captioner_run))
    assert score["bleu_4"] == pytest.approx(1.0) and score["petal_color"] == 1.0


def test_a_round_trip_needs_both_runs(gan, gan_run, captioner, split):
    with pytest.raises(UserError, match="--metrics=round_trip needs a captioner: give its run folder with --captioner"):
        score_of(gan, "round_trip", split)
    with pytest.raises(UserError, match="--captioner_run=.* is a run of gan_int_cls, which describes no pictures"):
        score_of(gan, "round_trip", split, captioner_run=str(gan_run.path))
    with pytest.raises(UserError, match="needs a run that draws pictures of captions, this is one of show_attend"):
        score_of(captioner, "round_trip", split)


def test_a_round_trip_in_pictures(gan, captioner_run, captioner, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "load", lambda *_, **parts: gan)
    given = SampleConfig(
        run_dir="runs/1",
        out=str(tmp_path),
        mode="round_trip",
        caption=("a red flower", "a blue flower on dark soil"),
        captioner_run=str(captioner_run),
    )
    lines = list(sampling.sample(given))
    read = captioner.describe(gan.generate(list(given.caption), [0, 0])[-1]).captions
    assert lines[0].endswith(str(tmp_path / "round_trip.png"))
    assert lines[1:3] == [
        f"  seed 0: {caption}\n    read back: {back}" for caption, back in zip(given.caption, read, strict=True)
    ]
    plain = Image.open(tmp_path / "round_trip.png").width
    assert plain > 128 + 180
    with pytest.raises(UserError, match="--mode=round_trip needs a captioner"):
        list(sampling.sample(dataclasses.replace(given, captioner_run=None)))


@pytest.mark.slow
def test_the_verb_passes_its_flags_on(captioner_run, blossoms):
    given = EvaluateConfig(
        run_dir=str(captioner_run), data_dir=str(blossoms), beam_size=3, length_normalised=True, tokenization="none"
    )
    line = json.loads(next(iter(evaluate.evaluate_run(given))))
    assert (line["beam_size"], line["length_normalised"], line["tokenization"]) == (3, True, "none")


# Choosing weights.


@pytest.mark.parametrize("select_by, value", [("bleu", "bleu_4"), ("likelihood", "negative_log_likelihood")])
def test_the_best_weights_are_kept_by_the_score_asked_for(blossoms, tmp_path, select_by, value):
    pytest.importorskip("pycocoevalcap")
    outcome = trained(blossoms, tmp_path / "run", select_by=select_by)
    kept = json.loads((tmp_path / "run" / "best" / "score.json").read_text())
    lines = [json.loads(line) for line in (tmp_path / "run" / "scores.jsonl").read_text().splitlines()]
    assert (kept["metric"], kept["name"]) == ("captions", value)
    assert kept["value"] == {line["step"]: line[value] for line in lines}[kept["step"]]
    assert f"best captions/{value}" in outcome.best
    other, of_other = {
        "bleu": ("likelihood", "negative_log_likelihood"),
        "likelihood": ("bleu", "bleu_4"),
    }[select_by]
    folder = tmp_path / "run" / f"best_{other}"
    kept = json.loads((folder / "score.json").read_text())
    assert kept["name"] == of_other and not (tmp_path / "run" / f"best_{select_by}").exists()
    run = inference.load(folder)  # a run folder of its own
    assert run.step == kept["step"] and run.vocabulary == inference.load(tmp_path / "run").vocabulary
