"""Kubeflow Pipelines by its API (v2beta1): what `wfm submit`, `status`, `cancel`, `suspend`, `resume` and `schedule` ask of it.

A run of ours is KFP's run of that display name in the experiment `EXPERIMENT`; the id that KFP gives is its own. It is made
from the package that `wfm compile` wrote, here (a path) or as it was uploaded (a name). KFP keeps no display name to one
run: of two that are asked for at the same moment both are begun, and are one run of ours all the same (one plan, the same
jobs).

KFP knows no suspend. The run's jobs are held in the queue (`wfm.cluster.holding`), and launchers that KFP begins meanwhile wait
before they make another, since the run is marked as suspended in the store.

*Terminate* ends launchers without a word, so that nobody ends their jobs in order. So a cancel first lets the mark in the store
work, which every launcher heeds, and terminates what has not come to its end by then.

The client is kfp's own for the API (`kfp_server_api`); `kfp.Client` above it knows no time limit, prints, and reads files of
its own in the home. Answers are read as they are.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.engines.connection import Json, Server, ThereAlready, Variables
from pipelines.engines.held_jobs import Jobs
from pipelines.engines.kubeflow.emit import ACCOUNT
from pipelines.engines.remote import Ask, Looked, Recurring, parameters, template_name
from wfm.cluster.fields import list_of, mapping_of, short, text_of
from wfm.cluster.settings import ClusterSettings
from wfm.errors import InputError, MissingPackage, WfmError

if TYPE_CHECKING:
    from pipelines.request import Request

VARIABLES = Variables(
    "KF_PIPELINES_ENDPOINT", "KF_PIPELINES_TOKEN", "KF_PIPELINES_TOKEN_FILE", "KF_PIPELINES_CA_FILE",
    "https://kfp.example/pipeline, or http://localhost:8888 with a forwarded port",
)  # fmt: skip
NAMESPACE = "KF_PIPELINES_NAMESPACE"
"""Where KFP serves several users: whose runs they are."""
EXPERIMENT = "wfm"
PATIENCE_SECONDS = 45.0
"""How long a cancelled run may take to end by itself before it is terminated."""
_PHASES = {
    "PENDING": "pending", "RUNNING": "running", "SUCCEEDED": "done", "SKIPPED": "done", "FAILED": "failed",
    "CANCELING": "running", "CANCELED": "cancelled", "PAUSED": "suspended",
}  # fmt: skip
_OVER = ("done", "failed", "cancelled")
_TOLD, _LOOKED_AT = 3, 100
_ZONE = "times are UTC, unless CRON_SCHEDULE_TIMEZONE of KFP's controller says another zone"


def connect() -> "Kubeflow":
    """As the environment says. Raises ConfigError, MissingPackage."""
    namespace = os.environ.get(NAMESPACE, "")
    settings = ClusterSettings.here()
    jobs = Jobs(namespace or (settings.namespace if settings else "kubeflow"))
    return Kubeflow(Server.here("the API of KFP", VARIABLES), namespace, jobs)


class Kubeflow:
    """KFP's API, and what of it is ours."""

    name = "kubeflow"

    def __init__(self, server: Server, namespace: str, jobs: Jobs, patience: float = PATIENCE_SECONDS) -> None:
        try:
            import kfp_server_api as api
        except ImportError:
            raise MissingPackage("kfp", extra="kfp", purpose="--engine kubeflow") from None
        self.server, self.namespace, self._jobs, self._patience, self._api = server, namespace, jobs, patience, api
        configuration = api.Configuration(host=server.url)
        configuration.retries = False  # neither asked twice nor sent elsewhere
        configuration.ssl_ca_cert = server.ca_file or None
        if server.token:
            configuration.api_key = {"authorization": server.token}
            configuration.api_key_prefix = {"authorization": "Bearer"}
        client = api.ApiClient(configuration)
        self._runs, self._experiments = api.RunServiceApi(client), api.ExperimentServiceApi(client)
        self._pipelines, self._recurring = api.PipelineServiceApi(client), api.RecurringRunServiceApi(client)

    # -- a run

    def submit(self, ask: Ask) -> str:
        """Start a run; returns KFP's id of it. Of a display name that is there, the request must be the same."""
        given = {"run_id": ask.run_id, **parameters(ask)}
        there = self._find(ask.run_id)
        if there is not None:
            _same(there, given, ask.run_id)
            return text_of(there, "run_id")
        experiment = self._experiment() or self._make_experiment()
        body = self._api.V2beta1Run(
            display_name=ask.run_id, experiment_id=experiment, service_account=ACCOUNT,
            description=f"stands for {ask.scheduled_at}" if ask.scheduled_at else "",
            runtime_config=self._api.V2beta1RuntimeConfig(parameters=given), **self._template(ask),
        )  # fmt: skip
        made = self.server.ask(f"submit run {ask.run_id} to KFP", self._runs.run_service_create_run, body)
        return text_of(made, "run_id")

    def look(self, run_id: str) -> Looked:
        """The run's state in our words, and what failed."""
        found = self._find(run_id)
        if found is None:
            return Looked(
                "unknown", f"KFP has no run {run_id} in the experiment {EXPERIMENT!r}: it was never submitted there"
            )
        return looked(found, f"{self.server.url}/#/runs/details/{text_of(found, 'run_id')}")

    def cancel(self, run_id: str) -> str:
        """Let it come to its end by the mark in the store, else terminate it."""
        end = time.monotonic() + self._patience
        while True:
            found = self._find(run_id)
            if found is None:
                return f"KFP has no run {run_id} (any more): nothing is to be stopped there"
            phase = looked(found).phase
            if phase in _OVER:
                return f"KFP's run {run_id} is over ({phase})"
            if phase == "pending" or time.monotonic() >= end:
                break
            time.sleep(min(1.0, self._patience / 10))
        name = text_of(found, "run_id")
        try:
            self.server.ask(f"terminate {run_id}", self._runs.run_service_terminate_run, name)
        except WfmError:
            if self.look(run_id).phase not in _OVER:  # it ended meanwhile, which KFP calls a fault
                raise
        if phase == "pending":
            return f"KFP terminates {run_id}, of which nothing had begun"
        return (
            f"KFP terminates {run_id}, which did not end by itself in {self._patience:.0f} s; what its jobs still run stops "
            "itself within two minutes"
        )

    def suspend(self, run_id: str) -> str:
        """Hold its jobs; what KFP begins meanwhile waits."""
        self._unfinished(run_id)
        return (
            f"KFP knows no suspend: launchers of {run_id} that it still begins wait before they make a job; "
            f"{self._jobs.hold(run_id)}"
        )

    def resume(self, run_id: str) -> str:
        """Let its jobs go on."""
        self._unfinished(run_id)
        return f"{self._jobs.let_go(run_id)}; launchers of {run_id} go on"

    # -- by the clock

    def recurring(self) -> list[Recurring]:
        """All recurring runs (of the namespace)."""
        newest = list(self._list("runs", self._runs.run_service_list_runs, sort_by="created_at desc", most=_LOOKED_AT))
        found = self._list("recurringRuns", self._recurring.recurring_run_service_list_recurring_runs)
        return sorted((_recurring(one, newest) for one in found), key=lambda one: one.name)

    def pause(self, name: str, *, paused: bool) -> str:
        """Disable a recurring run, or enable it."""
        found = list(self._list("recurringRuns", self._recurring.recurring_run_service_list_recurring_runs))
        ids = [text_of(one, "recurring_run_id") for one in found if text_of(one, "display_name") == name]
        if not ids:
            choices = ", ".join(sorted(text_of(one, "display_name") for one in found)) or "none"
            raise InputError(f"KFP has no recurring run {name!r}. There are: {choices}")
        api = self._recurring
        call = (
            api.recurring_run_service_disable_recurring_run
            if paused
            else api.recurring_run_service_enable_recurring_run
        )
        for one in ids:
            self.server.ask(f"{'disable' if paused else 'enable'} {name}", call, one)
        return (
            f"{name} starts no more runs; those that run go on" if paused else f"{name} starts runs at its times again"
        )

    # -- requests

    def _list(self, field: str, call: Any, *, most: int = 10_000, **more: Any) -> Iterator[Mapping[str, Any]]:
        """What a list has, page by page."""
        token, told = "", 0
        where = {"namespace": self.namespace} if self.namespace else {}
        while told < most:
            given = {**where, **more, **({"page_token": token} if token else {})}
            answer = self.server.ask(f"list {field}", call, page_size=min(most, 100), **given)
            page = [one for one in list_of(answer, field) if isinstance(one, Mapping)]
            yield from page
            told += len(page)
            token = text_of(answer, "next_page_token")
            if not token or not page:
                return

    def _named(self, field: str, call: Any, name: str, **more: Any) -> Mapping[str, Any] | None:
        """The newest of a display name."""
        predicate = {"operation": "EQUALS", "key": "display_name", "string_value": name}
        asked = {"filter": json.dumps({"predicates": [predicate]}), "sort_by": "created_at desc", **more}
        found = (one for one in self._list(field, call, **asked) if text_of(one, "display_name") == name)
        return next(found, None)

    def _find(self, run_id: str) -> Json | None:
        experiment = self._experiment()
        if not experiment:
            return None
        found = self._named("runs", self._runs.run_service_list_runs, run_id, experiment_id=experiment)
        return dict(found) if found is not None else None

    def _experiment(self) -> str:
        """Id of ours; empty before the first run."""
        found = self._named("experiments", self._experiments.experiment_service_list_experiments, EXPERIMENT)
        return text_of(found, "experiment_id") if found is not None else ""

    def _make_experiment(self) -> str:
        body = self._api.V2beta1Experiment(display_name=EXPERIMENT, namespace=self.namespace or None)
        call = self._experiments.experiment_service_create_experiment
        try:
            return text_of(self.server.ask(f"make the experiment {EXPERIMENT}", call, body), "experiment_id")
        except ThereAlready:  # by another at this moment
            return self._experiment()

    def _unfinished(self, run_id: str) -> None:
        """Raises InputError where there is none, or it is over."""
        now = self.look(run_id)
        if now.phase == "unknown":
            raise InputError(now.words)
        if now.phase in _OVER:
            raise InputError(
                f"KFP's run {run_id} is over ({now.phase}): `wfm rerun {run_id}` submits what is missing anew"
            )

    def _template(self, ask: Ask) -> Json:
        """What a run is made from: a package of this machine, or one that was uploaded. Raises InputError where there is
        none, or it is of another pipeline."""
        request = ask.request
        named = ask.template or template_name(request)
        if "/" in named or named.endswith((".yaml", ".yml")):
            package = read_package(named)
            _check(package["pipeline_spec"], request, named)
            return {"pipeline_spec": package}
        made = f"`wfm compile {request.pipeline} --engine kubeflow --profile {request.profile} -o kubeflow`"
        pipeline = self._named("pipelines", self._pipelines.pipeline_service_list_pipelines, named)
        if pipeline is None:
            raise InputError(
                f"KFP has no pipeline {named!r}: {made}, apply its settings.yaml, and name the file (--template "
                f"kubeflow/pipeline.yaml), or upload it once: `kfp pipeline create -p {named} kubeflow/pipeline.yaml`"
            )
        name = text_of(pipeline, "pipeline_id")
        call = self._pipelines.pipeline_service_list_pipeline_versions
        answer = self.server.ask(f"look at pipeline {named}", call, name, sort_by="created_at desc", page_size=1)
        versions = [one for one in list_of(answer, "pipeline_versions") if isinstance(one, Mapping)]
        if not versions:
            raise InputError(f"KFP's pipeline {named} has no version: {made}, and upload kubeflow/pipeline.yaml as one")
        spec = mapping_of(versions[0], "pipeline_spec")
        _check(mapping_of(spec, "pipeline_spec") or spec, request, named)
        version = self._api.V2beta1PipelineVersionReference(
            pipeline_id=name, pipeline_version_id=text_of(versions[0], "pipeline_version_id")
        )
        return {"pipeline_version_reference": version}


# -- what is asked


def read_package(named: str) -> Json:
    """The package of a file, or of a folder with ``pipeline.yaml`` in it. Raises InputError."""
    import yaml

    path = Path(named)
    path = path / "pipeline.yaml" if path.is_dir() else path
    try:
        documents = list(yaml.safe_load_all(path.read_text()))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise InputError(f"--template {named!r} cannot be read: {short(str(error))}") from None
    if len(documents) != 2 or not all(isinstance(one, dict) for one in documents):
        raise InputError(
            f"--template {named!r} is no package of `wfm compile --engine kubeflow`: give its pipeline.yaml"
        )
    return {"pipeline_spec": documents[0], "platform_spec": documents[1]}


def _check(spec: Mapping[str, Any], request: "Request", named: str) -> None:
    """Raises InputError where a template is of another pipeline or profile, by the command of its plan step."""
    executors = mapping_of(mapping_of(spec, "deploymentSpec"), "executors")
    words = list_of(mapping_of(mapping_of(executors, "exec-plan"), "container"), "args")
    for option, asked in (("--pipeline", request.pipeline), ("--profile", request.profile)):
        there = words[words.index(option) + 1] if option in words[:-1] else ""
        if there != asked:
            raise InputError(
                f"the template {named} was compiled with {option} {there or '(none: it is not ours)'}, asked for is "
                f"{asked}: name the template of it, or compile one"
            )


def _same(found: Mapping[str, Any], given: Mapping[str, str], run_id: str) -> None:
    """Raises InputError where a run was asked for something else."""
    there = mapping_of(mapping_of(found, "runtime_config"), "parameters")
    for name in sorted({*there, *given}):
        if (there.get(name) or "") != given.get(name, ""):
            raise InputError(
                f"KFP's run {run_id} is there already, and something else was asked of it: its {name} is "
                f"{there.get(name, '')!r:.200}, now it is {given.get(name, '')!r:.200}. Give another run id, or ask for "
                "the same"
            )


# -- what a run looks like


def looked(found: Mapping[str, Any], address: str = "") -> Looked:
    """A run of KFP in our words."""
    state = text_of(found, "state")
    phase = _PHASES.get(state, "pending")
    if state == "CANCELING":
        return Looked(phase, "stopping", address)
    words = ""
    if phase == "failed":
        details = list_of(mapping_of(found, "run_details"), "task_details")
        failed = [one for one in details if isinstance(one, Mapping) and one.get("state") == "FAILED"]
        told = [
            f"{text_of(one, 'display_name')}: {short(mapping_of(one, 'error').get('message')) or 'no reason given'}"
            for one in failed[:_TOLD]
        ]
        words = "; ".join(told) or short(mapping_of(found, "error").get("message")) or "KFP gives no reason"
    elif phase == "pending":
        words = short(mapping_of(found, "error").get("message")) or "KFP has yet to begin it"
    return Looked(phase, words, address)


def _recurring(found: Mapping[str, Any], newest: list[Mapping[str, Any]]) -> Recurring:
    line = text_of(mapping_of(mapping_of(found, "trigger"), "cron_schedule"), "cron")
    spec = mapping_of(found, "pipeline_spec")
    info = mapping_of(mapping_of(spec, "pipeline_spec") or spec, "pipelineInfo")
    last = next((one for one in newest if one.get("recurring_run_id") == found.get("recurring_run_id")), {})
    return Recurring(
        name=text_of(found, "display_name"),
        template=text_of(info, "name") or text_of(mapping_of(found, "pipeline_version_reference"), "pipeline_id"),
        lines=(re.sub(r"^0 (?=\S+( \S+){4}$)", "", line),) if line else (),
        zone="UTC",
        suspended=text_of(found, "status") == "DISABLED",
        last=text_of(last, "scheduled_at") or text_of(last, "created_at"),
        words="; ".join(filter(None, (short(mapping_of(found, "error").get("message")), _ZONE))),
    )
