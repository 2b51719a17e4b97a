"""``wfm cost`` and ``wfm events``: what runs have cost, and what happened to one."""

import re
import time
from datetime import UTC, datetime
from typing import Annotated

import pydantic
import typer

from pipelines.commands.console import (
    LAST,
    STORE_DEFAULT,
    StoreOption,
    age,
    open_run,
    open_store,
    say,
    show_table,
    table,
    warn,
)
from pipelines.commands.json_output import JsonOption, say_json
from pipelines.commands.request_options import RunArgument
from pipelines.commands.run_answers import iso
from wfm.errors import InputError

_SPANS = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def add_to(app: typer.Typer) -> None:
    """Put these commands into the command line."""
    for command in (cost, events):
        app.command()(command)


class CostLine(pydantic.BaseModel):
    """A run, a team or a stage; hours of processors and of GPUs, of all tries, of those that made nothing, and of those that a
    suspend stopped (the next goes on from what they saved)."""

    name: str
    runs: int
    tries: int
    cpu_hours: float
    gpu_hours: float
    wasted_tries: int
    wasted_cpu_hours: float
    wasted_gpu_hours: float
    stopped_tries: int = 0
    stopped_cpu_hours: float = 0.0
    stopped_gpu_hours: float = 0.0


class CostTable(pydantic.BaseModel):
    """``wfm cost --json``."""

    by: str
    since: str
    lines: list[CostLine]
    all: CostLine
    unreadable: list[str]
    "Runs that could not be read, and why."


class EventLine(pydantic.BaseModel):
    """One thing that happened."""

    at: str
    kind: str
    "submitted | began | ended | suspended | resumed | cancelled | over | told"
    stage: str
    attempt: int
    words: str
    failed: bool


class EventList(pydantic.BaseModel):
    """``wfm events --json``: in order."""

    run: str
    events: list[EventLine]


def cost(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Ids, beginnings of them, `last`.")
    ] = None,
    by: Annotated[str, typer.Option(help="run, team or stage.")] = "run",
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Only tries begun since: 2026-11-01, or 12h, 7d, 4w.")
    ] = "",
    json: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Add up processor- and GPU-hours, failed tries included; apart is shown what made nothing, and what a suspend stopped."""
    from pipelines.runs.cost import BY, cost_of

    if by not in BY:
        raise InputError(f"--by {by!r}. Choices: {', '.join(BY)}")
    begin = _since(since)
    opened = open_store(store)
    named = {run.id: run for run in (open_run(opened, one) for one in runs or ())}  # named twice, it costs once
    found = list(named.values()) if runs else opened.runs.list()
    unreadable: list[str] = []
    lines, total = cost_of(found, by, begin, unreadable)
    if json:
        told = [CostLine(**vars(line)) for line in lines]
        say_json(CostTable(by=by, since=iso(begin), lines=told, all=CostLine(**vars(total)), unreadable=unreadable))
        return
    stopped = ("stopped", "GPU h", "CPU h") if total.stopped_tries else ()
    listed = table(by, "tries", "GPU h", "CPU h", "wasted", "GPU h", "CPU h", *stopped)
    for line in [*lines, *([total] if len(lines) != 1 else [])]:
        listed.row(
            line.name, str(line.tries), f"{line.gpu_hours:.3f}", f"{line.cpu_hours:.3f}", str(line.wasted_tries),
            f"{line.wasted_gpu_hours:.3f}", f"{line.wasted_cpu_hours:.3f}",
            *((str(line.stopped_tries), f"{line.stopped_gpu_hours:.3f}", f"{line.stopped_cpu_hours:.3f}") if stopped else ()),
        )  # fmt: skip
    show_table(listed)
    for problem in unreadable:
        warn(f"left out: {problem}")


def _since(text: str) -> float:
    """Unix time; 0 for none."""
    if not text:
        return 0.0
    span = re.fullmatch(r"(\d{1,6})([hdw])", text)
    if span:
        return max(time.time() - int(span[1]) * _SPANS[span[2]], 0.0)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"--since {text!r}: give a day such as 2026-11-01 (UTC), or a span such as 12h, 7d, 4w"
        ) from None
    return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def events(
    run_id: RunArgument = LAST,
    json: JsonOption = False,
    store: StoreOption = STORE_DEFAULT,
) -> None:
    """Tell what happened to a run, in order: submitted, begun, failed and why, tried again, suspended by whom, resumed."""
    from pipelines.runs.events import events as events_of

    run = open_run(open_store(store), run_id)
    found = events_of(run)
    if json:
        lines = [
            EventLine(
                at=iso(one.at), kind=one.kind, stage=one.stage, attempt=one.attempt, words=one.words, failed=one.failed
            )
            for one in found
        ]
        say_json(EventList(run=run.id, events=lines))
        return
    for one in found:
        stage = f"{one.stage}: " if one.stage else ""
        say(f"{age(one.at) or ' ' * 19}  {stage}{one.words}")
