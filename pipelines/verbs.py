"""What is done with a run, whatever engine it is on: submit, look, suspend, resume, cancel. The commands say it in words.

On this machine a submitted run is a process of its own (`background`), on a cluster its engine is asked (`engines.remote`).
Either way the store says where the run stands; what its engine alone knows (it waits, it failed before any stage) is added
here. A wish is written into the store before anything is asked of an engine, so that one that does not answer loses none.
"""

import dataclasses
import hashlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines.background import begin
from pipelines.engines.engine import ENGINES, choose
from pipelines.engines.remote import REMOTES, Ask, Looked, connect, parameters
from pipelines.runs.seen import see
from pipelines.runs.state import RunState
from pipelines.runs.submission import (
    Submission,
    asked_now,
    create_submission,
    submission_of,
    team_of,
    who,
    write_submission,
)
from wfm.artifacts.address import check_name, new_id
from wfm.artifacts.lease import LeaseHeld
from wfm.artifacts.open_runs import quiet_seconds
from wfm.errors import InputError, TryAgain, WfmError
from wfm.log import get_logger

if TYPE_CHECKING:
    from pipelines.engines.remote import Remote
    from pipelines.request import Request
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run

OVER = ("done", "failed", "cancelled")
"""States in which nothing more comes of a run."""
_PATIENCE_SECONDS, _SAID_AFTER_SECONDS = 60.0, 2.0
_LOOK_SECONDS = 0.2
LOST_SECONDS = 1800.0
"""So long without a sign, and a run that its engine does not have is lost: stages beat every few seconds, a workflow between
two of them every few minutes, and none begins without a workflow."""
_TAKEN_SECONDS = 300.0
"""How long an engine on a cluster may take until it has what it was asked for: several requests, each with its time limit."""


@dataclass(frozen=True)
class Standing:
    """A run as it is now: by the store first, then by its engine."""

    run: "Run"
    state: RunState | None
    "None: written down, and never asked of an engine."
    submission: Submission | None
    looked: Looked | None = None
    "What an engine on a cluster says."
    trouble: str = ""
    "Why it could not be asked."
    lost: bool = False
    """Its engine took it, has it no more, and nothing was heard of it for long: it does not go on by itself. Where another
    namespace or server is asked than it was submitted to, one that waits there looks the same."""

    @property
    def word(self) -> str:
        """The state in one word."""
        return self.state.state if self.state is not None else "never began"

    @property
    def engine(self) -> str:
        """Its engine; empty where nothing says so."""
        return self.submission.engine if self.submission is not None else ""


def choices() -> str:
    """Engines that a run may be submitted to."""
    return ", ".join((*ENGINES, *REMOTES))


def check_engine(engine: str, template: str = "") -> None:
    """Raises InputError for an engine that does not exist or cannot be reached as this machine is set up."""
    if engine and engine not in (*ENGINES, *REMOTES):
        raise InputError(f"unknown engine {engine!r}. Choices: {choices()}")
    if engine in REMOTES:
        connect(engine)
        return
    if template:
        raise InputError(f"--template {template!r}: an engine of this machine has none; give --engine argo or kubeflow")
    choose(engine)


def submit(
    request: "Request",
    store: "Store",
    *,
    engine: str = "",
    run_id: str = "",
    template: str = "",
    team: str = "",
    scheduled_at: str = "",
    rerun_of: str = "",
    cpu: float | None = None,
    memory_gib: float | None = None,
) -> Standing:
    """Ask for a run and return at once. A `run_id` that is there already is that run: it is left as it is where it is at work,
    waits or is done, and begun again where its process is gone.

    Raises InputError for what can never work, before anything is written, and where something else was asked under that id;
    TryAgain for an engine that does not answer.
    """
    team = team_of(team)
    if engine in REMOTES and (cpu is not None or memory_gib is not None):
        raise InputError(f"--cpu, --memory: {engine} has the budget of its queue; leave them out")
    check_engine(engine, template)
    if engine in REMOTES:
        return _submit_there(
            request, store, connect(engine), run_id=run_id, template=template, team=team, scheduled_at=scheduled_at,
            rerun_of=rerun_of,
        )  # fmt: skip
    from pipelines.start_run import check_here, create_run

    chosen = choose(engine)
    plan = request.plan(store)
    check_here(plan, cpu, memory_gib)
    if run_id and _is_there(store, run_id) and (standing := look(store.runs.of(run_id))).word in _LEFT_ALONE:
        _check_asked(standing.run, request)
        return standing
    run = create_run(request, plan, store, rerun_of, run_id, team)
    submission = asked_now(
        run, chosen, dataclasses.asdict(request), team=team, scheduled_at=scheduled_at, rerun_of=rerun_of, cpu=cpu,
        memory_gib=memory_gib,
    )  # fmt: skip
    with _one_at_a_time(run, store):
        if look(run).word not in ("running", "pending"):  # another asked for the same id at this moment
            begin(run, store, submission)
    return look(run)


@contextmanager
def _one_at_a_time(run: "Run", store: "Store") -> Iterator[None]:
    """Inside, no other process begins this run."""
    lease = store.lease(hashlib.sha256(f"begin {run.id}".encode()).hexdigest())
    try:
        lease.acquire(leave=True)
    except LeaseHeld as error:
        raise TryAgain(f"run {run.id} is begun by another at this moment: {error}") from None
    with lease:
        yield


_LEFT_ALONE = ("pending", "planned", "running", "waiting", "suspended", "cancelled", "done")


def _submit_there(
    request: "Request",
    store: "Store",
    remote: "Remote",
    *,
    run_id: str,
    template: str,
    team: str,
    scheduled_at: str,
    rerun_of: str,
) -> Standing:
    run = store.runs.of(check_name(run_id, "run id") if run_id else new_id())
    ask = Ask(run.id, request, store.url, template, scheduled_at)
    parameters(ask)  # an address with a password must not be written down
    submission = asked_now(
        run, remote.name, dataclasses.asdict(request), template=template, team=team, scheduled_at=scheduled_at,
        rerun_of=rerun_of,
    )  # fmt: skip
    if not create_submission(run, submission):
        _check_asked(run, request)
        before = submission_of(run) or submission
        if before.engine == remote.name:
            submission = before
        elif not before.refused:
            raise InputError(
                f"run {run.id} was asked of {before.engine} already, and two engines would both make it. Give another run id, "
                f"or --engine {before.engine}"
            )
    try:
        name = remote.submit(ask)
    except InputError as error:
        if not submission.name:  # else it was taken before, and another asks for it in vain
            write_submission(run, submission.model_copy(update={"refused": str(error)[:2000]}))
        raise
    except TryAgain as error:
        raise TryAgain(f"{error}; it may be there all the same: `wfm status {run.id}` tells") from None
    write_submission(run, submission.model_copy(update={"name": name, "refused": ""}))
    return look(run)


def _is_there(store: "Store", run_id: str) -> bool:
    return store.runs.of(run_id).read("spec.json") is not None


def _check_asked(run: "Run", request: "Request") -> None:
    from pipelines.request import Request

    if Request.of_run(run) != request:
        raise InputError(
            f"run {run.id} is there already, and something else was asked of it. Give another --run-id, or ask for the same"
        )


def look(run: "Run", *, engine: str = "", patient: bool = False) -> Standing:
    """Where a run stands. `engine`: of a run that was not submitted by us (a cron line of the cluster, `kubectl`), and so does
    not say it. Raises InputError when what the store has of it cannot be read; an engine that cannot be asked is told in
    `trouble`."""
    state, submission = see(run, patient=patient), submission_of(run)
    if submission is None and engine:
        if engine not in REMOTES:
            raise InputError(
                f"--engine {engine!r} is for runs that a cluster began by itself. Choices: {', '.join(REMOTES)}"
            )
        submission = Submission(run_id=run.id, engine=engine)
    if submission is None or submission.here or submission.refused or (state is not None and state.state in OVER):
        return Standing(run, state, submission)
    try:
        looked = connect(submission.engine).look(run.id)
    except WfmError as error:
        return Standing(run, state, submission, trouble=f"{submission.engine} could not be asked: {error}")
    if state is not None:
        _add(state, looked)
        if looked.phase == "unknown" and _is_late(submission):
            if state.state == "pending" and not submission.name:
                state.state, state.reason = "dead", looked.words  # asked for again under its id it is the same run
            elif state.state in ("pending", "planned", "waiting") and (quiet := _quiet(run, submission)) > LOST_SECONDS:
                state.state = "dead"
                state.reason = (
                    f"{looked.words}; nothing was heard of it for {quiet / 60:.0f} min, so it does not go on by itself (unless "
                    f"it was submitted to another namespace or server than is asked here, where it would look the same)"
                )
                return Standing(run, state, submission, looked, lost=True)
    return Standing(run, state, submission, looked)


def failed_there(run: "Run") -> RunState | None:
    """How a run failed on a cluster, by its engine's word, or because that lost it; None where it did not, or no engine can be
    asked. Of a run that a cluster began by itself each engine is asked that this machine knows how to reach."""
    submission = submission_of(run)
    if run.cancelled_by() or (submission is not None and submission.refused):
        return None
    for engine in REMOTES if submission is None else (submission.engine,):
        try:
            looked = connect(engine).look(run.id)
            if looked.phase == "unknown" and submission is not None and (standing := look(run)).lost:
                return standing.state
        except WfmError:  # another asks it later
            continue
        if looked.phase == "failed" and (state := see(run)) is not None:
            state.state, state.reason = "failed", looked.words or state.reason
            return state
    return None


def _quiet(run: "Run", submission: Submission) -> float:
    """For how long nothing was heard of a run [s]."""
    asked = time.time() - submission.begun_at
    return min(asked, quiet_seconds(run)) if run.read("spec.json") is not None else asked


def _is_late(submission: Submission) -> bool:
    """Whether an engine should have a run by now: whoever asked for it was killed before, or it is gone there."""
    return time.time() - submission.begun_at > _TAKEN_SECONDS


def _add(state: RunState, looked: Looked) -> None:
    """Take what its engine says into what the store says: no stage that works is talked away, and no wish to suspend, which
    an engine may not know of."""
    if state.state == "running" or looked.phase == "unknown" or (state.state, looked.phase) == ("suspended", "running"):
        return
    if looked.phase in ("suspended", "failed", "cancelled", "running") or state.state == "pending":
        state.state = looked.phase
    elif looked.phase == "done" and state.state != "done":
        state.reason = state.reason or "its engine says that it is done, and not all of it is in the store"
    if looked.words:
        state.reason = looked.words


def suspend(run: "Run", *, engine: str = "") -> str:
    """Begin no further stage, have those that run save and stop; what was done and what that frees, in words."""
    standing = look(run, engine=engine)
    remote = _remote(standing)
    if remote is None and standing.word == "suspended" and run.suspended_by():  # one on a cluster may need it once more
        return f"run {run.id} is suspended already (by {run.suspended_by()})"
    if standing.word not in ("pending", "planned", "running", "waiting", "suspended"):
        raise InputError(f"run {run.id} is {standing.word}: only one that is at work, or waits, can be suspended")
    run.request_suspend(who())
    if remote is not None:
        try:
            said = remote.suspend(run.id)
        except InputError:
            run.request_resume(who())  # there is nothing to suspend
            raise
        _note_suspension(run, said)
        return said
    state = _wait_for_stop(run, standing)
    if state is not None and state.state in ("running", "pending"):
        return (
            f"run {run.id} was asked to stop and is still at it: its stages save what they have; `wfm status {run.id}`"
        )
    if state is not None and state.state in OVER:
        run.request_resume(who())
        return f"run {run.id} is {state.state}: it had ended before it could be suspended"
    return (
        f"run {run.id} is suspended: its process and its stages have ended, it holds no processor, memory or GPU; what they "
        f"saved is in the store. `wfm resume {run.id}` goes on from there, also after this machine was started anew"
    )


def _note_suspension(run: "Run", said: str) -> None:
    """What became of its jobs, for whoever looks later. A run that a cluster began by itself has no record for it."""
    submission = submission_of(run)
    if submission is not None:
        write_submission(run, submission.model_copy(update={"suspension": said[:2000]}))


def resume(run: "Run", store: "Store", *, engine: str = "") -> str:
    """Let a suspended run go on, or one whose process is gone; of several that ask at once one does it."""
    standing = look(run, engine=engine)
    if run.cancelled_by():
        raise InputError(f"run {run.id} was cancelled and stays so: `wfm rerun {run.id}` begins another")
    remote = _remote(standing)
    if remote is not None:
        said = remote.resume(run.id)
        run.request_resume(who())
        _note_suspension(run, "")
        return said
    if standing.word == "running" and run.suspended_by():
        state = _wait_for_stop(run, standing)  # it is on its way to be suspended
        standing = dataclasses.replace(standing, state=state)
    if standing.word in ("running", "pending"):
        return f"run {run.id} is {standing.word} already"
    if standing.word not in ("suspended", "dead", "never began"):
        raise InputError(
            f"run {run.id} is {standing.word}, not suspended: `wfm rerun {run.id}` asks for the same again"
        )
    from pipelines.request import Request

    with _one_at_a_time(run, store):
        if (word := look(run).word) in ("running", "pending"):
            return f"run {run.id} is {word} already"
        was_suspended = run.request_resume(who())
        submission = standing.submission or asked_now(run, choose(""), dataclasses.asdict(Request.of_run(run)))
        _await_end(submission)
        begin(run, store, submission)
    how = "goes on from what its stages saved" if was_suspended else "begins again where its process ended"
    return f"run {run.id} {how}: `wfm status {run.id}`"


def cancel(run: "Run", *, engine: str = "") -> str:
    """Stop a run in order, also one that is suspended, or has not begun; what was done, in words."""
    standing = look(run, engine=engine)
    if standing.word not in ("pending", "planned", "running", "waiting", "suspended") and not standing.lost:
        raise InputError(f"run {run.id} is not running: it is {standing.word}")
    run.request_cancel(who())
    if standing.submission is not None and not standing.submission.here:
        try:
            return connect(standing.submission.engine).cancel(run.id)
        except WfmError as error:
            noted = f"run {run.id} is marked as cancelled, so its stages end and none begins"
            kind = TryAgain if isinstance(error, TryAgain) else InputError
            raise kind(f"{noted}; {standing.submission.engine} itself was not stopped: {error}") from None
    state = _wait_for_stop(run, standing)
    seen = state.state if state is not None else "gone"
    return f"run {run.id} is {seen}" + ("; it was asked to stop and is still at it" if seen == "running" else "")


def _remote(standing: Standing) -> "Remote | None":
    """The engine on a cluster that has a run; None for one of this machine, or of nobody we know. Raises as `connect`."""
    submission = standing.submission
    return None if submission is None or submission.here else connect(submission.engine)


def _wait_for_stop(run: "Run", standing: Standing) -> RunState | None:
    """Tell the run's process, where it is on this machine, and wait a while until it has stopped."""
    state, submission = standing.state, standing.submission
    if state is not None and state.state == "running" and state.host == socket.gethostname() and state.alive():
        with suppress(
            ProcessLookupError, PermissionError
        ):  # it ended, or is another user's: it hears the wish in the store
            os.kill(state.pid, signal.SIGTERM)
    began, said = time.monotonic(), False
    while (state := see(run)) is not None and state.state == "running":
        waited = time.monotonic() - began
        if waited > _PATIENCE_SECONDS:
            break
        if waited > _SAID_AFTER_SECONDS and not said:
            said = True
            words = "run %s was asked to stop; waiting for up to %.0f s until its process on %s has saved what it has"
            get_logger(__name__).warning(words, run.id, _PATIENCE_SECONDS, state.host)
        time.sleep(_LOOK_SECONDS)
    if submission is not None:
        _await_end(submission)
    return state


def _await_end(submission: Submission) -> None:
    """Wait a while until the process in the background is gone, which holds things until then."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while submission.pid and submission.host == socket.gethostname() and submission.begins():
        if time.monotonic() > deadline:
            return
        time.sleep(_LOOK_SECONDS)
