"""Published StackGAN files: names, sizes read from them, layouts, and what does not fit."""

import keras
import numpy as np
import pytest

from t2i_tf import published
from t2i_tf.errors import UserError
from t2i_tf.papers import Context, stackgan

RANDOM = np.random.RandomState(0)
SIZES = {"form": "pytorch", "generator_width": 8, "noise_dim": 5, "condition_dim": 4, "discriminator_width": 2}


@pytest.fixture(autouse=True)
def quick_initial_values(monkeypatch):
    """Networks that a file does not hold are built at published width."""
    monkeypatch.setattr(stackgan, "kernel_initializer", lambda form: keras.initializers.Zeros)


def generators(stage):
    """Recipe of small networks, and the layers of the scheme."""
    made = stackgan.Recipe(
        stackgan.Hyperparameters(**SIZES, stage=stage, residual_blocks=3, captions_averaged=1), Context(text_dim=7)
    )
    scheme = published.SCHEMES[f"stackgan{stage}_generator"]
    return made, scheme.layers(*(made.networks[name] for name in scheme.networks))


def random_arrays(layers):
    return {
        name: RANDOM.uniform(0.1, 1.0, array.shape).astype("f4") for name, array in published.extract(layers).items()
    }


def load(stage, path):
    imported = published.load(f"stackgan{stage}_generator", path)
    scheme = published.SCHEMES[f"stackgan{stage}_generator"]
    return imported, scheme.layers(*(imported.recipe.networks[name] for name in scheme.networks))


@pytest.mark.parametrize("stage", [1, 2])
def test_a_generator(tmp_path, stage):
    """Everything in the file has its place, and every variable of ours its array; Stage-II brings its Stage-I."""
    torch = pytest.importorskip("torch")
    made, layers = generators(stage)
    arrays = random_arrays(layers)
    kept = [made.generator] + ([made.stage1_generator] if stage == 2 else [])
    assert len(arrays) == sum(len(network.variables) for network in kept)
    torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, tmp_path / "netG.pth")
    imported, layers = load(stage, tmp_path / "netG.pth")
    found = published.extract(layers)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    names = ["form", "stage", "generator_width", "noise_dim", "condition_dim", "captions_averaged"]
    names += ["residual_blocks"] if stage == 2 else []
    for name in names:
        assert getattr(imported.hyperparameters, name) == getattr(made.hyperparameters, name), name
    assert imported.context.text_dim == 7


def test_the_dense_layer_is_published_channel_by_channel():
    made, layers = generators(1)
    arrays = random_arrays(layers)
    published.assign(layers, arrays, "netG.pth")
    generator, channels = made.generator, 8 * 8
    weight, scale = arrays["fc.0.weight"], arrays["fc.1.weight"]
    for row, column, channel in ((0, 0, 0), (1, 2, 3), (3, 0, channels - 1)):
        theirs, ours = channel * 16 + row * 4 + column, (row * 4 + column) * channels + channel
        np.testing.assert_array_equal(generator.project.kernel[:, ours], weight[theirs])
        assert generator.project_norm.gamma[ours] == scale[theirs]


@pytest.mark.parametrize(
    "stage, change, reason",
    [
        (1, {"fc.0.weight": np.ones((1024, 4))}, "fits no generator with a condition of 4"),
        (1, {"fc.0.weight": np.ones(5)}, r"no usable fc\.0\.weight"),
        (1, {"upsample5.1.weight": np.ones(5)}, "left over"),
        (2, {"STAGE1_G.img.0.weight": np.ones(5)}, "misshapen"),
    ],
)
def test_generators_that_do_not_fit(tmp_path, stage, change, reason):
    _, layers = generators(stage)
    np.savez(tmp_path / "netG.npz", **{**random_arrays(layers), **change})
    with pytest.raises(UserError, match=rf"netG\.npz.*{reason}"):
        published.load(f"stackgan{stage}_generator", tmp_path / "netG.npz")


def test_the_stages_are_told_apart(tmp_path):
    _, layers = generators(1)
    np.savez(tmp_path / "netG.npz", **random_arrays(layers))
    with pytest.raises(UserError, match=r"no usable STAGE1_G\.ca_net"):
        published.load("stackgan2_generator", tmp_path / "netG.npz")
