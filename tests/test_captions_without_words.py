"""Captions of which a reader of words knows none: not trained on, and left out of scores and grids, with a count."""

import json

import numpy as np
import pytest
from conftest import TINY_ATTNGAN, TINY_DAMSM
from PIL import Image

from t2i_tf import inference
from t2i_tf.config import EvaluateConfig, PrepareConfig, TrainConfig
from t2i_tf.data import pipeline, records
from t2i_tf.data.prepare import prepare
from t2i_tf.errors import UserError
from t2i_tf.evaluation import alignment, evaluate, sources
from t2i_tf.papers import BatchRequest
from t2i_tf.training import loop
from t2i_tf.training.session import Session


def _data(folder, trained, tested):
    """Captions of each picture of both splits -> a data set of 64 pixels."""
    (folder / "source").mkdir(parents=True)
    lines = []
    for split, of_pictures in (("train", trained), ("test", tested)):
        for number, captions in enumerate(of_pictures):
            color = tuple(np.random.default_rng(number).integers(0, 255, 3).tolist())
            Image.new("RGB", (64, 64), color).save(folder / "source" / f"{split}{number}.png")
            about = {"image": f"{split}{number}.png", "captions": captions, "split": split, "class": f"c{number}"}
            lines.append(json.dumps(about))
    (folder / "source" / "captions.jsonl").write_text("\n".join(lines))
    options = PrepareConfig(
        source="folder",
        source_dir=str(folder / "source"),
        data_dir=str(folder / "data"),
        split="official",
        workers=1,
    )
    return prepare(options, progress=lambda done, total: None)


TRAINED = [[f"a {color} flower", "!!!", "花 花"][: 2 + number % 2] for number, color in enumerate(["red", "blue"] * 6)]
TESTED = [["a red flower", "zorgly"], ["zorgly blorp"], ["a blorp blue flower"], ["a blue flower"], ["flower"]]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = _data(tmp_path_factory.mktemp("wordless"), TRAINED, TESTED)
    assert sorted(records.Dataset.open(folder).manifest["vocabulary"]) == ["a", "blue", "flower", "red"]
    return folder


@pytest.fixture(scope="module")
def damsm_dir(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "damsm"
    training = TrainConfig(paper="damsm", data_dir=str(data), run_dir=str(folder), steps=2, sample_every=1)
    return loop.run(training, TINY_DAMSM).run_dir


def test_captions_that_are_left_out_are_never_drawn(data):
    split = records.Dataset.open(data).split("train")
    captions = [caption for of_one in split.captions() for caption in of_one]
    read = np.array(["flower" in caption for caption in captions])
    assert 0 < read.sum() < len(captions)
    numbers = np.arange(len(captions), dtype=np.float32)[:, None]
    request = BatchRequest(text="embedding", image_sizes=(64,))
    stream = pipeline.batches(split, request, 6, embeddings=numbers, captions_read=read)
    drawn = set()
    for batch in stream.take(8).as_numpy_iterator():
        for number, of_class in zip(batch["embedding"].reshape(-1).astype(int), batch["class"], strict=True):
            image = np.searchsorted(split.caption_offsets, number, side="right") - 1
            assert split.class_ids[image] == of_class, "a caption of its own picture"
            drawn.add(number)
    assert drawn <= set(np.flatnonzero(read).tolist()) and len(drawn) > 6
    assert counts_by_hand(split, read) == pipeline.counts_of(read, split).tolist()


def counts_by_hand(split, read):
    return [int(read[a:b].sum()) for a, b in zip(split.caption_offsets[:-1], split.caption_offsets[1:], strict=True)]


def test_they_are_not_trained_on_and_counted(data, tmp_path, caplog):
    training = TrainConfig(paper="damsm", data_dir=str(data), run_dir=str(tmp_path / "run"), steps=1)
    session = Session(training, TINY_DAMSM)
    assert caplog.text.count("(train) have no word that the data set knows (e.g. '!!!'): they are not trained on") == 1
    assert "18 of 30 captions" in caplog.text
    for batch in session.batches(0).take(6):
        assert batch["word_lengths"].numpy().min() >= 1


@pytest.mark.parametrize("trained, tested", [([*TRAINED[:-1], ["!!!"]], TESTED), (TRAINED, [["zorgly"]] * 2)])
def test_a_picture_or_split_without_any_is_refused_before_anything_is_written(trained, tested, tmp_path):
    folder = _data(tmp_path, trained, tested)
    training = TrainConfig(paper="damsm", data_dir=str(folder), run_dir=str(tmp_path / "run"), steps=1)
    with pytest.raises(UserError, match="have no word that the data set knows .*: correct them and prepare"):
        loop.run(training, TINY_DAMSM)
    assert not (tmp_path / "run").exists()


def test_a_run_reads_the_others_and_says_so_once(damsm_dir, data, caplog):
    run, split = inference.load(damsm_dir), records.Dataset.open(data).split("test")
    assert run.captions_of(split) == [["a red flower"], [], ["a blorp blue flower"], ["a blue flower"], ["flower"]]
    assert "2 captions say nothing to the run, left out: e.g. 'zorgly'" in caplog.text
    assert "1 words that the run does not know, 9.09% of the text, are left out of captions: blorp" in caplog.text
    caplog.clear()
    run.captions_of(split)
    assert not caplog.text
    assert alignment.recall(run, split, EvaluateConfig(num_images=10))["pairs"] == 4


def test_training_and_scores_pass_by_them(data, damsm_dir, tmp_path, caplog):
    given = {**TINY_ATTNGAN, "damsm_run": str(damsm_dir)}
    training = TrainConfig(paper="attngan", data_dir=str(data), run_dir=str(tmp_path / "run"), steps=2, sample_every=1)
    loop.run(training, given)
    assert (tmp_path / "run" / "samples" / "step-0000002.png").is_file()
    assert caplog.text.count("captions say nothing to the run") == 1
    run, split = inference.load(tmp_path / "run"), records.Dataset.open(data).split("test")
    drawn = sources.Drawn(run, split, 12, 0, "fid")
    assert drawn.captions == ["a red flower", "a blorp blue flower", "a blue flower", "flower"]
    assert drawn.pictures.tolist() == [0, 2, 3, 4]
    caplog.clear()
    assert sum(map(len, drawn.batches())) == 12
    assert "left out of the caption:" not in caplog.text
    score = evaluate.evaluate(run, "diversity", split, EvaluateConfig(num_images=8))
    assert score["captions"] == 2 and score["seeds"] == 4
