"""Pods as the controllers make them from a template, and what can be read off them."""

import json
from typing import Any

from tests.cluster.server.api import condition_of
from tests.cluster.server.storage import Json

ENDED = ("Succeeded", "Failed")


def from_template(
    template: Json, name: str, *, labels: Json | None = None, env: Json | None = None, **more: Any
) -> Json:
    """A pod of a template. `env`: variables that every container gets where it has none of that name. `more`: fields of its
    metadata."""
    made = json.loads(json.dumps(template))
    metadata = made.get("metadata") or {}
    for container in made["spec"].get("containers", ()):
        there = container.setdefault("env", [])
        names = {variable["name"] for variable in there}
        there += [{"name": key, "value": value} for key, value in (env or {}).items() if key not in names]
    return {
        "apiVersion": "v1", "kind": "Pod", "spec": made["spec"], "metadata": {
            **({"generateName": name} if name.endswith("-") else {"name": name}),
            "labels": {**(metadata.get("labels") or {}), **(labels or {})},
            "annotations": dict(metadata.get("annotations") or {}), **more,
        },
    }  # fmt: skip


def phase(pod: Json) -> str:
    return pod.get("status", {}).get("phase", "Pending")


def active(pod: Json) -> bool:
    return phase(pod) not in ENDED and "deletionTimestamp" not in pod["metadata"]


def running(pod: Json) -> bool:
    return phase(pod) == "Running"


def exit_code(pod: Json) -> int | None:
    """Of its first container that has ended."""
    for status in pod.get("status", {}).get("containerStatuses") or ():
        ended = status.get("state", {}).get("terminated")
        if ended:
            return ended["exitCode"]
    return None


def finished_at(pod: Json) -> str:
    for status in pod.get("status", {}).get("containerStatuses") or ():
        ended = status.get("state", {}).get("terminated")
        if ended:
            return ended["finishedAt"]
    return condition_of(pod, "DisruptionTarget").get("lastTransitionTime") or pod["metadata"]["creationTimestamp"]


def restarts(pod: Json) -> int:
    return sum(status.get("restartCount", 0) for status in pod.get("status", {}).get("containerStatuses") or ())


def gpus(spec: Json, name: str = "nvidia.com/gpu") -> int:
    """What the containers of a pod's spec ask for."""
    total = 0
    for container in spec.get("containers", ()):
        resources = container.get("resources") or {}
        total += int((resources.get("limits") or resources.get("requests") or {}).get(name, 0))
    return total


def annotations(found: Json) -> dict[str, str]:
    return found["metadata"].get("annotations") or {}


def labels(found: Json) -> dict[str, str]:
    return found["metadata"].get("labels") or {}
