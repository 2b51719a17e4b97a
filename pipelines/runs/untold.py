"""Runs of a machine's engine that could not say that they failed: killed, or ended before their first stage. Whoever looks at
the store next tells the webhook: `wfm runs`, `status`, `backfill`, a process of `wfm schedule`, the exporter.
"""

import socket
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pipelines.runs.seen import see
from pipelines.runs.submission import submission_of
from pipelines.runs.webhook import CLAIMS, TOLD_FILE, tell_failure, webhook
from wfm.errors import InputError, WfmError
from wfm.log import get_logger

if TYPE_CHECKING:
    from pipelines.runs.state import RunState
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run

LOOKED_AT = 20
"""The newest runs of a store."""
_TELL_SECONDS = 10.0
_OLD_SECONDS = 7 * 86400.0
"""Who asks to be told today hears nothing of what ended before that."""
_SKEW_SECONDS = 900.0
"""A process of another machine is gone when it was silent for so long: clocks are not that far apart."""
_EVERY_SECONDS = 60.0


def tell_untold(runs: "Iterable[Run]", *, seconds: float = _TELL_SECONDS) -> list[str]:
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
            state = _untold(run)
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


def _untold(run: "Run") -> "RunState | None":
    """The end of a run that nobody told yet."""
    submission = submission_of(run)
    if submission is not None and not submission.here:
        return None  # its tries fail and are tried again, which its engine alone knows
    state = see(run)
    if state is None or state.state not in ("failed", "dead"):
        return None
    last = max(state.updated, state.ended, state.started, submission.begun_at if submission is not None else 0.0)
    silent = time.time() - last
    elsewhere = state.state == "dead" and state.host != socket.gethostname()
    if silent > _OLD_SECONDS or (elsewhere and silent < _SKEW_SECONDS):
        return None
    if state.state == "failed" and run.read(TOLD_FILE) is not None and not run.names(CLAIMS):
        return None  # by an older wfm
    return state
