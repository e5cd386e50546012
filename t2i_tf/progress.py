"""How far a command is that goes over pictures."""

from __future__ import annotations

import sys
import time


class ProgressLine:
    """Pictures done, pictures a second and time left on stderr: one line kept current on a terminal, else a line every
    ten seconds."""

    def __init__(self) -> None:
        self._stream = sys.stderr
        self._terminal = self._stream.isatty()
        self._pause = 0.2 if self._terminal else 10.0
        self._start = self._shown = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        last = done == total
        if now - self._shown < self._pause and not (last and self._terminal):
            return
        self._shown = now
        speed = done / max(now - self._start, 1e-9)
        minutes, seconds = divmod(round((total - done) / speed), 60)
        line = f"{done:,} of {total:,} pictures, {speed:,.0f} a second, {minutes}:{seconds:02d} left"
        if self._terminal:
            self._stream.write(f"\r{line:<70}" + ("\n" if last else ""))
        else:
            self._stream.write(line + "\n")
        self._stream.flush()
