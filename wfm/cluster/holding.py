"""Holding back the jobs of a run, so that they give their devices back and can go on later.

A job with a place in Kueue is held by its Workload (``spec.active: false``): Kueue suspends the job, whose pods end in order
and save what they have, and its quota is free for others. Taken back, it waits for its turn again. A job that waits in no
queue is suspended itself. Both bear `ANNOTATION_HELD`, by which a launcher tells them from what the queue itself has put out
for good (`states.py`), and by which only what was held here is let go again.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from wfm.cluster.api import Api
from wfm.cluster.fields import list_of, mapping_of, text_of
from wfm.cluster.kinds import DASKJOB, JOB, PYTORCHJOB, TRAINJOB, WORKLOAD, Resource
from wfm.cluster.names import ANNOTATION_HELD, LABEL_RUN, label_value
from wfm.cluster.refusals import Conflict, NoSuchResource, NotFound
from wfm.cluster.states import QUEUE_LABEL, Job, read_job, runs_of

KINDS = (PYTORCHJOB, TRAINJOB, JOB, DASKJOB)
_TRIES = 5
NO_PLACE = "has no place in the queue yet: ask once more in a moment"


def hold(api: Api, run_id: str, by: str) -> list[str]:
    """Hold all jobs of a run that no other run needs; a line for each. Raises what the API server says."""
    return [_hold(api, kind, job, run_id, by) for kind, job in _jobs(api, run_id) if not job.over]


def let_go(api: Api, run_id: str) -> list[str]:
    """Take `hold` back; a line for each job that was held."""
    return [words for kind, job in _jobs(api, run_id) if (words := _let_go(api, kind, job))]


def _hold(api: Api, kind: Resource, job: Job, run_id: str, by: str) -> str:
    others = [one for one in runs_of(job) if one != run_id]
    if others:
        return f"{job.name} goes on: run {', '.join(others[:3])} needs it too"
    if kind == DASKJOB:
        return f"{job.name} goes on to its end: a DaskJob cannot be held"
    for place in _places(api, job):
        _patch(api, WORKLOAD, place, {"spec": {"active": False}, "metadata": {"annotations": {ANNOTATION_HELD: by}}})
        return f"{job.name} is put out of the queue, and gives back what it holds"
    if job.labels.get(QUEUE_LABEL):
        return f"{job.name} {NO_PLACE}"
    _patch(
        api, kind, job.name, {**_suspended(kind, True), "metadata": {"annotations": {ANNOTATION_HELD: by}}}
    )  # no queue decides about it
    return f"{job.name} is suspended, and gives back what it holds"


def _let_go(api: Api, kind: Resource, job: Job) -> str:
    if ANNOTATION_HELD in job.annotations:
        _patch(api, kind, job.name, {**_suspended(kind, False), "metadata": {"annotations": {ANNOTATION_HELD: None}}})
        return f"{job.name} goes on"
    for place in _places(api, job):
        if ANNOTATION_HELD in mapping_of(mapping_of(place, "metadata"), "annotations"):
            _patch(
                api, WORKLOAD, place, {"spec": {"active": True}, "metadata": {"annotations": {ANNOTATION_HELD: None}}}
            )
            return f"{job.name} waits for its turn in the queue again"
    return ""


def _suspended(kind: Resource, value: bool) -> dict[str, Any]:
    inner = {"suspend": value}
    return {"spec": {"runPolicy": inner} if kind == PYTORCHJOB else inner}


def _patch(api: Api, resource: Resource, found: str | Mapping[str, Any], body: dict[str, Any]) -> None:
    """Change it, whoever else does at this moment; what is gone needs it no more."""
    name = found if isinstance(found, str) else text_of(mapping_of(found, "metadata"), "name")
    for left in reversed(range(_TRIES)):
        try:
            api.patch(resource, name, body)
            return
        except NotFound:
            return
        except Conflict:
            if not left:
                raise


def _jobs(api: Api, run_id: str) -> Iterator[tuple[Resource, Job]]:
    """Those that were made for a run, of whatever kind the cluster has."""
    for kind in KINDS:
        try:
            found = api.list(kind, selector=f"{LABEL_RUN}={label_value(run_id)}").objects
        except NoSuchResource:
            continue
        for one in found:
            job = read_job(one)
            if job is not None and not job.deleting:
                yield kind, job


def _places(api: Api, job: Job) -> Iterator[Mapping[str, Any]]:
    """Its Workload, where it has one."""
    try:
        found = api.list(WORKLOAD).objects
    except NoSuchResource:
        return
    for one in found:
        owners = [mapping_of({"of": owner}, "of") for owner in list_of(mapping_of(one, "metadata"), "ownerReferences")]
        if any(text_of(owner, "uid") == job.uid for owner in owners):
            yield one
