"""A generator without text, from training to pictures: noise seeds are all it takes."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from t2i_tf import inference, sampling
from t2i_tf.config import EvaluateConfig, SampleConfig, TrainConfig
from t2i_tf.errors import UserError
from t2i_tf.evaluation import evaluate
from t2i_tf.training import loop

TINY = {"num_scales": 2, "base_size": 16, "generator_width": 4, "discriminator_width": 2, "noise_dim": 5}


@pytest.fixture(scope="module")
def run_dir(blossoms, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "without_text"
    training = TrainConfig(paper="stackgan_v2", data_dir=str(blossoms), run_dir=str(folder), steps=2, sample_every=1)
    loop.run(training, {**TINY, "conditional": False, "color_weight": 50.0, "batch_size": 4})
    return folder


@pytest.fixture(scope="module")
def run(run_dir):
    return inference.load(run_dir)


def test_pictures_of_every_scale_follow_from_their_seeds(run):
    small, large = run.generate(None, [3, 4, 3])
    assert small.shape == (3, 16, 16, 3) and large.shape == (3, 32, 32, 3) and large.dtype == np.uint8
    np.testing.assert_array_equal(large[0], large[2])
    assert np.abs(large[0].astype(int) - large[1]).mean() > 0
    np.testing.assert_array_equal(run.generate(None, [4])[-1][0], large[1])
    assert not run.takes_text


def test_a_grid_of_seeds_is_drawn_while_it_trains(run, run_dir):
    assert sorted(p.name for p in (run_dir / "samples").iterdir()) == ["step-0000001.png", "step-0000002.png"]
    grid, pictures = np.asarray(Image.open(run_dir / "samples" / "step-0000002.png")), run.generate(None, range(48))[-1]
    assert grid.shape == (8 * 36 + 4, 6 * 36 + 4, 3)
    for seed, picture in enumerate(pictures):
        y, x = 4 + 36 * (seed // 6), 4 + 36 * (seed % 6)
        np.testing.assert_array_equal(grid[y : y + 32, x : x + 32], picture)


def test_noise_interpolation_ends_at_the_pictures_of_its_seeds(run):
    (path,) = run.interpolate_noise(None, 3, [5, 6])
    ends = run.generate(None, [5, 6])[-1]
    for end, own in ((path[0], ends[0]), (path[-1], ends[1])):
        np.testing.assert_allclose(end.astype(int), own, atol=1)


def test_captions_are_refused(run, gan):
    with pytest.raises(UserError, match="was trained without text and takes no captions: leave them out"):
        run.generate(["a red flower"], [0])
    with pytest.raises(UserError, match="was trained without text"):
        run.interpolate_text("a red flower", "a blue one", 3, [0])
    with pytest.raises(UserError, match="draws pictures of captions: give some"):
        gan.generate(None, [0])


def draw(run_dir, out, **given):
    return list(sampling.sample(dataclasses.replace(SampleConfig(run_dir=str(run_dir), out=str(out)), **given)))


def test_a_grid_of_seeds_and_a_file_for_each(run, run_dir, tmp_path):
    lines = draw(run_dir, tmp_path, seeds="0-9")
    assert lines[0] == f"grid of 10 seeds: {tmp_path / 'grid.png'}"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["grid.png", *(f"seed{i}.png" for i in range(10))]
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "seed9.png")), run.generate(None, [9])[-1][0])
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert 8 * 128 < grid.shape[1] < 13 * 128 and 2 * 128 < grid.shape[0] < 3 * 128
    assert "--caption" not in lines[-1]


def test_all_scales_side_by_side(run, run_dir, tmp_path):
    lines = draw(run_dir, tmp_path, seeds="3,5", mode="scales")
    assert lines[0] == f"scales of 16, 32 pixels: {tmp_path / 'scales.png'}"
    assert lines[1] == f"4 single pictures in {tmp_path}"
    grid, scales = np.asarray(Image.open(tmp_path / "scales.png")), run.generate(None, [3, 5])
    for row, seed in enumerate([3, 5]):
        for column, (size, images) in enumerate(zip([16, 32], scales, strict=True)):
            x, y, times = grid.shape[1] - 132 * (2 - column), grid.shape[0] - 132 * (2 - row), 128 // size
            np.testing.assert_array_equal(grid[y : y + 128, x : x + 128], images[row].repeat(times, 0).repeat(times, 1))
            single = Image.open(tmp_path / f"seed{seed}-{size}.png")
            np.testing.assert_array_equal(np.asarray(single), images[row])


def test_nearest_training_pictures_are_of_the_largest_scale(run_dir, tmp_path):
    lines = draw(run_dir, tmp_path, mode="nearest", neighbors=2)
    assert lines[0] == f"samples and the nearest of 60 training pictures: {tmp_path / 'nearest.png'}"
    assert lines[1].startswith("  seed 0: ") and lines[1].count(", ") == 1
    width, height = Image.open(tmp_path / "nearest.png").size
    assert 3 * 132 < width < 4 * 132 and 8 * 132 < height < 10 * 132


def test_one_seed(run_dir, tmp_path):
    draw(run_dir, tmp_path, seeds="7", single_files=False)
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]


def test_interpolation_of_noise_is_one_picture(run_dir, tmp_path):
    lines = draw(run_dir, tmp_path, seeds="0-1", mode="interpolate_noise", interpolation_steps=2)
    assert lines[0] == f"noise: {tmp_path / 'interpolate_noise.png'}"


@pytest.mark.parametrize(
    "given, message",
    [
        ({"caption": ("a red flower",)}, "leave --caption and --captions_file out"),
        ({"captions_file": "captions.txt"}, "leave --caption and --captions_file out"),
        ({"mode": "interpolate_text"}, "trained without text: give --mode=interpolate_noise"),
    ],
)
def test_what_needs_text_is_refused(run_dir, tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        draw(run_dir, tmp_path, **given)


def test_diversity_is_across_seeds(run, run_dir, blossoms):
    from t2i_tf.data import records
    from t2i_tf.evaluation import metrics

    split = records.Dataset.open(blossoms).split("test")
    assert evaluate.fitting(run, split) == ["diversity"], "no score of captions fits"
    score = evaluate.evaluate(run, "diversity", split, EvaluateConfig(num_images=5, seed=2))
    images = run.generate(None, range(2, 7))[-1]
    assert score["across_seeds"] == metrics.mean_distance(images[None]) and 0 < score["real"] < 1
    assert (score["seeds"], score["real_images"]) == (5, 5)
    assert not {"captions", "same_caption", "across_captions"} & set(score)
    trained = [json.loads(line) for line in (run_dir / "scores.jsonl").read_text().splitlines()]
    assert [(line["metric"], line["step"], line["seeds"]) for line in trained] == [
        ("diversity", 1, 32),
        ("diversity", 2, 32),
    ]
