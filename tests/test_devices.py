"""Evaluation and sampling on two logical devices: to the bit what one computes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from devices_worker import computed
from random_runs import build

from t2i_tf import devices
from t2i_tf.errors import UserError

ROOT = Path(__file__).parents[1]


class Network(tf.Module):
    """Pictures [B,16,16,3] -> six features and four logits."""

    def __init__(self):
        super().__init__()
        self.weight = tf.Variable(np.random.default_rng(0).normal(size=(768, 6)) / 16, dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None, 16, 16, 3])])
    def __call__(self, images):
        found = tf.nn.relu(tf.reshape(images, [-1, 768]) @ self.weight)
        return {"features": found, "logits": found[:, :4] - found[:, 2:]}


@pytest.fixture(scope="module")
def compute(blossoms, tmp_path_factory):
    """-> what `devices_worker` finds on so many devices; on one in this process."""
    folder = tmp_path_factory.mktemp("devices")
    for name in ("attngan", "stackgan_v2_without_text"):
        build(name).save(folder / name)
    tf.saved_model.save(Network(), str(folder / "extractor"))

    def call(count):
        out = folder / f"out-{count}"
        data_dir = shutil.copytree(blossoms, folder / f"data-{count}", ignore=shutil.ignore_patterns("cache"))
        paths = [
            str(path)
            for path in (folder / "attngan", folder / "stackgan_v2_without_text", data_dir, folder / "extractor", out)
        ]
        if count == 1:
            return *computed(None, *paths), out
        worker = [sys.executable, str(ROOT / "tests" / "devices_worker.py"), str(count), *paths]
        done = subprocess.run(worker, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return dict(np.load(out / "arrays.npz")), json.loads((out / "scores.json").read_text()), out

    return call


def test_two_devices_draw_and_score_what_one_does(compute):
    (arrays, scores, out), (expected, expected_scores, expected_out) = compute(2), compute(1)
    assert arrays.pop("devices") == 2 and expected["devices"] == 1
    assert set(arrays) == set(expected) - {"devices"}
    for name, rows in arrays.items():
        np.testing.assert_array_equal(rows, expected[name], err_msg=name)
    assert len(arrays["pictures"]) == 70 and len(np.unique(arrays["pictures"], axis=0)) > 60
    assert arrays["features"].std(axis=0).min() > 0.0
    assert scores == expected_scores and [s["metric"] for s in scores] == ["diversity", "is", "fid", "kid"]
    drawn = sorted(path.name for path in expected_out.glob("*seed*.png"))
    assert len(drawn) == 2
    for name in drawn:
        assert (out / name).read_bytes() == (expected_out / name).read_bytes()


def test_rows_come_back_in_their_order_whatever_their_number():
    double = tf.function(lambda rows: {"double": 2 * rows, "both": (rows, rows[:, :1])}, reduce_retracing=True)
    for count in (0, 1, 31, 32, 33, 64, 65):
        rows = np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32)
        found = devices.rows_of(double, rows)
        np.testing.assert_array_equal(found["double"], 2 * rows)
        np.testing.assert_array_equal(found["both"][1], rows[:, :1])


def test_what_is_none_stays_none():
    with devices.strategy(None).scope():
        (found,) = devices.each(
            tf.function(lambda rows, none: rows + 1 if none is None else rows), [(np.ones(2), None)]
        )
    np.testing.assert_array_equal(found, [2.0, 2.0])


def test_a_scope_holds_while_an_item_is_made_and_not_between():
    def items():
        yield tf.distribute.get_strategy()
        yield tf.distribute.get_strategy()

    for made_in in devices.used_by("CPU:0", items()):
        assert isinstance(made_in, tf.distribute.MirroredStrategy)
        assert not tf.distribute.has_strategy()


@pytest.mark.parametrize("names", ["GPU:7", "CPU:0,CPU:1", "", "cpu"])
def test_devices_that_are_not_there_are_named(names):
    with pytest.raises(UserError, match="--devices=.*this machine has CPU:0"):
        devices.strategy(names)


def test_other_workers_are_no_matter_of_this_machine(monkeypatch):
    cluster = {"cluster": {"worker": ["localhost:1", "localhost:2"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    assert devices.strategy(None).num_replicas_in_sync == 1
