from itertools import pairwise

import numpy as np
import pytest

from t2i_tf.data.sampling import MAX_CAPTIONS, Sampler
from t2i_tf.errors import UserError

CLASSES = np.repeat(np.arange(7), [30, 5, 1, 12, 8, 20, 3])
CAPTIONS = np.tile([3, 10, 5], len(CLASSES))[: len(CLASSES)]


def sampler(sampling="class", batch_size=8, classes=CLASSES, captions_of=CAPTIONS, **settings):
    return Sampler(classes, captions_of, sampling, batch_size, **settings)


def same(one, other):
    for name in ("images", "captions", "augmentation", "wrong_augmentation"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.wrong_images is None) == (other.wrong_images is None)
    if one.wrong_images is not None:
        np.testing.assert_array_equal(one.wrong_images, other.wrong_images)


KINDS = pytest.mark.parametrize("sampling", ["class", "uniform", "shuffled", "distinct_classes"])
BY_PLACE = pytest.mark.parametrize("sampling", ["class", "uniform", "shuffled"])


@KINDS
def test_a_plan_depends_on_the_step_and_not_on_what_came_before(sampling):
    settings = {"wrong_images": sampling != "distinct_classes", "captions": 3, "seed": 5}
    straight = sampler(sampling, **settings)
    plans = [straight.plan(step) for step in range(40)]
    for step in (39, 0, 17, 17, 3, 38):
        same(plans[step], straight.plan(step))
        same(plans[step], sampler(sampling, **settings).plan(step))


@BY_PLACE
@pytest.mark.parametrize("with_replacement", [True, False])
def test_a_place_holds_the_same_whatever_the_batch_size(sampling, with_replacement):
    settings = {"wrong_images": True, "captions": 2, "captions_with_replacement": with_replacement}
    whole = sampler(sampling, batch_size=60, **settings).plan(1)  # places 60 to 119: across an epoch of 79
    for size in (1, 4, 12):
        parts = [sampler(sampling, batch_size=size, **settings).plan(step) for step in range(60 // size, 120 // size)]
        for name in ("images", "wrong_images", "captions", "augmentation", "wrong_augmentation"):
            np.testing.assert_array_equal(np.concatenate([getattr(p, name) for p in parts]), getattr(whole, name))


def test_far_steps_cost_as_little_as_near_ones():
    plan = sampler("shuffled", batch_size=64).plan(10**9)
    assert plan.images.shape == (64,) and plan.images.min() >= 0 and plan.images.max() < len(CLASSES)


@KINDS
def test_another_seed_is_another_stream(sampling):
    first, second = (sampler(sampling, seed=seed).plan(0) for seed in (0, 1))
    assert not np.array_equal(first.images, second.images)
    assert not np.array_equal(first.augmentation, second.augmentation)


def counts_of(images, classes=CLASSES):
    return np.bincount(classes[images], minlength=classes.max() + 1)


def chi_square(observed):
    expected = observed.sum() / len(observed)
    return ((observed - expected) ** 2 / expected).sum()


def draw(sampling, rows, batch_size=64, **settings):
    one = sampler(sampling, batch_size=batch_size, **settings)
    return [one.plan(step) for step in range(rows // batch_size)]


def test_classes_are_drawn_evenly_and_pictures_evenly_within():
    images = np.concatenate([plan.images for plan in draw("class", 6400)])
    # 99.99 % points of chi-square: 27.9 with 6 degrees of freedom, 66.2 with 29
    assert chi_square(counts_of(images)) < 27.9
    assert chi_square(np.bincount(images[images < 30], minlength=30)) < 66.2


def test_wrong_pictures_are_of_another_class_and_evenly_so():
    plans = draw("class", 6400, wrong_images=True)
    right, wrong = (np.concatenate([getattr(p, name) for p in plans]) for name in ("images", "wrong_images"))
    assert np.all(CLASSES[right] != CLASSES[wrong])
    assert chi_square(counts_of(wrong)) < 27.9
    others = CLASSES[wrong][CLASSES[right] == 0]
    assert chi_square(np.bincount(others, minlength=7)[1:]) < 25.7


def test_wrong_pictures_of_shuffled_sampling_are_drawn_evenly_from_all_of_other_classes():
    plans = draw("shuffled", 12800, wrong_images=True)
    right, wrong = (np.concatenate([getattr(p, name) for p in plans]) for name in ("images", "wrong_images"))
    assert np.all(CLASSES[right] != CLASSES[wrong])
    for c, points in ((0, 93.4), (3, 117.6)):  # 99.99 % points of chi-square with 48 and 66 degrees of freedom
        others = np.bincount(wrong[CLASSES[right] == c], minlength=len(CLASSES))[c != CLASSES]
        assert chi_square(others) < points


def test_a_picture_without_a_class_is_of_its_own():
    some = np.array([0, 0, -1, 1, -1])
    for classes in (some, np.full(5, -1)):
        plans = draw("shuffled", 6400, classes=classes, captions_of=np.full(5, 2), wrong_images=True)
        right, wrong = (np.concatenate([getattr(p, name) for p in plans]) for name in ("images", "wrong_images"))
        pairs = np.histogram2d(right, wrong, bins=(range(6), range(6)))[0]
        never = np.eye(5, dtype=bool) | ((classes[:, None] == classes) & (classes >= 0))
        np.testing.assert_array_equal(pairs == 0, never)


def test_uniform_sampling_draws_pictures_evenly_and_wrong_ones_are_other_pictures():
    plans = draw("uniform", 12800, wrong_images=True)
    right, wrong = (np.concatenate([getattr(p, name) for p in plans]) for name in ("images", "wrong_images"))
    assert np.all(right != wrong)
    for images in (right, wrong):  # 99.99 % point of chi-square with 78 degrees of freedom
        assert chi_square(np.bincount(images, minlength=len(CLASSES))) < 134


@pytest.mark.parametrize("batch_size", [1, 8, 100])
def test_an_epoch_holds_every_picture_once_in_an_order_of_its_own(batch_size):
    count = len(CLASSES)
    plans = draw("shuffled", 4 * count + 2 * batch_size, batch_size=batch_size)
    stream = np.concatenate([plan.images for plan in plans])
    epochs = [stream[start : start + count] for start in range(0, 3 * count, count)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(count))
    for one, other in pairwise(epochs):
        assert not np.array_equal(one, other)


@pytest.mark.parametrize("batch_size", [1, 3, 7])
def test_no_class_twice_in_a_batch_of_distinct_classes(batch_size):
    plans = draw("distinct_classes", 70 * batch_size, batch_size=batch_size)
    for plan in plans:
        assert len(set(CLASSES[plan.images])) == batch_size
    assert chi_square(counts_of(np.concatenate([plan.images for plan in plans]))) < 27.9


def test_more_rows_than_classes_take_every_class_equally_often():
    counts = [counts_of(plan.images) for plan in draw("distinct_classes", 17 * 20, batch_size=17)]
    assert all(count.min() == 2 and count.max() == 3 for count in counts)


def test_captions_are_within_those_of_the_picture_and_evenly_drawn():
    plans = draw("class", 6400, captions=4)
    images, captions = (np.concatenate([getattr(p, name) for p in plans]) for name in ("images", "captions"))
    assert captions.shape == (6400, 4)
    assert np.all(captions >= 0) and np.all(captions < CAPTIONS[images][:, None])
    of_ten = captions[CAPTIONS[images] == 10].ravel()
    assert chi_square(np.bincount(of_ten, minlength=10)) < 33.7
    assert any(len(set(row)) < 4 for row in captions), "with replacement"


def test_captions_without_replacement_are_different_ones():
    plans = draw("class", 3200, captions=3, captions_with_replacement=False)
    images, captions = (np.concatenate([getattr(p, name) for p in plans]) for name in ("images", "captions"))
    assert all(len(set(row)) == 3 for row in captions)
    assert np.all(captions < CAPTIONS[images][:, None])
    for column in captions[CAPTIONS[images] == 5].T:
        assert chi_square(np.bincount(column, minlength=5)) < 23.5


def test_no_captions_may_be_asked_for_and_none_be_there():
    plan = sampler(captions=0, captions_of=np.zeros(len(CLASSES), int)).plan(0)
    assert plan.captions.shape == (8, 0)


def test_augmentations_are_uniform_and_independent_of_the_wrong_pictures():
    plans = draw("class", 6400, wrong_images=True)
    right, wrong = (np.concatenate([getattr(p, n) for p in plans]) for n in ("augmentation", "wrong_augmentation"))
    both = np.concatenate([right, wrong], axis=1)
    assert both.dtype == np.float32 and both.min() >= 0 and both.max() < 1
    np.testing.assert_allclose(both.mean(0), 0.5, atol=0.02)
    np.testing.assert_allclose(both.var(0), 1 / 12, atol=0.005)
    correlation = np.corrcoef(both.T) - np.eye(6)
    assert np.abs(correlation).max() < 0.06


def test_unclassed_pictures_do_for_uniform_and_shuffled_sampling():
    none = np.full(5, -1)
    for sampling in ("uniform", "shuffled"):
        plan = sampler(sampling, classes=none, captions_of=np.full(5, 2), wrong_images=True).plan(0)
        assert plan.images.max() < 5


def test_a_single_picture_can_be_trained_on():
    one = sampler("uniform", classes=np.array([-1]), captions_of=np.array([1]))
    np.testing.assert_array_equal(one.plan(3).images, 0)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"sampling": "class", "classes": np.full(4, -1)}, "has no classes"),
        ({"sampling": "distinct_classes", "classes": np.full(4, -1)}, "has no classes"),
        ({"sampling": "shuffled", "classes": np.zeros(4, int), "wrong_images": True}, "mismatching pairs need two"),
        ({"sampling": "shuffled", "classes": np.full(1, -1), "wrong_images": True}, "mismatching pairs need two"),
        ({"sampling": "class", "classes": np.zeros(4, int), "wrong_images": True}, "mismatching pairs need two"),
        ({"sampling": "uniform", "classes": np.zeros(1, int), "wrong_images": True}, "mismatching pairs need two"),
        ({"captions": MAX_CAPTIONS + 1}, f"--captions_averaged={MAX_CAPTIONS + 1}: at most {MAX_CAPTIONS}"),
        ({"captions": 4, "captions_with_replacement": False}, "an image has 3 captions, but 4 are drawn"),
        ({"captions_of": np.where(np.arange(len(CLASSES)) == 9, 0, 2)}, "an image has 0 captions"),
    ],
)
def test_data_that_cannot_be_sampled_so_is_refused(settings, message):
    if "classes" in settings:
        settings = {"captions_of": np.full(len(settings["classes"]), 10), **settings}
    with pytest.raises(UserError, match=message):
        sampler(**settings)


def by_length(batch_size, seed=0, longest=4):
    """Three pictures of 3, 1 and 4 captions, of these lengths."""
    lengths = np.array([2, 3, 2, 9, 3, 2, 0, 3])
    counts = np.array([3, 1, 4])
    sampler = Sampler(
        np.full(3, -1),
        counts,
        "caption_length",
        batch_size,
        caption_lengths=lengths,
        longest_caption=longest,
        seed=seed,
    )
    return sampler, lengths, np.concatenate([[0], np.cumsum(counts)])


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_batches_of_one_caption_length_take_every_caption_once_an_epoch(batch_size):
    """Three captions of 2 words and three of 3; those of 9 and of 0 words are left out."""
    sampler, lengths, offsets = by_length(batch_size)
    steps = 2 * -(-3 // batch_size)
    for epoch in range(3):
        taken = []
        for step in range(epoch * steps, (epoch + 1) * steps):
            plan = sampler.plan(step)
            rows = offsets[plan.images] + plan.captions[:, 0]
            assert plan.captions.shape == (batch_size, 1) and len(set(lengths[rows])) == 1
            np.testing.assert_array_equal(sampler.plan(step).images, plan.images)
            taken += rows.tolist()
        assert set(taken) == {0, 1, 2, 4, 5, 7}
        assert len(taken) == steps * batch_size


def test_lengths_take_turns_in_an_order_of_their_own_each_epoch():
    sampler, lengths, offsets = by_length(1)
    firsts = set()
    for epoch in range(20):
        plans = [sampler.plan(6 * epoch + place) for place in range(6)]
        found = [int(lengths[offsets[p.images[0]] + p.captions[0, 0]]) for p in plans]
        assert found in ([2, 3] * 3, [3, 2] * 3)
        firsts.add(found[0])
    assert firsts == {2, 3}


def test_captions_that_are_all_too_long_are_an_error():
    with pytest.raises(UserError, match="no caption of the data set has 1 to 1 words"):
        by_length(2, longest=1)
