"""AttnGAN against the published PyTorch program, with its attention mask and with the right one.

Tolerances are relative to the largest element of an array; tiny widths make the last scales ill-conditioned.
"""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import losses, published
from t2i_tf.networks import attention
from t2i_tf.papers import Context, attngan
from t2i_tf.training.trainers import GanTrainer

from .arrays import channels_first, every_file, folder, gradients

FORWARD = 1e-4
IMAGES = {64: 1e-4, 128: 5e-4, 256: 2e-3}
LAST_FEATURES = 2e-3
GRADIENT = 1e-4
STATISTICS = 1e-5
FROM_LOGITS = 1e-5
STEP_GRADIENT = 1e-2
AFTER_ADAM = 5e-3  # the first step of Adam is nearly a sign
MASKS = {"official": True, "fixed_mask": False}
MODES = {"eval": False, "train": True}
HEADS = {"conditional": "cond", "unconditional": "uncond"}


def lengths_of(parity):
    """The published mask is True at padding."""
    return tf.constant(np.sum(~parity["in/mask"], axis=1), tf.int32)


def word_vectors(parity):
    """(B, D, T) -> [B, T, D]."""
    return tf.constant(parity["in/words_embs"].transpose(0, 2, 1))


def from_channels_first(array):
    return tf.constant(array.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("jit_compile", [False, True], ids=["plain", "compiled"])
@every_file("attngan_attention")
def test_attention(parity, jit_compile):
    features, words = from_channels_first(parity["in/h_code"]), word_vectors(parity)
    upstream = from_channels_first(parity["in/cotangent_context"])
    for version, published_mask in MASKS.items():
        layer = attention.WordAttention(published_mask, jit_compile)
        layer(features, words, lengths_of(parity))
        layers = {"conv_context": published.blocks.pointwise(layer.projection)}
        published.assign(layers, parity.below("param/"), "param")

        def objective(layer=layer):
            context, weights = layer(features, words, lengths_of(parity))
            return tf.reduce_sum(context * upstream), context, weights

        kernel = layer.projection.kernel
        (_, context, weights), (of_features, of_words, of_kernel) = gradients(objective, [features], [words], [kernel])
        parity.compare(f"out_{version}/context", channels_first(context), FORWARD)
        parity.compare(f"out_{version}/attention", channels_first(weights), FORWARD)
        parity.compare(f"grad_{version}/h_code", channels_first(of_features[0]), GRADIENT)
        parity.compare(f"grad_{version}/words_embs", np.transpose(of_words[0], (0, 2, 1)), GRADIENT)
        (weight,) = published.to_published(layers, [kernel], of_kernel).values()
        parity.compare(f"grad_{version}/conv_context.weight", weight, GRADIENT)
    parity.finish()


def given_condition(parity):
    return {"sentence": parity.tensor("in/sent_emb"), "words": word_vectors(parity), "lengths": lengths_of(parity)}


def given_noise(parity):
    return {"z": parity.tensor("in/z"), "augmentation": parity.tensor("in/eps")}


def hyperparameters(config, **more):
    """With the small image encoder: where the loss of the published one is compared, it is given."""
    sizes = {
        "num_scales": config["branch_num"],
        "generator_width": config["gf_dim"],
        "discriminator_width": config["df_dim"],
        "noise_dim": config["z_dim"],
        "condition_dim": config["condition_dim"],
        "residual_blocks": config["residual_blocks"],
        "embedding_dim": config["embedding_dim"],
        "words": config["words_num"],
        "image_encoder": "conv",
        "damsm_weight": config["lambda"],
        **{name: config[name] for name in ("gamma1", "gamma2", "gamma3")},
    }
    return attngan.Hyperparameters(**{**sizes, **more})


def compare_attention(parity, prefix, number, weights):
    """Each K-th place of the weights (B,H,W,T), and their sum over places."""
    parity.compare(f"{prefix}/att{number}_sum", np.sum(weights, axis=(1, 2), dtype=np.float64), FORWARD)
    (sampled,) = parity.below(f"{prefix}/att{number}_s").keys() - {"um"}
    parity.compare(
        f"{prefix}/att{number}_s{sampled}", channels_first(weights[:, :: int(sampled), :: int(sampled)]), FORWARD
    )


@every_file("attngan_generator*", in_repository=False)
def test_generator(parity, tmp_path, quick_initial_values):
    """Sizes are read from the weights, as `t2i-import-weights` does it."""
    np.savez(tmp_path / "netG.npz", **parity.below("param/"))
    imported = published.load("attngan_generator", tmp_path / "netG.npz", {"image_encoder": "conv"})
    form = "dcgan" if parity.config["variant"] == "attnDCGAN" else "attngan"
    wanted = hyperparameters(parity.config, form=form, discriminator_width=64, words=18)
    assert imported.hyperparameters == wanted
    theirs = imported.recipe.generator
    layers = published.attngan.generator_layers(theirs)
    for version, published_mask in {**MASKS, "no_mask": False}.items():
        for stage in theirs.stages:
            stage.attention.published_mask = published_mask
        condition = given_condition(parity)
        if version == "no_mask":
            condition["lengths"] = tf.fill([len(condition["words"])], condition["words"].shape[1])
        published.assign(layers, parity.below("param/"), "param")  # running statistics too
        for mode, training in MODES.items():
            prefix = f"out_{version}/{mode}"
            if not parity.below(f"{prefix}/"):
                continue
            made = theirs(**condition, **given_noise(parity), training=training)
            for image in made["images"]:
                parity.compare_image(f"{prefix}/img{image.shape[1]}", image, IMAGES[image.shape[1]])
            for number, features in enumerate(made["features"], 1):
                parity.compare_image(f"{prefix}/h{number}", features, LAST_FEATURES if number > 1 else FORWARD)
            for number, weights in enumerate(made["attention"], 1):
                compare_attention(parity, prefix, number, weights)
            for name, ours in {"mu": "mu", "logvar": "log_variance", "c_code": "condition"}.items():
                parity.compare(f"{prefix}/{name}", made[ours], FORWARD)
        if version == "official":
            parity.compare_statistics("after_train_forward", published.extract(layers), STATISTICS)
    parity.finish()


@every_file("attngan_disc*")
def test_discriminator(parity):
    config = parity.config
    discriminator = attngan.Discriminator(config["df_dim"], config["image_size"])
    image, sentence = parity.image("in/x_u8"), parity.tensor("in/sent_emb")
    discriminator(image, sentence)
    layers = published.attngan.discriminator_layers(discriminator)
    published.assign(layers, parity.below("param/"), "param")
    weights = {"conditional": 1.0, "unconditional": 0.5}
    for mode, training in MODES.items():
        rows = tf.range(1, len(image) + 1, dtype=tf.float32)

        def objective(training=training, rows=rows):
            features = discriminator.trunk(image, training=training)
            logits = discriminator.judge(features, sentence, training=training)
            wrong = discriminator.match(features[:-1], sentence[1:], training=training)
            total = tf.add_n([weights[head] * tf.reduce_sum(rows * logit) for head, logit in logits.items()])
            return total, features, logits, wrong

        (_, features, logits, wrong), (of_sources,) = gradients(objective, [image, sentence])
        parity.compare(f"out/{mode}/features", channels_first(features), FORWARD)
        for name, logit in [*((HEADS[head], logit) for head, logit in logits.items()), ("cond_wrong", wrong)]:
            parity.compare(f"out/{mode}/{name}_logit", logit, FORWARD)
            parity.compare(f"out/{mode}/{name}_prob", tf.sigmoid(logit), FORWARD)
        parity.compare_image_gradient(f"grad/{mode}/x", of_sources[0], GRADIENT)
        parity.compare(f"grad/{mode}/sent_emb", of_sources[1], GRADIENT)
    parity.compare_statistics("after_train_forward", published.extract(layers), STATISTICS)
    parity.finish()


class GivenDiscriminator:
    """Answers with the file's logits: real and fake pictures pass together."""

    def __init__(self, fake, real=None, wrong=None):
        self.fake, self.real, self.wrong = fake, real, wrong

    def trunk(self, images, training, groups):
        return images

    def judge(self, features, sentence, training, groups):
        return {head: tf.concat([self.real[head], self.fake[head]], axis=0) for head in self.fake}

    def match(self, features, sentence, training, gathered):
        return self.wrong

    def __call__(self, image, sentence, training):
        return self.fake


@every_file("attngan_losses")
def test_losses(parity):
    """The recipe's own losses; discriminators and image encoder answer with the file's arrays."""
    for variant, form in {"jcu": "attngan", "cond_only": "dcgan"}.items():
        recipe = attngan.Recipe(hyperparameters(parity.config, base_size=8), Context(vocabulary_size=3))
        heads = HEADS if form == "attngan" else {"conditional": "cond"}
        compare_discriminator_loss(parity, recipe, variant, heads)
        compare_generator_loss(parity, recipe, variant, heads)
    mu, log_variance = parity.tensor("in/mu"), parity.tensor("in/logvar")
    value, (of_both,) = gradients(lambda: losses.kl_divergence(mu, log_variance), [mu, log_variance])
    parity.compare("out/kl_loss", value, FROM_LOGITS)
    for name, gradient in zip(("mu", "logvar"), of_both, strict=True):
        parity.compare(f"grad/kl/{name}", gradient, GRADIENT)
    parity.finish()


def given_logits(parity, heads, pattern):
    return {head: parity.tensor(f"in/{pattern.format(short)}") for head, short in heads.items()}


def compare_discriminator_loss(parity, recipe, variant, heads):
    real, fake = (given_logits(parity, heads, f"logit_{{}}_{kind}") for kind in ("real", "fake"))
    wrong, name = parity.tensor("in/logit_cond_wrong"), next(iter(recipe.discriminators))
    recipe.discriminators = {name: GivenDiscriminator(fake, real, wrong)}
    pictures = tf.zeros([len(wrong) + 1, 1])
    batch, condition, generated = {"images": [pictures]}, {"sentence": pictures}, {"images": [pictures]}
    named = {f"logit_{short}_real": real[head] for head, short in heads.items()}
    named |= {f"logit_{short}_fake": fake[head] for head, short in heads.items()} | {"logit_cond_wrong": wrong}
    value, (found,) = gradients(
        lambda: recipe.discriminator_losses(name, batch, condition, generated)["loss"], list(named.values())
    )
    parity.compare(f"out/{variant}/errD", value, FROM_LOGITS)
    compare_named_gradients(parity, f"grad/{variant}/errD/", dict(zip(named, found, strict=True)))


def compare_generator_loss(parity, recipe, variant, heads):
    """errG_total of the file is without the KL divergence."""
    groups = [given_logits(parity, heads, f"logit_g_{{}}_{scale}") for scale in range(parity.config["branch_num"])]
    recipe.sizes = list(range(len(groups)))
    recipe.discriminators = {scale: GivenDiscriminator(group) for scale, group in enumerate(groups)}
    regions, code = from_channels_first(parity["in/region_features"]), parity.tensor("in/cnn_code")
    recipe.image_encoder = lambda images: (regions, code)
    condition = {
        "sentence": parity.tensor("in/sent_emb"),
        "words": word_vectors(parity),
        "lengths": parity.tensor("in/cap_lens"),
    }
    generated = {"images": [None] * len(groups), "mu": tf.zeros([1, 1]), "log_variance": tf.zeros([1, 1])}
    named = {
        f"logit_g_{heads[head]}_{scale}": logit for scale, group in enumerate(groups) for head, logit in group.items()
    }
    sources = [regions, code, condition["words"], condition["sentence"]]
    value, (of_named, of_sources) = gradients(
        lambda: recipe.generator_losses({"class": parity.tensor("in/class_ids")}, condition, generated)["loss"],
        list(named.values()),
        sources,
    )
    parity.compare(f"out/{variant}/errG_total", value, FROM_LOGITS)
    of_regions, of_code, of_words, of_sentence = of_sources
    found = dict(zip(named, of_named, strict=True)) | {"cnn_code": of_code, "sent_emb": of_sentence}
    found |= {"region_features": channels_first(of_regions), "words_embs": np.transpose(of_words, (0, 2, 1))}
    compare_named_gradients(parity, f"grad/{variant}/errG/", found)


def compare_named_gradients(parity, prefix, found):
    """What is not found is of a head that there is not: zeros in the file."""
    for name, theirs in parity.below(prefix).items():
        parity.compare(prefix + name, found.pop(name, np.zeros_like(theirs)), GRADIENT)
    assert not found


class StubImageEncoder(keras.Model):
    """The image encoder of the file: linear maps of colours, of every 15th pixel and of the mean."""

    def __init__(self, parity):
        super().__init__()
        self.maps = [tf.constant(parity[f"param/image_encoder_stub/{name}"].T) for name in ("region", "code")]

    def call(self, images, training=False):
        region, code = self.maps
        return images[:, 0:241:15, 0:241:15] @ region, tf.reduce_mean(images, axis=[1, 2]) @ code


class Step:
    """The trainer and recipe of a file, with its weights, batch, texts and noise."""

    def __init__(self, parity, published_mask):
        config = parity.config
        assert config["betas"][1] == 0.999 and config["adam_eps"] == 1e-8
        self.recipe = attngan.Recipe(
            hyperparameters(
                config,
                published_mask=published_mask,
                generator_learning_rate=config["lr"],
                discriminator_learning_rate=config["lr"],
                beta_1=config["betas"][0],
                ema_decay=config["ema"],
            ),
            Context(vocabulary_size=3),
        )
        self.recipe.image_encoder = StubImageEncoder(parity)
        self.trainer = GanTrainer(self.recipe, seed=0, steps_per_epoch=1)
        self.noise, self.condition = given_noise(parity), given_condition(parity)
        self.recipe.noise, self.recipe.condition = lambda draw: self.noise, lambda batch: self.condition
        self.generator = self.recipe.generator
        self.generator_layers = published.attngan.generator_layers(self.generator)
        published.assign(self.generator_layers, parity.below("param/G/"), "param/G")
        self.discriminators = list(self.recipe.discriminators.items())
        self.discriminator_layers = [
            published.attngan.discriminator_layers(network) for _, network in self.discriminators
        ]
        for number, layers in enumerate(self.discriminator_layers):
            published.assign(layers, parity.below(f"param/D{number}/"), f"param/D{number}")
        self.trainer.average.restart()
        largest = tf.constant(parity["in/real256_u8"].transpose(0, 2, 3, 1), tf.float32)
        factors = [largest.shape[1] // size for size in self.recipe.sizes]
        images = tuple(tf.nn.avg_pool2d(largest, factor, factor, "VALID") for factor in factors)
        self.batch = {"images": images, "class": parity.tensor("in/class_ids")}


@every_file("attngan_step")
def test_step(parity):
    for version, published_mask in MASKS.items():
        step = Step(parity, published_mask)
        compare_frozen(parity, step, version)
        for number in range(2):
            logs = step.trainer.train_step(step.batch)
            prefix = f"out_{version}/adam/step{number}"
            for scale, (name, _) in enumerate(step.discriminators):
                parity.compare(f"{prefix}/errD{scale}", logs[f"{name}/loss"], AFTER_ADAM if number else FORWARD)
            parity.compare(f"{prefix}/errG_total", logs["generator/loss"], AFTER_ADAM)
        weights = published.extract(step.generator_layers)
        average = published.to_published(
            step.generator_layers, step.generator.trainable_variables, step.trainer.average.shadows
        )
        for name in parity.below(f"after_{version}/adam/G/"):
            parity.compare(f"after_{version}/adam/G/{name}", weights[name], AFTER_ADAM)
            parity.compare(f"after_{version}/adam/G_ema/{name}", average[name], AFTER_ADAM)
    parity.finish()


def compare_frozen(parity, step, version):
    """All losses and gradients at the file's weights; those of the discriminators are stored for one mask."""
    recipe, batch, condition = step.recipe, step.trainer._prepared(step.batch), step.condition
    stopped = tf.nest.map_structure(tf.stop_gradient, recipe.generate(condition, step.noise))
    for scale, (name, network) in enumerate(step.discriminators):
        variables = network.trainable_variables
        value, (of_weights,) = gradients(
            lambda name=name: recipe.discriminator_losses(name, batch, condition, stopped)["loss"], variables
        )
        parity.compare(f"out_{version}/frozen/errD{scale}", value, FORWARD)
        if parity.below(f"grad_{version}/frozen/D{scale}/"):
            ours = published.to_published(step.discriminator_layers[scale], variables, of_weights)
            parity.compare_gradients(f"grad_{version}/frozen/D{scale}", ours, STEP_GRADIENT)

    def objective():
        logs = recipe.generator_losses(batch, condition, recipe.generate(condition, step.noise))
        return logs["loss"], logs

    variables = step.generator.trainable_variables
    (value, logs), (of_weights,) = gradients(objective, variables)
    parity.compare(f"out_{version}/frozen/errG_total", value, FORWARD)
    parity.compare(f"out_{version}/frozen/kl", logs["kl"], FORWARD)
    ours = published.to_published(step.generator_layers, variables, of_weights)
    parity.compare_gradients(f"grad_{version}/frozen/G", ours, STEP_GRADIENT)


PUBLISHED_SIZES = {
    "bird_attn2": {},
    "bird_attn1": {"num_scales": 2},
    "coco_attn2": {"generator_width": 48, "discriminator_width": 96, "residual_blocks": 3},
    "bird_attnDCGAN2": {"form": "dcgan", "residual_blocks": 0},
}


@pytest.mark.parametrize("name, sizes", PUBLISHED_SIZES.items(), ids=PUBLISHED_SIZES)
def test_parameters_at_published_width(name, sizes, quick_initial_values):
    """Counts, names and shapes of every network."""
    counts = json.loads((folder() / "param_counts_stackgan2_attngan.json").read_text())
    recipe = attngan.Recipe(attngan.Hyperparameters(**sizes, image_encoder="conv"), Context(vocabulary_size=3))
    networks = {"G": (recipe.generator, published.attngan.generator_layers)}
    for size, network in zip(recipe.sizes, recipe.discriminators.values(), strict=True):
        key = f"D{size}" if recipe.hyperparameters.form == "attngan" else f"D{size}_cond_only"
        networks[key] = (network, published.attngan.discriminator_layers)
    assert {f"attngan/{name}/{key}" for key in networks} == {key for key in counts if f"/{name}/" in key}
    for key, (network, layers) in networks.items():
        theirs = counts[f"attngan/{name}/{key}"]
        assert network.count_params() == theirs["parameters"] + theirs["bn_statistics"], key
        assert sum(keras.ops.size(v) for v in network.trainable_variables) == theirs["parameters"], key
        shapes = {key: list(array.shape) for key, array in published.extract(layers(network)).items()}
        assert shapes == {key: list(shape) for key, shape in theirs["shapes"].items()}, key
