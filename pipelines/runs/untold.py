"""Runs that could not say that they failed: on this machine killed, or ended before their first stage; on a cluster all, whose
engine calls nobody. Whoever looks at the store next tells the webhook: `wfm runs`, `status`, `backfill`, a process of `wfm
schedule`, the exporter, which looks every half minute.

On a cluster what fails is tried again, so a run failed when its engine says so (`Elsewhere`), when a stage failed in a way that
no other try changes, or when a stage failed and nothing was heard of the run for half an hour.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pipelines.runs.failed_plan import failed_plan_of
from pipelines.runs.seen import see
from pipelines.runs.submission import WORKFLOW, submission_of
from pipelines.runs.webhook import CLAIMS, TOLD_FILE, tell_failure, webhook
from wfm.artifacts.open_runs import quiet_seconds
from wfm.errors import InputError, WfmError, is_final
from wfm.log import get_logger

if TYPE_CHECKING:
    from pipelines.runs.state import RunState
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run

Elsewhere = Callable[["Run"], "RunState | None"]
"""How a run on a cluster failed, by its engine; None where that does not say so, or cannot be asked."""
LOOKED_AT = 20
"""The newest runs of a store."""
_TELL_SECONDS = 10.0
_OLD_SECONDS = 7 * 86400.0
"""Who asks to be told today hears nothing of what ended before that."""
_SKEW_SECONDS = 900.0
"""A process of another machine is gone when it was silent for so long: clocks are not that far apart."""
_QUIET_SECONDS = 1800.0
"""So long without a sign: stages beat every few seconds, a workflow between two of them every few minutes."""
_EVERY_SECONDS = 60.0


def _nobody(_: "Run") -> None:
    """No engine is asked."""


def tell_untold(runs: "Iterable[Run]", *, seconds: float = _TELL_SECONDS, elsewhere: Elsewhere = _nobody) -> list[str]:
    """Tell of those of `runs` that failed or died and did not say so themselves, in at most so many seconds together; returns
    their ids. Nothing is looked at where nobody wants to hear."""
    told: list[str] = []
    try:
        if webhook() is None:
            return told
    except InputError as error:  # whoever only looks is not kept from it
        get_logger(__name__).warning("nobody can be told of runs that failed: %s", error)
        return told
    until = time.monotonic() + seconds
    for run in runs:
        if time.monotonic() > until:
            break
        try:
            state = _untold(run, elsewhere)
        except (WfmError, OSError) as error:
            get_logger(__name__).debug("run %s cannot be read, and is not told of: %s", run.id, error)
            continue
        if state is not None and tell_failure(run, state, seconds=until - time.monotonic()):
            told.append(run.id)
    return told


def tell_untold_until(store: "Store", stop: threading.Event) -> None:
    """The same again and again, for a process that stays."""
    while not stop.is_set():
        try:
            tell_untold(store.runs.list(limit=LOOKED_AT))
        except (WfmError, OSError) as error:
            get_logger(__name__).warning("whether a run died cannot be seen: %s", error)
        stop.wait(_EVERY_SECONDS)


def _untold(run: "Run", elsewhere: Elsewhere) -> "RunState | None":
    """The end of a run that nobody told yet."""
    submission = submission_of(run)
    there = not submission.here if submission is not None else run.read(WORKFLOW) is not None
    if there and any((run.record(f"{CLAIMS}/{name}") or {}).get("told") is True for name in run.names(CLAIMS)):
        return None  # a run on a cluster ends once: no engine need be asked
    state = _failed_there(run, elsewhere) if there else see(run)
    if state is None or state.state not in ("failed", "dead"):
        return None
    last = max(state.updated, state.ended, state.started, submission.begun_at if submission is not None else 0.0)
    silent = time.time() - last
    other = not there and state.state == "dead" and state.host != socket.gethostname()
    if silent > _OLD_SECONDS or (other and silent < _SKEW_SECONDS):
        return None
    if state.state == "failed" and run.read(TOLD_FILE) is not None and not run.names(CLAIMS):
        return None  # by an older wfm
    return state


def _failed_there(run: "Run", elsewhere: Elsewhere) -> "RunState | None":
    """A run of a cluster that nothing more comes of, as its engine or else the store says."""
    if (state := elsewhere(run)) is not None:
        return state
    state = see(run)
    if state is None or state.state != "failed" or run.cancelled_by():
        return None
    if failed_plan_of(run) is not None and not run.names("specs"):
        return state
    failed = [name for name, node in state.nodes.items() if node.state == "failed"]
    final = any(
        is_final([str(one.outcome.get("outcome")) for one in run.read_outcomes(name) if one.outcome]) for name in failed
    )
    return state if final or quiet_seconds(run) > _QUIET_SECONDS else None
