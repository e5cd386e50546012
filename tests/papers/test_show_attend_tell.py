"""The captioner beyond its parity files: search against enumeration, hard attention's estimate against the exact
gradient, captions of mixed lengths, edges."""

import dataclasses
import itertools
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf.errors import UserError
from t2i_tf.networks import encoders
from t2i_tf.papers import Context, show_attend_tell
from t2i_tf.papers.show_attend_tell import END, UNKNOWN, Decoder, drawn_place
from t2i_tf.training.trainers import Draw, SupervisedTrainer

SIZES = {"word_dim": 5, "state_dim": 6, "batch_size": 4}
RNG = np.random.default_rng(11)


@pytest.fixture
def make(monkeypatch):
    """Recipes of tiny sizes on annotations of any shape; weights are enlarged so that everything matters."""

    def recipe(shape=(4, 3), words=7, seed=3, scale=0.7, **given):
        backbone = dataclasses.replace(encoders.BACKBONES["vgg19"], shape=shape)
        monkeypatch.setitem(encoders.BACKBONES, "vgg19", backbone)
        hyperparameters = show_attend_tell.Hyperparameters(**{**SIZES, **given})
        made = show_attend_tell.Recipe(hyperparameters, Context(vocabulary_size=words + 1))
        rng = np.random.default_rng(seed)
        for variable in made.decoder.trainable_variables:
            variable.assign(rng.normal(0, scale, variable.shape))
        return made

    return recipe


def annotations_of(batch, shape=(4, 3), seed=0):
    return tf.constant(np.maximum(np.random.default_rng(seed).normal(size=(batch, *shape)), 0), tf.float32)


def batch_of(annotations, captions):
    width = max(map(len, captions), default=0)
    words = [[*caption, *[0] * (width - len(caption))] for caption in captions]
    return {
        "annotations": annotations,
        "words": tf.constant(words, tf.int32, [len(captions), width])[:, None],
        "word_lengths": tf.constant([[len(caption)] for caption in captions], tf.int32),
        "class": tf.zeros([len(captions)], tf.int32),
    }


def noise(recipe, batch, seed=0, step=0):
    rows, _, words = batch["words"].shape
    return recipe.noise(Draw(seed, tf.convert_to_tensor(step), tf.constant(rows), words=tf.constant(words)))


# The decoder.


@pytest.mark.parametrize("attention", ["soft", "hard", "none"])
def test_a_caption_costs_the_same_alone_and_among_longer_ones(make, attention):
    recipe = make(attention=attention)
    annotations, captions = annotations_of(4), [[2, 3, 4, 5], [6], [], [2, 2, 8]]
    together = recipe.negative_log_likelihood(batch_of(annotations, captions))
    alone = [
        float(recipe.negative_log_likelihood(batch_of(annotations[i : i + 1], captions[i : i + 1]))[0])
        for i in range(4)
    ]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_the_probabilities_of_all_captions_sum_to_one(make):
    recipe = make(words=2)  # end, unknown, two words
    captions = [list(c) for n in range(3) for c in itertools.product((1, 2, 3), repeat=n)]
    costs = recipe.negative_log_likelihood(batch_of(tf.repeat(annotations_of(1), len(captions), 0), captions))
    # and of all longer ones: those that begin with three words
    beginnings = np.array(list(itertools.product((1, 2, 3), repeat=3)), np.int32)
    logits = recipe.decoder(tf.repeat(annotations_of(1), 27, 0), tf.constant(beginnings))["logits"]
    steps = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=beginnings, logits=logits)
    longer = np.exp(-tf.reduce_sum(steps, 1)).sum()
    assert np.exp(-costs).sum() + longer == pytest.approx(1.0, rel=1e-5)


def test_words_beyond_the_limit_are_unknown(make):
    recipe = make(words=20, vocabulary_limit=6)
    assert recipe.decoder.vocabulary_size == recipe.vocabulary_size == 6
    words, mask = recipe.rows(batch_of(annotations_of(2), [[5, 6, 21], [2, 1]]))
    np.testing.assert_array_equal(words, [[5, UNKNOWN, UNKNOWN, END], [2, 1, END, END]])
    np.testing.assert_array_equal(mask, [[1, 1, 1, 1], [1, 1, 1, 0]])


def test_padding_of_the_batch_does_not_matter(make):
    recipe = make()
    short = batch_of(annotations_of(1), [[2, 3]])
    wide = {**short, "words": tf.constant([[[2, 3, 7, 7, 7]]])}  # whatever stands behind the end
    np.testing.assert_allclose(*(recipe.negative_log_likelihood(batch) for batch in (short, wide)), rtol=1e-6)
    recipe.hyperparameters = dataclasses.replace(recipe.hyperparameters, dropout=0.0)
    logs = [recipe.losses(batch, noise(recipe, batch)) for batch in (short, wide)]
    for name in logs[0]:
        assert float(logs[0][name]) == pytest.approx(float(logs[1][name]), rel=1e-5), name


def test_no_attention_sees_the_mean_annotation_alone(make):
    recipe = make(attention="none")
    annotations = annotations_of(2)
    moved = annotations + tf.constant([1.0, -1.0, 2.0, -2.0])[:, None]  # the same mean
    batches = [batch_of(a, [[2, 3], [4, 5]]) for a in (annotations, moved)]
    np.testing.assert_allclose(*map(recipe.negative_log_likelihood, batches), rtol=1e-5)
    assert set(recipe.losses(batches[0], noise(recipe, batches[0]))) == {"loss", "negative_log_likelihood", "per_word"}
    captions = recipe.caption(batches[0], max_length=5)
    assert captions.attention is None and captions.selector is None
    with_attention = make(attention="soft").negative_log_likelihood
    assert not np.allclose(*map(with_attention, batches))


def test_switches_leave_their_weights_out(make):
    def names(**given):
        return {variable.path for variable in make(**given).decoder.trainable_variables}

    everything = names()
    assert len(everything - names(selector=False)) == 2
    assert len(everything - names(context_to_output=False)) == 2
    assert names(previous_word_to_output=False) == everything
    assert len(names(attention_layers=4, initial_layers=3, output_layers=3) - everything) == 4 + 2 + 4
    assert len(everything - names(attention="none")) == 1 + 2 + 2 + 1 + 1 + 2 + 2


def test_parameters_of_the_published_run_on_coco():
    """35,333,450, one of which is the bias that the softmax cancels."""
    decoder = Decoder(10000, 512)
    decoder(tf.zeros([1, 4, 512]), tf.zeros([1, 1], tf.int32))
    assert sum(int(np.prod(v.shape)) for v in decoder.trainable_variables) == 35_333_450 - 1


def test_initial_values():
    keras.utils.set_random_seed(0)
    decoder = Decoder(50, 16, 16, 24, output_layers=2)
    decoder(tf.zeros([1, 4, 16]), tf.zeros([1, 1], tf.int32))
    orthogonal = []
    for variable in decoder.trainable_variables:
        value = variable.numpy()
        name = variable.path.removeprefix("decoder/")
        if value.ndim == 1:
            assert not value.any(), name
            continue
        blocks = np.split(value, 4, 1) if name in ("gates_of_word/kernel", "gates_of_state/kernel") else [value]
        square = all(block.shape[0] == block.shape[1] for block in blocks)
        if square and np.allclose(blocks[-1].T @ blocks[-1], np.eye(len(value)), atol=1e-5):
            orthogonal.append(name)
            assert len({block[0, 0] for block in blocks}) == len(blocks)  # each drawn on its own
        else:
            assert np.sqrt(np.mean(value**2)) == pytest.approx(0.01, rel=4 / np.sqrt(2 * value.size)), name
            assert abs(value.mean()) < 4 * 0.01 / np.sqrt(value.size), name
    assert sorted(orthogonal) == [
        "annotation_projection_1/kernel",
        "gates_of_state/kernel",
        "initial_hidden_1/kernel",
        "output_hidden_1/kernel",
        "output_of_context/kernel",
    ]


# Decoding.


def enumerated(recipe, annotations, longest):
    """All captions of one picture up to a length, ended or cut, with their costs; cheapest first."""
    words = range(1, recipe.vocabulary_size)
    rows = [list(c) + [END] for n in range(longest) for c in itertools.product(words, repeat=n)]
    rows += [list(c) for c in itertools.product(words, repeat=longest)]
    padded = tf.constant([row + [0] * (longest - len(row)) for row in rows])
    logits = recipe.decoder(tf.repeat(annotations, len(rows), 0), padded)["logits"]
    steps = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=padded, logits=logits).numpy()
    costs = [float(step[: len(row)].sum()) for step, row in zip(steps, rows, strict=True)]
    return sorted(zip(costs, rows, strict=True))


@pytest.mark.parametrize("attention", ["soft", "none"])
def test_a_beam_wide_enough_finds_the_best_of_all_captions(make, attention):
    recipe = make(words=2, attention=attention, seed=5)
    annotations = annotations_of(3)
    found = show_attend_tell.beam_search(recipe.decoder, annotations, 64, 3)
    for image in range(3):
        everything = enumerated(recipe, annotations[image : image + 1], 3)
        costs, ids = found.costs[image].numpy(), found.ids[image].numpy()
        ours = sorted((float(c), [int(i) for i in row if i >= 0]) for c, row in zip(costs, ids, strict=True))
        ours = [item for item in ours if np.isfinite(item[0])]
        assert [row for _, row in ours] == [row for _, row in everything]
        np.testing.assert_allclose([c for c, _ in ours], [c for c, _ in everything], rtol=1e-5)


def test_greedy_search_takes_the_likeliest_word_each_time(make):
    recipe = make()
    annotations = annotations_of(5)
    captions = recipe.caption({"annotations": annotations}, max_length=6)
    assert captions.attention.shape == (*captions.ids.shape, 4)
    np.testing.assert_allclose(tf.reduce_sum(captions.attention, -1), tf.ones(captions.ids.shape), rtol=1e-5)
    logits = recipe.decoder(annotations, captions.ids)["logits"].numpy()
    for image, length in enumerate(captions.lengths.numpy()):
        ids = captions.ids[image].numpy()
        np.testing.assert_array_equal(ids[:length], logits[image, :length].argmax(-1))
        assert length == 6 or ids[length - 1] == END
        assert END not in ids[: length - 1] and not ids[length:].any()
    costs = recipe.negative_log_likelihood(
        batch_of(annotations, [[i for i in row if i] for row in captions.ids.numpy().tolist()])
    )
    ended = captions.ids.numpy()[np.arange(5), captions.lengths.numpy() - 1] == END
    assert ended.any()
    np.testing.assert_allclose(captions.costs[ended], costs[ended], rtol=1e-5)


def test_a_picture_is_captioned_alike_alone_and_among_others(make):
    recipe = make(words=9)
    annotations = annotations_of(6)
    together = show_attend_tell.beam_search(recipe.decoder, annotations, 3, 10)
    for image in range(6):
        alone = show_attend_tell.beam_search(recipe.decoder, annotations[image : image + 1], 3, 10)
        np.testing.assert_array_equal(alone.ids[0], together.ids[image])
        np.testing.assert_allclose(alone.costs[0], together.costs[image], rtol=1e-5)


def test_the_search_ends_when_every_caption_has(make):
    recipe = make()
    recipe.decoder.output_words.bias.assign([50.0] + [0.0] * 8)
    captions = recipe.caption({"annotations": annotations_of(2)}, beam_size=2, max_length=200)
    assert captions.ids.shape == (2, 1) and not captions.ids.numpy().any() and captions.attention.shape == (2, 1, 4)


def test_text_of_ids():
    vocabulary = ["a", "dog", "runs"]
    ids = np.array([[2, 3, 4, 0, 0], [2, 1, 0, 3, 3], [0, 0, 0, 0, 0], [4, 4, 4, 4, 4], [3, 0, -1, -1, -1]])
    assert show_attend_tell.to_text(ids, vocabulary) == ["a dog runs", "a UNK", "", "runs runs runs runs runs", "dog"]
    assert show_attend_tell.to_text(tf.constant(ids[:1]), vocabulary) == ["a dog runs"]


# Hard attention.


def test_places_are_drawn_by_their_weights():
    attention = tf.constant([[0.5, 0.0, 0.125, 0.375]])
    uniform = np.linspace(0, 1, 800, endpoint=False, dtype=np.float32)
    drawn = drawn_place(tf.repeat(attention, 800, 0), tf.constant(uniform))
    np.testing.assert_array_equal(tf.reduce_sum(drawn, 0), [400, 0, 100, 300])
    # a sum that rounding leaves below the number drawn
    short = drawn_place(tf.constant([[0.25, 0.25, 0.49]]), tf.constant([0.999]))
    np.testing.assert_array_equal(short, [[0, 0, 1]])


@pytest.mark.parametrize("coin", ["image_and_step", "image", "step"])
def test_the_coin(make, coin):
    recipe = make(attention="hard", coin=coin, sampling_share=0.3)
    sampled = recipe._draws(Draw(0, tf.constant(0), tf.constant(600)).uniform, 500)["sampled"].numpy()
    assert sampled.shape == (600, 500) and set(np.unique(sampled)) == {0.0, 1.0}
    alike = {"image": sampled.std(axis=1).max(), "step": sampled.std(axis=0).max()}
    assert [name for name, deviation in alike.items() if deviation == 0] == ([] if coin == "image_and_step" else [coin])
    assert sampled.mean() == pytest.approx(0.3, abs=0.08)


def test_draws_and_dropout_depend_on_the_step_alone(make):
    recipe = make(attention="hard", dropout=0.4)
    batch = batch_of(annotations_of(2), [[2, 3], [4, 5]])
    recipe.decoder.baseline.assign(1.0)
    found = []
    for step in (0, 0, 1):
        recipe.decoder.baseline.assign(1.0)
        found.append(float(recipe.losses(batch, noise(recipe, batch, step=step))["loss"]))
    assert found[0] == found[1] != found[2]
    kept = recipe._dropout(Draw(0, tf.constant(0), tf.constant(200)).uniform, 30)
    assert set(kept) == {"initial_1", "state", "output_0"}
    for name, values in kept.items():
        assert set(np.unique(values)) == {0.0, np.float32(1 / 0.6)}, name
        assert values.numpy().mean() == pytest.approx(1.0, abs=0.1), name
    assert noise(recipe, batch)["dropout"] is not None and noise(make(dropout=0.0), batch)["dropout"] is None


@pytest.mark.parametrize("attention, given", [("soft", {}), ("hard", {}), ("hard", {"doubly_stochastic_hard": True})])
def test_what_is_minimised(make, attention, given):
    recipe = make(attention=attention, doubly_stochastic_weight=2.0, **given)
    batch = batch_of(annotations_of(2), [[2, 3], [4, 5]])
    logs = recipe.losses(batch, noise(recipe, batch))
    weight = 0.0 if attention == "hard" and not given else 2.0
    total = logs["negative_log_likelihood"] + weight * logs["doubly_stochastic"]
    assert float(logs["loss"]) == pytest.approx(float(total), rel=1e-6)
    assert float(logs["negative_log_likelihood"]) == pytest.approx(3 * float(logs["per_word"]), rel=1e-6)


PLACES, ROWS = 2, 3


def exact_gradient(recipe, annotations, caption, share):
    """Of the bound, the expectation of -log p over coins and places: all 2^3 coins and 2^3 paths of places, weighed."""
    decoder = recipe.decoder
    cases = np.array(list(itertools.product((0, 1), repeat=2 * ROWS)), np.float32)
    paths, coins = cases[:, :ROWS], cases[:, ROWS:]
    # With two places, 0 draws the first and almost 1 the second, whatever the attention.
    draws = {"uniform": tf.constant(paths * np.float32(1 - 1e-7)), "sampled": tf.constant(coins)}
    weight_of_coins = np.prod(np.where(coins == 1, share, 1 - share), axis=1)
    words = tf.repeat(tf.constant([[*caption, END]]), len(cases), 0)
    with tf.GradientTape() as tape:
        made = decoder(tf.repeat(annotations, len(cases), 0), words, draws=draws)
        steps = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=words, logits=made["logits"])
        of_place = tf.where(paths == 1, made["attention"][:, :, 1], made["attention"][:, :, 0])
        # Where no place is drawn both paths are the same case.
        probability = tf.reduce_prod(tf.where(coins == 1, of_place, 0.5), axis=1) * weight_of_coins
        bound = tf.reduce_sum(probability * tf.reduce_sum(steps, axis=1))
    assert float(tf.reduce_sum(probability)) == pytest.approx(1.0, rel=1e-5)
    return float(bound), tape.gradient(bound, [v.value for v in decoder.trainable_variables])


def scores_of_estimate(recipe, annotations, caption, exact, groups=200, draws=500):
    """How many standard errors the mean of so many draws is from the exact gradient, for each weight."""
    batch = batch_of(tf.repeat(annotations, draws, 0), [caption] * draws)
    variables = [v.value for v in recipe.decoder.trainable_variables]

    @tf.function
    def estimate(step):
        with tf.GradientTape() as tape:
            logs = recipe.losses(batch, noise(recipe, batch, seed=1, step=step))
        gradients = tape.gradient(logs["loss"], variables)
        return logs["negative_log_likelihood"], tf.concat([tf.reshape(g, [-1]) for g in gradients], 0)

    found = [estimate(tf.constant(step)) for step in range(groups)]
    likelihoods, gradients = (np.array(parts, np.float64) for parts in zip(*found, strict=True))
    wanted = np.concatenate([np.reshape(tf.convert_to_tensor(g), [-1]) for g in exact])
    error = gradients.std(0, ddof=1) / np.sqrt(groups)
    # Words that the caption lacks have no gradient; where draws change little there is only rounding.
    return likelihoods, (gradients.mean(0) - wanted) / np.maximum(error, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_mean_of_many_draws_is_the_exact_gradient_of_the_bound(make, share):
    """The paper's weights: the reward on the sum of the rows, averaged over the draws."""
    draws, caption = 500, [3, 2]
    settings = {"attention": "hard", "sampling_share": share, "dropout": 0.0, "entropy_weight": 0.0, "scale": 1.2}
    recipe = make((PLACES, 3), words=3, reward_weight=ROWS / draws, **settings)
    annotations = annotations_of(1, (PLACES, 3), seed=2)
    bound, exact = exact_gradient(recipe, annotations, caption, share)
    likelihoods, scores = scores_of_estimate(recipe, annotations, caption, exact)
    assert abs(likelihoods.mean() - bound) < 4 * likelihoods.std() / np.sqrt(len(likelihoods))
    print(f"{np.count_nonzero(scores)} weights: mean squared score {np.mean(scores[scores != 0] ** 2):.2f}, ", end="")
    print(f"largest {np.abs(scores).max():.2f} standard errors")
    assert np.abs(scores).max() < 4.5 and np.mean(scores[scores != 0] ** 2) < 2.0
    assert np.count_nonzero(np.abs(scores) > 0.1) > 100
    # The baseline has moved to the mean row loss.
    assert float(recipe.decoder.baseline) == pytest.approx(bound / ROWS, rel=0.05)
    # Without the reward the mean is another: the test sees the difference.
    blind = make((PLACES, 3), words=3, reward_weight=0.0, **settings)
    _, scores = scores_of_estimate(blind, annotations, caption, exact)
    print(f"without the reward: {np.abs(scores).max():.0f} standard errors")
    assert np.abs(scores).max() > 20


# Training.


@pytest.mark.parametrize(
    "attention, optimizer", [("soft", "adam"), ("soft", "rmsprop"), ("hard", "adam"), ("none", "adam")]
)
def test_training_learns_captions_by_heart(attention, optimizer):
    """From pictures, through a small network trained along: two kinds of pictures, two captions."""
    keras.utils.set_random_seed(0)
    hyperparameters = show_attend_tell.Hyperparameters(
        attention=attention,
        image_encoder="conv",
        image_encoder_width=4,
        image_size=16,
        word_dim=16,
        state_dim=24,
        dropout=0.0,
        optimizer=optimizer,
        learning_rate=0.005,
        batch_size=4,
    )
    recipe = show_attend_tell.Recipe(hyperparameters, Context(vocabulary_size=6))
    assert not recipe.request.annotations and recipe.frozen_features is None
    trainer = SupervisedTrainer(recipe, seed=0, steps_per_epoch=1)
    colours = np.array([[255, 0, 0], [0, 0, 255]] * 2, np.uint8)
    pictures = tf.constant(np.tile(colours[:, None, None], (1, 16, 16, 1)))
    batch = batch_of(None, [[2, 3, 4], [2, 5, 6]] * 2) | {"images": (pictures,)}
    del batch["annotations"]
    step = tf.function(trainer.train_step)
    costs = [float(step(batch)["negative_log_likelihood"]) for _ in range(150)]
    assert costs[0] == pytest.approx(4 * np.log(7), rel=0.02)
    assert costs[-1] < 0.5
    captions = recipe.caption({"images": pictures}, beam_size=2)  # uint8, as they come from files
    np.testing.assert_array_equal(captions.ids, [[2, 3, 4, 0], [2, 5, 6, 0]] * 2)
    if attention == "hard":
        assert 0 < float(recipe.decoder.baseline) < np.log(7)


def test_a_network_that_is_not_trained_stays(make):
    recipe = make(image_encoder="conv_random", image_encoder_width=2, image_size=9)
    assert recipe.annotation_shape == [25, 2]
    assert not recipe.networks["image_encoder"].trainable_variables
    before = recipe.networks["image_encoder"].get_weights()
    batch = batch_of(None, [[2], [3]]) | {"images": (tf.zeros([2, 9, 9, 3]),)}
    del batch["annotations"]
    recipe.losses(batch, noise(recipe, batch))
    for old, new in zip(before, recipe.networks["image_encoder"].get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_half_precision_annotations(make):
    recipe, captions = make(), [[2, 3], [4, 5]]
    costs = [
        recipe.negative_log_likelihood(batch_of(tf.cast(annotations_of(2), kind), captions))
        for kind in ("float16", "float32")
    ]
    assert costs[0].dtype == tf.float32
    np.testing.assert_allclose(*costs, rtol=2e-3)


@pytest.mark.slow
def test_two_replicas_equal_one(tmp_path):
    """Hard attention with everything that is summed, gathered or drawn; a process of its own for each number."""
    results = []
    for replicas in ("1", "2"):
        out = tmp_path / f"{replicas}.npz"
        worker = [sys.executable, str(Path(__file__).with_name("captioning_replicas.py")), replicas, str(out)]
        done = subprocess.run(worker, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        results.append(np.load(out))
    one, two = results
    assert set(one.files) == set(two.files) and len(one.files) > 20
    for name in one.files:
        np.testing.assert_allclose(one[name], two[name], rtol=2e-4, atol=1e-6, err_msg=name)


# Settings.


@pytest.mark.parametrize(
    "given, message",
    [
        ({"dropout": 1.0}, "--dropout=1.0: give a share from 0 to below 1"),
        ({"sampling_share": -0.1}, "--sampling_share=-0.1: give a share from 0 to 1"),
    ],
)
def test_settings_out_of_range(given, message):
    with pytest.raises(UserError, match=message):
        show_attend_tell.Recipe(show_attend_tell.Hyperparameters(**given), Context(vocabulary_size=5))


def test_data_without_captions():
    with pytest.raises(UserError, match="show_attend_tell needs captions"):
        show_attend_tell.Recipe(show_attend_tell.Hyperparameters(), Context())


def test_a_missing_image_encoder_is_a_users_error(tmp_path):
    with pytest.raises(UserError, match="--image_encoder=.*: no such network; give keras, random"):
        show_attend_tell.Recipe(
            show_attend_tell.Hyperparameters(image_encoder=str(tmp_path)), Context(vocabulary_size=5)
        )


def test_an_epoch_is_every_caption(make):
    recipe = make(batch_size=64)
    recipe.num_captions = 30_000
    assert recipe.steps_per_epoch(6_000) == 469
    recipe.num_captions = 0
    assert recipe.steps_per_epoch(1) == 1


def test_the_recipe_survives_json(make):
    hyperparameters = make().hyperparameters
    content = json.loads(json.dumps(dataclasses.asdict(hyperparameters)))
    assert show_attend_tell.Hyperparameters(**content) == hyperparameters
