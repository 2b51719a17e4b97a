"""``wfm run``, ``runs``, ``status``, ``logs``, ``rerun``, ``cancel``, ``explain``: start runs and look at them.

All of it reads ``runs/<id>/`` in the store, never an engine's database.
"""

import os
import signal
import socket
import time
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.commands.console import (
    LAST,
    STORE_DEFAULT,
    StoreOption,
    age,
    answers,
    notices,
    open_run,
    open_store,
    say,
    warn,
)
from pipelines.commands.plan_display import show_plan
from pipelines.runs.display import duration, node_table
from pipelines.runs.state import GOOD, RunState, read_state
from wfm.errors import InputError
from wfm.log import printable

if TYPE_CHECKING:
    from pipelines.nodes import Plan
    from pipelines.start_run import Request
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run

_RUN = Annotated[str, typer.Argument(metavar="[RUN]", help="Run id, the beginning of one, or `last`.")]
_STAGE = Annotated[str, typer.Argument(metavar="STAGE", help="A node of the run, as `wfm status` names it.")]
_CPU = Annotated[float | None, typer.Option(help="Processors that stages may share (default: this machine's).")]
_MEMORY = Annotated[float | None, typer.Option(help="Memory that stages may share [GiB] (default: what is free).")]
_ENGINE = Annotated[
    str,
    typer.Option(
        envvar="WFM_ENGINE",
        help="Who starts the stages: prefect (history, `wfm ui`) or local (no package). Default: prefect if it is there.",
    ),
]
_QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="Do not echo what the stages print.")]
_DRY = Annotated[bool, typer.Option("--dry-run", help="Only show what would run, and why.")]
_SET = Annotated[
    list[str] | None, typer.Option("--set", metavar="STAGE.FIELD=V", help="Change an option; may be repeated.")
]
_LIMIT = Annotated[int, typer.Option(min=0, help="Only the first so many videos, in order of name; 0: all.")]
_RETRY = Annotated[
    bool,
    typer.Option("--retry-failed", help="Try again what failed or was poisoned before; what was refused stays so."),
]
_PATIENCE_SECONDS = 60.0


def add_to(app: typer.Typer) -> None:
    """Put these commands into the command line."""
    for command in (run, runs, status, logs, rerun, cancel, explain):
        app.command()(command)


def run(
    pipeline: Annotated[
        str,
        typer.Argument(
            help="world_model (everything), curate (videos to a dataset) or decoder (of the main job's tokens)."
        ),
    ],
    profile: Annotated[str, typer.Option(help="Recipe: demo (minutes on a laptop), smoke (the smallest).")] = "demo",
    videos: Annotated[
        str, typer.Option(metavar="DIR", help="Your own: folder, archive, file, glob, list or URL. Without: simulated.")
    ] = "",
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help="Start from this dataset; with --videos: name the new one.")
    ] = "",
    set_: _SET = None,
    limit: _LIMIT = 0,
    retry_failed: _RETRY = False,
    dry_run: _DRY = False,
    cpu: _CPU = None,
    memory: _MEMORY = None,
    engine: _ENGINE = "",
    quiet: _QUIET = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Run a pipeline: what is there already is not made again."""
    from pipelines.start_run import Request

    overrides = (*(set_ or ()), *((f"ingest_videos.limit={limit}",) if limit else ()))
    wanted = Request(pipeline, profile=profile, overrides=overrides, videos=videos, dataset=dataset)
    opened = open_store(store)
    if retry_failed:
        _retry(wanted, opened, dry_run)
    _start(wanted, opened, dry_run=dry_run, cpu=cpu, memory=memory, engine=engine, quiet=quiet)


def _retry(wanted: "Request", store: "Store", dry_run: bool) -> None:
    from pipelines.retry_failed import failed_before, retry_failed

    counted = (failed_before if dry_run else retry_failed)(wanted.plan(store), store)
    what = ", ".join(f"{code}: {count}" for code, count in sorted(counted.items()))
    doing = "would try again (the stages that follow are shown as they stand)" if dry_run else "trying again"
    say(f"{doing} {what}" if counted else "nothing failed before that could be tried again")


def curate(
    context: typer.Context,
    videos: Annotated[
        str, typer.Option(metavar="DIR", help="Folder or URL of videos of any codec, size, rate, length.")
    ] = "",
    dataset: Annotated[str, typer.Option(metavar="NAME", help="Name of the new dataset.")] = "",
    profile: Annotated[str, typer.Option(help="Recipe.")] = "demo",
    set_: _SET = None,
    limit: _LIMIT = 0,
    retry_failed: _RETRY = False,
    dry_run: _DRY = False,
    engine: _ENGINE = "",
    quiet: _QUIET = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Make a dataset of your own videos: short for `wfm run curate --videos`. Its commands change or carry finished ones."""
    if context.invoked_subcommand is not None:
        return
    if not videos:
        raise InputError(
            "wfm curate needs --videos DIR (a folder, archive, file, glob, list or URL), or one of its commands (-h)"
        )
    run(
        "curate", profile=profile, videos=videos, dataset=dataset, set_=set_, limit=limit, retry_failed=retry_failed,
        dry_run=dry_run, engine=engine, quiet=quiet, store=store,
    )  # fmt: skip


def rerun(
    run_id: _RUN = LAST,
    from_: Annotated[
        str, typer.Option("--from", metavar="STAGE", help="Make this stage again, and all that follows.")
    ] = "",
    dry_run: _DRY = False,
    cpu: _CPU = None,
    memory: _MEMORY = None,
    engine: _ENGINE = "",
    quiet: _QUIET = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Ask for the same again: only what is missing runs. With --from, a stage and what follows run anew."""
    from pipelines.start_run import Request

    opened = open_store(store)
    before = open_run(opened, run_id)
    try:
        state = read_state(before)
    except InputError as error:  # to run again is the way out: leases keep it from work that another does
        warn(str(error))
        state = None
    if state is not None and state.seen() == "running":
        raise InputError(
            f"run {before.id} is still running (pid {state.pid} on {state.host}): `wfm cancel {before.id}` stops it"
        )
    wanted = Request.of_run(before)
    if from_:
        wanted.plan(opened).node(from_)  # an unknown name must fail here, with the choices
        wanted = wanted.again(from_)
    _start(wanted, opened, dry_run=dry_run, cpu=cpu, memory=memory, engine=engine, quiet=quiet, rerun_of=before.id)


def _start(
    wanted: "Request",
    store: "Store",
    *,
    dry_run: bool,
    cpu: float | None,
    memory: float | None,
    engine: str,
    quiet: bool,
    rerun_of: str = "",
) -> None:
    from pipelines.engines.budget import check_budget
    from pipelines.engines.engine import choose
    from pipelines.start_run import start

    check_budget(cpu, memory)
    choose(engine)
    plan = wanted.plan(store)
    if dry_run:
        show_plan(plan, store)
        return
    missing = len(plan.missing)
    what = f"{missing} of {len(plan.nodes)} stages to run" if missing else "nothing to run, everything is there"
    notices().print(f"{plan.pipeline} ({plan.profile}) in {store.url}: {what}")
    for note in plan.notes:
        notices().print(note)
    summary, plan = start(
        wanted, store, plan=plan, rerun_of=rerun_of, cpu=cpu, memory_gib=memory, engine=engine, quiet=quiet
    )
    _conclude(summary.state, plan, store)
    raise typer.Exit(summary.exit_code)


def _conclude(state: RunState, plan: "Plan", store: "Store") -> None:
    """The end of a run, for people: stages, the result, the page, and what to do about what failed."""
    from pipelines.start_run import metrics_files, pull_page

    out = answers()
    for node in plan.nodes:
        node.done = state.nodes[node.name].state in GOOD
        node.key = state.nodes[node.name].key or node.key
    if any(node.state != "cached" for node in state.nodes.values()):
        out.print(
            node_table(state, {}, title=f"run {state.run_id}: {state.state} in {duration(state.ended - state.started)}")
        )
    files = metrics_files(plan, store)
    if files and state.state == "done":
        from wfm.evaluation import read_metrics, result_table

        out.print(result_table([read_metrics(path) for path in files]))
    page = pull_page(plan, state.run_id, store) if state.state == "done" else None
    if state.state == "done":
        for node in plan.nodes:
            if node.promote:
                say(f"{node.promote}@latest  {(node.key or '')[:12]}")
        if any("left out" in node.note for node in state.nodes.values()):
            last = next(reversed(state.nodes.values()))
            say(f"what was left out, one by one: wfm artifacts skipped {last.key[:12]}")
    if page is not None:
        say(f"page: {page}")
    if state.reason:
        say(state.reason)
    for name, one in state.nodes.items():
        if one.state == "failed":
            say(f"{name} failed ({one.outcome}): {one.reason}\n    its log: wfm logs {state.run_id} {name}")
    if state.state != "done":
        say(f"run {state.run_id} is {state.state}; what was made stays. To go on: wfm rerun {state.run_id}")


def runs(
    limit: Annotated[int, typer.Option(help="How many, newest first.")] = 20,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """List the runs of a store, newest first."""
    from rich.table import Table

    opened = open_store(store)
    table = Table(box=None)
    for heading in ("run", "pipeline", "profile", "state", "started", "took", "made", "there", "failed"):
        table.add_column(heading, no_wrap=True)
    found = opened.runs.list(limit=limit)
    problems = []
    for each in found:
        try:
            state = read_state(each)
            if state is None:
                spec = each.spec()
                table.add_row(each.id, str(spec.get("pipeline", "")), str(spec.get("profile", "")), "never began")
                continue
        except InputError as error:  # one run's file must not hide the others
            table.add_row(each.id, "", "", "cannot be read")
            problems.append(str(error))
            continue
        counts = [sum(node.state == wanted for node in state.nodes.values()) for wanted in ("done", "cached", "failed")]
        took = duration((state.ended or state.updated) - state.started)
        table.add_row(each.id, state.pipeline, state.profile, state.seen(), age(state.started), took, *map(str, counts))
    if found:
        answers().print(table)
    else:
        say(f"{opened.url} has no runs yet: `wfm run world_model` makes one")
    for problem in problems:
        warn(problem)


def status(run_id: _RUN = LAST, store: StoreOption = STORE_DEFAULT) -> None:
    """Show where a run stands, also one whose process was killed."""
    opened = open_store(store)
    found = open_run(opened, run_id)
    try:
        state = read_state(found)
    except InputError as error:
        warn(str(error))
        _tell_attempts(found)
        return
    if state is None:
        say(f"run {found.id} was written down and never began: wfm rerun {found.id}")
        return
    seen = state.seen()
    if seen == "dead":
        for node in state.nodes.values():
            if node.state in ("running", "retrying", "waiting"):
                node.state, node.ended = ("cancelled" if node.started else "not_run"), node.started and state.updated
                node.reason = "its run died"
    took = duration((state.ended or (state.updated if seen == "dead" else time.time())) - state.started)
    title = f"run {state.run_id}: {state.pipeline} ({state.profile}) is {seen}, {took} since {age(state.started)}"
    answers().print(node_table(state, {}, title=title))
    if state.reason:
        say(state.reason)
    if seen == "dead":
        last = age(state.updated)
        say(
            f"its process (pid {state.pid} on {state.host}) is gone; its last word was at {last}. wfm rerun {state.run_id}"
        )
    for name, node in state.nodes.items():
        if node.state == "failed":
            say(f"{name} failed ({node.outcome}): {node.reason}\n    its log: wfm logs {state.run_id} {name}")


def _tell_attempts(found: "Run") -> None:
    """What is known of a run without its state: the attempts at each stage."""
    say(f"run {found.id}: its state cannot be read; what its stages wrote:")
    for node in found.nodes():
        for number in found.attempts(node):
            try:
                outcome = found.read_outcome(node, number)
                ended = str(outcome.get("outcome", "")) if outcome else "no outcome: it runs, or was killed"
            except InputError as error:
                ended = str(error)
            say(f"    {node}, try {number}: {ended}")


def logs(
    run_id: _RUN,
    stage: _STAGE,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the stage writes, until it ends.")] = False,
    attempt: Annotated[int | None, typer.Option(help="Which try (default: the last).")] = None,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Print what a stage wrote."""
    found = open_run(open_store(store), run_id)
    state = read_state(found)
    if state is not None and stage not in state.nodes:
        raise InputError(f"run {found.id} has no stage {stage!r}. Choices: {', '.join(state.nodes)}")
    if not found.attempts(stage) and not follow:
        one = state.nodes[stage] if state is not None else None
        why = f"it was {one.state}" if one is not None else "it never began"
        raise InputError(f"stage {stage} of run {found.id} has no log: {why} ({one.reason or one.why if one else ''})")
    _print_log(found, stage, attempt, follow)


def _print_log(found: "Run", stage: str, attempt: int | None, follow: bool) -> None:
    shown, number = 0, attempt
    while True:
        state = read_state(found)
        tries = found.attempts(stage)
        if attempt is None and tries and tries[-1] != number:
            number, shown = tries[-1], 0
        text = found.read_log(stage, number) if number is not None and tries else ""
        if len(text) > shown:
            print(printable(text[shown:]), end="", flush=True)
            shown = len(text)
        over = (
            state is None
            or state.seen() != "running"
            or state.nodes[stage].ended > 0
            or state.nodes[stage].state in GOOD
        )
        if not follow or over:
            return
        time.sleep(0.5)


def cancel(run_id: _RUN = LAST, store: StoreOption = STORE_DEFAULT) -> None:
    """Stop a run in order: its stages save what they have; `wfm rerun` goes on from there."""
    found = open_run(open_store(store), run_id)
    state = read_state(found)
    if state is None or state.seen() != "running":
        raise InputError(f"run {found.id} is not running: it is {state.seen() if state else 'not begun'}")
    found.request_cancel()
    if state.host == socket.gethostname():
        os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        state = read_state(found)
        if state is None or state.seen() != "running":
            break
        time.sleep(0.3)
    seen = state.seen() if state else "gone"
    say(f"run {found.id} is {seen}" + ("; it was asked to stop and is still at it" if seen == "running" else ""))


def explain(run_id: _RUN, stage: _STAGE, store: StoreOption = STORE_DEFAULT) -> None:
    """Say why a stage ran, or why not: which part of its key differs from the nearest earlier one."""
    from pipelines.explain import explain_node

    opened = open_store(store)
    for line in explain_node(opened, open_run(opened, run_id), stage):
        say(line)
