"""Which word painted which pixel: the pictures of attention in AttnGAN (figures 4 and 5), as arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from t2i_tf import pictures

TOP_WORDS = 5
SMALLEST = 128
"""Pictures are shown at least so large."""


def word_map(weights: np.ndarray, size: int, threshold: float) -> np.ndarray:
    """Weights [h,w] of one word -> what is drawn of them, [size,size] in [0, 1].

    Weights up to the threshold are 0; the rest is smoothed and stretched so that its largest is 1. A word that is
    nowhere above the threshold gives zeros.
    """
    kept = pictures.smooth(np.where(weights > threshold, weights, 0.0), size)
    return kept / kept.max() if kept.max() > 0 else kept


def most_attended(attention: np.ndarray, words: int, threshold: float) -> list[int]:
    """Numbers of the words of a caption, [h,w,T] of which the first `words` are its own, the most attended first: by
    the sum of the weights above the threshold."""
    own = attention[..., :words]
    sums = np.where(own > threshold, own, 0.0).sum(axis=(0, 1))
    return np.argsort(-sums, kind="stable").tolist()


def stage_overlays(
    picture: np.ndarray, attention: np.ndarray, words: int, top: int = TOP_WORDS
) -> tuple[list[int], np.ndarray]:
    """The most attended words of one stage, each over the picture that the stage made.

    Weights up to 1/words are not drawn, what a word has where all are attended alike. (The published program takes
    twice that.)

    Args:
        picture: uint8 [S,S,3]; attention: [h,w,T], sums of 1 over the words; words: how many the caption has.

    Returns their numbers, at most `top`, and overlays uint8 [top or fewer,S,S,3].
    """
    threshold = 1.0 / max(words, 1)
    chosen, size = most_attended(attention, words, threshold)[:top], picture.shape[0]
    overlays = [pictures.overlaid(picture, word_map(attention[..., i], size, threshold)) for i in chosen]
    return chosen, np.stack(overlays)


def generated(
    captions: Sequence[str],
    tokens: Sequence[Sequence[str]],
    images: Sequence[np.ndarray],
    attention: Sequence[np.ndarray],
) -> np.ndarray:
    """Generated pictures and the words they looked at: for each caption a row of all scales, then one for each stage.

    Args:
        captions: [N]; tokens: the words of each that were read.
        images: uint8 [N,S,S,3] of every scale, small to large.
        attention: [N,h,w,T] of every stage: the k-th one made the picture after the k-th (or the only picture there
            is).

    Returns a picture uint8 [H,W,3].
    """
    size = max(SMALLEST, images[-1].shape[1])
    columns = max(len(images), min(TOP_WORDS, max(map(len, tokens))))
    rows, labels, notes = [], [], []

    def add(label, shown, names):
        blank = np.full([columns - len(shown), size, size, 3], 255, np.uint8)
        rows.append(np.concatenate([*(pictures.enlarged(one[None], size) for one in shown), blank]))
        labels.append(label)
        notes.append([*names, *[""] * len(blank)])

    for n, (caption, words) in enumerate(zip(captions, tokens, strict=True)):
        add(caption, [scale[n] for scale in images], [f"{scale.shape[1]} pixels" for scale in images])
        for k, weights in enumerate(attention):
            picture = images[min(k + 1, len(images) - 1)][n]
            picture = pictures.enlarged(picture, size)
            chosen, overlays = stage_overlays(picture, weights[n], len(words))
            place = f"attention of {weights.shape[1]} x {weights.shape[2]} places"
            add(place, overlays, [words[i] for i in chosen])
    return np.asarray(pictures.labelled_grid(np.stack(rows), labels, notes=notes))


def matched(
    captions: Sequence[str], tokens: Sequence[Sequence[str]], images: np.ndarray, attention: np.ndarray
) -> np.ndarray:
    """Real pictures and where each word of their captions looks (DAMSM): a row a pair, a column a word.

    Args:
        images: uint8 [N,S,S,3]; attention: [N,T,h,w], sums of 1 over the places.

    Returns a picture uint8 [H,W,3].
    """
    size = max(SMALLEST, images.shape[1])
    columns = 1 + max(map(len, tokens))
    rows, notes = [], []
    for image, words, weights in zip(pictures.enlarged(images, size), tokens, attention, strict=True):
        overlays = [pictures.overlaid(image, word_map(weights[i], size, 0.0)) for i in range(len(words))]
        blank = np.full([columns - 1 - len(words), size, size, 3], 255, np.uint8)
        rows.append(np.concatenate([np.stack([image, *overlays]), blank]))
        notes.append(["", *words, *[""] * len(blank)])
    return np.asarray(pictures.labelled_grid(np.stack(rows), list(captions), notes=notes))
