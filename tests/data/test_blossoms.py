import pickle
import re
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageCms

from t2i_tf.data.sources import blossoms
from t2i_tf.data.sources.blossoms_drawing import (
    BACKGROUNDS,
    CENTER_COLORS,
    PETAL_COLORS,
    PETAL_COUNTS,
    PETAL_SHAPES,
    PETAL_SIZES,
    draw,
)
from t2i_tf.errors import UserError

ATTRIBUTES = {
    "petal_color": PETAL_COLORS,
    "petal_count": PETAL_COUNTS,
    "petal_shape": PETAL_SHAPES,
    "petal_size": PETAL_SIZES,
    "center_color": CENTER_COLORS,
    "background": BACKGROUNDS,
}


def options(image_size=64, num_images=None, seed=0):
    return SimpleNamespace(image_size=image_size, num_images=num_images, seed=seed)


TO_LAB = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")


@cache
def lab(color):
    """CIE Lab by LittleCMS; Pillow hands out lightness in [0, 255] and signed bytes."""
    pixel = np.asarray(ImageCms.applyTransform(Image.new("RGB", (1, 1), color), TO_LAB))[0, 0]
    return np.array([pixel[0] / 2.55, *pixel[1:].astype(np.int8)])


def apart(one, other):
    return np.linalg.norm(lab(one) - lab(other))


def test_petal_colors_are_far_apart():
    colors = list(PETAL_COLORS.values())
    distances = [apart(a, b) for index, a in enumerate(colors) for b in colors[:index]]
    assert min(distances) > 39


def test_what_meets_in_a_flower_can_be_told_apart():
    for flower in blossoms.classes("train") + blossoms.classes("test"):
        petal, center = PETAL_COLORS[flower.petal_color], CENTER_COLORS[flower.center_color]
        assert min(apart(petal, center), apart(petal, BACKGROUNDS[flower.background])) > 40
        assert center != (84, 46, 22) or flower.background != "soil"


def test_classes_are_disjoint_and_balanced_and_every_value_is_trained_on():
    train, test = blossoms.classes("train"), blossoms.classes("test")
    names = [flower.class_name for flower in train + test]
    assert (len(train), len(test), len(set(names))) == (144, 48, 192)
    for classes, each in ((train, 18), (test, 6)):
        assert all(sum(flower.petal_color == color for flower in classes) == each for color in PETAL_COLORS)
        for attribute in ("petal_shape", "center_color", "background"):
            assert {getattr(flower, attribute) for flower in classes} == set(ATTRIBUTES[attribute])


@pytest.mark.parametrize("template", blossoms.TEMPLATES)
def test_parse_is_the_inverse_of_every_template(template):
    rng = np.random.default_rng(0)
    fields = set(re.findall(r"{(\w+)}", template)) - {"noun", "eye"}
    assert "petal_color" in fields
    heard = set()
    for flower in 3 * (blossoms.classes("train") + blossoms.classes("test")):
        values = {name: list(table)[rng.integers(len(table))] for name, table in ATTRIBUTES.items()}
        values |= {name: getattr(flower, name) for name in ("petal_color", "petal_shape", "center_color", "background")}
        flower = type(flower)(**values)
        caption = blossoms.fill(template, flower, rng)
        assert blossoms.parse_caption(caption) == {name: values[name] for name in fields}, caption
        assert caption == caption.lower() and len(caption) < 160
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  |[{}]", caption), caption
        heard.add(caption)
    assert len(heard) > 50


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("a purple flower", {"petal_color": "violet"}),
        ("A yellow flower with a White Centre", {"petal_color": "yellow", "center_color": "white"}),
        ("white petals with a white center", {"petal_color": "white", "center_color": "white"}),
        ("the center of this white flower is green", {"petal_color": "white", "center_color": "green"}),
        ("its middle is golden and its petals are red", {"petal_color": "red", "center_color": "dark yellow"}),
        ("a red flower with a yellow center", {"petal_color": "red", "center_color": "dark yellow"}),
        ("a red flower with a blue center", {"petal_color": "red"}),
        ("a flower under a clear blue sky", {"background": "sky"}),
        ("blue petals under a pale blue sky", {"petal_color": "blue", "background": "sky"}),
        ("a green center among green leaves", {"center_color": "green", "background": "green"}),
        ("5 small pointy petals", {"petal_count": "five", "petal_size": "small", "petal_shape": "pointed"}),
        ("red and white petals", {}),
        ("a bird with a long beak", {}),
        ("", {}),
        ("une fleur dorée 花", {}),
    ],
)
def test_parse_of_free_captions(caption, named):
    assert blossoms.parse_caption(caption) == named


def test_the_word_of_the_petals_is_found_also_without_signs():
    """As a captioner writes: the words of `text.words`, joined by blanks."""
    for example in (blossoms.example(1, "test", index, 32) for index in range(100)):
        names = blossoms.WORDS["petal_color"][example.attributes["petal_color"]]
        for caption in example.captions:
            plain = re.sub(r"\W+", " ", caption)
            for written in (caption, plain):
                assert written.split()[blossoms.petal_color_word(written)].strip(",") in names, written
            read, wanted = blossoms.parse_caption(plain), blossoms.parse_caption(caption)
            for attribute in ("petal_color", "center_color", "background"):
                assert read.get(attribute) == wanted.get(attribute), caption


@pytest.mark.parametrize(
    ("caption", "word"),
    [
        ("white petals with a white center", 0),
        ("the center of this white flower is white", 4),
        ("its  Centre is dark yellow and its petals red", 8),
        ("a pale blue sky behind blue petals", 5),
        ("red and white petals", None),
        ("a white center", None),
        ("", None),
    ],
)
def test_the_word_of_the_petals_is_not_another_of_that_colour(caption, word):
    assert blossoms.petal_color_word(caption) == word


def test_captions_tell_the_truth_and_most_say_more_than_the_colour():
    examples = [blossoms.example(0, "train", index, 32) for index in range(300)]
    named = []
    for example in examples:
        assert len(set(example.captions)) == 10
        for caption in example.captions:
            attributes = blossoms.parse_caption(caption)
            assert attributes.items() <= example.attributes.items()
            named.append(attributes)
    share = {name: np.mean([name in attributes for attributes in named]) for name in ATTRIBUTES}
    assert share["petal_color"] == 1
    assert share["center_color"] > 0.5 and 0.25 < share["background"] < 0.6
    assert np.mean([len(attributes) >= 3 for attributes in named]) > 0.6


def test_read_counts_and_names():
    source = blossoms.read(options())
    assert source.name == "blossoms"
    assert [sum(example.split == split for example in source.examples) for split in ("train", "test")] == [6000, 600]
    assert len({example.name for example in source.examples}) == 6600
    few = blossoms.read(options(num_images=2))
    assert [example.split for example in few.examples] == ["train", "test"]


def test_examples_are_a_function_of_seed_and_index():
    few, many = blossoms.read(options(num_images=22)).examples, blossoms.read(options(num_images=220)).examples
    assert few[:20] == many[:20] and few[20:] == many[200:202]
    assert np.array_equal(few[3].image(), many[3].image())
    other = blossoms.read(options(num_images=22, seed=1)).examples
    assert other[3].class_name == few[3].class_name
    assert other[3].captions != few[3].captions
    assert not np.array_equal(other[3].image(), few[3].image())
    assert few[0].image.key != few[20].image.key  # the same index of another split


@pytest.mark.parametrize(
    ("flag", "wrong"),
    [
        ("image_size", {"image_size": 31}),
        ("image_size", {"image_size": 257}),
        ("num_images", {"num_images": 1}),
        ("num_images", {"num_images": 0}),
        ("seed", {"seed": -1}),
    ],
)
def test_wrong_options_are_named(flag, wrong):
    with pytest.raises(UserError, match=f"--{flag}={next(iter(wrong.values()))}"):
        blossoms.read(options(**wrong))


@pytest.mark.parametrize("size", [32, 33, 64, 129, 256])
def test_pictures_have_the_size_and_survive_pickling(size):
    drawing = blossoms.example(0, "test", 5, size).image
    picture = drawing()
    assert picture.mode == "RGB" and picture.size == (size, size)
    assert np.array_equal(picture, pickle.loads(pickle.dumps(drawing))())


def test_it_is_the_same_flower_at_every_size():
    for index in range(12):
        flower, key = blossoms.example(0, "train", index, 64).image.flower, (0, 0, index)
        small, small_mask = draw(flower, 64, key, return_mask=True)
        large, large_mask = draw(flower, 256, key, return_mask=True)
        difference = np.asarray(large.reduce(4), float) - np.asarray(small, float)
        assert np.abs(difference).mean() < 4
        assert np.abs(large_mask.reshape(64, 4, 64, 4).mean((1, 3)) - small_mask).mean() < 0.01


def test_the_mask_is_where_the_petals_are():
    for index in range(24):
        example = blossoms.example(2, "train", index, 64)
        picture, mask = draw(example.image.flower, 64, example.image.key, return_mask=True)
        assert np.array_equal(picture, example.image())
        assert mask.shape == (64, 64) and mask.min() == 0 and mask.max() == 1
        assert 0.05 < mask.mean() < 0.5
        assert mask[28:36, 28:36].mean() < 0.6 and mask[:8, :8].max() == 0  # the centre disk and a corner
        pixels = np.asarray(picture)[mask == 1]
        assert apart(tuple(np.median(pixels, 0).astype(int)), PETAL_COLORS[example.image.flower.petal_color]) < 15


def test_attributes_and_class_name_belong_together():
    example = blossoms.example(0, "test", 9, 64)
    assert example.attributes == asdict(example.image.flower)
    expected = "{petal_color}-{petal_shape}-{center_color}-on-{background}".format(**example.attributes)
    assert example.class_name == expected.replace(" ", "_")


def test_workers_need_no_tensorflow():
    code = "import sys, t2i_tf.data.sources.blossoms; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
