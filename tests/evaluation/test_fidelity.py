import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFilter

from t2i_tf.data.sources import blossoms
from t2i_tf.data.sources.blossoms_drawing import BACKGROUNDS, CENTER_COLORS, PETAL_COLORS, draw
from t2i_tf.evaluation import fidelity

PALETTES = {"petal_color": PETAL_COLORS, "center_color": CENTER_COLORS, "background": BACKGROUNDS}


def flowers(count, size, seed=123):
    """Fresh flowers of both splits in equal parts: images [count, size, size, 3] and their examples."""
    examples = [blossoms.example(seed, ("train", "test")[index % 2], index, size) for index in range(count)]
    return np.stack([np.asarray(example.image()) for example in examples]), examples


@pytest.fixture(scope="module")
def renders():
    return flowers(800, 64)


def accuracy(images, examples):
    seen = fidelity.read_attributes(images)
    assert set(seen) == set(PALETTES)
    return {
        attribute: np.mean(values == np.array([example.attributes[attribute] for example in examples]))
        for attribute, values in seen.items()
    }


def full_captions(examples):
    """One caption an image that names all three colours."""
    rng = np.random.default_rng(0)
    template = "a {petal_color} {noun} with a {center_color} {eye} {background}"
    return [blossoms.fill(template, example.image.flower, rng) for example in examples]


def test_reads_at_least_99_of_100_renders(renders):
    assert min(accuracy(*renders).values()) >= 0.99


@pytest.mark.parametrize(("size", "count"), [(32, 300), (76, 100), (101, 100), (128, 200), (256, 100)])
def test_reads_other_sizes(size, count):
    assert min(accuracy(*flowers(count, size)).values()) >= 0.99


def test_reads_what_a_small_generator_or_a_crop_makes_of_a_flower(renders):
    images, examples = renders
    rng = np.random.default_rng(0)
    noisy = np.clip(images + rng.normal(0, 20, images.shape), 0, 255).astype(np.uint8)
    blurred = [np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1.5))) for image in images]
    corners = rng.integers(0, 11, (len(images), 2))
    cropped = np.stack([image[y : y + 54, x : x + 54] for image, (y, x) in zip(images, corners, strict=True)])
    for changed in (noisy, np.stack(blurred), cropped, images[:, :, ::-1]):
        assert min(accuracy(changed, examples).values()) >= 0.98


def test_fidelity_of_true_and_of_shuffled_captions(renders):
    images, examples = renders
    captions = full_captions(examples)
    true = fidelity.caption_fidelity(images, captions)
    assert true["images"] == 800
    shuffled = fidelity.caption_fidelity(images, list(np.random.default_rng(1).permutation(captions)))
    for attribute, palette in PALETTES.items():
        assert true[attribute] >= 0.99 and true[f"{attribute}_count"] == 800
        values = [example.attributes[attribute] for example in examples]
        shares = np.array([values.count(value) / 800 for value in palette])
        chance = np.sum(shares**2)  # two independent draws agree
        assert abs(chance - 1 / len(palette)) < 0.03
        assert abs(shuffled[attribute] - chance) < 4 * math.sqrt(chance * (1 - chance) / 800)


def test_only_what_a_caption_names_is_counted(renders):
    images, examples = renders
    flower = examples[0].image.flower
    wrong = next(color for color in PETAL_COLORS if color != flower.petal_color)
    captions = [f"a {flower.petal_color} flower", f"a {wrong} flower", f"its center is {flower.center_color}", "?"]
    scores = fidelity.caption_fidelity(images[[0, 0, 0, 0]], captions)
    assert scores == {
        "images": 4,
        "petal_color": 0.5,
        "petal_color_count": 2,
        "center_color": 1.0,
        "center_color_count": 1,
        "background": None,
        "background_count": 0,
    }


def degenerate_generators(images, examples):
    """What a generator could make without drawing the flower it was asked for."""
    rng = np.random.default_rng(0)
    flowers_asked = [example.image.flower for example in examples]
    petal = np.array([PETAL_COLORS[flower.petal_color] for flower in flowers_asked], np.uint8)[:, None, None]
    ground = np.array([BACKGROUNDS[flower.background] for flower in flowers_asked], np.uint8)[:, None, None]
    x, y = np.meshgrid(np.arange(64), np.arange(64))
    return {
        "grey": np.full_like(images, 128),
        "black": np.zeros_like(images),
        "noise": rng.integers(0, 256, images.shape, np.uint8),
        "petal colour everywhere": np.broadcast_to(petal, images.shape),
        "background everywhere": np.broadcast_to(ground, images.shape),
        "half and half": np.where((x < 32)[None, ..., None], petal, ground),
        "stripes": np.where((x % 16 < 8)[None, ..., None], petal, ground),
        "checks": np.where(((x // 4 + y // 4) % 2 == 0)[None, ..., None], petal, ground),
        "a patch in a corner": np.where(((x < 24) & (y < 24))[None, ..., None], petal, ground),
        "the mean of all": np.broadcast_to(images.mean(0).astype(np.uint8), images.shape),
        "always the same flower": np.broadcast_to(images[0], images.shape),
    }


@pytest.mark.slow
def test_degenerate_generators_score_no_better_than_chance(renders):
    images, examples = renders
    captions = full_captions(examples)
    for name, made in degenerate_generators(images, examples).items():
        scores = fidelity.caption_fidelity(np.ascontiguousarray(made), captions)
        for attribute, palette in PALETTES.items():
            values = [example.attributes[attribute] for example in examples]
            most_common = max(values.count(value) for value in palette) / len(values)
            assert scores[attribute] <= most_common, (name, attribute)
        if name not in ("the mean of all", "always the same flower"):
            assert all(scores[attribute] == 0 for attribute in PALETTES), name


def test_a_disk_without_a_centre_has_no_centre_colour(renders):
    x, y = np.meshgrid(np.arange(64) - 31.5, np.arange(64) - 31.5)
    image = np.where((np.hypot(x, y) < 20)[..., None], PETAL_COLORS["red"], BACKGROUNDS["sky"]).astype(np.uint8)
    seen = fidelity.read_attributes(image[None])
    assert {name: values.tolist() for name, values in seen.items()} == {
        "petal_color": ["red"],
        "center_color": [""],
        "background": ["sky"],
    }


def test_petal_masks_agree_with_the_truth(renders):
    images, examples = renders
    masks = fidelity.petal_masks(images[:100])
    assert masks.shape == (100, 64, 64) and masks.dtype == bool
    for mask, example in zip(masks, examples, strict=False):
        truth = draw(example.image.flower, 64, example.image.key, return_mask=True)[1] > 0.5
        assert (mask & truth).sum() / (mask | truth).sum() > 0.85
    assert not fidelity.petal_masks(np.full((1, 48, 40, 3), 128, np.uint8)).any()


def test_lab_agrees_with_littlecms():
    colors = np.random.default_rng(0).integers(0, 256, (1, 400, 3), dtype=np.uint8)
    transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    expected = np.asarray(ImageCms.applyTransform(Image.fromarray(colors), transform)).astype(float)
    expected = np.concatenate([expected[..., :1] / 2.55, (expected[..., 1:] + 128) % 256 - 128], axis=-1)
    ours = fidelity._lab(colors) * [2, 1, 1]  # lightness is halved
    white = fidelity._lab((255, 255, 255))
    assert np.allclose(white, [50, 0, 0], atol=0.05)
    # LittleCMS adapts to D50, which moves a and b of strong colours by a few units.
    assert np.abs(ours - expected).max() < 12 and np.abs(ours - expected).mean() < 2.5


def test_batches_of_none_one_and_more_than_a_chunk(renders):
    images, _ = renders
    assert fidelity.read_attributes(images[:0])["petal_color"].shape == (0,)
    assert fidelity.petal_masks(images[:0]).shape == (0, 64, 64)
    assert fidelity.caption_fidelity(images[:0], [])["petal_color"] is None
    whole = fidelity.read_attributes(images)
    one_by_one = [fidelity.read_attributes(image[None]) for image in images[250:262]]
    for attribute in PALETTES:
        assert whole[attribute][250:262].tolist() == [one[attribute][0] for one in one_by_one]


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 64, 64), np.uint8), np.zeros((2, 64, 64, 1), np.uint8), np.zeros((2, 64, 64, 3), np.float32)],
)
def test_wrong_images_are_refused(images):
    with pytest.raises(ValueError, match="uint8"):
        fidelity.caption_fidelity(images, ["a red flower"] * 2)


def test_a_caption_is_needed_for_each_image(renders):
    with pytest.raises(ValueError, match="2 images but 1 captions"):
        fidelity.caption_fidelity(renders[0][:2], ["a red flower"])


def test_the_reader_needs_no_tensorflow():
    code = "import sys, t2i_tf.evaluation.fidelity; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
