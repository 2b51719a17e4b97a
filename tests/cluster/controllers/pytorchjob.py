"""PyTorchJob v1: the training operator."""

from tests.cluster.controllers.pods import active, exit_code, from_template, phase, restarts, running
from tests.cluster.controllers.table import GONE, SAME, Row, See, Table
from tests.cluster.server.api import condition, drop_conditions, holds, set_condition
from tests.cluster.server.storage import Json

_COMMON = "kubeflow/trainer@release-1.9 pkg/controller.v1/common/"
_JOB, _POD = _COMMON + "job.go ", _COMMON + "pod.go "
_TORCH = "kubeflow/trainer@release-1.9 pkg/controller.v1/pytorch/pytorchjob_controller.go "
_LIVE = ("created", "running", "restarting")


def state_of(see: See) -> str:
    for kind in ("Succeeded", "Failed", "Suspended", "Restarting", "Running", "Created"):
        if holds(see.obj, kind):
            return kind.lower()
    return "new"


def _policy(see: See) -> Json:
    return see.spec.get("runPolicy") or {}


def _replicas(see: See) -> Json:
    return see.spec["pytorchReplicaSpecs"]


def _of(see: See, kind: str) -> list[Json]:
    wanted = kind.lower()
    return [pod for pod in see.pods if pod["metadata"]["labels"].get("training.kubeflow.org/replica-type") == wanted]


def _counts(see: See) -> Json:
    return {
        kind: {
            "active": sum(running(pod) for pod in _of(see, kind)),
            "succeeded": sum(phase(pod) == "Succeeded" for pod in _of(see, kind)),
            "failed": sum(phase(pod) == "Failed" for pod in _of(see, kind)),
            "selector": f"training.kubeflow.org/job-name={see.name}",
        }
        for kind in _replicas(see)
    }


def _conclude(see: See, kind: str, message: str) -> None:
    """UpdateJobConditions: Running and Restarting exclude one another, an end makes Running False."""

    def alter(job: Json) -> None:
        status, now = job["status"], see.api.time()
        drop_conditions(job, {"Restarting": ["Running"], "Running": ["Restarting"]}.get(kind, []))
        if kind in ("Succeeded", "Failed"):
            if holds(job, "Running"):
                set_condition(job, condition("Running", "False", "PyTorchJobRunning", message), now)
            drop_conditions(job, ["Restarting"])
            status.setdefault("completionTime", now)
        if kind != "Created":
            status.setdefault("startTime", now)
            status["replicaStatuses"] = _counts(see)
        set_condition(job, condition(kind, "True", f"PyTorchJob{kind}", message), now)

    see.change(alter)
    see.event(f"PyTorchJob{kind}", message)


def _suspend(see: See) -> None:
    for pod in see.pods:
        see.delete(pod)

    def alter(job: Json) -> None:
        now = see.api.time()
        if holds(job, "Running"):
            set_condition(job, condition("Running", "False", "PyTorchJobSuspended", "is suspended"), now)
        drop_conditions(job, ["Restarting"])
        set_condition(job, condition("Suspended", "True", "PyTorchJobSuspended", "is suspended"), now)
        for counts in job["status"].get("replicaStatuses", {}).values():
            counts["active"] = 0

    see.change(alter)


def _resume(see: See) -> None:
    def alter(job: Json) -> None:
        set_condition(job, condition("Suspended", "False", "PyTorchJobResumed", "is resumed"), see.api.time())
        job["status"]["startTime"] = see.api.time()

    see.change(alter)


def _missing(see: See) -> list[tuple[str, int]]:
    there = {
        (pod["metadata"]["labels"]["training.kubeflow.org/replica-type"],
         int(pod["metadata"]["labels"]["training.kubeflow.org/replica-index"])) for pod in see.pods
    }  # fmt: skip
    return [
        (kind, index)
        for kind, spec in _replicas(see).items()
        for index in range(spec.get("replicas", 1))
        if (kind.lower(), index) not in there
    ]


def _make_pods(see: See) -> None:
    for kind, index in _missing(see):
        spec = _replicas(see)[kind]
        name = f"{see.name}-{kind.lower()}-{index}"
        labels = {
            "training.kubeflow.org/job-name": see.name, "training.kubeflow.org/replica-type": kind.lower(),
            "training.kubeflow.org/replica-index": str(index), "training.kubeflow.org/operator-name": "pytorchjob-controller",
        }  # fmt: skip
        total = sum(each.get("replicas", 1) for each in _replicas(see).values())
        env = {"PET_NNODES": str(total), "PYTHONUNBUFFERED": "1"}
        elastic = see.spec.get("elasticPolicy")
        if elastic:
            env["PET_NNODES"] = f"{elastic.get('minReplicas', total)}:{elastic.get('maxReplicas', total)}"
            env["PET_RDZV_ENDPOINT"] = f"{see.name}-worker-0:23456"
            env |= {"PET_RDZV_ID": elastic["rdzvId"]} if "rdzvId" in elastic else {}
        pod = from_template(spec["template"], name, labels=labels, env=env)
        wish = spec.get("restartPolicy", "Never")
        pod["spec"]["restartPolicy"] = "Never" if wish == "ExitCode" else wish
        see.create("pods", pod)
        see.create("services", {"metadata": {"name": name, "labels": labels}, "spec": {"clusterIP": "None"}})


def _failed(see: See, *, again: bool) -> list[Json]:
    """Pods that have failed and are (not) to be made again."""
    found = []
    for kind, spec in _replicas(see).items():
        wish = spec.get("restartPolicy", "Never")
        for pod in _of(see, kind):
            if phase(pod) != "Failed" or "deletionTimestamp" in pod["metadata"]:
                continue
            retried = wish in ("OnFailure", "Always") or (wish == "ExitCode" and (exit_code(pod) or 0xBEEF) >= 128)
            if retried == again:
                found.append(pod)
    return found


def _restart(see: See) -> None:
    for pod in _failed(see, again=True):
        see.delete(pod)
    _conclude(see, "Restarting", f"job {see.name} is restarting because replica(s) failed.")


def _succeeded(see: See, kind: str) -> int:
    return sum(phase(pod) == "Succeeded" for pod in _of(see, kind))


def _past_deadline(see: See) -> bool:
    limit = _policy(see).get("activeDeadlineSeconds")
    return limit is not None and see.since(see.status.get("startTime")) >= limit


def _past_backoff(see: See) -> bool:
    limit = _policy(see).get("backoffLimit")
    counted = sum(
        restarts(pod) for kind, spec in _replicas(see).items() if spec.get("restartPolicy") != "Never"
        for pod in _of(see, kind) if running(pod)
    )  # fmt: skip
    return limit is not None and counted >= max(limit, 1)


def _fail(message: str):  # type: ignore[no-untyped-def]
    return lambda see: _conclude(see, "Failed", f"PyTorchJob {see.name} {message}")


def _to_clean(see: See) -> list[Json]:
    policy = _policy(see).get("cleanPodPolicy", "None")
    if policy == "None":
        return []
    return [pod for pod in see.pods if "deletionTimestamp" not in pod["metadata"] and (policy == "All" or active(pod))]


def _clean(see: See) -> None:
    for pod in _to_clean(see):
        see.delete(pod)


def _ttl_over(see: See) -> bool:
    ttl = _policy(see).get("ttlSecondsAfterFinished")
    return ttl is not None and not see.deleting and see.since(see.status.get("completionTime")) > ttl


def _suspended(see: See) -> bool:
    return bool(_policy(see).get("suspend"))


def _rows() -> list[Row]:
    rows = [
        Row("new", "the operator sees it", "created", _TORCH + "onOwnerCreateFunc", lambda see: True,
            lambda see: _conclude(see, "Created", f"PyTorchJob {see.name} is created.")),
        Row("suspended", "suspend is taken away: StartTime is set anew", "created", _JOB + "ReconcileJobs",
            lambda see: not _suspended(see), _resume),
        Row("suspended", "a pod is left", SAME, _JOB + "CleanUpResources",
            lambda see: any("deletionTimestamp" not in pod["metadata"] for pod in see.pods),
            lambda see: [see.delete(pod) for pod in see.pods]),
    ]  # fmt: skip
    for state in _LIVE:
        rows += [
            Row(state, "suspend is set: its pods are deleted", "suspended", _JOB + "DeletePodsAndServices",
                _suspended, _suspend),
            Row(state, "activeDeadlineSeconds after StartTime", "failed", _JOB + "PastActiveDeadline", _past_deadline,
                _fail("has failed because it was active longer than specified deadline")),
        ]  # fmt: skip
    rows += [
        Row("running", "containers restarted backoffLimit times", "failed", _JOB + "PastBackoffLimit", _past_backoff,
            _fail("has failed because it has reached the specified backoff limit")),
    ]  # fmt: skip
    for state in ("created", "running"):
        rows += [
            Row(state, "a pod failed that is to be made again: without end", "restarting", _POD + "ReconcilePods",
                lambda see: _failed(see, again=True), _restart),
        ]  # fmt: skip
    rows += [
        Row("restarting", "another pod failed that is to be made again", SAME, _POD + "ReconcilePods",
            lambda see: _failed(see, again=True), lambda see: [see.delete(pod) for pod in _failed(see, again=True)]),
        Row("running", "the master succeeded", "succeeded", _TORCH + "UpdateJobStatus",
            lambda see: "Master" in _replicas(see) and _succeeded(see, "Master"),
            lambda see: _conclude(see, "Succeeded", f"PyTorchJob {see.name} is successfully completed.")),
        Row("running", "one worker succeeded, elastic", "succeeded", _TORCH + "UpdateJobStatus",
            lambda see: see.spec.get("elasticPolicy") and "Master" not in _replicas(see) and _succeeded(see, "Worker"),
            lambda see: _conclude(see, "Succeeded", f"PyTorchJob {see.name} successfully completed.")),
        Row("running", "all workers succeeded", "succeeded", _TORCH + "UpdateJobStatus",
            lambda see: "Master" not in _replicas(see)
            and _succeeded(see, "Worker") == _replicas(see)["Worker"].get("replicas", 1),
            lambda see: _conclude(see, "Succeeded", f"PyTorchJob {see.name} successfully completed.")),
    ]  # fmt: skip
    for state in ("created", "running"):
        rows += [
            Row(state, "a pod failed that is not made again", "failed", _TORCH + "UpdateJobStatus",
                lambda see: _failed(see, again=False), _fail("is failed because replica(s) failed.")),
        ]  # fmt: skip
    for state in ("created", "restarting"):
        rows += [
            Row(state, "a worker runs: one is enough", "running", _TORCH + "UpdateJobStatus",
                lambda see: any(running(pod) and "deletionTimestamp" not in pod["metadata"] for pod in see.pods),
                lambda see: _conclude(see, "Running", f"PyTorchJob {see.name} is running.")),
        ]  # fmt: skip
    for state in _LIVE:
        rows += [Row(state, "a replica has no pod", SAME, _POD + "createNewPod", _missing, _make_pods)]
    for state in ("created", "running"):
        rows += [
            Row(state, "pods came or went", SAME, _POD + "updateJobReplicaStatuses",
                lambda see: see.status.get("replicaStatuses") != _counts(see) or "startTime" not in see.status,
                lambda see: see.change(lambda job: job["status"].update(
                    replicaStatuses=_counts(see), startTime=job["status"].get("startTime", see.api.time())))),
        ]  # fmt: skip
    for state in ("succeeded", "failed"):
        rows += [
            Row(state, "cleanPodPolicy: pods are still active", SAME, _JOB + "DeletePodsAndServices", _to_clean, _clean),
            Row(state, "ttlSecondsAfterFinished is over", GONE, _JOB + "CleanupJob", _ttl_over,
                lambda see: see.delete(see.obj, see.resource, propagationPolicy="Background")),
        ]  # fmt: skip
    rows += [
        Row("failed", "cleanPodPolicy None: live pods keep their GPUs", SAME, _JOB + "DeletePodsAndServices",
            lambda see: _policy(see).get("cleanPodPolicy", "None") == "None" and any(active(pod) for pod in see.pods)),
    ]  # fmt: skip
    return rows


TABLE = Table("pytorchjob", ("pytorchjobs.kubeflow.org",), state_of, _rows(), wants=lambda see: not see.deleting)
