"""Any folder of pictures with one JSON-lines file of captions.

`captions.jsonl` in --source_dir, one object a line; pictures lie anywhere below:

    {"image": "a/1.jpg", "captions": ["a red flower", "..."], "class": "rose", "split": "train", "box": [x, y, w, h]}

`caption` (one string) may stand for `captions`; lines of the same picture add up. class, split (train, val or test) and
box are optional. With --captions=none the file may be missing: every picture below the folder is then taken.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from t2i_tf.data.sources import NOT_UTF8, Example, Problems, Source, evenly, is_utf8, read_text, some, source_folder
from t2i_tf.errors import UserError

CAPTIONS_FILE = "captions.jsonl"
SPLITS = ("train", "val", "test")
TEST_SHARE = 0.1
MIN_CLASSES = 10
"""From so many classes on, whole classes are held out for the test."""

_KEYS = {"image", "caption", "captions", "class", "split", "box"}


@dataclass
class _Entry:
    line: int
    class_name: str | None
    split: str | None
    box: tuple[float, float, float, float] | None
    captions: list[str] = field(default_factory=list)


def read(options) -> Source:
    """Reads captions.jsonl; names are the relative paths of the pictures.

    Where the lines give no split, a tenth is held out for the test, chosen by a hash: whole classes when every picture
    has one and there are at least ten, else pictures. Raises UserError naming malformed lines by number and pictures
    that are missing; with `options.allow_missing` missing pictures are left out and noted.
    """
    folder = source_folder(options)
    path = folder / CAPTIONS_FILE
    with_captions = options.captions == "required"
    on_disk = _pictures(folder)
    notes: list[str] = []
    problems = Problems()
    if path.is_file() or with_captions:
        entries, ignored = _parse(path)
        if ignored:
            notes.append(f"keys of {CAPTIONS_FILE} that were ignored: {some(sorted(ignored))}")
        unlisted = sorted(set(on_disk) - entries.keys())
        if unlisted:
            notes.append(f"{len(unlisted):,} pictures are not in {CAPTIONS_FILE} and were not read ({some(unlisted)})")
    else:
        entries = {name: _Entry(0, None, None, None) for name in on_disk if is_utf8(name)}
        problems.add(NOT_UTF8, [name for name in on_disk if not is_utf8(name)])
    if not (entries or on_disk):
        raise UserError(f"{folder} holds no picture: --source_dir is a folder of pictures and {CAPTIONS_FILE}")

    problems.add(
        "pictures missing", [f"{name}, line {entries[name].line}" for name in entries if not (folder / name).is_file()]
    )
    examples = [
        Example(
            split=entry.split or "",
            name=name,
            captions=tuple(entry.captions) if with_captions else (),
            class_name=entry.class_name,
            image=str(folder / name),
            box=entry.box,
        )
        for name, entry in sorted(entries.items())
        if (folder / name).is_file()
    ]
    notes += problems.settle(path, options.allow_missing)

    without = [f"line {entry.line}" for entry in entries.values() if entry.split is None]
    if without and len(without) < len(entries):
        raise UserError(
            f"{path}: some lines have a split, {len(without)} have none ({some(without)}): give all one or none"
        )
    if without:
        if options.split == "official":
            raise UserError(f'{path}: --split=official needs "split" in every line; add it or leave the flag out')
        examples, note = _hold_out(examples)
        notes.append(note)
    info = {"data_set": "folder", "folder": str(folder.resolve())}
    return Source("folder", evenly(examples, options.num_images), notes, info)


def _pictures(folder: Path) -> list[str]:
    """The relative paths of all files below that look like pictures by their names."""
    extensions = Image.registered_extensions()
    files = (path for path in folder.rglob("*") if path.suffix.lower() in extensions and path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in files)


def _parse(path: Path) -> tuple[dict[str, _Entry], set[str]]:
    """-> (entry of each picture, keys nobody knows)."""
    entries: dict[str, _Entry] = {}
    ignored: set[str] = set()
    wrong: list[str] = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
            name, entry = _entry(content, number)
            first = entries.setdefault(name, entry)
            if (first.class_name, first.split, first.box) != (entry.class_name, entry.split, entry.box):
                raise ValueError(f"class, split or box differ from line {first.line} of the same picture")
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
            continue
        if entry is not first:
            first.captions += entry.captions
        ignored |= content.keys() - _KEYS
    if wrong:
        raise UserError(f"{path}: {'; '.join(wrong[:5])} ({len(wrong)} malformed lines in all): correct them")
    return entries, ignored


def _entry(content: Any, number: int) -> tuple[str, _Entry]:
    """One parsed line, checked. Raises ValueError saying what is wrong."""
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    json.dumps(content, ensure_ascii=False).encode()  # half a surrogate pair, which JSON allows, is a ValueError

    def text(key: str) -> str | None:
        value = content.get(key)
        if value is not None and not (isinstance(value, str) and value.strip()):
            raise ValueError(f'"{key}" is not a text')
        return value

    image = text("image")
    if image is None:
        raise ValueError('no "image"')
    name = PurePosixPath(image)
    if name.is_absolute() or ".." in name.parts:
        raise ValueError(f'"image" {image!r} is not a path below the folder')
    captions = content.get("captions", [])
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise ValueError('"captions" is not a list of texts')
    caption = content.get("caption")
    if caption is not None and not isinstance(caption, str):
        raise ValueError('"caption" is not a text')
    split = text("split")
    if split is not None and split not in SPLITS:
        raise ValueError(f'"split" {split!r} is none of {", ".join(SPLITS)}')
    box = content.get("box")
    if box is not None:
        numbers = isinstance(box, list) and all(type(value) in (int, float) and isfinite(value) for value in box)
        if not numbers or len(box) != 4 or box[2] <= 0 or box[3] <= 0:
            raise ValueError('"box" is not [x, y, width, height] in pixels')
        box = tuple(float(value) for value in box)
    captions = captions + ([] if caption is None else [caption])
    return name.as_posix(), _Entry(number, text("class"), split, box, captions)


def _hold_out(examples: list[Example]) -> tuple[list[Example], str]:
    """-> (examples with their splits, what was done)."""
    classes = {example.class_name for example in examples}
    by_class = None not in classes and len(classes) >= MIN_CLASSES

    def key(example: Example) -> str:
        return example.class_name if by_class else example.name

    # Sorting by hash, not comparing it with a bound, keeps the share exact however few there are.
    ordered = sorted({key(example) for example in examples}, key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    count = max(1, round(TEST_SHARE * len(ordered))) if len(ordered) > 1 else 0
    held_out = set(ordered[:count])
    kind = "classes" if by_class else "pictures"
    note = (
        f"no split was given: {count:,} of {len(ordered):,} {kind}, chosen by a hash of their names, are the test split"
    )
    return [replace(example, split="test" if key(example) in held_out else "train") for example in examples], note
