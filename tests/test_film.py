import numpy as np
import pytest
from PIL import Image, ImageSequence

from t2i_tf import film, sampling
from t2i_tf.config import SampleConfig
from t2i_tf.errors import UserError

CAPTIONS = ["a red flower", "a white blossom under a pale sky", "violet petals"]


def frames_of(path):
    """Pictures, how long each is shown, and how often the film is: 0 is for ever."""
    with Image.open(path) as picture:
        frames = [(np.asarray(f.convert("RGB")), f.info["duration"]) for f in ImageSequence.Iterator(picture)]
        shown, durations = zip(*frames, strict=True)
        return np.stack(shown), set(durations), picture.info["loop"]


def test_a_film_passes_the_pictures_of_its_captions_and_ends_before_the_first(gan):
    frames = film.through_captions(gan, CAPTIONS, 5, 3)
    assert frames.shape == (9, 64, 64, 3)
    for number, image in enumerate(gan.generate(CAPTIONS, [5] * 3)[-1]):
        np.testing.assert_array_equal(frames[3 * number], image)
    back = gan.interpolate_text(CAPTIONS[2], CAPTIONS[0], 4, [5])[0]
    np.testing.assert_array_equal(frames[6:], back[:-1])


def test_a_film_of_one_caption_passes_its_seeds(gan):
    frames = film.through_seeds(gan, CAPTIONS[0], [5, 7, 9], 2)
    assert frames.shape == (6, 64, 64, 3)
    own = gan.generate([CAPTIONS[0]] * 3, [5, 7, 9])[-1]
    assert np.abs(frames[::2].astype(int) - own).max() <= 1  # sin(a) / sin(a) is 1 but for rounding


@pytest.mark.parametrize("kind, tolerance", [("webp", 12), ("gif", 45)])
def test_files_hold_the_pictures_and_play_for_ever(tmp_path, kind, tolerance):
    across = np.linspace(0, 255, 64)
    ramps = [
        np.stack(
            [across + 0 * across[:, None], across[:, None] + 0 * across, 0 * across + i * 40 + 0 * across[:, None]], -1
        )
        for i in range(4)
    ]
    made = np.stack(ramps).astype(np.uint8)
    shown, durations, loop = frames_of(film.save(made, tmp_path / f"film.{kind}"))
    assert (shown.shape, durations, loop) == ((4, 256, 256, 3), {50}, 0)
    assert np.abs(shown[:, ::4, ::4].astype(int) - made).mean() < tolerance / 3
    assert [path.name for path in tmp_path.iterdir()] == [f"film.{kind}"]


@pytest.fixture
def shoot(gan, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "load", lambda *_, **parts: gan)

    def call(**given):
        options = SampleConfig(run_dir="runs/1", out=str(tmp_path / "out"), film=True, film_steps=2, **given)
        return list(sampling.sample(options)), tmp_path / "out"

    return call


def test_each_seed_has_a_film_of_all_captions(shoot):
    lines, out = shoot(caption=tuple(CAPTIONS), seeds="3,4")
    assert [path.name for path in sorted(out.iterdir())] == ["film-seed3.webp", "film-seed4.webp"]
    assert lines[0] == f"film of 6 pictures through 3 captions, seed 3: {out / 'film-seed3.webp'}"
    one, other = (frames_of(path)[0] for path in sorted(out.iterdir()))
    assert len(one) == 6 and np.abs(one.astype(int) - other).mean() > 1


def test_one_caption_gives_a_film_of_seeds(shoot):
    lines, out = shoot(caption=("a red flower",), film_format="gif")
    assert lines == [f"film of 8 pictures through 4 seeds: {out / 'film-seeds.gif'}"]
    with pytest.raises(UserError, match="--film needs two captions"):
        shoot(caption=("a red flower",), seeds="1")
