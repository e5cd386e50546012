"""One device with batch 8, two with 4 each: the same parameters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = {
    "char_cnn_rnn": ["--text_channels=(16,16,16)", "--embedding_dim=16", "--image_encoder_width=4", "--batch_size=8"],
    "gan_int_cls": ["--generator_width=4", "--discriminator_width=4", "--batch_size=8", "--ema_decay=0.9"],
}


@pytest.mark.parametrize(
    "paper, more",
    [("char_cnn_rnn", []), ("gan_int_cls", []), ("gan_int_cls", ["--interpolation_type=2"])],
    ids=["char_cnn_rnn", "gan_int_cls", "gan_int_cls_type2"],
)
def test_two_replicas_equal_one(paper, more, blossoms_dir, text_encoder_run, tmp_path):
    settings = SETTINGS[paper] + more
    if paper == "gan_int_cls":
        settings.append(f"--text_encoder_run={str(text_encoder_run)!r}")
    results = []
    for replicas in (1, 2):
        out = tmp_path / f"{replicas}.npz"
        worker = [sys.executable, str(Path(__file__).with_name("replica_worker.py")), paper, str(replicas)]
        done = subprocess.run(
            [*worker, str(blossoms_dir), str(tmp_path / f"run{replicas}"), str(out), *settings],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr[-2000:]
        results.append(np.load(out))
    one, two = results
    assert set(one.files) == set(two.files) and len(one.files) > 10
    for name in one.files:
        np.testing.assert_allclose(one[name], two[name], rtol=0, atol=1e-5, err_msg=name)
