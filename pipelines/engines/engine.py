"""What every engine does: keys are known, the book of the run is kept, names are given, the outcome is told.

An engine is a module with one function, ``drive(job)``: it starts the steps of a job, each after those it needs, and asks the
job about everything else. `local` (threads of this process) and `prefect` (its retries, its history, its UI) start them here
through ``job.attempt``; one that starts them elsewhere has their command lines, specs and needs in ``job.steps``. With nothing
missing no engine is loaded at all.
"""

import importlib
import importlib.util
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from components.promotion import promote
from pipelines.engines.remote import REMOTES
from pipelines.nodes import Plan
from pipelines.runs.display import PlainDisplay
from pipelines.runs.metrics import VARIABLE, metrics
from pipelines.runs.state import GOOD, NodeState, RunState, StateWriter
from pipelines.runs.webhook import tell_failure
from pipelines.stages import STAGES, StageRow
from wfm.errors import Cancelled, InputError, MissingPackage, TryAgain, WfmError, did_you_mean
from wfm.log import get_logger

if TYPE_CHECKING:
    from pipelines.engines.compile import Step
    from pipelines.engines.run_node import EngineOptions, NodeRunner
    from pipelines.runs.seen import Try
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run

ENGINES = {"prefect": "pipelines.engines.prefect", "local": "pipelines.engines.local"}
"""Name, as ``--engine`` takes it -> module."""

DisplayFactory = Callable[[RunState], Any]
"""Makes the context manager that shows a run (`runs/display.py`)."""


@dataclass(frozen=True)
class Job:
    """What an engine is given."""

    pipeline: str
    run_id: str
    steps: "tuple[Step, ...]"
    "What is missing, in an order in which each follows those it needs."
    attempt: Callable[[str], None]
    "One try at a node as a process of this machine, to its end; raises `NodeFailed` when its artifact is not there then."
    again: Callable[[str], bool]
    "Whether a node whose try has failed gets another."
    tries: "Callable[[str | None], list[Try]]"
    "The tries at a node until now, or at all (None), as the store has them: outcome, reason, cost."


@dataclass(frozen=True)
class RunSummary:
    """How a run ended."""

    run_id: str
    state: RunState
    engine: str
    "The engine that ran it; empty when there was nothing to do."

    @property
    def exit_code(self) -> int:
        """0 all there, 143 stopped on request, else what the failed nodes say: a bug (1) before wrong input (78) before 75."""
        if self.state.state in ("cancelled", "suspended"):
            return Cancelled.exit_code
        outcomes = {node.outcome for node in self.state.nodes.values() if node.state == "failed"}
        if self.state.state == "done":
            return 0
        if outcomes == {"wrong_input"}:
            return InputError.exit_code
        return TryAgain.exit_code if outcomes and outcomes <= {"try_again", "wrong_input"} else 1


def choose(name: str) -> str:
    """The engine that is asked for; empty: Prefect where it is installed. Raises `InputError` with the choices, or
    `MissingPackage`."""
    if name and name not in ENGINES:
        there = f" ({name} starts them on a cluster: wfm submit --engine {name})" if name in REMOTES else ""
        raise InputError(f"unknown engine {name!r}.{did_you_mean(name, ENGINES)} Choices: {', '.join(ENGINES)}{there}")
    installed = importlib.util.find_spec("prefect") is not None
    if name == "prefect" and not installed:
        raise MissingPackage("prefect", extra="prefect", purpose="--engine prefect (--engine local needs no package)")
    return name or ("prefect" if installed else "local")


def run_plan(
    plan: Plan,
    run: "Run",
    store: "Store",
    *,
    engine: str = "",
    cpu_budget: float,
    memory_budget_gib: float,
    engine_options: "EngineOptions | None" = None,
    rows: Mapping[str, StageRow] = STAGES,
    refresh_plan: "Callable[[Plan, Store], None] | None" = None,
    display: DisplayFactory = PlainDisplay,
) -> RunSummary:
    """Make every artifact of ``plan`` that is missing; no engine is started when none is.

    A stage that asks for more than the budget runs alone. SIGINT and SIGTERM stop the stages in order; what they have
    committed stays. Never raises for a stage that fails: the summary tells.
    """
    state = RunState(run_id=run.id, pipeline=plan.pipeline, profile=plan.profile)
    for node in plan.nodes:
        name = "cached" if node.done else "waiting"
        state.nodes[node.name] = NodeState(stage=node.stage, state=name, key=node.key or "", why=node.why)
    for node in plan.nodes:  # a stage that runs promotes by itself
        if node.done:
            promote(store, node.promote, node.key or "", node.gate, run.id)
    chosen = choose(engine) if plan.missing else ""
    stop = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(_signals(stop))
        stack.enter_context(metrics(state, store, os.environ.get(VARIABLE, "")))
        states = stack.enter_context(StateWriter(run, state, stop.set))
        if chosen:
            from pipelines.engines.budget import Budget
            from pipelines.engines.compile import compile_plan
            from pipelines.engines.dask_cluster import Clusters
            from pipelines.engines.run_node import EngineOptions, NodeRunner
            from pipelines.plan import refresh
            from pipelines.runs.seen import read_tries

            shown = stack.enter_context(display(state))
            clusters = Clusters(cpu_budget, memory_budget_gib)
            stack.callback(clusters.close)
            steps = compile_plan(plan, run, store, rows)
            runner = NodeRunner(
                plan, run, store, steps=steps, refresh=refresh_plan or refresh,
                budget=Budget(cpu_budget, memory_budget_gib), options=engine_options or EngineOptions(), states=states,
                display=shown, clusters=clusters, stop=stop, engine=chosen,
            )  # fmt: skip
            job = Job(plan.pipeline, run.id, steps, runner.attempt, runner.again, partial(read_tries, run))
            _drive(importlib.import_module(ENGINES[chosen]).drive, job, plan, runner, states, stop)
        _conclude(state, stop, run)
    if state.state == "failed":
        tell_failure(run, state)
    return RunSummary(run.id, state, chosen)


def _drive(
    drive: Callable[[Job], None],
    job: Job,
    plan: Plan,
    runner: "NodeRunner",
    states: StateWriter,
    stop: threading.Event,
) -> None:
    """Run the engine in a thread and wait for it, or for a stop; then book what never started."""
    trouble: list[str] = []

    def work() -> None:
        try:
            drive(job)
        except Exception as error:
            get_logger(__name__).debug("the engine failed", exc_info=True)
            trouble.append(f"the engine failed: {type(error).__name__}: {error}")

    thread = threading.Thread(target=work, name="engine", daemon=True)
    if not stop.is_set():  # one that is to stop before its first stage starts none
        thread.start()
    while thread.is_alive():
        thread.join(timeout=0.2)
        if stop.is_set() and all(node.state != "running" for node in states.state.nodes.values()):
            thread.join(timeout=5.0)  # the engine has only its own books left to close
            break
    for step in job.steps:
        node = states.state.nodes[step.node]
        if node.state in ("waiting", "running", "retrying"):
            needs = ", ".join(_not_there(plan, step.node, states.state))
            runner.skip(step.node, "; ".join(trouble) or (f"needs {needs}" if needs else "stopped before it began"))
    if trouble:
        states.state.reason = trouble[0]


def _not_there(plan: Plan, name: str, state: RunState) -> list[str]:
    """The inputs of a node that this run did not get."""
    sources = dict.fromkeys(plan.node(name).inputs.values())
    return [of for of in sources if of in state.nodes and state.nodes[of].state not in GOOD]


def _conclude(state: RunState, stop: threading.Event, run: "Run") -> None:
    state.ended = time.time()
    if all(node.state in GOOD for node in state.nodes.values()):
        state.state = "done"
    elif not stop.is_set():
        state.state = "failed"
    elif by := _suspended_by(run):
        state.state, state.reason = "suspended", f"{by} suspended it"
        for node in state.nodes.values():
            if node.state == "cancelled":
                node.state, node.reason = "waiting", "stopped: it goes on from what it saved" if node.started else ""
    else:
        state.state = "cancelled"


def _suspended_by(run: "Run") -> str:
    """Who wants a run that was stopped to go on later; "" where it was to end."""
    try:
        return "" if run.cancelled_by() else run.suspended_by()
    except (WfmError, OSError) as error:  # a store that does not answer now
        get_logger(__name__).warning("cannot look why run %s was stopped: %s", run.id, error)
        return ""


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set ``stop``; a second SIGINT does what it always did."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def request(number: int, _frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            os._exit(130)  # stages die with this process: their guards see the pipe close
        stop.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
