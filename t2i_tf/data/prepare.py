"""A source -> a data set folder: read, check, convert in parts and in parallel, write beside, join, rename.

What is written depends on the source and the options alone, never on the number of processes or machines, nor on how
often they were stopped. The folder appears whole or not at all: everything is written to `<data_dir>.partial` (see
`parts`), dataset.json last, and renamed. Of the pictures only their positions in the source are held.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from t2i_tf.data import parts, pickles, records, sources
from t2i_tf.data.images import StorageRules, StoredImage, store
from t2i_tf.data.joining import PartWriter, cannot_be_used, join, made_with
from t2i_tf.data.parts import Part, Work
from t2i_tf.data.sources import Example, Source
from t2i_tf.data.storing import storing
from t2i_tf.data.text import TEXT_LENGTH, words
from t2i_tf.errors import UserError
from t2i_tf.progress import ProgressLine

if TYPE_CHECKING:
    from t2i_tf.config import PrepareConfig

_OPTIONS = (
    "source", "source_dir", "image_size", "crop", "resize", "resample", "quality", "stretch_contrast", "split",
    "subset", "captions", "allow_missing", "num_images", "seed", "shard_megabytes", "part_images", "embeddings",
)  # fmt: skip
"""The options that decide what is written; the others say where and how fast."""

_SAMPLE = 16  # pictures encoded beforehand to estimate the disk need
_EMBEDDING_BYTES = 4 * 1024  # of one caption
_PAIR = "\ufffd\ufffd"  # some of Reed's captions have this in place of a blank


def prepare(options: PrepareConfig, progress: Callable[[int, int], None] | None = None) -> Path | None:
    """Writes the data set that `options` describe and returns its folder.

    A folder that holds just that data set already is left alone. Goes on from the parts that earlier commands finished,
    and leaves those alone that other commands are at; with `options.part` it writes only its share. Returns None when
    parts of others are then still unfinished: the command that finishes the last one joins them. `progress(done,
    total)` is called after each picture; by default it keeps a line on stderr.

    Raises UserError when the folder holds anything else, or other options were begun with; when sources are incomplete
    or pictures cannot be read (all are named; `options.allow_missing` leaves them out), or when the disk is or would be
    full. The data set is then not there; finished parts are kept, and the same command goes on from them.
    """
    _check_options(options)
    folder = _folder(options)
    if options.source in sources.WITHOUT_CAPTIONS:
        options = replace(options, captions="none")
    resolved = {name: getattr(options, name) for name in _OPTIONS}
    for name in ("source_dir", "embeddings"):
        if resolved[name] is not None:
            resolved[name] = os.path.realpath(resolved[name])
    work = Work(folder)
    if work.is_joined:
        with _written(work), suppress(FileNotFoundError):  # another command may be quicker
            work.finish()
    if _is_there(folder, resolved):
        print(f"{options.data_dir} is there already, prepared with the same options: nothing to do")
        return Path(options.data_dir)

    source = sources.get(options.source).read(options)
    examples, notes = _checked(source, options)
    outline = _Outline.of(examples)
    all_parts = parts.cut(outline.positions, options.part_images)
    shared = parts.share(all_parts, options.part)
    rules = StorageRules(**{field.name: resolved[field.name] for field in fields(StorageRules)})
    if options.embeddings is not None:
        for split, positions in outline.positions.items():
            path = Path(options.embeddings, split, "filenames.pickle")
            pickles.published_rows(path, [examples[position].name for position in positions])
    left = [part for part in all_parts if _finished(work, part, options) is None]
    _check_disk(folder, examples, left, rules, with_embeddings=options.embeddings is not None)
    if _is_there(folder, resolved):  # by another command, while this one read the source
        return Path(options.data_dir)

    with _written(work):
        try:
            work.begin(_identity(resolved, outline))
            if len(left) < len(all_parts):
                print(f"going on: {len(all_parts) - len(left):,} of {len(all_parts):,} parts are finished")
            _write_parts(work, shared, examples, outline.classes, rules, options, progress or ProgressLine())
            finished = [_finished(work, part, options) for part in all_parts]
            if None in finished:
                bad = [bad for record in map(work.record, shared) if record for bad in record["bad"]]
                if bad and not options.allow_missing:
                    raise UserError(f"{cannot_be_used(bad)}. Replace them, or leave them out with --allow_missing")
                count = len(finished) - finished.count(None)
                print(f"{count:,} of {len(finished):,} parts are finished; who finishes the last one joins them")
                return None
            with work.claimed() as ours:
                if not ours:
                    print("all parts are finished, and another command is joining them")
                    return None
                manifest = join(work, all_parts, finished, source, outline.classes, notes, options, resolved)
                work.finish()
        except FileNotFoundError:
            if not _is_there(folder, resolved):
                raise
            print(f"{options.data_dir} is there: another command has joined the parts")
            return Path(options.data_dir)
    _summarise(options.data_dir, manifest)
    return Path(options.data_dir)


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


def _check_options(options: PrepareConfig) -> None:
    if options.image_size is not None and options.image_size < 1:
        raise UserError(f"--image_size={options.image_size}: give a number of pixels")
    if not 1 <= options.quality <= 100:
        raise UserError(f"--quality={options.quality}: JPEG quality is 1 to 100")
    if options.workers is not None and options.workers < 1:
        raise UserError(f"--workers={options.workers}: give 1 or more")
    for name in ("shard_megabytes", "part_images"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name}={getattr(options, name)}: give 1 or more")
    parts.share((), options.part)
    if options.subset is not None and options.source != "imagenet":
        raise UserError(f"--subset={options.subset}: only --source=imagenet has subsets; leave the flag out")
    if options.split.startswith("karpathy") and options.source not in sources.WITH_KARPATHY_SPLITS:
        having = ", ".join(sorted(sources.WITH_KARPATHY_SPLITS))
        raise UserError(f"--split={options.split}: only {having} have these splits; leave the flag out")


def _folder(options: PrepareConfig) -> Path:
    if "://" in options.data_dir:
        raise UserError(
            f"--data_dir={options.data_dir}: data sets are written to local folders; prepare here, then copy"
        )
    folder = Path(os.path.realpath(options.data_dir))
    if folder.name.endswith(records.PARTIAL):
        raise UserError(f"--data_dir={options.data_dir}: unfinished work is called so; choose another name")
    return folder


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
    if differing := parts.differences(manifest.get("options", {}), resolved):
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
    if options.source in sources.WITHOUT_CAPTIONS:
        pass
    elif options.captions == "none":
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


@dataclass(frozen=True)
class _Outline:
    """What one look at every example tells."""

    positions: dict[str, Sequence[int]]
    """Of the examples of each split, train first and test last."""
    classes: list[str]
    sha256: str
    """Of all that is known of the examples without reading pictures."""

    @classmethod
    def of(cls, examples: Sequence[Example]) -> _Outline:
        groups: dict[str, array] = {}
        classes: set[str | None] = set()
        digest = hashlib.sha256()
        for position, example in enumerate(examples):
            groups.setdefault(example.split, array("q")).append(position)
            classes.add(example.class_name)
            known = (example.split, example.name, example.captions, example.class_name, example.box, example.attributes)
            digest.update(repr(known).encode())
        order = sorted(groups, key=lambda split: (split != "train", split == "test", split))
        return cls({split: groups[split] for split in order}, sorted(classes - {None}), digest.hexdigest())


def _identity(resolved: Mapping, outline: _Outline) -> dict:
    """What all who write parts of one data set must agree on. Whether bad pictures are left out is asked at its end."""
    kept = {name: value for name, value in resolved.items() if name != "allow_missing"}
    return {**kept, "examples": outline.sha256, **made_with()}


def _check_disk(
    folder: Path, examples: Sequence[Example], left: Sequence[Part], rules: StorageRules, with_embeddings: bool
) -> None:
    """Raises UserError when an estimate from a few pictures of the parts that are left does not fit on the disk."""
    positions = list(itertools.chain.from_iterable(_spread(part.positions) for part in _spread(left)))
    sample = [examples[position] for position in _spread(positions)]
    stored = [store(example.image, example.box, rules) for example in sample]
    sizes = [len(picture.jpeg) for picture in stored if isinstance(picture, StoredImage)]
    if not sizes:
        return
    of_captions = sum(200 + 2 * sum(map(len, example.captions)) for example in sample)
    if with_embeddings:
        of_captions += sum(len(example.captions) for example in sample) * _EMBEDDING_BYTES
    of_one = sum(sizes) / len(sizes) + of_captions / len(sample)
    needed = of_one * sum(len(part.positions) for part in left)
    parent = next(parent for parent in folder.parents if parent.exists())
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise UserError(
            f"--data_dir={folder} needs about {needed / 1e6:,.0f} MB, its disk has {free / 1e6:,.0f} MB free: make "
            "room or choose another"
        )


def _spread(items: Sequence) -> Sequence:
    """A few of them, evenly spread."""
    return items[:: max(1, -(-len(items) // _SAMPLE))]


@contextmanager
def _written(work: Work) -> Iterator[None]:
    """Tells in one line what keeps the work from being written."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"--data_dir={work.target} cannot be written ({error.strerror or error}): make room or choose another; the "
            f"same command goes on from the parts that are finished in {work.folder.name}"
        ) from error


def _finished(work: Work, part: Part, options: PrepareConfig) -> dict | None:
    """What is known of a finished part. One with bad pictures is not finished as long as they must not be left out."""
    record = work.record(part)
    return record if record and (options.allow_missing or not record["bad"]) else None


def _write_parts(
    work: Work,
    shared: Sequence[Part],
    examples: Sequence[Example],
    classes: Sequence[str],
    rules: StorageRules,
    options: PrepareConfig,
    progress: Callable[[int, int], None],
) -> None:
    """Writes those parts that are not finished and that nobody else is at."""
    class_ids = {name: number for number, name in enumerate(classes)}
    left = [part for part in shared if _finished(work, part, options) is None]
    done, total = 0, sum(len(part.positions) for part in left)
    with storing(rules, options.workers, total) as stored:
        for part in left:
            with work.claimed(part) as ours:
                if not ours or _finished(work, part, options) is not None:
                    total -= len(part.positions)
                    continue
                with work.written(part) as folder:
                    of_part = (examples[position] for position in part.positions)
                    record = PartWriter(folder, part.split, classes, options.shard_megabytes * 1_000_000)
                    with record.writer:
                        for example, picture in stored(of_part):
                            record.add(example, picture, class_ids.get(example.class_name, -1))
                            done += 1
                            progress(done, total)
                        parts.save(folder, record.close())


def _summarise(data_dir: str, manifest: Mapping) -> None:
    lines = [
        f"{split}: {entry['images']:,} pictures, {entry['captions']:,} captions, {len(entry['classes']):,} classes, "
        f"{sum(shard['bytes'] for shard in entry['shards']) / 1e6:,.1f} MB"
        for split, entry in manifest["splits"].items()
    ]
    lines += manifest["notes"]
    print(f"{data_dir} is ready", *lines, sep="\n  ")
    has_classes = any(len(entry["classes"]) > 1 for entry in manifest["splits"].values())
    if not manifest["vocabulary"]:
        first = "stackgan_v2 --noconditional --color_weight=50"
    else:  # what reads captions for a generator: the one learns from classes, the other from pairs alone
        first = "char_cnn_rnn" if has_classes else "damsm"
    print(f"Next: t2i-train --paper={first} --data_dir={data_dir}")
