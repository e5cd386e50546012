"""Parts of a batch one after the other are the whole batch, where no layer and no loss looks at other rows."""

from __future__ import annotations

from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import losses
from t2i_tf.networks.normalisation import BatchNormalization
from t2i_tf.training.trainers import Execution, trainer

ROWS, SIZE = 8, 4


class Gan:
    """The contract of a paper at its smallest: no batch normalisation, and two discriminators."""

    kind = "gan"
    hyperparameters = SimpleNamespace(ema_decay=0.9)

    def __init__(self):
        def network(name, width):
            layers = [keras.layers.Dense(16, "tanh"), keras.layers.Dense(width)]
            return keras.Sequential([keras.Input([SIZE + 3]), *layers], name=name)

        self.generator = network("generator", SIZE * SIZE * 3)
        self.discriminators = {
            name: keras.Sequential([keras.Input([SIZE, SIZE, 3]), keras.layers.Flatten(), keras.layers.Dense(1)])
            for name in ("first", "second")
        }
        self.networks = {"generator": self.generator, **self.discriminators}

    def optimizers(self, steps_per_epoch):
        return {name: keras.optimizers.SGD(0.1) for name in self.networks}

    def noise(self, draw):
        return {"z": draw.normal("z", SIZE)}

    def condition(self, batch):
        return batch["embedding"]

    def generate(self, condition, noise):
        made = self.generator(tf.concat([noise["z"], condition], axis=-1))
        return {"images": tf.reshape(tf.tanh(made), [-1, SIZE, SIZE, 3])}

    def discriminator_losses(self, name, batch, condition, generated):
        critic = self.discriminators[name]
        return {
            "loss": losses.real_loss(critic(batch["images"][0])[:, 0])
            + losses.fake_loss(critic(generated["images"])[:, 0])
        }

    def generator_losses(self, batch, condition, generated):
        judged = [losses.real_loss(critic(generated["images"])[:, 0]) for critic in self.discriminators.values()]
        return {"loss": tf.add_n(judged)}


class Classifier:
    kind = "supervised"
    hyperparameters = SimpleNamespace(ema_decay=0.0)
    clip_norms = {"classifier": 0.05}

    def __init__(self):
        layers = [keras.Input([SIZE, SIZE, 3]), keras.layers.Flatten(), keras.layers.Dense(5)]
        self.networks = {"classifier": keras.Sequential(layers)}

    optimizers = Gan.optimizers

    def noise(self, draw):
        return {"kept": draw.uniform("kept", 1)}

    def losses(self, batch, noise):
        logits = self.networks["classifier"](batch["images"][0])
        rows = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["class"], logits)
        return {"loss": tf.reduce_mean(rows * noise["kept"][:, 0])}


def trained(recipe, **execution):
    """-> every weight, and what the last of three steps logged."""
    keras.utils.set_random_seed(3)
    recipe = recipe()
    draw = np.random.default_rng(0)
    batch = {
        "images": (draw.integers(0, 256, [3, ROWS, SIZE, SIZE, 3]).astype(np.uint8),),
        "embedding": draw.normal(size=[3, ROWS, 3]).astype(np.float32),
        "class": draw.integers(0, 5, [3, ROWS]).astype(np.int32),
    }
    made = trainer(recipe, 7, 1, Execution(**execution))
    made.fit(tf.data.Dataset.from_tensor_slices(batch).repeat(), steps_per_epoch=3, epochs=1, verbose=0)
    assert int(made.step.numpy()) == 3
    return [variable.numpy() for name in recipe.networks for variable in recipe.networks[name].variables]


@pytest.mark.parametrize("recipe", [Gan, Classifier])
@pytest.mark.parametrize(
    "execution", [{"accumulate": 2}, {"accumulate": 8}, {"steps": 3}, {"scale_loss": True}], ids=str
)
def test_weights_are_those_of_the_plain_step(recipe, execution):
    for one, other in zip(trained(recipe), trained(recipe, **execution), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


class TwoStages(Gan):
    """Its pictures come through a frozen network with a batch norm."""

    def __init__(self):
        super().__init__()
        self.small = keras.Sequential([keras.Input([SIZE + 3]), BatchNormalization()], name="small")
        self.small.trainable = False
        self.networks["small"] = self.small

    def optimizers(self, steps_per_epoch):
        return {name: keras.optimizers.SGD(0.1) for name in ("generator", *self.discriminators)}

    def generate(self, condition, noise):
        self.small(tf.concat([noise["z"], condition], axis=-1), training=True)
        return super().generate(condition, noise)


def test_running_statistics_of_all_that_draws_move_once_with_every_part():
    recipe = TwoStages()
    made = trainer(recipe, 7, 1, Execution(accumulate=2))
    draw = np.random.default_rng(0)
    batch = {
        "images": (draw.integers(0, 256, [ROWS, SIZE, SIZE, 3]).astype(np.uint8),),
        "embedding": draw.normal(size=[ROWS, 3]).astype(np.float32),
        "class": np.zeros(ROWS, np.int32),
    }
    made.train_step(tf.nest.map_structure(tf.constant, batch))
    first, second = np.split(batch["embedding"], 2)
    expected = 0.9 * 0.1 * first.mean(0) + 0.1 * second.mean(0)
    np.testing.assert_allclose(recipe.small.layers[0].moving_mean[SIZE:], expected, rtol=1e-5)


def test_a_step_that_overflows_is_left_out_and_the_scale_halved():
    recipe = Gan()
    made = trainer(recipe, 7, 1, Execution(scale_loss=True))
    optimizer = made.optimizers["first"]
    variables = recipe.discriminators["first"].trainable_variables
    before = [variable.numpy() for variable in variables]
    logs = made._apply("first", [tf.fill(variable.shape, np.inf) for variable in variables], variables)
    assert float(logs["gradient_norm"]) == 0.0 and float(logs["loss_scale"]) == 2**15
    assert float(optimizer.dynamic_scale) == 2**14
    for one, other in zip(before, variables, strict=True):
        np.testing.assert_array_equal(one, other.numpy())
