"""What happened to a run, in words and in order: told from what is written of it, by whoever wrote it.

for event in events(run): print(event.at, event.stage, event.words)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.runs.seen import Try, try_of, unix
from pipelines.runs.state import GOOD, read_state
from pipelines.runs.submission import submission_of
from pipelines.runs.webhook import TOLD_FILE
from wfm.cluster.records import said_of
from wfm.errors import InputError

if TYPE_CHECKING:
    from wfm.artifacts.runs import AttemptRecord, Run

_ENDS = {
    "done": "done",
    "cached": "done: another run had made it",
    "cancelled": "stopped",
    "try_again": "failed, may be tried again",
}
_ORDER = ("submitted", "suspended", "resumed", "cancelled", "began", "ended", "over", "told")
"""Of what happened in the same moment, by the clock of whoever wrote it."""


@dataclass(frozen=True)
class Event:
    """One thing that happened."""

    at: float
    "Unix time, by the clock of whoever wrote it; 0: nobody wrote when."
    kind: str
    "submitted | began | ended | suspended | resumed | cancelled | over | told"
    words: str
    stage: str = ""
    attempt: int = 0
    failed: bool = False


def events(run: "Run") -> list[Event]:
    """All that is known. What cannot be read is said as an event of no time."""
    found: list[Event] = []
    for source in (_submitted, _marks, _tries, _launchers, _over):
        try:
            found += source(run)
        except InputError as error:
            found.append(Event(0.0, "over", f"not all is known: {error}"))
    return sorted(found, key=lambda one: (one.at, _ORDER.index(one.kind)))


def _submitted(run: "Run") -> Iterator[Event]:
    submission, spec = submission_of(run), run.record("spec.json") or {}
    if submission is None:
        if spec:
            yield Event(unix(str(spec.get("created_at") or "")), "submitted", "planned")
        return
    how = "submitted to" if submission.background or not submission.here else "begun on"
    words = f"{how} {submission.engine} by {submission.by or 'somebody'}"
    words += f", team {submission.team}" if submission.team else ""
    words += f", for {submission.scheduled_at}" if submission.scheduled_at else ""
    words += f", again after run {submission.rerun_of}" if submission.rerun_of else ""
    yield Event(unix(submission.submitted_at), "submitted", words)
    if submission.refused:
        yield Event(
            unix(submission.submitted_at),
            "over",
            f"{submission.engine} did not take it: {submission.refused}",
            failed=True,
        )


def _marks(run: "Run") -> Iterator[Event]:
    for mark in run.marks():
        kind = "resumed" if mark.get("verb") == "resume" else "suspended"
        yield Event(unix(str(mark.get("at") or "")), kind, f"{kind} by {mark.get('by') or 'somebody'}")
    by = run.cancelled_by()
    if by:
        yield Event(unix(run.cancelled_at()), "cancelled", f"{by} asked it to stop")


def _tries(run: "Run") -> Iterator[Event]:
    for record in run.read_outcomes():
        one, again = try_of(record), record.number > 1
        part = f" (range {one.parts} of its parts)" if one.parts else ""
        began = f"tried again, try {one.number}{part}" if again else f"began{part}"
        where = f" on {one.host}" if one.host else ""
        yield Event(one.started, "began", began + where, one.node, one.number)
        if one.state not in ("running", "silent"):
            yield _end(record, one, part)


def _end(record: "AttemptRecord", one: Try, part: str) -> Event:
    at = unix(str((record.outcome or {}).get("finished_at") or "")) or unix(one.beat) or one.started
    failed = one.state not in (*GOOD, "cancelled")
    words = _ENDS.get(one.state, "killed or lost" if one.state == "lost" else f"failed ({one.state})") + part
    told = one.reason.removeprefix("killed or lost: ")
    reason = f": {told}" if told and one.state not in GOOD else ""
    return Event(at, "ended", words + reason, one.node, one.number, failed)


def _launchers(run: "Run") -> Iterator[Event]:
    """What keeps nodes from running now, on a cluster."""
    for node, said in said_of(run).items():
        if said.words and not said.ended:
            yield Event(0.0, "began", f"waits: {said.words}", node)


def _over(run: "Run") -> Iterator[Event]:
    state = read_state(run)
    if state is not None and state.state in ("done", "failed", "cancelled") and state.ended:
        bad = [name for name, node in state.nodes.items() if node.state == "failed"]
        words = f"the run {'is' if state.state != 'failed' else 'has'} {state.state}" + (
            f": {', '.join(bad)}" if bad else ""
        )
        yield Event(state.ended, "over", words, failed=state.state == "failed")
    elif state is not None and state.seen() == "dead":
        words = f"its process (pid {state.pid} on {state.host}) was killed or lost: this was its last word"
        yield Event(state.updated, "over", words, failed=True)
    told = run.record(TOLD_FILE)
    if told is not None:
        yield Event(
            unix(str(told.get("at") or "")), "told", str(told.get("words") or ""), failed=told.get("told") is not True
        )
