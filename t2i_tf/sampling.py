"""`t2i-sample`: captions -> labelled grids and single pictures of a trained run. (Captioners: see `describing`.)

A grid has a caption in each row and a noise seed in each column: along a row the words are fixed and the noise varies,
down a column the noise is fixed and the words vary, since noise follows from its seed alone. The other modes have a row
for each caption and seed, with all scales of one picture or the training pictures nearest to it, or go from one caption
or seed to another.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from t2i_tf import attention_pictures, describing, devices, film, pictures
from t2i_tf.config import SampleConfig
from t2i_tf.data import text
from t2i_tf.errors import UserError
from t2i_tf.evaluation import alignment, captioning, neighbors
from t2i_tf.inference import Run, load
from t2i_tf.progress import ProgressLine

DEFAULT_CAPTIONS = 8
COLUMNS = 8
"""Pictures in a row of a grid without captions."""


def parse_seeds(seeds: str) -> list[int]:
    """ "0-3,9" -> [0, 1, 2, 3, 9]. Raises UserError."""
    numbers = []
    for part in seeds.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise UserError(f"--seeds={seeds}: write numbers and ranges, e.g. 0-7 or 1,5,9")
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return numbers


def captions_of(options: SampleConfig, run: Run) -> list[str]:
    """The captions asked for, or some of the test split that the run never saw; none for a run without text.

    Raises UserError.
    """
    if not run.takes_text:
        if options.caption or options.captions_file:
            raise UserError(
                f"--run_dir={options.run_dir} was trained without text: leave --caption and --captions_file out"
            )
        return []
    if options.captions_file:
        return [*options.caption, *text.caption_lines(options.captions_file)]
    if options.caption:
        return list(options.caption)
    split = run.dataset(options, or_give="--caption").unseen()
    split.check_captions("no --caption is given")
    return run.some_captions(split, DEFAULT_CAPTIONS)


def _file_name(number: int, caption: str | None, seed: int, ending: str = "") -> str:
    """The number keeps captions apart that begin alike or differ in signs alone."""
    if caption is None:
        return f"seed{seed}{ending}.png"
    return f"{number:03d}-{pictures.file_stem(caption)}-seed{seed}{ending}.png"


def sample(options: SampleConfig) -> Iterator[str]:
    """Draws what the options ask for on all their devices; yields the lines to print. Raises UserError."""
    yield from devices.used_by(options.devices, _sampled(options))


def _sampled(options: SampleConfig) -> Iterator[str]:
    seeds = None if options.seeds is None else parse_seeds(options.seeds)
    if not 0.0 <= options.truncation <= 1.0:
        raise UserError(f"--truncation={options.truncation}: give a number from 0 to 1")
    run = load(options.run_dir, options.weights, options.checkpoint, judges=options.mode == "nearest")
    if run.describes:
        yield from describing.describe(run, options)
        return
    if options.images:
        raise UserError(
            f"--images: --run_dir={options.run_dir} is a run of {run.paper}, which describes no pictures: give the run "
            "of a captioner"
        )
    if options.attention and run.recipe.kind != "gan":
        yield from _attention_of_pairs(run, options)
        return
    if run.recipe.kind != "gan":
        raise UserError(
            f"--run_dir={options.run_dir} is a run of {run.paper}, which draws no pictures: give the run of a generator"
        )
    if options.mode == "nearest":
        run.config.need(
            f"--mode=nearest: --run_dir={options.run_dir}",
            [*run.recipe.discriminators][-1],
            advice="give a run of t2i-train, or import its discriminators along",
        )
        if not (options.data_dir or run.config.training.data_dir):
            raise UserError(f"--mode=nearest: --run_dir={options.run_dir} was imported: give --data_dir")
    captions, out = captions_of(options, run), Path(options.out)
    if options.film:
        yield from film.film(run, captions, seeds, options)
        return
    if seeds is None:
        single = options.attention or options.mode in ("scales", "nearest", "change_word", "round_trip")
        seeds = [0] if captions and single else list(range(8))
    modes = {
        "grid": _grid if run.takes_text else _grid_without_text,
        "scales": _scales,
        "nearest": _nearest,
        "interpolate_text": _interpolate_text,
        "interpolate_noise": _interpolate_noise,
        "change_word": _change_word,
        "round_trip": _round_trip,
    }
    draw = _attention if options.attention else modes[options.mode]
    yield from draw(run, captions, seeds, options, out)
    caption = f" --caption={shlex.quote(captions[0])}" if captions else ""
    yield f"next: t2i-sample --run_dir={options.run_dir}{caption} --seeds=0-7 --out={out}"


def _enlargement(images: np.ndarray) -> int:
    return max(1, 128 // images.shape[-2])


def _grid(run, captions, seeds, options, out):
    rows = [caption for caption in captions for _ in seeds]
    images = run.generate(rows, seeds * len(captions), options.truncation)[-1]
    images = images.reshape(len(captions), len(seeds), *images.shape[1:])
    grid = pictures.labelled_grid(images, captions, [f"seed {seed}" for seed in seeds], _enlargement(images))
    yield f"grid of {len(captions)} captions and {len(seeds)} seeds: {pictures.save(grid, out / 'grid.png')}"
    if options.single_files:
        for number, (caption, row) in enumerate(zip(captions, images, strict=True), 1):
            for seed, image in zip(seeds, row, strict=True):
                pictures.save(Image.fromarray(image), out / _file_name(number, caption, seed))
        yield f"{images.shape[0] * images.shape[1]} single pictures in {out}"


def _grid_without_text(run, captions, seeds, options, out):
    images = run.generate(None, seeds, options.truncation)[-1]
    starts = range(0, len(seeds), COLUMNS)
    columns = min(COLUMNS, len(seeds))
    rows = np.full([len(starts) * columns, *images.shape[1:]], 255, np.uint8)
    rows[: len(images)] = images
    labels = ["seeds " + ", ".join(map(str, seeds[start : start + columns])) for start in starts]
    grid = pictures.labelled_grid(
        rows.reshape(len(starts), columns, *images.shape[1:]), labels, None, _enlargement(images)
    )
    yield f"grid of {len(seeds)} seeds: {pictures.save(grid, out / 'grid.png')}"
    if options.single_files:
        for seed, image in zip(seeds, images, strict=True):
            pictures.save(Image.fromarray(image), out / _file_name(0, None, seed))
        yield f"{len(seeds)} single pictures in {out}"


def _each(captions: list[str], seeds: list[int]) -> tuple[list[str] | None, list[int], list[str]]:
    """-> a caption, a seed and a label for each caption and seed; the captions are None without text."""
    if not captions:
        return None, seeds, [f"seed {seed}" for seed in seeds]
    pairs = [(caption, seed) for caption in captions for seed in seeds]
    rows, noise = map(list, zip(*pairs, strict=True))
    return rows, noise, [f"seed {seed}: {caption}" for caption, seed in pairs]


def _scales(run, captions, seeds, options, out):
    """A row a caption and seed, a column a scale, all shown at one size."""
    rows, noise, labels = _each(captions, seeds)
    scales = run.generate(rows, noise, options.truncation)
    sizes = [scale.shape[-2] for scale in scales]
    shown = sizes[-1] * _enlargement(scales[-1])
    images = np.stack([pictures.enlarged(scale, shown) for scale in scales], axis=1)
    grid = pictures.labelled_grid(images, labels, [str(size) for size in sizes])
    names = ", ".join(map(str, sizes))
    yield f"scales of {names} pixels: {pictures.save(grid, out / 'scales.png')}"
    if options.single_files:
        for size, scale in zip(sizes, scales, strict=True):
            for row, image in enumerate(scale):
                caption, number = (rows[row], row // len(seeds) + 1) if rows else (None, 0)
                pictures.save(Image.fromarray(image), out / _file_name(number, caption, noise[row], f"-{size}"))
        yield f"{len(noise) * len(sizes)} single pictures in {out}"


def _nearest(run, captions, seeds, options, out):
    """A row a caption and seed: the sample, and the training pictures nearest to it with their distances."""
    dataset = run.dataset(options)
    rows, noise, labels = _each(captions, seeds)
    samples = run.generate(rows, noise, options.truncation)[-1]
    found = neighbors.nearest(run, dataset, samples, options.neighbors, ProgressLine())
    images = np.concatenate([samples[:, None], found.pictures], axis=1)
    titles = ["sample", "nearest", *map(str, range(2, images.shape[1]))]
    notes = [["", *(f"{distance:#.4g}" for distance in row)] for row in found.distances]
    grid = pictures.labelled_grid(images, labels, titles, _enlargement(images), notes)
    path = pictures.save(grid, out / "nearest.png")
    yield f"samples and the nearest of {found.searched:,} training pictures: {path}"
    for label, distances, names in zip(labels, found.distances, found.names, strict=True):
        yield f"  {label}: " + ", ".join(f"{d:#.4g} {name}" for d, name in zip(distances, names, strict=True))
    line = f"mean distance to the nearest training picture: samples {found.distances[:, 0].mean():#.4g}"
    if len(found.held_out):
        line += f", {len(found.held_out)} unseen test pictures {found.held_out.mean():#.4g}"
        line += " (samples learned by heart would be far nearer than unseen pictures are)"
    yield line


def _interpolate_text(run, captions, seeds, options, out):
    if not run.takes_text:
        raise UserError(
            f"--mode=interpolate_text: --run_dir={options.run_dir} was trained without text: give "
            "--mode=interpolate_noise"
        )
    if len(captions) < 2:
        raise UserError("--mode=interpolate_text needs two captions: repeat --caption")
    images = run.interpolate_text(captions[0], captions[1], options.interpolation_steps, seeds, options.truncation)
    grid = pictures.labelled_grid(images, [f"seed {seed}" for seed in seeds], None, _enlargement(images))
    yield f'from "{captions[0]}" (left) to "{captions[1]}" (right): {pictures.save(grid, out / "interpolate_text.png")}'


def _interpolate_noise(run, captions, seeds, options, out):
    if len(seeds) < 2:
        raise UserError("--mode=interpolate_noise needs two seeds: e.g. --seeds=0-1")
    caption = captions[0] if captions else None
    images = run.interpolate_noise(caption, options.interpolation_steps, seeds, options.truncation)
    labels = [f"seed {a} to {b}" for a, b in zip(seeds[:-1], seeds[1:], strict=True)]
    grid = pictures.labelled_grid(images, labels, None, _enlargement(images))
    title = "noise" if caption is None else f'noise of "{caption}"'
    yield f"{title}: {pictures.save(grid, out / 'interpolate_noise.png')}"


def _round_trip(run, captions, seeds, options, out):
    """A row a caption and seed: the caption, its picture, and the caption that a captioner reads in it."""
    if not run.takes_text:
        raise UserError(f"--mode=round_trip: --run_dir={options.run_dir} was trained without text: nothing to compare")
    captioner = captioning.load_captioner(options.captioner_run, "--mode=round_trip")
    rows, noise, labels = _each(captions, seeds)
    images = run.generate(rows, noise, options.truncation)[-1]
    read = captioner.describe(images, options.beam_size, options.length_normalised).captions
    grid = pictures.labelled_grid(images[:, None], labels, None, _enlargement(images), right_labels=read)
    yield f"captions, their pictures and the captions read back: {pictures.save(grid, out / 'round_trip.png')}"
    for label, caption in zip(labels, read, strict=True):
        yield f"  {label}\n    read back: {caption}"


def _attention(run, captions, seeds, options, out):
    rows, noise, labels = _each(captions, seeds)
    images, attention = run.attend(rows or [], noise, options.truncation)
    figure = attention_pictures.generated(labels, [run.tokens(caption) for caption in rows], images, attention)
    path = pictures.save(Image.fromarray(figure), out / "attention.png")
    yield f"scales and the words looked at most, of {len(labels)} pictures: {path}"


def _attention_of_pairs(run, options):
    split = run.dataset(options).unseen()
    figure = alignment.attention_figure(run, split, DEFAULT_CAPTIONS)
    path = pictures.save(Image.fromarray(figure), Path(options.out) / "attention.png")
    yield f"where each word looks, of {DEFAULT_CAPTIONS} pictures of split {split.name}: {path}"
    yield f"next: t2i-evaluate --run_dir={options.run_dir}"


def parse_changes(changes: tuple[str, ...], caption: str) -> list[tuple[str, str]]:
    """("red=blue",) -> [("red", "blue")]. Raises UserError for another form or a word that the caption lacks."""
    found = []
    for change in changes:
        old, equals, new = (part.strip() for part in change.partition("="))
        if not (old and equals and new):
            raise UserError(f"--change={change}: write old=new, e.g. --change=red=blue")
        if not _word(old).search(caption):
            raise UserError(f'--change={change}: the caption "{caption}" has no word "{old}"')
        found.append((old, new))
    return found


def _word(word: str) -> re.Pattern:
    return re.compile(rf"\b{re.escape(word)}\b", re.IGNORECASE)


def _change_word(run, captions, seeds, options, out):
    """A row the caption and each changed one, a column a seed; with attention, beside each picture the last stage's
    for the word that is changed."""
    changes = parse_changes(options.change, captions[0]) if captions else []
    if not changes:
        raise UserError("--mode=change_word needs --caption and --change=old=new")
    changed = [captions[0], *(_word(old).sub(lambda _, new=new: new, captions[0]) for old, new in changes)]
    words = [changes[0][0], *(new for _, new in changes)]
    rows, noise = [c for c in changed for _ in seeds], seeds * len(changed)
    titles = [f"seed {seed}" for seed in seeds]
    if hasattr(run.recipe, "attend"):
        scales, attention = run.attend(rows, noise, options.truncation)
        images, columns = scales[-1], []
        for row, (caption, picture) in enumerate(zip(rows, images, strict=True)):
            tokens, word = run.tokens(caption), text.words(words[row // len(seeds)])
            weights = sum(attention[-1][row][..., i] for i, token in enumerate(tokens) if token in word)
            light = attention_pictures.word_map(np.broadcast_to(weights, attention[-1].shape[1:3]), len(picture), 0.0)
            columns += [picture, pictures.overlaid(picture, light)]
        images, titles = np.stack(columns), [title for seed in titles for title in (seed, "attention")]
    else:
        images = run.generate(rows, noise, options.truncation)[-1]
    grid = images.reshape(len(changed), len(titles), *images.shape[1:])
    path = pictures.save(pictures.labelled_grid(grid, changed, titles, _enlargement(images)), out / "change_word.png")
    yield f"one word changed, the noise fixed: {path}"
