"""Mean human rank: for a caption, people put the pictures of several methods in order without knowing whose they are.

The measure of Table 1 of StackGAN (ICCV 2017): ten raters, none of them an author, 50 captions of each test class (CUB,
Oxford-102) or 4,000 captions (COCO), five pictures of each method for a caption; the mean of the ranks, 1 being best.

Here are the sheets, the votes and what follows from them; `rank_sheets` draws the pictures, `t2i_tf.web.human_rank` is
the page that shows them. Needs no TensorFlow.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from t2i_tf.config import HumanRankConfig, real_path
from t2i_tf.errors import UserError
from t2i_tf.evaluation import score_file

VERSION = 1
SHEETS, PICTURES, VOTES = "sheets.json", "pictures", "votes.sqlite"
"""The files of a folder of sheets: what is on them, PNG files under names that tell nothing, the votes."""
LONGEST_NAME = 60
"""Characters of a rater's name."""


@dataclass(frozen=True)
class Method:
    """Who made pictures: a run, or a folder of pictures, which has no step and no weights."""

    name: str
    folder: str
    step: int | None = None
    weights: str | None = None


@dataclass(frozen=True)
class Sheets:
    """Captions, and the picture of each method for each: sheets.json."""

    folder: Path
    seed: int
    data: str
    """Name of the data set."""
    split: str | None
    pictures_each: int
    """Pictures of a method for a caption, side by side in one file."""
    methods: list[Method]
    captions: list[str]
    pictures: list[list[str]]
    """[sheet][method] -> the name of a file below `pictures`, without its ending; no order can be read from it."""
    asked: dict
    """The settings that they were made with."""
    sha256: str = ""
    """Of sheets.json."""

    @classmethod
    def read(cls, folder: Path) -> Sheets:
        """Raises UserError for a folder that holds none, or damaged ones, or those of another version."""
        path = folder / SHEETS
        try:
            text = path.read_text(encoding="utf-8")
            found = json.loads(text)
            if found["version"] != VERSION:
                raise UserError(
                    f"{path} has version {found['version']}, this program reads {VERSION}: use the one that wrote it"
                )
            return cls(
                folder,
                *(found[name] for name in ("seed", "data", "split", "pictures_each")),
                [Method(**method) for method in found["methods"]],
                [sheet["caption"] for sheet in found["sheets"]],
                [sheet["pictures"] for sheet in found["sheets"]],
                found["asked"],
                hashlib.sha256(text.encode()).hexdigest(),
            )
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"--sheets={folder} holds no sheets: give --run_dirs, the runs to be ranked") from None
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error!r}): restore it, or make sheets in another folder") from None

    def write(self, folder: Path) -> None:
        """Into a folder, as sheets.json."""
        content = {
            "version": VERSION,
            **{name: getattr(self, name) for name in ("seed", "data", "split", "pictures_each", "asked")},
            "methods": [vars(method) for method in self.methods],
            "sheets": [
                {"caption": caption, "pictures": pictures}
                for caption, pictures in zip(self.captions, self.pictures, strict=True)
            ],
        }
        (folder / SHEETS).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

    def check(self, options: HumanRankConfig) -> None:
        """Raises UserError when settings are asked for that these sheets were not made with."""
        for name, value in asked(options).items():
            if value != self.asked.get(name):
                raise UserError(
                    f"--sheets={self.folder} holds sheets of --{name}={_plain(self.asked.get(name))}, not of "
                    f"{_plain(value)}: give another folder, or leave the flag out to go on with these and their votes"
                )

    def shown(self, rater: str, sheet: int) -> list[int]:
        """The methods of a sheet from left to right, as a rater sees them: drawn anew for each rater and sheet."""
        drawn = hashlib.sha256(json.dumps([self.seed, rater, sheet]).encode()).digest()
        rng = np.random.Generator(np.random.Philox(int.from_bytes(drawn[:16], "big")))
        return rng.permutation(len(self.methods)).tolist()


def asked(options: HumanRankConfig) -> dict:
    """The settings that make sheets what they are, as far as they were given; paths in full."""
    found = {
        name: getattr(options, name)
        for name in ("split", "num_captions", "per_class", "pictures_each", "seed", "weights", "checkpoint")
    }
    paths = {"data_dir": options.data_dir, "captions_file": options.captions_file}
    found |= {name: real_path(path) for name, path in paths.items() if path}
    found |= {"run_dirs": [os.path.realpath(path) for path in options.run_dirs] or None}
    return {name: value for name, value in found.items() if value is not None}


def _plain(value) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def rater_name(name: str) -> str:
    """A name as votes are kept under: case and blanks do not matter. Raises UserError for an empty or endless one."""
    readable = name.encode("utf-8", "replace").decode()
    plain = " ".join(unicodedata.normalize("NFC", readable).split()).casefold()
    if not 0 < len(plain) <= LONGEST_NAME:
        raise UserError(f"a rater's name has 1 to {LONGEST_NAME} characters")
    return plain


@dataclass(frozen=True)
class Vote:
    """What a rater made of a sheet: names of methods, the best first, and as they were shown from left to right."""

    rater: str
    sheet: int
    ranking: list[str]
    shown: list[str]


class Votes:
    """The votes in SQLite, a row for each rater and sheet; a later vote takes the place of an earlier one.

    A vote is on disk when `cast` returns. Threads and processes may share the file.
    """

    def __init__(self, path: Path):
        self.path = path
        with self._opened() as database:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute(
                "CREATE TABLE IF NOT EXISTS votes (rater TEXT NOT NULL, sheet INTEGER NOT NULL, ranking TEXT NOT NULL, "
                "shown TEXT NOT NULL, cast_at TEXT NOT NULL, PRIMARY KEY (rater, sheet))"
            )

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Each statement is a transaction of its own. Raises UserError for whatever goes wrong inside."""
        try:
            with closing(sqlite3.connect(self.path, timeout=30.0, isolation_level=None)) as database:
                database.execute("PRAGMA synchronous=FULL")
                yield database
        except sqlite3.Error as error:
            raise UserError(f"{self.path}: {error}: make room, or the folder writable") from None

    def cast(self, vote: Vote) -> None:
        """Keeps a vote, in one transaction."""
        lists = (json.dumps(names, ensure_ascii=False) for names in (vote.ranking, vote.shown))
        row = (vote.rater, vote.sheet, *lists, datetime.now(timezone.utc).isoformat(timespec="seconds"))
        with self._opened() as database:
            database.execute("INSERT OR REPLACE INTO votes VALUES (?, ?, ?, ?, ?)", row)

    def of(self, rater: str) -> dict[int, list[str]]:
        """Sheet -> ranking."""
        return {vote.sheet: vote.ranking for vote in self._found("WHERE rater = ?", rater)}

    def all(self) -> list[Vote]:
        """In the order of sheets, then of raters' names."""
        return self._found("")

    def _found(self, where: str, *values) -> list[Vote]:
        query = f"SELECT rater, sheet, ranking, shown FROM votes {where} ORDER BY sheet, rater"
        with self._opened() as database:
            rows = database.execute(query, values).fetchall()
        return [Vote(rater, sheet, json.loads(ranking), json.loads(shown)) for rater, sheet, ranking, shown in rows]


def mean_ranks(ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Ranks [votes, methods] -> the mean of each method, and its standard error over the votes, s / sqrt(votes).

    No error for a single vote. Votes count as independent, though a rater casts many.
    """
    count = len(ranks)
    return ranks.mean(axis=0), ranks.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else None


def kendalls_w(ranks: np.ndarray) -> float:
    """Agreement of raters on one sheet, ranks [raters, methods] without ties: 1 all alike, 0 none.

    W = 12 S / (m^2 (n^3 - n)), S the sum of squared deviations of the methods' rank sums (Kendall and Babington Smith,
    1939). By chance alone its mean is 1 / raters.
    """
    raters, methods = ranks.shape
    sums = ranks.sum(axis=0)
    return float(12.0 * np.square(sums - sums.mean()).sum() / (raters**2 * (methods**3 - methods)))


def spearman(ranks: np.ndarray) -> np.ndarray:
    """Rank correlation of each pair of raters on one sheet, ranks [raters, methods] without ties -> [pairs]."""
    return np.corrcoef(ranks)[np.triu_indices(len(ranks), 1)]


def agreement(sheets: list[np.ndarray]) -> dict:
    """Of sheets that two raters or more ranked, ranks [raters, methods] each: the means of `kendalls_w` over sheets and
    of `spearman` over pairs of raters and sheets; None where there is no such sheet."""
    shared = [ranks for ranks in sheets if len(ranks) > 1]
    return {
        "shared_captions": len(shared),
        "kendalls_w": float(np.mean([kendalls_w(ranks) for ranks in shared])) if shared else None,
        "spearman": float(np.mean(np.concatenate([spearman(ranks) for ranks in shared]))) if shared else None,
    }


def scores(sheets: Sheets, votes: list[Vote]) -> list[dict]:
    """Of each method the line of scores.jsonl, with all that is needed to repeat it; `human_rank_deviation` is the
    standard error. Raises UserError when there are no votes."""
    if not votes:
        raise UserError(f"--sheets={sheets.folder} has no votes yet: the same command without --report takes them")
    names = [method.name for method in sheets.methods]
    ranks = np.array([[1 + vote.ranking.index(name) for name in names] for vote in votes])
    of_sheet = np.array([vote.sheet for vote in votes])
    means, errors = mean_ranks(ranks)
    shared = {
        "votes": len(votes),
        "raters": len({vote.rater for vote in votes}),
        "captions": len(sheets.captions),
        "pictures_each": sheets.pictures_each,
        "methods": names,
        **agreement([ranks[of_sheet == sheet] for sheet in np.unique(of_sheet)]),
        "sheets_sha256": sheets.sha256,
    }
    return [
        {
            "metric": "human_rank",
            "version": VERSION,
            "step": method.step,
            "weights": method.weights,
            "data": sheets.data,
            "split": sheets.split,
            "seed": sheets.seed,
            "human_rank": float(means[number]),
            "human_rank_deviation": None if errors is None else float(errors[number]),
            **shared,
        }
        for number, method in enumerate(sheets.methods)
    ]


def report(sheets: Sheets, votes: list[Vote]) -> Iterator[str]:
    """The lines to print, a table among them; adds a line to the scores.jsonl of each method that is still there."""
    found = scores(sheets, votes)
    first, raters = found[0], Counter(vote.rater for vote in votes)
    yield (
        f"{sheets.data}: {len(sheets.captions)} captions, {len(sheets.methods)} methods, sheets of seed {sheets.seed}; "
        f"{len(votes)} votes of {len(raters)} raters ({', '.join(f'{name} {n}' for name, n in raters.items())})"
    )
    yield from ("", "| method | mean rank | votes |", "|---|---|---|")
    for method, line in sorted(zip(sheets.methods, found, strict=True), key=lambda pair: pair[1]["human_rank"]):
        error = "" if line["human_rank_deviation"] is None else f" ± {line['human_rank_deviation']:.2f}"
        yield f"| {method.name} | {line['human_rank']:.2f}{error} | {len(votes)} |"
    yield from ("", f"1 is best, {len(sheets.methods)} worst; ± is the standard error over the votes")
    if first["shared_captions"]:
        yield (
            f"agreement of raters on the {first['shared_captions']} captions that two or more ranked: Kendall's W "
            f"{first['kendalls_w']:.2f}, Spearman correlation of two raters {first['spearman']:.2f} (by chance 0)"
        )
    else:
        yield "agreement of raters: no caption was ranked by two"
    for method, line in zip(sheets.methods, found, strict=True):
        if not Path(method.folder).is_dir():
            logging.warning("%s is not here: its score was added nowhere", method.folder)
        elif line not in score_file.read(Path(method.folder)):
            yield f"added to {score_file.append(Path(method.folder), line)}"
