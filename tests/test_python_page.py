"""The code of docs/python.md, run as it stands, in order."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i_tf import inference
from t2i_tf.config import TrainConfig
from t2i_tf.training import loop

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
CAPTIONER = {"image_encoder": "conv", "image_encoder_width": 4, "image_size": 64, "word_dim": 8, "state_dim": 12}


@pytest.fixture
def at_demo(blossoms, text_encoder_run, gan_run, damsm_run, attngan_run, tmp_path, monkeypatch):
    """A folder with the runs and files that the page speaks of, tiny ones."""
    captioner = TrainConfig("show_attend_tell", str(blossoms), run_dir=str(tmp_path / "demo/captioner"), steps=2)
    loop.run(captioner, {**CAPTIONER, "batch_size": 8})
    runs = {"text_encoder": text_encoder_run, "gan_int_cls": gan_run, "damsm": damsm_run, "attngan": attngan_run}
    for name, run in runs.items():
        (tmp_path / "demo" / name).symlink_to(run.path, target_is_directory=True)
    (tmp_path / "demo/blossoms").symlink_to(blossoms, target_is_directory=True)
    for name in ("a.jpg", "b.jpg"):
        Image.effect_noise((90, 70), 50).convert("RGB").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)


def test_every_block_of_the_page_runs(at_demo):
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    found = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), found)

    assert (found["pictures"].shape, found["pictures"].dtype) == ((2, 64, 64, 3), np.uint8)
    alone = inference.load("demo/gan_int_cls").generate([found["captions"][1]], [1])[-1]
    np.testing.assert_allclose(found["pictures"][1].astype(int), alone[0], atol=1)
    assert [scale.shape for scale in found["scales"]] == [(2, 16, 16, 3), (2, 32, 32, 3)]
    np.testing.assert_allclose(found["attention"][0].sum(axis=-1), 1.0, rtol=1e-5)
    assert len(found["words"]) <= found["attention"][0].shape[-1]
    assert len(found["described"].captions) == len(found["described"].attention) == 2
    assert found["of_captions"].shape == found["of_pictures"].shape == (2, 8)
    np.testing.assert_allclose(found["looked"].sum(axis=(2, 3)), 1.0, rtol=1e-5)
    assert (found["outcome"].step, found["score"]["metric"]) == (2, "diversity")
    assert found["trainer"].step.numpy() == 2 and np.isfinite(found["history"].history["judge/loss"]).all()
