"""What is compiled for Argo, by what it means: a golden file does not approve itself."""

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

from pipelines.engines.argo import hera, templates
from pipelines.engines.argo.emit import emit, last_stop
from pipelines.engines.flow import Flow, Notice
from pipelines.stages import STAGES
from tests.cluster import strict
from tests.pipelines.engines.argo.compiled import SETTINGS, Json, flow, template_of
from wfm.cluster.lint import lint
from wfm.cluster.names import LABEL_ROLE, LABEL_STAGE
from wfm.cluster.settings import ClusterSettings
from wfm.errors import ConfigError

PIPELINES = ("world_model", "curate", "decoder")


@pytest.fixture(scope="module")
def main_job() -> Flow:
    return flow()


@pytest.fixture(scope="module")
def compiled(main_job: Flow) -> Json:
    return template_of(main_job)


def pods(compiled: Json) -> dict[str, Json]:
    return {one["name"]: one for one in compiled["spec"]["templates"] if "container" in one}


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("profile", ["demo_cluster", "smoke"])
def test_every_object_is_taken_whole_by_an_api_server_and_has_no_fault(pipeline: str, profile: str) -> None:
    objects = [one for several in emit(flow(pipeline, profile), SETTINGS).values() for one in several]
    assert [strict.faults(one) for one in objects] == [[]] * len(objects)
    assert lint(objects, SETTINGS) == []
    assert all("finalizers" not in one["metadata"] for one in objects)


def test_there_is_a_task_for_each_node_with_its_spec_and_the_keys_of_its_inputs(main_job: Flow, compiled: Json) -> None:
    graph = next(one["dag"] for one in compiled["spec"]["templates"] if one["name"] == compiled["spec"]["entrypoint"])
    assert graph["failFast"] is False
    tasks = {one["name"]: one for one in graph["tasks"]}
    assert list(tasks) == ["plan", *(task.name for task in main_job.tasks)]
    names = {task.node: task.name for task in main_job.tasks}
    for task in main_job.tasks:
        made = tasks[task.name]
        assert set(made["depends"].split(" && ")) == {"plan", *(names[node] for node in task.inputs.values())}
        assert made["when"] == f"{{{{tasks.plan.outputs.parameters.make-{task.name}}}}} == true"
        given = {one["name"]: one["value"] for one in made["arguments"]["parameters"]}
        for name, node in task.inputs.items():
            assert given[name] == f"{{{{tasks.plan.outputs.parameters.key-{names[node]}}}}}"
        words = pods(compiled)[task.name]["container"]["command"]
        assert words[words.index("--spec") + 1] == f"{{{{inputs.parameters.specs}}}}/{task.node}.json"
        pairs = {words[place + 1] for place, word in enumerate(words) if word == "--input"}
        assert pairs == {f"{name}={{{{inputs.parameters.{name}}}}}" for name in task.inputs}


def test_what_holds_devices_or_is_several_pods_is_launched_and_nothing_here_holds_or_queues(
    main_job: Flow, compiled: Json
) -> None:
    for task in main_job.tasks:
        template = pods(compiled)[task.name]
        launched = "components.launch_job" in template["container"]["command"]
        assert launched == (STAGES[task.stage].kind != "container" or task.resources.gpu > 0)
        assert template["metadata"]["labels"][LABEL_ROLE] == ("launcher" if launched else "stage")
        assert template["metadata"]["labels"][LABEL_STAGE] == task.stage
        if launched:
            assert template["serviceAccountName"] == "launcher"
            assert template["automountServiceAccountToken"] is True
            assert not {"activeDeadlineSeconds", "timeout"} & set(template), "time in the queue is no run time"
        else:
            assert f"components.{task.component}" in template["container"]["command"]
            assert "automountServiceAccountToken" not in template
            assert template["activeDeadlineSeconds"] >= task.timeout_seconds + SETTINGS.patience.start_seconds
            patched = json.loads(template["podSpecPatch"])
            assert patched["terminationGracePeriodSeconds"] == task.resources.grace_seconds
    text = json.dumps(compiled)
    assert "nvidia.com" not in text
    assert "kueue" not in text
    assert {"launcher", "stage", "planner"} == {
        one["metadata"]["labels"][LABEL_ROLE] for one in pods(compiled).values()
    }


def test_each_pod_has_bounds_tries_and_places_to_write(compiled: Json) -> None:
    for template in pods(compiled).values():
        assert template["pendingTimeout"] == "2400s"
        assert 1 <= int(template["retryStrategy"]["limit"]) <= 20
        assert "retryPolicy" not in template["retryStrategy"]
        container = template["container"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        values = {one["name"]: one.get("value") for one in container["env"]}
        mounted = {one["mountPath"] for one in container["volumeMounts"]}
        assert {values["HOME"], values["WFM_CACHE"], values["TMPDIR"]} <= mounted
        assert container["resources"]["requests"] == container["resources"]["limits"]
    spec = compiled["spec"]
    assert spec["podGC"] == {"strategy": "OnWorkflowSuccess", "deleteDelayDuration": "600s"}
    assert spec["automountServiceAccountToken"] is False
    assert (spec["executor"], spec["serviceAccountName"]) == ({"serviceAccountName": "argoexec"}, "stage")
    assert not {"onExit", "hooks", "archiveLogs", "shutdown", "suspend"} & set(spec)


def test_the_last_stop_is_beyond_every_way_through_the_graph(main_job: Flow, compiled: Json) -> None:
    stop = compiled["spec"]["activeDeadlineSeconds"]
    training = next(task for task in main_job.tasks if task.node == "train_diffusion")
    assert stop > (training.retries + 1) * training.timeout_seconds + 30 * 86400
    longer = dataclasses.replace(training, timeout_seconds=training.timeout_seconds + 1000)
    tasks = tuple(longer if task is training else task for task in main_job.tasks)
    more = last_stop(dataclasses.replace(main_job, tasks=tasks), SETTINGS) - stop
    assert more in (0, (training.retries + 1) * 1000), "the way that is the longest counts"


def test_settings_stand_in_the_pods(main_job: Flow) -> None:
    more = {
        "service_account": "store-reader", "image_pull_secrets": ["registry"], "pod_priority": "curation",
        "node_selector": {"pool": "cpu"}, "tolerations": [{"key": "spot"}], "environment": {"AWS_DEFAULT_REGION": "eu"},
    }  # fmt: skip
    settings = ClusterSettings.parse({**SETTINGS.resolved(), **more})
    made = template_of(main_job, settings)
    assert made["spec"]["serviceAccountName"] == "store-reader"
    assert made["spec"]["executor"] == {"serviceAccountName": "argoexec"}
    assert made["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    for template in pods(made).values():
        assert template["priorityClassName"] == "curation"
        assert template["nodeSelector"] == {"pool": "cpu"}
        assert template["tolerations"] == [{"key": "spot", "operator": "Exists"}]
        assert {"name": "AWS_DEFAULT_REGION", "value": "eu"} in template["container"]["env"]
    assert strict.faults(made) == []
    kept = json.loads(emit(main_job, settings)["settings.yaml"][0]["data"]["cluster.json"])
    assert ClusterSettings.parse(kept) == settings


def test_a_field_that_heras_models_do_not_have_is_an_error_and_not_lost(compiled: Json) -> None:
    assert hera.checked("WorkflowTemplate", compiled) == compiled
    broken = json.loads(json.dumps(compiled))
    broken["spec"]["templates"][1]["pendingTimeouts"] = "1s"
    with pytest.raises(ValueError, match=r"no place for spec\.templates\.1\.pendingTimeouts"):
        hera.checked("WorkflowTemplate", broken)
    broken["spec"]["templates"][1] = {**compiled["spec"]["templates"][1], "activeDeadlineSeconds": ["soon"]}
    with pytest.raises(ValueError, match="activeDeadlineSeconds"):
        hera.checked("WorkflowTemplate", broken)


@pytest.mark.parametrize(
    "more",
    [
        {"environment": {"WFM_STORE": "s3://canary:hunter2@bucket"}},
        {"environment": {"HF_TOKEN": "canary-hunter2"}},
        {"environment": {"WFM_STORE_OPTIONS": '{"key": "canary", "secret": "hunter2"}'}},
    ],
)
def test_a_secret_in_the_settings_is_refused_and_not_shown(main_job: Flow, more: Json) -> None:
    with pytest.raises(ConfigError) as told:
        emit(main_job, ClusterSettings.parse({**SETTINGS.resolved(), **more}))
    assert "hunter2" not in str(told.value)
    assert "literal-secret" in str(told.value)


def test_argoexec_alone_has_a_token_and_may_only_say_what_a_pod_gave(main_job: Flow, compiled: Json) -> None:
    made = {one["kind"]: one for one in emit(main_job, SETTINGS)["argoexec.yaml"]}
    assert made["Role"]["rules"] == [
        {"apiGroups": ["argoproj.io"], "resources": ["workflowtaskresults"], "verbs": ["create", "patch"]}
    ]
    assert made["Secret"]["metadata"]["name"] == "argoexec.service-account-token", "where Argo looks for it"
    assert "data" not in made["Secret"]
    assert "stringData" not in made["Secret"]
    tokens = [one["name"] for one in pods(compiled).values() if one.get("automountServiceAccountToken")]
    assert tokens == [task.name for task in main_job.tasks if task.launched]


def test_who_is_told_at_the_end_is_told_and_no_more(main_job: Flow, tmp_path: Path) -> None:
    """By another's image, which keeps no book; a post that fails, fails no run."""
    image = f"registry.example/curl@sha256:{'d' * 64}"
    objects = emit(dataclasses.replace(main_job, notice=Notice(image, "chat")), SETTINGS)
    (made,) = objects["workflowtemplate.yaml"]
    assert strict.faults(made) == []
    notice = pods(made)[made["spec"]["onExit"]]
    assert notice["container"]["image"] == image
    address = next(one for one in notice["container"]["env"] if one["name"] == "URL")
    assert address["valueFrom"] == {"secretKeyRef": {"name": "chat", "key": "url"}}
    assert "envFrom" not in notice["container"], "the store is none of its business"
    (tmp_path / "curl").write_text('#!/bin/sh\nprintf "%s\\n" "$@" > told\nexit 7\n')
    (tmp_path / "curl").chmod(0o755)
    scope = {"workflow.name": "nightly-1", "workflow.namespace": "wfm", "workflow.status": "Failed"}
    shell, option, script = notice["container"]["command"]
    for name, value in scope.items():
        script = script.replace(f"{{{{{name}}}}}", value)
    place = {"PATH": f"{tmp_path}:/usr/bin:/bin", "URL": "https://chat.example/hook"}
    assert subprocess.run([shell, option, script], env=place, cwd=tmp_path).returncode == 0
    told = (tmp_path / "told").read_text().splitlines()
    assert told[-1] == "https://chat.example/hook"
    assert json.loads(told[told.index("--data") + 1]) == {"text": "run nightly-1 of wfm: Failed"}
    with pytest.raises(ConfigError, match="by its digest"):
        Notice("curl:latest", "chat")
    with pytest.raises(ConfigError, match="whose entry url"):
        Notice(image, "")


def test_names_that_fold_alike_stay_apart(main_job: Flow) -> None:
    assert len({task.name for task in main_job.tasks}) == len(main_job.tasks)
    with pytest.raises(ConfigError, match="at most 52 long"):
        dataclasses.replace(main_job, name="w" * 53)


def test_the_plan_step_is_told_what_was_compiled(main_job: Flow, compiled: Json) -> None:
    words = pods(compiled)[templates.PLAN]["container"]["command"]
    told = words[words.index("--expects") + 1]
    assert told == main_job.expects(SETTINGS)
    larger = [
        dataclasses.replace(task, resources=task.resources.model_copy(update={"cpu": 3})) for task in main_job.tasks
    ]
    moved = {
        task.node
        for task, other in zip(main_job.tasks, larger, strict=True)
        if task.digest(SETTINGS) != other.digest(SETTINGS)
    }
    assert moved == {task.node for task in main_job.tasks if not task.launched}, (
        "what is launched needs what its spec says"
    )
