"""A training as a PyTorchJob (training operator 1.9): workers alone, each of which torchrun splits into ranks.

No master: the operator would give the others an init container that waits for it, from an image of its own. With an elastic
policy one worker that is through makes the job Succeeded while others run: nobody here believes a condition, the store decides.
A pod that fails is not brought back by the operator, whose restarts nothing bounds: it ends the job (``Never``), its survivors
are stopped so that they hold no devices (``Running``), and the launcher makes the job again.
"""

from collections.abc import Sequence

from wfm.cluster import pod
from wfm.cluster.pod import Json
from wfm.cluster.request import JobRequest
from wfm.cluster.settings import ClusterSettings

CONTAINER = "pytorch"
"The operator asks for this name."
PORT = 23456


def build(request: JobRequest, settings: ClusterSettings, attempt: int, avoid: Sequence[str]) -> Json:
    """The job; its pods are ``<name>-worker-<i>``."""
    name, resources = request.name(settings), request.resources
    found, told = pod.labels(request, name), pod.annotations(request, attempt)
    values = pod.environment(request, settings, name, attempt, resources)
    words = ["python", "-m", "torch.distributed.run", "--module", *pod.command(request)]
    one = pod.container(CONTAINER, settings.image(request.image), words, values, resources, settings)
    one["ports"] = [{"name": "pytorchjob-port", "containerPort": PORT}]
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            "labels": {**found, **pod.queue_labels(resources, settings)},
            "annotations": told,
        },
        "spec": {
            "nprocPerNode": str(resources.processes),
            "elasticPolicy": {
                "minReplicas": resources.replicas,
                "maxReplicas": resources.replicas,
                "maxRestarts": 0,
                "rdzvBackend": "c10d",
                "rdzvId": name,
                "rdzvConf": [{"key": key, "value": value} for key, value in _patience(settings).items()],
            },
            "runPolicy": {
                "cleanPodPolicy": "Running",
                "activeDeadlineSeconds": pod.deadline(request, settings),
            },
            "pytorchReplicaSpecs": {
                "Worker": {
                    "replicas": resources.replicas,
                    "restartPolicy": "Never",
                    "template": {
                        "metadata": {"labels": found, "annotations": {**told, **pod.gang_annotations(settings)}},
                        "spec": pod.pod_spec(one, resources, settings, avoid, near=name),
                    },
                }
            },
        },
    }


def _patience(settings: ClusterSettings) -> dict[str, str]:
    """How long workers try to find each other: names of pods that start minutes apart come late."""
    seconds = str(int(settings.patience.start_seconds))
    return {"join_timeout": seconds, "read_timeout": seconds}
