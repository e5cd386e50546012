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
from t2i_tf.published import (
    attngan,
    char_cnn_rnn,
    damsm,
    gan_int_cls,
    show_attend_tell,
    stackgan,
    stackgan_tensorflow,
    stackgan_v2,
)
from t2i_tf.published.layout import Report, Weight, assign, extract, listed, permuted, to_published
from t2i_tf.published.reading import read
from t2i_tf.published.scheme import Scheme

__all__ = ["SCHEMES", "Import", "Weight", "assign", "extract", "find", "load", "permuted", "read", "to_published"]

SCHEMES = {
    **gan_int_cls.SCHEMES,
    **char_cnn_rnn.SCHEMES,
    **stackgan.SCHEMES,
    **stackgan_tensorflow.SCHEMES,
    **stackgan_v2.SCHEMES,
    **damsm.SCHEMES,
    **attngan.SCHEMES,
    **show_attend_tell.SCHEMES,
}


def find(name: str, paper: str | None = None) -> Scheme:
    """The scheme of that name. Raises UserError with the known ones, those of the paper where it has some."""
    if name not in SCHEMES:
        known = [key for key, scheme in SCHEMES.items() if scheme.paper == paper] or SCHEMES
        told = "; ".join(f"{key} ({SCHEMES[key].help})" for key in known)
        raise UserError(f"unknown scheme {name!r}: --scheme is one of {told}")
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
        hyperparameters: what no file tells.
        context: the same, e.g. {"vocabulary_size": 5450}; it wins over what the files tell.

    Raises UserError for an unknown scheme, an unreadable file, one that does not fit completely, or a hyper-parameter
    that is another than the one the weights go with.
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
    for name, value in (hyperparameters or {}).items():
        if value != sizes.get(name, value):
            raise UserError(f"--{name}={value}: the weights in {source} go with {sizes[name]}: leave it out")
    resolved = papers.resolve(scheme.paper, **{**sizes, **(hyperparameters or {})})
    recipe = papers.get(scheme.paper).Recipe(resolved, found)
    if not recipe.networks.keys() >= set(scheme.networks):
        _refuse_networks(scheme, recipe, source)
    layers = scheme.layers(*(recipe.networks[name] for name in scheme.networks))
    return Import(recipe, resolved, found, assign(layers, arrays, source, scheme.drop))


def _refuse_networks(scheme: Scheme, recipe, source: str) -> None:
    """The arrays are of a form of the paper that lacks networks of the scheme."""
    lacking = [name for name in scheme.networks if name not in recipe.networks]
    fitting = [
        name
        for name, other in SCHEMES.items()
        if (other.paper, other.layers) == (scheme.paper, scheme.layers) and recipe.networks.keys() >= {*other.networks}
    ]
    raise UserError(
        f"{source}: is of a form of {scheme.paper} that has no {', '.join(lacking)}: give --scheme="
        f"{' or '.join(fitting) or 'that of a single network'}"
    )
