"""Published AttnGAN and DAMSM files: names, sizes read from them, and what does not fit."""

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import papers, published
from t2i_tf.errors import UserError
from t2i_tf.networks import encoders
from t2i_tf.papers import attngan

pytestmark = pytest.mark.usefixtures("quick_initial_values")  # networks no file holds are built at published width

RANDOM = np.random.RandomState(0)
SIZES = {"generator_width": 4, "discriminator_width": 2, "noise_dim": 5, "condition_dim": 3, "embedding_dim": 6}
SMALL = {"image_encoder": "conv"}


def recipe(**given):
    return attngan.Recipe(attngan.Hyperparameters(**{**SIZES, **SMALL, **given}), papers.Context(vocabulary_size=1))


def random_arrays(layers):
    return {
        name: RANDOM.uniform(0.1, 1.0, array.shape).astype("f4") for name, array in published.extract(layers).items()
    }


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


@pytest.mark.parametrize(
    "given",
    [{}, {"num_scales": 2, "residual_blocks": 3}, {"form": "dcgan", "residual_blocks": 0}, {"base_size": 16}],
    ids=["AttnGAN2", "AttnGAN1", "AttnDCGAN", "small"],
)
def test_a_generator(tmp_path, given):
    made = recipe(**given)
    arrays = random_arrays(published.attngan.generator_layers(made.generator))
    assert len(arrays) == len(made.generator.variables)
    np.savez(tmp_path / "netG.npz", **arrays)
    imported = published.load(
        "attngan_generator", tmp_path / "netG.npz", {**SMALL, "discriminator_width": 2}, {"vocabulary_size": 7}
    )
    assert imported.hyperparameters == made.hyperparameters and imported.context.vocabulary_size == 7
    assert_same(published.extract(published.attngan.generator_layers(imported.recipe.generator)), arrays)


@pytest.mark.parametrize("size, form", [(64, "attngan"), (128, "attngan"), (256, "attngan"), (256, "dcgan")])
def test_a_discriminator(tmp_path, size, form):
    network = recipe(form=form).discriminators[f"discriminator_{size}"]
    arrays = random_arrays(published.attngan.discriminator_layers(network))
    assert len(arrays) == len(network.variables)
    np.savez(tmp_path / "netD.npz", **arrays)
    imported = published.load(f"attngan_discriminator_{size}", tmp_path / "netD.npz", {**SMALL, "generator_width": 1})
    ours = imported.hyperparameters
    assert (ours.form, ours.discriminator_width, ours.embedding_dim) == (form, 2, 6)
    assert_same(
        published.extract(
            published.attngan.discriminator_layers(imported.recipe.discriminators[f"discriminator_{size}"])
        ),
        arrays,
    )


def test_the_only_discriminator_of_attndcgan_is_that_of_256_pixels(tmp_path):
    network = recipe(form="dcgan").discriminators["discriminator_256"]
    np.savez(tmp_path / "netD0.npz", **random_arrays(published.attngan.discriminator_layers(network)))
    with pytest.raises(UserError, match="has no discriminator_64: give --scheme=attngan_discriminator_256$"):
        published.load("attngan_discriminator_64", tmp_path / "netD0.npz", {**SMALL, "generator_width": 1})


def test_files_that_do_not_fit(tmp_path):
    arrays = random_arrays(published.attngan.generator_layers(recipe(num_scales=2).generator))
    for change, reason in (
        ({"h_net1.fc.0.weight": np.ones((2048, 3), "f4")}, "leaves no noise beside a condition of 3"),
        ({"ca_net.fc.weight": np.ones(3, "f4")}, r"no usable ca_net\.fc\.weight"),
        ({"h_net2.att.conv_context.weight": np.ones((4, 7, 1, 1), "f4")}, "misshapen: 1"),
    ):
        np.savez(tmp_path / "netG.npz", **{**arrays, **change})
        with pytest.raises(UserError, match=rf"netG\.npz.*{reason}"):
            published.load("attngan_generator", tmp_path / "netG.npz", SMALL)
    with pytest.raises(UserError, match=r"no usable img_code_s16\.0\.weight"):
        published.load("attngan_discriminator_64", tmp_path / "netG.npz", SMALL)


# Encoders.


def text_arrays(recurrent="lstm"):
    encoder = encoders.WordEncoder(11, 5, 6, recurrent)
    encoder(tf.zeros([1, 2], tf.int32), tf.ones([1], tf.int32))
    return random_arrays(published.damsm.text_encoder_layers(encoder))


@pytest.mark.parametrize("recurrent", ["lstm", "gru"])
def test_a_text_encoder(tmp_path, recurrent):
    arrays = text_arrays(recurrent)
    np.savez(tmp_path / "text_encoder.npz", **arrays)
    imported = published.load("damsm_text_encoder", tmp_path / "text_encoder.npz", SMALL)
    ours = imported.hyperparameters
    assert (ours.recurrent, ours.word_dim, ours.embedding_dim) == (recurrent, 5, 6)
    assert imported.context.vocabulary_size == 11
    assert_same(published.extract(published.damsm.text_encoder_layers(imported.recipe.text_encoder)), arrays)


def test_a_recurrence_of_another_kind(tmp_path):
    arrays = {"encoder.weight": np.ones((3, 2), "f4"), "rnn.weight_hh_l0": np.ones((10, 5), "f4")}
    np.savez(tmp_path / "text_encoder.npz", **arrays)
    with pytest.raises(UserError, match="is of no LSTM and no GRU"):
        published.load("damsm_text_encoder", tmp_path / "text_encoder.npz", SMALL)


def test_both_encoders_of_two_files(tmp_path):
    """And one file given twice."""
    encoder = encoders.RegionEncoder(width=6)
    encoder(tf.zeros([1, 299, 299, 3]))
    text, image = text_arrays(), random_arrays(published.damsm.image_encoder_layers(encoder))
    assert len(image) == 473
    np.savez(tmp_path / "text_encoder.npz", **text)
    np.savez(tmp_path / "image_encoder.npz", **image, **{"Conv2d_1a_3x3.bn.num_batches_tracked": np.int64(3)})
    files = [tmp_path / "text_encoder.npz", tmp_path / "image_encoder.npz"]
    recipe = published.load("damsm", files).recipe
    assert_same(published.extract(published.damsm.text_encoder_layers(recipe.text_encoder)), text)
    assert_same(published.extract(published.damsm.image_encoder_layers(recipe.image_encoder)), image)
    with pytest.raises(UserError, match=r"text_encoder\.npz: holds 9 .* again"):
        published.load("damsm", [files[0], files[0]])
