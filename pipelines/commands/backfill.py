"""``wfm backfill``: a pipeline for each time, or each shard, that has no finished run yet."""

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import pydantic
import typer

from pipelines.commands.console import (
    STORE_DEFAULT,
    NameOption,
    PromoteOption,
    StoreOption,
    notices,
    open_store,
    say,
    show_table,
    table,
    warn,
)
from pipelines.commands.json_output import JsonOption, say_json
from pipelines.commands.request_options import PipelineArgument, ProfileOption, SetOption
from pipelines.commands.submit import EngineOption, TeamOption, TemplateOption
from wfm.errors import InputError

if TYPE_CHECKING:
    from pipelines.backfill import Found
    from pipelines.request import Request
    from pipelines.ticks import Point


def add_to(app: typer.Typer) -> None:
    """Put this command into the command line."""
    app.command()(backfill)


class BackfillPoint(pydantic.BaseModel):
    """One time or shard."""

    point: str
    run: str
    "Id of its last try, or that the first will have."
    state: str
    "As in `wfm status`, or `missing`."
    action: str
    "start | go on (its process is gone) | try again | wait (it is at work) | skip (done) | leave (cancelled, suspended, lost)"
    tries: int
    reason: str


class BackfillTable(pydantic.BaseModel):
    """``wfm backfill --json``: oldest first."""

    pipeline: str
    profile: str
    at_most: int
    points: list[BackfillPoint]


def backfill(
    pipeline: PipelineArgument,
    from_: Annotated[str, typer.Option("--from", metavar="TIME", help="First day (2026-11-01) or time.")] = "",
    to: Annotated[
        str, typer.Option("--to", metavar="TIME", help="Last day, whole; or the time before which. Default: now.")
    ] = "",
    every: Annotated[str, typer.Option(metavar="CRON", help="A run for each time of this line: '0 3 * * *'.")] = "",
    zone: Annotated[str, typer.Option(metavar="ZONE", help="Of IANA, for --from, --to and --every.")] = "UTC",
    shards: Annotated[str, typer.Option(metavar="N|A,B,C", help="A run for each shard instead.")] = "",
    at_most: Annotated[int, typer.Option(min=1, help="Runs at once.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what is there and what would be done.")] = False,
    retry_lost: Annotated[
        bool, typer.Option("--retry-lost", help="Try again, too, what the cluster's engine does not have any more.")
    ] = False,
    profile: ProfileOption = "demo",
    videos: Annotated[
        str, typer.Option(metavar="DIR", help="May hold {date:%Y-%m-%d} or {shard}: s3://b/{date:%Y/%m/%d}/.")
    ] = "",
    dataset: Annotated[str, typer.Option(metavar="NAME", help="Likewise.")] = "",
    set_: SetOption = None,
    name: NameOption = "",
    promote: PromoteOption = True,
    engine: EngineOption = "",
    template: TemplateOption = "",
    team: TeamOption = "",
    json: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Fill the gaps: a run for each time or shard without a finished one, oldest first, a few at once.

    Started again after it was killed it goes on. What is done is skipped, what failed is tried once more, what somebody
    cancelled or suspended is left alone, and so is what its engine on a cluster lost, without --retry-lost.
    """
    from pipelines.backfill import go_on, survey
    from pipelines.engines.prefect_server import stopped_by_signals
    from pipelines.request import Request
    from pipelines.runs.untold import tell_untold
    from pipelines.ticks import has_places
    from pipelines.verbs import check_engine, failed_there

    wanted = Request(
        pipeline,
        profile=profile,
        overrides=tuple(set_ or ()),
        videos=videos,
        dataset=dataset,
        name=name,
        promote=promote,
    )
    points = _points(wanted, from_, to, every, zone, shards)
    opened = open_store(store, new=True)
    if not has_places(wanted):
        warn("no option has a {date} or {shard} in it: each run asks for the same, and the first makes it")
    if dry_run:
        _show(wanted, survey(opened, points, retry_lost=retry_lost), at_most, json)
        return
    check_engine(engine, template)
    ended = [opened.runs.of(one.run_id) for one in survey(opened, points) if one.state in ("dead", "failed")]
    tell_untold(ended, elsewhere=failed_there)
    stop = threading.Event()
    with stopped_by_signals(stop):
        table = go_on(
            opened, points, at_most=at_most, stop=stop, tell=_tell, retry_lost=retry_lost, engine=engine,
            template=template, team=team,
        )  # fmt: skip
    _show(wanted, table, at_most, json)
    left = [found for found in table if found.state != "done"]
    if lost := sum(found.action == "leave" and found.lost for found in table):
        warn(
            f"{lost} lost by the engine: `wfm status RUN` says why; --retry-lost tries them again, once you know it is so"
        )
    if stop.is_set():
        notices().print("stopped; runs that were begun go on, and this command started again goes on with the others")
    raise typer.Exit(1 if left else 0)


def _points(wanted: "Request", from_: str, to: str, every: str, zone: str, shards: str) -> "list[Point]":
    from pipelines.ticks import at_time, begin_of, of_shard, shards_of, times

    if shards:
        if from_ or to or every:
            raise InputError("--shards stands for itself: leave out --from, --to and --every")
        return [of_shard(wanted, shard) for shard in shards_of(shards)]
    if not from_ or not every:
        raise InputError("give --from DAY and --every '0 3 * * *' for a run a time, or --shards N for a run a shard")
    now = datetime.now(UTC)
    begin = begin_of(from_, "--from", zone)
    end = begin_of(to, "--to", zone, end=True) if to else now
    if begin >= end:
        raise InputError(f"--from {from_} is not before --to {to or 'now'}")
    found = times(every, begin, min(end, now), zone)
    if not found:
        raise InputError(f"--every {every!r} has no time from {from_} to {to or 'now'} that is past")
    return [at_time(wanted, when) for when in found]


def _tell(found: "Found", what: str) -> None:
    reason = f": {found.reason}" if found.reason else ""
    notices().print(f"{found.point.name}  {what}  run {found.run_id}{reason}", soft_wrap=True)


def _show(wanted: "Request", surveyed: "list[Found]", at_most: int, json: bool) -> None:
    rows = [
        BackfillPoint(
            point=found.point.name, run=found.run_id, state=found.state, action=found.action, tries=found.tries,
            reason=found.reason,
        )
        for found in surveyed
    ]  # fmt: skip
    if json:
        say_json(BackfillTable(pipeline=wanted.pipeline, profile=wanted.profile, at_most=at_most, points=rows))
        return
    shown = table("for", "state", "to do", "run", prose="")
    for row in rows:
        shown.row(row.point, row.state, row.action, row.run, row.reason)
    show_table(shown)
    counted = {of: sum(row.state == of for row in rows) for of in dict.fromkeys(row.state for row in rows)}
    say(", ".join(f"{count} {of}" for of, count in counted.items()))
