"""Mutations of where pods land, what ties a job, tries beside ours, Dask's processes, orders of tasks."""

from typing import Any

from tests.wfm.cluster.lint.change import Mutation, Objects, add, drop, env, found, more, put, replaced
from tests.wfm.cluster.lint.of_jobs import CLUSTER, JOB_SET, MAIN, POD, REPLICA, RUNNER, RUNTIME, SCHEDULER, WORKER, m
from tests.wfm.cluster.lint.of_workflows import CRON, DAG, STEP

INDEX = "spec template spec"
STAGE = f"{INDEX} containers 0"
_WORDS = f"{WORKER} containers 0 command"


def _option(path: str, name: str, value: str) -> Any:
    """Another value of an option."""

    def change(objects: Objects) -> None:
        words = found(objects, path)
        words[words.index(name) + 1] = value

    return change


def _role(**rule: list[str]) -> Any:
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], **rule}]
    metadata = {"name": "launcher", "namespace": "wfm"}
    kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata}
    return more({**kind, "rules": rules})


def _binding(name: str) -> Any:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    return more({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "all", "namespace": "wfm"},
        "roleRef": reference, "subjects": [{"kind": "ServiceAccount", "name": "stages", "namespace": "wfm"}],
    })  # fmt: skip


_FINAL = {"name": "final", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
_OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "launcher", "uid": "1"}
_UNREACHABLE = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
PLACES = [
    m("scheduler", "training", "a machine by name", put(f"{POD} nodeName", "node-7")),
    m("scheduler", "ranges", "another scheduler", put(f"{INDEX} schedulerName", "volcano")),
    m("scheduler", "training", "the system's priority", put(f"{POD} priorityClassName", "system-node-critical")),
    m("scheduler", "encoding", "an image that is never pulled", put(f"{WORKER} containers 0 imagePullPolicy", "Never")),
    m("toleration", "training", "of everything", put(f"{POD} tolerations", [{"operator": "Exists"}])),
    m("toleration", "ranges", "of a lost machine", put(f"{INDEX} tolerations", [_UNREACHABLE])),
    m(
        "toleration",
        "curation",
        "of a lost machine for a day",
        put(f"{RUNNER} tolerations", [{**_UNREACHABLE, "tolerationSeconds": 86400}]),
    ),
    m("peers", "training", "the machine's DNS", put(f"{POD} dnsPolicy", "Default")),
    m("peers", "training", "one name for all ranks", put(f"{POD} hostname", "rank")),
    m("peers", "jobset", "no names", put("spec network", {"enableDNSHostnames": False})),
    m("peers", "jobset", "names of those that are ready", put("spec network", {"publishNotReadyAddresses": False})),
    *(
        m("ties", on, "an owner", put("metadata ownerReferences", [_OWNER]))
        for on in ("training", "trainjob", "curation", "ranges")
    ),
    *(
        m("ties", on, "a finalizer", put("metadata finalizers", ["wfm.dev/keep"]))
        for on in ("training", "evaluation", "jobset", "workflow")
    ),
    m("ties", "ranges", "a finalizer of its pods", put("spec template metadata finalizers", ["wfm.dev/keep"])),
]
TRIES = [
    m("attempt", "training", "no token", env(MAIN, "WFM_ATTEMPT", None)),
    m("attempt", "ranges", "of another try", env(STAGE, "WFM_ATTEMPT", "parts-0f0f0f0f-02fcd71d15d7faccfec1.7")),
    m("attempt", "evaluation", "of another job", env(STAGE, "WFM_ATTEMPT", "job-1.1")),
    m("job-indices", "evaluation", "tries beside the launcher's", put("spec backoffLimitPerIndex", 6)),
    m("job-indices", "ranges", "tries without an end", put("spec backoffLimitPerIndex", 2**31 - 1)),
    m("job-indices", "ranges", "one range for all pods", put(f"{STAGE} command -1", "0/16")),
    m(
        "job-set-restarts",
        "jobset",
        "a million restarts",
        put("spec failurePolicy", {"maxRestarts": 1000000, "rules": [_FINAL]}),
    ),
    m("job-set-restarts", "jobset", "ranks that come back alone", put(f"{JOB_SET} backoffLimit", 6)),
    m("job-set-restarts", "trainjob", "ranks that come back alone", put(f"{RUNTIME} backoffLimit", 6, of=1)),
    m("grace", "training", "a day", put(f"{POD} terminationGracePeriodSeconds", 86400)),
    m("grace", "encoding", "an hour", put(f"{WORKER} terminationGracePeriodSeconds", 3600)),
    m("stage-command", "training", "no spec", replaced(f"{MAIN} command", "--spec", None)),
    m("stage-command", "evaluation", "a key nobody can write", _option(f"{STAGE} command", "--key-out", "/opt/key")),
    m("reserved-variable", "training", "all devices", env(MAIN, "NVIDIA_VISIBLE_DEVICES", "all")),
    m("reserved-variable", "ranges", "devices by hand", env(STAGE, "CUDA_VISIBLE_DEVICES", "0")),
    m("hang", "training", "waits for lost ranks", env(MAIN, "TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")),
    m("hang", "trainjob", "says nothing of it", env("spec trainer", "TORCH_NCCL_ASYNC_ERROR_HANDLING", None)),
    m("hang", "training", "gives up at once", put("spec elasticPolicy rdzvConf 0 value", "1")),
]
RIGHTS = [
    m("root-user", "training", "root's files", put(f"{POD} securityContext fsGroup", 0)),
    m("root-user", "ranges", "root's group", put(f"{INDEX} securityContext supplementalGroups", [1000, 0])),
    m("privileges", "training", "the kernel's settings",
      put(f"{POD} securityContext sysctls", [{"name": "kernel.shmmax", "value": "1"}])),
    m("privileges", "ranges", "another domain", put(f"{STAGE} securityContext seLinuxOptions", {"type": "spc_t"})),
    m("role", "workflow", "every verb", _role(verbs=["*"])),
    m("role", "workflow", "every resource", _role(resources=["*"])),
    m("binding", "workflow", "of the whole cluster", _binding("cluster-admin")),
]  # fmt: skip
DASK = [
    m(
        "worker-command",
        "encoding",
        "one process for all devices",
        lambda objects: found(objects, _WORDS).remove("cuda"),
    ),
    m("worker-command", "encoding", "no bound of memory", replaced(_WORDS, "--memory-limit", None)),
    m("worker-command", "curation", "memory without a bound", _option(_WORDS, "--memory-limit", "0")),
    m("worker-command", "curation", "more memory than there is", _option(_WORDS, "--memory-limit", "999GiB")),
    m("worker-command", "curation", "eight in a pod", add(_WORDS, "--nworkers=8")),
    *(
        m("scheduler-service", "curation", kind, put(f"{CLUSTER} scheduler service type", kind))
        for kind in ("LoadBalancer", "NodePort")
    ),
    m(
        "scheduler-service",
        "curation",
        "of another cluster",
        put(f"{CLUSTER} scheduler service selector", {"dask.org/cluster-name": "x", "dask.org/component": "scheduler"}),
    ),
    m("scheduler-service", "curation", "no workers", put(f"{CLUSTER} worker replicas", 0)),
    *(
        m(
            "queue-label",
            "curation",
            f"devices past the queue, {place}",
            *(put(f"{path} containers 0 resources {kind} nvidia.com/gpu", "1") for kind in ("requests", "limits")),
        )
        for place, path in (("runner", RUNNER), ("scheduler", SCHEDULER))
    ),
]
QUEUE = [
    m(
        "open-queue",
        "queue",
        "of another namespace",
        put("spec namespaceSelector", {"matchLabels": {"kubernetes.io/metadata.name": "other"}}, of=1),
    ),
    m(
        "disruption-budget",
        "queue",
        "all pods there are",
        put("spec selector", {}, of=5),
        drop("spec maxUnavailable", of=5),
        put("spec minAvailable", 4, of=5),
    ),
    m("elastic", "training", "no workers", put(f"{REPLICA} replicas", 0)),
]
_PLAN = {"name": "plan", "template": "plan"}
ORDER = [
    m("order", "workflow", "a circle", put(f"{DAG} tasks 1 depends", "train.Succeeded || train.Skipped")),
    m("order", "workflow", "a task after itself", put(f"{DAG} tasks 1 depends", "select-clips")),
    m("order", "workflow", "two tasks of one name", add(f"{DAG} tasks", _PLAN)),
    m(
        "order",
        "workflow",
        "two templates of one name",
        lambda objects: objects[0]["spec"]["templates"].append(dict(objects[0]["spec"]["templates"][1])),
    ),
    m("order", "workflow", "a daemon", put(f"{STEP} daemon", True)),
    m("order", "workflow", "goes on after a failure",
      drop(f"{DAG} tasks 1 depends"), put(f"{DAG} tasks 1 dependencies", ["plan"]),
      put(f"{DAG} tasks 1 continueOn", {"failed": True})),
    m("fan-out", "workflow", "a task for each item", put(f"{DAG} tasks 1 withItems", [str(n) for n in range(5000)])),
    m("order", "workflow", "stopped before it began", put("spec shutdown", "Terminate")),
    m("order", "cron", "a circle", put(f"{CRON} templates 0 dag tasks 0 depends", "train")),
    m("cron-stop", "cron", "after a success", put("spec stopStrategy", {"expression": "cronworkflow.succeeded >= 1"})),
    m("cron-stop", "cron", "no evidence", put("spec failedJobsHistoryLimit", 0)),
    m("cron-stop", "cron", "never", put("spec when", "false")),
]  # fmt: skip
ALL: list[Mutation] = [*PLACES, *TRIES, *RIGHTS, *DASK, *QUEUE, *ORDER]
