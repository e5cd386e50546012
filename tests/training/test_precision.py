"""Half precision and compiled steps train every paper to the losses of float32: within HALF and COMPILED of them at
each of four steps; Stage-II of StackGAN at its first alone, since its untrained weights multiply rounding (after four
even compiled float32 was 3% off). In float16 losses are scaled by so little that no gradient overflows, since a step
left out is another training; what becomes of overflows is tested below."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf.config import PrepareConfig, TrainConfig
from t2i_tf.data.prepare import prepare
from t2i_tf.training import loop
from t2i_tf.training.session import Session

HALF, COMPILED = 0.06, 1e-4
SCALE = 2.0**5

PICTURES = {"image_encoder_width": 4, "image_size": 32, "batch_size": 6}
STAGE = {"generator_width": 8, "discriminator_width": 8, "noise_dim": 5, "condition_dim": 4, "residual_blocks": 1}
STAGE |= {"batch_size": 6}
TREE = {"generator_width": 4, "discriminator_width": 2, "noise_dim": 5, "condition_dim": 4, "batch_size": 6}
TREE |= {"num_scales": 2, "base_size": 16}
WORDS = {"image_encoder": "conv", "image_encoder_width": 2, "embedding_dim": 8, "word_dim": 6}
CAPTIONER = {**PICTURES, "image_encoder": "conv", "word_dim": 8, "state_dim": 12, "learning_rate": 0.02}
CASES = {
    "char_cnn_rnn": {"text_channels": (8, 8, 8), "embedding_dim": 16, "image_encoder_width": 4, "batch_size": 8}
    | {"learning_rate": 0.02},
    "gan_int_cls": {"generator_width": 4, "discriminator_width": 4, "text_projection": 8, "noise_dim": 8}
    | {"batch_size": 8, "ema_decay": 0.5},
    "stackgan-1": STAGE,
    "stackgan-1-pytorch": {**STAGE, "form": "pytorch"},
    "stackgan-2": {**STAGE, "stage": 2},
    "stackgan-2-pytorch": {**STAGE, "stage": 2, "form": "pytorch"},
    "stackgan_v2": {**TREE, "color_weight": 1.0},
    "stackgan_v2-noise": {**TREE, "color_weight": 1.0, "conditional": False},
    "damsm": {**WORDS, "image_size": 32, "batch_size": 6},
    "damsm-gru": {**WORDS, "image_size": 32, "batch_size": 6, "recurrent": "gru", "restart_adam": True},
    "attngan": {**WORDS, **TREE},
    "show_attend_tell-soft": CAPTIONER,
    "show_attend_tell-hard": {**CAPTIONER, "attention": "hard", "doubly_stochastic_hard": True, "optimizer": "rmsprop"},
    "show_attend_tell-none": {**CAPTIONER, "attention": "none"},
    "classifier": {**PICTURES, "image_encoder": "conv", "split": "train", "held_out": 0.0},
    "visual_words": PICTURES,
}
"""Name, a paper and maybe its variant -> its settings. Rates are such that four steps change the loss."""
WAYS = {
    "bfloat16": {"precision": "mixed_bfloat16"},
    "float16": {"precision": "mixed_float16"},
    "step": {"jit": "step"},
    "attention": {"jit": "attention"},
    "float16-step": {"precision": "mixed_float16", "jit": "step"},
}
QUICK = {
    ("classifier", "float16"),
    ("classifier", "step"),
    ("classifier", "bfloat16"),
}


def _combinations():
    for name in CASES:
        ways = ["bfloat16", "float16", "step"]
        ways += ["attention"] if name in ("damsm", "attngan") else []
        ways += ["float16-step"] if name in ("gan_int_cls", "damsm") else []
        for way in ways:
            yield pytest.param(name, way, marks=() if (name, way) in QUICK else pytest.mark.slow, id=f"{name}-{way}")


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Flowers of 256 pixels."""
    folder = tmp_path_factory.mktemp("data") / "large"
    options = PrepareConfig(source="blossoms", data_dir=str(folder), num_images=24, image_size=256, workers=1)
    return prepare(options, progress=lambda done, total: None)


@pytest.fixture(scope="module")
def session(blossoms, request, tmp_path_factory):
    """Makes one ready to train, as t2i-train does, with the runs that the paper rests on."""
    made = {}

    def stage1(form):
        if form not in made:
            given = {**STAGE, "form": form}
            folder = tmp_path_factory.mktemp("runs") / form
            encoder = str(request.getfixturevalue("text_encoder_run").path)
            training = TrainConfig(
                paper="stackgan", data_dir=str(blossoms), run_dir=str(folder), steps=1, text_encoder_run=encoder
            )
            made[form] = loop.run(training, given).run_dir
        return str(made[form])

    def call(name, run_dir: Path, **settings):
        paper, given, data_dir = name.split("-")[0], dict(CASES[name]), blossoms
        if given.get("stage") == 2:
            given["stage1_run"] = stage1(given.get("form", "tensorflow"))
            data_dir = request.getfixturevalue("large")
        if paper == "attngan":
            given["damsm_run"] = str(request.getfixturevalue("damsm_run").path)
        if paper in ("gan_int_cls", "stackgan") or name == "stackgan_v2":
            settings["text_encoder_run"] = str(request.getfixturevalue("text_encoder_run").path)
        settings = {"steps": 1 if given.get("stage") == 2 else 4, **settings}
        training = TrainConfig(paper=paper, data_dir=str(data_dir), run_dir=str(run_dir), **settings)
        found = Session(training, given)
        found.load_pretrained()
        if paper == "char_cnn_rnn":  # whose published epsilon makes whole steps of rounding, see replica_worker
            optimizer = found.trainer.optimizers["encoders"]
            getattr(optimizer, "inner_optimizer", optimizer).epsilon = 1e-4
        return found

    return call


class Logged(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.steps = []

    def on_batch_end(self, batch, logs=None):
        self.steps.append({name: float(value) for name, value in logs.items()})


def trained(session, scale=SCALE):
    """-> what each step logged, and the graph of a step."""
    trainer, logged, graphs = session.trainer, Logged(), []
    if trainer.execution.scale_loss:
        for optimizer in trainer.optimizers.values():
            optimizer.dynamic_scale.assign(scale)
    train_step = trainer.train_step

    def traced(*given):
        graphs.append(tf.compat.v1.get_default_graph())
        return train_step(*given)

    trainer.train_step = traced
    steps = session.steps
    trainer.fit(session.batches(0), epochs=1, steps_per_epoch=steps, verbose=0, shuffle=False, callbacks=[logged])
    return logged.steps, graphs[-1]


@pytest.fixture(scope="module")
def whole(session, tmp_path_factory):
    """-> what float32 logs, nothing compiled; trained once."""
    found = {}

    def call(name):
        if name not in found:
            found[name] = trained(session(name, tmp_path_factory.mktemp("runs") / name, jit="none"))[0]
        return found[name]

    return call


@pytest.mark.parametrize("name, way", _combinations())
def test_losses_are_those_of_float32(name, way, session, whole, tmp_path):
    settings = WAYS[way]
    made = session(name, tmp_path / "run", **settings)
    steps, graph = trained(made)
    half = settings.get("precision", "float32").removeprefix("mixed_")
    kind = tf.as_dtype(half)
    assert {op.get_attr("T") for op in graph.get_operations() if op.type == "Conv2D"} == {kind}
    networks = made.recipe.networks.values()
    assert {variable.dtype for network in networks for variable in network.variables} == {"float32"}
    assert {layer.compute_dtype for network in networks for layer in network._flatten_layers()} == {half}
    assert keras.config.dtype_policy().name == "float32"
    expected = whole(name)
    names = [name for name in expected[0] if name.split("/")[-1] == "loss"]
    differences = [
        abs(step[name] - right[name]) / abs(right[name])
        for step, right in zip(steps, expected, strict=True)
        for name in names
    ]
    print(f"\n{name} {way}: {max(differences):.1e}")  # shown by pytest -s
    assert max(differences) < (COMPILED if half == "float32" else HALF)
    if half == "float16":
        assert {value for step in steps for key, value in step.items() if key.endswith("loss_scale")} == {SCALE}
    elif half == "bfloat16":
        assert steps != expected


def test_steps_that_overflow_are_left_out_until_the_scale_fits(session, tmp_path):
    made = session("classifier", tmp_path / "run", precision="mixed_float16", steps=24)
    variables = made.trainer.variables_trained
    before = [variable.numpy() for variable in variables]
    steps, _ = trained(made, 2.0**24)
    scales = [step["loss_scale"] for step in steps]
    assert scales[:3] == [2.0**24, 2.0**23, 2.0**22] and 1.0 < scales[-1] == scales[-2]
    left_out = [step["gradient_norm"] == 0.0 for step in steps]
    assert left_out == [scale > scales[-1] for scale in scales]
    assert int(made.trainer.nonfinite_step.numpy()) == -1 and all(np.isfinite([step["loss"] for step in steps]))
    assert len({step["loss"] for step in steps}) > 1
    for old, new in zip(before, variables, strict=True):
        assert not np.array_equal(old, new.numpy())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name != "classifier"])  # it holds out no picture to score
def test_samples_and_scores_come_of_half_precision_too(name, session, tmp_path):
    made = session(name, tmp_path / "run", precision="mixed_bfloat16", steps=2, sample_every=2)
    outcome = loop.run(made.training, {**CASES[name], **_runs(made)})
    assert outcome.step == 2


def _runs(session):
    """The runs that the paper rests on, as settings."""
    given = {name: getattr(session.hyperparameters, name, None) for name in ("stage1_run", "damsm_run")}
    return {name: run for name, run in given.items() if run}
