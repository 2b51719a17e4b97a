"""A workflow and a CronWorkflow of Argo as they look now, in our words. Of what its server says nothing is trusted."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipelines.engines.remote import Looked, Recurring
from wfm.cluster.fields import list_of, mapping_of, short, text_of

Json = dict[str, Any]

OVER = ("done", "failed", "cancelled")
"""Phases in which a workflow comes to no other."""
_ENDS = {"Succeeded": "done", "Failed": "failed", "Error": "failed"}
_TOLD = 3
"""Of pods that wait or failed, so many are named."""


def looked(found: Json, address: str = "") -> Looked:
    """A workflow in our words."""
    spec, status = mapping_of(found, "spec"), mapping_of(found, "status")
    phase, said = text_of(status, "phase"), short(status.get("message"))
    stopped = text_of(spec, "shutdown")
    nodes = [one for one in mapping_of(status, "nodes").values() if isinstance(one, Mapping)]
    if phase in _ENDS:
        if stopped and _ENDS[phase] == "failed":
            return Looked("cancelled", f"stopped ({stopped})" + (f": {said}" if said else ""), address)
        if _ENDS[phase] == "done":
            return Looked("done", "", address)
        began = any(one.get("type") == "Pod" and one.get("phase") not in ("Pending", "Omitted") for one in nodes)
        before = "" if began else "failed before any pod began: "
        return Looked("failed", before + (_list(nodes, ("Failed", "Error")) or said or phase), address)
    if spec.get("suspend") is True:
        words = "suspended: no further pod begins; `wfm resume` lets it go on"
        if stopped:
            words = (
                "stopped while it was suspended, which Argo does not look at: `wfm cancel` once more takes that back"
            )
        return Looked("suspended", words, address)
    waits = _list(nodes, ("Pending",))
    if stopped:
        return Looked("running", "stopping" + (f"; {waits}" if waits else ""), address)
    if phase in ("", "Pending"):
        return Looked("pending", said or waits or "Argo has yet to begin it", address)
    return Looked("running", "; ".join(filter(None, (said, waits))), address)


def _list(nodes: list[Mapping[str, Any]], phases: tuple[str, ...]) -> str:
    """``name: message`` of pods in these phases."""
    found = [one for one in nodes if one.get("phase") in phases and one.get("type") == "Pod"]
    told = [f"{text_of(one, 'displayName')}: {_meant(short(one.get('message')))}" for one in found[:_TOLD]]
    more = len(found) - len(told)
    return "; ".join(told) + (f"; and {more} more" if more > 0 else "")


def _meant(message: str) -> str:
    if "exceeded quota" in message:
        return f"waiting for quota: {message}"
    return message or "no reason given"


def template_of(cron: Mapping[str, Any]) -> str:
    return text_of(mapping_of(mapping_of(mapping_of(cron, "spec"), "workflowSpec"), "workflowTemplateRef"), "name")


def recurring(cron: Mapping[str, Any]) -> Recurring:
    spec, status = mapping_of(cron, "spec"), mapping_of(cron, "status")
    return Recurring(
        name=text_of(mapping_of(cron, "metadata"), "name"),
        template=template_of(cron),
        lines=tuple(str(line) for line in list_of(spec, "schedules")),
        zone=text_of(spec, "timezone") or "UTC",
        suspended=spec.get("suspend") is True,
        last=text_of(status, "lastScheduledTime"),
        words="; ".join(_condition(status, text_of(spec, "timezone"))),
    )


def _condition(status: Mapping[str, Any], zone: str) -> Iterator[str]:
    if not zone:
        yield "it names no zone: that of Argo's controller counts, which may be another than UTC"
    if text_of(status, "phase") == "Stopped":
        yield "stopped by its own rule after failures: it starts none until it is deleted and applied again"
    active = [text_of(one, "name") for one in list_of(status, "active") if isinstance(one, Mapping)]
    if active:
        yield f"running now: {', '.join(active[:_TOLD])}"
    if isinstance(status.get("failed"), int) and status["failed"]:
        made = status.get("succeeded")
        yield f"{status['failed']} of {status['failed'] + (made if isinstance(made, int) else 0)} failed"
    for one in list_of(status, "conditions"):
        if isinstance(one, Mapping) and one.get("status") == "True":
            yield f"{text_of(one, 'type')}: {short(one.get('message'))}"
