"""What runs at times: in a zone that is named, once, and also after a while in which nobody looked."""

import functools
import re
import zoneinfo
from collections.abc import Iterator

from wfm.cluster.lint.expression import evaluate
from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.quantity import whole
from wfm.cluster.lint.seen import Seen, Thing, at, word
from wfm.cluster.lint.times import changed_hour, line_fault, never

_LEAST_LATE = 60


def _crons(seen: Seen) -> Iterator[tuple[Thing, str]]:
    """(object, name of its field for the zone)."""
    yield from ((thing, "timezone") for thing in seen.of("CronWorkflow"))
    yield from ((thing, "timeZone") for thing in seen.of("CronJob"))


@rule("cron-zone", "what runs at times names its zone")
def cron_zone(seen: Seen) -> Iterator[Found]:
    """A zone of IANA: else it is the controller's own, and moves with it."""
    for thing, name in _crons(seen):
        value = at(thing.content, f"spec.{name}")
        if not (isinstance(value, str) and _is_zone(value)):
            says = "give a zone of IANA, such as Europe/Berlin or Etc/UTC: else the controller's own counts"
            yield Found(thing.where(f"spec.{name}"), value, says)


@rule("cron-deadline", "a start that was missed is made up for")
def cron_deadline(seen: Seen) -> Iterator[Found]:
    """``startingDeadlineSeconds``: without it a controller that was away at the time skips it without a word."""
    for thing, _ in _crons(seen):
        value = whole(at(thing.content, "spec.startingDeadlineSeconds"))
        if value is None or value < _LEAST_LATE:
            says = f"give {_LEAST_LATE} s or more: how late a start may still be"
            yield Found(
                thing.where("spec.startingDeadlineSeconds"), at(thing.content, "spec.startingDeadlineSeconds"), says
            )


@rule("cron-concurrency", "one run at a time")
def cron_concurrency(seen: Seen) -> Iterator[Found]:
    """``Forbid``: Allow (the default) lets them pile up, Replace ends one in the middle. `wfm backfill` fills gaps."""
    for thing, _ in _crons(seen):
        value = at(thing.content, "spec.concurrencyPolicy")
        if value != "Forbid":
            says = "Forbid: by default runs pile up, and Replace ends one in the middle"
            yield Found(thing.where("spec.concurrencyPolicy"), value, says)


@rule("cron-stop", "what runs at times goes on, and its failures stay to be looked at")
def cron_stop(seen: Seen) -> Iterator[Found]:
    """A ``stopStrategy``, after which nothing runs any more, counts failures alone; a failed run is kept."""
    for thing, _ in _crons(seen):
        stop = at(thing.content, "spec.stopStrategy")
        if stop is not None and not _stops_for_failures(word(stop, "expression")):
            says = (
                "once it holds nothing ever runs again, and nobody is told: leave it out, or count cronworkflow.failed"
            )
            yield Found(thing.where("spec.stopStrategy"), stop, says)
        kept = at(thing.content, "spec.failedJobsHistoryLimit")
        if kept is not None and (whole(kept) or 0) < 1:
            yield Found(thing.where("spec.failedJobsHistoryLimit"), kept, "1 or more: a failed run is evidence")
        when = at(thing.content, "spec.when")
        if when is not None and "cronworkflow." not in str(when):
            says = "it asks nothing of when it last ran, so it starts all or nothing: leave it out"
            yield Found(thing.where("spec.when"), when, says)


@rule("cron-hour", "what runs at times runs once a day it is meant for, in summer and winter")
def cron_hour(seen: Seen) -> Iterator[Found]:
    """An hour that the change of clocks leaves out is never run, one that it brings twice is run twice."""
    for thing, name in _crons(seen):
        zone = at(thing.content, f"spec.{name}")
        if not (isinstance(zone, str) and zone in _zones()):
            continue
        guarded = "lastScheduledTime" in str(at(thing.content, "spec.when") or "")
        for line in () if guarded else _lines(thing):
            hit = changed_hour(line, zone)
            if hit:
                cure = "another hour, Etc/UTC, or a `when` over cronworkflow.lastScheduledTime"
                yield Found(thing.where(_path(thing)), line, f"{hit} in {zone}: {cure}")


@rule("cron-never", "each line of times comes some day")
def cron_never(seen: Seen) -> Iterator[Found]:
    """No 31 February: nothing would ever start, and nobody is told."""
    for thing, _ in _crons(seen):
        for line in _lines(thing):
            if not line_fault(line) and never(line):
                yield Found(thing.where(_path(thing)), line, "there is no such day in these months: it never runs")


def _path(thing: Thing) -> str:
    return "spec.schedules" if thing.kind == "CronWorkflow" else "spec.schedule"


def _lines(thing: Thing) -> list[str]:
    given = at(thing.content, _path(thing))
    return [each for each in (given if isinstance(given, list) else [given]) if isinstance(each, str)]


def _stops_for_failures(expression: str) -> bool:
    """Whether it holds after many failures, and after no number of successes."""
    try:
        good, bad = (
            evaluate(expression, {"cronworkflow.failed": failed, "cronworkflow.succeeded": 10**6})
            for failed in (0, 10**6)
        )
    except ValueError:
        return False
    return good is False and bad is True


@rule("cron-schedule", "the times can be, and are not switched off")
def cron_schedule(seen: Seen) -> Iterator[Found]:
    """Five fields within their bounds; at least one line; not suspended."""
    for thing, _ in _crons(seen):
        path, given = _path(thing), at(thing.content, _path(thing))
        lines = given if isinstance(given, list) else [given]
        if not lines:
            yield Found(thing.where(path), given, "give at least one line of five fields, such as 0 3 * * *")
        for line in lines:
            fault = line_fault(line)
            if fault:
                yield Found(thing.where(path), line, fault)
        if at(thing.content, "spec.suspend") and thing.kind == "CronJob":
            yield Found(
                thing.where("spec.suspend"), at(thing.content, "spec.suspend"), "nothing would ever start: leave it out"
            )


def _is_zone(name: str) -> bool:
    known = _zones()
    return name in known if known else re.fullmatch(r"[A-Z][A-Za-z]+(/[A-Z][\w+-]+){1,2}|UTC", name) is not None


@functools.cache
def _zones() -> frozenset[str]:
    """The zones that this machine knows; none where it has no data of them."""
    return frozenset(zoneinfo.available_timezones())
