"""Sets of objects without a fault: what the builders make, and by hand what comes with them (Kueue, Argo, a budget)."""

from typing import Any

from wfm.cluster.objects import build, trainjob
from wfm.cluster.request import JobRequest
from wfm.cluster.resources import Resources
from wfm.cluster.settings import ClusterSettings

Objects = list[dict[str, Any]]
KEY = "0f" * 32


def image(role: str) -> str:
    return f"registry.example/wfm-{role}@sha256:{ {'curation': 'a', 'training': 'b', 'control': 'c'}[role] * 64 }"


_SETTINGS: dict[str, Any] = {
    "namespace": "wfm",
    "images": {role: image(role) for role in ("curation", "training", "control")},
    "queue": "research",
    "workload_priority": "normal",
    "pod_priority": "batch",
    "service_account": "stages",
    "environment": {"WFM_STORE": "s3://bucket/store"},
    "secrets": ["store"],
    "integrations": ["pytorchjob", "trainjob", "job", "jobset", "pod", "deployment"],
    "quota": {"gpu": 64, "cpu": 1024, "memory_gib": 8192, "rdma": 64, "ephemeral_gib": 4096},
}
SETTINGS = ClusterSettings.parse(_SETTINGS)
TRAINJOB_SETTINGS = ClusterSettings.parse({**_SETTINGS, "training_job": "trainjob"})
GPUS = Resources(cpu=32, gpu=8, memory_gib=256, shm_gib=64, replicas=4, rdma=8)


def request(stage: str, kind: str, role: str, **more: Any) -> JobRequest:
    values: dict[str, Any] = {
        "stage": stage,
        "component": stage,
        "node": stage,
        "kind": kind,
        "image": role,
        "key": KEY,
        "generation": 1,
        "run_id": "20261130T010203-abcdef",
        "spec_url": "s3://bucket/store/runs/r/specs/n.json",
        "code": "1",
        "timeout_seconds": 7200.0,
    }
    return JobRequest(**{**values, **more})


def training(settings: ClusterSettings = SETTINGS) -> dict[str, Any]:
    return build(request("train_world_model", "torchjob", "training", resources=GPUS), settings, avoid=["bad-node"])


def curation() -> dict[str, Any]:
    return build(request("split_clips", "daskjob", "curation", resources=Resources(cpu=2, replicas=8)), SETTINGS)


def encoding() -> dict[str, Any]:
    return build(request("encode_latents", "daskjob", "training", resources=Resources(gpu=1, replicas=8)), SETTINGS)


def ranges() -> dict[str, Any]:
    needs = Resources(gpu=1, replicas=8)
    return build(request("encode_latents", "daskjob", "training", parts=16, resources=needs), SETTINGS)


def evaluation() -> dict[str, Any]:
    return build(request("evaluate_model", "container", "training", resources=Resources(gpu=1)), SETTINGS)


def job_set() -> dict[str, Any]:
    """A JobSet that somebody wrote himself: the runtime's policy around the pod of an evaluation, queued as a gang."""
    job = evaluation()
    runtime = trainjob.runtime(TRAINJOB_SETTINGS)["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    pods = job["spec"]["template"]
    pods["spec"]["containers"][0]["name"] = "node"
    spec = {
        **{name: runtime[name] for name in ("backoffLimit", "podReplacementPolicy", "podFailurePolicy")},
        "template": pods,
    }
    spec = {**spec, "completions": 2, "parallelism": 2, "completionMode": "Indexed"}
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {**job["metadata"], "name": "gang"},
        "spec": {
            "failurePolicy": {"maxRestarts": 0},
            "replicatedJobs": [{"name": "ranks", "replicas": 1, "template": {"spec": spec}}],
        },
    }


def queue_objects() -> Objects:
    """A ClusterQueue with what may be borrowed, its LocalQueue, a priority."""
    names = ("cpu", "memory", "ephemeral-storage", "nvidia.com/gpu", "rdma/hca", "pods")
    nominal = {
        "cpu": "128",
        "memory": "1Ti",
        "ephemeral-storage": "1Ti",
        "nvidia.com/gpu": "16",
        "rdma/hca": "64",
        "pods": "99",
    }

    def cluster(name: str, gpu: str, borrowing: str | None) -> dict[str, Any]:
        resources: list[dict[str, Any]] = [
            {"name": each, "nominalQuota": gpu if each == "nvidia.com/gpu" else nominal[each]} for each in names
        ]
        if borrowing:
            resources[3]["borrowingLimit"] = borrowing
        group = {"coveredResources": list(names), "flavors": [{"name": "h100", "resources": resources}]}
        return {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "ClusterQueue",
            "metadata": {"name": name},
            "spec": {"cohortName": "all", "namespaceSelector": {}, "resourceGroups": [group]},
        }

    return [
        cluster("research", "16", "16"),
        cluster("products", "64", None),
        {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "LocalQueue",
            "metadata": {"name": "research", "namespace": "wfm"},
            "spec": {"clusterQueue": "research"},
        },
        {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "WorkloadPriorityClass",
            "metadata": {"name": "normal"},
            "value": 100,
        },
    ]


def budget() -> dict[str, Any]:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "training", "namespace": "wfm"},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"wfm.dev/node": "train_world_model"}}},
    }


def claim(name: str, mode: str) -> dict[str, Any]:
    spec = {"accessModes": [mode], "resources": {"requests": {"storage": "10Gi"}}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": "wfm"},
        "spec": spec,
    }


EXPRESSION = (
    "lastRetry.status == 'Error' || (lastRetry.exitCode in ['75', '137', '143', '-1'] "
    "&& not (lastRetry.message contains 'OOMKilled'))"
)


def _argo_container(name: str, words: list[str], role: str) -> dict[str, Any]:
    amounts = {"cpu": "500m", "memory": "1Gi", "ephemeral-storage": "1Gi"}
    return {
        "name": name,
        "image": image(role),
        "command": ["python", "-m", *words],
        "env": [
            {"name": "HOME", "value": "/work/home"},
            {"name": "WFM_CACHE", "value": "/work/cache"},
            {"name": "TMPDIR", "value": "/work/tmp"},
        ],
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "volumeMounts": [{"name": "work", "mountPath": "/work"}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _argo_template(name: str, words: list[str], role: str) -> dict[str, Any]:
    container = _argo_container("main", words, role)
    return {
        "name": name,
        "metadata": {"labels": {"wfm.dev/node": name}},
        "container": container,
        "pendingTimeout": "15m",
        "retryStrategy": {
            "limit": "3",
            "expression": EXPRESSION,
            "backoff": {"duration": "30s", "factor": "2", "maxDuration": "1h"},
        },
    }


def flow() -> dict[str, Any]:
    """A plan, a small stage in a pod, a launcher behind a condition, and a notice at the end."""
    plan = _argo_template("plan", ["pipelines.engines.plan_pod"], "control")
    plan["outputs"] = {"parameters": [{"name": "missing", "valueFrom": {"path": "/work/missing", "default": "true"}}]}
    stage = _argo_template("select-clips", ["components.select_clips"], "curation") | {"activeDeadlineSeconds": 3600}
    launch = _argo_template("train", ["components.launch_job", "--spec", "s3://bucket/store/spec.json"], "control")
    launch["outputs"] = {"parameters": [{"name": "key", "valueFrom": {"path": "/work/key", "default": ""}}]}
    notice = _argo_template("notice", ["json.tool"], "control")
    notice["container"] |= {"image": f"registry.example/curl@sha256:{'d' * 64}", "command": ["curl", "--fail"]}
    tasks = [
        {"name": "plan", "template": "plan"},
        {"name": "select-clips", "template": "select-clips", "depends": "plan"},
        {
            "name": "train",
            "template": "train",
            "depends": "select-clips",
            "when": "{{tasks.plan.outputs.parameters.missing}} == true",
        },
    ]
    return {
        "entrypoint": "all",
        "serviceAccountName": "wfm-workflow",
        "activeDeadlineSeconds": 30 * 86400,
        "onExit": "notice",
        "podGC": {"strategy": "OnWorkflowSuccess", "deleteDelayDuration": "10m"},
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "work", "emptyDir": {"sizeLimit": "1Gi"}}],
        "templates": [{"name": "all", "dag": {"failFast": False, "tasks": tasks}}, plan, stage, launch, notice],
    }


def workflow(kind: str = "WorkflowTemplate") -> dict[str, Any]:
    metadata = {"name": "world-model", "namespace": "wfm"}
    return {"apiVersion": "argoproj.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": flow()}


def cron() -> dict[str, Any]:
    spec = {
        "schedules": ["0 3 * * mon-fri", "*/30 4-6 1,15 * *"],
        "timezone": "Europe/Berlin",
        "startingDeadlineSeconds": 3600,
        "concurrencyPolicy": "Forbid",
        "workflowSpec": flow(),
    }
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "CronWorkflow",
        "metadata": {"name": "nightly", "namespace": "wfm"},
        "spec": spec,
    }


SETS = {
    "training": lambda: [training()],
    "queue": lambda: [training(), *queue_objects(), budget()],
    "trainjob": lambda: [training(TRAINJOB_SETTINGS), trainjob.runtime(TRAINJOB_SETTINGS)],
    "curation": lambda: [curation()],
    "encoding": lambda: [encoding()],
    "ranges": lambda: [ranges()],
    "evaluation": lambda: [evaluation()],
    "jobset": lambda: [job_set()],
    "workflow": lambda: [workflow()],
    "cron": lambda: [cron()],
}
"""Set -> what makes it."""


def settings_of(name: str) -> ClusterSettings:
    return TRAINJOB_SETTINGS if name == "trainjob" else SETTINGS
