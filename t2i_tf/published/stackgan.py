"""StackGAN, Zhang et al. (ICCV 2017), pytorch form: state dicts of both stages."""

from __future__ import annotations

from t2i_tf import papers
from t2i_tf.errors import UserError
from t2i_tf.published.blocks import projection, sequential
from t2i_tf.published.layout import Layers
from t2i_tf.published.reading import Arrays
from t2i_tf.published.scheme import Scheme, count, shapes


def stage1_generator_layers(generator) -> Layers:
    """StackGAN Stage-I, pytorch form, by the names in the published state dict."""
    layers = {
        "ca_net.fc": generator.conditioning.dense,
        **projection("fc", generator.project, generator.project_norm, generator.channels),
        "img.0": generator.to_image,
    }
    for number, block in enumerate(generator.blocks, 1):
        layers |= sequential(f"upsample{number}", 1, block)
    return layers


def stage2_generator_layers(generator, stage1_generator) -> Layers:
    """StackGAN Stage-II with the Stage-I that it draws on, pytorch form, by the names in the published state dict."""
    layers = {f"STAGE1_G.{name}": layer for name, layer in stage1_generator_layers(stage1_generator).items()}
    layers |= {"ca_net.fc": generator.conditioning.dense, "encoder.0": generator.first, "img.0": generator.to_image}
    for place, block in zip((2, 5), generator.downs, strict=True):
        layers |= sequential("encoder", place, block)
    layers |= sequential("hr_joint", 0, generator.joint)
    for number, block in enumerate(generator.residuals):
        layers |= sequential(f"residual.{number}.block", 0, block.first)
        layers |= sequential(f"residual.{number}.block", 3, block.second)
    for number, block in enumerate(generator.ups, 1):
        layers |= sequential(f"upsample{number}", 1, block)
    return layers


def discriminator_layers(discriminator) -> Layers:
    """StackGAN of either stage, pytorch form, by the names in the published state dict."""
    layers: dict = {"encode_img.0": discriminator.first}
    for number, block in enumerate(discriminator.convolutions):
        layers |= sequential("encode_img", 2 + 3 * number, block)
    layers |= sequential("get_cond_logits.outlogits", 0, discriminator.joint)
    layers["get_cond_logits.outlogits.3"] = discriminator.conditional_head
    if discriminator.unconditional_head is not None:
        layers["get_uncond_logits.outlogits.0"] = discriminator.unconditional_head
    return layers


def _sizes(arrays: Arrays, source: str, stage: int) -> tuple[dict, papers.Context]:
    stage1 = "STAGE1_G." if stage == 2 else ""
    text, stem = shapes(arrays, source, {f"{stage1}ca_net.fc.weight": 2, f"{stage1}fc.0.weight": 2})
    condition_dim, noise_dim = text[0] // 2, stem[1] - text[0] // 2
    if noise_dim < 1 or stem[0] % 128:
        raise UserError(
            f"{source}: {stage1}fc.0.weight {stem} fits no generator with a condition of {condition_dim}; check that "
            "file and scheme belong together"
        )
    sizes = {
        "form": "pytorch",
        "stage": stage,
        "generator_width": stem[0] // 128,
        "condition_dim": condition_dim,
        "noise_dim": noise_dim,
        "captions_averaged": 1,
    }
    if stage == 2:
        sizes["residual_blocks"] = count(arrays, r"residual\.(\d+)\.")
    return sizes, papers.Context(text_dim=text[1])


def _judged_sizes(arrays: Arrays, source: str, stage: int) -> tuple[dict, papers.Context]:
    """With the discriminator."""
    sizes, context = _sizes(arrays, source, stage)
    ((width, *_),) = shapes(arrays, source, {"encode_img.0.weight": 4})
    return {**sizes, "discriminator_width": width}, context


SCHEMES = {
    "stackgan1": Scheme(
        "stackgan",
        ("generator", "discriminator"),
        "Stage-I of StackGAN, pytorch form, two files: netG_epoch_<number>.pth,netD_epoch_last.pth; to go on training "
        "and for --mode=nearest",
        lambda generator, discriminator: stage1_generator_layers(generator) | discriminator_layers(discriminator),
        lambda arrays, source: _judged_sizes(arrays, source, stage=1),
    ),
    "stackgan2": Scheme(
        "stackgan",
        ("generator", "stage1_generator", "discriminator"),
        "Stage-II of StackGAN with its Stage-I, pytorch form, two files: netG_epoch_<number>.pth,netD_epoch_last.pth",
        lambda generator, stage1_generator, discriminator: (
            stage2_generator_layers(generator, stage1_generator) | discriminator_layers(discriminator)
        ),
        lambda arrays, source: _judged_sizes(arrays, source, stage=2),
    ),
    "stackgan1_generator": Scheme(
        "stackgan",
        ("generator",),
        "Stage-I generator of StackGAN, pytorch form: netG_epoch_<number>.pth of Stage-I (COCO)",
        stage1_generator_layers,
        lambda arrays, source: _sizes(arrays, source, stage=1),
    ),
    "stackgan2_generator": Scheme(
        "stackgan",
        ("generator", "stage1_generator"),
        "Stage-II generator of StackGAN with its Stage-I, pytorch form: netG_epoch_90.pth (COCO); its Stage-I also "
        "trains another Stage-II (--stage1_run)",
        stage2_generator_layers,
        lambda arrays, source: _sizes(arrays, source, stage=2),
    ),
}
