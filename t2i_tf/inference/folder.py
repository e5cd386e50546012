"""Files of a run's folder beside its configuration and checkpoints."""

from __future__ import annotations

import hashlib
from pathlib import Path

from t2i_tf.config import RunConfig
from t2i_tf.errors import UserError

TEXT_ENCODER = "text_encoder"
"""Folder inside a generator's run that holds the frozen text encoder it was trained with: a small run of its own."""

VOCABULARY = "vocabulary"
"""File inside a run that reads words: the words it knows, one a line, in the order of their numbers from 1."""


def read_vocabulary(run_dir: str | Path) -> list[str] | None:
    """The words a run knows; None when it reads none.

    Raises UserError when they are not those that it was trained with (runs of before this was kept pass).
    """
    path, kept = Path(run_dir) / VOCABULARY, RunConfig.read(run_dir).vocabulary
    words = path.read_text(encoding="utf-8").split("\n") if path.is_file() else None
    if kept is not None and words is None:
        raise UserError(f"{path} is missing, the {kept['words']:,} words that the run reads: copy it from where it was")
    found = vocabulary_summary(words)
    if kept is not None and found != kept:
        raise UserError(
            f"{path} is not what the run was trained with: it has {found['words']:,} words, SHA-256 "
            f"{found['sha256'][:12]}..., the run {kept['words']:,}, {kept['sha256'][:12]}...: restore it, else "
            "captions are read as others"
        )
    return words


def vocabulary_summary(vocabulary: list[str] | None) -> dict | None:
    """What config.json keeps of the words, to know them again."""
    if vocabulary is None:
        return None
    return {"words": len(vocabulary), "sha256": hashlib.sha256("\n".join(vocabulary).encode()).hexdigest()}


def write_vocabulary(run_dir: str | Path, vocabulary: list[str] | None) -> None:
    """The other way."""
    if vocabulary is not None:
        (Path(run_dir) / VOCABULARY).write_text("\n".join(vocabulary), encoding="utf-8")
