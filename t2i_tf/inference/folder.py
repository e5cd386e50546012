"""Files of a run's folder beside its configuration and checkpoints."""

from __future__ import annotations

from pathlib import Path

TEXT_ENCODER = "text_encoder"
"""Folder inside a generator's run that holds the frozen text encoder it was trained with: a small run of its own."""

VOCABULARY = "vocabulary"
"""File inside a run that reads words: the words it knows, one a line, in the order of their numbers from 1."""


def read_vocabulary(run_dir: str | Path) -> list[str] | None:
    """The words a run knows; None when it reads none."""
    path = Path(run_dir) / VOCABULARY
    return path.read_text(encoding="utf-8").split("\n") if path.is_file() else None


def write_vocabulary(run_dir: str | Path, vocabulary: list[str] | None) -> None:
    """The other way."""
    if vocabulary is not None:
        (Path(run_dir) / VOCABULARY).write_text("\n".join(vocabulary), encoding="utf-8")
