"""Half precision trains to the losses of float32 within 2%, in four steps of a tiny GAN; its weights are float32."""

from __future__ import annotations

import keras
import pytest

from t2i_tf.config import TrainConfig
from t2i_tf.training import loop

GAN = {"generator_width": 4, "discriminator_width": 4, "text_projection": 8, "noise_dim": 8, "batch_size": 8}
TOLERANCE = 0.02


def losses(text_encoder_run, tmp_path, **settings):
    """-> the losses of the last of four steps."""
    training = TrainConfig(
        paper="gan_int_cls",
        data_dir=text_encoder_run.training.data_dir,
        text_encoder_run=str(text_encoder_run.path),
        run_dir=str(tmp_path / "run"),
        steps=4,
        **settings,
    )
    session = loop.Session(training, GAN)
    history = session.trainer.fit(session.batches(0), epochs=1, steps_per_epoch=4, verbose=0, shuffle=False).history
    networks = session.recipe.networks.values()
    assert {variable.dtype for network in networks for variable in network.variables} == {"float32"}
    convolution = session.recipe.discriminator.conv_32
    assert convolution.compute_dtype == settings.get("precision", "float32").removeprefix("mixed_")
    return {name: values[-1] for name, values in history.items() if name.endswith("/loss")}


def test_half_precision_trains_to_the_same_losses(text_encoder_run, tmp_path):
    whole = losses(text_encoder_run, tmp_path)
    half = losses(text_encoder_run, tmp_path, precision="mixed_bfloat16")
    assert half == pytest.approx(whole, rel=TOLERANCE) and half != whole
    assert keras.config.dtype_policy().name == "float32"
