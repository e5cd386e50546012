"""Scores from arrays, in float64."""

from __future__ import annotations

import numpy as np

PRECISION_DEPTHS = (1, 5, 10, 50)


def class_vectors(caption_vectors: np.ndarray, caption_classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean vector of all captions of all pictures of each class -> (vectors float64 [C, D], class ids [C]).

    Reed et al. (CVPR 2016), section 4: at test time a class is the mean of its captions.
    """
    classes = np.unique(caption_classes)
    vectors = np.stack([caption_vectors[caption_classes == c].astype(np.float64).mean(axis=0) for c in classes])
    return vectors, classes


def zero_shot_retrieval(
    image_vectors: np.ndarray, image_classes: np.ndarray, caption_vectors: np.ndarray, caption_classes: np.ndarray
) -> dict[str, float]:
    """The two scores of char-CNN-RNN on classes never trained on.

    Args:
        image_vectors: [N, D]; image_classes: int [N]; caption_vectors: [M, D]; caption_classes: int [M].

    Returns accuracy: share of pictures whose class has the largest dot product, over pictures; and precision_at_k, for
    each k of 1, 5, 10, 50 that no class is smaller than: share of the right class among the k best pictures of a class,
    mean over classes. And what chance gives.
    """
    vectors, classes = class_vectors(caption_vectors, caption_classes)
    similarities = image_vectors.astype(np.float64) @ vectors.T
    ranking = np.argsort(-similarities, axis=0, kind="stable")
    shares = np.array([np.mean(image_classes == c) for c in classes])
    smallest = int(round(shares.min() * len(image_classes)))
    scores = {
        "accuracy": float(np.mean(classes[similarities.argmax(axis=1)] == image_classes)),
        "accuracy_of_chance": 1.0 / len(classes),
        "precision_of_chance": float(shares.mean()),
    }
    for k in PRECISION_DEPTHS:
        if k <= smallest or k == 1:
            scores[f"precision_at_{k}"] = float(np.mean(image_classes[ranking[:k]] == classes[None, :]))
    return scores
