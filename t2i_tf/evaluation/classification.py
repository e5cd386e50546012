"""How well a classifier knows pictures it was not trained on."""

from __future__ import annotations

import numpy as np

from t2i_tf.config import EvaluateConfig
from t2i_tf.data import pipeline, records, sampling
from t2i_tf.errors import UserError
from t2i_tf.inference import Run


def accuracy(run: Run, split: records.Split, options: EvaluateConfig) -> dict:
    """Share of the pictures held out from training that are given their class, and for how many it is among five.

    All held-out pictures of the split that the run was trained on, whichever --split is asked for: those of other
    splits have classes that it does not know.
    """
    if not hasattr(run.recipe, "classify"):
        raise UserError(f"--metrics=accuracy needs a run of a classifier, this is one of {run.paper}")
    hyperparameters, training = run.recipe.hyperparameters, run.config.training
    own = split.dataset.split(hyperparameters.split)
    if own.dataset.manifest["splits"][own.name]["index"]["sha256"] != run.config.data_checksum:
        raise UserError(f"--metrics=accuracy: the run was trained on other data than {own.dataset.path}: give that")
    held_out = np.flatnonzero(sampling.held_out(own.class_ids, hyperparameters.held_out, training.seed))
    if not len(held_out):
        raise UserError("--metrics=accuracy: no picture was held out from training: train with --held_out=0.1")
    ranks = []
    views = pipeline.views(own, hyperparameters.image_size, 32, box_crop=training.box_crop, chosen=held_out)
    labels = np.searchsorted(run.recipe.class_ids, own.class_ids[held_out])
    for pictures in views.as_numpy_iterator():
        logits = run.classify(pictures)[1]
        truth = labels[len(ranks) : len(ranks) + len(logits), None]
        ranks.extend(np.sum(logits > np.take_along_axis(logits, truth, axis=1), axis=1))
    classes = len(run.recipe.class_ids)
    return {
        "accuracy": float(np.mean(np.equal(ranks, 0))),
        "accuracy_of_5": float(np.mean(np.less(ranks, 5))),
        "accuracy_of_chance": 1.0 / classes,
        "images": len(ranks),
        "classes": classes,
        "split": own.name,
    }
