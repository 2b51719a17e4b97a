"""Kueue: what waits in a queue, what is let in, and what is put out again.

Two tables of the jobs that it manages: `JOBS`, and `PODS` of single pods; `kueue_workloads.py` is that of the Workloads.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from tests.cluster.controllers.pods import active, labels, phase, running
from tests.cluster.controllers.table import SAME, Row, See, Table
from tests.cluster.server.api import Api, condition, condition_of, drop_conditions, holds, set_condition
from tests.cluster.server.kinds import BY_NAME, Resource
from tests.cluster.server.storage import Json

QUEUE, PRIORITY = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"
MAX_SECONDS, GATE = "kueue.x-k8s.io/max-exec-time-seconds", "kueue.x-k8s.io/admission"
WORKLOADS = "workloads.kueue.x-k8s.io"
INTEGRATIONS = {
    "pytorchjobs.kubeflow.org": "kubeflow.org/pytorchjob", "jobs.batch": "batch/job",
    "trainjobs.trainer.kubeflow.org": "trainer.kubeflow.org/trainjob", "pods": "pod",
}  # fmt: skip
_JOBS = "kubernetes-sigs/kueue@v0.19.2 pkg/controller/jobframework/reconciler.go "
_POD = "kubernetes-sigs/kueue@v0.19.2 pkg/controller/jobs/pod/pod_controller.go "


def webhook(api: Api, integrations: Callable[[], Any]) -> Callable[[Resource, Json], None]:
    """What Kueue's webhooks do to a new object with a queue's label: jobs are suspended (ApplyDefaultForSuspend,
    `pkg/controller/jobframework/defaults.go`), pods gated (`pkg/controller/jobs/pod/pod_webhook.go` Default)."""

    def look(row: Resource, found: Json) -> None:
        if QUEUE not in labels(found) or INTEGRATIONS.get(row.name) not in integrations():
            return
        if any(
            owner["kind"] in ("TrainJob", "JobSet", "PyTorchJob", "Job")
            for owner in found["metadata"].get("ownerReferences", ())
        ):
            return  # its ancestor is managed
        if row.name == "pods":
            found["spec"].setdefault("schedulingGates", []).append({"name": GATE})
            found["metadata"].setdefault("labels", {})["kueue.x-k8s.io/managed"] = "true"
        else:
            _holder(row.name, found)["suspend"] = True

    return look


def _holder(resource: str, found: Json) -> Json:
    """Where `suspend` stands."""
    spec: Json = found["spec"]
    return spec.setdefault("runPolicy", {}) if resource == "pytorchjobs.kubeflow.org" else spec


def _managed(see: See) -> bool:
    return INTEGRATIONS[see.resource] in see.options.integrations


def _top(see: See) -> bool:
    return QUEUE in labels(see.obj) and not any(
        owner["kind"] in ("TrainJob", "JobSet", "PyTorchJob", "Job") for owner in see.meta.get("ownerReferences", ())
    )


def _workload(see: See) -> Json | None:
    return next((one for one in see.owned(WORKLOADS)), None)


def _suspended(see: See) -> bool:
    return bool(_holder(see.resource, see.obj).get("suspend"))


def _finished(see: See) -> bool:
    return any(holds(see.obj, kind) for kind in ("Succeeded", "Complete", "Failed"))


def _all_pods(see: See) -> list[Json]:
    if see.resource != "trainjobs.trainer.kubeflow.org":
        return see.pods
    mine = f"{see.name}-"
    return [
        pod.object
        for pod in see.api.storage.of("pods", see.namespace)
        if pod.object["metadata"]["name"].startswith(mine)
    ]


def _ready(see: See) -> bool:
    """KubeflowJob.PodsReady: one running pod is enough for a PyTorchJob; the others count."""
    if see.resource == "pytorchjobs.kubeflow.org":
        return holds(see.obj, "Running")
    return bool(_all_pods(see)) and all(running(pod) or phase(pod) == "Succeeded" for pod in _all_pods(see))


def job_state(see: See) -> str:
    if not _managed(see):
        return "not managed"
    found = _workload(see)
    if found is None:
        return "finished, without workload" if _finished(see) else "without workload"
    if holds(found, "Finished"):
        return "finished"
    if holds(found, "Evicted"):
        return "evicted, suspended" if _suspended(see) else "evicted, running"
    if holds(found, "Admitted"):
        return "admitted, suspended" if _suspended(see) else "admitted, running"
    return "waiting, suspended" if _suspended(see) else "waiting, running"


def _pod_sets(see: See) -> list[Json]:
    if see.resource == "pods":
        return [{"name": "main", "count": 1, "template": {"spec": see.spec}}]
    if see.resource == "jobs.batch":
        return [{"name": "main", "count": see.spec.get("parallelism", 1), "template": see.spec["template"]}]
    if see.resource == "trainjobs.trainer.kubeflow.org":
        trainer = see.spec.get("trainer", {})
        container = {
            "name": "node",
            "image": trainer.get("image", "i"),
            "resources": trainer.get("resourcesPerNode", {}),
        }
        return [
            {"name": "node", "count": trainer.get("numNodes", 1), "template": {"spec": {"containers": [container]}}}
        ]
    return [
        {"name": kind.lower(), "count": spec.get("replicas", 1), "template": spec["template"]}
        for kind, spec in see.spec["pytorchReplicaSpecs"].items()
    ]


def _make(see: See) -> None:
    kind = BY_NAME[see.resource].kind
    tail = hashlib.sha1(f"{see.name}\n{see.uid}\n{kind}".encode()).hexdigest()[:5]
    spec: Json = {"queueName": labels(see.obj)[QUEUE], "podSets": _pod_sets(see), "active": True}
    priority = see.api.find("workloadpriorityclasses.kueue.x-k8s.io", "", labels(see.obj).get(PRIORITY, ""))
    spec["priority"] = priority["value"] if priority else 0
    if MAX_SECONDS in labels(see.obj):
        spec["maximumExecutionTimeSeconds"] = int(labels(see.obj)[MAX_SECONDS])
    name = f"{kind.lower()}-{see.name}"[:57] + f"-{tail}"
    see.create(WORKLOADS, {"metadata": {"name": name, "labels": {"kueue.x-k8s.io/job-uid": see.uid}}, "spec": spec})


def _suspend(see: See, wish: bool, why: str) -> None:
    see.change(lambda job: _holder(see.resource, job).update(suspend=wish), status=False)
    see.event("Started" if not wish else "Stopped", why)


def on_workload(see: See, *told: Json, clear: bool = False, **status: Any) -> None:
    found = _workload(see) if see.resource != WORKLOADS else see.obj
    assert found is not None
    document = see.api.stored(WORKLOADS, see.namespace, found["metadata"]["name"]).fresh()
    if clear:
        document["status"].pop("admission", None)
    for one in told:
        set_condition(document, one, see.api.time())
    document["status"] |= status
    see.api.update(WORKLOADS, see.namespace, document["metadata"]["name"], document, status=True)


def _idle(see: See) -> bool:
    if see.resource == "pytorchjobs.kubeflow.org":
        return not any(counts.get("active") for counts in see.status.get("replicaStatuses", {}).values())
    return not any(active(pod) for pod in _all_pods(see))


def _reserved(see: See) -> bool:
    found = _workload(see)
    return found is not None and holds(found, "QuotaReserved")


def _give_up_quota(see: See) -> None:
    why = condition_of(_workload(see) or {}, "Evicted")
    again = why["reason"] in ("Preempted", "NodeFailures")
    on_workload(
        see, condition("QuotaReserved", "False", "Pending", why["message"]), condition("Admitted", "False", "NoReservation"),
        condition("Requeued", str(again), why["reason"], why["message"]), clear=True,
    )  # fmt: skip


def _finish(see: See) -> None:
    failed = holds(see.obj, "Failed")
    on_workload(see, condition("Finished", "True", "Failed" if failed else "Succeeded", "Job finished"))


def _ready_condition(see: See) -> Json:
    return condition("PodsReady", str(_ready(see)), "Started" if _ready(see) else "WaitForStart")


JOBS = Table(
    "kueue's jobs",
    ("pytorchjobs.kubeflow.org", "jobs.batch", "trainjobs.trainer.kubeflow.org"),
    job_state,
    (
        Row("not managed", "a queue's label, but the integration is off: it runs at once", "not managed",
            "kubernetes-sigs/kueue@v0.19.2 pkg/controller/jobframework/setup.go SetupControllers",
            lambda see: True),
        Row("without workload", "it is not suspended", SAME, _JOBS + "handleJobWithNoWorkload",
            lambda see: not _suspended(see), lambda see: _suspend(see, True, "missing workload")),
        Row("without workload", "it is suspended", "waiting, suspended", _JOBS + "ConstructWorkload", lambda see: True, _make),
        Row("admitted, running", "the job is finished", "finished", _JOBS + "ReconcileGenericJob (handle job is finished)",
            _finished, _finish),
        Row("evicted, running", "the job is finished", "finished", _JOBS + "ReconcileGenericJob (handle job is finished)",
            _finished, _finish),
        Row("admitted, suspended", "its workload is admitted", "admitted, running", _JOBS + "startJob", lambda see: True,
            lambda see: _suspend(see, False, "Admitted by clusterQueue")),
        Row("evicted, running", "its workload is evicted", "evicted, suspended", _JOBS + "stopJob", lambda see: True,
            lambda see: _suspend(see, True, condition_of(_workload(see) or {}, "Evicted")["message"])),
        Row("evicted, suspended", "no pod of it is active: the quota is given up", SAME,
            _JOBS + "ReconcileGenericJob (handle eviction)", lambda see: _reserved(see) and _idle(see), _give_up_quota),
        Row("waiting, running", "somebody took suspend away", "waiting, suspended",
            _JOBS + "ReconcileGenericJob (handle job is unsuspended)", lambda see: True,
            lambda see: _suspend(see, True, "Not admitted by cluster queue")),
        Row("admitted, running", "its pods are ready, or not any more", SAME, _JOBS + "generatePodsReadyCondition",
            lambda see: see.options.pods_ready_timeout
            and condition_of(_workload(see) or {}, "PodsReady").get("status") != str(_ready(see)),
            lambda see: on_workload(see, _ready_condition(see))),
    ),
    wants=lambda see: _top(see) and not see.deleting,
)  # fmt: skip


# -- single pods (the workers of a DaskJob)


def pod_state(see: See) -> str:
    found = _workload(see)
    gated = any(gate["name"] == GATE for gate in see.spec.get("schedulingGates") or ())
    if found is None:
        return "without workload"
    if holds(found, "Finished"):
        return "finished"
    if holds(found, "Evicted"):
        return "evicted"
    return ("gated" if gated else "free") + (", admitted" if holds(found, "Admitted") else "")


def _ungate(see: See) -> None:
    def alter(pod: Json) -> None:
        pod["spec"]["schedulingGates"] = [gate for gate in pod["spec"]["schedulingGates"] if gate["name"] != GATE]
        pod["status"] = {**pod["status"], "conditions": []}

    see.change(alter, status=False)
    see.change(lambda pod: drop_conditions(pod, ["PodScheduled"]))


def _put_out(see: See) -> None:
    told = condition("TerminationTarget", "True", "WorkloadEvictedDueTo", "evicted")
    see.change(lambda pod: set_condition(pod, told, see.api.time()))
    see.delete(see.obj)


PODS = Table(
    "kueue's pods",
    ("pods",),
    pod_state,
    (
        Row("without workload", "it is gated", "gated", _JOBS + "ConstructWorkload",
            lambda see: see.spec.get("schedulingGates"), _make),
        Row("gated, admitted", "its workload is admitted", "free, admitted", _POD + "Run", lambda see: True, _ungate),
        Row("free, admitted", "the pod has ended", "finished", _POD + "Finished",
            lambda see: phase(see.obj) in ("Succeeded", "Failed"),
            lambda see: on_workload(see, condition("Finished", "True", "Succeeded", "Pod finished"))),
        Row("evicted", "its workload is evicted: the pod is deleted", SAME, _POD + "Stop",
            lambda see: phase(see.obj) not in ("Succeeded", "Failed"), _put_out),
    ),
    wants=lambda see: _top(see) and _managed(see) and not see.deleting,
)  # fmt: skip
