"""A source -> a data set folder: read, check, convert in parallel, write beside, rename.

What is written depends on the source and the options alone, never on the number of processes. The folder appears whole
or not at all: everything is written to `<data_dir>.partial-<pid>`, dataset.json last, and renamed.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import shutil
import sys
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import PIL

import t2i_tf
from t2i_tf.data import pickles, records, sources
from t2i_tf.data.images import BadImage, StorageRules, StoredImage, start_worker, store, store_all
from t2i_tf.data.sources import Example, Source, some
from t2i_tf.data.text import TEXT_LENGTH, words
from t2i_tf.errors import UserError

if TYPE_CHECKING:
    from t2i_tf.config import PrepareConfig

_OPTIONS = (
    "source", "source_dir", "image_size", "crop", "resize", "resample", "quality", "split", "subset", "captions",
    "allow_missing", "num_images", "seed", "shard_megabytes", "embeddings",
)  # fmt: skip
"""The options that decide what is written; the others say where and how fast."""

_CHUNK = 16  # pictures sent to a worker at once
_SAMPLE = 16  # pictures encoded beforehand to estimate the disk need
_EMBEDDING_BYTES = 4 * 1024  # of one caption
_PAIR = "\ufffd\ufffd"  # some of Reed's captions have this in place of a blank


def prepare(options: PrepareConfig, progress: Callable[[int, int], None] | None = None) -> Path:
    """Writes the data set that `options` describe and returns its folder.

    A folder that holds just that data set already is left alone. `progress(done, total)` is called after each picture;
    by default it keeps a line on stderr.

    Raises UserError when the folder holds anything else, when sources are incomplete or pictures cannot be read (all
    are named; `options.allow_missing` leaves them out), or when the disk is or would be full. Nothing is then left.
    """
    folder = _folder(options)
    if options.source in sources.WITHOUT_CAPTIONS:
        options = replace(options, captions="none")
    resolved = {name: getattr(options, name) for name in _OPTIONS}
    for name in ("source_dir", "embeddings"):
        if resolved[name] is not None:
            resolved[name] = os.path.realpath(resolved[name])
    if _is_there(folder, resolved):
        print(f"{options.data_dir} is there already, prepared with the same options: nothing to do")
        return Path(options.data_dir)

    source = sources.get(options.source).read(options)
    examples, notes = _checked(source, options)
    rules = StorageRules(**{name: resolved[name] for name in ("image_size", "crop", "resize", "resample", "quality")})
    if options.embeddings is not None:
        for split, positions in _by_split(examples).items():
            path = Path(options.embeddings, split, "filenames.pickle")
            pickles.published_rows(path, [examples[position].name for position in positions])
    _check_disk(folder, examples, rules, with_embeddings=options.embeddings is not None)

    with _written_beside(folder) as partial:
        classes = sorted({example.class_name for example in examples} - {None})
        with closing(_stored(examples, rules, options.workers, progress or ProgressLine())) as stored:
            written = _write_splits(partial, stored, classes, options)
        if bad := written.bad:
            line = f"{len(bad):,} pictures cannot be used: {some([f'{name} ({why})' for name, why in bad], 20)}"
            if not options.allow_missing or not written.splits:
                raise UserError(f"{line}. Replace them, or leave them out with --allow_missing")
            notes.append(f"left out: {line}")
        for change, names in sorted(written.changes.items()):
            notes.append(f"{change}: {len(names):,} pictures ({some(names)})")
        manifest = _manifest(options, resolved, source, written, classes, source.notes + notes)
        if options.embeddings is not None:
            manifest["embeddings"] = _attach_embeddings(partial, options.embeddings, written)
        text = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        (partial / records.MANIFEST).write_text(text, encoding="utf-8")
    _summarise(options.data_dir, manifest)
    return Path(options.data_dir)


class ProgressLine:
    """Pictures done, pictures a second and time left on stderr: one line kept current on a terminal, else a line every
    ten seconds."""

    def __init__(self) -> None:
        self._stream = sys.stderr
        self._terminal = self._stream.isatty()
        self._pause = 0.2 if self._terminal else 10.0
        self._start = self._shown = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        last = done == total
        if now - self._shown < self._pause and not (last and self._terminal):
            return
        self._shown = now
        speed = done / max(now - self._start, 1e-9)
        minutes, seconds = divmod(round((total - done) / speed), 60)
        line = f"{done:,} of {total:,} pictures, {speed:,.0f} a second, {minutes}:{seconds:02d} left"
        if self._terminal:
            self._stream.write(f"\r{line:<70}" + ("\n" if last else ""))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()


def clean_caption(caption: str, tally: Counter) -> str:
    """A caption on one line: pairs of U+FFFD and line breaks become a blank, as AttnGAN's loader does; stripped.

    Counts what it changed and what is odd in `tally`.
    """
    if _PAIR in caption:
        caption = caption.replace(_PAIR, " ")
        tally["captions had pairs of U+FFFD, replaced by a blank"] += 1
    if "\r" in caption or "\n" in caption:
        caption = caption.replace("\r\n", " ").replace("\r", " ").replace("\n", " ")
        tally["captions had line breaks (CRLF), replaced by a blank"] += 1
    caption = caption.strip()
    if not caption:
        tally["empty captions, dropped"] += 1
    elif not words(caption):
        tally["captions have no word of ASCII letters or digits, kept"] += 1
    if len(caption) > TEXT_LENGTH:
        tally[f"captions are longer than {TEXT_LENGTH} characters, kept whole (char-CNN-RNN reads the first)"] += 1
    return caption


def _folder(options: PrepareConfig) -> Path:
    if "://" in options.data_dir:
        raise UserError(
            f"--data_dir={options.data_dir}: data sets are written to local folders; prepare here, then copy"
        )
    if options.image_size is not None and options.image_size < 1:
        raise UserError(f"--image_size={options.image_size}: give a number of pixels")
    if not 1 <= options.quality <= 100:
        raise UserError(f"--quality={options.quality}: JPEG quality is 1 to 100")
    if options.workers is not None and options.workers < 1:
        raise UserError(f"--workers={options.workers}: give 1 or more")
    if options.shard_megabytes < 1:
        raise UserError(f"--shard_megabytes={options.shard_megabytes}: give 1 or more")
    if options.subset is not None and options.source != "imagenet":
        raise UserError(f"--subset={options.subset}: only --source=imagenet has subsets; leave the flag out")
    if options.split.startswith("karpathy") and options.source not in sources.WITH_KARPATHY_SPLITS:
        having = ", ".join(sorted(sources.WITH_KARPATHY_SPLITS))
        raise UserError(f"--split={options.split}: only {having} have these splits; leave the flag out")
    return Path(os.path.realpath(options.data_dir))


def _is_there(folder: Path, resolved: Mapping) -> bool:
    """Whether this data set is complete in `folder`. Raises UserError when something else is."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    manifest = records.read_manifest(folder) if folder.is_dir() else None
    if manifest is None:
        raise UserError(
            f"--data_dir={folder} exists and is not a data set (no {records.MANIFEST}; half-written, or something "
            "else): remove it or choose another"
        )
    written = manifest.get("options", {})
    differing = [
        f"{name}={written.get(name)} (asked for: {value})"
        for name, value in resolved.items()
        if written.get(name) != value
    ]
    if differing:
        raise UserError(
            f"--data_dir={folder} holds a data set prepared with other options: {', '.join(differing)}; remove it or "
            "choose another"
        )
    records.Dataset.open(folder)
    return True


def _checked(source: Source, options: PrepareConfig) -> tuple[Sequence[Example], list[str]]:
    """-> (examples with clean captions, notes). Raises UserError when pictures lack captions or boxes.

    Without captions and boxes the examples are the source's own sequence, which may be of millions and hold none.
    """
    tally: Counter = Counter()
    problems = sources.Problems()
    usable = source.examples
    if options.captions == "none":
        if any(example.captions for example in usable):
            usable = [replace(example, captions=()) for example in usable]
    else:
        usable = [
            replace(example, captions=tuple(filter(None, (clean_caption(c, tally) for c in example.captions))))
            for example in usable
        ]
        problems.add("pictures without a caption", [e.name for e in usable if not e.captions])
        usable = [example for example in usable if example.captions]
    if options.crop == "box":
        problems.add(
            "pictures without a bounding box, which --crop=box needs", [e.name for e in usable if e.box is None]
        )
        usable = [example for example in usable if example.box is not None]
    notes = problems.settle(source.name, options.allow_missing)
    notes += [f"{count:,} {what}" for what, count in sorted(tally.items())]
    if not usable:
        raise UserError(f"--source={options.source}: no picture is left to prepare; complete {options.source_dir}")
    return usable, notes


def _by_split(examples: Sequence[Example]) -> dict[str, Sequence[int]]:
    """-> positions of the examples of each split, train first and test last."""
    groups: dict[str, array] = {}
    for position, example in enumerate(examples):
        groups.setdefault(example.split, array("q")).append(position)
    return {split: groups[split] for split in sorted(groups, key=lambda s: (s != "train", s == "test", s))}


def _check_disk(folder: Path, examples: Sequence[Example], rules: StorageRules, with_embeddings: bool) -> None:
    """Raises UserError when an estimate from a few pictures does not fit on the disk."""
    sample = [examples[position] for position in range(0, len(examples), -(-len(examples) // _SAMPLE))]
    stored = [store(example.image, example.box, rules) for example in sample]
    sizes = [len(picture.jpeg) for picture in stored if isinstance(picture, StoredImage)]
    if not sizes:
        return
    needed = len(examples) * sum(sizes) / len(sizes)
    needed += sum(200 + 2 * sum(map(len, example.captions)) for example in examples)
    if with_embeddings:
        needed += sum(len(example.captions) for example in examples) * _EMBEDDING_BYTES
    parent = next(parent for parent in folder.parents if parent.exists())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise UserError(
            f"--data_dir={folder} needs about {needed / 1e6:,.0f} MB, its disk has {free / 1e6:,.0f} MB free: make "
            "room or choose another"
        )


@contextmanager
def _written_beside(folder: Path) -> Iterator[Path]:
    """A new folder that becomes `folder` when the block ends well, and vanishes when it does not."""
    partial = folder.with_name(f"{folder.name}{records.PARTIAL}{os.getpid()}")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a dead process that had our number
        partial.mkdir(parents=True)
        yield partial
        os.rename(partial, folder)
    except OSError as error:
        raise UserError(
            f"--data_dir={folder} cannot be written ({error.strerror or error}): make room or choose another; "
            "nothing was left behind"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _stored(
    examples: Sequence[Example], rules: StorageRules, workers: int | None, progress: Callable[[int, int], None]
) -> Iterator[tuple[Example, StoredImage | BadImage]]:
    """Every example in order of split with its stored picture."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ordered = (examples[position] for positions in _by_split(examples).values() for position in positions)
    workers = min(workers or cores, -(-len(examples) // _CHUNK))
    for done, pair in enumerate(_in_processes(ordered, rules, workers), 1):
        progress(done, len(examples))
        yield pair


def _in_processes(
    examples: Iterator[Example], rules: StorageRules, workers: int
) -> Iterator[tuple[Example, StoredImage | BadImage]]:
    """`store` for each example, in order, a few chunks ahead of who takes them."""
    if workers == 1:
        for example in examples:
            yield example, store(example.image, example.box, rules)
        return
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=start_worker)
    try:
        waiting: deque = deque()
        while chunk := list(itertools.islice(examples, _CHUNK)):
            pictures = [(example.image, example.box) for example in chunk]
            waiting.append((chunk, executor.submit(store_all, pictures, rules)))
            if len(waiting) > 4 * workers:
                yield from _results(*waiting.popleft())
        while waiting:
            yield from _results(*waiting.popleft())
    except BrokenProcessPool:
        raise UserError("a worker process was killed, perhaps for memory: try again with --workers=1") from None
    finally:
        executor.shutdown(cancel_futures=True)


def _results(
    chunk: Sequence[Example], future: Future[list[StoredImage | BadImage]]
) -> Iterator[tuple[Example, StoredImage | BadImage]]:
    return zip(chunk, future.result(), strict=True)


@dataclass
class _Written:
    """What was written, less the examples themselves: there may be millions."""

    splits: dict[str, dict] = field(default_factory=dict)
    """Manifest entry of each."""
    names: dict[str, list[str]] = field(default_factory=dict)
    """Of the records of each split, in order, as are `caption_counts`."""
    caption_counts: dict[str, Sequence[int]] = field(default_factory=dict)
    training_words: Counter = field(default_factory=Counter)
    changes: dict[str, list[str]] = field(default_factory=dict)
    """Names of the pictures, by change."""
    bad: list[tuple[str, str]] = field(default_factory=list)
    """Pictures that could not be used, with the reason."""


def _write_splits(
    partial: Path,
    stored: Iterator[tuple[Example, StoredImage | BadImage]],
    classes: Sequence[str],
    options: PrepareConfig,
) -> _Written:
    """After a bad picture that must not be left out nothing more is written, only looked for."""
    class_ids = {name: number for number, name in enumerate(classes)}
    written = _Written()
    for split, group in itertools.groupby(stored, key=lambda pair: pair[0].split):
        names, counts = [], array("i")
        with records.SplitWriter(partial, split, options.shard_megabytes * 1_000_000) as writer:
            for example, picture in group:
                if isinstance(picture, BadImage):
                    name = example.image if isinstance(example.image, str) else example.name
                    written.bad.append((name, picture.reason))
                elif not written.bad or options.allow_missing:
                    class_id = class_ids.get(example.class_name, -1)
                    record = records.serialize(
                        picture.jpeg, picture.height, picture.width, example.captions, class_id, example.name,
                        picture.box, example.attributes,
                    )  # fmt: skip
                    writer.write(record, class_id, example.captions, example.name, picture.box)
                    names.append(example.name)
                    counts.append(len(example.captions))
                    if split == "train":
                        written.training_words.update(itertools.chain.from_iterable(map(words, example.captions)))
                    for change in picture.changes:
                        written.changes.setdefault(change, []).append(example.name)
            entry = writer.close(classes)
        if names:
            written.splits[split], written.names[split], written.caption_counts[split] = entry, names, counts
    return written


def _manifest(
    options: PrepareConfig,
    resolved: Mapping,
    source: Source,
    written: _Written,
    classes: Sequence[str],
    notes: Sequence[str],
) -> dict:
    counts = np.concatenate([np.asarray(counts) for counts in written.caption_counts.values()])
    frequency = written.training_words
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
        "image_channels": 3,
        "splits": written.splits,
        "classes": list(classes),
        "vocabulary": vocabulary,
        "vocabulary_counts": [frequency[word] for word in vocabulary],
        "captions_per_image": {"min": int(counts.min()), "max": int(counts.max()), "mean": float(counts.mean())},
        "source": source.info,
        "notes": list(notes),
        "seed": options.seed,
        "options": dict(resolved),
        "made_with": {"t2i_tf": t2i_tf.__version__, "pillow": PIL.__version__},
    }


def _attach_embeddings(partial: Path, folder: str, written: _Written) -> dict:
    """Writes embeddings/published/<split>.npy, float32 [captions, dimensions] in record order -> manifest entry."""
    files = {}
    (partial / "embeddings" / "published").mkdir(parents=True)
    for split, names in written.names.items():
        vectors = pickles.published_embeddings(folder, split, names, written.caption_counts[split])
        path = partial / "embeddings" / "published" / f"{split}.npy"
        np.save(path, vectors)
        files[split] = {**records.describe(path), "file": path.relative_to(partial).as_posix()}
    return {"published": {"dimensions": vectors.shape[1], "files": files}}


def _summarise(data_dir: str, manifest: Mapping) -> None:
    lines = [
        f"{split}: {entry['images']:,} pictures, {entry['captions']:,} captions, {len(entry['classes']):,} classes, "
        f"{sum(shard['bytes'] for shard in entry['shards']) / 1e6:,.1f} MB"
        for split, entry in manifest["splits"].items()
    ]
    lines += manifest["notes"]
    print(f"{data_dir} is ready", *lines, sep="\n  ")
    if manifest["vocabulary"]:
        has_classes = any(len(entry["classes"]) > 1 for entry in manifest["splits"].values())
        paper = "char_cnn_rnn" if has_classes else "show_attend_tell"  # the first one tells classes apart
        print(f"Next: t2i-train --paper={paper} --data_dir={data_dir}")
