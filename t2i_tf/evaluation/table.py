"""Scores of many runs in one table, beside the published figures, and which of them may be compared.

Two scores may be compared when they were measured alike: same metric and version, data and split, network, weights of
it, resizing, numbers of pictures. Those that were bear the same letter, and a note says what it stands for. Published
figures bear none: the networks behind those of CUB and Oxford-102 can no longer be had, and what else the programs did
is partly unknown.
"""

from __future__ import annotations

import csv
import fnmatch
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from t2i_tf.config import TableConfig
from t2i_tf.errors import UserError
from t2i_tf.evaluation import score_file

PUBLISHED_NOTE = "quoted from the paper named, not measured here; no number of ours may be compared with it"
MEASURE = (
    "version",
    "split",
    "extractor_sha256",
    "encoder_sha256",
    "resize",
    "image_size",
    "fake_images",
    "real_images",
    "blocks",
    "images",
    "captions",
    "captioner_run",
    "captioner_step",
    "seeds",
    "classes",
    "pairs",
    "folds",
    "splits",
    "tokenization",
    "references",
    "beam_size",
    "length_normalised",
    "methods",
    "pictures_each",
    "sheets_sha256",
)
"""What must be the same for two scores of a metric on a data set to be compared; `images` where it is a number."""
BLEU = ("bleu_1", "bleu_2", "bleu_3", "bleu_4")
BLEU_OF_2015 = tuple(f"{name}_without_brevity_penalty" for name in BLEU)
"""As Show, Attend and Tell reports it."""
COLORS = ("petal_color", "center_color", "background")
VALUES = {
    "is": ("is",),
    "fid": ("fid",),
    "kid": ("kid",),
    "r_precision": ("r_precision",),
    "retrieval": ("accuracy", "precision_at_50"),
    "recall": ("image_to_text_1", "text_to_image_1"),
    "caption_fidelity": COLORS,
    "diversity": ("same_caption", "across_captions", "across_seeds", "real"),
    "accuracy": ("accuracy",),
    "word_precision": ("mean_average_precision",),
    "captions": (
        *BLEU,
        *BLEU_OF_2015,
        "meteor",
        "rouge_l",
        "cider",
        "negative_log_likelihood",
        *COLORS,
        "attention_on_petals",
        "petal_area",
    ),
    "round_trip": tuple(f"{of}{name}" for name in (*BLEU, "rouge_l", "cider", *COLORS) for of in ("", "real_")),
    "attention_on_petals": ("on_petals_*", "times_denser_*", "petal_area"),
    "human_rank": ("human_rank",),
}
"""Metric -> the names in its line that are shown, or patterns of them; a deviation is that name with `_deviation`."""


@dataclass(frozen=True)
class Published:
    """A figure of a paper: of a method on a data set."""

    data: str
    method: str
    metric: str
    name: str
    """Of the value in a line of that metric."""
    value: float
    deviation: float | None
    source: str


def _published(
    metric: str, source: str, figures: dict[str, dict[str, tuple]], name: str | None = None
) -> list[Published]:
    return [
        Published(data, method, metric, name or metric, *(*figure, None)[:2], source)
        for method, of_data in figures.items()
        for data, figure in of_data.items()
    ]


def _published_captions(figures: dict[str, dict[str, tuple]]) -> list[Published]:
    """Method and data set -> BLEU-1 to 4 without brevity penalty and METEOR, in hundredths."""
    return [
        Published(data, method, "captions", name, round(value / 100, 4), None, "Show, Attend and Tell")
        for method, of_data in figures.items()
        for data, values in of_data.items()
        for name, value in zip((*BLEU_OF_2015, "meteor"), values, strict=True)
        if value is not None
    ]


PUBLISHED = [
    *_published(
        "is",
        "StackGAN",
        {
            "GAN-INT-CLS": {"cub": (2.88, 0.04), "oxford102": (2.66, 0.03), "coco": (7.88, 0.07)},
            "StackGAN": {"cub": (3.70, 0.04), "oxford102": (3.20, 0.01), "coco": (8.45, 0.03)},
            "StackGAN Stage-I, 64x64, without conditioning augmentation": {"cub": (2.66,)},
            "StackGAN Stage-I, 64x64": {"cub": (2.95,)},
        },
    ),
    *_published(
        "human_rank",
        "StackGAN",
        {
            "GAN-INT-CLS": {"cub": (2.81, 0.03), "oxford102": (1.87, 0.03), "coco": (1.89, 0.04)},
            "GAWWN": {"cub": (1.99, 0.04)},
            "StackGAN": {"cub": (1.37, 0.02), "oxford102": (1.13, 0.03), "coco": (1.11, 0.03)},
        },
    ),
    *_published(
        "is",
        "StackGAN++",
        {"StackGAN-v2": {"cub": (4.04, 0.05), "oxford102": (3.26, 0.01), "coco": (8.30, 0.10)}},
    ),
    *_published(
        "fid",
        "StackGAN++",
        {
            "GAN-INT-CLS": {"cub": (68.79,), "oxford102": (79.55,), "coco": (60.62,)},
            "StackGAN": {"cub": (51.89,), "oxford102": (55.28,), "coco": (74.05,)},
            "StackGAN-v2": {"cub": (15.30,), "oxford102": (48.68,), "coco": (81.59,)},
        },
    ),
    *_published(
        "is",
        "AttnGAN",
        {
            "AttnGAN1, without DAMSM": {"cub": (3.98, 0.04)},
            "AttnGAN1, lambda 0.1": {"cub": (4.19, 0.06)},
            "AttnGAN1, lambda 1": {"cub": (4.35, 0.05)},
            "AttnGAN1, lambda 5": {"cub": (4.35, 0.04)},
            "AttnGAN1, lambda 10": {"cub": (4.29, 0.05)},
            "AttnGAN2": {"cub": (4.36, 0.03), "coco": (25.89, 0.47)},
        },
    ),
    *_published(
        "r_precision",
        "AttnGAN",
        {
            "AttnGAN1, without DAMSM": {"cub": (0.1037, 0.0588)},
            "AttnGAN1, lambda 0.1": {"cub": (0.1655, 0.0483)},
            "AttnGAN1, lambda 1": {"cub": (0.3496, 0.0402)},
            "AttnGAN1, lambda 5": {"cub": (0.5865, 0.0541)},
            "AttnGAN1, lambda 10": {"cub": (0.6387, 0.0485)},
            "AttnGAN2": {"cub": (0.6782, 0.0443), "coco": (0.8547, 0.0369)},
        },
    ),
    *_published_captions(
        {
            "soft attention": {
                "flickr8k": (67, 44.8, 29.9, 19.5, 18.93),
                "flickr30k": (66.7, 43.4, 28.8, 19.1, 18.49),
                "coco": (70.7, 49.2, 34.4, 24.3, 23.90),
            },
            "hard attention": {
                "flickr8k": (67, 45.7, 31.4, 21.3, 20.30),
                "flickr30k": (66.9, 43.9, 29.6, 19.9, 18.46),
                "coco": (71.8, 50.4, 35.7, 25.0, 23.04),
            },
            "Google NIC, without attention": {
                "flickr8k": (63, 41, 27, None, None),
                "flickr30k": (66.3, 42.3, 27.7, 18.3, None),
                "coco": (66.6, 46.1, 32.9, 24.6, None),
            },
        }
    ),
]


@dataclass(frozen=True)
class Row:
    """A score as it is shown."""

    data: str
    metric: str
    name: str
    """Of the value in its line."""
    method: str
    step: int | None
    weights: str
    value: float
    deviation: float | None
    measured: str
    """Letters of the note that says how; "published" of a figure of a paper."""
    folder: Path | None = None
    """Of the run, or of the pictures that were scored."""


def table(options: TableConfig) -> str:
    """`t2i-table`: the table as text, Markdown or CSV. Raises UserError for folders without scores."""
    rows, notes = collect([Path(folder) for folder in options.run_dirs], options.metrics)
    if options.published:
        shown = {(row.data, row.metric, row.name) for row in rows}
        rows += [
            Row(p.data, p.metric, p.name, f"{p.method} ({p.source})", None, "", p.value, p.deviation, "published")
            for p in PUBLISHED
            if (p.data, p.metric, p.name) in shown
        ]
    rows.sort(key=lambda row: (row.data, list(VALUES).index(row.metric), row.name, row.measured, row.method))
    return as_csv(rows, notes) if options.format == "csv" else as_markdown(rows, notes)


def collect(
    folders: list[Path], metrics: tuple[str, ...] | None = None, every_step: bool = False
) -> tuple[list[Row], dict[str, str]]:
    """Of each folder, metric, way to measure and kind of weights the score of the last step, the newest line of it.

    Args:
        every_step: those of all steps.

    Returns the rows, and letters -> what they stand for. Raises UserError for a folder without scores, or an unknown
    metric.
    """
    unknown = [name for name in metrics or () if name not in VALUES]
    if unknown:
        raise UserError(f"--metrics={unknown[0]}: must be one of {', '.join(VALUES)}")
    letters: dict[str, str] = {}
    rows = []
    for folder in folders:
        lines = score_file.read(folder)
        if not lines:
            raise UserError(f"{folder} has no {score_file.NAME}: score it first (t2i-evaluate)")
        newest = {}
        for line in lines:
            if line.get("metric") in (metrics or VALUES):
                step = line.get("step") or 0
                alike = (line["metric"], line.get("data"), line.get("weights"), json.dumps(measure(line)))
                key = (*alike, step) if every_step else alike
                if key not in newest or step >= (newest[key].get("step") or 0):
                    newest[key] = line
        for line in newest.values():
            how = json.dumps({"metric": line["metric"], "data": line["data"], **measure(line)}, sort_keys=True)
            letter = letters.setdefault(how, _letters(len(letters)))
            rows += _rows(folder, line, letter)
    return rows, {letter: told(json.loads(how)) for how, letter in letters.items()}


def measure(line: dict) -> dict:
    """How it was measured; `images` may also be the folder that was scored."""
    found = {name: line[name] for name in MEASURE if line.get(name) is not None}
    return {name: value for name, value in found.items() if name != "images" or isinstance(value, int)}


def told(how: dict) -> str:
    """In words, for people."""

    def plain(name, value):
        return value[:12] if name.endswith("sha256") else " / ".join(value) if isinstance(value, list) else value

    parts = [f"{name} {plain(name, value)}" for name, value in how.items()]
    return ", ".join(part for part in parts if not part.startswith(("metric ", "data ", "version ")))


def _letters(number: int) -> str:
    """0 -> a, 25 -> z, 26 -> aa."""
    return ("" if number < 26 else _letters(number // 26 - 1)) + chr(ord("a") + number % 26)


def _rows(folder: Path, line: dict, letter: str) -> Iterator[Row]:
    patterns = VALUES[line["metric"]]
    for name in dict.fromkeys(name for pattern in patterns for name in fnmatch.filter(line, pattern)):
        if isinstance(line[name], (int, float)):
            deviation, weights = line.get(f"{name}_deviation"), line.get("weights") or ""
            measured = (line["data"], line["metric"], name, folder.name, line.get("step"), weights)
            yield Row(*measured, line[name], deviation, letter, folder)


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}"


def as_markdown(rows: list[Row], notes: dict[str, str]) -> str:
    """A section a data set, a table a value; below, what the letters stand for."""
    lines = []
    for data, of_data in groupby(rows, lambda row: row.data):
        lines += [f"## {data}", ""]
        for (metric, name), of_value in groupby(of_data, lambda row: (row.metric, row.name)):
            lines += [f"### {metric if metric == name else f'{metric}: {name}'}", ""]
            lines += ["| method | step | weights | value | measured |", "|---|---|---|---|---|"]
            for row in of_value:
                value = _number(row.value) + ("" if row.deviation is None else f" ± {_number(row.deviation)}")
                step = "" if row.step is None else row.step
                lines.append(f"| {row.method} | {step} | {row.weights} | {value} | {row.measured} |")
            lines.append("")
    lines += ["Only values of one letter may be compared:", ""]
    lines += [f"* {letter}: {told}" for letter, told in notes.items()]
    if any(row.measured == "published" for row in rows):
        lines.append(f"* published: {PUBLISHED_NOTE}")
    return "\n".join(lines) + "\n"


def as_csv(rows: list[Row], notes: dict[str, str]) -> str:
    """A line a value, the note written out."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["data", "metric", "name", "method", "step", "weights", "value", "deviation", "measured", "how"])
    for row in rows:
        step, deviation = ("" if x is None else x for x in (row.step, row.deviation))
        how = notes.get(row.measured, PUBLISHED_NOTE)
        named = [row.data, row.metric, row.name, row.method, step, row.weights]
        writer.writerow([*named, row.value, deviation, row.measured, how])
    return stream.getvalue()
