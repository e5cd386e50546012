"""Files that appear whole or not at all, whatever ends their writing."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from t2i_tf import files


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with files.written_beside(path) as beside:
        beside.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole" and os.listdir(path.parent) == ["a.txt"]


@pytest.mark.parametrize("ended_by", [ValueError, KeyboardInterrupt])
def test_what_fails_leaves_the_file_before_and_nothing_beside(tmp_path, ended_by):
    path = tmp_path / "a.txt"
    path.write_text("before")
    with pytest.raises(ended_by), files.written_beside(path) as beside:
        beside.write_text("half")
        raise ended_by
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["a.txt"]


def test_an_error_names_the_file(tmp_path):
    with pytest.raises(OSError) as full, files.written_beside(tmp_path / "a.txt"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert full.value.filename == str(tmp_path / "a.txt")


def test_only_what_the_dead_left_is_removed(tmp_path):
    path = tmp_path / "a[1].txt"
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom t2i_tf import files\n"
        "with files.written_beside(Path(sys.argv[1])) as beside:\n"
        "    beside.write_text('half')\n    print(flush=True)\n    time.sleep(100)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for writer in writers:
            writer.stdout.readline()
        writers[0].send_signal(signal.SIGKILL)
        writers[0].wait()
        other = tmp_path / "a[1].txt.partial-elsewhere-1"
        other.touch()
        files.remove_left_behind(path)
        (left,) = set(tmp_path.iterdir()) - {other}
        assert left.name.endswith(f"-{writers[1].pid}"), "of one that is at work"
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
