"""Argo by its server's REST calls: what `wfm submit`, `status`, `cancel`, `suspend`, `resume` and `schedule` ask of it.

A run is the workflow of its name, made from the WorkflowTemplate that `wfm compile` wrote; what a request leaves open is what
the template was compiled with. Argo's *suspend* begins no new pod and leaves running ones alone, launchers and their jobs too:
the jobs are held in the queue beside it (`wfm.cluster.holding`), where this machine may reach the cluster's API. While a
workflow is suspended Argo looks at nothing else (argo-workflows #17041: neither *stop* nor *terminate* has an effect), so a
cancel first says *stop*, and then takes the suspension back: nothing can begin in between.

Answers are read as they are, not by the client's models, which refuse what a server of another version adds.
"""

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.engines.argo.seen import OVER, looked, recurring, template_of
from pipelines.engines.connection import Json, NotThere, Server, ThereAlready, Variables
from pipelines.engines.held_jobs import Jobs
from pipelines.engines.remote import Ask, Looked, Recurring, parameters, template_name
from wfm.cluster.fields import list_of, mapping_of, text_of
from wfm.cluster.names import LABEL_RUN, LONGEST, PREFIX, label_value, node_name
from wfm.cluster.settings import ClusterSettings
from wfm.errors import InputError, MissingPackage, TryAgain, WfmError

if TYPE_CHECKING:
    from pipelines.request import Request

VARIABLES = Variables("ARGO_SERVER", "ARGO_TOKEN", "ARGO_TOKEN_FILE", "ARGO_CA_FILE", "https://argo.example:2746")
NAMESPACE = "ARGO_NAMESPACE"
ANNOTATION_RUN, ANNOTATION_SCHEDULED = f"{PREFIX}run-id", f"{PREFIX}scheduled-at"
_DNS = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_COMPLETED = ("cannot shutdown a completed workflow", "cannot suspend completed workflows")


def connect() -> "Argo":
    """As the environment says. Raises ConfigError, MissingPackage."""
    return Argo(Server.here("Argo's server", VARIABLES), namespace())


def namespace() -> str:
    """``ARGO_NAMESPACE``, else that of the cluster's settings. Raises ConfigError where neither is there."""
    found = os.environ.get(NAMESPACE, "")
    if found and not (len(found) <= LONGEST and _DNS.fullmatch(found)):
        raise InputError(f"{NAMESPACE}={found!r} is no name of a namespace: give one of a-z, 0-9 and -")
    return found or ClusterSettings.read().namespace


class Argo:
    """Argo's server, and one namespace of it."""

    name = "argo"

    def __init__(self, server: Server, namespace: str, jobs: Jobs | None = None) -> None:
        try:
            import argo_workflows
            from argo_workflows.api import cron_workflow_service_api as crons
            from argo_workflows.api import workflow_service_api as workflows
            from argo_workflows.api import workflow_template_service_api as templates
        except ImportError:
            raise MissingPackage("argo-workflows", extra="argo", purpose="--engine argo") from None
        self.server, self.namespace, self._jobs = server, namespace, jobs or Jobs(namespace)
        configuration = argo_workflows.Configuration(host=server.url, ssl_ca_cert=server.ca_file or None)
        configuration.retries = False  # neither asked twice nor sent elsewhere
        if server.token:
            configuration.api_key = {"BearerToken": f"Bearer {server.token}"}
        client = argo_workflows.ApiClient(configuration)
        self._workflows = workflows.WorkflowServiceApi(client)
        self._templates = templates.WorkflowTemplateServiceApi(client)
        self._crons = crons.CronWorkflowServiceApi(client)

    # -- a run

    def submit(self, ask: Ask) -> str:
        """Start a run from its template; returns the workflow's name. Of a name that is there, the request must be the same."""
        from argo_workflows.model.io_argoproj_workflow_v1alpha1_submit_opts import (
            IoArgoprojWorkflowV1alpha1SubmitOpts as Options,
        )
        from argo_workflows.model.io_argoproj_workflow_v1alpha1_workflow_submit_request import (
            IoArgoprojWorkflowV1alpha1WorkflowSubmitRequest as Submit,
        )

        name, template = workflow_name(ask.run_id), ask.template or template_name(ask.request)
        self._check(template, ask.request)
        given = {"run-id": ask.run_id, **parameters(ask)}
        notes = {ANNOTATION_RUN: ask.run_id}
        if ask.scheduled_at:
            notes[ANNOTATION_SCHEDULED] = ask.scheduled_at
        options = Options(
            name=name, parameters=[f"{key}={value}" for key, value in given.items()],
            labels=f"{LABEL_RUN}={label_value(ask.run_id)}",
            annotations=",".join(f"{key}={value}" for key, value in notes.items()),
        )  # fmt: skip
        body = Submit(
            namespace=self.namespace,
            resource_kind="WorkflowTemplate",
            resource_name=template,
            submit_options=options,
        )
        try:
            self.server.ask(f"submit run {ask.run_id} to Argo", self._workflows.submit_workflow, self.namespace, body)
        except ThereAlready:
            _same(self._get(name), template, given, ask.run_id)
        return name

    def look(self, run_id: str) -> Looked:
        """The workflow's phase in our words, and why it waits or failed."""
        name = workflow_name(run_id)
        try:
            return looked(self._get(name), f"{self.server.url}/workflows/{self.namespace}/{name}")
        except NotThere:
            return Looked(
                "unknown",
                f"Argo has no workflow {name} in {self.namespace}: it was never submitted there, or its time is over",
            )

    def cancel(self, run_id: str) -> str:
        """Say stop, then take a suspension back, which would keep it from ending."""
        from argo_workflows.model.io_argoproj_workflow_v1alpha1_workflow_stop_request import (
            IoArgoprojWorkflowV1alpha1WorkflowStopRequest as Stop,
        )

        name = workflow_name(run_id)
        try:
            found = self._get(name)
        except NotThere:
            return f"Argo has no workflow {name} in {self.namespace} (any more): nothing is to be stopped there"
        if (phase := looked(found).phase) in OVER:
            return f"Argo's workflow {name} is over ({phase})"
        body = Stop(name=name, namespace=self.namespace, message=f"run {run_id} was cancelled")
        if not self._still(f"stop {name}", self._workflows.stop_workflow, name, body):
            return f"Argo's workflow {name} ended by itself meanwhile"
        if mapping_of(found, "spec").get("suspend") is not True:
            return f"Argo stops {name}: its launchers end their jobs, and what runs at its end still does"
        self._resume(name)
        if mapping_of(self._get(name), "spec").get("suspend") is True:
            raise TryAgain(f"{name} is stopped, but suspended again by somebody, so it does not end: ask once more")
        return f"Argo stops {name}, which was suspended: the suspension is taken back, so that it comes to its end"

    def suspend(self, run_id: str) -> str:
        """Begin no further pod; and hold its jobs in the queue."""
        from argo_workflows.model.io_argoproj_workflow_v1alpha1_workflow_suspend_request import (
            IoArgoprojWorkflowV1alpha1WorkflowSuspendRequest as Suspend,
        )

        name = self._unfinished(run_id)
        body = Suspend(name=name, namespace=self.namespace)
        if not self._still(f"suspend {name}", self._workflows.suspend_workflow, name, body):
            raise InputError(f"Argo's workflow {name} ended meanwhile: there is nothing to suspend")
        return f"Argo begins no further pod of {name}, and pods of its own run on; {self._jobs.hold(run_id)}"

    def resume(self, run_id: str) -> str:
        """Let its jobs go on, and then the workflow."""
        name = self._unfinished(run_id)
        said = self._jobs.let_go(run_id)
        self._resume(name)
        return f"{said}; Argo goes on with {name}"

    # -- by the clock

    def recurring(self) -> list[Recurring]:
        """The namespace's CronWorkflows that start a template."""
        answer = self.server.ask("list CronWorkflows", self._crons.list_cron_workflows, self.namespace)
        found = [one for one in list_of(answer, "items") if isinstance(one, Mapping)]
        return sorted((recurring(one) for one in found if template_of(one)), key=lambda one: one.name)

    def pause(self, name: str, *, paused: bool) -> str:
        """Suspend a CronWorkflow, or resume it."""
        from argo_workflows.model.io_argoproj_workflow_v1alpha1_cron_workflow_resume_request import (
            IoArgoprojWorkflowV1alpha1CronWorkflowResumeRequest as Resume,
        )
        from argo_workflows.model.io_argoproj_workflow_v1alpha1_cron_workflow_suspend_request import (
            IoArgoprojWorkflowV1alpha1CronWorkflowSuspendRequest as Suspend,
        )

        call = self._crons.suspend_cron_workflow if paused else self._crons.resume_cron_workflow
        body = (Suspend if paused else Resume)(name=name, namespace=self.namespace)
        try:
            self.server.ask(
                f"{'suspend' if paused else 'resume'} CronWorkflow {name}", call, self.namespace, name, body
            )
        except NotThere:
            choices = ", ".join(one.name for one in self.recurring()) or "none"
            raise InputError(f"Argo has no CronWorkflow {name!r} in {self.namespace}. There are: {choices}") from None
        if paused:
            return f"{name} starts no more workflows; those that run go on"
        return f"{name} starts workflows at its times again"

    # -- requests

    def _get(self, name: str) -> Json:
        return self.server.ask(f"look at workflow {name}", self._workflows.get_workflow, self.namespace, name)

    def _still(self, doing: str, call: Any, name: str, body: Any) -> bool:
        """Ask for a change; False where the workflow is over."""
        try:
            self.server.ask(doing, call, self.namespace, name, body)
        except NotThere:
            return False
        except WfmError as error:
            if any(words in str(error) for words in _COMPLETED):
                return False
            raise
        return True

    def _resume(self, name: str) -> None:
        from argo_workflows.model.io_argoproj_workflow_v1alpha1_workflow_resume_request import (
            IoArgoprojWorkflowV1alpha1WorkflowResumeRequest as Resume,
        )

        body = Resume(name=name, namespace=self.namespace)
        self.server.ask(f"resume {name}", self._workflows.resume_workflow, self.namespace, name, body)

    def _unfinished(self, run_id: str) -> str:
        """The workflow's name. Raises InputError where there is none, or it is over."""
        name, now = workflow_name(run_id), self.look(run_id)
        if now.phase == "unknown":
            raise InputError(now.words)
        if now.phase in OVER:
            raise InputError(
                f"Argo's workflow {name} is over ({now.phase}): `wfm rerun {run_id}` submits what is missing anew"
            )
        return name

    def _check(self, template: str, request: "Request") -> None:
        """Raises InputError where the template is not there, or is of another pipeline."""
        try:
            found = self.server.ask(
                f"look at template {template}", self._templates.get_workflow_template, self.namespace, template
            )
        except NotThere:
            raise InputError(
                f"Argo has no WorkflowTemplate {template!r} in {self.namespace}: `wfm compile {request.pipeline} --engine argo "
                f"--profile {request.profile} -o argo`, then `kubectl -n {self.namespace} apply -f argo`, or name another"
            ) from None
        words = _plan_command(found)
        for option, asked in (("--pipeline", request.pipeline), ("--profile", request.profile)):
            there = words[words.index(option) + 1] if option in words[:-1] else ""
            if there != asked:
                raise InputError(
                    f"the WorkflowTemplate {template} was compiled with {option} {there or '(none: it is not ours)'}, asked "
                    f"for is {asked}: name the template of it, or compile one"
                )


# -- names and parameters


def workflow_name(run_id: str) -> str:
    """The run's id itself where it is a name of Kubernetes (with small letters for capitals), else one that stands for it."""
    name = run_id.lower()
    return name if len(name) <= LONGEST and _DNS.fullmatch(name) else node_name(run_id)


def _same(found: Json, template: str, given: Mapping[str, str], run_id: str) -> None:
    """Raises InputError where a workflow was asked for something else."""
    spec = mapping_of(found, "spec")
    there = {
        text_of(one, "name"): text_of(one, "value")
        for one in list_of(mapping_of(spec, "arguments"), "parameters")
        if isinstance(one, Mapping)
    }
    asked = {"template": template, **given}
    there["template"] = text_of(mapping_of(spec, "workflowTemplateRef"), "name")
    for name in sorted({*there, *asked}):
        if there.get(name, "") != asked.get(name, ""):
            raise InputError(
                f"Argo's workflow {mapping_of(found, 'metadata').get('name')} is there already, and something else was asked "
                f"of it: its {name} is {there.get(name, '')!r:.200}, that of run {run_id} is {asked.get(name, '')!r:.200}. "
                "Give another run id, or ask for the same"
            )


def _plan_command(template: Json) -> list[str]:
    """The command of a template's plan step; empty where it has none."""
    from pipelines.engines.argo.templates import PLAN

    for one in list_of(mapping_of(template, "spec"), "templates"):
        if isinstance(one, Mapping) and one.get("name") == PLAN:
            return [str(word) for word in list_of(mapping_of(one, "container"), "command")]
    return []
