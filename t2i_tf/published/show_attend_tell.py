"""Show, Attend and Tell, Xu et al. (ICML 2015): the .npz files of the published program. Dense weights are (in, out) as
ours."""

from __future__ import annotations

from t2i_tf import papers
from t2i_tf.errors import UserError
from t2i_tf.published.layout import Layers, Weight, permuted
from t2i_tf.published.reading import Arrays
from t2i_tf.published.scheme import Scheme, count, shapes

_RECORDS = ("history_errs", "train_err", "valid_err", "test_err")
"""Beside the weights in a file."""


def decoder_layers(decoder, dropout: bool = False) -> Layers:
    """By the names in the published .npz.

    Args:
        dropout: the weights were trained with it. Published dropout does not rescale: at test it halves what it is
            applied to, so weights behind it are half as large here.
    """

    def matrix(layer, halved=False):
        factor = 0.5 if halved and dropout else 1.0
        return Weight(layer.kernel, lambda array: factor * array, lambda array: array / factor)

    def dense(name, layer, halved=False):
        return {f"{name}_W": matrix(layer, halved), f"{name}_b": permuted(layer.bias, 0)}

    hidden = decoder.initial_hidden
    weights = {
        "Wemb": permuted(decoder.word_vectors.vectors, 0, 1),
        "decoder_W": matrix(decoder.gates_of_word),
        "decoder_b": permuted(decoder.gates_of_word.bias, 0),
        "decoder_U": matrix(decoder.gates_of_state),
        **dense("ff_state", decoder.initial_state, halved=bool(hidden)),
        **dense("ff_memory", decoder.initial_memory, halved=bool(hidden)),
        **dense("ff_logit_lstm", decoder.output_of_state, halved=True),
        **dense("ff_logit", decoder.output_words, halved=True),
    }
    for i, layer in enumerate(hidden, 1):
        weights |= dense(f"ff_init_{i}", layer, halved=i > 1)
    for i, layer in enumerate(decoder.output_hidden, 1):
        weights |= dense(f"ff_logit_h{i}", layer, halved=True)
    if decoder.attends:
        weights |= {
            "decoder_Wc": matrix(decoder.gates_of_context),
            "decoder_Wc_att": matrix(decoder.annotation_projection),
            "decoder_b_att": permuted(decoder.annotation_projection.bias, 0),
            "decoder_Wd_att": matrix(decoder.state_projection),
            "decoder_U_att": matrix(decoder.scorer),
        }
        for i, layer in enumerate(decoder.deeper_projections, 1):
            weights |= {f"decoder_W_att_{i}": matrix(layer), f"decoder_b_att_{i}": permuted(layer.bias, 0)}
    if decoder.selector is not None:
        bias = Weight(decoder.selector.bias, lambda array: array.reshape(1), lambda array: array.reshape(()))
        weights |= {"decoder_W_sel": matrix(decoder.selector), "decoder_b_sel": bias}
    if decoder.output_of_context is not None:
        weights |= dense("ff_logit_ctx", decoder.output_of_context)
    return {"": weights}


def _sizes(arrays: Arrays, source: str, dropout: bool) -> tuple[dict, papers.Context]:
    """Whether the word before goes to the output layer leaves no trace; it does in the published run."""
    words, state, projection = shapes(arrays, source, {"Wemb": 2, "decoder_U": 2, "decoder_Wc_att": 2})
    if projection[0] != 512:
        raise UserError(
            f"{source}: is made for annotations of {projection[0]} numbers, those of VGG-19 have 512: there is no "
            "network here to go with it"
        )
    sizes = {
        "vocabulary_limit": words[0],
        "word_dim": words[1],
        "state_dim": state[0],
        "attention_layers": 1 + count(arrays, r"decoder_W_att_(\d+)$"),
        "initial_layers": 1 + count(arrays, r"ff_init_(\d+)_W$"),
        "output_layers": 1 + count(arrays, r"ff_logit_h(\d+)_W$"),
        "selector": "decoder_W_sel" in arrays,
        "context_to_output": "ff_logit_ctx_W" in arrays,
        "dropout": 0.5 if dropout else 0.0,
    }
    return sizes, papers.Context(vocabulary_size=words[0])


def _scheme(dropout: bool) -> Scheme:
    return Scheme(
        "show_attend_tell",
        ("decoder",),
        f"decoder of Show, Attend and Tell trained {'with' if dropout else 'without'} dropout: the .npz file "
        "(Wemb, decoder_W, ...), soft or hard attention; annotations are those of VGG-19",
        lambda decoder: decoder_layers(decoder, dropout),
        lambda arrays, source: _sizes(arrays, source, dropout),
        rename=lambda arrays: {name: array for name, array in arrays.items() if name not in _RECORDS},
        drop=("decoder_c_tt",),  # added to all scores alike, which the softmax cancels
        writes_words=True,
    )


SCHEMES = {
    "show_attend_tell": _scheme(dropout=True),
    "show_attend_tell_without_dropout": _scheme(dropout=False),
}
