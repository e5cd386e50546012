"""evaluate(run, metric, split) -> one line of scores.jsonl, which says how it was measured."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from t2i_tf import checkpoints, devices
from t2i_tf.config import EvaluateConfig, RunConfig
from t2i_tf.data import records
from t2i_tf.errors import UserError
from t2i_tf.evaluation import (
    alignment,
    captioning,
    classification,
    fidelity,
    metrics,
    petals,
    realism,
    saved_pictures,
    score_file,
    sources,
)
from t2i_tf.inference import Run, load, restore
from t2i_tf.progress import ProgressLine

VERSION = 1
NUM_IMAGES = 1000
"""Pictures of a score where nothing else is said."""
POLL_SECONDS = 5.0
"""How often a run that is watched is asked for a new checkpoint."""
ENOUGH_IMAGES = {"diversity": 32, "recall": 1000, "captions": 1000}
"""Pictures behind a score that is taken while training, where fewer do than for the others or more are needed."""
DIVERSITY_SEEDS, DIVERSITY_IMAGES = 4, 1000
"""Pictures of each caption, and the most pictures that are compared: pairs grow with their square."""


def caption_fidelity(run: Run, split: records.Split, options: EvaluateConfig) -> dict:
    """Share of generated flowers whose colours are those of their captions; `blossoms` only, no learned model."""
    if split.dataset.manifest["name"] != "blossoms":
        raise UserError("--metrics=caption_fidelity reads drawn flowers: it needs a data set of --source=blossoms")
    captions, _ = run.all_captions(split, "--metrics=caption_fidelity")
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
    if run.takes_text:
        split.check_captions("--metrics=diversity")
    count, seed = min(options.num_images, DIVERSITY_IMAGES), options.seed
    order = np.random.Generator(np.random.Philox(seed)).permutation(split.num_images)
    if run.takes_text:
        seeds = list(range(seed, seed + min(count, DIVERSITY_SEEDS)))
        captions = _different_captions(run.captions_of(split), order, count // len(seeds))
        images = run.generate([c for c in captions for _ in seeds], seeds * len(captions))[-1]
        scores = metrics.diversity(images.reshape(len(captions), len(seeds), *images.shape[1:]))
        counts = {"captions": len(captions), "seeds": len(seeds)}
    else:
        images = run.generate(None, list(range(seed, seed + count)))[-1]
        scores, counts = {"across_seeds": metrics.mean_distance(images[None])}, {"seeds": count}
    real = np.concatenate(list(run.views(split, 64, order[:count])))
    return {
        **scores,
        "real": metrics.mean_distance(real[None]),
        **counts,
        "real_images": len(real),
        "distance": f"rms of {metrics.DISTANCE_SIZE}x{metrics.DISTANCE_SIZE} area averages",
    }


def _different_captions(captions: list[list[str]], order: np.ndarray, count: int) -> list[str]:
    """The first captions of pictures in this order, none twice; fewer than `count` where there are no more."""
    found = dict.fromkeys(captions[picture][0] for picture in order if captions[picture])
    return list(found)[:count]


METRICS = {
    "retrieval": alignment.retrieval,
    "recall": alignment.recall,
    "caption_fidelity": caption_fidelity,
    "diversity": diversity,
    "accuracy": classification.accuracy,
    "word_precision": classification.word_precision,
    "attention_on_petals": petals.attention_on_petals,
    "captions": captioning.captions,
    "round_trip": captioning.round_trip,
}
"""Those that see to their pictures themselves."""
PASSING = (*realism.METRICS, "r_precision")
"""Those that share the pictures a run draws: they are drawn once for all of them and not kept."""


def fitting(run: Run, split: records.Split, damsm_run: str | None = None) -> list[str]:
    """The metrics of a paper that this data set allows, and networks that an import brought.

    Args:
        damsm_run: judges r_precision in place of the run's own encoders.
    """
    has_captions = bool(split.caption_offsets[-1])
    captions_go_in = has_captions and (run.text_encoder is not None or run.vocabulary is not None)
    fits = {
        "caption_fidelity": captions_go_in and split.dataset.manifest["name"] == "blossoms",
        "retrieval": alignment.has_classes(split),
        "recall": has_captions,
        "r_precision": captions_go_in and run.recipe.kind == "gan" and alignment.tells_captions(run, split),
        "diversity": captions_go_in or not run.takes_text,
        "accuracy": hasattr(run.recipe, "classify"),
        "word_precision": has_captions,
        "attention_on_petals": has_captions and split.dataset.manifest["name"] == "blossoms",
        "captions": has_captions,
    }
    needed = {"generator"} if run.recipe.kind == "gan" else set(alignment.ENCODERS)
    judges = set() if damsm_run else set(alignment.ENCODERS)
    needs = {name: needed | (judges if name == "r_precision" else set()) for name in fits}
    return [name for name in run.recipe.score_metrics if fits[name] and not needs[name] & set(run.config.untrained)]


def evaluate(run: Run, metric: str, split: records.Split, options: EvaluateConfig) -> dict:
    """One score with all that is needed to repeat it, see `scores`."""
    (score,) = scores(run, [metric], split, options)
    return score


def scores(run: Run, names: list[str], split: records.Split, options: EvaluateConfig) -> Iterator[dict]:
    """Scores of a run, each with all that is needed to repeat it.

    Args:
        options: num_images, seed, and what else the metrics read.

    Raises UserError for an unknown metric, or one that does not fit the run or the data.
    """
    options = dataclasses.replace(options, num_images=options.num_images or NUM_IMAGES)
    for name in names:
        if name not in METRICS and name not in PASSING:
            raise UserError(f"--metrics={name}: must be one of {', '.join([*METRICS, *PASSING])}")
    made_by = {"step": run.step, "weights": run.weights_used}
    passing = [name for name in names if name in PASSING]
    if options.save_images is not None:
        saved_pictures.check(options.save_images)
        if not passing:
            raise UserError(f"--save_images keeps what {', '.join(PASSING)} draw: name one of them with --metrics")
    for name in names:
        if name in METRICS:
            yield _line(name, made_by, split, options, METRICS[name](run, split, options))
    if passing:
        source = sources.Drawn(run, split, options.num_images, options.seed, passing[0])
        for name, value in _passed(_scorers(run, passing, source, split, options), source).items():
            yield _line(name, made_by, split, options, value)


def scores_of_images(names: list[str], split: records.Split, options: EvaluateConfig) -> Iterator[dict]:
    """Scores of a folder of pictures, as `scores`."""
    unfit = [name for name in names if name not in realism.METRICS]
    if unfit:
        raise UserError(f"--metrics={unfit[0]}: pictures of a folder have {', '.join(realism.METRICS)} alone")
    source = sources.Folder(options.images, options.num_images, options.seed)
    options = dataclasses.replace(options, num_images=source.count)
    scorer = realism.Realism(names, source, split, bool(options.box_crop), options)
    for name, value in _passed([scorer], source).items():
        yield _line(name, {"images": options.images}, split, options, value)


def _scorers(run, names, source, split, options) -> list:
    """What the pictures pass by: everything that can be refused is refused before the first is drawn."""
    found = []
    if "r_precision" in names:
        found.append(alignment.RPrecision(run, source, split, options))
    seen = [name for name in names if name in realism.METRICS]
    if seen:
        box_crop = source.box_crop if options.box_crop is None else options.box_crop
        found.append(realism.Realism(seen, source, split, box_crop, options))
    if options.save_images is not None:
        found.append(saved_pictures.SavedPictures(options.save_images, source))
    return found


def _passed(scorers: list, source) -> dict[str, dict]:
    done, progress = 0, ProgressLine()
    for images in source.batches():
        for scorer in scorers:
            scorer.add(images)
        done += len(images)
        progress(done, source.count)
    return {name: value for scorer in scorers for name, value in scorer.results().items()}


def _line(name: str, made_by: dict, split: records.Split, options: EvaluateConfig, value: dict) -> dict:
    return {
        "metric": name,
        "version": VERSION,
        **made_by,
        "data": split.dataset.manifest["name"],
        "split": split.name,
        "num_images": options.num_images,
        "seed": options.seed,
        **value,
    }


def evaluate_run(options: EvaluateConfig) -> Iterator[str]:
    """`t2i-evaluate`: scores a run folder or a folder of pictures, adds to its scores.jsonl, yields the lines to print.

    Raises UserError.
    """
    if (options.run_dir is None) == (options.images is None):
        raise UserError("give one of --run_dir (a run folder) and --images (a folder of pictures)")
    if options.save_images is not None and (options.images is not None or options.watch):
        raise UserError("--save_images keeps what a run draws at one checkpoint: leave out --images and --watch")
    yield from devices.used_by(options.devices, _evaluated(options))


def _evaluated(options: EvaluateConfig) -> Iterator[str]:
    if options.images is not None:
        if options.data_dir is None or options.watch:
            raise UserError("--images needs --data_dir, the data set with the real pictures, and cannot be watched")
        names = realism.METRICS if options.metrics == ("default",) else options.metrics
        split = records.Dataset.open(options.data_dir).split(options.split)
        yield from _added(Path(options.images), scores_of_images(list(names), split, options))
        return
    if options.watch:
        yield from _watched(options)
        return
    run = load(options.run_dir, options.weights, options.checkpoint)
    split, names = _asked(run, options)
    yield from _added(Path(options.run_dir), scores(run, names, split, options))


def _asked(run: Run, options: EvaluateConfig) -> tuple[records.Split, list[str]]:
    split = run.dataset(options).split(options.split)
    names = fitting(run, split, options.damsm_run) if options.metrics == ("default",) else list(options.metrics)
    if not names:
        raise UserError(f"no metric fits a run of {run.paper} on {split.dataset.path}: name one with --metrics")
    return split, names


def _added(folder: Path, found: Iterator[dict]) -> Iterator[str]:
    path = folder / score_file.NAME
    for score in found:
        score_file.append(folder, score)
        yield json.dumps(score, ensure_ascii=False)
    yield f"added to {path}"


def _watched(options: EvaluateConfig) -> Iterator[str]:
    """The lines of every checkpoint from the oldest that is kept on; those already in scores.jsonl are left out.

    A checkpoint that is gone before its turn has come, or that cannot be read, is passed over with a warning.
    """
    folder, last, count = Path(options.run_dir), -1, 0
    RunConfig.read(folder)
    run = split = names = None
    if not checkpoints.steps(folder):
        logging.info("%s has no checkpoint yet: waiting", folder)
    try:
        while True:
            new = [step for step in checkpoints.steps(folder) if step > last]
            if not new:
                time.sleep(POLL_SECONDS)
                continue
            last = new[0]
            try:
                if run is None:
                    run = load(folder, options.weights, "newest")
                    split, names = _asked(run, options)
                restore(run, folder, last)
            except UserError as error:
                if run is None:
                    raise
                logging.warning("passed over: %s", error)
                continue
            left = [name for name in names if not _is_scored(folder, name, run, split, options)]
            if left:
                yield from _added(folder, scores(run, left, split, options))
            count += 1
    except KeyboardInterrupt:
        yield f"no longer watching {folder}; checkpoints seen: {count}"


def _is_scored(folder: Path, name: str, run: Run, split: records.Split, options: EvaluateConfig) -> bool:
    wanted = _line(name, {"step": run.step, "weights": run.weights_used}, split, options, {})
    wanted["num_images"] = options.num_images or NUM_IMAGES
    how = _how(name, split, options)
    return any(
        wanted.items() <= score.items() and all(score.get(key, value) == value for key, value in how.items())
        for score in score_file.read(folder)
    )


def _how(name: str, split: records.Split, options: EvaluateConfig) -> dict:
    """What the line of a metric says of how it was measured, beside what every line says; a line of a score without the
    package that cuts captions into tokens lacks the tokenization."""
    if name in realism.METRICS:
        count = split.num_images if options.real_images is None else options.real_images
        return {"real_images": 0 if name == "is" else count, **realism.described(options)}
    if name == "r_precision":
        return {"encoder": alignment.encoder_name(options)}
    if name == "captions":
        return captioning.described(options)
    if name == "round_trip":
        return {**captioning.described(options), "captioner_run": options.captioner_run}
    return {}
