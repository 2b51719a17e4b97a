"""What is live: everything that a name, a run that is recent or not over, or a held lease points at, and all that it was made
from."""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from wfm.artifacts import generations, lease
from wfm.artifacts.address import KEY_PATTERN, age_seconds
from wfm.artifacts.invalidation import BY_UNKNOWN, tombstones
from wfm.artifacts.names import CANDIDATE
from wfm.artifacts.open_runs import open_runs
from wfm.errors import DataError, InputError

if TYPE_CHECKING:
    from wfm.artifacts.artifact import Artifact
    from wfm.artifacts.names import Promotion
    from wfm.artifacts.runs import Run
    from wfm.artifacts.shelf import Shelf

T = TypeVar("T")


@dataclass
class Live:
    """Keys of live artifacts with the reason, live parts as (key, generation), and the keys of held leases."""

    artifacts: dict[str, str] = field(default_factory=dict)
    parts: set[tuple[str, int]] = field(default_factory=set)
    leases: set[str] = field(default_factory=set)
    wanted: set[str] = field(default_factory=set)
    """Keys that names, runs and leases point at, committed or not."""
    unmade: set[str] = field(default_factory=set)
    """Keys that something points at and that are not committed: their parts may be there already."""
    unread: list[str] = field(default_factory=list)
    """What counts and cannot be read, in words. It may need anything."""


@dataclass(frozen=True)
class Keep:
    """How much history stays: newest runs (and all that are not over, `open_runs`), newest promotions of each name (of its
    candidates so many, and only those younger than `candidate_seconds`), and how old (in seconds) a thing must be to go."""

    runs: int = 20
    promotions: int = 3
    candidates: int = 3
    candidate_seconds: float = math.inf
    min_age_seconds: float = 86_400.0
    wait_seconds: float = 60.0


def mark(store: "Shelf", keep: Keep, patience: float = 0.0) -> Live:
    """Find what is live. A thing younger than `keep.min_age_seconds` is. `patience`: see `lease.held`."""
    live = Live()
    reasons, live.leases = wanted_keys(store, keep, live.unread, patience)
    live.wanted = set(reasons)
    for key in store.committed_keys():
        try:
            created_at = store.artifact(key).manifest.created_at
        except InputError as error:
            live.unread.append(str(error))
            continue
        if key not in reasons and age_seconds(created_at) < keep.min_age_seconds:
            reasons[key] = "young"
    _close(store, reasons, live)
    return live


def wanted_keys(
    store: "Shelf", keep: Keep, unread: list[str], patience: float = 0.0
) -> tuple[dict[str, str], set[str]]:
    """(keys that names, runs and leases point at, with the reason; keys whose lease is held). What cannot be read, and so may
    point at anything, goes into `unread`. `patience`: see `lease.held`."""
    reasons: dict[str, str] = {}
    for kind, name, alias in store.names.all():
        most = keep.candidates if alias == CANDIDATE else keep.promotions
        for number in store.names.numbers(kind, name, alias)[:most]:
            promotion = _read(partial(store.names.read, kind, name, alias, number), unread)
            if promotion is not None and not _is_over(promotion, keep):
                reasons.setdefault(promotion.key, f"{promotion.reference} (promotion {number})")
    runs = store.runs.list()
    for run, why in (*((run, "") for run in runs[: keep.runs]), *open_runs(runs[keep.runs :], unread)):
        for key in _keys_of_run(run, unread):
            reasons.setdefault(key, f"run {run.id}{why}")
    leases = lease.held(store.objects, unread, patience)
    for key, holder in leases.items():
        for needed in (key, *(holder.inputs if holder else ())):
            reasons.setdefault(needed, f"lease {holder.number if holder else 'that cannot be read'} of {key[:12]}")
    return reasons, set(leases)


def _is_over(promotion: "Promotion", keep: Keep) -> bool:
    return promotion.alias == CANDIDATE and age_seconds(promotion.created_at) >= keep.candidate_seconds


def _read(action: Callable[[], T], unread: list[str]) -> T | None:
    try:
        return action()
    except InputError as error:
        unread.append(str(error))
        return None


def _close(store: "Shelf", reasons: dict[str, str], live: Live) -> None:
    waiting = list(reasons.items())
    for artifact in _half_buried(store):
        waiting += _needs(artifact, live)
    while waiting:
        key, reason = waiting.pop()
        if key in live.artifacts:
            continue
        opened = _open(store, key)
        if opened is None:  # not committed (yet), or a run's other hash that looks like a key
            live.unmade.add(key)
            continue
        live.artifacts[key] = reason
        waiting += _needs(opened, live)


def _needs(artifact: "Artifact", live: Live) -> list[tuple[str, str]]:
    """Its inputs with the reason; its parts become live."""
    try:
        live.parts.update((entry.key, entry.generation) for entry in artifact.iterate_parts())
    except DataError as error:
        live.unread.append(f"{artifact!r}: {error}")
    return [(parent, f"input of {artifact.key[:12]}") for parent in artifact.manifest.inputs.values()]


def _half_buried(store: "Shelf") -> "Iterator[Artifact]":
    """Commits whose tombstone cannot be read: whether they must go is not known, so what they are made of stays too."""
    for key in generations.keys(store.objects, "artifacts"):
        state = generations.read_state(store.objects, f"artifacts/{key}")
        stones = tombstones(store.objects, "artifacts", key) if state.tombstones else ()
        for stone in stones:
            if stone.by == BY_UNKNOWN and stone.generation in state.manifests:
                with suppress(InputError):  # `collect` reports it
                    yield store.open_generation("artifacts", key, stone.generation)


def _open(store: "Shelf", key: str) -> "Artifact | None":
    try:
        return store.artifact(key)
    except InputError:
        return None


def _keys_of_run(run: "Run", unread: list[str]) -> Iterator[str]:
    """Every string in a run's records that has the shape of a key: one too many only keeps something a little
    longer."""
    documents: list[Any] = [_read(run.spec, unread)] if "spec.json" in run.names() else []
    for node in run.nodes():
        for number in run.attempts(node):
            documents.append(_read(partial(run.read_attempt, node, number), unread))
            documents.append(_read(partial(run.read_outcome, node, number), unread))
    for document in documents:
        yield from _keys_in(document)


def _keys_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _keys_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _keys_in(inner)
    elif isinstance(value, str) and KEY_PATTERN.fullmatch(value):
        yield value
