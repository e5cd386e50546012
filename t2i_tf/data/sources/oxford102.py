"""Oxford-102 flowers (Nilsback and Zisserman, 2008) with the captions of Reed et al. (2016).

Expected in --source_dir: `jpg/image_00001.jpg` ..., `imagelabels.mat`, `setid.mat` (only for --split=official) and
`text_c10/class_00001/image_00001.txt` ... with one caption a line. The 82 / 20 class split of Reed et al. is read from
his `trainvalclasses.txt` and `testclasses.txt`, one class a line, e.g. `class_00001` or `1`.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from t2i_tf.data.sources import (
    Example,
    Problems,
    Source,
    evenly,
    read_captions,
    read_text,
    some,
    source_folder,
)
from t2i_tf.errors import UserError

_SETS = {"train": "trnid", "val": "valid", "test": "tstid"}
_CLASS_LISTS = {"train": "trainvalclasses.txt", "test": "testclasses.txt"}


def read(options) -> Source:
    """Reads labels, split and captions; names are `image_00001`, classes `class_00001`.

    `options.split`: "class_disjoint" (train, test) or "official" (train, val, test of setid.mat: 1,020, 1,020 and
    6,149 pictures). Raises UserError when files are missing or disagree, naming which; with `options.allow_missing`
    such pictures are left out and noted.
    """
    folder = source_folder(options)
    with_captions = options.captions == "required"
    problems = Problems()
    labels = _matrix(folder / "imagelabels.mat", "labels")
    split_of = _official_split(folder, len(labels)) if options.split == "official" else _class_split(folder, labels)

    caption_files: dict[str, Path] = {}
    if with_captions:
        caption_folder = _caption_folder(folder)
        caption_files = {path.stem: path for path in sorted(caption_folder.glob("*/image_*.txt"))}
    on_disk = {path.stem for path in (folder / "jpg").glob("*.jpg")}
    listed = {f"image_{number:05d}": int(label) for number, label in enumerate(labels, 1)}
    problems.add("pictures of imagelabels.mat that are not in jpg/", [name for name in listed if name not in on_disk])
    problems.add("pictures in no split", [name for name in listed if name not in split_of])

    examples = []
    for name, label in listed.items():
        if name not in on_disk or name not in split_of:
            continue
        class_name, captions = f"class_{label:05d}", ()
        if with_captions:
            file = caption_files.get(name, caption_folder / class_name / f"{name}.txt")
            if file.parent.name != class_name:
                problems.add("caption files not in the folder of their label", [file])
                continue
            captions = read_captions(file, problems)
            if not captions:
                continue
        examples.append(Example(split_of[name], name, captions, class_name, str(folder / "jpg" / f"{name}.jpg")))
    notes = problems.settle(folder, options.allow_missing)
    unlisted = len(on_disk - listed.keys())
    if unlisted:
        notes.append(f"{unlisted:,} pictures in jpg/ have no label and were not read")
    info = {
        "data_set": "Oxford-102 flowers" + (", captions of Reed et al. 2016" if with_captions else ""),
        "folder": str(folder.resolve()),
        "split": options.split,
    }
    return Source("oxford102", evenly(examples, options.num_images), notes, info)


def _caption_folder(folder: Path) -> Path:
    for candidate in (folder / "text_c10", folder / "cvpr2016_flowers" / "text_c10"):
        if candidate.is_dir():
            return candidate
    raise UserError(
        f"{folder} has no captions: put Reed's folder text_c10/ there, or prepare without captions by --captions=none"
    )


def _official_split(folder: Path, num_images: int) -> dict[str, str]:
    """setid.mat -> split of each picture name."""
    split_of: dict[str, str] = {}
    path = folder / "setid.mat"
    for split, variable in _SETS.items():
        for number in _matrix(path, variable).tolist():
            name = f"image_{number:05d}"
            if name in split_of:
                raise UserError(f"{path}: picture {number} is in {split_of[name]} and {split}; fetch the file again")
            if not 1 <= number <= num_images:
                raise UserError(
                    f"{path}: picture {number} of {variable} has no label in imagelabels.mat; fetch both again"
                )
            split_of[name] = split
    return split_of


def _class_split(folder: Path, labels: np.ndarray) -> dict[str, str]:
    """Reed's class lists -> split of each picture name."""
    missing = [file for file in _CLASS_LISTS.values() if not (folder / file).is_file()]
    if missing:
        raise UserError(
            f"{folder} lacks {' and '.join(missing)}: put Reed's class lists there (82 and 20 lines, one class a line, "
            "e.g. class_00001), or use the per-picture split with --split=official"
        )
    split_of_class: dict[int, str] = {}
    known = set(labels.tolist())
    for split, file in _CLASS_LISTS.items():
        for number, line in enumerate(read_text(folder / file).splitlines(), 1):
            if not line.strip():
                continue
            found = re.search(r"(\d+)\s*$", line)
            if found is None or int(found[1]) not in known:
                raise UserError(f"{folder / file}, line {number}: {line.strip()!r} is no class of imagelabels.mat")
            if split_of_class.setdefault(int(found[1]), split) != split:
                raise UserError(f"{folder / file}, line {number}: {line.strip()} is also in {_CLASS_LISTS['train']}")
    without = [f"class_{number:05d}" for number in sorted(known - split_of_class.keys())]
    if without:
        raise UserError(f"{folder}: {len(without)} classes are in neither list ({some(without)}): complete the lists")
    return {f"image_{number:05d}": split_of_class[label] for number, label in enumerate(labels.tolist(), 1)}


def _matrix(path: Path, name: str) -> np.ndarray:
    """One numeric matrix of a .mat file, flattened, int64."""
    matrices = read_mat(path)
    if name not in matrices:
        raise UserError(f"{path} has no matrix {name!r} (it has {some(sorted(matrices))}): fetch the official file")
    return matrices[name].ravel(order="F").astype(np.int64)


# MAT-file format, level 5. A file is a header of 128 bytes and data elements, each a tag (type, bytes) and its bytes.
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_NUMERIC_CLASSES = range(6, 16)  # double, single and the eight integers; below are cells, structs, text and sparse
_IMAGINARY = 0x0800


def read_mat(path: Path) -> dict[str, np.ndarray]:
    """The real numeric matrices of a level-5 .mat file (MATLAB 5 to 7.2), compressed or not, by name.

    Each comes in the type it is stored in, which MATLAB narrows when the values allow it. Matrices of other kinds are
    skipped. Raises UserError when the file is missing, damaged or of another level.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: put the official file there") from None
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise UserError(f"{path} is not a MATLAB 5 file (7.3 files are HDF5): fetch the official file")
    try:
        matrices = {}
        for kind, payload in _elements(data[128:], order):
            if kind == _COMPRESSED:
                kind, payload = next(_elements(zlib.decompress(payload), order))
            if kind == _MATRIX and (matrix := _parse_matrix(payload, order)):
                matrices[matrix[0]] = matrix[1]
        return matrices
    except (struct.error, zlib.error, ValueError, KeyError, StopIteration, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}): fetch the file again") from None


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data):
        kind, size = struct.unpack_from(order + "II", data, position)
        if kind >> 16:  # a small element: size and type share the first word, up to 4 bytes follow it
            kind, size, start, end = kind & 0xFFFF, kind >> 16, position + 4, position + 8
        else:
            start, end = position + 8, position + 8 + size
            if kind != _COMPRESSED:
                end += -size % 8
        if start + size > len(data):
            raise ValueError("it ends within an element")
        yield kind, data[start : start + size]
        position = end


def _parse_matrix(payload: bytes, order: str) -> tuple[str, np.ndarray] | None:
    elements = _elements(payload, order)
    flags = struct.unpack(order + "II", next(elements)[1])[0]
    if flags & 0xFF not in _NUMERIC_CLASSES or flags & _IMAGINARY:
        return None
    shape = np.frombuffer(next(elements)[1], order + "i4")
    name = next(elements)[1].decode("ascii")
    kind, values = next(elements)
    return name, np.frombuffer(values, order + _TYPES[kind]).reshape(shape, order="F")
