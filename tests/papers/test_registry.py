import dataclasses
import typing

import pytest

from t2i_tf import papers
from t2i_tf.config import option_type
from t2i_tf.errors import UserError


@pytest.fixture(params=papers.PAPERS)
def name(request):
    return request.param


def described(owner):
    """Everything that flags, help and configuration take from a dataclass."""
    kinds = typing.get_type_hints(owner)
    return [(f.name, kinds[f.name], f.default, dict(f.metadata)) for f in dataclasses.fields(owner)]


def test_fields_from_the_syntax_tree_are_those_of_the_module(name):
    light, real = papers.hyperparameter_fields(name), papers.get(name).Hyperparameters
    assert described(light) == described(real)
    assert dataclasses.asdict(light()) == dataclasses.asdict(real())


def test_a_paper_has_what_every_paper_has(name):
    module = papers.get(name)
    defaults = module.Hyperparameters()
    assert {"batch_size", "epochs", "ema_decay"} <= {f.name for f in dataclasses.fields(defaults)}
    assert module.Recipe.kind in ("gan", "supervised")
    assert all(f.metadata["help"] for f in dataclasses.fields(defaults))
    assert all(f.default in f.metadata["choices"] for f in dataclasses.fields(defaults) if f.metadata["choices"]), (
        "a default that is no choice"
    )


def test_a_setting_has_one_type_in_all_papers():
    """The command line makes one flag of all settings of a name."""
    kinds = {}
    for paper in papers.PAPERS:
        owner = papers.hyperparameter_fields(paper)
        for field in dataclasses.fields(owner):
            kinds.setdefault(field.name, {})[paper] = option_type(field, owner)
    assert not {name: of_papers for name, of_papers in kinds.items() if len(set(of_papers.values())) > 1}


def test_none_means_the_papers_own(name):
    assert papers.resolve(name) == papers.get(name).Hyperparameters()
    assert papers.resolve(name, batch_size=None, epochs=3).epochs == 3


def test_lists_become_tuples():
    assert papers.resolve("char_cnn_rnn", text_channels=[1, 2, 3]).text_channels == (1, 2, 3)


def test_unknown_settings_are_named_with_the_known_ones():
    with pytest.raises(UserError, match="char_cnn_rnn has no setting cls_weight: it has batch_size, "):
        papers.resolve("char_cnn_rnn", cls_weight=0.5)


@pytest.mark.parametrize("ask", [papers.get, papers.hyperparameter_fields, papers.resolve])
def test_an_unknown_paper_is_answered_with_the_known_ones(ask):
    with pytest.raises(UserError, match="unknown paper 'dcgan': --paper is one of char_cnn_rnn, gan_int_cls"):
        ask("dcgan")


def test_text_channels_are_three():
    recipe = papers.get("char_cnn_rnn").Recipe
    with pytest.raises(UserError, match="--text_channels=8,8: give three numbers"):
        recipe(papers.resolve("char_cnn_rnn", text_channels=(8, 8)), papers.Context())


@pytest.mark.parametrize(
    "given, context, message",
    [
        ({"program": "cls"}, papers.Context(text_dim=16), "--program=cls has no interpolation"),
        ({"batch_size": 7}, papers.Context(text_dim=16), "--batch_size=7: .* even number"),
        ({}, papers.Context(), "give --text_encoder_run"),
    ],
)
def test_settings_of_gan_int_cls_that_do_not_go_together(given, context, message):
    with pytest.raises(UserError, match=message):
        papers.get("gan_int_cls").Recipe(papers.resolve("gan_int_cls", **given), context)


def test_a_missing_image_encoder_is_a_users_error(tmp_path):
    recipe = papers.get("char_cnn_rnn").Recipe(
        papers.resolve("char_cnn_rnn", image_encoder=str(tmp_path)), papers.Context()
    )
    with pytest.raises(UserError, match="--image_encoder=.*neither keras, random"):
        _ = recipe.frozen_features
