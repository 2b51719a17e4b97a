"""What is live: everything that a name, a recent run or a held lease points at, and all that it was made from."""

import calendar
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from wfm.artifacts import lease
from wfm.artifacts.address import KEY_PATTERN
from wfm.errors import InputError

if TYPE_CHECKING:
    from wfm.artifacts.artifact import Artifact
    from wfm.artifacts.store import Store


@dataclass
class Live:
    """Keys of live artifacts with the reason, live parts as (key, generation), and the keys of held leases."""

    artifacts: dict[str, str] = field(default_factory=dict)
    parts: set[tuple[str, int]] = field(default_factory=set)
    leases: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Keep:
    """How much history stays: newest runs, newest promotions of each name, and how old (in seconds) a thing must be
    to go."""

    runs: int = 20
    promotions: int = 3
    min_age_seconds: float = 86_400.0
    wait_seconds: float = 60.0


def mark(store: "Store", keep: Keep) -> Live:
    """Find what is live. A thing younger than `keep.min_age_seconds` is."""
    reasons, leases = wanted_keys(store, keep)
    for key in store.committed_keys():
        if key not in reasons and age_seconds(store.artifact(key).manifest.created_at) < keep.min_age_seconds:
            reasons[key] = "young"
    live = Live(leases=leases)
    _close(store, reasons, live)
    return live


def wanted_keys(store: "Store", keep: Keep) -> tuple[dict[str, str], set[str]]:
    """(keys that names, runs and leases point at, with the reason; keys whose lease is held)."""
    reasons: dict[str, str] = {}
    for promotion in store.names.list():
        history = store.names.history(promotion.kind, promotion.name, promotion.alias)
        for each in islice(history, keep.promotions):
            reasons.setdefault(each.key, f"{each.reference} (promotion {each.number})")
    for run in store.runs.list(limit=keep.runs):
        for key in _keys_of_run(run):
            reasons.setdefault(key, f"run {run.id}")
    leases = lease.held(store.objects)
    for key, holder in leases.items():
        for needed in (key, *holder.inputs):
            reasons.setdefault(needed, f"lease {holder.number} of {key[:12]}")
    return reasons, set(leases)


def _close(store: "Store", reasons: dict[str, str], live: Live) -> None:
    waiting = list(reasons.items())
    while waiting:
        key, reason = waiting.pop()
        if key in live.artifacts:
            continue
        artifact = _open(store, key)
        if artifact is None:
            continue  # not committed (yet), or a run's other hash that looks like a key
        live.artifacts[key] = reason
        live.parts.update((entry.key, entry.generation) for entry in artifact.iterate_parts())
        waiting.extend((parent, f"input of {key[:12]}") for parent in artifact.manifest.inputs.values())


def _open(store: "Store", key: str) -> "Artifact | None":
    try:
        return store.artifact(key)
    except InputError:
        return None


def _keys_of_run(run: Any) -> Iterator[str]:
    """Every string in a run's records that has the shape of a key: one too many only keeps something a little
    longer."""
    try:
        documents: list[Any] = [run.spec()]
    except InputError:
        documents = []
    for attempt in run.read_outcomes():
        documents += [attempt.record, attempt.outcome]
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


def age_seconds(created_at: str) -> float:
    """Seconds since a time of `address.utc_now`; 0 for a text of another shape, so that it counts as young."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z", created_at)
    if not match:
        return 0.0
    return time.time() - calendar.timegm(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S")) - float(match[2] or 0)
