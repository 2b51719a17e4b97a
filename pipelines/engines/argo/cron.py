"""When a workflow starts by itself: a CronWorkflow over the template, in a zone that is named.

Argo takes the local time for what it is: a start within the hour that a zone skips does not happen that day, one within the
hour that it has twice happens twice. So a line that may meet such an hour gets another at the end of the hour that is skipped,
and `when` lets a start go by that comes less than `APART` after the one before. Starts an hour or less apart need none of it.
The name of a run is that of the CronWorkflow and its time: told twice, it is one.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import available_timezones

from pipelines.engines.flow import Flow, Times
from wfm.cluster.lint.times import Change, changes
from wfm.cluster.settings import ClusterSettings
from wfm.errors import ConfigError, MissingPackage

Json = dict[str, Any]

LATE_SECONDS = 3600
"""How late a start may be made up for, when the controller was away."""
APART = 9000
"""Seconds between two starts that are two. An hour that is had twice lies between a start and its double, and may lie between a
start and the line for the hour that is skipped, which follows it within the hour: two hours, and half of one for being late."""
LEAST_APART = 4 * 3600
"""Of lines that meet such an hour: of four hours, three are left when one is skipped."""
KEPT = 3
"""Workflows that are kept, of those that succeeded and of those that failed."""
_FROM, _MOST = datetime(2026, 1, 1), 2000


def cron_workflow(flow: Flow, times: Times, settings: ClusterSettings) -> Json:
    """The object. Raises ConfigError for a zone that is none, and for starts that a change of clocks makes ambiguous."""
    more, careful = lines_for(times)
    spec: Json = {
        "schedules": [*times.lines, *more],
        "timezone": times.zone,
        "startingDeadlineSeconds": LATE_SECONDS,
        "concurrencyPolicy": "Forbid",
        "successfulJobsHistoryLimit": KEPT,
        "failedJobsHistoryLimit": KEPT,
        "workflowSpec": {"workflowTemplateRef": {"name": flow.name}},
    }
    if careful:
        last = "cronworkflow.lastScheduledTime"
        spec["when"] = f"{{{{= {last} == nil || (now() - {last}).Seconds() > {APART} }}}}"
    if times.stop_after_failures:
        spec["stopStrategy"] = {"expression": f"cronworkflow.failed >= {times.stop_after_failures}"}
    metadata = {"name": flow.name, "namespace": settings.namespace}
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": "CronWorkflow", "metadata": metadata, "spec": spec}


def lines_for(times: Times) -> tuple[list[str], bool]:
    """(lines for the hours that are skipped, whether `when` is needed)."""
    starts = sorted({start for line in times.lines for start in _starts(line, _FROM, _FROM + timedelta(days=366))})
    apart = min((after - before for before, after in pairwise(starts)), default=timedelta(days=366))
    if apart <= timedelta(hours=1):
        return [], False
    more: dict[str, None] = {}
    met = False
    for change in _changes(times.zone):
        for line in times.lines:
            for start in _starts(line, change.start, change.end):
                met = True
                if not change.twice:
                    more[_at(change.end, line, start, times)] = None
    if met and apart < timedelta(seconds=LEAST_APART):
        raise ConfigError(
            f"{times.lines} start {apart} apart, and where the clocks of {times.zone} change it cannot be told which is which: "
            "keep starts four hours apart, or at most one, or give --zone Etc/UTC"
        )
    return list(more), met


def _changes(zone: str) -> tuple[Change, ...]:
    """The changes of a zone's clocks in the next years. Raises ConfigError for what is no zone."""
    if zone not in available_timezones():
        raise ConfigError(f"zone = {zone!r} is no zone of IANA: give --zone such as Europe/Berlin or Etc/UTC")
    return changes(zone)


def _starts(line: str, begin: datetime, end: datetime) -> Iterator[datetime]:
    """The local times of a line, from `begin` on and before `end`."""
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        raise MissingPackage("cronsim", extra="argo", purpose="wfm compile --cron") from None
    try:
        found = CronSim(line, begin - timedelta(minutes=1))
        for _ in range(_MOST):
            start = next(found)
            if start >= end:
                return
            yield start
    except (CronSimError, StopIteration):
        raise ConfigError(
            f"--cron {line!r}: give five fields, minute hour day month weekday, such as '0 3 * * *'"
        ) from None


def _at(end: datetime, line: str, start: datetime, times: Times) -> str:
    """A line's days, at the end of the hour that is skipped."""
    if end.date() != start.date():
        raise ConfigError(f"--cron {line!r} in {times.zone}: the clocks skip it at midnight, choose another time")
    return " ".join([str(end.minute), str(end.hour), *line.split()[2:]])
