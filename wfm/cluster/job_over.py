"""Why a job is over: what its controller, its pods, its queue or its time say. Whether it made anything is not asked here."""

from collections.abc import Sequence

from wfm.cluster.names import PREFIX
from wfm.cluster.pod_states import RUNNER, Pod
from wfm.cluster.records import Death
from wfm.cluster.settings import Patience
from wfm.cluster.states import Job
from wfm.cluster.verdict import blamed, worst
from wfm.cluster.view import View, try_of

LINGER_SECONDS = 30.0
"""For a stage whose work is in the store, or whose job is over, to say its last words [s]."""
ANNOTATION_AVOID = f"{PREFIX}avoid"
"""Annotation: nodes that a job is kept from."""
AVOID_SECONDS = 120.0
"""So long a job is kept from nodes that failed when no other can take it; the next try is kept from none [s]."""
QUIET_SECONDS = 60.0
"""A job whose pods are all gone or through, and whose controller says nothing, is over after this [s]."""
_NEVER = ("not found", "manifest unknown", "unauthorized", "denied", "authentication required", "does not exist")
"""What a registry says when waiting does not help."""


def over(view: View, job: Job) -> Death | None:
    """Why a job is over, in the words of its record; None while it is not. Whether it made anything is not asked here."""
    tries = [one for one in view.job_tries if one.number >= try_of(job)]
    ended = next((one for one in tries if one.ends_job), None)
    if ended is not None:
        return Death(ended.reason, ended.outcome, number=ended.number, ends_job=True)
    live = [pod for pod in view.pods if pod.live]
    if job.over:
        # an elastic job has succeeded when one of its pods has; a failed one may have survivors that hold devices
        if live and view.now - (job.over_at or view.now) < LINGER_SECONDS and not (tries and tries[-1].outcome):
            return None
        return _by_pods(view, job)
    workload = view.workload
    if workload is not None and workload.state == "deactivated":
        return Death(workload.words, ends_job=True, gives_up=True)
    if job.suspended:
        unheard = _unheard(view, job)
        # nothing final: a queue's controllers may only be late, and what is not there yet proves nothing
        return Death(unheard, ends_job=True, unschedulable=True) if unheard else None
    stuck = _stuck(view, job)
    if stuck is not None:
        return stuck
    if view.told_since and view.now - view.told_since > view.patience.start_seconds:
        return _by_pods(view, job)
    # one without any pods may have been let in a moment ago, and wait for its controller
    limit = QUIET_SECONDS if view.pods else view.patience.start_seconds
    if (
        view.quiet_since
        and view.now - view.quiet_since > limit
        and not view.refused
        and (view.pods or tries or view.departed)
    ):
        return _by_pods(view, job)
    return None


def _by_pods(view: View, job: Job) -> Death:
    """The death of a job whose pods, or whose controller, have ended it."""
    pods = [pod for pod in (*view.pods, *view.departed) if pod.created >= job.created - 1]
    found = worst(pods)
    end = found.end if found is not None else None
    if end is not None and end.cause == "deleted" and job.over:
        # taken away by hand, and that failed the job; or by the controller, because it had failed, or ran too long
        by_hand = found is not None and found.going_since <= job.over_at and "deadline" not in job.words.lower()
        end = end if by_hand else None
    if found is not None and end is not None:
        who = f"{found.name}: " if len(pods) > 1 else ""
        return Death(f"{who}{end.words}", end.outcome, disruption=end.disruption, nodes=blamed(pods), pod=found.name)
    if job.over == "failed":
        return Death(f"its controller says that it failed: {job.words or 'no reason'}")
    if job.over == "succeeded":
        return Death("its controller says that it succeeded, but the artifact is not in the store")
    return Death("its pods are gone, and nobody said why", disruption=True)


def _stuck(view: View, job: Job) -> Death | None:
    """Pods that will not come, or do not end."""
    now, patience, pods = view.now, view.patience, [pod for pod in view.pods if not pod.deleting]
    some_run = any(pod.state == "running" and one_of_many(view, pod) for pod in pods)
    for pod in pods:
        since = now - max(pod.since, job.created)
        if some_run and one_of_many(view, pod) and pod.state in ("unschedulable", "creating", "no_image"):
            continue  # the others do the work
        if pod.state == "bad_image":
            return Death(pod.words, "wrong_input", ends_job=True)
        if pod.state == "bad_config" and since > patience.start_seconds:
            return Death(pod.words, "wrong_input", ends_job=True)
        if pod.state == "no_image" and since > patience.image_pull_seconds:
            final = any(word in pod.words.lower() for word in _NEVER)
            return Death(pod.words, "wrong_input" if final else "try_again", ends_job=True)
        kept_away = ANNOTATION_AVOID in job.annotations
        if pod.state == "unschedulable" and since > (AVOID_SECONDS if kept_away else patience.unschedulable_seconds):
            return Death(pod.words, unschedulable=True, ends_job=True)
        if pod.state == "creating" and since > patience.start_seconds:
            return Death(f"{pod.words}, for {since:.0f} s on node {pod.node}", nodes=(pod.node,), ends_job=True)
    lost = [pod for pod in view.pods if is_lost(view, pod) and not one_of_many(view, pod)]
    if lost:
        words = f"its node {lost[0].node} is lost: nothing was heard of it for {patience.lost_node_seconds:.0f} s"
        return Death(words, disruption=True, nodes=tuple(sorted({pod.node for pod in lost})), ends_job=True)
    since = began_waiting(view, job)
    ever = [pod for pod in (*view.pods, *view.departed) if view.kind != "daskjob" or pod.role == RUNNER]
    if not ever and not view.refused and now - since > patience.start_seconds:
        return Death(
            f"its controller has made no pods in {now - since:.0f} s: is the operator of {view.kind} running?",
            ends_job=True,
        )
    return None if view.request.parts else _late(view, pods)


def one_of_many(view: View, pod: Pod) -> bool:
    """Whether the others go on without it: a range of parts, a worker of Dask."""
    return bool(view.request.parts) or (view.kind == "daskjob" and pod.role != RUNNER)


def _late(view: View, pods: Sequence[Pod]) -> Death | None:
    """A try that runs longer than it may, or of which some pods never came."""
    began = running_since(view, pods)
    if began is not None and view.now - began > view.request.timeout_seconds:
        limit = view.request.timeout_seconds
        return Death(f"ran longer than its {limit:g} s and was stopped", ends_job=True)
    running = [pod for pod in pods if pod.state == "running"]
    first = min((pod.started for pod in running if pod.started), default=0.0)
    if began is None and first and view.now - first > view.patience.start_seconds:
        words = f"only {len(running)} of {_expected(view)} pods came in {view.now - first:.0f} s"
        return Death(words, ends_job=True)
    return None


def running_since(view: View, pods: Sequence[Pod]) -> float | None:
    """When the try that runs now began to: the last of its pods came. None while it does not run. What it waited for before,
    and runs before a suspension, whose pods are gone, count for nothing."""
    if view.kind == "daskjob":
        return next(
            (pod.started for pod in pods if pod.role == RUNNER and pod.state == "running" and pod.started), None
        )
    running = [pod for pod in pods if pod.state == "running" and pod.started]
    if not running:
        return None
    if len(running) >= _expected(view):
        return max(pod.started for pod in running)
    opened = bool(view.job is not None and [one for one in view.job_tries if one.number >= try_of(view.job)])
    return min(pod.started for pod in running) if opened else None


def _expected(view: View) -> int:
    return view.request.resources.replicas if view.request.kind == "torchjob" else 1


def is_lost(view: View, pod: Pod) -> bool:
    """Whether nothing was heard of a pod's node for too long."""
    return lost_now(pod, view.now, view.patience)


def lost_now(pod: Pod, now: float, patience: Patience) -> bool:
    """The same at a time."""
    if pod.deleting:
        return pod.live and now - pod.deleting > patience.lost_node_seconds
    return pod.state == "lost" and now - pod.since > patience.lost_node_seconds


def began_waiting(view: View, job: Job) -> float:
    """When its controller could begin to make pods."""
    admitted = view.workload.since if view.workload is not None and view.workload.state == "admitted" else 0.0
    return max(job.created, job.resumed_at, admitted)


def _unheard(view: View, job: Job) -> str:
    """Why a suspended job will never get its turn; empty while it may."""
    waited = view.now - max(job.created, job.resumed_at)
    if not view.queued or waited < view.patience.queue_ignored_seconds:
        return ""
    if view.workload is None:
        return (
            f"the queue label admits nothing: {view.kind} {job.name} is suspended, and no Workload has appeared in "
            f"{waited:.0f} s. Does Kueue run, and is its integration for this kind switched on?"
        )
    words = view.workload.words
    gone = "doesn't exist" in words or "does not exist" in words
    if view.workload.state in ("inadmissible", "pending") and gone:
        return f"the queue label admits nothing: {words}"
    return ""


def ignored(view: View, job: Job) -> str:
    """Said of a job that runs although a queue should hold it back."""
    waited = view.now - job.created
    if not view.queued or view.workload is not None or job.suspended or waited < view.patience.queue_ignored_seconds:
        return ""
    return (
        f"the queue label is ignored: no Workload has appeared in {view.patience.queue_ignored_seconds:.0f} s, and the job "
        f"was not held back. Is Kueue's integration for {view.kind} switched on?"
    )
