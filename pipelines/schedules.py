"""What starts by the clock, on whatever engine, and which times passed without a run: these a backfill fills."""

import pkgutil
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import wfm.recipes
from pipelines.engines.remote import REMOTES, Recurring, connect, template_name
from pipelines.engines.schedule_book import Kept, kept
from pipelines.plan import PIPELINES
from pipelines.request import Request
from pipelines.runs.seen import unix
from pipelines.runs.submission import submission_of
from pipelines.ticks import at_time, iso, latest_times, next_time, stamp, times
from wfm.artifacts import Store, schema
from wfm.artifacts.environment import store_options
from wfm.artifacts.runs import SUBMISSION
from wfm.errors import InputError, WfmError

if TYPE_CHECKING:
    from pipelines.ticks import Point

_LATEST = 200
"""So many times are looked at for a run, the latest; who was away for longer fills the rest as well."""
_LATE_SECONDS = 600.0
"""A run that an engine on a cluster began so long after its time is not missed yet [s]."""
_LONGEST = timedelta(days=366)


@dataclass
class Clock:
    """One schedule."""

    name: str
    engine: str
    lines: tuple[str, ...]
    zone: str
    state: str
    "served | not served | active | paused"
    last: str = ""
    "The last time that has a run (UTC, ISO 8601); empty: none."
    next: str = ""
    "Empty where nothing begins one."
    missed: list[str] = field(default_factory=list)
    "Times without a run, oldest first."
    fill: str = ""
    "The command that fills them; empty where nothing is missed, or what it asks for is not known here."
    words: str = ""


def here(now: float | None = None) -> list[Clock]:
    """Those that this machine serves, or served."""
    moment = datetime.fromtimestamp(time.time() if now is None else now, UTC)
    return [_seen(one, moment) for one in kept()]


def _seen(one: Kept, now: datetime) -> Clock:
    try:
        return _clock(one, now)
    except WfmError as error:  # its store, or what it asks for: the others are seen all the same
        state = "served" if one.served else "not served"
        return Clock(one.name, "prefect", (one.cron,), "UTC", state, words=f"cannot be looked at: {error}")


def there(engine: str, store: Store, now: float | None = None) -> list[Clock]:
    """Those of an engine on a cluster; of `store` are the runs that a backfill made. Raises as `connect`."""
    moment = datetime.fromtimestamp(time.time() if now is None else now, UTC)
    return [_remote_clock(engine, one, store, moment) for one in connect(engine).recurring()]


def pause(engine: str, name: str, *, paused: bool) -> str:
    """Stop, or let go on, one of a cluster's engine; what was done in words. Raises InputError for one of this machine."""
    if engine not in REMOTES:
        raise InputError(
            f"{name}: `wfm schedule pause` and `resume` are for engines on a cluster (--engine {' or '.join(REMOTES)}); on "
            "this machine end the process that serves it, or start it again"
        )
    return connect(engine).pause(name, paused=paused)


def _clock(one: Kept, now: datetime) -> Clock:
    request = schema.fit(Request, one.request, f"the schedule {one.name}")
    clock = Clock(one.name, "prefect", (one.cron,), "UTC", "served" if one.served else "not served")
    begin = max(datetime.fromtimestamp(one.since, UTC), now - _LONGEST)
    points = [at_time(request, when) for when in latest_times(one.cron, begin, now, _LATEST)]
    runs = Store.open(one.store, store_options()).runs
    there = [
        runs.of(point.run_id).read(SUBMISSION) is not None or runs.of(point.run_id).read("spec.json") is not None
        for point in points
    ]
    last = max((index for index, found in enumerate(there) if found), default=-1)
    if last >= 0:
        clock.last = points[last].name
    if one.served:  # what is due waits for its turn: runs come one after the other
        missing = [point for point, found in zip(points[: last + 1], there[: last + 1], strict=True) if not found]
        clock.next = iso(next_time(one.cron, now))
    else:
        missing = [point for point, found in zip(points, there, strict=True) if not found]
    clock.missed = [point.name for point in missing]
    clock.fill = _fill(request, one, missing) if missing else ""
    return clock


def _fill(request: Request, one: Kept, missing: "Sequence[Point]") -> str:
    """The command of a backfill over these times: what is there between them is skipped."""
    until = datetime.fromisoformat(missing[-1].name) + timedelta(minutes=1)
    words = ["wfm", "backfill", request.pipeline, "--profile", request.profile, "--store", one.store]
    words += ["--from", missing[0].name, "--to", iso(until), "--every", one.cron]
    options = (("--videos", request.videos), ("--dataset", request.dataset), ("--name", request.name))
    for option, value in options:
        words += [option, value] if value else []
    for override in request.overrides:
        words += ["--set", override]
    words += [] if request.promote else ["--no-promote"]
    return shlex.join(words)


def _remote_clock(engine: str, one: Recurring, store: Store, now: datetime) -> Clock:
    clock = Clock(
        one.name, engine, one.lines, one.zone, "paused" if one.suspended else "active", last=one.last, words=one.words
    )
    if one.suspended:
        return clock
    try:
        _add_times(clock, engine, one, store, now)
    except (
        InputError
    ) as error:  # ``@daily``, a field of seconds, a zone of its own: its engine may know more than we do
        clock.words = "; ".join(filter(None, (clock.words, f"its times are not known here: {error}")))
    return clock


def _add_times(clock: Clock, engine: str, one: Recurring, store: Store, now: datetime) -> None:
    """When it is due next, what was missed, and what fills it."""
    clock.next = iso(min(next_time(line, now, one.zone) for line in one.lines)) if one.lines else ""
    if one.last:
        after = datetime.fromtimestamp(unix(one.last), UTC) + timedelta(minutes=1)
        due = now - timedelta(seconds=_LATE_SECONDS)
        begin = max(after, now - _LONGEST)
        lines = one.lines if begin < due else ()
        found = {when for line in lines for when in latest_times(line, begin, due, _LATEST, one.zone)}
        passed = sorted(found)[-_LATEST:]
        filled = _filled(engine, one, store, passed)
        missing = [when for when in passed if iso(when) not in filled]
        clock.missed = [iso(when) for when in missing]
        clock.fill = _remote_fill(engine, one, store, missing)


def _filled(engine: str, one: Recurring, store: Store, passed: Sequence[datetime]) -> set[str]:
    """Those of these times for which a backfill has a run of this template in the store. Its id tells the time
    (`ticks.at_time`), so that no other run is opened."""
    stamps = {f"-{stamp(when)}-" for when in passed}
    runs = store.runs.list() if stamps else []
    asked = (submission_of(run) for run in runs if any(each in run.id for each in stamps))
    return {
        each.scheduled_at
        for each in asked
        if each is not None and each.engine == engine and not each.refused
        and one.template == (each.template or template_name(schema.fit(Request, each.request, f"the run {each.run_id}")))
    }  # fmt: skip


def _remote_fill(engine: str, one: Recurring, store: Store, missing: Sequence[datetime]) -> str:
    """The commands that fill these times, one for each line; empty where the template is none that `wfm compile` names so."""
    asked = next((each for each in _every_request() if template_name(each) == one.template), None)
    if asked is None or not missing:
        return ""
    until = missing[-1] + timedelta(minutes=1)
    words = ["wfm", "backfill", asked.pipeline, "--profile", asked.profile, "--engine", engine, "--store", store.url]
    words += ["--from", iso(missing[0]), "--to", iso(until), "--zone", one.zone]
    due = (line for line in one.lines if not set(times(line, missing[0], until, one.zone)).isdisjoint(missing))
    return " && ".join(shlex.join([*words, "--every", line]) for line in due)


def _every_request() -> Iterator[Request]:
    """All pipelines with all profiles, as they are."""
    profiles = [module.name for module in pkgutil.iter_modules(wfm.recipes.__path__)]
    return (Request(pipeline, profile) for pipeline in PIPELINES for profile in profiles)
