"""Published checkpoints of the original authors -> our weights, by name, complete or refused.

Three steps: `read` turns a file into named arrays; a `Scheme` says which names belong to which of our layers;
`assign` puts every array in its place, or refuses with the list of what is missing, left over or misshapen.
Each paper has a module here with its layers by published name, and its schemes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i_tf import papers
from t2i_tf.errors import UserError
from t2i_tf.published import char_cnn_rnn, gan_int_cls, stackgan, stackgan_v2
from t2i_tf.published.layout import Report, Weight, assign, extract, permuted, to_published
from t2i_tf.published.reading import read

__all__ = ["SCHEMES", "Import", "Weight", "assign", "extract", "load", "permuted", "read", "to_published"]

SCHEMES = {**gan_int_cls.SCHEMES, **char_cnn_rnn.SCHEMES, **stackgan.SCHEMES, **stackgan_v2.SCHEMES}


@dataclass(frozen=True)
class Import:
    """A recipe, some of whose networks hold published weights, and what it was built from."""

    recipe: Any
    hyperparameters: Any
    context: papers.Context
    report: Report


def load(scheme_name: str, path: str | Path) -> Import:
    """Builds the scheme's paper at the sizes found in the file, and sets the scheme's networks from it.

    Raises UserError for an unknown scheme, an unreadable file, or one that does not fit completely.
    """
    if scheme_name not in SCHEMES:
        raise UserError(f"unknown scheme {scheme_name!r}: --scheme is one of {', '.join(SCHEMES)}")
    scheme = SCHEMES[scheme_name]
    arrays = scheme.rename(read(path))
    sizes, context = scheme.sizes(arrays, str(path))
    hyperparameters = papers.resolve(scheme.paper, **sizes)
    recipe = papers.get(scheme.paper).Recipe(hyperparameters, context)
    layers = scheme.layers(*(recipe.networks[name] for name in scheme.networks))
    return Import(recipe, hyperparameters, context, assign(layers, arrays, str(path), scheme.drop))
