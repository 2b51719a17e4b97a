"""From a request to a finished run: plan it, write it down, hand it to the engine, say what came out."""

import dataclasses
import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.engines.budget import check_budget, check_devices, check_ranks, machine
from pipelines.engines.engine import DisplayFactory, RunSummary, choose, run_plan
from pipelines.estimate import share_made
from pipelines.nodes import Node, Plan, code_of, config_class, modules_of
from pipelines.request import Request
from pipelines.runs.display import LiveDisplay, PlainDisplay
from pipelines.runs.state import NodeState, RunState, read_state
from pipelines.runs.submission import asked_now, create_submission, team_of
from pipelines.runs.webhook import webhook
from wfm.artifacts.lease import LeaseHeld
from wfm.errors import InputError, TryAgain, WfmError

if TYPE_CHECKING:
    from pipelines.engines.run_node import EngineOptions
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run

_RUNS_LOOKED_AT = 10
RUN_SPEC_VERSION = 1
_ASKED = ("pipeline", "profile", "request")
"""What two that ask for a run of one id must agree in; what is there already, and why, changes while it goes on."""


def create_run(
    request: Request, plan: Plan, store: "Store", rerun_of: str = "", run_id: str = "", team: str = ""
) -> "Run":
    """Write down what will be done and from what each key was made (`wfm explain` compares that).

    A `run_id` that is there already is that run, and goes on. Raises InputError when something else was asked of it, or it was
    cancelled; TryAgain when another process of an engine works on it.
    """
    run = store.runs.create(
        {
            "run_spec_version": RUN_SPEC_VERSION,
            "pipeline": plan.pipeline,
            "profile": plan.profile,
            "request": dataclasses.asdict(request),
            "rerun_of": rerun_of,
            "team": team_of(team),
            "given": plan.given,
            "page": plan.page,
            "nodes": [_written(node.name, plan) for node in plan.nodes],
            "modules": {node.name: _short_hashes(node) for node in plan.nodes},
        },
        run_id,
        same=_ASKED,
    )
    by, state = (run.cancelled_by(), read_state(run)) if run_id else ("", None)
    if by:
        raise InputError(
            f"run {run.id} was cancelled ({by} asked for it) and stays so: `wfm rerun {run.id}` begins another"
        )
    if state is not None and state.seen() == "running":
        raise TryAgain(f"run {run.id} is at work already (pid {state.pid} on {state.host})")
    return run


def _short_hashes(node: Node) -> dict[str, str]:
    """16 digits tell versions of a module apart, and are not taken for an artifact's key by garbage collection."""
    return {module: found[:16] for module, found in modules_of(node).items()}


def _written(name: str, plan: Plan) -> dict[str, Any]:
    node = plan.node(name)
    return {
        "name": node.name,
        "stage": node.stage,
        "component": node.component,
        "key": node.key,
        "code_id": code_of(node),
        "what": config_class(node.component).parse(node.config).what(),
        "config": node.config,
        "sources": node.inputs,
        "inputs": plan.input_keys(node),
        "resources": node.resources.resolved(),
        "redo": node.redo,
        "promote": node.promote,
        "done": node.done,
        "why": node.why,
    }


def start(
    request: Request,
    store: "Store",
    *,
    plan: Plan | None = None,
    rerun_of: str = "",
    run_id: str = "",
    cpu: float | None = None,
    memory_gib: float | None = None,
    quiet: bool = False,
    engine: str = "",
    team: str = "",
    scheduled_at: str = "",
    options: "EngineOptions | None" = None,
) -> tuple[RunSummary, Plan]:
    """Run a request to its end. ``cpu`` and ``memory_gib`` bound what runs side by side; this machine's by default."""
    chosen = choose(engine)
    plan = plan or request.plan(store)
    check_here(plan, cpu, memory_gib)
    here_cpu, here_memory = machine()
    run = create_run(request, plan, store, rerun_of, run_id, team)
    if run_id and (by := run.suspended_by()):
        raise InputError(f"run {run.id} is suspended ({by} asked for it): `wfm resume {run.id}` lets it go on")
    submission = asked_now(
        run, chosen, dataclasses.asdict(request), team=team_of(team), scheduled_at=scheduled_at, rerun_of=rerun_of, cpu=cpu,
        memory_gib=memory_gib,
    )  # fmt: skip
    create_submission(run, submission)
    with for_itself(run, store) if run_id else nullcontext():
        summary = run_plan(
            plan, run, store, engine=engine, cpu_budget=cpu or here_cpu, memory_budget_gib=memory_gib or here_memory,
            engine_options=options, display=display_for(store, plan, quiet),
        )  # fmt: skip
    return summary, plan


def check_here(plan: Plan, cpu: float | None, memory_gib: float | None) -> None:
    """Raises InputError where this machine, or what of it may be used, cannot run what is missing, or whoever is to hear of a
    failure cannot be told."""
    webhook()
    check_budget(cpu, memory_gib)
    check_devices(plan.missing)
    here_cpu, here_memory = machine()
    check_ranks(plan.missing, cpu or here_cpu, memory_gib or here_memory)


@contextmanager
def for_itself(run: "Run", store: "Store") -> Iterator[None]:
    """Inside, no other process works on this run: of two that ask for one id at the same moment, both find no state yet.
    Raises TryAgain where another does."""
    lease = store.lease(hashlib.sha256(f"run {run.id}".encode()).hexdigest())
    try:
        lease.acquire(leave=True)
    except LeaseHeld as error:
        raise TryAgain(f"run {run.id} is at work already: {error}") from None
    with lease:
        yield


def display_for(store: "Store", plan: Plan, quiet: bool) -> DisplayFactory:
    """A live table on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        return lambda state: PlainDisplay(state, quiet)
    usual = usual_seconds(store, plan.pipeline, plan.profile)
    return lambda state: LiveDisplay(state, usual, quiet)


def usual_seconds(store: "Store", pipeline: str, profile: str) -> dict[str, float]:
    """How long each node takes from the start, by the last time it was made in this pipeline and profile [s]: what earlier
    tries or runs had done of it counts as work, never as speed."""
    found: dict[str, float] = {}
    for run in store.runs.list(limit=_RUNS_LOOKED_AT):
        state = _state(run)
        if state is not None and (state.pipeline, state.profile) == (pipeline, profile):
            for name, node in state.nodes.items():
                if node.state == "done" and name not in found:
                    found[name] = _from_the_start(store, node)
    return found


def _from_the_start(store: "Store", node: NodeState) -> float:
    """What the node would take with nothing done before [s]."""
    with suppress(WfmError):
        manifest = store.artifact(node.key).manifest
        share, timings = share_made(manifest.extra), manifest.timings
        if 0 < share < 1 and {"started", "finished"} <= set(timings):
            return (timings["finished"] - timings["started"]) / share
    return node.seconds()


def _state(run: "Run") -> RunState | None:
    with suppress(WfmError, ValueError):
        return read_state(run)
    return None


def pull_page(plan: Plan, run_id: str, store: "Store") -> Path | None:
    """Put the page of a run at ``runs/<id>/report/index.html`` (a remote store: in the local cache); None without one."""
    if not plan.page or not plan.node(plan.page).done:
        return None
    artifact = store.artifact(plan.node(plan.page).key or "")
    base = store.objects.local_path(f"runs/{run_id}") or store.cache / "runs" / run_id
    names = [file.path for file in artifact.files()]
    prefix = "report/" if "report/index.html" in names else ""
    if f"{prefix}index.html" not in names:
        return None
    into = base if prefix else base / "report"
    artifact.fetch_tree(prefix, into)
    return into / prefix / "index.html"


def metrics_files(plan: Plan, store: "Store") -> list[Path]:
    """``metrics.json`` of every evaluation of the plan that is there."""
    done = [node for node in plan.nodes if node.stage == "evaluate_model" and node.done and node.key]
    return [store.artifact(node.key or "").fetch("metrics.json") for node in done]
