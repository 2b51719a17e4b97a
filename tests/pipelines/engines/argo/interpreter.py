"""What Argo's controller does with a compiled workflow, as far as ours use it: parameters, `when`, `depends`, tries.

It makes nothing by itself: ``start(template, container)`` is called for each pod that there would be, with every ``{{…}}``
filled in, and gives its `End`. So a test sees what is made, and may run it.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wfm.cluster.lint.expression import evaluate

Json = dict[str, Any]


@dataclass(frozen=True)
class End:
    """How a pod ended, as Argo tells it."""

    status: str = "Succeeded"
    code: int = 0
    message: str = ""


Start = Callable[[Json, Json], End]


@dataclass
class Workflow:
    """One run of a WorkflowTemplate."""

    template: Json
    name: str
    start: Start
    outputs: Path
    "Where ``/tmp`` of the pods is found afterwards."
    given: dict[str, str] = field(default_factory=dict)
    "Parameters of the run."
    said: dict[str, str] | None = None
    "What the plan step would say, where it is not run."
    phases: dict[str, str] = field(default_factory=dict)
    "Task -> Succeeded, Failed, Skipped, Omitted."
    pods: list[str] = field(default_factory=list)
    "Template of each pod that was made, tries included."
    uid: str = "0f5ad9a6-4a64-4b8c-9fb7-2f0b0b0f6d3e"
    "Of the workflow: another of this name has another."

    def run(self) -> str:
        """All of it; returns the phase of the whole."""
        spec = self.template["spec"]
        scope = {f"workflow.parameters.{one['name']}": one["value"] for one in spec["arguments"]["parameters"]}
        scope |= {f"workflow.parameters.{name}": value for name, value in self.given.items()}
        scope |= {"workflow.name": self.name, "workflow.uid": self.uid}
        by_name = {one["name"]: one for one in spec["templates"]}
        graph = by_name[spec["entrypoint"]]["dag"]
        assert graph["failFast"] is False, "else one branch that fails stops the others"
        for task in graph["tasks"]:  # each after those it needs: `_may_begin` fails where one is not there yet
            if not self._may_begin(task.get("depends", "")):
                self.phases[task["name"]] = "Omitted"
            elif "when" in task and not _holds(_filled(task["when"], scope)):
                self.phases[task["name"]] = "Skipped"
            else:
                self._run_task(task, by_name[task["template"]], scope)
        return "Failed" if {"Failed", "Error"} & set(self.phases.values()) else "Succeeded"

    def _may_begin(self, depends: str) -> bool:
        """A name alone stands for Succeeded, Skipped or Daemoned."""
        return all(self.phases[name] in ("Succeeded", "Skipped") for name in depends.split(" && ") if name)

    def _run_task(self, task: Json, template: Json, scope: dict[str, str]) -> None:
        given = {one["name"]: _filled(one["value"], scope) for one in task.get("arguments", {}).get("parameters", [])}
        assert sorted(given) == sorted(one["name"] for one in template.get("inputs", {}).get("parameters", []))
        inner = {**scope, **{f"inputs.parameters.{name}": value for name, value in given.items()}}
        filled = json.loads(_filled(json.dumps(template), {name: json.dumps(v)[1:-1] for name, v in inner.items()}))
        tries = 0
        while True:
            self.pods.append(template["name"])
            end = self.start(filled, filled["container"])
            if end.status == "Succeeded" or not again(filled["retryStrategy"], tries, end):
                break
            tries += 1
        self.phases[task["name"]] = end.status
        for output in template.get("outputs", {}).get("parameters", []) if end.status == "Succeeded" else ():
            path = self.outputs / output["valueFrom"]["path"].removeprefix("/tmp/")
            told = path.read_text() if self.said is None else self.said[output["name"]]
            scope[f"tasks.{task['name']}.outputs.parameters.{output['name']}"] = told


def again(strategy: Json, tries: int, end: End) -> bool:
    """Whether a pod that is the `tries`-th after the first gets another, in the order of Argo's own checks."""
    if "retryPolicy" in strategy or tries >= int(strategy["limit"]):
        return False
    names = {"lastRetry.status": end.status, "lastRetry.exitCode": str(end.code), "lastRetry.message": end.message}
    found = evaluate(strategy["expression"], {**names, "lastRetry.duration": "60", "retries": str(tries)})
    assert isinstance(found, bool)
    return found


def _filled(text: str, scope: dict[str, str]) -> str:
    """Raises KeyError for what nobody has said: Argo would not submit, or end in an error."""
    return re.sub(r"\{\{([^{}]+)\}\}", lambda found: scope[found[1].strip()], text)


def _holds(when: str) -> bool:
    left, _, right = when.partition(" == ")
    assert right == "true", when
    assert left in ("true", "false"), when
    return left == "true"
