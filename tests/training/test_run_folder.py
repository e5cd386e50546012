import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from t2i_tf import cli
from t2i_tf.config import RunConfig, TrainConfig
from t2i_tf.errors import UserError
from t2i_tf.training import run_folder

ROOT = Path(__file__).parents[2]
GIVEN = {"batch_size": 8, "epochs": 600, "cls_weight": 0.5, "interpolation_weight": 1.0}


@pytest.fixture
def configured(tmp_path):
    """-> configuration of a run in tmp_path/runs with these settings."""
    data = tmp_path / "flowers"
    data.mkdir()

    def make(hyperparameters=None, **settings):
        settings = {"data_dir": str(data), "runs_dir": str(tmp_path / "runs"), **settings}
        training = TrainConfig(paper="gan_int_cls", **settings)
        return RunConfig(training, {**GIVEN, **(hyperparameters or {})}, {"text_dim": 16, "num_classes": 3})

    return make


def start(config):
    path = run_folder.find(config)
    run_folder.write(config, path)
    return path


def test_runs_are_numbered_and_named_by_paper_data_and_batch(configured):
    assert start(configured()).name == "00001-gan_int_cls-flowers-b8"
    assert start(configured(seed=1)).name == "00002-gan_int_cls-flowers-b8"
    assert start(configured({"batch_size": 16})).name == "00003-gan_int_cls-flowers-b16"


def test_the_number_after_the_highest_is_taken(configured, tmp_path):
    (tmp_path / "runs" / "00041-something-else").mkdir(parents=True)
    (tmp_path / "runs" / "notes").mkdir()
    assert run_folder.find(configured()).name.startswith("00042-")


def test_looking_for_a_folder_makes_none(configured, tmp_path):
    run_folder.find(configured())
    assert not (tmp_path / "runs").exists()


def test_the_same_settings_are_the_same_run(configured, tmp_path, monkeypatch):
    start(configured(seed=1))
    path = start(configured())
    start(configured(seed=2))
    assert run_folder.find(configured()) == path
    assert run_folder.find(configured(steps=10, log_every=1, keep_checkpoints=9)) == path
    assert run_folder.find(configured({"epochs": 1})) == path
    monkeypatch.chdir(tmp_path)
    assert run_folder.find(configured(data_dir="flowers/")) == path


def test_lists_are_the_same_in_a_file_and_in_a_tuple(configured):
    path = start(configured({"text_channels": (8, 8, 8)}))
    assert run_folder.find(configured({"text_channels": (8, 8, 8)})) == path
    assert run_folder.find(configured({"text_channels": (8, 8, 9)})) != path


def test_a_setting_that_was_not_there_yet_had_its_default(configured):
    path = start(configured())
    assert run_folder.find(configured({"noise_dim": 100})) == path
    assert run_folder.find(configured({"noise_dim": 99})) != path


def test_a_named_folder_with_other_settings_is_refused_by_name(configured, tmp_path):
    named = str(tmp_path / "mine")
    assert start(configured(run_dir=named)) == Path(named)
    assert run_folder.find(configured(run_dir=named, steps=9)) == Path(named)
    with pytest.raises(UserError) as error:
        run_folder.find(configured({"cls_weight": 0.25}, run_dir=named, seed=7))
    message = str(error.value)
    assert "--seed was 0, now 7" in message and "--cls_weight was 0.5, now 0.25" in message
    assert named in message and "\n" not in message


def test_a_folder_of_other_things_is_refused(configured, tmp_path):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "beach.jpg").touch()
    with pytest.raises(UserError, match="holiday is not empty and no run folder"):
        run_folder.find(configured(run_dir=str(tmp_path / "holiday")))


def test_a_run_that_ended_before_it_began_leaves_its_folder_usable(configured, tmp_path):
    config = configured(run_dir=str(tmp_path / "mine"))
    run_folder.Lock(run_folder.find(config)).release()
    (tmp_path / "mine" / "checkpoints").mkdir()
    assert run_folder.find(config) == tmp_path / "mine"


def test_a_run_that_cannot_be_read_does_not_stop_others(configured, caplog):
    damaged = start(configured())
    (damaged / "config.json").write_text("{")
    assert run_folder.find(configured()).name.startswith("00002-")
    assert str(damaged) in caplog.text


def test_both_files_rebuild_the_run(configured, tmp_path):
    hyperparameters = {"ema_decay": 0.5, "learning_rate": 2.5e-5, "large_generator": True, "batch_size": 10}
    config = configured(hyperparameters, seed=3, steps=7, deterministic=True, text_encoder_run="runs/my encoder")
    path = start(config)
    assert RunConfig.read(path) == config
    options, given = cli._parse("t2i-train", TrainConfig, [f"--flagfile={path / 'flags.txt'}"], with_paper=True)
    assert options == config.training
    assert given == config.hyperparameters


def test_flags_of_a_list_are_commas(configured):
    text = run_folder.flags_text(configured({"text_channels": (8, 16, 32)}))
    assert "--text_channels=8,16,32\n" in text


def test_dry_run_and_place_are_not_kept(configured):
    text = run_folder.flags_text(configured(run_dir="somewhere", dry_run=True))
    assert "--dry_run" not in text and "--run_dir" not in text


HOLD = """
import sys, time
from pathlib import Path
from t2i_tf.training.run_folder import Lock
lock = Lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of tmp_path/run."""
    path = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield path, process
    process.kill()
    process.wait()


def test_a_folder_is_used_by_one_process_at_a_time(holder):
    path, process = holder
    with pytest.raises(UserError) as error:
        run_folder.Lock(path)
    message = str(error.value)
    assert message == (
        f"run folder {path} is in use by process {process.pid}: wait for it, stop it, or give another --run_dir"
    )


def test_a_killed_process_frees_its_folder(holder):
    path, process = holder
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    lock = run_folder.Lock(path)
    with pytest.raises(UserError, match=f"in use by process {os.getpid()}"):
        run_folder.Lock(path)
    lock.release()
    run_folder.Lock(path).release()


def test_the_identity_is_what_is_compared(configured):
    config = configured()
    assert not run_folder._differences(config, dataclasses.replace(config, version=2))
