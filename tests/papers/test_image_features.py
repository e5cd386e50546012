"""What the discriminators say of a picture alone: samples are compared with training pictures by it."""

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import papers

TEXT = papers.Context(text_dim=6)
TINY = {"generator_width": 4, "discriminator_width": 2, "noise_dim": 5}
STACKGAN = {**TINY, "condition_dim": 3, "residual_blocks": 1}
TREE = {**TINY, "condition_dim": 3, "num_scales": 2, "base_size": 32}


def made(paper, context=TEXT, **given):
    return papers.get(paper).Recipe(papers.resolve(paper, **given), context)


RECIPES = {
    "gan_int_cls": lambda: made("gan_int_cls", text_projection=3, **TINY),
    "gan_int_cls, cls program": lambda: made("gan_int_cls", program="cls", interpolation_weight=0.0, **TINY),
    "stackgan": lambda: made("stackgan", **STACKGAN),
    "stackgan, pytorch form": lambda: made("stackgan", form="pytorch", **STACKGAN),
    "stackgan, second stage": lambda: made("stackgan", stage=2, **STACKGAN),
    "stackgan_v2": lambda: made("stackgan_v2", **TREE),
    "stackgan_v2, no text": lambda: made("stackgan_v2", papers.Context(), conditional=False, **TREE),
}


def pictures(recipe, count):
    size = recipe.request.image_sizes[-1]
    return np.random.default_rng(0).uniform(-1, 1, (count, size, size, 3)).astype(np.float32)


@pytest.mark.parametrize("name", RECIPES)
def test_a_row_follows_from_its_picture_alone(name):
    """Running statistics: no company, and nothing moves."""
    recipe = RECIPES[name]()
    images, before = pictures(recipe, 3), [v.numpy() for n in recipe.networks.values() for v in n.variables]
    together = recipe.image_features(images).numpy()
    width = 8 * recipe.hyperparameters.discriminator_width
    assert together.shape == (3, 4 * 4 * width) and len({row.tobytes() for row in together}) == 3
    for image, row in zip(images, together, strict=True):
        np.testing.assert_allclose(recipe.image_features(image[None])[0], row, atol=1e-5)
    for old, variable in zip(before, [v for n in recipe.networks.values() for v in n.variables], strict=True):
        np.testing.assert_array_equal(old, variable.numpy())


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("stackgan")])
def test_they_are_what_the_last_discriminator_judges(name):
    recipe = RECIPES[name]()
    critic, images = list(recipe.discriminators.values())[-1], pictures(recipe, 2)
    width = 3 if hasattr(critic, "trunk") or recipe.hyperparameters.form == "pytorch" else TEXT.text_dim
    condition = tf.constant(np.random.default_rng(1).normal(size=(2, width)), tf.float32)
    maps = tf.reshape(recipe.image_features(images), [2, 4, 4, -1])
    judged, whole = critic.judge(maps, condition), critic(images, condition)
    assert judged.keys() == whole.keys()
    for head in whole:
        np.testing.assert_allclose(judged[head], whole[head], atol=1e-6)
