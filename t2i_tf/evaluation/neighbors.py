"""Has a generator learned pictures by heart? Its samples beside the training pictures nearest to them.

The check of the figures in the GAN papers (StackGAN, ICCV 2017, among them): pictures are near where the discriminator
of the largest scale sees nearly the same in them. Its image features, with running statistics, are compared in L2
distance; samples and real pictures go the same way, as 8-bit pictures, and real ones are cut from the centre.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from t2i_tf import devices
from t2i_tf.data import records
from t2i_tf.evaluation import metrics
from t2i_tf.inference import Run

HELD_OUT = 64
"""At most so many test pictures show how near a picture is that was never trained on."""


@dataclass(frozen=True)
class Neighbors:
    """The nearest training pictures of N samples, K of each, nearest first."""

    distances: np.ndarray
    """float64 [N, K]."""
    pictures: np.ndarray
    """uint8 [N, K, S, S, 3]."""
    names: list[list[str]]
    """Of the pictures, as the data set has them."""
    searched: int
    """Training pictures."""
    held_out: np.ndarray
    """float64 [M]: distance of test pictures to the nearest training picture; none where there is no test split."""


def nearest(
    run: Run, dataset: records.Dataset, samples: np.ndarray, count: int, progress: Callable[[int, int], None]
) -> Neighbors:
    """Searches the training split for the `count` pictures nearest to each sample.

    The split passes once, in batches; neither its pictures nor their features are kept.

    Args:
        samples: uint8 [N,S,S,3], pictures of the largest scale.
        progress: called with pictures done and their number.

    Raises UserError when the data set has no training split or was prepared smaller than S.
    """
    train = dataset.split("train")
    unseen = _held_out(run, dataset)
    queries = np.concatenate([samples, *unseen])
    features = run.image_features(queries)
    distances, numbers = metrics.nearest_rows(features, _training_features(run, train, progress), count)
    distances, numbers, held_out = distances[: len(samples)], numbers[: len(samples)], distances[len(samples) :, 0]
    needed, places = np.unique(numbers, return_inverse=True)
    pictures = np.concatenate(list(_pictures(run, train, needed)))
    names = [[train.names[number] for number in row] for row in numbers]
    return Neighbors(distances, pictures[places.reshape(numbers.shape)], names, train.num_images, held_out)


def _pictures(run: Run, split: records.Split, chosen: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Batches uint8 [B,S,S,3] of centre views, all or the chosen ones, as the run's largest scale takes them."""
    return run.views(split, devices.rows_at_once(), chosen)


def _training_features(run, train, progress) -> Iterator[np.ndarray]:
    done = 0
    for pictures in _pictures(run, train):
        yield run.image_features(pictures)
        done += len(pictures)
        progress(done, train.num_images)


def _held_out(run: Run, dataset: records.Dataset) -> list[np.ndarray]:
    """Test pictures, evenly from the whole split, in batches."""
    if "test" not in dataset.manifest["splits"]:
        return []
    test = dataset.split("test")
    chosen = np.linspace(0, test.num_images - 1, min(HELD_OUT, test.num_images)).astype(int)
    return list(_pictures(run, test, chosen))
