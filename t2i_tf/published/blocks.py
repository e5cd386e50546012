"""Places of the layers of `t2i_tf.networks.blocks` in the published programs."""

from __future__ import annotations

from t2i_tf.published.layout import Layers, Weight


def bottleneck(prefix: str, block) -> Layers:
    """The Torch Sequential of a `networks.blocks.BottleneckResidual`; activations take the places between."""
    return {
        f"{prefix}.1": block.conv1,
        f"{prefix}.2": block.norm1,
        f"{prefix}.4": block.conv2,
        f"{prefix}.5": block.norm2,
        f"{prefix}.7": block.conv3,
        f"{prefix}.8": block.norm3,
    }


def channel_major(variable, channels: int) -> Weight:
    """Of a dense layer that makes 4x4 maps: published outputs are (channel, row, column), ours (row, column, channel).

    The weight is published as (out, in), ours is (in, out); vectors of its norm alike.
    """
    return Weight(
        variable,
        lambda array: array.reshape(channels, 4, 4, -1).transpose(3, 1, 2, 0).reshape(variable.shape),
        lambda array: array.reshape(-1, 4, 4, channels).transpose(3, 1, 2, 0).reshape(variable.shape[::-1]),
    )


def sequential(prefix: str, first: int, block) -> Layers:
    """Convolution and norm of a block, one behind the other in a PyTorch Sequential."""
    return {f"{prefix}.{first}": block.conv, f"{prefix}.{first + 1}": block.norm}


def gated_residual(prefix: str, block) -> Layers:
    return sequential(prefix, 0, block.gated) | sequential(prefix, 3, block)


def projection(prefix: str, dense, norm, channels: int) -> Layers:
    """A dense layer without bias that makes 4x4 maps, and its norm."""
    variables = {"weight": norm.gamma, "bias": norm.beta}
    variables |= {"running_mean": norm.moving_mean, "running_var": norm.moving_variance}
    return {
        f"{prefix}.0": {"weight": channel_major(dense.kernel, channels)},
        f"{prefix}.1": {name: channel_major(variable, channels) for name, variable in variables.items()},
    }


def generator_stem(prefix: str, stem) -> Layers:
    layers = projection(f"{prefix}.fc", stem.project, stem.project_norm, 2 * stem.channels)
    for number, block in enumerate(stem.upsamplings, 1):
        layers |= sequential(f"{prefix}.upsample{number}", 1, block)
    return layers


def discriminator_trunk(trunk) -> Layers:
    """Four halvings are img_code_s16; each further one has a name of its own, as has each narrowing behind the last."""
    layers: dict = {"img_code_s16.0": trunk.first}
    for place, block in zip((2, 5, 8), trunk.downs[:3], strict=False):
        layers |= sequential("img_code_s16", place, block)
    for number, block in enumerate(trunk.downs[3:], 1):
        layers |= sequential(f"img_code_s{16 * 2**number}", 0, block)
    for number, block in enumerate(trunk.narrows, 1):
        layers |= sequential(f"img_code_s{16 * 2 ** len(trunk.narrows)}_{number}", 0, block)
    return layers


def pointwise(dense) -> dict[str, Weight]:
    """A dense layer over channels, without bias, published as a 1x1 convolution (out, in, 1, 1)."""
    return {
        "weight": Weight(dense.kernel, lambda array: array[:, :, 0, 0].T, lambda array: array.T[:, :, None, None]),
    }
