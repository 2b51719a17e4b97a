"""The pickle in a TorchScript archive, read by a machine of our own: what describes tensors, and nothing else.

Python's unpickler believes what it is told: an index of four bytes makes it set aside gigabytes, and a key of nested tuples
ends the process. TorchScript writes few of its instructions. These are carried out here, on plain lists and a dictionary, with
a bound on how many there may be, so that memory and time follow from the bytes that are there.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

from wfm.errors import DataError

MAX_INSTRUCTIONS = 1_000_000
"""Most instructions carried out: some 20,000 tensors; the largest preset has 1,000."""
MAX_DIMENSIONS = 16

STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool",
}  # fmt: skip
_LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
_MARK = object()


class WrongPickle(DataError):
    """A pickle that is damaged, or is more than a description of tensors."""


@dataclass
class Storage:
    """Numbers of one dtype in an entry of the archive."""

    dtype: str
    key: str
    count: int


@dataclass
class StoredTensor:
    """Where a tensor lies in its storage; offset and strides count numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def is_contiguous(self) -> bool:
        """Whether its numbers lie in order and without gaps."""
        expected, step = [], 1
        for size in reversed(self.shape):
            expected.append(step)
            step *= size
        return all(
            size < 2 or seen == wanted
            for size, seen, wanted in zip(self.shape, self.strides, reversed(expected), strict=True)
        )

    @property
    def last(self) -> int:
        """Index of the last number that is touched within the storage; -1 for an empty tensor."""
        if prod(self.shape) == 0:
            return -1
        return self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.strides, strict=True))


@dataclass
class Module:
    """A module or other object of the archive: attributes, no behaviour."""

    attributes: dict[str, Any] = field(default_factory=dict)


class Machine:
    """Carries out one pickle; `run` returns what it describes. Raises `WrongPickle`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The object on top of the stack at STOP."""
        for _ in range(MAX_INSTRUCTIONS):
            code = self._take(1)
            if code == b".":
                return self._pop()
            step = _STEPS.get(code)
            if step is None:
                raise WrongPickle(f"instruction {code!r} at byte {self._at - 1:,}, which TorchScript does not write")
            step(self)
        raise WrongPickle(f"more than {MAX_INSTRUCTIONS:,} instructions")

    def _take(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        if len(found) != count:
            raise WrongPickle("it ends too early")
        self._at += count
        return found

    def _number(self, form: str) -> int:
        (number,) = struct.unpack(form, self._take(struct.calcsize(form)))
        return int(number)

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at, self._at + 1000)
        if end < 0:
            raise WrongPickle("it names something of more than 1,000 characters")
        found = self._data[self._at : end]
        self._at = end + 1
        return found.decode("utf-8", "replace")

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise WrongPickle("it takes what is not there")
        return self._stack.pop()

    def _top(self, kind: type) -> Any:
        if not self._stack or type(self._stack[-1]) is not kind:
            raise WrongPickle(f"it fills a {kind.__name__} that is not there")
        return self._stack[-1]

    def _since_mark(self) -> list[Any]:
        for place in range(len(self._stack) - 1, -1, -1):
            if self._stack[place] is _MARK:
                found = self._stack[place + 1 :]
                del self._stack[place:]
                return found
        raise WrongPickle("it takes what is not there")

    def _text(self) -> None:
        self._push(self._take(self._number("<I")).decode("utf-8", "replace"))

    def _long(self) -> None:
        count = self._number("<B")
        if count > 8:
            raise WrongPickle(f"a number of {count} bytes")
        self._push(int.from_bytes(self._take(count), "little", signed=True))

    def _tuple(self, count: int) -> None:
        self._push(tuple([self._pop() for _ in range(count)][::-1]))

    def _put(self, index: int) -> None:
        if not self._stack:
            raise WrongPickle("it keeps what is not there")
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise WrongPickle(f"it takes number {index:,} of what it has not kept")
        self._push(self._memo[index])

    def _items(self, pairs: list[Any]) -> None:
        into = self._top(dict)
        if len(pairs) % 2 or not all(type(key) in (str, int, bool, float) for key in pairs[::2]):
            raise WrongPickle("a key that is no text or number")
        into.update(zip(pairs[::2], pairs[1::2], strict=True))

    def _item(self) -> None:
        value, key = self._pop(), self._pop()
        self._items([key, value])

    def _appended(self, values: list[Any]) -> None:
        self._top(list).extend(values)

    def _append(self) -> None:
        self._appended([self._pop()])

    def _version(self) -> None:
        if (version := self._number("<B")) > 2:
            raise WrongPickle(f"protocol {version}; TorchScript writes 2")

    def _name(self) -> None:
        module, name = self._line(), self._line()
        if module == "__torch__" or module.startswith("__torch__."):
            self._push(_Name("module"))
        elif module == "torch" and name in STORAGES:
            self._push(STORAGES[name])
        elif (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            self._push(_Name("tensor"))
        elif module == "torch.jit._pickle" and name in _LISTS:
            self._push(_Name("list"))
        elif (module, name) == ("collections", "OrderedDict"):
            self._push(_Name("dict"))
        else:
            raise WrongPickle(f"it names {module[:100]}.{name[:100]}, which is no part of a module's tensors")

    def _called(self) -> None:
        """REDUCE and NEWOBJ: a name and its arguments become what is described."""
        arguments, name = self._pop(), self._pop()
        if not isinstance(name, _Name) or type(arguments) is not tuple:
            raise WrongPickle("it calls what is no name")
        if name.kind == "module":
            self._push(Module())
        elif name.kind == "tensor":
            self._push(_tensor(*arguments[:4]) if len(arguments) >= 4 else _tensor(None, None, None, None))
        elif name.kind == "list" and len(arguments) == 1 and type(arguments[0]) is list:
            self._push(arguments[0])
        elif name.kind == "dict" and not arguments:
            self._push({})
        else:
            raise WrongPickle(f"it makes a {name.kind} of something else")

    def _built(self) -> None:
        state = self._pop()
        if type(state) is not dict:
            raise WrongPickle(f"a module with the state {type(state).__name__}")
        self._top(Module).attributes = state

    def _persistent(self) -> None:
        told = self._pop()
        if type(told) is not tuple or len(told) != 5:
            raise WrongPickle("it describes a storage as something else than five things")
        kind, dtype, key, _, count = told
        named = isinstance(dtype, str) and dtype in STORAGES.values()
        if kind != "storage" or not named or not _is_digits(key) or not _whole(count):
            raise WrongPickle(f"it describes a storage as {_shown(told)}")
        self._push(Storage(dtype, str(key), count))


@dataclass(frozen=True)
class _Name:
    kind: str


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> StoredTensor:
    fits = isinstance(storage, Storage) and type(shape) is tuple and type(strides) is tuple
    if not fits or len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
        raise WrongPickle("it describes a tensor that cannot be")
    if not all(map(_whole, (offset, *shape, *strides))):
        raise WrongPickle("it describes a tensor that cannot be")
    return StoredTensor(storage, offset, shape, strides)


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_digits(key: Any) -> bool:
    return isinstance(key, str) and key.isascii() and key.isdigit() and len(key) <= 20


def _shown(values: tuple[Any, ...]) -> str:
    """Of what was told the plain values alone: others may be nested without end."""
    return ", ".join(repr(value)[:40] if isinstance(value, str | int) else type(value).__name__ for value in values)


_STEPS: dict[bytes, Callable[[Machine], None]] = {
    b"\x80": Machine._version,
    b"c": Machine._name,
    b"(": lambda m: m._push(_MARK),
    b")": lambda m: m._push(()),
    b"]": lambda m: m._push([]),
    b"}": lambda m: m._push({}),
    b"N": lambda m: m._push(None),
    b"\x88": lambda m: m._push(True),
    b"\x89": lambda m: m._push(False),
    b"K": lambda m: m._push(m._number("<B")),
    b"M": lambda m: m._push(m._number("<H")),
    b"J": lambda m: m._push(m._number("<i")),
    b"\x8a": Machine._long,
    b"G": lambda m: m._push(struct.unpack(">d", m._take(8))[0]),
    b"X": Machine._text,
    b"t": lambda m: m._push(tuple(m._since_mark())),
    b"\x85": lambda m: m._tuple(1),
    b"\x86": lambda m: m._tuple(2),
    b"\x87": lambda m: m._tuple(3),
    b"a": Machine._append,
    b"e": lambda m: m._appended(m._since_mark()),
    b"s": Machine._item,
    b"u": lambda m: m._items(m._since_mark()),
    b"q": lambda m: m._put(m._number("<B")),
    b"r": lambda m: m._put(m._number("<I")),
    b"h": lambda m: m._get(m._number("<B")),
    b"j": lambda m: m._get(m._number("<I")),
    b"R": Machine._called,
    b"\x81": Machine._called,
    b"b": Machine._built,
    b"Q": Machine._persistent,
}
