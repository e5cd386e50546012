"""StackGAN++ against the published PyTorch program, with text and without.

Tolerances are relative to the largest element of an array; tiny widths make the last scales ill-conditioned.
"""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import losses, published
from t2i_tf.papers import Context, stackgan_v2
from t2i_tf.training.trainers import GanTrainer

from .arrays import channels_first, every_file, folder, gradients

FORWARD = 1e-4
IMAGES = (1e-4, 5e-4, 2e-3)  # of the scales from the smallest
LAST_FEATURES = 2e-3
GRADIENT = 1e-4
STATISTICS = 1e-5
FROM_LOGITS = 1e-5
STEP_GRADIENT = 1e-2
AFTER_ADAM = 5e-3  # the first step of Adam is nearly a sign
MODES = {"eval": False, "train": True}
HEADS = {"conditional": "cond", "unconditional": "uncond"}


def hyperparameters(config, **more):
    sizes = {
        "conditional": config["conditional"],
        "num_scales": config["branch_num"],
        "generator_width": config["gf_dim"],
        "discriminator_width": config["df_dim"],
        "noise_dim": config["z_dim"],
        "condition_dim": config["condition_dim"],
        "residual_blocks": config["residual_blocks"],
    }
    return stackgan_v2.Hyperparameters(**{**sizes, **more})


def given_noise(parity):
    noise = {"z": parity.tensor("in/z")}
    return {**noise, "augmentation": parity.tensor("in/eps")} if parity.config["conditional"] else noise


@every_file("stackgan_v2_generator_*", in_repository=False)
def test_generator(parity, tmp_path, quick_initial_values):
    """Built from the weights alone, as `t2i-import-weights` does it."""
    config = parity.config
    conditional = config["conditional"]
    np.savez(tmp_path / "netG.npz", **parity.below("param/"))
    imported = published.load("stackgan_v2_generator", tmp_path / "netG.npz")
    wanted = hyperparameters(config, discriminator_width=64)
    assert imported.hyperparameters == (wanted if conditional else replace(wanted, condition_dim=128))
    generator = imported.recipe.generator
    inputs = {**given_noise(parity), "text": parity.tensor("in/text_embedding") if conditional else None}
    layers = published.stackgan_v2.generator_layers(generator)
    for mode, training in MODES.items():
        made = generator(**inputs, training=training)
        for scale, (image, features) in enumerate(zip(made["images"], made["features"], strict=True)):
            parity.compare_image(f"out/{mode}/img{image.shape[1]}", image, IMAGES[min(scale, 2)])
            parity.compare_image(f"out/{mode}/h{scale + 1}", features, LAST_FEATURES if scale else FORWARD)
        if conditional:
            for theirs, ours in {"mu": "mu", "logvar": "log_variance", "c_code": "condition"}.items():
                parity.compare(f"out/{mode}/{theirs}", made[ours], FORWARD)
    parity.compare_statistics("after_train_forward", published.extract(layers), STATISTICS)
    parity.finish()


@every_file("stackgan_v2_disc*")
def test_discriminator(parity):
    config = parity.config
    conditional = config["conditional"]
    discriminator = stackgan_v2.Discriminator(config["df_dim"], config["image_size"], conditional)
    image, condition = parity.image("in/x_u8"), parity.tensor("in/c_code") if conditional else None
    discriminator(image, condition)
    layers = published.stackgan_v2.discriminator_layers(discriminator)
    published.assign(layers, parity.below("param/"), "param")
    weights = {"conditional": 1.0, "unconditional": 0.5 if conditional else 1.0}
    for mode, training in MODES.items():
        rows = tf.range(1, len(image) + 1, dtype=tf.float32)

        def objective(training=training, rows=rows):
            features = discriminator.trunk(image, training=training)
            logits = discriminator.judge(features, condition, training=training)
            total = tf.add_n([weights[head] * tf.reduce_sum(rows * logit) for head, logit in logits.items()])
            return total, features, logits

        sources = [image, condition] if conditional else [image]
        (_, features, logits), (of_sources,) = gradients(objective, sources)
        parity.compare(f"out/{mode}/features", channels_first(features), FORWARD)
        for head, logit in logits.items():
            name = f"{HEADS[head]}_" if conditional else ""
            parity.compare(f"out/{mode}/{name}logit", logit, FORWARD)
            parity.compare(f"out/{mode}/{name}prob", tf.sigmoid(logit), FORWARD)
        parity.compare_image_gradient(f"grad/{mode}/x", of_sources[0], GRADIENT)
        if conditional:
            parity.compare(f"grad/{mode}/c_code", of_sources[1], GRADIENT)
    parity.compare_statistics("after_train_forward", published.extract(layers), STATISTICS)
    parity.finish()


@every_file("stackgan_v2_losses_*")
def test_losses(parity):
    """The recipe's own losses; the discriminators answer with the file's logits."""
    for variant, weights in parity.config["variants"].items():
        recipe = stackgan_v2.Recipe(
            hyperparameters(
                parity.config,
                base_size=parity["in/fake0"].shape[-1],
                kl_weight=weights["kl_weight"],
                unconditional_weight=weights["uncond_weight"],
                color_weight=weights["color_weight"],
            ),
            Context(text_dim=parity.config["text_dim"]),
        )
        compare_discriminator_loss(parity, recipe, variant)
        compare_generator_loss(parity, recipe, variant)
    compare_colors(parity)
    parity.finish()


def given_logits(parity, prefix):
    """{name in the file: tensor} and {head: tensor} of one group of logits."""
    if not parity.config["conditional"]:
        logit = parity.tensor(f"in/{prefix}")
        return {prefix: logit}, {"unconditional": logit}
    named = {f"{prefix}_{short}": parity.tensor(f"in/{prefix}_{short}") for short in HEADS.values()}
    return named, dict(zip(HEADS, named.values(), strict=True))


def compare_discriminator_loss(parity, recipe, variant):
    kinds = ("real", "wrong", "fake") if parity.config["conditional"] else ("real", "fake")
    given = {kind: given_logits(parity, f"logit_{kind}") for kind in kinds}
    name = next(iter(recipe.discriminators))
    heads = given["real"][1]
    recipe.discriminators[name] = lambda images, mu, training, groups: {
        head: tf.concat([of_kind[head] for _, of_kind in given.values()], axis=0) for head in heads
    }
    nothing = [tf.zeros([1, 1])]
    batch, generated = {"images": nothing, "wrong_images": nothing}, {"images": nothing, "mu": nothing[0]}
    named = {key: logit for kind in given.values() for key, logit in kind[0].items()}
    value, (of_logits,) = gradients(
        lambda: recipe.discriminator_losses(name, batch, None, generated)["loss"], list(named.values())
    )
    parity.compare(f"out/{variant}/errD", value, FROM_LOGITS)
    compare_named_gradients(parity, f"grad/{variant}/errD", named, of_logits)


def compare_generator_loss(parity, recipe, variant):
    scales = range(parity.config["branch_num"])
    groups = [given_logits(parity, f"logit_g{scale}") for scale in scales]
    names = list(recipe.discriminators)
    for name, (_, logits) in zip(names, groups, strict=True):
        recipe.discriminators[name] = lambda image, mu, training, logits=logits: logits
    images = [tf.constant(parity[f"in/fake{scale}"].transpose(0, 2, 3, 1)) for scale in scales]
    named = {key: logit for group in groups for key, logit in group[0].items()}
    generated = {"images": images}
    if parity.config["conditional"]:
        generated |= {"mu": parity.tensor("in/mu"), "log_variance": parity.tensor("in/logvar")}
        named |= {"mu": generated["mu"], "logvar": generated["log_variance"]}

    def objective():
        logs = recipe.generator_losses({}, None, generated)
        return logs["loss"], logs

    (value, logs), (of_named, of_images) = gradients(objective, list(named.values()), images)
    parity.compare(f"out/{variant}/errG_total", value, FROM_LOGITS)
    if parity.config["conditional"]:
        parity.compare(f"out/{variant}/kl_loss", logs["kl"], FROM_LOGITS)
        weighted = recipe.hyperparameters.kl_weight * logs["kl"]
        parity.compare(f"out/{variant}/kl_loss_times_coeff", weighted, FROM_LOGITS)
    compare_named_gradients(parity, f"grad/{variant}/errG", named, of_named)
    of_images = [np.zeros(image.shape) if g is None else g for image, g in zip(images, of_images, strict=True)]
    for scale, gradient in zip(scales, of_images, strict=True):
        parity.compare(f"grad/{variant}/errG/fake{scale}", channels_first(gradient), GRADIENT)
    for large in scales[1:]:
        size, pair = recipe.generator.sizes[large], f"{large}_{large - 1}"
        parity.compare(f"out/color_mean_mse_{pair}", logs[f"color_mean_{size}"], FROM_LOGITS)
        parity.compare(f"out/color_cov_mse_{pair}", logs[f"color_covariance_{size}"], FROM_LOGITS)


def compare_named_gradients(parity, prefix, named, values):
    """No gradient where the file has zeros."""
    for (name, source), gradient in zip(named.items(), values, strict=True):
        parity.compare(f"{prefix}/{name}", tf.zeros_like(source) if gradient is None else gradient, GRADIENT)


def compare_colors(parity):
    for scale in range(parity.config["branch_num"]):
        image = tf.constant(parity[f"in/fake{scale}"].transpose(0, 2, 3, 1))
        mean, covariance = losses.color_statistics(image)
        parity.compare(f"out/channel_mean{scale}", mean, FROM_LOGITS)
        parity.compare(f"out/channel_cov{scale}", covariance, FROM_LOGITS)


class Step:
    """The trainer and recipe of a file, with its weights, batch and noise."""

    def __init__(self, parity):
        config = parity.config
        assert config["betas"][1] == 0.999 and config["adam_eps"] == 1e-8
        self.recipe = stackgan_v2.Recipe(
            hyperparameters(
                config,
                kl_weight=config["kl_weight"],
                unconditional_weight=config["uncond_weight"],
                color_weight=config["color_weight"],
                generator_learning_rate=config["lr"],
                discriminator_learning_rate=config["lr"],
                beta_1=config["betas"][0],
                ema_decay=config["ema"],
            ),
            Context(text_dim=config["text_dim"]),
        )
        self.trainer = GanTrainer(self.recipe, seed=0, steps_per_epoch=1)
        self.noise = given_noise(parity)
        self.recipe.noise = lambda draw: self.noise
        self.generator = self.recipe.generator
        self.generator_layers = published.stackgan_v2.generator_layers(self.generator)
        published.assign(self.generator_layers, parity.below("param/G/"), "param/G")
        self.discriminators = list(self.recipe.discriminators.items())
        self.discriminator_layers = [
            published.stackgan_v2.discriminator_layers(network) for _, network in self.discriminators
        ]
        for number, layers in enumerate(self.discriminator_layers):
            published.assign(layers, parity.below(f"param/D{number}/"), f"param/D{number}")
        self.trainer.average.restart()

        self.batch = {"images": self.pyramid(parity["in/real256_u8"]), "class": tf.zeros([config["batch"]], tf.int32)}
        if config["conditional"]:
            self.batch["wrong_images"] = self.pyramid(parity["in/wrong256_u8"])
            self.batch["embedding"] = parity.tensor("in/text_embedding")[:, None]

    def pyramid(self, pictures):
        """uint8 NCHW of the largest size -> pictures of all sizes NHWC in [0, 255], the small ones means of places."""
        largest = tf.constant(pictures.transpose(0, 2, 3, 1), tf.float32)
        factors = [largest.shape[1] // size for size in self.generator.sizes]
        return tuple(tf.nn.avg_pool2d(largest, factor, factor, "VALID") for factor in factors)


@every_file("stackgan_v2_step_*")
def test_step(parity):
    step = Step(parity)
    compare_frozen(parity, step)
    for number in range(2):
        logs = step.trainer.train_step(step.batch)
        for scale, (name, _) in enumerate(step.discriminators):
            tolerance = AFTER_ADAM if number else FORWARD
            parity.compare(f"out/adam/step{number}/errD{scale}", logs[f"{name}/loss"], tolerance)
        parity.compare(f"out/adam/step{number}/errG_total", logs["generator/loss"], AFTER_ADAM)
    weights = published.extract(step.generator_layers)
    average = published.to_published(
        step.generator_layers, step.generator.trainable_variables, step.trainer.average.shadows
    )
    for name in parity.below("after/adam/G/"):
        parity.compare(f"after/adam/G/{name}", weights[name], AFTER_ADAM)
        parity.compare(f"after/adam/G_ema/{name}", average[name], AFTER_ADAM)
    parity.finish()


def compare_frozen(parity, step):
    """All losses and gradients at the file's weights."""
    recipe, batch = step.recipe, step.trainer._prepared(step.batch)
    text = recipe.condition(batch)
    stopped = tf.nest.map_structure(tf.stop_gradient, recipe.generate(text, step.noise))
    for scale, (name, network) in enumerate(step.discriminators):
        variables = network.trainable_variables
        value, (of_weights,) = gradients(
            lambda name=name: recipe.discriminator_losses(name, batch, text, stopped)["loss"], variables
        )
        parity.compare(f"out/frozen/errD{scale}", value, FORWARD)
        ours = published.to_published(step.discriminator_layers[scale], variables, of_weights)
        parity.compare_gradients(f"grad/frozen/D{scale}", ours, STEP_GRADIENT)

    def objective():
        logs = recipe.generator_losses(batch, text, recipe.generate(text, step.noise))
        return logs["loss"], logs

    variables = step.generator.trainable_variables
    (value, logs), (of_weights,) = gradients(objective, variables)
    parity.compare("out/frozen/errG_total", value, FORWARD)
    if parity.config["conditional"]:
        parity.compare("out/frozen/kl_times_coeff", recipe.hyperparameters.kl_weight * logs["kl"], FORWARD)
    ours = published.to_published(step.generator_layers, variables, of_weights)
    parity.compare_gradients("grad/frozen/G", ours, STEP_GRADIENT)


@pytest.mark.parametrize("kind", ["conditional_birds", "unconditional"])
def test_parameters_at_published_width(kind, quick_initial_values):
    """Counts, names and shapes of every network with the default sizes."""
    counts = json.loads((folder() / "param_counts_stackgan2_attngan.json").read_text())
    conditional = kind == "conditional_birds"
    recipe = stackgan_v2.Recipe(stackgan_v2.Hyperparameters(conditional=conditional), Context(text_dim=1024))
    networks = {"G": (recipe.generator, published.stackgan_v2.generator_layers)}
    for size, network in zip(recipe.generator.sizes, recipe.discriminators.values(), strict=True):
        networks[f"D{size}"] = (network, published.stackgan_v2.discriminator_layers)
    for name, (network, layers) in networks.items():
        theirs = counts[f"stackgan_v2/{kind}/{name}"]
        assert network.count_params() == theirs["parameters"] + theirs["bn_statistics"], name
        assert sum(keras.ops.size(v) for v in network.trainable_variables) == theirs["parameters"], name
        shapes = {key: list(array.shape) for key, array in published.extract(layers(network)).items()}
        assert shapes == {key: list(shape) for key, shape in theirs["shapes"].items()}, name
