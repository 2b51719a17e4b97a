"""Lines of cron: whether they can be read, whether they ever come, and whether a change of clocks hits them."""

import functools
import re
import zoneinfo
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_NAMES = {
    **{name: str(number) for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))},
    **{name: str(number) for number, name in enumerate(("jan", "feb", "mar", "apr", "may", "jun"), 1)},
    **{name: str(number) for number, name in enumerate(("jul", "aug", "sep", "oct", "nov", "dec"), 7)},
}
_MACROS = {
    "@hourly": "0 * * * *",
    **dict.fromkeys(("@daily", "@midnight"), "0 0 * * *"),
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    **dict.fromkeys(("@yearly", "@annually"), "0 0 1 1 *"),
}
_PART = re.compile(r"(\*|\d{1,2}(?:-\d{1,2})?)(?:/(\d{1,2}))?")
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_FIRST_YEAR, _YEARS = 2026, 10
"""Whose changes of clocks are looked at."""


class Change(NamedTuple):
    """One change of clocks: local times from ``start`` on, before ``end``, are left out or come twice."""

    start: datetime
    end: datetime
    twice: bool


def line_fault(line: Any) -> str:
    """What is wrong with a line; empty where nothing is."""
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
            if _numbers(part, least, most) is None:
                return f"{part!r} is no {name}: {least} to {most}, *, a-b, */n, with commas"
    return ""


def _numbers(part: str, least: int, most: int) -> set[int] | None:
    """What a part of a field stands for (``*/15`` of minutes: 0, 15, 30, 45); None where it cannot be."""
    found = _PART.fullmatch("".join(_NAMES.get(each, each) for each in re.split(r"([-/])", part)))
    if found is None or found[2] == "0":
        return None
    ends = [int(each) for each in re.findall(r"\d+", found[1])] or [least, most]
    if any(not least <= each <= most for each in ends) or ends != sorted(ends):
        return None
    last = ends[-1] if len(ends) == 2 else most if found[2] else ends[0]
    return set(range(ends[0], last + 1, int(found[2] or 1)))


def _fields(line: str) -> list[set[int]] | None:
    """The numbers of each field; None for a line that has a fault."""
    if line_fault(line):
        return None
    parts = [text.lower().split(",") for text in _MACROS.get(line, line).split()]
    return [
        set().union(*(_numbers(part, least, most) or set() for part in several))
        for several, (_, least, most) in zip(parts, _FIELDS, strict=True)
    ]


def _starred(line: str, place: int) -> bool:
    return _MACROS.get(line, line).split()[place].startswith("*")


def never(line: str) -> bool:
    """Whether there is no such day: 31 February. With a weekday beside it, either of both is enough."""
    fields = _fields(line)
    if fields is None or not (_starred(line, 4) or _starred(line, 2)):
        return False
    return all(min(fields[2]) > _DAYS[month - 1] for month in fields[3])


def changed_hour(line: str, zone: str) -> str:
    """What a change of clocks in a zone does to a line, with the day; empty where it hits none, or every hour is meant."""
    fields = _fields(line)
    if fields is None or fields[1] == set(range(24)):
        return ""
    for change in changes(zone):
        moment = change.start
        while moment < change.end:
            if _comes(line, fields, moment):
                what = "comes twice" if change.twice else "is left out"
                return f"{moment:%H:%M} {what} on {moment:%d %B %Y}"
            moment += timedelta(minutes=1)
    return ""


def _comes(line: str, fields: list[set[int]], moment: datetime) -> bool:
    minutes, hours, days, months, weekdays = fields
    weekday = moment.isoweekday() % 7
    day, week = moment.day in days, weekday in weekdays or (weekday == 0 and 7 in weekdays)
    either = not (_starred(line, 2) or _starred(line, 4))
    today = (day or week) if either else (day and week)
    return moment.minute in minutes and moment.hour in hours and moment.month in months and today


@functools.cache
def changes(zone: str) -> tuple[Change, ...]:
    """Changes of clocks of a zone (`_YEARS` years of them), local times without a zone."""
    here = zoneinfo.ZoneInfo(zone)

    def offset(moment: datetime) -> timedelta:
        return moment.astimezone(here).utcoffset() or timedelta(0)

    found = []
    day = datetime(_FIRST_YEAR, 1, 1, tzinfo=UTC)
    for _ in range(_YEARS * 366):
        after = day + timedelta(days=1)
        if (old := offset(day)) != offset(after):
            low, high = 0, 24 * 60  # the first minute of the day with the new offset
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(day + timedelta(minutes=middle)) == old else (low, middle)
            moment = day + timedelta(minutes=high)
            ends = sorted((moment + each).replace(tzinfo=None) for each in (old, offset(moment)))
            found.append(Change(ends[0], ends[1], twice=offset(moment) < old))
        day = after
    return tuple(found)
