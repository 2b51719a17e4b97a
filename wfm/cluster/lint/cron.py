"""What runs at times: in a zone that is named, once, and also after a while in which nobody looked."""

import functools
import re
import zoneinfo
from collections.abc import Iterator
from typing import Any

from wfm.cluster.lint.expression import evaluate
from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.quantity import whole
from wfm.cluster.lint.seen import Seen, Thing, at, word

_LEAST_LATE = 60
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_NAMES = {
    **{name: str(number) for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))},
    **{name: str(number) for number, name in enumerate(("jan", "feb", "mar", "apr", "may", "jun"), 1)},
    **{name: str(number) for number, name in enumerate(("jul", "aug", "sep", "oct", "nov", "dec"), 7)},
}
_MACROS = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
_PART = re.compile(r"(\*|\d{1,2}(?:-\d{1,2})?)(?:/(\d{1,2}))?")


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
        if str(at(thing.content, "spec.when") or "").strip().lower() in ("false", "0", "no"):
            yield Found(
                thing.where("spec.when"), at(thing.content, "spec.when"), "nothing would ever start: leave it out"
            )


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
        given = at(thing.content, "spec.schedules" if thing.kind == "CronWorkflow" else "spec.schedule")
        lines = given if isinstance(given, list) else [given]
        path = "spec.schedules" if thing.kind == "CronWorkflow" else "spec.schedule"
        if not lines:
            yield Found(thing.where(path), given, "give at least one line of five fields, such as 0 3 * * *")
        for line in lines:
            fault = _line_fault(line)
            if fault:
                yield Found(thing.where(path), line, fault)
        if at(thing.content, "spec.suspend") and thing.kind == "CronJob":
            yield Found(
                thing.where("spec.suspend"), at(thing.content, "spec.suspend"), "nothing would ever start: leave it out"
            )


def _line_fault(line: Any) -> str:
    if not isinstance(line, str):
        return "give a line of five fields, such as 0 3 * * *"
    if line in _MACROS:
        return ""
    if "TZ=" in line:
        return "the zone has a field of its own: take it out of the line"
    fields = line.split()
    if len(fields) != len(_FIELDS):
        return f"it has {len(fields)} fields, five are needed: minute hour day month weekday"
    for text, (name, least, most) in zip(fields, _FIELDS, strict=True):
        for part in text.lower().split(","):
            found = _PART.fullmatch("".join(_NAMES.get(each, each) for each in re.split(r"([-/])", part)))
            numbers = [int(each) for each in re.findall(r"\d+", found[1])] if found else []
            if (
                found is None
                or found[2] == "0"
                or any(not least <= each <= most for each in numbers)
                or numbers != sorted(numbers)
            ):
                return f"{part!r} is no {name}: {least} to {most}, *, a-b, */n, with commas"
    return ""


def _is_zone(name: str) -> bool:
    known = _zones()
    return name in known if known else re.fullmatch(r"[A-Z][A-Za-z]+(/[A-Z][\w+-]+){1,2}|UTC", name) is not None


@functools.cache
def _zones() -> frozenset[str]:
    """The zones that this machine knows; none where it has no data of them."""
    return frozenset(zoneinfo.available_timezones())
