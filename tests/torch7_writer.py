"""Writes Torch7's binary serialisation, for tests: the counterpart of t2i_tf.torch7."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np

_NAMES = {
    "u1": "Byte",
    "i1": "Char",
    "i2": "Short",
    "i4": "Int",
    "i8": "Long",
    "f2": "Half",
    "f4": "Float",
    "f8": "Double",
}


@dataclass(eq=False)
class Lua:
    """An instance of a Lua class; version None writes the header of files older than class versions."""

    type_name: str
    fields: dict = field(default_factory=dict)
    version: int | None = 1


@dataclass(eq=False)
class Tensor:
    """A view of a flat storage; start counts from 1. Several may share one storage array."""

    storage: np.ndarray
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    start: int = 1
    name: str = ""


@dataclass(eq=False)
class Closure:
    """A Lua function: some bytecode and the variables it closed over; Torch wrote kinds 6, 7 and 8."""

    upvalues: object
    kind: int = 8
    bytecode: bytes = b"\x1bLua not to be run"


@dataclass(eq=False)
class Hashable:
    """A table given as pairs, so that a key may be anything."""

    pairs: list


def dumps(value, long_format: str = "q") -> bytes:
    """None, bool, int, float, str, dict, list (a table from 1), array (a tensor) or one of the above."""
    return b"".join(_Writer(long_format).value(value))


class _Writer:
    def __init__(self, long_format):
        self.long_format = long_format
        self.indices, self.kept, self.storages = {}, [], {}

    def integer(self, number):
        return struct.pack("<i", number)

    def longs(self, *numbers):
        return struct.pack(f"<{len(numbers)}{self.long_format}", *numbers)

    def string(self, text):
        data = text.encode() if isinstance(text, str) else text
        return self.integer(len(data)) + data

    def header(self, name, version=1):
        return self.string(name) if version is None else self.string(f"V {version}") + self.string(name)

    def value(self, value):
        if value is None:
            yield self.integer(0)
        elif isinstance(value, bool):
            yield self.integer(5) + self.integer(value)
        elif isinstance(value, int | float):
            yield self.integer(1) + struct.pack("<d", value)
        elif isinstance(value, str | bytes):
            yield self.integer(2) + self.string(value)
        elif isinstance(value, Closure) and value.kind == 6:
            yield self.integer(6) + self.string(value.bytecode)
            yield from self.value(value.upvalues)
        else:
            kind = 3 if isinstance(value, dict | list | Hashable) else getattr(value, "kind", 4)
            yield self.integer(kind)
            if id(value) in self.indices:
                yield self.integer(self.indices[id(value)])
                return
            self.indices[id(value)] = len(self.indices) + 1
            self.kept.append(value)
            yield self.integer(self.indices[id(value)])
            yield from self.content(value)

    def content(self, value):
        if isinstance(value, Closure):
            yield self.string(value.bytecode)
            yield from self.value(value.upvalues)
        elif isinstance(value, Lua):
            yield self.header(value.type_name, value.version)
            yield from self.value(value.fields)
        elif isinstance(value, Tensor):
            name = value.name or _NAMES[value.storage.dtype.str[1:]]
            yield self.header(f"torch.{name}Tensor") + self.integer(len(value.sizes))
            yield self.longs(*value.sizes) + self.longs(*value.strides) + self.longs(value.start)
            yield from self.value(self.storages.setdefault(id(value.storage), _Storage(value.storage, name)))
        elif isinstance(value, np.ndarray):
            flat = np.ascontiguousarray(value).reshape(-1)
            strides = [stride // value.itemsize for stride in np.ascontiguousarray(value).strides]
            yield from self.content(Tensor(flat, value.shape, strides))
        elif isinstance(value, _Storage):
            yield self.header(f"torch.{value.name}Storage") + self.longs(value.array.size)
            long = value.name.endswith("Long")
            yield self.longs(*value.array.tolist()) if long else value.array.tobytes()
        else:
            if isinstance(value, list):
                value = dict(enumerate(value, start=1))
            pairs = list(value.items() if isinstance(value, dict) else value.pairs)
            yield self.integer(len(pairs))
            for key, item in pairs:
                yield from self.value(key)
                yield from self.value(item)


@dataclass(eq=False)
class _Storage:
    array: np.ndarray
    name: str
