"""Retention: what a store keeps, as a policy that stands in a file, and the record of what went by it.

    {"keep_runs": 20, "keep_promotions": 3, "keep_days": 1, "keep_candidates": 1, "keep_candidates_days": 14}

A clock starts `wfm artifacts gc --policy FILE`. Every collection that deletes anything, by a clock or by hand, leaves
``collections/<id>.json`` in the store: what went, why, by which policy, and who asked. It is written before the first commit
goes (on a full disk after that), so one that was killed on the way says what it was about; what it did not get to, the next one
takes.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfm.artifacts import schema
from wfm.artifacts.address import new_id, utc_now
from wfm.artifacts.schema import Count as Sized
from wfm.artifacts.schema import Id, Key, Short, Word
from wfm.config import AtLeastZero, Config, Count, Natural
from wfm.errors import InputError, TryAgain
from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts.gc_report import GcReport
    from wfm.artifacts.objects import Objects
    from wfm.artifacts.roots import Keep

FOLDER = "collections"
SCHEMA_VERSION = 1
DAY = 86_400.0
"""[s]"""
_MOST = 20_000
"""Lines of one record; what does not fit goes into the next."""
_log = get_logger(__name__)


class Policy(Config):
    """What stays. All that a name, a run or a lease needs stays with it."""

    keep_runs: Natural = 20
    "What this many of the newest runs made or read."
    keep_promotions: Count = 3
    "How many of each name's history, the newest first."
    keep_days: AtLeastZero = 1.0
    "What is younger [days]."
    keep_candidates: Natural = 3
    "How many of each name's candidates: models that did not pass their gate."
    keep_candidates_days: AtLeastZero | None = None
    "A candidate that is older goes, however few there are [days]; None: none goes by its age."
    wait_seconds: AtLeastZero = 60.0
    "Between marking and deleting [s], for runs that start meanwhile."

    def choices(self) -> dict[str, Any]:
        """As `wfm.artifacts.collect.collect` takes it."""
        days = self.keep_candidates_days
        return {
            "keep_runs": self.keep_runs,
            "keep_promotions": self.keep_promotions,
            "min_age_seconds": self.keep_days * DAY,
            "keep_candidates": self.keep_candidates,
            "candidate_seconds": math.inf if days is None else days * DAY,
            "wait_seconds": self.wait_seconds,
        }


def read_policy(path: str) -> Policy:
    """The policy in a file of JSON. Raises InputError (ConfigError) naming what is wrong."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"--policy {path!r} cannot be read: {error.strerror}") from None
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InputError(f"--policy {path!r} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"--policy {path!r}: give an object with any of {', '.join(Policy.model_fields)}")
    return Policy.parse(values)


def policy_of(keep: "Keep") -> Policy:
    """What a collection keeps, as its record says it."""
    return Policy(
        keep_runs=keep.runs,
        keep_promotions=keep.promotions,
        keep_days=keep.min_age_seconds / DAY,
        keep_candidates=keep.candidates,
        keep_candidates_days=keep.candidate_seconds / DAY if math.isfinite(keep.candidate_seconds) else None,
        wait_seconds=keep.wait_seconds,
    )


@dataclass(frozen=True)
class Gone:
    """One commit that was deleted."""

    area: Word
    key: Key
    generation: Sized
    bytes: Sized
    reason: Short


@dataclass(frozen=True)
class Collection:
    """What one collection deleted. What was never committed is counted alone."""

    id: Id
    at: Short
    by: Short
    policy: dict[str, Any]
    gone: tuple[Gone, ...]
    attempts: Sized
    scratch: Sized
    checkpoints: Sized


def write_down(objects: "Objects", report: "GcReport", policy: Policy, by: str) -> bool:
    """Write the record of what a report is about to delete; False where the disk has no room for it."""
    gone = [Gone(dead.area, dead.key, dead.generation, dead.bytes, dead.reason) for dead in report.dead]
    counted = len(report.attempts), len(report.scratch), len(report.checkpoints)
    for start in range(0, max(len(gone), 1), _MOST):
        record = Collection(
            new_id(),
            utc_now(),
            by,
            policy.resolved(),
            tuple(gone[start : start + _MOST]),
            *(counted if not start else (0, 0, 0)),
        )
        try:
            objects.create(
                f"{FOLDER}/{record.id}.json", schema.encode({"schema_version": SCHEMA_VERSION, **asdict(record)})
            )
        except TryAgain as error:
            _log.warning("what goes is not written down: %s", error)
            return False
    return True


def collections(objects: "Objects") -> Iterator[Collection]:
    """The records, newest first; one that cannot be read is passed over, and logged."""
    for name in sorted(objects.names(FOLDER), reverse=True):
        if not name.endswith(".json"):
            continue
        path = f"{FOLDER}/{name}"
        try:
            yield schema.read(
                Collection,
                objects.read(path),
                f"{objects.address.url}/{path}",
                SCHEMA_VERSION,
                id=name.removesuffix(".json"),
            )
        except FileNotFoundError:
            continue
        except InputError as error:
            _log.warning("passed over: %s", error)
