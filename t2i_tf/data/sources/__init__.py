"""Readers of data sets: a folder in its official layout -> examples. Modules are found by name.

A reader is a module with `read(options: PrepareConfig) -> Source`. It opens lists and captions, never pictures; what
it finds wrong it gathers in a `Problems` and settles at once, so that one message names everything.
"""

from __future__ import annotations

import importlib
import os
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from PIL import Image

from t2i_tf.errors import UserError

SOURCES = {
    "blossoms": "t2i_tf.data.sources.blossoms",
    "coco": "t2i_tf.data.sources.coco",
    "cub": "t2i_tf.data.sources.cub",
    "flickr30k": "t2i_tf.data.sources.flickr",
    "flickr8k": "t2i_tf.data.sources.flickr",
    "folder": "t2i_tf.data.sources.folder",
    "imagenet": "t2i_tf.data.sources.imagenet",
    "lsun": "t2i_tf.data.sources.lsun",
    "oxford102": "t2i_tf.data.sources.oxford102",
}

WITHOUT_CAPTIONS = frozenset({"imagenet", "lsun"})
"""Sources that have none: --captions=none goes without saying."""

NOT_UTF8 = "pictures whose names are not UTF-8, which a data set cannot hold"

WITH_KARPATHY_SPLITS = frozenset({"coco", "flickr30k", "flickr8k"})


@dataclass(frozen=True, slots=True)
class Example:
    """One picture and what is said of it.

    `image` is a path, or a picklable callable that gives the content of a picture file or draws the picture. `box` is
    x, y, width, height in pixels of that picture. Captions are raw text; `prepare` cleans them.
    """

    split: str
    name: str
    captions: tuple[str, ...]
    class_name: str | None
    image: str | Callable[[], bytes | Image.Image]
    box: tuple[float, float, float, float] | None = None
    attributes: dict[str, str] | None = None


@dataclass(frozen=True)
class Source:
    """What a reader found. `notes` count and name what was left out or is odd; `info` says what it is and whence.

    Where there may be millions, `examples` is a sequence that makes each when it is asked for.
    """

    name: str
    examples: Sequence[Example]
    notes: list[str] = field(default_factory=list)
    info: dict = field(default_factory=dict)


def get(name: str) -> ModuleType:
    """The reader of that name. Raises UserError naming the known ones."""
    if name not in SOURCES:
        raise UserError(f"--source={name}: unknown; choose one of {', '.join(SOURCES)}")
    return importlib.import_module(SOURCES[name])


class Problems:
    """What is wrong with a source, by kind. With `allow_missing` it is left out and noted, else it is an error."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, kind: str, names: Iterable[object]) -> None:
        """`kind` is a plural, e.g. "caption files missing"."""
        for name in names:
            self._found.setdefault(kind, []).append(str(name))

    def settle(self, where: str | Path, allow_missing: bool) -> list[str]:
        """-> notes. Raises UserError naming the first five of each kind and their count."""
        lines = [f"{kind}: {len(names):,} ({some(names)})" for kind, names in self._found.items()]
        if lines and not allow_missing:
            raise UserError(f"{where}: {'; '.join(lines)}. Complete the files, or leave these out with --allow_missing")
        return [f"left out: {line}" for line in lines]


def is_utf8(name: str) -> bool:
    """Whether a name was UTF-8 on the disk."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def some(names: Sequence[str], limit: int = 5) -> str:
    """-> "a, b, c and 12 more"; bytes that are not UTF-8 as \\xe9."""
    shown = os.fsencode(", ".join(names[:limit])).decode("utf-8", "backslashreplace")
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit:,} more"


def source_folder(options) -> Path:
    """--source_dir as a path. Raises UserError when it is not given or not a folder."""
    if options.source_dir is None:
        raise UserError(f"--source_dir is missing: --source={options.source} reads the folder of the official files")
    folder = Path(options.source_dir)
    if not folder.is_dir():
        raise UserError(f"--source_dir={some([str(folder)])}: no such folder")
    if not is_utf8(os.path.realpath(folder)):
        raise UserError(f"--source_dir={some([str(folder)])}: the path is not UTF-8, rename its folders")
    return folder


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark. Raises UserError when missing or not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: put it there") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from None


def read_rows(path: Path, columns: int) -> list[list[str]]:
    """The lines of a list file split at blanks into so many columns; LF or CRLF, empty lines skipped.

    Raises UserError naming the line that has fewer columns; the last column takes the rest of a line.
    """
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        row = line.split(maxsplit=columns - 1)
        if row and len(row) != columns:
            raise UserError(f"{path}, line {number}: {len(row)} columns instead of {columns}; fetch the file again")
        if row:
            rows.append([cell.strip() for cell in row])
    return rows


def read_captions(path: Path, problems: Problems) -> tuple[str, ...]:
    """The lines of a caption file; what is wrong with it goes to `problems`."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except FileNotFoundError:
        problems.add("caption files missing", [path])
        return ()
    except UnicodeDecodeError:
        problems.add("caption files that are not UTF-8", [path])
        return ()
    if not any(line.strip() for line in lines):
        problems.add("caption files without a caption", [path])
        return ()
    return tuple(lines[:-1] if not lines[-1] else lines)


def evenly(examples: Sequence[Example], count: int | None) -> Sequence[Example]:
    """`count` of the examples in their order, spread evenly over each split in proportion to its size.

    All when `count` is None or larger. Raises UserError when there would be none for a split.
    """
    if count is None or count >= len(examples):
        return examples
    groups: dict[str, array] = {}
    for position, example in enumerate(examples):
        groups.setdefault(example.split, array("q")).append(position)
    if count < len(groups):
        raise UserError(f"--num_images={count}: too few for the splits {', '.join(groups)}; give {len(groups)} or more")
    shares = {split: max(1, count * len(group) // len(examples)) for split, group in groups.items()}
    shares[max(groups, key=lambda split: len(groups[split]))] += count - sum(shares.values())
    chosen = (group[i * len(group) // shares[split]] for split, group in groups.items() for i in range(shares[split]))
    return _Some(examples, array("q", sorted(chosen)))


class _Some(Sequence[Example]):
    """The examples at some positions, made when they are asked for."""

    def __init__(self, examples: Sequence[Example], positions: array):
        self._examples, self._positions = examples, positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> Example:
        return self._examples[self._positions[index]]
