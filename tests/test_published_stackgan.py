"""Published StackGAN files: names, sizes read from them, layouts, and what does not fit."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import checkpoints, importing, published
from t2i_tf.config import ImportConfig
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


# With the discriminator, and Stage-I out of Stage-II.


@pytest.mark.parametrize("stage", [1, 2])
def test_a_stage_with_its_discriminator(tmp_path, stage):
    made, of_generator = generators(stage)
    files = {"netG.npz": of_generator, "netD.npz": published.stackgan.discriminator_layers(made.discriminator)}
    arrays = {name: random_arrays(layers) for name, layers in files.items()}
    for name, content in arrays.items():
        np.savez(tmp_path / name, **content)
    imported = published.load(f"stackgan{stage}", [tmp_path / "netD.npz", tmp_path / "netG.npz"])
    assert imported.hyperparameters.discriminator_width == 2
    found = published.extract(published.stackgan.discriminator_layers(imported.recipe.discriminator))
    assert found.keys() == arrays["netD.npz"].keys()
    for name, array in arrays["netD.npz"].items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert set(imported.recipe.networks) == set(published.SCHEMES[f"stackgan{stage}"].networks)


def test_stage2_trains_on_the_stage1_of_an_imported_stage2(tmp_path):
    _, layers = generators(2)
    arrays = random_arrays(layers)
    np.savez(tmp_path / "netG.npz", **arrays)
    options = ImportConfig("stackgan", "stackgan2_generator", str(tmp_path / "netG.npz"), str(tmp_path / "run"))
    importing.import_weights(options, {"discriminator_width": 2})
    made, _ = generators(2)
    made.hyperparameters = dataclasses.replace(made.hyperparameters, stage1_run=str(tmp_path / "run"))
    assert made.pretrained == {"stage1_generator": (str(tmp_path / "run"), "stage1_generator")}
    checkpoints.load_weights(tmp_path / "run", {"stage1_generator": made.stage1_generator})
    found = published.extract(published.stackgan.stage1_generator_layers(made.stage1_generator))
    for name, array in found.items():
        np.testing.assert_array_equal(array, arrays[f"STAGE1_G.{name}"], err_msg=name)


# The tensorflow form. Names and shapes are those of the specification, at an eighth of the published width.


def numbered(kind, number):
    return kind if number == 0 else f"{kind}_{number}"


def checkpoint_arrays(scope, dense, convolutions, norms):
    shapes = {}
    for number, shape in enumerate(dense):
        name = f"{scope}/{numbered('custom_fully_connected', number)}/Linear"
        shapes |= {f"{name}/Matrix": shape, f"{name}/bias": shape[1:]}
    for number, shape in enumerate(convolutions):
        shapes[f"{scope}/{numbered('custom_conv2d', number)}/conv2d/w"] = shape
    norms = {numbered("conv_batch_norm", number): width for number, width in enumerate(norms)}
    if len(dense) == 2:
        norms["fc_batch_norm"] = dense[1][1]
    for name, width in norms.items():
        shapes |= {f"{scope}/{name}/batch_norm/{leaf}": (width,) for leaf in ("mean", "variance", "gamma", "beta")}
    return {name: RANDOM.uniform(0.1, 1.0, shape).astype("f4") for name, shape in shapes.items()}


def stage1_arrays():
    convolutions = [(1, 1, 128, 32), (3, 3, 32, 32), (3, 3, 32, 128), (3, 3, 128, 64), (1, 1, 64, 16), (3, 3, 16, 16)]
    convolutions += [(3, 3, 16, 64), (3, 3, 64, 32), (3, 3, 32, 16), (3, 3, 16, 3)]
    norms = [shape[-1] for shape in convolutions[:-1]]
    return checkpoint_arrays("g_net", [(7, 8), (9, 2048)], convolutions, norms)


def stage2_arrays():
    convolutions = [(3, 3, 3, 16), (4, 4, 16, 32), (4, 4, 32, 64), (3, 3, 68, 64), *[(3, 3, 64, 64)] * 8]
    convolutions += [(3, 3, 64, 32), (3, 3, 32, 16), (3, 3, 16, 8), (3, 3, 8, 4), (3, 3, 4, 3)]
    norms = [shape[-1] for shape in convolutions[1:-1]]
    return checkpoint_arrays("hr_g_net", [(7, 8)], convolutions, norms)


BESIDE = {
    "g_net/custom_conv2d/conv2d/w/Adam": np.ones((1, 1, 128, 32), "f4"),
    "g_net/conv_batch_norm/batch_norm/mean/biased": np.ones(32, "f4"),
    "d_net/custom_conv2d/conv2d/w": np.ones((4, 4, 3, 8), "f4"),
    "beta1_power": np.float32(0.5),
}


def write_checkpoint(path, arrays, version=2):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {name: tf.compat.v1.get_variable(name, initializer=array) for name, array in arrays.items()}
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(variables, write_version=version).save(session, str(path), write_meta_graph=False)


@pytest.mark.parametrize("stage, version", [(1, 2), (2, 1)], ids=["stage1", "stage2_of_an_old_file"])
def test_a_checkpoint_of_the_tensorflow_form(tmp_path, stage, version):
    of_stages = {1: stage1_arrays(), 2: stage2_arrays()}
    write_checkpoint(tmp_path / "birds.ckpt", {**of_stages[1], **of_stages[2], **BESIDE}, version)
    imported = published.load(f"stackgan{stage}_tensorflow", tmp_path / "birds.ckpt", {"discriminator_width": 1})
    scheme = published.SCHEMES[f"stackgan{stage}_tensorflow"]
    found = published.extract(scheme.layers(*(imported.recipe.networks[name] for name in scheme.networks)))
    wanted = of_stages[1] | (of_stages[2] if stage == 2 else {})
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    ours = imported.hyperparameters
    assert (ours.form, ours.stage, ours.generator_width, ours.noise_dim, ours.condition_dim) == (
        "tensorflow",
        stage,
        16,
        5,
        4,
    )
    assert imported.context.text_dim == 7 and ours.residual_blocks == 4


def test_checkpoints_that_do_not_fit(tmp_path):
    arrays = stage1_arrays()
    arrays["g_net/other/conv2d/w"] = arrays.pop("g_net/custom_conv2d_9/conv2d/w")
    write_checkpoint(tmp_path / "renamed.ckpt", arrays)
    with pytest.raises(UserError, match=r"missing: 1 \(g_net/custom_conv2d_9/conv2d/w\); left over: 1 \(g_net/other"):
        published.load("stackgan1_tensorflow", tmp_path / "renamed.ckpt.index", {"discriminator_width": 1})
    write_checkpoint(tmp_path / "other.ckpt-7", BESIDE)
    with pytest.raises(UserError, match=r"no usable g_net/custom_fully_connected/Linear/Matrix.* it holds 3 \("):
        published.load("stackgan1_tensorflow", tmp_path / "other.ckpt-7")
    (tmp_path / "broken.ckpt").write_bytes(b"no checkpoint")
    for name, reason in (("broken.ckpt", "not a sound checkpoint"), ("nowhere.ckpt", "there is no such checkpoint")):
        with pytest.raises(UserError, match=reason):
            published.load("stackgan1_tensorflow", tmp_path / name)
