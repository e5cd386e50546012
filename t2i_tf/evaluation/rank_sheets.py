"""Draws the sheets of a human ranking: the same captions and noise seeds for every method, files that tell nothing.

All pictures of a set of sheets have one size, that of the largest: smaller ones are enlarged (bicubic), so that neither
a browser nor a file gives away which method draws 64 pixels. Blur remains visible, as it is part of the quality.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import secrets
import shutil
from itertools import zip_longest
from pathlib import Path

import numpy as np
from PIL import Image

from t2i_tf import inference
from t2i_tf.config import HumanRankConfig, RunConfig
from t2i_tf.data import images, records, text
from t2i_tf.errors import UserError
from t2i_tf.evaluation.human_rank import PICTURES, Method, Sheets, asked
from t2i_tf.evaluation.sources import KINDS
from t2i_tf.progress import ProgressLine

DEFAULTS = {
    "split": "test",
    "per_class": False,
    "pictures_each": 1,
    "seed": 0,
    "weights": "best",
    "checkpoint": "best",
}
NUM_CAPTIONS = 50
AT_ONCE = 16
"""Captions whose pictures are in memory together."""
GAP = 8
"""Pixels between pictures of one method and caption."""


class _Run:
    """A run as a method: it draws."""

    def __init__(self, path: str, options: HumanRankConfig):
        self.run = inference.load(path, options.weights, options.checkpoint, judges=False)
        if self.run.recipe.kind != "gan":
            raise UserError(f"--run_dirs={path}: a run of {self.run.paper} draws no pictures: give runs of generators")
        if not self.run.takes_text:
            raise UserError(f"--run_dirs={path} was trained without text: it draws nothing for a caption, leave it out")
        self.size = self.run.recipe.request.image_sizes[-1]
        self.step, self.weights = self.run.step, self.run.weights_used

    def pictures(self, captions: list[str], lines: list[int], seeds: list[int]) -> np.ndarray:
        """A caption, the number of its line and a noise seed for each -> uint8 [N,S,S,3]."""
        return self.run.generate(captions, seeds)[-1]


class _Folder:
    """Pictures of another system as a method: those of a caption follow each other in the order of their names."""

    step = weights = None

    def __init__(self, path: str, captions: list[str] | None, chosen: list[int], each: int):
        self.files, self.each = sorted(_files(path), key=_natural), each
        if captions is None:
            raise UserError(
                f"--run_dirs={path} is a folder of pictures: say by --captions_file which captions they are of"
            )
        if len(self.files) != each * len(captions):
            raise UserError(
                f"--run_dirs={path} holds {len(self.files):,} pictures, but --captions_file has {len(captions):,} "
                f"captions of {each} each (--pictures_each)"
            )
        self.size = max(len(self._opened(file)) for line in chosen for file in self._of(line))

    def _of(self, line: int) -> list[Path]:
        return self.files[line * self.each : (line + 1) * self.each]

    def _opened(self, file: Path) -> np.ndarray:
        picture = images.opened(file)
        if isinstance(picture, images.BadImage):
            raise UserError(f"{file}: {picture.reason}: make it again")
        if picture.width != picture.height:
            raise UserError(f"{file} is {picture.width}x{picture.height} pixels: pictures to rank must be square")
        return np.asarray(picture)

    def pictures(self, captions: list[str], lines: list[int], seeds: list[int]) -> list[np.ndarray]:
        """See `_Run.pictures`; sizes may differ."""
        return [self._opened(file) for line in dict.fromkeys(lines) for file in self._of(line)]


def _files(path: str) -> list[Path]:
    return [file for file in Path(path).iterdir() if file.suffix.lower() in KINDS]


def _natural(file: Path) -> list:
    """2.png before 10.png."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.name.lower())]


def prepare(options: HumanRankConfig) -> str:
    """Draws the pictures and writes the folder of --sheets, whole or not at all; -> a line that says what is in it.

    Raises UserError: fewer than two methods, runs that draw nothing for a caption or were trained on different data
    sets, folders whose pictures do not go with the captions, a folder that holds something else.
    """
    given = asked(options)
    options = dataclasses.replace(
        options, **{name: value for name, value in DEFAULTS.items() if getattr(options, name) is None}
    )
    folder = Path(options.sheets)
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"--sheets={folder} holds other files: give a new folder")
    _check(options)
    configs = {path: RunConfig.read(path) for path in options.run_dirs if _is_run(path)}
    from_file = text.caption_lines(options.captions_file) if options.captions_file else None
    data, captions, lines = _captions(options, from_file, [config.training.data_dir for config in configs.values()])
    folders = {
        path: _Folder(path, from_file, lines, options.pictures_each) for path in options.run_dirs if path not in configs
    }
    makers = [folders.get(path) or _Run(path, options) for path in options.run_dirs]
    methods = [
        Method(name, os.path.realpath(path), maker.step, maker.weights)
        for name, path, maker in zip(_names(options.run_dirs), options.run_dirs, makers, strict=True)
    ]
    sheets = Sheets(
        folder,
        options.seed,
        data,
        None if options.captions_file else options.split,
        options.pictures_each,
        methods,
        captions,
        [[secrets.token_hex(8) for _ in methods] for _ in captions],
        {"num_captions": len(captions) if from_file else NUM_CAPTIONS, **DEFAULTS, **given},
    )
    partial = Path(f"{os.path.realpath(folder)}{records.PARTIAL}-{os.getpid()}")
    try:
        (partial / PICTURES).mkdir(parents=True)
        _draw(sheets, makers, lines, partial / PICTURES)
        sheets.write(partial)
        os.rename(partial, folder)
    except OSError as error:
        raise UserError(
            f"--sheets={folder} cannot be written ({error.strerror or error}): make room or choose another"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return f"{len(captions)} sheets of {len(methods)} methods, seed {sheets.seed}: {folder}"


def _check(options: HumanRankConfig) -> None:
    real = [os.path.realpath(path) for path in options.run_dirs]
    if len(set(real)) < 2 or len(set(real)) < len(real):
        raise UserError(f"--run_dirs={','.join(options.run_dirs)}: give two or more, none twice")
    if options.captions_file and (options.data_dir or options.per_class):
        raise UserError("--captions_file has captions of its own: leave --data_dir and --per_class out")


def _is_run(path: str) -> bool:
    """Else it is a folder of pictures."""
    if not Path(path).is_dir():
        raise UserError(f"--run_dirs={path}: no such folder")
    is_run = (Path(path) / "config.json").is_file()
    if not is_run and not _files(path):
        raise UserError(f"--run_dirs={path} is no run folder (no config.json) and holds no pictures")
    return is_run


def _names(paths: tuple[str, ...]) -> list[str]:
    """The folders' names, or as much of their paths as tells them apart."""
    parts = [Path(os.path.realpath(path)).parts for path in paths]
    depth = next(n for n in range(1, max(map(len, parts)) + 1) if len({p[-n:] for p in parts}) == len(parts))
    return ["/".join(part[-depth:]) for part in parts]


def _captions(
    options: HumanRankConfig, from_file: list[str] | None, trained_on: list[str]
) -> tuple[str, list[str], list[int]]:
    """-> the data set's name, the captions of the sheets, and the numbers of their lines in --captions_file."""
    of_runs = {path: name for path in trained_on if path and (name := _data_name(path))}
    if len(set(of_runs.values())) > 1:
        names = " and ".join(sorted(set(of_runs.values())))
        raise UserError(f"--run_dirs: trained on different data sets, {names}: rank runs of one")
    rng = np.random.Generator(np.random.Philox(options.seed))
    if from_file is not None:
        count = options.num_captions or len(from_file)
        if count > len(from_file):
            raise UserError(f"--captions_file={options.captions_file} has {len(from_file)} captions, not {count}")
        lines = rng.permutation(len(from_file))[:count].tolist()
        name = next(iter(of_runs.values()), Path(options.captions_file).stem)
        return name, [from_file[line] for line in lines], lines
    path = options.data_dir or next(filter(None, trained_on), None)
    if not path:
        raise UserError("the captions to draw are missing: give --data_dir, or --captions_file")
    dataset = records.Dataset.open(path)
    name = dataset.manifest["name"]
    if others := set(of_runs.values()) - {name}:
        raise UserError(f"--data_dir={path} is {name}, the runs were trained on {others.pop()}: give theirs")
    captions = _drawn(dataset.split(options.split), options.num_captions or NUM_CAPTIONS, options.per_class, rng)
    return name, captions, list(range(len(captions)))


def _data_name(path: str) -> str | None:
    """None for a data set that is no longer there."""
    manifest = records.read_manifest(path)
    return manifest and manifest["name"]


def _drawn(split: records.Split, count: int, per_class: bool, rng: np.random.Generator) -> list[str]:
    """`count` captions, of each class or in all, none twice; every picture has its turn before one comes again."""
    of_picture, classes, found = split.captions(), np.unique(split.class_ids), {}
    if per_class and len(classes) < 2:
        raise UserError(f"--per_class: {split.dataset.path} has no classes: leave it out")
    groups = [range(len(of_picture))]
    if per_class:
        groups = [np.flatnonzero(split.class_ids == number) for number in classes]
    for group in groups:
        rounds = zip_longest(*(rng.permutation(of_picture[picture]).tolist() for picture in rng.permutation(group)))
        fresh = dict.fromkeys(c for captions in rounds for c in captions if c is not None and c not in found)
        if len(fresh) < count:
            which = f"a class of split {split.name!r}" if per_class else f"split {split.name!r}"
            raise UserError(
                f"--num_captions={count}: {which} of {split.dataset.path} has {len(fresh)} different captions: ask for "
                "fewer"
            )
        found |= dict.fromkeys(list(fresh)[:count])
    return rng.permutation(list(found)).tolist()


def _draw(sheets: Sheets, makers: list, lines: list[int], folder: Path) -> None:
    """Writes the pictures of all sheets."""
    each, size = sheets.pictures_each, max(maker.size for maker in makers)
    total, progress = len(sheets.captions) * len(makers) * each, ProgressLine()
    done = 0
    for number, maker in enumerate(makers):
        for start in range(0, len(sheets.captions), AT_ONCE):
            chosen = range(start, min(start + AT_ONCE, len(sheets.captions)))
            rows = [sheet for sheet in chosen for _ in range(each)]
            seeds = list(range(sheets.seed + each * start, sheets.seed + each * start + len(rows)))
            drawn = maker.pictures([sheets.captions[row] for row in rows], [lines[row] for row in rows], seeds)
            for place, sheet in enumerate(chosen):
                together = _together(drawn[place * each : (place + 1) * each], size)
                together.save(folder / f"{sheets.pictures[sheet][number]}.png")
            done += len(rows)
            progress(done, total)


def _together(pictures, size: int) -> Image.Image:
    """Pictures uint8 [N][S,S,3] of one method for a caption, side by side in rows, each of `size` pixels."""
    squares = [Image.fromarray(picture) for picture in pictures]
    squares = [s if s.width == size else s.resize((size, size), Image.Resampling.BICUBIC) for s in squares]
    if len(squares) == 1:
        return squares[0]
    columns = math.ceil(math.sqrt(len(squares)))
    width, height = (n * (size + GAP) - GAP for n in (columns, -(-len(squares) // columns)))
    sheet = Image.new("RGBA", (width, height))
    for place, square in enumerate(squares):
        row, column = divmod(place, columns)
        sheet.paste(square, (column * (size + GAP), row * (size + GAP)))
    return sheet
