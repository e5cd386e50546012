"""Where the pictures come from that are scored: a run draws them, or they lie in a folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from t2i_tf import devices
from t2i_tf.data import images, records
from t2i_tf.errors import UserError
from t2i_tf.inference import Run

AT_ONCE = 128
"""Pictures that are in memory together for each device, however many there are."""
KINDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")


class Drawn:
    """Pictures that a run draws of captions of a split; the same seed gives the same ones.

    Every caption has its turn before one comes again, in an order drawn anew each time; every picture has noise of its
    own. A run without text draws as many pictures.

    Raises UserError when the run draws nothing, or reads captions and the split has none.
    """

    def __init__(self, run: Run, split: records.Split, count: int, seed: int, metric: str):
        if run.recipe.kind != "gan":
            raise UserError(f"--metrics={metric} needs a run of a generator, this is one of {run.paper}")
        self.run, self.count, self.seed = run, count, seed
        self.image_size, self.box_crop = run.recipe.request.image_sizes[-1], run.config.training.box_crop
        self.captions, self.pictures = [], np.zeros(0, int)
        """All that the run reads, and int [captions] the picture of the split that each is of; none without text."""
        if run.takes_text:
            self.captions, self.pictures = run.all_captions(split, f"--metrics={metric}")
        self.own = None
        """int [count]: the place of each picture's caption among all; None without text."""
        if run.takes_text:
            rng = np.random.Generator(np.random.Philox(seed))
            rounds = -(-count // len(self.captions))
            self.own = np.concatenate([rng.permutation(len(self.captions)) for _ in range(rounds)])[:count]

    def batches(self) -> Iterator[np.ndarray]:
        """uint8 [<=AT_ONCE,S,S,3] of the largest scale, for each device."""
        at_once = AT_ONCE * devices.count()
        for start in range(0, self.count, at_once):
            stop = min(start + at_once, self.count)
            captions = None if self.own is None else [self.captions[place] for place in self.own[start:stop]]
            yield self.run.generate(captions, list(range(self.seed + start, self.seed + stop)))[-1]


class Folder:
    """The pictures anywhere below a folder, in random order: all, or `count` of them.

    They are of one size and square, as a generator makes them. Files of other kinds are passed over.

    Raises UserError for a folder without pictures or with fewer than asked for, and for a picture that is of another
    size or cannot be read, naming it.
    """

    def __init__(self, path: str, count: int | None, seed: int):
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(f"--images={path}: no such folder")
        there = sorted(file for file in self.path.rglob("*") if file.is_file())
        files = [file for file in there if file.suffix.lower() in KINDS]
        if not files:
            raise UserError(f"--images={path}: no pictures in it")
        if count is not None and count > len(files):
            raise UserError(f"--images={path} holds {len(files):,} pictures, --num_images={count} asks for more")
        if len(there) > len(files):
            logging.info("--images=%s: %d files are no pictures, passed over", path, len(there) - len(files))
        self.image_size = self._common_size(files)
        order = np.random.Generator(np.random.Philox(seed)).permutation(len(files))
        self._files = [files[place] for place in order[:count]]
        self.count = len(self._files)

    def _common_size(self, files: list[Path]) -> int:
        """Read from the files' heads, before anything is computed."""
        first = _opened(files[0]).size
        if first[0] != first[1]:
            raise UserError(f"{files[0]} is {first[0]}x{first[1]} pixels: the pictures to score must be square")
        for file in files:
            size = _opened(file).size
            if size != first:
                raise UserError(
                    f"{file} is {size[0]}x{size[1]} pixels, {files[0]} {first[0]}x{first[1]}: bring all to one size, "
                    "or move what is no sample out of the folder"
                )
        return first[0]

    def batches(self) -> Iterator[np.ndarray]:
        """uint8 [<=AT_ONCE,S,S,3], for each device."""
        at_once = AT_ONCE * devices.count()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for start in range(0, self.count, at_once):
                yield np.stack(list(pool.map(_pixels, self._files[start : start + at_once])))


def _opened(file: Path) -> Image.Image:
    try:
        with Image.open(file) as picture:
            return picture
    except Exception as error:  # a decoder may raise anything on damaged bytes
        raise UserError(f"{file}: {images.reason(error)}: remove it or make it again") from error


def _pixels(file: Path) -> np.ndarray:
    picture = images.opened(file)
    if isinstance(picture, images.BadImage):
        raise UserError(f"{file}: {picture.reason}: remove it or make it again")
    return np.asarray(picture)
