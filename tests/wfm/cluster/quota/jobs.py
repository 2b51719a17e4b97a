"""Jobs of the clusters in `clusters/`, from their short form."""

from typing import Any

from wfm.cluster.pod import QUEUE

API = {"Job": "batch/v1", "PyTorchJob": "kubeflow.org/v1", "DaskJob": "kubernetes.dask.org/v1"}


def job(told: dict[str, Any]) -> dict[str, Any]:
    """The object that a short form stands for."""
    kind = told.get("kind", "Job")
    labels = {QUEUE: told["queue"]} if "queue" in told else {}
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
