"""The embedded engine: Prefect runs a plan's missing nodes on this machine, no cluster and no server to set up.

Prefect decides what may start (a node after its inputs, a failed node stops its own branch only), tries again, and keeps
the history that its UI shows. What a try is, and whether another may help, is `run_node.py`; the truth about the run is
`runs/<id>/` in the store. The flow runs in a thread, the main thread listens for signals.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from pipelines.engines.budget import Budget, workers
from pipelines.engines.dask_cluster import Cluster
from pipelines.engines.prefect_server import import_prefect, server_for_run
from pipelines.engines.run_node import EngineOptions, NodeFailed, NodeRunner, promote
from pipelines.plan import Plan, refresh
from pipelines.runs.display import PlainDisplay
from pipelines.runs.metrics import VARIABLE, metrics
from pipelines.runs.state import GOOD, NodeState, RunState, StateWriter
from pipelines.stages import STAGES, StageRow
from wfm.errors import Cancelled, InputError, TryAgain
from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run

DisplayFactory = Callable[[RunState], Any]
"""Makes the context manager that shows a run (`runs/display.py`)."""


@dataclass(frozen=True)
class RunSummary:
    """How a run ended."""

    run_id: str
    state: RunState
    engine_started: bool

    @property
    def exit_code(self) -> int:
        """0 all there, 143 cancelled, else what the failed nodes say: a bug (1) before wrong input (64) before 75."""
        if self.state.state == "cancelled":
            return Cancelled.exit_code
        outcomes = {node.outcome for node in self.state.nodes.values() if node.state == "failed"}
        if self.state.state == "done":
            return 0
        if outcomes == {"wrong_input"}:
            return InputError.exit_code
        return TryAgain.exit_code if outcomes and outcomes <= {"try_again", "wrong_input"} else 1


def run_plan(
    plan: Plan,
    run: "Run",
    store: "Store",
    *,
    cpu_budget: float,
    memory_budget_gib: float,
    engine_options: EngineOptions | None = None,
    rows: Mapping[str, StageRow] = STAGES,
    refresh_plan: Callable[[Plan, "Store"], None] = refresh,
    display: DisplayFactory = PlainDisplay,
) -> RunSummary:
    """Make every artifact of ``plan`` that is missing; no engine is started when none is.

    A stage that asks for more than the budget runs alone. SIGINT and SIGTERM stop the stages in order; what they have
    committed stays. Never raises for a stage that fails: the summary tells.
    """
    options = engine_options or EngineOptions()
    state = RunState(run_id=run.id, pipeline=plan.pipeline, profile=plan.profile)
    for node in plan.nodes:
        state.nodes[node.name] = NodeState(
            stage=node.stage, state="cached" if node.done else "waiting", key=node.key or ""
        )
        state.nodes[node.name].why = node.why
    missing = [node.name for node in plan.nodes if not node.done]
    for node in plan.nodes:
        if node.done:
            promote(store, node)
    stop = threading.Event()
    with ExitStack() as stack:
        stack.enter_context(_signals(stop))
        stack.enter_context(metrics(state, store, os.environ.get(VARIABLE, "")))
        states = stack.enter_context(StateWriter(run, state, stop.set))
        if missing:
            shown = stack.enter_context(display(state))
            cluster = Cluster(workers(cpu_budget, memory_budget_gib), memory_budget_gib)
            stack.callback(cluster.close)
            runner = NodeRunner(
                plan, run, store, rows=rows, refresh=refresh_plan, budget=Budget(cpu_budget, memory_budget_gib),
                options=options, states=states, display=shown, cluster=cluster, stop=stop,
            )  # fmt: skip
            _drive(plan, missing, runner, states, rows, stop)
        _conclude(state, stop)
    return RunSummary(run.id, state, engine_started=bool(missing))


def _drive(
    plan: Plan,
    missing: list[str],
    runner: NodeRunner,
    states: StateWriter,
    rows: Mapping[str, StageRow],
    stop: threading.Event,
) -> None:
    """Run the flow in a thread and wait for it, or for a stop; then book what never started."""
    trouble: list[str] = []

    def work() -> None:
        try:
            server_for_run()
            _flow(plan, missing, runner, rows)
        except Exception as error:
            get_logger(__name__).debug("the engine failed", exc_info=True)
            trouble.append(f"the engine failed: {type(error).__name__}: {error}")

    thread = threading.Thread(target=work, name="flow", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(timeout=0.2)
        if stop.is_set() and all(node.state != "running" for node in states.state.nodes.values()):
            thread.join(timeout=5.0)  # the flow has only its own books left to close
            break
    for name in missing:
        node = states.state.nodes[name]
        if node.state in ("waiting", "running", "retrying"):
            runner.skip(name, "; ".join(trouble) or f"needs {', '.join(_not_there(plan, name, states.state))}")
    if trouble:
        states.state.reason = trouble[0]


def _not_there(plan: Plan, name: str, state: RunState) -> list[str]:
    """The inputs of a node that this run did not get."""
    sources = dict.fromkeys(plan.node(name).inputs.values())
    return [of for of in sources if of in state.nodes and state.nodes[of].state not in GOOD]


def _flow(plan: Plan, missing: list[str], runner: NodeRunner, rows: Mapping[str, StageRow]) -> None:
    """One Prefect task a missing node; returns when none can run any more."""
    import_prefect()
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE
    from prefect.futures import PrefectFuture
    from prefect.task_runners import ThreadPoolTaskRunner

    attempts: dict[str, int] = {}

    def attempt(node: str) -> None:
        attempts[node] = attempts.get(node, 0) + 1
        runner.attempt(node)

    def retry(_task: Any, _run: Any, state: Any) -> bool:
        error = state.data
        if not isinstance(error, NodeFailed):
            return False
        return error.may_retry(attempts[error.node], rows[plan.node(error.node).stage].retries)

    threads: Any = ThreadPoolTaskRunner(max_workers=len(missing) + 1)  # waiting for the budget blocks a thread

    @flow(
        name=plan.pipeline,
        flow_run_name=runner.run_id,
        task_runner=threads,
        validate_parameters=False,
    )
    def pipeline() -> list[Any]:
        futures: dict[str, PrefectFuture[Any]] = {}
        for name in missing:
            node = plan.node(name)
            step = task(
                name=name,
                task_run_name=name,
                tags={node.stage},
                retries=rows[node.stage].retries,
                retry_delay_seconds=0,  # the wait is in the attempt, where a cancel can cut it short
                retry_condition_fn=retry,
                cache_policy=NO_CACHE,
                persist_result=False,
            )(attempt)
            before = [futures[of] for of in node.inputs.values() if of in futures]
            futures[name] = step.submit(node=name, wait_for=before, return_state=False)
        for future in futures.values():
            future.wait()
        return [future.state for future in futures.values()]

    pipeline(return_state=True)


def _conclude(state: RunState, stop: threading.Event) -> None:
    state.ended = time.time()
    if all(node.state in GOOD for node in state.nodes.values()):
        state.state = "done"
    elif stop.is_set():
        state.state = "cancelled"
    else:
        state.state = "failed"


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
