"""Human ranking without a browser: statistics against numbers by hand and scipy, votes, and sheets of tiny runs."""

import dataclasses
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from t2i_tf import cli, inference
from t2i_tf.config import HumanRankConfig, TableConfig, TrainConfig
from t2i_tf.data import records
from t2i_tf.errors import UserError
from t2i_tf.evaluation import human_rank, rank_sheets, score_file, table
from t2i_tf.evaluation.human_rank import Method, Sheets, Vote, Votes
from t2i_tf.networks.moving_average import MovingAverage
from t2i_tf.training.session import Session

RANKS = np.array([[1, 2, 3], [2, 1, 3], [1, 3, 2]])
"""Three raters of three methods: rank sums 4, 6, 8."""


@pytest.fixture
def sheets(tmp_path):
    """Three captions and methods, without pictures."""
    methods = [Method(name, str(tmp_path / name), 100, "ema") for name in ("first", "second", "third")]
    for method in methods:
        (tmp_path / method.name).mkdir()
    (tmp_path / "sheets").mkdir()
    names = [[f"{sheet}{method}" for method in range(3)] for sheet in range(3)]
    made = Sheets(tmp_path / "sheets", 7, "cub", "test", 1, methods, ["a", "b", "c"], names, {"seed": 7})
    made.write(made.folder)
    return Sheets.read(made.folder)


def vote(rater, sheet, *ranking):
    return Vote(rater, sheet, list(ranking), sorted(ranking))


def random_ranks(raters, methods, seed):
    return np.random.default_rng(seed).permuted(np.tile(np.arange(1, methods + 1), (raters, 1)), axis=1)


def test_means_and_standard_errors_by_hand_and_by_scipy():
    means, errors = human_rank.mean_ranks(RANKS)
    np.testing.assert_allclose(means, [4 / 3, 2, 8 / 3])
    np.testing.assert_allclose(errors, [1 / 3, 1 / np.sqrt(3), 1 / 3])
    many = random_ranks(50, 4, 0)
    np.testing.assert_allclose(human_rank.mean_ranks(many)[1], stats.sem(many))
    assert human_rank.mean_ranks(RANKS[:1])[1] is None


def test_kendalls_w_by_hand_and_by_scipy():
    assert human_rank.kendalls_w(RANKS) == pytest.approx(12 * (4 + 0 + 4) / (9 * 24))
    for raters, methods in ((3, 3), (5, 4), (10, 7)):
        ranks = random_ranks(raters, methods, raters)
        friedman = stats.friedmanchisquare(*ranks.T).statistic
        assert human_rank.kendalls_w(ranks) == pytest.approx(friedman / (raters * (methods - 1)))


def test_spearman_of_pairs_by_scipy_and_its_tie_to_w():
    ranks = random_ranks(5, 4, 1)
    found = human_rank.spearman(ranks)
    pairs = [stats.spearmanr(ranks[i], ranks[j]).statistic for i in range(5) for j in range(i + 1, 5)]
    np.testing.assert_allclose(found, pairs)
    assert found.mean() == pytest.approx((5 * human_rank.kendalls_w(ranks) - 1) / 4)


@pytest.mark.parametrize("other, w, correlation", [([1, 2], 1.0, 1.0), ([2, 1], 0.0, -1.0)])
def test_two_raters_of_two_methods_agree_or_not(other, w, correlation):
    found = human_rank.agreement([np.array([[1, 2], other])])
    assert found == {"shared_captions": 1, "kendalls_w": w, "spearman": pytest.approx(correlation)}


def test_captions_of_one_rater_say_nothing_of_agreement():
    alone, same = np.array([[3, 1, 2]]), np.array([[1, 2, 3], [1, 2, 3]])
    assert human_rank.agreement([alone, same, RANKS])["kendalls_w"] == pytest.approx((1 + 4 / 9) / 2)
    nothing = {"shared_captions": 0, "kendalls_w": None, "spearman": None}
    assert human_rank.agreement([alone]) == human_rank.agreement([]) == nothing


def test_the_order_shown_is_anothers_for_each_rater_and_sheet_and_favours_no_place(sheets):
    orders = {(rater, sheet): sheets.shown(f"r{rater}", sheet) for rater in range(400) for sheet in range(3)}
    assert all(sorted(order) == [0, 1, 2] for order in orders.values())
    assert orders[3, 1] == sheets.shown("r3", 1)
    counts = np.zeros([3, 3])
    for order in orders.values():
        counts[range(3), order] += 1
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3
    assert sum(orders[rater, 0] != orders[rater, 1] for rater in range(400)) > 200
    other = dataclasses.replace(sheets, seed=8)
    assert sum(other.shown(f"r{rater}", 0) != orders[rater, 0] for rater in range(400)) > 200


def test_names_of_raters_are_one_whatever_their_blanks_and_case():
    assert human_rank.rater_name("  Anna \t Müller ") == human_rank.rater_name("anna mu\u0308ller") == "anna müller"
    assert human_rank.rater_name("\ud800") == "?"
    for name in ("", " \n", "x" * 61):
        with pytest.raises(UserError, match="1 to 60 characters"):
            human_rank.rater_name(name)


def test_a_later_vote_takes_the_place_of_an_earlier_one(tmp_path):
    votes = Votes(tmp_path / "votes.sqlite")
    votes.cast(vote("anna", 0, "x", "y"))
    votes.cast(vote("ben", 0, "x", "y"))
    votes.cast(vote("anna", 0, "y", "x"))
    again = Votes(tmp_path / "votes.sqlite")
    assert again.of("anna") == {0: ["y", "x"]} and len(again.all()) == 2


def test_raters_at_once_lose_nothing(tmp_path):
    Votes(tmp_path / "votes.sqlite")
    errors = []

    def rate(rater):
        try:
            for sheet in range(40):
                Votes(tmp_path / "votes.sqlite").cast(vote(rater, sheet, "x", "y"))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=rate, args=(f"r{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(Votes(tmp_path / "votes.sqlite").all()) == 160


def test_votes_that_cannot_be_kept_are_an_error(tmp_path):
    (tmp_path / "votes.sqlite").write_bytes(b"no data base" * 100)
    with pytest.raises(UserError, match="votes.sqlite: .*not a database"):
        Votes(tmp_path / "votes.sqlite")


def test_the_report_and_the_lines_of_the_runs(sheets, tmp_path):
    cast = [
        vote("anna", 0, "first", "second", "third"),
        vote("ben", 0, "second", "first", "third"),
        vote("cleo", 0, "first", "third", "second"),
        vote("anna", 1, "first", "second", "third"),
    ]
    lines = list(human_rank.report(sheets, cast))
    assert lines[0] == "cub: 3 captions, 3 methods, sheets of seed 7; 4 votes of 3 raters (anna 2, ben 1, cleo 1)"
    assert lines[4:7] == [
        f"| first | 1.25 ± {stats.sem([1, 2, 1, 1]):.2f} | 4 |",
        f"| second | 2.00 ± {stats.sem([2, 1, 3, 2]):.2f} | 4 |",
        f"| third | 2.75 ± {stats.sem([3, 3, 2, 3]):.2f} | 4 |",
    ]
    assert (
        "on the 1 captions that two or more ranked: Kendall's W 0.44, Spearman correlation of two raters 0.17"
        in (lines[9])
    )
    (line,) = score_file.read(tmp_path / "first")
    assert line["human_rank"] == 1.25 and line["human_rank_deviation"] == pytest.approx(stats.sem([1, 2, 1, 1]))
    assert (line["votes"], line["raters"], line["captions"], line["seed"], line["step"]) == (4, 3, 3, 7, 100)
    assert line["methods"] == ["first", "second", "third"] and line["sheets_sha256"] == sheets.sha256

    assert not [told for told in human_rank.report(sheets, cast) if told.startswith("added")]
    assert len(score_file.read(tmp_path / "first")) == 1, "the same report adds nothing"
    list(human_rank.report(sheets, cast[:1]))
    assert score_file.read(tmp_path / "first")[1]["human_rank_deviation"] is None


def test_the_table_shows_ranks_beside_the_papers_and_compares_within_the_sheets_alone(sheets, tmp_path):
    list(human_rank.report(sheets, [vote("anna", 0, "first", "second", "third")]))
    shown = table.table(TableConfig(run_dirs=(str(tmp_path / "first"), str(tmp_path / "second"))))
    assert "| first | 100 | ema | 1.00 | a |" in shown and "| second | 100 | ema | 2.00 | a |" in shown
    assert "| StackGAN (StackGAN) |  |  | 1.37 ± 0.02 | published |" in shown
    assert "| GAN-INT-CLS (StackGAN) |  |  | 2.81 ± 0.03 | published |" in shown
    assert "methods first / second / third" in shown and f"sheets_sha256 {sheets.sha256[:12]}" in shown


def test_a_method_that_is_gone_is_told_and_the_rest_reported(sheets, tmp_path, caplog):
    shutil.rmtree(tmp_path / "second")
    lines = list(human_rank.report(sheets, [vote("anna", 0, "first", "second", "third")]))
    assert any(line.startswith("| second | 2.00 |") for line in lines) and "second is not here" in caplog.text


def test_damaged_or_missing_sheets_are_told_in_a_line(sheets, tmp_path):
    with pytest.raises(UserError, match="nothing holds no sheets: give --run_dirs"):
        Sheets.read(tmp_path / "nothing")
    path = sheets.folder / "sheets.json"
    content = json.loads(path.read_text())
    for damaged in ("{", "[]", json.dumps({**content, "methods": [{"nom": "x"}]}), json.dumps({"version": 1})):
        path.write_text(damaged)
        with pytest.raises(UserError, match="sheets.json is damaged"):
            Sheets.read(sheets.folder)
    path.write_text(json.dumps({**content, "version": 2}))
    with pytest.raises(UserError, match="has version 2, this program reads 1"):
        Sheets.read(sheets.folder)


# Sheets of runs.


def untrained(folder, blossoms, text_encoder=None, **given):
    """A run of StackGAN++ of 32 pixels as it begins."""
    tiny = dict(base_size=16, num_scales=2, generator_width=4, discriminator_width=2, condition_dim=4, noise_dim=4)
    training = TrainConfig(paper="stackgan_v2", data_dir=str(blossoms), text_encoder_run=text_encoder)
    session = Session(training, {**tiny, "batch_size": 4, **given})
    average = MovingAverage.of(session.recipe)
    inference.Run(session.config, session.recipe, 0, session.text_encoder, average).save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def asked(gan_run, text_encoder_run, blossoms, tmp_path_factory):
    """Two runs, of 64 and 32 pixels, two pictures of each for four captions."""
    other = untrained(tmp_path_factory.mktemp("runs") / "stackgan_v2", blossoms, str(text_encoder_run.path))
    runs = (str(gan_run.path), other)
    return HumanRankConfig(
        sheets="", run_dirs=runs, data_dir=str(blossoms), num_captions=4, pictures_each=2, seed=3, serve=False
    )


@pytest.fixture(scope="module")
def drawn(asked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "sheets"
    rank_sheets.prepare(dataclasses.replace(asked, sheets=str(folder)))
    return Sheets.read(folder)


def pixels(sheets, sheet, method):
    return np.asarray(Image.open(sheets.folder / "pictures" / f"{sheets.pictures[sheet][method]}.png"))


def test_captions_are_of_different_unseen_pictures_and_the_same_for_the_same_seed(drawn, asked, blossoms, tmp_path):
    captions = records.Dataset.open(blossoms).split("test").captions()
    assert len(set(drawn.captions)) == 4 and all(any(c in own for own in captions) for c in drawn.captions)
    again = dataclasses.replace(asked, sheets=str(tmp_path / "again"))
    assert rank_sheets.prepare(again).startswith("4 sheets of 2 methods, seed 3")
    again = Sheets.read(tmp_path / "again")
    assert again.captions == drawn.captions
    assert not {n for row in again.pictures for n in row} & {n for row in drawn.pictures for n in row}
    np.testing.assert_array_equal(pixels(again, 2, 0), pixels(drawn, 2, 0))


def test_pictures_are_those_that_the_runs_draw_with_the_same_seeds(drawn, asked):
    gap = rank_sheets.GAP
    for method, run_dir in enumerate(asked.run_dirs):
        run = inference.load(run_dir)
        expected = run.generate([drawn.captions[1]] * 2, [3 + 2, 3 + 3])[-1]
        sheet = pixels(drawn, 1, method)
        assert sheet.shape == (64, 128 + gap, 4) and not sheet[:, 64 : 64 + gap, 3].any()
        for place, picture in enumerate(expected):
            wanted = Image.fromarray(picture).resize((64, 64), Image.Resampling.BICUBIC)
            left = place * (64 + gap)
            np.testing.assert_array_equal(sheet[:, left : left + 64, :3], np.asarray(wanted))
    assert [method.step for method in drawn.methods] == [3, 0]
    assert [method.weights for method in drawn.methods] == ["ema", "ema"]


def test_files_tell_nothing_of_the_method(drawn):
    files = list((drawn.folder / "pictures").iterdir())
    assert len(files) == 8 and {file.stem for file in files} == {n for row in drawn.pictures for n in row}
    for file in files:
        with Image.open(file) as picture:
            assert picture.size == (64 + rank_sheets.GAP + 64, 64) and not picture.info


def test_sheets_are_served_again_and_never_drawn_over(drawn, asked, capsys):
    sheets = f"--sheets={drawn.folder}"
    before = (drawn.folder / "sheets.json").read_bytes()
    assert cli.human_rank([sheets, f"--run_dirs={','.join(asked.run_dirs)}", "--seed=3", "--noserve"]) == 0
    assert cli.human_rank([sheets, "--noserve"]) == 0
    for flag, was in (("--seed=4", "--seed=3"), ("--num_captions=5", "--num_captions=4"), ("--per_class", "False")):
        assert cli.human_rank([sheets, flag, "--noserve"]) == 2
        told = capsys.readouterr().err
        assert was in told and "give another folder" in told and told.count("\n") == 1
    assert cli.human_rank([sheets, f"--run_dirs={asked.run_dirs[0]}", "--noserve"]) == 2
    assert asked.run_dirs[1] in capsys.readouterr().err
    assert cli.human_rank([sheets, "--report"]) == 2
    assert "has no votes yet" in capsys.readouterr().err
    assert (drawn.folder / "sheets.json").read_bytes() == before


def test_each_class_has_its_captions(asked, blossoms, tmp_path):
    split = records.Dataset.open(blossoms).split("test")
    rng = np.random.Generator(np.random.Philox(0))
    found = rank_sheets._drawn(split, 2, True, rng)
    owners = {caption: set() for of_image in split.captions() for caption in of_image}
    for number, of_image in zip(split.class_ids, split.captions(), strict=True):
        for caption in of_image:
            owners[caption].add(int(number))
    assert len(set(found)) == len(found) == 2 * len(np.unique(split.class_ids))
    assert set().union(*(owners[caption] for caption in found)) == set(split.class_ids.tolist())
    with pytest.raises(UserError, match="--num_captions=1000: split 'test' of .* different captions: ask for fewer"):
        rank_sheets._drawn(split, 1000, False, rng)


def refused(asked, tmp_path, **changed):
    options = dataclasses.replace(asked, **{"sheets": str(tmp_path / "sheets"), **changed})
    with pytest.raises(UserError) as error:
        rank_sheets.prepare(options)
    assert "\n" not in str(error.value) and not (tmp_path / "sheets" / "sheets.json").exists()
    assert not [path for path in tmp_path.iterdir() if records.PARTIAL in path.name]
    return str(error.value)


def test_what_cannot_be_ranked_is_refused_in_a_line(asked, text_encoder_run, tmp_path):
    gan, other = asked.run_dirs
    assert "give two or more" in refused(asked, tmp_path, run_dirs=(gan,))
    assert "none twice" in refused(asked, tmp_path, run_dirs=(gan, other, gan + "/"))
    assert "draws no pictures" in refused(asked, tmp_path, run_dirs=(gan, str(text_encoder_run.path)))
    assert "no such folder" in refused(asked, tmp_path, run_dirs=(gan, str(tmp_path / "missing")))
    (tmp_path / "empty").mkdir()
    assert "is no run folder" in refused(asked, tmp_path, run_dirs=(gan, str(tmp_path / "empty")))
    assert "has no split 'validation'" in refused(asked, tmp_path, split="validation")
    assert "leave --data_dir and --per_class out" in refused(asked, tmp_path, captions_file="captions.txt")
    (tmp_path / "sheets").mkdir()
    (tmp_path / "sheets" / "notes.txt").write_text("mine")
    assert "holds other files" in refused(asked, tmp_path)


def test_a_run_without_text_is_refused(asked, blossoms, tmp_path):
    plain = untrained(tmp_path / "plain", blossoms, conditional=False)
    assert "trained without text" in refused(asked, tmp_path, run_dirs=(asked.run_dirs[0], plain))


def test_runs_of_different_data_are_refused(asked, tmp_path):
    (tmp_path / "birds").mkdir()
    manifest = json.loads((Path(asked.data_dir) / "dataset.json").read_text())
    (tmp_path / "birds" / "dataset.json").write_text(json.dumps({**manifest, "name": "cub"}))
    shutil.copytree(asked.run_dirs[1], tmp_path / "of_birds")
    config = json.loads((tmp_path / "of_birds" / "config.json").read_text())
    config["training"]["data_dir"] = str(tmp_path / "birds")
    (tmp_path / "of_birds" / "config.json").write_text(json.dumps(config))
    told = refused(asked, tmp_path, run_dirs=(asked.run_dirs[0], str(tmp_path / "of_birds")))
    assert "trained on different data sets, blossoms and cub" in told
    birds = str(tmp_path / "birds")
    (tmp_path / "birds" / "dataset.json").write_text(json.dumps({**manifest, "name": "cub", "splits": {}}))
    assert "is cub, the runs were trained on blossoms" in refused(asked, tmp_path, data_dir=birds)


@pytest.fixture
def folder(tmp_path):
    """Twelve pictures of another system, 1.png to 12.png, each of a grey of its own."""
    path = tmp_path / "other"
    path.mkdir()
    for number in range(1, 13):
        Image.new("RGB", (48, 48), (20 * number,) * 3).save(path / f"{number}.png")
    (path / "scores.jsonl").write_text("")
    (tmp_path / "captions.txt").write_text("".join(f"a flower of {n} petals\n\n" for n in range(1, 13)))
    return path


def test_pictures_of_a_folder_go_with_their_lines_2_before_10(asked, folder, tmp_path):
    options = dataclasses.replace(
        asked, sheets=str(tmp_path / "sheets"), run_dirs=(asked.run_dirs[0], str(folder)), data_dir=None
    )
    options = dataclasses.replace(
        options, captions_file=str(tmp_path / "captions.txt"), pictures_each=1, num_captions=5
    )
    rank_sheets.prepare(options)
    sheets = Sheets.read(tmp_path / "sheets")
    assert sheets.data == "blossoms" and sheets.split is None and len(sheets.captions) == 5
    for sheet, caption in enumerate(sheets.captions):
        number = int(caption.split()[3])
        assert pixels(sheets, sheet, 1).shape == (64, 64, 3)
        assert (pixels(sheets, sheet, 1) == 20 * number).all(), caption
    assert (sheets.methods[1].step, sheets.methods[1].weights) == (None, None)
    list(human_rank.report(sheets, [vote("anna", 0, *(method.name for method in sheets.methods))]))
    assert score_file.read(folder)[0]["human_rank"] == 2.0


def test_folders_alone_can_be_ranked(asked, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "more" / "other")
    options = HumanRankConfig(
        sheets=str(tmp_path / "sheets"),
        run_dirs=(str(folder), str(tmp_path / "more" / "other")),
        captions_file=str(tmp_path / "captions.txt"),
    )
    assert rank_sheets.prepare(options).startswith("12 sheets of 2 methods")
    sheets = Sheets.read(tmp_path / "sheets")
    assert [method.name for method in sheets.methods] == [f"{tmp_path.name}/other", "more/other"]
    assert sheets.data == "captions"


def test_folders_that_do_not_go_with_the_captions_are_refused(asked, folder, tmp_path):
    runs = {"run_dirs": (asked.run_dirs[0], str(folder)), "pictures_each": 1}
    assert "say by --captions_file which captions" in refused(asked, tmp_path, **runs)
    of_file = {**runs, "data_dir": None, "captions_file": str(tmp_path / "captions.txt"), "num_captions": None}
    assert "12 captions of 2 each" in refused(asked, tmp_path, **{**of_file, "pictures_each": 2})
    Image.new("RGB", (48, 40)).save(folder / "3.png")
    assert "3.png is 48x40 pixels" in refused(asked, tmp_path, **of_file)
    (folder / "3.png").write_text("no picture")
    assert "3.png: " in refused(asked, tmp_path, **of_file)
    (folder / "3.png").unlink()
    assert "holds 11 pictures, but --captions_file has 12" in refused(asked, tmp_path, **of_file)
