"""Which part a video belongs to: parts of about as many bytes, that stay as they are when videos elsewhere come or go.

A part holds the ids that begin with some bits. It begins as a prefix of hex digits; while it holds more bytes than the target
it is halved by the next bit. So a part's name depends on what lies in it alone: one more video changes its own part, or halves
it; a single video that is larger than the target has a part to itself.
"""

import itertools
from collections.abc import Mapping


def part_names(sizes: Mapping[str, int], target: int, digits: int) -> dict[str, str]:
    """Id (hex) -> name of its part: ``digits`` hex digits, or more; bits beyond the last whole digit follow a dash.

    ``sizes``: id -> bytes. ``ab-01`` holds the ids whose digits ``a``, ``b`` are followed by one of ``4`` to ``7``.
    """
    names: dict[str, str] = {}
    waiting = [(list(ids), 4 * digits) for _, ids in itertools.groupby(sorted(sizes), lambda key: key[:digits])]
    while waiting:
        ids, bits = waiting.pop()
        if len(ids) == 1 or bits == 4 * len(ids[0]) or sum(sizes[key] for key in ids) <= target:
            names.update(dict.fromkeys(ids, _name(ids[0], bits)))
            continue
        halves = [[key for key in ids if _bit(key, bits) == bit] for bit in (0, 1)]
        waiting += [(half, bits + 1) for half in halves if half]
    return names


def _bit(key: str, bit: int) -> int:
    return int(key[bit // 4], 16) >> (3 - bit % 4) & 1


def _name(key: str, bits: int) -> str:
    rest = "".join(str(_bit(key, bit)) for bit in range(bits - bits % 4, bits))
    return key[: bits // 4] + (f"-{rest}" if rest else "")
