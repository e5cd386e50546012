"""Pictures of attention: what is drawn is where the weights are."""

import numpy as np
import pytest
from PIL import Image

from t2i_tf import attention_pictures, inference, pictures, sampling
from t2i_tf.config import SampleConfig
from t2i_tf.errors import UserError


def test_smoothing_keeps_places_and_the_whole():
    weights = np.zeros((4, 4))
    weights[1, 3] = 1.0
    smooth = pictures.smooth(weights, 32)
    assert smooth.shape == (32, 32) and smooth.min() >= 0 and smooth.max() <= 1.0
    row, column = np.unravel_index(smooth.argmax(), smooth.shape)
    assert 8 <= row < 16 and 24 <= column < 32
    np.testing.assert_allclose(pictures.smooth(np.full((3, 5), 0.25), 17), 0.25, err_msg="even weights stay even")
    np.testing.assert_allclose(pictures.smooth(weights[::-1], 32), smooth[::-1])


def test_light_brightens_and_its_absence_darkens():
    picture = np.full((2, 2, 3), 100, np.uint8)
    light = np.array([[0.0, 1.0], [0.5, 0.0]])
    np.testing.assert_array_equal(
        pictures.overlaid(picture, light, opacity=0.5)[..., 0], [[50, 178], [114, 50]], "0.5 * 100 + 0.5 * 255 * light"
    )


def test_words_are_ranked_by_what_exceeds_an_even_share():
    """Of three words, one is looked at everywhere a little, one hard at one place; a fourth column is padding."""
    attention = np.zeros((2, 2, 4))
    attention[..., 0] = 0.3
    attention[0, 0] = [0.05, 0.95, 0.0, 0.0]
    attention[1, 1] = [0.1, 0.0, 0.4, 0.5]
    assert attention_pictures.most_attended(attention, 3, threshold=1 / 3) == [1, 2, 0]
    picture = np.full((8, 8, 3), 100, np.uint8)
    chosen, overlays = attention_pictures.stage_overlays(picture, attention, words=3, top=2)
    assert chosen == [1, 2] and overlays.shape == (2, 8, 8, 3)
    assert overlays[0, :4, :4].mean() > 2 * overlays[0, 4:, 4:].mean()
    assert overlays[1, 4:, 4:].mean() > 2 * overlays[1, :4, :4].mean()


def test_a_word_that_is_nowhere_looked_at_draws_nothing():
    light = attention_pictures.word_map(np.full((4, 4), 0.1), 16, threshold=0.5)
    assert light.shape == (16, 16) and not light.any()


@pytest.fixture(scope="module")
def attngan(attngan_run):
    return inference.load(attngan_run.path)


def test_a_run_attends_to_the_pictures_that_it_generates(attngan):
    captions = ["a red flower", "this big blue flower has a yellow center and round petals"]
    images, attention = attngan.attend(captions, [3, 4])
    for one, other in zip(images, attngan.generate(captions, [3, 4]), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [weights.shape[:3] for weights in attention] == [(2, 16, 16)]
    for row, caption in enumerate(captions):
        count = len(attngan.tokens(caption))
        np.testing.assert_allclose(attention[0][row, ..., :count].sum(-1), 1.0, rtol=1e-5)
        assert not attention[0][row, ..., count:].any()


def _sample(run, tmp_path, **options):
    return list(sampling.sample(SampleConfig(run_dir=str(run.path), out=str(tmp_path), **options)))


def test_the_verb_draws_scales_and_words(attngan_run, tmp_path):
    lines = _sample(attngan_run, tmp_path, caption=("a red flower with a white center",), attention=True)
    assert "attention.png" in lines[0] and lines[-1].startswith("next: t2i-sample")
    with Image.open(tmp_path / "attention.png") as picture:
        width, height = picture.size
    assert width > 5 * 128 and height > 2 * 128, "a row of scales, and one of the five words of the one stage"


def test_the_verb_draws_pairs_of_a_damsm(damsm_run, tmp_path):
    lines = _sample(damsm_run, tmp_path, attention=True)
    assert "attention.png" in lines[0] and (tmp_path / "attention.png").is_file()


def test_training_leaves_pictures_of_attention(damsm_run, attngan_run):
    for run in (damsm_run, attngan_run):
        assert (run.path / "samples" / "attention-0000002.png").is_file()


def test_one_word_is_changed_and_all_else_stays(attngan_run, tmp_path):
    caption = ("A red flower with red petals",)
    lines = _sample(attngan_run, tmp_path, caption=caption, mode="change_word", change=("red=blue", "petals=leaves"))
    assert "change_word.png" in lines[0]
    with Image.open(tmp_path / "change_word.png") as picture:
        assert picture.height > 3 * 128, "the caption itself and both changes"


@pytest.mark.parametrize(
    "caption, change, message",
    [
        ("a red flower", (), "needs --caption and --change=old=new"),
        ("a red flower", ("red",), "--change=red: write old=new"),
        ("a red flower", ("=blue",), "--change==blue: write old=new"),
        ("a reddish flower", ("red=blue",), 'has no word "red"'),
    ],
)
def test_changes_that_say_nothing_are_refused(attngan_run, tmp_path, caption, change, message):
    with pytest.raises(UserError, match=message):
        _sample(attngan_run, tmp_path, caption=(caption,), mode="change_word", change=change)


def test_papers_without_attention_say_so(gan_run, text_encoder_run, tmp_path):
    with pytest.raises(UserError, match="gan_int_cls draws no pictures by attention"):
        _sample(gan_run, tmp_path, caption=("a red flower",), attention=True)
    with pytest.raises(UserError, match="char_cnn_rnn has no attention"):
        _sample(text_encoder_run, tmp_path, attention=True)


def test_a_paper_without_attention_changes_words_too(gan_run, tmp_path):
    lines = _sample(gan_run, tmp_path, caption=("a red flower",), mode="change_word", change=("red=blue",), seeds="0-2")
    assert "change_word.png" in lines[0]
