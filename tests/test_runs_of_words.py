"""Papers that read words, end to end: a DAMSM, an AttnGAN on it, and sentences drawn with both."""

import numpy as np
import pytest

from t2i_tf import inference
from t2i_tf.config import TrainConfig
from t2i_tf.errors import UserError
from t2i_tf.training import loop

DAMSM = {"image_encoder": "conv", "image_encoder_width": 2, "image_size": 32, "embedding_dim": 8, "word_dim": 6}
SHARED = {"image_encoder": "conv", "image_encoder_width": 2, "embedding_dim": 8, "word_dim": 6, "batch_size": 6}
ATTNGAN = {"base_size": 16, "num_scales": 2, "generator_width": 4, "discriminator_width": 2, "condition_dim": 4}


@pytest.fixture(scope="module")
def damsm_run(blossoms, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "damsm"
    training = TrainConfig(paper="damsm", data_dir=str(blossoms), run_dir=str(folder), steps=2)
    return loop.run(training, {**DAMSM, "batch_size": 6}).run_dir


@pytest.fixture(scope="module")
def attngan_run(blossoms, damsm_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "attngan"
    training = TrainConfig(paper="attngan", data_dir=str(blossoms), run_dir=str(folder), steps=2)
    return loop.run(training, {**SHARED, **ATTNGAN, "noise_dim": 5, "damsm_run": str(damsm_run)}).run_dir


def test_a_run_keeps_its_words_and_the_encoders_it_was_trained_with(damsm_run, attngan_run):
    damsm, attngan = inference.load(damsm_run), inference.load(attngan_run)
    assert damsm.vocabulary == attngan.vocabulary and "flower" in damsm.vocabulary
    for name in ("text_encoder", "image_encoder"):
        for one, other in zip(damsm.recipe.networks[name].weights, attngan.recipe.networks[name].weights, strict=True):
            np.testing.assert_array_equal(one, other)
    assert not (attngan_run / "text_encoder").exists()


def test_pictures_follow_from_caption_and_seed_whatever_stands_beside_them(attngan_run):
    run = inference.load(attngan_run)
    captions = ["a red flower", "this big blue flower has a yellow center and round petals"]
    together = run.generate(captions, [3, 4])
    assert [scale.shape for scale in together] == [(2, 16, 16, 3), (2, 32, 32, 3)]
    for row, caption in enumerate(captions):
        (alone,) = run.generate([caption], [3 + row])[-1]
        assert np.abs(alone.astype(int) - together[-1][row]).max() <= 1
    path = run.interpolate_text(*captions, steps=3, seeds=[3])
    assert np.abs(path[0, 0].astype(int) - run.generate(captions[:1], [3])[-1][0]).max() <= 1


def test_captions_without_a_known_word_are_refused(attngan_run):
    with pytest.raises(UserError, match="has no word that this run was trained on"):
        inference.load(attngan_run).generate(["zorgly"], [0])


def test_captions_are_read_by_the_words_of_the_encoders(attngan_run, damsm_run, blossoms, tmp_path, caplog):
    """The same number of words: one that no caption has, and then none that a caption has."""
    words = (damsm_run / "vocabulary").read_text()
    training = TrainConfig(paper="attngan", data_dir=str(blossoms), run_dir=str(tmp_path / "run"), steps=1)
    given = {**SHARED, **ATTNGAN, "damsm_run": str(damsm_run)}
    try:
        (damsm_run / "vocabulary").write_text(words.replace("flower", "rewolf"))
        assert "rewolf" in loop.Session(training, given).vocabulary
        assert "does not know 1 words" in caplog.text and "left out: flower" in caplog.text
        (damsm_run / "vocabulary").write_text("\n".join(f"nonsense{i}" for i in range(words.count("\n") + 1)))
        with pytest.raises(UserError, match="captions of .* have no word that .* knows"):
            loop.Session(training, given)
    finally:
        (damsm_run / "vocabulary").write_text(words)
