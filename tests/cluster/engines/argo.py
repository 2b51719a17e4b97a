"""Argo Server's REST calls (4.1), and a controller that plays the workflows.

What the controller does with ``spec.suspend`` is what Argo's does: it looks at nothing else of such a workflow, so a pod that
runs goes on, no other begins, and neither *stop* nor *terminate* has an effect (argo-workflows #17041) until it is resumed.
"""

import copy
import re
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.cluster.engines import models
from tests.cluster.engines.http import RpcError, Server, route
from tests.cluster.engines.player import Workbench
from tests.pipelines.engines.argo.interpreter import End
from tests.pipelines.engines.argo.interpreter import Workflow as Graph
from wfm.cluster.pod import KEY_FILE

Json = dict[str, Any]
KIND = "io_argoproj_workflow_v1alpha1_{}"
OVER = ("Succeeded", "Failed", "Error")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_OUT = "/tmp/plan"


class Shutdown(Exception):
    """The workflow was stopped: nothing of it begins any more."""


class ArgoServer:
    """The server, and the controller behind it."""

    def __init__(self, bench: Workbench, namespace: str = "wfm", token: str = "", *, plays: bool = True) -> None:
        self.bench, self.namespace, self.plays = bench, namespace, plays
        self.workflows: dict[str, Json] = {}
        self.templates: dict[str, Json] = {}
        self.crons: dict[str, Json] = {}
        self._lock = threading.RLock()
        self._threads: list[threading.Thread] = []
        base, crons = "/api/v1/workflows/{namespace}", "/api/v1/cron-workflows/{namespace}"
        templates = "/api/v1/workflow-templates/{namespace}"
        self.http = Server([
            route("POST", f"{base}/submit", self._submit),
            route("GET", base, self._list),
            route("GET", f"{base}/{{name}}", self._get),
            route("PUT", f"{base}/{{name}}/suspend", self._suspend),
            route("PUT", f"{base}/{{name}}/resume", self._resume),
            route("PUT", f"{base}/{{name}}/stop", self._stop),
            route("PUT", f"{base}/{{name}}/terminate", self._terminate),
            route("DELETE", f"{base}/{{name}}", self._delete),
            route("GET", f"{templates}/{{name}}", self._template),
            route("GET", crons, self._crons),
            route("GET", f"{crons}/{{name}}", lambda **asked: self._cron(asked["name"])),
            route("PUT", f"{crons}/{{name}}/suspend", lambda **asked: self._pause(asked["name"], True)),
            route("PUT", f"{crons}/{{name}}/resume", lambda **asked: self._pause(asked["name"], False)),
        ], token, "token not valid. see https://argo-workflows.readthedocs.io/en/latest/faq/")  # fmt: skip
        self.url = self.http.url

    def apply(self, found: Json) -> None:
        """What `kubectl apply` does with a template or a CronWorkflow."""
        kind = found["kind"]
        models.argo(KIND.format("workflow_template" if kind == "WorkflowTemplate" else "cron_workflow"), found)
        (self.templates if kind == "WorkflowTemplate" else self.crons)[found["metadata"]["name"]] = copy.deepcopy(found)

    def close(self) -> None:
        for one in self.workflows.values():
            one["spec"] |= {"shutdown": "Terminate", "suspend": None}
        self.bench.close()
        for thread in self._threads:
            thread.join(30)
        self.http.stop()

    def until(self, over: Callable[[], Any], seconds: float = 120.0) -> None:
        """Wait for something that the controller does."""
        end = time.monotonic() + seconds
        while not over():
            assert time.monotonic() < end, f"not within {seconds} s: {self.workflows}\n{self.bench.log[-3000:]}"
            time.sleep(0.05)

    def phase(self, name: str) -> str:
        return str(self.workflows[name]["status"].get("phase", ""))

    # -- what is asked

    def _find(self, name: str) -> Json:
        if name not in self.workflows:
            raise RpcError(5, f'workflows.argoproj.io "{name}" not found')
        return self.workflows[name]

    def _answer(self, found: Json) -> Json:
        with self._lock:
            return models.argo(KIND.format("workflow"), copy.deepcopy(found))

    def _submit(self, *, query: Json, body: Json | None, namespace: str) -> Json:
        asked = models.argo(KIND.format("workflow_submit_request"), body or {})
        options = asked.get("submitOptions", {})
        if asked["resourceKind"] != "WorkflowTemplate" or asked["resourceName"] not in self.templates:
            raise RpcError(5, f'workflowtemplates.argoproj.io "{asked["resourceName"]}" not found')
        return self._make(
            options["name"], asked["resourceName"], _pairs(options.get("parameters", [])),
            labels=_pairs(filter(None, options.get("labels", "").split(","))),
            annotations=_pairs(filter(None, options.get("annotations", "").split(","))),
        )  # fmt: skip

    def _make(self, name: str, template: str, given: dict[str, str], **metadata: Any) -> Json:
        if not _NAME.fullmatch(name) or len(name) > 63:
            raise RpcError(3, f'Workflow.argoproj.io "{name}" is invalid: metadata.name: Invalid value')
        with self._lock:
            if name in self.workflows:
                raise RpcError(6, f'workflows.argoproj.io "{name}" already exists')
            now = _stamp(time.time())
            found: Json = {
                "metadata": {
                    "name": name, "namespace": self.namespace, "uid": str(uuid.uuid4()), "creationTimestamp": now,
                    **metadata,
                },
                "spec": {
                    "workflowTemplateRef": {"name": template},
                    "arguments": {"parameters": [{"name": key, "value": value} for key, value in given.items()]},
                },
                "status": {"startedAt": None, "finishedAt": None},
            }  # fmt: skip
            self.workflows[name] = found
        if self.plays:
            self._play(found, template, given)
        return self._answer(found)

    def _get(self, *, name: str, **_: Any) -> Json:
        return self._answer(self._find(name))

    def _list(self, **_: Any) -> Json:
        items = [copy.deepcopy(one) for one in self.workflows.values()]
        return models.argo(KIND.format("workflow_list"), {"metadata": {}, "items": items})

    def _delete(self, *, name: str, **_: Any) -> Json:
        self.workflows.pop(self._find(name)["metadata"]["name"])
        return {}

    def _template(self, *, name: str, **_: Any) -> Json:
        if name not in self.templates:
            raise RpcError(5, f'workflowtemplates.argoproj.io "{name}" not found')
        return models.argo(KIND.format("workflow_template"), copy.deepcopy(self.templates[name]))

    def _suspend(self, *, name: str, body: Json | None, **_: Any) -> Json:
        models.argo(KIND.format("workflow_suspend_request"), body or {})
        found = self._find(name)
        if self.phase(name) in OVER:
            raise RpcError(13, "cannot suspend completed workflows")
        found["spec"]["suspend"] = True
        return self._answer(found)

    def _resume(self, *, name: str, body: Json | None, **_: Any) -> Json:
        models.argo(KIND.format("workflow_resume_request"), body or {})
        found = self._find(name)
        found["spec"].pop("suspend", None)
        return self._answer(found)

    def _stop(self, *, name: str, body: Json | None, **_: Any) -> Json:
        models.argo(KIND.format("workflow_stop_request"), body or {})
        return self._shut(name, "Stop")

    def _terminate(self, *, name: str, body: Json | None, **_: Any) -> Json:
        models.argo(KIND.format("workflow_terminate_request"), body or {})
        return self._shut(name, "Terminate")

    def _shut(self, name: str, way: str) -> Json:
        found = self._find(name)
        if self.phase(name) in OVER:
            where = f'workflow: "{name}", namespace: "{self.namespace}"'
            raise RpcError(13, f"cannot shutdown a completed workflow: {where}")
        found["spec"]["shutdown"] = way
        return self._answer(found)

    # -- by the clock

    def _crons(self, **_: Any) -> Json:
        items = [copy.deepcopy(one) for one in self.crons.values()]
        return models.argo(KIND.format("cron_workflow_list"), {"metadata": {}, "items": items})

    def _cron(self, name: str) -> Json:
        if name not in self.crons:
            raise RpcError(5, f'cronworkflows.argoproj.io "{name}" not found')
        return models.argo(KIND.format("cron_workflow"), copy.deepcopy(self.crons[name]))

    def _pause(self, name: str, paused: bool) -> Json:
        self._cron(name)
        self.crons[name]["spec"]["suspend"] = paused
        return self._cron(name)

    def wake(self, now: datetime) -> list[str]:
        """The cron controller at a moment: of the starts since the last one it makes up for the latest, where that is not later
        than ``startingDeadlineSeconds``, and for none while one runs (Forbid). Returns the names of what it started."""
        started = []
        for name, cron in self.crons.items():
            spec, status = cron["spec"], cron.setdefault("status", {})
            running = [one for one in status.get("active", ()) if self.phase(one["name"]) not in OVER]
            status["active"] = running
            last = status.get("lastScheduledTime") or spec.get("began", "")
            since = datetime.fromisoformat(last) if last else now - timedelta(minutes=1)
            latest = max((at for line in spec["schedules"] for at in due(line, since, now)), default=None)
            late = latest is not None and (now - latest).total_seconds() > spec["startingDeadlineSeconds"]
            if latest is None or late or spec.get("suspend") or (running and spec["concurrencyPolicy"] == "Forbid"):
                continue
            made = f"{name}-{int(latest.timestamp())}"
            at = {"workflows.argoproj.io/scheduled-time": latest.isoformat().replace("+00:00", "Z")}
            owner = {"workflows.argoproj.io/cron-workflow": name}
            self._make(made, spec["workflowSpec"]["workflowTemplateRef"]["name"], {}, labels=owner, annotations=at)
            status["lastScheduledTime"] = _stamp(latest.timestamp())
            status["active"] = [{"name": made, "namespace": self.namespace, "kind": "Workflow"}]
            started.append(made)
        return started

    # -- the controller

    def _play(self, found: Json, template: str, given: dict[str, str]) -> None:
        compiled = copy.deepcopy(self.templates[template])
        folder = self.bench.folder / found["metadata"]["name"]
        folder.mkdir(exist_ok=True)
        for one in compiled["spec"]["templates"]:
            one.setdefault("retryStrategy", {"limit": "0", "expression": "false"})
        graph = Graph(
            compiled, found["metadata"]["name"], lambda one, container: self._pod(found, one, container), folder, given,
            uid=found["metadata"]["uid"],
        )  # fmt: skip
        thread = threading.Thread(target=self._operate, args=(found, graph), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _operate(self, found: Json, graph: Graph) -> None:
        status = found["status"]
        status |= {"phase": "Running", "startedAt": _stamp(time.time()), "nodes": {}}
        try:
            phase = graph.run()
            message = ""
        except Shutdown:
            phase, message = "Failed", f"Stopped with strategy '{found['spec'].get('shutdown')}'"
        except Exception as error:
            phase, message = "Error", f"{type(error).__name__}: {error}"
        self._unsuspended(found)
        if found["spec"].get("shutdown"):
            phase, message = "Failed", f"Stopped with strategy '{found['spec'].get('shutdown')}'"
        with self._lock:
            status |= {"phase": phase, "finishedAt": _stamp(time.time()), **({"message": message} if message else {})}

    def _unsuspended(self, found: Json) -> None:
        while found["spec"].get("suspend"):
            time.sleep(0.02)

    def _pod(self, found: Json, template: Json, container: Json) -> End:
        self._unsuspended(found)
        if found["spec"].get("shutdown"):
            raise Shutdown
        name = f"{found['metadata']['name']}-{len(found['status']['nodes'])}"
        node: Json = {
            "id": name, "name": name, "displayName": template["name"], "type": "Pod", "templateName": template["name"],
            "phase": "Running", "startedAt": _stamp(time.time()), "finishedAt": None,
        }  # fmt: skip
        with self._lock:
            found["status"]["nodes"][name] = node
        folder = self.bench.folder / found["metadata"]["name"]
        places = {_OUT: str(folder / "plan"), KEY_FILE: str(folder / "key")}
        words = [places.get(word, word) for word in container["command"][3:]]
        code = self.bench.run(words, lambda: bool(found["spec"].get("shutdown") and not found["spec"].get("suspend")))
        end = End() if code == 0 else End("Failed", code, f"main: Error (exit code {code})")
        with self._lock:
            node |= {"phase": end.status, "finishedAt": _stamp(time.time())} | (
                {"message": end.message} if end.message else {}
            )
        return end


def _pairs(texts: Any) -> dict[str, str]:
    return dict(str(one).partition("=")[::2] for one in texts)


def _stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def due(line: str, since: datetime, now: datetime) -> list[datetime]:
    from cronsim import CronSim

    found = []
    for at in CronSim(line, since.astimezone(UTC)):
        if at > now:
            break
        found.append(at)
    return found
