"""One device with batch 8, and two, four or two processes with shares of it: the same parameters and losses."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from t2i_tf.config import TrainConfig
from t2i_tf.data import records
from t2i_tf.training import loop

ROOT = Path(__file__).parents[2]
ENCODERS = ["--word_dim=8", "--embedding_dim=16", "--words=12", "--image_encoder='conv'", "--image_encoder_width=4"]
SETTINGS = {
    "char_cnn_rnn": ["--text_channels=(16,16,16)", "--embedding_dim=16", "--image_encoder_width=4", "--batch_size=8"],
    "gan_int_cls": ["--generator_width=4", "--discriminator_width=4", "--batch_size=8", "--ema_decay=0.9"],
    "stackgan": ["--generator_width=8", "--discriminator_width=8", "--condition_dim=4", "--batch_size=8"]
    + ["--learning_rate=1e-5"],
    "visual_words": ["--image_encoder_width=4", "--image_size=32", "--batch_size=8", "--learning_rate=1e-4"],
    "stackgan_v2": ["--generator_width=4", "--discriminator_width=2", "--batch_size=8", "--base_size=8"]
    + ["--num_scales=2", "--color_weight=1.0"],
    "damsm": [*ENCODERS, "--image_size=32", "--batch_size=8"],
    "classifier": ["--image_encoder='conv'", "--image_encoder_width=4", "--image_size=32", "--batch_size=8"]
    + ["--split='train'", "--held_out=0.0"],
    "attngan": [*ENCODERS, "--generator_width=4", "--discriminator_width=4", "--condition_dim=4", "--batch_size=8"]
    + ["--base_size=16", "--num_scales=2"],
    "show_attend_tell": ["--image_encoder='conv'", "--image_encoder_width=4", "--image_size=32", "--attention='hard'"]
    + ["--word_dim=8", "--state_dim=16", "--batch_size=8", "--learning_rate=1e-4"],
}
"""Where a gradient vanishes Adam makes a whole step of its rounding: networks of many weights take small steps."""
NETWORKS = {"char_cnn_rnn": 1, "gan_int_cls": 2, "stackgan": 2, "stackgan_v2": 3, "damsm": 1, "classifier": 1}
NETWORKS |= {"visual_words": 1, "attngan": 3, "show_attend_tell": 1}


@pytest.fixture(scope="module")
def data_dir(blossoms, tmp_path_factory):
    """The flowers with ready-made sentence vectors: an untrained encoder gives vectors so small that Adam would blow
    the rounding of their gradients up to whole steps."""
    folder = tmp_path_factory.mktemp("replicas") / "blossoms"
    shutil.copytree(blossoms, folder)
    manifest = json.loads((folder / "dataset.json").read_text())
    (folder / "embeddings/published").mkdir(parents=True)
    captions = manifest["splits"]["train"]["captions"]
    vectors = np.random.default_rng(0).normal(size=(captions, 16)).astype(np.float32)
    path = folder / "embeddings/published/train.npy"
    np.save(path, vectors)
    entry = {**records.describe(path), "file": "embeddings/published/train.npy"}
    manifest["embeddings"] = {"published": {"files": {"train": entry}}}
    (folder / "dataset.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def damsm_run(data_dir, tmp_path_factory):
    """Untrained encoders, for which AttnGAN asks; the worker does not load them."""
    given = dict(setting.removeprefix("--").split("=", 1) for setting in SETTINGS["damsm"])
    training = TrainConfig(
        paper="damsm", data_dir=str(data_dir), run_dir=str(tmp_path_factory.mktemp("runs") / "damsm"), steps=1
    )
    return loop.run(training, {name: ast.literal_eval(value) for name, value in given.items()}).run_dir


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("localhost", 0))) for _ in range(count)]
        return [bound.getsockname()[1] for bound in sockets]


def trained(paper, data_dir, tmp_path, more, replicas=1, workers=1):
    """-> what each worker has after three steps, as arrays by name."""
    ports, running, outs = free_ports(workers), [], []
    for index in range(workers):
        outs.append(tmp_path / f"{workers}x{replicas}-{index}.npz")
        worker = [sys.executable, str(Path(__file__).with_name("replica_worker.py")), paper, str(replicas)]
        cluster = {"worker": [f"localhost:{port}" for port in ports]}
        config = {"cluster": cluster, "task": {"type": "worker", "index": index}}
        running.append(
            subprocess.Popen(
                [*worker, str(data_dir), str(tmp_path / "run"), str(outs[-1]), *SETTINGS[paper], *more],
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)}
                | ({"TF_CONFIG": json.dumps(config)} if workers > 1 else {}),
            )
        )
    try:
        for process in running:
            _, said = process.communicate(timeout=1200)  # four replicas of a tree take minutes to trace
            assert process.returncode == 0, said[-2000:]
    finally:
        for process in running:
            process.kill()
    return [dict(np.load(out)) for out in outs]


def assert_equal(one, many):
    """The same parameters and losses, and as much gradient."""
    norms = [name for name in one if name.endswith("/gradient_norm")]
    for name in norms:  # the global gradient is the mean of the replicas' own: no longer than they are on average
        assert many[name.replace("gradient_norm", "replica_gradient_norm")] >= one[name] * (1 - 1e-5)
    compared = set(one) - set(norms)
    assert compared == {name for name in many if not name.endswith("replica_gradient_norm")} and len(compared) > 10
    for name in compared:
        rtol = 1e-6 if name.startswith("logs/") else 0.0  # losses are large numbers, parameters are not
        np.testing.assert_allclose(one[name], many[name], rtol=rtol, atol=1e-5, err_msg=name)
    return norms


PAPERS = {
    "char_cnn_rnn": [],
    "gan_int_cls": ["--interpolation_type=2"],
    "stackgan": [],
    "stackgan_v2": [],
    "damsm": [],
    "classifier": [],
    "visual_words": [],
    "attngan": [],
    "show_attend_tell": [],
}
QUICK = {("gan_int_cls", 1, 2)}
"""Paper, workers and replicas each."""


def _cases():
    for paper in PAPERS:
        for workers, replicas in ((1, 2), (1, 4), (2, 1), (2, 2)):
            marks = () if (paper, workers, replicas) in QUICK else pytest.mark.slow
            yield pytest.param(paper, workers, replicas, marks=marks, id=f"{paper}-{workers}x{replicas}")


@pytest.fixture(scope="module")
def of_one(data_dir, tmp_path_factory, request):
    """-> what a single replica has after three steps of a paper, and the flags it was given; trained once."""
    found = {}

    def call(paper):
        if paper not in found:
            more = [*PAPERS[paper]]
            if paper == "attngan":
                more += [f"--damsm_run={str(request.getfixturevalue('damsm_run'))!r}"]
            found[paper] = trained(paper, data_dir, tmp_path_factory.mktemp(paper), more)[0], more
        return found[paper]

    return call


@pytest.mark.parametrize("paper, workers, replicas", _cases())
def test_many_replicas_and_workers_equal_one(paper, workers, replicas, of_one, data_dir, tmp_path):
    one, more = of_one(paper)
    for many in trained(paper, data_dir, tmp_path, more, replicas, workers):
        assert len(assert_equal(one, many)) == NETWORKS[paper]
