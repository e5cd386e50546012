"""Figures of attention against a second library, and their layout."""

import numpy as np
import pytest

from t2i_tf import caption_pictures


@pytest.mark.parametrize(
    "shape, size", [((14, 14), (224, 224)), ((8, 8), (64, 64)), ((3, 5), (33, 41)), ((1, 1), (9, 9))]
)
@pytest.mark.parametrize("smoothness", [20 / 16, 0.0])
def test_maps_are_enlarged_as_scipy_does(shape, size, smoothness):
    """order=1 with grid_mode is bilinear between the middles of places; the published filter is Gaussian."""
    ndimage = pytest.importorskip("scipy.ndimage")
    weights = np.random.default_rng(0).random(shape)
    zoom = [b / a for a, b in zip(shape, size, strict=True)]
    wanted = ndimage.zoom(weights, zoom, order=1, mode="nearest", grid_mode=True)
    if smoothness:
        wanted = ndimage.gaussian_filter(wanted, [smoothness * factor for factor in zoom], mode="reflect")
    found = caption_pictures.enlarged_map(weights, *size, smoothness)
    assert found.shape == size
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_allclose(caption_pictures.enlarged_map(np.ones(shape), *size, smoothness), 1.0, rtol=1e-12)


def test_the_place_looked_at_is_the_brightest():
    picture = np.full([64, 48, 3], 100, np.uint8)
    weights = np.zeros([8, 6])
    weights[2, 4] = 1.0
    found = caption_pictures.overlaid(picture, weights)
    assert found.dtype == np.uint8 and found.shape == picture.shape
    top, left = np.unravel_index(found[:, :, 0].argmax(), found.shape[:2])
    assert 16 <= top < 24 and 32 <= left < 40
    assert found.max() == round(0.2 * 100 + 0.8 * 255) and found.min() == 20
    np.testing.assert_array_equal(caption_pictures.overlaid(picture, 7 * weights + 3), found)  # its own range counts
    assert (caption_pictures.overlaid(picture, np.ones([8, 6])) == 20).all()


@pytest.mark.parametrize("words, rows, columns", [(0, 1, 1), (1, 1, 2), (2, 2, 2), (6, 3, 3), (11, 3, 4), (12, 4, 4)])
def test_a_panel_a_word_and_the_picture_first(words, rows, columns):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (64, 64, 3), np.uint8)
    texts = ["violet", "UNK", "a" * 80][:words] + ["is"] * (words - 3)
    attention, selectors = rng.random((words, 8, 8)), rng.random(words)
    for numbers in (selectors, None):
        figure = caption_pictures.attention_figure(picture, texts, attention, numbers)
        assert figure.dtype == np.uint8 and figure.shape == (4 + rows * 220, 4 + columns * 196, 3)
        np.testing.assert_array_equal(figure[4 + 24 : 4 + 24 + 192 : 3, 4 : 4 + 192 : 3], picture)
        if words:
            enlarged = picture.repeat(3, 0).repeat(3, 1)
            x = 4 + 196 if columns > 1 else 4
            panel = figure[28 : 28 + 192, x : x + 192]
            np.testing.assert_array_equal(panel, caption_pictures.overlaid(enlarged, attention[0]))
            assert (figure[4:28, x : x + 192] < 128).any(), "a word over it"


def test_large_pictures_stay_as_they_are():
    picture = np.random.default_rng(0).integers(0, 256, (200, 224, 3), np.uint8)
    figure = caption_pictures.attention_figure(picture, ["word"], np.ones([1, 14, 14]))
    np.testing.assert_array_equal(figure[28:228, 4:228], picture)
