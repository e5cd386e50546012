"""evaluate(run, metric, split) -> one line of scores.jsonl, which says how it was measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from t2i_tf.config import EvaluateConfig
from t2i_tf.data import pipeline, records
from t2i_tf.errors import UserError
from t2i_tf.evaluation import alignment, fidelity, metrics
from t2i_tf.inference import Run, load

VERSION = 1
ENOUGH_IMAGES = {"diversity": 32, "recall": 1000}
"""Pictures behind a score that is taken while training, where fewer do than for the others or more are needed."""
DIVERSITY_SEEDS, DIVERSITY_IMAGES = 4, 1000
"""Pictures of each caption, and the most pictures that are compared: pairs grow with their square."""


def caption_fidelity(run: Run, split: records.Split, options: EvaluateConfig) -> dict:
    """Share of generated flowers whose colours are those of their captions; `blossoms` only, no learned model."""
    if split.dataset.manifest["name"] != "blossoms":
        raise UserError("--metrics=caption_fidelity reads drawn flowers: it needs a data set of --source=blossoms")
    captions = [caption for of_image in split.captions() for caption in of_image]
    chosen = np.random.Generator(np.random.Philox(options.seed)).permutation(len(captions))[: options.num_images]
    captions = [captions[i] for i in chosen]
    images = run.generate(captions, list(range(options.seed, options.seed + len(captions))))[-1]
    return fidelity.caption_fidelity(images, captions)


def diversity(run: Run, split: records.Split, options: EvaluateConfig) -> dict:
    """Do generated pictures differ, with the noise and with the words, as real ones of the split do?

    See `metrics.diversity` for same_caption and across_captions; real is the mean distance of real pictures, as many
    as are generated where the split has them. Captions are of different pictures, four seeds each. A run without text
    has across_seeds instead. At most 1,000 pictures of each kind.
    """
    if run.recipe.kind != "gan":
        raise UserError(f"--metrics=diversity needs a run of a generator, this is one of {run.paper}")
    if run.takes_text and not split.caption_offsets[-1]:
        raise UserError(f"--metrics=diversity: {split.dataset.path} has no captions: give another --data_dir")
    count, seed = min(options.num_images, DIVERSITY_IMAGES), options.seed
    order = np.random.Generator(np.random.Philox(seed)).permutation(split.num_images)
    if run.takes_text:
        seeds = list(range(seed, seed + min(count, DIVERSITY_SEEDS)))
        captions = _different_captions(split, order, count // len(seeds))
        images = run.generate([c for c in captions for _ in seeds], seeds * len(captions))[-1]
        scores = metrics.diversity(images.reshape(len(captions), len(seeds), *images.shape[1:]))
        counts = {"captions": len(captions), "seeds": len(seeds)}
    else:
        images = run.generate(None, list(range(seed, seed + count)))[-1]
        scores, counts = {"across_seeds": metrics.mean_distance(images[None])}, {"seeds": count}
    size, box_crop = run.recipe.request.image_sizes[-1], run.config.training.box_crop
    views = pipeline.views(split, size, 64, box_crop=box_crop, chosen=order[:count])
    real = np.concatenate(list(views.as_numpy_iterator()))
    return {
        **scores,
        "real": metrics.mean_distance(real[None]),
        **counts,
        "real_images": len(real),
        "distance": f"rms of {metrics.DISTANCE_SIZE}x{metrics.DISTANCE_SIZE} area averages",
    }


def _different_captions(split: records.Split, order: np.ndarray, count: int) -> list[str]:
    """The first captions of pictures in this order, none twice; fewer than `count` where there are no more."""
    captions = split.captions()
    found = dict.fromkeys(captions[picture][0] for picture in order if captions[picture])
    return list(found)[:count]


METRICS = {
    "retrieval": alignment.retrieval,
    "recall": alignment.recall,
    "r_precision": alignment.r_precision,
    "caption_fidelity": caption_fidelity,
    "diversity": diversity,
}


def fitting(run: Run, split: records.Split) -> list[str]:
    """The metrics of a paper that this data set allows."""
    has_captions = bool(split.caption_offsets[-1])
    captions_go_in = has_captions and (run.text_encoder is not None or run.vocabulary is not None)
    fits = {
        "caption_fidelity": captions_go_in and split.dataset.manifest["name"] == "blossoms",
        "retrieval": alignment.has_classes(split),
        "recall": has_captions,
        "r_precision": captions_go_in and split.caption_offsets[-1] > metrics.CANDIDATES,
        "diversity": captions_go_in or not run.takes_text,
    }
    return [name for name in run.recipe.score_metrics if fits[name]]


def evaluate(run: Run, metric: str, split: records.Split, options: EvaluateConfig) -> dict:
    """One score with all that is needed to repeat it.

    Args:
        options: num_images, seed, and what else the metric reads.

    Raises UserError for an unknown metric, or one that does not fit the run or the data.
    """
    if metric not in METRICS:
        raise UserError(f"--metrics={metric}: must be one of {', '.join(METRICS)}")
    value = METRICS[metric](run, split, options)
    averaged = run.average is not None and run.average.swapped
    return {
        "metric": metric,
        "version": VERSION,
        "step": run.step,
        "weights": "ema" if averaged else "raw",
        "data": split.dataset.manifest["name"],
        "split": split.name,
        "seed": options.seed,
        **value,
    }


def evaluate_run(options: EvaluateConfig) -> Iterator[str]:
    """`t2i-evaluate`: scores a run folder, adds to its scores.jsonl, yields the lines to print. Raises UserError."""
    run = load(options.run_dir, options.weights, options.checkpoint)
    split = records.Dataset.open(options.data_dir or run.config.training.data_dir).split(options.split)
    names = fitting(run, split) if options.metrics == ("default",) else list(options.metrics)
    if not names:
        raise UserError(f"no metric fits a run of {run.paper} on {split.dataset.path}: name one with --metrics")
    for name in names:
        score = evaluate(run, name, split, options)
        path = append_score(Path(options.run_dir), score)
        yield json.dumps(score)
    yield f"added to {path}"


def append_score(run_dir: Path, score: dict) -> Path:
    """Adds a line to the run's scores.jsonl."""
    path = run_dir / "scores.jsonl"
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(score, ensure_ascii=False) + "\n")
    return path
