"""The pod of each task: the plan step, a stage, a launcher, and who is told at the end. Their parts are `wfm.cluster.pod`'s.

Main containers get no token for the API of Kubernetes but launchers, which make jobs; argoexec beside them has that of an
account of its own. No pod here holds a device or bears a queue's label.
"""

import json
import math
from typing import Any

from pipelines.engines.argo.retry import strategy
from pipelines.engines.flow import SETTINGS_FILE, Flow, Notice, Task
from wfm.cluster import pod
from wfm.cluster.names import LABEL_NODE, LABEL_ROLE, LABEL_STAGE, label_value
from wfm.cluster.request import JobRequest
from wfm.cluster.resources import Resources
from wfm.cluster.settings import ClusterSettings, Image
from wfm.errors import InputError
from wfm.stopping import CANCELLED, GRACE

Json = dict[str, Any]

PLAN, GRAPH, NOTICE = "plan", "graph", "notice"
RUN = "{{workflow.name}}"
"""The id of the run, where nobody gave another: that of the workflow. Submitted under a name of one's own, or at a time, it is
there once only."""
OUT = f"{pod.TEMPORARY}/plan"
"""Where the plan step writes what it has to say, a file each."""
SETTINGS_FOLDER = "/etc/wfm"
LAUNCHER_ACCOUNT, PLANNER_ACCOUNT, STAGE_ACCOUNT, EXECUTOR_ACCOUNT = "launcher", "planner", "stage", "argoexec"
"""Accounts of `manifests/base/accounts.yaml`, and the one by which argoexec, beside each main container, says what it gave."""
PLAN_TRIES, LAUNCHER_TRIES, DISRUPTIONS = 5, 20, 5
"""Tries after the first. A launcher's end leaves its job alone; a stage has those of its row, and more for machines that go."""
_CONTROL = Resources(cpu=0.5, memory_gib=2.0, ephemeral_gib=4.0, grace_seconds=30).model_copy(update={"shm_gib": 0.0})
"""What planning and launching take."""


def plan(flow: Flow, settings: ClusterSettings) -> Json:
    """The plan step: which nodes there are to make (``make-<task>``), under which key (``key-<task>``), by which specs."""
    words = ["python", "-m", "pipelines.plan_step", "--run-id", RUN, "--workflow-uid", "{{workflow.uid}}"]
    words += ["--asked-as={{workflow.parameters.run-id}}"]
    words += ["--pipeline", flow.pipeline, "--profile", flow.profile]
    words += [f"--{name}={{{{workflow.parameters.{name}}}}}" for name in flow.parameters()]
    words += ["--expects", flow.expects(settings), "--out", OUT]
    said = ["specs", *(f"make-{task.name}" for task in flow.tasks), *key_names(flow)]
    template = _template(PLAN, settings, words, "control", _CONTROL, PLAN_TRIES)
    template["metadata"]["labels"] |= {LABEL_ROLE: "planner"}
    template["serviceAccountName"] = PLANNER_ACCOUNT
    template["outputs"] = {"parameters": [{"name": name, "valueFrom": {"path": f"{OUT}/{name}"}} for name in said]}
    return with_settings(template, flow)


def key_names(flow: Flow) -> list[str]:
    """The plan step's parameters for keys that some task reads."""
    return sorted({key_name(flow, node) for task in flow.tasks for node in task.inputs.values()})


def key_name(flow: Flow, node: str) -> str:
    """The plan step's parameter for the key of a node."""
    return f"key-{next((task.name for task in flow.tasks if task.node == node), node)}"


def of_task(flow: Flow, task: Task, settings: ClusterSettings) -> Json:
    """A stage as a pod of its own, or the launcher of its job. Its inputs are the folder of specs, and the key of each."""
    words = ["python", "-m", *pod.command(_request(task))]
    if task.launched:
        words[2] = "components.launch_job"
        template = _template(task.name, settings, words, "control", _CONTROL, LAUNCHER_TRIES)
        template |= {"serviceAccountName": LAUNCHER_ACCOUNT, "automountServiceAccountToken": True}
        template = with_settings(template, flow)
    else:
        template = _template(
            task.name, settings, words, task.image, task.resources, task.retries + DISRUPTIONS, task.timeout_seconds
        )
    template["metadata"]["labels"] |= {
        LABEL_ROLE: "launcher" if task.launched else "stage",
        LABEL_NODE: label_value(task.node),
        LABEL_STAGE: label_value(task.stage),
    }
    template["inputs"] = {"parameters": [{"name": name} for name in ("specs", *sorted(task.inputs))]}
    return template


def _request(task: Task) -> JobRequest:
    """The task as a request whose run, spec and keys Argo fills in."""
    return JobRequest(
        stage=task.stage, component=task.component, node=task.node, kind="container", image=task.image, key="", generation=0,
        run_id=RUN, spec_url=f"{{{{inputs.parameters.specs}}}}/{task.node}.json",
        inputs={name: f"{{{{inputs.parameters.{name}}}}}" for name in task.inputs},
        resources=task.resources, timeout_seconds=task.timeout_seconds, retries=task.retries,
    )  # fmt: skip


def _template(
    name: str,
    settings: ClusterSettings,
    words: list[str],
    role: Image,
    resources: Resources,
    tries: int,
    timeout_seconds: float = 0.0,
) -> Json:
    values = {
        **pod.threads(resources.pod()["cpu"]),
        **settings.environment,
        **pod.places(settings, role),
        "WFM_ENGINE": "argo",
        GRACE: str(resources.grace_seconds),
        CANCELLED: str(InputError.exit_code),  # 143 is tried again: it may be a drain
    }
    container = pod.container("main", settings.image(role), words, values, resources, settings)
    container.pop("name")  # Argo's own
    whole = pod.pod_spec(container, resources, settings)
    patch = {name: whole[name] for name in ("terminationGracePeriodSeconds", "enableServiceLinks")}
    made: Json = {
        "name": name,
        "metadata": {"labels": {}},
        "container": container,
        "volumes": whole["volumes"],
        "pendingTimeout": f"{math.ceil(pending_seconds(settings))}s",
        "retryStrategy": strategy(tries),
        "podSpecPatch": json.dumps(patch, sort_keys=True),
    }
    made |= {name: whole[name] for name in ("nodeSelector", "tolerations", "priorityClassName") if name in whole}
    if timeout_seconds:  # from the pod's start on a machine: what it waited for one counts for nothing
        made["activeDeadlineSeconds"] = math.ceil(timeout_seconds + settings.patience.start_seconds)
    return made


def notice(told: Notice, settings: ClusterSettings) -> Json:
    """What runs at the end, by hand of another's image: one post, whose failure is no failure of the run."""
    words = '{"text": "run {{workflow.name}} of {{workflow.namespace}}: {{workflow.status}}"}'
    post = f"curl -sS --max-time 30 -H 'Content-Type: application/json' --data '{words}' \"$URL\" || true"
    small = _CONTROL.model_copy(update={"cpu": 0.1, "memory_gib": 0.125, "ephemeral_gib": 0.5})
    container = pod.container("main", told.image, (), {}, small, settings)
    container = {name: container[name] for name in ("image", "resources", "volumeMounts", "securityContext")}
    container["command"] = ["sh", "-c", post]
    address = {"name": "URL", "valueFrom": {"secretKeyRef": {"name": told.secret, "key": "url"}}}
    container["env"] = [*({"name": name, "value": pod.TEMPORARY} for name in ("HOME", "TMPDIR", "WFM_CACHE")), address]
    return {
        "name": NOTICE,
        "metadata": {"labels": {LABEL_ROLE: "notice"}},
        "container": container,
        "volumes": pod.volumes(small)[0],
        "activeDeadlineSeconds": 300,
    }


def pending_seconds(settings: ClusterSettings) -> float:
    """How long a pod may be there without running [s]: a machine is found, the image pulled, and all of it begun."""
    patience = settings.patience
    return patience.unschedulable_seconds + patience.image_pull_seconds + patience.start_seconds


def with_settings(template: Json, flow: Flow) -> Json:
    """The template with the settings of the cluster, as they were compiled."""
    volume = {"name": "cluster", "configMap": {"name": flow.name}}
    container = template["container"]
    container["env"].append({"name": "WFM_CLUSTER", "value": f"{SETTINGS_FOLDER}/{SETTINGS_FILE}"})
    container["volumeMounts"].append({"name": "cluster", "mountPath": SETTINGS_FOLDER, "readOnly": True})
    return {**template, "volumes": [*template["volumes"], volume]}
