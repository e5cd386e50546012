"""StackGAN: the pytorch form against the published program, the tensorflow form against an independent derivation.

Tolerances are relative to the largest element of an array.
"""

import re
from types import SimpleNamespace

import numpy as np
import tensorflow as tf

from t2i_tf import losses, published
from t2i_tf.papers import Context, stackgan
from t2i_tf.training.trainers import GanTrainer

from .arrays import channels_first, every_file, gradients

FORWARD = 1e-4
STAGE2_IMAGES = 1e-3
GRADIENT = 1e-3
STAGE2_GENERATOR_GRADIENT = 2e-2
STATISTICS = 1e-4
STAGE2_MOMENTS = 5e-4
FROM_LOGITS = 1e-5
STEP_GRADIENT = {1: 1e-3, 2: 3e-2}
SECOND_STEP = {1: 1e-3, 2: 1e-2}
MODES = {"eval": False, "train": True}


# The tensorflow form: convolutions and norms are numbered in the order in which the program makes them.


def pairs(blocks):
    """Convolution and norm of each layer."""
    for block in blocks:
        if hasattr(block, "conv1"):
            yield from ((block.conv1, block.norm1), (block.conv2, block.norm2), (block.conv3, block.norm3))
        elif hasattr(block, "second"):
            yield from pairs([block.first, block.second])
        else:
            yield block.conv, block.norm


def numbered(blocks, prefix="", first=0):
    layers = {}
    for number, (conv, norm) in enumerate(pairs(blocks)):
        layers |= {f"{prefix}conv{first + number}": conv, f"{prefix}bn{number}": norm}
    return layers


def tensorflow_stage1_layers(generator):
    layers = {"fc0": generator.conditioning.dense, "fc1": generator.project, "fc_bn": generator.project_norm}
    layers |= numbered(generator.blocks)
    return {**layers, f"conv{len([*pairs(generator.blocks)])}": generator.to_image}


def tensorflow_stage2_layers(generator):
    blocks = [*generator.downs, generator.joint, *generator.residuals, *generator.ups]
    layers = {"fc0": generator.conditioning.dense, "conv0": generator.first, **numbered(blocks, first=1)}
    return {**layers, f"conv{1 + len([*pairs(blocks)])}": generator.to_image}


def tensorflow_discriminator_layers(discriminator):
    return {
        "image.conv0": discriminator.first,
        **numbered([*discriminator.convolutions, discriminator.residual], "image.", first=1),
        "text.fc0": discriminator.text_projection,
        "head.conv0": discriminator.joint.conv,
        "head.bn0": discriminator.joint.norm,
        "head.conv1": discriminator.conditional_head,
    }


def hyperparameters(config, **more):
    """Of a file; those of a generator or discriminator say nothing of the other."""
    return stackgan.Hyperparameters(
        **{
            "form": {"A": "tensorflow", "B": "pytorch"}[config["variant"]],
            "stage": config.get("stage", 1),
            "generator_width": config.get("gf_dim", 4),
            "discriminator_width": config.get("df_dim", 4),
            "residual_blocks": config.get("residual_blocks", 4),
            "condition_dim": config["condition_dim"],
            "noise_dim": config["z_dim"],
            **more,
        }
    )


def size(network):
    return sum(np.prod(variable.shape) for variable in network.trainable_variables)


def image_objective(image):
    square = tf.reduce_mean(image**2, axis=(1, 2))
    rows, channels = (tf.range(1, n + 1, dtype=tf.float32) for n in square.shape)
    return tf.reduce_sum(square * rows[:, None] * channels)


def compare_condition(parity, prefix, made):
    parity.compare(f"{prefix}/mu", made["mu"], FORWARD)
    parity.compare(f"{prefix}/c_code", made["condition"], FORWARD)
    if parity.config["variant"] == "A":
        parity.compare(f"{prefix}/log_sigma", made["log_variance"] / 2, FORWARD)
    else:
        parity.compare(f"{prefix}/logvar", made["log_variance"], FORWARD)


def compare_moments(parity, moved, tolerance):
    """`batch_stats`: the moments of the batch, of which the running statistics took a tenth."""
    before = parity.below("param/")
    for name in parity.below("batch_stats/"):
        norm, _, kind = name.rpartition(".")
        running = f"{norm}.running_{kind}"
        parity.compare(f"batch_stats/{name}", (moved[running] - 0.9 * before[running]) / 0.1, tolerance)


# Generators.


@every_file("stackgan_a_stage1_generator", in_repository=False)
def test_tensorflow_stage1_generator(parity):
    config = parity.config
    generator = stackgan.Stage1Generator("tensorflow", config["gf_dim"], config["condition_dim"])
    inputs = [parity.tensor(f"in/{name}") for name in ("z", "text_embedding", "eps")]
    generator(*inputs)
    layers = tensorflow_stage1_layers(generator)
    assert size(generator) == config["num_params"]
    for mode, training in MODES.items():
        published.assign(layers, parity.below("param/"), "param")

        def objective(training=training):
            made = generator(*inputs, training=training)
            return image_objective(made["image"]), made

        variables = generator.trainable_variables
        (value, made), ((of_z, of_text, _), of_weights) = gradients(objective, inputs, variables)
        compare_condition(parity, f"out/{mode}", made)
        for theirs, ours in {"h4": "residual_4", "h8": "residual_8", "h16": "up_16", "h32": "up_32"}.items():
            parity.compare_image(f"out/{mode}/{theirs}", made["features"][ours], FORWARD)
        parity.compare_image(f"out/{mode}/img64", made["image"], FORWARD)
        parity.compare(f"out/{mode}/objective", value, FORWARD)
        parity.compare(f"grad/{mode}/z", of_z, GRADIENT)
        parity.compare(f"grad/{mode}/text_embedding", of_text, GRADIENT)
        ours = published.to_published(layers, variables, of_weights)
        parity.compare_gradients(f"grad/{mode}", ours, GRADIENT, {"fc1.bias": "fc1.weight"} if training else None)
    moved = published.extract(layers)
    parity.compare_statistics("after_train_forward", moved, STATISTICS)
    compare_moments(parity, moved, STATISTICS)
    parity.finish()


def checkpoint_name(scope, name):
    """conv3.weight -> hr_g_net/custom_conv2d_3/conv2d/w, and so on: see spec, section 7 A."""
    layer, leaf = name.split(".")
    kind, number = re.fullmatch(r"(fc_bn|[a-z]+)(\d*)", layer).groups()
    method, inner, leaves = {
        "fc": ("custom_fully_connected", "Linear", {"weight": "Matrix", "bias": "bias"}),
        "conv": ("custom_conv2d", "conv2d", {"weight": "w"}),
        "bn": ("conv_batch_norm", "batch_norm", NORM_LEAVES),
        "fc_bn": ("fc_batch_norm", "batch_norm", NORM_LEAVES),
    }[kind]
    suffix = f"_{number}" if int(number or 0) else ""
    return f"{scope}/{method}{suffix}/{inner}/{leaves[leaf]}"


NORM_LEAVES = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "variance"}


def as_in_a_checkpoint(scope, arrays):
    """Published layouts of convolutions and dense layers are those of TensorFlow there."""
    axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
    return {checkpoint_name(scope, name): array.transpose(axes[array.ndim]) for name, array in arrays.items()}


@every_file("stackgan_a_stage2_generator")
def test_a_checkpoint_of_the_tensorflow_form_draws_as_derived(parity, tmp_path):
    config = parity.config
    text = parity.tensor("in/text_embedding")
    stage1 = stackgan.Stage1Generator("tensorflow", config["gf_dim"], config["condition_dim"])
    stage1(tf.zeros([1, 3]), text[:1], tf.zeros([1, config["condition_dim"]]))
    arrays = as_in_a_checkpoint("hr_g_net", parity.below("param/"))
    arrays |= as_in_a_checkpoint("g_net", published.extract(tensorflow_stage1_layers(stage1)))
    path = str(tmp_path / "birds.ckpt")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {name: tf.compat.v1.get_variable(name, initializer=array) for name, array in arrays.items()}
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(variables).save(session, path)
    imported = published.load("stackgan2_tensorflow", path, {"discriminator_width": 1})
    made = imported.recipe.generator(parity.image("in/stage1_img64_u8"), text, parity.tensor("in/eps"))
    compare_stage2(parity, "eval", made)
    assert not parity.failures and parity.compared


@every_file("stackgan_a_stage2_generator")
def test_tensorflow_stage2_generator(parity):
    config = parity.config
    generator = stackgan.Stage2Generator(
        "tensorflow", config["gf_dim"], config["condition_dim"], config["residual_blocks"]
    )
    inputs = [parity.image("in/stage1_img64_u8"), parity.tensor("in/text_embedding"), parity.tensor("in/eps")]
    generator(*inputs)
    layers = tensorflow_stage2_layers(generator)
    assert size(generator) == config["num_params"]
    for mode, training in MODES.items():
        published.assign(layers, parity.below("param/"), "param")

        def objective(training=training):
            made = generator(*inputs, training=training)
            return image_objective(made["image"]), made

        variables = generator.trainable_variables
        (value, made), ((of_small, of_text, _), of_weights) = gradients(objective, inputs, variables)
        compare_stage2(parity, mode, made)
        parity.compare(f"out/{mode}/objective", value, FORWARD)
        parity.compare_image_gradient(f"grad/{mode}/stage1_img64", of_small, STAGE2_GENERATOR_GRADIENT)
        parity.compare(f"grad/{mode}/text_embedding", of_text, STAGE2_GENERATOR_GRADIENT)
        ours = published.to_published(layers, variables, of_weights)
        parity.compare_gradients(f"grad/{mode}", ours, STAGE2_GENERATOR_GRADIENT)
    moved = published.extract(layers)
    parity.compare_statistics("after_train_forward", moved, STATISTICS)
    compare_moments(parity, moved, STAGE2_MOMENTS)
    parity.finish()


def compare_stage2(parity, mode, made):
    compare_condition(parity, f"out/{mode}", made)
    names = {"encoder": "encoder", "residual": "residual"}
    names |= {f"up{number}": f"up_{16 * 2**number}" for number in range(1, 5)}
    for theirs, ours in names.items():
        parity.compare_image(f"out/{mode}/{theirs}", made["features"][ours], STAGE2_IMAGES)
    parity.compare_image(f"out/{mode}/img256", made["image"], STAGE2_IMAGES)


def imported(parity, scheme, tmp_path):
    """The recipe that t2i-import-weights builds from the file's parameters, and its layers."""
    np.savez(tmp_path / "netG.npz", **parity.below("param/"))
    recipe = published.load(scheme, tmp_path / "netG.npz").recipe
    chosen = published.SCHEMES[scheme]
    return recipe, chosen.layers(*(recipe.networks[name] for name in chosen.networks))


@every_file("stackgan_b_stage1_generator", in_repository=False)
def test_pytorch_stage1_generator(parity, tmp_path):
    recipe, layers = imported(parity, "stackgan1_generator", tmp_path)
    generator = recipe.generator
    inputs = [parity.tensor(f"in/{name}") for name in ("z", "text_embedding", "eps")]
    (sampled,) = recipe.sample(inputs[1], {"z": inputs[0], "augmentation": inputs[2]})
    parity.compare_image("out/eval/img64", sampled, FORWARD)
    for mode, training in MODES.items():

        def objective(training=training):
            made = generator(*inputs, training=training)
            return image_objective(made["image"]), made

        variables = generator.trainable_variables
        (value, made), ((of_z, of_text, _), of_weights) = gradients(objective, inputs, variables)
        compare_condition(parity, f"out/{mode}", made)
        stem = channels_first(made["features"]["project"])
        parity.compare(f"out/{mode}/fc_relu", stem.reshape(len(stem), -1), FORWARD)
        for number, block in enumerate(generator.blocks, 1):
            parity.compare_image(f"out/{mode}/up{number}", made["features"][block.name], FORWARD)
        parity.compare_image(f"out/{mode}/img64", made["image"], FORWARD)
        parity.compare(f"out/{mode}/objective", value, FORWARD)
        parity.compare(f"grad/{mode}/z", of_z, GRADIENT)
        parity.compare(f"grad/{mode}/text_embedding", of_text, GRADIENT)
        parity.compare_gradients(f"grad/{mode}", published.to_published(layers, variables, of_weights), GRADIENT)
    parity.compare_statistics("after_train_forward", published.extract(layers), STATISTICS)
    parity.finish()


@every_file("stackgan_b_stage2_generator", in_repository=False)
def test_pytorch_stage2_generator(parity, tmp_path):
    """The recipe's way through both stages: the picture of Stage-I is in training mode, and detached."""
    recipe, layers = imported(parity, "stackgan2_generator", tmp_path)
    generator, stage1 = recipe.generator, recipe.stage1_generator
    z, text = parity.tensor("in/z"), parity.tensor("in/text_embedding")
    noise = {"z": z, "augmentation": parity.tensor("in/eps"), "stage1_augmentation": parity.tensor("in/eps_stage1")}
    small, large = recipe.sample(text, noise)
    parity.compare_image("out/eval/stage1_img64", small, FORWARD)
    parity.compare_image("out/eval/img256", large, STAGE2_IMAGES)
    for mode, training in MODES.items():
        small = stage1(z, text, noise["stage1_augmentation"], training=training)["image"]
        parity.compare_image(f"out/{mode}/stage1_img64", small, FORWARD)
        compare_stage2(parity, mode, generator(small, text, noise["augmentation"], training=training))
        published.assign(layers, parity.below("param/"), "param")  # the parts above moved the running statistics

        def objective(training=training):
            return image_objective(recipe._pictures(text, noise, training=training)["images"][-1])

        variables = generator.trainable_variables
        value, ((of_z, of_text), of_weights) = gradients(objective, [z, text], variables)
        assert of_z is None
        parity.compare(f"out/{mode}/objective", value, FORWARD)
        parity.compare(f"grad/{mode}/z", tf.zeros_like(z), GRADIENT)
        parity.compare(f"grad/{mode}/text_embedding", of_text, STAGE2_GENERATOR_GRADIENT)
        ours = published.to_published(layers, variables, of_weights)
        parity.compare_gradients(f"grad/{mode}", ours, STAGE2_GENERATOR_GRADIENT)
    parity.compare_statistics("after_train_forward", published.extract(layers), STATISTICS)
    parity.finish()


# Discriminators.


@every_file("stackgan_a_stage*_discriminator")
def test_tensorflow_discriminator(parity):
    config = parity.config
    discriminator = stackgan.Discriminator("tensorflow", config["stage"], config["df_dim"], config["condition_dim"])
    image, text = parity.image("in/x_u8"), parity.tensor("in/text_embedding")
    discriminator(image, text)
    layers = tensorflow_discriminator_layers(discriminator)
    assert size(discriminator) == config["num_params"]
    rows = tf.range(1, len(image) + 1, dtype=tf.float32)
    for mode, training in MODES.items():
        published.assign(layers, parity.below("param/"), "param")

        def objective(training=training):
            features = discriminator.image_features(image, training=training)
            logits = discriminator.judge(features, text, training=training)["conditional"]
            return tf.reduce_sum(rows * logits), features, logits

        variables = discriminator.trainable_variables
        (_, features, logits), ((of_image, of_text), of_weights) = gradients(objective, [image, text], variables)
        parity.compare(f"out/{mode}/features", channels_first(features), FORWARD)
        parity.compare(f"out/{mode}/text_code", discriminator.code(text), FORWARD)
        parity.compare(f"out/{mode}/logit", logits, FORWARD)
        parity.compare_image_gradient(f"grad/{mode}/x", of_image, GRADIENT)
        parity.compare(f"grad/{mode}/text_embedding", of_text, GRADIENT)
        parity.compare_gradients(f"grad/{mode}", published.to_published(layers, variables, of_weights), GRADIENT)
    moved = published.extract(layers)
    parity.compare_statistics("after_train_forward", moved, STATISTICS)
    compare_moments(parity, moved, STATISTICS)
    parity.finish()


@every_file("stackgan_b_stage*_discriminator", in_repository=False)
def test_pytorch_discriminator(parity):
    config = parity.config
    discriminator = stackgan.Discriminator("pytorch", config["stage"], config["df_dim"], config["condition_dim"])
    image, condition = parity.image("in/x_u8"), parity.tensor("in/c_code")
    discriminator(image, condition)
    layers = published.stackgan.discriminator_layers(discriminator)
    rows = tf.range(1, len(image) + 1, dtype=tf.float32)
    weights = {"conditional": 1.0, "unconditional": 0.5}
    for mode, training in MODES.items():
        published.assign(layers, parity.below("param/"), "param")

        def objective(training=training):
            features = discriminator.image_features(image, training=training)
            logits = discriminator.judge(features, condition, training=training)
            wrong = discriminator.match(features[:-1], condition[1:], training=training, gathered=True)
            total = tf.add_n([weights[head] * tf.reduce_sum(rows * logit) for head, logit in logits.items()])
            return total, features, {**logits, "wrong": wrong}

        variables = discriminator.trainable_variables
        (_, features, logits), ((of_image, of_condition), of_weights) = gradients(
            objective, [image, condition], variables
        )
        parity.compare(f"out/{mode}/features", channels_first(features), FORWARD)
        names = {"conditional": "cond", "unconditional": "uncond", "wrong": "cond_wrong"}
        for head, logit in logits.items():
            parity.compare(f"out/{mode}/{names[head]}_logit", logit, FORWARD)
            parity.compare(f"out/{mode}/{names[head]}_prob", tf.sigmoid(logit), FORWARD)
        parity.compare_image_gradient(f"grad/{mode}/x", of_image, GRADIENT)
        parity.compare(f"grad/{mode}/c_code", of_condition, GRADIENT)
        parity.compare_gradients(f"grad/{mode}", published.to_published(layers, variables, of_weights), GRADIENT)
    parity.compare_statistics("after_train_forward", published.extract(layers), STATISTICS)
    parity.finish()


# Losses.


def answering(recipe, real, wrong, fake, generated=None):
    """The recipe with a discriminator that answers with given logits, by head, whatever it is shown."""

    class Answers:
        def image_features(self, image, training):
            return tf.zeros([len(real["conditional"]), 1])

        def judge(self, features, condition, training):
            return real

        def match(self, features, condition, training, gathered):
            return wrong

        def __call__(self, image, condition, training):
            return {"wrong": {"conditional": wrong}, "fake": fake, "generated": generated}[image]

    recipe.discriminator = recipe.discriminators["discriminator"] = Answers()
    return recipe


SHOWN = {"images": ["real"], "wrong_images": ["wrong"]}


def zero_where_none(sources, values):
    return [tf.zeros_like(s) if value is None else value for s, value in zip(sources, values, strict=True)]


@every_file("stackgan_b_losses")
def test_pytorch_losses(parity):
    config = parity.config
    names = ("real_cond", "wrong_cond", "fake_cond", "real_uncond", "fake_uncond")
    logits = {name: parity.tensor(f"in/logit_{name}") for name in names}
    of_g = {name: parity.tensor(f"in/{name}") for name in ("logit_g_cond", "logit_g_uncond", "mu", "logvar")}
    for stage in (1, 2):

        def heads(of, prefix, stage=stage):
            found = {"conditional": of[f"{prefix}_cond"]}
            return found if stage == 1 else {**found, "unconditional": of[f"{prefix}_uncond"]}

        recipe = stackgan.Recipe(
            hyperparameters(config, stage=stage, kl_weight=config["kl_weight"]), Context(config["text_dim"])
        )
        answering(recipe, heads(logits, "real"), logits["wrong_cond"], heads(logits, "fake"), heads(of_g, "logit_g"))
        generated = {"fake": "fake", "images": ["generated"], "mu": of_g["mu"], "log_variance": of_g["logvar"]}

        def of_discriminator(recipe=recipe, generated=generated):
            logs = recipe.discriminator_losses("discriminator", SHOWN, None, generated)
            return logs["loss"], logs

        (value, logs), (of_logits,) = gradients(of_discriminator, [*logits.values()])
        parity.compare(f"out/stage{stage}/errD", value, FROM_LOGITS)
        for theirs, ours in {"real": "real", "wrong": "mismatched", "fake": "fake"}.items():
            parity.compare(f"out/stage{stage}/errD_{theirs}", logs[f"loss_{ours}"], FROM_LOGITS)
        for name, gradient in zip(logits, zero_where_none(logits.values(), of_logits), strict=True):
            parity.compare(f"grad/stage{stage}/errD/logit_{name}", gradient, FROM_LOGITS)

        def of_generator(recipe=recipe, generated=generated):
            logs = recipe.generator_losses(SHOWN, None, generated)
            return logs["loss"], logs

        (value, logs), (of_named,) = gradients(of_generator, [*of_g.values()])
        parity.compare(f"out/stage{stage}/errG_total", value, FROM_LOGITS)
        parity.compare(f"out/stage{stage}/errG", logs["adversarial"], FROM_LOGITS)
        parity.compare(f"out/stage{stage}/kl", logs["kl"], FROM_LOGITS)
        for name, gradient in zip(of_g, zero_where_none(of_g.values(), of_named), strict=True):
            parity.compare(f"grad/stage{stage}/errG/{name}", gradient, FROM_LOGITS)
    signed = [parity.tensor("in/mu_signed"), parity.tensor("in/logvar_signed")]
    value, ((of_mu, of_log_variance),) = gradients(lambda: losses.kl_divergence(*signed), signed)
    parity.compare("out/kl_signed", value, FROM_LOGITS)
    parity.compare("grad/kl_signed/mu", of_mu, FROM_LOGITS)
    parity.compare("grad/kl_signed/logvar", of_log_variance, FROM_LOGITS)
    parity.finish()


@every_file("stackgan_a_losses", in_repository=False)
def test_tensorflow_losses(parity):
    for variant, wrong_pairs in {"wrong": True, "no_wrong": False}.items():
        compare_tensorflow_logits(parity, variant, wrong_pairs)
    compare_tensorflow_networks(parity)
    parity.finish()


def compare_tensorflow_logits(parity, variant, wrong_pairs):
    config = parity.config
    named = {f"logit_{name}": parity.tensor(f"in/logit_{name}") for name in ("real", "wrong", "fake", "g")}
    heads = {name: {"conditional": logit} for name, logit in named.items()}
    named |= {name: parity.tensor(f"in/{name}") for name in ("mu", "log_sigma")}
    recipe = answering(
        stackgan.Recipe(
            hyperparameters(config, wrong_pairs=wrong_pairs, kl_weight=config["kl_weight"]), Context(config["text_dim"])
        ),
        heads["logit_real"],
        named["logit_wrong"],
        heads["logit_fake"],
        heads["logit_g"],
    )

    def objective():
        generated = {"fake": "fake", "images": ["generated"], "mu": named["mu"]}
        generated["log_variance"] = 2 * named["log_sigma"]
        of_d = recipe.discriminator_losses("discriminator", SHOWN, None, generated)
        of_g = recipe.generator_losses(SHOWN, None, generated)
        return of_d["loss"] + of_g["loss"], of_d["loss"], of_g

    (_, of_d, of_g), (of_named,) = gradients(objective, [*named.values()])
    parity.compare(f"out/{variant}/L_D", of_d, FROM_LOGITS)
    parity.compare(f"out/{variant}/L_G_total", of_g["loss"], FROM_LOGITS)
    parity.compare(f"out/{variant}/L_G_adversarial", of_g["adversarial"], FROM_LOGITS)
    parity.compare(f"out/{variant}/kl", of_g["kl"], FROM_LOGITS)
    for name, gradient in zip(named, zero_where_none(named.values(), of_named), strict=True):
        parity.compare(f"grad/{variant}/{name}", gradient, FROM_LOGITS)


def compare_tensorflow_networks(parity):
    """The recipe as it is trained, one step of each side without an update."""
    config = parity.config
    recipe = stackgan.Recipe(hyperparameters(config, kl_weight=config["kl_weight"]), Context(config["text_dim"]))
    generator, discriminator = recipe.generator, recipe.discriminator
    of_g, of_d = tensorflow_stage1_layers(generator), tensorflow_discriminator_layers(discriminator)
    published.assign(of_g, parity.below("param/G/"), "param/G")
    published.assign(of_d, parity.below("param/D/"), "param/D")
    batch = {
        "images": (parity.image("in/real_u8"),),
        "wrong_images": (parity.image("in/wrong_u8"),),
        "embedding": parity.tensor("in/text_embedding")[:, None],
    }
    text = recipe.condition(batch)
    noise = {
        side: {"z": parity.tensor(f"in/z_{short}"), "augmentation": parity.tensor(f"in/eps_{short}")}
        for side, short in {"generator": "g", "discriminator": "d"}.items()
    }
    fake = generator(noise["discriminator"]["z"], text, noise["discriminator"]["augmentation"], training=True)["image"]
    parity.compare_statistics("after_d_step_forward/G", published.extract(of_g), STATISTICS)

    generated = recipe.generate(text, noise)
    parity.compare_image("out/networks/fake_d", generated["fake"], FORWARD)
    parity.compare_image("out/networks/fake_g", generated["images"][-1], FORWARD)
    variables = discriminator.trainable_variables
    value, (of_weights,) = gradients(
        lambda: recipe.discriminator_losses("discriminator", batch, text, generated)["loss"], variables
    )
    parity.compare("out/networks/L_D", value, FORWARD)
    parity.compare_statistics("after_d_step_forward/D", published.extract(of_d), STATISTICS)
    parity.compare_gradients("grad/networks/L_D/D", published.to_published(of_d, variables, of_weights), GRADIENT)
    shown = {"real": batch["images"][0], "wrong": batch["wrong_images"][0], "fake": fake}
    for name, image in {**shown, "g": generated["images"][-1]}.items():
        logits = discriminator(image, text, training=True)["conditional"]
        parity.compare(f"out/networks/logit_{name}", logits, FORWARD)

    def objective():
        logs = recipe.generator_losses(batch, text, recipe.generate(text, noise))
        return logs["loss"], logs

    variables, z = generator.trainable_variables, noise["generator"]["z"]
    (value, logs), ((of_z,), of_weights) = gradients(objective, [z], variables)
    parity.compare("out/networks/L_G_total", value, FORWARD)
    parity.compare("out/networks/L_G_adversarial", logs["adversarial"], FORWARD)
    parity.compare("out/networks/kl", logs["kl"], FORWARD)
    parity.compare("grad/networks/L_G/z_g", of_z, GRADIENT)
    ours = published.to_published(of_g, variables, of_weights)
    parity.compare_gradients("grad/networks/L_G/G", ours, GRADIENT, {"fc1.bias": "fc1.weight"})


# Whole steps of the trainer.


@every_file("stackgan_b_step*")
def test_pytorch_step(parity):
    config = parity.config
    stage = config["stage"]
    assert config["betas"][1] == 0.999 and config["adam_eps"] == 1e-8
    settings = hyperparameters(
        config, kl_weight=config["kl_weight"], learning_rate=config["lr"], beta_1=config["betas"][0]
    )
    recipe = stackgan.Recipe(settings, Context(config["text_dim"]))
    trainer = GanTrainer(recipe, seed=0, steps_per_epoch=1)
    if stage == 1:
        of_g = published.stackgan.stage1_generator_layers(recipe.generator)
    else:
        of_g = published.stackgan.stage2_generator_layers(recipe.generator, recipe.stage1_generator)
    layers = {"G": of_g, "D": published.stackgan.discriminator_layers(recipe.discriminator)}
    for name, of_network in layers.items():
        published.assign(of_network, parity.below(f"param/{name}/"), f"param/{name}")
    batch = {
        "images": (tf.constant(parity["in/real_u8"].transpose(0, 2, 3, 1)),),
        "embedding": parity.tensor("in/text_embedding")[:, None],
        "class": tf.zeros([config["batch"]], tf.int32),
    }
    seen = observed(recipe, trainer)

    recipe.noise = lambda draw: given_noise(parity, "")
    compare_step_losses(parity, "out", trainer.train_step(batch), FORWARD)
    parity.compare("out/mu", seen.generated["mu"], FORWARD)
    parity.compare("out/logvar", seen.generated["log_variance"], FORWARD)
    parity.compare_image("out/stage1_img64" if stage == 2 else "out/fake_img64", seen.generated["images"][0], FORWARD)
    if stage == 2:
        parity.compare_image("out/fake_img256", seen.generated["images"][1], STAGE2_IMAGES)
    for name, network in {"G": "generator", "D": "discriminator"}.items():
        ours = published.to_published(layers[name], recipe.networks[network].trainable_variables, seen.applied[network])
        parity.compare_gradients(f"grad/{name}", ours, STEP_GRADIENT[stage])
    compare_after_adam(parity, layers, config["lr"])

    recipe.noise = lambda draw: given_noise(parity, "_second")
    compare_step_losses(parity, "out/second", trainer.train_step(batch), SECOND_STEP[stage])
    parity.finish()


def observed(recipe, trainer):
    """What the trainer hands on: the generator's pictures, and the gradients that it applies."""
    seen = SimpleNamespace(applied={}, generated=None)
    generate, apply = recipe.generate, trainer._apply

    def watched_generate(text, noise):
        seen.generated = generate(text, noise)
        return seen.generated

    def watched_apply(name, of_weights, variables):
        seen.applied[name] = of_weights
        return apply(name, of_weights, variables)

    recipe.generate, trainer._apply = watched_generate, watched_apply
    return seen


def given_noise(parity, suffix):
    noise = {"z": parity.tensor(f"in/z{suffix}"), "augmentation": parity.tensor(f"in/eps{suffix}")}
    if parity.config["stage"] == 2:
        noise["stage1_augmentation"] = parity.tensor(f"in/eps_stage1{suffix}")
    return {"generator": noise}


def compare_step_losses(parity, prefix, logs, tolerance):
    parity.compare(f"{prefix}/errD", logs["discriminator/loss"], tolerance)
    for theirs, ours in {"real": "real", "wrong": "mismatched", "fake": "fake"}.items():
        parity.compare(f"{prefix}/errD_{theirs}", logs[f"discriminator/loss_{ours}"], tolerance)
    parity.compare(f"{prefix}/errG_total", logs["generator/loss"], tolerance)
    parity.compare(f"{prefix}/errG", logs["generator/adversarial"], tolerance)
    parity.compare(f"{prefix}/kl", logs["generator/kl"], tolerance)


def compare_after_adam(parity, layers, rate):
    """Weights by how far they moved, in learning rates: float32 turns the sign of a gradient near zero."""
    deviations = []
    for network, of_network in layers.items():
        before, after = parity.below(f"param/{network}/"), parity.below(f"after/{network}/")
        now = published.extract(of_network)
        statistics = {name: array for name, array in now.items() if ".running_" in name}
        for name, array in now.items():
            if name in statistics:
                parity.compare(f"after/{network}/{name}", array, STATISTICS)
            elif name in after:
                parity.compared.add(f"after/{network}/{name}")
                assert array.shape == after[name].shape
                deviations.append(np.abs(array.astype(np.float64) - after[name]).ravel() / rate)
            else:
                assert name.startswith("STAGE1_G.")
                np.testing.assert_array_equal(array, before[name])
    deviations = np.concatenate(deviations)
    print(f"moved within 0.02 rates: {np.mean(deviations <= 0.02):.4%}, the furthest {deviations.max():.2f}")
    assert np.mean(deviations <= 0.02) >= 0.998 and deviations.max() <= 2.1
