"""Invalidation: a tombstone says that a commit must not be used, and why. Nothing is deleted here."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

from wfm.artifacts import generations, schema
from wfm.artifacts.address import new_id, utc_now
from wfm.artifacts.listing import PartEntry
from wfm.artifacts.objects import Objects
from wfm.artifacts.schema import Key, Number, Short
from wfm.errors import InputError, TryAgain
from wfm.log import get_logger

SCHEMA_VERSION = 1
BY_UNKNOWN = "unknown"
BY_COLLECTION_WITHOUT_ROOM = "gc on a full disk"
_log = get_logger(__name__)


@dataclass(frozen=True)
class Tombstone:
    """Why a generation of a key must not be used."""

    key: Key
    generation: Number
    reason: str
    created_at: Short
    by: Short
    """`invalidate`, `purge`, `gc` followed by the id of the sweep; `BY_COLLECTION_WITHOUT_ROOM` for one without a byte, and
    `BY_UNKNOWN` for one that cannot be read: it counts all the same."""
    token: Short

    def described(self) -> str:
        """What happened, when (where that is known) and why, to follow a name: ``was invalidated at 2026-...: reason``."""
        if self.by == BY_UNKNOWN:
            return f"does not count: {self.reason}"
        verb = {"invalidate": "invalidated", "purge": "purged"}.get(self.by, "collected")
        when = f" at {self.created_at}" if self.created_at else ""
        return f"was {verb}{when}: {self.reason.removeprefix('purged: ')}"

    def to_bytes(self) -> bytes:
        return schema.encode({"schema_version": SCHEMA_VERSION, **asdict(self)})


def write_tombstones(
    objects: Objects, key: str, reason: str, parts_of: Callable[[int], Iterable[PartEntry]]
) -> Tombstone:
    """Tombstone the artifact first, then its parts: whoever sees a part gone sees its artifact gone too. A key that only a part
    has means the part.

    `parts_of` a generation gives the parts to bury. A manifest that cannot be read is buried too; its parts are not known
    then, and stay. Raises InputError when nothing is committed.
    """
    generation = generations.read_state(objects, f"artifacts/{key}").current
    if generation is None:
        of_part = generations.read_state(objects, f"parts/{key}").current
        if of_part is None:
            url = objects.address.url
            raise InputError(f"{url} has no committed artifact or part {key}: look at `wfm artifacts list --all`")
        return bury(objects, "parts", key, of_part, reason, "invalidate")
    tombstone = bury(objects, "artifacts", key, generation, reason, "invalidate")
    try:
        for entry in parts_of(generation):
            bury(objects, "parts", entry.key, entry.generation, f"part of {key}: {reason}", "invalidate")
    except InputError as error:
        _log.warning("its parts are not known, and count as before: %s", error)
    return tombstone


def bury(
    objects: Objects, area: str, key: str, generation: int, reason: str, by: str, *, needs_room: bool = True
) -> Tombstone:
    """Write one tombstone if absent; returns the one that stands.

    Raises TryAgain for a full disk; without `needs_room` a tombstone without a byte is written then, which most file systems
    can still do.
    """
    path = generations.tombstone_path(f"{area}/{key}", generation)
    tombstone = Tombstone(key, generation, reason, utc_now(), by, new_id())
    try:
        created = objects.create(path, tombstone.to_bytes())
    except TryAgain:
        if needs_room or objects.local_path(path) is None:
            raise
        objects.create(path, b"")
        created = False
    return tombstone if created else read_tombstone(objects, area, key, generation)


def read_tombstone(objects: Objects, area: str, key: str, generation: int) -> Tombstone:
    """A tombstone that is there. One that cannot be read stands as well: nobody uses what is below, and nobody deletes it.

    Raises FileNotFoundError when it was collected meanwhile.
    """
    path = generations.tombstone_path(f"{area}/{key}", generation)
    try:
        data = objects.read(path)
        if not data:
            return Tombstone(key, generation, "nothing needed it", "", BY_COLLECTION_WITHOUT_ROOM, "")
        return schema.read(Tombstone, data, path, SCHEMA_VERSION, key=key, generation=generation)
    except InputError as error:
        reason = f"its tombstone cannot be read: {error}; delete that file, then `wfm artifacts invalidate {key}` if it is bad"
        return Tombstone(key, generation, reason, "", BY_UNKNOWN, "")


def tombstones(objects: Objects, area: str, key: str) -> Iterator[Tombstone]:
    """Every tombstone of a key, oldest generation first."""
    for generation in sorted(generations.read_state(objects, f"{area}/{key}").tombstones):
        try:
            yield read_tombstone(objects, area, key, generation)
        except FileNotFoundError:  # collected meanwhile
            continue
