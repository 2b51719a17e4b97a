"""Mutations of bytes, always the same for a seed: bits, numbers, pieces that are gone or come again, and texts of JSON."""

import random
import re
from collections.abc import Callable

Change = Callable[[bytes, random.Random], bytes]

_NUMBERS = (
    *(0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 10**6),
    *(0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1),
)
_TEXTS = (
    b"-1", b"0", b"1e30000000", b"1e400", b"NaN", b"Infinity", b"-Infinity", b"null", b"true", b"[]", b"{}", b'""',
    b'"\\ud800"', b"9" * 30, b"9" * 5000, b"[" * 2000, b'"' + b"x" * 100_000 + b'"', b'"../../x"', b'"/etc/passwd"', b"\0",
    b"\xff\xfe", b"1000000000", b'"file:///etc/passwd"', b'"zip://a::file:///x"', b"0.000000000000000000001",
    b"[1,2,3,4,5,6,7,8]", b'{"a":{"a":{"a":1}}}',
)  # fmt: skip


def mutate(data: bytes, seed: int) -> bytes:
    """A mutation of some bytes, always the same for a seed."""
    chance = random.Random(seed)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 5, 8, 20))):
        texts = data[:1] == b"{" and chance.random() < 0.7
        data = (_text if texts else chance.choice(_CHANGES))(data, chance)
    return data


def _place(data: bytes, chance: random.Random) -> int:
    """Headers stand at either end: one in two changes is made there."""
    last = max(len(data) - 1, 0)
    near = min(last, 600)
    return chance.choice(
        (chance.randint(0, last), chance.randint(0, last), chance.randint(0, near), last - chance.randint(0, near))
    )


def _flip(data: bytes, chance: random.Random) -> bytes:
    at = _place(data, chance)
    return data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :] if data else data


def _number(data: bytes, chance: random.Random) -> bytes:
    at, width = _place(data, chance), chance.choice((1, 2, 4, 8))
    value = chance.choice(_NUMBERS) & (256**width - 1)
    return data[:at] + value.to_bytes(width, chance.choice(("little", "big"))) + data[at + width :]


def _cut(data: bytes, chance: random.Random) -> bytes:
    at = _place(data, chance)
    return data[:at] if chance.random() < 0.3 else data[:at] + data[at + chance.choice((1, 4, 50, 2000)) :]


def _again(data: bytes, chance: random.Random) -> bytes:
    at, other, length = _place(data, chance), _place(data, chance), chance.choice((1, 8, 100, 5000))
    return data[:at] + data[other : other + length] + data[at:]


def _noise(data: bytes, chance: random.Random) -> bytes:
    at, length = _place(data, chance), chance.choice((1, 4, 30, 500))
    return data[:at] + chance.randbytes(length) + data[at + length * chance.randrange(2) :]


def _blank(data: bytes, chance: random.Random) -> bytes:
    at, length = _place(data, chance), chance.choice((4, 64, 1000))
    return data[:at] + bytes([chance.choice((0, 255))]) * length + data[at + length :]


def _text(data: bytes, chance: random.Random) -> bytes:
    """A number or quoted text becomes another."""
    found = list(re.finditer(rb'"[^"\n]{0,80}"|-?\d[\d.]*|true|false|null', data[: 1 << 16]))
    if not found:
        return _noise(data, chance)
    one = chance.choice(found)
    return data[: one.start()] + chance.choice(_TEXTS) + data[one.end() :]


_CHANGES: tuple[Change, ...] = (_flip, _flip, _number, _number, _cut, _again, _noise, _blank, _text)
