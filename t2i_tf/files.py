"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import os
import socket
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Gives the name to write a file under; that becomes `path` when all went well, and is removed when not.

    The folder is made. The name says whose it is, see `remove_left_behind`. Raises OSError, which names a file.
    """
    beside = path.with_name(f"{_prefix(path)}{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        beside.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk names none
        raise
    finally:
        beside.unlink(missing_ok=True)


def remove_left_behind(path: Path) -> None:
    """Removes what processes of this host that were killed had written beside `path`."""
    for left in path.parent.glob(f"{glob.escape(_prefix(path))}*"):
        process = left.name.removeprefix(_prefix(path))
        if process.isdecimal() and not _is_running(int(process)):
            left.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    return f"{path.name}.partial-{socket.gethostname()}-"


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # that of another user
        return True
    return True
