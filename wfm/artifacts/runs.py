"""Runs: what was asked for, every attempt at every node, its outcome and its log. `wfm status` and `wfm logs` read
only this.

    runs/<id>/spec.json                                       the resolved spec; written once
    runs/<id>/nodes/<node>/attempts/<n>/attempt.json          created if absent: numbers are never shared
                                       /outcome.json          created if absent: the first word stands
                                       /log.txt
    runs/<id>/<anything else>                                 files of the run (node specs, the report page)

Run ids sort by time.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wfm.artifacts import schema
from wfm.artifacts.address import ID_PATTERN, NAME_PATTERN, below, check_name, new_id, safe_path, utc_now
from wfm.artifacts.atomic import disk_error
from wfm.artifacts.objects import Objects
from wfm.errors import DataError, InputError, TryAgain, WfmError
from wfm.log import get_logger

SCHEMA_VERSION = 1
_log = get_logger(__name__)
_NUMBER = re.compile(r"(?:[0-9]{4}|[1-9][0-9]{4,8})/")
"""A folder of an attempt, as `_attempt_path` writes it."""


@dataclass(frozen=True)
class AttemptRecord:
    """One attempt at a node: what was written when it began, and its outcome (None while it runs, or when it was
    killed)."""

    node: str
    number: int
    record: dict[str, Any]
    outcome: dict[str, Any] | None


class Runs:
    """The runs of a store."""

    def __init__(self, objects: Objects, cache: Path) -> None:
        self._objects = objects
        self._cache = cache

    def create(self, spec: Mapping[str, Any]) -> "Run":
        """Begin a run; its spec never changes afterwards."""
        document = {"schema_version": SCHEMA_VERSION, "created_at": utc_now(), **spec}
        for _ in range(8):
            run = Run(self._objects, self._cache, new_id())
            data = schema.encode({**document, "run_id": run.id})
            try:
                if self._objects.create(f"runs/{run.id}/spec.json", data):
                    return run
            except (WfmError, OSError):
                if self._objects.local_path("runs") is not None:
                    self._objects.delete_tree(f"runs/{run.id}")  # else an empty folder would be listed as a run
                raise
        raise TryAgain("no free run id was found")

    def open(self, run_id: str) -> "Run":
        """Open a run by its id, or by the beginning of it if only one run has it. Raises InputError when there is
        none."""
        check_name(run_id, "run id")
        found = self._ids(run_id)
        if run_id not in found and len(found) != 1:
            some = ", ".join(run.id for run in self.list(limit=5)) or "none"
            reason = f"is the beginning of {len(found)} runs" if found else "is not the id of a run"
            raise InputError(f"{run_id!r} {reason}: the newest are {some} (`wfm runs` lists them)")
        return Run(self._objects, self._cache, run_id if run_id in found else found[0])

    def _ids(self, stem: str = "") -> list[str]:
        found = []
        for name in self._objects.names("runs", stem):
            if name.endswith("/") and ID_PATTERN.fullmatch(name[:-1]):
                found.append(name[:-1])
            elif not stem:
                _log.debug("passed over: %r in runs is not the folder of a run, it was not made by wfm", name)
        return found

    def list(self, limit: int | None = None) -> "list[Run]":
        """Runs, newest first. What else lies among them is not ours: it is passed over."""
        return [Run(self._objects, self._cache, name) for name in sorted(self._ids(), reverse=True)[:limit]]


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

    def names(self, folder: str = "") -> list[str]:
        """Names directly in a folder of the run; sub-folders end in `/`."""
        return self._objects.names(f"{self._folder}/{safe_path(folder)}" if folder else self._folder)

    # -- attempts

    def nodes(self) -> list[str]:
        """Nodes that were begun at least once."""
        names = self._objects.names(f"{self._folder}/nodes")
        return [name[:-1] for name in names if name.endswith("/") and NAME_PATTERN.fullmatch(name[:-1])]

    def append_attempt(self, node: str, record: Mapping[str, Any] | None = None) -> int:
        """Note that an attempt at a node begins; returns its number (1, 2 ...), which no other attempt has."""
        document = {"schema_version": SCHEMA_VERSION, "started_at": utc_now(), "token": new_id(), **(record or {})}
        data = schema.encode(document)
        for _ in range(64):
            number = max(self.attempts(node), default=0) + 1
            if self._objects.create(self._attempt_path(node, number, "attempt.json"), data):
                return number
        raise TryAgain(f"node {node} of run {self.id} is begun by many others at this moment")

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

    def read_outcomes(self, node: str | None = None) -> list[AttemptRecord]:
        """Every attempt (at one node, or at all), by node and number."""
        found = []
        for each in [node] if node is not None else self.nodes():
            for number in self.attempts(each):
                record = self.read_attempt(each, number) or {}
                found.append(AttemptRecord(each, number, record, self.read_outcome(each, number)))
        return found

    # -- logs

    def log_path(self, node: str, number: int) -> Path:
        """A local file to stream a log into. On a local store it is the log; on a remote one `write_log` without
        text uploads it."""
        path = self._attempt_path(node, number, "log.txt")
        local = self._objects.local_path(path) or below(self._cache, path)
        try:
            local.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, local) from error
        return local

    def write_log(self, node: str, number: int, text: str | None = None) -> None:
        """Write an attempt's log: `text`, or (None) what was streamed into `log_path`."""
        path = self._attempt_path(node, number, "log.txt")
        if text is not None:
            self._objects.replace(path, text.encode(errors="replace"))
            return
        local = self.log_path(node, number)
        if self._objects.local_path(path) is None and local.exists():
            self._objects.upload(local, path)

    def read_log(self, node: str, number: int | None = None) -> str:
        """The log of an attempt, of the last one by default; "" when there is none yet. Raises InputError for an
        unknown node."""
        if number is None:
            numbers = self.attempts(node)
            if not numbers:
                raise InputError(
                    f"run {self.id} has no attempt at node {node!r}: it has {', '.join(self.nodes()) or 'none'}"
                )
            number = numbers[-1]
        path = self._attempt_path(node, number, "log.txt")
        try:
            return self._objects.read(path, None).decode(errors="replace")
        except FileNotFoundError:
            local = below(self._cache, path)  # being written by a process of this machine
            return local.read_text(errors="replace") if local.is_file() else ""

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
