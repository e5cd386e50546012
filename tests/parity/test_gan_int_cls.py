"""GAN-INT-CLS against an independent derivation of the published programs.

Tolerances are relative to the largest element of an array.
"""

import numpy as np
import tensorflow as tf

from t2i_tf import losses, published
from t2i_tf.papers import Context, gan_int_cls

from .arrays import channels_first, every_file, gradients

FORWARD = 1e-4
GRADIENT = 1e-3
STATISTICS = 1e-4
FROM_LOGITS = 1e-5
MODES = {"eval": False, "train": True}


def dead_biases(config, training):
    """A dense bias in front of a batch norm has no influence on the batch."""
    return {"1.2.1.bias": "1.2.1.weight"} if config["program"] == "int" and training else {}


@every_file("gan_int_cls_generator")
def test_generator(parity):
    config = parity.config
    generator = gan_int_cls.Generator(config["ngf"], config["text_projection"])
    z, text = parity.tensor("in/z"), parity.tensor("in/text_embedding")
    generator(z, text)
    layers = published.gan_int_cls.generator_layers(generator)
    published.assign(layers, parity.below("param/"), "param")
    assert sum(np.prod(variable.shape) for variable in generator.trainable_variables) == config["num_params"]
    for mode, training in MODES.items():
        compare_generator(parity, generator, layers, mode, training)
    parity.compare_statistics("after_train_forward", published.extract(layers), STATISTICS)
    parity.finish()


def compare_generator(parity, generator, layers, mode, training):
    z, text = parity.tensor("in/z"), parity.tensor("in/text_embedding")

    def objective():
        features = generator.features(z, text, training=training)
        square = tf.reduce_mean(features["image"] ** 2, axis=(1, 2))
        rows, channels = (tf.range(1, n + 1, dtype=tf.float32) for n in square.shape)
        return tf.reduce_sum(square * rows[:, None] * channels), features

    variables = generator.trainable_variables
    (value, features), ((of_z, of_text), of_weights) = gradients(objective, [z, text], variables)
    parity.compare(f"out/{mode}/objective", value, FORWARD)
    parity.compare(f"out/{mode}/text_code", features["text_code"], FORWARD)
    parity.compare_image(f"out/{mode}/img64", features["image"], FORWARD)
    for name in ("h4", "h8"):
        parity.compare(f"out/{mode}/{name}", channels_first(features[name]), FORWARD)
    parity.compare(f"grad/{mode}/z", of_z, GRADIENT)
    parity.compare(f"grad/{mode}/text_embedding", of_text, GRADIENT)
    parity.compare_gradients(f"grad/{mode}", published.to_published(layers, variables, of_weights), GRADIENT)


@every_file("gan_int_cls_discriminator")
def test_discriminator(parity):
    """With the residual block and, as it was before October 2016, without."""
    config = parity.config
    image, text = parity.image("in/x_u8"), parity.tensor("in/text_embedding")
    for suffix, residual in (("", True), ("_no_residual", False)):
        discriminator = gan_int_cls.Discriminator(config["ndf"], config["text_projection"], config["program"], residual)
        discriminator(image, text)
        layers = published.gan_int_cls.discriminator_layers(discriminator)
        used = published.extract(layers)
        parameters = {name: array for name, array in parity.below("param/").items() if residual or name in used}
        for mode, training in MODES.items():
            compare_discriminator(parity, discriminator, layers, parameters, f"{suffix}/{mode}", training)
        parity.compare_statistics(f"after_train_forward{suffix}", published.extract(layers), STATISTICS)
    parity.finish()


def compare_discriminator(parity, discriminator, layers, parameters, mode, training):
    image, text = parity.image("in/x_u8"), parity.tensor("in/text_embedding")
    published.assign(layers, parameters, "param")
    features = discriminator.image_features(image, training=training)
    parity.compare(f"out{mode}/features", channels_first(features), FORWARD)
    parity.compare(f"out{mode}/text_code", discriminator.text_code(text, training=training), FORWARD)

    def objective():
        logits = discriminator(image, text, training=training)
        return tf.reduce_sum(logits * tf.range(1, len(logits) + 1, dtype=tf.float32)), logits

    published.assign(layers, parameters, "param")  # the parts above moved the running statistics
    variables = discriminator.trainable_variables
    (_, logits), ((of_image, of_text), of_weights) = gradients(objective, [image, text], variables)
    parity.compare(f"out{mode}/logit", logits, FORWARD)
    parity.compare(f"out{mode}/prob", tf.sigmoid(logits), FORWARD)
    parity.compare_image_gradient(f"grad{mode}/x", of_image, GRADIENT)
    parity.compare(f"grad{mode}/text_embedding", of_text, GRADIENT)
    parity.compare_gradients(
        f"grad{mode}",
        published.to_published(layers, variables, of_weights),
        GRADIENT,
        dead_biases(parity.config, training),
    )


@every_file("gan_int_cls_losses")
def test_losses(parity):
    for variant, weights in parity.config["variants"].items():
        if f"out/from_logits/{variant}/L_D" in parity:
            compare_losses_of_logits(parity, variant, weights)
        compare_recipe(parity, variant, weights)
    compare_without_interpolation(parity)
    parity.finish()


def compare_losses_of_logits(parity, variant, weights):
    names = ("logit_real", "logit_wrong", "logit_fake", "logit_g")
    real, wrong, fake, g = logits = [parity.tensor(f"in/{name}") for name in names]

    def objective():
        of_d = losses.matching_aware_discriminator_loss(real, fake, wrong, weights["cls_weight"])
        of_g = losses.interpolation_generator_loss(g[: len(real)], g[len(real) :], weights["interp_weight"])
        return of_d + of_g, of_d, of_g

    (_, of_d, of_g), (of_logits,) = gradients(objective, logits)
    parity.compare(f"out/from_logits/{variant}/L_D", of_d, FROM_LOGITS)
    parity.compare(f"out/from_logits/{variant}/L_G", of_g, FROM_LOGITS)
    for name, logit, gradient in zip(names, logits, of_logits, strict=True):
        gradient = tf.zeros_like(logit) if gradient is None else gradient
        parity.compare(f"grad/from_logits/{variant}/{name}", gradient, FROM_LOGITS)


class Networks:
    """The recipe of one variant, with the file's weights, batch and noise."""

    def __init__(self, parity, cls_weight, interp_weight, interp_type):
        config = self.config = parity.config
        hyperparameters = gan_int_cls.Hyperparameters(
            program=config["program"],
            cls_weight=cls_weight,
            interpolation_weight=interp_weight,
            interpolation_type=interp_type,
            captions_averaged=config["num_captions"],
            generator_width=config["ngf"],
            discriminator_width=config["ndf"],
            noise_dim=config["z_dim"],
            text_projection=config["text_projection"],
        )
        self.recipe = gan_int_cls.Recipe(hyperparameters, Context(text_dim=config["text_dim"]))
        self.generator, self.discriminator = self.recipe.generator, self.recipe.discriminator
        self.generator_layers = published.gan_int_cls.generator_layers(self.generator)
        self.discriminator_layers = published.gan_int_cls.discriminator_layers(self.discriminator)
        published.assign(self.generator_layers, parity.below("param/G/"), "param/G")
        published.assign(self.discriminator_layers, parity.below("param/D/"), "param/D")

        self.real, self.wrong = parity.image("in/real_u8"), parity.image("in/wrong_u8")
        self.batch = {
            "images": (self.real,),
            "wrong_images": (self.wrong,),
            "embedding": parity.tensor("in/caption_embeddings"),
        }
        self.text = self.recipe.condition(self.batch)
        z = parity.tensor("in/z_g")
        rows = len(self.real)
        self.noise = {"z": z[:rows], "z_interpolated": z[rows:], "z_discriminator": parity.tensor("in/z_d")}
        if interp_type == 2:
            self.noise["alpha"] = parity.tensor("in/alpha")

    def generator_gradients(self, values):
        return published.to_published(self.generator_layers, self.generator.trainable_variables, values)

    def discriminator_gradients(self, values):
        return published.to_published(self.discriminator_layers, self.discriminator.trainable_variables, values)

    def logits(self, image, text):
        return self.discriminator(image, text, training=True)


def compare_recipe(parity, variant, weights):
    """The recipe as it is trained, one step of each side without an update."""
    out, grad = f"out/networks/{variant}", f"grad/networks/{variant}"
    if f"{out}/L_D" in parity:
        compare_discriminator_step(parity, Networks(parity, **weights), out, grad, with_statistics=variant == "int_cls")
    networks = Networks(parity, **weights)
    recipe, text, noise = networks.recipe, networks.text, networks.noise

    def objective():
        generated = recipe.generate(text, noise)
        return recipe.generator_losses(networks.batch, text, generated)["loss"], generated

    (value, generated), (of_noise, of_weights) = gradients(
        objective, [noise["z"], noise["z_interpolated"]], networks.generator.trainable_variables
    )
    parity.compare(f"{out}/L_G", value, FORWARD)
    parity.compare(f"{out}/logit_g", networks.logits(generated["images"], generated["text"]), FORWARD)
    parity.compare(f"{grad}/L_G/z_g", tf.concat(of_noise, axis=0), GRADIENT)
    parity.compare_gradients(f"{grad}/L_G/G", networks.generator_gradients(of_weights), GRADIENT)

    parity.compare("out/text_embedding", text, FROM_LOGITS)
    parity.compare("out/interp_type1", gan_int_cls.interpolate(text), FROM_LOGITS)
    parity.compare("out/interp_type2", gan_int_cls.interpolate(text, parity.tensor("in/alpha")), FROM_LOGITS)


def compare_discriminator_step(parity, networks, out, grad, with_statistics):
    recipe, text, batch = networks.recipe, networks.text, networks.batch
    fake = networks.generator(networks.noise["z_discriminator"], text, training=True)
    if with_statistics:
        moved = published.extract(networks.generator_layers)
        parity.compare_statistics("after_d_step_forward/G", moved, STATISTICS)
    generated = recipe.generate(text, networks.noise)
    parity.compare_image("out/networks/fake_d", generated["fake"], FORWARD)

    images = {"real": networks.real, "wrong": networks.wrong}
    value, (of_images, of_weights) = gradients(
        lambda: recipe.discriminator_losses("discriminator", batch, text, generated)["loss"],
        list(images.values()),
        networks.discriminator.trainable_variables,
    )
    parity.compare(f"{out}/L_D", value, FORWARD)
    if with_statistics:
        moved = published.extract(networks.discriminator_layers)
        parity.compare_statistics("after_d_step_forward/D", moved, STATISTICS)
    for name, gradient in zip(images, of_images, strict=True):
        assert (gradient is not None) == (f"{grad}/L_D/{name}_norm" in parity)
        if gradient is not None:
            parity.compare_image_gradient(f"{grad}/L_D/{name}", gradient, GRADIENT)
            parity.compare(f"{out}/logit_{name}", networks.logits(images[name], text), FORWARD)
    parity.compare(f"{out}/logit_fake", networks.logits(fake, text), FORWARD)
    parity.compare_gradients(
        f"{grad}/L_D/D",
        networks.discriminator_gradients(of_weights),
        GRADIENT,
        dead_biases(networks.config, training=True),
    )


def compare_without_interpolation(parity):
    """Neither interpolants nor their noise: the plain mean over the first rows."""
    rows = parity.tensor("in/logit_g")[: len(parity["in/logit_real"])]
    value, ((gradient,),) = gradients(lambda: losses.real_loss(rows), [rows])
    parity.compare("out/from_logits/no_interpolation/L_G", value, FROM_LOGITS)
    parity.compare("grad/from_logits/no_interpolation/logit_g", gradient, FROM_LOGITS)

    networks = Networks(parity, cls_weight=0.5, interp_weight=0.0, interp_type=1)
    z, text = networks.noise["z"], networks.text

    def objective():
        logits = networks.logits(networks.generator(z, text, training=True), text)
        return losses.real_loss(logits), logits

    (value, logits), ((of_z,), of_weights) = gradients(objective, [z], networks.generator.trainable_variables)
    parity.compare("out/networks/no_interpolation/L_G", value, FORWARD)
    parity.compare("out/networks/no_interpolation/logit_g", logits, FORWARD)
    parity.compare("grad/networks/no_interpolation/L_G/z_g", of_z, GRADIENT)
    parity.compare_gradients("grad/networks/no_interpolation/L_G/G", networks.generator_gradients(of_weights), GRADIENT)
