"""t2i-import-weights: a published file becomes a run folder that draws the same pictures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from t2i_tf import cli, importing, published, sampling
from t2i_tf.config import EvaluateConfig, ImportConfig, SampleConfig
from t2i_tf.data import records
from t2i_tf.errors import UserError
from t2i_tf.evaluation import evaluate
from t2i_tf.inference import load
from t2i_tf.training.session import Session


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


TEXT = {"paper": "char_cnn_rnn", "scheme": "char_cnn_rnn"}
SMALL = {"image_encoder_width": 2}


def test_a_text_encoder_is_scored_with_no_pictures(files, blossoms, tmp_path):
    """Its picture encoder is random: chance would be read off as a score."""
    weights = {**TEXT, "weights": str(files / "text.npz")}
    said = importing.import_weights(options(files, tmp_path / "text", **weights), SMALL)
    assert f"next: t2i-train --paper=... --data_dir=... --text_encoder_run={tmp_path / 'text'}" in said
    run, split = load(tmp_path / "text"), records.Dataset.open(blossoms).split("test")
    assert run.config.untrained == ("image_encoder",) and run.encode(["a red flower"]).shape == (1, 16)
    assert evaluate.fitting(run, split) == []
    for metric in ("retrieval", "recall"):
        with pytest.raises(UserError, match=f"--metrics={metric}: its image_encoder was in no file of the import"):
            evaluate.evaluate(run, metric, split, EvaluateConfig())
    with pytest.raises(UserError, match="this run of char_cnn_rnn: its image_encoder was in no file"):
        run.encode_pictures(np.zeros([1, 64, 64, 3], np.uint8))


def test_nearest_pictures_need_a_trained_discriminator(files, blossoms, tmp_path):
    importing.import_weights(options(files, tmp_path / "gan"), {"discriminator_width": 2})
    asked = SampleConfig(run_dir=str(tmp_path / "gan"), mode="nearest", data_dir=str(blossoms), out=str(tmp_path))
    with pytest.raises(UserError, match="--mode=nearest: --run_dir=.*: its discriminator was in no file"):
        list(sampling.sample(asked))


def test_fine_tuning_takes_what_was_imported_and_starts_the_rest_anew(files, gan_run, tmp_path, caplog):
    of_generator = {"discriminator_width": gan_run.given["discriminator_width"]}
    importing.import_weights(options(files, tmp_path / "gan"), of_generator)
    imported = load(tmp_path / "gan", weights="raw").recipe
    training = dataclasses.replace(gan_run.training, init_from=str(tmp_path / "gan"), run_dir=str(tmp_path / "run"))
    session = Session(training, gan_run.given)
    fresh = session.recipe.discriminator.get_weights()
    session.load_pretrained()
    assert "was imported without discriminator, which start anew" in caplog.text
    for ours, theirs in (
        (session.recipe.generator.get_weights(), imported.generator.get_weights()),
        (session.recipe.discriminator.get_weights(), fresh),
    ):
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_what_no_file_tells_can_be_said_and_nothing_else(files, tmp_path, capsys):
    flags = ["--paper=char_cnn_rnn", "--scheme=char_cnn_rnn", f"--weights={files / 'text.npz'}"]
    flags += ["--image_encoder_width=2", f"--run_dir={tmp_path / 'text'}"]
    assert cli.import_weights([*flags, "--embedding_dim=8"]) == 2
    assert "--embedding_dim=8: the weights in" in capsys.readouterr().err and not (tmp_path / "text").exists()
    assert cli.import_weights([*flags, "--character_rule=keep_spaces"]) == 2
    assert "--character_rule=keep_spaces: must be one of" in capsys.readouterr().err
    assert cli.import_weights([*flags, "--character_rule=demo"]) == 0
    assert load(tmp_path / "text").recipe.hyperparameters.character_rule == "demo"


def test_an_unknown_scheme_is_answered_with_those_of_the_paper_and_what_they_are(files, tmp_path):
    with pytest.raises(UserError) as raised:
        importing.import_weights(options(files, tmp_path / "run", paper="damsm", scheme="nothing"))
    message = str(raised.value)
    assert "damsm_text_encoder (text encoder of a DAMSM alone" in message and "gan_int_cls" not in message
    assert "\n" not in message
