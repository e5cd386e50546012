import numpy as np
import pytest
import scipy.linalg
from numpy.testing import assert_allclose

from t2i_tf.evaluation.distributions import (
    InceptionScore,
    KernelDistance,
    Moments,
    frechet_distance,
    parts,
    squared_mmd,
)


def batched(accumulator, rows, batch=7):
    for start in range(0, len(rows), batch):
        accumulator.add(rows[start : start + batch])
    return accumulator


def moments(rows, batch=7):
    return batched(Moments(rows.shape[1]), rows, batch)


def inception_score(logits, splits=10, batch=7):
    return batched(InceptionScore(len(logits), splits), logits, batch).result()


def one_hot(classes, num_classes):
    return np.where(np.eye(num_classes)[classes] > 0, 0.0, -1000.0)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


def test_parts_leave_no_row_out_and_differ_by_one():
    assert parts(23, 10).tolist() == [0, 2, 4, 6, 9, 11, 13, 16, 18, 20, 23]
    assert parts(5, 5).tolist() == [0, 1, 2, 3, 4, 5] and parts(5, 1).tolist() == [0, 5]


def test_inception_score_of_certain_and_evenly_spread_classes_is_their_number():
    score, deviation = inception_score(one_hot(np.arange(120) % 6, 9), splits=10)
    assert score == pytest.approx(6.0, abs=1e-12) and deviation == pytest.approx(0.0, abs=1e-12)


def test_inception_score_is_one_where_nothing_is_told_apart():
    assert inception_score(np.zeros([40, 8]))[0] == pytest.approx(1.0, abs=1e-14)
    assert inception_score(one_hot(np.full(40, 3), 8))[0] == pytest.approx(1.0, abs=1e-14), "all of one class"


def test_inception_score_of_two_certain_classes_in_known_shares():
    """exp of the entropy of (1/4, 3/4)."""
    expected = np.exp(-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)))
    classes = (np.arange(40) % 4 > 0).astype(int)
    assert inception_score(one_hot(classes, 2))[0] == pytest.approx(expected)


@pytest.mark.parametrize("count, splits, batch", [(100, 10, 7), (103, 10, 103), (11, 10, 1), (10, 10, 3), (1, 1, 1)])
def test_inception_score_is_that_of_scipy_split_by_split(rng, count, splits, batch):
    logits = 4.0 * rng.normal(size=(count, 12)).astype(np.float32)
    p = scipy.special.softmax(logits.astype(np.float64), axis=1)
    scores = []
    for i in range(splits):
        part = p[i * count // splits : (i + 1) * count // splits]
        scores.append(np.exp(np.mean(scipy.stats.entropy(part, np.mean(part, axis=0, keepdims=True), axis=1))))
    assert_allclose(inception_score(logits, splits, batch), [np.mean(scores), np.std(scores)], rtol=1e-12, atol=1e-14)


def test_inception_score_wants_what_was_announced():
    with pytest.raises(ValueError, match="9 pictures cannot be cut into 10 splits"):
        InceptionScore(9)
    score = InceptionScore(12)
    score.add(np.zeros([11, 3]))
    with pytest.raises(ValueError, match="11 pictures, but 12 were announced"):
        score.result()
    with pytest.raises(ValueError, match="13 pictures, but 12"):
        score.add(np.zeros([2, 3]))
    with pytest.raises(ValueError, match="finite"):
        InceptionScore(12).add(np.full([2, 3], np.nan))


@pytest.mark.parametrize("count, batch", [(1500, 64), (1500, 1500), (600, 1), (5, 2)])
def test_moments_are_those_of_numpy(rng, count, batch):
    rows = rng.normal(size=(count, 6)) @ rng.normal(size=(6, 6)) + 3.0
    found = moments(rows, batch)
    assert found.count == count
    assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-13)
    assert_allclose(found.covariance, np.cov(rows, rowvar=False), rtol=1e-11, atol=1e-12)


def test_moments_do_not_cancel_far_from_zero(rng):
    """Deviations of 1 around a million, where E[xx'] - E[x]E[x]' keeps four digits."""
    rows = 1e6 + rng.normal(size=(4000, 3))
    assert_allclose(moments(rows, 37).covariance, np.cov(rows, rowvar=False), rtol=1e-9, atol=1e-9)


def test_moments_hold_no_rows_however_many_come(rng):
    found = Moments(4)
    for _ in range(300):
        found.add(rng.normal(size=(11, 4)))
        assert sum(map(len, found._waiting)) < 512


def normal_rows(rng, count, mean, covariance):
    """Rows whose mean and covariance are exactly these."""
    rows = rng.normal(size=(count, len(mean)))
    rows -= rows.mean(axis=0)
    whitening = np.linalg.inv(np.linalg.cholesky(np.cov(rows, rowvar=False)))
    return mean + rows @ whitening.T @ np.linalg.cholesky(covariance).T


def test_frechet_distance_of_two_gaussians_is_the_closed_form(rng):
    """Diagonal covariances: sum of squared differences of means and of standard deviations."""
    means, deviations = rng.normal(size=(2, 5)), rng.uniform(0.5, 3.0, size=(2, 5))
    first, second = (moments(normal_rows(rng, 60, m, np.diag(s**2))) for m, s in zip(means, deviations, strict=True))
    expected = np.sum((means[0] - means[1]) ** 2) + np.sum((deviations[0] - deviations[1]) ** 2)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-12)


def with_scipy(real, fake):
    """The published formula with scipy's root of the unsymmetric product."""
    first, second = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = scipy.linalg.sqrtm(first @ second)
    difference = real.mean(axis=0) - fake.mean(axis=0)
    return difference @ difference + np.trace(first) + np.trace(second) - 2.0 * np.trace(root).real


@pytest.mark.parametrize("counts, width", [((400, 300), 32), ((90, 2000), 64), ((130, 129), 128)])
def test_frechet_distance_is_that_of_scipy(rng, counts, width):
    spectrum = np.geomspace(1.0, 1e-3, width)
    real, fake = (rng.normal(size=(n, width)) @ rng.normal(size=(width, width)) * spectrum for n in counts)
    assert frechet_distance(moments(real), moments(fake)) == pytest.approx(with_scipy(real, fake), rel=1e-9)


@pytest.mark.parametrize("counts", [(20, 30), (2, 2), (20, 500), (500, 20)])
def test_frechet_distance_of_fewer_pictures_than_features_is_exact(rng, counts):
    """Against the singular values of the centred features themselves, which need no root at all."""
    real, fake = rng.normal(size=(counts[0], 200)), 1.5 * rng.normal(size=(counts[1], 200)) + 0.1
    centred = [(rows - rows.mean(axis=0)) / np.sqrt(len(rows) - 1) for rows in (real, fake)]
    overlap = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    difference = real.mean(axis=0) - fake.mean(axis=0)
    expected = difference @ difference + sum(np.sum(rows**2) for rows in centred) - 2 * overlap
    assert frechet_distance(moments(real), moments(fake)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count, width", [(300, 2048), (2, 8), (500, 16)])
def test_frechet_distance_of_a_set_with_itself_is_zero(rng, count, width):
    rows = np.abs(rng.normal(size=(count, width))).astype(np.float32)
    assert abs(frechet_distance(moments(rows, 64), moments(rows, 50))) < 1e-6


def test_frechet_distance_of_one_picture_is_refused(rng):
    with pytest.raises(ValueError, match="1 picture has no covariance: two"):
        frechet_distance(moments(rng.normal(size=(1, 4))), moments(rng.normal(size=(9, 4))))


def test_frechet_distance_of_pictures_that_are_all_alike_is_that_of_their_means():
    assert frechet_distance(moments(np.zeros([5, 3])), moments(np.full([6, 3], 2.0))) == pytest.approx(12.0)


def test_squared_mmd_of_hand_worked_rows():
    """One feature: k(a, b) = (ab + 1)^3; pairs of x = (0, 1): 1, of y = (1, 2): 27, crosswise 1, 1, 8, 27."""
    value = squared_mmd(np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]]))
    assert value == pytest.approx(1.0 + 27.0 - 2.0 * (1 + 1 + 8 + 27) / 4)


def test_squared_mmd_is_unbiased(rng):
    """The exact value for rows drawn from two finite sets, with replacement, is a sum over them; the mean over many
    draws is within four standard errors of it."""
    x, y = rng.normal(size=(6, 3)), 0.7 * rng.normal(size=(5, 3)) + 0.4

    def kernel_mean(a, b):
        return np.mean((a @ b.T / 3 + 1) ** 3)

    exact = kernel_mean(x, x) + kernel_mean(y, y) - 2 * kernel_mean(x, y)
    draws = [squared_mmd(x[rng.integers(0, 6, 4)], y[rng.integers(0, 5, 3)]) for _ in range(4000)]
    assert abs(np.mean(draws) - exact) < 4 * np.std(draws) / np.sqrt(len(draws))


def test_kid_of_one_distribution_is_zero_within_its_deviation_and_of_two_is_not(rng):
    real = rng.normal(size=(500, 16))
    same, deviation = batched(KernelDistance(real, 1000, 100), rng.normal(size=(1000, 16))).result()
    assert abs(same) < 4 * deviation / np.sqrt(5), "five blocks of real pictures"
    other, deviation = batched(KernelDistance(real, 1000, 100), rng.normal(size=(1000, 16)) + 0.5).result()
    assert other > 10 * deviation / np.sqrt(5)


def test_kid_takes_blocks_in_turn_and_leaves_no_picture_out(rng):
    real, fake = rng.normal(size=(25, 4)), rng.normal(size=(37, 4))
    distance = batched(KernelDistance(real, 37, 10), fake)
    ours, theirs = parts(37, 3), parts(25, 2)
    expected = [squared_mmd(real[theirs[i % 2] : theirs[i % 2 + 1]], fake[ours[i] : ours[i + 1]]) for i in range(3)]
    assert distance.blocks == 3
    assert_allclose(distance.result(), [np.mean(expected), np.std(expected)], rtol=1e-12)


def test_kid_of_fewer_pictures_than_a_block_is_one_block(rng):
    real, fake = rng.normal(size=(5, 4)), rng.normal(size=(3, 4))
    value, deviation = batched(KernelDistance(real, 3), fake, 2).result()
    assert value == pytest.approx(squared_mmd(real, fake)) and deviation is None


def test_kid_wants_two_pictures_and_what_was_announced(rng):
    with pytest.raises(ValueError, match="1 real and 5 other pictures: two of each"):
        KernelDistance(np.zeros([1, 2]), 5)
    distance = KernelDistance(rng.normal(size=(4, 2)), 3)
    distance.add(np.zeros([2, 2]))
    with pytest.raises(ValueError, match="fewer pictures than the 3"):
        distance.result()
    with pytest.raises(ValueError, match="more pictures than the 3"):
        distance.add(np.zeros([2, 2]))
