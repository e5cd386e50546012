"""t2i-table --plot: what a line joins, and that the picture shows it. Needs no TensorFlow."""

import dataclasses
import json
import math
import sys

import numpy as np
import pytest
from PIL import Image

from t2i_tf import cli
from t2i_tf.config import RunConfig, TableConfig, TrainConfig
from t2i_tf.errors import UserError
from t2i_tf.evaluation import plots, table

IS = {"metric": "is", "version": 1, "weights": "ema", "data": "blossoms", "split": "test", "is": 4.0}
IS |= {"is_deviation": 0.1, "fake_images": 2000, "extractor_sha256": "ab", "splits": 10}


@pytest.fixture
def run(tmp_path):
    def made(name, scores, seed=0, **settings):
        """scores: step -> IS and more of its line."""
        folder = tmp_path / name
        folder.mkdir(parents=True)
        training = TrainConfig(paper="attngan", data_dir="blossoms", run_dir=str(folder), seed=seed)
        settings = {"damsm_weight": 5.0, "num_scales": 2, "attention": "soft", **settings}
        (folder / "config.json").write_text(RunConfig(training, settings, {}).to_json())
        lines = [{**IS, "step": step, **line} for step, line in scores]
        (folder / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    return made


def found(folders, against="step", metrics=None):
    rows, _ = table.collect(folders, metrics, every_step=against == "step")
    return plots.curves(rows, against)


def test_a_run_is_a_line_of_its_steps_each_with_its_newest_score(run):
    folder = run("one", [(200, {"is": 3.0}), (100, {"is": 2.0}), (200, {"is": 3.5, "is_deviation": None})])
    (curve,) = found([folder])
    assert (curve.x, curve.y, curve.deviations) == ([100, 200], [2.0, 3.5], [0.1, None])
    assert (curve.label, curve.title) == ("one", "blossoms, is")


def test_only_what_was_measured_alike_is_joined(run):
    other = {"fake_images": 500}
    first = run("one", [(100, {}), (200, {}), (300, other), (100, {"weights": "raw"})])
    second = run("two", [(100, {"extractor_sha256": "cd"}), (200, {})])
    curves = found([first, second])
    assert {(c.label, tuple(c.x)) for c in curves} == {
        ("one, ema (a)", (100, 200)),
        ("one, ema (b)", (300,)),
        ("one, raw (a)", (100,)),
        ("two (c)", (100,)),
        ("two (a)", (200,)),
    }
    assert len({c.style for c in curves}) == 3, "a way to measure has one style"


def test_the_letters_are_those_of_the_table(run):
    folders = [run("one", [(100, {"fake_images": 500}), (200, {})]), run("two", [(100, {}), (200, {"fake_images": 5})])]
    _, notes = table.collect(folders)
    _, of_plot = table.collect(folders, every_step=True)
    assert notes == of_plot and len(notes) == 3


def test_against_lambda_runs_that_differ_in_it_alone_are_one_line(run):
    """The last step of each counts, from the smallest weight to the largest."""
    folders = [
        run(f"lambda_{weight:g}", [(100, {"is": 1.0}), (200, {"is": score})], damsm_weight=weight)
        for weight, score in ((5.0, 4.5), (0.0, 4.0), (1.0, 4.25))
    ]
    (curve,) = found(folders, "damsm_weight")
    assert (curve.label, curve.x, curve.y) == ("attngan", [0.0, 1.0, 5.0], [4.0, 4.25, 4.5])


def test_another_setting_or_seed_is_another_line_and_named(run):
    folders = [
        run(name, [(200, {})], seed=seed, damsm_weight=weight, num_scales=scales)
        for name, weight, scales, seed in (("a", 0, 2, 0), ("b", 5, 2, 0), ("c", 5, 3, 0), ("d", 0, 2, 1))
    ]
    curves = found(folders, "damsm_weight")
    assert {(c.label, tuple(c.x)) for c in curves} == {
        ("attngan, seed 0, num_scales 2", (0, 5)),
        ("attngan, seed 0, num_scales 3", (5,)),
        ("attngan, seed 1, num_scales 2", (0,)),
    }


def test_runs_of_one_name_are_two(run):
    curves = found([run("x/one", [(100, {})]), run("y/one", [(100, {})])])
    assert len(curves) == 2 and all(c.label.endswith("/one") for c in curves)


def test_the_picture_shows_the_curves(run):
    pytest.importorskip("matplotlib")
    folders = [
        run("one", [(100, {"is": 3.0}), (200, {"is": 3.5, "is_deviation": None})]),
        run("two", [(100, {"is": 2.0}), (100, {"metric": "fid", "fid": 30.0, "fid_deviation": None})]),
    ]
    figure, lines = plots.draw(found(folders), "step")
    of_is, of_fid = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["blossoms, is", "blossoms, fid"]
    assert of_is.get_xlabel() == of_fid.get_xlabel() == "step" and list(lines) == ["one", "two"]
    (line, _, (bars,)), (other, *_) = of_is.containers
    np.testing.assert_array_equal(line.get_xydata(), [[100, 3.0], [200, 3.5]])
    np.testing.assert_array_equal(other.get_xydata(), [[100, 2.0]])
    lengths = [float(ends[1, 1] - ends[0, 1]) for ends in bars.get_segments() if len(ends)]
    assert lengths[0] == pytest.approx(0.2) and all(math.isnan(length) for length in lengths[1:])
    (single, _, no_bars) = of_fid.containers[0]
    np.testing.assert_array_equal(single.get_xydata(), [[100, 30.0]])
    assert single.get_color() == other.get_color() != line.get_color() and not no_bars


def test_words_are_not_joined(run):
    pytest.importorskip("matplotlib")
    folders = [run(kind, [(100, {})], attention=kind) for kind in ("soft", "hard", "none")]
    figure, _ = plots.draw(found(folders, "attention"), "attention")
    (line, *_) = figure.axes[0].containers[0]
    assert line.get_linestyle() == "None"
    figure.canvas.draw()
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["soft", "hard", "none"]


def test_the_verb_writes_table_and_picture(run, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    folders = [run(f"l{weight}", [(100, {})], damsm_weight=weight) for weight in (0.0, 5.0)]
    asked = [f"--run_dirs={','.join(map(str, folders))}", "--against=lambda"]
    assert cli.table([*asked, f"--plot={tmp_path}/new/plot.png"]) == 0
    assert "| l5.0 | 100 | ema | 4.00 ± 0.1 | a |" in capsys.readouterr().out
    picture = Image.open(tmp_path / "new" / "plot.png").convert("RGB")
    assert picture.size == (320, 250) and (31, 119, 180) in {colour for _, colour in picture.getcolors(2**20)}
    assert cli.table([*asked, f"--plot={tmp_path}/plot.svg"]) == 0
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    assert cli.table([*asked, f"--plot={tmp_path}/plot.word"]) == 2
    assert "plot.word: cannot be written" in capsys.readouterr().err


def test_what_cannot_be_drawn_is_told_in_a_line(run, tmp_path, monkeypatch):
    folder = run("one", [(100, {})])
    options = TableConfig(run_dirs=(str(folder),), plot=str(tmp_path / "plot.png"))
    with pytest.raises(
        UserError, match="--against=beauty: .*one has no such setting; it has .*attention, .*damsm_weight"
    ):
        plots.plot(dataclasses.replace(options, against="beauty"))
    with pytest.raises(UserError, match="no score of a run among these"):
        plots.plot(dataclasses.replace(options, metrics=("fid",)))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"matplotlib is missing: pip install -e '.\[plots\]'"):
        plots.plot(options)


def test_pictures_of_a_folder_have_no_step(run, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "scores.jsonl").write_text(json.dumps({k: v for k, v in IS.items() if k != "weights"}) + "\n")
    (curve,) = found([folder, run("one", [(100, {})])])
    assert curve.label == "one"
