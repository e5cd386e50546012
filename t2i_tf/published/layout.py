"""Our layers under published names: which variable holds which array, and in which layout.

Published layouts are those of PyTorch and Torch7: convolutions (out, in, rows, columns), transposed ones
(in, out, rows, columns), temporal ones (out, in, kernel), dense layers (out, in).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from t2i_tf.errors import UserError
from t2i_tf.published.reading import Arrays

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Weight:
    """The place of one published array: our variable, and how the layout is turned into ours and back."""

    variable: keras.Variable
    to_ours: Callable[[np.ndarray], np.ndarray]
    to_published: Callable[[np.ndarray], np.ndarray]

    @property
    def published_shape(self) -> tuple[int, ...]:
        return self.to_published(np.broadcast_to(np.float32(0), self.variable.shape)).shape


Layers = Mapping[str, "keras.layers.Layer | Mapping[str, Weight]"]
"""Published prefix -> our built layer; or -> {last name: Weight}, for a layer whose layout is its own."""


def permuted(variable: keras.Variable, *axes: int) -> Weight:
    """A Weight whose published axes, taken in the order of `axes`, are those of the variable."""
    back = np.argsort(axes)
    return Weight(variable, lambda array: array.transpose(axes), lambda array: array.transpose(back))


def _layer_weights(layer) -> Mapping[str, Weight]:
    import keras

    if isinstance(layer, Mapping):
        return layer
    if not layer.built:
        raise ValueError(f"{layer.name} is not built: call the network once before its weights are set")
    if hasattr(layer, "moving_mean"):
        variables = {
            "weight": layer.gamma,
            "bias": layer.beta,
            "running_mean": layer.moving_mean,
            "running_var": layer.moving_variance,
        }
        return {name: permuted(variable, 0) for name, variable in variables.items() if variable is not None}
    if isinstance(layer, keras.layers.Embedding):
        return {"weight": permuted(layer.embeddings, 0, 1)}
    if isinstance(layer, keras.layers.Conv2D | keras.layers.Conv2DTranspose):
        weights = {"weight": permuted(layer.kernel, 2, 3, 1, 0)}
    elif isinstance(layer, keras.layers.Conv1D):
        weights = {"weight": permuted(layer.kernel, 2, 1, 0)}
    elif isinstance(layer, keras.layers.Dense):
        weights = {"weight": permuted(layer.kernel, 1, 0)}
    else:
        raise TypeError(f"{layer.name}: no published layout for a {type(layer).__name__}: give its Weights")
    return weights if layer.bias is None else {**weights, "bias": permuted(layer.bias, 0)}


def _weights(layers: Layers) -> dict[str, Weight]:
    return {
        f"{prefix}.{name}".removeprefix("."): weight
        for prefix, layer in layers.items()
        for name, weight in _layer_weights(layer).items()
    }


@dataclass(frozen=True)
class Report:
    """What `assign` did: the names it set, how many numbers, and the largest |value| of what it dropped."""

    source: str
    assigned: tuple[str, ...]
    numbers: int
    dropped: dict[str, float]

    def __str__(self) -> str:
        text = f"{self.source}: {len(self.assigned)} arrays, {self.numbers:,} numbers set"
        if self.dropped:
            text += f"; dropped {listed(self.dropped)}, largest |value| {max(self.dropped.values()):.3g}"
        return text


def assign(layers: Layers, arrays: Arrays, source: str, drop: Iterable[str] = ()) -> Report:
    """Sets every variable of `layers` from published arrays.

    Args:
        layers: published prefix -> built layer.
        arrays: published name (prefix.weight, ...) -> array; counters (*.num_batches_tracked) are ignored.
        source: names the file in messages.
        drop: last names, e.g. ("bias",), that the file may hold for a layer of ours that has no such weight.

    Raises:
        UserError: an array is missing, left over, of another shape or not finite; nothing has been set then.
    """
    weights = _weights(layers)
    droppable = {f"{prefix}.{name}".removeprefix(".") for prefix in layers for name in drop}
    surplus = [name for name in arrays if name not in weights and not name.endswith(".num_batches_tracked")]
    dropped = [name for name in surplus if name in droppable]
    fitting = [
        name for name, weight in weights.items() if name in arrays and arrays[name].shape == weight.published_shape
    ]
    problems = {
        "missing": [name for name in weights if name not in arrays],
        "left over": [name for name in surplus if name not in droppable],
        "misshapen": [
            f"{name} is {arrays[name].shape}, not {weight.published_shape}"
            for name, weight in weights.items()
            if name in arrays and name not in fitting
        ],
        "not finite numbers": [name for name in [*fitting, *dropped] if not _is_finite(arrays[name])],
    }
    found = [f"{problem}: {listed(names)}" for problem, names in problems.items() if names]
    if found:
        raise UserError(
            f"{source} does not fit the network; {'; '.join(found)}; check that file, scheme and sizes belong together"
        )
    for name, weight in weights.items():
        weight.variable.assign(weight.to_ours(np.asarray(arrays[name], np.float32)))
    return Report(
        source,
        tuple(weights),
        sum(arrays[name].size for name in weights),
        {name: float(np.abs(arrays[name]).max(initial=0)) for name in dropped},
    )


def _is_finite(array: np.ndarray) -> bool:
    with np.errstate(over="ignore"):  # a double beyond float32 is infinite to us
        return array.dtype.kind in "fiu" and bool(np.isfinite(array.astype(np.float32)).all())


def listed(names: Iterable[str]) -> str:
    names = [name if name.isprintable() else repr(name) for name in names]
    return f"{len(names)} ({', '.join(names[:10])}{', ...' if len(names) > 10 else ''})"


def extract(layers: Layers) -> Arrays:
    """The inverse of `assign`: our weights under published names, in published layouts."""
    return {
        name: np.array(weight.to_published(np.asarray(weight.variable))) for name, weight in _weights(layers).items()
    }


def to_published(layers: Layers, variables: Sequence[keras.Variable], values: Sequence[Any]) -> Arrays:
    """Values that belong to variables (gradients, moments) under published names, in published layouts.

    Args:
        layers: published prefix -> built layer.
        variables: variables of those layers in any order; variables of other layers are passed over.
        values: for each variable an array of its shape, or None (no gradient), which is passed over.
    """
    value_of = {
        id(variable): np.asarray(value) for variable, value in zip(variables, values, strict=True) if value is not None
    }
    return {
        name: np.array(weight.to_published(value_of[id(weight.variable)]))
        for name, weight in _weights(layers).items()
        if id(weight.variable) in value_of
    }
