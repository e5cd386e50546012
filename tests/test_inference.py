import numpy as np
import pytest
from random_runs import RUNS, build

from t2i_tf import inference
from t2i_tf.errors import UserError
from t2i_tf.inference import paths

CAPTIONS = [
    "this flower has five round violet petals and a dark yellow center",
    "a white blossom under a pale sky",
    "the petals are red",
    "Blüte mit fünf Blättern – a café",
]


def captions(count):
    return [CAPTIONS[i % len(CAPTIONS)] for i in range(count)]


@pytest.fixture(scope="module")
def text_encoder(text_encoder_run):
    return inference.load(text_encoder_run.path)


def test_pictures_are_uint8_of_the_papers_size(gan):
    (images,) = gan.generate(CAPTIONS, [0, 1, 2, 3])
    assert images.shape == (4, 64, 64, 3) and images.dtype == np.uint8


@pytest.mark.parametrize("count", [1, 4, 17, 32, 33])
def test_a_picture_does_not_depend_on_its_company(gan, count):
    wanted = gan.generate([CAPTIONS[2]], [7])[-1][0]
    names, seeds = captions(count), list(range(100, 100 + count))
    for place in {0, count // 2, count - 1}:
        names[place], seeds[place] = CAPTIONS[2], 7
    images = gan.generate(names, seeds)[-1]
    for place in {0, count // 2, count - 1}:
        np.testing.assert_array_equal(images[place], wanted)
    assert len(images) == count


def test_seeds_and_captions_make_the_picture(gan):
    images = gan.generate([CAPTIONS[0], CAPTIONS[0], CAPTIONS[1]], [3, 4, 3])[-1]
    for other in images[1:]:
        assert np.abs(images[0].astype(int) - other).max() > 8
    np.testing.assert_array_equal(gan.generate([CAPTIONS[0]], [3])[-1][0], images[0])


@pytest.mark.parametrize("seeds", [[0], [5, 0], [2**31 + 5, 0, 2**40]])
def test_a_row_of_noise_follows_from_its_seed_alone(gan, seeds):
    alone = {seed: gan.noise([seed])["z"][0] for seed in seeds}
    for row, seed in zip(gan.noise(seeds)["z"], seeds, strict=True):
        np.testing.assert_array_equal(row, alone[seed])
    assert len({row.tobytes() for row in alone.values()}) == len(seeds)


def test_noise_is_normal(gan):
    noise = gan.noise(range(400))["z"]
    assert noise.shape == (400, 8)
    assert abs(noise.mean()) < 0.06 and abs(noise.std() - 1) < 0.05


def test_truncation_shrinks_the_noise_to_nothing(gan):
    np.testing.assert_allclose(gan.noise([3], 0.5)["z"], 0.5 * gan.noise([3])["z"])
    one, other = gan.generate([CAPTIONS[0]] * 2, [1, 2], truncation=0.0)[-1]
    np.testing.assert_array_equal(one, other)


def test_captions_and_seeds_go_in_pairs(gan):
    with pytest.raises(ValueError, match="2 captions but 1 seeds"):
        gan.generate(CAPTIONS[:2], [0])


def test_interpolation_between_captions_ends_at_their_own_pictures(gan):
    grid = gan.interpolate_text(CAPTIONS[0], CAPTIONS[1], 5, [3, 9])
    assert grid.shape == (2, 5, 64, 64, 3)
    for row, seed in zip(grid, (3, 9), strict=True):
        np.testing.assert_array_equal(row[0], gan.generate([CAPTIONS[0]], [seed])[-1][0])
        np.testing.assert_array_equal(row[-1], gan.generate([CAPTIONS[1]], [seed])[-1][0])


def test_interpolation_between_seeds_ends_at_their_own_pictures(gan):
    grid = gan.interpolate_noise(CAPTIONS[0], 4, [3, 9, 4])
    assert grid.shape == (2, 4, 64, 64, 3)
    for row, (first, last) in zip(grid, [(3, 9), (9, 4)], strict=True):
        for image, seed in ((row[0], first), (row[-1], last)):
            own = gan.generate([CAPTIONS[0]], [seed])[-1][0]
            assert np.abs(image.astype(int) - own.astype(int)).max() <= 1  # sin(a) / sin(a) is 1 but for rounding


def test_the_great_circle_keeps_the_length_and_steps_evenly():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50))
    a, b = a / np.linalg.norm(a) * 7, b / np.linalg.norm(b) * 7
    path = paths.great_circle(a, b, np.linspace(0, 1, 9))
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), 7)
    np.testing.assert_allclose(path[[0, -1]], [a, b], atol=1e-12)
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    np.testing.assert_allclose(steps, steps[0])
    # a straight line would be much shorter in the middle
    assert np.linalg.norm((a + b) / 2) < 6


def test_the_great_circle_from_a_point_to_itself_stays_there():
    a = np.array([3.0, 4.0])
    np.testing.assert_allclose(paths.great_circle(a, a, np.linspace(0, 1, 3)), [a] * 3)


def test_noise_between_seeds_has_the_length_of_its_ends(gan):
    a, b = gan.noise([3, 9])["z"]
    lengths = np.linalg.norm(paths.great_circle(a, b, np.linspace(0, 1, 7)), axis=1)
    assert lengths.min() >= 0.95 * min(np.linalg.norm(a), np.linalg.norm(b))
    assert lengths.max() <= 1.05 * max(np.linalg.norm(a), np.linalg.norm(b))


@pytest.mark.parametrize(
    "caption, message",
    [("", "the caption is empty"), ("  \n", "the caption is empty"), ("花 花", "'花 花' has no char")],
)
def test_captions_that_say_nothing_are_refused(gan, caption, message):
    with pytest.raises(UserError, match=message):
        gan.generate(["a red flower", caption], [0, 1])


def test_over_long_captions_are_cut_and_it_is_said(gan, caplog):
    long = "a red flower with round petals " * 20
    images = gan.generate([long, long[:201]], [0, 0])[-1]
    np.testing.assert_array_equal(images[0], images[1])
    assert f"caption of {len(long)} characters: the text encoder reads the first 201" in caplog.text


def test_case_and_unknown_letters_do_what_the_rule_says(text_encoder):
    one, other, third = text_encoder.encode(["a Red Flower", "a red flower", "a réd flower"])
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, third)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_vectors_do_not_depend_on_how_captions_are_batched(text_encoder, count):
    vectors = text_encoder.encode(captions(count), batch_size=2)
    assert vectors.shape == (count, 16) and vectors.dtype == np.float32
    for caption, vector in zip(captions(count), vectors, strict=True):
        np.testing.assert_allclose(text_encoder.encode([caption])[0], vector, atol=1e-5)


def test_runs_are_told_what_they_cannot_do(gan, text_encoder, gan_run, text_encoder_run):
    with pytest.raises(UserError, match="a run of gan_int_cls encodes no captions"):
        gan.encode(["a red flower"])
    with pytest.raises(UserError, match="a run of char_cnn_rnn draws no pictures"):
        text_encoder.generate(["a red flower"], [0])
    with pytest.raises(UserError, match="--weights=ema: .* was trained without a moving average"):
        inference.load(text_encoder_run.path, "ema")
    without = inference.Run(gan.config, gan.recipe, gan.step)
    with pytest.raises(UserError, match="has no text encoder: add one"):
        without.generate(["a red flower"], [0])


def test_a_saved_run_is_whole_in_its_folder(gan, tmp_path):
    """It can be moved, and the text encoder's own run is not needed any more."""
    gan.save(tmp_path / "saved")
    (tmp_path / "saved").rename(tmp_path / "moved")
    moved = inference.load(tmp_path / "moved")
    assert (moved.paper, moved.step, moved.average.swapped) == ("gan_int_cls", 3, True)
    assert moved.text_encoder.paper == "char_cnn_rnn"
    np.testing.assert_array_equal(moved.generate(CAPTIONS, [0] * 4)[-1], gan.generate(CAPTIONS, [0] * 4)[-1])


def test_weights_are_the_averaged_ones_where_the_run_keeps_them(gan_run):
    best, raw = inference.load(gan_run.path), inference.load(gan_run.path, "raw")
    assert best.average.swapped and not raw.average.swapped
    for one, other in zip(best.average.sources, raw.average.shadows, strict=True):
        np.testing.assert_array_equal(one, other)
    differing = [not np.array_equal(a, b) for a, b in zip(best.average.sources, raw.average.sources, strict=True)]
    assert all(differing)


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} is not a run folder"):
        inference.load(tmp_path)


@pytest.mark.parametrize("name", [name for name in RUNS if name.startswith(("gan", "stackgan", "attngan"))])
def test_a_run_that_only_draws_has_no_judges_and_draws_the_same(name, tmp_path):
    build(name).save(tmp_path)
    whole, drawing = (inference.load(tmp_path, judges=judges) for judges in (True, False))
    assert whole.recipe.discriminators and not drawing.recipe.discriminators
    assert set(drawing.recipe.networks) < set(whole.recipe.networks)
    assert set(drawing.recipe.networks) <= {"generator", "stage1_generator", "text_encoder"}
    rows = ["a red flower", "round petals"] if whole.takes_text else None
    for one, other in zip(whole.generate(rows, [3, 4]), drawing.generate(rows, [3, 4]), strict=True):
        assert one.std() > 1
        np.testing.assert_array_equal(one, other)


def test_a_run_of_encoders_is_whole_although_it_need_not_judge(text_encoder_run):
    run = inference.load(text_encoder_run.path, judges=False)
    assert set(run.recipe.networks) == {"text_encoder", "image_encoder"}
