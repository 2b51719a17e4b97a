"""The runs of a store: begun, opened by their ids, listed by time. What is written of each is in `runs`.

    runs/.by-time/<stamp>-<id>    when the run of a given id was made, as its spec says: written after it, once

An id that we make sorts by time; one that is given (a cron's tick, a workflow's uid) stands where its spec says it was made.
So that a list need not read each spec, the time stands in a name, too. It is only believed where there is one of them: of a run
that has none (it was killed between the two, or an older wfm made it) or two (one of that id was deleted) the spec is read.
"""

import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from wfm.artifacts import schema
from wfm.artifacts.address import ID_PATTERN, NAME_PATTERN, check_name, id_stamp, new_id, utc_now
from wfm.artifacts.objects import Objects
from wfm.artifacts.runs import FAILED_PLAN, SCHEMA_VERSION, SUBMISSION, Run
from wfm.errors import InputError, TryAgain, WfmError
from wfm.log import get_logger

_log = get_logger(__name__)
_BY_TIME = "runs/.by-time"
"""No name of a run begins with a dot."""
_ENTRY = re.compile(rf"([0-9]{{8}}T[0-9]{{9}})-({NAME_PATTERN.pattern})")
_MADE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})\.([0-9]{3})Z")
"""A time, as `utc_now` writes it."""
_READS_AT_ONCE = 8


class Runs:
    """The runs of a store."""

    def __init__(self, objects: Objects, cache: Path) -> None:
        self._objects = objects
        self._cache = cache

    def create(self, spec: Mapping[str, Any], run_id: str = "", *, same: Iterable[str] | None = None) -> Run:
        """Begin a run; its spec never changes afterwards.

        With a `run_id` the run of that id is opened if it is there already: whoever asks again (a cron's tick told twice, a
        workflow's step tried again) gets the same one, and of several at once one creates it. Its spec must then be equal in
        the fields `same` (all of them by default). Raises InputError when it is not, or when the id is not allowed.
        """
        document = {"schema_version": SCHEMA_VERSION, "created_at": utc_now(), **spec}
        if run_id:
            run = Run(self._objects, self._cache, check_name(run_id, "run id"))
            if not self._write_spec(run, document):
                _check_same(run, spec, spec if same is None else same)
                document = run.spec()
            if document.get("run_id", run.id) == run.id:
                self._note(run.id, document.get("created_at"))
            return run
        for _ in range(8):
            run = Run(self._objects, self._cache, new_id())
            try:
                if self._write_spec(run, document):
                    return run
            except (WfmError, OSError):
                if self._objects.local_path("runs") is not None:
                    self._objects.delete_tree(f"runs/{run.id}")  # else an empty folder would be listed as a run
                raise
        raise TryAgain("no free run id was found")

    def _write_spec(self, run: Run, document: dict[str, Any]) -> bool:
        return self._objects.create(f"runs/{run.id}/spec.json", schema.encode({**document, "run_id": run.id}))

    def open(self, run_id: str, at_least: int = 1) -> Run:
        """Open a run by its id, or by at least so many letters that begin it, or the 8 digits at its end, if they mean one run
        alone. Raises InputError when there is none."""
        check_name(run_id, "run id")
        folders = self._folders(run_id)
        if run_id in folders and (ID_PATTERN.fullmatch(run_id) or self._made_at(run_id)):
            return self.of(run_id)
        if len(run_id) < at_least:
            raise InputError(
                f"{run_id!r} is too short to change a run by: give {at_least} letters of its id at least ({self._newest()})"
            )
        found = self._made(folders) or self._made(
            [name for name in self._folders() if name.rpartition("-")[2].startswith(run_id)]
        )
        if len(found) != 1:
            reason = f"means any of {len(found)} runs" if found else "is not the id of a run"
            raise InputError(f"{run_id!r} {reason}: {self._newest()}")
        return self.of(next(iter(found)))

    def _newest(self) -> str:
        some = ", ".join(run.id for run in self.list(limit=5)) or "none"
        return f"the newest are {some} (`wfm runs` lists them)"

    def of(self, run_id: str) -> Run:
        """The run of an id that is known to be there, whole: nothing is asked."""
        return Run(self._objects, self._cache, check_name(run_id, "run id"))

    def _folders(self, stem: str = "") -> "list[str]":
        return [name[:-1] for name in self._objects.names("runs", stem) if name.endswith("/")]

    def _made(self, folders: Iterable[str]) -> dict[str, str]:
        """Those that are runs, and when each was made. A folder of a name that we do not make is one when its spec says so."""
        found: dict[str, str] = {}
        given = []
        for name in folders:
            if ID_PATTERN.fullmatch(name):
                found[name] = id_stamp(name)
            elif NAME_PATTERN.fullmatch(name):
                given.append(name)
        noted = self._noted() if given else {}
        found.update((name, noted[name]) for name in given if name in noted)
        unknown = [name for name in given if name not in noted]
        with ThreadPoolExecutor(max_workers=_READS_AT_ONCE) as pool:
            for name, made in zip(unknown, pool.map(self._made_at, unknown), strict=True):
                if made:
                    found[name] = made
                else:
                    _log.debug("passed over: %r in runs is not the folder of a run, it was not made by wfm", name)
        return found

    def _noted(self) -> dict[str, str]:
        """When runs of given ids were made, as names alone say it, where they say one thing."""
        found: dict[str, str] = {}
        twice: dict[str, str] = {}
        for name in self._objects.names(_BY_TIME):
            if entry := _ENTRY.fullmatch(name):
                (twice if entry[2] in found else found)[entry[2]] = id_stamp(entry[1])
        return {name: made for name, made in found.items() if name not in twice}

    def _note(self, run_id: str, made: Any) -> None:
        """Let a list know when a run of a given id was made without reading its spec."""
        time = _MADE.fullmatch(made) if isinstance(made, str) else None
        if time and not ID_PATTERN.fullmatch(run_id):
            stamp = "".join((*time.group(1, 2, 3), "T", *time.group(4, 5, 6, 7)))
            self._objects.create(f"{_BY_TIME}/{stamp}-{run_id}", f"{run_id}\n".encode())

    def _made_at(self, run_id: str) -> str:
        """When the run of a given id was made, as its spec says, or before there is one what it was submitted with, or when its
        plan failed; "" for a folder that is none."""
        run = Run(self._objects, self._cache, run_id)
        try:
            spec = run.spec()
            made = spec.get("created_at")
        except InputError:
            try:
                spec = run.record(SUBMISSION) or run.record(FAILED_PLAN) or {}
            except InputError:
                return ""
            made = spec.get("submitted_at") or spec.get("began_at")
        return made if spec.get("run_id") == run_id and isinstance(made, str) else ""

    def before(self, run: Run, limit: int | None = None) -> "list[Run]":
        """Runs that were made before this one, newest first, whoever gave them their ids."""
        made = self._made(self._folders())
        now = (made.get(run.id, ""), run.id)
        return self._newest_of({name: at for name, at in made.items() if (at, name) < now}, limit)

    def _newest_of(self, made: Mapping[str, str], limit: int | None) -> "list[Run]":
        newest = sorted(made, key=lambda name: (made[name], name), reverse=True)
        return [self.of(name) for name in newest[:limit]]

    def list(self, limit: int | None = None) -> "list[Run]":
        """Runs, newest first. What else lies among them is not ours: it is passed over."""
        return self._newest_of(self._made(self._folders()), limit)


def _check_same(run: Run, spec: Mapping[str, Any], fields: Iterable[str]) -> None:
    there = run.spec()
    # as it reads back: a tuple is a list there
    asked = schema.decode(schema.encode({"schema_version": SCHEMA_VERSION, **spec}), "the spec", SCHEMA_VERSION)
    other = [field for field in fields if there.get(field) != asked.get(field)]
    if other:
        field = other[0]
        raise InputError(
            f"run {run.id} is there already, and something else was asked of it: its {field} is {_short(there.get(field))}, "
            f"now it is {_short(asked.get(field))}. Give another run id, or ask for the same"
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}..."
