"""The splits of Karpathy and Li (CVPR 2015) of Flickr8k, Flickr30k and MS-COCO, which captioning papers report on.

Expected in --source_dir (of COCO also in `annotations/`): `dataset_flickr8k.json`, `dataset_flickr30k.json` or
`dataset_coco.json` from caption_datasets.zip, beside the pictures as their own archives unpack. Chosen by
--split=karpathy. Of COCO they train on train2014 (82,783 pictures), and validate and test on 5,000 pictures of val2014
each; its 30,504 others, "restval", are left out as in Show, Attend and Tell, or trained on with
--split=karpathy_restval.

A part of the sources that have such splits, no source of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from t2i_tf.data.sources import NOT_UTF8, Example, Problems, Source, evenly, is_utf8, read_text, some
from t2i_tf.errors import UserError

SPLITS = ("train", "val", "test", "restval")
CAPTIONS_PER_IMAGE = 5


def read(options, path: Path, data_set: str, folder: Callable[[str], Path]) -> Source:
    """Reads one of the files.

    Args:
        data_set: what the manifest calls it; folder: the "filepath" of a picture, "" where it has none -> its folder.

    Raises UserError when the file is missing, damaged or of another kind, or pictures are missing; with
    `options.allow_missing` these are left out and noted.
    """
    with_captions, with_restval = options.captions == "required", options.split == "karpathy_restval"
    problems, notes, on_disk = Problems(), [], {}
    examples: list[Example] = []
    left_out = beyond = 0
    for split, filepath, file, captions in _pictures(path):
        if split == "restval" and not with_restval:
            left_out += 1
            continue
        place = folder(filepath)
        if place not in on_disk:
            on_disk[place] = set(os.listdir(place)) if place.is_dir() else set()
            problems.add("picture folders missing", [] if place.is_dir() else [place])
        if file not in on_disk[place]:
            problems.add(f"pictures of {path.name} that are not in {place.name}/", [file])
            continue
        if not is_utf8(file):
            problems.add(NOT_UTF8, [file])
            continue
        beyond += len(captions[CAPTIONS_PER_IMAGE:]) if with_captions else 0
        kept = tuple(captions[:CAPTIONS_PER_IMAGE]) if with_captions else ()
        split = "train" if split == "restval" else split
        examples.append(Example(split, PurePosixPath(file).stem, kept, None, str(place / file)))
    if left_out:
        notes.append(f"{left_out:,} pictures of restval were left out: --split=karpathy_restval trains on them too")
    if beyond:
        notes.append(f"{beyond:,} captions of {path.name} beyond the fifth of a picture, dropped as the papers do")
    notes = problems.settle(path.parent, options.allow_missing) + notes
    info = {
        "data_set": data_set,
        "folder": str(path.parent.resolve()),
        "split": f"Karpathy's, {path.name}" + ", restval in train" * with_restval,
    }
    return Source(options.source, evenly(examples, options.num_images), notes, info)


def find(name: str, *folders: Path) -> Path:
    """The file of that name. Raises UserError when no folder has it."""
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"{folders[0] / name} is missing: unpack it from Karpathy's caption_datasets.zip, or leave out --split"
    )


def _pictures(path: Path) -> list[tuple[str, str, str, list[str]]]:
    """-> (split, filepath, file name, captions) of each picture, in the order of the file."""
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is damaged or cut short ({error}): fetch the file again") from None
    try:
        found = [
            (
                _text(image["split"]),
                _text(image.get("filepath", "")),
                _text(image["filename"]),
                [_text(sentence["raw"]) for sentence in image["sentences"]],
            )
            for image in content["images"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path} has no splits of Karpathy ({what}): fetch the file again") from None
    unknown = sorted({split for split, *_ in found} - set(SPLITS))
    if unknown:
        raise UserError(f"{path} has unknown splits {some(unknown)}: it should have {', '.join(SPLITS)}")
    twice = len(found) - len({(filepath, file) for _, filepath, file, _ in found})
    if twice:
        raise UserError(f"{path} lists {twice:,} pictures twice: fetch the file again")
    return found


def _text(value) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
