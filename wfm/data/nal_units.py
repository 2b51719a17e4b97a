"""Damage in HEVC that its bytes give away: the codec library's decoder conceals what it meets, and marks nothing.

Coded pictures never hold two zeros that a third one or a 2 follows (an encoder puts a 3 between), and the lengths of their
units add up: blocks of zeros, where a disk or a download lost data, break one rule or the other. Single wrong bytes do not.
"""

import re
from collections.abc import Iterator
from typing import Any

_ILLEGAL = re.compile(rb"\x00\x00(\x00+[^\x00]|\x02)")
_CODED_PICTURE = 32  # types of units from here on are parameters and messages


def is_torn(packet: Any, extradata: bytes | None) -> bool:
    """Whether a packet of HEVC cannot be as it was written. extradata: the stream's, which tells how units are told apart."""
    data = bytes(packet)
    told = extradata or b""
    in_mp4 = len(told) > 22 and told[0] == 1
    units = _by_length(data, (told[21] & 3) + 1) if in_mp4 else iter(data.split(b"\0\0\1")[1:])
    return any(unit is None or (_is_picture(unit) and _ILLEGAL.search(unit) is not None) for unit in units)


def _is_picture(unit: bytes) -> bool:
    return len(unit) > 2 and unit[0] >> 1 & 0x3F < _CODED_PICTURE


def _by_length(data: bytes, size: int) -> Iterator[bytes | None]:
    """The units; None for a length that leads past the end."""
    at = 0
    while at < len(data):
        end = at + size + int.from_bytes(data[at : at + size], "big")
        yield data[at + size : end] if end <= len(data) else None
        at = end
