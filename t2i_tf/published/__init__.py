"""Published checkpoints of the original authors -> our weights, by name, complete or refused.

Three steps: `read` turns a file into named arrays; a `Scheme` says which names belong to which of our layers;
`assign` puts every array in its place, or refuses with the list of what is missing, left over or misshapen.
Each paper has a module here with its layers by published name, and its schemes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i_tf import papers
from t2i_tf.errors import UserError
from t2i_tf.published import attngan, char_cnn_rnn, damsm, gan_int_cls, show_attend_tell, stackgan, stackgan_v2
from t2i_tf.published.layout import Report, Weight, assign, extract, listed, permuted, to_published
from t2i_tf.published.reading import read
from t2i_tf.published.scheme import Scheme

__all__ = ["SCHEMES", "Import", "Weight", "assign", "extract", "find", "load", "permuted", "read", "to_published"]

SCHEMES = {
    **gan_int_cls.SCHEMES,
    **char_cnn_rnn.SCHEMES,
    **stackgan.SCHEMES,
    **stackgan_v2.SCHEMES,
    **damsm.SCHEMES,
    **attngan.SCHEMES,
    **show_attend_tell.SCHEMES,
}


def find(name: str) -> Scheme:
    """The scheme of that name. Raises UserError with the known names."""
    if name not in SCHEMES:
        raise UserError(f"unknown scheme {name!r}: --scheme is one of {', '.join(SCHEMES)}")
    return SCHEMES[name]


@dataclass(frozen=True)
class Import:
    """A recipe, some of whose networks hold published weights, and what it was built from."""

    recipe: Any
    hyperparameters: Any
    context: papers.Context
    report: Report


def load(
    scheme_name: str,
    path: str | Path | Sequence[str | Path],
    hyperparameters: dict | None = None,
    context: dict | None = None,
) -> Import:
    """Builds the scheme's paper at the sizes found in the file, and sets the scheme's networks from it.

    Args:
        path: the file, or several that hold the networks of the scheme together.
        hyperparameters, context: what no file tells, e.g. {"vocabulary_size": 5450}; they win over what it tells.

    Raises UserError for an unknown scheme, an unreadable file, or one that does not fit completely.
    """
    scheme = find(scheme_name)
    paths = [path] if isinstance(path, str | Path) else path
    source, arrays = ",".join(map(str, paths)), {}
    for one in paths:
        added = scheme.rename(read(one))
        if twice := arrays.keys() & added.keys():
            raise UserError(f"{one}: holds {listed(sorted(twice))} again: give each network once")
        arrays |= added
    sizes, found = scheme.sizes(arrays, source)
    found = dataclasses.replace(found, **(context or {}))
    resolved = papers.resolve(scheme.paper, **{**sizes, **(hyperparameters or {})})
    recipe = papers.get(scheme.paper).Recipe(resolved, found)
    layers = scheme.layers(*(recipe.networks[name] for name in scheme.networks))
    return Import(recipe, resolved, found, assign(layers, arrays, source, scheme.drop))
