"""t2i-import-weights: a published file becomes a run folder that draws the same pictures."""

from __future__ import annotations

import numpy as np
import pytest

from t2i_tf import cli, importing, published
from t2i_tf.config import ImportConfig
from t2i_tf.errors import UserError
from t2i_tf.inference import load


@pytest.fixture(scope="module")
def files(gan_run, text_encoder_run, tmp_path_factory):
    """The tiny runs' weights under their published names."""
    folder = tmp_path_factory.mktemp("published")
    gan, text = load(gan_run.path, weights="raw"), load(text_encoder_run.path)
    generator = published.extract(published.gan_int_cls.generator_layers(gan.recipe.generator))
    np.savez(folder / "generator.npz", **generator)
    np.savez(
        folder / "text.npz", **published.extract(published.char_cnn_rnn.text_encoder_layers(text.recipe.text_encoder))
    )
    return folder


def options(files, run_dir, **changes):
    fields = {
        "paper": "gan_int_cls",
        "scheme": "gan_int_cls_generator",
        "weights": str(files / "generator.npz"),
        "run_dir": str(run_dir),
    }
    return ImportConfig(**{**fields, **changes})


def test_imported_pair_draws_what_the_original_draws(files, gan_run, tmp_path):
    text_flags = {"paper": "char_cnn_rnn", "scheme": "char_cnn_rnn", "weights": str(files / "text.npz")}
    importing.import_weights(options(files, tmp_path / "text", **text_flags))
    said = importing.import_weights(options(files, tmp_path / "gan", text_encoder_run=str(tmp_path / "text")))
    assert "numbers set" in said and f"next: t2i-sample --run_dir={tmp_path / 'gan'}" in said
    captions = ["a red flower", "a blue flower with a white center"]
    (ours,) = load(tmp_path / "gan").generate(captions, [3, 4])
    (theirs,) = load(gan_run.path, weights="raw").generate(captions, [3, 4])
    np.testing.assert_array_equal(ours, theirs)


def test_generator_alone_says_that_it_has_no_text_encoder(files, tmp_path):
    importing.import_weights(options(files, tmp_path / "gan"))
    with pytest.raises(UserError, match="no text encoder"):
        load(tmp_path / "gan").generate(["a red flower"], [0])


def test_text_encoder_of_another_width_is_refused(files, tmp_path):
    arrays = dict(np.load(files / "text.npz"))
    arrays["emb_proj.weight"], arrays["emb_proj.bias"] = arrays["emb_proj.weight"][:8], arrays["emb_proj.bias"][:8]
    np.savez(tmp_path / "narrow.npz", **arrays)
    narrow = {"paper": "char_cnn_rnn", "scheme": "char_cnn_rnn", "weights": str(tmp_path / "narrow.npz")}
    importing.import_weights(options(files, tmp_path / "text", **narrow))
    with pytest.raises(UserError, match="gives vectors of 8, the generator in .* wants 16"):
        importing.import_weights(options(files, tmp_path / "gan", text_encoder_run=str(tmp_path / "text")))
    assert not (tmp_path / "gan").exists()


def test_command_line_refuses_in_one_line(files, tmp_path, capsys):
    arrays = dict(np.load(files / "generator.npz"))
    del arrays["19.weight"]
    arrays["surplus"] = np.zeros(3, np.float32)
    np.savez(tmp_path / "broken.npz", **arrays)
    flags = [f"--weights={tmp_path / 'broken.npz'}", f"--run_dir={tmp_path / 'run'}", "--paper=gan_int_cls"]
    assert cli.import_weights([*flags, "--scheme=gan_int_cls_generator"]) == 2
    message = capsys.readouterr().err.strip()
    assert message.count("\n") == 0 and "19.weight" in message and "surplus" in message
    assert cli.import_weights([*flags, "--scheme=nothing"]) == 2
    assert "gan_int_cls_generator" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
