"""What StackGAN does beside being equal to the published programs, which is seen in tests/parity."""

import dataclasses
import functools
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import losses, papers, published
from t2i_tf.config import RunConfig, TrainConfig
from t2i_tf.errors import UserError
from t2i_tf.papers import stackgan
from t2i_tf.training.trainers import GanTrainer

RANDOM = np.random.RandomState(0)
BATCH, TEXT = 3, 6
TINY = {
    "generator_width": 4,
    "discriminator_width": 2,
    "residual_blocks": 1,
    "noise_dim": 5,
    "condition_dim": 3,
    "captions_averaged": 2,
    "batch_size": BATCH,
}
FORMS, STAGES = ("tensorflow", "pytorch"), (1, 2)


def recipe(**given):
    hyperparameters = stackgan.Hyperparameters(**{**TINY, **given})
    return stackgan.Recipe(hyperparameters, papers.Context(text_dim=TEXT))


def batch_of(made):
    def images():
        (size,) = made.request.image_sizes
        return (RANDOM.randint(0, 256, (BATCH, size, size, 3)).astype("u1"),)

    batch = {"images": images(), "class": np.zeros(BATCH, "i4"), "embedding": RANDOM.randn(BATCH, 2, TEXT).astype("f4")}
    if made.request.wrong_images:
        batch["wrong_images"] = images()
    return tf.nest.map_structure(tf.constant, batch)


class Draw:
    """Noise of a step, by name."""

    def __init__(self, rows=BATCH):
        self.rows, self.drawn = rows, {}

    def _draw(self, kind, name, width):
        assert name not in self.drawn, "two noises of one name are one"
        self.drawn[name] = kind
        return tf.constant(np.random.RandomState(len(self.drawn)).randn(self.rows, width), tf.float32)

    def normal(self, name, width):
        return self._draw("normal", name, width)

    def truncated_normal(self, name, width):
        return self._draw("truncated", name, width)


def values(variables):
    return [variable.numpy() for variable in variables]


# Sizes.

COUNTS = {
    # form, stage, generator and discriminator width, residual blocks: parameters of generator, Stage-I, discriminator
    ("tensorflow", 1, 128, 64, 4): (14_264_192, 0, 4_029_824),
    ("tensorflow", 2, 128, 64, 4): (26_290_080, 14_264_192, 48_603_520),
    ("pytorch", 1, 192, 96, 2): (20_020_832, 0, 12_407_425),
    ("pytorch", 2, 192, 96, 2): (37_130_480, 20_020_832, 159_889_538),
    ("pytorch", 1, 128, 64, 4): (10_301_248, 0, 5_715_713),
    ("pytorch", 2, 128, 64, 4): (36_591_328 - 10_301_248, 10_301_248, 71_269_122),
}


@pytest.mark.parametrize("sizes", COUNTS, ids=lambda sizes: "-".join(map(str, sizes)))
def test_parameters_at_published_width(sizes, monkeypatch):
    """Those of the papers' tables; and as many arrays as the published state dicts have."""
    monkeypatch.setattr(stackgan, "kernel_initializer", lambda form: keras.initializers.Zeros)  # random ones take long
    form, stage, generator_width, discriminator_width, residual_blocks = sizes
    hyperparameters = stackgan.Hyperparameters(
        form=form,
        stage=stage,
        generator_width=generator_width,
        discriminator_width=discriminator_width,
        residual_blocks=residual_blocks,
    )
    made = stackgan.Recipe(hyperparameters, papers.Context(text_dim=1024))

    def size(network):
        moving = [v for v in network.variables if "moving" in v.path] if network else []
        return network.count_params() - sum(int(np.prod(v.shape)) for v in moving) if network else 0

    found = [size(network) for network in (made.generator, made.stage1_generator, made.discriminator)]
    assert tuple(found) == COUNTS[sizes]
    assert not made.stage1_generator or not made.stage1_generator.trainable_variables
    if sizes[2:] == (192, 96, 2):
        of_discriminator = published.stackgan.discriminator_layers(made.discriminator)
        scheme = published.SCHEMES[f"stackgan{stage}_generator"]
        of_generator = scheme.layers(*(made.networks[name] for name in scheme.networks))
        found = len(published.layout._weights(of_generator)), len(published.layout._weights(of_discriminator))
        assert found == {1: (28, 23), 2: (87, 45)}[stage]


# Conditioning augmentation.


@pytest.mark.parametrize("form", FORMS)
def test_conditioning_augmentation_by_hand(form):
    layer = stackgan.ConditioningAugmentation(form, 2)
    text, noise = tf.constant([[1.0, -1.0]]), tf.constant([[0.5, -2.0]])
    layer(text, noise)
    layer.dense.kernel.assign([[1.0, -1.0, 0.0, 2.0], [0.0, 0.0, 1.0, 0.0]])  # before activation: 1, -1, -1, 2
    condition, mu, log_variance = (np.array(made)[0] for made in layer(text, noise))
    if form == "tensorflow":  # leaky ReLU; the spread is log sigma
        np.testing.assert_allclose(mu, [1.0, -0.2], rtol=1e-6)
        sigma = np.exp([-0.2, 2.0])
    else:  # ReLU; the spread is log sigma^2
        np.testing.assert_allclose(mu, [1.0, 0.0], rtol=1e-6)
        sigma = np.exp([0.0, 1.0])
    np.testing.assert_allclose(np.exp(log_variance / 2), sigma, rtol=1e-6)
    np.testing.assert_allclose(condition, mu + sigma * noise.numpy()[0], rtol=1e-6)


def test_the_paper_has_no_activation_there():
    linear = stackgan.ConditioningAugmentation("tensorflow", 2, linear=True)
    text = tf.constant([[1.0]])
    linear(text, tf.zeros([1, 2]))
    linear.dense.kernel.assign([[-1.0, 2.0, -3.0, 0.5]])
    _, mu, log_variance = linear(text, tf.zeros([1, 2]))
    np.testing.assert_allclose(mu, [[-1.0, 2.0]])
    np.testing.assert_allclose(log_variance, [[-6.0, 1.0]])


@pytest.mark.parametrize("form", FORMS)
def test_the_divergence_is_that_of_the_condition_and_reaches_both_halves(form):
    """A mean over rows and dimensions of the closed form, -log sigma + (sigma^2 + mu^2 - 1) / 2."""
    layer = stackgan.ConditioningAugmentation(form, 4, linear=True)
    text, noise = tf.constant(RANDOM.randn(5, 3), tf.float32), tf.constant(RANDOM.randn(5, 4), tf.float32)
    layer(text, noise)
    layer.dense.kernel.assign(RANDOM.randn(3, 8))
    with tf.GradientTape() as tape:
        condition, mu, log_variance = layer(text, noise)
        value = losses.kl_divergence(mu, log_variance)
    sigma = (condition - mu).numpy() / noise.numpy()
    wanted = np.mean(-np.log(sigma) + (sigma**2 + mu.numpy() ** 2 - 1) / 2)
    assert float(value) == pytest.approx(wanted, rel=1e-4)
    gradient = tape.gradient(value, layer.dense.kernel.value).numpy()
    assert (np.abs(gradient) > 1e-6).all()


@pytest.mark.parametrize(
    "form, stage, asked, kind",
    [
        ("tensorflow", 2, "published", "truncated"),
        ("pytorch", 2, "published", "normal"),
        ("tensorflow", 1, "normal", "normal"),
        ("pytorch", 1, "truncated", "truncated"),
    ],
)
def test_noise_of_a_step_and_of_samples(form, stage, asked, kind):
    made = recipe(form=form, stage=stage, augmentation_noise=asked)
    sampled, trained = Draw(), Draw()
    made.sampling_noise(sampled)
    made.noise(trained)
    augmentations = ["augmentation", "stage1_augmentation"][:stage]
    assert sampled.drawn == {"z": "normal", **dict.fromkeys(augmentations, kind)}
    again = {f"{name}_discriminator": drawn for name, drawn in sampled.drawn.items()} if form == "tensorflow" else {}
    assert trained.drawn == {**sampled.drawn, **again}


@pytest.mark.parametrize("form", FORMS)
def test_without_conditioning_augmentation_the_condition_is_mu_and_the_loss_adversarial_alone(form):
    """In training and in samples: noise of the condition changes nothing, and mu is held nowhere."""
    made = recipe(form=form, augmentation_noise="none")
    draw = Draw()
    noise = made.sampling_noise(draw)
    assert noise["z"].numpy().any() and noise["augmentation"].shape == (BATCH, 3)
    batch = batch_of(made)
    text = made.condition(batch)
    of_generator = made.generator(noise["z"], text, noise["augmentation"])
    np.testing.assert_array_equal(of_generator["condition"], of_generator["mu"])
    assert np.abs(of_generator["log_variance"]).max() > 1e-3, "it would spread if it were drawn"
    generated = made.generate(text, made.noise(Draw()))
    logs = made.generator_losses(batch, text, generated)
    assert set(logs) == {"loss", "adversarial"} and float(logs["loss"]) == float(logs["adversarial"])
    kept = recipe(form=form).generator_losses(batch, text, generated)
    assert "kl" in kept and float(kept["loss"]) != float(kept["adversarial"])


# A step.


@pytest.mark.parametrize(
    "given, generated, looked",
    [
        # discriminator's step: real, wrong, fake; generator's: fake
        ({"form": "tensorflow"}, 2, 4),
        ({"form": "tensorflow", "shared_generator_forward": True}, 1, 4),
        ({"form": "tensorflow", "wrong_pairs": False}, 2, 3),
        # real features serve the wrong pairs too
        ({"form": "pytorch"}, 1, 3),
        ({"form": "pytorch", "stage": 2}, 1, 3),
        ({"form": "tensorflow", "stage": 2}, 2, 4),
    ],
)
def test_forwards_of_a_step(given, generated, looked, monkeypatch):
    counts = {}

    def count(owner, name):
        method = getattr(owner, name)

        @functools.wraps(method)
        def counted(self, *args, **kwargs):
            counts[owner.__name__] = counts.get(owner.__name__, 0) + 1
            return method(self, *args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    made = recipe(**given)
    trainer = GanTrainer(made, seed=0, steps_per_epoch=1)
    for owner, name in (
        (stackgan.Stage1Generator, "call"),
        (stackgan.Stage2Generator, "call"),
        (stackgan.Discriminator, "image_features"),
    ):
        count(owner, name)
    logs = trainer.train_step(batch_of(made))
    assert counts.pop("Discriminator") == looked
    assert set(counts.values()) == {generated} and len(counts) == given.get("stage", 1)
    pairs = {"real", "fake", "mismatched"} if given.get("wrong_pairs", True) else {"real", "fake"}
    assert {name.rpartition("_")[2] for name in logs if "accuracy" in name} == pairs
    assert all(np.isfinite(value) for value in logs.values()) and "generator/kl" in logs


@pytest.mark.parametrize("form", FORMS)
def test_stage_1_is_fixed_in_weights_and_moves_in_statistics(form):
    made = recipe(form=form, stage=2)
    stage1 = made.stage1_generator
    statistics = [v for v in stage1.variables if "moving" in v.path]
    weights = [v for v in stage1.variables if "moving" not in v.path]
    before = values(weights), values(statistics), values(made.generator.trainable_variables)
    trainer = GanTrainer(made, seed=0, steps_per_epoch=1)
    trainer.train_step(batch_of(made))
    assert len(statistics) and not stage1.trainable_variables
    for old, new in zip(before[0], values(weights), strict=True):
        np.testing.assert_array_equal(old, new)
    assert all((old != new).any() for old, new in zip(before[1], values(statistics), strict=True))
    changed = [
        (old != new).any() for old, new in zip(before[2], values(made.generator.trainable_variables), strict=True)
    ]
    assert np.mean(changed) > 0.9


def test_the_condition_of_the_pytorch_form_learns_nothing_from_the_discriminators():
    """mu stands beside the picture without gradient; the text moves it through the condition and its divergence."""
    made = recipe(form="pytorch")
    batch = batch_of(made)
    image = tf.constant(RANDOM.uniform(-1, 1, (BATCH, 64, 64, 3)), tf.float32)
    mu = tf.constant(np.abs(RANDOM.randn(BATCH, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(mu)
        generated = {"images": [image], "mu": mu, "log_variance": tf.zeros_like(mu)}
        loss = made.generator_losses(batch, None, generated)["adversarial"]
    assert tape.gradient(loss, mu) is None


def test_wrong_pairs_of_the_pytorch_form_are_each_picture_with_the_next_text():
    made = recipe(form="pytorch")
    batch = batch_of(made)
    batch["images"] = tuple(tf.cast(image, tf.float32) / 127.5 - 1 for image in batch["images"])
    mu = tf.constant(np.abs(RANDOM.randn(BATCH, 3)), tf.float32)
    generated = {"fake": batch["images"][0], "mu": mu}
    seen = []
    match = made.discriminator.match

    def watched(features, condition, **how):
        seen.append((features, condition))
        return match(features, condition, **how)

    made.discriminator.match = watched
    logs = made.discriminator_losses("discriminator", batch, None, generated)
    (real, of_real), (wrong, of_wrong), _ = seen
    np.testing.assert_array_equal(wrong, real[:-1])
    np.testing.assert_array_equal(of_wrong, of_real[1:])
    # Stage-I: real + half of the wrong + half of the fake
    wanted = logs["loss_real"] + 0.5 * (logs["loss_mismatched"] + logs["loss_fake"])
    assert float(logs["loss"]) == pytest.approx(float(wanted), rel=1e-6)


def test_stage_2_of_the_pytorch_form_averages_heads_for_the_discriminator_and_adds_them_for_the_generator():
    made = recipe(form="pytorch", stage=2)
    batch, zeros = batch_of(made), tf.zeros([BATCH])
    made.discriminator.judge = lambda *args, **how: {"conditional": zeros, "unconditional": zeros}
    made.discriminator.match = lambda *args, **how: zeros[1:]
    batch["images"] = tuple(tf.cast(image, tf.float32) for image in batch["images"])
    generated = {"fake": batch["images"][0], "images": [batch["images"][0]], "mu": tf.zeros([BATCH, 3])}
    generated["log_variance"] = generated["mu"]
    of_d = made.discriminator_losses("discriminator", batch, None, generated)
    assert float(of_d["loss"]) == pytest.approx(2 * np.log(2))
    of_g = made.generator_losses(batch, None, generated)
    assert float(of_g["loss"]) == pytest.approx(2 * np.log(2)) and float(of_g["kl"]) == 0


def test_averaged_losses_by_hand():
    positive, negative = tf.constant([np.log(3.0)] * 2, tf.float32), tf.constant([-np.log(3.0)], tf.float32)
    log43, log4 = np.log(4 / 3), np.log(4)
    loss = losses.averaged_discriminator_loss([positive, negative], [positive, positive, negative])
    assert float(loss) == pytest.approx((log43 + log4) / 2 + (2 * log4 + log43) / 3, rel=1e-6)
    assert float(losses.averaged_discriminator_loss([positive], [])) == pytest.approx(log43, rel=1e-6)


# Learning rate.


@pytest.mark.parametrize(
    "every, after, epochs, halved",
    [
        (50, 0, 600, range(50, 551, 50)),  # Stage-I of CUB and Oxford-102
        (100, 6, 606, range(106, 507, 100)),  # Stage-II of CUB: epochs 700 to 1100 of a count that began at 594
        (100, 13, 613, range(113, 514, 100)),  # Stage-II of Oxford-102: began at 587
        (20, 0, 120, range(20, 101, 20)),  # Stage-I of COCO
    ],
)
def test_the_rate_is_halved_at_the_published_epochs(every, after, epochs, halved):
    steps = 138
    rate = stackgan.Halvings(2e-4, steps, every, after)
    for epoch in range(epochs):
        wanted = 2e-4 * 0.5 ** sum(place <= epoch for place in halved)
        for step in (epoch * steps, epoch * steps + steps - 1):
            assert float(rate(tf.constant(step))) == pytest.approx(wanted, rel=1e-6)
    assert stackgan.Halvings(**rate.get_config()).get_config() == rate.get_config()


def test_adam_of_the_two_programs():
    of_tensorflow, of_pytorch = (recipe(form=form).optimizers(1) for form in FORMS)
    assert set(of_tensorflow) == {"generator", "discriminator"}
    assert of_tensorflow["generator"].epsilon == 1e-8
    assert of_pytorch["generator"].epsilon == pytest.approx(3.16e-10, rel=1e-2)


def test_epochs_drop_the_last_incomplete_batch():
    made = recipe(batch_size=64)
    assert [made.steps_per_epoch(images) for images in (8855, 7034, 10)] == [138, 109, 1]


# What goes together.


@pytest.mark.parametrize(
    "given, message",
    [
        ({"stage": 2, "generator_width": 6}, "--generator_width=6: .* multiple of 4"),
        ({"form": "pytorch", "generator_width": 3}, "--generator_width=3: .* multiple of 2"),
        ({"form": "pytorch", "wrong_pairs": False}, "--nowrong_pairs: the pytorch form"),
        ({"stage1_run": "runs/1"}, "add --stage=2"),
    ],
)
def test_settings_that_do_not_go_together(given, message):
    with pytest.raises(UserError, match=message):
        recipe(**given)


def test_stage_2_asks_for_stage_1_when_it_is_to_be_trained_from_nothing():
    """And not when it is rebuilt to draw, or goes on from another Stage-II."""
    recipe().start({"generator"})
    made = recipe(stage=2)
    assert recipe().pretrained == made.pretrained == {}
    with pytest.raises(UserError, match="give --stage1_run=RUN"):
        made.start({"generator", "stage1_generator"})
    made.start({"generator"})


def stage_1(folder, paper="stackgan", **given):
    hyperparameters = {**dataclasses.asdict(stackgan.Hyperparameters(**TINY)), **given}
    (folder / "config.json").write_text(RunConfig(TrainConfig(paper=paper, data_dir=""), hyperparameters, {}).to_json())
    return str(folder)


def test_stage_2_takes_the_generator_of_stage_1(tmp_path):
    run = stage_1(tmp_path)
    assert recipe(stage=2, stage1_run=run).pretrained == {"stage1_generator": (run, "generator")}
    stage_1(tmp_path, stage=2)
    assert recipe(stage=2, stage1_run=run).pretrained == {"stage1_generator": (run, "stage1_generator")}


@pytest.mark.parametrize(
    "given, message",
    [
        ({"paper": "gan_int_cls"}, "is a run of gan_int_cls"),
        ({"conditioning_activation": "linear"}, "other settings: add --conditioning_activation=linear$"),
        ({"form": "pytorch", "noise_dim": 3}, "other settings: add --form=pytorch --noise_dim=3$"),
    ],
)
def test_another_stage_1_is_refused(given, message, tmp_path):
    with pytest.raises(UserError, match=message):
        _ = recipe(stage=2, stage1_run=stage_1(tmp_path, **given)).pretrained


def test_text_is_asked_for():
    with pytest.raises(UserError, match="give --text_encoder_run"):
        stackgan.Recipe(stackgan.Hyperparameters(), papers.Context())


def test_what_each_form_asks_of_the_data():
    of_tensorflow, of_pytorch = (recipe(form=form, stage=2, captions_averaged=1).request for form in FORMS)
    assert of_tensorflow.wrong_images and not of_pytorch.wrong_images
    assert of_tensorflow.image_sizes == of_pytorch.image_sizes == (256,)
    assert recipe().request.image_sizes == (64,) and not recipe(wrong_pairs=False).request.wrong_images
    assert recipe().request.captions == 2 and not recipe().request.captions_with_replacement


# From Stage-I to Stage-II.


@pytest.fixture(scope="module")
def large_blossoms(tmp_path_factory):
    from t2i_tf.config import PrepareConfig
    from t2i_tf.data.prepare import prepare

    folder = tmp_path_factory.mktemp("data") / "blossoms256"
    options = PrepareConfig(source="blossoms", data_dir=str(folder), num_images=12, image_size=256, workers=1)
    return prepare(options, progress=lambda done, total: None)


@pytest.mark.slow
def test_stage_2_is_trained_from_a_run_of_stage_1(blossoms, large_blossoms, text_encoder_run, tmp_path):
    """It starts from its averaged weights, and goes on, draws and is gone on from without it."""
    from PIL import Image

    from t2i_tf import inference, sampling
    from t2i_tf.config import SampleConfig
    from t2i_tf.training import loop

    def train(name, data, steps, init_from=None, **more):
        training = TrainConfig(
            paper="stackgan",
            data_dir=str(data),
            run_dir=str(tmp_path / name),
            text_encoder_run=str(text_encoder_run.path),
            steps=steps,
            init_from=init_from,
        )
        return loop.run(training, {**TINY, "form": "pytorch", "captions_averaged": 1, **more})

    train("stage1", blossoms, 2, ema_decay=0.9)
    second = {"stage": 2, "stage1_run": str(tmp_path / "stage1")}
    train("stage2", large_blossoms, 1, **second)
    first = inference.load(tmp_path / "stage1").recipe.generator
    shutil.rmtree(tmp_path / "stage1")

    assert train("stage2", large_blossoms, 2, **second).step == 2
    run = inference.load(tmp_path / "stage2")
    kept = run.recipe.stage1_generator
    for ours, theirs in zip(kept.variables, first.variables, strict=True):
        assert ("moving" not in ours.path) == bool((ours.numpy() == theirs.numpy()).all()), ours.path
    assert train("again", large_blossoms, 1, init_from=str(tmp_path / "stage2"), stage=2).step == 1
    for ours, theirs in zip(
        inference.load(tmp_path / "again").recipe.stage1_generator.variables, kept.variables, strict=True
    ):
        assert ("moving" not in ours.path) == bool((ours.numpy() == theirs.numpy()).all()), ours.path
    small, large = run.generate(["a red flower", "a blue flower"], [0, 1])
    assert small.shape == (2, 64, 64, 3) and large.shape == (2, 256, 256, 3)
    asked = SampleConfig(
        run_dir=str(tmp_path / "stage2"), caption=("a red flower",), seeds="0", mode="scales", out=str(tmp_path / "out")
    )
    assert next(sampling.sample(asked)).startswith("scales of 64, 256 pixels: ")
    grid = np.asarray(Image.open(tmp_path / "out" / "scales.png"))
    np.testing.assert_array_equal(grid[-260:-4, -520:-264], small[0].repeat(4, 0).repeat(4, 1))
    np.testing.assert_array_equal(grid[-260:-4, -260:-4], large[0])
