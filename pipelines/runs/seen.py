"""What can be seen of a run from anywhere, whoever starts its stages: the tries at its nodes, which of them live, their cost.

The stages write all of it (`components/stage_attempt.py`). The state that an engine of this machine keeps (`state.py`) comes
first while that engine lives; without one (a cluster's engine keeps none, and one that was killed keeps none any more) the
state is derived here. Clocks that disagree turn no live try dead: one whose beat looks old is watched for longer than a beat,
and counts as lost only when nothing changed by then.
"""

import calendar
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipelines.runs.failed_plan import failed_plan_of, tell_failed_plan
from pipelines.runs.state import FINISHED, GOOD, NodeState, RunState, read_state
from pipelines.runs.submission import Submission, submission_of
from wfm.artifacts.lease import start_of, this_process
from wfm.artifacts.runs import SUSPEND, figure
from wfm.cluster.records import Said, said_of
from wfm.errors import InputError

if TYPE_CHECKING:
    from wfm.artifacts.runs import AttemptRecord, Run

BEAT_SECONDS = 10.0
"""What a beat is taken for that does not say how often it comes."""
_FRESH_BEATS, _WATCHED_BEATS = 4.5, 2.5
_SKEW_SECONDS = 900.0
"""Clocks are not that far apart: a beat older than this is not waited for."""
_LOOK_SECONDS = 0.5
_SLACK = 5.0
"""Between the clocks of who suspends a run and of who works on it [s]."""
_RANGES_TOLD = 8


@dataclass(frozen=True)
class Try:
    """One attempt at a node, as it looks from here."""

    node: str
    number: int
    state: str
    "running | silent (its last beat looks old, and nobody waited for the next) | lost | an outcome of `wfm.errors`"
    reason: str
    key: str
    host: str
    started: float
    seconds: float
    cpu_seconds: float
    gpu_seconds: float
    peak_bytes: float
    progress: str
    beat: str
    "When it last beat, by its own clock."
    every: float
    parts: str
    "The range of parts that it was a try at; empty for the whole."
    stopped: bool = False
    "Whether it was stopped because its run was suspended: the next goes on from what it saved."

    @property
    def wasted(self) -> bool:
        """Whether it made nothing."""
        return self.state not in (*GOOD, "running", "silent") and not self.stopped


def see(run: "Run", *, patient: bool = False) -> RunState | None:
    """Where a run stands; None for one that never began. `patient`: watch tries whose beat looks old, instead of calling
    them silent; that may take half a minute. Raises InputError when its state cannot be read.

    `state` is what an onlooker should call it: besides those of `RunState` it may be ``dead`` (its engine was killed),
    ``waiting`` (no engine of ours, no stage at this moment: the next may begin), ``planned`` (the same, before the first) or
    ``pending`` (submitted, and nothing was begun yet).
    """
    state = read_state(run)
    if state is not None and state.state == "suspended":
        return _suspended(run, state)
    alive = state is not None and state.state == "running" and state.alive()
    open_ended = state is None or (state.state == "running" and not alive)
    tries = read_tries(run, patient=patient and open_ended)
    launchers = said_of(run) if open_ended else {}
    planned = state is None and not tries and not launchers
    if planned and not run.names("specs"):  # what its stages read: written once its plan stands
        return _unplanned(run)
    if open_ended:
        state = _derived(state or _from_spec(run), tries, run.cancelled_by(), engine=state is not None)
        _tell_of_launchers(state, launchers)
    if planned and state is not None and state.state == "waiting":
        state.state = "planned"
    assert state is not None
    by = run.suspended_by() if open_ended and state.state in ("waiting", "planned", "dead") else ""
    if by:
        state.state, state.reason = "suspended", f"{by} suspended it"
    elif state.state in ("dead", "failed") and _begun_again(run, state):
        state.state, state.reason = "pending", "its process was begun again"
        for node in state.nodes.values():
            if node.state not in GOOD:
                node.state, node.reason = "waiting", ""
    for name, of in by_node(tries).items():
        if name in state.nodes:
            node = state.nodes[name]
            node.cpu_seconds = sum(one.cpu_seconds for one in of)
            node.gpu_seconds = sum(one.gpu_seconds for one in of)
            node.peak_bytes = max(node.peak_bytes, *(int(one.peak_bytes) for one in of))
    return state


def read_tries(run: "Run", node: str | None = None, *, patient: bool = False) -> list[Try]:
    """Every try at a node of a run, or at all of them, by node and number."""
    records = run.read_outcomes(node)
    tries = [try_of(one) for one in records]
    if any(one.state == "cancelled" for one in tries):
        tries = _told_of_suspends(run, tries, records)
    return _watched(run, tries) if patient and any(one.state == "silent" for one in tries) else tries


def _told_of_suspends(run: "Run", tries: list[Try], records: "list[AttemptRecord]") -> list[Try]:
    """The same, and which of them a suspend stopped. From the last of a run that was cancelled nothing goes on."""
    wishes = [unix(_text(mark, "at")) for mark in run.marks() if mark.get("verb") == SUSPEND]
    last = {one.node: one.number for one in tries} if run.cancelled_by() else {}
    found = []
    for one, record in zip(tries, records, strict=True):
        ended = unix(_text(record.outcome or {}, "finished_at"))
        wished = any(one.started - _SLACK <= at <= ended + _SLACK for at in wishes)
        goes_on = one.number != last.get(one.node)
        found.append(replace(one, stopped=wished and goes_on and one.state == "cancelled"))
    return found


def by_node(tries: Iterable[Try]) -> dict[str, list[Try]]:
    """Node -> its tries, in order."""
    found: dict[str, list[Try]] = {}
    for one in tries:
        found.setdefault(one.node, []).append(one)
    return found


def cost_in_words(tries: Iterable[Try]) -> str:
    """``12 tries: cpu 340.1 s, gpu 0.0 s, of that cpu 12.0 s, gpu 0.0 s in 2 that made nothing``; empty without tries."""
    found = list(tries)
    if not found:
        return ""
    wasted, stopped = [one for one in found if one.wasted], [one for one in found if one.stopped]
    words = f"{len(found)} {'tries' if len(found) > 1 else 'try'}: {_spent(found)}"
    apart = [f"{_spent(wasted)} in {len(wasted)} that made nothing"] if wasted else []
    apart += (
        [f"{_spent(stopped)} in {len(stopped)} stopped by a suspend, which the next goes on from"] if stopped else []
    )
    return f"{words}, of that {', and '.join(apart)}" if apart else words


def ranges_in_words(tries: Iterable[Try]) -> list[str]:
    """``encode_latents, of 7 ranges of parts: 4 done, 1 not begun; 3/7 lost: …; 6/7 running``: a line for each node, and number
    of ranges, that was tried in ranges. The last try at a range counts."""
    last: dict[tuple[str, str], dict[str, Try]] = {}
    for one in tries:
        if one.parts:
            last.setdefault((one.node, one.parts.partition("/")[2]), {})[one.parts] = one
    lines = []
    for (node, of), ranges in last.items():
        rest = [one for one in ranges.values() if one.state not in GOOD]
        idle = int(of) - len(ranges) if of.isdecimal() and len(of) < 8 else 0
        words = f"{len(ranges) - len(rest)} done" + (f", {idle} not begun" if idle > 0 else "")
        told = [f"{one.parts} {one.state}" + (f": {one.reason}" if one.reason else "") for one in rest[:_RANGES_TOLD]]
        more = [f"and {len(rest) - len(told)} more"] if len(rest) > len(told) else []
        lines.append(f"{node}, of {of} ranges of parts: {'; '.join([words, *told, *more])}")
    return lines


def _spent(tries: Iterable[Try]) -> str:
    found = list(tries)
    return f"cpu {sum(one.cpu_seconds for one in found):.1f} s, gpu {sum(one.gpu_seconds for one in found):.1f} s"


def try_of(one: "AttemptRecord") -> Try:
    """An attempt as it looks from here, by what is written of it."""
    outcome, usage, record = one.outcome or {}, one.usage or {}, one.record
    used: Mapping[str, Any] = {**usage, **outcome}
    at = _text(usage, "at") or _text(record, "started_at")
    found = Try(
        one.node, one.number, _text(outcome, "outcome") or "running", _text(outcome, "reason"), _text(outcome, "key"),
        host=_text(record, "pod") or _text(record, "host"), started=unix(_text(record, "started_at")),
        seconds=figure(used, "seconds"), cpu_seconds=sum(one.used("cpu_seconds")), gpu_seconds=sum(one.used("gpu_seconds")),
        peak_bytes=max(one.used("peak_bytes")), progress=_text(usage, "progress"), beat=at,
        every=figure(usage, "every") or BEAT_SECONDS, parts=_text(record, "parts"),
    )  # fmt: skip
    if one.outcome is not None:
        return found
    here = this_process()
    if here["machine"] and record.get("machine") == here["machine"]:  # a process that can be seen from here
        lives = start_of(record.get("pid")) not in ("", None) and start_of(record.get("pid")) == record.get("pid_start")
        return found if lives else _lost(found)
    age = time.time() - unix(at)
    if age < _FRESH_BEATS * found.every:
        return found
    return replace(found, state="silent", reason=_last_sign(found)) if age < _SKEW_SECONDS else _lost(found)


def _lost(one: Try) -> Try:
    return replace(one, state="lost", reason=f"killed or lost: {_last_sign(one)}")


def _last_sign(one: Try) -> str:
    seconds = max(time.time() - unix(one.beat), 0.0)
    return f"its last sign was {seconds:.0f} s ago by its clock, on {one.host or 'a machine it did not name'}"


def _watched(run: "Run", tries: list[Try]) -> list[Try]:
    """The same once each silent one has been watched: it lives when its beat changes while we look, by our clock."""
    silent = {(one.node, one.number): one for one in tries if one.state == "silent"}
    until = time.monotonic() + _WATCHED_BEATS * max(one.every for one in silent.values())
    seen: dict[tuple[str, int], Try] = {}
    while time.monotonic() < until and len(seen) < len(silent):
        time.sleep(_LOOK_SECONDS)
        for place, one in silent.items():
            usage = run.read_usage(*place) or {}
            if place not in seen and (_text(usage, "at") or one.beat) != one.beat:
                seen[place] = replace(one, state="running", reason="", progress=_text(usage, "progress"))
    return [
        seen.get((one.node, one.number)) or (_lost(one) if one.state == "silent" else one)
        for one in tries
    ]  # fmt: skip


def _derived(state: RunState, tries: list[Try], cancelled_by: str, *, engine: bool) -> RunState:
    """The state of a run that no engine of ours keeps (any more); `engine`: there was one, and it was killed."""
    of_node = by_node(tries)
    for name, node in state.nodes.items():
        if name in of_node:
            _tell(node, of_node[name])
        elif node.state not in FINISHED:  # what an engine that is gone said last
            node.state = "waiting"
    states = {node.state for node in state.nodes.values()}
    began = [one.started for one in tries if one.started]
    state.started = state.started or min(began, default=0.0)
    if states & {"running", "silent"}:
        state.state = "running"
    elif state.nodes and states <= set(GOOD):
        state.state = "done"
    elif cancelled_by:
        state.state, state.reason = "cancelled", f"{cancelled_by} asked it to stop"
    elif engine:
        state.state = "dead"
    else:
        state.state = "failed" if "failed" in states else "waiting"
    if engine and state.state in ("dead", "cancelled"):
        for node in state.nodes.values():
            if node.state not in FINISHED and node.state != "lost":
                node.state, node.ended = ("cancelled" if node.started else "not_run"), node.started and state.updated
                node.reason = node.reason or "its run died"
    return state


def _unplanned(run: "Run") -> RunState | None:
    """A run that has no plan, as whoever asked for it says, and the step that was to plan it."""
    submission, failed = submission_of(run), failed_plan_of(run)
    if submission is not None:
        state = _pending(run, submission)
    elif failed is not None:
        state = RunState(run_id=run.id, pipeline=failed.pipeline, profile=failed.profile, state="pending")
        if by := run.cancelled_by():
            state.state, state.reason = "cancelled", f"{by} asked it to stop"
        elif by := run.suspended_by():
            state.state, state.reason = "suspended", f"{by} suspended it"
    else:
        return None
    asked_again = submission is not None and failed is not None and submission.begun_at > failed.last
    if failed is not None and state.state == "pending" and not asked_again:
        tell_failed_plan(state, failed)
    return state


def _pending(run: "Run", submission: Submission) -> RunState:
    """Submitted, and no stage was begun, and nothing else: on a cluster its engine may know more."""
    request = submission.request
    state = RunState(run_id=run.id, pipeline=str(request.get("pipeline", "")), profile=str(request.get("profile", "")))
    if run.read("spec.json") is not None:
        state = _from_spec(run)
    state.started = unix(submission.submitted_at)
    cancelled, suspended = run.cancelled_by(), run.suspended_by()
    if cancelled:
        state.state, state.reason = "cancelled", f"{cancelled} asked it to stop"
    elif submission.refused:
        state.state, state.reason = "failed", f"{submission.engine} did not take it: {submission.refused}"
    elif suspended:
        state.state, state.reason = "suspended", f"{suspended} suspended it"
    elif submission.here and not submission.begins():
        state.state, state.reason = "dead", "its process ended before its first stage"
        state.host, state.pid, state.updated = submission.host, submission.pid, submission.begun_at
    else:
        state.state = "pending"
    return state


def _begun_again(run: "Run", state: RunState) -> bool:
    """Whether a process was begun after the last word of the one that is gone, and has not written its own yet: who takes the
    run for dead meanwhile begins one more."""
    submission = submission_of(run)
    return (
        submission is not None and submission.background and submission.begun_at > state.updated and submission.begins()
    )


def _suspended(run: "Run", state: RunState) -> RunState:
    """A run whose engine stopped because it was suspended, as it is now: still so, cancelled since, or about to go on."""
    cancelled, submission = run.cancelled_by(), submission_of(run)
    if cancelled:
        state.state, state.reason = "cancelled", f"{cancelled} asked it to stop"
        for node in state.nodes.values():
            if node.state == "waiting":
                node.state, node.reason = "cancelled", ""
    elif not run.suspended_by():
        goes_on = submission is not None and submission.begins()
        state.state = "pending" if goes_on else "dead"
        state.reason = "it was resumed" + ("" if goes_on else ", and its process ended before its first stage")
    return state


def _tell(node: NodeState, tries: list[Try]) -> None:
    """What the tries at a node say of it."""
    living = [one for one in tries if one.state in ("running", "silent")]
    whole = [one for one in tries if not one.parts]
    last = (living or whole or tries)[-1]
    shown = {"wrong_input": "failed", "bug": "failed", "try_again": "retrying"}
    node.state = shown.get(last.state, last.state)
    if last.parts and last.state in GOOD:  # a range is made; the call that makes the artifact is to come
        node.state = "waiting"
    node.outcome = "" if last.state in ("running", "silent", "lost") else last.state
    node.key, node.reason, node.note = last.key or node.key, last.reason, last.progress
    node.attempts, node.attempt = len(tries), last.number
    node.started = tries[0].started
    node.ended = 0.0 if node.state in ("running", "silent", "retrying") else last.started + last.seconds


def _tell_of_launchers(state: RunState, launchers: Mapping[str, Said]) -> None:
    """What keeps a node from running on a cluster, as its launcher says: queued, waiting for quota, pulling its image."""
    for name, said in launchers.items():
        node = state.nodes.get(name)
        if node is None or said.ended or node.state in GOOD or node.state in ("running", "silent"):
            continue
        if state.state in ("running", "waiting"):
            node.state = "retrying" if node.attempts else "waiting"  # a try that was stopped is not the end of it
            node.reason = said.words


def _from_spec(run: "Run") -> RunState:
    """A state before anything began, from what the run was written down as."""
    spec = run.spec()
    state = RunState(run_id=run.id, pipeline=str(spec.get("pipeline", "")), profile=str(spec.get("profile", "")))
    nodes = spec.get("nodes")
    for node in nodes if isinstance(nodes, list) else []:
        if not isinstance(node, dict) or not isinstance(node.get("name"), str):
            raise InputError(f"{run.path_of('spec.json')}: its nodes cannot be read: each has a name")
        state.nodes[node["name"]] = NodeState(
            stage=str(node.get("stage", "")), key=str(node.get("key") or ""), why=str(node.get("why", "")),
            state="cached" if node.get("done") is True else "waiting",
        )  # fmt: skip
    return state


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    return value if isinstance(value, str) else ""


def unix(written: str) -> float:
    """Unix seconds of a time of `utc_now`; 0 for another text."""
    try:
        return calendar.timegm(time.strptime(written[:19], "%Y-%m-%dT%H:%M:%S")) + float(written[19:-1] or 0)
    except ValueError:
        return 0.0
