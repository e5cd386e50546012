"""Ten steps straight, and five, kill -9, and the same command again: every variable the same to the bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf.config import PrepareConfig
from t2i_tf.data import prepare

ROOT = Path(__file__).parents[2]
TEXT = ["--paper=char_cnn_rnn", "--text_channels=16,16,16", "--embedding_dim=16", "--image_encoder_width=8"]
GAN = ["--paper=gan_int_cls", "--generator_width=8", "--discriminator_width=8", "--ema_decay=0.9"]


def command(data_dir, run_dir, *flags):
    fixed = [f"--data_dir={data_dir}", f"--run_dir={run_dir}", "--deterministic", "--checkpoint_every=5", "--steps=10"]
    return [sys.executable, str(ROOT / "tools/train.py"), *fixed, *flags]


def variables(run_dir):
    path = tf.train.latest_checkpoint(str(run_dir / "checkpoints"))
    assert path.endswith("ckpt-10")
    names = [
        name for name, _ in tf.train.list_variables(path) if not name.startswith(("_CHECKPOINTABLE", "save_counter"))
    ]
    return {name: tf.train.load_variable(path, name) for name in names}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "blossoms"
    prepare.prepare(PrepareConfig(source="blossoms", data_dir=str(path), image_size=64, num_images=160))
    return path


def run(*args):
    done = subprocess.run(args[0], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def killed_after_five(arguments, run_dir):
    process = subprocess.Popen(arguments, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)
    state = run_dir / "checkpoints/checkpoint"
    deadline = time.monotonic() + 120
    while not (state.is_file() and "ckpt-5" in state.read_text()):
        assert process.poll() is None and time.monotonic() < deadline, "it never reached step 5"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert tf.train.latest_checkpoint(str(run_dir / "checkpoints")).endswith("ckpt-5")


@pytest.mark.slow
@pytest.mark.parametrize("paper", ["char_cnn_rnn", "gan_int_cls"])
def test_kill_and_resume_is_bit_identical(paper, data_dir, tmp_path):
    flags = TEXT + ["--batch_size=128"]
    if paper == "gan_int_cls":
        run(command(data_dir, tmp_path / "text", *TEXT, "--batch_size=8"))
        flags = GAN + [f"--text_encoder_run={tmp_path / 'text'}", "--batch_size=64"]
    run(command(data_dir, tmp_path / "straight", *flags))
    killed_after_five(command(data_dir, tmp_path / "killed", *flags), tmp_path / "killed")
    resumed = run(command(data_dir, tmp_path / "killed", *flags))
    assert "resuming" in resumed.stderr
    straight, killed = variables(tmp_path / "straight"), variables(tmp_path / "killed")
    assert straight.keys() == killed.keys() and len(straight) > 20
    for name in straight:
        np.testing.assert_array_equal(straight[name], killed[name], err_msg=name)


def test_interrupt_saves_and_says_how_to_go_on(data_dir, tmp_path):
    arguments = command(
        data_dir, tmp_path / "run", *TEXT, "--batch_size=64", "--steps=100000", "--checkpoint_every=100000"
    )
    process = subprocess.Popen(
        arguments,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A suite started in the background ignores SIGINT, and a child would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for line in process.stderr:
        if line.startswith("step "):
            break
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted at step" in out and "same command" in out
    step = int(out.split("interrupted at step ")[1].split(";")[0])
    assert tf.train.latest_checkpoint(str(tmp_path / "run/checkpoints")).endswith(f"ckpt-{step}")
