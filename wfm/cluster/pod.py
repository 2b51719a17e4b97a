"""The pod of a stage: what every kind of job puts into its template.

It may do nothing but work: no root, nothing to write to but sized folders of its own, no token for the API of Kubernetes.
Requests are limits, so nothing it was promised is taken from it. What lies in /dev/shm is memory and is counted as such.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from wfm.cluster.names import (
    ANNOTATION_CODE,
    ANNOTATION_GENERATION,
    ANNOTATION_KEY,
    ANNOTATION_RUNS,
    ANNOTATION_TIMEOUT,
    ANNOTATION_TRY,
    LABEL_JOB,
    LABEL_NODE,
    LABEL_ROLE,
    LABEL_RUN,
    LABEL_STAGE,
    label_value,
)
from wfm.cluster.request import JobRequest
from wfm.cluster.resources import LOGS_GIB, Resources
from wfm.cluster.settings import ClusterSettings, Image
from wfm.stopping import GRACE

Json = dict[str, Any]

QUEUE = "kueue.x-k8s.io/queue-name"
WORKLOAD_PRIORITY = "kueue.x-k8s.io/priority-class"
GANG_TOPOLOGY = "kueue.x-k8s.io/podset-preferred-topology"
HOSTNAME = "kubernetes.io/hostname"
HOME, CACHE, TEMPORARY = "/home/wfm", "/cache", "/tmp"
"""Where a pod may write."""
DASK_FOLDER = f"{TEMPORARY}/dask"
KEY_FILE = f"{TEMPORARY}/key"
USER = 1000
"Of the images; root of none."
ENGINE = "kubernetes"
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_SHARES = {"home": (HOME, 0.1), "cache": (CACHE, 0.5), "tmp": (TEMPORARY, 0.4)}
"""Of the disk that is not for logs: volume -> where it is mounted, its share."""


def labels(request: JobRequest, name: str) -> dict[str, str]:
    """By which a job and its pods are found."""
    return {
        LABEL_JOB: name,
        LABEL_RUN: label_value(request.run_id),
        LABEL_NODE: label_value(request.node),
        LABEL_STAGE: label_value(request.stage),
        LABEL_ROLE: "stage",
    }


def annotations(request: JobRequest, attempt: int) -> dict[str, str]:
    """What is too long for a label, or changes."""
    found = {
        ANNOTATION_KEY: request.key,
        ANNOTATION_GENERATION: str(request.generation),
        ANNOTATION_TRY: str(attempt),
        ANNOTATION_RUNS: request.run_id,
        ANNOTATION_TIMEOUT: str(math.ceil(request.timeout_seconds)),
    }
    return {**found, ANNOTATION_CODE: request.code} if request.code else found


def queue_labels(resources: Resources, settings: ClusterSettings) -> dict[str, str]:
    """By which Kueue takes up what holds devices; none without a queue."""
    if not settings.queue:
        return {}
    priority = resources.workload_priority or settings.workload_priority
    return {QUEUE: settings.queue, **({WORKLOAD_PRIORITY: priority} if priority else {})}


INIT = ("tini", "--")
"""Process 1 of a container (`images/Containerfile`): it passes SIGTERM on and reaps. A stage that were process 1 itself would
not die of a signal that it sends itself, nor of an early SIGTERM."""


def command(request: JobRequest) -> list[str]:
    """The stage's own command line, as every engine starts it."""
    given = [word for name, key in sorted(request.inputs.items()) for word in ("--input", f"{name}={key}")]
    last = ["--parts", f"JOB_COMPLETION_INDEX/{request.parts}"] if request.parts else ["--key-out", KEY_FILE]
    return [f"components.{request.component}", "--spec", request.spec_url, *given, *last]


def environment(
    request: JobRequest, settings: ClusterSettings, name: str, attempt: int, resources: Resources
) -> dict[str, str]:
    """The variables of a process with these resources; where the platform team's own are others, ours hold."""
    devices: dict[str, str] = {}
    if resources.gpu:
        # `video` brings the libraries of NVDEC into the container: without it a device decodes nothing
        devices["NVIDIA_DRIVER_CAPABILITIES"] = "compute,utility,video"
    if resources.gpu and request.kind == "torchjob":
        devices |= {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "1", **settings.nccl}
    return {
        **threads(resources.pod()["cpu"] / (resources.processes if request.kind == "torchjob" else 1)),
        **settings.environment,
        **devices,
        **places(settings, request.image),
        "WFM_ENGINE": ENGINE,
        "WFM_ATTEMPT": f"{name}.{attempt}",
        GRACE: str(resources.grace_seconds),
    }


def threads(cores: float) -> dict[str, str]:
    """The variables by which libraries start a thread for each core that a process may use, and not for each of the machine."""
    return dict.fromkeys(_THREADS, str(max(1, int(cores))))


def places(settings: ClusterSettings, role: Image) -> dict[str, str]:
    """The variables of any process of an image of ours: which image it is, and where it may write."""
    return {
        "WFM_IMAGE": settings.image(role),
        "HOME": HOME,
        "WFM_CACHE": CACHE,
        "TMPDIR": TEMPORARY,
        "PYTHONSAFEPATH": "1",
    }


def variables(values: Mapping[str, str]) -> list[Json]:
    """Variables as a container lists them, with its pod and its machine."""
    told = {"POD_NAME": "metadata.name", "NODE_NAME": "spec.nodeName"}
    return [
        *({"name": name, "value": value} for name, value in sorted(values.items()) if name not in told),
        *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in told.items()),
    ]


def amounts(resources: Resources, settings: ClusterSettings) -> Json:
    """Requests and limits, which are the same."""
    pod = resources.pod()
    found = {
        "cpu": _cores(pod["cpu"]),
        "memory": _size(pod["memory_gib"]),
        "ephemeral-storage": _size(pod["ephemeral_gib"]),
    }
    if resources.gpu:
        found[settings.gpu_resource] = f"{pod['gpu']:.0f}"
    if resources.rdma:
        found[settings.rdma_resource] = str(resources.rdma)
    return {"requests": dict(found), "limits": dict(found)}


def volumes(resources: Resources) -> tuple[list[Json], list[Json]]:
    """(volumes, mounts): what a pod may write to, each with its size."""
    disk = max(resources.ephemeral_gib - LOGS_GIB, resources.ephemeral_gib / 2)
    made = [{"name": name, "emptyDir": {"sizeLimit": _size(disk * share)}} for name, (_, share) in _SHARES.items()]
    mounts = [{"name": name, "mountPath": place} for name, (place, _) in _SHARES.items()]
    if resources.shm_gib:
        made.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _size(resources.shm_gib)}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})
    return made, mounts


def container(
    name: str,
    image: str,
    words: Sequence[str],
    values: Mapping[str, str],
    resources: Resources,
    settings: ClusterSettings,
) -> Json:
    """A container that works and no more; ``words`` are its command line."""
    made: Json = {
        "name": name,
        "image": image,
        "command": [*INIT, *words],
        "env": variables(values),
        "resources": amounts(resources, settings),
        "volumeMounts": volumes(resources)[1],
        "securityContext": confined(),
    }
    if settings.secrets:
        made["envFrom"] = secrets(settings)
    return made


def secrets(settings: ClusterSettings) -> list[Json]:
    """Secrets whose entries become variables."""
    return [{"secretRef": {"name": secret}} for secret in settings.secrets]


def confined() -> Json:
    """What a container may not."""
    return {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def nobody() -> Json:
    """As whom a pod works."""
    ids = {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER}
    return {"runAsNonRoot": True, **ids, "seccompProfile": {"type": "RuntimeDefault"}}


def pod_spec(
    one: Json,
    resources: Resources,
    settings: ClusterSettings,
    avoid: Sequence[str] = (),
    *,
    near: str = "",
    apart: str = "",
) -> Json:
    """The pod around a container; `near` and `apart` as in `placement`."""
    made: Json = {
        "containers": [one],
        "volumes": volumes(resources)[0],
        "securityContext": nobody(),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": resources.grace_seconds,
        **placement(resources, settings, avoid, near=near, apart=apart),
    }
    if settings.service_account:
        made["serviceAccountName"] = settings.service_account
    if settings.image_pull_secrets:
        made["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    priority = resources.priority or settings.pod_priority
    if priority:
        made["priorityClassName"] = priority
    return made


def placement(
    resources: Resources, settings: ClusterSettings, avoid: Sequence[str] = (), *, near: str = "", apart: str = ""
) -> Json:
    """On which machines; ``avoid`` are those where the job failed before. `near`: the job whose pods, ranks of a training, lie
    as close together as they can; `apart`: the job whose pods are spread, so that one machine or zone takes few of them."""
    made: Json = {}
    selector = {**settings.node_selector, **(settings.gpu_node_selector if resources.gpu else {})}
    if selector:
        made["nodeSelector"] = selector
    borne = (
        *settings.tolerations,
        *(settings.gpu_tolerations if resources.gpu else ()),
        *(settings.spot_tolerations if resources.spot else ()),
    )
    if borne:
        made["tolerations"] = [one.plain() for one in borne]
    affinity: Json = {}
    if avoid:
        others = {"key": HOSTNAME, "operator": "NotIn", "values": sorted(set(avoid))}
        terms = {"nodeSelectorTerms": [{"matchExpressions": [others]}]}
        affinity["nodeAffinity"] = {"requiredDuringSchedulingIgnoredDuringExecution": terms}
    if near and settings.gang_topology and not settings.queue:  # Kueue is told by `gang_annotations`
        term = {"labelSelector": {"matchLabels": {LABEL_JOB: near}}, "topologyKey": settings.gang_topology}
        wish = {"weight": 100, "podAffinityTerm": term}
        affinity["podAffinity"] = {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}
    if affinity:
        made["affinity"] = affinity
    if apart and settings.spread_topology:
        made["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": settings.spread_topology,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {LABEL_JOB: apart}},
            }
        ]
    return made


def gang_annotations(settings: ClusterSettings) -> dict[str, str]:
    """By which Kueue places the pods of a training close together: it chooses their machines, and looks at no affinity."""
    return {GANG_TOPOLOGY: settings.gang_topology} if settings.queue and settings.gang_topology else {}


def deadline(request: JobRequest, settings: ClusterSettings) -> int:
    """The last stop of a job, from its admission on [s]: what an attempt may take, and all that may come before it begins. The
    launcher, which knows when it began, is stricter."""
    patience = settings.patience
    before = patience.unschedulable_seconds + patience.image_pull_seconds + patience.start_seconds
    return math.ceil(request.timeout_seconds + before + request.resources.grace_seconds)


def _cores(cpu: float) -> str:
    """As Kubernetes itself would write it: what comes back from the server is what was sent."""
    thousandths = math.ceil(round(cpu * 1000, 6))
    return str(thousandths // 1000) if thousandths % 1000 == 0 else f"{thousandths}m"


def _size(gib: float) -> str:
    mebibytes = max(1, math.ceil(round(gib * 1024, 6)))
    return f"{mebibytes // 1024}Gi" if mebibytes % 1024 == 0 else f"{mebibytes}Mi"
