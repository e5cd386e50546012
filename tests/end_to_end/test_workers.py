"""Two processes train one run over loopback: one is killed, both go on with the same command, one is told to stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

ROOT = Path(__file__).parents[2]
TINY = ["--paper=char_cnn_rnn", "--text_channels=8,8,8", "--embedding_dim=16", "--image_encoder_width=4"]


def start_both(data_dir, run_dir, logs):
    """The command on each of two hosts, both this one."""
    with socket.create_server(("localhost", 0)) as first, socket.create_server(("localhost", 0)) as second:
        addresses = [f"localhost:{bound.getsockname()[1]}" for bound in (first, second)]
    flags = [f"--data_dir={data_dir}", f"--run_dir={run_dir}", "--batch_size=8", "--ema_decay=0.9", "--steps=100000"]
    flags += ["--checkpoint_every=5", "--sample_every=5"]
    workers = []
    for index in range(2):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        with open(logs / f"worker-{index}", "w") as log:
            workers.append(
                subprocess.Popen(
                    [sys.executable, str(ROOT / "tools/train.py"), *TINY, *flags],
                    env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CONFIG": json.dumps(config)},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    return workers


def wait_for_step(run_dir, step, workers):
    deadline = time.monotonic() + 600
    while (newest(run_dir) or 0) < step:
        assert all(worker.poll() is None for worker in workers) and time.monotonic() < deadline
        time.sleep(0.05)


def newest(run_dir):
    path = tf.train.latest_checkpoint(str(run_dir / "checkpoints"))
    return path and int(path.rsplit("-", 1)[1])


@pytest.mark.slow
def test_a_killed_worker_ends_the_others_and_the_same_command_goes_on(blossoms, tmp_path):
    run_dir = tmp_path / "run"

    def said(index):
        return (tmp_path / f"worker-{index}").read_text()

    workers = start_both(blossoms, run_dir, tmp_path)
    try:
        wait_for_step(run_dir, 5, workers)
        workers[1].kill()
        assert workers[0].wait(timeout=200) == 2
        (line,) = [line for line in said(0).splitlines() if line.startswith("error: ")]
        assert "worker 0 of 2 stops, since another one has ended" in line
        reached = newest(run_dir)

        workers = start_both(blossoms, run_dir, tmp_path)
        wait_for_step(run_dir, reached + 5, workers)
        assert f"resuming {run_dir} at step {reached}" in said(0)
        workers[1].send_signal(signal.SIGTERM)  # told to one, done by both
        assert [worker.wait(timeout=100) for worker in workers] == [130, 130]
    finally:
        for worker in workers:
            worker.kill()
    step = newest(run_dir)
    assert f"interrupted at step {step}; saved in {run_dir}" in said(0)
    assert f"step {step} of 100000" in said(1)
    kept = np.concatenate(
        [
            np.ravel(tf.train.load_variable(str(run_dir / "checkpoints" / f"ckpt-{step}"), name))
            for name, _ in tf.train.list_variables(str(run_dir / "checkpoints" / f"ckpt-{step}"))
            if name.startswith("networks")
        ]
    )
    assert np.isfinite(kept).all()
    assert any((run_dir / "events").iterdir()) and (run_dir / "scores.jsonl").is_file()
