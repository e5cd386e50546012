"""CUB-200-2011 (Wah et al., 2011) with the captions of Reed et al. (2016).

Expected below --source_dir: `CUB_200_2011/` with its five lists and `images/`, and a caption folder `text_c10/`
(Reed, StackGAN) or `text/` (StackGAN++, AttnGAN) beside or inside it, one `<class>/<image>.txt` of ten lines a picture.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from t2i_tf.data.sources import Example, Problems, Source, evenly, read_captions, read_rows, source_folder
from t2i_tf.errors import UserError

TEST_CLASSES = frozenset({
    1, 4, 6, 8, 9, 14, 23, 29, 31, 33, 34, 35, 36, 37, 38, 43, 49, 51, 53, 66, 72, 79, 83, 84, 86, 91, 95, 96, 98, 101,
    102, 103, 112, 114, 119, 121, 130, 135, 138, 147, 156, 163, 165, 166, 180, 183, 185, 186, 187, 197,
})  # fmt: skip
"""Class numbers of the zero-shot test set of Reed et al., 2016; the other 150 are train and validation."""

CAPTION_FOLDERS = ("text_c10", "text")


def read(options) -> Source:
    """Reads the lists and captions; names are `<class>/<image>` without extension, as in the authors' pickles.

    `options.split`: "class_disjoint" (150 train and 50 test classes of Reed et al.) or "official" (per image,
    train_test_split.txt). Raises UserError when files are missing or lists disagree, naming which; with
    `options.allow_missing` such pictures are left out and noted.
    """
    root = _root(source_folder(options))
    with_captions = options.captions == "required"
    caption_folder = _caption_folder(root) if with_captions else None
    problems = Problems()

    images = _table(root / "images.txt")
    labels = _table(root / "image_class_labels.txt", int)
    in_train = _table(root / "train_test_split.txt", lambda value: bool(int(value)))
    boxes = _table(root / "bounding_boxes.txt", lambda *values: tuple(map(float, values)), columns=5)
    classes = _table(root / "classes.txt")

    for file, table in (("image_class_labels", labels), ("train_test_split", in_train), ("bounding_boxes", boxes)):
        problems.add(f"ids of images.txt that {file}.txt lacks", sorted(images.keys() - table.keys()))
        problems.add(f"ids of {file}.txt that images.txt lacks", sorted(table.keys() - images.keys()))
    usable = sorted(images.keys() & labels.keys() & in_train.keys() & boxes.keys())
    problems.add(
        "classes of image_class_labels.txt that classes.txt lacks", sorted({labels[i] for i in usable} - classes.keys())
    )
    problems.add(
        "classes of classes.txt without a picture",
        [classes[c] for c in sorted(classes.keys() - {labels[i] for i in usable})],
    )
    usable = [i for i in usable if labels[i] in classes]
    folder_differs = {i for i in usable if PurePosixPath(images[i]).parent.name != classes[labels[i]]}
    problems.add(
        "pictures whose folder is not the class of image_class_labels.txt", [images[i] for i in sorted(folder_differs)]
    )

    on_disk = {path.relative_to(root / "images").as_posix() for path in (root / "images").glob("*/*.jpg")}
    problems.add(
        "pictures of images.txt that are not in images/",
        [images[i] for i in sorted(images) if images[i] not in on_disk],
    )

    examples = []
    for number in usable:
        if number in folder_differs or images[number] not in on_disk:
            continue
        name = PurePosixPath(images[number]).with_suffix("").as_posix()
        captions = read_captions(caption_folder / f"{name}.txt", problems) if with_captions else ()
        if with_captions and not captions:
            continue
        trained_on = in_train[number] if options.split == "official" else labels[number] not in TEST_CLASSES
        examples.append(
            Example(
                split="train" if trained_on else "test",
                name=name,
                captions=captions,
                class_name=classes[labels[number]],
                image=str(root / "images" / images[number]),
                box=boxes[number],
            )
        )
    notes = problems.settle(root, options.allow_missing)
    unlisted = len(on_disk - set(images.values()))
    if unlisted:
        notes.append(f"{unlisted:,} pictures in images/ are in no list and were not read")
    info = {
        "data_set": "CUB-200-2011, captions of Reed et al. 2016",
        "folder": str(root.resolve()),
        "captions_folder": str(caption_folder.resolve()) if with_captions else None,
        "split": options.split,
    }
    return Source("cub", evenly(examples, options.num_images), notes, info)


def _root(folder: Path) -> Path:
    """The folder of images.txt, as people unpack it: itself, CUB_200_2011/ in it or in AttnGAN's birds/."""
    for candidate in (folder, folder / "CUB_200_2011", folder / "birds" / "CUB_200_2011"):
        if (candidate / "images.txt").is_file():
            return candidate
    raise UserError(
        f"{folder} holds no CUB_200_2011/images.txt: --source_dir is the folder CUB_200_2011.tgz is unpacked in"
    )


def _caption_folder(root: Path) -> Path:
    for parent in (root, root.parent):
        for name in CAPTION_FOLDERS:
            for folder in (parent / name, parent / "cvpr2016_cub" / name):
                if folder.is_dir():
                    return folder
    raise UserError(
        f"no captions beside {root}: put Reed's folder text_c10/ (or AttnGAN's text/) there, "
        "or prepare without captions by --captions=none"
    )


def _table(path: Path, convert: Callable[..., Any] = str, columns: int = 2) -> dict[int, Any]:
    """A list file -> {id: the other columns converted}."""
    rows = read_rows(path, columns)
    try:
        table = {int(row[0]): convert(*row[1:]) for row in rows}
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): fetch the file again") from None
    if len(table) != len(rows):
        raise UserError(f"{path} has {len(rows) - len(table):,} ids twice: fetch the file again")
    return table
