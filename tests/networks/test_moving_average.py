from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf.networks.moving_average import MovingAverage


@pytest.fixture
def network():
    network = keras.Sequential([keras.Input([2]), keras.layers.Dense(3), keras.layers.BatchNormalization()])
    network.set_weights([np.full_like(weight, 1.0) for weight in network.get_weights()])
    return network


def fill(network, number):
    for variable in network.trainable_variables:
        variable.assign(tf.fill(variable.shape, number))


def values(variables):
    return [float(np.unique(variable.numpy()).item()) for variable in variables]


def test_an_average_by_hand(network):
    average = MovingAverage({"network": network}, 0.75)
    for number in (5.0, 9.0):
        fill(network, number)
        average.update()
    # 1 -> 0.75 * 1 + 0.25 * 5 = 2 -> 0.75 * 2 + 0.25 * 9 = 3.75
    assert values(average.shadows) == [3.75] * 4
    assert values(network.trainable_variables) == [9.0] * 4


def test_swapping_exchanges_and_twice_is_nothing(network):
    average = MovingAverage({"network": network}, 0.5)
    fill(network, 3.0)
    average.swap()
    assert average.swapped
    assert values(network.trainable_variables) == [1.0] * 4 and values(average.shadows) == [3.0] * 4
    average.swap()
    assert not average.swapped
    assert values(network.trainable_variables) == [3.0] * 4 and values(average.shadows) == [1.0] * 4


def test_restarting_takes_the_present_weights(network):
    average = MovingAverage({"network": network}, 0.5)
    fill(network, 4.0)
    average.restart()
    assert values(average.shadows) == [4.0] * 4


def test_statistics_are_no_weights(network):
    assert len(MovingAverage({"network": network}, 0.5).shadows) == len(network.trainable_variables) == 4


def test_an_average_survives_a_checkpoint(network, tmp_path):
    average = MovingAverage({"network": network}, 0.5)
    fill(network, 3.0)
    average.update()
    path = tf.train.Checkpoint(average=average).save(tmp_path / "c")
    fresh = MovingAverage({"network": network}, 0.5)
    fresh.restart()
    tf.train.Checkpoint(average=fresh).restore(path).assert_existing_objects_matched()
    assert values(fresh.shadows) == [2.0] * 4


@pytest.mark.parametrize("kind, count", [("gan", 4), ("supervised", 8)])
def test_recipes_average_their_generator_or_all_networks(network, kind, count):
    other = keras.models.clone_model(network)
    recipe = SimpleNamespace(
        kind=kind,
        generator=network,
        networks={"a": network, "b": other},
        hyperparameters=SimpleNamespace(ema_decay=0.9),
    )
    assert len(MovingAverage.of(recipe).shadows) == count
    recipe.hyperparameters.ema_decay = 0.0
    assert MovingAverage.of(recipe) is None
