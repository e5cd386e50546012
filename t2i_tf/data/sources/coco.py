"""MS-COCO captions (Chen et al., 2015), pictures and annotations of 2014 or 2017 as the official zips unpack.

Expected in --source_dir: `annotations/captions_train2014.json` and `captions_val2014.json`, and the folders
`train2014/` and `val2014/` (there or in `images/`) with `COCO_train2014_000000000009.jpg` ...; or all of it with 2017,
where pictures are named `000000000009.jpg`. The papers train on train2014 (82,783 pictures) and test on val2014
(40,504), and captioning papers on the splits of `dataset_coco.json`, see `karpathy`. There are no classes.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from t2i_tf.data.sources import (
    NOT_UTF8,
    Example,
    Problems,
    Source,
    evenly,
    is_utf8,
    karpathy,
    read_text,
    some,
    source_folder,
)
from t2i_tf.errors import UserError

YEARS = (2014, 2017)
PARTS = {"train": "train", "test": "val"}
"""The official part that each split is."""

CAPTIONS_PER_IMAGE = 5
"""What StackGAN, AttnGAN and Show, Attend and Tell keep; a few hundred pictures have six or seven."""


@dataclass(frozen=True)
class _Annotations:
    files: dict[int, str]
    """File name of each picture id."""
    captions: dict[int, list[str]]
    """Of each picture id, in the order of the file."""


def read(options) -> Source:
    """Reads the annotations; names are file names without extension, as in the authors' pickles.

    Splits: train, and val as test, unless `options.split` asks for Karpathy's. Raises UserError when files are
    missing, damaged or disagree, naming which; with `options.allow_missing` what is missing is left out and noted.
    """
    root = source_folder(options)
    if options.split.startswith("karpathy"):
        path = karpathy.find("dataset_coco.json", root, root / "annotations")
        return karpathy.read(options, path, "MS-COCO 2014", lambda filepath: _folder(root, filepath))
    year = _year(root)
    with_captions = options.captions == "required"
    problems = Problems()
    examples: list[Example] = []
    notes: list[str] = []
    for split, part in PARTS.items():
        path, pictures = _annotation_file(root, part, year), _picture_folder(root, part, year)
        problems.add("annotation files missing", [] if path.is_file() else [path])
        problems.add("picture folders missing", [] if pictures.is_dir() else [pictures])
        if not (path.is_file() and pictures.is_dir()):
            continue
        annotations = _read_annotations(path)
        on_disk = set(os.listdir(pictures))
        listed = sorted(annotations.files.items(), key=lambda item: item[1])
        missing = [file for _, file in listed if file not in on_disk]
        problems.add(f"pictures of {path.name} that are not in {pictures.name}/", missing)
        problems.add(
            f"captions of {path.name} of picture ids it does not list",
            sorted(annotations.captions.keys() - annotations.files.keys()),
        )
        beyond = 0
        for number, file in listed:
            captions = annotations.captions.get(number, []) if with_captions else []
            if not is_utf8(file):
                problems.add(NOT_UTF8, [file])
            elif with_captions and not captions:
                problems.add(f"pictures of {path.name} without a caption", [file])
            elif file in on_disk:
                beyond += len(captions[CAPTIONS_PER_IMAGE:])
                kept = tuple(captions[:CAPTIONS_PER_IMAGE])
                examples.append(Example(split, PurePosixPath(file).stem, kept, None, str(pictures / file)))
        if beyond:
            notes.append(f"{beyond:,} captions of {path.name} beyond the fifth of a picture, dropped as the papers do")
        if unlisted := sorted(on_disk - set(annotations.files.values())):
            notes.append(
                f"{len(unlisted):,} files in {pictures.name}/ are not in {path.name} and were not read "
                f"({some(unlisted)})"
            )
    notes = problems.settle(root, options.allow_missing) + notes
    info = {
        "data_set": f"MS-COCO {year}",
        "folder": str(root.resolve()),
        "split": f"official: train{year}; val{year} as test",
    }
    return Source("coco", evenly(examples, options.num_images), notes, info)


def _annotation_file(root: Path, part: str, year: int) -> Path:
    return root / "annotations" / f"captions_{part}{year}.json"


def _picture_folder(root: Path, part: str, year: int) -> Path:
    return _folder(root, f"{part}{year}")


def _folder(root: Path, name: str) -> Path:
    folder, inner = root / name, root / "images" / name
    return inner if inner.is_dir() and not folder.is_dir() else folder


def _year(root: Path) -> int:
    """The year of which most is there; the papers' 2014 when both are complete."""

    def found(year: int) -> int:
        return sum(
            _annotation_file(root, part, year).is_file() + _picture_folder(root, part, year).is_dir()
            for part in PARTS.values()
        )

    year = max(YEARS, key=found)  # of equals the first
    if not found(year):
        raise UserError(
            f"{root} holds no MS-COCO: put annotations/captions_train2014.json, annotations/captions_val2014.json, "
            "train2014/ and val2014/ there (or those of 2017)"
        )
    return year


def _read_annotations(path: Path) -> _Annotations:
    """Raises UserError when the file is not JSON to its end or not a list of captions."""
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is damaged or cut short ({error}): fetch the file again") from None
    try:
        files = {_id(image["id"]): _text(image["file_name"]) for image in content["images"]}
        captions: dict[int, list[str]] = {}
        for annotation in content["annotations"]:
            captions.setdefault(_id(annotation["image_id"]), []).append(_text(annotation["caption"]))
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not a caption file of MS-COCO ({_what(error)}): fetch the official captions_*.json"
        ) from None
    twice = len(content["images"]) - len(set(files.values()))
    if twice:
        raise UserError(f"{path} lists {twice:,} pictures twice: fetch the official file")
    return _Annotations(files, captions)


def _id(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is no picture id")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _what(error: KeyError | TypeError) -> str:
    return f"no {error}" if isinstance(error, KeyError) else str(error)
