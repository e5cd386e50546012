"""StackGAN, Zhang et al. (ICCV 2017), tensorflow form: the generators in a checkpoint of the published program.

The names are derived from the layers of the program and the scopes of prettytensor, which numbers the uses of each kind
of layer in a scope; they were not seen in a published file. A checkpoint holds both stages, their discriminators (whose
names are not known) and the optimizer's variables: all but the wanted generators is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable

from t2i_tf import papers
from t2i_tf.errors import UserError
from t2i_tf.published.layout import Layers, Weight, permuted
from t2i_tf.published.reading import Arrays
from t2i_tf.published.scheme import Scheme, count, shapes

STAGE1, STAGE2 = "g_net", "hr_g_net"
_LEAVES = ("Matrix", "bias", "w", "mean", "variance", "gamma", "beta")
"""Last parts of the names of weights; optimizer slots and helpers of the running averages have others."""


def stage1_generator_layers(generator) -> Layers:
    """By the derived names."""
    convolutions, norms = zip(*_pairs(generator.blocks), strict=True)
    dense = [generator.conditioning.dense, generator.project]
    weights = _weights(STAGE1, dense, [*convolutions, generator.to_image], norms)
    return {"": weights | _norm(f"{STAGE1}/fc_batch_norm", generator.project_norm)}


def stage2_generator_layers(generator, stage1_generator) -> Layers:
    """By the derived names, with the Stage-I that it draws on."""
    convolutions, norms = zip(
        *_pairs([*generator.downs, generator.joint, *generator.residuals, *generator.ups]), strict=True
    )
    every = [generator.first, *convolutions, generator.to_image]
    weights = _weights(STAGE2, [generator.conditioning.dense], every, norms)
    return {"": weights | stage1_generator_layers(stage1_generator)[""]}


def _pairs(blocks) -> Iterable[tuple]:
    """Convolution and norm of each layer, in the order in which the program makes them."""
    for block in blocks:
        if hasattr(block, "conv1"):
            yield from ((block.conv1, block.norm1), (block.conv2, block.norm2), (block.conv3, block.norm3))
        elif hasattr(block, "second"):
            yield from _pairs([block.first, block.second])
        else:
            yield block.conv, block.norm


def _weights(scope: str, dense, convolutions, norms) -> dict[str, Weight]:
    """Each kind of layer is numbered by itself. Layouts are ours."""
    weights: dict = {}
    for name, layer in _numbered(scope, "custom_fully_connected", dense):
        weights[f"{name}/Linear/Matrix"] = permuted(layer.kernel, 0, 1)
        weights[f"{name}/Linear/bias"] = permuted(layer.bias, 0)
    for name, layer in _numbered(scope, "custom_conv2d", convolutions):
        weights[f"{name}/conv2d/w"] = permuted(layer.kernel, 0, 1, 2, 3)
    for name, norm in _numbered(scope, "conv_batch_norm", norms):
        weights |= _norm(name, norm)
    return weights


def _numbered(scope: str, kind: str, layers) -> list[tuple]:
    return [(f"{scope}/{kind}_{number}" if number else f"{scope}/{kind}", layer) for number, layer in enumerate(layers)]


def _norm(name: str, norm) -> dict[str, Weight]:
    variables = {"mean": norm.moving_mean, "variance": norm.moving_variance, "gamma": norm.gamma, "beta": norm.beta}
    return {f"{name}/batch_norm/{leaf}": permuted(variable, 0) for leaf, variable in variables.items()}


def _of(*scopes: str):
    """Arrays -> the weights in these scopes; all arrays where there are none, to be named in a refusal."""

    def chosen(arrays: Arrays) -> Arrays:
        parts = {name: name.split("/") for name in arrays}
        wanted = [name for name, path in parts.items() if path[0] in scopes and path[-1] in _LEAVES]
        return {name: arrays[name] for name in wanted} or arrays

    return chosen


def _sizes(arrays: Arrays, source: str, stage: int) -> tuple[dict, papers.Context]:
    text, stem = shapes(
        arrays,
        source,
        {f"{STAGE1}/custom_fully_connected/Linear/Matrix": 2, f"{STAGE1}/custom_fully_connected_1/Linear/Matrix": 2},
    )
    condition_dim, noise_dim = text[1] // 2, stem[0] - text[1] // 2
    if noise_dim < 1 or stem[1] % 128:
        raise UserError(
            f"{source}: {STAGE1}/custom_fully_connected_1/Linear/Matrix {stem} fits no generator with a condition of "
            f"{condition_dim}; check that file and scheme belong together"
        )
    sizes = {
        "form": "tensorflow",
        "stage": stage,
        "generator_width": stem[1] // 128,
        "condition_dim": condition_dim,
        "noise_dim": noise_dim,
    }
    if stage == 2:  # nine convolutions stand around the residual blocks, which have two each
        sizes["residual_blocks"] = max(0, count(arrays, rf"{STAGE2}/custom_conv2d(\w*)/") - 9) // 2
    return sizes, papers.Context(text_dim=text[0])


SCHEMES = {
    "stackgan1_tensorflow": Scheme(
        "stackgan",
        ("generator",),
        "Stage-I generator of StackGAN, tensorflow form (birds, flowers): the checkpoint <name>.ckpt, of "
        "Stage-I or both stages; names of variables are derived, not seen",
        stage1_generator_layers,
        lambda arrays, source: _sizes(arrays, source, stage=1),
        rename=_of(STAGE1),
    ),
    "stackgan2_tensorflow": Scheme(
        "stackgan",
        ("generator", "stage1_generator"),
        "Stage-II generator of StackGAN with its Stage-I, tensorflow form (birds, flowers): the checkpoint "
        "<name>.ckpt; names of variables are derived, not seen",
        stage2_generator_layers,
        lambda arrays, source: _sizes(arrays, source, stage=2),
        rename=_of(STAGE1, STAGE2),
    ),
}
