"""Scores of many pictures together, from what a network says of them: Inception Score, FID and KID, in float64.

Rows come in batches and are not kept: memory depends on the width of the network, not on the number of pictures.
"""

from __future__ import annotations

import numpy as np

_ROWS_AT_ONCE = 512
"""Rows are added to the second moments so many at a time: of fewer, moving the matrix costs more than the sums."""


def parts(count: int, number: int) -> np.ndarray:
    """Where the `number` parts of `count` rows in order begin, and where the last ends: int [number + 1].

    Their sizes differ by one at most and no row is left out, as in the program of Salimans et al. (NIPS 2016).
    """
    return np.arange(number + 1) * count // number


def _checked(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    if rows.ndim != 2 or not np.all(np.isfinite(rows)):
        raise ValueError(f"rows must be finite numbers [B, width], these are {list(rows.shape)} and may hold NaN")
    return rows


def _sum_of_x_log_x(p: np.ndarray) -> np.ndarray:
    """Over the last axis; 0 log 0 is 0."""
    return np.sum(p * np.log(p, where=p > 0, out=np.zeros_like(p)), axis=-1)


class InceptionScore:
    """exp E KL(p(y|x) || p(y)) (Salimans et al., NIPS 2016): pictures are each of one class, and of all classes.

    Between 1 and the number of classes. The pictures are cut into splits in their order, which should be random; the
    score is the mean over the splits, its deviation the standard deviation over them (divisor: the splits), as
    published. No epsilon inside the logarithms.

    Args:
        count: pictures that will come, which tells the splits apart.
        splits: 10 in the papers. A score of smaller splits is lower.

    Raises ValueError when there are fewer pictures than splits.
    """

    def __init__(self, count: int, splits: int = 10):
        if not 1 <= splits <= count:
            raise ValueError(f"{count} pictures cannot be cut into {splits} splits")
        self._edges, self._seen = parts(count, splits), 0
        self._probabilities, self._negative_entropies = None, np.zeros(splits)

    def add(self, logits: np.ndarray) -> None:
        """logits [B, C], before the softmax. Raises ValueError for more pictures than announced."""
        logits = _checked(logits)
        logits = logits - logits.max(axis=1, keepdims=True)
        logarithms = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        p = np.exp(logarithms)
        if self._probabilities is None:
            self._probabilities = np.zeros([len(self._negative_entropies), p.shape[1]])
        places = np.arange(self._seen, self._seen + len(p))
        self._seen += len(p)
        if self._seen > self._edges[-1]:
            raise ValueError(f"{self._seen} pictures, but {self._edges[-1]} were announced")
        split = np.searchsorted(self._edges, places, side="right") - 1
        np.add.at(self._probabilities, split, p)
        np.add.at(self._negative_entropies, split, np.sum(p * logarithms, axis=1))

    def result(self) -> tuple[float, float]:
        """-> (score, deviation over the splits). Raises ValueError while pictures are missing."""
        if self._seen != self._edges[-1]:
            raise ValueError(f"{self._seen} pictures, but {self._edges[-1]} were announced")
        counts = np.diff(self._edges)
        divergences = self._negative_entropies / counts - _sum_of_x_log_x(self._probabilities / counts[:, None])
        scores = np.exp(divergences)
        return float(scores.mean()), float(scores.std())


class Moments:
    """Mean and covariance of rows that come in batches.

    Deviations are summed from the mean so far, which is corrected on the way (Chan, Golub and LeVeque, 1983): nothing
    cancels, as it does in E[xx'] - E[x]E[x]'.
    """

    def __init__(self, width: int):
        self._count, self._mean, self._scatter = 0, np.zeros(width), np.zeros([width, width])
        self._waiting: list[np.ndarray] = []

    @classmethod
    def of(cls, count: int, mean: np.ndarray, scatter: np.ndarray) -> Moments:
        """From `count`, `mean` [F] and `scatter` [F, F] of others."""
        moments = cls(0)
        moments._count, moments._mean, moments._scatter = int(count), mean, scatter
        return moments

    def add(self, rows: np.ndarray) -> None:
        """rows [B, F]."""
        self._waiting.append(_checked(rows))
        if sum(map(len, self._waiting)) >= _ROWS_AT_ONCE:
            waiting = np.concatenate(self._waiting)
            whole = len(waiting) - len(waiting) % _ROWS_AT_ONCE
            for start in range(0, whole, _ROWS_AT_ONCE):  # how the rows come in batches does not change a bit
                self._fold_in(waiting[start : start + _ROWS_AT_ONCE])
            self._waiting = [waiting[whole:]]

    def _fold(self) -> None:
        rows = np.concatenate(self._waiting) if self._waiting else np.zeros([0, len(self._mean)])
        self._waiting = []
        if len(rows):
            self._fold_in(rows)

    def _fold_in(self, rows: np.ndarray) -> None:
        total, mean = self._count + len(rows), rows.mean(axis=0)
        between = np.sqrt(self._count * len(rows) / total) * (mean - self._mean)
        deviations = np.concatenate([rows - mean, between[None]])
        self._scatter += deviations.T @ deviations
        self._mean = self._mean + (mean - self._mean) * (len(rows) / total)
        self._count = total

    @property
    def count(self) -> int:
        self._fold()
        return self._count

    @property
    def mean(self) -> np.ndarray:
        """[F]."""
        self._fold()
        return self._mean

    @property
    def scatter(self) -> np.ndarray:
        """[F, F]: sums of products of deviations from the mean."""
        self._fold()
        return self._scatter

    @property
    def covariance(self) -> np.ndarray:
        """[F, F], divisor count - 1. Raises ValueError for fewer than two rows."""
        if self.count < 2:
            raise ValueError(f"{self.count} picture has no covariance: two are needed at least")
        return self.scatter / (self.count - 1)


def frechet_distance(real: Moments, fake: Moments) -> float:
    """FID (Heusel et al., NIPS 2017): |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), the squared Frechet (Wasserstein-2)
    distance of two normal distributions.

    The trace of the root is the sum of the singular values of A1' A2, where C = A A'. It needs no root of an
    unsymmetric product, so that no imaginary parts are dropped and covariances without full rank, of fewer pictures
    than features, are as exact as others. What they are not is unbiased: FID of fewer pictures is larger.

    Raises ValueError for fewer than two pictures on a side.
    """
    difference = real.mean - fake.mean
    first, second = real.covariance, fake.covariance
    overlap = np.linalg.svd(_factor(first).T @ _factor(second), compute_uv=False).sum()
    return float(difference @ difference + np.trace(first) + np.trace(second) - 2.0 * overlap)


def _factor(covariance: np.ndarray) -> np.ndarray:
    """[F, F] -> A [F, rank] with A A' = covariance. What rounding makes of eigenvalues that are zero is left out."""
    values, vectors = np.linalg.eigh(covariance)
    kept = values > len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
    return vectors[:, kept] * np.sqrt(values[kept])


def squared_mmd(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased estimate of the squared maximum mean discrepancy of rows [M, F] and [N, F].

    Of the kernel (x.y / F + 1)^3. It may be negative. Raises ValueError for fewer than two rows on a side.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"{len(x)} and {len(y)} pictures: two of each are needed at least")
    x, y = _checked(x), _checked(y)

    def kernel(a, b):
        base = a @ b.T / x.shape[1] + 1.0
        return base * base * base  # a third of the time of base ** 3

    def mean_of_pairs(a):
        values = kernel(a, a)
        return (values.sum() - np.trace(values)) / (len(a) * (len(a) - 1))

    return float(mean_of_pairs(x) + mean_of_pairs(y) - 2.0 * kernel(x, y).mean())


class KernelDistance:
    """KID (Binkowski et al., ICLR 2018): mean over blocks of the unbiased squared MMD; about 0 for one distribution.

    The pictures are cut in their order into blocks of `block` or a few more, none left out, and each block is compared
    with one of the real pictures, those in turn. Every block is an unbiased estimate, so the mean is, whatever the
    numbers of pictures; and no more than a block of each side is in use. The published program draws blocks with
    replacement out of all features, which it must hold.

    Args:
        real: [N, F] features of real pictures in random order; count: pictures that will come.

    Raises ValueError for fewer than two pictures on a side.
    """

    def __init__(self, real: np.ndarray, count: int, block: int = 1000):
        if min(len(real), count) < 2:
            raise ValueError(f"{len(real)} real and {count} other pictures: two of each are needed at least")
        self._real, self._real_edges = real, parts(len(real), max(1, len(real) // block))
        self._edges = parts(count, max(1, count // block))
        self._waiting, self._values = np.zeros([0, real.shape[1]]), []

    def add(self, rows: np.ndarray) -> None:
        """rows [B, F]. Raises ValueError for more than announced."""
        self._waiting = np.concatenate([self._waiting, _checked(rows)])
        while len(self._values) < len(self._edges) - 1:
            size = np.diff(self._edges)[len(self._values)]
            if len(self._waiting) < size:
                return
            place = len(self._values) % (len(self._real_edges) - 1)
            real = self._real[self._real_edges[place] : self._real_edges[place + 1]]
            self._values.append(squared_mmd(real, self._waiting[:size]))
            self._waiting = self._waiting[size:]
        if len(self._waiting):
            raise ValueError(f"more pictures than the {self._edges[-1]} that were announced")

    @property
    def blocks(self) -> int:
        return len(self._edges) - 1

    def result(self) -> tuple[float, float | None]:
        """-> (mean, standard deviation over the blocks, divisor: the blocks; None of one). Divided by the root of their
        number it is about the error of the mean. Raises ValueError while pictures are missing."""
        if len(self._values) < self.blocks:
            raise ValueError(f"fewer pictures than the {self._edges[-1]} that were announced")
        return float(np.mean(self._values)), float(np.std(self._values)) if self.blocks > 1 else None
