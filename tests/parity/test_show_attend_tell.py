"""Show, Attend and Tell against a re-derivation of the published program in float64, which agrees with it to 1e-15.

Tolerances are relative to the largest element of an array. The published program adds 1e-8 to a probability before its
logarithm; ours does not, which shows in the likelihood of very unlikely words.
"""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import losses, published
from t2i_tf.networks import encoders
from t2i_tf.papers import Context, show_attend_tell

from .arrays import every_file, gradients

FORWARD = 1e-5
GRADIENT = 1e-4
LIKELIHOOD = 1e-5
UPDATES = 1e-7  # Keras keeps its rates in float32
FORMS = ("paper", "code")


@pytest.fixture
def recipe(parity, monkeypatch):
    """The recipe of a file's sizes, with its weights; the frozen network's shape is the file's."""
    config = parity.config
    shape = {"vgg19": dataclasses.replace(encoders.BACKBONES["vgg19"], shape=(config["L"], config["D"]))}
    monkeypatch.setattr(encoders, "BACKBONES", shape)
    hyperparameters = show_attend_tell.Hyperparameters(
        attention=config["attention"],
        word_dim=config["E"],
        state_dim=config["H"],
        attention_layers=config["n_layers_att"],
        initial_layers=config["n_layers_init"],
        output_layers=config["n_layers_out"],
        selector=config["selector"],
        previous_word_to_output=config["prev2out"],
        context_to_output=config["ctx2out"],
        dropout=0.5 if config["dropout_mode"] == "train" else 0.0,
        doubly_stochastic_weight=config["alpha_c"],
        reward_weight=1.0 / config.get("reward_divisor", 10.0),
        entropy_weight=config.get("lambda_e", 0.002),
    )
    recipe = show_attend_tell.Recipe(hyperparameters, Context(vocabulary_size=config["V"] - 1))
    recipe.layers = published.show_attend_tell.decoder_layers(recipe.decoder, dropout=config["dropout_mode"] != "off")
    weights = parity.below("param/")
    bias = weights.pop("decoder_c_tt")  # we have none: it is added to all scores alike
    assert bias.shape == (1,)
    published.assign(recipe.layers, weights, "param")
    return recipe


def batch_of(parity):
    """As the pipeline gives it; and words and mask with the row of the end, as the file has them."""
    captions, mask = parity["in/captions"].astype(np.int32), parity["in/mask"]
    batch = {
        "annotations": parity.tensor("in/features"),
        "words": tf.constant(captions[:, None, :-1]),
        "word_lengths": tf.constant(mask.sum(1, keepdims=True).astype(np.int32) - 1),
    }
    return batch, tf.constant(captions), tf.constant(mask)


def compare_gradients(parity, prefix, recipe, variables, values):
    """A weight that is half the published one has twice its gradient."""
    value_of = {id(variable): value.numpy() for variable, value in zip(variables, values, strict=True)}
    for name, weight in recipe.layers[""].items():
        factor = float(weight.to_ours(np.ones(weight.published_shape)).flat[0])
        ours = weight.to_published(value_of[id(weight.variable)]) * factor**2
        parity.compare(f"{prefix}/{name}", ours, GRADIENT)
    # Without the bias that the softmax cancels, nothing of it is learned. The file's values are rounding.
    parity.compare(f"{prefix}/decoder_c_tt", np.zeros(1), GRADIENT, scale=1.0)
    assert len(variables) == len(recipe.layers[""])


def compare_forward(parity, prefix, recipe, made, initial_input, words, mask):
    names = {"initial_state": "h0", "initial_memory": "c0", "attention": "alphas", "selector": "betas"}
    names |= {"contexts": "contexts", "states": "h", "memories": "c", "logits": "logits"}
    for ours, theirs in names.items():
        parity.compare(f"{prefix}/{theirs}", made[ours], FORWARD)
    halved = 0.5 if parity.config["dropout_mode"] != "off" and parity.config["n_layers_init"] > 1 else 1.0
    parity.compare(f"{prefix}/init_input", halved * initial_input, FORWARD)
    row_losses = losses.caption_negative_log_likelihood(made["logits"], words, mask)
    every_row = losses.caption_negative_log_likelihood(made["logits"], words, tf.ones_like(mask))
    likelihood = tf.reduce_mean(tf.reduce_sum(row_losses, axis=1))
    parity.compare(f"{prefix}/nll", every_row, LIKELIHOOD)
    parity.compare(f"{prefix}/masked_nll", row_losses, LIKELIHOOD)
    parity.compare(f"{prefix}/ce_loss", likelihood, LIKELIHOOD)
    for form in FORMS:
        penalty = losses.doubly_stochastic_penalty(made["attention"], form)
        total = likelihood + parity.config["alpha_c"] * penalty
        parity.compare(f"{prefix}/ds_penalty_{form}", penalty, LIKELIHOOD)
        parity.compare(f"{prefix}/total_loss_{form}", total, LIKELIHOOD)
    return row_losses


@every_file("show_attend_tell", files="config-[a-d]*")
def test_soft_attention_and_dropout(parity, recipe):
    batch, words, mask = batch_of(parity)
    given = {"init_1": "initial_1", "h": "state", "out": "output_0"}
    kept = {given[name]: array for name, array in parity.below("in/dropout_").items()}
    dropout = {name: tf.constant(2.0 * array) for name, array in kept.items()} or None
    annotations, variables = batch["annotations"], recipe.decoder.trainable_variables

    np.testing.assert_array_equal(recipe.rows(batch)[0], tf.where(mask > 0, words, 0))
    np.testing.assert_array_equal(recipe.rows(batch)[1], mask)

    for form in FORMS:

        def objective(form=form):
            made = recipe.decoder(annotations, words, mask, dropout)
            rows = losses.caption_negative_log_likelihood(made["logits"], words, mask)
            # Rows behind the end count here in the published program; batches of one length have none.
            penalty = losses.doubly_stochastic_penalty(made["attention"], form)
            return tf.reduce_mean(tf.reduce_sum(rows, axis=1)) + parity.config["alpha_c"] * penalty, made

        (_, made), (of_weights,) = gradients(objective, variables)
        compare_gradients(parity, f"grad_{form}", recipe, variables, of_weights)
    compare_forward(parity, "out", recipe, made, recipe.decoder.initial_input(annotations, dropout), words, mask)

    if mask.numpy().all():  # then the recipe's loss is that of the file
        uniform = {f"dropout_{name}": array.reshape(len(array), -1) for name, array in kept.items()}
        noise = {"dropout": recipe._dropout(lambda name, width: uniform[name], words.shape[1]), "draws": None}
        for form in FORMS:
            recipe.hyperparameters = dataclasses.replace(recipe.hyperparameters, doubly_stochastic_form=form)
            logs, (of_weights,) = gradients(lambda: (recipe.losses(batch, noise)["loss"],), variables)
            parity.compare(f"out/total_loss_{form}", logs[0], LIKELIHOOD)
            compare_gradients(parity, f"grad_{form}", recipe, variables, of_weights)
    parity.finish()


@every_file("show_attend_tell", files="config-e*")
def test_hard_attention(parity, recipe):
    """With the file's places: uniform numbers are put in the middle of what the cumulative attention gives them."""
    batch, words, mask = batch_of(parity)
    decoder, variables = recipe.decoder, recipe.decoder.trainable_variables
    places = parity["in/alpha_sample"]
    for case in ("sampled", "expected", "mixed"):
        attention, coin = parity[f"out_{case}/alphas"], parity[f"out_{case}/coin"]
        parity.compare_equal(f"out_{case}/coin", coin)
        reached = (attention.cumsum(-1) - attention / 2)[places == 1].reshape(coin.shape)
        given = {"place": reached.astype(np.float32), "coin": 1 - coin.astype(np.float32)}
        draws = recipe._draws(lambda name, width, given=given: tf.constant(given[name]), words.shape[1])
        noise = {"draws": draws, "dropout": None}
        decoder.baseline.assign(parity.config["baseline"])

        logs, (of_weights,) = gradients(lambda noise=noise: (recipe.losses(batch, noise)["loss"],), variables)
        compare_gradients(parity, f"grad_{case}", recipe, variables, of_weights)
        parity.compare(f"out_{case}/ce_loss", logs[0], LIKELIHOOD)  # what attention learns from adds nothing
        parity.compare(f"out_{case}/new_baseline", decoder.baseline, FORWARD)

        made = decoder(batch["annotations"], words, mask, draws=draws)
        rows = compare_forward(
            parity, f"out_{case}", recipe, made, decoder.initial_input(batch["annotations"]), words, mask
        )
        parity.compare(f"out_{case}/weights_used", made["weights"], FORWARD)
        parity.compare(f"out_{case}/reward", tf.reduce_mean(rows, axis=1), FORWARD)
        weights = (recipe.hyperparameters.reward_weight, recipe.hyperparameters.entropy_weight)
        _, ((of_attention,),) = gradients(
            lambda made=made, rows=rows, weights=weights: losses.sampled_attention_loss(
                made["attention"], made["weights"], rows, mask, parity.config["baseline"], *weights
            ),
            [made["attention"]],
        )
        parity.compare(f"out_{case}/grad_wrt_alphas", of_attention, FORWARD)
    parity.finish()


@every_file("show_attend_tell", files="config-f*")
def test_beam_search(parity, recipe):
    """Every list, inside a graph, all pictures at once."""
    annotations, longest = parity.tensor("in/features"), parity.config["maxlen"]
    search, caption = tf.function(show_attend_tell.beam_search), tf.function(recipe.caption)
    for size in sorted({int(name[4]) for name in parity.below("out/")}):
        found = search(recipe.decoder, annotations, size, longest)
        for image in range(len(annotations)):
            name = f"out/beam{size}_image{image}_all"
            count = len(parity[f"{name}_costs"])
            parity.compare_equal(f"{name}_ids", found.ids[image, :count])
            parity.compare(f"{name}_costs", found.costs[image, :count], FORWARD)
            assert np.isinf(found.costs[image, count:]).all()
        for normalised in (False, True):
            chosen = caption({"annotations": annotations}, size, normalised, longest)
            lengths = chosen.lengths.numpy()
            ids = np.pad(chosen.ids, [(0, 0), (0, longest - chosen.ids.shape[1])])
            padded = np.where(np.arange(longest) < lengths[:, None], ids, -1)
            parity.compare_equal(f"out/beam{size}_ids{'_length_normalised' * normalised}", padded)
            costs = chosen.costs / lengths if normalised else chosen.costs
            parity.compare(f"out/beam{size}_cost{'_per_token' * normalised}", costs, FORWARD)
            assert not ids[padded == -1].any()
            rows = tf.constant(ids[:, : chosen.ids.shape[1]])
            np.testing.assert_allclose(chosen.attention, recipe.decoder(annotations, rows)["attention"], atol=1e-6)
    parity.finish()


@every_file("show_attend_tell", files="config-g*")
def test_optimizers(parity):
    names = {"rmsprop": "rmsprop", "adadelta": "adadelta", "adam_published": "adam_code", "adam": "adam_textbook"}
    for ours, theirs in names.items():
        optimizer = show_attend_tell.make_optimizer(ours, None)
        variable = keras.Variable(parity["in/p0"], dtype="float64")
        optimizer.build([variable])
        rows = []
        for gradient in parity["in/gradients"]:
            optimizer.apply([tf.constant(gradient)], [variable])
            rows.append(variable.numpy())
        parity.compare(f"out/{theirs}", np.array(rows), UPDATES)
    parity.finish()
