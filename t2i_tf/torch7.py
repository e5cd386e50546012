"""Reads the files of Lua Torch (`torch.save`, binary mode) with numpy alone; no code in them is ever run.

The format is a tree of tagged values, little-endian: nil, number, string, boolean, function, table, object.
The last three carry an index; one seen before refers to the object read then, so trees may share and loop.
An object is a tensor, a storage, or an instance of a class, stored as one table of its fields.
"""

from __future__ import annotations

import contextlib
import math
import re
import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from t2i_tf.errors import UserError

# A file may nest and refer far more than its size suggests; these bound what a hostile one can cost.
MAX_DEPTH = 20_000
MAX_VALUES = 2_000_000
MAX_ELEMENTS = 2**28
MAX_DIMENSIONS = 16

NIL, NUMBER, STRING, TABLE, OBJECT, BOOLEAN, UNSHARED_FUNCTION, LEGACY_FUNCTION, FUNCTION = range(9)

_ARRAY_CLASS = re.compile(r"torch\.(?:Cuda)?(Byte|Char|Short|Int|Long|Half|Float|Double|(?<=Cuda))(Tensor|Storage)")
_ELEMENTS = {
    "Byte": "u1",
    "Char": "i1",
    "Short": "<i2",
    "Int": "<i4",
    "Half": "<f2",
    "Float": "<f4",
    "Double": "<f8",
    "": "<f4",
}


class Table(dict):
    """A Lua table; numbers are float keys. Equal only to itself, since tables may be keys of tables."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__
    __ne__ = object.__ne__

    def sequence(self) -> list:
        """The values at 1, 2, 3, ... up to the first gap."""
        values: list = []
        while (position := float(len(values) + 1)) in self:
            values.append(self[position])
        return values


@dataclass(eq=False, frozen=True)
class Record:
    """An instance of a Lua class: its type name, e.g. nn.Linear, class version (0: none) and fields."""

    type_name: str
    version: int
    fields: Table


@dataclass(eq=False, frozen=True)
class Function:
    """Stands where a Lua function was; its bytecode is skipped."""


def load(path: str | Path) -> Any:
    """The object in a Torch7 file: None, float, str, bool, Table, Record, Function or a read-only array.

    Tensors and storages are views of the file's bytes. Raises UserError, with the byte where it happened, for
    a file that is truncated, damaged, in Torch's text mode, or beyond the limits of this module.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): check the path") from None
    if re.match(rb"\d+\n", data):
        raise UserError(f"{path}: a Torch7 file in text mode: save it in binary, torch.save(name, object)")
    try:
        return _Reader(data, str(path), "<i8").load()
    except UserError as error:
        # Torch wrote the long integers of its machine: 4 bytes on Windows and on 32-bit systems.
        with contextlib.suppress(UserError):
            return _Reader(data, str(path), "<i4").load()
        raise error


class _Reader:
    """Reads with a stack of generators instead of calls: an unrolled network nests deeper than Python may."""

    def __init__(self, data: bytes, source: str, long_type: str):
        self.data = memoryview(data)
        self.source = source
        self.long_type = np.dtype(long_type)
        self.offset = 0
        self.values = 0
        self.objects: dict[int, Any] = {}

    def load(self) -> Any:
        stack = [self.value()]
        result = None
        while stack:
            try:
                child = stack[-1].send(result)
            except StopIteration as finished:
                stack.pop()
                result = finished.value
            else:
                if len(stack) == MAX_DEPTH:
                    raise self.error(f"objects are nested more than {MAX_DEPTH} deep")
                stack.append(child)
                result = None
        if self.offset != len(self.data):
            raise self.error(f"{len(self.data) - self.offset} bytes follow the end of the object")
        return result

    def error(self, reason: str) -> UserError:
        return UserError(f"{self.source}: not a sound Torch7 file, at byte {self.offset}: {reason}: fetch it again")

    def take(self, count: int) -> memoryview:
        if not 0 <= count <= len(self.data) - self.offset:
            raise self.error(f"{count} bytes are announced, {len(self.data) - self.offset} are left")
        self.offset += count
        return self.data[self.offset - count : self.offset]

    def integer(self) -> int:
        return struct.unpack("<i", self.take(4))[0]

    def array(self, dtype: np.dtype, count: int) -> np.ndarray:
        data = self.take(count * dtype.itemsize)
        return np.frombuffer(data, dtype) if count else np.zeros(0, dtype)

    def longs(self, count: int) -> list[int]:
        return self.array(self.long_type, count).tolist()

    def string(self) -> str:
        return bytes(self.take(self.integer())).decode("utf-8", "backslashreplace")

    def value(self) -> Generator:
        self.values += 1
        if self.values > MAX_VALUES:
            raise self.error(f"more than {MAX_VALUES} values")
        kind = self.integer()
        if kind == NIL:
            return None
        if kind == NUMBER:
            return struct.unpack("<d", self.take(8))[0]
        if kind == STRING:
            return self.string()
        if kind == BOOLEAN:
            return self.integer() == 1
        if kind == UNSHARED_FUNCTION:
            return (yield self.function(Function()))
        if kind not in (TABLE, OBJECT, LEGACY_FUNCTION, FUNCTION):
            raise self.error(f"{kind} is no type of value")
        index = self.integer()
        if index in self.objects:
            return self.objects[index]
        if kind == OBJECT:
            return (yield self.torch_object(index))
        self.objects[index] = Table() if kind == TABLE else Function()
        return (yield (self.table if kind == TABLE else self.function)(self.objects[index]))

    def function(self, function: Function) -> Generator:
        self.take(self.integer())  # bytecode
        yield self.value()  # the variables it had closed over
        return function

    def table(self, table: Table) -> Generator:
        for _ in range(self.integer()):
            key = yield self.value()
            item = yield self.value()
            if key is None or isinstance(key, np.ndarray):
                raise self.error("a table's key is nil or a tensor")
            if item is not None:
                table[key] = item
        return table

    def torch_object(self, index: int) -> Generator:
        name = self.string()
        version = re.fullmatch(r"V (\d{1,9})", name)
        if version:  # files older than class versions begin with the name
            name = self.string()
        array_class = _ARRAY_CLASS.fullmatch(name)
        if array_class:
            element, kind = array_class.groups()
            dtype = self.long_type if element == "Long" else np.dtype(_ELEMENTS[element])
            array = self.array(dtype, *self.longs(1)) if kind == "Storage" else (yield self.tensor(dtype))
            self.objects[index] = array
            return array
        record = Record(name, int(version[1]) if version else 0, Table())
        self.objects[index] = record
        fields = yield self.value()
        if not isinstance(fields, Table):
            raise self.error(f"{name!r} is not stored as a table of fields")
        record.fields.update(fields)
        return record

    def tensor(self, dtype: np.dtype) -> Generator:
        dimensions = self.integer()
        if not 0 <= dimensions <= MAX_DIMENSIONS:
            raise self.error(f"a tensor of {dimensions} dimensions")
        sizes, strides = self.longs(dimensions), self.longs(dimensions)
        (start,) = self.longs(1)  # counted from 1
        storage = yield self.value()
        if storage is None or dimensions == 0 or 0 in sizes:
            return np.zeros(0, dtype)
        if (
            not isinstance(storage, np.ndarray)
            or storage.dtype != dtype
            or storage.ndim != 1
            or not storage.flags.c_contiguous
        ):
            raise self.error("a tensor whose storage is none, or of another type")
        end = start + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True))
        if start < 1 or min(sizes) < 1 or min(strides) < 0 or end > len(storage) or math.prod(sizes) > MAX_ELEMENTS:
            raise self.error(f"a tensor of sizes {sizes}, strides {strides} in a storage of {len(storage)}")
        steps = [stride * dtype.itemsize * (size > 1) for size, stride in zip(sizes, strides, strict=True)]
        return np.lib.stride_tricks.as_strided(storage[start - 1 :], sizes, steps, writeable=False)


def parameters(value: Any, source: str) -> dict[str, np.ndarray]:
    """The parameters and running statistics in a tree of tables and nn modules, by their places in it.

    A module's name is the path of 1-based positions in its containers, behind the keys of the tables around:
    `3.weight`, `5.2.1.bias`, `protos.enc_doc.2.1.weight`. Layouts become PyTorch's: convolutions stored as
    matrices are unfolded, temporal ones are (out, in, kernel), `running_std` of early files is `running_var`.
    A tensor that several modules share (unrolled networks) is named once, by its first place.

    Raises UserError, naming the file as `source`, when a tensor contradicts the fields beside it.
    """
    arrays: dict[str, np.ndarray] = {}
    elements = 0
    seen: set = set()
    pending: list[tuple[str, Any]] = [("", value)]
    while pending:
        name, node = pending.pop()
        is_array = isinstance(node, np.ndarray)
        if not is_array and not isinstance(node, Table | Record):
            continue
        identity = (node.__array_interface__["data"][0], node.shape, node.strides) if is_array else id(node)
        if identity in seen:
            continue
        seen.add(identity)
        if is_array:
            arrays[name] = node
            elements += node.size
            if elements > MAX_ELEMENTS:
                raise UserError(f"{source}: more than {MAX_ELEMENTS} parameters: give a published file")
            continue
        if isinstance(node, Table):
            children = _table_children(node)
        else:
            children = _module_children(node.fields, f"{source}: {name or 'the network'}")
        pending += [(f"{name}.{key}" if name else key, child) for key, child in reversed(list(children))]
    return arrays


def _table_children(table: Table) -> Iterator[tuple[str, Any]]:
    for key, child in table.items():
        if isinstance(key, str | float):
            yield str(int(key) if isinstance(key, float) and key.is_integer() else key), child


def _module_children(fields: Table, place: str) -> Iterator[tuple[str, Any]]:
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        array = fields.get(leaf)
        if isinstance(array, np.ndarray) and array.size:
            yield leaf, _unfolded(array, fields, place) if leaf == "weight" else array
    if "running_var" not in fields and isinstance(fields.get("running_std"), np.ndarray):
        # Despite its name it is 1 / sqrt(var + eps).
        (eps,) = _numbers(fields, ["eps"], place)
        with np.errstate(divide="ignore"):
            yield "running_var", (fields["running_std"].astype(np.float64) ** -2 - eps).astype(np.float32)
    for position, child in enumerate(_submodules(fields), start=1):
        if isinstance(child, Record):
            yield str(position), child


def _submodules(fields: Table) -> list:
    """The children of a container, and the modules of an nngraph in the order in which they are evaluated."""
    if isinstance(fields.get("modules"), Table):
        return fields["modules"].sequence()
    if not isinstance(fields.get("forwardnodes"), Table):
        return []
    nodes = [node for node in fields["forwardnodes"].sequence() if isinstance(node, Record)]
    data = [node.fields.get("data") for node in nodes]
    return [entry["module"] for entry in data if isinstance(entry, Table) and "module" in entry]


def _unfolded(weight: np.ndarray, fields: Table, place: str) -> np.ndarray:
    """A convolution stored as a matrix -> (out, in, rows, columns), a temporal one -> (out, in, kernel)."""
    temporal, spatial = ["kW", "inputFrameSize"], ["nInputPlane", "kH", "kW"]
    names = temporal if "inputFrameSize" in fields else spatial
    if weight.ndim != 2 or not all(name in fields for name in names):
        return weight
    shape = [int(number) for number in _numbers(fields, names, place)]
    if min(shape) < 1 or math.prod(shape) != weight.shape[1]:
        raise UserError(
            f"{place}: a weight of shape {weight.shape} where {', '.join(names)} are {shape}: fetch it again"
        )
    unfolded = weight.reshape(weight.shape[0], *shape)
    return unfolded.transpose(0, 2, 1) if names == temporal else unfolded


def _numbers(fields: Table, names: list[str], place: str) -> list[float]:
    numbers = [fields.get(name) for name in names]
    if not all(isinstance(number, float) and math.isfinite(number) for number in numbers):
        raise UserError(f"{place}: has no {', '.join(names)} beside its tensors: fetch it again")
    return numbers
