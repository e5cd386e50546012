"""The table of scores: what is gathered, what bears one letter, and the two formats. Needs no TensorFlow."""

import csv
import io
import json

import pytest

from t2i_tf import cli
from t2i_tf.config import TableConfig
from t2i_tf.errors import UserError
from t2i_tf.evaluation import table

FID = {
    "metric": "fid",
    "version": 1,
    "step": 100,
    "weights": "ema",
    "data": "cub",
    "split": "test",
    "seed": 0,
    "fid": 20.0,
    "fid_deviation": None,
    "fake_images": 30000,
    "real_images": 2933,
    "image_size": 256,
    "extractor": "inception2015",
    "extractor_sha256": "abcdef0123456789",
    "resize": "tf1_bilinear to 299",
}
IS = {**FID, "metric": "is", "is": 4.1, "is_deviation": 0.05, "splits": 10, "real_images": 0}
del IS["fid"], IS["fid_deviation"]


@pytest.fixture
def folder(tmp_path):
    def scored(name, *lines):
        path = tmp_path / name
        path.mkdir()
        (path / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return path

    return scored


def letters(rows, metric="fid"):
    return {row.method: row.measured for row in rows if row.metric == metric}


def test_scores_measured_alike_bear_one_letter(folder):
    first, second = folder("first", FID, IS), folder("second", {**FID, "fid": 18.5, "step": 200, "seed": 7})
    rows, notes = table.collect([first, second])
    found = letters(rows)
    assert found["first"] == found["second"] != letters(rows, "is")["first"]
    assert set(notes[found["first"]].split(", ")) == {
        "split test",
        "extractor_sha256 abcdef012345",
        "resize tf1_bilinear to 299",
        "image_size 256",
        "fake_images 30000",
        "real_images 2933",
    }


def test_captions_are_shown_by_their_names_and_compared_by_how_they_were_found(folder):
    line = {"metric": "captions", "version": 1, "step": 5, "data": "flickr8k", "split": "test", "beam_size": 3}
    line |= {"tokenization": "ptb", "bleu_1": 0.6, "bleu_4": 0.2, "meteor": None, "images": 1000}
    rows, _ = table.collect([folder("first", line), folder("second", {**line, "beam_size": 1})])
    assert [(row.name, row.value) for row in rows[:2]] == [("bleu_1", 0.6), ("bleu_4", 0.2)] and len(rows) == 4
    assert len({row.measured for row in rows}) == 2


def test_captions_stand_beside_the_papers_bleu_without_brevity_penalty(folder):
    line = {"metric": "captions", "version": 1, "step": 5, "data": "flickr8k", "split": "test", "beam_size": 1}
    line |= {"bleu_4": 0.2, "bleu_4_without_brevity_penalty": 0.21, "meteor": 0.19, "petal_color": None}
    found = table.table(TableConfig(run_dirs=(str(folder("mine", line)),)))
    section = found[found.index("### captions: bleu_4_without_brevity_penalty") :]
    assert "| hard attention (Show, Attend and Tell) |  |  | 0.213 | published |" in section
    assert "### captions: meteor" in found and "| soft attention (Show, Attend and Tell) |  |  | 0.1893 |" in found
    assert found.count("hard attention") == 2, "with the penalty nothing was published"


def test_the_papers_figures_are_those_of_its_table():
    """Flickr8k, BLEU-1 to 4 and METEOR of hard attention, in hundredths."""
    found = [p.value for p in table.PUBLISHED if (p.method, p.data) == ("hard attention", "flickr8k")]
    assert found == [0.67, 0.457, 0.314, 0.213, 0.203]


def test_what_is_read_back_and_looked_at_is_shown(folder):
    """Lines as t2i-evaluate writes them of round_trip and attention_on_petals, and the colours of captions."""
    back = {"metric": "round_trip", "version": 1, "step": 5, "data": "blossoms", "split": "test", "images": 500}
    back |= {"bleu_4": 0.3, "real_bleu_4": 0.4, "petal_color": 0.97, "real_petal_color": 1.0, "center_color": None}
    back |= {"captioner_run": "runs/captioner", "captioner_step": 3000, "brevity_penalty": 0.99}
    looks = {
        "metric": "attention_on_petals",
        "version": 1,
        "step": 5,
        "data": "blossoms",
        "split": "test",
        "images": 60,
    }
    looks |= {"petal_area": 0.22, "on_petals_32": 0.47, "on_petals_64": 0.5, "times_denser_32": 3.1, "flowers": 58}
    said = {"metric": "captions", "version": 1, "step": 5, "data": "blossoms", "split": "test", "images": 60}
    said |= {"petal_color": 0.99, "background": 0.9, "attention_on_petals": 0.4, "petal_area": 0.23}
    rows, notes = table.collect([folder("run", back, looks, said)])
    assert {(row.metric, row.name): row.value for row in rows} == {
        ("round_trip", "bleu_4"): 0.3,
        ("round_trip", "real_bleu_4"): 0.4,
        ("round_trip", "petal_color"): 0.97,
        ("round_trip", "real_petal_color"): 1.0,
        ("attention_on_petals", "on_petals_32"): 0.47,
        ("attention_on_petals", "on_petals_64"): 0.5,
        ("attention_on_petals", "times_denser_32"): 3.1,
        ("attention_on_petals", "petal_area"): 0.22,
        ("captions", "petal_color"): 0.99,
        ("captions", "background"): 0.9,
        ("captions", "attention_on_petals"): 0.4,
        ("captions", "petal_area"): 0.23,
    }
    assert any("captioner_run runs/captioner, captioner_step 3000" in note for note in notes.values())


@pytest.mark.parametrize(
    "other",
    [
        {"extractor_sha256": "0"},
        {"resize": "antialiased to 299"},
        {"fake_images": 2928},
        {"real_images": 1000},
        {"split": "train"},
        {"version": 2},
        {"image_size": 64},
        {"data": "oxford102"},
    ],
)
def test_scores_measured_otherwise_do_not(folder, other):
    rows, _ = table.collect([folder("first", FID), folder("second", {**FID, **other})])
    assert len(set(letters(rows).values())) == 2


def test_the_last_step_counts_and_of_it_the_newest_line(folder):
    lines = [{**FID, "step": 300, "fid": 9.0}, FID, {**FID, "step": 300, "fid": 8.0}]
    raw = {**FID, "weights": "raw", "step": 200, "fid": 30.0}
    rows, _ = table.collect([folder("run", *lines, raw)])
    assert [(row.step, row.weights, row.value) for row in rows] == [(300, "ema", 8.0), (200, "raw", 30.0)]


def test_a_scored_folder_has_no_step_and_its_name_is_no_measure(folder):
    images = {name: value for name, value in FID.items() if name not in ("step", "weights")}
    rows, _ = table.collect([folder("run", FID), folder("pictures", {**images, "images": "somewhere/else"})])
    assert len(set(letters(rows).values())) == 1
    assert [(row.method, row.step, row.weights) for row in rows] == [("run", 100, "ema"), ("pictures", None, "")]


def test_markdown_has_the_papers_figures_of_what_is_shown(folder):
    path = folder("mine", FID, IS)
    found = table.table(TableConfig(run_dirs=(str(path),)))
    lines = found.splitlines()
    assert "| mine | 100 | ema | 4.10 ± 0.05 | b |" in lines
    assert "| AttnGAN2 (AttnGAN) |  |  | 4.36 ± 0.03 | published |" in lines
    assert "| StackGAN-v2 (StackGAN++) |  |  | 15.30 | published |" in lines
    assert "r_precision" not in found and "coco" not in found and "may be compared" in found
    assert lines.index("### fid") < lines.index("| StackGAN-v2 (StackGAN++) |  |  | 15.30 | published |")
    without = table.table(TableConfig(run_dirs=(str(path),), published=False, metrics=("fid",)))
    assert "published" not in without and "### is" not in without and "| mine | 100 | ema | 20.00 | a |" in without


def test_csv_can_be_read_back(folder):
    found = table.table(TableConfig(run_dirs=(str(folder("mine", IS)),), format="csv"))
    rows = list(csv.DictReader(io.StringIO(found)))
    mine = next(row for row in rows if row["method"] == "mine")
    assert (float(mine["value"]), float(mine["deviation"]), mine["step"], mine["name"]) == (4.1, 0.05, "100", "is")
    assert "extractor_sha256 abcdef012345" in mine["how"]
    assert all(row["how"] for row in rows)


def test_letters_go_on_behind_z():
    assert [table._letters(n) for n in (0, 25, 26, 27, 51, 52)] == ["a", "z", "aa", "ab", "az", "ba"]


def test_what_cannot_be_shown_is_told_in_a_line(tmp_path, folder):
    with pytest.raises(UserError, match="nothing has no scores.jsonl: score it first"):
        table.collect([tmp_path / "nothing"])
    with pytest.raises(UserError, match="--metrics=beauty: must be one of is, fid, kid"):
        table.collect([folder("run", FID)], ("beauty",))


def test_the_verb_writes_a_file(folder, tmp_path, capsys):
    run_dir = folder("mine", FID)
    assert cli.table([f"--run_dirs={run_dir}", f"--out={tmp_path / 'table.md'}"]) == 0
    assert cli.table([f"--run_dirs={run_dir}"]) == 0
    assert capsys.readouterr().out == (tmp_path / "table.md").read_text()
    assert cli.table([f"--run_dirs={run_dir}", f"--out={tmp_path / 'no' / 'table.md'}"]) == 2
