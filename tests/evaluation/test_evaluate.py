import dataclasses
import json

import numpy as np
import pytest

from t2i_tf import inference
from t2i_tf.config import EvaluateConfig
from t2i_tf.data import pipeline, records
from t2i_tf.errors import UserError
from t2i_tf.evaluation import evaluate, metrics, score_file


@pytest.fixture(scope="module")
def split(blossoms):
    return records.Dataset.open(blossoms).split("test")


@pytest.fixture(scope="module")
def encoder(text_encoder_run):
    return inference.load(text_encoder_run.path)


def scores_of(run):
    lines = [json.loads(line) for line in (run.path / "scores.jsonl").read_text().splitlines()]
    scores = {line["metric"]: line for line in lines}
    assert len(scores) == len(lines)
    return scores


def test_training_leaves_scores_that_say_how_they_were_measured(gan_run, text_encoder_run):
    for run, metric, weights in ((gan_run, "caption_fidelity", "ema"), (text_encoder_run, "retrieval", "raw")):
        score = scores_of(run)[metric]
        expected = {"metric": metric, "data": "blossoms", "split": "test", "seed": 0, "weights": weights}
        assert {name: score[name] for name in expected} == expected
        assert score["step"] == run.outcome.step


def test_retrieval_is_over_the_whole_split(encoder, split):
    score = evaluate.evaluate(encoder, "retrieval", split, EvaluateConfig())
    assert (score["images"], score["captions"], score["classes"]) == (6, 60, 6)
    assert 0 <= score["accuracy"] <= 1 and score["accuracy_of_chance"] == pytest.approx(1 / 6)
    assert score == evaluate.evaluate(encoder, "retrieval", split, EvaluateConfig())


def test_caption_fidelity_repeats_and_counts(gan, split):
    score = evaluate.evaluate(gan, "caption_fidelity", split, EvaluateConfig(num_images=20, seed=3))
    assert score["images"] == 20
    assert score == evaluate.evaluate(gan, "caption_fidelity", split, EvaluateConfig(num_images=20, seed=3))


def test_diversity_of_captions_and_seeds(gan, split):
    score = evaluate.evaluate(gan, "diversity", split, EvaluateConfig(num_images=17, seed=3))
    assert (score["captions"], score["seeds"], score["real_images"]) == (4, 4, 6)
    assert score["distance"] == "rms of 32x32 area averages"
    assert score == evaluate.evaluate(gan, "diversity", split, EvaluateConfig(num_images=17, seed=3))
    order = np.random.Generator(np.random.Philox(3)).permutation(6)
    captions = [split.captions()[picture][0] for picture in order[:4]]
    images = gan.generate([c for c in captions for _ in range(4)], [3, 4, 5, 6] * 4)[-1].reshape(4, 4, 64, 64, 3)
    for name, value in metrics.diversity(images).items():
        assert score[name] == value > 0
    (real,) = pipeline.views(split, 64, 6).as_numpy_iterator()
    assert score["real"] == pytest.approx(metrics.mean_distance(real[None]), abs=1e-12)


@pytest.mark.parametrize(
    "num_images, captions, seeds, real", [(1, 1, 1, 1), (2, 1, 2, 2), (4, 1, 4, 4), (8, 2, 4, 6), (5000, 6, 4, 6)]
)
def test_diversity_of_few_pictures(gan, split, num_images, captions, seeds, real):
    score = evaluate.evaluate(gan, "diversity", split, EvaluateConfig(num_images=num_images))
    assert (score["captions"], score["seeds"], score["real_images"]) == (captions, seeds, real)
    assert (score["same_caption"] is None) == (seeds == 1)
    assert (score["across_captions"] is None) == (captions == 1)
    assert (score["real"] is None) == (real == 1)


def test_noise_that_says_nothing_and_words_that_say_nothing_are_told_apart(gan, split, monkeypatch):
    generate = gan.generate

    def collapsed(captions, seeds):
        return generate(captions, [0] * len(seeds))

    def deaf(captions, seeds):
        return generate(["a red flower"] * len(captions), seeds)

    monkeypatch.setattr(gan, "generate", collapsed)
    score = evaluate.evaluate(gan, "diversity", split, EvaluateConfig(num_images=24))
    assert score["same_caption"] == 0 < score["across_captions"]
    monkeypatch.setattr(gan, "generate", deaf)
    score = evaluate.evaluate(gan, "diversity", split, EvaluateConfig(num_images=24))
    assert score["across_captions"] == 0 < score["same_caption"]


def test_captions_of_diversity_are_different_texts():
    texts = [["a", "b"], ["a"], [], ["c"], ["a"], ["d"]]
    assert evaluate._different_captions(texts, np.arange(6), 9) == ["a", "c", "d"]
    assert evaluate._different_captions(texts, np.arange(6), 2) == ["a", "c"]


def test_diversity_needs_captions_where_the_generator_reads_them(gan, blossoms):
    silent = records.Dataset.open(blossoms).split("test")
    silent.caption_offsets = np.zeros_like(silent.caption_offsets)
    assert "diversity" not in evaluate.fitting(gan, silent)
    for metric in ("diversity", "caption_fidelity"):
        with pytest.raises(UserError, match=f"--metrics={metric}: .* has no captions: give another --data_dir"):
            evaluate.evaluate(gan, metric, silent, EvaluateConfig())


def test_a_run_on_ready_made_embeddings_is_not_asked_for_captions(gan, split):
    without = inference.Run(gan.config, gan.recipe, gan.step)
    assert evaluate.fitting(gan, split) == ["caption_fidelity", "diversity"]
    assert "diversity" not in evaluate.fitting(without, split)


def test_training_scores_diversity_on_few_pictures_and_shows_it(gan_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    score = scores_of(gan_run)["diversity"]
    assert (score["captions"], score["seeds"], score["real_images"]) == (6, 4, 6), "8 captions where there are"
    events = EventAccumulator(str(gan_run.path / "events")).Reload()
    shown = set(events.PluginTagToContent("scalars"))
    assert {"diversity/same_caption", "diversity/across_captions", "diversity/real"} <= shown


def test_metrics_that_do_not_fit_are_refused(gan, encoder, split):
    with pytest.raises(UserError, match="--metrics=beauty: must be one of retrieval, recall"):
        evaluate.evaluate(gan, "beauty", split, EvaluateConfig())
    with pytest.raises(UserError, match="--metrics=retrieval needs a run of a text encoder, this is one of gan_int"):
        evaluate.evaluate(gan, "retrieval", split, EvaluateConfig())
    with pytest.raises(UserError, match="--metrics=diversity needs a run of a generator, this is one of char_cnn_rnn"):
        evaluate.evaluate(encoder, "diversity", split, EvaluateConfig())
    with pytest.raises(UserError, match="a run of char_cnn_rnn draws no pictures"):
        evaluate.evaluate(encoder, "caption_fidelity", split, EvaluateConfig())


def test_classes_are_needed_to_retrieve(encoder, blossoms):
    single = records.Dataset.open(blossoms).split("test")
    single.class_ids = np.zeros_like(single.class_ids)
    assert evaluate.fitting(encoder, single) == []
    with pytest.raises(UserError, match="has no captions or fewer than two classes in split test"):
        evaluate.evaluate(encoder, "retrieval", single, EvaluateConfig())


def test_an_imported_run_says_that_it_knows_no_data_set(gan, monkeypatch):
    unknown = dataclasses.replace(gan.config, training=dataclasses.replace(gan.config.training, data_dir=""))
    monkeypatch.setattr(evaluate, "load", lambda *_: inference.Run(unknown, gan.recipe, 0))
    with pytest.raises(UserError, match="--run_dir=runs/1 was imported and knows no data set: give --data_dir"):
        list(evaluate.evaluate_run(EvaluateConfig(run_dir="runs/1")))


LINES = {
    "is": {"extractor": "keras", "resize": "antialiased to 64", "real_images": 0},
    "fid": {"extractor": "keras", "resize": "antialiased to 64", "real_images": 6},
    "r_precision": {"encoder": "the run's own"},
    "captions": {"beam_size": 1, "length_normalised": False, "tokenization": "words"},
    "round_trip": {"beam_size": 1, "length_normalised": False, "tokenization": "words", "captioner_run": "runs/2"},
}


@pytest.mark.parametrize(
    "name, changed, scored",
    [
        *((name, {}, True) for name in LINES),
        ("is", {"real_images": 5}, True),
        ("is", {"extractor": "random"}, False),
        ("is", {"resize": "tf1_bilinear"}, False),
        ("fid", {"real_images": 5}, False),
        ("r_precision", {"damsm_run": "runs/2"}, False),
        ("captions", {"beam_size": 3}, False),
        ("captions", {"length_normalised": True}, False),
        ("captions", {"tokenization": "none"}, False),
        ("round_trip", {"captioner_run": "runs/3"}, False),
        ("diversity", {"seed": 1}, False),
    ],
)
def test_a_score_is_taken_again_when_it_is_asked_for_otherwise(
    gan, split, tmp_path, monkeypatch, name, changed, scored
):
    def described(options):
        return {"extractor": options.extractor, "resize": f"{options.resize or 'antialiased'} to 64"}

    monkeypatch.setattr(evaluate.realism, "described", described)
    line = {"metric": name, "version": evaluate.VERSION, "step": gan.step, "weights": "ema", "data": "blossoms"}
    line |= {"split": "test", "num_images": evaluate.NUM_IMAGES, "seed": 0, **LINES.get(name, {})}
    score_file.append(tmp_path, line)
    options = EvaluateConfig(**{"extractor": "keras", "tokenization": "words", "captioner_run": "runs/2", **changed})
    assert evaluate._is_scored(tmp_path, name, gan, split, options) == scored


def test_a_score_stands_on_a_line_of_its_own_behind_one_that_was_cut_off(tmp_path):
    (tmp_path / "scores.jsonl").write_text('{"metric": "fid"}\n{"metric": "i')
    for step in (1, 2):
        score_file.append(tmp_path, {"metric": "kid", "step": step})
    assert [score.get("step") for score in score_file.read(tmp_path)] == [None, 1, 2]
    assert len((tmp_path / "scores.jsonl").read_text().splitlines()) == 4


def test_the_verb_adds_a_line_to_the_runs_scores(text_encoder_run, tmp_path):
    import shutil

    run_dir = shutil.copytree(text_encoder_run.path, tmp_path / "run")
    lines = list(evaluate.evaluate_run(EvaluateConfig(run_dir=str(run_dir))))
    assert lines[-1] == f"added to {run_dir / 'scores.jsonl'}"
    kept = (run_dir / "scores.jsonl").read_text().splitlines()
    assert len(kept) == 2 and kept[1] == lines[0]
    with pytest.raises(UserError, match="has no split 'val': it has train, test"):
        list(evaluate.evaluate_run(EvaluateConfig(run_dir=str(run_dir), split="val")))
