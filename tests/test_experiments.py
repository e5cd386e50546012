"""experiments/blossoms: what is run and in which order, what is taken as done, verdicts, and the page."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from experiments.blossoms import __main__ as command
from experiments.blossoms import jobs, page, tables
from experiments.blossoms.jobs import Job, Workshop
from experiments.blossoms.page import REVERSED, SEEN, UNKNOWN, WITHIN, Figure, compare
from t2i_tf import cli
from t2i_tf.config import EvaluateConfig, PrepareConfig, SampleConfig, TrainConfig

OPTIONS = {"prepare": PrepareConfig, "train": TrainConfig, "evaluate": EvaluateConfig, "sample": SampleConfig}


@pytest.fixture
def at_root(monkeypatch):
    monkeypatch.chdir(jobs.ROOT)


# Verdicts.


@pytest.mark.parametrize(
    "worse, better, smaller_is_better, wanted",
    [
        (Figure(0.5, 0.03), Figure(0.56, 0.04), False, SEEN),  # 0.06 > 0.05
        (Figure(0.5, 0.03), Figure(0.54, 0.04), False, WITHIN),  # 0.04 < 0.05
        (Figure(0.5, 0.03), Figure(0.46, 0.04), False, WITHIN),
        (Figure(0.5, 0.03), Figure(0.44, 0.04), False, REVERSED),
        (Figure(0.5, 0.03), Figure(0.44, 0.04), True, SEEN),
        (Figure(51.89), Figure(15.3), True, SEEN),
        (Figure(15.3), Figure(51.89), True, REVERSED),
        (Figure(20.0), Figure(20.0), True, WITHIN),
        (Figure(0.5, 0.1), Figure(0.55), False, WITHIN),  # one deviation alone counts
        (None, Figure(1.0), False, UNKNOWN),
        (Figure(1.0), None, True, UNKNOWN),
    ],
)
def test_verdicts_by_hand(worse, better, smaller_is_better, wanted):
    assert compare(worse, better, smaller_is_better) == wanted


@pytest.mark.parametrize(
    "verdicts, wanted",
    [
        ([SEEN, SEEN], SEEN),
        ([SEEN, WITHIN], "seen in part"),
        ([REVERSED, SEEN], "seen in part"),
        ([WITHIN], "not seen"),
        ([REVERSED, WITHIN], "not seen"),
        ([SEEN, UNKNOWN], UNKNOWN),
    ],
)
def test_an_ordering_is_seen_where_all_its_pairs_are(verdicts, wanted):
    assert page.summary(verdicts) == wanted


def test_deviations_are_the_lines_own_or_those_of_a_share():
    assert page.figure({"is": 3.0, "is_deviation": 0.2}, "is") == Figure(3.0, 0.2)
    share = page.figure({"petal_color": 0.9, "petal_color_count": 100}, "petal_color")
    assert share.value == 0.9 and share.deviation == pytest.approx(0.03)
    assert page.figure({"fid": 12.0, "fid_deviation": None}, "fid") == Figure(12.0, None)
    assert page.figure({"meteor": None}, "meteor") is None and page.figure(None, "fid") is None
    assert (str(Figure(0.9, 0.03)), str(Figure(12.0))) == ("0.900 ± 0.030", "12.00")


def test_the_papers_own_figures_have_the_orderings_that_the_page_looks_for():
    """Where figures of both rows are quoted, beyond their deviations: a wrong pair would be blamed on the runs."""
    checked = 0
    for table in tables.TABLES.values():
        rows = {row.label: row for row in table.rows}
        for ordering in table.orderings:
            column = next(c for c in table.columns if c.title == ordering.column)
            for quoted in table.published:
                if (quoted.metric, quoted.value) != (column.metric, column.value):
                    continue
                for pair in ordering.pairs:
                    found = [page._published(rows[x].published, quoted.data, quoted.metric, quoted.value) for x in pair]
                    if None in found:
                        continue
                    checked += 1
                    assert compare(*found, column.smaller_is_better) == SEEN, (ordering.says, quoted.title, pair)
    assert checked >= 20


def test_every_published_column_has_a_figure():
    for table in tables.TABLES.values():
        for c in table.published:
            assert any(page._published(row.published, c.data, c.metric, c.value) for row in table.rows), c


# Jobs.


def test_every_command_is_one_that_the_package_takes(at_root, tmp_path):
    found = Workshop(tmp_path).jobs(list(tables.TABLES.values()))
    for job in found:
        cli._parse(f"t2i-{job.verb}", OPTIONS[job.verb], list(job.flags), job.verb == "train")
    assert len(found) == len({job.label for job in found}) == len({job.flags for job in found}) > 45
    runs = [flag for job in found for flag in job.flags if flag.startswith("--run_dir=") and job.verb == "train"]
    assert len(runs) == len(set(runs)) == 6 + 4 + 2 + 2 + 5 + 3
    assert sum(job.minutes for job in found) < 200


def test_a_smoke_run_is_cut_short(tmp_path):
    found = {job.label: job for job in Workshop(tmp_path, **command.SMOKE).jobs(list(tables.TABLES.values()))}
    assert (
        "--num_images=6600" in found["draw blossoms22k"].flags and "--steps=2" in found["train lambda/lambda_5"].flags
    )
    assert "--num_images=120" in found["score captions/soft: captions"].flags


def test_what_a_command_needs_is_made_before(at_root, tmp_path):
    made = set()
    for job in Workshop(tmp_path).jobs(list(tables.TABLES.values())):
        for flag in job.flags:
            name, _, value = flag.partition("=")
            makes = (job.verb == "prepare" and name == "--data_dir") or (job.verb == "train" and name == "--run_dir")
            if str(tmp_path) in value and not makes and name != "--out":
                assert value.removeprefix("run:") in made, (job.label, flag)
        made |= {f.partition("=")[2] for f in job.flags if f.startswith(("--data_dir=", "--run_dir="))}


def test_presets_are_named_by_their_files():
    runs = [job for job in Workshop(Path("runs/results")).jobs(list(tables.TABLES.values())) if job.verb == "train"]
    for job in runs:
        (preset,) = [flag for flag in job.flags if flag.startswith("--flagfile=")]
        assert (jobs.ROOT / preset.partition("=")[2]).is_file()
        assert not [flag for flag in job.flags if "/" in flag and str(jobs.ROOT) in flag], "paths from the repository"


RUN = tables.Run("some/run", "gan_int_cls", tables.BLOSSOMS, 1800, 4)


@pytest.fixture
def workshop(tmp_path):
    return Workshop(tmp_path)


def put(folder, lines=(), step=None, seed=0, log=None):
    """A run folder as the page reads it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.json").write_text(json.dumps({"training": {"seed": seed}}))
    if step is not None:
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / f"ckpt-{step}.index").write_text("")
    if log:
        (folder / "log").write_text(log)


def line_of(workshop, metric, **more):
    extractor = f"run:{workshop.path(tables.CLASSIFIER)}"
    return {"metric": metric, "step": 1800, "num_images": 2000, "seed": 0, "extractor": extractor, **more}


def test_only_a_line_of_this_very_score_counts(workshop):
    right = line_of(workshop, "fid", fid=3.0)
    others = [{"extractor": "random"}, {"num_images": 256}, {"seed": 1}, {"metric": "kid"}]
    put(workshop.folder(RUN), [{**right, **other} for other in others])
    assert workshop.line(RUN, tables.REALISM, "fid") is None
    put(workshop.folder(RUN), [right, {**right, "fid": 2.0}, {**right, "step": 900}, *({**right, **o} for o in others)])
    assert workshop.line(RUN, tables.REALISM, "fid", 1800)["fid"] == 2.0
    assert workshop.line(RUN, tables.REALISM, "fid", 1000) is None


def test_captions_scored_while_training_do_not_count(workshop):
    line = {"metric": "captions", "num_images": 600, "seed": 0, "step": 3000, "tokenization": "words", "meteor": None}
    put(workshop.folder(RUN), [line])
    assert workshop.line(RUN, tables.OF_CAPTIONS, "captions") is None
    put(workshop.folder(RUN), [{**line, "tokenization": "ptb"}])
    assert workshop.line(RUN, tables.OF_CAPTIONS, "captions")


def test_two_judges_are_two_scores(workshop):
    by = {
        run: {"metric": "r_precision", "num_images": 2000, "seed": 0, "encoder": workshop.path(run)}
        for run in (tables.DAMSM, tables.OTHER_DAMSM)
    }
    put(workshop.folder(RUN), [by[tables.OTHER_DAMSM]])
    assert workshop.line(RUN, tables.BY_OTHER, "r_precision")
    assert workshop.line(RUN, tables.OF_WORDS, "r_precision") is None


def test_a_run_is_done_at_its_step_and_scored_at_its_best(workshop):
    row = tables.Row("some", RUN)
    table = dataclasses.replace(tables.VARIANTS, rows=(row,))
    of = {job.label: job for job in workshop.jobs([table])}
    train, score = of["train some/run"], of["score some/run: is,fid,caption_fidelity by shared/classifier"]
    folder = workshop.folder(RUN)
    assert not train.is_done() and not score.is_done()
    put(folder, [line_of(workshop, metric) for metric in tables.REALISM.metrics], step=1799)
    assert not train.is_done() and not score.is_done()
    put(folder, [line_of(workshop, metric) for metric in tables.REALISM.metrics], step=1800)
    assert train.is_done() and score.is_done()
    put(folder / "best", step=1500)
    assert train.is_done() and not score.is_done()
    put(folder, [line_of(workshop, metric, step=1500) for metric in tables.REALISM.metrics])
    assert score.is_done()


def test_minutes_of_a_log_leave_pauses_out(tmp_path):
    log = tmp_path / "log"
    assert jobs.minutes_in(log) is None
    log.write_text(
        "2026-11-24 10:00:00  step 2/90\n2026-11-24 10:01:30  step 60/90\n2026-11-24 12:00:00  step 2/90\n"
        "2026-11-24 12:00:45  step 90/90\n2026-11-2"
    )
    assert jobs.minutes_in(log) == pytest.approx(2.25)


def test_a_data_set_is_done_when_it_has_its_pictures(workshop):
    draw = workshop.jobs([tables.VARIANTS])[0]
    assert draw.label == "draw blossoms22k" and not draw.is_done()
    folder = workshop.folder(tables.MANY_BLOSSOMS)
    folder.mkdir(parents=True)
    for count in (20000, 10):
        (folder / "dataset.json").write_text(
            json.dumps({"splits": {"train": {"images": count}, "test": {"images": 2000}}})
        )
        assert draw.is_done() == (count == 20000)


# Running them.


def job(name, folder, minutes=1.0, took=None):
    return Job(name, "train", (), minutes, lambda: (folder / name).exists(), lambda: took)


def test_what_is_done_is_not_done_again_and_a_second_call_does_nothing(tmp_path):
    (tmp_path / "b").touch()
    todo, called, said = [job(name, tmp_path) for name in "abc"], [], []

    def call(asked):
        called.append(asked.label)
        (tmp_path / asked.label).touch()
        return 0

    assert jobs.run_all(todo, call, said.append) == 0 and called == ["a", "c"]
    assert said[0] == "1 of 3 commands are done already"
    assert said[1].startswith("[2/3] a, about 1 min; 2 min left in all") and "  t2i-train" in said
    assert jobs.run_all(todo, call, said.append) == 0 and called == ["a", "c"]


def test_the_time_left_follows_how_long_finished_runs_took(tmp_path):
    (tmp_path / "a").touch()
    todo = [job("a", tmp_path, 10.0, took=30.0), job("b", tmp_path, 5.0), job("c", tmp_path, 20.0)]
    said = []
    assert jobs.run_all(todo, lambda asked: 7, said.append) == 7
    assert "b, about 15 min; 1 h 15 min left in all" in said[1]
    assert said[-1].startswith("stopped: b ended with status 7")


def test_a_command_that_leaves_no_result_stops_it(tmp_path):
    said = []
    assert jobs.run_all([job("a", tmp_path)], lambda asked: 0, said.append) == 1
    assert said[-1] == "stopped: a ended well and left no result"


def test_a_command_is_run_in_the_repository_and_its_status_returned(tmp_path):
    assert jobs.call(Job("", "table", ("--nothing",), 1, bool)) == 2
    assert jobs.call(Job("", "table", ("--help",), 1, bool)) == 0


def test_an_interruption_reaches_the_command_once_and_is_waited_for(tmp_path):
    """As Ctrl-C of a terminal or SIGTERM of a system: to this process alone; the command takes its time to save."""
    ready, saved = tmp_path / "ready", tmp_path / "saved"
    program = (
        "import signal, time, pathlib\nsignal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        f"try:\n    pathlib.Path({str(ready)!r}).touch()\n    time.sleep(60)\n"
        f"except KeyboardInterrupt:\n    time.sleep(0.5)\n    pathlib.Path({str(saved)!r}).touch()"
    )

    class Slow(Job):
        command = [sys.executable, "-c", program]

    def interrupt():
        while not ready.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        jobs.call(Slow("", "train", (), 1, bool))
    assert saved.exists()


# The page.


@pytest.fixture
def small():
    """Two runs, a score with a deviation and one without."""
    one, two = (dataclasses.replace(RUN, name=f"small/{name}") for name in ("one", "two"))
    return tables.Table(
        name="small",
        title="One and two",
        about="What the paper says.",
        rows=(tables.Row("one", one, "GAN-INT-CLS"), tables.Row("two", two, "StackGAN")),
        columns=(tables.INCEPTION_SCORE, tables.FRECHET_DISTANCE, tables.FIDELITY[0]),
        published=(tables.PublishedColumn("IS, CUB", "cub", "is", "is"),),
        orderings=(
            tables.Ordering("two is better", "IS", (("one", "two"),)),
            tables.Ordering("two is nearer", "FID", (("one", "two"),)),
            tables.Ordering("two obeys", "petals", (("one", "two"),)),
        ),
    )


def scored(workshop, row, inception, frechet, share):
    how = {"split": "test", "extractor_sha256": "abcdef0123456789", "fake_images": 2000}
    lines = [
        line_of(workshop, "is", **{"is": inception, "is_deviation": 0.1}, **how),
        line_of(workshop, "fid", fid=frechet, fid_deviation=None, real_images=600, **how),
        line_of(workshop, "caption_fidelity", petal_color=share, petal_color_count=2000, images=2000, split="test"),
    ]
    log = "2026-11-24 10:00:00  step 2/1800\n2026-11-24 10:04:30  step 1800/1800\n"
    put(workshop.folder(row.run), lines, step=1800, seed=3, log=log)


def test_the_page_of_given_scores(workshop, small, tmp_path):
    scored(workshop, small.rows[0], 4.0, 30.0, 0.9)
    scored(workshop, small.rows[1], 4.5, 31.0, 0.904)
    for row, color in zip(small.rows, ("red", "blue"), strict=True):
        folder = workshop.pictures(row.run)
        folder.mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (64, 64), color).save(folder / f"{number:03d}.png")
        Image.new("RGB", (9, 9)).save(folder / "grid.png")
    page.Page(workshop, tmp_path / "docs" / "results.md", "a slow machine").write([small])
    text = (tmp_path / "docs" / "results.md").read_text()
    assert text.startswith("# Results on `blossoms`") and "on a slow machine" in " ".join(text.split())
    section = text[text.index("## One and two") : text.index("`python -m experiments.blossoms --tables=small`")]
    assert section == (
        "## One and two\n\nWhat the paper says.\n\n"
        "|  | IS | FID | petals | *IS, CUB* | step | seed | minutes |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
        "| one | 4.00 ± 0.10 | 30.00 | 0.900 ± 0.007 | *2.88 ± 0.04* | 1800 | 3 | 4.5 |\n"
        "| two | 4.50 ± 0.10 | 31.00 | 0.904 ± 0.007 | *3.70 ± 0.04* | 1800 | 3 | 4.5 |\n\n"
        "* is: seed 0, split test, extractor_sha256 abcdef012345, fake_images 2000\n"
        "* fid: seed 0, split test, extractor_sha256 abcdef012345, fake_images 2000, real_images 600\n"
        "* caption_fidelity: seed 0, split test, images 2000\n"
        "* two is better (IS): **seen**. two (4.50 ± 0.10) before one (4.00 ± 0.10): seen.\n"
        "* two is nearer (FID): **not seen**. two (31.00) before one (30.00): the other way round.\n"
        "* two obeys (petals): **not seen**. two (0.904 ± 0.007) before one (0.900 ± 0.007): within the "
        "deviations.\n\n"
        "![One and two](pictures/results_small.webp)\n\n"
    )
    picture = Image.open(tmp_path / "docs" / "pictures" / "results_small.webp").convert("RGB")
    left, right = (picture.getpixel((picture.width - x, picture.height // 2)) for x in (4 * 68 - 30, 30))
    assert left[0] > 200 > 60 > left[2] and right[2] > 200 > 60 > right[0], "columns of one run, then of the other"


def test_what_is_missing_is_told(workshop, small, tmp_path):
    page.Page(workshop, tmp_path / "results.md", "it").write([small])
    text = (tmp_path / "results.md").read_text()
    assert "| one | – | – | – | *2.88 ± 0.04* |  | ? | ? |" in text and "two is better (IS): **not measured**" in text
    assert "webp" not in text and "`shared/classifier` (`flags/classifier_blossoms.flags`): not measured" in text


def test_scores_measured_otherwise_are_told_apart(workshop, small, tmp_path):
    for row, size in zip(small.rows, (64, 128), strict=True):
        put(workshop.folder(row.run), [line_of(workshop, "fid", fid=1.0, image_size=size)])
    made = page.Page(workshop, tmp_path / "results.md", "it")
    told = made._measured(small)
    assert made._verdict(small, small.orderings[1]).startswith("two is nearer (FID): **not seen**"), "sizes may differ"
    put(workshop.folder(small.rows[1].run), [line_of(workshop, "fid", fid=1.0, real_images=7)])
    assert made._verdict(small, small.orderings[1]).startswith("two is nearer (FID): **not measured alike**")
    assert told == ["fid of one: seed 0, image_size 64", "fid of two: seed 0, image_size 128"]


def test_the_command_names_the_tables_and_writes_the_page(tmp_path, capsys):
    asked = [f"--out={tmp_path}", f"--page={tmp_path}/results.md", "--only_page"]
    assert command.main([*asked, "--tables=captions,variants"]) == 0
    text = (tmp_path / "results.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        f"## {table.title}" for table in tables.TABLES.values()
    ]
    with pytest.raises(SystemExit):
        command.main([*asked, "--tables=everything"])
    assert "--tables=everything: must be one of variants, stage1" in capsys.readouterr().err


SCRIPTS = sorted(path.stem for path in (jobs.ROOT / "experiments").glob("*.py"))


@pytest.mark.parametrize("script", ["against_pytorch.__main__", "blossoms.__main__", *SCRIPTS])
def test_help_waits_for_nothing(script):
    program = (
        "import runpy, sys\nsys.argv[1:] = ['--help']\n"
        f"try:\n    runpy.run_module('experiments.{script}', run_name='__main__')\n"
        "except SystemExit as end:\n    sys.exit(end.code or 'tensorflow' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=jobs.ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("usage: ")


# All of it, small.


@pytest.mark.slow
def test_a_whole_table_of_few_steps(tmp_path, at_root, blossoms, text_encoder_run, gan_run, capsys):
    """Every command for real, in this process; finished runs are taken over, and the second time nothing is run."""
    data = tables.DataSet("few", 64, 66, 0.1)
    text_encoder = tables.Run("shared/text", "char_cnn_rnn", data, text_encoder_run.outcome.step, 0.1)
    reads_text = ("--text_encoder_run={}", text_encoder)
    small = ("--generator_width=4", "--discriminator_width=4", "--text_projection=8", "--noise_dim=8", "--batch_size=8")
    there = tables.Run("tiny/there", "gan_int_cls", data, gan_run.outcome.step, 0.1, (reads_text, *small))
    fresh = tables.Run("tiny/fresh", "gan_int_cls", data, 2, 0.1, (reads_text, *small, "--cls_weight=0", "--seed=0"))
    score = tables.Score(("caption_fidelity", "diversity"), 20, 0.1)
    table = tables.Table(
        name="tiny",
        title="Tiny",
        about="Few steps.",
        rows=(tables.Row("fresh", fresh), tables.Row("there", there)),
        columns=(
            tables.Column("petals", score, "caption_fidelity", "petal_color"),
            tables.Column("diversity", score, "diversity", "same_caption"),
        ),
        published=(),
        orderings=(tables.Ordering("it differs more", "diversity", (("fresh", "there"),)),),
    )
    workshop, called = Workshop(tmp_path), []
    for source, thing in ((blossoms, data), (text_encoder_run.path, text_encoder), (gan_run.path, there)):
        shutil.copytree(source, workshop.folder(thing))

    def call(asked):
        called.append(asked.label)
        return getattr(cli, asked.verb)(list(asked.flags))

    assert jobs.run_all(workshop.jobs([table]), call, print) == 0, capsys.readouterr().err
    assert called == [
        "train tiny/fresh",
        "score tiny/fresh: caption_fidelity,diversity",
        "draw by tiny/fresh",
        "score tiny/there: caption_fidelity,diversity",
        "draw by tiny/there",
    ]
    page.Page(workshop, tmp_path / "results.md", "it").write([table])
    section = (tmp_path / "results.md").read_text().partition("## Tiny")[2]
    assert UNKNOWN not in section and "–" not in section and "| fresh |" in section and "| 2 | 0 |" in section
    assert Image.open(tmp_path / "pictures" / "results_tiny.webp").size[1] > 6 * 64
    called.clear()
    assert jobs.run_all(workshop.jobs([table]), call, print) == 0 and not called
