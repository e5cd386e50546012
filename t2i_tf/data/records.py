"""The one record schema, its shards and the manifest `dataset.json` that describes them.

A data set is a folder: `dataset.json`, TFRecord shards `<split>-00000-of-00004.tfrecord` and, for each split, an
index `<split>.index.npz` that makes every record directly readable. A record is a tf.train.Example:

    image       bytes         JPEG, RGB
    height      int64         of the JPEG, in pixels, as is width
    captions    bytes list    UTF-8, one caption each; may be empty
    class       int64         position in dataset.json "classes", -1 for none
    name        bytes         of the picture in its source
    box         4 floats      x, y, width, height in pixels of the JPEG; absent when there is none
    attributes  bytes         JSON object; absent when there are none

The index holds one row a record: shard (int32), offset and length of the serialized Example in its shard (int64),
class (int32), captions (int32, how many), name (unicode), and once `text`, all captions joined by newlines as UTF-8
bytes, so that they can be had without reading the pictures.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import threading
import weakref
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import tensorflow as tf

from t2i_tf import files
from t2i_tf.errors import UserError

FORMAT = "t2i_tf records"
VERSION = 1
MANIFEST = "dataset.json"
PARTIAL = ".partial"
"""`<data_dir>.partial` is a data set being written; it is never read as one."""

OPEN_SHARDS = 128
"""How many shards a split keeps open: a process may often have no more than 1024 open files."""

BUCKET_READERS = 16
"""Records of a batch that are read at once where the data set is in a bucket."""

_HEADER, _FOOTER = 12, 4  # bytes of TFRecord framing before and after a record


def serialize(
    image: bytes,
    height: int,
    width: int,
    captions: Sequence[str],
    class_id: int,
    name: str,
    box: Sequence[float] | None = None,
    attributes: Mapping[str, str] | None = None,
) -> bytes:
    """One record. The same arguments give the same bytes."""

    def text(*values: str) -> tf.train.Feature:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode() for value in values]))

    def integer(value: int) -> tf.train.Feature:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    features = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "height": integer(height),
        "width": integer(width),
        "captions": text(*captions),
        "class": integer(class_id),
        "name": text(name),
    }
    if box is not None:
        features["box"] = tf.train.Feature(float_list=tf.train.FloatList(value=box))
    if attributes is not None:
        features["attributes"] = text(json.dumps(dict(attributes), sort_keys=True))
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Serialized records, string [...], one or a vector of them -> their tensors; usable in tf.data.

    "image" string [...] (JPEG bytes), "height", "width", "class" int64 [...], "name" string [...], "captions" string
    [..., captions] ("" behind those of a record that has fewer than another), "box" float32 [..., 4] (zeros when
    absent), "has_box" bool [...].
    """
    absent = [float("nan")] * 4
    features = tf.io.parse_example(
        serialized,
        {
            "image": tf.io.FixedLenFeature([], tf.string),
            "height": tf.io.FixedLenFeature([], tf.int64),
            "width": tf.io.FixedLenFeature([], tf.int64),
            "captions": tf.io.FixedLenSequenceFeature([], tf.string, allow_missing=True),
            "class": tf.io.FixedLenFeature([], tf.int64),
            "name": tf.io.FixedLenFeature([], tf.string),
            "box": tf.io.FixedLenFeature([4], tf.float32, default_value=absent),
        },
    )
    features["has_box"] = ~tf.reduce_any(tf.math.is_nan(features["box"]), axis=-1)
    features["box"] = tf.where(features["has_box"][..., None], features["box"], 0.0)
    return features


class SplitWriter:
    """Writes the shards and the index of one split into a folder.

    A shard ends before it would exceed `shard_bytes`. Raises OSError when the disk refuses. Used in a with block, which
    lets go of the open file when it is left by an error.
    """

    def __init__(self, folder: Path, split: str, shard_bytes: int):
        self._folder, self._split, self._shard_bytes = folder, split, shard_bytes
        self._paths: list[Path] = []
        self._writer: tf.io.TFRecordWriter | None = None
        self._position = 0
        self._rows: list[tuple[int, int, int, int, int]] = []
        self._names: list[str] = []
        self._captions: list[str] = []
        self._boxes = 0

    def __enter__(self) -> SplitWriter:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            with contextlib.suppress(tf.errors.OpError):  # the error that ends the block is already on its way
                self._writer.close()

    def write(
        self, serialized: bytes, class_id: int, captions: Sequence[str], name: str, box: Sequence[float] | None = None
    ) -> None:
        """Appends one record; the other arguments are those it was serialized from."""
        if any("\n" in caption for caption in captions):
            raise ValueError(f"a caption of {name} has more than one line, which the index cannot hold")
        framed = _HEADER + len(serialized) + _FOOTER
        try:
            if self._writer is None or (self._position and self._position + framed > self._shard_bytes):
                self._next_shard()
            self._writer.write(serialized)
        except tf.errors.OpError as error:
            raise OSError(error.message) from error
        row = (len(self._paths) - 1, self._position + _HEADER, len(serialized), class_id, len(captions))
        self._rows.append(row)
        self._names.append(name)
        self._captions.extend(captions)
        self._boxes += box is not None
        self._position += framed

    def close(self, classes: Sequence[str]) -> dict:
        """Finishes the files and returns the split's entry for the manifest; `classes` are the data set's."""
        self._finish_shard()
        rows = np.array(self._rows, np.int64).reshape(-1, 5)
        counts = np.bincount(rows[:, 0], minlength=len(self._paths)).tolist()
        shards = []
        for number, (path, count) in enumerate(zip(self._paths, counts, strict=True)):
            final = path.with_name(_shard_name(self._split, number, len(self._paths)))
            path.rename(final)
            shards.append({**describe(final), "records": count})
        index = self._folder / f"{self._split}.index.npz"
        np.savez_compressed(
            index,
            shard=rows[:, 0].astype(np.int32),
            offset=rows[:, 1],
            length=rows[:, 2],
            **{"class": rows[:, 3].astype(np.int32)},
            captions=rows[:, 4].astype(np.int32),
            name=np.array(self._names, np.str_),
            text=np.frombuffer("\n".join(self._captions).encode(), np.uint8),
        )
        return {
            "images": len(self._rows),
            "captions": len(self._captions),
            "boxes": self._boxes,
            "classes": [classes[i] for i in sorted({row[3] for row in self._rows} - {-1})],
            "shards": shards,
            "index": describe(index),
        }

    def _next_shard(self) -> None:
        self._finish_shard()
        # The number of shards is part of their names and known only at the end.
        self._paths.append(self._folder / f"{self._split}-{len(self._paths):05d}.unfinished")
        self._writer, self._position = tf.io.TFRecordWriter(str(self._paths[-1])), 0

    def _finish_shard(self) -> None:
        if self._writer is not None:
            try:
                self._writer.close()
            except tf.errors.OpError as error:
                raise OSError(error.message) from error
            self._writer = None


def _shard_name(split: str, number: int, count: int) -> str:
    return f"{split}-{number:05d}-of-{count:05d}.tfrecord"


def join(folder: Path, split: str, pieces: Sequence[tuple[Path, Mapping]]) -> dict:
    """Writes into `folder` the index of a split that was written in pieces, and returns its entry for the manifest.

    `pieces` are (folder, entry that `SplitWriter.close` gave), in their order. Their shards, of whose names the entry
    tells the new ones, are not touched. One piece at a time is in memory.
    """
    shards = [shard for _, entry in pieces for shard in entry["shards"]]
    index = folder / f"{split}.index.npz"
    with zipfile.ZipFile(index, "w", zipfile.ZIP_DEFLATED) as archive:
        for key in ("shard", "offset", "length", "class", "captions", "name", "text"):
            kinds, sizes = zip(*((column.dtype, column.size) for column in _columns(key, pieces)), strict=True)
            kind = np.result_type(*kinds)
            with archive.open(f"{key}.npy", "w", force_zip64=True) as file:
                header = {"descr": kind.str, "fortran_order": False, "shape": (sum(sizes),)}
                np.lib.format.write_array_header_1_0(file, header)
                for column in _columns(key, pieces):
                    file.write(column.astype(kind).tobytes())
    return {
        **{key: sum(entry[key] for _, entry in pieces) for key in ("images", "captions", "boxes")},
        "classes": sorted({name for _, entry in pieces for name in entry["classes"]}),
        "shards": [{**shard, "file": _shard_name(split, i, len(shards))} for i, shard in enumerate(shards)],
        "index": describe(index),
    }


def _columns(key: str, pieces: Sequence[tuple[Path, Mapping]]) -> Iterator[np.ndarray]:
    """One column of the index of each piece, as it continues the pieces before."""
    shards = captions = 0
    for folder, entry in pieces:
        with np.load(folder / entry["index"]["file"], allow_pickle=False) as index:
            column = index[key]
        if key == "shard":
            column = column + np.int32(shards)
        if key == "text" and captions and entry["captions"]:
            column = np.concatenate([np.frombuffer(b"\n", np.uint8), column])
        yield column
        shards, captions = shards + len(entry["shards"]), captions + entry["captions"]


class Dataset:
    """An open data set; make one with `Dataset.open`. `manifest` is the content of dataset.json."""

    def __init__(self, path: str, manifest: dict):
        self.path, self.manifest = path, manifest

    @property
    def cache(self) -> Path:
        """Where what is computed of the data set is kept: in its folder, or for a bucket in the user's cache."""
        if "://" not in self.path:
            return Path(self.path) / "cache"
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(caches, "t2i_tf", hashlib.sha256(self.path.encode()).hexdigest()[:16])

    def local(self, entry: Mapping) -> Path:
        """The file of an entry of the manifest, on a local disk: one of a bucket is copied to the cache once.

        Raises UserError when it cannot be.
        """
        if "://" not in self.path:
            return Path(self.path, entry["file"])
        path = self.cache / entry["sha256"] / Path(entry["file"]).name
        if not path.is_file():
            try:
                with files.written_beside(path) as beside:
                    tf.io.gfile.copy(f"{self.path}/{entry['file']}", str(beside), overwrite=True)
            except (OSError, tf.errors.OpError) as error:
                raise UserError(
                    f"{self.path}/{entry['file']} cannot be copied to {path} ({error}): make room there, or set "
                    "XDG_CACHE_HOME"
                ) from None
        return path

    @classmethod
    def open(cls, path: str | os.PathLike, verify: bool = False) -> Dataset:
        """Opens a data set folder, local or of any file system that tf.io.gfile knows.

        Checks that every file is there and of the right size; with `verify` also its SHA-256, which reads everything.
        Raises UserError: no such folder, half-written, another version, files missing or damaged.
        """
        path = os.fspath(path).rstrip("/")
        if not tf.io.gfile.isdir(path):
            raise UserError(f"{path}: no such data set folder; make one with t2i-prepare")
        if path.endswith(PARTIAL):
            raise UserError(
                f"{path} is the unfinished work of a t2i-prepare, at work or stopped: the same command again goes on"
            )
        manifest = read_manifest(path)
        if manifest is None:
            raise UserError(
                f"{path} has no {MANIFEST}: not a data set, or a half-written copy of one; prepare or copy it again"
            )
        remedy = "remove the folder and prepare or copy the data set again"
        splits, embeddings = manifest["splits"].values(), manifest.get("embeddings", {}).values()
        files = [entry for split in splits for entry in [*split["shards"], split["index"]]]
        files += [entry for kind in embeddings for entry in kind["files"].values()]
        for entry in files:
            file = f"{path}/{entry['file']}"
            if not tf.io.gfile.exists(file):
                raise UserError(f"{file} is missing: {remedy}")
            size = tf.io.gfile.stat(file).length
            if size != entry["bytes"]:
                raise UserError(f"{file} has {size:,} bytes instead of {entry['bytes']:,}: {remedy}")
            if verify and _sha256(file) != entry["sha256"]:
                raise UserError(f"{file} is damaged (SHA-256 differs from {MANIFEST}): {remedy}")
        return cls(path, manifest)

    def split(self, name: str) -> Split:
        """Raises UserError for a split the data set does not have."""
        if name not in self.manifest["splits"]:
            raise UserError(f"{self.path} has no split {name!r}: it has {', '.join(self.manifest['splits'])}")
        return Split(self, name)

    def unseen(self) -> Split:
        """The test split, or the training split where there is none."""
        return self.split("test" if "test" in self.manifest["splits"] else "train")


class Split:
    """Random access to the records of one split.

    Attributes: name, dataset, num_images; class_ids int32 [N]; caption_counts int32 [N]; caption_offsets int64 [N+1]
    (captions of record i are caption_offsets[i] to caption_offsets[i+1] in the order of all captions); names.
    """

    def __init__(self, dataset: Dataset, name: str):
        self.dataset, self.name = dataset, name
        entry = dataset.manifest["splits"][name]
        with tf.io.gfile.GFile(f"{dataset.path}/{entry['index']['file']}", "rb") as file:
            self._index = np.load(io.BytesIO(file.read()), allow_pickle=False)
        self._shards, self._offsets, self._lengths = (self._index[key] for key in ("shard", "offset", "length"))
        self.class_ids: np.ndarray = self._index["class"]
        self.caption_counts: np.ndarray = self._index["captions"]
        self.caption_offsets = np.concatenate([[0], np.cumsum(self.caption_counts, dtype=np.int64)])
        self.num_images = len(self.class_ids)
        paths = [f"{dataset.path}/{shard['file']}" for shard in entry["shards"]]
        # Opened at the first read. A file that leaves the cache is closed when the last thread that reads it lets go.
        self._file = lru_cache(OPEN_SHARDS)(lambda shard: _RandomAccessFile(paths[shard]))

    @cached_property
    def names(self) -> list[str]:
        return self._index["name"].tolist()

    def read(self, indices: Sequence[int] | np.ndarray) -> list[bytes]:
        """The serialized records of these numbers, in this order. Thread-safe."""
        indices = np.asarray(indices, np.int64)
        rows = zip(
            self._shards[indices].tolist(),
            self._offsets[indices].tolist(),
            self._lengths[indices].tolist(),
            strict=True,
        )
        if "://" not in self.dataset.path:
            return [self._file(shard).read(offset, length) for shard, offset, length in rows]
        return list(self._readers.map(lambda row: self._file(row[0]).read(*row[1:]), rows))

    @cached_property
    def _readers(self) -> ThreadPoolExecutor:
        """Read side by side from a bucket, where a single read waits long for its answer."""
        return ThreadPoolExecutor(BUCKET_READERS)

    def captions(self) -> list[list[str]]:
        """The captions of every record, without reading the pictures."""
        if not self.caption_offsets[-1]:
            return [[] for _ in range(self.num_images)]
        text = self._index["text"].tobytes().decode().split("\n")
        starts = self.caption_offsets.tolist()
        return [text[start:end] for start, end in zip(starts[:-1], starts[1:], strict=True)]

    def all_captions(self) -> list[str]:
        """The captions of all records, one behind the other, as `caption_offsets` counts them."""
        return [caption for of_image in self.captions() for caption in of_image]

    def check_captions(self, asked_by: str) -> None:
        """Raises UserError where no record has a caption."""
        if not self.caption_offsets[-1]:
            raise UserError(f"{asked_by}: {self.dataset.path} has no captions: give another --data_dir")

    def attributes(self) -> list[dict[str, str] | None]:
        """The attributes of every record; reads all records."""
        found = []
        for serialized in self.read(np.arange(self.num_images)):
            feature = tf.train.Example.FromString(serialized).features.feature
            found.append(json.loads(feature["attributes"].bytes_list.value[0]) if "attributes" in feature else None)
        return found


class Subset(Split):
    """Some of the records of a split, in the order of `numbers` int [M]; it answers as a split does."""

    def __init__(self, split: Split, numbers: np.ndarray):
        self.dataset, self.name, self._file = split.dataset, split.name, split._file
        self._split, self._numbers = split, np.asarray(numbers, np.int64)
        of_split = (split._shards, split._offsets, split._lengths, split.class_ids, split.caption_counts)
        chosen = [array[self._numbers] for array in of_split]
        self._shards, self._offsets, self._lengths, self.class_ids, self.caption_counts = chosen
        self.caption_offsets = np.concatenate([[0], np.cumsum(self.caption_counts, dtype=np.int64)])
        self.num_images = len(self._numbers)

    @cached_property
    def names(self) -> list[str]:
        return [self._split.names[number] for number in self._numbers]

    def captions(self) -> list[list[str]]:
        whole = self._split.captions()
        return [whole[number] for number in self._numbers]


class _RandomAccessFile:
    """`read(offset, length)` from any thread: os.pread on local files, one gfile handle a thread elsewhere."""

    def __init__(self, path: str):
        self._path = path
        self._local = "://" not in path
        self._handles = threading.local()
        if self._local:
            self._descriptor = os.open(path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._descriptor)

    def read(self, offset: int, length: int) -> bytes:
        if self._local:
            data = os.pread(self._descriptor, length, offset)
        else:
            if not hasattr(self._handles, "file"):
                self._handles.file = tf.io.gfile.GFile(self._path, "rb")
            self._handles.file.seek(offset)
            data = self._handles.file.read(length)
        if len(data) != length:
            raise UserError(f"{self._path} ends within a record: prepare or copy the data set again")
        return data


def read_manifest(path: str | os.PathLike) -> dict | None:
    """The content of `path`/dataset.json, None when there is none.

    Raises UserError when it is damaged, not of this format or of another version.
    """
    file = f"{os.fspath(path)}/{MANIFEST}"
    if not tf.io.gfile.exists(file):
        return None
    try:
        with tf.io.gfile.GFile(file, "r") as stream:
            manifest = json.loads(stream.read())
    except ValueError as error:
        raise UserError(f"{file} is damaged ({error}): prepare or copy the data set again") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{file} does not describe a data set of t2i_tf: give the folder that t2i-prepare wrote")
    if manifest.get("version") != VERSION:
        raise UserError(
            f"{file} has version {manifest.get('version')}, this program reads {VERSION}: prepare the data set again"
        )
    return manifest


def describe(path: Path) -> dict:
    """The manifest's entry for a file: name, bytes, SHA-256."""
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": _sha256(str(path))}


def _sha256(path: str) -> str:
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
