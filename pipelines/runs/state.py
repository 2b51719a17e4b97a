"""What a run is doing, as one small JSON document in the store: ``runs/<id>/state.json``.

The run's process alone writes it, at every change and as a heartbeat every few seconds; `wfm status` reads it from
anywhere. A run that was killed leaves a document that still says "running": whoever reads it looks at the process (same
machine) or at the age of the last heartbeat, and calls it dead.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import pydantic

from wfm.artifacts import schema
from wfm.errors import DataError
from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts.runs import Run

STATE_FILE = "state.json"
SCHEMA_VERSION = 1
HEARTBEAT_SECONDS = 3.0
SILENCE_SECONDS = 45.0
"""A run on another machine that has not written for this long is taken for dead."""

Seconds = Annotated[float, pydantic.Field(ge=0.0, lt=1e11, allow_inf_nan=False)]
_Pid = Annotated[int, pydantic.Field(ge=0, lt=2**31)]

FINISHED = ("done", "cached", "failed", "cancelled", "not_run")
GOOD = ("done", "cached")


class NodeState(pydantic.BaseModel):
    """Where one node stands."""

    stage: str
    state: str = "waiting"
    "waiting | running | retrying | done | cached | failed | cancelled | not_run; as `seen.py` sees it, also silent | lost"
    key: str = ""
    why: str = ""
    "Why it has to run, or why not."
    reason: str = ""
    "What went wrong, if something did."
    outcome: str = ""
    attempts: int = 0
    "Tries in this run."
    attempt: int = 0
    "Number of the last attempt, as in `runs/<id>/nodes/<node>/attempts/`."
    pid: _Pid = 0
    started: Seconds = 0.0
    "Unix time at which the first attempt of this run began [s]; 0: not yet."
    ended: Seconds = 0.0
    cpu_seconds: Seconds = 0.0
    "Of all tries."
    gpu_seconds: Seconds = 0.0
    peak_bytes: Annotated[int, pydantic.Field(ge=0)] = 0
    note: str = ""
    "Last progress the stage told."
    ends_at: Seconds = 0.0
    "Unix time at which the stage says it will be through [s]; 0: unknown."

    def seconds(self) -> float:
        """How long it has run, or ran [s]."""
        return (self.ended or time.time()) - self.started if self.started else 0.0


class RunState(pydantic.BaseModel):
    """Where a run stands."""

    schema_version: int = SCHEMA_VERSION
    run_id: str
    pipeline: str
    profile: str = ""
    state: str = "running"
    "running | done | failed | cancelled | suspended"
    reason: str = ""
    started: Seconds = 0.0
    updated: Seconds = 0.0
    ended: Seconds = 0.0
    host: str = ""
    pid: _Pid = 0
    process_started: Seconds = 0.0
    "Start time of the run's process, so that a reused pid is not taken for it."
    nodes: dict[str, NodeState] = {}

    def seen(self) -> str:
        """The state as an onlooker should call it: `dead` when the process that should write it is gone."""
        return "dead" if self.state == "running" and not self.alive() else self.state

    def alive(self) -> bool:
        """Whether the run's process is still there, as far as can be seen from here."""
        if self.host == socket.gethostname():
            return lives(self.pid, self.process_started)
        return time.time() - self.updated < SILENCE_SECONDS


def lives(pid: int, started: float) -> bool:
    """Whether the process of this machine that had this id, and began then [unix s], is still there."""
    now = process_started(pid)
    return now > 0 and abs(now - started) < 2.0  # the clock may have been set meanwhile


def process_started(pid: int) -> float:
    """Start time of a process [unix s], 0.0 when there is none (a zombie counts as none)."""
    import psutil

    try:
        process = psutil.Process(pid)
        return 0.0 if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return 0.0


def read_state(run: "Run") -> RunState | None:
    """The run's state, or None for a run that never began. Raises InputError with advice when it cannot be read."""
    data = run.read(STATE_FILE)
    if data is None:
        return None
    try:
        return schema.read(RunState, data, run.path_of(STATE_FILE), SCHEMA_VERSION, run_id=run.id)
    except DataError as error:
        raise DataError(f"{error}; what the run made is still there: `wfm rerun {run.id}` goes on from it") from None


class StateWriter:
    """The one writer of a run's state: changes from any thread, a heartbeat, an ear for `wfm cancel` and `wfm suspend`."""

    def __init__(self, run: "Run", state: RunState, on_stop: Callable[[], None]) -> None:
        self.state = state
        self.state.host, self.state.pid = socket.gethostname(), os.getpid()
        self.state.process_started = process_started(os.getpid())
        self.state.started = time.time()
        self._run, self._on_stop = run, on_stop
        self._lock = threading.RLock()
        self._told = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> "StateWriter":
        self.save()
        self._listen()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=10.0)
        self.save()

    @contextmanager
    def change(self, node: str) -> Iterator[NodeState]:
        """Change a node's state inside the block; it is saved at its end."""
        with self._lock:
            yield self.state.nodes[node]
            self.save()

    def save(self) -> None:
        """Write the document; a store that does not answer now must not stop the run."""
        with self._lock:
            self.state.updated = time.time()
            try:
                self._run.write(STATE_FILE, self.state.model_dump_json(indent=1).encode())
                self._told = False
            except Exception as error:
                if not self._told:  # once, and not at each beat while a disk is full
                    get_logger(__name__).warning("the run's state could not be saved: %s", error)
                self._told = True

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT_SECONDS):
            self.save()
            self._listen()

    def _listen(self) -> None:
        try:
            if self._run.cancelled_by() or self._run.suspended_by():
                self._on_stop()
        except Exception as error:
            get_logger(__name__).warning("cannot look for a wish to stop: %s", error)
