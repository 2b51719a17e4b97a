"""Invalidation: a tombstone says that a commit must not be used, and why. Nothing is deleted here."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from wfm.artifacts import generations, schema
from wfm.artifacts.address import new_id, utc_now
from wfm.artifacts.objects import Objects

if TYPE_CHECKING:
    from wfm.artifacts.artifact import Artifact
    from wfm.artifacts.store import Store

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Tombstone:
    """Why a generation of a key must not be used."""

    key: str
    generation: int
    reason: str
    created_at: str
    by: str
    """`invalidate`, `purge`, or `gc` followed by the id of the sweep."""
    token: str

    def told(self) -> str:
        """What happened, when and why, to follow a name: ``was invalidated at 2026-...: reason``."""
        verb = {"invalidate": "invalidated", "purge": "purged"}.get(self.by, "collected")
        return f"was {verb} at {self.created_at}: {self.reason.removeprefix('purged: ')}"

    def to_bytes(self) -> bytes:
        return schema.encode({"schema_version": SCHEMA_VERSION, **asdict(self)})

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> "Tombstone":
        document = schema.decode(data, where, SCHEMA_VERSION)
        return cls(**{name: document[name] for name in cls.__dataclass_fields__})


def write_tombstones(store: "Store", artifact: "Artifact", reason: str, *, parts: bool) -> Tombstone:
    """Tombstone the artifact first, then its parts: whoever sees a part gone sees its artifact gone too."""
    tombstone = bury(store.objects, "artifacts", artifact.key, artifact.manifest.generation, reason, "invalidate")
    if parts:
        for entry in artifact.iterate_parts():
            bury(store.objects, "parts", entry.key, entry.generation, f"part of {artifact.key}: {reason}", "invalidate")
    return tombstone


def bury(objects: Objects, area: str, key: str, generation: int, reason: str, by: str) -> Tombstone:
    """Write one tombstone if absent; returns the one that stands."""
    path = generations.tombstone_path(f"{area}/{key}", generation)
    tombstone = Tombstone(key, generation, reason, utc_now(), by, new_id())
    if objects.create(path, tombstone.to_bytes()):
        return tombstone
    return Tombstone.from_bytes(objects.read(path), path)


def tombstones(objects: Objects, area: str, key: str) -> Iterator[Tombstone]:
    """Every tombstone of a key, oldest generation first."""
    folder = f"{area}/{key}"
    for generation in sorted(generations.read_state(objects, folder).tombstones):
        path = generations.tombstone_path(folder, generation)
        try:
            yield Tombstone.from_bytes(objects.read(path), path)
        except FileNotFoundError:  # collected meanwhile
            continue
