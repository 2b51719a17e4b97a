"""An Indexed Job of Kubernetes itself (batch/v1): ranges of a stage's parts, or, as one of 1, a stage of one pod.

It is the path on which exit codes survive: wrong input ends all of it at once, a bug its range (`wfm.errors`), a machine that
was taken away counts for nothing. A range is tried again by the cluster; a stage of one pod by the launcher alone, which leaves
out the machine where it failed.
"""

import math
from collections.abc import Sequence

from wfm.cluster import pod
from wfm.cluster.pod import Json
from wfm.cluster.request import JobRequest
from wfm.cluster.settings import ClusterSettings
from wfm.errors import InputError, WfmError

CONTAINER = "stage"
FAILED_SHARE = 10
"""One range in so many may fail for good before the others are stopped: what they made is kept either way."""


def build(request: JobRequest, settings: ClusterSettings, attempt: int, avoid: Sequence[str]) -> Json:
    """The job; its pods are ``<name>-<index>-…``."""
    name, resources = request.name(settings), request.resources
    found, told = pod.labels(request, name), pod.annotations(request, attempt)
    words = ["python", "-m", *pod.command(request)]
    values = pod.environment(request, settings, name, attempt, resources)
    one = pod.container(CONTAINER, settings.image(request.image), words, values, resources, settings)
    ranges = request.parts or 1
    at_a_time = min(resources.replicas, ranges)
    stop = pod.deadline(request, settings)
    spec = {
        **pod.pod_spec(one, resources, settings, avoid, apart=name if request.parts else ""),
        "restartPolicy": "Never",
    }
    if request.parts:  # each try of a range has the time of one, all together that of as many as come one after another
        spec["activeDeadlineSeconds"] = stop
        stop *= math.ceil(ranges / at_a_time) * (request.retries + 1)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            "labels": {**found, **pod.queue_labels(resources, settings)},
            "annotations": told,
        },
        "spec": {
            "completionMode": "Indexed",
            "completions": ranges,
            "parallelism": at_a_time,
            "backoffLimitPerIndex": request.retries if request.parts else 0,
            "maxFailedIndexes": ranges // FAILED_SHARE,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _rules("FailIndex" if request.parts else "FailJob")},
            "activeDeadlineSeconds": stop,
            "template": {"metadata": {"labels": found, "annotations": told}, "spec": spec},
        },
    }


def _rules(bug: str) -> list[Json]:
    """What a pod's end means; the first that fits holds."""

    def codes(code: int) -> Json:
        return {"containerName": CONTAINER, "operator": "In", "values": [code]}

    return [
        {"action": "FailJob", "onExitCodes": codes(InputError.exit_code)},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": bug, "onExitCodes": codes(WfmError.exit_code)},
    ]
