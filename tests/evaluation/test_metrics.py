import numpy as np
import pytest

from t2i_tf.evaluation import metrics


def test_a_class_is_the_mean_of_all_its_captions():
    vectors = np.array([[1.0, 0.0], [3.0, 0.0], [0.0, 5.0], [2.0, 3.0]], np.float32)
    means, classes = metrics.class_vectors(vectors, np.array([9, 9, 4, 9]))
    np.testing.assert_array_equal(classes, [4, 9])
    np.testing.assert_array_equal(means, [[0.0, 5.0], [2.0, 1.0]])
    assert means.dtype == np.float64


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
    assert "precision_at_10" not in scores, "class 1 has five pictures: ten could not all be right"


def test_accuracy_counts_pictures_and_not_classes():
    captions, classes = np.eye(2), np.array([0, 1])
    images = np.array([[1.0, 0.0]] * 9 + [[1.0, 0.0]])
    scores = metrics.zero_shot_retrieval(images, np.array([0] * 9 + [1]), captions, classes)
    assert scores["accuracy"] == 0.9


@pytest.mark.parametrize("each, depths", [(1, {1}), (4, {1}), (5, {1, 5}), (49, {1, 5, 10}), (50, {1, 5, 10, 50})])
def test_no_depth_is_larger_than_the_smallest_class(each, depths):
    classes = np.array([0] * each + [1] * (each + 3))
    scores = metrics.zero_shot_retrieval(np.eye(2)[classes], classes, np.eye(2), np.arange(2))
    assert {int(name.rpartition("_")[2]) for name in scores if name.startswith("precision_at_")} == depths
    assert scores["accuracy"] == scores[f"precision_at_{max(depths)}"] == 1.0


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
