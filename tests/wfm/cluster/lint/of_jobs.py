"""Mutations of jobs: names, queues, tries, time, ranks, Dask."""

from typing import Any

from tests.wfm.cluster.lint.change import Mutation, add, again, drop, env, more, move, put, replaced
from tests.wfm.cluster.lint.good import KEY, SETTINGS
from wfm.cluster.names import (
    ANNOTATION_CODE,
    ANNOTATION_GENERATION,
    ANNOTATION_KEY,
    ANNOTATION_RUNS,
    ANNOTATION_TIMEOUT,
    ANNOTATION_TRY,
    LABEL_JOB,
)
from wfm.cluster.pod import QUEUE, WORKLOAD_PRIORITY
from wfm.parts.dask_settings import dask_environment, variable

REPLICA = "spec pytorchReplicaSpecs Worker"
TEMPLATE = f"{REPLICA} template"
POD = f"{TEMPLATE} spec"
MAIN = f"{POD} containers 0"
CLUSTER = "spec cluster spec"
WORKER, SCHEDULER, RUNNER = f"{CLUSTER} worker spec", f"{CLUSTER} scheduler spec", "spec job spec"
RULES = "spec podFailurePolicy rules"
JOB_SET = "spec replicatedJobs 0 template spec"
RUNTIME = "spec template spec replicatedJobs 0 template spec"
_GPUS = "spec resourceGroups 0 flavors 0 resources 3"
TOLD, LABELS = "metadata annotations", "metadata labels"


def m(rule: str, on: str, what: str, *changes: Any, valid: bool = True) -> Mutation:
    return Mutation(rule, on, changes, what, valid)


def _codes(action: str, operator: str, values: list[int], name: str | None = "stage") -> dict[str, Any]:
    on = {"operator": operator, "values": values, **({"containerName": name} if name else {})}
    return {"action": action, "onExitCodes": on}


_DISRUPTED = [{"type": "DisruptionTarget", "status": "True"}]
_LONG = "l" * 64

NAMES = [
    m("object", "training", "another kind with pods", put("kind", "MPIJob"), valid=False),
    m("object", "training", "another version", put("apiVersion", "kubeflow.org/v2"), valid=False),
    m("object", "queue", "no kind", more({"metadata": {"name": "x"}}), valid=False),
    m(
        "fixed-name",
        "training",
        "generateName",
        drop("metadata name"),
        put("metadata generateName", "train-"),
        put("spec elasticPolicy rdzvId", ""),
        valid=False,
    ),
    m("fixed-name", "workflow", "generateName", move("metadata name", "metadata generateName")),
    m("name", "workflow", "64 long", put("metadata name", "w" * 64)),
    m("name", "workflow", "underscore", put("metadata name", "world_model"), valid=False),
    m("name", "cron", "53 long", put("metadata name", "n" * 53)),
    m("name", "queue", "capitals in a queue", put("metadata name", "Products", of=2), valid=False),
    m("name", "jobset", "64 long", put("metadata name", "g" * 64)),
    m("name", "jobset", "a digit first", put("metadata name", "4-gang")),
    m("name", "jobset", "a dot", put("metadata name", "gang.one")),
    m(
        "inner-name",
        "workflow",
        "template with _",
        put("spec templates 2 name", "select_clips"),
        put("spec templates 0 dag tasks 1 template", "select_clips"),
        drop("spec templates 2 metadata labels wfm.dev/node"),
        valid=False,
    ),
    m(
        "inner-name",
        "workflow",
        "task with _",
        put("spec templates 0 dag tasks 1 name", "select_clips"),
        put("spec templates 0 dag tasks 2 depends", "select_clips"),
        valid=False,
    ),
    m(
        "job-name",
        "training",
        "a random end",
        put("metadata name", "train-0f0f0f0f-x7k2p"),
        put("spec elasticPolicy rdzvId", "train-0f0f0f0f-x7k2p"),
        put(f"{LABELS} {LABEL_JOB}", "train-0f0f0f0f-x7k2p"),
        put(f"{TEMPLATE} metadata labels {LABEL_JOB}", "train-0f0f0f0f-x7k2p"),
    ),
    m(
        "job-name",
        "evaluation",
        "of another generation",
        put(f"{TOLD} {ANNOTATION_GENERATION}", "2"),
        put(f"spec template {TOLD} {ANNOTATION_GENERATION}", "2"),
    ),
    m("job-name", "curation", "of another key", put(f"{TOLD} {ANNOTATION_KEY}", "1" * 64)),
    m(
        "annotations",
        "training",
        "no key",
        drop(f"{TOLD} {ANNOTATION_KEY}"),
        drop(f"{TEMPLATE} {TOLD} {ANNOTATION_KEY}"),
    ),
    m(
        "annotations",
        "training",
        "half a key",
        put(f"{TOLD} {ANNOTATION_KEY}", "0f" * 16),
        put(f"{TEMPLATE} {TOLD}", {}),
        put("metadata name", "train-0f0f"),
        put(f"{LABELS} {LABEL_JOB}", "train-0f0f"),
        put("spec elasticPolicy rdzvId", "train-0f0f"),
        put(f"{TEMPLATE} metadata labels {LABEL_JOB}", "train-0f0f"),
        drop(f"{TOLD} {ANNOTATION_GENERATION}"),
        drop(f"{TOLD} {ANNOTATION_CODE}"),
    ),
    m(
        "annotations",
        "ranges",
        "try 0",
        put(f"{TOLD} {ANNOTATION_TRY}", "0"),
        put(f"spec template {TOLD} {ANNOTATION_TRY}", "0"),
    ),
    m("annotations", "curation", "no runs", drop(f"{TOLD} {ANNOTATION_RUNS}")),
    m("annotations", "evaluation", "pods of another try", put(f"spec template {TOLD} {ANNOTATION_TRY}", "7")),
    m("job-label", "training", "on the job", drop(f"{LABELS} {LABEL_JOB}")),
    m("job-label", "training", "on its pods", put(f"{TEMPLATE} metadata labels {LABEL_JOB}", "another")),
    m("job-label", "encoding", "on the workers", drop(f"{CLUSTER} worker metadata labels {LABEL_JOB}")),
    m(
        "job-label",
        "trainjob",
        "on the ranks",
        drop(
            f"spec runtimePatches 0 trainingRuntimeSpec template spec replicatedJobs 0 template spec template "
            f"metadata labels {LABEL_JOB}"
        ),
    ),
    m("twice", "training", "another of its name", again(generation=2)),
    m("twice", "workflow", "another of its name", again(generation=2)),
    m("namespace", "training", "another", put("metadata namespace", "default")),
    m("namespace", "training", "none", drop("metadata namespace")),
    m("namespace", "queue", "a queue elsewhere", put("metadata namespace", "queues", of=3)),
    m("label-form", "training", "64 long", put(f"{LABELS} team", "t" * 64), valid=False),
    m("label-form", "training", "a slash", put(f"{LABELS} stage", "a/b"), valid=False),
    m("label-form", "workflow", "on pods", put("spec podMetadata", {"labels": {"spec": "s3://bucket/x"}})),
    m("label-form", "curation", "a long name", put(f"{LABELS} {_LONG}", "x")),
    m("key-in-label", "training", "whole", put(f"{LABELS} wfm.dev/key", KEY), valid=False),
    m("key-in-label", "training", "cut to 63", put(f"{LABELS} wfm.dev/key", KEY[:63])),
    m("key-in-label", "training", "on pods", put(f"{TEMPLATE} metadata labels wfm.dev/key", f"k-{KEY[:40]}")),
    m("key-in-label", "encoding", "on workers", put(f"{CLUSTER} worker metadata labels wfm.dev/key", KEY)),
    m("key-in-label", "workflow", "on a template", put("spec templates 3 metadata labels wfm.dev/key", KEY)),
    m("size", "training", "an argument of more than 1 MiB", add(f"{MAIN} command", "x" * 1100000)),
    m("code", "training", "pods of another code", put(f"{TEMPLATE} {TOLD} {ANNOTATION_CODE}", "2")),
    m(
        "code",
        "training",
        "a job of another code",
        again(),
        put("metadata name", "train-2", of=1),
        put("kind", "Service", of=1),
        put("apiVersion", "v1", of=1),
        put("spec", {}, of=1),
        drop(f"{LABELS} {QUEUE}", of=1),
        drop(f"{LABELS} {WORKLOAD_PRIORITY}", of=1),
        put(f"{TOLD} {ANNOTATION_CODE}", "2", of=1),
    ),
]

QUEUES = [
    *(
        m("queue-label", on, "absent", drop(f"{LABELS} {QUEUE}"), *([drop(f"{LABELS} {WORKLOAD_PRIORITY}")]))
        for on in ("training", "trainjob", "ranges", "evaluation", "jobset")
    ),
    m("queue-label", "training", "empty", put(f"{LABELS} {QUEUE}", "")),
    m("queue-label", "training", "misspelt", move(f"{LABELS} {QUEUE}", f"{LABELS} kueue.x-k8s.io/queue")),
    m(
        "queue-label",
        "training",
        "of another prefix",
        move(f"{LABELS} {QUEUE}", f"{LABELS} kueue.sigs.k8s.io/queue-name"),
    ),
    m("queue-label", "training", "another queue", put(f"{LABELS} {QUEUE}", "products")),
    m("queue-label", "encoding", "absent on workers", drop(f"{CLUSTER} worker metadata labels {QUEUE}")),
    m(
        "queue-label",
        "encoding",
        "no labels on workers",
        put(f"{CLUSTER} worker metadata labels", {LABEL_JOB: "dask-0f0f0f0f-2f1c1c89f5c185778f06"}),
    ),
    m("queue-place", "training", "also as an annotation", put(f"{TOLD} {QUEUE}", "research")),
    m("queue-place", "curation", "also on the DaskJob", put(f"{LABELS} {QUEUE}", "research")),
    m("queue-place", "curation", "on the runner", put(f"spec job metadata labels {QUEUE}", "research")),
    m("queue-place", "curation", "on the scheduler", put(f"{CLUSTER} scheduler metadata labels {QUEUE}", "research")),
    m("queue-place", "curation", "priority on the DaskJob", put(f"{LABELS} {WORKLOAD_PRIORITY}", "normal")),
    m("queue-place", "training", "on its pods too", put(f"{TEMPLATE} metadata labels {QUEUE}", "research")),
    m("queue-place", "ranges", "on its pods too", put(f"spec template metadata labels {QUEUE}", "research")),
    m("queue-place", "workflow", "on the workflow", put(f"{LABELS} {QUEUE}", "research")),
    m("queue-place", "workflow", "on the launcher", put(f"spec templates 3 metadata labels {QUEUE}", "research")),
    m("queue-place", "workflow", "on all its pods", put(f"spec podMetadata labels {QUEUE}", "research")),
    m("queue-place", "cron", "on what it makes", put(f"spec workflowMetadata labels {QUEUE}", "research")),
    m("queue-place", "training", "Volcano's field", put("spec runPolicy schedulingPolicy queue", "research")),
    m(
        "queue-place",
        "jobset",
        "on the job in it",
        put(f"spec replicatedJobs 0 template metadata labels {QUEUE}", "research"),
    ),
    *(
        m("priority-label", on, "absent", drop(f"{LABELS} {WORKLOAD_PRIORITY}"))
        for on in ("training", "trainjob", "ranges")
    ),
    m("priority-label", "training", "empty", put(f"{LABELS} {WORKLOAD_PRIORITY}", "")),
    m("priority-label", "encoding", "absent on workers", drop(f"{CLUSTER} worker metadata labels {WORKLOAD_PRIORITY}")),
    m("priority-label", "queue", "no such class", put(f"{LABELS} {WORKLOAD_PRIORITY}", "urgent")),
    *(
        m("suspend", on, f"{value}", put(path, value))
        for value in (True, False)
        for on, path in (
            ("training", "spec runPolicy suspend"),
            ("trainjob", "spec suspend"),
            ("ranges", "spec suspend"),
            ("jobset", "spec suspend"),
        )
    ),
    m("suspend", "jobset", "in a job of it", put(f"{JOB_SET} suspend", True)),
    m("suspend", "workflow", "a workflow", put("spec suspend", True)),
    m("suspend", "cron", "a cron", put("spec suspend", True)),
    m("managed-by", "training", "MultiKueue", put("spec runPolicy managedBy", "kueue.x-k8s.io/multikueue")),
    m("managed-by", "trainjob", "MultiKueue", put("spec managedBy", "kueue.x-k8s.io/multikueue")),
    m("managed-by", "evaluation", "another's", put("spec managedBy", "example.com/mine")),
    m("open-queue", "queue", "held", put("spec stopPolicy", "HoldAndDrain", of=1)),
    m("open-queue", "queue", "local queue held", put("spec stopPolicy", "Hold", of=3)),
    m("open-queue", "queue", "of no ClusterQueue", put("spec clusterQueue", "reserch", of=3)),
    m("disruption-budget", "queue", "none may go", put("spec maxUnavailable", 0, of=5)),
    m("disruption-budget", "queue", "0 %", put("spec maxUnavailable", "0%", of=5)),
    m(
        "disruption-budget",
        "queue",
        "all must stay",
        drop("spec maxUnavailable", of=5),
        put("spec minAvailable", "100%", of=5),
    ),
    m(
        "disruption-budget",
        "queue",
        "as many as there are",
        drop("spec maxUnavailable", of=5),
        put("spec minAvailable", 4, of=5),
    ),
    m(
        "disruption-budget",
        "queue",
        "a share of all",
        drop("spec maxUnavailable", of=5),
        put("spec minAvailable", "76%", of=5),
    ),
    m("disruption-budget", "queue", "says nothing", drop("spec maxUnavailable", of=5)),
    m("disruption-budget", "queue", "says both", put("spec minAvailable", 1, of=5)),
    m("disruption-budget", "workflow", "of a workflow", put("spec podDisruptionBudget", {"minAvailable": "100%"})),
    m(
        "quota",
        "training",
        "devices times replicas",
        put(f"{REPLICA} replicas", 9),
        put("spec elasticPolicy minReplicas", 9),
        put("spec elasticPolicy maxReplicas", 9),
        put(f"{MAIN} resources requests rdma/hca", "1"),
        put(f"{MAIN} resources limits rdma/hca", "1"),
    ),
    m("quota", "trainjob", "nodes", put("spec trainer numNodes", 9)),
    m("quota", "curation", "memory times workers", put(f"{CLUSTER} worker replicas", 4000)),
    m(
        "quota",
        "ranges",
        "cpu times ranges",
        put("spec completions", 2000),
        put("spec parallelism", 2000),
        put("spec template spec containers 0 command -1", "JOB_COMPLETION_INDEX/2000"),
    ),
    m("quota", "queue", "beyond nominal and borrowing", put(f"{_GPUS} borrowingLimit", "8", of=1)),
    m("quota", "queue", "nothing to borrow", put(f"{_GPUS} nominalQuota", "8", of=2)),
    m("quota", "queue", "nothing is lent", put(f"{_GPUS} lendingLimit", "8", of=2)),
    m("quota", "queue", "no cohort", drop("spec cohortName", of=1), drop(f"{_GPUS} borrowingLimit", of=1)),
    m(
        "quota",
        "queue",
        "not covered",
        drop("spec resourceGroups 0 coveredResources 4", of=1),
        drop("spec resourceGroups 0 flavors 0 resources 4", of=1),
    ),
]
TRAINING = [
    *(
        m("clean-pods", "training", f"{value}", put("spec runPolicy cleanPodPolicy", value))
        for value in ("None", "All")
    ),
    m("clean-pods", "training", "unset", drop("spec runPolicy cleanPodPolicy")),
    *(
        m("restart-policy", "training", value, put(f"{REPLICA} restartPolicy", value))
        for value in ("Always", "OnFailure", "ExitCode")
    ),
    m("restart-policy", "training", "unset", drop(f"{REPLICA} restartPolicy")),
    m("restart-policy", "training", "of its pods", put(f"{POD} restartPolicy", "OnFailure")),
    m("restart-policy", "curation", "runner", put(f"{RUNNER} restartPolicy", "OnFailure")),
    m("restart-policy", "curation", "runner, unset", drop(f"{RUNNER} restartPolicy")),
    m("restart-policy", "curation", "worker", put(f"{WORKER} restartPolicy", "Never")),
    m("restart-policy", "ranges", "OnFailure", put("spec template spec restartPolicy", "OnFailure")),
    m("restart-policy", "trainjob", "runtime", put(f"{RUNTIME} template spec restartPolicy", "OnFailure", of=1)),
    m("restart-policy", "jobset", "unset", drop(f"{JOB_SET} template spec restartPolicy")),
    *(m("ranks", "training", value, put("spec nprocPerNode", value)) for value in ("auto", "gpu", "cpu", "0", "4", "")),
    m("ranks", "training", "unset", drop("spec nprocPerNode")),
    m("ranks", "training", "in two fields", put("spec elasticPolicy nProcPerNode", 8)),
    m(
        "ranks",
        "training",
        "as an option",
        put(f"{MAIN} command 5", "--nproc-per-node=auto"),
        add(f"{MAIN} command", "x"),
    ),
    m("ranks", "trainjob", "unset", drop("spec trainer numProcPerNode")),
    m("ranks", "trainjob", "not the devices", put("spec trainer numProcPerNode", 1)),
    m(
        "ranks",
        "trainjob",
        "as an option",
        replaced("spec trainer args", "0", "0"),
        add("spec trainer command", "--nproc_per_node=gpu"),
    ),
    m("rendezvous", "training", "unset", drop("spec elasticPolicy rdzvId")),
    m("rendezvous", "training", "fixed", put("spec elasticPolicy rdzvId", "wfm")),
    m("rendezvous", "training", "etcd", put("spec elasticPolicy rdzvBackend", "etcd")),
    m("rendezvous", "training", "standalone", put("spec elasticPolicy standalone", True)),
    m("rendezvous", "trainjob", "unset", replaced("spec trainer args", "--rdzv-id", None)),
    m("rendezvous", "trainjob", "fixed", put("spec trainer args 1", "wfm")),
    m("elastic", "training", "least above most", put("spec elasticPolicy minReplicas", 5)),
    m(
        "elastic",
        "training",
        "replicas above most",
        put("spec elasticPolicy maxReplicas", 3),
        put("spec elasticPolicy minReplicas", 1),
    ),
    m("elastic", "training", "no least", drop("spec elasticPolicy minReplicas")),
    m("elastic", "training", "restarts", put("spec elasticPolicy maxRestarts", 3)),
    m("elastic", "training", "restarts unset", drop("spec elasticPolicy maxRestarts")),
    m(
        "elastic",
        "training",
        "a master",
        lambda objects: put(
            "spec pytorchReplicaSpecs Master", {**objects[0]["spec"]["pytorchReplicaSpecs"]["Worker"], "replicas": 1}
        )(objects),
    ),
    m("elastic", "training", "an autoscaler", put("spec elasticPolicy metrics", [{"type": "Resource"}])),
    m("elastic", "training", "as an option", put(f"{MAIN} command 5", "--max_restarts=3"), add(f"{MAIN} command", "x")),
    m("elastic", "trainjob", "restarts", put("spec trainer args 3", "3")),
    m("reserved-variable", "training", "PET_", env(MAIN, "PET_RDZV_ID", "x")),
    m("reserved-variable", "trainjob", "PET_", env("spec trainer", "PET_NNODES", "4")),
    m("reserved-variable", "ranges", "the index", env("spec template spec containers 0", "JOB_COMPLETION_INDEX", "0")),
    m("runtime", "trainjob", "another", put("spec runtimeRef name", "torch-distributed")),
    m("runtime", "trainjob", "of the whole cluster", put("spec runtimeRef kind", "ClusterTrainingRuntime")),
]

RETRIES = [
    *(
        m("final-exit-code", on, "no policy", drop(f"{path} podFailurePolicy"), of_)
        for on, path, of_ in (
            ("ranges", "spec", put("spec podReplacementPolicy", "Failed")),
            ("evaluation", "spec", put("spec podReplacementPolicy", "Failed")),
        )
    ),
    *(
        m("final-exit-code", "ranges", f"{action} of 78", put(f"{RULES} 0 action", action))
        for action in ("Ignore", "Count")
    ),
    m("final-exit-code", "ranges", "not listed", put(f"{RULES} 0 onExitCodes values", [77])),
    m("final-exit-code", "ranges", "of another container", put(f"{RULES} 0 onExitCodes containerName", "sidecar")),
    m(
        "final-exit-code",
        "ranges",
        "a rule before it",
        lambda objects: objects[0]["spec"]["podFailurePolicy"]["rules"].insert(0, _codes("Count", "NotIn", [1])),
    ),
    m("final-exit-code", "ranges", "ignores passing troubles for ever", add(RULES, _codes("Ignore", "In", [75, 143]))),
    m(
        "final-exit-code",
        "evaluation",
        "not among those that fail",
        put(f"{RULES} 0 onExitCodes operator", "NotIn"),
        put(f"{RULES} 0 onExitCodes values", [75, 78, 137, 143]),
    ),
    m("final-exit-code", "jobset", "counted", put(f"{JOB_SET} podFailurePolicy rules 0 action", "Count")),
    m("final-exit-code", "trainjob", "no policy", drop(f"{RUNTIME} podFailurePolicy", of=1)),
    m("passing-exit-code", "ranges", "75 is final", put(f"{RULES} 0 onExitCodes values", [75, 78])),
    m("passing-exit-code", "ranges", "all are final", put(f"{RULES} 2", _codes("FailIndex", "NotIn", [0]))),
    m("passing-exit-code", "ranges", "a drained machine counts", drop(f"{RULES} 1")),
    m("passing-exit-code", "evaluation", "a drained machine is final", put(f"{RULES} 1 action", "FailJob")),
    m("job-indices", "ranges", "NonIndexed", put("spec completionMode", "NonIndexed")),
    m("job-indices", "ranges", "mode unset", drop("spec completionMode")),
    m("job-indices", "ranges", "no completions", drop("spec completions")),
    m("job-indices", "ranges", "more pods than ranges", put("spec parallelism", 17)),
    m("job-indices", "ranges", "no pods", put("spec parallelism", 0)),
    m("job-indices", "ranges", "no bound for an index", drop("spec backoffLimitPerIndex")),
    m("job-indices", "ranges", "a bound for all", put("spec backoffLimit", 0)),
    m("job-indices", "evaluation", "a bound for all", put("spec backoffLimit", 0)),
    m("job-indices", "ranges", "success of some", put("spec successPolicy", {"rules": [{"succeededCount": 1}]})),
    *(
        m(
            "pod-replacement",
            on,
            "while the first ends",
            put(f"{path} podReplacementPolicy", "TerminatingOrFailed", of=of),
        )
        for on, path, of in (("ranges", "spec", 0), ("jobset", JOB_SET, 0), ("trainjob", RUNTIME, 1))
    ),
    m("job-set-restarts", "jobset", "restarts what is final", put("spec failurePolicy maxRestarts", 3)),
    m(
        "job-set-restarts",
        "jobset",
        "without a bound",
        put("spec failurePolicy rules", [{"name": "all", "action": "RestartJobSetAndIgnoreMaxRestarts"}]),
    ),
    m(
        "job-set-restarts",
        "jobset",
        "a rule for what is final",
        put(
            "spec failurePolicy rules",
            [
                {
                    "name": "bugs",
                    "action": "RestartJob",
                    "onJobFailureReasons": ["BackoffLimitExceeded", "PodFailurePolicy"],
                }
            ],
        ),
    ),
    m("job-set-restarts", "trainjob", "in a runtime", put("spec template spec failurePolicy maxRestarts", 10, of=1)),
    m("job-set-restarts", "jobset", "success of any", put("spec successPolicy operator", "Any")),
    *(
        m("deadline", on, "of the run alone", put(path, 7200))
        for on, path in (
            ("training", "spec runPolicy activeDeadlineSeconds"),
            ("trainjob", "spec activeDeadlineSeconds"),
            ("ranges", "spec activeDeadlineSeconds"),
        )
    ),
    m("deadline", "evaluation", "a minute", put("spec activeDeadlineSeconds", 60)),
    m("deadline", "training", "unset", drop("spec runPolicy activeDeadlineSeconds")),
    m("deadline", "training", "of its pods", put(f"{POD} activeDeadlineSeconds", 3600)),
    m("deadline", "encoding", "of the workers", put(f"{WORKER} activeDeadlineSeconds", 3600)),
    m("deadline", "training", "Kueue's", put(f"{LABELS} kueue.x-k8s.io/max-exec-time-seconds", "3600")),
    m("deadline", "curation", "no word of the run", drop(f"{TOLD} {ANNOTATION_TIMEOUT}")),
    *(
        m("kept-after-end", on, f"{value} s", put(path, value))
        for value in (0, 60)
        for on, path in (
            ("training", "spec runPolicy ttlSecondsAfterFinished"),
            ("ranges", "spec ttlSecondsAfterFinished"),
            ("jobset", "spec ttlSecondsAfterFinished"),
            ("workflow", "spec ttlStrategy secondsAfterCompletion"),
            ("cron", "spec workflowSpec ttlStrategy secondsAfterFailure"),
        )
    ),
    m("grace", "training", "30 s", put(f"{POD} terminationGracePeriodSeconds", 30)),
    m("grace", "training", "unset", drop(f"{POD} terminationGracePeriodSeconds")),
    m("grace", "encoding", "of the workers", put(f"{WORKER} terminationGracePeriodSeconds", 0)),
    m("grace", "ranges", "5 s", put("spec template spec terminationGracePeriodSeconds", 5)),
    m(
        "grace",
        "trainjob",
        "30 s",
        put(
            "spec runtimePatches 0 trainingRuntimeSpec template spec replicatedJobs 0 template spec "
            "template spec terminationGracePeriodSeconds",
            30,
        ),
    ),
    m("grace", "training", "a hook that sleeps", put(f"{MAIN} lifecycle preStop", {"sleep": {"seconds": 100}})),
    m("grace", "training", "a hook", put(f"{MAIN} lifecycle preStop", {"exec": {"command": ["sleep", "100"]}})),
    m("grace", "training", "the stage is not told", env(MAIN, "WFM_GRACE_SECONDS", None)),
    m("grace", "ranges", "the stage is told more", env("spec template spec containers 0", "WFM_GRACE_SECONDS", "600")),
]

_LOSSES = variable("distributed.scheduler.allowed-failures")
DASK = [
    m("idle-cluster", "curation", "unset", drop(f"{CLUSTER} idleTimeout")),
    m("idle-cluster", "curation", "never", put(f"{CLUSTER} idleTimeout", 0)),
    m("idle-cluster", "encoding", "at once", put(f"{CLUSTER} idleTimeout", 5)),
    m("idle-cluster", "encoding", "a year", put(f"{CLUSTER} idleTimeout", 31536000)),
    *(
        m("worker-command", on, f"no {option}", replaced(f"{WORKER} containers 0 command", option, None))
        for on in ("curation", "encoding")
        for option in ("--local-directory", "--death-timeout", "--nthreads")
    ),
    m(
        "worker-command",
        "curation",
        "four threads",
        lambda objects: put(
            f"{WORKER} containers 0 command",
            [
                *[
                    "tini",
                    "--",
                    "dask",
                    "worker",
                    "--nthreads",
                    "4",
                    "--death-timeout",
                    "60",
                    "--local-directory",
                    "/tmp/dask",
                    "--preload",
                    "wfm.parts.in_worker",
                ]
            ],
        )(objects),
    ),
    m(
        "worker-command",
        "curation",
        "a folder on the root",
        replaced(f"{WORKER} containers 0 command", "/tmp/dask", "/var/dask"),
    ),
    m(
        "worker-command",
        "curation",
        "a folder outside",
        replaced(f"{WORKER} containers 0 command", "/tmp/dask", "/tmp/../etc"),
    ),
    m(
        "worker-command",
        "curation",
        "waits a day",
        lambda objects: [
            words.__setitem__(words.index("--death-timeout") + 1, "86400")
            for words in [objects[0]["spec"]["cluster"]["spec"]["worker"]["spec"]["containers"][0]["command"]]
        ],
    ),
    m("dask-environment", "curation", "losses, scheduler", env(f"{SCHEDULER} containers 0", _LOSSES, None)),
    m("dask-environment", "curation", "losses, workers", env(f"{WORKER} containers 0", _LOSSES, None)),
    m("dask-environment", "curation", "no losses", env(f"{SCHEDULER} containers 0", _LOSSES, "0")),
    m("dask-environment", "curation", "not a number", env(f"{SCHEDULER} containers 0", _LOSSES, "many")),
    *(
        m("dask-environment", "encoding", name, env(f"{WORKER} containers 0", name, None))
        for name in dask_environment("/x")
        if name not in (_LOSSES, variable("distributed.worker.preload"))
    ),
    m(
        "dask-environment",
        "curation",
        "a folder on the root",
        env(f"{WORKER} containers 0", variable("temporary-directory"), "/var/dask"),
    ),
]

_LONG_DASK = "dask-" * 8 + "q"
STAGES = [
    m("main-container", "training", "another name", put(f"{MAIN} name", "main")),
    m(
        "main-container",
        "trainjob",
        "runtime",
        put(f"{RUNTIME} template spec containers 0 name", "ranks", of=1),
        put(f"{RUNTIME} podFailurePolicy rules 0 onExitCodes containerName", "ranks", of=1),
    ),
    m("main-container", "ranges", "none", put("spec template spec containers", [])),
    m(
        "stage-command",
        "ranges",
        "none",
        drop("spec template spec containers 0 command"),
        put("spec completions", 1),
        put("spec parallelism", 1),
    ),
    m(
        "stage-command",
        "training",
        "without torchrun",
        put(f"{MAIN} command", ["python", "-m", "components.train_world_model"]),
    ),
    m("stage-command", "trainjob", "none", drop("spec trainer command")),
    m("stage-command", "curation", "of the runner", put(f"{RUNNER} containers 0 command", ["python", "mine.py"])),
    *(
        m("stage-account", on, "none", drop(f"{path} serviceAccountName"))
        for on, path in (
            ("training", POD),
            ("encoding", WORKER),
            ("curation", RUNNER),
            ("ranges", "spec template spec"),
        )
    ),
    m("stage-account", "trainjob", "another", put(f"{RUNTIME} template spec serviceAccountName", "admin", of=1)),
    *(
        m("pod-priority", on, "none", drop(f"{path} priorityClassName"))
        for on, path in (
            ("training", POD),
            ("encoding", WORKER),
            ("curation", RUNNER),
            ("ranges", "spec template spec"),
        )
    ),
    m(
        "name",
        "curation",
        "a DaskJob of 41",
        put("metadata name", _LONG_DASK),
        put(f"{LABELS} {LABEL_JOB}", _LONG_DASK),
        put(f"{CLUSTER} worker metadata labels {LABEL_JOB}", _LONG_DASK),
    ),
    m("ranks", "trainjob", "no number of machines", drop("spec trainer numNodes")),
    m("job-indices", "ranges", "fewer indices than ranges", put("spec completions", 8)),
    m("job-indices", "evaluation", "a stage twice", put("spec completions", 2)),
    m("open-queue", "queue", "of no namespace", drop("spec namespaceSelector", of=1)),
    m(
        "open-queue",
        "queue",
        "covers something else",
        put("spec resourceGroups 0 coveredResources 5", "example.com/fpga", of=1),
    ),
]
ALL = [*NAMES, *STAGES, *QUEUES, *TRAINING, *RETRIES, *DASK]
OTHER_SETTINGS = [
    (
        "integration",
        SETTINGS.model_copy(update={"integrations": ("job", "jobset", "trainjob", "pod", "deployment")}),
        "training",
    ),
    ("integration", SETTINGS.model_copy(update={"integrations": ("pytorchjob", "job")}), "encoding"),
    ("integration", SETTINGS.model_copy(update={"integrations": ("pytorchjob", "pod")}), "ranges"),
    ("integration", SETTINGS.model_copy(update={"integrations": ("pytorchjob", "job")}), "jobset"),
    ("queue-label", SETTINGS.model_copy(update={"queue": "", "workload_priority": ""}), "training"),
    ("namespace", SETTINGS.model_copy(update={"namespace": "other"}), "evaluation"),
]
"""(rule, settings of another cluster, set)."""
