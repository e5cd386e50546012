"""What is to be known of one kind of published file, and how sizes are read from its arrays."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from t2i_tf import papers
from t2i_tf.errors import UserError
from t2i_tf.published.layout import Layers, listed
from t2i_tf.published.reading import Arrays


@dataclass(frozen=True)
class Scheme:
    """How the arrays in one kind of published file belong to a paper's network."""

    paper: str
    networks: tuple[str, ...]
    """Names in the recipe's `networks` of those that one file holds."""
    help: str
    layers: Callable[..., Layers]
    """Those built networks -> their layers under published prefixes."""
    sizes: Callable[[Arrays, str], tuple[dict, papers.Context]]
    """Arrays, file name -> hyper-parameters and context for which the paper builds a network of this size."""
    rename: Callable[[Arrays], Arrays] = dict
    """From other names in circulation to those of `layers`."""
    drop: tuple[str, ...] = ()
    """See `assign`."""
    reads_words: bool = False
    """Its text encoder numbers words as the captions.pickle does that was published beside it."""
    writes_words: bool = False
    """It numbers the words that it writes as the dictionary.pkl does that its data were prepared with."""


def shapes(arrays: Arrays, source: str, dimensions: dict[str, int]) -> list[tuple[int, ...]]:
    """The shapes of the arrays that tell the sizes of a network; `dimensions`: name -> its rank."""
    unfit = [
        name
        for name, rank in dimensions.items()
        if name not in arrays or arrays[name].ndim != rank or not arrays[name].size
    ]
    if unfit:
        raise UserError(
            f"{source}: has no usable {', '.join(unfit)}; it holds {listed(arrays)}; check that "
            "file and scheme belong together"
        )
    return [arrays[name].shape for name in dimensions]


def count(arrays: Arrays, pattern: str) -> int:
    """How many different numbers stand in the names that begin with the pattern."""
    return len({match[1] for name in arrays if (match := re.match(pattern, name))})
