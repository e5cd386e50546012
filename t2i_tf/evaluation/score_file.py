"""scores.jsonl in a run folder, or beside pictures that were scored: a JSON object a line."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from t2i_tf.errors import UserError

NAME = "scores.jsonl"


def read(folder: Path) -> list[dict]:
    """The lines, oldest first, none where there is no file; one that was cut off by a crash is left out."""
    path = folder / NAME
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            score = json.loads(line)
        except ValueError:
            score = None
        if isinstance(score, dict):
            found.append(score)
        else:
            logging.warning("%s: a line is no JSON object, left out: %s", path, line[:60])
    return found


def append(folder: Path, score: dict) -> Path:
    """Adds a line and returns the file's path. Raises UserError when it cannot be written."""
    path = folder / NAME
    try:
        with open(path, "a+b") as file:
            if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                file.write(b"\n")  # behind a line that a crash cut off
            file.write(json.dumps(score, ensure_ascii=False).encode() + b"\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}): make the folder writable") from None
    return path
