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


def _argo_template(name: str, words: list[str], role: str, label: str) -> dict[str, Any]:
    container = _argo_container("main", words, role)
    return {
        "name": name,
        "metadata": {"labels": {"wfm.dev/node": name, "wfm.dev/role": label}},
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
    plan = _argo_template("plan", ["pipelines.engines.plan_pod"], "control", "planner")
    plan["outputs"] = {"parameters": [{"name": "missing", "valueFrom": {"path": "/work/missing", "default": "true"}}]}
    words = ["components.select_clips", "--spec", "{{workflow.parameters.specs}}/select_clips.json"]
    stage = _argo_template("select-clips", words, "curation", "stage") | {"activeDeadlineSeconds": 3600}
    words = ["components.launch_job", "--spec", "{{workflow.parameters.specs}}/train.json", "--key-out", "/work/key"]
    launch = _argo_template("train", words, "control", "launcher")
    launch["automountServiceAccountToken"] = True
    launch["outputs"] = {"parameters": [{"name": "key", "valueFrom": {"path": "/work/key", "default": ""}}]}
    notice = _argo_template("notice", ["json.tool"], "control", "notice")
    notice["container"] |= {"image": f"registry.example/curl@sha256:{'d' * 64}", "command": ["curl", "--fail"]}
    tasks = [
        {"name": "plan", "template": "plan"},
        {
            "name": "select-clips",
            "template": "select-clips",
            "depends": "plan",
            "when": "{{tasks.plan.outputs.parameters.missing}} == true",
        },
        {
            "name": "train",
            "template": "train",
            "depends": "select-clips",
            "when": "{{tasks.plan.outputs.parameters.missing}} == true",
        },
    ]
    return {
        "entrypoint": "all",
        "arguments": {"parameters": [{"name": "specs", "value": "s3://bucket/store/runs/r/specs"}]},
        "serviceAccountName": "wfm-workflow",
        "automountServiceAccountToken": False,
        "executor": {"serviceAccountName": "wfm-executor"},
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


def flavors() -> Objects:
    """What the queues' quota is made of."""
    kueue = "kueue.x-k8s.io/v1beta2"
    h100 = {"nodeLabels": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}}
    return [
        {"apiVersion": kueue, "kind": "ResourceFlavor", "metadata": {"name": "h100"}, "spec": h100},
        {"apiVersion": kueue, "kind": "Cohort", "metadata": {"name": "all"}, "spec": {"parentName": "company"}},
        {"apiVersion": kueue, "kind": "Cohort", "metadata": {"name": "company"}, "spec": {}},
    ]


def run_job() -> dict[str, Any]:
    """A Job that takes a whole run through (`docs/cluster.md`): none of a stage."""
    words = ["tini", "--", "sh", "-c", "wfm cluster steps world_model --run-id first > /work/run.sh && sh /work/run.sh"]
    one = {**_argo_container("run", [], "control"), "command": words}
    spec = {
        "serviceAccountName": "launcher",
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [one],
        "volumes": [{"name": "work", "emptyDir": {"sizeLimit": "1Gi"}}],
    }
    final = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [78, 143]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "wfm-first", "namespace": "wfm"},
        "spec": {
            "backoffLimit": 20,
            "podFailurePolicy": {"rules": [final]},
            "template": {"metadata": {"labels": {"wfm.dev/role": "pipeline"}}, "spec": spec},
        },
    }


def launcher_job() -> dict[str, Any]:
    """A launcher as a Job."""
    job = run_job()
    job["metadata"]["name"] = "launch-train"
    job["spec"]["template"]["metadata"]["labels"]["wfm.dev/role"] = "launcher"
    (one,) = job["spec"]["template"]["spec"]["containers"]
    one["command"] = ["tini", "--", "python", "-m", "components.launch_job", "--spec", "s3://bucket/spec.json"]
    return job


def _deployment(name: str, role: str, container: dict[str, Any], **spec: Any) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": name}
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{**container, "readinessProbe": {"httpGet": {"port": 8000, "path": "/health"}}}],
        "volumes": [{"name": "work", "emptyDir": {"sizeLimit": "1Gi"}}],
    }
    template = {"metadata": {"labels": {**labels, "wfm.dev/role": role}}, "spec": pod}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "wfm"},
        "spec": {**spec, "selector": {"matchLabels": labels}, "template": template},
    }


def exporter() -> dict[str, Any]:
    return _deployment("exporter", "exporter", _argo_container("main", ["pipelines.exporter"], "control"), replicas=1)


def captioner() -> dict[str, Any]:
    """A model server on a device, at zero until a run needs it."""
    words = ["vllm", "serve", "Qwen/Qwen2.5-VL-7B-Instruct", "--revision", "cc594898", "--quantization", "fp8"]
    one = {
        **_argo_container("main", [], "training"),
        "image": f"registry.example/vllm@sha256:{'d' * 64}",
        "command": words,
        "env": [{"name": "HOME", "value": "/work"}, {"name": "TMPDIR", "value": "/work"}],
        "startupProbe": {"httpGet": {"port": 8000, "path": "/health"}, "periodSeconds": 10, "failureThreshold": 90},
        "livenessProbe": {"httpGet": {"port": 8000, "path": "/health"}, "periodSeconds": 10},
    }
    amounts = {"cpu": "8", "memory": "64Gi", "ephemeral-storage": "4Gi", "nvidia.com/gpu": "1"}
    one["resources"] = {"requests": dict(amounts), "limits": dict(amounts)}
    one["volumeMounts"] = [*one["volumeMounts"], {"name": "shm", "mountPath": "/dev/shm"}]
    made = _deployment("captioner", "captioning", one, replicas=0, strategy={"type": "Recreate"})
    made["metadata"]["labels"] = {
        "kueue.x-k8s.io/queue-name": "research",
        "kueue.x-k8s.io/priority-class": "normal",
    }
    pod = made["spec"]["template"]["spec"]
    pod["volumes"].append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}})
    return made


def policy(name: str, role: str | None, **spec: Any) -> dict[str, Any]:
    selector = {"matchLabels": {"wfm.dev/role": role}} if role else {}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "wfm"},
        "spec": {"podSelector": selector, **spec},
    }


def services() -> Objects:
    """Servers beside the runs, and who may do what: 0 exporter, 1 captioner, 2 its Service, 3 its budget, 4 namespace,
    5 account, 6 Role, 7 RoleBinding, 8 to 10 network policies, 11 priority."""
    stages = {"podSelector": {"matchLabels": {"wfm.dev/role": "stage"}}}
    reads = [{"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get", "patch"]}]
    rbac = "rbac.authorization.k8s.io"
    own = {"name": "scaler", "namespace": "wfm"}
    return [
        exporter(),
        captioner(),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "captioner", "namespace": "wfm"},
            "spec": {"selector": {"app.kubernetes.io/name": "captioner"}, "ports": [{"port": 8000}]},
        },
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "captioner", "namespace": "wfm"},
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app.kubernetes.io/name": "captioner"}}},
        },
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": "wfm", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        },
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": own},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": own, "rules": reads},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": own,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "scaler"},
            "subjects": [{"kind": "ServiceAccount", **own}],
        },
        policy("shut", None, policyTypes=["Ingress", "Egress"]),
        policy(
            "captions", "captioning", policyTypes=["Ingress"], ingress=[{"from": [stages], "ports": [{"port": 8000}]}]
        ),
        policy(
            "store",
            "stage",
            policyTypes=["Egress"],
            egress=[{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443}]}],
        ),
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": "batch"},
            "value": 100,
        },
    ]


SETS = {
    "training": lambda: [training()],
    "queue": lambda: [training(), *queue_objects(), budget(), *flavors()],
    "trainjob": lambda: [training(TRAINJOB_SETTINGS), trainjob.runtime(TRAINJOB_SETTINGS)],
    "curation": lambda: [curation()],
    "encoding": lambda: [encoding()],
    "ranges": lambda: [ranges()],
    "evaluation": lambda: [evaluation()],
    "jobset": lambda: [job_set()],
    "workflow": lambda: [workflow()],
    "cron": lambda: [cron()],
    "run": lambda: [run_job()],
    "launcher": lambda: [launcher_job()],
    "services": services,
}
"""Set -> what makes it."""


def settings_of(name: str) -> ClusterSettings:
    return TRAINJOB_SETTINGS if name == "trainjob" else SETTINGS
