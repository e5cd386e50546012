"""What StackGAN++ does beside being equal to the published program, which is seen in tests/parity."""

import math

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import losses, papers
from t2i_tf.errors import UserError
from t2i_tf.networks.gated import DiscriminatorTrunk
from t2i_tf.papers import stackgan_v2
from t2i_tf.training.trainers import GanTrainer

RANDOM = np.random.RandomState(0)
BATCH, TEXT = 2, 6
TINY = {
    "num_scales": 2,
    "base_size": 16,
    "generator_width": 4,
    "discriminator_width": 2,
    "noise_dim": 5,
    "condition_dim": 3,
}


def recipe(**given):
    hyperparameters = stackgan_v2.Hyperparameters(**{**TINY, **given})
    return stackgan_v2.Recipe(hyperparameters, papers.Context(text_dim=TEXT if hyperparameters.conditional else None))


def pyramid(made):
    return tuple(RANDOM.randint(0, 256, (BATCH, size, size, 3)).astype("u1") for size in made.generator.sizes)


def batch_of(made):
    batch = {"images": pyramid(made), "class": np.zeros(BATCH, "i4")}
    if made.request.text:
        batch |= {"wrong_images": pyramid(made), "embedding": RANDOM.randn(BATCH, 1, TEXT).astype("f4")}
    return tf.nest.map_structure(tf.constant, batch)


@pytest.mark.parametrize("conditional", [True, False])
def test_a_step_forwards_the_generator_once_and_each_picture_once(conditional, monkeypatch):
    """Real pictures pass a trunk once, whichever heads judge them; the pictures that train the generator are those that
    its discriminators saw."""
    made = recipe(conditional=conditional)
    generated, seen = [], []
    generate, trunk = stackgan_v2.Generator.call, DiscriminatorTrunk.call

    def counted_trunk(self, image, training=False, groups=1):
        seen.extend((image.shape[1], pictures) for pictures in np.split(image.numpy(), groups))
        return trunk(self, image, training=training, groups=groups)

    def counted_generate(self, *args, **kwargs):
        result = generate(self, *args, **kwargs)
        generated.append(result["images"])
        return result

    monkeypatch.setattr(stackgan_v2.Generator, "call", counted_generate)
    monkeypatch.setattr(DiscriminatorTrunk, "call", counted_trunk)
    batch = batch_of(made)
    GanTrainer(made, seed=0, steps_per_epoch=1).train_step(batch)

    (fakes,) = generated
    for scale, size in enumerate(made.generator.sizes):
        scaled = {
            name: np.float32(batch[name][scale]) / 127.5 - 1 for name in ("images", "wrong_images") if name in batch
        }
        scaled["fakes"] = fakes[scale].numpy()
        passes = {
            name: sum(shown == size and np.allclose(image, pictures, atol=1e-6) for shown, image in seen)
            for name, pictures in scaled.items()
        }
        assert passes == {"images": 1, "fakes": 2, **({"wrong_images": 1} if conditional else {})}
        assert sum(shown == size for shown, _ in seen) == sum(passes.values()), "nothing else passes"


def test_what_each_kind_asks_of_the_data():
    with_text, without = recipe().request, recipe(conditional=False).request
    assert with_text.image_sizes == without.image_sizes == (16, 32)
    assert with_text.text == "embedding" and with_text.wrong_images and with_text.captions == 1
    assert without.text is None and not without.wrong_images
    assert with_text.sampling == without.sampling == "shuffled" and recipe(sampling="uniform").request.wrong_images
    assert stackgan_v2.Recipe.kind == "gan"
    assert recipe().steps_per_epoch(8855) == 368, "the last, incomplete batch is left out"
    assert recipe(batch_size=24).steps_per_epoch(3) == 1


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("num_scales, base_size", [(1, 8), (1, 32), (3, 8)])
def test_any_number_of_scales_trains(conditional, num_scales, base_size):
    made = recipe(conditional=conditional, num_scales=num_scales, base_size=base_size, residual_blocks=1)
    sizes = [base_size * 2**i for i in range(num_scales)]
    assert list(made.discriminators) == [f"discriminator_{size}" for size in sizes]
    trainer = GanTrainer(made, seed=0, steps_per_epoch=1)
    before = [variable.numpy() for network in made.networks.values() for variable in network.trainable_variables]
    logs = trainer.train_step(batch_of(made))
    after = [variable.numpy() for network in made.networks.values() for variable in network.trainable_variables]
    assert all(np.isfinite(list(logs.values())))
    assert not any(np.array_equal(a, b) for a, b in zip(before, after, strict=True)), "every weight learns"


def test_a_single_head_has_no_weights_that_never_learn():
    made = recipe(unconditional_weight=0.0)
    logs = GanTrainer(made, seed=0, steps_per_epoch=1).train_step(batch_of(made))
    assert all(np.isfinite(list(logs.values())))
    assert all(network.unconditional_head is None for network in made.discriminators.values())


def test_samples_follow_from_running_statistics_and_noise():
    made = recipe()
    text = tf.constant(RANDOM.randn(3, TEXT), tf.float32)
    noise = {"z": tf.constant(RANDOM.randn(3, 5), tf.float32), "augmentation": tf.zeros([3, 3])}
    images = made.sample(text, noise)
    assert [image.shape for image in images] == [(3, 16, 16, 3), (3, 32, 32, 3)]
    assert all(np.abs(image).max() <= 1 for image in images)
    alone = made.sample(text[:1], {name: rows[:1] for name, rows in noise.items()})
    np.testing.assert_allclose(alone[-1], images[-1][:1], atol=1e-5)


def test_the_text_moves_the_generator_through_its_discriminators():
    """mu is not stopped in the generator's step: it has a gradient even when no picture has one."""
    made = recipe(kl_weight=0.0)
    images = [tf.zeros([BATCH, size, size, 3]) for size in made.generator.sizes]
    mu = tf.constant(RANDOM.randn(BATCH, 3), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(mu)
        loss = made.generator_losses({}, None, {"images": images, "mu": mu, "log_variance": mu})["loss"]
    assert np.abs(tape.gradient(loss, mu)).max() > 0


def test_adam_is_pytorchs():
    optimizers = recipe(generator_learning_rate=1e-3, discriminator_learning_rate=3e-3).optimizers(1)
    assert float(optimizers["generator"].learning_rate) == pytest.approx(1e-3)
    assert float(optimizers["discriminator_32"].learning_rate) == pytest.approx(3e-3)
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Parameter(torch.tensor([1.0, 1.0, 1.0]))
    adam = torch.optim.Adam([theirs], lr=1e-3, betas=(0.5, 0.999))
    ours = tf.Variable([1.0, 1.0, 1.0])
    gradient = np.array([1.0, 1e-7, 1e-9], np.float32)  # the small ones feel epsilon
    theirs.grad = torch.from_numpy(gradient)
    adam.step()
    optimizers["generator"].apply([tf.constant(gradient)], [ours])
    np.testing.assert_allclose(ours.numpy() - 1, theirs.detach().numpy() - 1, rtol=1e-3)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"base_size": 48}, "--base_size=48: give a power of two"),
        ({"generator_width": 6, "num_scales": 3}, "--generator_width=6: .* give a multiple of 4 for --num_scales=3"),
    ],
)
def test_sizes_that_do_not_go_together(given, message):
    with pytest.raises(UserError, match=message):
        recipe(**given)


def test_text_is_asked_for():
    with pytest.raises(UserError, match="give --text_encoder_run=RUN .* or train --noconditional"):
        stackgan_v2.Recipe(stackgan_v2.Hyperparameters(), papers.Context())


# Its losses.


def test_kl_divergence_is_that_of_two_normal_distributions():
    mu, variance = np.array([[0.3, -1.2]]), np.array([[0.5, 2.0]])
    x = np.linspace(-25, 25, 200001)
    wanted = []
    for m, v in zip(mu[0], variance[0], strict=True):
        log_p = -0.5 * ((x - m) ** 2 / v + math.log(2 * math.pi * v))
        log_q = -0.5 * (x**2 + math.log(2 * math.pi))
        wanted.append(np.sum(np.exp(log_p) * (log_p - log_q)) * (x[1] - x[0]))
    ours = losses.kl_divergence(tf.constant(mu), tf.constant(np.log(variance)))
    assert float(ours) == pytest.approx(np.mean(wanted), rel=1e-6)
    assert float(losses.kl_divergence(tf.zeros([2, 3]), tf.zeros([2, 3]))) == 0


def test_colours_of_an_image():
    image = RANDOM.uniform(-1, 1, (2, 4, 6, 3))
    mean, covariance = losses.color_statistics(tf.constant(image))
    for row in range(2):
        pixels = image[row].reshape(-1, 3)
        np.testing.assert_allclose(mean[row], pixels.mean(axis=0))
        np.testing.assert_allclose(covariance[row], np.cov(pixels.T, bias=True))


def test_colours_that_agree_cost_nothing_and_only_the_large_image_moves():
    small = tf.constant(RANDOM.uniform(-1, 1, (2, 4, 4, 3)))
    large = tf.repeat(tf.repeat(small, 2, axis=1), 2, axis=2)
    for part in losses.color_consistency_losses(large, small):
        assert float(part) == pytest.approx(0, abs=1e-12)
    shifted = large + [0.3, 0.0, 0.0]
    with tf.GradientTape() as tape:
        tape.watch([small, shifted])
        mean, covariance = losses.color_consistency_losses(shifted, small)
    assert float(mean) == pytest.approx(0.3**2 / 3) and float(covariance) == pytest.approx(0, abs=1e-12)
    of_small, of_large = tape.gradient(mean, [small, shifted])
    assert of_small is None and np.abs(of_large).max() > 0


def test_a_wrong_picture_is_a_mismatch_with_the_text_and_real_without_it():
    def both(conditional, unconditional):
        return {"conditional": tf.constant([conditional]), "unconditional": tf.constant([unconditional])}

    sure, indifferent = 40.0, 0.0
    right = losses.joint_discriminator_loss(both(sure, sure), both(-sure, sure), both(-sure, -sure), 1.0)
    assert float(right) == pytest.approx(0, abs=1e-6)
    unsure = [both(indifferent, indifferent)] * 3
    assert float(losses.joint_discriminator_loss(*unsure, 1.0)) == pytest.approx(6 * math.log(2))
    assert float(losses.joint_discriminator_loss(*unsure, 0.5)) == pytest.approx(4.5 * math.log(2))
    assert float(losses.joint_discriminator_loss(*unsure, 0.0)) == pytest.approx(2 * math.log(2)), "halved without it"
    assert float(losses.joint_generator_loss(unsure[0], 0.5)) == pytest.approx(1.5 * math.log(2))
