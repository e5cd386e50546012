"""What is written of a part beside its pictures, and how finished parts become one data set."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL

import t2i_tf
from t2i_tf.data import pickles, records
from t2i_tf.data.images import BadImage, StoredImage
from t2i_tf.data.parts import Part, Work
from t2i_tf.data.sources import Example, Source, some
from t2i_tf.data.text import words
from t2i_tf.errors import UserError

if TYPE_CHECKING:
    from t2i_tf.config import PrepareConfig

_NAMED = 5  # pictures that a note names


class PartWriter:
    """Writes the pictures of a part, and what is to be known of them when parts are joined."""

    def __init__(self, folder: Path, split: str, classes: Sequence[str], shard_bytes: int):
        self.writer = records.SplitWriter(folder, split, shard_bytes)
        self._split, self._classes = split, classes
        self._bad: list[tuple[str, str]] = []
        self._changes: dict[str, tuple[int, list[str]]] = {}
        self._words: Counter = Counter()
        self._caption_counts: set[int] = set()

    def add(self, example: Example, picture: StoredImage | BadImage, class_id: int) -> None:
        if isinstance(picture, BadImage):
            self._bad.append((example.image if isinstance(example.image, str) else example.name, picture.reason))
            return
        record = records.serialize(
            picture.jpeg, picture.height, picture.width, example.captions, class_id, example.name, picture.box,
            example.attributes,
        )  # fmt: skip
        self.writer.write(record, class_id, example.captions, example.name, picture.box)
        self._caption_counts.add(len(example.captions))
        if self._split == "train":
            self._words.update(itertools.chain.from_iterable(map(words, example.captions)))
        add_changes(self._changes, {change: (1, [example.name]) for change in picture.changes})

    def close(self) -> dict:
        return {
            "split": self._split,
            "entry": self.writer.close(self._classes),
            "caption_counts": sorted(self._caption_counts),
            "words": self._words,
            "changes": self._changes,
            "bad": self._bad,
        }


def add_changes(changes: dict[str, tuple[int, list[str]]], more: Mapping[str, tuple[int, list[str]]]) -> None:
    """Adds to how many pictures were changed, and to the first of their names, by change."""
    for change, (count, names) in more.items():
        before, first = changes.get(change, (0, []))
        changes[change] = (before + count, (first + names)[:_NAMED])


def cannot_be_used(bad: Sequence[tuple[str, str]]) -> str:
    return f"{len(bad):,} pictures cannot be used: {some([f'{name} ({why})' for name, why in bad], 20)}"


def made_with() -> dict[str, str]:
    return {"t2i_tf": t2i_tf.__version__, "pillow": PIL.__version__}


def join(
    work: Work,
    all_parts: Sequence[Part],
    finished: Sequence[Mapping],
    source: Source,
    classes: Sequence[str],
    notes: Sequence[str],
    options: PrepareConfig,
    resolved: Mapping,
) -> dict:
    """Writes what the data set has beside its shards, dataset.json last, and returns that."""
    pieces: dict[str, list[tuple[Path, Mapping]]] = {}
    words_of_training: Counter = Counter()
    changes: dict[str, tuple[int, list[str]]] = {}
    for part, record in zip(all_parts, finished, strict=True):
        pieces.setdefault(part.split, []).append((work.path(part), record["entry"]))
        words_of_training.update(record["words"])
        add_changes(changes, record["changes"])
    notes = [*source.notes, *notes]
    if bad := [bad for record in finished for bad in record["bad"]]:
        notes.append(f"left out: {cannot_be_used(bad)}")
    splits = {
        split: records.join(work.folder, split, of_split)
        for split, of_split in pieces.items()
        if any(entry["images"] for _, entry in of_split)
    }
    if not splits:
        raise UserError(f"{cannot_be_used(bad)}. No other is there: replace them")
    for change, (count, names) in sorted(changes.items()):
        notes.append(f"{change}: {count:,} pictures ({_first(names, count)})")
    counts = sorted({count for record in finished for count in record["caption_counts"]})
    manifest = _manifest(options, resolved, source, splits, counts, words_of_training, classes, notes)
    if options.embeddings is not None:
        manifest["embeddings"] = _attach_embeddings(work.folder, options.embeddings, splits)
    beside = work.folder / f"{records.MANIFEST}.unfinished"
    beside.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(work.folder / records.MANIFEST)
    return manifest


def _first(names: Sequence[str], count: int) -> str:
    shown = ", ".join(names)
    return shown if count == len(names) else f"{shown} and {count - len(names):,} more"


def _manifest(
    options: PrepareConfig,
    resolved: Mapping,
    source: Source,
    splits: Mapping[str, Mapping],
    caption_counts: Sequence[int],
    frequency: Counter,
    classes: Sequence[str],
    notes: Sequence[str],
) -> dict:
    mean = sum(entry["captions"] for entry in splits.values()) / sum(entry["images"] for entry in splits.values())
    vocabulary = sorted(frequency, key=lambda word: (-frequency[word], word))
    return {
        "name": source.name,
        "version": records.VERSION,
        "format": records.FORMAT,
        "image_size": options.image_size,
        "crop": options.crop,
        "resize": options.resize,
        "resample": options.resample,
        "quality": options.quality,
        "stretch_contrast": options.stretch_contrast,
        "image_channels": 3,
        "splits": dict(splits),
        "classes": list(classes),
        "vocabulary": vocabulary,
        "vocabulary_counts": [frequency[word] for word in vocabulary],
        "captions_per_image": {"min": caption_counts[0], "max": caption_counts[-1], "mean": mean},
        "source": source.info,
        "notes": list(notes),
        "seed": options.seed,
        "options": dict(resolved),
        "made_with": made_with(),
    }


def _attach_embeddings(folder: Path, published: str, splits: Mapping[str, Mapping]) -> dict:
    """Writes embeddings/published/<split>.npy, float32 [captions, dimensions] in record order -> manifest entry."""
    files = {}
    (folder / "embeddings" / "published").mkdir(parents=True, exist_ok=True)
    for split, entry in splits.items():
        with np.load(folder / entry["index"]["file"], allow_pickle=False) as index:
            vectors = pickles.published_embeddings(published, split, index["name"].tolist(), index["captions"].tolist())
        path = folder / "embeddings" / "published" / f"{split}.npy"
        np.save(path, vectors)
        files[split] = {**records.describe(path), "file": path.relative_to(folder).as_posix()}
    return {"published": {"dimensions": vectors.shape[1], "files": files}}
