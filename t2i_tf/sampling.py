"""`t2i-sample`: captions -> labelled grids and single pictures of a trained run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from t2i_tf import pictures
from t2i_tf.config import SampleConfig
from t2i_tf.data import records
from t2i_tf.errors import UserError
from t2i_tf.inference import Run, load

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
        try:
            lines = Path(options.captions_file).read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise UserError(
                f"--captions_file={options.captions_file} cannot be read ({error.strerror}): give a text file, one "
                "caption a line"
            ) from None
        except UnicodeDecodeError as error:
            raise UserError(
                f"--captions_file={options.captions_file} is not UTF-8 ({error}): save it as UTF-8"
            ) from None
        captions = [line.strip() for line in lines if line.strip()]
        if not captions:
            raise UserError(f"--captions_file={options.captions_file} holds no caption: write one a line")
        return [*options.caption, *captions]
    if options.caption:
        return list(options.caption)
    dataset = records.Dataset.open(run.config.training.data_dir)
    split = dataset.split("test" if "test" in dataset.manifest["splits"] else "train")
    captions = split.captions()
    places = np.linspace(0, len(captions) - 1, min(DEFAULT_CAPTIONS, len(captions))).astype(int)
    return [captions[place][0] for place in places]


def _file_name(number: int, caption: str, seed: int) -> str:
    """The number keeps captions apart that begin alike or differ in signs alone."""
    words = re.sub(r"[^a-z0-9]+", "-", caption.lower()).strip("-")[:60]
    return f"{number:03d}-{words}-seed{seed}.png"


def sample(options: SampleConfig) -> Iterator[str]:
    """Draws what the options ask for; yields the lines to print. Raises UserError."""
    seeds = parse_seeds(options.seeds)
    if not 0.0 <= options.truncation <= 1.0:
        raise UserError(f"--truncation={options.truncation}: give a number from 0 to 1")
    run = load(options.run_dir, options.weights)
    if run.recipe.kind != "gan":
        raise UserError(
            f"--run_dir={options.run_dir} is a run of {run.paper}, which draws no pictures: give the run of a generator"
        )
    captions, out = captions_of(options, run), Path(options.out)
    if options.mode == "interpolate_text":
        yield from _interpolate_text(run, captions, seeds, options, out)
    elif options.mode == "interpolate_noise":
        yield from _interpolate_noise(run, captions, seeds, options, out)
    elif run.takes_text:
        yield from _grid(run, captions, seeds, options, out)
    else:
        yield from _grid_without_text(run, seeds, options, out)
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


def _grid_without_text(run, seeds, options, out):
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
            pictures.save(Image.fromarray(image), out / f"seed{seed}.png")
        yield f"{len(seeds)} single pictures in {out}"


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
