"""StackGAN++, Zhang et al. (TPAMI 2018): state dicts, with text and without."""

from __future__ import annotations

from t2i_tf import papers
from t2i_tf.errors import UserError
from t2i_tf.published.blocks import discriminator_trunk, gated_residual, generator_stem, sequential
from t2i_tf.published.layout import Layers
from t2i_tf.published.reading import Arrays
from t2i_tf.published.scheme import Scheme, count, shapes


def generator_layers(generator) -> Layers:
    """By the names in the published state dict; without text there is no ca_net."""
    layers = generator_stem("h_net1", generator.stem)
    if generator.conditioning is not None:
        layers["ca_net.fc"] = generator.conditioning.dense
    for scale, refinement in enumerate(generator.refinements, 2):
        layers |= sequential(f"h_net{scale}.jointConv", 0, refinement.joint)
        for number, residual in enumerate(refinement.residuals):
            layers |= gated_residual(f"h_net{scale}.residual.{number}.block", residual)
        layers |= sequential(f"h_net{scale}.upsample", 1, refinement.upsampling)
    for scale, to_image in enumerate(generator.to_images, 1):
        layers[f"img_net{scale}.img.0"] = to_image
    return layers


def discriminator_layers(discriminator) -> Layers:
    """By the names in the published state dict: logits is the only head, or the conditional one of two."""
    layers = discriminator_trunk(discriminator.trunk)
    if discriminator.conditional_head is None:
        return {**layers, "logits.0": discriminator.unconditional_head}
    layers |= sequential("jointConv", 0, discriminator.joint) | {"logits.0": discriminator.conditional_head}
    if discriminator.unconditional_head is not None:
        layers["uncond_logits.0"] = discriminator.unconditional_head
    return layers


def _generator_sizes(arrays: Arrays, source: str) -> tuple[dict, papers.Context]:
    doublings = count(arrays, r"h_net1\.upsample(\d+)\.")
    stem, last = shapes(arrays, source, {"h_net1.fc.0.weight": 2, f"h_net1.upsample{doublings}.1.weight": 4})
    sizes = {
        "conditional": "ca_net.fc.weight" in arrays,
        "num_scales": count(arrays, r"img_net(\d+)\."),
        "base_size": 4 * 2**doublings,
        "generator_width": last[0] // 2,
        "residual_blocks": count(arrays, r"h_net2\.residual\.(\d+)\."),
        "noise_dim": stem[1],
    }
    if not sizes["conditional"]:
        return sizes, papers.Context()
    ((code, text_dim),) = shapes(arrays, source, {"ca_net.fc.weight": 2})
    sizes |= {"condition_dim": code // 4, "noise_dim": stem[1] - code // 4}
    if sizes["noise_dim"] < 1:
        raise UserError(
            f"{source}: h_net1.fc.0.weight {stem} leaves no noise beside a condition of {code // 4}; check that file "
            "and scheme belong together"
        )
    return sizes, papers.Context(text_dim=text_dim)


def _discriminator_sizes(arrays: Arrays, source: str) -> tuple[dict, papers.Context]:
    """A discriminator knows nothing of the text but mu; published vectors have 1,024 numbers."""
    ((width, *_),) = shapes(arrays, source, {"img_code_s16.0.weight": 4})
    if "jointConv.0.weight" not in arrays:
        return {"conditional": False, "discriminator_width": width}, papers.Context()
    ((_, inputs, *_),) = shapes(arrays, source, {"jointConv.0.weight": 4})
    sizes = {
        "discriminator_width": width,
        "condition_dim": inputs - 8 * width,
        "unconditional_weight": float("uncond_logits.0.weight" in arrays),
    }
    return sizes, papers.Context(text_dim=1024)


SIZES = (64, 128, 256)
"""Of the published discriminators, in the order of their files' numbers."""


def _layers(generator, *discriminators) -> Layers:
    """Discriminators behind the name that `_named_apart` gives them."""
    layers = generator_layers(generator)
    for discriminator in discriminators:
        layers |= {f"{discriminator.name}.{name}": layer for name, layer in discriminator_layers(discriminator).items()}
    return layers


def _named_apart(arrays: Arrays) -> Arrays:
    """All discriminators have the same names in their files; halvings beyond the fourth tell for which size one is."""
    halvings = count(arrays, r"img_code_s(\d+)\.")
    if not 1 <= halvings <= len(SIZES):
        return arrays
    return {f"discriminator_{SIZES[halvings - 1]}.{name}": array for name, array in arrays.items()}


def _sizes(arrays: Arrays, source: str) -> tuple[dict, papers.Context]:
    """Of the generator with its discriminators, all of which have the width of the smallest."""
    own, context = _generator_sizes(arrays, source)
    prefix = f"discriminator_{SIZES[0]}."
    smallest = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    theirs, _ = _discriminator_sizes(smallest, source)
    return {**theirs, **own}, context


SCHEMES = {
    "stackgan_v2": Scheme(
        "stackgan_v2",
        ("generator", *(f"discriminator_{size}" for size in SIZES)),
        "generator of StackGAN++ with its discriminators, four files in any order: "
        "netG_<iteration>.pth,netD0.pth,netD1.pth,netD2.pth; to go on training and for --mode=nearest",
        _layers,
        _sizes,
        rename=_named_apart,
    ),
    "stackgan_v2_generator": Scheme(
        "stackgan_v2",
        ("generator",),
        "generator of StackGAN++: netG_<iteration>.pth, with text (birds) or without",
        generator_layers,
        _generator_sizes,
    ),
    **{
        f"stackgan_v2_discriminator_{size}": Scheme(
            "stackgan_v2",
            (f"discriminator_{size}",),
            f"discriminator of StackGAN++ for {size} pixels: netD{number}.pth, with text (birds) or without",
            discriminator_layers,
            _discriminator_sizes,
        )
        for number, size in enumerate(SIZES)
    },
}
