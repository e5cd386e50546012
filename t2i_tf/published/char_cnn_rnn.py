"""char-CNN-RNN, Reed et al. (CVPR and ICML 2016): Torch7 files, and the state dict of the PyTorch port."""

from __future__ import annotations

from t2i_tf import papers
from t2i_tf.published.layout import Layers
from t2i_tf.published.reading import Arrays
from t2i_tf.published.scheme import Scheme, shapes


def text_encoder_layers(text_encoder) -> Layers:
    """By the names in the state dict of the PyTorch port."""
    recurrent = text_encoder.recurrent
    maps = ("i2h", "h2h", "i2h_update", "h2h_update", "i2h_reset", "h2h_reset")
    return {
        "conv1": text_encoder.conv1,
        "conv2": text_encoder.conv2,
        "conv3": text_encoder.conv3,
        **{f"rnn.{name}": getattr(recurrent, name) for name in maps if hasattr(recurrent, name)},
        "emb_proj": text_encoder.projection,
    }


def _sizes(arrays: Arrays, source: str) -> tuple[dict, papers.Context]:
    *convolutions, projection = shapes(
        arrays, source, {"conv1.weight": 3, "conv2.weight": 3, "conv3.weight": 3, "emb_proj.weight": 2}
    )
    sizes = {
        "recurrent": "gru" if "rnn.i2h_update.weight" in arrays else "rnn",
        "text_channels": tuple(shape[0] for shape in convolutions),
        "embedding_dim": projection[0],
    }
    return sizes, papers.Context()


def _port_names(arrays: Arrays) -> Arrays:
    """Places in the original nngraph -> names of the PyTorch port; those names pass unchanged.

    The encoder is at protos.enc_doc of a file, or is all of it. The steps of the unrolled recurrence share
    their tensors, so that each is there once, at its first place.
    """
    arrays = {name.removeprefix("protos.enc_doc."): array for name, array in arrays.items()}
    places = {"2.1": "conv1", "2.4": "conv2", "2.7": "conv3", "4.2.1": "rnn.i2h", "4.6.1": "rnn.h2h", "6": "emb_proj"}
    if "4.15.1.weight" in arrays:  # only the GRU has so many
        places |= {
            "4.5.1": "rnn.i2h_update",
            "4.6.1": "rnn.h2h_update",
            "4.10.1": "rnn.i2h_reset",
            "4.11.1": "rnn.h2h_reset",
            "4.15.1": "rnn.h2h",
        }
    parts = {name: name.rpartition(".") for name in arrays}
    return {f"{places.get(place, place)}{dot}{leaf}": arrays[name] for name, (place, dot, leaf) in parts.items()}


SCHEMES = {
    "char_cnn_rnn": Scheme(
        "char_cnn_rnn",
        ("text_encoder",),
        "text encoder of Reed et al. (CVPR or ICML 2016): its .t7 file, or a .pth file of the PyTorch port "
        "(conv1.weight, rnn.i2h.weight, ...); birds (GRU) and flowers (RNN)",
        text_encoder_layers,
        _sizes,
        _port_names,
    ),
}
