"""``wfm run``, ``rerun``, ``explain``: start runs. Looking at them is `look_at_runs.py`.

All of it reads ``runs/<id>/`` in the store, never an engine's database.
"""

from typing import TYPE_CHECKING, Annotated

import pydantic
import typer

from pipelines.commands import completion
from pipelines.commands.console import (
    LAST,
    STORE_DEFAULT,
    NameOption,
    PromoteOption,
    StoreOption,
    answers,
    notices,
    open_run,
    open_store,
    say,
    warn,
)
from pipelines.commands.json_output import JsonOption, say_json
from pipelines.commands.look_at_runs import logs, runs, status, where
from pipelines.commands.plan_display import show_plan
from pipelines.commands.request_options import (
    DatasetOption,
    PipelineArgument,
    ProfileOption,
    RunArgument,
    SetOption,
    StageArgument,
)
from pipelines.commands.submit import EngineOption, TeamOption, TemplateOption, submit_again
from pipelines.runs.display import duration, node_table
from pipelines.runs.state import GOOD, RunState
from wfm.errors import InputError

if TYPE_CHECKING:
    from pipelines.nodes import Plan
    from pipelines.request import Request
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run

_CPU = Annotated[float | None, typer.Option(help="Processors that stages may share (default: this machine's).")]
_MEMORY = Annotated[float | None, typer.Option(help="Memory that stages may share [GiB] (default: what is free).")]
_ENGINE = Annotated[
    str,
    typer.Option(
        envvar="WFM_ENGINE",
        autocompletion=completion.engines,
        help="Who starts the stages: prefect (history, `wfm ui`) or local (no package). Default: prefect if it is there.",
    ),
]
_QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="Do not echo what the stages print.")]
_DRY = Annotated[bool, typer.Option("--dry-run", help="Only show what would run, and why.")]
_PLAN_JSON = Annotated[bool, typer.Option("--json", help="With --dry-run: the plan as one JSON document, for scripts.")]
_LIMIT = Annotated[int, typer.Option(min=0, help="Only the first so many videos, in order of name; 0: all.")]
_RETRY = Annotated[
    bool,
    typer.Option("--retry-failed", help="Try again what failed or was poisoned before; what was refused stays so."),
]


def add_to(app: typer.Typer) -> None:
    """Put these commands into the command line."""
    for command in (run, runs, status, logs, rerun, explain):
        app.command()(command)
    app.command(hidden=True)(work)


def run(
    pipeline: PipelineArgument,
    profile: ProfileOption = "demo",
    videos: Annotated[
        str, typer.Option(metavar="DIR", help="Your own: folder, archive, file, glob, list or URL. Without: simulated.")
    ] = "",
    dataset: DatasetOption = "",
    name: NameOption = "",
    promote: PromoteOption = True,
    set_: SetOption = None,
    limit: _LIMIT = 0,
    retry_failed: _RETRY = False,
    run_id: Annotated[
        str,
        typer.Option(
            metavar="ID", help="Give the run this id (of a cron's tick, a workflow): asked twice, it is one run."
        ),
    ] = "",
    dry_run: _DRY = False,
    json: _PLAN_JSON = False,
    cpu: _CPU = None,
    memory: _MEMORY = None,
    engine: _ENGINE = "",
    scheduled_at: Annotated[str, typer.Option(hidden=True, help="The time of the schedule that it stands for.")] = "",
    team: TeamOption = "",
    quiet: _QUIET = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Run a pipeline: what is there already is not made again."""
    from pipelines.request import Request

    overrides = (*(set_ or ()), *((f"ingest_videos.limit={limit}",) if limit else ()))
    wanted = Request(
        pipeline, profile=profile, overrides=overrides, videos=videos, dataset=dataset, name=name, promote=promote
    )
    opened = open_store(store, new=True)
    if json:
        _tell_plan(wanted, opened, alone=dry_run and not retry_failed)
        return
    if retry_failed:
        _retry(wanted, opened, dry_run)
    _start(
        wanted, opened, dry_run=dry_run, cpu=cpu, memory=memory, engine=engine, quiet=quiet, run_id=run_id, team=team,
        scheduled_at=scheduled_at,
    )  # fmt: skip


def _tell_plan(wanted: "Request", store: "Store", alone: bool) -> None:
    from pipelines.commands.plan_display import planned

    if not alone:
        raise InputError(
            "--json tells a plan: give --dry-run with it, and no --retry-failed; `wfm status --json` tells of a run"
        )
    say_json(planned(wanted.plan(store), store))


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
    profile: ProfileOption = "demo",
    set_: SetOption = None,
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
    run_id: RunArgument = LAST,
    from_: Annotated[
        str, typer.Option("--from", metavar="STAGE", help="Make this stage again, and all that follows.")
    ] = "",
    name: NameOption = "",
    promote: Annotated[
        bool | None, typer.Option("--promote/--no-promote", help="Whether results get a name. Default: as before.")
    ] = None,
    dry_run: _DRY = False,
    submit: Annotated[
        bool | None,
        typer.Option(
            "--submit/--here",
            help="As a run that goes on by itself, or in this terminal. Default: as the run was begun.",
        ),
    ] = None,
    cpu: _CPU = None,
    memory: _MEMORY = None,
    engine: EngineOption = "",
    template: TemplateOption = "",
    json: JsonOption = False,
    quiet: _QUIET = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Ask for the same again, on any engine: only what is missing runs. With --from, a stage and what follows run anew."""
    from dataclasses import replace

    from pipelines.engines.remote import REMOTES
    from pipelines.request import Request
    from pipelines.verbs import look

    opened = open_store(store)
    before = open_run(opened, run_id, change=True)
    try:
        standing = look(before)
    except InputError as error:  # to run again is the way out: leases keep it from work that another does
        warn(str(error))
        standing = None
    if standing is not None and standing.word in ("running", "pending"):
        raise InputError(
            f"run {before.id} is still {standing.word} ({where(standing)}): `wfm cancel {before.id}` stops it"
        )
    wanted = Request.of_run(before)
    wanted = replace(wanted, name=name or wanted.name, promote=wanted.promote if promote is None else promote)
    if from_:
        wanted.plan(opened).node(from_)  # an unknown name must fail here, with the choices
        wanted = wanted.again(from_)
    submission = standing.submission if standing is not None else None
    was = submission.engine if submission is not None else ""
    engine = engine or was
    if submit is None:
        submit = json or engine in REMOTES or (submission is not None and submission.background)
    if submit and not dry_run:
        same = submission is not None and was == engine
        submit_again(
            wanted, opened, rerun_of=before.id, engine=engine,
            template=template or (submission.template if same and submission is not None else ""),
            team=submission.team if submission is not None else "", cpu=cpu, memory=memory, json=json,
        )  # fmt: skip
        return
    _start(
        wanted, opened, dry_run=dry_run, cpu=cpu, memory=memory, engine="" if dry_run else engine, quiet=quiet,
        rerun_of=before.id, team=submission.team if submission is not None else "",
    )  # fmt: skip


def take_up(run: "Run", store: "Store") -> None:
    """See a run that was submitted to this machine to its end. Raises InputError for another."""
    from pipelines.request import Request
    from pipelines.runs.submission import submission_of
    from pipelines.start_run import start

    submission = submission_of(run)
    if submission is None or not submission.here:
        raise InputError(f"run {run.id} is not one that this machine was asked for: `wfm submit` begins one")
    summary, plan = start(
        Request.of_run(run), store, run_id=run.id, engine=submission.engine, cpu=submission.cpu,
        memory_gib=submission.memory_gib, team=submission.team, rerun_of=submission.rerun_of,
    )  # fmt: skip
    _conclude(summary.state, plan, store)
    raise typer.Exit(summary.exit_code)


def work(run_id: RunArgument, store: StoreOption = STORE_DEFAULT) -> None:
    """See a submitted run to its end: what `wfm submit` starts in the background."""
    opened = open_store(store)
    take_up(open_run(opened, run_id, change=True), opened)


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
    run_id: str = "",
    team: str = "",
    scheduled_at: str = "",
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
        wanted,
        store,
        plan=plan,
        rerun_of=rerun_of,
        run_id=run_id,
        cpu=cpu,
        memory_gib=memory,
        engine=engine,
        quiet=quiet,
        team=team,
        scheduled_at=scheduled_at,
    )
    _conclude(summary.state, plan, store)
    raise typer.Exit(summary.exit_code)


def _conclude(state: RunState, plan: "Plan", store: "Store") -> None:
    """The end of a run, for people: stages, the result, the page, and what to do about what failed."""
    from components.promotion import promoted
    from pipelines.start_run import metrics_files, pull_page

    out = answers()
    for node in plan.nodes:
        node.done = state.nodes[node.name].state in GOOD
        node.key = state.nodes[node.name].key or node.key
    if any(node.state != "cached" for node in state.nodes.values()):
        title = f"run {state.run_id}: {state.state} in {duration(state.ended - state.started)}"
        out.print(node_table(state, {}, title=title))
    files = metrics_files(plan, store)
    if files and state.state == "done":
        from wfm.evaluation import read_metrics, result_table

        out.print(result_table([read_metrics(path) for path in files]))
    page = pull_page(plan, state.run_id, store) if state.state == "done" else None
    if state.state == "done":
        for node in plan.nodes:
            if node.promote:
                say(promoted(store, node.promote, node.key or ""))
        if any("left out" in node.note for node in state.nodes.values()):
            last = next(reversed(state.nodes.values()))
            say(f"what was left out, one by one: wfm artifacts skipped {last.key[:12]}")
    if page is not None:
        say(f"page: {page}")
    if state.reason:
        say(state.reason)
    for name, one in state.nodes.items():
        if one.state == "failed":
            say(f"{name} failed ({one.outcome}); its log:\n    wfm logs {state.run_id} {name}")
    if state.state == "suspended":
        say(f"run {state.run_id} is suspended; what was made stays. To go on: wfm resume {state.run_id}")
    elif state.state != "done":
        say(f"run {state.run_id} is {state.state}; what was made stays. To go on: wfm rerun {state.run_id}")


class Explanation(pydantic.BaseModel):
    """``wfm explain --json``."""

    run: str
    stage: str
    lines: list[str]


def explain(
    run_id: RunArgument, stage: StageArgument, json: JsonOption = False, store: StoreOption = STORE_DEFAULT
) -> None:
    """Say why a stage ran, or why not: which part of its key differs from the nearest earlier one."""
    from pipelines.explain import explain_node

    opened = open_store(store)
    found = open_run(opened, run_id)
    lines = explain_node(opened, found, stage)
    if json:
        say_json(Explanation(run=found.id, stage=stage, lines=lines))
        return
    for line in lines:
        say(line)
