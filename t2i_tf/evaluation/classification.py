"""How well classifiers, of classes or of words, know pictures they were not trained on."""

from __future__ import annotations

import numpy as np

from t2i_tf import devices
from t2i_tf.config import EvaluateConfig
from t2i_tf.data import pipeline, records, sampling, text
from t2i_tf.errors import UserError
from t2i_tf.evaluation import metrics
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
    ranks, at_once = [], devices.rows_at_once()
    views = pipeline.views(own, hyperparameters.image_size, at_once, box_crop=training.box_crop, chosen=held_out)
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


def word_precision(run: Run, split: records.Split, options: EvaluateConfig) -> dict:
    """Mean average precision of words: how well pictures are ranked by whether a caption of theirs has the word.

    Over the words that some pictures of the split have and others have not. Beside it that of chance, the share of the
    pictures that have a word.
    """
    if not hasattr(run.recipe, "tell_words"):
        raise UserError(f"--metrics=word_precision needs a run of visual_words, this is one of {run.paper}")
    split.check_captions("--metrics=word_precision")
    places = {word: place for place, word in enumerate(run.vocabulary)}
    said = np.zeros([split.num_images, len(places)], bool)
    for row, captions in zip(said, split.captions(), strict=True):
        row[[places[word] for caption in captions for word in text.words(caption) if word in places]] = True
    size, at_once = run.recipe.hyperparameters.image_size, devices.rows_at_once()
    views = pipeline.views(split, size, at_once, box_crop=run.config.training.box_crop)
    scores = np.concatenate([run.tell_words(pictures) for pictures in views.as_numpy_iterator()])
    telling = said.any(axis=0) & ~said.all(axis=0)
    if not telling.any():
        raise UserError(f"--metrics=word_precision: no word of {split.dataset.path} tells its pictures apart")
    return {
        "mean_average_precision": float(np.mean(metrics.average_precision(scores[:, telling], said[:, telling]))),
        "precision_of_chance": float(np.mean(said[:, telling])),
        "images": len(said),
        "words": int(telling.sum()),
    }
