"""Published files of Show, Attend and Tell: names, sizes read from them, dropout, and what does not fit.

tests/parity compares what the weights compute.
"""

import numpy as np
import pytest
import tensorflow as tf

from t2i_tf import published
from t2i_tf.errors import UserError
from t2i_tf.papers import Context, show_attend_tell

RANDOM = np.random.RandomState(0)
SIZES = {"word_dim": 6, "state_dim": 5, "vocabulary_limit": 9}


def recipe(**given):
    hyperparameters = show_attend_tell.Hyperparameters(**{**SIZES, **given})
    return show_attend_tell.Recipe(hyperparameters, Context(vocabulary_size=9))


def published_arrays(**given):
    """As the published program names and shapes them, with all it keeps beside."""
    layers = published.show_attend_tell.decoder_layers(recipe(**given).decoder)
    arrays = {
        name: np.asarray(RANDOM.normal(size=array.shape), "f4") for name, array in published.extract(layers).items()
    }
    arrays |= {"decoder_c_tt": np.array([0.3], "f4"), "history_errs": RANDOM.rand(7, 2)}
    return arrays | {"train_err": np.float64(1), "valid_err": np.float64(2), "test_err": np.float64(3)}


def save(path, arrays):
    np.savez(path, zipped_params=np.array([{"pickled": 1}], object), **arrays)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"attention_layers": 1, "initial_layers": 1, "selector": False, "context_to_output": False},
        {"attention_layers": 3, "initial_layers": 3, "output_layers": 3},
    ],
    ids=["published", "few", "many"],
)
@pytest.mark.parametrize("dropout", [True, False])
def test_a_decoder(tmp_path, given, dropout):
    arrays = published_arrays(**given)
    save(tmp_path / "model.npz", arrays)
    scheme = "show_attend_tell" if dropout else "show_attend_tell_without_dropout"
    imported = published.load(scheme, tmp_path / "model.npz")
    wanted = {**SIZES, "attention_layers": 2, "initial_layers": 2, "output_layers": 1, "selector": True}
    wanted |= {"context_to_output": True, "dropout": 0.5 if dropout else 0.0, **given}
    assert {name: getattr(imported.hyperparameters, name) for name in wanted} == wanted
    assert imported.recipe.vocabulary_size == 9
    assert imported.report.dropped == {"decoder_c_tt": pytest.approx(0.3)}
    decoder = imported.recipe.decoder
    assert len(imported.report.assigned) == len(decoder.trainable_variables)
    back = published.extract(published.show_attend_tell.decoder_layers(decoder, dropout))
    assert back.keys() == arrays.keys() - {"decoder_c_tt", "history_errs", "train_err", "valid_err", "test_err"}
    for name, array in back.items():
        np.testing.assert_allclose(array, arrays[name], rtol=1e-6, err_msg=name)


def test_names_and_shapes_are_those_of_the_published_program():
    arrays = published_arrays(attention_layers=3, output_layers=2)
    v, e, h, d = 9, 6, 5, 512
    assert {name: arrays[name].shape for name in arrays if not name.endswith(("_err", "_errs"))} == {
        "Wemb": (v, e),
        "ff_init_1_W": (d, d), "ff_init_1_b": (d,),
        "ff_state_W": (d, h), "ff_state_b": (h,), "ff_memory_W": (d, h), "ff_memory_b": (h,),
        "decoder_W": (e, 4 * h), "decoder_U": (h, 4 * h), "decoder_b": (4 * h,), "decoder_Wc": (d, 4 * h),
        "decoder_Wc_att": (d, d), "decoder_b_att": (d,), "decoder_Wd_att": (h, d),
        "decoder_W_att_1": (d, d), "decoder_b_att_1": (d,), "decoder_W_att_2": (d, d), "decoder_b_att_2": (d,),
        "decoder_U_att": (d, 1), "decoder_c_tt": (1,), "decoder_W_sel": (h, 1), "decoder_b_sel": (),
        "ff_logit_lstm_W": (h, e), "ff_logit_lstm_b": (e,), "ff_logit_ctx_W": (d, e), "ff_logit_ctx_b": (e,),
        "ff_logit_h1_W": (e, e), "ff_logit_h1_b": (e,), "ff_logit_W": (e, v), "ff_logit_b": (v,),
    }  # fmt: skip


def test_weights_behind_dropout_are_halved():
    decoder = recipe(initial_layers=3, output_layers=2).decoder
    layers = published.show_attend_tell.decoder_layers(decoder, dropout=True)[""]
    ours = {name: weight.to_ours(np.ones(weight.published_shape)) for name, weight in layers.items()}
    half = {name for name, array in ours.items() if array.flat[0] == 0.5}
    assert half == {"ff_init_2_W", "ff_state_W", "ff_memory_W", "ff_logit_lstm_W", "ff_logit_h1_W", "ff_logit_W"}
    without = recipe(initial_layers=1).decoder
    layers = published.show_attend_tell.decoder_layers(without, dropout=True)[""]
    assert float(layers["ff_state_W"].to_ours(np.ones(1))[0]) == 1.0  # nothing is dropped before it


def test_an_imported_decoder_writes_captions(tmp_path):
    save(tmp_path / "model.npz", published_arrays())
    made = published.load("show_attend_tell", tmp_path / "model.npz").recipe
    captions = made.caption({"annotations": tf.random.stateless_uniform([2, 196, 512], [0, 1])}, 3, max_length=6)
    assert captions.attention.shape == (2, captions.ids.shape[1], 196)
    assert int(tf.reduce_max(captions.ids)) < 9


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda arrays: arrays.pop("Wemb"), "has no usable Wemb; it holds"),
        (lambda arrays: arrays.pop("ff_logit_b"), "missing: 1 (ff_logit_b)"),
        (lambda arrays: arrays.update(encoder_W=np.ones(3)), "left over: 1 (encoder_W)"),
        (lambda arrays: arrays.update(decoder_2_U=np.ones(3)), "left over: 1 (decoder_2_U)"),
        (lambda arrays: arrays.update(decoder_b_sel=np.ones(1)), "misshapen: 1 (decoder_b_sel is (1,), not ())"),
        (lambda arrays: arrays.update(decoder_Wc_att=np.ones((8, 8))), "made for annotations of 8 numbers"),
    ],
)
def test_files_that_do_not_fit(tmp_path, change, message):
    arrays = published_arrays()
    change(arrays)
    save(tmp_path / "model.npz", arrays)
    with pytest.raises(UserError) as error:
        published.load("show_attend_tell", tmp_path / "model.npz")
    assert message in str(error.value) and "\n" not in str(error.value)
