"""Starts at times: once a day, also on the days on which the clocks of a zone change."""

import re
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pipelines.engines.argo.cron import cron_workflow, lines_for
from pipelines.engines.argo.emit import emit
from pipelines.engines.flow import Flow, Times
from tests.cluster import strict
from tests.pipelines.engines.argo.compiled import SETTINGS, flow
from wfm.cluster.lint import lint
from wfm.cluster.lint.times import changes
from wfm.errors import ConfigError

UTC = ZoneInfo("UTC")


def starts(spec: dict[str, Any], day: datetime, days: int) -> list[datetime]:
    """What Argo's controller (robfig/cron, then `when`) starts from midnight on: each minute whose local time fits a line."""
    clocks = ZoneInfo(spec["timezone"])
    lines = [line.split() for line in spec["schedules"]]
    minutes = {minute for minute in range(60) if any(_fits(line[0], minute) for line in lines)}
    apart = int(found[1]) if (found := re.search(r"> (\d+) ", spec.get("when", ""))) else 0
    begun: list[datetime] = []
    moment = day.replace(tzinfo=clocks).astimezone(UTC) - timedelta(minutes=1)
    for _ in range(days * 24 * 60):
        moment += timedelta(minutes=1)
        if (
            moment.minute not in minutes and (moment.minute + 30) % 60 not in minutes
        ):  # of a zone that moves by half an hour
            continue
        local = moment.astimezone(clocks)
        now = (local.minute, local.hour, local.day, local.month, local.isoweekday() % 7)
        fits = any(all(_fits(field, value) for field, value in zip(line, now, strict=True)) for line in lines)
        if fits and (not begun or (moment - begun[-1]).total_seconds() > apart):
            begun.append(moment)
    return [each.astimezone(clocks).replace(tzinfo=None) for each in begun]


def _fits(field: str, value: int) -> bool:
    return field == "*" or (field.startswith("*/") and value % int(field[2:]) == 0) or str(value) in field.split(",")


FLOW = Flow("nightly", "curate", "smoke", ())


def spec_of(*lines: str, zone: str = "Europe/Berlin") -> dict[str, Any]:
    spec: dict[str, Any] = cron_workflow(FLOW, Times(lines, zone), SETTINGS)["spec"]
    return spec


@pytest.mark.parametrize("line", ["30 2 * * *", "0 2 * * *", "59 2 * * *", "30 1 * * *", "0 3 * * *", "15 14 * * *"])
@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("Europe/Berlin", datetime(2027, 3, 27)),
        ("Europe/Berlin", datetime(2027, 10, 30)),
        ("America/New_York", datetime(2027, 3, 13)),
        ("America/New_York", datetime(2027, 11, 6)),
        ("Australia/Lord_Howe", datetime(2027, 4, 3)),
        ("Australia/Lord_Howe", datetime(2027, 10, 2)),
        ("Etc/UTC", datetime(2027, 3, 27)),
    ],
)
def test_a_daily_start_comes_once_a_day_whatever_the_clocks_do(line: str, zone: str, change: datetime) -> None:
    found = starts(spec_of(line, zone=zone), change, 3)
    assert [start.date() for start in found] == [(change + timedelta(days=number)).date() for number in range(3)]
    minute, hour = map(int, line.split()[:2])
    assert [(start.hour, start.minute) for start in found].count((hour, minute)) >= 2, "as asked on ordinary days"


def test_without_the_further_line_or_the_condition_a_start_is_lost_or_doubled() -> None:
    spec = spec_of("30 2 * * *")
    assert spec["schedules"] == ["30 2 * * *", "0 3 * * *"]
    assert len(starts({**spec, "schedules": spec["schedules"][:1]}, datetime(2027, 3, 27), 3)) == 2
    assert len(starts({**spec, "schedules": spec["schedules"][:1], "when": ""}, datetime(2027, 10, 30), 3)) == 4
    assert len(starts({**spec, "when": ""}, datetime(2027, 6, 1), 3)) == 6


def test_starts_each_hour_need_nothing_and_those_in_between_are_refused() -> None:
    assert lines_for(Times(("0 * * * *",), "Europe/Berlin")) == ([], False)
    assert "when" not in spec_of("*/20 * * * *")
    assert "when" not in spec_of("0 */2 * * *", zone="Etc/UTC")
    assert "when" not in spec_of("0 6,8 * * *")
    with pytest.raises(ConfigError, match="keep starts four hours apart"):
        spec_of("0 */2 * * *")
    spec = spec_of("0 2,6,22 * * mon")
    assert spec["schedules"] == ["0 2,6,22 * * mon"], "clocks change on Sundays there"
    spec = spec_of("0 2,6,22 * * *")
    assert spec["schedules"] == ["0 2,6,22 * * *", "0 3 * * *"]
    for day in (datetime(2027, 3, 28), datetime(2027, 10, 31), datetime(2027, 6, 1)):
        assert len(starts(spec, day, 1)) == 3


def test_when_clocks_change() -> None:
    found = [each for each in changes("Europe/Berlin") if each.start.year == 2027]
    assert [(each.start, each.end, each.twice) for each in found] == [
        (datetime(2027, 3, 28, 2), datetime(2027, 3, 28, 3), False),
        (datetime(2027, 10, 31, 2), datetime(2027, 10, 31, 3), True),
    ]
    half = [each for each in changes("Australia/Lord_Howe") if each.start.year == 2027]
    assert {each.end - each.start for each in half} == {timedelta(minutes=30)}
    assert list(changes("Etc/UTC")) == []


@pytest.mark.parametrize(
    ("line", "zone", "says"),
    [
        ("30 2 * *", "Etc/UTC", "five fields"),
        ("61 2 * * *", "Etc/UTC", "five fields"),
        ("@daily", "Etc/UTC", "five fields"),
        ("30 2 * * *", "Berlin", "no zone of IANA"),
    ],
)
def test_times_that_cannot_be(line: str, zone: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        spec_of(line, zone=zone)


def test_the_object_is_whole_and_has_no_fault() -> None:
    times = Times(("30 2 * * *", "0 14 * * mon-fri"), "Europe/Berlin", stop_after_failures=5)
    objects = [one for several in emit(flow("curate", "smoke", times=times), SETTINGS).values() for one in several]
    cron = next(one for one in objects if one["kind"] == "CronWorkflow")
    template = next(one for one in objects if one["kind"] == "WorkflowTemplate")
    assert strict.faults(cron) == []
    assert lint(objects, SETTINGS) == []
    spec = cron["spec"]
    assert spec["workflowSpec"] == {"workflowTemplateRef": {"name": template["metadata"]["name"]}}
    assert (spec["concurrencyPolicy"], spec["startingDeadlineSeconds"]) == ("Forbid", 3600)
    assert spec["stopStrategy"] == {"expression": "cronworkflow.failed >= 5"}
    assert not {"schedule", "suspend"} & set(spec), "the fields of version 3"
    forbidden = {**cron, "spec": {**spec, "stopStrategy": {"expression": "cronworkflow.succeeded >= 5"}}}
    assert [fault.rule for fault in lint([forbidden, template], SETTINGS)] == ["cron-stop"]
