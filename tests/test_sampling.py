import dataclasses

import numpy as np
import pytest
from PIL import Image

from t2i_tf import sampling
from t2i_tf.config import SampleConfig
from t2i_tf.errors import UserError


@pytest.mark.parametrize(
    "text, seeds",
    [
        ("0", [0]),
        ("0-7", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("1,5,9", [1, 5, 9]),
        ("0-2,9", [0, 1, 2, 9]),
        (" 3 , 5-6 ", [3, 5, 6]),
        ("4-4", [4]),
        ("7,7", [7, 7]),
    ],
)
def test_seeds_are_numbers_and_ranges(text, seeds):
    assert sampling.parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", ",", "a", "-1", "3-1", "1-2-3", "1;2", "1.5", "0-"])
def test_other_seeds_are_refused(text):
    with pytest.raises(UserError, match="write numbers and ranges, e.g. 0-7 or 1,5,9") as error:
        sampling.parse_seeds(text)
    assert str(error.value).startswith(f"--seeds={text}: ")


def options(**given):
    return SampleConfig(run_dir="runs/1", **given)


def test_captions_come_from_flags_and_file(tmp_path, gan):
    path = tmp_path / "captions.txt"
    path.write_bytes("\ufeffa red flower\r\n\r\n  eine Blüte  \n".encode())
    found = sampling.captions_of(options(caption=("first, with a comma",), captions_file=str(path)), gan)
    assert found == ["first, with a comma", "a red flower", "eine Blüte"]


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "holds no caption: write one a line"),
        (b"\n  \n", "holds no caption: write one a line"),
        ("Blüte".encode("latin-1"), "is not UTF-8"),
    ],
)
def test_files_without_captions_are_named(tmp_path, gan, content, message):
    path = tmp_path / "captions.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        sampling.captions_of(options(captions_file=str(path)), gan)
    assert message in str(error.value) and f"--captions_file={path}" in str(error.value)


def test_a_folder_is_no_captions_file(tmp_path, gan):
    with pytest.raises(UserError, match="cannot be read"):
        sampling.captions_of(options(captions_file=str(tmp_path)), gan)


def test_without_captions_unseen_ones_are_taken(gan, blossoms):
    from t2i_tf.data import records

    found = sampling.captions_of(options(), gan)
    unseen = [captions[0] for captions in records.Dataset.open(blossoms).split("test").captions()]
    assert found == unseen, "six pictures in the test split, one caption each"


def test_data_without_captions_give_none_to_draw(gan, without_captions):
    with pytest.raises(UserError, match="no --caption is given: .*silent has no captions: give another --data_dir"):
        sampling.captions_of(options(data_dir=str(without_captions)), gan)


@pytest.fixture
def draw(gan, gan_run, tmp_path, monkeypatch):
    """-> lines printed and the folder, of a run that is loaded already."""
    monkeypatch.setattr(sampling, "load", lambda *_, **parts: gan)

    def call(**given):
        out = tmp_path / "out"
        asked = dataclasses.replace(options(out=str(out)), **given)
        return list(sampling.sample(asked)), out

    return call


LONG = "this flower has five round violet petals and a dark yellow center"


def test_a_grid_and_a_file_for_every_picture(draw, gan):
    captions = (LONG, LONG + " on dark soil", "Red?", "red!")
    lines, out = draw(caption=captions, seeds="3,5")
    names = sorted(path.name for path in out.iterdir())
    assert len(names) == 4 * 2 + 1, "captions that begin alike have files of their own"
    assert lines[0] == f"grid of 4 captions and 2 seeds: {out / 'grid.png'}"
    assert lines[1] == f"8 single pictures in {out}"
    for number, caption in enumerate(captions, 1):
        (path,) = out.glob(f"{number:03d}-*-seed5.png")
        np.testing.assert_array_equal(np.asarray(Image.open(path)), gan.generate([caption], [5])[-1][0])
    grid = np.asarray(Image.open(out / "grid.png"))
    assert grid.shape[0] > 4 * 128 and grid.shape[1] > 2 * 128


def test_single_files_can_be_left_out(draw):
    _, out = draw(caption=("a red flower",), seeds="0", single_files=False)
    assert [path.name for path in out.iterdir()] == ["grid.png"]


def size_of(path):
    return Image.open(path).size


def test_the_seeds_of_a_grid_are_the_same_noise_in_every_row(draw, gan):
    """Down a column the words alone vary: without them the rows would be equal."""
    _, out = draw(caption=("a red flower", "a blue one"), seeds="0-1", single_files=False)
    grid = np.asarray(Image.open(out / "grid.png"))
    noise = gan.noise([0, 1])
    conditions = gan.embed(["a red flower", "a blue one"])
    rows = [gan.render(np.repeat(c[None], 2, axis=0), noise)[-1] for c in conditions]
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            x, y = grid.shape[1] - 132 * (2 - column), grid.shape[0] - 132 * (2 - row)
            np.testing.assert_array_equal(grid[y : y + 128, x : x + 128], image.repeat(2, 0).repeat(2, 1))


def test_a_run_of_one_scale_has_one_column(draw, gan):
    captions = ("a red flower", "a blue one")
    lines, out = draw(caption=captions, seeds="2,4", mode="scales")
    assert lines[0] == f"scales of 64 pixels: {out / 'scales.png'}"
    assert lines[1] == f"4 single pictures in {out}"
    grid = np.asarray(Image.open(out / "scales.png"))
    images = gan.generate(["a red flower"] * 2 + ["a blue one"] * 2, [2, 4, 2, 4])[-1]
    for row, image in enumerate(images):
        y = grid.shape[0] - 132 * (4 - row)
        np.testing.assert_array_equal(grid[y : y + 128, -132:-4], image.repeat(2, 0).repeat(2, 1))
    for row, name in enumerate(["001-a-red-flower-seed2", "001-a-red-flower-seed4", "002-a-blue-one-seed2"]):
        np.testing.assert_array_equal(np.asarray(Image.open(out / f"{name}-64.png")), images[row])


@pytest.mark.parametrize("mode, rows", [("grid", 2), ("scales", 2), ("nearest", 2)])
def test_default_seeds_keep_a_picture_small_enough_to_look_at(draw, mode, rows):
    lines, out = draw(caption=("a red flower", "a blue one"), mode=mode, neighbors=2, single_files=False)
    width, height = size_of(out / f"{mode}.png")
    assert rows * 128 < height < (rows + 1) * 128
    assert ("8 seeds" in lines[0]) == (mode == "grid")
    assert (width > 8 * 128) == (mode == "grid")


@pytest.mark.parametrize("neighbors", [1, 7])
def test_samples_stand_beside_their_nearest_training_pictures(draw, gan, blossoms, neighbors):
    from t2i_tf.data import records
    from t2i_tf.evaluation.neighbors import nearest

    captions = ("a red flower", "a blue one")
    lines, out = draw(caption=captions, seeds="0,3", mode="nearest", neighbors=neighbors)
    assert [path.name for path in out.iterdir()] == ["nearest.png"]
    samples = gan.generate([c for c in captions for _ in range(2)], [0, 3] * 2)[-1]
    found = nearest(gan, records.Dataset.open(blossoms), samples, neighbors, lambda done, total: None)
    grid = np.asarray(Image.open(out / "nearest.png"))
    row_height = (grid.shape[0] - 32) // 4
    for row in range(4):
        for column, image in enumerate([samples[row], *found.pictures[row]]):
            x, y = grid.shape[1] - 132 * (neighbors + 1 - column), 32 + row * row_height
            np.testing.assert_array_equal(grid[y : y + 128, x : x + 128], image.repeat(2, 0).repeat(2, 1))
    assert lines[0] == f"samples and the nearest of 60 training pictures: {out / 'nearest.png'}"
    pairs = ", ".join(f"{d:#.4g} {n}" for d, n in zip(found.distances[1], found.names[1], strict=True))
    assert lines[2] == f"  seed 3: a red flower: {pairs}"
    mean = found.distances[:, 0].mean()
    assert lines[5].startswith(
        f"mean distance to the nearest training picture: samples {mean:#.4g}, 6 unseen test pictures "
        f"{found.held_out.mean():#.4g}"
    )


def test_another_data_set_can_be_named(draw, tmp_path):
    from t2i_tf.config import PrepareConfig
    from t2i_tf.data import records
    from t2i_tf.data.prepare import prepare

    options = PrepareConfig(source="blossoms", data_dir=str(tmp_path / "more"), num_images=30, seed=5, workers=1)
    other = prepare(options, progress=lambda done, total: None)
    lines, _ = draw(mode="nearest", data_dir=str(other), neighbors=1)
    found = records.Dataset.open(other)
    assert f"nearest of {found.split('train').num_images} training pictures" in lines[0]
    captions = [captions[0] for captions in found.split("test").captions()]
    assert [line.partition(": ")[2].partition(":")[0] for line in lines[1 : len(captions) + 1]] == captions
    with pytest.raises(UserError, match="no such data set folder"):
        draw(mode="nearest", data_dir=str(tmp_path / "nowhere"))


def test_imported_generators_have_no_discriminator_to_compare_with(draw, gan, monkeypatch):
    unknown = dataclasses.replace(gan.config, training=dataclasses.replace(gan.config.training, data_dir=""))
    monkeypatch.setattr(gan, "config", unknown)
    with pytest.raises(UserError, match="--mode=nearest: --run_dir=runs/1 was imported: give --data_dir"):
        draw(mode="nearest")
    untrained = dataclasses.replace(unknown, untrained=("discriminator",))
    monkeypatch.setattr(gan, "config", untrained)
    for given in ({}, {"caption": ("a red flower",)}, {"data_dir": "data"}):
        with pytest.raises(UserError, match="--mode=nearest: --run_dir=runs/1: its discriminator was in no file"):
            draw(mode="nearest", **given)
    with pytest.raises(UserError, match="was imported and knows no data set: give --caption or --data_dir"):
        draw()


@pytest.mark.parametrize("mode, columns", [("interpolate_text", 3), ("interpolate_noise", 3)])
def test_interpolations_are_one_picture(draw, mode, columns):
    lines, out = draw(caption=("a red flower", "a blue one"), seeds="0-1", mode=mode, interpolation_steps=columns)
    assert [path.name for path in out.iterdir()] == [f"{mode}.png"]
    assert str(out / f"{mode}.png") in lines[0]


def test_no_truncation_makes_noise_interpolation_stand_still(draw):
    _, out = draw(caption=("a red flower",), seeds="0-1", mode="interpolate_noise", truncation=0.0)
    grid = np.asarray(Image.open(out / "interpolate_noise.png"))
    first, last = grid[4:132, -132 * 8 : -132 * 7 - 4], grid[4:132, -132:-4]
    np.testing.assert_array_equal(first, last)


def test_the_next_command_can_be_pasted(draw):
    import shlex

    lines, _ = draw(caption=('the flower\'s "eye" is $red',), seeds="0")
    words = shlex.split(lines[-1].removeprefix("next: "))
    assert words[0] == "t2i-sample" and '--caption=the flower\'s "eye" is $red' in words


@pytest.mark.parametrize(
    "given, message",
    [
        ({"truncation": 1.5}, "--truncation=1.5: give a number from 0 to 1"),
        ({"truncation": -0.1}, "--truncation=-0.1: give a number from 0 to 1"),
        ({"seeds": "x"}, "--seeds=x"),
        ({"mode": "interpolate_text", "caption": ("one",)}, "needs two captions: repeat --caption"),
        ({"mode": "interpolate_noise", "seeds": "4"}, "needs two seeds: e.g. --seeds=0-1"),
        ({"caption": ("",)}, "the caption is empty"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, given, message):
    with pytest.raises(UserError, match=message):
        draw(**{"caption": ("a red flower", "a blue one"), **given})


def test_a_run_of_a_text_encoder_draws_nothing(text_encoder_run):
    asked = SampleConfig(run_dir=str(text_encoder_run.path))
    with pytest.raises(UserError, match="is a run of char_cnn_rnn, which draws no pictures"):
        list(sampling.sample(asked))
