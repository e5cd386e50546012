"""Data sets that are prepared in parts: by several processes, after a kill, stopped while they are joined."""

import dataclasses
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i_tf.config import PrepareConfig
from t2i_tf.data import parts, records
from t2i_tf.data.prepare import prepare
from t2i_tf.errors import UserError

COUNT = 110  # 100 to train on, 10 to test with: six parts


def drawn(data_dir, **changes):
    options = PrepareConfig(
        source="blossoms", data_dir=str(data_dir), image_size=32, num_images=COUNT, part_images=20, workers=1
    )
    return dataclasses.replace(options, **changes)


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What one command writes that nothing disturbs."""
    folder = tmp_path_factory.mktemp("whole") / "set"
    assert prepare(drawn(folder)) == folder
    return files(folder)


def refusal(options):
    with pytest.raises(UserError) as caught:
        prepare(options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def begun(folder, finished=2):
    """Work that was stopped when so many parts were finished."""

    def stop(done, total):
        if done == 20 * finished + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(drawn(folder), progress=stop)
    return Path(f"{folder}.partial")


def start(folder, *arguments):
    """The real command in a process of its own."""
    program = "import sys; from t2i_tf.cli import prepare; sys.exit(prepare(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "--source=blossoms", f"--data_dir={folder}", "--image_size=32"]
    command += [f"--num_images={COUNT}", "--part_images=20", "--workers=1", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def test_cut():
    cutting = parts.cut({"train": range(25), "test": range(25, 30)}, 10)
    assert [(part.number, part.split, list(part.positions)) for part in cutting] == [
        (0, "train", list(range(8))),
        (1, "train", list(range(8, 16))),
        (2, "train", list(range(16, 25))),
        (3, "test", list(range(25, 30))),
    ]
    for count in range(1, 7):  # every part is in one share, also where there are more shares than parts
        shares = [parts.share(cutting, f"{number}/{count}") for number in range(1, count + 1)]
        assert [part.number for share in shares for part in share] == [0, 1, 2, 3]


def test_the_data_set(whole, tmp_path):
    """The records of many parts are those of one part, in the same order."""
    one = prepare(drawn(tmp_path / "one", part_images=1000))
    many = tmp_path / "many"
    for name, content in whole.items():
        (many / name).parent.mkdir(parents=True, exist_ok=True)
        (many / name).write_bytes(content)
    one, many = records.Dataset.open(one, verify=True), records.Dataset.open(many, verify=True)
    assert len(many.manifest["splits"]["train"]["shards"]) == 5
    for name, entry in one.manifest["splits"].items():
        mine, other = one.split(name), many.split(name)
        numbers = np.arange(entry["images"])
        assert mine.read(numbers) == other.read(numbers)
        assert (mine.names, mine.captions()) == (other.names, other.captions())
    for manifest in (one.manifest, many.manifest):
        del manifest["splits"], manifest["options"]["part_images"]
    assert one.manifest == many.manifest


@pytest.mark.slow
def test_two_processes_at_once(whole, tmp_path):
    folder = tmp_path / "set"
    halves = [start(folder, f"--part={number}/2") for number in (1, 2)]
    outs = [half.communicate(timeout=120)[0] for half in halves]
    assert [half.returncode for half in halves] == [0, 0], outs
    assert files(folder) == whole
    assert os.listdir(tmp_path) == ["set"]


def test_one_part_after_the_other(whole, tmp_path, capsys):
    folder, seen = tmp_path / "set", []
    assert prepare(drawn(folder, part="2/2"), progress=lambda done, total: seen.append((done, total))) is None
    assert seen == [(done, 50) for done in range(1, 51)]
    assert "3 of 6 parts are finished" in capsys.readouterr().out
    with pytest.raises(UserError, match="no such data set"):
        records.Dataset.open(folder)
    assert prepare(drawn(folder, part="2/2")) is None
    assert prepare(drawn(folder)) == folder
    assert "going on: 3 of 6 parts are finished" in capsys.readouterr().out
    assert files(folder) == whole


def test_a_killed_command_goes_on(tmp_path, capsys):
    """kill -9 in the middle: no data set, no worker left; the same command makes it whole from the finished parts."""
    changes = {"image_size": 128, "num_images": 330, "part_images": 60}
    folder, undisturbed = tmp_path / "set", tmp_path / "undisturbed"
    process = start(folder, "--workers=2", *(f"--{name}={value}" for name, value in changes.items()))
    work = Path(f"{folder}.partial")
    while not (work / "parts" / "00000" / "part.json").exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(children) >= 2
    assert os.listdir(tmp_path) == ["set.partial"]
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    with pytest.raises(UserError, match="no such data set"):
        records.Dataset.open(folder)
    prepare(drawn(folder, **changes))
    assert re.search(r"going on: [1-5] of 6 parts are finished", capsys.readouterr().out)
    prepare(drawn(undisturbed, **changes))
    assert files(folder) == files(undisturbed)
    assert sorted(os.listdir(tmp_path)) == ["set", "undisturbed"]


def test_a_stopped_command_loses_one_part_at_most(whole, tmp_path):
    folder, seen = tmp_path / "set", []
    begun(folder, finished=2)
    prepare(drawn(folder), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (70, 70)
    assert files(folder) == whole


def test_other_options_are_refused(tmp_path):
    folder = tmp_path / "set"
    work = begun(folder)
    before = files(work)
    message = refusal(drawn(folder, image_size=64, seed=3))
    assert f"{work} was begun otherwise: image_size=32 (asked for: 64), seed=0 (asked for: 3)" in message
    assert "part_images=20 (asked for: 30)" in refusal(drawn(folder, part_images=30))
    assert files(work) == before


def test_another_source_is_refused(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    for number in range(4):
        Image.new("RGB", (8, 8)).save(source / f"{number}.png")
    options = PrepareConfig(
        source="folder",
        source_dir=str(source),
        data_dir=str(tmp_path / "set"),
        captions="none",
        image_size=8,
        workers=1,
    )
    assert prepare(dataclasses.replace(options, part="1/2", part_images=1)) is None
    Image.new("RGB", (8, 8)).save(source / "4.png")
    assert "was begun otherwise: examples=" in refusal(dataclasses.replace(options, part_images=1))


def test_bad_pictures_are_looked_at_again(tmp_path):
    """Of a part that had some, all pictures are stored anew; finished parts without any stay as they are."""
    source = tmp_path / "in"
    source.mkdir()
    for number in range(6):
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(source / f"{number}.png")
    (source / "0.png").write_bytes(b"")
    options = PrepareConfig(
        source="folder",
        source_dir=str(source),
        data_dir=str(tmp_path / "set"),
        captions="none",
        image_size=8,
        part_images=2,
        workers=1,
    )
    assert "0.png (empty file)" in refusal(options)
    assert "0.png (empty file)" in refusal(dataclasses.replace(options, part="1/1"))
    Image.new("RGB", (8, 8)).save(source / "0.png")
    seen = []
    prepare(options, progress=lambda done, total: seen.append(total))
    assert set(seen) <= {1, 2}
    splits = records.Dataset.open(options.data_dir, verify=True).manifest["splits"]
    assert sum(entry["images"] for entry in splits.values()) == 6


def test_a_part_that_another_command_is_at_is_left_to_it(whole, tmp_path, capsys):
    folder = tmp_path / "set"
    work = begun(folder, finished=1)
    with open(work / "parts" / "00003.lock", "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert prepare(drawn(folder)) is None
        assert "5 of 6 parts are finished" in capsys.readouterr().out
    with open(work / "parts" / "join.lock", "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert prepare(drawn(folder)) is None
        assert "another command is joining them" in capsys.readouterr().out
    assert prepare(drawn(folder)) == folder
    assert files(folder) == whole


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", range(11))
def test_joining_may_be_stopped_anywhere(whole, tmp_path, monkeypatch, moment):
    """At each of its renamings and removals in turn: there are ten."""
    folder, calls = tmp_path / "set", []

    def fatal(call):
        def instead(*arguments, **options):
            if joining(arguments[0]):
                calls.append(arguments)
                if len(calls) > moment:
                    raise Killed
            return call(*arguments, **options)

        return instead

    def joining(path):
        return (Path(f"{folder}.partial") / "dataset.json").exists() and "unfinished-" not in str(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", fatal(Path.rename))
        patched.setattr(Path, "unlink", fatal(Path.unlink))
        patched.setattr(shutil, "rmtree", fatal(shutil.rmtree))
        patched.setattr(os, "rename", fatal(os.rename))
        try:
            prepare(drawn(folder))
        except Killed:
            assert not folder.exists()
        else:
            assert moment >= len(calls)
    prepare(drawn(folder))
    assert files(folder) == whole
    assert os.listdir(tmp_path) == ["set"]
