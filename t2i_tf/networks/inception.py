"""Inception-v3 (Szegedy et al., CVPR 2016) in the layout of the published DAMSM image encoders.

Blocks, branches and units carry the names that published files have them under.
"""

from __future__ import annotations

import re

import keras
import tensorflow as tf

from t2i_tf.networks.composite import Composite, Network
from t2i_tf.networks.constant import of_weights, traced_with_constant_weights
from t2i_tf.networks.normalisation import BatchNormalization

SIZE = 299


class Unit(Composite):
    """Convolution without bias, batch norm with epsilon 1e-3, ReLU. Stride 2 does not pad."""

    def __init__(self, filters: int, kernel, stride: int = 1, padding: str = "same", **kwargs):
        super().__init__(**kwargs)
        padding = padding if stride == 1 else "valid"
        self.conv = keras.layers.Conv2D(filters, kernel, stride, padding=padding, use_bias=False, name="conv")
        self.norm = BatchNormalization(epsilon=1e-3, name="bn")

    def call(self, x, training=False):
        if training or not traced_with_constant_weights():
            return tf.nn.relu(self.norm(self.conv(x), training=training))
        kernel, offset = of_weights(self.norm.folded, self.conv.kernel)
        maps = tf.nn.conv2d(x, kernel, self.conv.strides, self.conv.padding.upper())
        return tf.nn.relu(tf.nn.bias_add(maps, offset))


class Branch:
    """Units one behind the other; a last step of two units is a fork, whose outputs are joined."""

    def __init__(self, name: str, *steps):
        self.steps = []
        for place, step in enumerate(steps, 1):
            forked = isinstance(step[0], tuple)
            named = {f"{name}_{place}{side}": unit for side, unit in zip("ab", step, strict=True)} if forked else {}
            named = named or {name if len(steps) == 1 else f"{name}_{place}": step}
            self.steps.append([Unit(*unit, name=unit_name) for unit_name, unit in named.items()])

    @property
    def units(self) -> list[Unit]:
        return [unit for step in self.steps for unit in step]

    def __call__(self, x, training):
        for step in self.steps:
            outputs = [unit(x, training=training) for unit in step]
            x = outputs[0] if len(outputs) == 1 else tf.concat(outputs, axis=-1)
        return x


class Block(Composite):
    """Branches side by side, their channels joined in order; the last one pools.

    Args:
        branches: name -> steps, each (filters, kernel[, stride]), or two of them for a fork.
        pool_filters: of the unit behind the average pool; None for a maximum pool that halves the size.
        count_padding: the average pool divides by 9 at the border too, where padding counts as zeros.
    """

    def __init__(self, branches: dict, pool_filters: int | None, count_padding: bool = True, **kwargs):
        super().__init__(**kwargs)
        self.count_padding = count_padding
        self._branches = [Branch(name, *steps) for name, steps in branches.items()]
        self._pooled = None if pool_filters is None else Branch("branch_pool", (pool_filters, 1))
        self.units = [u for b in [*self._branches, *([self._pooled] if self._pooled else [])] for u in b.units]

    def _pool(self, x):
        if self._pooled is None:
            return tf.nn.max_pool2d(x, 3, 2, "VALID")
        if not self.count_padding:
            return tf.nn.avg_pool2d(x, 3, 1, "SAME")
        return tf.nn.avg_pool2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), 3, 1, "VALID")

    def call(self, x, training=False):
        outputs = [branch(x, training) for branch in self._branches]
        pooled = self._pool(x)
        outputs.append(pooled if self._pooled is None else self._pooled(pooled, training))
        return tf.concat(outputs, axis=-1)


def _block_35(pool_filters: int) -> tuple[dict, int]:
    return {
        "branch1x1": [(64, 1)],
        "branch5x5": [(48, 1), (64, 5)],
        "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
    }, pool_filters


def _block_17(c: int) -> tuple[dict, int]:
    return {
        "branch1x1": [(192, 1)],
        "branch7x7": [(c, 1), (c, (1, 7)), (192, (7, 1))],
        "branch7x7dbl": [(c, 1), (c, (7, 1)), (c, (1, 7)), (c, (7, 1)), (192, (1, 7))],
    }, 192


def _block_8() -> tuple[dict, int]:
    fork = ((384, (1, 3)), (384, (3, 1)))
    return {
        "branch1x1": [(320, 1)],
        "branch3x3": [(384, 1), fork],
        "branch3x3dbl": [(448, 1), (384, 3), fork],
    }, 192


STEM = {
    "Conv2d_1a_3x3": (32, 3, 2),
    "Conv2d_2a_3x3": (32, 3, 1, "valid"),
    "Conv2d_2b_3x3": (64, 3),
    "Conv2d_3b_1x1": (80, 1),
    "Conv2d_4a_3x3": (192, 3, 1, "valid"),
}
POOLED_STEM = ("Conv2d_2b_3x3", "Conv2d_4a_3x3")
"""Behind these comes a maximum pool of stride 2."""

BLOCKS = {
    "Mixed_5b": _block_35(32),
    "Mixed_5c": _block_35(64),
    "Mixed_5d": _block_35(64),
    "Mixed_6a": ({"branch3x3": [(384, 3, 2)], "branch3x3dbl": [(64, 1), (96, 3), (96, 3, 2)]}, None),
    "Mixed_6b": _block_17(128),
    "Mixed_6c": _block_17(160),
    "Mixed_6d": _block_17(160),
    "Mixed_6e": _block_17(192),
    "Mixed_7a": (
        {
            "branch3x3": [(192, 1), (320, 3, 2)],
            "branch7x7x3": [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)],
        },
        None,
    ),
    "Mixed_7b": _block_8(),
    "Mixed_7c": _block_8(),
}
REGIONS = "Mixed_6e"


class InceptionV3(Network):
    """Pictures [B,299,299,3] in [-1, 1] -> (regions [B,17,17,768] of Mixed_6e, pooled features [B,2048]).

    21,785,568 weights; neither classifier nor auxiliary head.

    Args:
        count_padding: as the published encoders; False as TensorFlow and Keras pool (see `Block`).
    """

    def __init__(self, count_padding: bool = True, name: str = "inception_v3"):
        super().__init__(name=name)
        self.stem = [Unit(*settings, name=unit) for unit, settings in STEM.items()]
        self.blocks = [Block(*settings, count_padding, name=block) for block, settings in BLOCKS.items()]

    def call(self, images, training=False):
        x, regions = images, None
        for unit in self.stem:
            x = unit(x, training=training)
            if unit.name in POOLED_STEM:
                x = tf.nn.max_pool2d(x, 3, 2, "VALID")
        for block in self.blocks:
            x = block(x, training=training)
            if block.name == REGIONS:
                regions = x
        return regions, tf.reduce_mean(x, axis=[1, 2])

    @property
    def units(self) -> dict[str, Unit]:
        """All units by their published names, in the order of the pass."""
        named = {unit.name: unit for unit in self.stem}
        return named | {f"{block.name}.{unit.name}": unit for block in self.blocks for unit in block.units}

    def set_from_keras(self, network: keras.Model) -> None:
        """Takes the weights of a `keras.applications.InceptionV3`, whose batch norms have no scale."""

        def in_order(kind):
            layers = [layer for layer in network.layers if isinstance(layer, kind)]
            return sorted(layers, key=lambda layer: int((re.search(r"_(\d+)$", layer.name) or [0, 0])[1]))

        convolutions, norms = in_order(keras.layers.Conv2D), in_order(keras.layers.BatchNormalization)
        for unit, convolution, norm in zip(self.units.values(), convolutions, norms, strict=True):
            unit.conv.kernel.assign(convolution.kernel)
            unit.norm.gamma.assign(tf.ones_like(unit.norm.gamma))
            unit.norm.beta.assign(norm.beta)
            unit.norm.moving_mean.assign(norm.moving_mean)
            unit.norm.moving_variance.assign(norm.moving_variance)
