"""Run folders: numbered, found again by their configuration, used by one process at a time."""

from __future__ import annotations

import dataclasses
import fcntl
import logging
import os
import re
from pathlib import Path

from t2i_tf import files, papers
from t2i_tf.config import RunConfig, TrainConfig, real_path
from t2i_tf.errors import UserError

LOCK = "lock"


def _differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Settings that differ, as "--name was old, now new". One that was not there yet had its default."""
    old, new = old.identity(), new.identity()
    paper = new["training"]["paper"]
    if old["training"]["paper"] == paper:
        defaults = {field.name: field.default for field in dataclasses.fields(papers.get(paper).Hyperparameters)}
        old["hyperparameters"] = {n: old["hyperparameters"].get(n, defaults.get(n)) for n in new["hyperparameters"]}
    found = []
    for group in ("training", "hyperparameters", "data"):
        for name in sorted(set(old[group]) | set(new[group])):
            before, now = old[group].get(name), new[group].get(name)
            if _plain(before) != _plain(now):
                found.append(f"--{name} was {before}, now {now}")
    return found


def _plain(value):
    return list(value) if isinstance(value, tuple) else value


def find(config: RunConfig) -> Path:
    """The folder to train in: --run_dir, the run in --runs_dir with the same settings, or a new number.

    Raises UserError when --run_dir holds a run with other settings.
    """
    training = config.training
    if training.run_dir:
        path = Path(training.run_dir)
        if (path / "config.json").is_file():
            differences = _differences(RunConfig.read(path), config)
            if differences:
                raise UserError(
                    f"{path} holds a run with other settings ({'; '.join(differences[:5])}): give the same "
                    "settings to resume it, or another --run_dir"
                )
        elif path.is_dir() and any(path.iterdir()) and not (path / LOCK).exists():  # with it: a run that never began
            raise UserError(f"--run_dir={path} is not empty and no run folder: give a new folder")
        return path
    runs = Path(training.runs_dir)
    numbers = [0]
    for path in sorted(runs.glob("[0-9]*-*")):
        numbers.append(int(re.match(r"\d+", path.name).group()))
        if _holds(path, config):
            return path
    data = os.path.basename(real_path(training.data_dir))
    return runs / f"{max(numbers) + 1:05d}-{training.paper}-{data}-b{config.hyperparameters['batch_size']}"


def _holds(path: Path, config: RunConfig) -> bool:
    """Whether this numbered folder is the run. One that cannot be read is somebody else's trouble, and is named."""
    if not (path / "config.json").is_file():
        return False
    try:
        return not _differences(RunConfig.read(path), config)
    except UserError as error:
        logging.warning("passed over: %s", error)
        return False


class Lock:
    """Held while a process trains in a run folder; the system frees it when the process ends, however it ends."""

    def __init__(self, run_dir: Path):
        run_dir.mkdir(parents=True, exist_ok=True)
        self._file = open(run_dir / LOCK, "a+")  # noqa: SIM115 - held for the life of the process
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            owner = self._file.read().strip() or "another process"
            self._file.close()
            raise UserError(
                f"run folder {run_dir} is in use by {owner}: wait for it, stop it, or give another --run_dir"
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()}")
        self._file.flush()

    def release(self) -> None:
        self._file.close()


def write(config: RunConfig, run_dir: Path) -> None:
    """Writes config.json and flags.txt; each rebuilds the run."""
    run_dir.mkdir(parents=True, exist_ok=True)
    for name, content in (("flags.txt", flags_text(config)), ("config.json", config.to_json())):
        with files.written_beside(run_dir / name) as beside:
            beside.write_text(content)


def flags_text(config: RunConfig) -> str:
    """The run as a --flagfile."""
    settings = {
        f.name: getattr(config.training, f.name)
        for f in dataclasses.fields(TrainConfig)
        if f.name not in ("run_dir", "dry_run")
    }
    lines = [
        f"--{name}={_flag(value)}"
        for name, value in {**settings, **config.hyperparameters}.items()
        if value is not None
    ]
    return "\n".join(lines) + "\n"


def _flag(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
