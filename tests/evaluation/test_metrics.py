import math

import numpy as np
import pytest
from PIL import Image

from t2i_tf.evaluation import metrics


def test_a_class_is_the_mean_of_all_its_captions():
    vectors = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0], [2.0, 3.0]], np.float32)
    means, classes = metrics.class_vectors(vectors, np.array([9, 9, 4, 9]))
    np.testing.assert_array_equal(classes, [4, 9])
    np.testing.assert_array_equal(means, [[0.0, 5.0], [2.0, 1.0]])
    assert means.dtype == np.float64


def test_average_precision_by_hand():
    scores = np.array([[0.9, 3.0, 1.0], [0.8, 2.0, 1.0], [0.7, 1.0, 1.0], [0.6, 4.0, 1.0]])
    truths = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]], bool)
    # first column: right at ranks 1 and 3; second: at ranks 3 and 4; nothing true in the third
    found = metrics.average_precision(scores, truths)
    np.testing.assert_allclose(found[:2], [(1 / 1 + 2 / 3) / 2, (1 / 3 + 2 / 4) / 2])
    assert np.isnan(found[2])


def test_retrieval_by_hand():
    # class 3 points along x, class 8 along y
    captions, of_captions = np.array([[2.0, 0.0], [0.0, 0.0], [0.0, 1.0]]), np.array([3, 3, 8])
    images = np.array([[3.0, 1.0], [0.5, 2.0], [1.0, 0.0], [4.0, 5.0]])
    of_images = np.array([3, 3, 8, 8])
    # nearest classes: 3 (right), 8 (wrong), 3 (wrong), 8 (right)
    # picture 3 is the first for both classes, and of class 8
    assert metrics.zero_shot_retrieval(images, of_images, captions, of_captions) == {
        "accuracy": 0.5,
        "accuracy_of_chance": 0.5,
        "precision_of_chance": 0.5,
        "precision_at_1": 0.5,
    }


def test_precision_by_hand():
    captions, classes = np.eye(2), np.array([0, 1])
    # class 0 ranks the pictures in their order: 4 of its own among the first 5; class 1 the other way round: 3 of 5
    images = np.array([[12.0 - i, i] for i in range(12)])
    of_images = np.array([0, 0, 1, 0, 0, 0, 1, 0, 1, 1, 0, 1])
    scores = metrics.zero_shot_retrieval(images, of_images, captions, classes)
    assert scores["precision_at_1"] == 1.0
    assert scores["precision_at_5"] == pytest.approx((4 / 5 + 3 / 5) / 2)
    # Its first ten lack the one of its seven at place 10; class 1 has no more than five.
    assert scores["precision_at_10"] == pytest.approx((6 / 10 + 5 / 10) / 2)


def test_accuracy_counts_pictures_and_not_classes():
    captions, classes = np.eye(2), np.array([0, 1])
    images = np.array([[1.0, 0.0]] * 9 + [[1.0, 0.0]])
    scores = metrics.zero_shot_retrieval(images, np.array([0] * 9 + [1]), captions, classes)
    assert scores["accuracy"] == 0.9


@pytest.mark.parametrize("count, depths", [(2, {1}), (4, {1}), (5, {1, 5}), (49, {1, 5, 10}), (50, {1, 5, 10, 50})])
def test_every_depth_for_which_there_are_pictures(count, depths):
    classes = np.arange(count) % 2
    scores = metrics.zero_shot_retrieval(np.eye(2)[classes], classes, np.eye(2), np.arange(2))
    assert {int(name.rpartition("_")[2]) for name in scores if name.startswith("precision_at_")} == depths
    assert scores["accuracy"] == scores["precision_at_1"] == 1.0


def test_a_class_of_fewer_pictures_than_the_depth_cannot_reach_one():
    """The smallest test classes of CUB have 41 pictures; the published AP@50 counts them too."""
    classes = np.repeat(np.arange(2), [41, 60])
    scores = metrics.zero_shot_retrieval(np.eye(2)[classes], classes, np.eye(2), np.arange(2))
    assert scores["precision_at_50"] == pytest.approx((41 / 50 + 50 / 50) / 2)


def test_a_perfect_encoder_and_one_that_knows_nothing():
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(20), 60)
    directions = np.eye(20)
    perfect = metrics.zero_shot_retrieval(directions[classes], classes, directions[classes], classes)
    assert perfect["accuracy"] == perfect["precision_at_50"] == 1.0
    blind = metrics.zero_shot_retrieval(rng.normal(size=(1200, 8)), classes, rng.normal(size=(1200, 8)), classes)
    assert blind["accuracy"] == pytest.approx(blind["accuracy_of_chance"], abs=0.03)
    assert blind["precision_at_50"] == pytest.approx(blind["precision_of_chance"], abs=0.03)


def test_large_numbers_do_not_lose_the_small_difference():
    captions = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    images = np.array([[1e4, 1e4 + 2e-3], [1e4 + 2e-3, 1e4]], np.float32)
    assert metrics.zero_shot_retrieval(images, np.array([1, 0]), captions, np.array([0, 1]))["accuracy"] == 1.0


@pytest.mark.parametrize("height, width, size", [(32, 32, 32), (64, 96, 32), (101, 67, 32), (7, 5, 3), (1, 1, 4)])
def test_area_averages_are_those_of_pillow(height, width, size):
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    averages = metrics.area_average(images, size)
    assert averages.dtype == np.float32
    for image, average in zip(images, averages, strict=True):
        box = Image.fromarray(image).resize((size, size), Image.Resampling.BOX)
        if height % size == width % size == 0:  # else Pillow gives a pixel that two areas share to one of them
            np.testing.assert_allclose(average, box, atol=1.0)  # it rounds rows, then columns
        np.testing.assert_allclose(average.mean((0, 1)), image.mean((0, 1)), rtol=1e-5)


def test_a_pixel_that_two_areas_share_counts_for_both():
    row = np.array([[[[0.0], [30.0], [90.0]]]])
    np.testing.assert_allclose(metrics.area_average(row, 2, np.float64)[0, 0, :, 0], [10.0, 70.0])


def plain(*values, size=8):
    """Pictures of one brightness each: uint8 [len(values), size, size, 3]."""
    return np.broadcast_to(np.array(values, np.uint8)[:, None, None, None], (len(values), size, size, 3))


def test_the_distance_of_pictures_by_hand():
    assert metrics.mean_distance(plain(0, 255)[None]) == 1.0
    assert metrics.mean_distance(plain(77, 77, 77)[None]) == 0.0
    # pairs: 51, 102 and 153 of 255
    assert metrics.mean_distance(plain(0, 51, 153)[None]) == pytest.approx((0.2 + 0.4 + 0.6) / 3, abs=1e-12)
    half = plain(0, 0, size=64).copy()
    half[1, :, :32] = 255  # half of the pixels differ, by 1
    assert metrics.mean_distance(half[None]) == pytest.approx(math.sqrt(0.5), abs=1e-12)
    channel = plain(0, 0).copy()
    channel[1, ..., 0] = 255
    assert metrics.mean_distance(channel[None]) == pytest.approx(math.sqrt(1 / 3), abs=1e-12)


def test_the_grain_of_single_pixels_is_no_difference():
    board = np.indices((64, 64)).sum(0)[..., None].repeat(3, -1) % 2 * 255
    assert metrics.mean_distance(np.stack([board, 255 - board]).astype(np.uint8)[None]) == 0.0


def test_pairs_are_those_within_a_group_and_groups_count_alike():
    groups = np.stack([plain(0, 51, 51), plain(255, 255, 255)])
    assert metrics.mean_distance(groups) == pytest.approx((0.2 + 0.2 + 0) / 3 / 2, abs=1e-12)
    assert metrics.mean_distance(plain(1)[None]) is None
    assert metrics.mean_distance(plain()[None]) is None
    assert metrics.mean_distance(np.zeros([0, 3, 8, 8, 3], np.uint8)) is None


def test_distances_do_not_depend_on_how_many_pictures_are_averaged_at_once():
    images = np.random.default_rng(1).integers(0, 256, (70, 9, 9, 3), np.uint8)
    pixels = metrics.area_average(images, 32, np.float64) / 255
    pairs = [np.sqrt(np.mean((pixels[i] - pixels[j]) ** 2)) for i in range(70) for j in range(i)]
    assert metrics.mean_distance(images[None]) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_diversity_tells_deaf_from_collapsed():
    """Rows are captions, columns seeds."""
    levels = np.array([0, 51, 102])
    obeys = np.stack([plain(*(level + np.array([0, 51]))) for level in levels])
    found = metrics.diversity(obeys)
    assert found["same_caption"] == pytest.approx(0.2, abs=1e-12)
    assert found["across_captions"] == pytest.approx((0.2 + 0.2 + 0.4) / 3, abs=1e-12)
    collapsed = np.stack([plain(level, level) for level in levels])
    assert metrics.diversity(collapsed)["same_caption"] == 0.0 < metrics.diversity(collapsed)["across_captions"]
    deaf = np.stack([plain(0, 51)] * 3)
    assert metrics.diversity(deaf)["across_captions"] == 0.0 < metrics.diversity(deaf)["same_caption"]


def test_what_has_no_pair_has_no_diversity():
    assert metrics.diversity(plain(0, 255)[None]) == {"same_caption": 1.0, "across_captions": None}
    assert metrics.diversity(plain(0, 255)[:, None]) == {"same_caption": None, "across_captions": 1.0}
    assert metrics.diversity(plain(0)[None]) == {"same_caption": None, "across_captions": None}


def test_nearest_rows_by_hand():
    queries = np.array([[0.0, 0.0], [3.0, 4.0]])
    parts = [np.array([[3.0, 4.0], [1.0, 0.0]]), np.array([[0.0, 0.0]]), np.array([[1.0, 0.0], [6.0, 8.0]])]
    distances, rows = metrics.nearest_rows(queries, parts, 3)
    np.testing.assert_array_equal(rows, [[2, 1, 3], [0, 1, 3]])
    np.testing.assert_allclose(distances, [[0, 1, 1], [0, math.sqrt(20), math.sqrt(20)]])


@pytest.mark.parametrize("cut", [1, 7, 100])
@pytest.mark.parametrize("count", [1, 5, 40])
def test_nearest_rows_are_those_of_a_full_sort(cut, count):
    rng = np.random.default_rng(2)
    queries, rows = rng.normal(size=(3, 6)).astype("f4"), rng.normal(size=(30, 6)).astype("f4")
    found, numbers = metrics.nearest_rows(queries, (rows[i : i + cut] for i in range(0, 30, cut)), count)
    distances = np.linalg.norm(queries[:, None].astype("f8") - rows, axis=-1)
    order = np.argsort(distances, axis=1)[:, :count]
    np.testing.assert_array_equal(numbers, order)
    np.testing.assert_allclose(found, np.take_along_axis(distances, order, axis=1), atol=1e-7)


def test_a_row_is_at_no_distance_from_itself_far_from_the_origin():
    rows = (1000 + np.random.default_rng(3).normal(size=(50, 2000))).astype("f4")
    distances, numbers = metrics.nearest_rows(rows[:5], [rows], 2)
    np.testing.assert_array_equal(numbers[:, 0], range(5))
    assert distances[:, 0].max() < 0.01 < 30 < distances[:, 1].min()


def r_precision(images, own, captions, groups, candidates=100, folds=10, seed=0):
    drawn = metrics.drawn_candidates(own, groups, candidates, seed)
    return metrics.r_precision(images, captions, drawn, folds)


def test_r_precision_by_hand():
    # two captions, each the other's only rival; of four pictures the first three are nearest to their own
    captions, groups = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([4, 7])
    images = np.array([[3.0, 1.0], [1.0, 5.0], [2.0, 0.0], [1.0, 2.0]])
    own = np.array([0, 1, 0, 0])
    scores = r_precision(images, own, captions, groups, candidates=2, folds=2)
    # folds: 1 and 1/2
    assert scores == {"r_precision": 0.75, "r_precision_deviation": 0.25, "r_precision_of_chance": 0.5}


def test_r_precision_is_of_cosines():
    captions, groups = np.array([[1.0, 0.0], [50.0, 50.0]]), np.array([0, 1])
    images = np.array([[2.0, 0.5]])  # the longer caption has the larger dot product
    assert r_precision(images, [0], captions, groups, candidates=2, folds=1)["r_precision"] == 1.0


def test_captions_of_the_own_group_are_no_rivals():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(6), 10)
    directions = np.eye(6)
    captions = directions[groups] + 0.3 * rng.normal(size=(60, 6)) * (np.arange(60) % 10 > 0)[:, None]
    own = np.arange(60)[np.arange(60) % 10 == 3]  # others of the group are nearer to the picture
    scores = r_precision(directions, own, captions, groups, candidates=51, folds=3)
    shares = [c[i] / np.linalg.norm(c) for i, c in enumerate(captions[own])]
    rivals = [np.max(captions[groups != i][:, i] / np.linalg.norm(captions[groups != i], axis=1)) for i in range(6)]
    assert scores["r_precision"] == pytest.approx(np.mean([s > r for s, r in zip(shares, rivals, strict=True)]))


def test_candidates_are_drawn_evenly_from_the_mismatching_captions():
    """One rival in eight beats the own caption: with one other candidate it is drawn that often, with all always."""
    captions = np.array([[1.0, 0.1], *[[0.0, 1.0]] * 7, [1.0, 0.0]])
    groups = np.array([20, *range(7), 9])
    images, own = np.tile([[1.0, 0.0]], (4000, 1)), np.zeros(4000, int)
    some = r_precision(images, own, captions, groups, candidates=2, seed=1)
    assert some["r_precision"] == pytest.approx(7 / 8, abs=0.02) and some["r_precision_deviation"] > 0
    assert some == r_precision(images, own, captions, groups, candidates=2, seed=1)
    assert some != r_precision(images, own, captions, groups, candidates=2, seed=2)
    assert r_precision(images, own, captions, groups, candidates=9)["r_precision"] == 0.0


def test_an_encoder_that_says_always_the_same_scores_chance():
    groups = np.arange(150)
    scores = r_precision(np.ones((40, 3)), np.arange(40), np.ones((150, 3)), groups)
    assert scores["r_precision"] == pytest.approx(0.01) and scores["r_precision_deviation"] == pytest.approx(0)
    nothing = r_precision(np.zeros((40, 3)), np.arange(40), np.ones((150, 3)), groups)
    assert nothing["r_precision"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    "images, captions, message", [(9, 200, "9 pictures cannot be split into 10"), (10, 99, "98 mismatching captions")]
)
def test_r_precision_needs_enough_of_both(images, captions, message):
    with pytest.raises(ValueError, match=message):
        r_precision(np.ones((images, 2)), np.zeros(images, int), np.ones((captions, 2)), np.arange(captions))


def test_candidates_are_those_of_before():
    """Scores stay comparable: these were drawn by the program of version 1."""
    groups = np.repeat(np.arange(4), 3)
    drawn = metrics.drawn_candidates(np.array([5, 0]), groups, candidates=5, seed=3)
    np.testing.assert_array_equal(drawn, [[6, 0, 2, 1, 5], [6, 4, 10, 11, 0]])


def test_recall_by_hand():
    # pictures in rows: the first finds its caption at once, the second after one other, the third after two
    similarities = np.array([[0.9, 0.1, 0.2], [0.8, 0.5, 0.1], [0.7, 0.6, 0.3]])
    scores = metrics.recall_both_ways(similarities)
    assert scores["image_to_text_1"] == pytest.approx(1 / 3)
    assert scores["text_to_image_1"] == pytest.approx(2 / 3), "the second caption is nearest to the third picture"
    assert scores["image_to_text_5"] == scores["text_to_image_10"] == 1.0
    assert scores["mean_recall"] == pytest.approx((1 / 3 + 2 / 3 + 4) / 6)


def test_who_finds_all_alike_finds_nothing():
    assert metrics.recall_both_ways(np.ones((20, 20)))["mean_recall"] == 0.0


def test_classes_are_ranked_by_the_given_measure():
    captions, classes = np.array([[1.0, 0.0], [9.0, 9.0]]), np.array([0, 1])
    images, of_images = np.array([[1.0, 0.1]]), np.array([0])
    assert metrics.zero_shot_retrieval(images, of_images, captions, classes)["accuracy"] == 0.0

    def cosine(a, b):
        return (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))

    assert metrics.zero_shot_retrieval(images, of_images, captions, classes, cosine)["accuracy"] == 1.0
