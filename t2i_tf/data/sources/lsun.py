"""LSUN scenes (Yu et al., 2015): one LMDB folder for each category and split, as the official zips unpack.

--source_dir is `<category>_train_lmdb`, e.g. `bedroom_train_lmdb` (3,033,042 pictures) or `church_outdoor_train_lmdb`
(126,227). `<category>_val_lmdb` beside it, when there, is the test split. A database holds under each key the content
of a picture file, JPEG or WebP. There are no captions; the class is the category. Needs the package lmdb.

Of the millions of pictures only the keys are held, in one piece; an Example is made when it is asked for.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from t2i_tf.data.sources import Example, Source, evenly, some, source_folder
from t2i_tf.errors import UserError

if TYPE_CHECKING:
    import lmdb

_UNWRITTEN = 64 * 1024
"""Bytes that an intact data.mdb may lack at its end: LMDB does not write pages that it freed again at once."""


def read(options) -> Source:
    """Reads the keys; names are the keys. Splits: train, and val as test, whatever `options.split` says.

    Raises UserError when lmdb is not installed, or a database is missing, damaged, cut short or empty.
    """
    folder = Path(os.path.abspath(source_folder(options)))
    found = re.fullmatch(r"(.+)_train_lmdb", folder.name)
    if found is None:
        inside = sorted(path.name for path in folder.glob("*_train_lmdb"))
        there = f" (it holds {some(inside)})" if inside else ""
        raise UserError(
            f"--source_dir={folder} is not a folder <category>_train_lmdb of LSUN{there}: give one, e.g. "
            "church_outdoor_train_lmdb"
        )
    category = found[1]
    val = folder.with_name(f"{category}_val_lmdb")
    folders, notes = {"train": folder}, []
    if val.is_dir():
        folders["test"] = val
    else:
        notes.append(f"there is no {val.name} beside {folder.name}, so no test split")
    parts = [_Part(split, str(path), _read_keys(str(path))) for split, path in folders.items()]
    examples = _Examples(category, parts)
    info = {"data_set": f"LSUN {category}", "folder": str(folder), "split": "official: train; val as test"}
    return Source(f"lsun_{category}", evenly(examples, options.num_images), notes, info)


@dataclass(frozen=True)
class Entry:
    """One value of a database: call it for the content of the picture file. Picklable, for the workers of prepare."""

    folder: str
    key: bytes

    def __call__(self) -> bytes:
        try:
            with _environment(self.folder).begin() as transaction:
                value = transaction.get(self.key)
        except _lmdb().Error as error:
            raise _damaged(self.folder, error) from None
        if value is None:
            raise _damaged(self.folder, f"key {self.key!r} is not found again")
        return value


class _Keys(Sequence[bytes]):
    """Keys in one piece: as objects, those of the bedrooms would take 250 MB more."""

    def __init__(self) -> None:
        self._joined, self._ends = bytearray(), array("q", [0])

    def append(self, key: bytes) -> None:
        self._joined += key
        self._ends.append(len(self._joined))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> bytes:
        return bytes(self._joined[self._ends[index] : self._ends[index + 1]])


@dataclass(frozen=True)
class _Part:
    split: str
    folder: str
    keys: _Keys


class _Examples(Sequence[Example]):
    """The pictures of all parts, one part after the other."""

    def __init__(self, category: str, parts: Sequence[_Part]) -> None:
        self._category, self._parts = category, parts

    def __len__(self) -> int:
        return sum(len(part.keys) for part in self._parts)

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        for part in self._parts:
            if index < len(part.keys):
                break
            index -= len(part.keys)
        key = part.keys[index]
        name = key.decode("utf-8", "backslashreplace")
        return Example(part.split, name, (), self._category, Entry(part.folder, key))


def _read_keys(folder: str) -> _Keys:
    """All keys in their order. Raises UserError when there is none, or the database is damaged."""
    keys = _Keys()
    try:
        with _environment(folder).begin() as transaction:
            for key in transaction.cursor().iternext(keys=True, values=False):
                keys.append(key)
    except _lmdb().Error as error:
        raise _damaged(folder, error) from None
    if not keys:
        raise UserError(f"{folder} holds no picture: unzip {Path(folder).name}.zip again")
    return keys


@cache
def _environment(folder: str) -> lmdb.Environment:
    """The database in that folder, opened once a process: LMDB forbids a second time. Nothing is written or locked."""
    lmdb = _lmdb()
    file = Path(folder, "data.mdb")
    if not file.is_file():
        raise UserError(f"{folder} holds no data.mdb: unzip {Path(folder).name}.zip there")
    try:
        environment = lmdb.open(folder, readonly=True, create=False, lock=False)
    except lmdb.Error as error:
        raise _damaged(folder, error) from None
    # LMDB maps the file into memory: to read beyond its end would not fail but kill the process.
    lacking = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"] - file.stat().st_size
    if lacking > _UNWRITTEN:
        raise _damaged(folder, f"{lacking:,} bytes are missing at its end")
    return environment


def _lmdb() -> ModuleType:
    try:
        import lmdb
    except ImportError:
        raise UserError("--source=lsun needs the package lmdb: pip install -e '.[lsun]'") from None
    return lmdb


def _damaged(folder: str, why: object) -> UserError:
    return UserError(f"{folder}/data.mdb cannot be read ({why}): unzip {Path(folder).name}.zip again")
