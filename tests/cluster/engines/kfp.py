"""KFP's API (v2beta1), and a controller that plays the packages: its DAGs, conditions, parameters, as far as ours use them.

*Terminate* ends what runs, and a task that fails lets nothing more begin.
"""

import copy
import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from pipelines.engines.kubeflow.template import SAID
from tests.cluster.engines import models
from tests.cluster.engines.argo import due
from tests.cluster.engines.http import RpcError, Server, route
from tests.cluster.engines.player import Workbench

Json = dict[str, Any]
OVER = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")


class Over(Exception):
    """A task failed, or the run was terminated: nothing more begins."""


class KfpServer:
    """The API, and the controller behind it."""

    def __init__(self, bench: Workbench, token: str = "", *, plays: bool = True) -> None:
        self.bench, self.plays = bench, plays
        self.experiments: dict[str, Json] = {}
        self.runs: dict[str, Json] = {}
        self.pipelines: dict[str, Json] = {}
        self.versions: dict[str, list[Json]] = {}
        self.recurring: dict[str, Json] = {}
        self._lock = threading.RLock()
        self._threads: list[threading.Thread] = []
        base = "/apis/v2beta1"
        self.http = Server([
            route("GET", f"{base}/experiments", self._list("experiments", "V2beta1ListExperimentsResponse", self.experiments)),
            route("POST", f"{base}/experiments", self._make_experiment),
            route("GET", f"{base}/runs", self._list("runs", "V2beta1ListRunsResponse", self.runs)),
            route("POST", f"{base}/runs", self._make_run),
            route("GET", f"{base}/runs/{{run_id}}", lambda **asked: self._run(asked["run_id"])),
            route("POST", f"{base}/runs/{{run_id}}:terminate", self._terminate),
            route("GET", f"{base}/pipelines", self._list("pipelines", "V2beta1ListPipelinesResponse", self.pipelines)),
            route("GET", f"{base}/pipelines/{{pipeline_id}}/versions", self._versions),
            route("GET", f"{base}/recurringruns",
                  self._list("recurringRuns", "V2beta1ListRecurringRunsResponse", self.recurring)),
            route("POST", f"{base}/recurringruns", self._make_recurring),
            route("POST", f"{base}/recurringruns/{{name}}:enable", lambda **asked: self._enable(asked["name"], "ENABLED")),
            route("POST", f"{base}/recurringruns/{{name}}:disable", lambda **asked: self._enable(asked["name"], "DISABLED")),
        ], token, "Request header error: there is no user identity header")  # fmt: skip
        self.url = self.http.url

    def upload(self, name: str, package: Json) -> None:
        """As `kfp pipeline create`, or another version of it."""
        pipeline = next((key for key, one in self.pipelines.items() if one["display_name"] == name), "") or _id()
        now = _stamp(time.time())
        self.pipelines[pipeline] = {"pipeline_id": pipeline, "display_name": name, "name": name, "created_at": now}
        version = {
            "pipeline_id": pipeline,
            "pipeline_version_id": _id(),
            "display_name": name,
            "pipeline_spec": package,
        }
        self.versions.setdefault(pipeline, []).insert(0, {**version, "created_at": now})

    def close(self) -> None:
        for one in self.runs.values():
            if one["state"] not in OVER:
                one["state"] = "CANCELING"
        self.bench.close()
        for thread in self._threads:
            thread.join(30)
        self.http.stop()

    def until(self, over: Callable[[], Any], seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        while not over():
            states = {name: one["state"] for name, one in self.runs.items()}
            assert time.monotonic() < end, f"not within {seconds} s: {states}\n{self.bench.log[-3000:]}"
            time.sleep(0.05)

    # -- what is asked

    def _list(self, field: str, model: str, of: dict[str, Json]) -> Callable[..., Json]:
        def answer(*, query: Json, body: Json | None) -> Json:
            found = [copy.deepcopy(one) for one in of.values()]
            for predicate in json.loads(query.get("filter") or "{}").get("predicates", ()):
                known = {"operation", "key", "string_value"}
                if set(predicate) - known or predicate["operation"] != "EQUALS":
                    raise RpcError(3, f"Invalid input error: Failed to parse the filter: {predicate}")
                found = [one for one in found if one.get(predicate["key"]) == predicate["string_value"]]
            if query.get("experiment_id"):
                found = [one for one in found if one["experiment_id"] == query["experiment_id"]]
            if query.get("sort_by") == "created_at desc":
                found.reverse()
            begin, size = int(query.get("page_token") or 0), int(query.get("page_size") or 20)
            made: Json = {field: found[begin : begin + size], "total_size": len(found)}
            if begin + size < len(found):
                made["next_page_token"] = str(begin + size)
            return models.kfp(model, made)

        return answer

    def _make_experiment(self, *, query: Json, body: Json | None) -> Json:
        asked = models.kfp("V2beta1Experiment", body or {})
        if any(one["display_name"] == asked["display_name"] for one in self.experiments.values()):
            raise RpcError(
                6, f"Already exist error: Failed to create a new experiment. {asked['display_name']} already exists"
            )
        made = {"experiment_id": _id(), "created_at": _stamp(time.time()), "storage_state": "AVAILABLE", **asked}
        self.experiments[made["experiment_id"]] = made
        return models.kfp("V2beta1Experiment", made)

    def _make_run(self, *, query: Json, body: Json | None) -> Json:
        return self._make(models.kfp("V2beta1Run", body or {}))

    def _make(self, asked: Json) -> Json:
        reference = asked.get("pipeline_version_reference")
        package = asked.get("pipeline_spec")
        if reference:
            versions = self.versions.get(reference["pipeline_id"], [])
            package = next(
                (
                    one["pipeline_spec"]
                    for one in versions
                    if one["pipeline_version_id"] == reference["pipeline_version_id"]
                ),
                None,
            )
        if not package:
            raise RpcError(3, "Invalid input error: a run needs a pipeline spec or a pipeline version")
        known = package["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
        for name in asked.get("runtime_config", {}).get("parameters", {}):
            if name not in known:
                raise RpcError(3, f"Invalid input error: Unrecognized input parameter: {name}")
        made = {
            "run_id": _id(),
            "created_at": _stamp(time.time()),
            "state": "PENDING",
            "storage_state": "AVAILABLE",
            **asked,
        }
        self.runs[made["run_id"]] = made
        if self.plays:
            thread = threading.Thread(target=self._play, args=(made, package["pipeline_spec"]), daemon=True)
            self._threads.append(thread)
            thread.start()
        return models.kfp("V2beta1Run", copy.deepcopy(made))

    def _run(self, run_id: str) -> Json:
        if run_id not in self.runs:
            raise RpcError(5, f"Resource not found error: Run {run_id} not found")
        return models.kfp("V2beta1Run", copy.deepcopy(self.runs[run_id]))

    def _terminate(self, *, run_id: str, **_: Any) -> Json:
        self._run(run_id)
        with self._lock:
            if self.runs[run_id]["state"] in OVER:
                raise RpcError(9, f"Failed to terminate a run: run {run_id} is not in progress")
            self.runs[run_id]["state"] = "CANCELING" if self.plays else "CANCELED"
        return {}

    def _versions(self, *, query: Json, body: Json | None, pipeline_id: str) -> Json:
        found = copy.deepcopy(self.versions.get(pipeline_id, []))
        size = int(query.get("page_size") or 20)
        return models.kfp(
            "V2beta1ListPipelineVersionsResponse", {"pipeline_versions": found[:size], "total_size": len(found)}
        )

    def _make_recurring(self, *, query: Json, body: Json | None) -> Json:
        asked = models.kfp("V2beta1RecurringRun", body or {})
        status = "ENABLED" if asked["mode"] == "ENABLE" else "DISABLED"
        made = {"recurring_run_id": _id(), "created_at": _stamp(time.time()), "status": status, **asked}
        self.recurring[made["recurring_run_id"]] = made
        return models.kfp("V2beta1RecurringRun", made)

    def _enable(self, name: str, status: str) -> Json:
        if name not in self.recurring:
            raise RpcError(5, f"Resource not found error: RecurringRun {name} not found")
        self.recurring[name]["status"] = status
        return {}

    def wake(self, now: datetime) -> list[str]:
        """The controller of recurring runs at a moment: without catch-up the latest start alone, and one run at a time."""
        started = []
        for one in self.recurring.values():
            mine = [run for run in self.runs.values() if run.get("recurring_run_id") == one["recurring_run_id"]]
            if one["status"] != "ENABLED" or sum(run["state"] not in OVER for run in mine) >= int(
                one["max_concurrency"]
            ):
                continue
            last = max((run["scheduled_at"] for run in mine), default="")
            since = datetime.fromisoformat(last) if last else now - timedelta(minutes=1)
            line = one["trigger"]["cron_schedule"]["cron"].partition(" ")[2]
            times = due(line, since, now)
            if times:
                asked = {
                    "display_name": f"{one['display_name']}-{len(mine)}", "recurring_run_id": one["recurring_run_id"],
                    "scheduled_at": times[-1].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "experiment_id": "default",
                    "pipeline_spec": one["pipeline_spec"], "runtime_config": one["runtime_config"],
                }  # fmt: skip
                started.append(self._make(asked)["display_name"])
        return started

    # -- the controller

    def _play(self, run: Json, spec: Json) -> None:
        run["state"] = "RUNNING" if run["state"] == "PENDING" else run["state"]
        definitions = spec["root"]["inputDefinitions"]["parameters"]
        given = {name: one.get("defaultValue", "") for name, one in definitions.items()}
        given |= run.get("runtime_config", {}).get("parameters", {})
        details: list[Json] = []
        try:
            _Dag(spec, lambda task, container: self._pod(run, details, task, container), run["run_id"]).run(
                spec["root"], given
            )
            state, error = "SUCCEEDED", ""
        except Over as over:
            state, error = "FAILED", str(over)
        except Exception as trouble:
            state, error = "FAILED", f"{type(trouble).__name__}: {trouble}"
        with self._lock:
            if run["state"] == "CANCELING":
                state, error = "CANCELED", ""
            run |= {"state": state, "finished_at": _stamp(time.time())}
            run |= {"run_details": {"task_details": details}}
            run |= {"error": {"code": 13, "message": error}} if error else {}

    def _pod(self, run: Json, details: list[Json], task: str, container: Json) -> Json:
        """Run a container's command; its outputs."""
        if run["state"] == "CANCELING":
            raise Over
        folder = self.bench.folder / run["run_id"]
        folder.mkdir(exist_ok=True)
        outputs = folder / f"{task}-{len(details)}"
        outputs.mkdir()
        text = json.dumps([*container["command"][1:], *container["args"]]).replace(SAID, str(folder / "plan"))
        words = json.loads(re.sub(r"\{\{\$\.outputs\.parameters\['(\w+)'\]\.output_file\}\}", rf"{outputs}/\1", text))
        words = [word for word in words if word not in ("--secrets", "/etc/wfm/secrets")]
        detail = {"display_name": task, "task_id": _id(), "run_id": run["run_id"], "state": "RUNNING"}
        details.append(detail)
        run["run_details"] = {"task_details": details}
        code = self.bench.run(words, lambda: run["state"] == "CANCELING")
        detail["state"] = "SUCCEEDED" if code == 0 else "FAILED"
        if code:
            detail["error"] = {"code": 13, "message": f"main: Error (exit code {code})"}
            raise Over(f"task {task} failed")
        return {path.name: path.read_text() for path in outputs.iterdir()}


class _Dag:
    """A pipeline spec, task by task."""

    def __init__(self, spec: Json, pod: Callable[[str, Json], Json], job: str) -> None:
        self._spec, self._pod, self._job = spec, pod, job

    def run(self, component: Json, given: Json) -> Json:
        """A component with its inputs; what its container gave."""
        if "executorLabel" in component:
            container = self._spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
            name = component["executorLabel"].removeprefix("exec-")
            return self._pod(name, json.loads(_filled(json.dumps(container), given)))
        made: dict[str, Json] = {}
        tasks = dict(component["dag"]["tasks"])
        while tasks:
            name = next(name for name, task in tasks.items() if not set(task.get("dependentTasks", ())) & set(tasks))
            task = tasks.pop(name)
            inputs = {key: self._value(one, given, made) for key, one in task["inputs"]["parameters"].items()}
            condition = task.get("triggerPolicy", {}).get("condition", "")
            if not condition or _holds(condition, inputs):
                made[name] = self.run(self._spec["components"][task["componentRef"]["name"]], inputs)
        return {}

    def _value(self, one: Json, given: Json, made: dict[str, Json]) -> str:
        if "componentInputParameter" in one:
            return str(given[one["componentInputParameter"]])
        if "taskOutputParameter" in one:
            return str(
                made[one["taskOutputParameter"]["producerTask"]][one["taskOutputParameter"]["outputParameterKey"]]
            )
        return str(one["runtimeValue"]["constant"]).replace("{{$.pipeline_job_uuid}}", self._job)


def _filled(text: str, given: Json) -> str:
    return re.sub(r"\{\{\$\.inputs\.parameters\['(\w+)'\]\}\}", lambda found: json.dumps(given[found[1]])[1:-1], text)


def _holds(condition: str, inputs: Json) -> bool:
    found = re.fullmatch(r"inputs\.parameter_values\['([^']+)'\] == '(\w+)'", condition)
    assert found, condition
    return bool(inputs[found[1]] == found[2])


def _id() -> str:
    return str(uuid.uuid4())


def _stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
