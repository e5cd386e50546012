"""AttnGAN, Xu et al. (CVPR 2018): state dicts of two and three scales, and of AttnDCGAN."""

from __future__ import annotations

from t2i_tf import papers
from t2i_tf.errors import UserError
from t2i_tf.published import damsm
from t2i_tf.published.blocks import discriminator_trunk, gated_residual, generator_stem, pointwise, sequential
from t2i_tf.published.layout import Layers
from t2i_tf.published.reading import Arrays
from t2i_tf.published.scheme import Scheme, count, shapes

ONE_IMAGE = "img_net.img.0"
"""Where AttnDCGAN has its only picture; the others have one a scale."""


def generator_layers(generator) -> Layers:
    """By the names in the published state dict."""
    layers = {"ca_net.fc": generator.conditioning.dense, **generator_stem("h_net1", generator.stem)}
    for scale, stage in enumerate(generator.stages, 2):
        layers[f"h_net{scale}.att.conv_context"] = pointwise(stage.attention.projection)
        for number, residual in enumerate(stage.residuals):
            layers |= gated_residual(f"h_net{scale}.residual.{number}.block", residual)
        layers |= sequential(f"h_net{scale}.upsample", 1, stage.upsampling)
    if len(generator.to_images) < len(generator.sizes):
        return {**layers, ONE_IMAGE: generator.to_images[0]}
    return layers | {f"img_net{scale}.img.0": to_image for scale, to_image in enumerate(generator.to_images, 1)}


def discriminator_layers(discriminator) -> Layers:
    """By the names in the published state dict; that of AttnDCGAN has the conditional head alone."""
    layers = discriminator_trunk(discriminator.trunk) | sequential("COND_DNET.jointConv", 0, discriminator.joint)
    layers["COND_DNET.outlogits.0"] = discriminator.conditional_head
    if discriminator.unconditional_head is not None:
        layers["UNCOND_DNET.outlogits.0"] = discriminator.unconditional_head
    return layers


def _generator_sizes(arrays: Arrays, source: str) -> tuple[dict, papers.Context]:
    """A generator knows nothing of the vocabulary: 1, the padding alone, until an encoder is given."""
    doublings = count(arrays, r"h_net1\.upsample(\d+)\.")
    stem, last, (code, embedding_dim) = shapes(
        arrays,
        source,
        {"h_net1.fc.0.weight": 2, f"h_net1.upsample{doublings}.1.weight": 4, "ca_net.fc.weight": 2},
    )
    sizes = {
        "form": "dcgan" if f"{ONE_IMAGE}.weight" in arrays else "attngan",
        "num_scales": count(arrays, r"h_net(\d+)\."),
        "base_size": 4 * 2**doublings,
        "generator_width": last[0] // 2,
        "residual_blocks": count(arrays, r"h_net2\.residual\.(\d+)\."),
        "condition_dim": code // 4,
        "noise_dim": stem[1] - code // 4,
        "embedding_dim": embedding_dim,
    }
    if sizes["noise_dim"] < 1:
        raise UserError(
            f"{source}: h_net1.fc.0.weight {stem} leaves no noise beside a condition of {code // 4}; check that file "
            "and scheme belong together"
        )
    return sizes, papers.Context(vocabulary_size=1)


def _sizes(arrays: Arrays, source: str) -> tuple[dict, papers.Context]:
    """Of a generator with its text encoder."""
    of_text, context = damsm.text_sizes(arrays, source)
    of_generator, _ = _generator_sizes(arrays, source)
    given, wanted = of_text["embedding_dim"], of_generator["embedding_dim"]
    if given != wanted:
        raise UserError(
            f"{source}: the text encoder gives vectors of {given}, the generator wants {wanted}: give the encoder it "
            "was trained with"
        )
    return of_text | of_generator, context


def _discriminator_sizes(arrays: Arrays, source: str) -> tuple[dict, papers.Context]:
    (width, *_), (_, inputs, *_) = shapes(
        arrays, source, {"img_code_s16.0.weight": 4, "COND_DNET.jointConv.0.weight": 4}
    )
    sizes = {
        "form": "attngan" if "UNCOND_DNET.outlogits.0.weight" in arrays else "dcgan",
        "discriminator_width": width,
        "embedding_dim": inputs - 8 * width,
    }
    return sizes, papers.Context(vocabulary_size=1)


SCHEMES = {
    "attngan": Scheme(
        "attngan",
        ("generator", "text_encoder"),
        "generator of AttnGAN or AttnDCGAN and its text encoder, two files: "
        "bird_AttnGAN2.pth,text_encoder200.pth; draws pictures of sentences",
        lambda generator, text_encoder: generator_layers(generator) | damsm.text_encoder_layers(text_encoder),
        _sizes,
        reads_words=True,
    ),
    "attngan_with_image_encoder": Scheme(
        "attngan",
        ("generator", "text_encoder", "image_encoder"),
        "the same and the image encoder, three files: bird_AttnGAN2.pth,text_encoder200.pth,image_encoder200.pth",
        lambda generator, text_encoder, image_encoder: (
            generator_layers(generator)
            | damsm.text_encoder_layers(text_encoder)
            | damsm.image_encoder_layers(image_encoder)
        ),
        _sizes,
        reads_words=True,
    ),
    "attngan_generator": Scheme(
        "attngan",
        ("generator",),
        "generator of AttnGAN: netG_epoch_<number>.pth, of two or three scales, or of AttnDCGAN",
        generator_layers,
        _generator_sizes,
    ),
    **{
        f"attngan_discriminator_{size}": Scheme(
            "attngan",
            (f"discriminator_{size}",),
            f"discriminator of AttnGAN for {size} pixels: netD{number}.pth"
            + ("; or the only one of AttnDCGAN: netD0.pth" if size == 256 else ""),
            discriminator_layers,
            _discriminator_sizes,
        )
        for number, size in enumerate((64, 128, 256))
    },
}
