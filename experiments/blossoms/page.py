"""docs/results.md: the tables from the scores alone, beside the papers' figures, and which orderings are seen."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from experiments.blossoms.jobs import Workshop, drawn_captions, minutes_in, scored_step
from experiments.blossoms.tables import DRAWN_SEEDS, SHARED, Column, Ordering, Row, Run, Table
from t2i_tf import pictures
from t2i_tf.evaluation import table as scores

SEEN, WITHIN, REVERSED = "seen", "within the deviations", "the other way round"
UNKNOWN, UNLIKE = "not measured", "not measured alike"
SMALL, LARGE, WIDTH = 64, 128, 1000
"""Sides in pixels of drawn pictures on the page: of runs of 64 pixels, and where one is larger; width of figures."""


@dataclass(frozen=True)
class Figure:
    """A score: its value, and its deviation where one is known."""

    value: float
    deviation: float | None = None

    def __str__(self) -> str:
        decimals = 3 if abs(self.value) < 1 else 2
        deviation = "" if self.deviation is None else f" ± {self.deviation:.{decimals}f}"
        return f"{self.value:.{decimals}f}{deviation}"


def figure(line: dict | None, value: str) -> Figure | None:
    """A value of a line of scores.jsonl, None where it is not there.

    Its deviation is the line's own, or of a share of `<value>_count` pictures sqrt(p (1 - p) / n).
    """
    if line is None or not isinstance(line.get(value), (int, float)):
        return None
    deviation, count, share = line.get(f"{value}_deviation"), line.get(f"{value}_count"), line[value]
    if deviation is None and count:
        deviation = math.sqrt(share * (1 - share) / count)
    return Figure(share, deviation)


def compare(worse: Figure | None, better: Figure | None, smaller_is_better: bool = False) -> str:
    """Is the second figure better than the first, by more than both deviations (the root of the sum of their squares)?

    -> SEEN, WITHIN (the difference is no larger), REVERSED, or UNKNOWN where one is missing. A deviation that is not
    known counts as none.
    """
    if worse is None or better is None:
        return UNKNOWN
    gap = (better.value - worse.value) * (-1 if smaller_is_better else 1)
    noise = math.hypot(worse.deviation or 0.0, better.deviation or 0.0)
    return WITHIN if abs(gap) <= noise else SEEN if gap > 0 else REVERSED


def summary(verdicts: Sequence[str]) -> str:
    """Of the pairs of an ordering, whether it is seen as a whole."""
    for missing in (UNKNOWN, UNLIKE):
        if missing in verdicts:
            return missing
    if set(verdicts) == {SEEN}:
        return SEEN
    return "seen in part" if SEEN in verdicts else "not seen"


ABOUT = (
    "This page is written by it from the `scores.jsonl` of the runs. What is drawn and scored is of classes that were "
    "never trained on. The papers' figures, in italics, are quoted: they are of other pictures and networks, so that "
    "orderings can be compared and numbers cannot. An ordering is *seen* where what should be better is, by more than "
    "both deviations (the root of the sum of their squares). Deviations are of the measurement: over the splits of IS "
    "and the folds of R-precision, sqrt(p (1 - p) / n) of shares; FID, BLEU, METEOR and attention have none, and there "
    "the sign decides. Each run is of one seed: another one moves a score by more than that. Minutes are of training, "
    "as the runs' logs tell, on {machine}."
)


class Page:
    """The page of some tables. Reads run folders and writes nothing but the page and its pictures.

    Args:
        path: of the page; pictures go to `pictures/` beside it.
        machine: what the minutes were measured on, in words.
    """

    def __init__(self, workshop: Workshop, path: Path, machine: str):
        self.workshop, self.path, self.machine = workshop, path, machine

    def write(self, tables: Sequence[Table]) -> None:
        """Raises OSError where it cannot be written."""
        text = "\n".join(self._head() + [line for table in tables for line in self.section(table)])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(text.rstrip() + "\n", encoding="utf-8")

    def _head(self) -> list[str]:
        lines = [
            "# Results on `blossoms`",
            "",
            "The papers' tables at small scale, on flowers that the package draws, rerun by one command:",
            "",
            "    python -m experiments.blossoms",
            "",
            textwrap.fill(ABOUT.format(machine=self.machine), 120),
            "",
            "What the runs rest on:",
            "",
        ]
        return [*lines, *(f"* {self._shared(run)}" for run in SHARED), ""]

    def _shared(self, run: Run) -> str:
        metric, value, words = SHARED[run]
        step = scored_step(self.workshop.folder(run))
        found = [line for line in scores.score_file.read(self.workshop.folder(run)) if line.get("metric") == metric]
        found = [line for line in found if step in (None, line.get("step"))]
        name = f"`{run.name}` (`flags/{run.preset}_blossoms.flags`"
        if not found:
            return f"{name}): {UNKNOWN}"
        said = figure(found[-1], value)
        about = f"seed {self._seed(run)}, step {found[-1]['step']}, {self._minutes(run)} minutes"
        return f"{name}, {about}): {words} {said}"

    # A table.

    def section(self, table: Table) -> list[str]:
        lines = [f"## {table.title}", "", textwrap.fill(table.about, 120), "", *self._grid(table), ""]
        lines += [f"* {told}" for told in [*self._measured(table), *(self._verdict(table, o) for o in table.orderings)]]
        if shown := self._picture(table):
            lines += ["", f"![{table.title}]({shown})"]
        commands = [job.shown for job in self.workshop.jobs([table])]
        lines += ["", f"`python -m experiments.blossoms --tables={table.name}` runs", ""]
        return [*lines, "<details><summary>these commands</summary>", "", "```", *commands, "```", "", "</details>", ""]

    def _line(self, row: Row, column: Column) -> dict | None:
        return self.workshop.line(row.run, column.score, column.metric)

    def _grid(self, table: Table) -> list[str]:
        """Ours, then the papers' in italics."""
        titles = [column.title for column in table.columns] + [f"*{column.title}*" for column in table.published]
        lines = [_cells("", *titles, "step", "seed", "minutes"), _cells("---", *["---"] * (len(titles) + 3))]
        for row in table.rows:
            ours = [figure(self._line(row, column), column.value) for column in table.columns]
            theirs = [_published(row.published, c.data, c.metric, c.value) for c in table.published]
            step = next((line["step"] for c in table.columns if (line := self._line(row, c))), None)
            quoted = (f"*{found}*" if found else "" for found in theirs)
            about = (step, self._seed(row.run), self._minutes(row.run))
            lines.append(_cells(row.label, *map(_shown, ours), *quoted, *about))
        return lines

    def _measured(self, table: Table) -> list[str]:
        """How each metric was measured, as its lines say."""
        found: dict[tuple[str, str], dict[str, None]] = {}
        for column in table.columns:
            for row in table.rows:
                if line := self._line(row, column):
                    found.setdefault((scores.told(scores.measure(line)), column.metric), {})[row.label] = None
        told = []
        for (how, metric), labels in found.items():
            which = "" if len(labels) == len(table.rows) else f" of {', '.join(labels)}"
            told.append(f"{metric}{which}: seed 0, {how}")
        return told

    def _verdict(self, table: Table, ordering: Ordering) -> str:
        column = next(c for c in table.columns if c.title == ordering.column)
        rows = {row.label: row for row in table.rows}
        parts, verdicts = [], []
        for worse, better in ordering.pairs:
            lines = [self._line(rows[label], column) for label in (worse, better)]
            two = [figure(line, column.value) for line in lines]
            alike = None in lines or _measure(lines[0]) == _measure(lines[1])
            verdicts.append(compare(*two, column.smaller_is_better) if alike else UNLIKE)
            parts.append(f"{better} ({_shown(two[1])}) before {worse} ({_shown(two[0])}): {verdicts[-1]}")
        return f"{ordering.says} ({column.title}): **{summary(verdicts)}**. {'; '.join(parts)}."

    # Of a run.

    def _seed(self, run: Run) -> int | str:
        path = self.workshop.folder(run) / "config.json"
        return json.loads(path.read_text())["training"]["seed"] if path.is_file() else "?"

    def _minutes(self, run: Run) -> str:
        took = minutes_in(self.workshop.folder(run) / "log")
        return "?" if took is None else f"{took:.1f}"

    # Pictures.

    def _picture(self, table: Table) -> str | None:
        """Of what the runs drew of the same captions, side by side, or said of one picture -> its path on the page."""
        folders = {row.label: self.workshop.pictures(row.run) for row in table.rows}
        if any(not any(folder.glob("*.png")) for folder in folders.values()):
            return None
        drawn = all((folder / "grid.png").is_file() for folder in folders.values())
        image = _side_by_side(folders) if drawn else _stacked(folders)
        path = self.path.parent / "pictures" / f"results_{table.name}.webp"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, format="WEBP", quality=88, method=6)
        return f"pictures/{path.name}"


def _side_by_side(folders: dict[str, Path]) -> Image.Image:
    """A row a caption, a column a run and seed."""
    captions, columns = drawn_captions(), []
    for folder in folders.values():
        files = sorted(file for file in folder.glob("*.png") if file.name != "grid.png")
        images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
        columns.append(images.reshape(len(captions), len(DRAWN_SEEDS), *images.shape[1:]))
    side = LARGE if any(images.shape[2] > SMALL for images in columns) else SMALL
    grid = np.concatenate([_resized(images, side) for images in columns], axis=1)
    labels = [label if seed == DRAWN_SEEDS[0] else "" for label in folders for seed in DRAWN_SEEDS]
    return pictures.labelled_grid(grid, captions, labels)


def _resized(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 [R,C,H,W,3] -> [R,C,side,side,3]: smaller ones keep their pixels, larger ones are averaged."""
    if images.shape[2] <= side:
        return pictures.enlarged(images, side)
    flat = [Image.fromarray(image).resize((side, side), Image.Resampling.BOX) for row in images for image in row]
    return np.stack([np.asarray(image) for image in flat]).reshape(*images.shape[:2], side, side, 3)


def _stacked(folders: dict[str, Path]) -> Image.Image:
    """What each run made of the first picture, one below the other, each under its name."""
    parts = []
    for label, folder in folders.items():
        image = Image.open(min(folder.glob("*.png"))).convert("RGB")
        image.thumbnail((WIDTH, WIDTH))
        parts.append(pictures.labelled_grid(np.asarray(image)[None, None], [label]))
    sheet = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), "white")
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def _measure(line: dict) -> dict:
    """How it was measured; the size of the pictures apart, which the extractor brings to its own."""
    return {name: value for name, value in scores.measure(line).items() if name != "image_size"}


def _published(method: str, data: str, metric: str, value: str) -> Figure | None:
    """A figure of a paper; None where it has none."""
    for p in scores.PUBLISHED:
        if (p.method, p.data, p.metric, p.name) == (method, data, metric, value):
            return Figure(p.value, p.deviation)
    return None


def _cells(*cells) -> str:
    return f"| {' | '.join('' if cell is None else str(cell) for cell in cells)} |"


def _shown(found: Figure | None) -> str:
    return "–" if found is None else str(found)
