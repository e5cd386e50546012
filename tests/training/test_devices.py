"""Devices and batches that are refused; what trains on them is tested in test_replicas.py."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tensorflow as tf

from t2i_tf.config import TrainConfig
from t2i_tf.errors import UserError
from t2i_tf.papers import damsm
from t2i_tf.training import devices


@pytest.mark.parametrize("batch_size, replicas", [(7, 1), (64, 1), (8, 2), (64, 4)])
def test_batches_that_divide(batch_size, replicas):
    devices.check_batch(batch_size, replicas)


@pytest.mark.parametrize("batch_size, replicas, multiple", [(7, 2, 4), (6, 2, 4), (20, 8, 16)])
def test_batches_that_do_not_divide_name_what_does(batch_size, replicas, multiple):
    with pytest.raises(UserError, match=f"--batch_size={batch_size} .* multiple of {multiple}"):
        devices.check_batch(batch_size, replicas)


def test_unknown_device_names_the_known_ones():
    with pytest.raises(UserError, match="no GPU:7; this machine has .*CPU:0"):
        devices.strategy("GPU:7")


def test_what_it_trains_on_is_named(monkeypatch):
    """A GPU's name is what TensorFlow says; the cards stand for themselves, since there may be none here."""
    import os

    threads = len(os.sched_getaffinity(0))
    assert devices.described(tf.distribute.get_strategy()) == f"the CPU, {threads} threads"
    cards = SimpleNamespace(extended=SimpleNamespace(worker_devices=("/device:GPU:0", "/device:GPU:1")))
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["first", "second"])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda card: {"device_name": f"H200 {card}"})
    assert devices.described(cards) == "2 GPUs (H200 first, H200 second)"
    cards.extended.worker_devices = ("/job:worker/replica:0/task:1/device:GPU:1",)
    assert devices.described(cards) == "1 GPU (H200 second)"


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        '{"cluster": {"worker": ["a:1", "b:1"]}}',
        '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
        '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "chief", "index": 0}}',
    ],
)
def test_a_wrong_tf_config_is_answered_with_the_right_form(config, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(UserError, match=r'TF_CONFIG=.*: want \{"cluster": \{"worker": \["HOST:PORT"'):
        devices.workers()


def test_workers_take_the_gpus_they_see(monkeypatch):
    config = '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}'
    monkeypatch.setenv("TF_CONFIG", config)
    assert devices.workers() == (1, 2)
    with pytest.raises(UserError, match="--devices=GPU:0: with TF_CONFIG"):
        devices.strategy("GPU:0")


def test_parts_of_a_batch_are_even():
    devices.check_batch(64, 2, 8)
    with pytest.raises(UserError, match="--batch_size=8 .* over 2 devices of 4 parts each: give a multiple of 16"):
        devices.check_batch(8, 2, 4)


def execution(recipe=None, replicas=1, **settings):
    return devices.execution(TrainConfig(paper="gan_int_cls", **settings), recipe, replicas)


def test_what_cannot_be_computed_so_is_refused():
    assert execution(accumulate=4, steps_per_execution=5, steps=20, log_every=10).accumulate == 4
    with pytest.raises(UserError, match="--log_every=50 is no multiple of --steps_per_execution=3"):
        execution(steps_per_execution=3, steps=9, checkpoint_every=3)
    with pytest.raises(UserError, match="--accumulate=2: the loss of damsm compares every caption"):
        execution(damsm.Recipe, accumulate=2)
    with pytest.raises(UserError, match="--jit=step: XLA compiles the step of one device, here are 2"):
        execution(replicas=2, jit="step")
    with pytest.raises(UserError, match="--jit=attention: gan_int_cls has no attention"):
        devices.with_jit(TrainConfig(paper="gan_int_cls", jit="attention"), {}, set())
