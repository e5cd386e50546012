"""The parts of a data set while it is prepared: fixed ranges of pictures, each finished by one rename.

    <data_dir>.partial/begun.json              what is being prepared
    <data_dir>.partial/parts/00007.lock        held by the process that is at part 7
    <data_dir>.partial/parts/00007/            finished: its shards, their index and part.json, what is known of it

Which pictures a part has depends on the source and the options alone. Any number of processes, on any machines that see
the folder, may be at it: whoever holds a part's lock writes it, and the system frees the lock of one that was killed.
When all parts are finished they are joined: the index of each split, then dataset.json, which decides; from then on a
command that finds the folder has only to move the shards beside it and to rename the folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from t2i_tf.data import records
from t2i_tf.errors import UserError

_BEGUN, _RECORD = "begun.json", "part.json"


@dataclass(frozen=True)
class Part:
    """The pictures of a split at `positions` of its source."""

    number: int
    split: str
    positions: Sequence[int]


def cut(by_split: Mapping[str, Sequence[int]], size: int) -> list[Part]:
    """Parts of `size` pictures or fewer, evenly cut, numbered through all splits."""
    parts: list[Part] = []
    for split, positions in by_split.items():
        count = -(-len(positions) // size)
        bounds = [number * len(positions) // count for number in range(count + 1)]
        parts += [
            Part(len(parts) + number, split, positions[start:end])
            for number, (start, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True))
        ]
    return parts


def share(parts: Sequence[Part], which: str | None) -> Sequence[Part]:
    """Those of "2/8", the second eighth; all when None. Raises UserError when it is not of this form."""
    if which is None:
        return parts
    found = re.fullmatch(r"(\d+)/(\d+)", which)
    number, count = map(int, found.groups()) if found else (0, 0)
    if not 1 <= number <= count:
        raise UserError(f"--part={which}: give a share of the work such as 2/8, the second of eight")
    return parts[(number - 1) * len(parts) // count : number * len(parts) // count]


class Work:
    """The unfinished work on the data set that is to be at `target`. Its methods raise OSError when the disk refuses,
    FileNotFoundError also when another process has just joined the parts."""

    def __init__(self, target: Path):
        self.target = target
        self.folder = target.with_name(target.name + records.PARTIAL)
        self._parts = self.folder / "parts"

    @property
    def is_joined(self) -> bool:
        """Whether it has its dataset.json, and only `finish` is left to do."""
        return (self.folder / records.MANIFEST).exists()

    def begin(self, what: Mapping) -> None:
        """Makes the folder for `what`, plain data, or goes on with it. Raises UserError when it was begun otherwise."""
        what = json.loads(json.dumps(what))
        beside = self.folder.with_name(f"{self.folder.name}-{_process()}")
        if not self.folder.exists():
            try:
                (beside / self._parts.name).mkdir(parents=True)
                (beside / _BEGUN).write_text(json.dumps(what, indent=1), encoding="utf-8")
                os.rename(beside, self.folder)
            except OSError:
                if not self.folder.exists():  # else another process has begun at the same time
                    raise
            finally:
                shutil.rmtree(beside, ignore_errors=True)
        begun = json.loads((self.folder / _BEGUN).read_text(encoding="utf-8"))
        if differing := differences(begun, what):
            raise UserError(
                f"{self.folder} was begun otherwise: {', '.join(differing)}; go on with the same options on the same "
                "source, or remove it"
            )

    def record(self, part: Part) -> dict | None:
        """What is known of a finished part, None of another."""
        try:
            return json.loads((self.path(part) / _RECORD).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def path(self, part: Part) -> Path:
        return self._parts / f"{part.number:05d}"

    @contextmanager
    def claimed(self, part: Part | None = None) -> Iterator[bool]:
        """Whether a part, or without one the joining, is now ours and nobody else's, until the block ends."""
        name = "join" if part is None else self.path(part).name
        with open(self._parts / f"{name}.lock", "ab") as file:
            yield _locked(file)

    @contextmanager
    def written(self, part: Part) -> Iterator[Path]:
        """A folder to write a claimed part and, with `save`, its record to; finished when the block ends well."""
        path = self.path(part)
        for stale in self._parts.glob(f"{path.name}.unfinished-*"):
            shutil.rmtree(stale)
        unfinished = path.with_name(f"{path.name}.unfinished-{_process()}")
        unfinished.mkdir()
        try:
            yield unfinished
            for file in unfinished.iterdir():
                _to_disk(file)
            shutil.rmtree(path, ignore_errors=True)  # of a time when some of its pictures were bad
            os.rename(unfinished, path)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def finish(self) -> None:
        """Makes the joined parts the data set. It may be stopped anywhere, and done again."""
        manifest = records.read_manifest(self.folder)
        names = {split: iter(entry["shards"]) for split, entry in manifest["splits"].items()}
        for record in sorted(self._parts.glob(f"*/{_RECORD}")):
            content = json.loads(record.read_text(encoding="utf-8"))
            for shard in content["entry"]["shards"]:
                source, name = record.with_name(shard["file"]), next(names[content["split"]])["file"]
                if source.exists():
                    source.rename(self.folder / name)
        shutil.rmtree(self._parts, ignore_errors=True)
        (self.folder / _BEGUN).unlink(missing_ok=True)
        os.rename(self.folder, self.target)


def save(folder: Path, record: Mapping) -> None:
    """Writes what is known of a part into its folder: "split", "entry" and whatever else the joining needs."""
    (folder / _RECORD).write_text(json.dumps(record, ensure_ascii=False), encoding="utf-8")


def differences(old: Mapping, new: Mapping) -> list[str]:
    """Values that differ, as "name=old (asked for: new)". What `old` does not know is not held against it, but that it
    was without what is now switched on."""
    found = [(name, old.get(name, False if value is True else value), value) for name, value in new.items()]
    return [f"{name}={before} (asked for: {value})" for name, before, value in found if before != value]


def _locked(file) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: then --part keeps processes apart
        return True
    return True


def _process() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _to_disk(file: Path) -> None:
    """A part that counts as finished must outlast a power cut."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
