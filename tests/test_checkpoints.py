"""Checkpoints of a real, tiny run, damaged in the ways that disks and kills damage them."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import checkpoints, inference, papers
from t2i_tf.errors import UserError
from t2i_tf.networks.moving_average import MovingAverage
from t2i_tf.papers import Context


@pytest.fixture(scope="module")
def session(gan_run, tmp_path_factory):
    """A trainer of the same settings, for its weights to be overwritten."""
    from t2i_tf.training.session import Session

    return Session(gan_run.training, gan_run.given)


@pytest.fixture
def run_dir(gan_run, tmp_path):
    """A copy of the run with its three checkpoints, to be damaged."""
    return shutil.copytree(gan_run.path, tmp_path / "run")


def keeper(session, run_dir, keep=3):
    return checkpoints.Keeper(run_dir, session.trainer, keep)


def state(trainer):
    """Everything the next step depends on."""
    variables = [v for network in trainer.networks.values() for v in network.variables]
    variables += [v for optimizer in trainer.optimizers.values() for v in optimizer.variables]
    return [np.array(v) for v in [trainer.step, *variables, *trainer.average.shadows]]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def spoil(trainer):
    for network in trainer.networks.values():
        for variable in network.variables:
            variable.assign(tf.fill(variable.shape, -7.0))


def file(run_dir, step, kind):
    return run_dir / "checkpoints" / f"ckpt-{step}.{'index' if kind == 'index' else 'data-00000-of-00001'}"


def truncate(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def test_all_that_the_next_step_depends_on_comes_back(session, run_dir):
    restored = keeper(session, run_dir)
    assert restored.restore() == 3
    before = state(session.trainer)
    spoil(session.trainer)
    assert not same(state(session.trainer), before)
    assert restored.restore() == 3
    assert same(state(session.trainer), before)
    trained = [np.abs(slot).max() for slot in state(session.trainer)]
    assert max(trained) > 0 and session.trainer.average is not None


class Listed(keras.Model):
    """Keeps layers where TensorFlow's object graph does not look: in a list, in a dict, in a Sequential."""

    def __init__(self):
        super().__init__()
        self.blocks, self.named = [keras.layers.Dense(2) for _ in range(2)], {"a": keras.layers.Dense(2)}
        self.stack = keras.Sequential([keras.layers.Dense(2), keras.layers.BatchNormalization()])

    def call(self, x):
        for layer in [*self.blocks, self.named["a"], self.stack]:
            x = layer(x)
        return x


def test_no_variable_is_left_out_wherever_a_network_keeps_its_layers(tmp_path):
    networks = []
    for _ in range(2):
        networks.append(Listed())
        networks[-1](tf.ones([1, 2]))
    saved, loaded = networks
    saved.stack.layers[-1].moving_mean.assign([3.0, 4.0])
    checkpoints.save_weights(tmp_path, 7, {"network": saved})
    path = tf.train.latest_checkpoint(tmp_path / "checkpoints")
    assert sum(name.startswith("networks/network/") for name, _ in tf.train.list_variables(path)) == 12
    assert checkpoints.load_weights(tmp_path, {"network": loaded}) == 7
    for one, other in zip(saved.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_loaded_text_encoder_is_the_trained_one(text_encoder_run, tmp_path):
    """Statistics and all layers of both encoders, through a checkpoint of training and through weights alone."""
    from t2i_tf.training.session import Session

    training = dataclasses.replace(text_encoder_run.training, run_dir=str(tmp_path / "run"))
    session = Session(training, text_encoder_run.given)
    for network in session.recipe.networks.values():
        for number, variable in enumerate(network.variables):
            variable.assign(tf.fill(variable.shape, 1.0 + number))
    whole = keeper(session, tmp_path / "run")
    whole.save()
    (tmp_path / "run" / "config.json").write_text(session.config.to_json())
    loaded = inference.load(tmp_path / "run")
    loaded.save(tmp_path / "weights")
    for run in (loaded, inference.load(tmp_path / "weights")):
        for name, network in run.recipe.networks.items():
            for one, other in zip(network.variables, session.recipe.networks[name].variables, strict=True):
                np.testing.assert_array_equal(one, other, err_msg=one.path)


def test_a_folder_without_checkpoints_starts_at_zero(session, tmp_path):
    assert keeper(session, tmp_path).restore() == 0


@pytest.fixture(scope="module")
def second(session, gan_run, tmp_path_factory):
    """What a trainer holds that was restored from the second checkpoint."""
    copy = shutil.copytree(gan_run.path, tmp_path_factory.mktemp("second") / "run")
    for kind in ("data", "index"):
        file(copy, 3, kind).unlink()
    assert keeper(session, copy).restore() == 2
    return state(session.trainer)


DAMAGES = pytest.mark.parametrize(
    "kind, share", [("data", 0.5), ("data", 0.99), ("data", 0.0), ("index", 0.5), ("index", 0.0), ("index", None)]
)


def damage(path, share):
    """Leaves that share of a file, or none of it."""
    if share is None:
        path.unlink()
    else:
        truncate(path, share)


@DAMAGES
def test_a_damaged_newest_falls_back_to_the_one_before(session, second, run_dir, caplog, kind, share):
    damage(file(run_dir, 3, kind), share)
    spoil(session.trainer)
    damaged = keeper(session, run_dir)
    assert damaged.restore() == 2
    assert same(state(session.trainer), second)
    assert "ckpt-3 (" in caplog.text and "cannot be read: using the one of step 2" in caplog.text

    session.trainer.step.assign(3)  # training goes on and saves the third anew
    damaged.save()
    spoil(session.trainer)
    assert keeper(session, run_dir).restore() == 3
    assert checkpoints.load_weights(run_dir, session.trainer.networks) == 3


def test_when_none_can_be_read_the_run_stops_and_deletes_nothing(session, run_dir):
    for step in (1, 2, 3):
        truncate(file(run_dir, step, "data"), 0.3)
    before = sorted(path.name for path in (run_dir / "checkpoints").iterdir())
    with pytest.raises(UserError, match="none of the checkpoints in .* can be read"):
        keeper(session, run_dir).restore()
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir()) == before


def test_leftovers_of_a_killed_save_are_removed(session, run_dir):
    leftover = run_dir / "checkpoints" / "ckpt-4_temp"
    leftover.mkdir()
    (leftover / "part-00000-of-00001.data-00000-of-00001").write_bytes(b"half")
    assert keeper(session, run_dir).restore() == 3
    assert not leftover.exists()


def test_only_so_many_are_kept(session, tmp_path):
    kept = keeper(session, tmp_path, keep=2)
    for step in (10, 20, 30):
        session.trainer.step.assign(step)
        kept.save()
    names = {path.stem for path in (tmp_path / "checkpoints").glob("*.index")}
    assert names == {"ckpt-20", "ckpt-30"}
    assert checkpoints.load_weights(tmp_path, session.trainer.networks) == 30


def test_a_run_without_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} has no checkpoint yet: train it first"):
        checkpoints.load_weights(tmp_path, {})


def recipe_of(gan_run, **changes):
    hyperparameters = papers.resolve("gan_int_cls", **{**gan_run.given, **changes})
    return papers.get("gan_int_cls").Recipe(hyperparameters, Context(text_dim=16))


@pytest.mark.parametrize("changes", [{"generator_width": 8}, {"discriminator_width": 6}, {"text_projection": 12}])
def test_weights_of_another_width_are_refused(gan_run, changes):
    with pytest.raises(UserError, match="does not fit this model") as error:
        checkpoints.load_weights(gan_run.path, recipe_of(gan_run, **changes).networks)
    assert "ckpt-3" in str(error.value) and "\n" not in str(error.value)


def test_weights_that_the_checkpoint_lacks_are_an_error(gan_run, gan):
    with pytest.raises(UserError, match="its generator has 53 variables, here are 83"):
        checkpoints.load_weights(gan_run.path, recipe_of(gan_run, large_generator=True).networks)


def test_a_checkpoint_of_another_paper_is_refused_by_name(text_encoder_run, gan):
    with pytest.raises(UserError, match="is of another paper: it has no discriminator, generator, only image_encoder"):
        checkpoints.load_weights(text_encoder_run.path, gan.recipe.networks)


def test_an_average_that_was_not_kept_is_an_error(text_encoder_run):
    recipe = inference.load(text_encoder_run.path).recipe
    with pytest.raises(UserError, match="lacks weights of this model"):
        checkpoints.load_weights(text_encoder_run.path, recipe.networks, MovingAverage(recipe.networks, 0.5))


@pytest.fixture(scope="module")
def second_weights(gan_run, tmp_path_factory):
    """Those of the second checkpoint: of a run that has no third."""
    copy = shutil.copytree(gan_run.path, tmp_path_factory.mktemp("second") / "run")
    for kind in ("data", "index"):
        file(copy, 3, kind).unlink()
    return weights(inference.load(copy, "raw").recipe.networks)


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "root"]  # the others are TensorFlow's


@DAMAGES
def test_a_run_in_use_falls_back_to_the_one_before(second_weights, run_dir, caplog, kind, share):
    damage(file(run_dir, 3, kind), share)
    run = inference.load(run_dir, "raw")
    assert run.step == 2
    same_weights(run, second_weights)
    (warning,) = warnings(caplog)
    assert warning.startswith(f"checkpoint {run_dir}/checkpoints/ckpt-3 (")
    assert warning.endswith(") cannot be read: using the one of step 2") and "\n" not in warning


def test_all_damaged_checkpoints_are_named_in_one_line(run_dir, caplog):
    damage(file(run_dir, 3, "index"), None)
    damage(file(run_dir, 2, "data"), 0.3)
    assert inference.load(run_dir, "raw").step == 1
    (warning,) = warnings(caplog)
    assert "ckpt-3 (" in warning and "ckpt-2 (" in warning and "the one of step 1" in warning


def test_a_run_of_damaged_checkpoints_is_not_loaded(run_dir):
    for step in (1, 2, 3):
        truncate(file(run_dir, step, "index"), 0.3)
    with pytest.raises(UserError, match="none of the checkpoints in .* can be read") as error:
        inference.load(run_dir)
    assert "\n" not in str(error.value)


def test_a_checkpoint_that_does_not_fit_is_refused_before_any_older_one_is_tried(gan_run, run_dir, tmp_path):
    checkpoints.save_weights(tmp_path, 3, recipe_of(gan_run, generator_width=8).networks)
    for kind in ("data", "index"):
        shutil.copy(file(tmp_path, 3, kind), file(run_dir, 3, kind))
    with pytest.raises(UserError, match="ckpt-3 does not fit this model"):
        inference.load(run_dir)


def weights(networks):
    return {name: network.get_weights() for name, network in networks.items()}


def same_weights(run, expected):
    tf.nest.map_structure(np.testing.assert_array_equal, weights(run.recipe.networks), expected)


@pytest.mark.parametrize("swapped", [False, True])
def test_weights_alone_survive_with_their_average(gan_run, gan, tmp_path, swapped):
    run = gan if swapped else inference.load(gan_run.path, "raw")
    assert run.average.swapped == swapped
    before = weights(run.recipe.networks)
    run.save(tmp_path / "copy")
    assert run.average.swapped == swapped
    same_weights(run, before)
    copy = inference.load(tmp_path / "copy", "ema" if swapped else "raw")
    assert copy.step == 3
    same_weights(copy, before)
    copy.average.swap()
    run.average.swap()
    same_weights(copy, weights(run.recipe.networks))
    run.average.swap()
    names = dict(tf.train.list_variables(tf.train.latest_checkpoint(tmp_path / "copy" / "checkpoints")))
    assert not any("optimizers" in name for name in names)


def test_the_same_run_resumes_from_where_it_stood(gan_run, run_dir):
    from t2i_tf.training import loop

    training = dataclasses.replace(gan_run.training, run_dir=str(run_dir))
    outcome = loop.run(training, gan_run.given)  # three steps are done: nothing is left to do
    assert (outcome.step, outcome.steps, outcome.interrupted) == (3, 3, False)
