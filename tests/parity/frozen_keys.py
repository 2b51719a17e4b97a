"""The frozen lists in `keys/`, read. Independent of wfm: it knows the notation (`keys/README.md`) and nothing else."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

FOLDER = Path(__file__).with_name("keys")


@dataclass
class FrozenKeys:
    """What a published file holds: names -> shapes."""

    total: int = 0
    weights: dict[str, tuple[int, ...]] = field(default_factory=dict)
    beside: dict[str, tuple[int, ...]] = field(default_factory=dict)
    "What a file may hold besides weights."


def read_keys(name: str) -> FrozenKeys:
    """The list `keys/<name>.txt`. Fails on a name that stands twice and on a total that is not the lines' sum."""
    keys = FrozenKeys()
    for line in (FOLDER / f"{name}.txt").read_text().splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0] == "total":
            keys.total = int(words[1])
            continue
        into = keys.weights
        if words[0] == "?":
            into, words = keys.beside, words[1:]
        layer = words[-1] == "b"
        shape = tuple(int(word) for word in words[1 : len(words) - layer])
        for found in expand(words[0]):
            lines = {f"{found}.weight": shape, f"{found}.bias": shape[:1]} if layer else {found: shape}
            assert not lines.keys() & into.keys(), f"{name}: {found} stands twice"
            into |= lines
    assert keys.total == sum(map(prod, keys.weights.values())), f"{name}: the lines do not sum to the total"
    return keys


def expand(pattern: str) -> Iterator[str]:
    """`a{0..2}.{w,b}` -> a0.w a0.b a1.w a1.b a2.w a2.b."""
    match = re.search(r"\{([^{}]*)\}", pattern)
    if match is None:
        yield pattern
        return
    choices = match[1].split(",")
    if ".." in match[1]:
        first, last = match[1].split("..")
        choices = [str(number) for number in range(int(first), int(last) + 1)]
    for choice in choices:
        yield from expand(pattern[: match.start()] + choice + pattern[match.end() :])
