"""One device with batch 8, two with 4 each: the same parameters and losses."""

from __future__ import annotations

import ast
import json
import os
import shutil
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
    "stackgan_v2": ["--generator_width=4", "--discriminator_width=2", "--batch_size=8", "--base_size=8"]
    + ["--num_scales=2", "--color_weight=1.0"],
    "damsm": [*ENCODERS, "--image_size=32", "--batch_size=8"],
    "attngan": [*ENCODERS, "--generator_width=4", "--discriminator_width=4", "--condition_dim=4", "--batch_size=8"]
    + ["--base_size=16", "--num_scales=2"],
}
NETWORKS = {"char_cnn_rnn": 1, "gan_int_cls": 2, "stackgan_v2": 3, "damsm": 1, "attngan": 3}


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


@pytest.mark.parametrize(
    "paper, more",
    [
        ("char_cnn_rnn", []),
        ("gan_int_cls", ["--interpolation_type=2"]),
        ("stackgan_v2", []),
        ("damsm", []),
        ("attngan", []),
    ],
    ids=["char_cnn_rnn", "gan_int_cls", "stackgan_v2", "damsm", "attngan"],
)
def test_two_replicas_equal_one(paper, more, data_dir, tmp_path, request):
    if paper == "attngan":
        more = [f"--damsm_run={str(request.getfixturevalue('damsm_run'))!r}"]
    results = []
    for replicas in (1, 2):
        out = tmp_path / f"{replicas}.npz"
        worker = [sys.executable, str(Path(__file__).with_name("replica_worker.py")), paper, str(replicas)]
        done = subprocess.run(
            [*worker, str(data_dir), str(tmp_path / f"run{replicas}"), str(out), *SETTINGS[paper], *more],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        results.append(np.load(out))
    one, two = (dict(result) for result in results)
    norms = [name for name in one if name.endswith("/gradient_norm")]
    assert len(norms) == NETWORKS[paper]
    for name in norms:  # the global gradient is the mean of the replicas' own: no longer than they are on average
        of_replicas = two.pop(name.replace("gradient_norm", "replica_gradient_norm"))
        assert of_replicas >= one.pop(name) * (1 - 1e-5)
    assert set(one) == set(two) and len(one) > 10
    for name in one:
        rtol = 1e-6 if name.startswith("logs/") else 0.0  # losses are large numbers, parameters are not
        np.testing.assert_allclose(one[name], two[name], rtol=rtol, atol=1e-5, err_msg=name)
