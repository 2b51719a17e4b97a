"""One node of a run: from "may start" to its outcome. Knows processes and outcomes, and no engine.

``NodeRunner.attempt`` is what an engine calls once per try; ``again`` tells whether there is another. The stage opens its
attempt and ships its log itself (`components/stage_attempt.py`); the runner finds the attempt by the token that it gave. The
outcome comes from the ``outcome.json`` of the attempt; where a killed process left none, it is told from how the process ended,
and written in its stead, as is the attempt of one that ended before it could open any.
"""

import contextlib
import os
import random
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.entrypoint import SCHEDULER
from components.promotion import promote
from components.stage_attempt import ENGINE, LEASE_HELD, TOKEN
from pipelines.engines.budget import Budget
from pipelines.engines.compile import Step
from pipelines.engines.subprocess_stage import Ended, run_process
from pipelines.nodes import Node, Plan, code_of
from pipelines.runs.display import Display, in_words, training_in_words
from pipelines.runs.state import FINISHED, GOOD, StateWriter
from wfm.artifacts.address import new_id
from wfm.artifacts.attempt_log import LogPieces
from wfm.errors import EXIT_OUTCOMES, WfmError, may_retry
from wfm.log import get_logger
from wfm.process import python, safe_environment, signal_name
from wfm.stopping import GRACE

if TYPE_CHECKING:
    from pipelines.engines.dask_cluster import Clusters
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PLACE_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "WFM_RANKS_FOLDER",
)
"""What says to a stage that it is one rank of several; where this process is one itself, its stages are not."""
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "1073741824"}
"""glibc gives large blocks back to the kernel at once, and a training step takes them again, page fault by page fault. With
these it keeps them, at the price of a larger peak (LOG.md)."""
_HEARD_BYTES = 64 * 2**10
"""The beginning and the end of what a stage prints are kept for one that does not live to open its attempt: each so long."""


@dataclass(frozen=True)
class EngineOptions:
    """How stages are tried again and stopped; tests make these short."""

    backoff_seconds: float = 2.0
    "Wait before the second try; doubled for each further one, times a random factor in 0.5 .. 1.5 [s]."
    backoff_limit_seconds: float = 60.0
    grace_seconds: float = 20.0
    "Between SIGTERM and SIGKILL [s]: time to save a checkpoint."
    environment: Mapping[str, str] = field(default_factory=dict)
    "Further variables for the stages."


class NodeFailed(Exception):
    """An attempt did not succeed; ``outcome`` says whether trying again can help, ``final`` that it cannot in this run,
    ``held`` that another process works on the key."""

    def __init__(self, node: str, outcome: str, reason: str, *, final: bool = False, held: bool = False) -> None:
        super().__init__(f"{node}: {outcome}: {reason}")
        self.node, self.outcome, self.reason, self.final, self.held = node, outcome, reason, final, held


def backoff(attempts: int, options: EngineOptions) -> float:
    """Wait before the try after ``attempts`` failed ones [s]: exponential; jitter keeps many from coming back at once."""
    wait = min(options.backoff_seconds * 2.0 ** (attempts - 1), options.backoff_limit_seconds)
    return wait * random.uniform(0.5, 1.5)


class NodeRunner:
    """Runs the attempts of a plan's nodes as processes, within a budget, and keeps the books."""

    def __init__(
        self,
        plan: Plan,
        run: "Run",
        store: "Store",
        *,
        steps: Sequence[Step],
        refresh: Callable[[Plan, "Store"], None],
        budget: Budget,
        options: EngineOptions,
        states: StateWriter,
        display: Display,
        clusters: "Clusters",
        stop: threading.Event,
        engine: str = "",
    ) -> None:
        self._plan, self._run, self._store = plan, run, store
        self._steps = {step.node: step for step in steps}
        self._refresh, self._budget, self._options = refresh, budget, options
        self._states, self._display, self._clusters, self._stop = states, display, clusters, stop
        self._engine = engine
        self._outcomes: dict[str, list[str]] = {step.node: [] for step in steps}
        self._planning = threading.Lock()
        # Looked at now: a Dask cluster sets these to 1 in this very process when it starts its workers.
        self._asked_threads = {name: os.environ[name] for name in _THREAD_VARIABLES if name in os.environ}

    def attempt(self, name: str) -> None:
        """Try a node once; returns when its artifact is there, raises `NodeFailed` when not. A process that left because
        another run makes the same was no try: the other one's end is waited for here, where that costs nothing."""
        with self._states.change(name) as state:
            tried, last = state.attempts, state.outcome
            state.attempts = tried + 1  # also a try that ends before its process begins counts
        if tried:
            self._pause(name, tried, last)
        while True:
            try:
                how, key = self._try(name, tried + 1)
            except NodeFailed as error:
                if error.held and self._other_has_ended(name, error.reason):
                    continue
                self._fail(error)
                raise
            except Exception as error:
                get_logger(__name__).debug("starting %s failed", name, exc_info=True)
                failure = NodeFailed(name, getattr(error, "outcome", "bug"), f"{type(error).__name__}: {error}")
                self._fail(failure)
                raise failure from error
            self._finish(name, how, key)
            return

    def _try(self, name: str, number: int) -> tuple[str, str]:
        """(``done`` or ``cached``, key of the artifact)."""
        with self._planning:
            self._refresh(self._plan, self._store)
            node = self._plan.node(name)
            if node.done:  # made by another run meanwhile
                promote(self._store, node.promote, node.key or "", node.gate, self._run.id)
                return "cached", node.key or ""
        step = self._steps[name]
        with (
            self._budget.hold(step.cpu, step.memory_gib, self._stop),
            self._clusters.user(step.kind, step.image, self._stop) as scheduler,
        ):
            key, how = self._start(node, step, number, scheduler)
        return how, key

    def _other_has_ended(self, name: str, reason: str) -> bool:
        """Wait for the process that works on a node's key elsewhere; False when it cannot be seen. Raises `NodeFailed` when
        this run is stopped meanwhile."""
        key = self._plan.node(name).key
        if not key:
            return False
        with self._states.change(name) as state:
            state.state, state.reason, state.pid = "retrying", reason, 0
        self._display.line(name, f"waiting: {reason}")
        self._display.changed(name)
        try:
            self._store.lease(key).await_end(self._stop.is_set)
        except (WfmError, OSError) as error:  # then it is a try like any other
            get_logger(__name__).warning("%s: the lease of its key cannot be looked at: %s", name, error)
            return False
        if self._stop.is_set():
            failure = NodeFailed(name, "cancelled", f"stopped while waiting: {reason}")
            self._fail(failure)
            raise failure
        return True

    def again(self, name: str) -> bool:
        """Whether a node whose try has failed gets another."""
        return self._states.state.nodes[name].state == "retrying"

    def skip(self, name: str, reason: str) -> None:
        """Book a node that could not be tried because of another."""
        with self._states.change(name) as state:
            state.state, state.reason, state.ended = (
                ("cancelled" if self._stop.is_set() else "not_run"),
                reason,
                time.time(),
            )
        self._display.changed(name)

    def _pause(self, name: str, tried: int, last: str) -> None:
        wait = backoff(tried, self._options)
        self._display.line(name, f"try {tried + 1} in {wait:.1f} s (the last one ended with {last})")
        if self._stop.wait(wait):
            failure = NodeFailed(name, "cancelled", "stopped while waiting to try again")
            self._fail(failure)
            raise failure

    def _start(self, node: Node, step: Step, number: int, scheduler: str) -> tuple[str, str]:
        """Start the process, follow it to its end; returns the artifact's key, and whether it was made now (`done`) or by
        another run meanwhile (`cached`)."""
        token = new_id()
        with self._states.change(node.name) as state:
            state.state, state.attempts = "running", number
            state.reason, state.outcome, state.why = "", "", node.why
            state.started = state.started or time.time()  # waiting for the budget does not count
        self._display.changed(node.name)
        heard = LogPieces(_HEARD_BYTES, 1, 1)
        with tempfile.TemporaryDirectory(prefix="wfm-stage-") as folder:
            key_file = Path(folder) / "key"
            ended = run_process(
                python(*step.arguments(self._plan.input_keys(node), str(key_file))),
                environment=self._environment(step, token) | self._clusters.environment(scheduler),
                on_line=lambda line: self._hear(node.name, heard, line),
                on_start=lambda pid: self._note_pid(node.name, pid),
                stop=self._stop,
                timeout_seconds=step.timeout_seconds,
                grace_seconds=self._options.grace_seconds,
                ranks=step.resources.ranks,
            )
            key = key_file.read_text().strip() if key_file.exists() else ""
        attempt = self._run.attempt_with(node.name, token) or self._note_attempt(node, token, heard)
        outcome, reason = self._judge(node, attempt, step, ended)
        with self._states.change(node.name) as state:
            state.attempt = attempt
            state.cpu_seconds += ended.cpu_seconds
            state.peak_bytes = max(state.peak_bytes, ended.peak_bytes)
        if outcome not in GOOD:
            held = outcome == "try_again" and (self._run.read_outcome(node.name, attempt) or {}).get(LEASE_HELD) is True
            raise NodeFailed(node.name, outcome, reason, held=held)
        if not key or not self._store.has(key):
            told = key[:12] or "(no key)"
            raise NodeFailed(
                node.name, "bug", f"the stage says {outcome!r}, but its artifact {told} is not in the store"
            )
        if key != node.key:
            self._refuse_other_code(node, key)
        with self._planning:  # what the stage saw outside is what the run goes on with
            node.key, node.done = key, True
        return key, outcome

    def _refuse_other_code(self, node: Node, key: str) -> None:
        """The stage ran other code than the plan knows: mixing the two would give a run of no one code."""
        if self._store.artifact(key).manifest.code_id != code_of(node):
            reason = "its code was edited while the run was going on: run again"
            raise NodeFailed(node.name, "try_again", reason, final=True)

    def _note_attempt(self, node: Node, token: str, heard: LogPieces) -> int:
        """The attempt and the log of a process that ended before it opened one."""
        record = {
            "token": token,
            "key": node.key,
            "why": node.why,
            "host": socket.gethostname(),
            "engine": self._engine,
        }
        number = self._run.append_attempt(node.name, record)
        self._run.ship_log(node.name, number, heard)
        return number

    def _environment(self, step: Step, token: str) -> dict[str, str]:
        # a scheduler that stands here is of another cluster, a rank of another job
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PREFECT_", "TORCHELASTIC_", "WFM_WEBHOOK"))
            and name not in (SCHEDULER, *_PLACE_VARIABLES)
        }
        # Half of the machine: the two branches of the main job run side by side, and one thread each wastes least.
        # Ranks share what one process would get.
        threads = max(int(min(step.cpu, self._budget.cpu)), int(self._budget.cpu) // 2) // step.resources.ranks
        given = {name: self._asked_threads.get(name, str(max(threads, 1))) for name in _THREAD_VARIABLES}
        kept = {**_KEEP_MEMORY, **kept}
        own = {
            TOKEN: token,
            ENGINE: self._engine,
            GRACE: f"{self._options.grace_seconds:g}",
            "PYTHONUNBUFFERED": "1",
        }
        return safe_environment({**kept, **given, **self._options.environment, **own})

    def _judge(self, node: Node, attempt: int, step: Step, ended: Ended) -> tuple[str, str]:
        """The attempt's outcome and reason; written for the process where it could not do so itself."""
        written = self._run.read_outcome(node.name, attempt)
        if ended.exit_code == 0 and written is not None and written.get("outcome") in GOOD:
            return str(written["outcome"]), ""
        if self._run.cancelled_by() or self._run.suspended_by():  # the stage may have seen it before this process did
            self._stop.set()
        if self._stop.is_set() and ended.stopped_by == "cancel":
            outcome, reason = "cancelled", "stopped on request"
        elif ended.stopped_by == "timeout":
            outcome, reason = "try_again", f"ran longer than its {step.timeout_seconds:g} s and was stopped"
        elif written is not None and ended.exit_code != 0:  # also by another rank for one that was killed
            outcome, reason = str(written.get("outcome", "bug")), str(written.get("reason", ""))
        elif ended.exit_code is None:
            name = signal_name(ended.signal) if ended.signal else "a signal"
            hint = "; out of memory is the usual cause" if ended.signal == signal.SIGKILL else ""
            who = f"rank {ended.rank}" if step.resources.ranks > 1 else "the process"
            outcome, reason = "try_again", f"{who} was killed by {name}{hint}"
        else:
            outcome = EXIT_OUTCOMES.get(ended.exit_code, "bug")
            outcome = "bug" if outcome == "done" else outcome
            reason = f"the process ended with exit code {ended.exit_code} and wrote no outcome; its log tells more"
        if outcome == "cancelled" and not self._stop.is_set():
            outcome, reason = "try_again", "something outside this run told the stage to stop"
        if written is None:
            answer: dict[str, Any] = {"outcome": outcome, "reason": reason, "key": node.key or ""}
            answer |= {
                "seconds": ended.seconds,
                "exit_code": ended.exit_code,
                "signal": ended.signal,
                "cpu_seconds": ended.cpu_seconds,
                "peak_bytes": ended.peak_bytes,
                "written_by": "run",
            }
            self._run.write_outcome(node.name, attempt, answer)
        return outcome, reason

    def _hear(self, name: str, heard: LogPieces, line: str) -> None:
        heard.add(f"{line}\n".encode(errors="replace"))
        self._display.line(name, line)

    def _note_pid(self, name: str, pid: int) -> None:
        with self._states.change(name) as state:
            state.pid = pid

    def _finish(self, name: str, how: str, key: str) -> None:
        note, peak = "", 0
        with contextlib.suppress(WfmError):  # a store that does not answer now: the stage is through all the same
            manifest = self._store.artifact(key).manifest
            told = in_words(manifest.counts, manifest.skipped), training_in_words(manifest.extra)
            note = "; ".join(words for words in told if words)
            peak = int(manifest.resources.get("peak_bytes", 0)) if how == "done" else 0
        with self._states.change(name) as state:
            state.peak_bytes = peak or state.peak_bytes  # one figure everywhere: workers on Dask count, too
            state.state, state.key, state.outcome, state.ended, state.pid = how, key, how, time.time(), 0
            state.note = note
        self._settled(name)

    def _fail(self, failure: NodeFailed) -> None:
        with self._states.change(failure.node) as state:
            tried = self._outcomes[failure.node]
            tried.append(failure.outcome)
            again = not failure.final and may_retry(tried, self._steps[failure.node].retries)
            retry = again and not self._stop.is_set()
            state.state = "retrying" if retry else "cancelled" if failure.outcome == "cancelled" else "failed"
            state.outcome, state.reason, state.pid, state.note = failure.outcome, failure.reason, 0, ""
            state.ended = 0.0 if retry else time.time()
        self._settled(failure.node)

    def _settled(self, name: str) -> None:
        """Show where a node came to, and let the workers of an image go with the last node that needs them."""
        self._display.changed(name)
        states = self._states.state.nodes
        users = {of: step.image for of, step in self._steps.items() if step.kind == "daskjob"}
        needed = {image for of, image in users.items() if states[of].state not in FINISHED}
        for image in set(users.values()) - needed:
            self._clusters.close(image)
