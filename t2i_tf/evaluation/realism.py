"""IS, FID and KID of pictures that pass by, once for all three."""

from __future__ import annotations

import logging
from functools import lru_cache

import numpy as np

from t2i_tf.config import EvaluateConfig
from t2i_tf.data import records
from t2i_tf.errors import UserError
from t2i_tf.evaluation import real_pictures
from t2i_tf.evaluation.distributions import InceptionScore, KernelDistance, Moments, frechet_distance
from t2i_tf.evaluation.features import Extractor, extractor
from t2i_tf.progress import ProgressLine

METRICS = ("is", "fid", "kid")
SPLITS = 10
FINE_TUNED = ("cub", "oxford102")
"""Data sets that the papers score with a network that knows their classes."""


@lru_cache(maxsize=1)
def _kept_extractor(name: str, resize: str | None) -> Extractor:
    """While a run is watched, one serves all checkpoints."""
    return extractor(name, resize)


def described(options: EvaluateConfig) -> dict:
    """What a line says of the extractor that these options name. Raises UserError for one that cannot be had."""
    return _kept_extractor(options.extractor, options.resize).describe()


class Realism:
    """Scores of `source.count` pictures.

    Args:
        names: of METRICS; source: of `evaluation.sources`; split: with the real pictures.
        options: extractor, resize, real_images.

    Raises UserError for an extractor that cannot be had or gives no logits, and for too few pictures.
    """

    def __init__(self, names: list[str], source, split: records.Split, box_crop: bool, options: EvaluateConfig):
        self.names, self.source, self.split = names, source, split
        self.extractor = _kept_extractor(options.extractor, options.resize)
        self._score = self._moments = self._distance = self._real = None
        if "is" in names:
            self._score = self._inception_score()
        if {"fid", "kid"} & set(names):
            self._real = self._real_pictures(box_crop, options.real_images)
        if "fid" in names:
            self._moments = Moments(self.extractor.width)
            fewest = min(source.count, self._real.moments.count)
            if fewest <= self.extractor.width:
                logging.warning(
                    "fid: %d pictures are no more than the %d features: it is far larger than with many, compare it "
                    "with FID of as many pictures alone",
                    fewest,
                    self.extractor.width,
                )
        if "kid" in names:
            self._distance = KernelDistance(self._real.rows, source.count)

    def _inception_score(self) -> InceptionScore:
        name, data = self.extractor.name, self.split.dataset.manifest["name"]
        if self.extractor.num_classes is None:
            raise UserError(f"--metrics=is: --extractor={name} gives no logits: choose another")
        if self.source.count < SPLITS:
            raise UserError(f"--metrics=is: {self.source.count} pictures cannot be cut into {SPLITS} splits: give more")
        if data in FINE_TUNED and name.partition(":")[0] in ("inception2015", "keras"):
            logging.warning(
                "is: the papers' scores of %s are those of a network fine-tuned on its classes, see --paper=classifier;"
                " those of ImageNet classes compare with none of them",
                data,
            )
        return InceptionScore(self.source.count, SPLITS)

    def _real_pictures(self, box_crop: bool, count: int | None) -> real_pictures.RealPictures:
        count = self.split.num_images if count is None else count
        if not 2 <= count <= self.split.num_images or self.source.count < 2:
            raise UserError(
                f"--metrics={','.join(self.names)}: {count} real pictures of the {self.split.num_images} in split "
                f"{self.split.name} and {self.source.count} to score: two of each are needed at least"
            )
        size = self.source.image_size
        return real_pictures.real_pictures(self.extractor, self.split, size, box_crop, count, ProgressLine())

    def add(self, images: np.ndarray) -> None:
        """uint8 [B,S,S,3]."""
        features, logits = self.extractor(images)
        if self._score is not None:
            self._score.add(logits)
        for accumulator in (self._moments, self._distance):
            if accumulator is not None:
                accumulator.add(features)

    def results(self) -> dict[str, dict]:
        """Metric -> what its line says."""
        found = {}
        if self._score is not None:
            score, deviation = self._score.result()
            found["is"] = {"is": score, "is_deviation": deviation, "splits": SPLITS}
        if self._moments is not None:
            found["fid"] = {"fid": frechet_distance(self._real.moments, self._moments), "fid_deviation": None}
        if self._distance is not None:
            value, deviation = self._distance.result()
            found["kid"] = {"kid": value, "kid_deviation": deviation, "blocks": self._distance.blocks}
        counts = {"fake_images": self.source.count, "image_size": self.source.image_size}
        real = {"real_images": 0 if self._real is None else self._real.moments.count}
        return {
            name: {
                **found[name],
                **counts,
                **(real if name != "is" else {"real_images": 0}),
                **self.extractor.describe(),
            }
            for name in self.names
        }
