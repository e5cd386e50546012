"""experiments/curves.py: what it reads from TensorBoard events, and that it draws where matplotlib is."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i_tf.errors import UserError

SCRIPT = Path(__file__).parents[1] / "experiments" / "curves.py"


@pytest.fixture(scope="module")
def curves():
    spec = importlib.util.spec_from_file_location("curves", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(run_dir, tag, values):
    """Logs (step, value) pairs as one process of a run does."""
    import tensorflow as tf

    with tf.summary.create_file_writer(str(run_dir / "events")).as_default():
        for step, value in values:
            tf.summary.scalar(tag, value, step=step)
        tf.summary.image("samples", np.zeros([1, 8, 8, 3], np.uint8), step=0)


def test_scalars_are_read_and_pictures_left(curves, tmp_path):
    write(tmp_path, "generator/loss", [(10, 1.5), (20, 0.25), (30, -2.0)])
    scalars = curves.read_scalars(tmp_path)
    assert list(scalars) == ["generator/loss"]
    steps, values = scalars["generator/loss"]
    np.testing.assert_array_equal(steps, [10, 20, 30])
    np.testing.assert_array_equal(values, [1.5, 0.25, -2.0])


def test_steps_that_a_resumed_run_took_again_count_once_and_later(curves, tmp_path):
    write(tmp_path, "loss", [(1, 1.0), (2, 2.0), (3, 3.0)])
    write(tmp_path, "loss", [(2, 20.0), (3, 30.0), (4, 40.0)])
    steps, values = curves.read_scalars(tmp_path)["loss"]
    np.testing.assert_array_equal(steps, [1, 2, 3, 4])
    np.testing.assert_array_equal(values, [1.0, 20.0, 30.0, 40.0])


def test_long_runs_are_read_whole(curves, tmp_path):
    """The accumulator keeps a sample of them unless told otherwise."""
    write(tmp_path, "loss", [(step, float(step)) for step in range(1500)])
    np.testing.assert_array_equal(curves.read_scalars(tmp_path)["loss"][1], np.arange(1500.0))


def test_a_trained_run_has_its_losses(curves, gan_run):
    steps, values = curves.read_scalars(gan_run.path)["diversity/same_caption"]
    assert steps.tolist() == [gan_run.outcome.step] and values[0] > 0


def test_running_mean_by_hand(curves):
    values = np.array([1.0, 2.0, 6.0, 3.0])
    np.testing.assert_allclose(curves.running_mean(values, 3), [1.5, 3.0, 11 / 3, 4.5])
    for window in (0, 1):
        np.testing.assert_allclose(curves.running_mean(values, window), values)
    np.testing.assert_allclose(curves.running_mean(values, 99), [3.0] * 4)
    assert curves.running_mean(np.zeros(0), 5).shape == (0,)


def test_patterns_choose_tags_in_their_order(curves):
    runs = {"a": {"g/loss": None, "d/loss": None}, "b": {"g/kl": None}}
    assert curves.chosen_tags(runs, ["g/kl", "*/loss", "g/*"]) == ["g/kl", "d/loss", "g/loss"]
    with pytest.raises(UserError, match="--tags=h/loss: no run has it; there are d/loss, g/kl, g/loss"):
        curves.chosen_tags(runs, ["g/kl", "h/loss"])


def test_a_folder_without_events_is_named(curves, tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}/runs has no events: give a run folder"):
        curves.main([f"{tmp_path}/runs"])


@pytest.mark.parametrize("tags, size", [("a", (320, 250)), ("*", (960, 470))])
def test_the_picture(curves, tmp_path, tags, size):
    pytest.importorskip("matplotlib")
    for name, names, level in (("one", "abcd", 0), ("two", "ab", 5)):
        for tag in names:
            write(tmp_path / name, tag, [(step, float(level + step % 7)) for step in range(40)])
    said = curves.main([f"{tmp_path}/one,{tmp_path}/two/", f"--tags={tags}", f"--out={tmp_path}/new/c.png"])
    assert said.endswith(f" of one, two: {tmp_path}/new/c.png")
    picture = Image.open(tmp_path / "new" / "c.png").convert("RGB")
    assert picture.size == size
    colours = {colour for _, colour in picture.getcolors(2**20)}
    assert {(31, 119, 180), (255, 127, 14)} <= colours, "a line for each run"
