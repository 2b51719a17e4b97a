"""A run: what was asked for, every attempt at every node, what it used, its outcome and its log. `wfm status` and `wfm logs`
read only this; `run_list` begins runs and finds them.

    runs/<id>/spec.json                                       the resolved spec; written once
    runs/<id>/cancel.json                                     somebody asked the run to stop: its stages read it
    runs/<id>/marks/<n>.json                                  suspended, resumed, in this order: created if absent
    runs/<id>/engine.json                                     who was asked to run it, with what (`pipelines.runs.submission`)
    runs/<id>/plan.json                                       how its plan failed on a cluster
    runs/<id>/nodes/<node>/attempts/<n>/attempt.json          created if absent: numbers are never shared
                                       /usage.json            the attempt's beat: what it has used until now
                                       /outcome.json          created if absent: the first word stands
                                       /log/<offset>.txt      pieces of the log (`attempt_log.py`)
                                       /usage-<r>.json, log-<r>/   the same of its other ranks
    runs/<id>/launcher/<node>.json                            what its launcher on a cluster says of it (`wfm.cluster.records`)
    runs/<id>/<anything else>                                 files of the run (node specs, the report page)
"""

import re
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wfm.artifacts import schema
from wfm.artifacts.address import NAME_PATTERN, check_name, new_id, safe_path, utc_now
from wfm.artifacts.attempt_log import LogPieces, Piece, pieces_of, read_from
from wfm.artifacts.objects import Objects
from wfm.errors import DataError, InputError, TryAgain

SCHEMA_VERSION = 1
_NUMBER = re.compile(r"(?:[0-9]{4}|[1-9][0-9]{4,8})/")
"""A folder of an attempt, as `_attempt_path` writes it."""
_CANCEL = "cancel.json"
_MARK = re.compile(r"(?:[0-9]{4}|[1-9][0-9]{4,8})\.json")
"""A file of `marks`, as `_mark` writes it."""
SUSPEND, RESUME = "suspend", "resume"
SUBMISSION = "engine.json"
"""What is there of a run before its plan is, where an engine on a cluster makes the plan."""
FAILED_PLAN = "plan.json"
"""What is there of a run whose plan failed, where a cluster began it by itself (`pipelines.runs.failed_plan`)."""
_READS_AT_ONCE = 8
_MOST_RANKS = 100_000
"""A record that speaks of more is not followed."""


@dataclass(frozen=True)
class AttemptRecord:
    """One attempt at a node: what was written when it began, its outcome (None while it runs, or when it was killed), and its
    last beat with what it had used by then (None before the first)."""

    node: str
    number: int
    record: dict[str, Any]
    outcome: dict[str, Any] | None
    usage: dict[str, Any] | None = None
    others: tuple[dict[str, Any], ...] = ()
    "The last beats of its other ranks."

    def used(self, name: str) -> list[float]:
        """A figure of what each of its ranks used, such as ``cpu_seconds``, as its outcome says, else its last beat. What is no
        figure counts as nothing. Of one that was killed, whoever started it may have written what all of them used together."""
        if self.outcome and self.outcome.get("written_by") == "run" and name in self.outcome:
            return [figure(self.outcome, name)]
        return [figure(each, name) for each in ({**(self.usage or {}), **(self.outcome or {})}, *self.others)]


def figure(record: Mapping[str, Any], name: str) -> float:
    """A figure that a stage wrote down; 0 for anything else that stands there."""
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
        return 0.0
    return float(value)


def _of_rank(name: str, rank: int) -> str:
    """What rank 0 writes has the plain name."""
    return f"{name}-{rank}" if rank else name


class Run:
    """One run."""

    def __init__(self, objects: Objects, cache: Path, run_id: str) -> None:
        self.id = run_id
        self._objects = objects
        self._cache = cache
        self._folder = f"runs/{run_id}"

    def __repr__(self) -> str:
        return f"Run({self.id})"

    def spec(self) -> dict[str, Any]:
        """The resolved spec. Raises InputError when it was written by a newer wfm."""
        path = f"{self._folder}/spec.json"
        try:
            return self._decode(path)
        except FileNotFoundError:
            raise InputError(
                f"run {self.id} has no {path}: it was killed while it was created, and never began; start it again"
            ) from None

    def path_of(self, *steps: str) -> str:
        """The URL of a file of this run, such as `run.path_of("specs", "split_clips.json")`."""
        return "/".join([self._objects.address.url, self._folder, *([safe_path("/".join(steps))] if steps else [])])

    # -- files of the run

    def write(self, name: str, data: bytes | str, *, private: bool = False) -> str:
        """Write (or replace) a file of the run (`private`: on a disk, for this user only); returns its URL."""
        raw = data.encode() if isinstance(data, str) else data
        self._objects.replace(f"{self._folder}/{safe_path(name)}", raw, private=private)
        return self.path_of(name)

    def create(self, name: str, data: bytes | str) -> bool:
        """Write a file of the run if absent; False when another process was first."""
        return self._objects.create(
            f"{self._folder}/{safe_path(name)}", data.encode() if isinstance(data, str) else data
        )

    def read(self, name: str) -> bytes | None:
        """A file of the run, or None."""
        try:
            return self._objects.read(f"{self._folder}/{safe_path(name)}")
        except FileNotFoundError:
            return None

    def record(self, name: str) -> dict[str, Any] | None:
        """A record of the run (JSON with a schema version), or None. Raises DataError when it is none."""
        return self._record(f"{self._folder}/{safe_path(name)}")

    def names(self, folder: str = "") -> list[str]:
        """Names directly in a folder of the run; sub-folders end in `/`."""
        return self._objects.names(f"{self._folder}/{safe_path(folder)}" if folder else self._folder)

    # -- attempts

    def nodes(self) -> list[str]:
        """Nodes that were begun at least once."""
        names = self._objects.names(f"{self._folder}/nodes")
        return [name[:-1] for name in names if name.endswith("/") and NAME_PATTERN.fullmatch(name[:-1])]

    def append_attempt(
        self, node: str, record: Mapping[str, Any] | None = None, *, unless_after: int | None = None
    ) -> int:
        """Note that an attempt at a node begins; returns its number (1, 2 ...), which no other attempt has.

        Its `token` is a new one unless the record brings one, by which whoever gave it finds the attempt (`attempt_with`). With
        `unless_after` an attempt of that token with a number above it is returned instead, if there is one: of several at once
        one notes it, and all get the same."""
        document = {"schema_version": SCHEMA_VERSION, "started_at": utc_now(), "token": new_id(), **(record or {})}
        data = schema.encode(document)
        for _ in range(64):
            number = max(self.attempts(node), default=0) + 1
            # listed again: one that comes after that has this number, and no second is made of it
            there = 0 if unless_after is None else self.attempt_with(node, document["token"], unless_after)
            if there:
                return there
            if self._objects.create(self._attempt_path(node, number, "attempt.json"), data):
                return number
        raise TryAgain(f"node {node} of run {self.id} is begun by many others at this moment")

    def attempt_with(self, node: str, token: str, after: int = 0) -> int:
        """Number of the last attempt with this token, if above `after`; 0 when there is none."""
        for number in reversed(self.attempts(node)):
            if number > after and (self.read_attempt(node, number) or {}).get("token") == token:
                return number
        return 0

    def attempts(self, node: str) -> list[int]:
        """Numbers of the attempts at a node, in order."""
        names = self._objects.names(f"{self._folder}/nodes/{check_name(node, 'node')}/attempts")
        return sorted(int(name[:-1]) for name in names if _NUMBER.fullmatch(name))

    def write_outcome(self, node: str, number: int, outcome: Mapping[str, Any]) -> bool:
        """Write how an attempt ended, if nobody did yet; False when an outcome stands already."""
        document = {"schema_version": SCHEMA_VERSION, "finished_at": utc_now(), "token": new_id(), **outcome}
        return self._objects.create(self._attempt_path(node, number, "outcome.json"), schema.encode(document))

    def read_attempt(self, node: str, number: int) -> dict[str, Any] | None:
        """What was written when an attempt began, or None."""
        return self._record(self._attempt_path(node, number, "attempt.json"))

    def read_outcome(self, node: str, number: int) -> dict[str, Any] | None:
        """How an attempt ended, or None."""
        return self._record(self._attempt_path(node, number, "outcome.json"))

    def write_usage(self, node: str, number: int, usage: Mapping[str, Any], rank: int = 0) -> None:
        """Replace the attempt's beat (that of one of its ranks): what it has used until now, and how far it is. Its owner alone
        writes it."""
        document = {"schema_version": SCHEMA_VERSION, "at": utc_now(), **usage}
        self._objects.replace(
            self._attempt_path(node, number, _of_rank("usage", rank) + ".json"), schema.encode(document)
        )

    def read_usage(self, node: str, number: int, rank: int = 0) -> dict[str, Any] | None:
        """An attempt's last beat (that of one of its ranks), or None."""
        return self._record(self._attempt_path(node, number, _of_rank("usage", rank) + ".json"))

    def read_outcomes(self, node: str | None = None) -> list[AttemptRecord]:
        """Every attempt (at one node, or at all), by node and number."""
        tries = [(each, n) for each in ([node] if node is not None else self.nodes()) for n in self.attempts(each)]
        with ThreadPoolExecutor(max_workers=_READS_AT_ONCE) as pool:
            return list(pool.map(lambda one: self.read_whole(*one), tries))

    def read_whole(self, node: str, number: int) -> AttemptRecord:
        """All that is written of one attempt."""
        outcome = self.read_outcome(node, number)
        usage, record = self.read_usage(node, number), self.read_attempt(node, number) or {}
        ranks = record.get("ranks")
        others = range(1, min(ranks, _MOST_RANKS)) if isinstance(ranks, int) else ()
        found = tuple(told for rank in others if (told := self.read_usage(node, number, rank)) is not None)
        return AttemptRecord(node, number, record, outcome, usage, found)

    # -- cancel

    def request_cancel(self, by: str = "") -> None:
        """Ask whoever works on this run to stop, wherever: its engine and its stages read the mark."""
        mark = {"schema_version": SCHEMA_VERSION, "by": by or socket.gethostname(), "at": utc_now()}
        self._objects.replace(f"{self._folder}/{_CANCEL}", schema.encode(mark))

    def cancelled_by(self) -> str:
        """Who asked this run to stop; "" when nobody did. A mark that cannot be read is one, too."""
        try:
            mark = self._record(f"{self._folder}/{_CANCEL}")
        except DataError:
            return "somebody"
        return "" if mark is None else str(mark.get("by") or "somebody")

    def cancelled_at(self) -> str:
        """When that was; "" where nobody asked, or it cannot be read."""
        try:
            return str((self._record(f"{self._folder}/{_CANCEL}") or {}).get("at") or "")
        except DataError:
            return ""

    # -- suspend, resume

    def request_suspend(self, by: str = "") -> bool:
        """Ask that no further stage begins and what runs saves and stops; False when it is suspended already."""
        return self._mark(SUSPEND, by)

    def request_resume(self, by: str = "") -> bool:
        """Take that back; False when it is not suspended: of several at once one does it."""
        return self._mark(RESUME, by)

    def suspended_by(self) -> str:
        """Who suspended this run; "" when nobody did, or it was resumed. A last mark that cannot be read suspends."""
        marks = self.marks()
        last = marks[-1] if marks else {"verb": RESUME}
        return "" if last.get("verb") == RESUME else str(last.get("by") or "somebody")

    def marks(self) -> list[dict[str, Any]]:
        """Each `verb` (suspend, resume), `by` whom and `at` what time, in order; one that cannot be read is empty."""
        found: list[dict[str, Any]] = []
        for name in self._mark_names():
            try:
                found.append(self.record(f"marks/{name}") or {})
            except DataError:
                found.append({})
        return found

    def _mark_names(self) -> list[str]:
        return sorted((name for name in self.names("marks") if _MARK.fullmatch(name)), key=lambda name: int(name[:-5]))

    def _mark(self, verb: str, by: str) -> bool:
        document = {"schema_version": SCHEMA_VERSION, "verb": verb, "by": by or socket.gethostname(), "at": utc_now()}
        document["token"] = new_id()  # two of one moment are two: `create` takes equal bytes for ours
        for _ in range(64):
            names = self._mark_names()
            if (verb == SUSPEND) == bool(self.suspended_by()):
                return False
            number = int(names[-1][:-5]) + 1 if names else 1
            if self.create(f"marks/{number:04d}.json", schema.encode(document)):
                return True
        raise TryAgain(f"run {self.id} is suspended and resumed by many at this moment")

    # -- logs

    def ship_log(self, node: str, number: int, pieces: LogPieces, rank: int = 0) -> None:
        """Write what the store lacks of an attempt's log (that of one of its ranks); for its owner alone."""
        pieces.ship(self._objects, self._attempt_path(node, number, _of_rank("log", rank)))

    def write_log(self, node: str, number: int, text: str) -> None:
        """Write an attempt's log at once."""
        pieces = LogPieces()
        pieces.add(text.encode(errors="replace"))
        self.ship_log(node, number, pieces)

    def read_log(self, node: str, number: int | None = None, rank: int = 0) -> str:
        """The log of an attempt, of the last one by default (that of one of its ranks); "" when there is none yet. What was
        left out of a long one is said in a line of its own. Raises InputError for an unknown node."""
        if number is None:
            numbers = self.attempts(node)
            if not numbers:
                raise InputError(
                    f"run {self.id} has no attempt at node {node!r}: it has {', '.join(self.nodes()) or 'none'}"
                )
            number = numbers[-1]
        return self.follow_log(node, number, rank=rank)[0].decode(errors="replace")

    def follow_log(self, node: str, number: int, start: int = 0, rank: int = 0) -> tuple[bytes, int]:
        """What an attempt's log has from byte `start` on, and where it ends now: the start of the next call."""
        folder = self._attempt_path(node, number, _of_rank("log", rank))
        pieces: list[Piece] = pieces_of(self._objects, folder)
        if pieces:
            return read_from(self._objects, folder, pieces, start)
        try:  # one file, as the engine wrote it before the stage shipped its own
            data = self._objects.read(self._attempt_path(node, number, "log.txt"), None)
        except FileNotFoundError:
            data = b""
        return data[start:], max(start, len(data))

    def _attempt_path(self, node: str, number: int, name: str) -> str:
        return f"{self._folder}/nodes/{check_name(node, 'node')}/attempts/{number:04d}/{name}"

    def _record(self, path: str) -> dict[str, Any] | None:
        try:
            return self._decode(path)
        except FileNotFoundError:
            return None

    def _decode(self, path: str) -> dict[str, Any]:
        where = f"{self._objects.address.url}/{path}"
        try:
            return schema.decode(self._objects.read(path), where, SCHEMA_VERSION)
        except DataError as error:
            raise DataError(f"{error}; when this run is of no more use, delete its folder {self.path_of()}") from None
