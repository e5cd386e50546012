"""The drawn truth of petals against the stored pictures themselves."""

import numpy as np
import pytest

from t2i_tf.config import PrepareConfig
from t2i_tf.data import pipeline, records
from t2i_tf.data.prepare import prepare
from t2i_tf.data.sources.blossoms_masks import petal_masks
from t2i_tf.errors import UserError
from t2i_tf.evaluation import fidelity


def overlap(masks, others):
    return (masks & others).sum(axis=(1, 2)) / (masks | others).sum(axis=(1, 2))


@pytest.fixture(scope="module")
def larger(tmp_path_factory):
    """Of another seed and stored larger than it is looked at."""
    folder = tmp_path_factory.mktemp("data") / "larger"
    options = PrepareConfig(
        source="blossoms", data_dir=str(folder), num_images=44, image_size=96, seed=5, quality=100, workers=1
    )
    return records.Dataset.open(prepare(options, progress=lambda done, total: None))


@pytest.mark.parametrize("size, augmentation", [(96, True), (64, True), (64, False), (33, True)])
@pytest.mark.parametrize("name", ["train", "test"])
def test_masks_are_where_the_pictures_have_the_petals_colours(larger, name, size, augmentation):
    split = larger.split(name)
    numbers = np.arange(split.num_images)[::-1]
    masks = petal_masks(split, numbers, size, augmentation)
    assert masks.shape == (split.num_images, size, size) and masks.dtype == bool
    stream = pipeline.views(split, size, len(numbers), chosen=numbers, augmentation=augmentation)
    (pictures,) = stream.as_numpy_iterator()
    seen = fidelity.petal_masks(pictures)
    agreement = overlap(masks, seen)
    assert agreement.min() > 0.75 and agreement.mean() > (0.9 if size > 33 else 0.85)
    # A pixel to any side, or the petals of another picture, fit worse.
    for axis in (1, 2):
        for step in (-1, 1):
            assert overlap(np.roll(masks, step, axis), seen).mean() < agreement.mean()
    assert overlap(np.roll(masks, 1, 0), seen).mean() < agreement.mean() - 0.1


def test_none_and_one(larger, blossoms):
    assert petal_masks(larger.split("test"), [], 64).shape == (0, 64, 64)
    split = records.Dataset.open(blossoms).split("test")
    all_of_them = petal_masks(split, range(split.num_images), 64)
    np.testing.assert_array_equal(petal_masks(split, [3], 64)[0], all_of_them[3])
    assert 0.05 < all_of_them.mean() < 0.5


def test_other_data_sets_have_no_petals(blossoms):
    split = records.Dataset.open(blossoms).split("test")
    split.dataset.manifest["name"] = "cub"
    with pytest.raises(UserError, match="petals are known of --source=blossoms, not of cub"):
        petal_masks(split, [0], 64)
