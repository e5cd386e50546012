"""Training pictures near to samples. What the samples are is known here: training pictures, and changes of them."""

import numpy as np
import pytest

from t2i_tf.data import pipeline, records
from t2i_tf.errors import UserError
from t2i_tf.evaluation import neighbors


@pytest.fixture
def dataset(blossoms):
    return records.Dataset.open(blossoms)


@pytest.fixture(scope="module")
def training_pictures(blossoms):
    split = records.Dataset.open(blossoms).split("train")
    return np.concatenate(list(pipeline.views(split, 64, 60).as_numpy_iterator()))


def nearest(gan, dataset, samples, count, progress=lambda done, total: None):
    return neighbors.nearest(gan, dataset, samples, count, progress)


def test_a_picture_learned_by_heart_is_found(gan, dataset, training_pictures):
    noisy = np.clip(training_pictures[[5, 59]] + np.random.default_rng(0).integers(-3, 4, (2, 64, 64, 3)), 0, 255)
    samples = np.concatenate([training_pictures[[41, 0]], noisy.astype(np.uint8)])
    found = nearest(gan, dataset, samples, 3)
    names = dataset.split("train").names
    assert [row[0] for row in found.names] == [names[41], names[0], names[5], names[59]]
    np.testing.assert_array_equal(found.pictures[:, 0], training_pictures[[41, 0, 5, 59]])
    assert found.distances[:2, 0].max() < 1e-3 * found.distances[2:, 0].min()
    assert found.distances[:, 0].max() < 0.5 * found.held_out.mean(), "unseen pictures are much farther away"
    assert found.searched == 60


@pytest.mark.parametrize("count", [1, 7, 60, 100])
def test_neighbors_are_those_of_a_full_sort(gan, dataset, training_pictures, count):
    samples = gan.generate(["a red flower", "a white blossom under a pale sky"], [0, 1])[-1]
    found = nearest(gan, dataset, samples, count)
    features, of_samples = gan.image_features(training_pictures), gan.image_features(samples)
    distances = np.linalg.norm(of_samples[:, None].astype(float) - features, axis=-1)
    order = np.argsort(distances, axis=1)[:, :count]
    assert found.distances.shape == (2, min(count, 60))
    np.testing.assert_allclose(found.distances, np.take_along_axis(distances, order, axis=1), rtol=1e-4)
    assert (np.diff(found.distances, axis=1) >= 0).all()
    for row, pictures, names in zip(order[:, :1], found.pictures, found.names, strict=True):
        np.testing.assert_array_equal(pictures[0], training_pictures[row[0]])
        assert names[0] == dataset.split("train").names[row[0]]


def test_unseen_pictures_are_measured_too(gan, dataset, training_pictures):
    (unseen,) = pipeline.views(dataset.split("test"), 64, 6).as_numpy_iterator()
    found = nearest(gan, dataset, unseen, 1)
    np.testing.assert_allclose(found.held_out, found.distances[:, 0], rtol=1e-5)
    del dataset.manifest["splits"]["test"]
    alone = nearest(gan, dataset, unseen, 1)
    assert alone.held_out.shape == (0,)
    np.testing.assert_allclose(alone.distances, found.distances, rtol=1e-5)


def test_progress_ends_with_the_split(gan, dataset, training_pictures):
    seen = []
    nearest(gan, dataset, training_pictures[:1], 1, lambda done, total: seen.append((done, total)))
    assert seen == [(32, 60), (60, 60)]


def test_pictures_prepared_too_small_are_refused(gan, tmp_path):
    from t2i_tf.config import PrepareConfig
    from t2i_tf.data.prepare import prepare

    options = PrepareConfig(source="blossoms", data_dir=str(tmp_path / "d"), num_images=4, image_size=32, workers=1)
    small = records.Dataset.open(prepare(options, progress=lambda done, total: None))
    with pytest.raises(UserError, match="prepared at 32 pixels"):
        nearest(gan, small, np.zeros([1, 64, 64, 3], np.uint8), 1)
