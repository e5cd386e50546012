"""t2i-import-weights of networks that read words: AttnGAN with its text encoder, the DAMSM, and captions.pickle."""

from __future__ import annotations

import pickle
from collections import OrderedDict

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import cli, export, importing, papers, published
from t2i_tf.config import ExportConfig, ImportConfig, RunConfig, TrainConfig
from t2i_tf.data import records
from t2i_tf.errors import UserError
from t2i_tf.inference import Run, load
from t2i_tf.networks import encoders, initial
from t2i_tf.papers import attngan
from t2i_tf.training import loop

WORDS = ["wing", "this", "bird", "is", "red", "blue", "has", "a", "white", "belly"]
CAPTIONS = ["this bird is red", "A blue bird; it has a white belly."]
SIZES = {"generator_width": 4, "num_scales": 2, "base_size": 16, "noise_dim": 5, "condition_dim": 3}
ENCODERS = {"embedding_dim": 6, "word_dim": 5}


def captions_pickle(words, protocol=2):
    """As the published program writes it: word ids of the captions of both splits, and both tables."""
    by_number = dict(enumerate(["<end>", *words]))
    by_word = {word: number for number, word in by_number.items()}
    last = len(words)
    return pickle.dumps([[[1, last], [last, 1]], [[1]], by_number, by_word], protocol)


def random_arrays(layers, random):
    return {
        name: random.uniform(-0.5, 0.5, array.shape).astype("f4") + (name.endswith("running_var"))
        for name, array in published.extract(layers).items()
    }


@pytest.fixture(scope="module", autouse=True)
def quick_initial_values():
    """Networks that no file holds are built at published width."""
    with initial.from_a_file():
        yield


@pytest.fixture(scope="module")
def original():
    """A tiny AttnGAN with numbers of its own in generator and text encoder."""
    given = {**SIZES, **ENCODERS, "discriminator_width": 1, "image_encoder": "conv", "image_encoder_width": 1}
    made = attngan.Recipe(attngan.Hyperparameters(**given), papers.Context(vocabulary_size=1 + len(WORDS)))
    random = np.random.RandomState(0)
    for layers in (published.attngan.generator_layers(made.generator), text_layers(made)):
        published.assign(layers, random_arrays(layers, random), "")
    return made


def text_layers(recipe):
    return published.damsm.text_encoder_layers(recipe.text_encoder)


@pytest.fixture(scope="module")
def files(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    np.savez(folder / "netG.npz", **published.extract(published.attngan.generator_layers(original.generator)))
    np.savez(folder / "text_encoder.npz", **published.extract(text_layers(original)))
    (folder / "captions.pickle").write_bytes(captions_pickle(WORDS))
    return folder


def options(files, run_dir, **changes):
    fields = {
        "paper": "attngan",
        "scheme": "attngan",
        "weights": f"{files / 'netG.npz'},{files / 'text_encoder.npz'}",
        "captions": str(files / "captions.pickle"),
        "run_dir": str(run_dir),
    }
    return ImportConfig(**{**fields, **changes})


@pytest.mark.slow
def test_one_command_makes_a_run_that_draws_sentences(files, original, tmp_path, capsys):
    flags = [f"--weights={files / 'text_encoder.npz'},{files / 'netG.npz'}", f"--captions={files / 'captions.pickle'}"]
    flags += ["--paper=attngan", "--scheme=attngan", f"--run_dir={tmp_path / 'run'}"]
    assert cli.import_weights(flags) == 0
    said = capsys.readouterr().out
    assert "captions.pickle: 10 words" in said and "untrained: discriminator_16, discriminator_32, image_enc" in said
    assert f'next: t2i-sample --run_dir={tmp_path / "run"} --caption="..."' in said
    assert (tmp_path / "run" / "vocabulary").read_text().split("\n") == WORDS
    theirs = Run(load(tmp_path / "run").config, original, 0, vocabulary=WORDS).generate(CAPTIONS, [3, 4])
    for ours, expected in zip(load(tmp_path / "run").generate(CAPTIONS, [3, 4]), theirs, strict=True):
        np.testing.assert_array_equal(ours, expected)
        assert ours[0].std() > 1 and np.any(ours[0] != ours[1])
    out = tmp_path / "pictures"
    assert cli.sample([f"--run_dir={tmp_path / 'run'}", f"--caption={CAPTIONS[0]}", "--seeds=0", f"--out={out}"]) == 0
    assert list(out.glob("*.png"))


@pytest.fixture(scope="module")
def words_of_blossoms(blossoms):
    """In another order than the data set has them, and one is missing."""
    words = sorted(records.Dataset.open(blossoms).manifest["vocabulary"], reverse=True)
    return [word for word in words if word != "petals"]


@pytest.fixture(scope="module")
def damsm_run(words_of_blossoms, tmp_path_factory):
    """Both encoders under their published names, imported."""
    folder, random = tmp_path_factory.mktemp("damsm"), np.random.RandomState(1)
    text = encoders.WordEncoder(1 + len(words_of_blossoms), 5, 6)
    text(tf.zeros([1, 2], tf.int32), tf.ones([1], tf.int32))
    image = encoders.RegionEncoder(width=6)
    image(tf.zeros([1, 299, 299, 3]))
    np.savez(folder / "text.npz", **random_arrays(published.damsm.text_encoder_layers(text), random))
    np.savez(folder / "image.npz", **random_arrays(published.damsm.image_encoder_layers(image), random))
    (folder / "captions.pickle").write_bytes(captions_pickle(words_of_blossoms))
    weights = f"{folder / 'text.npz'},{folder / 'image.npz'}"
    said = importing.import_weights(options(folder, folder / "run", paper="damsm", scheme="damsm", weights=weights))
    assert "untrained" not in said
    return folder / "run"


@pytest.mark.slow
def test_attngan_trains_on_an_imported_damsm_and_reads_by_its_words(
    damsm_run, words_of_blossoms, blossoms, tmp_path, caplog
):
    damsm = load(damsm_run)
    vectors = damsm.encode(["a red flower", "a flower red", "a red flower"])
    np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-6)
    assert vectors.shape == (3, 6) and np.abs(vectors[0] - vectors[1]).max() > 1e-3
    training = TrainConfig(paper="attngan", data_dir=str(blossoms), run_dir=str(tmp_path / "run"), steps=1)
    given = {**SIZES, **ENCODERS, "discriminator_width": 1, "batch_size": 2, "damsm_weight": 0.0}
    trained = load(loop.run(training, {**given, "damsm_run": str(damsm_run)}).run_dir)
    assert "does not know 1 words" in caplog.text and "petals" in caplog.text
    assert trained.vocabulary == damsm.vocabulary == words_of_blossoms
    for name in ("text_encoder", "image_encoder"):
        for ours, theirs in zip(
            trained.recipe.networks[name].weights, damsm.recipe.networks[name].weights, strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


SMALL = {"image_encoder": "conv", "image_encoder_width": 1}


def test_what_no_file_holds_is_said_and_kept(files, tmp_path):
    given = {**SMALL, "discriminator_width": 1, "published_mask": True}
    importing.import_weights(options(files, tmp_path / "gan"), given)
    config = RunConfig.read(tmp_path / "gan")
    assert config.hyperparameters["published_mask"]
    assert config.untrained == ("discriminator_16", "discriminator_32", "image_encoder")
    alone = {"paper": "damsm", "scheme": "damsm_text_encoder", "weights": str(files / "text_encoder.npz")}
    said = importing.import_weights(options(files, tmp_path / "text", **alone), {**SMALL, "image_size": 32})
    assert f"next: t2i-export --run_dir={tmp_path / 'text'}" in said and "--scheme=attngan" in said
    out = tmp_path / "export"
    lines = [*export.export(ExportConfig(run_dir=str(tmp_path / "text"), out=str(out)))]
    assert any("encode(" in line for line in lines) and not any("encode_pictures(" in line for line in lines)
    reader = {"text_encoder_run": str(tmp_path / "text"), "scheme": "attngan_generator", "captions": None}
    with pytest.raises(UserError, match="give the file of its text encoder beside the generator's"):
        weights = str(files / "netG.npz")
        importing.import_weights(options(files, tmp_path / "run", **reader, weights=weights), given)


# What is refused, in one line.


def test_words_and_no_captions_pickle(files, tmp_path):
    for changes in ({}, {"paper": "damsm", "scheme": "damsm"}, {"paper": "damsm", "scheme": "damsm_text_encoder"}):
        with pytest.raises(UserError, match="--captions is missing.* could read no sentence"):
            importing.import_weights(options(files, tmp_path / "run", captions=None, **changes))
    for changes in ({"scheme": "attngan_generator"}, {"paper": "damsm", "scheme": "damsm_image_encoder"}):
        with pytest.raises(UserError, match="neither reads nor writes words: leave it out"):
            importing.import_weights(options(files, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "cannot be read"),
        (pickle.dumps({"red": 1}), "is not AttnGAN's captions.pickle"),
        (b"no pickle", "is not a readable pickle"),
        (pickle.dumps([[], [], {0: "<end>", 2: "red"}, {"<end>": 0, "red": 2}], 2), "numbered from 0, <end>"),
        (pickle.dumps([[], [], {0: "red", 1: "blue"}, {"red": 0, "blue": 1}], 2), "numbered from 0, <end>"),
        (captions_pickle(["red", "two words"]), "'two words' is no word"),
        (captions_pickle(["red", 7]), "7 is no word"),
    ],
)
def test_a_captions_pickle_that_is_none(files, tmp_path, content, reason):
    if content is not None:
        (tmp_path / "captions.pickle").write_bytes(content)
    with pytest.raises(UserError, match=f"captions.pickle.*{reason}") as raised:
        importing.import_weights(options(files, tmp_path / "run", captions=str(tmp_path / "captions.pickle")))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_words_of_another_encoder(files, tmp_path):
    (tmp_path / "captions.pickle").write_bytes(captions_pickle(WORDS[:-1]))
    with pytest.raises(UserError, match=r"numbers 10 words, the text encoder in .* 11 \(<end> included\)"):
        importing.import_weights(options(files, tmp_path / "run", captions=str(tmp_path / "captions.pickle")))
    assert not (tmp_path / "run").exists()


def test_a_text_encoder_of_another_width(files, tmp_path):
    encoder = encoders.WordEncoder(1 + len(WORDS), 5, 8)
    encoder(tf.zeros([1, 2], tf.int32), tf.ones([1], tf.int32))
    np.savez(tmp_path / "wide.npz", **published.extract(published.damsm.text_encoder_layers(encoder)))
    weights = f"{files / 'netG.npz'},{tmp_path / 'wide.npz'}"
    with pytest.raises(UserError, match="the text encoder gives vectors of 8, the generator wants 6"):
        importing.import_weights(options(files, tmp_path / "run", weights=weights))


def test_a_generator_alone_says_that_it_reads_no_words(files, tmp_path):
    alone = {"scheme": "attngan_generator", "weights": str(files / "netG.npz"), "captions": None}
    assert "draws no pictures of sentences" in importing.import_weights(options(files, tmp_path / "run", **alone))
    with pytest.raises(UserError, match="knows no words and reads no captions"):
        load(tmp_path / "run").generate(CAPTIONS[:1], [0])


@pytest.fixture
def captioner(tmp_path):
    """A published decoder of 6 numbers: the end, the unknown word, and four words."""
    given = {"word_dim": 6, "state_dim": 5, "vocabulary_limit": 6, "previous_word_to_output": False}
    hyperparameters = papers.resolve("show_attend_tell", image_encoder="keras", **given)
    recipe = papers.get("show_attend_tell").Recipe(hyperparameters, papers.Context(vocabulary_size=6))
    layers = published.show_attend_tell.decoder_layers(recipe.decoder)
    np.savez(tmp_path / "model.npz", **published.extract(layers))
    return recipe


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_captioner_takes_its_words_from_the_dictionary(captioner, tmp_path, protocol):
    """Those behind its last number are unknown to it. What leaves no trace in the file is said by a flag."""
    numbers = OrderedDict((word, number) for number, word in enumerate(["bird", "a", "red", "is", "blue", "has"], 2))
    (tmp_path / "dictionary.pkl").write_bytes(pickle.dumps(numbers, protocol))
    flags = ["--paper=show_attend_tell", "--scheme=show_attend_tell", f"--weights={tmp_path / 'model.npz'}"]
    flags += [f"--captions={tmp_path / 'dictionary.pkl'}", f"--run_dir={tmp_path / 'run'}"]
    assert cli.import_weights([*flags, "--noprevious_word_to_output"]) == 0
    run = load(tmp_path / "run")
    assert run.vocabulary == ["bird", "a", "red", "is"] and not run.recipe.hyperparameters.previous_word_to_output
    words = tf.constant([[3, 2, 5, 0]])
    annotations = tf.constant(np.random.default_rng(0).normal(size=(1, 196, 512)), tf.float32)
    expected, made = (recipe.decoder(annotations, words)["logits"] for recipe in (captioner, run.recipe))
    np.testing.assert_array_equal(made, expected)
    assert papers.get("show_attend_tell").to_text(words.numpy(), run.vocabulary) == ["a bird is"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"bird": 2, "a": 3, "is": 5}, "1 of the numbers 2 to 5 that the weights know have no word .e.g. 4."),
        ([["bird"]], "is no dictionary.pkl"),
        ({"bird": "2"}, "is no dictionary.pkl"),
    ],
)
def test_a_dictionary_that_does_not_fit_is_refused(captioner, tmp_path, content, message):
    (tmp_path / "dictionary.pkl").write_bytes(pickle.dumps(content))
    options = ImportConfig(
        paper="show_attend_tell",
        scheme="show_attend_tell",
        weights=str(tmp_path / "model.npz"),
        captions=str(tmp_path / "dictionary.pkl"),
        run_dir=str(tmp_path / "run"),
    )
    with pytest.raises(UserError, match=message):
        importing.import_weights(options)
    assert not (tmp_path / "run").exists()
