"""The authors' pickles, read without running anything.

`load` builds plain containers, texts, numbers and numeric numpy arrays. A pickle is a program; this one may call only
the few doors listed below, each of which checks what it is given. Arrays, scalars and dtypes are rebuilt by us from
checked parts: numpy's own `dtype.__setstate__` and `ndarray.__setstate__` would trust forged flags.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from t2i_tf.errors import UserError


def load(path: str | Path) -> Any:
    """The content of a pickle of Python 2 or 3, byte strings read as latin-1.

    Raises UserError naming the file when it is missing, damaged, or asks for anything but plain containers and numeric
    arrays; then nothing of it has run.
    """
    try:
        with open(path, "rb") as file:
            return _load(file, path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): put the authors' file there") from None


class Captions(NamedTuple):
    """AttnGAN's captions.pickle: word ids of each caption (all captions of picture 0, then 1, ...) and the words."""

    train: list[list[int]]
    test: list[list[int]]
    ixtoword: dict[int, str]
    wordtoix: dict[str, int]


def filenames(path: str | Path) -> list[str]:
    """filenames.pickle: the names of the pictures of a split. Raises UserError."""
    names = load(path)
    if not _is_list_of(names, str):
        raise UserError(f"{path} is not a list of file names: give the authors' filenames.pickle")
    return list(names)


def class_info(path: str | Path) -> np.ndarray:
    """class_info.pickle: the class number of each picture of a split, int64 [N]. Raises UserError."""
    classes = load(path)
    if isinstance(classes, np.ndarray):
        classes = classes.tolist()
    if not _is_list_of(classes, (int, np.integer)):
        raise UserError(f"{path} is not a list of class numbers: give the authors' class_info.pickle")
    return np.array(classes, np.int64)


def embeddings(path: str | Path) -> np.ndarray:
    """char-CNN-RNN-embeddings*.pickle: finite float32 [N, captions, dimensions]. Raises UserError."""
    content = load(path)
    try:
        array = np.asarray(content, np.float32)
    except (TypeError, ValueError):
        array = np.zeros(0)
    if array.ndim != 3 or not array.size:
        raise UserError(f"{path} does not hold an array [pictures, captions, dimensions] or a list of such rows")
    broken = np.flatnonzero(~np.isfinite(array).all(axis=(1, 2)))
    if broken.size:
        raise UserError(
            f"{path}: row {broken[0]:,} of {len(array):,}, counted from 0, holds numbers that are not finite; "
            "fetch the file again"
        )
    return array


def captions(path: str | Path) -> Captions:
    """captions.pickle of AttnGAN, checked for agreement of words and ids. Raises UserError."""
    content = load(path)
    if not isinstance(content, list | tuple) or len(content) != 4:
        raise UserError(f"{path} is not AttnGAN's captions.pickle (train and test captions, two word tables)")
    train, test, ixtoword, wordtoix = content
    tables = isinstance(ixtoword, dict) and isinstance(wordtoix, dict)
    if not tables or {word: number for number, word in ixtoword.items()} != wordtoix:
        raise UserError(f"{path}: its two word tables disagree; fetch the file again")
    for split, texts in (("train", train), ("test", test)):
        if not _is_list_of(texts, list):
            raise UserError(f"{path}: its {split} captions are not lists of word ids; fetch the file again")
        for number, text in enumerate(texts):
            if any(not isinstance(word, int) or word not in ixtoword for word in text):
                raise UserError(f"{path}: {split} caption {number} has a word id that is in no table")
    return Captions(train, test, ixtoword, wordtoix)


def vocabulary(path: str | Path) -> list[str]:
    """The words of a captions.pickle in the order of their numbers from 1; number 0 is "<end>", our padding.

    Raises UserError, also when the numbers have gaps or a word cannot be one.
    """
    words = captions(path).ixtoword
    if set(words) != set(range(len(words))) or words.get(0) != "<end>":
        raise UserError(f"{path}: its words are not numbered from 0, <end>, without gaps; fetch the file again")
    found = [words[number] for number in range(1, len(words))]
    unfit = [word for word in found if not isinstance(word, str) or word.split() != [word]]
    if unfit:
        raise UserError(f"{path}: {unfit[0]!r} is no word; fetch the file again")
    return found


def dictionary(path: str | Path, count: int) -> list[str]:
    """The words of a dictionary.pkl (word -> number) with the numbers 2 to `count` - 1, in their order.

    Those before are the end of a caption and the unknown word, which stands for all behind. Raises UserError for
    another file, and when one of these numbers has no word.
    """
    numbers = load(path)
    if not isinstance(numbers, dict) or not all(isinstance(w, str) and isinstance(n, int) for w, n in numbers.items()):
        raise UserError(
            f"{path} is no dictionary.pkl (words and their numbers): give that of the data it was trained on"
        )
    words = {number: word for word, number in numbers.items()}
    missing = [number for number in range(2, count) if number not in words]
    if missing:
        raise UserError(
            f"{path}: {len(missing):,} of the numbers 2 to {count - 1:,} that the weights know have no word "
            f"(e.g. {missing[0]}): give the dictionary.pkl of the data they were trained on"
        )
    return [words[number] for number in range(2, count)]


def published_embeddings(
    folder: str | Path, split: str, names: Sequence[str], caption_counts: Sequence[int]
) -> np.ndarray:
    """The authors' embeddings of these pictures: float32 [sum of caption_counts, dimensions], in caption order.

    Args:
        folder: holds `<split>/filenames.pickle` and one `<split>/char-CNN-RNN-embeddings*.pickle`.
        names: the pictures, matched by name without extension, or by its last part alone where folders differ.

    Raises UserError with counts when pictures are missing from the pickles or the numbers of captions differ.
    """
    folder = Path(folder) / split
    files = sorted(folder.glob("char-CNN-RNN-embeddings*.pickle"))
    if len(files) != 1:
        raise UserError(f"--embeddings: {folder} has {len(files)} files char-CNN-RNN-embeddings*.pickle instead of one")
    rows = published_rows(folder / "filenames.pickle", names)
    array = embeddings(files[0])
    if rows.size and rows.max() >= len(array):
        raise UserError(f"{files[0]} has {len(array):,} rows, fewer than filenames.pickle has names")
    differing = sum(count != array.shape[1] for count in caption_counts)
    if differing:
        raise UserError(
            f"{files[0]} has {array.shape[1]} captions a picture, {differing:,} of {len(names):,} pictures of "
            f"{split} have another number"
        )
    return array[rows].reshape(-1, array.shape[2])


def published_rows(path: Path, names: Sequence[str]) -> np.ndarray:
    """The position of each picture in the filenames.pickle at `path`, int64 [N]. Raises UserError with counts."""
    listed = filenames(path)

    def stem(name: str) -> str:
        return re.sub(r"\.(jpe?g|png)$", "", name, flags=re.IGNORECASE)

    found: list[int | None] = []
    for key in (stem, lambda name: PurePosixPath(stem(name)).name):
        position = {key(name): i for i, name in enumerate(listed)}
        found = [position.get(key(name)) for name in names]
        if None not in found and len(position) == len(listed):
            return np.array(found, np.int64)
    missing = [name for name, row in zip(names, found, strict=True) if row is None]
    if not missing:
        raise UserError(f"{path} names pictures twice: its {len(listed):,} names cannot be matched")
    raise UserError(
        f"{path}: {len(missing):,} of the {len(names):,} pictures of this data set are not among its {len(listed):,} "
        f"names (e.g. {missing[0]}): give the embeddings of this data set and split"
    )


def _is_list_of(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, kind) for item in value)


class _Forbidden(pickle.UnpicklingError):
    """Says what a pickle asked for."""


class _Door:
    """A callable that a pickle may name. It can be called; a pickle that tries to set its state is refused."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable):
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise _Forbidden("a change of a program's function")


class _Dtype:
    """Stands for a numpy dtype while unpickling: a number, boolean or text type and a byte order, nothing else."""

    def __init__(self, code: Any, align: Any = False, copy: Any = True):
        if not isinstance(code, str) or not re.fullmatch(r"[<>=|]?(b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,9})", code):
            raise _Forbidden(f"an array of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if len(state) not in (8, 9) or state[2:5] != (None, None, None) or state[1] not in ("<", ">", "=", "|"):
            raise _Forbidden("a structured array type")
        if self.dtype.kind in "SU" and state[5] != self.dtype.itemsize:
            raise _Forbidden("an array type of two sizes")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """A numpy array that takes its state only from checked parts."""

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype):
            raise _Forbidden("an array without a type")
        super().__setstate__((1, shape, dtype.dtype, bool(fortran), _bytes(data)))


_NDARRAY = object()
"""Stands for the name numpy.ndarray; it can be passed on, not called."""


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    if kind is not _NDARRAY:
        raise _Forbidden("an array of a class of its own")
    return _Array(0, np.int8)


def _scalar(dtype: Any, data: Any) -> np.generic:
    if not isinstance(dtype, _Dtype):
        raise _Forbidden("a number without a type")
    return np.frombuffer(_bytes(data), dtype.dtype, count=1)[0]


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(dtype, _Dtype):
        raise _Forbidden("an array without a type")
    return np.frombuffer(_bytes(data), dtype.dtype).reshape(shape, order=order)


def _encode(text: Any, encoding: Any) -> bytes:
    """How protocols 0 to 2 of Python 3 spell bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Forbidden(f"the encoding {encoding!r}")
    return text.encode("latin-1")


def _empty_bytes() -> bytes:
    return b""


def _bytes(data: Any) -> bytes:
    """Array contents; Python 2 wrote them as str, which is read as latin-1."""
    if isinstance(data, str):
        return data.encode("latin-1")
    if not isinstance(data, bytes | bytearray):
        raise _Forbidden("an array of objects")
    return bytes(data)


_DOORS: dict[str, Any] = {
    "numpy.ndarray": _NDARRAY,
    "numpy.dtype": _Door(_Dtype),
    "numpy.core.multiarray._reconstruct": _Door(_reconstruct),
    "numpy.core.multiarray.scalar": _Door(_scalar),
    "numpy.core.numeric._frombuffer": _Door(_frombuffer),
    "_codecs.encode": _Door(_encode),
    "builtins.bytes": _Door(_empty_bytes),
    "collections.OrderedDict": _Door(dict),
    "builtins.set": _Door(set),
    "builtins.frozenset": _Door(frozenset),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The door of that name; numpy 2 and Python 2 call some modules otherwise."""
        module = {"__builtin__": "builtins"}.get(module, module).replace("numpy._core.", "numpy.core.")
        if f"{module}.{name}" not in _DOORS:
            raise _Forbidden(f"{module}.{name}")
        return _DOORS[f"{module}.{name}"]


def _load(file: BinaryIO, path: str | Path) -> Any:
    has_crlf = b"\r\n" in file.read(64)
    file.seek(0)
    try:
        return _Unpickler(file, encoding="latin1").load()
    except Exception as error:  # a damaged pickle may raise anything
        if isinstance(error, _Forbidden) and not has_crlf:
            raise UserError(
                f"{path} is refused: it asks for {error}, and only plain containers and numeric arrays are read; "
                "do not open it with other programs"
            ) from None
        reason = "its line ends were changed to CRLF, as git does on Windows" if has_crlf else str(error)
        raise UserError(
            f"{path} is not a readable pickle ({reason or type(error).__name__}): fetch the file again, as binary"
        ) from None
