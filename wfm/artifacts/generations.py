"""Which commit of a key counts: generations and tombstones.

Beside `manifest.json` (generation 1) lie, after an invalidation, `tombstone-1.json` and in time `manifest-2.json`.
Every name is
created once and never rewritten, so two processes that invalidate and commit at the same moment cannot destroy each
other's work. The
highest manifest counts when it is above the highest tombstone; the next commit is one above the highest tombstone.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from wfm.artifacts.address import ID_PATTERN, KEY_PATTERN
from wfm.artifacts.objects import Objects

_NAME = re.compile(r"manifest\.json|manifest-(?!1\.)[1-9][0-9]{0,13}\.json|tombstone-[1-9][0-9]{0,13}\.json")
AREAS = ("artifacts", "parts")


@dataclass(frozen=True)
class State:
    """What is written about a key: generations with a manifest, and those with a tombstone."""

    manifests: frozenset[int]
    tombstones: frozenset[int]

    @property
    def next(self) -> int:
        """The generation that a commit now would make."""
        return max(self.tombstones, default=0) + 1

    @property
    def current(self) -> int | None:
        """The generation that counts, or None when nothing is committed."""
        highest = max(self.manifests, default=0)
        return highest if highest > max(self.tombstones, default=0) else None


def read_state(objects: Objects, folder: str) -> State:
    """Look at a key's folder (`artifacts/<key>` or `parts/<key>`): one listing."""
    manifests: set[int] = set()
    tombstones: set[int] = set()
    for name in objects.names(folder):
        if not _NAME.fullmatch(name):
            continue
        kind, number = name.removesuffix(".json").partition("-")[::2]
        (manifests if kind == "manifest" else tombstones).add(int(number or 1))
    return State(frozenset(manifests), frozenset(tombstones))


def keys(objects: Objects, area: str, stem: str = "") -> Iterator[str]:
    """Keys in `artifacts` or `parts` (or another folder of folders by key) that begin with `stem`, in order, committed or not.
    What else lies there is not ours: it is passed over."""
    for name in objects.names(area, stem):
        if name.endswith("/") and KEY_PATTERN.fullmatch(name[:-1]):
            yield name[:-1]


def attempts(objects: Objects, folder: str) -> Iterator[str]:
    """Ids of the attempts in a key's folder, committed or not, oldest first."""
    for name in objects.names(f"{folder}/attempts"):
        if name.endswith("/") and ID_PATTERN.fullmatch(name[:-1]):
            yield name[:-1]


def manifest_path(folder: str, generation: int) -> str:
    return f"{folder}/manifest.json" if generation == 1 else f"{folder}/manifest-{generation}.json"


def tombstone_path(folder: str, generation: int) -> str:
    return f"{folder}/tombstone-{generation}.json"
