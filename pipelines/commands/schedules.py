"""``wfm schedule``: runs by the clock. ``wfm schedule PIPELINE --cron LINE`` serves one on this machine; its commands list what
starts by the clock on any engine, which times were missed, and pause what an engine on a cluster starts."""

from typing import TYPE_CHECKING, Annotated, Any

import pydantic
import typer

from pipelines.commands.console import (
    STORE_DEFAULT,
    NameOption,
    PromoteOption,
    StoreOption,
    open_store,
    say,
    show_table,
    table,
    warn,
)
from pipelines.commands.group import Group
from pipelines.commands.json_output import JsonOption, say_json
from pipelines.commands.request_options import DatasetOption, PipelineArgument, ProfileOption, SetOption
from wfm.errors import WfmError

if TYPE_CHECKING:
    from pipelines.schedules import Clock

_SERVE = "serve"
_CLUSTER = Annotated[str, typer.Option("--engine", envvar="WFM_ENGINE", help="argo or kubeflow.")]


class _PipelineFirst(Group):
    """A word that is none of its commands is the pipeline of `serve`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = [_SERVE, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_PipelineFirst,
    no_args_is_help=True,
    help="Runs by the clock: `wfm schedule PIPELINE --cron '0 3 * * *'` serves one on this machine.",
)


class ScheduleLine(pydantic.BaseModel):
    """One that starts by the clock."""

    name: str
    engine: str
    lines: list[str]
    zone: str
    state: str
    "served | not served | active | paused"
    last: str
    next: str
    missed: list[str]
    fill: str
    "The command that fills what was missed."
    words: str


class ScheduleList(pydantic.BaseModel):
    """``wfm schedule list --json``."""

    schedules: list[ScheduleLine]
    trouble: list[str]
    "Engines that could not be asked, and why."


@app.command(_SERVE)
def serve(
    pipeline: PipelineArgument,
    cron: Annotated[str, typer.Option("--cron", help="When (UTC): five fields, such as '0 3 * * *'.")],
    profile: ProfileOption = "demo",
    videos: Annotated[
        str,
        typer.Option(
            metavar="DIR", help="Folder or URL of videos; new files make a new dataset. May hold {date:%Y-%m-%d}."
        ),
    ] = "",
    dataset: DatasetOption = "",
    name: NameOption = "",
    promote: PromoteOption = True,
    set_: SetOption = None,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Run a pipeline whenever the clock says so, for as long as this command runs. `serve` may be left out."""
    from pipelines.engines.schedule import serve as serve_it
    from pipelines.request import Request

    wanted = Request(
        pipeline, profile=profile, videos=videos, dataset=dataset, overrides=tuple(set_ or ()), name=name, promote=promote
    )  # fmt: skip
    serve_it(wanted, cron, open_store(store, new=True))


@app.command("list")
def list_(
    engine: Annotated[
        list[str] | None,
        typer.Option("--engine", help="Also what an engine on a cluster starts: argo, kubeflow; may be repeated."),
    ] = None,
    json: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Show what starts by the clock, when next, and which times passed without a run (of a cluster: in this store)."""
    from pipelines.schedules import here, there

    found, trouble = here(), []
    for name in engine or ():
        try:
            found += there(name, open_store(store))
        except WfmError as error:
            trouble.append(f"{name} could not be asked: {error}")
    if json:
        say_json(ScheduleList(schedules=[ScheduleLine(**_fields(one)) for one in found], trouble=trouble))
        return
    if found:
        _show(found)
    elif not trouble:
        say("nothing starts by the clock here: wfm schedule PIPELINE --cron '0 3 * * *'")
    for problem in trouble:
        warn(problem)


def _fields(clock: "Clock") -> dict[str, Any]:
    return {**vars(clock), "lines": list(clock.lines)}


def _show(found: "list[Clock]") -> None:
    listed = table("schedule", "engine", "state", "at", "last", "next", "missed")
    for one in found:
        at = f"{' | '.join(one.lines)} {one.zone}"
        listed.row(one.name, one.engine, one.state, at, one.last, one.next, str(len(one.missed) or ""))
    show_table(listed)
    for one in found:
        if one.words:
            say(f"{one.name}: {one.words}")
        if one.missed:
            span = (
                one.missed[0]
                if len(one.missed) == 1
                else f"{len(one.missed)} times, {one.missed[0]} to {one.missed[-1]}"
            )
            say(
                f"{one.name} missed {span}"
                + (f"; to fill: {one.fill}" if one.fill else "; to fill: wfm backfill --every")
            )


@app.command()
def pause(name: Annotated[str, typer.Argument(help="As `wfm schedule list` names it.")], engine: _CLUSTER = "") -> None:
    """Let an engine on a cluster start no more by this schedule."""
    from pipelines.schedules import pause as ask

    say(ask(engine, name, paused=True))


@app.command()
def resume(
    name: Annotated[str, typer.Argument(help="As `wfm schedule list` names it.")], engine: _CLUSTER = ""
) -> None:
    """Take that back. Times that passed meanwhile are not made up for: `wfm backfill` fills them."""
    from pipelines.schedules import pause as ask

    say(ask(engine, name, paused=False))


@app.command()
def forget(name: Annotated[str, typer.Argument(help="As `wfm schedule list` names it.")]) -> None:
    """Keep a schedule of this machine no longer in the list."""
    from pipelines.engines.schedule_book import forget as forget_it

    forget_it(name)
    say(f"{name} is forgotten; its runs stay")
