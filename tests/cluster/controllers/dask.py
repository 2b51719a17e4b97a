"""DaskJob, DaskCluster, DaskWorkerGroup: the Dask operator, with what it does not handle."""

import json
import re
from collections.abc import Callable

from tests.cluster.controllers.pods import from_template, labels, phase
from tests.cluster.controllers.table import SAME, Row, See, Table
from tests.cluster.server.storage import Json

_SOURCE = "dask/dask-kubernetes@1daa175 dask_kubernetes/operator/controller/controller.py "
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
MOST_LETTERS = 63 - len("-scheduler")
CLUSTERS, GROUPS = "daskclusters.kubernetes.dask.org", "daskworkergroups.kubernetes.dask.org"


def state_of(see: See) -> str:
    return see.status.get("jobStatus") or "new"


def _set(**fields: str) -> Callable[[See], None]:
    return lambda see: see.change(lambda found: found.setdefault("status", {}).update(fields))


def _runner(see: See) -> Json:
    return see.api.find("pods", see.namespace, f"{see.name}-runner") or {}


def _cluster(see: See) -> Json | None:
    return see.api.find(CLUSTERS, see.namespace, see.name)


def _address(see: See, name: str) -> str:
    return f"tcp://{name}-scheduler.{see.namespace}.svc.cluster.local:8786"


def _create(see: See) -> None:
    """Labels and annotations of the job go to all that it makes."""
    cluster, job = see.spec["cluster"], see.spec["job"]
    theirs, told = labels(see.obj), see.meta.get("annotations") or {}
    see.create(CLUSTERS, {
        "metadata": {
            "name": see.name, "annotations": told,
            "labels": {**theirs, **(cluster.get("metadata") or {}).get("labels", {}), "dask.org/cluster-name": see.name},
        },
        "spec": {part: json.loads(json.dumps(cluster["spec"][part])) for part in ("worker", "scheduler")},
    })  # fmt: skip
    pod = from_template(
        {"spec": job["spec"], "metadata": job.get("metadata") or {}}, f"{see.name}-runner",
        labels={**theirs, "dask.org/cluster-name": see.name, "dask.org/component": "job-runner"},
        env={"DASK_SCHEDULER_ADDRESS": _address(see, see.name)},
    )  # fmt: skip
    pod["metadata"]["annotations"] |= told
    see.create("pods", pod)
    _set(clusterName=see.name, jobStatus="ClusterCreated", jobRunnerPodName=f"{see.name}-runner")(see)


def _runner_is(*phases: str) -> Callable[[See], bool]:
    return lambda see: bool(_runner(see)) and phase(_runner(see)) in phases


def _finish(state: str) -> Callable[[See], None]:
    """First the cluster is deleted, then the state written."""

    def do(see: See) -> None:
        see.delete(_cluster(see) or {}, CLUSTERS, propagationPolicy="Background")
        _set(jobStatus=state, endTime=see.api.time())(see)

    return do


def _job_rows() -> tuple[Row, ...]:
    rows = [
        Row("new", "the operator sees it", "JobCreated", _SOURCE + "daskjob_create", lambda see: True,
            _set(jobStatus="JobCreated")),
        Row("JobCreated", "the operator sees it", "ClusterCreated", _SOURCE + "daskjob_create_components",
            lambda see: True, _create),
        Row("ClusterCreated", "the runner is seen running", "Running", _SOURCE + "handle_runner_status_change_running",
            _runner_is("Running"), lambda see: _set(jobStatus="Running", startTime=see.api.time())(see)),
        Row("Running", "the runner was deleted: nobody handles it", "Running",
            _SOURCE + "(no handler of a pod's deletion)", lambda see: not _runner(see)),
    ]  # fmt: skip
    for state in ("ClusterCreated", "Running"):
        rows += [
            Row(state, "the runner succeeded", "Successful", _SOURCE + "handle_runner_status_change_succeeded",
                lambda see: _runner_is("Succeeded")(see) and _cluster(see), _finish("Successful")),
            Row(state, "the runner failed", "Failed", _SOURCE + "handle_runner_status_change_failed",
                lambda see: _runner_is("Failed")(see) and _cluster(see), _finish("Failed")),
        ]  # fmt: skip
    rows += [
        Row("Running", "the runner ended, the cluster is gone: the handler fails for ever", "Running",
            _SOURCE + "handle_runner_status_change_succeeded",
            lambda see: _runner_is("Succeeded", "Failed")(see) and not _cluster(see)),
    ]  # fmt: skip
    return tuple(rows)


JOBS = Table("daskjob", ("daskjobs.kubernetes.dask.org",), state_of, _job_rows(), wants=lambda see: not see.deleting)


def _name_fits(see: See) -> bool:
    return len(see.name) <= MOST_LETTERS and bool(_NAME.fullmatch(see.name))


def _of_part(see: See, part: str) -> tuple[Json, Json]:
    metadata = see.spec[part].get("metadata") or {}
    return {**labels(see.obj), **metadata.get("labels", {})}, {
        **(see.meta.get("annotations") or {}), **metadata.get("annotations", {})
    }  # fmt: skip


def _components(see: See) -> None:
    name = f"{see.name}-scheduler"
    theirs, told = _of_part(see, "scheduler")
    theirs |= {"dask.org/cluster-name": see.name, "dask.org/component": "scheduler"}
    metadata = {"name": name, "labels": theirs, "annotations": told}
    template = {"metadata": {"labels": theirs, "annotations": told}, "spec": see.spec["scheduler"]["spec"]}
    spec = {"replicas": 1, "selector": {"matchLabels": theirs}, "template": template}
    see.create("deployments.apps", {"metadata": dict(metadata), "spec": spec})
    see.create("services", {"metadata": dict(metadata), "spec": see.spec["scheduler"]["service"]})
    theirs, told = _of_part(see, "worker")
    theirs |= {"dask.org/cluster-name": see.name, "dask.org/component": "workergroup"}
    see.create(GROUPS, {
        "metadata": {"name": f"{see.name}-default", "labels": theirs, "annotations": told},
        "spec": {"cluster": see.name, "worker": see.spec["worker"]},
    })  # fmt: skip
    _phase("Pending")(see)


def _phase(name: str) -> Callable[[See], None]:
    return lambda see: see.change(lambda found: found.setdefault("status", {}).update(phase=name))


CLUSTER = Table(
    "daskcluster",
    (CLUSTERS,),
    lambda see: see.status.get("phase") or "new",
    (
        Row("new", "its name is longer than operator and DNS allow", "Error",
            "dask/dask-kubernetes@1daa175 dask_kubernetes/operator/validation.py validate_cluster_name",
            lambda see: not _name_fits(see), _phase("Error")),
        Row("new", "the operator sees it", "Created", _SOURCE + "daskcluster_create", lambda see: True, _phase("Created")),
        Row("Created", "the operator sees it", "Pending", _SOURCE + "daskcluster_create_components", lambda see: True,
            _components),
        Row("Pending", "the scheduler's service is there", "Running", _SOURCE + "handle_scheduler_service_status",
            lambda see: see.api.find("services", see.namespace, f"{see.name}-scheduler"), _phase("Running")),
    ),
    wants=lambda see: not see.deleting,
)  # fmt: skip


def _workers_lacking(see: See) -> int:
    return int(see.spec["worker"].get("replicas", 1)) - len(see.owned("deployments.apps"))


def _make_workers(see: See) -> None:
    theirs, told = _of_part(see, "worker")
    cluster = see.spec["cluster"]
    for _ in range(_workers_lacking(see)):
        name = f"{see.name}-worker-{see.api.rng.getrandbits(40):010x}"
        theirs = {**theirs, "dask.org/workergroup-name": see.name, "dask.org/component": "worker"}
        env = {"DASK_WORKER_NAME": name, "DASK_SCHEDULER_ADDRESS": _address(see, cluster)}
        made = from_template({"spec": see.spec["worker"]["spec"]}, name, env=env)
        template = {"metadata": {"labels": theirs, "annotations": told}, "spec": made["spec"]}
        spec = {"replicas": 1, "selector": {"matchLabels": theirs}, "template": template}
        see.create(
            "deployments.apps", {"metadata": {"name": name, "labels": theirs, "annotations": told}, "spec": spec}
        )


WORKERS = Table(
    "daskworkergroup",
    (GROUPS,),
    lambda see: "wanted",
    (
        Row("wanted", "fewer workers than replicas", SAME, _SOURCE + "daskworkergroup_replica_update",
            lambda see: _workers_lacking(see) > 0, _make_workers),
    ),
    wants=lambda see: not see.deleting,
)  # fmt: skip
