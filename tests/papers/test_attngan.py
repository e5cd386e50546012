"""What AttnGAN does beside being equal to the published program, which is seen in tests/parity."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import checkpoints, inference, papers
from t2i_tf.config import RunConfig, TrainConfig
from t2i_tf.errors import UserError
from t2i_tf.networks.gated import DiscriminatorTrunk
from t2i_tf.papers import attngan, damsm
from t2i_tf.training.trainers import GanTrainer

RANDOM = np.random.RandomState(0)
BATCH, WORDS, VOCABULARY = 3, 5, 9
ENCODERS = {
    "word_dim": 4,
    "embedding_dim": 6,
    "image_encoder": "conv",
    "image_encoder_width": 2,
    "compile_attention": False,
}
TINY = {
    **ENCODERS,
    "num_scales": 2,
    "base_size": 16,
    "generator_width": 4,
    "discriminator_width": 2,
    "noise_dim": 5,
    "condition_dim": 3,
    "words": WORDS,
}
CONTEXT = papers.Context(vocabulary_size=VOCABULARY)


def recipe(**given):
    return attngan.Recipe(attngan.Hyperparameters(**{**TINY, **given}), CONTEXT)


def batch_of(made):
    lengths = np.array([5, 3, 1], "i4")
    words = RANDOM.randint(1, VOCABULARY, (BATCH, 1, WORDS)) * (np.arange(WORDS) < lengths[:, None, None])
    batch = {
        "images": tuple(RANDOM.randint(0, 256, (BATCH, size, size, 3)).astype("u1") for size in made.sizes),
        "words": words.astype("i4"),
        "word_lengths": lengths[:, None],
        "class": np.array([0, 1, 0], "i4"),
    }
    return tf.nest.map_structure(tf.constant, batch)


def noise_of(rows):
    return {name: tf.constant(RANDOM.randn(rows, width), tf.float32) for name, width in (("z", 5), ("augmentation", 3))}


@pytest.mark.parametrize("form", ["attngan", "dcgan"])
def test_a_step_forwards_the_generator_once_and_each_picture_once(form, monkeypatch):
    """Real pictures pass a trunk once, for right and wrong pairs; the pictures that train the generator are those that
    its discriminators saw."""
    made = recipe(form=form)
    generated, seen = [], []
    generate, trunk = attngan.Generator.call, DiscriminatorTrunk.call

    def counted_trunk(self, image, training=False, groups=1):
        seen.extend((image.shape[1], batch) for batch in np.split(image.numpy(), groups))
        return trunk(self, image, training=training, groups=groups)

    def counted_generate(self, *args, **kwargs):
        result = generate(self, *args, **kwargs)
        generated.append(result["images"])
        return result

    monkeypatch.setattr(attngan.Generator, "call", counted_generate)
    monkeypatch.setattr(DiscriminatorTrunk, "call", counted_trunk)
    batch = batch_of(made)
    GanTrainer(made, seed=0, steps_per_epoch=1).train_step(batch)
    (fakes,) = generated
    assert len(fakes) == len(made.sizes) == (2 if form == "attngan" else 1)
    for scale, size in enumerate(made.sizes):
        real = np.float32(batch["images"][scale]) / 127.5 - 1
        passes = [
            sum(shown == size and np.allclose(image, pictures, atol=1e-6) for shown, image in seen)
            for pictures in (real, fakes[scale].numpy())
        ]
        assert passes == [1, 2] and sum(shown == size for shown, _ in seen) == 3


def test_what_each_form_asks_of_the_data():
    assert recipe().request == papers.BatchRequest(image_sizes=(16, 32), text="words", words=WORDS)
    assert recipe(form="dcgan").request.image_sizes == (32,)
    assert recipe(batch_size=20).steps_per_epoch(8855) == 442
    assert attngan.Recipe.kind == "gan"


@pytest.mark.parametrize("form, num_scales, base_size", [("attngan", 1, 8), ("attngan", 3, 8), ("dcgan", 3, 8)])
def test_generator_and_discriminators_learn_and_the_encoders_stay(form, num_scales, base_size):
    made = recipe(form=form, num_scales=num_scales, base_size=base_size, residual_blocks=1)
    trainer = GanTrainer(made, seed=0, steps_per_epoch=1)

    def state():
        return {name: [v.numpy() for v in network.variables] for name, network in made.networks.items()}

    before = state()
    logs = trainer.train_step(batch_of(made))
    assert all(np.isfinite(list(logs.values())))
    for name, after in state().items():
        same = [np.array_equal(a, b) for a, b in zip(before[name], after, strict=True)]
        assert all(same) if name.endswith("encoder") else not any(same), name
    assert not made.text_encoder.trainable_variables and not made.image_encoder.trainable_variables


def test_the_damsm_loss_moves_the_largest_picture_alone_and_by_its_weight():
    def of_images(weight):
        made = recipe(damsm_weight=weight)
        batch = batch_of(made)
        for name in made.discriminators:
            made.discriminators[name] = lambda image, sentence, training: {"conditional": tf.zeros([BATCH])}
        images = [tf.constant(RANDOM.uniform(-1, 1, (BATCH, size, size, 3)), tf.float32) for size in made.sizes]
        generated = {"images": images, "mu": tf.zeros([BATCH, 3]), "log_variance": tf.zeros([BATCH, 3])}
        condition = made.condition(batch)
        with tf.GradientTape() as tape:
            tape.watch(images)
            logs = made.generator_losses(batch, condition, generated)
        return logs, tape.gradient(logs["loss"], images)

    logs, (small, large) = of_images(2.0)
    terms = [value for name, value in logs.items() if "_of_" in name]
    assert len(terms) == 4 and float(logs["loss"]) == pytest.approx(2 * np.log(2) + 2 * float(sum(terms)), rel=1e-5)
    assert small is None and np.abs(large).max() > 0
    logs, found = of_images(0.0)
    assert found == [None, None] and not any("_of_" in name for name in logs)


def test_wrong_pairs_are_pictures_with_the_next_sentence():
    made = recipe()
    batch = made_ready(batch_of(made))
    condition = made.condition(batch)
    critic, seen = made.discriminators["discriminator_16"], []
    match = critic.match

    def seen_match(features, sentence, training=False, gathered=False, groups=1):
        seen.append((features.numpy(), sentence.numpy(), gathered))
        return match(features, sentence, training=training, gathered=gathered, groups=groups)

    critic.match = seen_match
    fakes = {"images": [tf.zeros_like(images) for images in batch["images"]]}
    logs = made.discriminator_losses("discriminator_16", batch, condition, fakes)
    (right, sentence, _), (wrong, following, gathered) = seen
    np.testing.assert_array_equal(wrong, right[: BATCH - 1])
    np.testing.assert_array_equal(following, sentence[1:BATCH])
    assert gathered and np.isfinite(logs["loss"])


def made_ready(batch):
    return {**batch, "images": tuple(tf.cast(x, tf.float32) / 127.5 - 1 for x in batch["images"])}


def test_samples_depend_on_their_own_caption_and_noise_alone():
    made = recipe(num_scales=3, base_size=8)
    batch, noise = batch_of(made), noise_of(BATCH)
    images = made.sample(made.condition(batch), noise)
    assert [image.shape for image in images] == [(BATCH, size, size, 3) for size in (8, 16, 32)]
    assert all(np.abs(image).max() <= 1 for image in images)
    row = slice(1, 2)
    shorter = {"words": batch["words"][row, :, :3], "word_lengths": batch["word_lengths"][row]}
    alone = made.sample(made.condition(shorter), {name: value[row] for name, value in noise.items()})
    for ours, theirs in zip(alone, images, strict=True):
        np.testing.assert_allclose(ours, theirs[row], atol=1e-5)


def test_what_was_attended_goes_with_the_pictures():
    made = recipe(num_scales=3, base_size=8)
    batch, noise = batch_of(made), noise_of(BATCH)
    condition = made.condition(batch)
    seen = made.attend(condition, noise)
    for ours, theirs in zip(seen["images"], made.sample(condition, noise), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [weights.shape for weights in seen["attention"]] == [(BATCH, size, size, WORDS) for size in (8, 16)]
    for weights in seen["attention"]:
        np.testing.assert_allclose(np.sum(weights, axis=-1), 1, rtol=1e-5)
        assert np.all(weights[1, ..., 3:] == 0)
        np.testing.assert_allclose(weights[2, ..., :1], 1, rtol=1e-6)
    assert made.attend(condition, noise)["attention"][0].shape[-1] == WORDS


def test_captions_of_any_length_in_one_graph():
    made = recipe()
    spec = {"words": tf.TensorSpec([None, 1, None], tf.int32), "word_lengths": tf.TensorSpec([None, 1], tf.int32)}
    attend = tf.function(lambda batch, noise: made.attend(made.condition(batch), noise))
    noise = noise_of(2)
    run = attend.get_concrete_function(spec, {k: tf.TensorSpec([None, v.shape[1]]) for k, v in noise.items()})
    for length in (1, 7):
        batch = {"words": tf.ones([2, 1, length], tf.int32), "word_lengths": tf.constant([[length], [1]])}
        assert run(batch, noise)["attention"][0].shape == (2, 16, 16, length)


@pytest.mark.parametrize("published_mask", [False, True])
def test_the_published_mask_is_a_switch(published_mask):
    made = recipe(published_mask=published_mask)
    assert [stage.attention.published_mask for stage in made.generator.stages] == [published_mask]


# The encoders of a DAMSM.


@pytest.fixture(scope="module")
def damsm_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "damsm"
    hyperparameters = damsm.Hyperparameters(**ENCODERS, words=4, image_size=32)
    config = RunConfig(
        TrainConfig(paper="damsm", data_dir=""), dataclasses.asdict(hyperparameters), dataclasses.asdict(CONTEXT)
    )
    run = inference.Run(config, damsm.Recipe(hyperparameters, CONTEXT), 0)
    run.save(folder)
    return run, folder


def test_the_encoders_are_those_of_the_damsm_run(damsm_run):
    theirs, folder = damsm_run
    made = recipe(damsm_run=str(folder))
    assert not np.array_equal(made.text_encoder.embedding.embeddings, theirs.recipe.text_encoder.embedding.embeddings)
    for name, (run_dir, network) in made.pretrained.items():
        checkpoints.load_weights(run_dir, {network: made.networks[name]})
    for name in ("text_encoder", "image_encoder"):
        for ours, other in zip(made.networks[name].variables, theirs.recipe.networks[name].variables, strict=True):
            np.testing.assert_array_equal(ours, other)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"damsm_run": None}, "give --damsm_run=RUN of --paper=damsm"),
        ({"embedding_dim": 8}, "add --embedding_dim=6"),
        ({"recurrent": "gru", "word_dim": 5}, "add --recurrent=lstm --word_dim=4"),
        ({"image_encoder_width": 3}, "add --image_encoder_width=2"),
        ({"base_size": 8}, "pictures of 32 pixels, the largest here have 16"),
    ],
)
def test_another_damsm_is_refused(damsm_run, given, message):
    made = recipe(**{"damsm_run": str(damsm_run[1]), **given})
    with pytest.raises(UserError, match=message):
        _ = made.pretrained


def test_another_image_encoder_or_vocabulary_is_refused(damsm_run):
    made = recipe(damsm_run=str(damsm_run[1]))
    other = attngan.Recipe(made.hyperparameters, papers.Context(vocabulary_size=VOCABULARY + 1))
    with pytest.raises(UserError, match="knows 9 words, this data set has 10: encoders and vocabulary belong together"):
        _ = other.pretrained
    made.hyperparameters = dataclasses.replace(made.hyperparameters, image_encoder="inception")
    with pytest.raises(UserError, match="add --image_encoder=conv"):
        _ = made.pretrained


def test_a_damsm_that_lacks_an_encoder_or_resizes_otherwise_is_refused(damsm_run, tmp_path):
    config = damsm_run[0].config
    for changes, message in (
        ({"untrained": ("image_encoder",)}, "--damsm_run=.*: its image_encoder was in no file .* both encoders"),
        ({"hyperparameters": {**config.hyperparameters, "aligned_corners": True}}, "add --aligned_corners"),
    ):
        (tmp_path / "config.json").write_text(dataclasses.replace(config, **changes).to_json())
        with pytest.raises(UserError, match=message):
            _ = recipe(damsm_run=str(tmp_path)).pretrained


def test_a_run_of_another_paper_is_refused(tmp_path):
    config = RunConfig(TrainConfig(paper="char_cnn_rnn", data_dir=""), {}, {})
    (tmp_path / "config.json").write_text(config.to_json())
    with pytest.raises(UserError, match="is a run of char_cnn_rnn: give one of --paper=damsm"):
        _ = recipe(damsm_run=str(tmp_path)).pretrained


@pytest.mark.parametrize(
    "given, context, message",
    [
        ({"base_size": 48}, CONTEXT, "--base_size=48: give a power of two"),
        ({}, papers.Context(), "attngan reads words: give a data set with captions"),
        ({"image_encoder": "nowhere"}, CONTEXT, "--image_encoder=nowhere: neither keras, random"),
    ],
)
def test_settings_that_do_not_go_together(given, context, message):
    with pytest.raises(UserError, match=message):
        attngan.Recipe(attngan.Hyperparameters(**{**TINY, **given}), context)
