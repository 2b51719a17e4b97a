"""How large a workflow grows: a cluster holds an object of 1.5 MB at most, and Argo packs the status of its nodes away from
1 MiB on. It grows with the tasks of the graph and their tries, never with the data: parts of a stage are counted by its job.

The status is built as Argo's controller writes it (its published types, by Hera's models): the graph, and for each task what
stands for its tries, and every try.
"""

import json
from collections.abc import Iterator
from typing import Any

from pipelines.engines.argo.hera import as_status
from wfm.errors import ConfigError

Json = dict[str, Any]

MOST_BYTES = 2**20
FAILED = 2
"""Tries of every task that fail, in the estimate."""
MESSAGE = "x" * 1024
"""What each of these says."""
_WHEN, _VALUE, _NODE = "2026-01-01T00:00:00Z", "v" * 64, "n" * 63
_NAME = "w" * 63


def check_sizes(template: Json) -> None:
    """Raises ConfigError where a run of a WorkflowTemplate may become too large to be kept."""
    size = size_of(status_of(template))
    if size > MOST_BYTES:
        raise ConfigError(
            f"{template['metadata']['name']} has {len(template['spec']['templates'])} templates: the status of a run in which "
            f"each task fails {FAILED} times may take {size} bytes: at most {MOST_BYTES}. Divide the pipeline"
        )


def size_of(made: Json) -> int:
    """Bytes of an object as a cluster keeps it."""
    return len(json.dumps(made, separators=(",", ":")))


def status_of(template: Json, name: str = _NAME, failed: int = FAILED, message: str = MESSAGE) -> Json:
    """The status of a run called `name` in which every task failed so many times, then succeeded."""
    spec = template["spec"]
    nodes = {node["id"]: node for node in _nodes(spec, name, failed, message, f"local/{template['metadata']['name']}")}
    return as_status(
        {
            "phase": "Succeeded",
            "progress": f"{len(nodes)}/{len(nodes)}",
            "startedAt": _WHEN,
            "finishedAt": _WHEN,
            "conditions": [{"type": kind, "status": "True"} for kind in ("PodRunning", "Completed")],
            "resourcesDuration": {"cpu": 10**6, "memory": 10**6},
            "nodes": nodes,
            "storedWorkflowTemplateSpec": spec,
            "taskResultsCompletionStatus": {node["id"]: True for node in nodes.values() if node["type"] == "Pod"},
        }
    )


def _nodes(spec: Json, name: str, failed: int, message: str, scope: str) -> Iterator[Json]:
    templates = {one["name"]: one for one in spec["templates"]}
    graph = templates[spec["entrypoint"]]
    tasks = graph["dag"]["tasks"]
    needs = {task["name"]: task.get("depends", "").split(" && ") for task in tasks}

    def common(full: str, kind: str, template: str) -> Json:
        return {
            "id": node_id(name, full), "name": full, "displayName": full.removeprefix(f"{name}."), "type": kind,
            "phase": "Succeeded", "templateName": template, "templateScope": scope, "startedAt": _WHEN, "finishedAt": _WHEN,
            "progress": "1/1", "resourcesDuration": {"cpu": 10**6, "memory": 10**6},
        }  # fmt: skip

    roots = [node_id(name, f"{name}.{task['name']}") for task in tasks if needs[task["name"]] == [""]]
    yield {**common(name, "DAG", graph["name"]), "children": roots}
    for task in tasks:
        full, template = f"{name}.{task['name']}", templates[task["template"]]
        given = [{"name": one["name"], "value": _VALUE} for one in task.get("arguments", {}).get("parameters", [])]
        told = [{**one, "value": _VALUE} for one in template.get("outputs", {}).get("parameters", [])]
        more: Json = {"boundaryID": name, **({"inputs": {"parameters": given}} if given else {})}
        followers = [node_id(name, f"{name}.{each['name']}") for each in tasks if task["name"] in needs[each["name"]]]
        tries = [f"{full}({number})" for number in range(failed + 1)]
        outputs = {"exitCode": "0", **({"parameters": told} if told else {})}
        children = [node_id(name, each) for each in tries]
        # those that follow hang on the last try in the display, and on the node itself once it is through
        yield {
            **common(full, "Retry", template["name"]),
            **more,
            "children": [*children, *followers],
            "outputs": outputs,
        }
        for number, each in enumerate(tries):
            one = {
                **common(each, "Pod", template["name"]),
                **more,
                "hostNodeName": _NODE,
                "nodeFlag": {"retried": True},
            }
            one |= {"taskResultSynced": True, "children": followers, "outputs": outputs}
            if number < failed:
                one |= {"phase": "Failed", "message": message, "outputs": {"exitCode": "143"}}
            yield one


def node_id(workflow: str, full: str) -> str:
    """The id of a node: that of the workflow itself is its name, others bear the hash (FNV-1a) of their full name."""
    if full == workflow:
        return workflow
    found = 2166136261
    for byte in full.encode():
        found = (found ^ byte) * 16777619 % 2**32
    return f"{workflow}-{found}"
