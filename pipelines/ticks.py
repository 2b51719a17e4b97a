"""Runs that stand for a time or a shard: which there are, what they ask for, and the ids they have.

    {date:%Y-%m-%d}   in --videos, --dataset, --name or --set: the time that the run stands for, as strftime writes it
    {date}            the same as 2026-11-30T03:00:00Z
    {shard}           the shard that the run stands for

The id is a function of what is asked (pipeline, profile, the options with their placeholders) and of the time or the shard: a
cron's tick and a backfill of the same options give the same run the same id, whoever comes first.
"""

import dataclasses
import hashlib
import json
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import takewhile
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from wfm.errors import InputError

if TYPE_CHECKING:
    from pipelines.request import Request

_PLACE = re.compile(r"\{([^{}]*)\}")
_FORMAT = re.compile(r"(?:%[YmdHMSjyGVu]|[-_./TZ])+")
_MOST = 10_000
"""Points of one backfill."""
CHOICES = "{date:%Y-%m-%d}, {date}, {shard}"


@dataclass(frozen=True)
class Point:
    """One run of many: what it stands for, and what it asks for."""

    name: str
    "A time (UTC, ISO 8601), or a shard."
    run_id: str
    request: "Request"
    scheduled_at: str = ""


def at_time(request: "Request", when: datetime) -> Point:
    """The run that stands for a time. Raises InputError for a placeholder that cannot be filled."""
    name = iso(when)
    return Point(name, _id(request, name, stamp(when)), _filled(request, date=when.astimezone(UTC)), name)


def stamp(when: datetime) -> str:
    """A time as it stands in the id of the run that stands for it."""
    return when.astimezone(UTC).strftime("%Y%m%dt%H%M" + ("%S" if when.second else "") + "z")


def of_shard(request: "Request", shard: str) -> Point:
    """The run that stands for a shard."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", shard):
        raise InputError(f"--shards {shard!r}: a shard is at most 64 letters, digits, '.', '_' or '-'")
    return Point(shard, _id(request, shard, shard), _filled(request, shard=shard))


def shards_of(text: str) -> list[str]:
    """``12`` -> 00 to 11; ``a,b,c`` -> these. Raises InputError for none, or one twice."""
    if text.isdecimal():
        count = int(text)
        if not 1 <= count <= _MOST:
            raise InputError(f"--shards {text}: 1 to {_MOST}, or names with a comma between")
        return [f"{number:0{len(str(count - 1))}d}" for number in range(count)]
    named = [one.strip() for one in text.split(",")]
    if not all(named) or len(set(named)) != len(named):
        raise InputError(f"--shards {text!r}: give a number, or names with a comma between, each once")
    return named


def times(line: str, begin: datetime, end: datetime, zone: str = "UTC") -> list[datetime]:
    """The times of a cron line from `begin` on and before `end`. Raises InputError for no such line, or too many."""
    found = []
    for when in _ticks(line, begin, zone):
        if when >= end:
            break
        found.append(when)
        if len(found) > _MOST:
            raise InputError(f"--every {line!r}: these are more than {_MOST} runs; take a shorter span")
    return found


def latest_times(line: str, begin: datetime, end: datetime, most: int, zone: str = "UTC") -> list[datetime]:
    """Of the times from `begin` on and before `end` the last ones, at most so many."""
    span = timedelta(minutes=most)
    while True:  # further back each time, until there are enough
        start = max(begin, end - span)
        found = deque(takewhile(lambda when: when < end, _ticks(line, start, zone)), maxlen=most)
        if len(found) == most or start == begin:
            return list(found)
        span *= 2


def next_time(line: str, after: datetime, zone: str = "UTC") -> datetime:
    """The first time of a cron line after a moment."""
    return next(when for when in _ticks(line, after, zone) if when > after)


def _ticks(line: str, begin: datetime, zone: str) -> Iterator[datetime]:
    from cronsim import CronSim, CronSimError

    try:
        if len(line.split()) != 5:
            raise CronSimError("not five fields")
        found = CronSim(line, (begin - timedelta(minutes=1)).astimezone(zone_of(zone)))
        for when in found:
            if when >= begin:
                yield when
    except CronSimError:
        raise InputError(
            f"{line!r} is not a cron line: five fields (minute hour day month weekday), such as '0 3 * * *'"
        ) from None


def zone_of(name: str) -> tzinfo:
    """A zone of IANA. Raises InputError for another name."""
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # of a zone that is not there: a KeyError
        raise InputError(f"--zone {name!r} is not a zone of IANA, such as UTC or Europe/Berlin") from None


def begin_of(text: str, option: str, zone: str, *, end: bool = False) -> datetime:
    """A moment as it is typed: ``2026-11-01`` or ``2026-11-01T03:00`` in the zone, or with a zone of its own. As an `end` a
    day is meant whole."""
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            day = date.fromisoformat(text) + timedelta(days=int(end))
            found = datetime(day.year, day.month, day.day)
        else:
            found = datetime.fromisoformat(text)
        if not 1 < found.year < 9999:  # a zone, or a minute before, leads out of what a time can be
            raise ValueError
    except (ValueError, OverflowError):
        raise InputError(
            f"{option} {text!r}: give a day such as 2026-11-01, or a time such as 2026-11-01T03:00"
        ) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=zone_of(zone))


def iso(when: datetime) -> str:
    """``2026-11-30T03:00:00Z``."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def has_places(request: "Request") -> bool:
    """Whether any option differs from run to run."""
    return any(_PLACE.search(text) for text in _options(request).values())


def _options(request: "Request") -> dict[str, str]:
    return {
        "--videos": request.videos,
        "--dataset": request.dataset,
        "--name": request.name,
        **{f"--set {text}": text.partition("=")[2] for text in request.overrides},
    }


def _filled(request: "Request", *, date: datetime | None = None, shard: str = "") -> "Request":
    def fill(option: str, text: str) -> str:
        if re.search(r"[{}]", _PLACE.sub("", text)):
            raise InputError(f"{option} {text!r}: a brace stands alone. Choices: {CHOICES}")
        return _PLACE.sub(lambda found: _value(option, found[1], date, shard), text)

    overrides = []
    for text in request.overrides:
        name, equals, value = text.partition("=")
        # a value may be JSON, whose braces are no places
        kept = value.lstrip().startswith(("{", "[")) and not re.search(r"\{(?:date|shard)\b", value)
        overrides.append(text if kept else f"{name}{equals}{fill(f'--set {name}', value)}")
    return dataclasses.replace(
        request,
        videos=fill("--videos", request.videos),
        dataset=fill("--dataset", request.dataset),
        name=fill("--name", request.name),
        overrides=tuple(overrides),
    )


def _value(option: str, place: str, date: datetime | None, shard: str) -> str:
    name, colon, form = place.partition(":")
    if name not in ("date", "shard") or (name == "shard" and colon):
        raise InputError(f"{option}: unknown placeholder {{{place}}}. Choices: {CHOICES}")
    if name == "shard":
        if not shard:
            raise InputError(
                f"{option}: {{shard}} stands for a shard, and these runs stand for times: use {{date:%Y-%m-%d}}"
            )
        return shard
    if date is None:
        raise InputError(f"{option}: {{{place}}} stands for a time, and these runs stand for shards: use {{shard}}")
    if colon and not _FORMAT.fullmatch(form):
        raise InputError(
            f"{option}: {{{place}}}: its format may have %Y %m %d %H %M %S %j %y %G %V %u and - _ . / T Z between them"
        )
    return date.strftime(form) if colon else iso(date)


def _id(request: "Request", name: str, stamp: str) -> str:
    """Fit for a name on a cluster, too."""
    # what nobody set is left out, so that an option that is new one day changes no id of before
    asked = {
        field.name: getattr(request, field.name)
        for field in dataclasses.fields(request)
        if field.name != "redo" and getattr(request, field.name) != field.default
    }
    digest = hashlib.sha256(json.dumps([asked, name], sort_keys=True).encode()).hexdigest()[:8]
    words = f"{request.pipeline[:24]}-{request.profile[:16]}-{stamp[:20]}".lower()
    return f"{re.sub('[^a-z0-9]+', '-', words).strip('-')}-{digest}"
