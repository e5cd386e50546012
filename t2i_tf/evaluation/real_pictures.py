"""What an extractor says of the real pictures of a split, computed once and kept in the data set folder.

The cache is found under a hash of all that it depends on: the contents of the split, the extractor's weights, how
pictures are cut and resized, how many they are. A stale one has another name. It is written beside and renamed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from t2i_tf import devices, files
from t2i_tf.data import pipeline, records
from t2i_tf.evaluation.distributions import Moments
from t2i_tf.evaluation.features import Extractor

VERSION = 1
KEPT_ROWS = 10_000
"""Features of so many pictures are kept for KID, ten of its blocks: 80 MB of 2,048 numbers each."""


@dataclass(frozen=True)
class RealPictures:
    """Of `moments.count` pictures of a split."""

    moments: Moments
    rows: np.ndarray
    """float32 [<=KEPT_ROWS, F]: features of the first of them; their order is random."""


def real_pictures(
    extractor: Extractor,
    split: records.Split,
    image_size: int,
    box_crop: bool,
    count: int,
    progress: Callable[[int, int], None],
) -> RealPictures:
    """Centre views of `count` pictures of a split, through the extractor or from the cache.

    Which ones, and their order, is the same for every score: drawn once without replacement, not by its seed.

    Args:
        image_size: pixels, that of the pictures they are compared with; progress: called with pictures done and all.

    Raises UserError when the data set was prepared smaller than image_size.
    """
    path = _path(extractor, split, image_size, box_crop, count)
    found = _read(path)
    if found is not None:
        return found
    chosen = np.random.Generator(np.random.Philox(0)).permutation(split.num_images)[:count]
    moments, rows, done = Moments(extractor.width), [], 0
    views = pipeline.views(split, image_size, devices.rows_at_once(), box_crop=box_crop, chosen=chosen)
    for pictures in views.as_numpy_iterator():
        features, _ = extractor(pictures)
        moments.add(features)
        if done < KEPT_ROWS:
            rows.append(features[: KEPT_ROWS - done])
        done += len(features)
        progress(done, count)
    found = RealPictures(moments, np.concatenate(rows))
    _write(path, found)
    return found


def _path(extractor, split, image_size, box_crop, count) -> Path:
    contents = json.dumps(split.dataset.manifest["splits"][split.name], sort_keys=True)
    how = (VERSION, KEPT_ROWS, contents, extractor.sha256, extractor.resize, extractor.size)
    key = hashlib.sha256(repr((*how, image_size, bool(box_crop), count)).encode()).hexdigest()[:16]
    return split.dataset.cache / f"scores-{key}" / f"{split.name}.npz"


def _read(path: Path) -> RealPictures | None:
    if not path.is_file():
        return None
    try:
        with np.load(path) as arrays:
            return RealPictures(Moments.of(arrays["count"], arrays["mean"], arrays["scatter"]), arrays["rows"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logging.warning("%s is damaged (%s): computed again", path, error)
        return None


def _write(path: Path, found: RealPictures) -> None:
    """Without a place to write to the scores are as good, and the next ones take as long."""
    moments = found.moments
    try:
        with files.written_beside(path) as beside, open(beside, "wb") as file:
            np.savez(file, count=moments.count, mean=moments.mean, scatter=moments.scatter, rows=found.rows)
    except OSError as error:
        logging.warning("%s cannot be written (%s): real pictures are read again next time", path, error.strerror)
