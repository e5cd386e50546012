"""Do captions and pictures that belong together find each other? Scores that rest on trained encoders of both."""

from __future__ import annotations

import logging

import numpy as np
import tensorflow as tf

from t2i_tf import attention_pictures, devices
from t2i_tf.checkpoints import fingerprint
from t2i_tf.config import EvaluateConfig
from t2i_tf.data import records
from t2i_tf.data.sources import blossoms
from t2i_tf.errors import UserError
from t2i_tf.evaluation import fidelity, metrics
from t2i_tf.evaluation.sources import Drawn
from t2i_tf.inference import Run, load

FOLDS = 10
ENCODERS = ("text_encoder", "image_encoder")
"""What compares captions with pictures."""


def retrieval(run: Run, split: records.Split, options: EvaluateConfig) -> dict:
    """Zero-shot classification accuracy and precision at 50 of a text encoder, over the whole split."""
    _check_encoder(run, "retrieval")
    if not has_classes(split):
        raise UserError(
            f"--metrics=retrieval: {split.dataset.path} has no captions or fewer than two classes in "
            f"split {split.name}: give another --data_dir or --split"
        )
    captions, pictures = run.all_captions(split, "--metrics=retrieval")
    caption_classes = split.class_ids[pictures]
    scores = metrics.zero_shot_retrieval(
        _image_vectors(run, split), split.class_ids, run.encode(captions), caption_classes, _measure(run)
    )
    return {**scores, "images": split.num_images, "captions": len(captions), "classes": len(np.unique(split.class_ids))}


def recall(run: Run, split: records.Split, options: EvaluateConfig) -> dict:
    """R@1, R@5 and R@10 of an encoder of captions and pictures, both ways, among pairs of the split.

    Each picture has one of its captions. Of `blossoms` the pairs are such that no caption is true of the picture of
    another: there an encoder that understands everything reaches 1. Beside them stand, as `..._by_color`, pairs that
    already differ in a colour that a caption names, not in the number, form or size of petals alone.
    """
    _check_encoder(run, "recall")
    split.check_captions("--metrics=recall")

    def generator():
        return np.random.Generator(np.random.Philox(options.seed))

    captions, count = run.captions_of(split), options.num_images
    if split.dataset.manifest["name"] != "blossoms":
        return _recall_of(run, split, *_random_pairs(captions, generator(), count))
    told = _telling_pairs(split, captions, generator(), count)
    by_color = _telling_pairs(split, captions, generator(), count, fidelity.ATTRIBUTES)
    of_color = _recall_of(run, split, *by_color)
    return _recall_of(run, split, *told) | {f"{name}_by_color": value for name, value in of_color.items()}


def _recall_of(run, split, pictures, captions) -> dict:
    similarities = _measure(run)(_image_vectors(run, split, pictures), run.encode(captions))
    return {**metrics.recall_both_ways(similarities), "pairs": len(captions)}


def _random_pairs(captions, rng, count) -> tuple[np.ndarray, list[str]]:
    """Different pictures, of which these are the captions, and one caption of each."""
    order = [number for number in rng.permutation(len(captions)) if captions[number]]
    pictures = np.array(order[:count])
    return pictures, [captions[number][rng.integers(len(captions[number]))] for number in pictures]


def _telling_pairs(split, captions, rng, count, attributes=None) -> tuple[np.ndarray, list[str]]:
    """As `_random_pairs`, of drawn flowers, leaving out what would be true of two of the pictures; as far as these
    attributes tell (None: all)."""
    truths, pictures, chosen, named = split.attributes(), [], [], []
    for number in rng.permutation(split.num_images):
        if len(pictures) == count:
            break
        if any(blossoms.is_true_of(names, truths[number]) for names in named):
            continue
        for caption in captions[number]:
            names = blossoms.parse_caption(caption)
            names = {name: value for name, value in names.items() if attributes is None or name in attributes}
            if not any(blossoms.is_true_of(names, truths[other]) for other in pictures):
                pictures.append(number)
                chosen.append(caption)
                named.append(names)
                break
    return np.array(pictures), chosen


def encoder_name(options: EvaluateConfig) -> str:
    """What a line of R-precision calls its judge."""
    return options.damsm_run or "the run's own"


class RPrecision:
    """R-precision of a generator (AttnGAN, section 4) from its pictures as they pass by: see `metrics.r_precision`.

    The judge is the DAMSM of --damsm_run, or the one that the generator was trained with. The line says which, by the
    hash of its weights, and whether the generator was trained against it: such a score flatters.

    Args:
        source: the pictures, drawn by `run` of captions of `split`.

    Raises UserError when there is no judge, or too few captions to draw the others from.
    """

    def __init__(self, run: Run, source: Drawn, split: records.Split, options: EvaluateConfig):
        if not run.takes_text:
            raise UserError(f"--metrics=r_precision needs a run that draws captions, this is one of {run.paper}")
        self.judge = load(options.damsm_run) if options.damsm_run else run
        given = f"--damsm_run={options.damsm_run}" if options.damsm_run else f"--run_dir={options.run_dir}"
        if not hasattr(self.judge.recipe, "encode_pictures"):
            raise UserError(
                f"--metrics=r_precision: {given} holds no encoder of pictures: give --damsm_run=RUN of a DAMSM"
            )
        self.judge.config.need(
            f"--metrics=r_precision: {given}", *ENCODERS, advice="give --damsm_run=RUN of a DAMSM with both encoders"
        )
        others = _fewest_others(run, split)
        if others < metrics.CANDIDATES - 1:
            raise UserError(
                f"--metrics=r_precision: split {split.name} of {split.dataset.path} has {others} captions of other "
                f"pictures, {metrics.CANDIDATES - 1} are needed: give another --split or --data_dir"
            )
        self.source, self.encoder, self.seed = source, encoder_name(options), options.seed
        self._groups = source.pictures
        weights = {name: self.judge.recipe.networks[name].get_weights() for name in ENCODERS}
        self._sha256 = fingerprint(weights["text_encoder"] + weights["image_encoder"])
        against = getattr(run.recipe, "trained_against", ())
        known = [name for name in against if name not in run.config.untrained]
        self._flattered = bool(known) and all(
            fingerprint(run.recipe.networks[name].get_weights()) == fingerprint(weights[name]) for name in known
        )
        if self._flattered:
            logging.warning("r_precision: the judge is the encoder that this run was trained against: that flatters it")
        self._vectors: list[np.ndarray] = []

    def add(self, images: np.ndarray) -> None:
        """uint8 [B,S,S,3]."""
        self._vectors.append(self.judge.encode_pictures(images))

    def results(self) -> dict[str, dict]:
        """ "r_precision" -> what its line says."""
        folds = min(FOLDS, self.source.count)
        candidates = metrics.drawn_candidates(self.source.own, self._groups, seed=self.seed)
        looked_at, places = np.unique(candidates, return_inverse=True)
        vectors = self.judge.encode([self.source.captions[place] for place in looked_at])
        scores = metrics.r_precision(
            np.concatenate(self._vectors), vectors, places.reshape(candidates.shape), folds=folds
        )
        return {
            "r_precision": {
                **scores,
                "images": self.source.count,
                "folds": folds,
                "captions": len(self.source.captions),
                "encoder": self.encoder,
                "encoder_sha256": self._sha256,
                "trained_against_encoder": self._flattered,
            }
        }


def tells_captions(run: Run, split: records.Split) -> bool:
    """Whether R-precision has enough captions of other pictures to tell each picture's own from."""
    return _fewest_others(run, split) >= metrics.CANDIDATES - 1


def _fewest_others(run: Run, split: records.Split) -> int:
    """Captions that the run reads of other pictures, beside the picture that has the most."""
    counts = [len(of_one) for of_one in run.captions_of(split)]
    return sum(counts) - max(counts, default=0)


def attention_figure(run: Run, split: records.Split, count: int) -> np.ndarray:
    """Where each word of a caption looks in its picture (DAMSM), of `count` pictures of the split -> uint8 [H,W,3].

    Raises UserError for a run without such attention, and data without captions.
    """
    if not hasattr(run.recipe, "attend"):
        raise UserError(f"a run of {run.paper} has no attention: give the run of a DAMSM or an AttnGAN")
    split.check_captions("attention")
    captions = run.captions_of(split)
    described = np.flatnonzero([bool(of_one) for of_one in captions])
    chosen = described[np.linspace(0, len(described) - 1, min(count, len(described))).astype(int)]
    (images,) = run.views(split, len(chosen), chosen)
    shown = [captions[number][0] for number in chosen]
    return attention_pictures.matched(
        shown, [run.tokens(caption) for caption in shown], images, run.attend_pictures(images, shown)
    )


def _check_encoder(run: Run, metric: str) -> None:
    if not (hasattr(run.recipe, "encode_pictures") and hasattr(run.recipe, "encode_captions")):
        alone = " trained without pictures" if hasattr(run.recipe, "encode_captions") else ""
        raise UserError(f"--metrics={metric} needs a run of a text encoder, this is one of {run.paper}{alone}")
    run.config.need(f"--metrics={metric}", *ENCODERS, advice="give a run that holds both encoders")


def _image_vectors(run: Run, split: records.Split, chosen: np.ndarray | None = None) -> np.ndarray:
    return np.concatenate(
        [run.encode_pictures(pictures) for pictures in run.views(split, devices.rows_at_once(), chosen)]
    )


def _measure(run: Run):
    """Vectors of pictures [I, D] and of captions [J, D] -> float64 [I, J]: the recipe's own measure, or inner
    products."""
    if not hasattr(run.recipe, "similarity"):
        return metrics.inner_products

    def similarity(images, captions):
        return run.recipe.similarity(*(tf.constant(rows, tf.float64) for rows in (images, captions))).numpy()

    return similarity


def has_classes(split: records.Split) -> bool:
    return bool(split.caption_offsets[-1]) and len(np.unique(split.class_ids)) > 1
