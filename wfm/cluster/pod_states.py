"""What the pods of a job look like now, and how they came to their end, in plain words.

Pure functions, as in `states.py`. What a pod says is never a verdict on the artifact (`launcher.py`).

| field      | meaning |
|------------|---------|
| state      | a word that decisions look at |
| words      | the same for people, with the scheduler's or the kubelet's own message |
| disruption | of an end: nobody's fault (preempted, evicted, node lost): no try is counted against the stage |
| blames     | of an end: the node may be the cause, so the next try avoids it |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from wfm.cluster.fields import conditions_of, list_of, mapping_of, short, text_of, time_of
from wfm.cluster.names import LABEL_JOB
from wfm.errors import EXIT_OUTCOMES

PodState = Literal[
    "gated", "pending", "unschedulable", "creating", "no_image", "bad_image", "bad_config", "running", "succeeded", "failed",
    "lost",
]  # fmt: skip
LIVE: frozenset[str] = frozenset(("creating", "no_image", "bad_image", "bad_config", "running", "lost"))
"""States of pods that are on a node and hold what they asked for."""
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
    silent: bool = False
    "Whether the cluster hears nothing of its node; it may run there all the same."

    @property
    def live(self) -> bool:
        """Whether it may hold devices and do work."""
        return self.state in LIVE

    @property
    def leads(self) -> bool:
        """Whether it is one that keeps an attempt of its own."""
        return self.role == RUNNER or (not self.role and self.index in ("", "0"))


def read_pod(found: Mapping[str, Any]) -> Pod | None:
    """A pod of one of our jobs; None for another."""
    meta, spec, status = mapping_of(found, "metadata"), mapping_of(found, "spec"), mapping_of(found, "status")
    labels = mapping_of(meta, "labels")
    if not labels.get(LABEL_JOB):
        return None
    node = text_of(spec, "nodeName")
    conditions = conditions_of(status)
    statuses = _containers(status)
    begun = [
        time_of(mapping_of(mapping_of(one, "state"), how).get("startedAt"))
        for one in statuses
        for how in ("running", "terminated")
    ]
    placed = conditions.get("PodScheduled", {})
    scheduled = time_of(placed.get("lastTransitionTime")) if placed.get("status") == "True" else 0.0
    state, words, since = _pod_state(status, node, conditions, statuses)
    disrupted = conditions.get("DisruptionTarget", {}).get("status") == "True"
    going = disrupted or bool(meta.get("deletionTimestamp"))
    end = pod_end(found) if state == "failed" or (going and state != "succeeded") else None
    index = text_of(labels, "training.kubeflow.org/replica-index") or text_of(
        labels, "batch.kubernetes.io/job-completion-index"
    )
    return Pod(
        name=text_of(meta, "name"), uid=text_of(meta, "uid"), job=text_of(labels, LABEL_JOB),
        role=text_of(labels, "dask.org/component"), index=index,
        node=node, state=state, words=words, created=time_of(meta.get("creationTimestamp")),
        scheduled=scheduled or (time_of(status.get("startTime")) if node else 0.0),
        started=min((one for one in begun if one), default=0.0),
        since=since or scheduled or time_of(meta.get("creationTimestamp")),
        deleting=time_of(meta.get("deletionTimestamp")), going_since=_asked_to_go(meta), end=end,
        silent=state == "running" and _is_silent(conditions, statuses),
    )  # fmt: skip


def _pod_state(
    status: Mapping[str, Any],
    node: str,
    conditions: Mapping[str, Mapping[str, Any]],
    statuses: Sequence[Mapping[str, Any]],
) -> tuple[PodState, str, float]:
    """(state, words, since when)."""
    phase = text_of(status, "phase")
    if phase == "Succeeded":
        return "succeeded", "through", 0.0
    if phase == "Failed":
        return "failed", "failed", 0.0
    ready = conditions.get("Ready", {})
    lost = phase == "Unknown" or text_of(status, "reason") == "NodeLost" or ready.get("status") == "Unknown"
    if lost or text_of(ready, "reason") == "NodeStatusUnknown":
        return "lost", f"its node {node or '(none)'} does not answer", time_of(ready.get("lastTransitionTime"))
    placed = conditions.get("PodScheduled", {})
    if not node:
        message = short(placed.get("message"))
        if text_of(placed, "reason") == "SchedulingGated":
            return "gated", "held back by a scheduling gate", 0.0
        if text_of(placed, "reason") == "Unschedulable":
            since = time_of(placed.get("lastTransitionTime"))
            return "unschedulable", f"no node can take it: {message or 'the scheduler does not say why'}", since
        return "pending", "waiting for the scheduler", 0.0
    for one in statuses:
        waiting = mapping_of(mapping_of(one, "state"), "waiting")
        reason, message, image = text_of(waiting, "reason"), short(waiting.get("message")), text_of(one, "image")
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
        if _is_silent(conditions, statuses):
            words = (
                f"its node {node} is silent: the cluster hears nothing of it, and takes its pods away in some minutes"
            )
            return "running", words, time_of(ready.get("lastTransitionTime"))
        return "running", "running", 0.0
    image = next((text_of(one, "image") for one in statuses), "")
    return "creating", f"pulling image {image}" if image else "its node makes it ready", 0.0


def _is_silent(conditions: Mapping[str, Mapping[str, Any]], statuses: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the cluster has lost sight of a pod's node: then it says that the pod is not ready (`MarkPodsNotReady` of the
    node life cycle gives no reason), and the kubelet's own last words, that all its containers are, stand beside it. That is
    no end of the pod: its processes may be well."""
    ready = conditions.get("Ready", {})
    unsaid = ready.get("status") == "False" and text_of(ready, "reason") in ("", "NodeLost")
    return unsaid and bool(statuses) and all(one.get("ready") is True for one in statuses)


def pod_end(found: Mapping[str, Any]) -> PodEnd:
    """How a pod that failed, or is taken away, came to that."""
    spec, status = mapping_of(found, "spec"), mapping_of(found, "status")
    node, reason, message = (
        text_of(spec, "nodeName") or "(none)",
        text_of(status, "reason"),
        short(status.get("message")),
    )
    statuses = _containers(status)
    codes = [mapping_of(mapping_of(one, "state"), "terminated") for one in statuses]
    for one, ended in zip(statuses, codes, strict=True):
        if text_of(ended, "reason") == "OOMKilled":
            return PodEnd(
                f"out of memory: its container {text_of(one, 'name')} held more than its limit, and the kernel killed it "
                "(OOMKilled): give it more memory_gib", "memory", exit_code=137,
            )  # fmt: skip
    target = conditions_of(status).get("DisruptionTarget", {})
    if target.get("status") == "True" and text_of(target, "reason") in _DISRUPTIONS:
        words, blames = _DISRUPTIONS[text_of(target, "reason")]
        return PodEnd(words.format(node=node), "lost" if blames else "evicted", disruption=True, blames=blames)
    if reason in _REASONS or reason.startswith("OutOf"):
        words, disruption, blames = _REASONS.get(reason, ("its node {node} had no room for it: {message}", True, True))
        text = words.format(node=node, message=message or "no message")
        cause: Literal["lost", "evicted", "unknown"] = "lost" if blames else "evicted" if disruption else "unknown"
        return PodEnd(text, cause, disruption=disruption, blames=blames)
    for one, ended in zip(statuses, codes, strict=True):
        code = ended.get("exitCode")
        if isinstance(code, int) and code != 0:
            if text_of(ended, "reason") == "ContainerStatusUnknown":
                return PodEnd(
                    f"its node {node} does not know any more what became of it", "lost", disruption=True, blames=True
                )
            if _ended_on_request(found, ended):
                break
            name = text_of(one, "name")
            how = f"was killed by signal {code - 128}" if code > 128 else f"ended with exit code {code}"
            said = short(ended.get("message"))
            words = f"container {name} {how} on node {node}" + (f": {said}" if said else "")
            return PodEnd(words, "exit", blames=code > 128 and code not in EXIT_OUTCOMES, exit_code=code)
    if target.get("status") == "True":
        return PodEnd(
            f"stopped by its node {node}: {short(target.get('message'))}", "lost", disruption=True, blames=True
        )
    if mapping_of(found, "metadata").get("deletionTimestamp"):
        return PodEnd("its pod was deleted", "deleted", disruption=True)
    return PodEnd(f"failed on node {node}: {reason or 'no reason'} {message}".rstrip(), blames=True)


def _ended_on_request(found: Mapping[str, Any], ended: Mapping[str, Any]) -> bool:
    """Whether a container ended after its pod was asked to go: its exit code says nothing of it then."""
    asked = _asked_to_go(mapping_of(found, "metadata"))
    return bool(asked) and time_of(ended.get("finishedAt")) >= asked


def _asked_to_go(meta: Mapping[str, Any]) -> float:
    grace = meta.get("deletionGracePeriodSeconds")
    gone = time_of(meta.get("deletionTimestamp"))
    return gone - (grace if gone and isinstance(grace, int) else 0)


def _containers(status: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    both = [*list_of(status, "initContainerStatuses"), *list_of(status, "containerStatuses")]
    return [one for one in both if isinstance(one, Mapping)]
