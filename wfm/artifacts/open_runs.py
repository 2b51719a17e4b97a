"""Which runs are not over: what they planned is theirs until they are through, however many runs came after them.

A run on a cluster is planned at once and may wait in a queue for weeks, without a lease and without a sign. Its plan hands the
keys of what is there to its stages, so these must stay. No engine has to say that it is over: the tries say it. One of which
nothing was heard for longer than a queue is waited for is given up.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wfm.artifacts import schema
from wfm.artifacts.address import age_seconds
from wfm.artifacts.runs import RESUME, SCHEMA_VERSION, AttemptRecord, figure
from wfm.errors import InputError

if TYPE_CHECKING:
    from wfm.artifacts.runs import Run

QUIET_SECONDS = 31 * 86400.0
"""So long without a sign, and a run is given up [s]: Argo's workflows give up a launcher that was queued for 30 days."""
FAILED_QUIET_SECONDS = 86400.0
"""The same of one in which nothing is left that could go on by itself, and of one whose engine beats every few seconds [s]."""
_AT_ONCE = 8
_OVER = ("done", "failed", "cancelled")
_GOOD, _FINAL = ("done", "cached"), ("wrong_input", "bug", "cancelled")


def open_runs(runs: Iterable["Run"], unread: list[str]) -> "Iterator[tuple[Run, str]]":
    """Those of ``runs`` that are not over, with words for it; one that cannot be read goes into `unread`."""

    def said(run: "Run") -> bool | InputError:
        try:
            return is_open(run)
        except InputError as error:
            return error

    several = list(runs)
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        for run, found in zip(several, pool.map(said, several), strict=True):
            if isinstance(found, InputError):
                unread.append(str(found))
            elif found:
                yield run, ", which is not over"


def is_open(run: "Run") -> bool:
    """Whether stages of a run may still begin. Raises InputError when its records cannot be read."""
    there = set(run.names())
    if (
        "spec.json" not in there
        or "cancel.json" in there
        or not there & {"state.json", "specs/", "nodes/", "launcher/"}
    ):
        return False  # it never began, or its stages are asked to stop
    state = _document(run, "state.json")
    if state.get("state") in _OVER:
        return False
    if state.get("state") == "running":
        return time.time() - figure(state, "updated") < FAILED_QUIET_SECONDS
    told = _all_told(run, there, state)
    left, failed = _left(told.spec, told.tries, told.launchers)
    quiet, marks = _quiet(told), told.marks
    if state.get("state") == "suspended" or (marks and marks[-1].get("verb") != RESUME):
        left |= failed  # its stages were stopped, and go on from what they saved
    return quiet < QUIET_SECONDS if left else bool(failed) and quiet < FAILED_QUIET_SECONDS


def quiet_seconds(run: "Run") -> float:
    """For how long nothing was heard of a run that was planned [s]: of its engine, its launchers, its tries, and whoever
    suspends or resumes it. Raises InputError when its records cannot be read."""
    return _quiet(_all_told(run, set(run.names()), _document(run, "state.json")))


@dataclass(frozen=True)
class _Told:
    spec: dict[str, Any]
    state: dict[str, Any]
    tries: list[AttemptRecord]
    launchers: dict[str, dict[str, Any]]
    marks: list[dict[str, Any]]


def _all_told(run: "Run", there: set[str], state: dict[str, Any]) -> _Told:
    launchers = {
        name.removesuffix(".json"): _document(run, f"launcher/{name}")
        for name in (run.names("launcher") if "launcher/" in there else ())
        if name.endswith(".json")
    }
    return _Told(run.spec(), state, run.read_outcomes(), launchers, run.marks() if "marks/" in there else [])


def _quiet(told: _Told) -> float:
    beats = [
        time.time() - figure(each, field)
        for each, field in ((told.state, "updated"), *((one, "at") for one in told.launchers.values()))
    ]
    wishes = [age_seconds(str(mark.get("at"))) for mark in told.marks]
    return min(age_seconds(str(told.spec.get("created_at"))), *beats, *wishes, *_ages(told.tries))


def _left(
    spec: Mapping[str, Any], tries: list[AttemptRecord], launchers: Mapping[str, Mapping[str, Any]]
) -> tuple[set[str], set[str]]:
    """(nodes that may still begin, go on or be tried again; nodes that failed, with those that need them)."""
    left: set[str] = set()
    failed: set[str] = set()
    last = {one.node: one for one in tries if not one.record.get("parts")}
    nodes = spec.get("nodes")
    for node in nodes if isinstance(nodes, list) else ():  # in the order of the graph
        name = node.get("name") if isinstance(node, dict) else None
        if not isinstance(name, str) or node.get("done") is True:
            continue
        sources = node.get("sources")
        outcome = (last[name].outcome or {}).get("outcome") if name in last else None
        waits = name in launchers and not launchers[name].get("ended")
        if outcome in _GOOD:
            continue
        if failed.intersection(
            one for one in (sources.values() if isinstance(sources, dict) else ()) if isinstance(one, str)
        ):
            failed.add(name)
        else:
            (failed if outcome in _FINAL and not waits else left).add(name)
    return left, failed


def _ages(tries: list[AttemptRecord]) -> Iterator[float]:
    for one in tries:
        for record, field in ((one.record, "started_at"), (one.outcome, "finished_at"), (one.usage, "at")):
            if record:
                yield age_seconds(str(record.get(field)))


def _document(run: "Run", name: str) -> dict[str, Any]:
    data = run.read(name)
    return {} if data is None else schema.decode(data, run.path_of(name), SCHEMA_VERSION)
