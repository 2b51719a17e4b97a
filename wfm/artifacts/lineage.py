"""Where an artifact came from: its inputs, theirs, and so on to the source files."""

from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

from wfm.errors import DataError, InputError

if TYPE_CHECKING:
    from wfm.artifacts.shelf import Shelf

SOURCE_TABLE = "videos"
SOURCE_COLUMN = "source"


@dataclass(frozen=True)
class Ancestor:
    """One artifact on the way. `manifest` is None (and `problem` says why) when it is no longer in the store."""

    key: str
    depth: int
    """Steps from the artifact that was asked for; 0 is itself."""
    stage: str
    kind: str
    created_at: str
    inputs: dict[str, str]
    extra: dict[str, Any]
    problem: str = ""


class Lineage:
    """The ancestors of one artifact. `ancestors` begins with the artifact; every artifact comes before its inputs."""

    def __init__(self, store: "Shelf", ancestors: list[Ancestor]) -> None:
        self.ancestors = ancestors
        self._store = store

    def __iter__(self) -> Iterator[Ancestor]:
        return iter(self.ancestors)

    def edges(self) -> Iterator[tuple[str, str, str]]:
        """(key of the input, name of the input, key of what was made from it)."""
        for ancestor in self.ancestors:
            for name, key in sorted(ancestor.inputs.items()):
                yield key, name, ancestor.key

    def roots(self) -> list[Ancestor]:
        """Ancestors that were made from nothing in the store: what came in from outside, or was simulated."""
        return [ancestor for ancestor in self.ancestors if not ancestor.inputs and not ancestor.problem]

    def sources(self) -> Iterator[str]:
        """Source files as they were given (paths, URLs, or `wfm://<key>/<path>`), from every ancestor's table of
        videos; each once."""
        seen: set[str] = set()
        for ancestor in self.ancestors:
            if ancestor.problem:
                continue
            try:
                for _, table in self._store.artifact(ancestor.key).iterate_table(SOURCE_TABLE, [SOURCE_COLUMN]):
                    for source in table.column(SOURCE_COLUMN).to_pylist():
                        if source and source not in seen:
                            seen.add(source)
                            yield source
            except InputError:  # a table of that name without that column is another thing
                continue


def trace(store: "Shelf", key: str) -> Lineage:
    """Walk the inputs of an artifact to the end. Raises InputError when the artifact itself is not in the store."""
    store.artifact(key)
    depths = _depths(store, key)
    return Lineage(
        store,
        sorted(
            (_ancestor(store, each, depth) for each, depth in depths.items()), key=lambda a: (a.depth, a.stage, a.key)
        ),
    )


def _depths(store: "Shelf", key: str) -> dict[str, int]:
    """Longest distance of every ancestor from `key`, so that each comes after all that was made from it.

    Raises DataError for a circle: keys are hashes of what they are made from, so an honest store has none.
    """
    parents: dict[str, set[str]] = {}
    waiting = [key]
    while waiting:
        each = waiting.pop()
        if each not in parents:
            parents[each] = set(_ancestor(store, each, 0).inputs.values())
            waiting += parents[each]
    try:
        ordered = list(TopologicalSorter(parents).static_order())
    except CycleError as error:
        circle = " <- ".join(one[:12] for one in error.args[1][:8])
        raise DataError(
            f"the inputs of {key[:12]} go in a circle ({circle}): these manifests are forged; `wfm artifacts invalidate` them"
        ) from None
    depths = {key: 0}
    for each in reversed(ordered):
        for parent in parents[each]:
            depths[parent] = max(depths.get(parent, 0), depths[each] + 1)
    return depths


def _ancestor(store: "Shelf", key: str, depth: int) -> Ancestor:
    try:
        manifest = store.artifact(key).manifest
    except InputError as error:
        return Ancestor(key, depth, "", "", "", {}, {}, str(error))
    return Ancestor(
        key, depth, manifest.stage, manifest.kind, manifest.created_at, dict(manifest.inputs), dict(manifest.extra)
    )
