"""Published StackGAN++ files: names, sizes read from them, and what does not fit."""

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import published
from t2i_tf.errors import UserError
from t2i_tf.networks.gated import GeneratorStem
from t2i_tf.papers import Context, stackgan_v2

pytestmark = pytest.mark.usefixtures("quick_initial_values")  # networks no file holds are built at published width

RANDOM = np.random.RandomState(0)
SIZES = {"generator_width": 8, "discriminator_width": 2, "noise_dim": 5, "condition_dim": 4}


def recipe(**given):
    hyperparameters = stackgan_v2.Hyperparameters(**{**SIZES, **given})
    return stackgan_v2.Recipe(hyperparameters, Context(text_dim=7 if hyperparameters.conditional else None))


def random_arrays(layers):
    return {
        name: RANDOM.uniform(0.1, 1.0, array.shape).astype("f4") for name, array in published.extract(layers).items()
    }


def save(path, arrays):
    """As the published program wrote it, wrapped for many GPUs."""
    torch = pytest.importorskip("torch")
    torch.save({f"module.{name}": torch.from_numpy(array) for name, array in arrays.items()}, path)


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.mark.parametrize(
    "given",
    [{}, {"conditional": False, "num_scales": 2, "base_size": 32, "residual_blocks": 1}],
    ids=["text", "no_text"],
)
def test_a_generator(tmp_path, given):
    made = recipe(**given)
    arrays = random_arrays(published.stackgan_v2.generator_layers(made.generator))
    assert len(arrays) == len(made.generator.variables)
    save(tmp_path / "netG.pth", arrays)
    imported = published.load("stackgan_v2_generator", tmp_path / "netG.pth")
    wanted, ours = made.hyperparameters, imported.hyperparameters
    names = ["conditional", "num_scales", "base_size", "generator_width", "noise_dim", "residual_blocks"]
    assert all(getattr(ours, name) == getattr(wanted, name) for name in names)
    if wanted.conditional:
        assert ours.condition_dim == 4 and imported.context.text_dim == 7
    assert_same(published.extract(published.stackgan_v2.generator_layers(imported.recipe.generator)), arrays)


@pytest.mark.parametrize("size, given", [(64, {}), (128, {"unconditional_weight": 0.0}), (256, {"conditional": False})])
def test_a_discriminator(tmp_path, size, given):
    network = recipe(**given).discriminators[f"discriminator_{size}"]
    arrays = random_arrays(published.stackgan_v2.discriminator_layers(network))
    assert len(arrays) == len(network.variables)
    np.savez(tmp_path / "netD.npz", **arrays)
    imported = published.load(f"stackgan_v2_discriminator_{size}", tmp_path / "netD.npz")
    assert imported.hyperparameters.discriminator_width == 2
    ours = imported.recipe.discriminators[f"discriminator_{size}"]
    assert_same(published.extract(published.stackgan_v2.discriminator_layers(ours)), arrays)


def test_the_dense_layer_is_published_channel_by_channel():
    """Output channel * 16 + row * 4 + column, value channels before gates."""
    stem = GeneratorStem(1, 8)
    stem(tf.zeros([1, 3]))
    layers = published.blocks.generator_stem("h_net1", stem)
    arrays = random_arrays(layers)
    published.assign(layers, arrays, "netG.pth")
    z, kernel = RANDOM.randn(1, 3).astype("f4"), arrays["h_net1.fc.0.weight"]
    norm = {name: arrays[f"h_net1.fc.1.{name}"] for name in ("weight", "bias", "running_mean", "running_var")}
    x = (z @ kernel.T - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-5) * norm["weight"] + norm["bias"]
    value, gate = np.split(x, 2, axis=1)
    wanted = (value / (1 + np.exp(-gate))).reshape(1, 2, 4, 4).transpose(0, 2, 3, 1)
    stem.upsamplings = []
    np.testing.assert_allclose(stem(z), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"h_net1.fc.0.weight": np.ones((1024, 4), "f4")}, "leaves no noise beside a condition of 4"),
        ({"h_net1.fc.0.weight": np.ones(3, "f4")}, r"no usable h_net1\.fc\.0\.weight"),
        ({"img_net1.img.0.weight": np.ones((3, 4, 3, 3), "f4")}, "misshapen: 1"),
    ],
)
def test_generators_that_do_not_fit(tmp_path, change, reason):
    arrays = random_arrays(published.stackgan_v2.generator_layers(recipe().generator))
    np.savez(tmp_path / "netG.npz", **{**arrays, **change})
    with pytest.raises(UserError, match=rf"netG\.npz.*{reason}"):
        published.load("stackgan_v2_generator", tmp_path / "netG.npz")


def test_discriminators_of_another_size_do_not_fit(tmp_path):
    network = recipe().discriminators["discriminator_128"]
    np.savez(tmp_path / "netD.npz", **random_arrays(published.stackgan_v2.discriminator_layers(network)))
    with pytest.raises(UserError, match=r"left over: .*img_code_s32\.0\.weight"):
        published.load("stackgan_v2_discriminator_64", tmp_path / "netD.npz")
    np.savez(tmp_path / "netD.npz", **{"logits.0.weight": np.ones((1, 16, 4, 4), "f4")})
    with pytest.raises(UserError, match=r"no usable img_code_s16\.0\.weight"):
        published.load("stackgan_v2_discriminator_64", tmp_path / "netD.npz")


@pytest.mark.parametrize("given", [{}, {"conditional": False}], ids=["text", "no_text"])
def test_a_generator_with_its_discriminators(tmp_path, given):
    """Their names are the same in all files: each array must come to the discriminator of its size."""
    made = recipe(**given)
    files = {"netG.npz": published.stackgan_v2.generator_layers(made.generator)}
    for number, network in enumerate(made.discriminators.values()):
        files[f"netD{number}.npz"] = published.stackgan_v2.discriminator_layers(network)
    arrays = {name: random_arrays(layers) for name, layers in files.items()}
    for name, content in arrays.items():
        np.savez(tmp_path / name, **content)
    imported = published.load("stackgan_v2", [tmp_path / name for name in reversed(files)])
    ours = imported.recipe
    assert ours.networks.keys() == {"generator", *made.discriminators}
    assert_same(published.extract(published.stackgan_v2.generator_layers(ours.generator)), arrays["netG.npz"])
    for number, network in enumerate(ours.discriminators.values()):
        found = published.extract(published.stackgan_v2.discriminator_layers(network))
        assert_same(found, arrays[f"netD{number}.npz"])
    with pytest.raises(UserError, match=r"missing: .*discriminator_128\."):
        published.load("stackgan_v2", [tmp_path / name for name in ("netG.npz", "netD0.npz", "netD2.npz")])
    with pytest.raises(UserError, match=r"netD0\.npz: holds .* again"):
        published.load("stackgan_v2", [tmp_path / name for name in ("netG.npz", "netD0.npz", "netD0.npz")])
