"""Jobs of the clusters in `clusters/`, from their short form."""

from typing import Any

from wfm.cluster.pod import QUEUE, WORKLOAD_PRIORITY

API = {"Job": "batch/v1", "PyTorchJob": "kubeflow.org/v1", "DaskJob": "kubernetes.dask.org/v1"}


def job(told: dict[str, Any]) -> dict[str, Any]:
    """The object that a short form stands for."""
    kind = told.get("kind", "Job")
    given = {QUEUE: "queue", WORKLOAD_PRIORITY: "workloadPriority"}
    labels = {label: told[short] for label, short in given.items() if short in told}
    found: dict[str, Any] = {
        "apiVersion": API[kind], "kind": kind,
        "metadata": {"name": told["name"], "namespace": told.get("namespace", "wfm"), "labels": labels},
    }  # fmt: skip
    wishes = {
        f"kueue.x-k8s.io/podset-{wish}-topology": told[wish] for wish in ("required", "preferred") if wish in told
    }
    template = {"metadata": {"annotations": wishes}, "spec": pod(told, told["requests"])}
    if kind == "Job":
        count = told.get("completions", told["pods"])
        found["spec"] = {"parallelism": told["pods"], "completions": count, "template": template}
    elif kind == "PyTorchJob":
        replicas = {"Worker": told["pods"], **({"Master": told["masters"]} if "masters" in told else {})}
        found["spec"] = {
            "pytorchReplicaSpecs": {name: {"replicas": n, "template": template} for name, n in replicas.items()}
        }
    else:
        found["metadata"]["labels"] = {}
        small = pod(told, {"cpu": 1, "memory": "1Gi"})
        worker = {"replicas": told["pods"], "metadata": {"labels": labels}, "spec": template["spec"]}
        found["spec"] = {"job": {"spec": small}, "cluster": {"spec": {"scheduler": {"spec": small}, "worker": worker}}}
    return found


def pod(told: dict[str, Any], requests: dict[str, Any]) -> dict[str, Any]:
    """The spec of a pod that asks for no more than it may have."""
    given = {"selector": "nodeSelector", "tolerations": "tolerations", "priorityClass": "priorityClassName"}
    more = {name: told[short] for short, name in given.items() if short in told}
    container = {"name": "main", "resources": {"requests": requests, "limits": requests}}
    return {"containers": [container], "restartPolicy": "Never", **more}


def workload(told: dict[str, Any]) -> dict[str, Any]:
    """A Workload of devices of the flavor gpu, as Kueue keeps it: ``since`` it has its quota, or it waits since ``created``."""
    conditions = []
    status: dict[str, Any] = {}
    if "since" in told:
        conditions.append(
            {
                "type": "QuotaReserved",
                "status": "True",
                "lastTransitionTime": told["since"],
                "reason": "QuotaReserved",
                "message": "",
            }
        )
        used = {"nvidia.com/gpu": str(told["gpus"])}
        status["admission"] = {
            "clusterQueue": told["queue"],
            "podSetAssignments": [
                {"name": "main", "count": 1, "flavors": {"nvidia.com/gpu": "gpu"}, "resourceUsage": used}
            ],
        }
    if told.get("finished"):
        conditions.append(
            {
                "type": "Finished",
                "status": "True",
                "lastTransitionTime": told["since"],
                "reason": "Succeeded",
                "message": "",
            }
        )
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "Workload",
        "metadata": {
            "name": f"job-{told['job']}-0a1b2", "namespace": "wfm",
            "creationTimestamp": told.get("created") or told["since"],
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": told["job"], "uid": "1", "controller": True}],
        },
        "spec": {
            "queueName": told["queue"], "priority": told["priority"], "active": told.get("active", True),
            "podSets": [{"name": "main", "count": 1, "template": {"spec": pod(told, {"nvidia.com/gpu": str(told["gpus"])})}}],
        },
        "status": {**status, "conditions": conditions},
    }  # fmt: skip
