"""`blossoms`, the data set the package draws itself: flowers of known truth, with captions in Reed's manner.

A class is a combination of petal colour, petal shape, centre colour and background; petal count and size vary
within it. There are 192 classes, 24 of each petal colour. They and their split (144 train, 48 test, disjoint)
are part of the data set and depend on no seed; every attribute value occurs in training. Example i of a split is
a function of (seed, split, i), its picture also of the image size; a picture is drawn when it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product, zip_longest
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from t2i_tf.data.sources import Example, Source
from t2i_tf.data.sources.blossoms_drawing import (
    BACKGROUNDS,
    CENTER_COLORS,
    PETAL_COLORS,
    PETAL_COUNTS,
    PETAL_SHAPES,
    PETAL_SIZES,
    Flower,
    draw,
)
from t2i_tf.errors import UserError

SPLITS = ("train", "test")
DEFAULT_NUM_IMAGES = 6600
CAPTIONS_PER_IMAGE = 10
_CLASSES, _TRAIN_CLASSES = 24, 18  # of each petal colour: in all, and to train on
_TEST_SHARE = 11  # one image in eleven is a test image

# What cannot be told apart at a glance is not grown.
_PETAL_AND_CENTER = {("white", "white"), ("yellow", "dark yellow"), ("orange", "dark yellow")}
_PETAL_AND_BACKGROUND = {("white", "sky")}
_CENTER_AND_BACKGROUND = {("brown", "soil")}


@dataclass(frozen=True)
class Drawing:
    """A picture not yet drawn: call it for the image. Picklable, for the workers of prepare."""

    flower: Flower
    size: int
    key: tuple[int, ...]

    def __call__(self) -> Image.Image:
        return draw(self.flower, self.size, self.key)


def read(options: Any) -> Source:
    """Return `options.num_images` flowers (None: 6000 train and 600 test) of `options.image_size` pixels.

    Raises UserError for a size outside 32 to 256, fewer than two images, or a negative seed.
    """
    if not 32 <= options.image_size <= 256:
        raise UserError(f"--image_size={options.image_size}: blossoms is drawn at 32 to 256 pixels; name one of these")
    num_images = DEFAULT_NUM_IMAGES if options.num_images is None else options.num_images
    if num_images < 2:
        raise UserError(f"--num_images={num_images}: blossoms needs 2 or more, one of them to test with")
    if options.seed < 0:
        raise UserError(f"--seed={options.seed}: blossoms is drawn from a seed of 0 or more")
    test = max(1, round(num_images / _TEST_SHARE))
    examples = [
        example(options.seed, split, index, options.image_size)
        for split, count in zip(SPLITS, (num_images - test, test), strict=True)
        for index in range(count)
    ]
    info = {"seed": options.seed, "num_classes": {split: len(classes(split)) for split in SPLITS}}
    return Source(name="blossoms", examples=examples, notes=[], info=info)


def example(seed: int, split: str, index: int, image_size: int) -> Example:
    """Return flower `index` of a split; consecutive ones go round the classes, and petal colours."""
    key = (seed, SPLITS.index(split), index)
    rng = np.random.default_rng((*key, 1))  # one stream for the words, another (`key`) for the picture
    kinds = classes(split)
    count, size = (tuple(table)[rng.integers(len(table))] for table in (PETAL_COUNTS, PETAL_SIZES))
    flower = replace(kinds[index % len(kinds)], petal_count=count, petal_size=size)
    return Example(
        split=split,
        name=f"{flower.class_name}/{split}_{index:05d}",
        captions=describe(flower, rng),
        class_name=flower.class_name,
        image=Drawing(flower, image_size, key),
        box=None,
        attributes=asdict(flower),
    )


@cache
def classes(split: str) -> tuple[Flower, ...]:
    """Return one flower of each class of a split, petal colours in turn; its count and size stand for any."""
    first, last = {"train": (0, _TRAIN_CLASSES), "test": (_TRAIN_CLASSES, _CLASSES)}[split]
    return tuple(_in_turn([_classes_of(color)[first:last] for color in PETAL_COLORS]))


def _classes_of(color: str) -> list[Flower]:
    """The classes of a petal colour, shuffled, but with backgrounds in turn so that each split has its share."""
    kinds = [
        Flower(color, "five", shape, "large", center, background)
        for shape, center, background in product(PETAL_SHAPES, CENTER_COLORS, BACKGROUNDS)
        if (color, center) not in _PETAL_AND_CENTER
        and (color, background) not in _PETAL_AND_BACKGROUND
        and (center, background) not in _CENTER_AND_BACKGROUND
    ]
    fixed = Random(color)
    fixed.shuffle(kinds)
    grounds = fixed.sample(list(BACKGROUNDS), len(BACKGROUNDS))
    return _in_turn([[kind for kind in kinds if kind.background == ground] for ground in grounds])


def _in_turn(groups: Sequence[Sequence[Flower]]) -> list[Flower]:
    return [flower for turn in zip_longest(*groups) for flower in turn if flower]


def describe(flower: Flower, rng: np.random.Generator) -> tuple[str, ...]:
    """Return ten different captions; each names the petal colour, most two or three attributes more."""
    chosen = rng.permutation(len(TEMPLATES))[:CAPTIONS_PER_IMAGE]
    return tuple(fill(TEMPLATES[index], flower, rng) for index in chosen)


def fill(template: str, flower: Flower, rng: np.random.Generator) -> str:
    """Put a flower's attributes into one of TEMPLATES, in words that `rng` picks among the synonyms."""
    values = {**asdict(flower), "noun": "noun", "eye": "eye"}
    picks = rng.random(len(values))
    words = {}
    for (attribute, value), pick in zip(values.items(), picks, strict=True):
        synonyms = WORDS[attribute][value]
        words[attribute] = synonyms[int(pick * len(synonyms))]
    return re.sub(r"\ba (?=[aeiou])", "an ", template.format(**words))


def parse_caption(caption: str) -> dict[str, str]:
    """Return the attributes of Flower that a caption names; what it leaves out or leaves open is absent.

    The words before "center" or "sky" belong to them; a colour that is left is the petals'. Two different
    colours left name none, and so does a colour that no petal, or no centre, of this data set has.
    """
    return _read(caption)[0]


def petal_color_word(caption: str) -> int | None:
    """Return the number of the word, of those between blanks, that names the petal colour; None where none does."""
    named, text = _read(caption)
    if "petal_color" not in named:
        return None
    return text[: _any_of(WORDS["petal_color"][named["petal_color"]]).search(text).start()].count(" ")


def _read(caption: str) -> tuple[dict[str, str], str]:
    """-> the attributes, and the caption with the words of centre and background made illegible."""
    text = " ".join(caption.lower().replace("centre", "center").split())
    named = {}
    for pattern in (_COLOR_THEN_EYE, _EYE_THEN_COLOR):
        if match := pattern.search(text):
            if color := _CENTER_VALUES.get(match["color"]):
                named["center_color"] = color
            text = _illegible(text, *match.span("color"))
            break
    if match := _PLACE.search(text):
        named["background"] = _PLACE_VALUES[match["place"]]
        text = _illegible(text, *match.span())
    for attribute in ("petal_color", "petal_count", "petal_shape", "petal_size"):
        values = {value for value, words in WORDS[attribute].items() if _any_of(words).search(text)}
        if len(values) == 1:
            named[attribute] = values.pop()
    return named, text


def _illegible(text: str, start: int, end: int) -> str:
    return text[:start] + re.sub(r"\S", "_", text[start:end]) + text[end:]


def is_true_of(named: Mapping[str, str], attributes: Mapping[str, str]) -> bool:
    """Has a flower of these attributes all that a caption names, as `parse_caption` reads it?"""
    return all(attributes[attribute] == value for attribute, value in named.items())


def _one_of(words: Iterable[str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


@cache
def _any_of(words: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{_one_of(words)})\b")


def _each(values: Iterable[str], **synonyms: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {value: synonyms.get(re.sub(r"\W", "_", value), (value,)) for value in values}


WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "petal_color": _each(PETAL_COLORS, violet=("violet", "purple")),
    "petal_count": _each(PETAL_COUNTS, five=("five", "5"), six=("six", "6"), eight=("eight", "8")),
    "petal_shape": {
        "round": ("round", "rounded"),
        "pointed": ("pointed", "pointy"),
        "heart-shaped": ("heart-shaped", "notched"),
    },
    "petal_size": {"small": ("small", "tiny"), "large": ("large", "big")},
    "center_color": _each(CENTER_COLORS, dark_yellow=("dark yellow", "golden")),
    "background": {
        "green": ("among green leaves", "in front of green foliage"),
        "soil": ("on dark soil", "on bare brown earth"),
        "sky": ("under a pale sky", "against a light blue sky"),
        "stone": ("on a grey stone", "in front of a grey rock"),
    },
    "noun": {"noun": ("flower", "flower", "blossom", "bloom")},
    "eye": {"eye": ("center", "center", "middle", "disk")},
}

TEMPLATES: tuple[str, ...] = (
    "this {noun} has {petal_count} {petal_shape} {petal_color} petals and a {center_color} {eye}",
    "this {noun} has {petal_size} {petal_color} petals around a {center_color} {eye}",
    "this {noun} has {petal_color} petals that are {petal_size} and {petal_shape}",
    "this {noun} is {petal_color} in color, with {petal_count} {petal_size} petals",
    "this {petal_color} {noun} has a {center_color} {eye} and {petal_count} petals",
    "the petals of this {noun} are {petal_color} and {petal_shape}, and its {eye} is {center_color}",
    "the {noun} in this picture is {petal_color} with {petal_size} {petal_shape} petals",
    "the {eye} of this {petal_color} {noun} is {center_color} and its petals are {petal_shape}",
    "the {petal_color} petals of this {noun} surround a {eye} that is {center_color}",
    "a {petal_color} {noun} with a {center_color} {eye} {background}",
    "a {petal_color} {noun} with {petal_count} {petal_shape} petals {background}",
    "a {noun} with {petal_shape} {petal_color} petals {background}",
    "a {noun} {background}, its {petal_count} petals are {petal_color} and its {eye} is {center_color}",
    "a single {petal_color} {noun} {background}",
    "a {center_color} {eye} ringed by {petal_count} {petal_color} petals {background}",
    "{petal_count} {petal_color} petals grow around the {center_color} {eye} of this {noun}",
    "{petal_count} {petal_shape} petals, all of them {petal_color}, and a {center_color} {eye}",
    "{petal_size} {petal_color} petals, {petal_count} in number, around a {center_color} {eye}",
    "{background} stands a {petal_color} {noun} with {petal_size} petals and a {center_color} {eye}",
    "{background} we see a {noun} with {petal_count} {petal_color} petals",
)

_CENTER_VALUES = {word: value for value, words in WORDS["center_color"].items() for word in words}
_CENTER_VALUES["yellow"] = "dark yellow"
_COLORS = _one_of({*_CENTER_VALUES, *(word for words in WORDS["petal_color"].values() for word in words)})
_EYES = _one_of(("center", "middle", "disk", "disc", "eye"))
_COLOR_THEN_EYE = re.compile(rf"\b(?P<color>{_COLORS}) (?:{_EYES})\b")
_EYE_THEN_COLOR = re.compile(
    rf"\b(?:{_EYES})(?: of (?:this|the|an?)(?: [a-z]+){{1,3}}?)?"
    rf" (?:(?:that|which) )?is (?P<color>{_COLORS})\b"
)
_PLACE_VALUES = {
    **dict.fromkeys(("leaves", "foliage", "grass"), "green"),
    **dict.fromkeys(("soil", "earth", "ground"), "soil"),
    "sky": "sky",
    **dict.fromkeys(("stone", "rock"), "stone"),
}
_PLACE = re.compile(
    rf"\b(?:(?:green|dark|bare|brown|pale|light|clear|blue|grey|gray) )*(?P<place>{_one_of(_PLACE_VALUES)})\b"
)
