"""GAN-INT-CLS, Reed et al. (ICML 2016): Torch7 files, layers by their places in the tree."""

from __future__ import annotations

from t2i_tf import papers
from t2i_tf.errors import UserError
from t2i_tf.published.blocks import bottleneck
from t2i_tf.published.layout import Layers
from t2i_tf.published.reading import Arrays
from t2i_tf.published.scheme import Scheme, shapes


def generator_layers(generator) -> Layers:
    """By places in the Torch7 tree; the large generator has two more of them behind each residual block."""
    more = 0 if generator.residual_4_second is None else 2
    layers = {
        "1.2.1": generator.text_projection,
        "3": generator.project,
        "4": generator.project_norm,
        **bottleneck("5.2", generator.residual_4),
        f"{8 + more}": generator.upsample_8,
        f"{9 + more}": generator.norm_8,
        **bottleneck(f"{10 + more}.2", generator.residual_8),
        f"{13 + 2 * more}": generator.upsample_16,
        f"{14 + 2 * more}": generator.norm_16,
        f"{16 + 2 * more}": generator.upsample_32,
        f"{17 + 2 * more}": generator.norm_32,
        f"{19 + 2 * more}": generator.to_image,
    }
    if more:
        layers |= bottleneck("7.2", generator.residual_4_second)
        layers |= bottleneck("14.2", generator.residual_8_second)
    return layers


def discriminator_layers(discriminator) -> Layers:
    """By places in the Torch7 tree; the cls program has one activation more, and no norm behind the text."""
    more = 1 if discriminator.program == "cls" else 0
    layers = {
        "1.1.1": discriminator.conv_32,
        "1.1.3": discriminator.conv_16,
        "1.1.4": discriminator.norm_16,
        "1.1.6": discriminator.conv_8,
        "1.1.7": discriminator.norm_8,
        f"1.1.{8 + more}": discriminator.conv_4,
        f"1.1.{9 + more}": discriminator.norm_4,
        "3": discriminator.joint_conv,
        "4": discriminator.joint_norm,
        "6": discriminator.score,
        "1.2.1": discriminator.text_projection,
    }
    if discriminator.residual is not None:
        layers |= bottleneck(f"1.1.{10 + more}.2", discriminator.residual)
    if discriminator.text_norm is not None:
        layers["1.2.2"] = discriminator.text_norm
    return layers


def _sizes(arrays: Arrays, source: str) -> tuple[dict, papers.Context]:
    text, first = shapes(arrays, source, {"1.2.1.weight": 2, "3.weight": 4})
    (projection, text_dim), (inputs, channels, *_) = text, first
    if inputs <= projection or channels % 8:
        raise UserError(
            f"{source}: 3.weight {first} fits no generator that projects text to {projection}; "
            "check that file and scheme belong together"
        )
    return {
        "generator_width": channels // 8,
        "text_projection": projection,
        "noise_dim": inputs - projection,
        "large_generator": "7.2.1.weight" in arrays,
    }, papers.Context(text_dim=text_dim)


SCHEMES = {
    "gan_int_cls_generator": Scheme(
        "gan_int_cls",
        ("generator",),
        "generator of Reed et al. (ICML 2016): its .t7 file, or an .npz or .pth file that names arrays by "
        "their places there (5.2.1.weight); convolution biases, zero but for one last update, are dropped",
        generator_layers,
        _sizes,
        drop=("bias",),
    ),
}
