"""What a job and its place in the queue look like now, read from the API server's objects into plain words; its pods:
`pod_states.py`.

Pure functions: dicts in, small frozen records out, which is all that mirrors keep of five hundred jobs. What an object says
is never a verdict on the artifact (`launcher.py`); it tells who waits for what, and what has died.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from wfm.cluster.fields import conditions_of, list_of, mapping_of, short, text_of, time_of
from wfm.cluster.names import ANNOTATION_HELD, ANNOTATION_RUNS, LABEL_JOB, PREFIX
from wfm.cluster.pod_states import Pod

QueueState = Literal[
    "pending", "inadmissible", "check", "reserved", "admitted", "evicted", "held", "deactivated", "finished"
]
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


@dataclass(frozen=True, slots=True)
class Job:
    """A job of any of the four kinds."""

    name: str
    uid: str
    version: str
    job: str
    created: float
    deleting: bool
    annotations: Mapping[str, str]
    labels: Mapping[str, str]
    images: tuple[str, ...]
    suspended: bool
    over: Literal["", "succeeded", "failed"]
    "What its controller says: it may be wrong (elastic jobs succeed with one pod), late, or never say it (DaskJobs)."
    over_at: float
    words: str
    status: str
    "Of a DaskJob: its jobStatus."
    resumed_at: float = 0.0
    "When it was last let out of a suspension; 0: it was in none."


@dataclass(frozen=True, slots=True)
class Workload:
    """A job's, or a pod's, place in Kueue."""

    name: str
    uid: str
    owner: str
    "uid of what it is for."
    state: QueueState
    words: str
    since: float
    preemption: str
    "Why it was last sent back to the queue; empty when it was not."


# -- jobs


def read_job(found: Mapping[str, Any]) -> Job | None:
    """A job of ours, of whatever kind."""
    meta, spec, status = mapping_of(found, "metadata"), mapping_of(found, "spec"), mapping_of(found, "status")
    labels = mapping_of(meta, "labels")
    if not labels.get(LABEL_JOB):
        return None
    conditions = conditions_of(status)
    over: Literal["", "succeeded", "failed"] = ""
    ended: Mapping[str, Any] = {}
    for name, what in (
        ("Failed", "failed"),
        ("FailureTarget", "failed"),
        ("Succeeded", "succeeded"),
        ("Complete", "succeeded"),
    ):
        if conditions.get(name, {}).get("status") == "True" and not over:
            over, ended = ("failed" if what == "failed" else "succeeded"), conditions[name]
    dask = text_of(status, "jobStatus")
    if not over and dask in ("Successful", "Failed"):
        over = "succeeded" if dask == "Successful" else "failed"
    policy = mapping_of(spec, "runPolicy") or spec
    suspension = conditions.get("Suspended", {})
    resumed = suspension if suspension.get("status") == "False" else {}
    return Job(
        name=text_of(meta, "name"), uid=text_of(meta, "uid"), version=text_of(meta, "resourceVersion"),
        job=text_of(labels, LABEL_JOB),
        created=time_of(meta.get("creationTimestamp")), deleting=bool(meta.get("deletionTimestamp")),
        annotations=_ours(mapping_of(meta, "annotations")), labels={**_ours(labels), **_queue(labels)},
        images=tuple(sorted(set(_images(spec)))), suspended=policy.get("suspend") is True, over=over,
        over_at=time_of(ended.get("lastTransitionTime")), words=short(ended.get("message")), status=dask,
        resumed_at=time_of(resumed.get("lastTransitionTime")),
    )  # fmt: skip


def _ours(words: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in words.items() if name.startswith(PREFIX) and isinstance(value, str)}


def _queue(labels: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in labels.items() if name == QUEUE_LABEL}


def _images(spec: Any) -> Iterable[str]:
    """Every image that a job names, wherever its kind has them."""
    if isinstance(spec, Mapping):
        for name, value in spec.items():
            if name == "image" and isinstance(value, str):
                yield value
            else:
                yield from _images(value)
    elif isinstance(spec, list):
        for each in spec:
            yield from _images(each)


def runs_of(job: Job) -> tuple[str, ...]:
    """Ids of the runs that wait for a job, as noted on it, the one that it was made for first."""
    noted = job.annotations.get(ANNOTATION_RUNS, "").split(",")
    return tuple(dict.fromkeys(one.strip() for one in noted if one.strip()))


# -- the queue


def read_workload(found: Mapping[str, Any]) -> Workload | None:
    """A Workload of Kueue; None for one that belongs to nothing."""
    meta, spec, status = mapping_of(found, "metadata"), mapping_of(found, "spec"), mapping_of(found, "status")
    owner = next((text_of(one, "uid") for one in list_of(meta, "ownerReferences") if isinstance(one, Mapping)), "")
    if not owner:
        return None
    conditions = conditions_of(status)
    state, words, since = _queue_state(spec, status, conditions)
    held = text_of(mapping_of(meta, "annotations"), ANNOTATION_HELD)
    if held and spec.get("active") is False:
        state, words = "held", _held(held)
    evicted = conditions.get("Evicted", {})
    why = f"{text_of(evicted, 'reason')}: {short(evicted.get('message'))}" if evicted else ""
    return Workload(text_of(meta, "name"), text_of(meta, "uid"), owner, state, words, since, why)


def _queue_state(
    spec: Mapping[str, Any], status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]
) -> tuple[QueueState, str, float]:
    def true(name: str) -> Mapping[str, Any] | None:
        found = conditions.get(name, {})
        return found if found.get("status") == "True" else None

    def told(found: Mapping[str, Any]) -> tuple[str, float]:
        return short(found.get("message")) or text_of(found, "reason"), time_of(found.get("lastTransitionTime"))

    evicted = true("Evicted")
    reason = text_of(evicted or {}, "reason")
    if spec.get("active") is False or (reason.startswith("Deactivated") and spec.get("active") is not True):
        words, since = told(evicted or {})
        return "deactivated", f"deactivated in the queue, and suspended for good: {words or 'by hand'}", since
    if finished := true("Finished"):
        return "finished", told(finished)[0], told(finished)[1]
    if evicted is not None and true("Admitted") is None:
        words, since = told(evicted)
        named = {
            "Preempted": "preempted in the queue",
            "PodsReadyTimeout": "sent back to the queue: its pods were not ready in the time that the cluster allows",
            "AdmissionCheck": "sent back to the queue by an admission check",
            "ClusterQueueStopped": "its queue was stopped", "LocalQueueStopped": "its queue was stopped",
            "NodeFailures": "sent back to the queue: nodes failed",
        }  # fmt: skip
        return "evicted", f"{named.get(reason, f'evicted ({reason})')}: {words}", since
    if admitted := true("Admitted"):
        return "admitted", told(admitted)[0], told(admitted)[1]
    waits = [
        one for one in list_of(status, "admissionChecks") if isinstance(one, Mapping) and one.get("state") != "Ready"
    ]
    if true("QuotaReserved") and waits:
        first = waits[0]
        return "check", f"waiting for the admission check {text_of(first, 'name')}: {short(first.get('message'))}", 0.0
    if reserved := true("QuotaReserved"):
        return "reserved", "its quota is reserved, it is about to begin", told(reserved)[1]
    pending = conditions.get("QuotaReserved", {})
    words, since = told(pending)
    if text_of(pending, "reason") == "Inadmissible":
        return "inadmissible", f"the queue cannot take it: {words}", since
    return "pending", f"queued: {words or 'waiting for its turn'}", since


def _held(by: str) -> str:
    return f"held back: {short(by)} suspended it, and `wfm resume` lets it go on"


# -- all together


def words_of(job: Job | None, pods: Sequence[Pod], workload: Workload | None, queued: bool) -> str:
    """What people are told of a job: the first that keeps it from running, else how many run. ``queued``: it is in a queue."""
    if job is None:
        left = [pod for pod in pods if pod.live]
        return f"{len(left)} pods of the last try are still leaving" if left else "no job yet"
    if job.deleting:
        return "its job is being deleted"
    if workload is not None and workload.state in (
        "held",
        "deactivated",
        "evicted",
        "inadmissible",
        "check",
        "pending",
        "reserved",
    ):
        return workload.words
    if job.suspended and job.annotations.get(ANNOTATION_HELD):
        return _held(job.annotations[ANNOTATION_HELD])
    if job.suspended:
        return "suspended: waiting for its turn in the queue" if queued else "suspended by somebody"
    counted = [pod for pod in pods if not pod.deleting]
    for state in ("bad_image", "bad_config", "no_image", "lost", "unschedulable", "gated", "pending", "creating"):
        stuck = [pod for pod in counted if pod.state == state]
        if stuck:
            others = f" (and {len(stuck) - 1} pods more)" if len(stuck) > 1 else ""
            return f"{stuck[0].words}{others}"
    running = [pod for pod in counted if pod.state == "running"]
    if running:
        silent = "".join(f"; {pod.words}" for pod in running if pod.silent)
        return f"running: {len(running)} of {len(counted)} pods{silent[:400]}"
    ended = [pod for pod in counted if pod.end is not None]
    if ended and ended[0].end is not None:
        return ended[0].end.words
    return {"succeeded": "its controller says it is through", "failed": f"failed: {job.words}"}.get(
        job.over, "no pods yet"
    )
