"""TrainJob: Kubeflow Trainer over JobSet."""

import json
from collections.abc import Callable

from tests.cluster.controllers.table import SAME, Row, See, Table
from tests.cluster.server.api import condition, condition_of, holds, seconds_of, set_condition
from tests.cluster.server.patches import strategic
from tests.cluster.server.storage import Json

_SOURCE = "kubeflow/trainer@v2.3.0 pkg/controller/trainjob_controller.go "
_JOBSET = "kubeflow/trainer@v2.3.0 pkg/runtime/framework/plugins/jobset/jobset.go "


def state_of(see: See) -> str:
    for kind in ("Complete", "Failed"):
        if holds(see.obj, kind):
            return kind.lower()
    if see.deleting:
        return "deleting"
    if holds(see.obj, "Suspended"):
        return "suspended"
    return "running" if _jobset(see) else "new"


def _jobset(see: See) -> Json | None:
    return see.api.find("jobsets.jobset.x-k8s.io", see.namespace, see.name)


def _runtime(see: See) -> Json | None:
    reference = see.spec["runtimeRef"]
    if reference.get("kind", "ClusterTrainingRuntime") == "TrainingRuntime":
        return see.api.find("trainingruntimes.trainer.kubeflow.org", see.namespace, reference["name"])
    return see.api.find("clustertrainingruntimes.trainer.kubeflow.org", "", reference["name"])


def _make(see: See) -> None:
    spec: Json = json.loads(json.dumps((_runtime(see) or {})["spec"]["template"]["spec"]))
    trainer = see.spec.get("trainer", {})
    for job in spec["replicatedJobs"]:
        for patch in see.spec.get("runtimePatches", ()):
            jobs = patch.get("trainingRuntimeSpec", {}).get("template", {}).get("spec", {}).get("replicatedJobs", ())
            for one in jobs:
                if one["name"] == job["name"]:
                    job["template"] = strategic(job["template"], one["template"])
        if job["name"] != "node":
            continue
        inner = job["template"]["spec"]
        inner["completions"] = inner["parallelism"] = trainer.get("numNodes", 1)
        inner["completionMode"] = "Indexed"
        container = inner["template"]["spec"]["containers"][0]
        container |= {field: trainer[field] for field in ("image", "command", "args") if field in trainer}
        if "resourcesPerNode" in trainer:
            container["resources"] = trainer["resourcesPerNode"]
        container["env"] = [
            *container.get("env", ()), *trainer.get("env", ()),
            {"name": "PET_NNODES", "value": str(trainer.get("numNodes", 1))},
            {"name": "PET_NPROC_PER_NODE", "value": str(trainer.get("numProcPerNode", "auto"))},
            {"name": "PET_MASTER_ADDR", "value": f"{see.name}-node-0-0.{see.name}"},
        ]  # fmt: skip
    spec["suspend"] = bool(see.spec.get("suspend"))
    see.create(
        "jobsets.jobset.x-k8s.io", {"metadata": {"name": see.name, "labels": see.meta.get("labels", {})}, "spec": spec}
    )


def _note(kind: str, status: str, reason: str) -> Callable[[See], None]:
    return lambda see: see.change(
        lambda job: set_condition(job, condition(kind, status, reason, reason), see.api.time())
    )


def _told(kind: str, as_kind: str) -> Callable[[See], None]:
    def do(see: See) -> None:
        told = condition_of(_jobset(see) or {}, kind)
        new = condition(as_kind, "True", told.get("reason", ""), told.get("message", ""))
        see.change(lambda job: set_condition(job, new, see.api.time()))

    return do


def _suspend_jobset(wish: bool) -> Callable[[See], None]:
    return lambda see: see.api.patch("jobsets.jobset.x-k8s.io", see.namespace, see.name, {"spec": {"suspend": wish}})


def _overdue(see: See) -> bool:
    limit = see.spec.get("activeDeadlineSeconds")
    if not limit or see.spec.get("suspend"):
        return False
    start = see.meta["creationTimestamp"]
    resumed = condition_of(see.obj, "Suspended")
    if resumed.get("status") == "False":
        start = resumed["lastTransitionTime"]
    return see.now - seconds_of(start) > limit


def _past_deadline(see: See) -> None:
    _note("Failed", "True", "DeadlineExceeded")(see)
    found = _jobset(see)
    if found:
        see.delete(found, "jobsets.jobset.x-k8s.io", propagationPolicy="Background")


def _statuses(see: See) -> list[Json]:
    found = (_jobset(see) or {}).get("status", {}).get("replicatedJobsStatus") or []
    return [{key: one[key] for key in ("name", "ready", "succeeded", "failed", "active", "suspended")} for one in found]


ROWS = (
    Row("new", "its runtime is unknown", "failed", _SOURCE + "Reconcile", lambda see: _runtime(see) is None,
        _note("Failed", "True", "TrainingRuntimeNotSupported")),
    Row("new", "the controller sees it", "running", _JOBSET + "Build", lambda see: not see.spec.get("suspend"), _make),
    Row("new", "the controller sees it, suspended", "suspended", _SOURCE + "setSuspendedCondition",
        lambda see: True, lambda see: (_make(see), _note("Suspended", "True", "Suspended")(see))),
    Row("suspended", "suspend is taken away", "running", _SOURCE + "setSuspendedCondition",
        lambda see: not see.spec.get("suspend"),
        lambda see: (_suspend_jobset(False)(see) if _jobset(see) else _make(see), _note("Suspended", "False", "Resumed")(see))),
    Row("running", "suspend is set", "suspended", _SOURCE + "setSuspendedCondition", lambda see: see.spec.get("suspend"),
        lambda see: (_suspend_jobset(True)(see), _note("Suspended", "True", "Suspended")(see))),
    Row("running", "its JobSet is completed", "complete", _JOBSET + "Status",
        lambda see: holds(_jobset(see) or {}, "Completed"), _told("Completed", "Complete")),
    Row("running", "its JobSet has failed", "failed", _JOBSET + "Status",
        lambda see: holds(_jobset(see) or {}, "Failed"), _told("Failed", "Failed")),
    Row("running", "activeDeadlineSeconds after creation or resumption", "failed", _SOURCE + "reconcileDeadline", _overdue,
        _past_deadline),
    Row("running", "its jobs came or went", SAME, _JOBSET + "Status",
        lambda see: _statuses(see) != (see.status.get("jobsStatus") or []),
        lambda see: see.change(lambda job: job["status"].update(jobsStatus=_statuses(see)))),
)  # fmt: skip
TABLE = Table("trainjob", ("trainjobs.trainer.kubeflow.org",), state_of, ROWS, wants=lambda see: not see.deleting)
