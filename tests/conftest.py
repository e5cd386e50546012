"""What several test files share: a small drawn data set, and tiny runs trained on it for a few steps.

Fixtures import what they need when they are asked for, so that tests of the command line wait for nothing.
"""

import dataclasses
import os

import pytest

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # before TensorFlow is imported, as the commands do

TINY_TEXT_ENCODER = {
    "text_channels": (8, 8, 8),
    "embedding_dim": 16,
    "image_encoder_width": 4,
    "batch_size": 8,
}
TINY_GAN = {
    "generator_width": 4,
    "discriminator_width": 4,
    "text_projection": 8,
    "noise_dim": 8,
    "batch_size": 8,
    "ema_decay": 0.5,
}
TINY_DAMSM = {
    "image_encoder": "conv",
    "image_encoder_width": 2,
    "image_size": 32,
    "embedding_dim": 8,
    "word_dim": 6,
    "batch_size": 6,
}
TINY_ATTNGAN = {
    "image_encoder": "conv",
    "image_encoder_width": 2,
    "embedding_dim": 8,
    "word_dim": 6,
    "base_size": 16,
    "num_scales": 2,
    "generator_width": 4,
    "discriminator_width": 2,
    "condition_dim": 4,
    "noise_dim": 5,
    "batch_size": 6,
}


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run folder, what was asked for, and what came of it."""

    training: object
    given: dict
    outcome: object

    @property
    def path(self):
        return self.outcome.run_dir


@pytest.fixture
def quick_initial_values():
    """Orthogonal ones take long to draw at published width, and do not matter where they are replaced."""
    from t2i_tf.networks import initial

    with initial.from_a_file():
        yield


@pytest.fixture(scope="session")
def blossoms(tmp_path_factory):
    """A prepared data set of 66 drawn flowers of 64 pixels: 60 to train on, 6 of other classes to test with."""
    from t2i_tf.config import PrepareConfig
    from t2i_tf.data.prepare import prepare

    folder = tmp_path_factory.mktemp("data") / "blossoms"
    options = PrepareConfig(source="blossoms", data_dir=str(folder), num_images=66, workers=1)
    return prepare(options, progress=lambda done, total: None)


@pytest.fixture(scope="session")
def without_captions(tmp_path_factory):
    """A prepared data set of 4 drawn flowers of 32 pixels that nothing is said of."""
    from t2i_tf.config import PrepareConfig
    from t2i_tf.data.prepare import prepare

    folder = tmp_path_factory.mktemp("data") / "silent"
    options = PrepareConfig(
        source="blossoms", data_dir=str(folder), image_size=32, num_images=4, captions="none", workers=1
    )
    return prepare(options, progress=lambda done, total: None)


def _trained(training, given):
    from t2i_tf.training import loop

    return TrainedRun(training, given, loop.run(training, given))


def _sharpen(network, factor):
    """Makes up for the steps not taken: small weights give vectors and pictures that are all alike."""
    for variable in network.trainable_variables:
        if len(variable.shape) > 1:
            variable.assign(factor * variable.value)


@pytest.fixture(scope="session")
def text_encoder_run(blossoms, tmp_path_factory):
    """char-CNN-RNN of the smallest sizes after two steps, its weights enlarged so that captions differ."""
    from t2i_tf import inference
    from t2i_tf.config import TrainConfig

    folder = tmp_path_factory.mktemp("runs") / "text_encoder"
    training = TrainConfig(paper="char_cnn_rnn", data_dir=str(blossoms), run_dir=str(folder), steps=2)
    trained = _trained(training, TINY_TEXT_ENCODER)
    run = inference.load(folder)
    _sharpen(run.recipe.text_encoder, 16.0)
    run.save(folder)
    return trained


@pytest.fixture(scope="session")
def gan_run(blossoms, text_encoder_run, tmp_path_factory):
    """GAN-INT-CLS of the smallest sizes after three steps, with a checkpoint of each and a moving average."""
    from t2i_tf.config import TrainConfig

    folder = tmp_path_factory.mktemp("runs") / "gan_int_cls"
    training = TrainConfig(
        paper="gan_int_cls",
        data_dir=str(blossoms),
        run_dir=str(folder),
        text_encoder_run=str(text_encoder_run.path),
        steps=3,
        checkpoint_every=1,
    )
    return _trained(training, TINY_GAN)


@pytest.fixture(scope="session")
def gan(gan_run):
    """The tiny generator, loaded, its weights enlarged so that pictures differ. Tests do not change it."""
    from t2i_tf import inference

    run = inference.load(gan_run.path)
    _sharpen(run.recipe.generator, 6.0)
    return run


@pytest.fixture(scope="session")
def damsm_run(blossoms, tmp_path_factory):
    """DAMSM of the smallest sizes after two steps, on pictures of 32 pixels."""
    from t2i_tf.config import TrainConfig

    folder = tmp_path_factory.mktemp("runs") / "damsm"
    return _trained(TrainConfig(paper="damsm", data_dir=str(blossoms), run_dir=str(folder), steps=2), TINY_DAMSM)


@pytest.fixture(scope="session")
def attngan_run(blossoms, damsm_run, tmp_path_factory):
    """AttnGAN of two scales, 16 and 32 pixels, after two steps."""
    from t2i_tf.config import TrainConfig

    folder = tmp_path_factory.mktemp("runs") / "attngan"
    training = TrainConfig(paper="attngan", data_dir=str(blossoms), run_dir=str(folder), steps=2)
    return _trained(training, {**TINY_ATTNGAN, "damsm_run": str(damsm_run.path)})
