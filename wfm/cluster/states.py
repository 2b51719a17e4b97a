"""What a job, its pods and its place in the queue look like now, read from the API server's objects into plain words.

Pure functions: dicts in, small frozen records out, which is all that mirrors keep of five hundred jobs. What an object says
is never a verdict on the artifact (`launcher.py`); it tells who waits for what, what has died, and whose fault it may be.

| field      | meaning |
|------------|---------|
| state      | a word that decisions look at |
| words      | the same for people, with the scheduler's or the kubelet's own message |
| disruption | of an end: nobody's fault (preempted, evicted, node lost): no try is counted against the stage |
| blames     | of an end: the node may be the cause, so the next try avoids it |
"""

import calendar
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from wfm.cluster.names import ANNOTATION_RUNS, LABEL_JOB, PREFIX
from wfm.errors import EXIT_OUTCOMES

PodState = Literal[
    "gated", "pending", "unschedulable", "creating", "no_image", "bad_image", "bad_config", "running", "succeeded", "failed",
    "lost",
]  # fmt: skip
QueueState = Literal["pending", "inadmissible", "check", "reserved", "admitted", "evicted", "deactivated", "finished"]
LIVE: frozenset[str] = frozenset(("creating", "no_image", "bad_image", "bad_config", "running", "lost"))
"""States of pods that are on a node and hold what they asked for."""
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z")
_MESSAGE = 400
RUNNER = "job-runner"
_DISRUPTIONS = {
    "PreemptionByScheduler": ("preempted: the scheduler needed its place for a pod of higher priority", False),
    "DeletionByTaintManager": ("its node {node} was lost or tainted, and the pod deleted", True),
    "EvictionByEvictionAPI": ("evicted through the API: its node {node} is drained", False),
    "DeletionByPodGC": ("its node {node} is gone", True),
}
_REASONS = {
    "Evicted": ("evicted by its node {node}: {message}", True, True),
    "NodeShutdown": ("its node {node} was shut down", True, True),
    "Shutdown": ("its node {node} was shut down", True, True),
    "Terminated": ("its node {node} was shut down", True, True),
    "NodeLost": ("its node {node} was lost", True, True),
    "NodeAffinity": ("its node {node} no longer fits: {message}", True, True),
    "UnexpectedAdmissionError": ("its node {node} did not take it: {message}", True, True),
    "Preempting": ("preempted on its node {node} by a pod that the node itself needs", True, False),
    "DeadlineExceeded": ("it ran longer than its activeDeadlineSeconds", False, False),
}
"""Reason of a failed pod -> (words, disruption, whether the node may be the cause)."""


@dataclass(frozen=True, slots=True)
class PodEnd:
    """How a pod came to its end."""

    words: str
    cause: Literal["memory", "lost", "evicted", "exit", "unknown", "deleted"] = "unknown"
    disruption: bool = False
    blames: bool = False
    exit_code: int | None = None

    @property
    def outcome(self) -> str:
        """What it means where the stage wrote no outcome."""
        if self.disruption or self.exit_code is None or self.exit_code > 128:
            return "try_again"
        outcome = EXIT_OUTCOMES.get(self.exit_code, "bug")
        return "try_again" if outcome in ("done", "cancelled") else outcome


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, as far as it matters here."""

    name: str
    uid: str
    job: str
    "Label that names its job."
    role: str
    "Of a DaskJob: ``job-runner``, ``scheduler``, ``worker``; else empty."
    index: str
    "Of an Indexed Job, or the rank of its pod; else empty."
    node: str
    state: PodState
    words: str
    created: float
    scheduled: float
    "When it got its node; 0: not yet."
    started: float
    "When its containers began to run; 0: not yet."
    since: float
    "When it came into its state, as far as that is told."
    deleting: float
    "When it is to be gone, grace included; 0: nobody wants it to."
    going_since: float
    "When it was asked to."
    end: PodEnd | None

    @property
    def live(self) -> bool:
        """Whether it may hold devices and do work."""
        return self.state in LIVE

    @property
    def leads(self) -> bool:
        """Whether it is one that keeps an attempt of its own."""
        return self.role == RUNNER or (not self.role and self.index in ("", "0"))


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


def time_of(text: Any) -> float:
    """Seconds since 1970 of a time of the API server; 0 for anything else."""
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return 0.0
    year, month, day, hour, minute, second = (int(word) for word in re.split(r"[-T:]", found[1]))
    return calendar.timegm((year, month, day, hour, minute, second)) + float(found[2] or 0)


# -- pods


def read_pod(found: Mapping[str, Any]) -> Pod | None:
    """A pod of one of our jobs; None for another."""
    meta, spec, status = _of(found, "metadata"), _of(found, "spec"), _of(found, "status")
    labels = _of(meta, "labels")
    if not labels.get(LABEL_JOB):
        return None
    node = _text(spec, "nodeName")
    conditions = _conditions(status)
    statuses = _containers(status)
    begun = [
        time_of(_of(_of(one, "state"), how).get("startedAt")) for one in statuses for how in ("running", "terminated")
    ]
    placed = conditions.get("PodScheduled", {})
    scheduled = time_of(placed.get("lastTransitionTime")) if placed.get("status") == "True" else 0.0
    state, words, since = _pod_state(status, node, conditions, statuses)
    disrupted = conditions.get("DisruptionTarget", {}).get("status") == "True"
    going = disrupted or bool(meta.get("deletionTimestamp"))
    end = pod_end(found) if state == "failed" or (going and state != "succeeded") else None
    index = _text(labels, "training.kubeflow.org/replica-index") or _text(
        labels, "batch.kubernetes.io/job-completion-index"
    )
    return Pod(
        name=_text(meta, "name"), uid=_text(meta, "uid"), job=_text(labels, LABEL_JOB),
        role=_text(labels, "dask.org/component"), index=index,
        node=node, state=state, words=words, created=time_of(meta.get("creationTimestamp")),
        scheduled=scheduled or (time_of(status.get("startTime")) if node else 0.0),
        started=min((one for one in begun if one), default=0.0),
        since=since or scheduled or time_of(meta.get("creationTimestamp")),
        deleting=time_of(meta.get("deletionTimestamp")), going_since=_asked_to_go(meta), end=end,
    )  # fmt: skip


def _pod_state(
    status: Mapping[str, Any],
    node: str,
    conditions: Mapping[str, Mapping[str, Any]],
    statuses: Sequence[Mapping[str, Any]],
) -> tuple[PodState, str, float]:
    """(state, words, since when)."""
    phase = _text(status, "phase")
    if phase == "Succeeded":
        return "succeeded", "through", 0.0
    if phase == "Failed":
        return "failed", "failed", 0.0
    ready = conditions.get("Ready", {})
    lost = phase == "Unknown" or _text(status, "reason") == "NodeLost" or ready.get("status") == "Unknown"
    if lost or _text(ready, "reason") == "NodeStatusUnknown":
        return "lost", f"its node {node or '(none)'} does not answer", time_of(ready.get("lastTransitionTime"))
    placed = conditions.get("PodScheduled", {})
    if not node:
        message = _short(placed.get("message"))
        if _text(placed, "reason") == "SchedulingGated":
            return "gated", "held back by a scheduling gate", 0.0
        if _text(placed, "reason") == "Unschedulable":
            since = time_of(placed.get("lastTransitionTime"))
            return "unschedulable", f"no node can take it: {message or 'the scheduler does not say why'}", since
        return "pending", "waiting for the scheduler", 0.0
    for one in statuses:
        waiting = _of(_of(one, "state"), "waiting")
        reason, message, image = _text(waiting, "reason"), _short(waiting.get("message")), _text(one, "image")
        if reason in (
            "ErrImagePull",
            "ImagePullBackOff",
            "RegistryUnavailable",
            "ImageInspectError",
            "ErrImageNeverPull",
        ):
            return "no_image", f"the image {image} cannot be pulled ({reason}): {message or 'no reason is given'}", 0.0
        if reason == "InvalidImageName":
            return "bad_image", f"{image!r} is no name of an image (InvalidImageName): {message}", 0.0
        if reason in ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError"):
            return "bad_config", f"its container cannot be made ({reason}): {message or 'no reason is given'}", 0.0
        if reason == "CrashLoopBackOff":
            return "bad_config", f"its container ends again and again (CrashLoopBackOff): {message}", 0.0
    if phase == "Running":
        return "running", "running", 0.0
    image = next((_text(one, "image") for one in statuses), "")
    return "creating", f"pulling image {image}" if image else "its node makes it ready", 0.0


def pod_end(found: Mapping[str, Any]) -> PodEnd:
    """How a pod that failed, or is taken away, came to that."""
    spec, status = _of(found, "spec"), _of(found, "status")
    node, reason, message = _text(spec, "nodeName") or "(none)", _text(status, "reason"), _short(status.get("message"))
    statuses = _containers(status)
    codes = [_of(_of(one, "state"), "terminated") for one in statuses]
    for one, ended in zip(statuses, codes, strict=True):
        if _text(ended, "reason") == "OOMKilled":
            return PodEnd(
                f"out of memory: its container {_text(one, 'name')} held more than its limit, and the kernel killed it "
                "(OOMKilled): give it more memory_gib", "memory", exit_code=137,
            )  # fmt: skip
    target = _conditions(status).get("DisruptionTarget", {})
    if target.get("status") == "True" and _text(target, "reason") in _DISRUPTIONS:
        words, blames = _DISRUPTIONS[_text(target, "reason")]
        return PodEnd(words.format(node=node), "lost" if blames else "evicted", disruption=True, blames=blames)
    if reason in _REASONS or reason.startswith("OutOf"):
        words, disruption, blames = _REASONS.get(reason, ("its node {node} had no room for it: {message}", True, True))
        text = words.format(node=node, message=message or "no message")
        cause: Literal["lost", "evicted", "unknown"] = "lost" if blames else "evicted" if disruption else "unknown"
        return PodEnd(text, cause, disruption=disruption, blames=blames)
    for one, ended in zip(statuses, codes, strict=True):
        code = ended.get("exitCode")
        if isinstance(code, int) and code != 0:
            if _text(ended, "reason") == "ContainerStatusUnknown":
                return PodEnd(
                    f"its node {node} does not know any more what became of it", "lost", disruption=True, blames=True
                )
            if _ended_on_request(found, ended):
                break
            name = _text(one, "name")
            how = f"was killed by signal {code - 128}" if code > 128 else f"ended with exit code {code}"
            said = _short(ended.get("message"))
            words = f"container {name} {how} on node {node}" + (f": {said}" if said else "")
            return PodEnd(words, "exit", blames=code > 128 and code not in EXIT_OUTCOMES, exit_code=code)
    if target.get("status") == "True":
        return PodEnd(
            f"stopped by its node {node}: {_short(target.get('message'))}", "lost", disruption=True, blames=True
        )
    if _of(found, "metadata").get("deletionTimestamp"):
        return PodEnd("its pod was deleted", "deleted", disruption=True)
    return PodEnd(f"failed on node {node}: {reason or 'no reason'} {message}".rstrip(), blames=True)


def _ended_on_request(found: Mapping[str, Any], ended: Mapping[str, Any]) -> bool:
    """Whether a container ended after its pod was asked to go: its exit code says nothing of it then."""
    asked = _asked_to_go(_of(found, "metadata"))
    return bool(asked) and time_of(ended.get("finishedAt")) >= asked


def _asked_to_go(meta: Mapping[str, Any]) -> float:
    grace = meta.get("deletionGracePeriodSeconds")
    gone = time_of(meta.get("deletionTimestamp"))
    return gone - (grace if gone and isinstance(grace, int) else 0)


def _containers(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    both = [*_list(status, "initContainerStatuses"), *_list(status, "containerStatuses")]
    return [one for one in both if isinstance(one, Mapping)]


# -- jobs


def read_job(found: Mapping[str, Any]) -> Job | None:
    """A job of ours, of whatever kind."""
    meta, spec, status = _of(found, "metadata"), _of(found, "spec"), _of(found, "status")
    labels = _of(meta, "labels")
    if not labels.get(LABEL_JOB):
        return None
    conditions = _conditions(status)
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
    dask = _text(status, "jobStatus")
    if not over and dask in ("Successful", "Failed"):
        over = "succeeded" if dask == "Successful" else "failed"
    policy = _of(spec, "runPolicy") or spec
    suspension = conditions.get("Suspended", {})
    resumed = suspension if suspension.get("status") == "False" else {}
    return Job(
        name=_text(meta, "name"), uid=_text(meta, "uid"), version=_text(meta, "resourceVersion"), job=_text(labels, LABEL_JOB),
        created=time_of(meta.get("creationTimestamp")), deleting=bool(meta.get("deletionTimestamp")),
        annotations=_ours(_of(meta, "annotations")), labels={**_ours(labels), **_queue(labels)},
        images=tuple(sorted(set(_images(spec)))), suspended=policy.get("suspend") is True, over=over,
        over_at=time_of(ended.get("lastTransitionTime")), words=_short(ended.get("message")), status=dask,
        resumed_at=time_of(resumed.get("lastTransitionTime")),
    )  # fmt: skip


def _ours(words: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in words.items() if name.startswith(PREFIX) and isinstance(value, str)}


def _queue(labels: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in labels.items() if name == "kueue.x-k8s.io/queue-name"}


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
    meta, spec, status = _of(found, "metadata"), _of(found, "spec"), _of(found, "status")
    owner = next((_text(one, "uid") for one in _list(meta, "ownerReferences") if isinstance(one, Mapping)), "")
    if not owner:
        return None
    conditions = _conditions(status)
    state, words, since = _queue_state(spec, status, conditions)
    evicted = conditions.get("Evicted", {})
    why = f"{_text(evicted, 'reason')}: {_short(evicted.get('message'))}" if evicted else ""
    return Workload(_text(meta, "name"), _text(meta, "uid"), owner, state, words, since, why)


def _queue_state(
    spec: Mapping[str, Any], status: Mapping[str, Any], conditions: Mapping[str, Mapping[str, Any]]
) -> tuple[QueueState, str, float]:
    def true(name: str) -> Mapping[str, Any] | None:
        found = conditions.get(name, {})
        return found if found.get("status") == "True" else None

    def told(found: Mapping[str, Any]) -> tuple[str, float]:
        return _short(found.get("message")) or _text(found, "reason"), time_of(found.get("lastTransitionTime"))

    evicted = true("Evicted")
    reason = _text(evicted or {}, "reason")
    if spec.get("active") is False or reason.startswith("Deactivated"):
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
        one for one in _list(status, "admissionChecks") if isinstance(one, Mapping) and one.get("state") != "Ready"
    ]
    if true("QuotaReserved") and waits:
        first = waits[0]
        return "check", f"waiting for the admission check {_text(first, 'name')}: {_short(first.get('message'))}", 0.0
    if reserved := true("QuotaReserved"):
        return "reserved", "its quota is reserved, it is about to begin", told(reserved)[1]
    pending = conditions.get("QuotaReserved", {})
    words, since = told(pending)
    if _text(pending, "reason") == "Inadmissible":
        return "inadmissible", f"the queue cannot take it: {words}", since
    return "pending", f"queued: {words or 'waiting for its turn'}", since


# -- all together


def words_of(job: Job | None, pods: Sequence[Pod], workload: Workload | None, queued: bool) -> str:
    """What people are told of a job: the first that keeps it from running, else how many run. ``queued``: it is in a queue."""
    if job is None:
        left = [pod for pod in pods if pod.live]
        return f"{len(left)} pods of the last try are still leaving" if left else "no job yet"
    if job.deleting:
        return "its job is being deleted"
    if workload is not None and workload.state in (
        "deactivated",
        "evicted",
        "inadmissible",
        "check",
        "pending",
        "reserved",
    ):
        return workload.words
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
        return f"running: {len(running)} of {len(counted)} pods"
    ended = [pod for pod in counted if pod.end is not None]
    if ended and ended[0].end is not None:
        return ended[0].end.words
    return {"succeeded": "its controller says it is through", "failed": f"failed: {job.words}"}.get(
        job.over, "no pods yet"
    )


def _conditions(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Type -> condition."""
    found = (one for one in _list(status, "conditions") if isinstance(one, Mapping))
    return {_text(one, "type"): one for one in found}


def _of(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = found.get(name)
    return value if isinstance(value, Mapping) else {}


def _list(found: Mapping[str, Any], name: str) -> list[Any]:
    value = found.get(name)
    return value if isinstance(value, list) else []


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    return value if isinstance(value, str) else ""


def _short(value: Any) -> str:
    return " ".join(value.split())[:_MESSAGE] if isinstance(value, str) else ""
