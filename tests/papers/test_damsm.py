"""What the DAMSM does beside being equal to the published program, which is seen in tests/parity."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from t2i_tf import losses, papers
from t2i_tf.config import PrepareConfig
from t2i_tf.data import pipeline, records
from t2i_tf.data.prepare import prepare
from t2i_tf.errors import UserError
from t2i_tf.papers import BatchRequest, damsm
from t2i_tf.training.trainers import Draw, SupervisedTrainer

RANDOM = np.random.RandomState(0)
BATCH, WORDS, VOCABULARY = 6, 5, 9
TINY = {
    "word_dim": 4,
    "embedding_dim": 6,
    "words": WORDS,
    "image_encoder": "conv",
    "image_encoder_width": 2,
    "image_size": 16,
    "compile_attention": False,
}


def recipe(**given):
    return damsm.Recipe(damsm.Hyperparameters(**{**TINY, **given}), papers.Context(vocabulary_size=VOCABULARY))


def batch_of(size=16):
    lengths = np.array([5, 3, 1, 4, 2, 5], "i4")
    words = RANDOM.randint(1, VOCABULARY, (BATCH, 1, WORDS)) * (np.arange(WORDS) < lengths[:, None, None])
    batch = {
        "images": (RANDOM.randint(0, 256, (BATCH, size, size, 3)).astype("u1"),),
        "words": words.astype("i4"),
        "word_lengths": lengths[:, None],
        "class": np.array([0, 1, 2, 3, 4, 5], "i4"),
    }
    return tf.nest.map_structure(tf.constant, batch)


def test_what_it_asks_of_the_data():
    made = recipe(batch_size=48)
    assert made.request == papers.BatchRequest(image_sizes=(16,), text="words", words=WORDS)
    assert made.steps_per_epoch(8855) == 184, "the last, incomplete batch is left out"
    assert made.clip_norms == {"text_encoder": 0.25} and recipe(clip_norm=0.0).clip_norms == {}
    assert list(made.networks) == ["text_encoder", "image_encoder"]


@pytest.mark.parametrize("recurrent", ["lstm", "gru"])
def test_every_weight_learns(recurrent):
    made, batch = recipe(recurrent=recurrent), batch_of()
    trainer = SupervisedTrainer(made, seed=0, steps_per_epoch=1)
    before = [v.numpy() for network in made.networks.values() for v in network.trainable_variables]
    logs = trainer.train_step(batch)
    after = [v.numpy() for network in made.networks.values() for v in network.trainable_variables]
    assert all(np.isfinite(list(logs.values())))
    assert not any(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    terms = [float(logs[name]) for name in ("word_of_image", "image_of_word", "sentence_of_image", "image_of_sentence")]
    assert float(logs["loss"]) == pytest.approx(sum(terms), rel=1e-5)


def test_it_learns_which_captions_belong_to_which_pictures():
    keras.utils.set_random_seed(0)
    made, batch = recipe(embedding_dim=16, word_dim=8, image_encoder_width=4, learning_rate=0.01), batch_of()
    step = tf.function(SupervisedTrainer(made, seed=0, steps_per_epoch=1000).train_step)
    first = float(step(batch)["loss"])
    for _ in range(80):
        last = step(batch)
    assert float(last["loss"]) < 0.2 * first and float(last["accuracy"]) == 1.0
    captions = made.encode_captions({"words": batch["words"][:, 0], "word_lengths": batch["word_lengths"][:, 0]})
    similarity = made.similarity(made.encode_pictures(batch["images"][0]), captions)
    np.testing.assert_array_equal(np.argmax(similarity, axis=0), np.arange(BATCH))


def test_pairs_of_one_class_are_no_mismatch():
    """Two rows of one class: neither caption pushes the other's picture away."""
    made, batch = recipe(dropout=0.0), batch_of()
    alike = {**batch, "class": tf.zeros([BATCH], tf.int32)}
    assert float(made.losses(made_ready(batch), {})["loss"]) > 0
    assert float(made.losses(made_ready(alike), {})["loss"]) == 0
    unknown = {**batch, "class": tf.fill([BATCH], -1)}
    assert float(made.losses(made_ready(unknown), {})["loss"]) > 0


def test_a_picture_twice_in_a_batch_is_not_its_own_mismatch(tmp_path):
    """Of data without classes, through the pipeline: two pictures in batches of four."""
    lines = []
    for number in range(2):
        Image.fromarray(RANDOM.randint(0, 256, (16, 16, 3)).astype("u1")).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "caption": f"flower {number}", "split": "train"}))
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    options = PrepareConfig(
        source="folder", source_dir=str(tmp_path), data_dir=str(tmp_path / "set"), image_size=16, workers=1
    )
    split = records.Dataset.open(prepare(options, progress=lambda done, total: None)).split("train")
    (batch,) = pipeline.batches(split, BatchRequest((16,), "shuffled"), 4).take(1).as_numpy_iterator()
    classes = batch["class"].tolist()
    assert sorted(classes) == [-3, -3, -2, -2]
    table = tf.constant(RANDOM.randn(4, 4).astype("f4"))
    terms = losses.damsm_losses({"word": table}, tf.range(4), tf.constant(classes), 1.0)
    wanted = []
    for i in range(4):
        others = [j for j in range(4) if j == i or classes[j] != classes[i]]
        wanted.append(np.log(np.sum(np.exp(table.numpy()[i, others]))) - table.numpy()[i, i])
    assert float(terms["word_of_image"]) == pytest.approx(np.mean(wanted), rel=1e-5)


def made_ready(batch):
    return {**batch, "images": tuple(tf.cast(x, tf.float32) / 127.5 - 1 for x in batch["images"])}


def test_dropout_is_of_the_embeddings_and_drawn_outside():
    made = recipe(dropout=0.25, words=40, word_dim=30)
    draws = [Draw(0, tf.constant(step), tf.constant(50)) for step in (1, 1, 2)]
    factors = [made._dropout_factors(made.noise(draw)).numpy() for draw in draws]
    assert factors[0].shape == (50, 40, 30) and set(np.unique(factors[0])) == {0.0, np.float32(1 / 0.75)}
    assert np.mean(factors[0] == 0) == pytest.approx(0.25, abs=0.01)
    np.testing.assert_array_equal(factors[0], factors[1])
    assert not np.array_equal(factors[0], factors[2])
    plain = recipe(dropout=0.0)
    assert plain.noise(draws[0]) == {} and plain._dropout_factors({}) is None


def test_the_learning_rate_falls_to_a_tenth_as_published():
    schedule = damsm.DecayToATenth(0.002, steps_per_epoch=10, decay=0.98)
    rate = 0.002
    for epoch in range(130):
        assert float(schedule(10 * epoch)) == float(schedule(10 * epoch + 9)) == pytest.approx(rate, rel=1e-5)
        if rate > 0.002 / 10:
            rate *= 0.98
    assert rate == pytest.approx(1.999e-4, rel=1e-3)
    assert float(damsm.DecayToATenth(0.002, 1, 1.0)(500)) == pytest.approx(0.002)


def test_a_restarted_adam_is_a_new_one_every_epoch():
    gradients = RANDOM.randn(9, 3).astype("f4")
    restarted, wanted = tf.Variable([1.0, 2.0, 3.0]), tf.Variable([1.0, 2.0, 3.0])
    optimizer = recipe(restart_adam=True).optimizers(3)["encoders"]
    optimizer.build([restarted])
    for step, gradient in enumerate(gradients):
        if step % 3 == 0:
            rate = 0.002 * 0.98 ** (step // 3)
            fresh = keras.optimizers.Adam(rate, beta_1=0.5, epsilon=1e-8 * (1 - 0.999) ** 0.5)
            fresh.build([wanted])
        optimizer.apply([tf.constant(gradient)], [restarted])
        fresh.apply([tf.constant(gradient)], [wanted])
        np.testing.assert_allclose(restarted, wanted, rtol=1e-6)
    assert not isinstance(recipe().optimizers(3)["encoders"], damsm.RestartedAdam), "by itself one Adam goes on"


def test_where_words_look():
    made, batch = recipe(image_size=24), made_ready(batch_of(24))
    caption = {"words": batch["words"][:, 0], "word_lengths": batch["word_lengths"][:, 0]}
    maps = made.attend({**caption, "images": batch["images"]})
    assert maps.shape == (BATCH, WORDS, 3, 3)
    np.testing.assert_allclose(np.sum(maps, axis=(2, 3)), 1, rtol=1e-5)
    regions, _ = made.image_encoder(batch["images"][0])
    words, _ = made.text_encoder(caption["words"], caption["word_lengths"])
    row, length = 3, 4
    scores = np.reshape(regions[row], (9, -1)) @ words[row, :length].numpy().T
    over_words = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    over_regions = np.exp(4 * over_words) / np.exp(4 * over_words).sum(axis=0)
    np.testing.assert_allclose(np.reshape(maps[row, :length], (length, 9)), over_regions.T, rtol=1e-5)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"embedding_dim": 7}, "--embedding_dim=7: .* give an even number"),
        ({"decay": 0.0}, "--decay=0.0: .* give a number above 0"),
        ({"decay": -0.5}, "--decay=-0.5: .* give a number above 0"),
        ({"dropout": 1.0}, "--dropout=1.0: give a number from 0 to below 1"),
        ({"image_encoder": "nowhere"}, "--image_encoder=nowhere: neither keras, random"),
    ],
)
def test_settings_that_do_not_go(given, message):
    with pytest.raises(UserError, match=message):
        recipe(**given)


def test_words_are_asked_for():
    with pytest.raises(UserError, match="damsm reads words: give a data set with captions"):
        damsm.Recipe(damsm.Hyperparameters(**TINY), papers.Context())


def test_a_fresh_run_needs_weights_of_inception():
    made = recipe()
    made.start({"image_encoder"})  # the small network has none to load
    made.image_encoder.layout = made.image_encoder.source = "inception"
    with pytest.raises(UserError, match="--image_encoder=inception names no weights to start from: give keras"):
        made.start({"image_encoder"})
