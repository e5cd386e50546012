"""Tables -> the commands that fill them, in order, each skipped where its result lies there already."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from experiments.blossoms.tables import DRAWN_CAPTIONS, DRAWN_SEEDS, DataSet, Row, Run, Score, Table
from t2i_tf.evaluation import score_file

ROOT = Path(__file__).resolve().parents[2]
REPEATED = {"extractor": "extractor", "damsm_run": "encoder", "tokenization": "tokenization"}
"""Flags of t2i-evaluate that its lines repeat -> under which name; a line without that name does not depend on it."""
START_MINUTES = 0.4
"""What a training takes before its second step, from which its log tells the time."""
PAUSE_MINUTES = 5.0
"""A longer silence of a run's log is none of its time: it was stopped and resumed."""


@dataclass(frozen=True)
class Job:
    """A command of the package, and whether it is still to be done."""

    label: str
    verb: str
    """prepare, train, evaluate or sample."""
    flags: tuple[str, ...]
    minutes: float
    """Expected."""
    is_done: Callable[[], bool]
    took: Callable[[], float | None] = lambda: None
    """Minutes that it is known to have taken, whoever ran it."""

    @property
    def shown(self) -> str:
        return shlex.join([f"t2i-{self.verb}", *self.flags])

    @property
    def command(self) -> list[str]:
        program = f"import sys; from t2i_tf import cli; sys.exit(cli.{self.verb}())"
        return [sys.executable, "-c", program, *self.flags]


@dataclass(frozen=True)
class Workshop:
    """Where results lie, and how much of the work is done: no run longer than `most_steps`, no score of more than
    `most_images`, no data set of more than `most_data` pictures."""

    out: Path
    most_steps: int = sys.maxsize
    most_images: int = sys.maxsize
    most_data: int = sys.maxsize

    def path(self, thing: DataSet | Run) -> str:
        """As it is written in commands: from the repository's folder where it lies inside."""
        path = (self.out / "data" / thing.name if isinstance(thing, DataSet) else self.out / thing.name).absolute()
        return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)

    def folder(self, thing: DataSet | Run) -> Path:
        return ROOT / self.path(thing)

    def flags(self, thing: Run | Score) -> tuple[str, ...]:
        return tuple(f if isinstance(f, str) else f[0].format(self.path(f[1])) for f in thing.flags)

    def steps(self, run: Run) -> int:
        return min(run.steps, self.most_steps)

    def line(self, run: Run, score: Score, metric: str, step: int | None = None) -> dict | None:
        """The newest line of a score in the run's scores.jsonl, of any step or of one; None where there is none."""
        wanted = {"metric": metric, "num_images": min(score.num_images, self.most_images), "seed": 0}
        wanted |= {} if step is None else {"step": step}
        given = dict(flag.removeprefix("--").split("=", 1) for flag in self.flags(score))
        given = {REPEATED[name]: value for name, value in given.items()}
        found = [
            line
            for line in score_file.read(self.folder(run))
            if wanted.items() <= line.items() and all(line.get(name, value) == value for name, value in given.items())
        ]
        return found[-1] if found else None

    # The jobs.

    def jobs(self, tables: Sequence[Table]) -> list[Job]:
        """All that the tables need, what is needed first, each once."""
        jobs = (job for table in tables for row in table.rows for job in self._of_row(table, row))
        return list({job.label: job for job in jobs}.values())

    def _of_row(self, table: Table, row: Row) -> Iterator[Job]:
        scores = dict.fromkeys(column.score for column in table.columns)
        for run in (*(judge for score in scores for judge in _runs_in(score)), row.run):
            yield from self._trained(run)
        for score in scores:
            yield self._scored(row.run, score)
        yield self._drawn(row.run)

    def _trained(self, run: Run) -> Iterator[Job]:
        yield self._prepared(run.data)
        for needed in _runs_in(run):
            yield from self._trained(needed)
        folder, steps = self.folder(run), self.steps(run)

        def took():
            minutes = minutes_in(folder / "log")
            return None if minutes is None else minutes + START_MINUTES

        flags = (f"--flagfile=flags/{run.preset}_blossoms.flags", f"--data_dir={self.path(run.data)}", *self.flags(run))
        yield Job(
            f"train {run.name}",
            "train",
            (*flags, f"--steps={steps}", f"--run_dir={self.path(run)}"),
            START_MINUTES + run.minutes * steps / run.steps,
            lambda: (newest_step(folder) or 0) >= steps,
            took,
        )

    def _prepared(self, data: DataSet) -> Job:
        folder, count = self.folder(data), min(data.num_images, self.most_data)
        size = (f"--image_size={data.image_size}", f"--num_images={count}")
        flags = ("--source=blossoms", f"--data_dir={self.path(data)}", *size)
        return Job(f"draw {data.name}", "prepare", flags, data.minutes, lambda: pictures_in(folder) == count)

    def _scored(self, run: Run, score: Score) -> Job:
        metrics, count = ",".join(score.metrics), min(score.num_images, self.most_images)
        where = (f"--run_dir={self.path(run)}", f"--data_dir={self.path(run.data)}", f"--metrics={metrics}")

        def is_done():
            step = scored_step(self.folder(run))
            return all(self.line(run, score, metric, step) for metric in score.metrics)

        by = ",".join(dict.fromkeys(needed.name for needed in _runs_in(score)))
        return Job(
            f"score {run.name}: {metrics}" + (f" by {by}" if by else ""),
            "evaluate",
            (*where, f"--num_images={count}", *self.flags(score)),
            score.minutes,
            is_done,
        )

    def pictures(self, run: Run) -> Path:
        """The folder of what the run drew or described at its last step."""
        return self.folder(run) / "pictures" / f"step-{self.steps(run):07d}"

    def _drawn(self, run: Run) -> Job:
        flags = (f"--run_dir={self.path(run)}", f"--data_dir={self.path(run.data)}")
        folder = self.pictures(run)
        flags += (f"--out={self.path(run)}/{folder.relative_to(self.folder(run))}",)
        label, done = f"describe by {run.name}", 1
        if run.preset != "show_attend_tell":
            flags += (f"--captions_file={DRAWN_CAPTIONS}", f"--seeds={','.join(map(str, DRAWN_SEEDS))}")
            label, done = f"draw by {run.name}", 1 + len(drawn_captions()) * len(DRAWN_SEEDS)
        return Job(label, "sample", flags, 0.4, lambda: len([*folder.glob("*.png")]) >= done)


def _runs_in(thing: Run | Score) -> list[Run]:
    return [flag[1] for flag in thing.flags if not isinstance(flag, str)]


def drawn_captions() -> list[str]:
    return (ROOT / DRAWN_CAPTIONS).read_text(encoding="utf-8").splitlines()


def pictures_in(data_dir: Path) -> int:
    """How many a data set has, 0 where there is none."""
    path = data_dir / "dataset.json"
    splits = json.loads(path.read_text(encoding="utf-8"))["splits"] if path.is_file() else {}
    return sum(split["images"] for split in splits.values())


def newest_step(run_dir: Path) -> int | None:
    """The step of a run's newest checkpoint, None where there is none. Needs no TensorFlow."""
    steps = [int(path.stem.rpartition("-")[2]) for path in (run_dir / "checkpoints").glob("ckpt-*.index")]
    return max(steps, default=None)


def scored_step(run_dir: Path) -> int | None:
    """The step whose weights t2i-evaluate takes: that of the best score where the run keeps one."""
    best = newest_step(run_dir / "best")
    return newest_step(run_dir) if best is None else best


def minutes_in(log: Path) -> float | None:
    """The minutes of training that a run's log tells, pauses left out; None where there is no log.

    The first line of a start comes with its second step, which is behind the compilation of the first.
    """
    if not log.is_file():
        return None
    times = []
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            times.append(datetime.strptime(line[:19], "%Y-%m-%d %H:%M:%S"))
        except ValueError:  # cut off by a crash
            continue
    gaps = [(later - earlier).total_seconds() / 60 for earlier, later in zip(times[:-1], times[1:], strict=True)]
    return sum(gap for gap in gaps if gap <= PAUSE_MINUTES)


def run_all(jobs: Sequence[Job], call: Callable[[Job], int], say: Callable[[str], None]) -> int:
    """Does what is not done yet, one after the other -> the exit status of the first that failed, or 0.

    The time left is that expected of the jobs left, times how much slower than expected those were whose time is known.

    Args:
        call: runs a job and returns its exit status; say: prints a line.
    """
    known = [(job.took(), job.minutes) for job in jobs if job.is_done()]
    known = [(took, expected) for took, expected in known if took]
    spent, foreseen = (sum(column) for column in zip(*known, strict=True)) if known else (0.0, 0.0)
    left = [job for job in jobs if not job.is_done()]
    say(f"{len(jobs) - len(left)} of {len(jobs)} commands are done already")
    for place, job in enumerate(left):
        factor = spent / foreseen if foreseen else 1.0
        rest = sum(other.minutes for other in left[place:]) * factor
        number = len(jobs) - len(left) + place + 1
        say(f"[{number}/{len(jobs)}] {job.label}, about {told(job.minutes * factor)}; {told(rest)} left in all")
        say(f"  {job.shown}")
        began = time.monotonic()
        if code := call(job):
            say(f"stopped: {job.label} ended with status {code}; the same command goes on from here")
            return code
        if not job.is_done():
            say(f"stopped: {job.label} ended well and left no result")
            return 1
        spent, foreseen = spent + (time.monotonic() - began) / 60, foreseen + job.minutes
    return 0


def told(minutes: float) -> str:
    """0.5 -> "1 min", 61.2 -> "1 h 01 min"."""
    whole = max(1, round(minutes))
    return f"{whole} min" if whole < 60 else f"{whole // 60} h {whole % 60:02d} min"


def call(job: Job) -> int:
    """Runs a job's command. At Ctrl-C or SIGTERM it is asked to end, once, and waited for: a training saves first.

    It is asked by SIGTERM, since what a shell started in the background ignores Ctrl-C.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with subprocess.Popen(job.command, cwd=ROOT, start_new_session=True) as child:
            try:
                return child.wait()
            except KeyboardInterrupt:
                child.terminate()
                child.wait()
                raise
    finally:
        signal.signal(signal.SIGTERM, before)
