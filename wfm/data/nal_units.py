"""Damage in HEVC that its bytes give away: the codec library's decoder conceals what it meets, and marks nothing.

Coded pictures never hold two zeros that a third one or a 2 follows (an encoder puts a 3 between), and the lengths of their
units add up: blocks of zeros, where a disk or a download lost data, break one rule or the other. Single wrong bytes do not.
"""

from collections.abc import Iterator
from typing import Any

_CODED_PICTURE = 32  # types of units from here on are parameters and messages
_MOST = 4096
"Units of a packet that are looked at: a picture has at most 600 parts."


def is_torn(packet: Any, extradata: bytes | None) -> bool:
    """Whether a packet of HEVC cannot be as it was written. extradata: the stream's, which tells how units are told apart."""
    data = bytes(packet)
    told = extradata or b""
    in_mp4 = len(told) > 22 and told[0] == 1
    units = _by_length(data, (told[21] & 3) + 1) if in_mp4 else iter(data.split(b"\0\0\1", _MOST)[1:_MOST])
    return any(unit is None or _is_illegal(unit) for unit in units)


def _is_illegal(unit: bytes) -> bool:
    if len(unit) < 3 or unit[0] >> 1 & 0x3F >= _CODED_PICTURE:
        return False
    inside = unit.rstrip(b"\0")  # zeros may follow a unit
    return b"\0\0\0" in inside or b"\0\0\2" in inside


def _by_length(data: bytes, size: int) -> Iterator[bytes | None]:
    """The units; None for a length that leads past the end."""
    at = 0
    for _ in range(_MOST):
        if at >= len(data):
            return
        end = at + size + int.from_bytes(data[at : at + size], "big")
        yield data[at + size : end] if end <= len(data) else None
        at = end
