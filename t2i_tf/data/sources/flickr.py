"""Flickr8k (Hodosh et al., 2013) and Flickr30k (Young et al., 2014): pictures with five captions each, no classes.

Expected in --source_dir, as the archives unpack:

    flickr8k    `Flickr8k.token.txt`, `Flickr_8k.trainImages.txt`, `Flickr_8k.devImages.txt` and
                `Flickr_8k.testImages.txt`, there or in `Flickr8k_text/`; pictures in `Flicker8k_Dataset/` (so
                spelled in the archive) or `Flickr8k_Dataset/`
    flickr30k   `results_20130124.token`; pictures in `flickr30k-images/` or `flickr30k_images/`; the lists
                `train.txt`, `val.txt` and `test.txt` of Flickr30k Entities, names with or without .jpg

A line of a token file is `1000268201_693b08cb0e.jpg#0`, a tab and the caption. With --split=karpathy, pictures and
captions are those of `dataset_flickr8k.json` or `dataset_flickr30k.json`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from t2i_tf.data.sources import Example, Problems, Source, evenly, karpathy, read_rows, read_text, some, source_folder
from t2i_tf.errors import UserError


@dataclass(frozen=True)
class _Layout:
    """Where things are; of several names, whichever is there."""

    data_set: str
    tokens: str
    lists: dict[str, str]
    """File of each split."""
    text_folders: tuple[str, ...]
    picture_folders: tuple[str, ...]
    karpathy: str


LAYOUTS = {
    "flickr8k": _Layout(
        "Flickr8k",
        "Flickr8k.token.txt",
        {"train": "Flickr_8k.trainImages.txt", "val": "Flickr_8k.devImages.txt", "test": "Flickr_8k.testImages.txt"},
        (".", "Flickr8k_text"),
        ("Flicker8k_Dataset", "Flickr8k_Dataset"),
        "dataset_flickr8k.json",
    ),
    "flickr30k": _Layout(
        "Flickr30k",
        "results_20130124.token",
        {split: f"{split}.txt" for split in ("train", "val", "test")},
        (".",),
        ("flickr30k-images", "flickr30k_images"),
        "dataset_flickr30k.json",
    ),
}


def read(options) -> Source:
    """Reads captions and lists; names are file names without extension. Splits: train, val (the "dev" list) and test.

    Raises UserError when files are missing or disagree, naming which; with `options.allow_missing` pictures and
    captions that are missing are left out and noted. Pictures in no list are noted, and captions of names that are no
    picture: the official Flickr8k has five of 2258277193_586949ec62.jpg.1.
    """
    root, layout = source_folder(options), LAYOUTS[options.source]
    if options.split == "karpathy_restval":
        raise UserError(f"--split=karpathy_restval: {layout.data_set} has no restval; choose --split=karpathy")
    pictures = next((root / name for name in layout.picture_folders if (root / name).is_dir()), None)
    if pictures is None:
        raise UserError(f"{root} has no folder {' or '.join(layout.picture_folders)}: put the pictures there")
    if options.split == "karpathy":
        path = karpathy.find(layout.karpathy, root, *(root / name for name in layout.text_folders))
        return karpathy.read(options, path, layout.data_set, lambda filepath: pictures)

    text = next((root / name for name in layout.text_folders if (root / name / layout.tokens).is_file()), root)
    captions = _captions(text / layout.tokens)
    split_of = _lists(text, layout)
    on_disk, problems = set(os.listdir(pictures)), Problems()
    with_captions = options.captions == "required"
    problems.add(f"pictures of the lists that are not in {pictures.name}/", [n for n in split_of if n not in on_disk])
    if with_captions:
        without = [name for name in split_of if name not in captions]
        problems.add(f"pictures of the lists without a caption in {layout.tokens}", without)
    examples = [
        Example(
            split,
            PurePosixPath(name).stem,
            tuple(captions.get(name, ())) if with_captions else (),
            None,
            str(pictures / name),
        )
        for name, split in split_of.items()
        if name in on_disk and (name in captions or not with_captions)
    ]
    notes = problems.settle(root, options.allow_missing)
    dangling = [name for name in captions if not name.endswith(".jpg")]
    if dangling:
        count = sum(len(captions[name]) for name in dangling)
        notes.append(f"{count:,} captions of {layout.tokens} are of names that are no picture ({some(dangling)})")
    unlisted = sorted((captions.keys() | on_disk) - split_of.keys() - set(dangling))
    if unlisted:
        notes.append(f"{len(unlisted):,} pictures are in no list and were not read ({some(unlisted)})")
    info = {
        "data_set": layout.data_set,
        "folder": str(root.resolve()),
        "split": f"official: {', '.join(layout.lists.values())}",
    }
    return Source(options.source, evenly(examples, options.num_images), notes, info)


def _captions(path: Path) -> dict[str, list[str]]:
    """Captions of each file name, by their numbers. Raises UserError naming the line that is none."""
    found: dict[str, dict[int, str]] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        key, tab, caption = line.partition("\t")
        name, mark, place = key.rpartition("#")
        if not (tab and mark and name and place.isascii() and place.isdigit()):
            raise UserError(f"{path}, line {number}: not `picture.jpg#0`, a tab and a caption; fetch the file again")
        if int(place) in found.setdefault(name, {}):
            raise UserError(f"{path}, line {number}: {key} is there twice; fetch the file again")
        found[name][int(place)] = caption
    return {name: [text for _, text in sorted(of_image.items())] for name, of_image in found.items()}


def _lists(folder: Path, layout: _Layout) -> dict[str, str]:
    """File name -> split, in the order of the lists."""
    missing = [file for file in layout.lists.values() if not (folder / file).is_file()]
    if missing:
        raise UserError(
            f"{folder} lacks {', '.join(missing)}: put the lists there, or take the splits of {layout.karpathy} with "
            "--split=karpathy"
        )
    split_of: dict[str, str] = {}
    for split, file in layout.lists.items():
        for (name,) in read_rows(folder / file, 1):
            name = name if name.endswith(".jpg") else f"{name}.jpg"
            if name in split_of:
                raise UserError(f"{folder / file}: {name} is there twice, or also in {layout.lists[split_of[name]]}")
            split_of[name] = split
    return split_of
