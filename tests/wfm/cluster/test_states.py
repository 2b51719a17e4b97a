"""What objects of a cluster say, in plain words: one case for each state that a job or its pods may be in."""

from typing import Any

import pytest

from wfm.cluster.fields import time_of
from wfm.cluster.names import LABEL_JOB
from wfm.cluster.pod_states import Pod, read_pod
from wfm.cluster.states import Job, Workload, read_job, read_workload, runs_of, words_of

AT = "2026-01-01T00:00:00Z"


def pod(phase: str = "Running", node: str = "n1", container: Any = None, **more: Any) -> dict[str, Any]:
    status = {"phase": phase, **more}
    if container is not None:
        status["containerStatuses"] = [{"name": "stage", "image": "r/wfm@sha256:1", **container}]
    spec = {"nodeName": node} if node else {}
    meta = {"name": "job-worker-0", "uid": "u", "labels": {LABEL_JOB: "job"}, "creationTimestamp": AT}
    return {"metadata": meta, "spec": spec, "status": status}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def ended(code: int, reason: str = "Error", **more: Any) -> dict[str, Any]:
    return {"state": {"terminated": {"exitCode": code, "reason": reason, **more}}}


def condition(kind: str, status: str = "True", reason: str = "", message: str = "") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": AT}


@pytest.mark.parametrize(
    ("found", "state", "words"),
    [
        (pod("Pending", "", conditions=[condition("PodScheduled", "False", "Unschedulable", "0/4 nodes: Insufficient gpu")]),
         "unschedulable", "no node can take it: 0/4 nodes: Insufficient gpu"),
        (pod("Pending", "", conditions=[condition("PodScheduled", "False", "SchedulingGated")]), "gated", "scheduling gate"),
        (pod("Pending", ""), "pending", "waiting for the scheduler"),
        (pod("Pending", container=waiting("ErrImagePull", "manifest unknown")), "no_image", "cannot be pulled (ErrImagePull)"),
        (pod("Pending", container=waiting("ImagePullBackOff", "Back-off pulling")), "no_image", "(ImagePullBackOff): Back-off"),
        (pod("Pending", container=waiting("InvalidImageName", "x")), "bad_image", "is no name of an image"),
        (pod("Pending", container=waiting("CreateContainerConfigError", 'secret "s3" not found')), "bad_config",
         'secret "s3" not found'),
        (pod("Pending", container=waiting("ContainerCreating")), "creating", "pulling image r/wfm@sha256:1"),
        (pod(), "running", "running"),
        (pod(container={"ready": True}, conditions=[condition("Ready", "False")]), "running", "its node n1 is silent"),
        (pod(container={"ready": False}, conditions=[condition("Ready", "False", "ContainersNotReady")]), "running", "running"),
        (pod("Succeeded"), "succeeded", "through"),
        (pod("Unknown"), "lost", "its node n1 does not answer"),
        (pod(reason="NodeLost"), "lost", "does not answer"),
        (pod(conditions=[condition("Ready", "Unknown", "NodeStatusUnknown")]), "lost", "does not answer"),
    ],
)  # fmt: skip
def test_a_pod_that_is(found: dict[str, Any], state: str, words: str) -> None:
    seen = read_pod(found)
    assert seen is not None
    assert (seen.state, words in seen.words) == (state, True), seen.words


@pytest.mark.parametrize(
    ("found", "words", "cause", "disruption", "blames", "outcome"),
    [
        (pod("Failed", container=ended(137, "OOMKilled")), "out of memory", "memory", False, False, "try_again"),
        (pod("Failed", container=ended(137)), "was killed by signal 9 on node n1", "exit", False, True, "try_again"),
        (pod("Failed", container=ended(139)), "was killed by signal 11", "exit", False, True, "try_again"),
        (pod("Failed", container=ended(1)), "ended with exit code 1", "exit", False, False, "bug"),
        (pod("Failed", container=ended(78)), "ended with exit code 78", "exit", False, False, "wrong_input"),
        (pod("Failed", container=ended(75)), "ended with exit code 75", "exit", False, False, "try_again"),
        (pod("Failed", container=ended(143)), "killed by signal 15", "exit", False, False, "try_again"),
        (pod("Failed", reason="Evicted", message="The node was low on resource: memory."),
         "evicted by its node n1: The node was low on resource: memory.", "lost", True, True, "try_again"),
        (pod("Failed", reason="NodeShutdown"), "its node n1 was shut down", "lost", True, True, "try_again"),
        (pod("Failed", reason="UnexpectedAdmissionError", message="no devices"), "did not take it: no devices", "lost", True,
         True, "try_again"),
        (pod("Failed", reason="OutOfnvidia.com/gpu", message="Node didn't have enough"), "had no room for it", "lost", True,
         True, "try_again"),
        (pod("Failed", reason="DeadlineExceeded"), "longer than its active", "unknown", False, False, "try_again"),
        (pod("Failed", container=ended(137, "ContainerStatusUnknown")), "does not know any more", "lost", True, True,
         "try_again"),
        *((pod("Failed", conditions=[condition("DisruptionTarget", reason=reason)], container=ended(143)), words, cause, True,
           blames, "try_again") for reason, words, cause, blames in [
            ("PreemptionByScheduler", "preempted", "evicted", False),
            ("EvictionByEvictionAPI", "its node n1 is drained", "evicted", False),
            ("DeletionByTaintManager", "its node n1 was lost or tainted", "lost", True),
            ("DeletionByPodGC", "its node n1 is gone", "lost", True),
        ]),
        (pod("Failed", conditions=[condition("DisruptionTarget", reason="TerminationByKubelet")]), "stopped by its node n1",
         "lost", True, True, "try_again"),
    ],
)  # fmt: skip
def test_a_pod_that_ended(
    found: dict[str, Any], words: str, cause: str, disruption: bool, blames: bool, outcome: str
) -> None:
    seen = read_pod(found)
    assert seen is not None
    assert seen.end is not None
    assert words in seen.end.words
    assert (seen.end.cause, seen.end.disruption, seen.end.blames) == (cause, disruption, blames)
    assert seen.end.outcome == outcome


def test_memory_counts_before_what_the_kubelet_says_of_the_rest() -> None:
    """cgroup v2 kills the whole container, and a node that is short of memory evicts at the same time."""
    found = pod("Failed", reason="Evicted", container=ended(137, "OOMKilled"))
    seen = read_pod(found)
    assert seen is not None
    assert seen.end is not None
    assert seen.end.cause == "memory"


def test_a_pod_that_is_taken_away_is_a_disruption() -> None:
    found = pod()
    found["metadata"] |= {"deletionTimestamp": "2026-01-01T00:02:00Z", "deletionGracePeriodSeconds": 120}
    seen = read_pod(found)
    assert seen is not None
    assert seen.end is not None
    assert (seen.deleting, seen.live, seen.end.cause) == (time_of(AT) + 120, True, "deleted")
    assert seen.end.disruption


def job(kind: str = "", status: Any = None, spec: Any = None, **meta: Any) -> Job:
    found = {
        "metadata": {"name": "job", "uid": "u", "labels": {LABEL_JOB: "job"}, "creationTimestamp": AT, **meta},
        "spec": spec or {}, "status": status or {},
    }  # fmt: skip
    seen = read_job(found)
    assert seen is not None
    return seen


@pytest.mark.parametrize(
    ("found", "over", "suspended"),
    [
        (job(), "", False),
        (job(status={"conditions": [condition("Running")]}), "", False),
        (job(status={"conditions": [condition("Running", "False"), condition("Succeeded")]}), "succeeded", False),
        (job(status={"conditions": [condition("Failed", message="worker-0 failed")]}), "failed", False),
        (job(status={"conditions": [condition("Restarting")]}), "", False),
        (job(status={"conditions": [condition("Complete")]}), "succeeded", False),
        (job(status={"conditions": [condition("Complete"), condition("Failed")]}), "failed", False),
        (job(status={"conditions": [condition("FailureTarget")]}), "failed", False),
        (job(status={"jobStatus": "Running"}), "", False),
        (job(status={"jobStatus": "Successful"}), "succeeded", False),
        (job(status={"jobStatus": "Failed"}), "failed", False),
        (job(spec={"suspend": True}), "", True),
        (job(spec={"runPolicy": {"suspend": True}}), "", True),
        (job(spec={"runPolicy": {"suspend": False}}), "", False),
    ],
)  # fmt: skip
def test_a_job_that_is(found: Job, over: str, suspended: bool) -> None:
    assert (found.over, found.suspended) == (over, suspended)


def workload(*conditions: dict[str, Any], active: Any = True, **status: Any) -> Workload:
    found = read_workload({
        "metadata": {"name": "w", "uid": "w", "ownerReferences": [{"uid": "u"}]},
        "spec": {"active": active}, "status": {"conditions": list(conditions), **status},
    })  # fmt: skip
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("found", "state", "words"),
    [
        (workload(), "pending", "queued"),
        (workload(condition("QuotaReserved", "False", "Pending", "insufficient unused quota")), "pending", "queued: insuff"),
        (workload(condition("QuotaReserved", "False", "Inadmissible", "LocalQueue research doesn't exist")), "inadmissible",
         "the queue cannot take it: LocalQueue research doesn't exist"),
        (workload(condition("QuotaReserved"), admissionChecks=[{"name": "dws", "state": "Pending", "message": "asked"}]),
         "check", "waiting for the admission check dws: asked"),
        (workload(condition("QuotaReserved")), "reserved", "its quota is reserved"),
        (workload(condition("QuotaReserved"), condition("Admitted")), "admitted", ""),
        (workload(condition("Evicted", reason="Preempted", message="to accommodate a workload")), "evicted",
         "preempted in the queue: to accommodate"),
        (workload(condition("Evicted", reason="PodsReadyTimeout", message="exceeded")), "evicted", "its pods were not ready"),
        (workload(condition("Evicted", reason="AdmissionCheck")), "evicted", "by an admission check"),
        (workload(condition("Evicted", reason="ClusterQueueStopped")), "evicted", "its queue was stopped"),
        (workload(condition("Evicted", reason="NodeFailures")), "evicted", "nodes failed"),
        (workload(condition("Evicted", reason="DeactivatedDueToRequeuingLimitExceeded", message="too often"), active=False),
         "deactivated", "suspended for good: too often"),
        (workload(active=False), "deactivated", "by hand"),
        (workload(condition("Finished", message="done")), "finished", "done"),
        (workload(condition("Evicted", reason="Preempted"), condition("QuotaReserved"), condition("Admitted")), "admitted", ""),
    ],
)  # fmt: skip
def test_a_place_in_the_queue(found: Workload, state: str, words: str) -> None:
    assert (found.state, words in found.words) == (state, True), found.words


def seen(found: dict[str, Any]) -> Pod:
    one = read_pod(found)
    assert one is not None
    return one


def test_the_words_of_a_job_are_those_of_what_keeps_it_waiting() -> None:
    stuck, fine = seen(pod("Pending", container=waiting("ImagePullBackOff"))), seen(pod())
    assert words_of(job(), [fine, stuck], None, True).startswith("the image r/wfm@sha256:1 cannot be pulled")
    assert words_of(job(), [fine, fine], None, True) == "running: 2 of 2 pods"
    assert words_of(job(spec={"suspend": True}), [], workload(), True).startswith("queued")
    assert words_of(job(spec={"suspend": True}), [], None, True).startswith("suspended: waiting for its turn")
    assert words_of(job(spec={"suspend": True}), [], None, False) == "suspended by somebody"
    assert words_of(None, [], None, True) == "no job yet"
    assert words_of(None, [fine], None, True).startswith("1 pods of the last try")
    assert words_of(job(status={"conditions": [condition("Failed", message="why")]}), [], None, False) == "failed: why"


def test_of_objects_only_what_is_needed_is_kept() -> None:
    """500 jobs with 8 pods each are watched by one process: an environment of a pod alone has kilobytes."""
    found = pod()
    found["spec"]["containers"] = [
        {"name": "stage", "env": [{"name": f"V{n}", "value": "x" * 1000} for n in range(50)]}
    ]
    assert "xxx" not in repr(read_pod(found))
    big = {"wfm.dev/key": "k", "other/config": "y" * 10_000}
    seen = job(spec={"template": {"spec": found["spec"]}}, annotations=big)
    assert "xxx" not in repr(seen)
    assert "yyy" not in repr(seen)
    assert seen.annotations == {"wfm.dev/key": "k"}


def test_what_is_not_ours_is_passed_over() -> None:
    assert read_pod({"metadata": {"name": "x", "uid": "u"}}) is None
    assert read_job({"metadata": {"name": "x", "uid": "u", "labels": {"app": "x"}}}) is None
    assert read_workload({"metadata": {"name": "x"}}) is None


@pytest.mark.parametrize(
    "odd", [None, [], "x", 7, {"conditions": "x"}, {"conditions": [None, 7]}, {"containerStatuses": [None]}]
)
def test_a_status_that_is_none_is_no_state(odd: Any) -> None:
    """Webhooks and other clients may write anything."""
    meta = {"name": "x", "uid": "u", "labels": {LABEL_JOB: "job"}, "annotations": odd, "creationTimestamp": odd}
    assert read_pod({"metadata": meta, "spec": odd, "status": odd}) is not None
    assert read_job({"metadata": meta, "spec": odd, "status": odd}) is not None
    assert (
        read_workload({"metadata": {**meta, "ownerReferences": [{"uid": "u"}]}, "spec": odd, "status": odd}) is not None
    )


def test_the_runs_noted_on_a_job() -> None:
    assert runs_of(job(annotations={"wfm.dev/runs": "a,b, c,,a"})) == ("a", "b", "c")
    assert runs_of(job()) == ()


@pytest.mark.parametrize(
    ("text", "seconds"), [(AT, 1767225600.0), ("2026-01-01T00:00:00.5Z", 1767225600.5), ("x", 0), (None, 0)]
)
def test_times(text: Any, seconds: float) -> None:
    assert time_of(text) == seconds
