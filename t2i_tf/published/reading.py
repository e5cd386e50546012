"""Published files -> named arrays. No code in a file is run."""

from __future__ import annotations

import pickle
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from t2i_tf import torch7
from t2i_tf.errors import UserError

Arrays = dict[str, np.ndarray]


def read(path: str | Path) -> Arrays:
    """The named arrays of a published file: .npz, .pth, .pt, .t7 (named as `torch7.parameters` says), or a checkpoint
    of TensorFlow, x.ckpt or x.ckpt-1000, by its name or that of any of its files.

    Raises UserError when the file is of another kind, damaged, or would run code to be loaded.
    """
    readers = {".npz": _read_npz, ".pth": _read_pytorch, ".pt": _read_pytorch, ".t7": _read_torch7}
    checkpoint = re.match(r".*\.ckpt(-\d+)?(?=$|\.index$|\.meta$|\.data-[\d-]+of-\d+$)", str(path))
    if checkpoint:
        return _read_checkpoint(checkpoint[0])
    reader = readers.get(Path(path).suffix.lower())
    if reader is None:
        raise UserError(f"{path}: unknown kind of file: give one that ends in {', '.join(readers)} or .ckpt")
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
        raise UserError(f"{path}: needs PyTorch to be read: pip install -e '.[published]'") from None
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


def _read_checkpoint(path: str) -> Arrays:
    """The numeric variables, without Adam's moments."""
    import tensorflow as tf

    if not (Path(path).is_file() or Path(f"{path}.index").is_file()):
        raise UserError(f"{path}: there is no such checkpoint: check the path")
    try:
        reader = tf.train.load_checkpoint(path)
        kinds = reader.get_variable_to_dtype_map()
        names = [name for name in sorted(kinds) if kinds[name] != tf.string and not re.search(r"/Adam(_\d+)?$", name)]
        return {name: np.asarray(reader.get_tensor(name)) for name in names}
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise UserError(f"{path}: not a sound checkpoint ({_first_line(error)}): fetch it again") from None


def _first_line(error: Exception) -> str:
    return " ".join([f"{type(error).__name__}:", *str(error).strip().splitlines()[:1]])[:160]
