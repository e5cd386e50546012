"""The line that says how far a command is."""

from __future__ import annotations

import io
import sys
import time

from t2i_tf.progress import ProgressLine


def test_progress_off_a_terminal(capsys, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    line = ProgressLine()
    for done in range(1, 101):
        clock[0] += 0.25
        line(done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["40 of 100 pictures, 4 a second, 0:15 left", "80 of 100 pictures, 4 a second, 0:05 left"]


def test_progress_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    line = ProgressLine()
    line(10, 10)
    assert sys.stderr.getvalue().startswith("\r10 of 10 pictures")
    assert sys.stderr.getvalue().endswith("\n")
