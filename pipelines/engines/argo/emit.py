"""A flow as the objects of Argo: a WorkflowTemplate, the settings that its control pods read, and what starts it at times."""

import math
from typing import Any

from pipelines.engines.argo import templates
from pipelines.engines.argo.cron import cron_workflow
from pipelines.engines.argo.hera import checked
from pipelines.engines.argo.retry import LONGEST
from pipelines.engines.argo.sizes import check_sizes
from pipelines.engines.flow import Flow, Task, settings_map
from wfm.cluster import pod
from wfm.cluster.lint import check
from wfm.cluster.lint.quantity import seconds
from wfm.cluster.settings import ClusterSettings

Json = dict[str, Any]

QUEUE_SECONDS = 30 * 86400
"""What each launcher may wait in a queue before the workflow as a whole is given up: nothing else ends one whose controller has
lost its pods."""
KEPT = {"secondsAfterSuccess": 7 * 86400, "secondsAfterFailure": 30 * 86400}
"""How long a workflow that is over can be looked at in Argo's UI; `wfm status` needs none of it."""


def emit(flow: Flow, settings: ClusterSettings) -> dict[str, list[Json]]:
    """Name of a file -> its objects. Raises ConfigError that lists what a cluster would punish later."""
    made = {
        "argoexec.yaml": executor_account(settings),
        "settings.yaml": [settings_map(flow, settings)],
        "workflowtemplate.yaml": [checked("WorkflowTemplate", workflow_template(flow, settings))],
    }
    if flow.times is not None:
        made["cronworkflow.yaml"] = [checked("CronWorkflow", cron_workflow(flow, flow.times, settings))]
    check_sizes(made["workflowtemplate.yaml"][0])
    check([one for objects in made.values() for one in objects], settings)
    return made


def executor_account(settings: ClusterSettings) -> list[Json]:
    """The account of argoexec, what it may do, and the secret in which Argo looks for its token: main containers get none."""
    name = templates.EXECUTOR_ACCOUNT

    def one(kind: str, version: str = "rbac.authorization.k8s.io/v1", *, called: str = name, **more: Any) -> Json:
        metadata: Json = {"name": called, "namespace": settings.namespace}
        return {"apiVersion": version, "kind": kind, "metadata": metadata, **more}

    rule = {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
    of = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    who = {"kind": "ServiceAccount", "name": name, "namespace": settings.namespace}
    token = one("Secret", "v1", called=f"{name}.service-account-token", type="kubernetes.io/service-account-token")
    token["metadata"]["annotations"] = {"kubernetes.io/service-account.name": name}
    return [
        one("ServiceAccount", "v1", automountServiceAccountToken=False),
        one("Role", rules=[rule]),
        one("RoleBinding", roleRef=of, subjects=[who]),
        token,
    ]


def workflow_template(flow: Flow, settings: ClusterSettings) -> Json:
    """The template that serves all runs: what one is asked for comes by its parameters, its id is the workflow's name."""
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTemplate",
        "metadata": {"name": flow.name, "namespace": settings.namespace},
        "spec": workflow(flow, settings),
    }


def workflow(flow: Flow, settings: ClusterSettings) -> Json:
    """What a WorkflowTemplate holds."""
    made: Json = {
        "entrypoint": templates.GRAPH,
        "arguments": {"parameters": parameters(flow)},
        "serviceAccountName": settings.service_account or templates.STAGE_ACCOUNT,
        "automountServiceAccountToken": False,
        "executor": {"serviceAccountName": templates.EXECUTOR_ACCOUNT},
        "securityContext": pod.nobody(),
        "activeDeadlineSeconds": last_stop(flow, settings),
        "podGC": {"strategy": "OnWorkflowSuccess", "deleteDelayDuration": "600s"},
        "ttlStrategy": dict(KEPT),
        "templates": [
            {"name": templates.GRAPH, "dag": {"failFast": False, "tasks": tasks(flow)}},
            templates.plan(flow, settings),
            *(templates.of_task(flow, task, settings) for task in flow.tasks),
        ],
    }
    if flow.notice is not None:
        made["onExit"] = templates.NOTICE
        made["templates"].append(templates.notice(flow.notice, settings))
    if settings.image_pull_secrets:
        made["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    return made


def parameters(flow: Flow) -> list[Json]:
    """What a run may be given: its id (that of the workflow where it is empty), and what the plan step takes."""
    values = {"run-id": "", **flow.parameters()}
    return [{"name": name, "value": value} for name, value in values.items()]


def tasks(flow: Flow) -> list[Json]:
    """The graph. What is there already is skipped by `when`, and what needs it goes on; inputs are the keys that the plan step
    told, never what a task gave that may not have run."""

    def told(name: str) -> str:
        return f"{{{{tasks.{templates.PLAN}.outputs.parameters.{name}}}}}"

    def of(task: Task) -> Json:
        made = {other.node: other.name for other in flow.tasks}
        needs = sorted({made[node] for node in task.inputs.values() if node in made})
        given = {
            "specs": "specs",
            **{name: templates.key_name(flow, node) for name, node in sorted(task.inputs.items())},
        }
        return {
            "name": task.name,
            "template": task.name,
            "depends": " && ".join([templates.PLAN, *needs]),
            "when": f"{told(f'make-{task.name}')} == true",
            "arguments": {"parameters": [{"name": name, "value": told(of)} for name, of in given.items()]},
        }

    return [{"name": templates.PLAN, "template": templates.PLAN}, *map(of, flow.tasks)]


def last_stop(flow: Flow, settings: ClusterSettings) -> int:
    """Beyond all that the longest way through the graph may take, with every try, and its launchers in the queue [s]."""

    def longest(task: Task) -> float:
        limit = templates.LAUNCHER_TRIES if task.launched else task.retries + templates.DISRUPTIONS
        between = (seconds(LONGEST) or 0.0) + templates.pending_seconds(settings)
        own = (limit + 1) * between + (task.retries + 1) * task.timeout_seconds
        if not task.launched:
            own += templates.DISRUPTIONS * task.timeout_seconds
        return own + (QUEUE_SECONDS if task.launched else 0)

    through: dict[str, float] = {}
    for task in flow.tasks:
        before = max((through.get(node, 0.0) for node in task.inputs.values()), default=0.0)
        through[task.node] = before + longest(task)
    return math.ceil(max(through.values(), default=0.0) + 86400)
