"""Mutations of what a pod is for and what it loads, of when tasks run and how often, of hours and days."""

from typing import Any

from tests.wfm.cluster.lint.change import Mutation, add, drop, env, put, replaced
from tests.wfm.cluster.lint.good import EXPRESSION
from tests.wfm.cluster.lint.of_jobs import CLUSTER, LABELS, MAIN, POD, RUNNER, WORKER, m
from tests.wfm.cluster.lint.of_workflows import CRON, DAG, LAUNCH, STEP
from wfm.cluster.names import LABEL_ROLE
from wfm.cluster.pod import QUEUE

INDEX = "spec template spec"
STAGE = f"{INDEX} containers 0"
ROLE = f"metadata labels {LABEL_ROLE}"
_LIVE = {"exec": {"command": ["true"]}, "periodSeconds": 10}


def _devices(container: str, name: str, count: str, instead: str = "") -> list[Any]:
    """Devices of a container, in place of others."""
    kinds = ("requests", "limits")
    return [
        *(drop(f"{container} resources {kind} {instead}") for kind in kinds if instead),
        *(put(f"{container} resources {kind} {name}", count) for kind in kinds),
    ]


ROLES = [
    m("pod-role", "training", "an exporter", put(f"spec pytorchReplicaSpecs Worker template {ROLE}", "exporter")),
    m("pod-role", "ranges", "a launcher", put(f"spec template {ROLE}", "launcher")),
    m("pod-role", "workflow", "a launcher that is called a stage", put(f"spec templates 3 {ROLE}", "stage")),
    m("pod-role", "workflow", "a stage that is called a planner", put(f"spec templates 2 {ROLE}", "planner")),
    m("pod-role", "workflow", "no such role", put(f"spec templates 1 {ROLE}", "plan")),
    m("pod-role", "workflow", "nothing says it", drop(f"spec templates 1 {ROLE}")),
    m("pod-role", "services", "nothing says it", drop(f"spec template {ROLE}")),
    m("pod-role", "run", "a whole run that is called a stage", put(f"spec template {ROLE}", "stage")),
    *(
        m("probe", on, what, put(f"{path} {name}", _LIVE))
        for name in ("livenessProbe", "startupProbe")
        for on, what, path in (
            ("training", f"{name} of a rank", MAIN),
            ("encoding", f"{name} of a worker", f"{WORKER} containers 0"),
            ("curation", f"{name} of the runner", f"{RUNNER} containers 0"),
            ("ranges", f"{name} of a range", STAGE),
            ("workflow", f"{name} of a stage", f"{STEP} container"),
            ("workflow", f"{name} of a launcher", f"{LAUNCH} container"),
            ("run", f"{name} of a run", STAGE),
        )
    ),
    *(
        m("stage-command", on, "a launcher without a spec", replaced(f"{path} command", "--spec", None))
        for on, path in (("workflow", f"{LAUNCH} container"), ("launcher", STAGE))
    ),
    m("stage-command", "workflow", "a stage without a spec", replaced(f"{STEP} container command", "--spec", None)),
    m("stage-command", "workflow", "a spec that is an option", put(f"{LAUNCH} container command 4", "--dry-run")),
    m("stage-command", "workflow", "a key nobody can write", replaced(f"{LAUNCH} container command", "/work/key", "/opt/k")),
    *(
        m("grace", "workflow", f"patched away, {what}", put(f"{path} podSpecPatch", '{"terminationGracePeriodSeconds": 0}'))
        for what, path in (("of all", "spec"), ("of a launcher", LAUNCH), ("of a stage", STEP))
    ),
    m("grace", "workflow", "a stage is told more", env(f"{STEP} container", "WFM_GRACE_SECONDS", "120")),
    m("grace", "run", "none", put(f"{INDEX} terminationGracePeriodSeconds", 0)),
    m("final-exit-code", "run", "wrong input is tried again", drop("spec podFailurePolicy")),
    m("final-exit-code", "launcher", "78 is tried again", put("spec podFailurePolicy rules 0 onExitCodes values", [143])),
    m("launcher-deadline", "run", "an hour", put("spec activeDeadlineSeconds", 3600)),
    m("launcher-deadline", "launcher", "of its pod", put(f"{INDEX} activeDeadlineSeconds", 3600)),
    m("launcher-deadline", "workflow", "a stage's, from before it has a machine", put(f"{STEP} timeout", "1h")),
    m("queue-place", "run", "in the queue", put(f"{LABELS} {QUEUE}", "research")),
    m("queue-place", "launcher", "in the queue", put(f"spec template metadata labels {QUEUE}", "research")),
    *(
        m("queue-label", "workflow", f"devices past the queue, {what}", *_devices(f"{path} container", "nvidia.com/gpu", "1"))
        for what, path in (("a stage", STEP), ("a launcher", LAUNCH), ("the plan", "spec templates 1"))
    ),
    m("elastic", "training", "fewer ranks than planned", put("spec elasticPolicy minReplicas", 2)),
    m("elastic", "training", "more ranks than planned", put("spec elasticPolicy maxReplicas", 8)),
    m("job-selector", "ranges", "pods of others", put("spec manualSelector", True),
      put("spec selector", {"matchLabels": {"team": "a"}})),
    m("job-selector", "evaluation", "a selector alone", put("spec selector", {"matchLabels": {"team": "a"}})),
    m("job-selector", "services", "other pods", put("spec selector matchLabels", {"app.kubernetes.io/name": "export"})),
]  # fmt: skip
DEVICES = [
    m("device-name", "evaluation", "AMD's", *_devices(STAGE, "amd.com/gpu", "1")),
    m("device-name", "ranges", "Intel's", *_devices(STAGE, "gpu.intel.com/i915", "1")),
    m("device-name", "training", "beside its own", *_devices(MAIN, "habana.ai/gaudi", "8")),
    m("device-name", "workflow", "of a stage", *_devices(f"{STEP} container", "amd.com/gpu", "1")),
]
LOADED = [
    *(
        m("outside-code", on, name, env(path, name, "/cache/patch"))
        for name in ("PYTHONPATH", "PYTHONHOME", "LD_PRELOAD", "PYTHONSTARTUP")
        for on, path in (
            ("training", MAIN),
            ("encoding", f"{WORKER} containers 0"),
            ("ranges", STAGE),
            ("workflow", f"{LAUNCH} container"),
            ("run", STAGE),
        )
    ),
    *(
        m("outside-code", on, "variables of a ConfigMap", add(f"{path} envFrom", {"configMapRef": {"name": "settings"}}))
        for on, path in (
            ("training", MAIN),
            ("curation", f"{CLUSTER} scheduler spec containers 0"),
            ("evaluation", STAGE),
            ("workflow", f"{STEP} container"),
            ("run", STAGE),
        )
    ),
    *(
        m("outside-code", "training", f"a mount at {path}", put(f"{MAIN} volumeMounts 1 mountPath", path),
          env(MAIN, "WFM_CACHE", path))
        for path in ("/opt/wfm", "/opt/wfm/wfm/data", "/opt")
    ),
    m("outside-code", "workflow", "a repository",
      put(f"{STEP} inputs", {"artifacts": [{"name": "code", "path": "/work/code", "git": {"repo": "https://x.example/y"}}]})),
    m("image-set", "training", "the stage is told another image", env(MAIN, "WFM_IMAGE", f"x@sha256:{'e' * 64}")),
]  # fmt: skip
_WHEN = f"{DAG} tasks 2 when"
CONDITIONS = [
    *(
        m("after-failure", "workflow", text, put(f"{DAG} tasks 1 depends", text))
        for text in (
            *("plan.Failed", "plan.Errored", "plan.Omitted", "plan.Succeeded || plan.Failed", "!plan.Succeeded"),
            *("plan || !plan", "plan.AllFailed", "(plan.Succeeded", "plan.Skipped"),
        )
    ),
    m("after-failure", "cron", "either of two", put(f"{CRON} templates 0 dag tasks 2 depends", "plan || select-clips")),
    m("fan-out", "workflow", "as many as somebody says", put(f"{DAG} tasks 1 withParam", "{{tasks.plan.outputs.result}}")),
    m("fan-out", "cron", "as many as somebody says", put(f"{CRON} templates 0 dag tasks 1 withParam", "[1, 2]")),
    m("fan-out", "workflow", "a thousand", put(f"{DAG} tasks 1 withSequence", {"count": "1000"})),
    m("fan-out", "workflow", "up to a parameter",
      put(f"{DAG} tasks 1 withSequence", {"start": "1", "end": "{{workflow.parameters.specs}}"})),
    *(
        m("constant-condition", "workflow", text, put(_WHEN, text))
        for text in ("false", "true", "1 == 2", "{{=false}}", "{{= 1 > 2 }}", "missing == true")
    ),
    m("constant-condition", "workflow", "waits for a person",
      add("spec templates", {"name": "ask", "suspend": {}})),
    m("graph", "workflow", "a template of elsewhere",
      add(f"{DAG} tasks", {"name": "more", "templateRef": {"name": "library", "template": "x"}})),
    m("reference", "workflow", "a parameter of the run that is not there", drop("spec arguments")),
    m("reference", "cron", "misspelt parameter", put(f"{CRON} arguments parameters 0 name", "spec")),
]  # fmt: skip
_PLAN = "spec templates 1"
HANDED = [
    m("cached-node", "workflow", "a cached stage costs a pod", drop(f"{DAG} tasks 1 when")),
    m("cached-node", "workflow", "a cached launcher costs a pod", put(_WHEN, "")),
    m("cached-node", "cron", "asks for something else",
      put(f"{CRON} templates 0 dag tasks 1 when", "{{workflow.parameters.specs}} != x")),
    m("handed-on", "workflow", "an input that nobody gives", put(f"{STEP} inputs", {"parameters": [{"name": "clips"}]})),
    m("handed-on", "workflow", "an input with nothing in it",
      put(f"{STEP} inputs", {"parameters": [{"name": "clips"}]}),
      put(f"{DAG} tasks 1 arguments", {"parameters": [{"name": "clips", "value": ""}]})),
    m("handed-on", "workflow", "does not wait for the plan", drop(f"{DAG} tasks 1 depends")),
    m("handed-on", "cron", "waits for nobody", put(f"{CRON} templates 0 dag tasks 2 depends", "")),
    m("handed-on", "workflow", "an output that comes from nowhere", drop(f"{_PLAN} outputs parameters 0 valueFrom path")),
    m("stage-command", "workflow", "a plan of the image's own", drop(f"{_PLAN} container command")),
    m("stage-command", "ranges", "a stage as process 1", put(f"{STAGE} command 0", "env"), put(f"{STAGE} command 1", "-")),
    m("stage-command", "encoding", "a worker as process 1", put(f"{WORKER} containers 0 command 0", "env")),
    *(m("stage-secret", on, "no keys of the store", drop(f"{path} envFrom"))
      for on, path in (("training", MAIN), ("encoding", f"{WORKER} containers 0"), ("ranges", STAGE))),
    m("stage-secret", "evaluation", "other keys", put(f"{STAGE} envFrom 0 secretRef name", "stores")),
    m("pod-role", "training", "shut off from the network",
      drop(f"spec pytorchReplicaSpecs Worker template {ROLE}")),
    m("pod-role", "workflow", "a launcher shut off from the network", drop(f"spec templates 3 {ROLE}")),
    m("retry-backoff", "workflow", "waits for a year", put(f"{STEP} retryStrategy",
      {"limit": 20, "expression": EXPRESSION, "backoff": {"duration": "30s", "factor": "2"}})),
    m("api-token", "workflow", "stages with a token", put("spec automountServiceAccountToken", True)),
    m("api-token", "workflow", "says nothing of tokens", drop("spec automountServiceAccountToken")),
    m("api-token", "workflow", "argoexec without an account", drop("spec executor")),
    m("api-token", "workflow", "a launcher without a token", put(f"{LAUNCH} automountServiceAccountToken", False)),
    m("launcher-deadline", "workflow", "a stage without an end", drop(f"{STEP} activeDeadlineSeconds")),
    m("launcher-deadline", "workflow", "a stage with none", put(f"{STEP} activeDeadlineSeconds", 0)),
    m("hang", "training", "says nothing of waiting", drop("spec elasticPolicy rdzvConf")),
]  # fmt: skip
CRONS = [
    *(
        m("cron-hour", "cron", f"{line} {zone}", put("spec schedules", [line]), put("spec timezone", zone))
        for line, zone in (
            ("0 2 * * *", "Europe/Berlin"),
            ("30 2 * * sun", "Europe/Berlin"),
            ("59 2 29 3 *", "Europe/Berlin"),
            ("30 1 * * *", "America/New_York"),
            ("*/20 1-4 * * *", "America/New_York"),
            ("0 */2 * * *", "Europe/Paris"),
            ("30 1 * * *", "Australia/Lord_Howe"),
            ("@daily", "America/Havana"),
        )
    ),
    *(
        m("cron-never", "cron", line, put("spec schedules", [line]))
        for line in ("0 3 31 2 *", "0 3 31 4,6,9,11 *", "0 3 30 feb *")
    ),
    *(m("cron-stop", "cron", text, put("spec when", text)) for text in ("{{=false}}", "1 > 2", "{{workflow.name}} == x")),
]  # fmt: skip
FIELDS = [
    m("unknown-field", on, what, put(path, value), valid=False)
    for on, what, path, value in (
        ("cron", "the field of version 3", "spec schedule", "0 3 * * *"),
        ("workflow", "misspelt in a template", f"{STEP} pendingTimeouts", "15m"),
        ("workflow", "misspelt in a container", f"{STEP} container volumeMount", []),
        ("workflow", "a pod's field", f"{STEP} terminationGracePeriodSeconds", 60),
        ("workflow", "another's field", "spec ttlSecondsAfterFinished", 86400),
        ("training", "misspelt", "spec runPolicy cleanupPodPolicy", "Running"),
        ("training", "misspelt in a pod", f"{POD} activeDeadlineSecond", 60),
        ("curation", "what the schema drops", "spec cluster metadata", {"labels": {"a": "b"}}),
        ("ranges", "misspelt", "spec backoffLimitPerIndexes", 3),
        ("services", "misspelt", "spec replica", 3),
    )
]
ALL: list[Mutation] = [*ROLES, *DEVICES, *LOADED, *CONDITIONS, *HANDED, *FIELDS, *CRONS]
