"""Which commit of a key counts: generations and tombstones.

Beside `manifest.json` (generation 1) lie, after an invalidation, `tombstone-1.json` and in time `manifest-2.json`.
Every name is
created once and never rewritten, so two processes that invalidate and commit at the same moment cannot destroy each
other's work. The
highest manifest counts when it is above the highest tombstone; the next commit is one above the highest tombstone.
"""

import re
from dataclasses import dataclass

from wfm.artifacts.objects import Objects

_NAME = re.compile(r"(manifest|tombstone)(?:-([1-9][0-9]*))?\.json")


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
    found: dict[str, set[int]] = {"manifest": set(), "tombstone": set()}
    for name in objects.names(folder):
        match = _NAME.fullmatch(name)
        if match:
            found[match[1]].add(int(match[2] or 1))
    return State(frozenset(found["manifest"]), frozenset(found["tombstone"]))


def manifest_path(folder: str, generation: int) -> str:
    return f"{folder}/manifest.json" if generation == 1 else f"{folder}/manifest-{generation}.json"


def tombstone_path(folder: str, generation: int) -> str:
    return f"{folder}/tombstone-{generation}.json"
