"""The DAMSM's encoders, Xu et al. (CVPR 2018): state dicts of text and image encoder."""

from __future__ import annotations

from t2i_tf import papers
from t2i_tf.errors import UserError
from t2i_tf.published.layout import Layers, Weight, permuted
from t2i_tf.published.reading import Arrays
from t2i_tf.published.scheme import Scheme, shapes


def _recurrent(rnn, suffix: str) -> dict[str, Weight]:
    """A direction: input and recurrent weights (gates * units, in), two biases (gates * units)."""
    cell = rnn.cell
    return {
        f"weight_ih_l0{suffix}": permuted(cell.kernel, 1, 0),
        f"weight_hh_l0{suffix}": permuted(cell.recurrent_kernel, 1, 0),
        f"bias_ih_l0{suffix}": permuted(cell.bias, 0),
        f"bias_hh_l0{suffix}": permuted(cell.recurrent_bias, 0),
    }


def text_encoder_layers(text_encoder) -> Layers:
    """By the names in the published state dict."""
    return {
        "encoder": text_encoder.embedding,
        "rnn": _recurrent(text_encoder.forward, "") | _recurrent(text_encoder.backward, "_reverse"),
    }


def image_encoder_layers(image_encoder) -> Layers:
    """By the names in the published state dict: Inception-v3 and two linear maps."""
    layers: dict = {"emb_features": image_encoder.region_map, "emb_cnn_code": image_encoder.code_map}
    for name, unit in image_encoder.trunk.units.items():
        layers |= {f"{name}.conv": unit.conv, f"{name}.bn": unit.norm}
    return layers


def text_sizes(arrays: Arrays, source: str) -> tuple[dict, papers.Context]:
    """Of a text encoder, and so of the image encoder beside it. Raises UserError."""
    (vocabulary_size, word_dim), (gates, units) = shapes(arrays, source, {"encoder.weight": 2, "rnn.weight_hh_l0": 2})
    recurrent = {3 * units: "gru", 4 * units: "lstm"}.get(gates)
    if recurrent is None:
        raise UserError(
            f"{source}: rnn.weight_hh_l0 ({gates}, {units}) is of no LSTM and no GRU; check that file and scheme "
            "belong together"
        )
    sizes = {"recurrent": recurrent, "word_dim": word_dim, "embedding_dim": 2 * units}
    return sizes, papers.Context(vocabulary_size=vocabulary_size)


def _sizes(arrays: Arrays, source: str) -> tuple[dict, papers.Context]:
    sizes, context = text_sizes(arrays, source)
    return {**sizes, "image_encoder": "inception"}, context


def _image_sizes(arrays: Arrays, source: str) -> tuple[dict, papers.Context]:
    """An image encoder knows nothing of the vocabulary: 1, the padding alone."""
    ((width, *_),) = shapes(arrays, source, {"emb_features.weight": 4})
    return {"embedding_dim": width, "image_encoder": "inception"}, papers.Context(vocabulary_size=1)


SCHEMES = {
    "damsm": Scheme(
        "damsm",
        ("text_encoder", "image_encoder"),
        "both encoders of a DAMSM, two files: text_encoder<epoch>.pth,image_encoder<epoch>.pth; judges r_precision and "
        "trains AttnGAN (--damsm_run)",
        lambda text_encoder, image_encoder: text_encoder_layers(text_encoder) | image_encoder_layers(image_encoder),
        _sizes,
        reads_words=True,
    ),
    "damsm_text_encoder": Scheme(
        "damsm",
        ("text_encoder",),
        "text encoder of a DAMSM alone: text_encoder<epoch>.pth; encodes captions, and compares them with no pictures; "
        "for AttnGAN give the file beside the generator's (--scheme=attngan)",
        text_encoder_layers,
        text_sizes,
        reads_words=True,
    ),
    "damsm_image_encoder": Scheme(
        "damsm",
        ("image_encoder",),
        "image encoder of a DAMSM alone: image_encoder<epoch>.pth; encodes pictures, and reads no captions",
        image_encoder_layers,
        _image_sizes,
    ),
}
