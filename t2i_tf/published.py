"""Published checkpoints of the original authors -> our weights, by name, complete or refused.

Three steps: `read` turns a file into named arrays; a `Scheme` says which names belong to which of our layers;
`assign` puts every array in its place, or refuses with the list of what is missing, left over or misshapen.

Published layouts are those of PyTorch and Torch7: convolutions (out, in, rows, columns), transposed ones
(in, out, rows, columns), temporal ones (out, in, kernel), dense layers (out, in). No code in a file is run.
"""

from __future__ import annotations

import pickle
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from t2i_tf import papers, torch7
from t2i_tf.errors import UserError

if TYPE_CHECKING:
    import keras

Arrays = dict[str, np.ndarray]


# Reading files.


def read(path: str | Path) -> Arrays:
    """The named arrays of a published file: .npz, .pth, .pt, or .t7 (named as `torch7.parameters` says).

    Raises UserError when the file is of another kind, damaged, or would run code to be loaded.
    """
    readers = {".npz": _read_npz, ".pth": _read_pytorch, ".pt": _read_pytorch, ".t7": _read_torch7}
    reader = readers.get(Path(path).suffix.lower())
    if reader is None:
        raise UserError(f"{path}: unknown kind of file: give one that ends in {', '.join(readers)}")
    if not Path(path).is_file():
        raise UserError(f"{path}: there is no such file: check the path")
    arrays = reader(path)
    if not arrays:
        raise UserError(f"{path}: holds no arrays: give the file with the weights")
    return arrays


def _read_npz(path) -> Arrays:
    """Entries that are pickled objects are no weights: they are passed over, never unpickled."""
    try:
        with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files if not _is_pickled(content, name)}
    except (OSError, ValueError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not a sound .npz file ({_first_line(error)}): fetch it again") from None


def _is_pickled(content, name: str) -> bool:
    with content.zip.open(f"{name}.npy") as entry:
        early = np.lib.format.read_magic(entry) == (1, 0)
        header = np.lib.format.read_array_header_1_0 if early else np.lib.format.read_array_header_2_0
        return header(entry)[2].hasobject


def _read_pytorch(path) -> Arrays:
    """The tensors of a state dict, maybe nested or under "state_dict", without DataParallel's "module."."""
    try:
        import torch
    except ImportError:
        raise UserError(f"{path}: needs PyTorch to be read: pip install t2i_tf[published]") from None
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise UserError(
            f"{path}: asks for {wanted[1] if wanted else 'more than tensors'}, which could run code, and "
            "is not loaded: save the state dict alone in the program that wrote it"
        ) from None
    except Exception as error:  # a damaged file ends in many kinds of exceptions
        raise UserError(f"{path}: not a sound PyTorch file ({_first_line(error)}): fetch it again") from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    arrays: Arrays = {}
    seen: set[int] = set()
    pending = [("", content)]
    while pending:
        name, node = pending.pop()
        if isinstance(node, torch.Tensor):
            arrays[name] = _plain_array(node, f"{path}: {name}")
        elif isinstance(node, Mapping) and id(node) not in seen:
            seen.add(id(node))
            pending += [(f"{name}.{key}" if name else str(key), node[key]) for key in reversed(list(node))]
    if all(name.startswith("module.") for name in arrays):
        arrays = {name.removeprefix("module."): array for name, array in arrays.items()}
    return arrays


def _plain_array(tensor, place: str) -> np.ndarray:
    import torch

    if (
        tensor.layout != torch.strided
        or tensor.is_quantized
        or tensor.is_complex()
        or tensor.is_meta
        or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()
    ):
        raise UserError(f"{place} is not a plain tensor: save the state dict of the plain network")
    return (tensor.detach().float() if tensor.is_floating_point() else tensor.detach()).numpy()


def _read_torch7(path) -> Arrays:
    return torch7.parameters(torch7.load(path), str(path))


def _first_line(error: Exception) -> str:
    return " ".join([f"{type(error).__name__}:", *str(error).strip().splitlines()[:1]])[:160]


# Our layers under published names.


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
    """With an empty prefix, the last name is the whole of it."""
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
            text += f"; dropped {_listed(self.dropped)}, largest |value| {max(self.dropped.values()):.3g}"
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
    found = [f"{problem}: {_listed(names)}" for problem, names in problems.items() if names]
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


def _listed(names: Iterable[str]) -> str:
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


# Which published names belong to which layers of ours.


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


@dataclass(frozen=True)
class Import:
    """A recipe, some of whose networks hold published weights, and what it was built from."""

    recipe: Any
    hyperparameters: Any
    context: papers.Context
    report: Report


def load(scheme_name: str, path: str | Path) -> Import:
    """Builds the scheme's paper at the sizes found in the file, and sets the scheme's networks from it.

    Raises UserError for an unknown scheme, an unreadable file, or one that does not fit completely.
    """
    if scheme_name not in SCHEMES:
        raise UserError(f"unknown scheme {scheme_name!r}: --scheme is one of {', '.join(SCHEMES)}")
    scheme = SCHEMES[scheme_name]
    arrays = scheme.rename(read(path))
    sizes, context = scheme.sizes(arrays, str(path))
    hyperparameters = papers.resolve(scheme.paper, **sizes)
    recipe = papers.get(scheme.paper).Recipe(hyperparameters, context)
    layers = scheme.layers(*(recipe.networks[name] for name in scheme.networks))
    return Import(recipe, hyperparameters, context, assign(layers, arrays, str(path), scheme.drop))


def _shapes(arrays: Arrays, source: str, dimensions: dict[str, int]) -> list[tuple[int, ...]]:
    """The shapes of the arrays that tell the sizes of a network; `dimensions`: name -> how many it has."""
    unfit = [
        name
        for name, count in dimensions.items()
        if name not in arrays or arrays[name].ndim != count or not arrays[name].size
    ]
    if unfit:
        raise UserError(
            f"{source}: has no usable {', '.join(unfit)}; it holds {_listed(arrays)}; check that "
            "file and scheme belong together"
        )
    return [arrays[name].shape for name in dimensions]


def _bottleneck(prefix: str, block) -> Layers:
    """The Torch Sequential of a `networks.blocks.BottleneckResidual`; activations take the places between."""
    return {
        f"{prefix}.1": block.conv1,
        f"{prefix}.2": block.norm1,
        f"{prefix}.4": block.conv2,
        f"{prefix}.5": block.norm2,
        f"{prefix}.7": block.conv3,
        f"{prefix}.8": block.norm3,
    }


def gan_int_cls_generator_layers(generator) -> Layers:
    """By places in the Torch7 tree; the large generator has two more of them behind each residual block."""
    more = 0 if generator.residual_4_second is None else 2
    layers = {
        "1.2.1": generator.text_projection,
        "3": generator.project,
        "4": generator.project_norm,
        **_bottleneck("5.2", generator.residual_4),
        f"{8 + more}": generator.upsample_8,
        f"{9 + more}": generator.norm_8,
        **_bottleneck(f"{10 + more}.2", generator.residual_8),
        f"{13 + 2 * more}": generator.upsample_16,
        f"{14 + 2 * more}": generator.norm_16,
        f"{16 + 2 * more}": generator.upsample_32,
        f"{17 + 2 * more}": generator.norm_32,
        f"{19 + 2 * more}": generator.to_image,
    }
    if more:
        layers |= _bottleneck("7.2", generator.residual_4_second)
        layers |= _bottleneck("14.2", generator.residual_8_second)
    return layers


def gan_int_cls_discriminator_layers(discriminator) -> Layers:
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
        layers |= _bottleneck(f"1.1.{10 + more}.2", discriminator.residual)
    if discriminator.text_norm is not None:
        layers["1.2.2"] = discriminator.text_norm
    return layers


def _gan_int_cls_sizes(arrays: Arrays, source: str) -> tuple[dict, papers.Context]:
    text, first = _shapes(arrays, source, {"1.2.1.weight": 2, "3.weight": 4})
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


def char_cnn_rnn_layers(text_encoder) -> Layers:
    """By the names in the state dict of the PyTorch port."""
    recurrent = text_encoder.recurrent
    maps = ("i2h", "h2h", "i2h_update", "h2h_update", "i2h_reset", "h2h_reset")
    return {
        "conv1": text_encoder.conv1,
        "conv2": text_encoder.conv2,
        "conv3": text_encoder.conv3,
        **{f"rnn.{name}": getattr(recurrent, name) for name in maps if hasattr(recurrent, name)},
        "emb_proj": text_encoder.projection,
    }


def _char_cnn_rnn_sizes(arrays: Arrays, source: str) -> tuple[dict, papers.Context]:
    *convolutions, projection = _shapes(
        arrays, source, {"conv1.weight": 3, "conv2.weight": 3, "conv3.weight": 3, "emb_proj.weight": 2}
    )
    sizes = {
        "recurrent": "gru" if "rnn.i2h_update.weight" in arrays else "rnn",
        "text_channels": tuple(shape[0] for shape in convolutions),
        "embedding_dim": projection[0],
    }
    return sizes, papers.Context()


def _char_cnn_rnn_names(arrays: Arrays) -> Arrays:
    """Places in the original nngraph -> names of the PyTorch port; those names pass unchanged.

    The encoder is at protos.enc_doc of a file, or is all of it. The steps of the unrolled recurrence share
    their tensors, so that each is there once, at its first place.
    """
    arrays = {name.removeprefix("protos.enc_doc."): array for name, array in arrays.items()}
    places = {"2.1": "conv1", "2.4": "conv2", "2.7": "conv3", "4.2.1": "rnn.i2h", "4.6.1": "rnn.h2h", "6": "emb_proj"}
    if "4.15.1.weight" in arrays:  # only the GRU has so many
        places |= {
            "4.5.1": "rnn.i2h_update",
            "4.6.1": "rnn.h2h_update",
            "4.10.1": "rnn.i2h_reset",
            "4.11.1": "rnn.h2h_reset",
            "4.15.1": "rnn.h2h",
        }
    parts = {name: name.rpartition(".") for name in arrays}
    return {f"{places.get(place, place)}{dot}{leaf}": arrays[name] for name, (place, dot, leaf) in parts.items()}


def _channel_major(variable, channels: int) -> Weight:
    """Of a dense layer that makes 4x4 maps: published outputs are (channel, row, column), ours (row, column, channel).

    The weight is published as (out, in), ours is (in, out); vectors of its norm alike.
    """
    return Weight(
        variable,
        lambda array: array.reshape(channels, 4, 4, -1).transpose(3, 1, 2, 0).reshape(variable.shape),
        lambda array: array.reshape(-1, 4, 4, channels).transpose(3, 1, 2, 0).reshape(variable.shape[::-1]),
    )


def _sequential(prefix: str, first: int, block) -> Layers:
    """Convolution and norm of a block, one behind the other in a PyTorch Sequential."""
    return {f"{prefix}.{first}": block.conv, f"{prefix}.{first + 1}": block.norm}


def _gated_residual(prefix: str, block) -> Layers:
    return _sequential(prefix, 0, block.gated) | _sequential(prefix, 3, block)


def _projection(prefix: str, dense, norm, channels: int) -> Layers:
    """A dense layer without bias that makes 4x4 maps, and its norm."""
    variables = {"weight": norm.gamma, "bias": norm.beta}
    variables |= {"running_mean": norm.moving_mean, "running_var": norm.moving_variance}
    return {
        f"{prefix}.0": {"weight": _channel_major(dense.kernel, channels)},
        f"{prefix}.1": {name: _channel_major(variable, channels) for name, variable in variables.items()},
    }


def _generator_stem(prefix: str, stem) -> Layers:
    layers = _projection(f"{prefix}.fc", stem.project, stem.project_norm, 2 * stem.channels)
    for number, block in enumerate(stem.upsamplings, 1):
        layers |= _sequential(f"{prefix}.upsample{number}", 1, block)
    return layers


def _discriminator_trunk(trunk) -> Layers:
    """Four halvings are img_code_s16; each further one has a name of its own, as has each narrowing behind the last."""
    layers: dict = {"img_code_s16.0": trunk.first}
    for place, block in zip((2, 5, 8), trunk.downs[:3], strict=False):
        layers |= _sequential("img_code_s16", place, block)
    for number, block in enumerate(trunk.downs[3:], 1):
        layers |= _sequential(f"img_code_s{16 * 2**number}", 0, block)
    for number, block in enumerate(trunk.narrows, 1):
        layers |= _sequential(f"img_code_s{16 * 2 ** len(trunk.narrows)}_{number}", 0, block)
    return layers


def stackgan1_generator_layers(generator) -> Layers:
    """StackGAN Stage-I, pytorch form, by the names in the published state dict."""
    layers = {
        "ca_net.fc": generator.conditioning.dense,
        **_projection("fc", generator.project, generator.project_norm, generator.channels),
        "img.0": generator.to_image,
    }
    for number, block in enumerate(generator.blocks, 1):
        layers |= _sequential(f"upsample{number}", 1, block)
    return layers


def stackgan2_generator_layers(generator, stage1_generator) -> Layers:
    """StackGAN Stage-II with the Stage-I that it draws on, pytorch form, by the names in the published state dict."""
    layers = {f"STAGE1_G.{name}": layer for name, layer in stackgan1_generator_layers(stage1_generator).items()}
    layers |= {"ca_net.fc": generator.conditioning.dense, "encoder.0": generator.first, "img.0": generator.to_image}
    for place, block in zip((2, 5), generator.downs, strict=True):
        layers |= _sequential("encoder", place, block)
    layers |= _sequential("hr_joint", 0, generator.joint)
    for number, block in enumerate(generator.residuals):
        layers |= _sequential(f"residual.{number}.block", 0, block.first)
        layers |= _sequential(f"residual.{number}.block", 3, block.second)
    for number, block in enumerate(generator.ups, 1):
        layers |= _sequential(f"upsample{number}", 1, block)
    return layers


def stackgan_discriminator_layers(discriminator) -> Layers:
    """StackGAN of either stage, pytorch form, by the names in the published state dict."""
    layers: dict = {"encode_img.0": discriminator.first}
    for number, block in enumerate(discriminator.convolutions):
        layers |= _sequential("encode_img", 2 + 3 * number, block)
    layers |= _sequential("get_cond_logits.outlogits", 0, discriminator.joint)
    layers["get_cond_logits.outlogits.3"] = discriminator.conditional_head
    if discriminator.unconditional_head is not None:
        layers["get_uncond_logits.outlogits.0"] = discriminator.unconditional_head
    return layers


def stackgan_v2_generator_layers(generator) -> Layers:
    """By the names in the published state dict; without text there is no ca_net."""
    layers = _generator_stem("h_net1", generator.stem)
    if generator.conditioning is not None:
        layers["ca_net.fc"] = generator.conditioning.dense
    for scale, refinement in enumerate(generator.refinements, 2):
        layers |= _sequential(f"h_net{scale}.jointConv", 0, refinement.joint)
        for number, residual in enumerate(refinement.residuals):
            layers |= _gated_residual(f"h_net{scale}.residual.{number}.block", residual)
        layers |= _sequential(f"h_net{scale}.upsample", 1, refinement.upsampling)
    for scale, to_image in enumerate(generator.to_images, 1):
        layers[f"img_net{scale}.img.0"] = to_image
    return layers


def stackgan_v2_discriminator_layers(discriminator) -> Layers:
    """By the names in the published state dict: logits is the only head, or the conditional one of two."""
    layers = _discriminator_trunk(discriminator.trunk)
    if discriminator.conditional_head is None:
        return {**layers, "logits.0": discriminator.unconditional_head}
    layers |= _sequential("jointConv", 0, discriminator.joint) | {"logits.0": discriminator.conditional_head}
    if discriminator.unconditional_head is not None:
        layers["uncond_logits.0"] = discriminator.unconditional_head
    return layers


def _count(arrays: Arrays, pattern: str) -> int:
    """How many different numbers stand in the names that begin with the pattern."""
    return len({match[1] for name in arrays if (match := re.match(pattern, name))})


def _stackgan_sizes(arrays: Arrays, source: str, stage: int) -> tuple[dict, papers.Context]:
    stage1 = "STAGE1_G." if stage == 2 else ""
    text, stem = _shapes(arrays, source, {f"{stage1}ca_net.fc.weight": 2, f"{stage1}fc.0.weight": 2})
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
        sizes["residual_blocks"] = _count(arrays, r"residual\.(\d+)\.")
    return sizes, papers.Context(text_dim=text[1])


def _stackgan_v2_generator_sizes(arrays: Arrays, source: str) -> tuple[dict, papers.Context]:
    doublings = _count(arrays, r"h_net1\.upsample(\d+)\.")
    stem, last = _shapes(arrays, source, {"h_net1.fc.0.weight": 2, f"h_net1.upsample{doublings}.1.weight": 4})
    sizes = {
        "conditional": "ca_net.fc.weight" in arrays,
        "num_scales": _count(arrays, r"img_net(\d+)\."),
        "base_size": 4 * 2**doublings,
        "generator_width": last[0] // 2,
        "residual_blocks": _count(arrays, r"h_net2\.residual\.(\d+)\."),
        "noise_dim": stem[1],
    }
    if not sizes["conditional"]:
        return sizes, papers.Context()
    ((code, text_dim),) = _shapes(arrays, source, {"ca_net.fc.weight": 2})
    sizes |= {"condition_dim": code // 4, "noise_dim": stem[1] - code // 4}
    if sizes["noise_dim"] < 1:
        raise UserError(
            f"{source}: h_net1.fc.0.weight {stem} leaves no noise beside a condition of {code // 4}; check that file "
            "and scheme belong together"
        )
    return sizes, papers.Context(text_dim=text_dim)


def _stackgan_v2_discriminator_sizes(arrays: Arrays, source: str) -> tuple[dict, papers.Context]:
    """A discriminator knows nothing of the text but mu; published vectors have 1,024 numbers."""
    ((width, *_),) = _shapes(arrays, source, {"img_code_s16.0.weight": 4})
    if "jointConv.0.weight" not in arrays:
        return {"conditional": False, "discriminator_width": width}, papers.Context()
    ((_, inputs, *_),) = _shapes(arrays, source, {"jointConv.0.weight": 4})
    sizes = {
        "discriminator_width": width,
        "condition_dim": inputs - 8 * width,
        "unconditional_weight": float("uncond_logits.0.weight" in arrays),
    }
    return sizes, papers.Context(text_dim=1024)


# Show, Attend and Tell: the .npz files of the published program. Dense weights are (in, out) as ours.

_SHOW_ATTEND_TELL_RECORDS = ("history_errs", "train_err", "valid_err", "test_err")
"""Beside the weights in a file."""


def show_attend_tell_layers(decoder, dropout: bool = False) -> Layers:
    """By the names in the published .npz.

    Args:
        dropout: the weights were trained with it. Published dropout does not rescale: at test it halves what it is
            applied to, so weights behind it are half as large here.
    """

    def matrix(layer, halved=False):
        factor = 0.5 if halved and dropout else 1.0
        return Weight(layer.kernel, lambda array: factor * array, lambda array: array / factor)

    def dense(name, layer, halved=False):
        return {f"{name}_W": matrix(layer, halved), f"{name}_b": permuted(layer.bias, 0)}

    hidden = decoder.initial_hidden
    weights = {
        "Wemb": permuted(decoder.word_vectors.vectors, 0, 1),
        "decoder_W": matrix(decoder.gates_of_word),
        "decoder_b": permuted(decoder.gates_of_word.bias, 0),
        "decoder_U": matrix(decoder.gates_of_state),
        **dense("ff_state", decoder.initial_state, halved=bool(hidden)),
        **dense("ff_memory", decoder.initial_memory, halved=bool(hidden)),
        **dense("ff_logit_lstm", decoder.output_of_state, halved=True),
        **dense("ff_logit", decoder.output_words, halved=True),
    }
    for i, layer in enumerate(hidden, 1):
        weights |= dense(f"ff_init_{i}", layer, halved=i > 1)
    for i, layer in enumerate(decoder.output_hidden, 1):
        weights |= dense(f"ff_logit_h{i}", layer, halved=True)
    if decoder.attends:
        weights |= {
            "decoder_Wc": matrix(decoder.gates_of_context),
            "decoder_Wc_att": matrix(decoder.annotation_projection),
            "decoder_b_att": permuted(decoder.annotation_projection.bias, 0),
            "decoder_Wd_att": matrix(decoder.state_projection),
            "decoder_U_att": matrix(decoder.scorer),
        }
        for i, layer in enumerate(decoder.deeper_projections, 1):
            weights |= {f"decoder_W_att_{i}": matrix(layer), f"decoder_b_att_{i}": permuted(layer.bias, 0)}
    if decoder.selector is not None:
        bias = Weight(decoder.selector.bias, lambda array: array.reshape(1), lambda array: array.reshape(()))
        weights |= {"decoder_W_sel": matrix(decoder.selector), "decoder_b_sel": bias}
    if decoder.output_of_context is not None:
        weights |= dense("ff_logit_ctx", decoder.output_of_context)
    return {"": weights}


def _show_attend_tell_sizes(arrays: Arrays, source: str, dropout: bool) -> tuple[dict, papers.Context]:
    """Whether the word before goes to the output layer leaves no trace; it does in the published run."""
    words, state, projection = _shapes(arrays, source, {"Wemb": 2, "decoder_U": 2, "decoder_Wc_att": 2})
    if projection[0] != 512:
        raise UserError(
            f"{source}: is made for annotations of {projection[0]} numbers, those of VGG-19 have 512: there is no "
            "network here to go with it"
        )
    sizes = {
        "vocabulary_limit": words[0],
        "word_dim": words[1],
        "state_dim": state[0],
        "attention_layers": 1 + _count(arrays, r"decoder_W_att_(\d+)$"),
        "initial_layers": 1 + _count(arrays, r"ff_init_(\d+)_W$"),
        "output_layers": 1 + _count(arrays, r"ff_logit_h(\d+)_W$"),
        "selector": "decoder_W_sel" in arrays,
        "context_to_output": "ff_logit_ctx_W" in arrays,
        "dropout": 0.5 if dropout else 0.0,
    }
    return sizes, papers.Context(vocabulary_size=words[0])


def _show_attend_tell_scheme(dropout: bool) -> Scheme:
    return Scheme(
        "show_attend_tell",
        ("decoder",),
        f"decoder of Show, Attend and Tell trained {'with' if dropout else 'without'} dropout: the .npz file "
        "(Wemb, decoder_W, ...), soft or hard attention; annotations are those of VGG-19",
        lambda decoder: show_attend_tell_layers(decoder, dropout),
        lambda arrays, source: _show_attend_tell_sizes(arrays, source, dropout),
        rename=lambda arrays: {name: array for name, array in arrays.items() if name not in _SHOW_ATTEND_TELL_RECORDS},
        drop=("decoder_c_tt",),  # added to all scores alike, which the softmax cancels
    )


SCHEMES = {
    "gan_int_cls_generator": Scheme(
        "gan_int_cls",
        ("generator",),
        "generator of Reed et al. (ICML 2016): its .t7 file, or an .npz or .pth file that names arrays by "
        "their places there (5.2.1.weight); convolution biases, zero but for one last update, are dropped",
        gan_int_cls_generator_layers,
        _gan_int_cls_sizes,
        drop=("bias",),
    ),
    "char_cnn_rnn": Scheme(
        "char_cnn_rnn",
        ("text_encoder",),
        "text encoder of Reed et al. (CVPR or ICML 2016): its .t7 file, or a .pth file of the PyTorch port "
        "(conv1.weight, rnn.i2h.weight, ...); birds (GRU) and flowers (RNN)",
        char_cnn_rnn_layers,
        _char_cnn_rnn_sizes,
        _char_cnn_rnn_names,
    ),
    "stackgan1_generator": Scheme(
        "stackgan",
        ("generator",),
        "Stage-I generator of StackGAN, pytorch form: netG_epoch_<number>.pth of Stage-I (COCO)",
        stackgan1_generator_layers,
        lambda arrays, source: _stackgan_sizes(arrays, source, stage=1),
    ),
    "stackgan2_generator": Scheme(
        "stackgan",
        ("generator", "stage1_generator"),
        "Stage-II generator of StackGAN with its Stage-I, pytorch form: netG_epoch_90.pth (COCO)",
        stackgan2_generator_layers,
        lambda arrays, source: _stackgan_sizes(arrays, source, stage=2),
    ),
    "stackgan_v2_generator": Scheme(
        "stackgan_v2",
        ("generator",),
        "generator of StackGAN++: netG_<iteration>.pth, with text (birds) or without",
        stackgan_v2_generator_layers,
        _stackgan_v2_generator_sizes,
    ),
    **{
        f"stackgan_v2_discriminator_{size}": Scheme(
            "stackgan_v2",
            (f"discriminator_{size}",),
            f"discriminator of StackGAN++ for {size} pixels: netD{number}.pth, with text (birds) or without",
            stackgan_v2_discriminator_layers,
            _stackgan_v2_discriminator_sizes,
        )
        for number, size in enumerate((64, 128, 256))
    },
    "show_attend_tell": _show_attend_tell_scheme(dropout=True),
    "show_attend_tell_without_dropout": _show_attend_tell_scheme(dropout=False),
}
