"""Mutations of Argo's workflows and of what runs at times."""

from typing import Any

from tests.wfm.cluster.lint.change import add, drop, put
from tests.wfm.cluster.lint.of_jobs import m

STEP, LAUNCH, DAG = "spec templates 2", "spec templates 3", "spec templates 0 dag"
RETRY = f"{STEP} retryStrategy"
CRON = "spec workflowSpec"
_EXPRESSIONS = {
    "all": "true",
    "none": "false",
    "any failure": "lastRetry.status == 'Failed' || lastRetry.status == 'Error'",
    "78 too": "lastRetry.status == 'Error' || lastRetry.exitCode in ['75', '78', '137', '143', '-1']",
    "all but 1": "lastRetry.exitCode != '1'",
    "all but 78 as a number": "lastRetry.status == 'Error' or lastRetry.exitCode != 78",
    "from 75 on": "lastRetry.status == 'Error' || asInt(lastRetry.exitCode) >= 75 || asInt(lastRetry.exitCode) == -1",
    "78 by a pattern": "lastRetry.exitCode matches '^(-1|7[58]|1[34])'",
    "only errors": "lastRetry.status == 'Error'",
    "not 75": "lastRetry.status == 'Error' || lastRetry.exitCode in ['137', '143', '-1']",
    "not evictions": "lastRetry.status == 'Error' || lastRetry.exitCode in ['75', '137', '143']",
    "not deleted pods": "lastRetry.status == 'Failed' && lastRetry.exitCode in ['75', '137', '143', '-1']",
    "the order of text": "lastRetry.exitCode > '74'",
    "of another language": "lastRetry.exitCode == 75 ? retry() : stop()",
    "a slow pattern": "lastRetry.message matches '(a+)+$'",
    "a choice": "lastRetry.status == 'Error' ? true : lastRetry.exitCode == '78' ? true : true",
    "unfinished": "lastRetry.status == ",
    "empty": "",
}
RETRIES = [
    m("retry-policy", "workflow", "beside an expression", put(f"{RETRY} retryPolicy", "Always")),
    m("retry-policy", "workflow", "OnFailure", put(f"{RETRY} retryPolicy", "OnFailure")),
    m(
        "retry-policy",
        "cron",
        "of the whole",
        lambda objects: put(
            f"{CRON} retryStrategy",
            {**objects[0]["spec"]["workflowSpec"]["templates"][2]["retryStrategy"], "retryPolicy": "OnError"},
        )(objects),
    ),
    m("retry-limit", "workflow", "none", drop(f"{RETRY} limit")),
    *(
        m("retry-limit", "workflow", f"{value!r}", put(f"{RETRY} limit", value))
        for value in ("", "many", "{{workflow.parameters.specs}}", -1, 10**6)
    ),
    m("retry-limit", "workflow", "no strategy", drop(RETRY)),
    m("retry-expression", "workflow", "none", drop(f"{RETRY} expression")),
    *(m("retry-expression", "workflow", what, put(f"{RETRY} expression", text)) for what, text in _EXPRESSIONS.items()),
    m(
        "retry-expression",
        "cron",
        "78 too",
        put(f"{CRON} templates 3 retryStrategy expression", "lastRetry.exitCode != '0'"),
    ),
    m(
        "retry-expression",
        "workflow",
        "in the defaults",
        put(
            "spec templateDefaults",
            {"retryStrategy": {"limit": 2, "expression": "true", "backoff": {"duration": "10s"}}},
        ),
    ),
    m("retry-backoff", "workflow", "none", drop(f"{RETRY} backoff")),
    m("retry-backoff", "workflow", "no duration", drop(f"{RETRY} backoff duration")),
    m("retry-backoff", "workflow", "duration 0", put(f"{RETRY} backoff duration", "0")),
    m("retry-backoff", "workflow", "no span", put(f"{RETRY} backoff duration", "soon")),
    m("retry-backoff", "workflow", "factor 0", put(f"{RETRY} backoff factor", "0")),
    m("retry-backoff", "workflow", "ends before it begins", put(f"{RETRY} backoff maxDuration", "10s")),
]
TIME = [
    m("pending-timeout", "workflow", "none", drop(f"{STEP} pendingTimeout")),
    m("pending-timeout", "workflow", "of the launcher", drop(f"{LAUNCH} pendingTimeout")),
    m("pending-timeout", "workflow", "0", put(f"{STEP} pendingTimeout", "0s")),
    m("pending-timeout", "cron", "no span", put(f"{CRON} templates 1 pendingTimeout", "soon")),
    m("launcher-deadline", "workflow", "of its pod", put(f"{LAUNCH} activeDeadlineSeconds", 7200)),
    m("launcher-deadline", "workflow", "with the queue", put(f"{LAUNCH} timeout", "2h")),
    m("launcher-deadline", "workflow", "of the whole", put("spec activeDeadlineSeconds", 7200)),
    m("launcher-deadline", "workflow", "of the whole, none", drop("spec activeDeadlineSeconds")),
    m("launcher-deadline", "cron", "of the whole, none", drop(f"{CRON} activeDeadlineSeconds")),
    m("launcher-deadline", "workflow", "shorter than a step", put(f"{STEP} activeDeadlineSeconds", 40 * 86400)),
]
GRAPH: list[Any] = [
    m("fail-fast", "workflow", "true", put(f"{DAG} failFast", True)),
    m("fail-fast", "workflow", "unset", drop(f"{DAG} failFast")),
    m("fail-fast", "cron", "unset", drop(f"{CRON} templates 0 dag failFast")),
    m("fail-fast", "workflow", "of steps", put("spec templates 0 failFast", True)),
    m("skipped-output", "workflow", "no default", drop(f"{LAUNCH} outputs parameters 0 valueFrom default")),
    m(
        "skipped-output",
        "workflow",
        "of a condition that is new",
        put(f"{DAG} tasks 1 when", "{{tasks.plan.outputs.parameters.missing}} == true"),
        put(f"{STEP} outputs", {"parameters": [{"name": "key", "valueFrom": {"path": "/work/key"}}]}),
    ),
    m(
        "skipped-output",
        "workflow",
        "an artifact",
        add(
            f"{DAG} tasks",
            {
                "name": "last",
                "template": "select-clips",
                "depends": "train",
                "when": "{{tasks.plan.outputs.parameters.missing}} == true",
                "arguments": {"artifacts": [{"name": "model", "from": "{{tasks.train.outputs.artifacts.model}}"}]},
            },
        ),
    ),
    m("exit-handler", "workflow", "our code", put("spec onExit", "plan")),
    m(
        "exit-handler",
        "workflow",
        "our command in another image",
        put("spec templates 4 container command", ["sh", "-c", "wfm artifacts promote"]),
    ),
    m(
        "exit-handler",
        "workflow",
        "our image",
        put("spec templates 4 container image", f"registry.example/wfm-control@sha256:{'c' * 64}"),
    ),
    m("exit-handler", "workflow", "a hook", put("spec hooks", {"exit": {"template": "select-clips"}})),
    m("exit-handler", "workflow", "of a task", put(f"{DAG} tasks 1 hooks", {"exit": {"template": "plan"}})),
    m(
        "exit-handler",
        "workflow",
        "through a graph",
        add(
            "spec templates",
            {"name": "end", "dag": {"failFast": False, "tasks": [{"name": "book", "template": "plan"}]}},
        ),
        put("spec onExit", "end"),
    ),
    m("exit-handler", "cron", "our code", put(f"{CRON} onExit", "plan")),
    m("graph", "workflow", "no such entry point", put("spec entrypoint", "everything")),
    m("graph", "cron", "no entry point", drop(f"{CRON} entrypoint")),
    m("graph", "workflow", "no such template", put(f"{DAG} tasks 1 template", "selects-clips")),
    m("graph", "workflow", "no such task", put(f"{DAG} tasks 1 depends", "plans")),
    m("graph", "workflow", "no such handler", put("spec onExit", "notices")),
    m("graph", "workflow", "two ways", put(f"{DAG} tasks 1 dependencies", ["plan"]), valid=False),
    m("graph", "workflow", "goes on beside depends", put(f"{DAG} tasks 1 continueOn", {"failed": True}), valid=False),
]
KEPT = [
    m(
        "resource-template",
        "workflow",
        "makes a job",
        add("spec templates", {"name": "job", "resource": {"action": "create", "manifest": "kind: PyTorchJob"}}),
    ),
    m("graph", "workflow", "no templates", put("spec", {})),
    m(
        "graph",
        "workflow",
        "a template inside",
        add(f"{DAG} tasks", {"name": "more", "inline": {"container": {"image": "busybox"}}}),
    ),
    m(
        "skipped-output",
        "workflow",
        "of what waits for success",
        put(f"{DAG} tasks 2 depends", "plan"),
        put(f"{DAG} tasks 1 depends", "train.Succeeded"),
        put(f"{STEP} outputs", {"parameters": [{"name": "key", "valueFrom": {"path": "/work/key"}}]}),
    ),
    m(
        "memoize",
        "workflow",
        "a step",
        put(f"{STEP} memoize", {"key": "x", "maxAge": "1h", "cache": {"configMap": {"name": "memory"}}}),
    ),
    m("archive-logs", "workflow", "all", put("spec archiveLogs", True)),
    m("archive-logs", "workflow", "of a step", put(f"{STEP} archiveLocation", {"archiveLogs": True})),
    *(
        m("pod-collection", "workflow", value, put("spec podGC strategy", value))
        for value in ("OnPodCompletion", "OnPodSuccess", "OnWorkflowCompletion", "")
    ),
    m("pod-collection", "workflow", "none", drop("spec podGC")),
    m("pod-collection", "workflow", "at once", drop("spec podGC deleteDelayDuration")),
    m("pod-collection", "cron", "at once", put(f"{CRON} podGC deleteDelayDuration", "0s")),
    m("service-account", "workflow", "none", drop("spec serviceAccountName")),
    m("service-account", "cron", "default", put(f"{CRON} serviceAccountName", "default")),
    m("pod-patch", "workflow", "root", put("spec podSpecPatch", '{"securityContext": {"runAsUser": 0}}')),
    m("pod-patch", "workflow", "YAML", put(f"{STEP} podSpecPatch", "hostNetwork: true")),
]
CRONS = [
    m("cron-zone", "cron", "none", drop("spec timezone")),
    *(
        m("cron-zone", "cron", value, put("spec timezone", value))
        for value in ("", "Local", "CEST+2", "Europe/Berlinn")
    ),
    m("cron-deadline", "cron", "none", drop("spec startingDeadlineSeconds")),
    m("cron-deadline", "cron", "0", put("spec startingDeadlineSeconds", 0)),
    m("cron-concurrency", "cron", "unset", drop("spec concurrencyPolicy")),
    *(m("cron-concurrency", "cron", value, put("spec concurrencyPolicy", value)) for value in ("Allow", "Replace")),
    m("cron-schedule", "cron", "empty", put("spec schedules", []), valid=False),
    *(
        m("cron-schedule", "cron", line, put("spec schedules", [line]))
        for line in ("61 3 * * *", "0 24 * * *", "*/0 * * * *", "5-1 * * * *")
    ),
    *(
        m("cron-schedule", "cron", line or "''", put("spec schedules", [line]), valid=False)
        for line in ("", "0 3 * *", "0 3 * * * *", "TZ=Europe/Berlin 0 3 * * *", "tomorrow")
    ),
]
NAMED = [
    m("graph", "workflow", "a template that does nothing", drop("spec templates 1 container")),
    m("reference", "workflow", "an output that is not there", drop("spec templates 1 outputs")),
    m(
        "reference",
        "workflow",
        "an input that is not there",
        add(f"{STEP} container command", "{{inputs.parameters.key}}"),
    ),
    m("reference", "cron", "misspelt", put(f"{CRON} templates 1 outputs parameters 0 name", "missed")),
]
ALL = [*NAMED, *RETRIES, *TIME, *GRAPH, *KEPT, *CRONS]
