"""Papers that read words, end to end: a DAMSM, an AttnGAN on it, and sentences drawn with both."""

import numpy as np
import pytest

from t2i_tf import inference
from t2i_tf.config import TrainConfig
from t2i_tf.errors import UserError
from t2i_tf.training.session import Session


def test_a_run_keeps_its_words_and_the_encoders_it_was_trained_with(damsm_run, attngan_run):
    damsm, attngan = inference.load(damsm_run.path), inference.load(attngan_run.path)
    assert damsm.vocabulary == attngan.vocabulary and "flower" in damsm.vocabulary
    for name in ("text_encoder", "image_encoder"):
        for one, other in zip(damsm.recipe.networks[name].weights, attngan.recipe.networks[name].weights, strict=True):
            np.testing.assert_array_equal(one, other)
    assert not (attngan_run.path / "text_encoder").exists()


def test_pictures_follow_from_caption_and_seed_whatever_stands_beside_them(attngan_run):
    run = inference.load(attngan_run.path)
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
        inference.load(attngan_run.path).generate(["zorgly"], [0])


def test_captions_are_read_by_the_words_of_the_encoders(attngan_run, damsm_run, blossoms, tmp_path, caplog):
    """The same number of words: one that no caption has, and then none that a caption has."""
    damsm = inference.load(damsm_run.path)
    training = TrainConfig(paper="attngan", data_dir=str(blossoms), run_dir=str(tmp_path / "run"), steps=1)

    def session(name, words):
        damsm.vocabulary = words
        damsm.save(tmp_path / name)
        return Session(training, {**attngan_run.given, "damsm_run": str(tmp_path / name)})

    words = damsm.vocabulary
    assert "rewolf" in session("one", [word.replace("flower", "rewolf") for word in words]).vocabulary
    assert "does not know 1 words" in caplog.text and "left out: flower" in caplog.text
    with pytest.raises(UserError, match="captions of .* have no word that .* knows"):
        session("none", [f"nonsense{i}" for i in range(len(words))])
