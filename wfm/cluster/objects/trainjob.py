"""A training as a TrainJob (Kubeflow Trainer 2.3), which becomes a JobSet: the way on where Kueue drops PyTorchJob.

What every training has alike, and what a TrainJob cannot say (secrets as variables, the policy of failures, no token), stands
in the runtime that it refers to: `runtime` makes that object once for a namespace. The rest comes as the trainer and, for
volumes, grace and machines, as a patch of the runtime.
"""

from collections.abc import Sequence

from wfm.cluster import pod
from wfm.cluster.names import LABEL_JOB
from wfm.cluster.pod import Json
from wfm.cluster.request import JobRequest
from wfm.cluster.resources import Resources
from wfm.cluster.settings import ClusterSettings
from wfm.errors import InputError, WfmError

JOB = CONTAINER = "node"
"Names that the trainer gives to its ranks' job and container."
MANAGER = "wfm.dev/launcher"


def build(request: JobRequest, settings: ClusterSettings, attempt: int, avoid: Sequence[str]) -> Json:
    """The job; its pods are ``<name>-node-0-<i>-…``."""
    name, resources = request.name(settings), request.resources
    found, told = pod.labels(request, name), pod.annotations(request, attempt)
    values = pod.environment(request, settings, name, attempt, resources)
    patience = int(settings.patience.start_seconds)  # names of pods that start minutes apart come late
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {
            "name": name,
            "namespace": settings.namespace,
            "labels": {**found, **pod.queue_labels(resources, settings)},
            "annotations": told,
        },
        "spec": {
            "runtimeRef": {
                "apiGroup": "trainer.kubeflow.org",
                "kind": "TrainingRuntime",
                "name": settings.training_runtime,
            },
            "activeDeadlineSeconds": pod.deadline(request, settings),
            "trainer": {
                "image": settings.image(request.image),
                "command": [*pod.INIT, "python", "-m", "torch.distributed.run"],
                "args": [
                    "--rdzv-id",
                    name,
                    "--max-restarts",
                    "0",
                    "--rdzv-conf",
                    f"timeout={patience}",
                    "--module",
                    *pod.command(request),
                ],
                "env": pod.variables(values),
                "numNodes": resources.replicas,
                "numProcPerNode": resources.processes,
                "resourcesPerNode": pod.amounts(resources, settings),
            },
            "runtimePatches": [
                {"manager": MANAGER, "trainingRuntimeSpec": _patch(found, told, resources, settings, avoid)}
            ],
        },
    }


def _patch(
    found: dict[str, str], told: dict[str, str], resources: Resources, settings: ClusterSettings, avoid: Sequence[str]
) -> Json:
    made, mounts = pod.volumes(resources)
    spec = {
        "volumes": made,
        "containers": [{"name": CONTAINER, "volumeMounts": mounts}],
        "terminationGracePeriodSeconds": resources.grace_seconds,
        **pod.placement(resources, settings, avoid, near=found[LABEL_JOB]),
    }
    pods = {"metadata": {"labels": found, "annotations": {**told, **pod.gang_annotations(settings)}}, "spec": spec}
    job = {"name": JOB, "template": {"spec": {"template": pods}}}
    return {"template": {"spec": {"replicatedJobs": [job]}}}


def runtime(settings: ClusterSettings) -> Json:
    """What trainjobs of a namespace refer to: made once, by whoever sets up the cluster."""
    spec: Json = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod.nobody(),
        "containers": [
            {
                "name": CONTAINER,
                "image": settings.image("training"),
                "securityContext": pod.confined(),
                **({"envFrom": pod.secrets(settings)} if settings.secrets else {}),
            }
        ],
    }
    if settings.service_account:
        spec["serviceAccountName"] = settings.service_account
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if settings.pod_priority:
        spec["priorityClassName"] = settings.pod_priority
    final = {"containerName": CONTAINER, "operator": "In", "values": sorted([InputError.exit_code, WfmError.exit_code])}
    rules = [
        {"action": "FailJob", "onExitCodes": final},
        {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    job = {
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": rules},
        "template": {"spec": spec},
    }
    ancestor = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainingRuntime",
        "metadata": {
            "name": settings.training_runtime,
            "namespace": settings.namespace,
            "labels": {"trainer.kubeflow.org/framework": "torch"},
        },
        "spec": {
            "mlPolicy": {"numNodes": 1, "torch": {}},
            "template": {
                "spec": {
                    "failurePolicy": {"maxRestarts": 0},
                    "replicatedJobs": [{"name": JOB, "template": {"metadata": {"labels": ancestor}, "spec": job}}],
                }
            },
        },
    }
