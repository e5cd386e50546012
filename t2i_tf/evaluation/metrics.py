"""Scores from arrays, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

PRECISION_DEPTHS = (1, 5, 10, 50)
RECALL_DEPTHS = (1, 5, 10)
CANDIDATES = 100
"""Captions from which R-precision tells a picture's own."""
DISTANCE_SIZE = 32
"""Pictures are compared at this size: what matters is what they show, not the grain of each pixel."""


def class_vectors(caption_vectors: np.ndarray, caption_classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean vector of all captions of all pictures of each class -> (vectors float64 [C, D], class ids [C]).

    Reed et al. (CVPR 2016), section 4: at test time a class is the mean of its captions.
    """
    classes = np.unique(caption_classes)
    vectors = np.stack([caption_vectors[caption_classes == c].astype(np.float64).mean(axis=0) for c in classes])
    return vectors, classes


def inner_products(images: np.ndarray, captions: np.ndarray) -> np.ndarray:
    """[I, D] and [J, D] -> float64 [I, J]."""
    return images.astype(np.float64) @ captions.astype(np.float64).T


def zero_shot_retrieval(
    image_vectors: np.ndarray,
    image_classes: np.ndarray,
    caption_vectors: np.ndarray,
    caption_classes: np.ndarray,
    similarity: Callable[[np.ndarray, np.ndarray], np.ndarray] = inner_products,
) -> dict[str, float]:
    """The two scores of char-CNN-RNN on classes never trained on.

    Args:
        image_vectors: [N, D]; image_classes: int [N]; caption_vectors: [M, D]; caption_classes: int [M].
        similarity: of vectors of pictures [N, D] and of classes [C, D] -> [N, C].

    Returns accuracy: share of pictures whose class is the most similar, over pictures; and precision_at_k, for each k
    of 1, 5, 10, 50 for which there are pictures: share of the right class among the k best pictures of a class, mean
    over classes (AP@k of the paper; a class with fewer than k pictures cannot reach 1). And what chance gives.
    """
    vectors, classes = class_vectors(caption_vectors, caption_classes)
    similarities = similarity(image_vectors, vectors)
    ranking = np.argsort(-similarities, axis=0, kind="stable")
    shares = np.array([np.mean(image_classes == c) for c in classes])
    scores = {
        "accuracy": float(np.mean(classes[similarities.argmax(axis=1)] == image_classes)),
        "accuracy_of_chance": 1.0 / len(classes),
        "precision_of_chance": float(shares.mean()),
    }
    for k in PRECISION_DEPTHS:
        if k <= len(image_classes):
            scores[f"precision_at_{k}"] = float(np.mean(image_classes[ranking[:k]] == classes[None, :]))
    return scores


def recall_both_ways(similarities: np.ndarray) -> dict[str, float]:
    """R@1, R@5 and R@10 of pairs: is its partner among the k nearest? [N, N], row i a picture, column i its caption.

    Returns image_to_text_k, of each picture among the captions, text_to_image_k, the other way, and mean_recall, the
    mean of the six. What is as near as the partner counts as nearer: who finds all alike finds nothing.
    """
    own = np.diag(similarities)
    scores = {}
    for way, axis, partner in (("image_to_text", 1, own[:, None]), ("text_to_image", 0, own[None])):
        ranks = np.sum(similarities >= partner, axis=axis)
        scores |= {f"{way}_{k}": float(np.mean(ranks <= k)) for k in RECALL_DEPTHS}
    return {**scores, "mean_recall": float(np.mean([*scores.values()]))}


def average_precision(scores: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """Average precision of each column: the mean, over what is true, of the precision among all ranked as high.

    scores: [N, K]; truths: bool [N, K]. Returns [K], NaN for a column without anything true. Of equal scores the ones
    further up come first.
    """
    order = np.argsort(-scores, axis=0, kind="stable")
    hits = np.take_along_axis(truths, order, axis=0)
    precisions = np.cumsum(hits, axis=0) / np.arange(1, len(hits) + 1)[:, None]
    count = hits.sum(axis=0)
    return np.divide((precisions * hits).sum(axis=0), count, out=np.full(len(count), np.nan), where=count > 0)


def area_average(images: np.ndarray, size: int, dtype=np.float32) -> np.ndarray:
    """[B, H, W, C] -> [B, size, size, C], computed in `dtype`: each new pixel is the mean of the area it covers."""
    batch, height, width, channels = images.shape
    rows = _overlaps(height, size, dtype) @ images.reshape(batch, height, width * channels).astype(dtype)
    columns = _overlaps(width, size, dtype) @ rows.reshape(batch * size, width, channels)
    return columns.reshape(batch, size, size, channels)


def _overlaps(length: int, size: int, dtype) -> np.ndarray:
    """[size, length]: the share that each pixel has in each new one."""
    edges, pixel = np.linspace(0, length, size + 1)[:, None], np.arange(length)
    overlap = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    return (np.clip(overlap, 0, None) * size / length).astype(dtype)


def mean_distance(groups: np.ndarray) -> float | None:
    """How much pictures of a group differ: uint8 [G, N, H, W, 3] -> mean over all pairs within each group.

    The distance of two pictures is the root mean square difference of their pixels in [0, 1], each picture an area
    average of 32 x 32 first: 0 for the same picture, 1 for black and white. None where a group has no pair.
    """
    count, size, *shape = groups.shape
    if size < 2 or not count:
        return None
    means = []
    for group in groups:
        parts = [area_average(group[i : i + 64], DISTANCE_SIZE, np.float64) for i in range(0, size, 64)]
        pixels = np.concatenate(parts).reshape(size, -1) / 255
        distances = [np.sqrt(np.mean((pixels[i + 1 :] - one) ** 2, axis=1)) for i, one in enumerate(pixels)]
        means.append(np.concatenate(distances).mean())
    return float(np.mean(means))


def diversity(images: np.ndarray) -> dict[str, float | None]:
    """Do pictures vary with the noise, and with the words? uint8 [captions, seeds, H, W, 3], the noise in the columns.

    Returns mean distances (see `mean_distance`): same_caption, of pictures of one caption and several seeds, None with
    one seed; across_captions, of pictures of several captions and one seed, None with one caption. same_caption near 0
    is a collapse: the noise changes nothing. across_captions near 0 is text ignored: with the same noise, other words
    make the same picture. How far real pictures are from each other is the yardstick for both.
    """
    return {"same_caption": mean_distance(images), "across_captions": mean_distance(images.swapaxes(0, 1))}


def nearest_rows(queries: np.ndarray, parts: Iterable[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` nearest of many rows to each query, in L2 distance; the rows pass in parts and are not kept.

    Args:
        queries: [Q, F]; parts: arrays [B, F], together the N rows in order.

    Returns distances float64 [Q, K] and row numbers int64 [Q, K], nearest first, the earlier row first among equals; K
    is `count`, or N where there are fewer.
    """
    queries = queries.astype(np.float64)  # in float32 the products below lose what two close rows differ by
    squares = np.sum(queries**2, axis=1, keepdims=True)
    best, rows, start = np.zeros([len(queries), 0]), np.zeros([len(queries), 0], np.int64), 0
    for part in parts:
        part = part.astype(np.float64)
        distances = squares + np.sum(part**2, axis=1) - 2 * queries @ part.T
        numbers = np.broadcast_to(np.arange(start, start + len(part)), distances.shape)
        best, rows = np.concatenate([best, distances], axis=1), np.concatenate([rows, numbers], axis=1)
        order = np.argsort(best, axis=1, kind="stable")[:, :count]
        best, rows = np.take_along_axis(best, order, axis=1), np.take_along_axis(rows, order, axis=1)
        start += len(part)
    return np.sqrt(np.maximum(best, 0)), rows


def drawn_candidates(
    own: np.ndarray, caption_groups: np.ndarray, candidates: int = CANDIDATES, seed: int = 0
) -> np.ndarray:
    """Captions from which R-precision tells the own ones: mismatching ones, drawn anew for each, without replacement.

    Args:
        own: int [N], the places of the own captions; caption_groups: int [M]: a caption matches its whole group (the
            captions of one real picture, or of one class), from which no other candidates are drawn.

    Returns places int [N, candidates], the own one last. Raises ValueError when a group leaves too few others.
    """
    order = np.argsort(caption_groups, kind="stable")
    ordered_groups = np.asarray(caption_groups)[order]
    rng = np.random.Generator(np.random.Philox(seed))
    found = np.empty([len(own), candidates], np.int64)
    for row, caption in zip(found, own, strict=True):
        start, end = np.searchsorted(ordered_groups, caption_groups[caption] + np.array([0, 1]))
        others = len(order) - (end - start)
        if others < candidates - 1:
            raise ValueError(f"{others} mismatching captions: {candidates - 1} are needed")
        drawn = rng.choice(others, candidates - 1, replace=False, shuffle=False)
        row[:-1] = order[np.where(drawn < start, drawn, drawn + end - start)]  # past the picture's own group
        row[-1] = caption
    return found


def r_precision(
    image_vectors: np.ndarray, caption_vectors: np.ndarray, candidates: np.ndarray, folds: int = 10
) -> dict[str, float]:
    """R-precision with R = 1 (AttnGAN, section 4): is a picture's own caption the nearest of its candidates?

    Near is a large cosine. A picture for which k captions, its own among them, are equally near counts 1/k, so that an
    encoder that gives everything the same vector scores no better than chance. The authors published no program for it.

    Args:
        image_vectors: [N, D] of generated pictures; caption_vectors: [M, D].
        candidates: int [N, K], places in caption_vectors, see `drawn_candidates`.
        folds: the pictures are split into so many, in their order.

    Returns r_precision and r_precision_deviation, mean and standard deviation (divisor `folds`) over the folds, and
    r_precision_of_chance, 1 / K.

    Raises ValueError when there are fewer pictures than folds.
    """
    if len(image_vectors) < folds:
        raise ValueError(f"{len(image_vectors)} pictures cannot be split into {folds} folds")
    images, captions = _directions(image_vectors), _directions(caption_vectors)
    hits = np.zeros(len(images))
    for row, (image, places) in enumerate(zip(images, candidates, strict=True)):
        nearness = captions[places] @ image
        nearest = nearness > nearness.max() - 1e-12
        hits[row] = nearest[-1] / nearest.sum()
    scores = [fold.mean() for fold in np.array_split(hits, folds)]
    return {
        "r_precision": float(np.mean(scores)),
        "r_precision_deviation": float(np.std(scores)),
        "r_precision_of_chance": 1.0 / candidates.shape[1],
    }


def _directions(vectors: np.ndarray) -> np.ndarray:
    """float64 vectors of length 1; zero vectors stay."""
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
