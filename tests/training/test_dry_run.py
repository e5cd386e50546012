"""--dry_run: settings, network table with the spec's parameter counts, memory, steps; nothing is written."""

from __future__ import annotations

from t2i_tf.config import TrainConfig
from t2i_tf.training import dry_run
from t2i_tf.training.session import Session


def test_dry_run_of_the_published_size(blossoms, text_encoder_run, tmp_path):
    training = TrainConfig(
        paper="gan_int_cls",
        data_dir=str(blossoms),
        run_dir=str(tmp_path / "run"),
        text_encoder_run=str(text_encoder_run.path),
        dry_run=True,
    )
    report = Session(training, {})
    text = dry_run.report(report)
    # 18,905,472 and 4,030,080 trained parameters with 1024-wide sentences; the tiny encoder's are 16 wide.
    narrower = (1024 - 16) * 128
    assert f"generator: {18_905_472 - narrower:,} trained parameters" in text
    assert f"discriminator: {4_030_080 - narrower:,} trained parameters" in text
    assert "--generator_width=128" in text and "--cls_weight=0.5" in text
    assert "residual_4/conv3" in text and "3x3x256x1024" in text
    assert "steps: 600, 1 an epoch" in text  # 60 pictures, one batch of 64 an epoch
    assert "MB for weights" in text
    assert not (tmp_path / "run").exists()
