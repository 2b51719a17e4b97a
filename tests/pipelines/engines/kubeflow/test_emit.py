"""Templates for Kubeflow Pipelines, read back by KFP's own protos: what they hold is asserted on the parsed objects."""

import copy
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.struct_pb2 import Struct
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec.pipeline_spec_pb2 import (
    ComponentSpec,
    ParameterType,
    PipelineDeploymentConfig,
    PipelineSpec,
    PlatformSpec,
)

from pipelines.commands.compile import in_yaml
from pipelines.engines.flow import Flow, Times, tasks_of
from pipelines.engines.kubeflow.emit import _lines, emit
from pipelines.engines.kubeflow.template import PLAN_SECONDS
from pipelines.plan import shape
from wfm.artifacts import Store
from wfm.cluster.settings import ClusterSettings
from wfm.errors import ConfigError, MissingPackage

CONTROL = "registry.example/wfm-control@sha256:" + "c" * 64
SETTINGS = ClusterSettings.parse(
    {
        "images": {
            "curation": "registry.example/wfm-curation@sha256:" + "a" * 64,
            "training": "registry.example/wfm-training@sha256:" + "b" * 64,
            "control": CONTROL,
        },
        "queue": "research", "secrets": ["wfm-store"], "image_pull_secrets": ["registry"],
        "environment": {"AWS_DEFAULT_REGION": "eu-central-1"}, "node_selector": {"pool": "cpu"},
        "tolerations": [{"key": "spot", "effect": "NoSchedule"}],
        "gpu_tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
    }
)  # fmt: skip
CANARY = "canary-5f3e9a"


def flow_of(folder: Path, pipeline: str = "world_model", **given: Any) -> Flow:
    store = Store.open(folder, {"fsync": False})
    asked = {name: given[name] for name in ("videos", "dataset", "overrides") if name in given}
    plan = shape(pipeline, profile="demo_cluster", store=store, **asked)
    name = f"{pipeline}-demo-cluster".replace("_", "-")
    return Flow(name, pipeline, "demo_cluster", tasks_of(plan.nodes), store="s3://bucket/store", **given)


@dataclass
class Package:
    """A template as KFP's back end reads it."""

    pipeline: PipelineSpec
    containers: Mapping[str, Any]
    "Executor -> its container."
    kubernetes: Mapping[str, KubernetesExecutorConfig]

    @classmethod
    def parse(cls, documents: list[dict[str, Any]]) -> "Package":
        """Strictly: what no proto knows is an error, in the free-form parts, too."""
        first, second = documents
        pipeline, platform = ParseDict(first, PipelineSpec()), ParseDict(second, PlatformSpec())
        assert list(platform.platforms) == ["kubernetes"]
        config = ParseDict(plain(pipeline.deployment_spec), PipelineDeploymentConfig())
        executors = platform.platforms["kubernetes"].deployment_spec.executors
        return cls(
            pipeline,
            {name: executor.container for name, executor in config.executors.items()},
            {name: ParseDict(plain(value), KubernetesExecutorConfig()) for name, value in executors.items()},
        )

    def component(self, task: Any) -> ComponentSpec:
        return self.pipeline.components[task.component_ref.name]

    def executor(self, task: Any) -> str:
        return str(self.component(task).executor_label)

    def stages(self) -> Mapping[str, Any]:
        """Task of each node, beneath the condition on whether anything is missing."""
        (condition,) = self.component(self.pipeline.root.dag.tasks["stages"]).dag.tasks.values()
        assert condition.trigger_policy.condition == "inputs.parameter_values['pipelinechannel--anything'] == 'true'"
        return self.component(condition).dag.tasks

    def launcher(self, node: Any) -> Any:
        """The one task of a node, beneath the condition on whether it has to run."""
        (condition,) = self.component(node).dag.tasks.values()
        assert condition.trigger_policy.condition == "inputs.parameter_values['pipelinechannel--to_make'] == 'true'"
        (launcher,) = self.component(condition).dag.tasks.values()
        return launcher

    def tasks(self) -> Iterator[Any]:
        """Every task at any depth."""
        yield from self.pipeline.root.dag.tasks.values()
        for component in self.pipeline.components.values():
            yield from component.dag.tasks.values()


def plain(struct: Struct) -> dict[str, Any]:
    from google.protobuf.json_format import MessageToDict

    found: dict[str, Any] = MessageToDict(struct)
    return found


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Flow:
    return flow_of(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def documents(flow: Flow) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(in_yaml(emit(flow, SETTINGS)["pipeline.yaml"])))


@pytest.fixture(scope="module")
def package(documents: list[dict[str, Any]]) -> Package:
    return Package.parse(documents)


def test_its_own_protos_read_it_and_refuse_a_misspelt_field_anywhere(documents: list[dict[str, Any]]) -> None:
    Package.parse(documents)
    for path in (
        (0, "components", "comp-stages", "dag", "task"),
        (0, "deploymentSpec", "executors", "exec-plan", "container", "images"),
        (1, "platforms", "kubernetes", "deploymentSpec", "executors", "exec-plan", "nodeselector"),
    ):
        broken = copy.deepcopy(documents)
        where: Any = broken
        for step in path[:-1]:
            where = where[step]
        where[path[-1]] = {}
        with pytest.raises(ParseError, match=str(path[-1])):
            Package.parse(broken)


def test_it_has_every_node_after_those_it_needs(package: Package, flow: Flow) -> None:
    named = {task.task_info.name: (name, task) for name, task in package.stages().items()}
    assert set(named) == {task.node for task in flow.tasks}
    for one in flow.tasks:
        _, task = named[one.node]
        assert set(task.dependent_tasks) == {named[of][0] for of in one.inputs.values()}, one.node
    assert list(package.pipeline.root.dag.tasks["stages"].dependent_tasks) == ["plan"]


def test_a_task_is_the_launcher_with_the_plans_keys(package: Package, flow: Flow) -> None:
    of_node = {task.task_info.name: task for task in package.stages().values()}
    told = package.pipeline.root.dag.tasks["stages"].inputs.parameters
    for one in flow.tasks:
        words = list(package.containers[package.executor(package.launcher(of_node[one.node]))].args)
        assert words[:4] == ["--", "python", "-m", "components.launch_job"]
        assert words[words.index("--spec") + 1] == f"{{{{$.inputs.parameters['specs']}}}}/{one.node}.json"
        given = {words[at + 1] for at, word in enumerate(words) if word == "--input"}
        assert given == {f"{name}={{{{$.inputs.parameters['key_{of}']}}}}" for name, of in one.inputs.items()}
        assert {f"make_{one.node}", *(f"key_{of}" for of in one.inputs.values())} <= set(told)
    assert {one.task_output_parameter.producer_task for one in told.values()} == {"plan"}
    assert all(one.task_output_parameter.output_parameter_key == name for name, one in told.items())


def test_the_plan_step_says_what_the_others_read(package: Package, flow: Flow) -> None:
    plan = package.pipeline.root.dag.tasks["plan"]
    container, outputs = package.containers["exec-plan"], package.component(plan).output_definitions.parameters
    words = list(container.args)
    own = words[words.index("--") + 1 :]
    assert own[:3] == ["python", "-m", "pipelines.plan_step"]
    assert own[own.index("--expects") + 1] == flow.expects(SETTINGS)
    taken = {words[at + 2]: words[at + 1] for at, word in enumerate(words) if word == "--take"}
    assert set(taken) == {f"{{{{$.outputs.parameters['{name}'].output_file}}}}" for name in outputs}
    assert plan.inputs.parameters["job"].runtime_value.constant.string_value == "{{$.pipeline_job_uuid}}"
    assert words[words.index("--either") + 1 :][:3] == [
        "run-id",
        "{{$.inputs.parameters['run_id']}}",
        "{{$.inputs.parameters['job']}}",
    ]


def caches_retries_and_deadlines(package: Package) -> None:
    """They are ours."""
    assert len(list(package.tasks())) > 60
    for task in package.tasks():
        assert not task.caching_options.enable_cache
        assert task.HasField("caching_options") or task.trigger_policy.condition, "off, not left out"
        assert not task.HasField("retry_policy"), "it would retry wrong input"
    deadlines = {name: config.active_deadline_seconds for name, config in package.kubernetes.items()}
    assert deadlines.pop("exec-plan") == PLAN_SECONDS
    assert set(deadlines.values()) == {0}, "time in a queue counts for none"


def test_what_runs_by_parameters_has_their_types(package: Package) -> None:
    inputs = package.pipeline.root.input_definitions.parameters
    assert {name: one.parameter_type for name, one in inputs.items()} == dict.fromkeys(
        ("run_id", "store", "videos", "dataset", "overrides", "redo", "name", "promote"), ParameterType.STRING
    )
    assert inputs["store"].default_value.string_value == "s3://bucket/store"
    assert inputs["run_id"].default_value.string_value == "", "then it is the job's own id"


def pods(package: Package) -> None:
    """Each is one small nobody of the control image."""
    assert set(package.containers) == set(package.kubernetes)
    for name, container in package.containers.items():
        config = package.kubernetes[name]
        assert container.image == CONTROL
        assert (container.resources.resource_cpu_limit, container.resources.resource_memory_limit) == ("500m", "2Gi")
        assert not container.resources.HasField("accelerator")
        security = config.security_context
        assert (security.run_as_user, security.run_as_group, security.run_as_non_root) == (1000, 1000, True)
        assert [(one.secret_name, one.mount_path) for one in config.secret_as_volume] == [
            ("wfm-store", "/etc/wfm/secrets/wfm-store")
        ]
        assert [one.secret_name for one in config.image_pull_secret] == ["registry"]
        assert [(one.config_map_name, one.mount_path) for one in config.config_map_as_volume] == [
            ("world-model-demo-cluster", "/etc/wfm/cluster")
        ]
        assert dict(config.node_selector.labels) == {"pool": "cpu"}
        assert [one.key for one in config.tolerations] == ["spot"], "it holds no device"
        assert all(one.size_limit for one in config.empty_dir_mounts)
        assert not any(label.startswith("kueue") for label in config.pod_metadata.labels), "its job waits, not itself"
    labels = {dict(config.pod_metadata.labels).get("wfm.dev/node") for config in package.kubernetes.values()}
    assert {"train_diffusion", "write_report"} < labels


def test_caches_retries_deadlines_and_pods_are_as_they_must_be(package: Package) -> None:
    caches_retries_and_deadlines(package)
    pods(package)


EXECUTORS = ("deploymentSpec", "executors")
LAUNCH = "exec-launch-train-diffusion"


@pytest.mark.parametrize(
    ("path", "value", "check"),
    [
        ((0, "root", "dag", "tasks", "plan", "cachingOptions"), {"enableCache": True}, caches_retries_and_deadlines),
        ((0, "root", "dag", "tasks", "plan", "retryPolicy"), {"maxRetryCount": 3}, caches_retries_and_deadlines),
        (
            (1, "platforms", "kubernetes", *EXECUTORS, LAUNCH, "activeDeadlineSeconds"),
            "3600",
            caches_retries_and_deadlines,
        ),
        ((0, *EXECUTORS, LAUNCH, "container", "image"), "registry.example/wfm-control:latest", pods),
        ((1, "platforms", "kubernetes", *EXECUTORS, LAUNCH, "securityContext"), {"runAsUser": "0"}, pods),
        (
            (1, "platforms", "kubernetes", *EXECUTORS, LAUNCH, "podMetadata", "labels", "kueue.x-k8s.io/queue-name"),
            "research",
            pods,
        ),
    ],
)
def test_another_template_is_seen_to_be_another(
    path: tuple[Any, ...], value: Any, check: Callable[[Package], None], documents: list[dict[str, Any]]
) -> None:
    broken = copy.deepcopy(documents)
    where: Any = broken
    for step in path[:-1]:
        where = where[step]
    where[path[-1]] = value
    with pytest.raises(AssertionError):
        check(Package.parse(broken))


def test_what_it_cannot_be_made_without_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = Flow("empty", "curate", "demo_cluster", ())
    with pytest.raises(ConfigError, match=r"images\.control is not set"):
        emit(flow, ClusterSettings())
    monkeypatch.setitem(sys.modules, "kfp", None)
    with pytest.raises(MissingPackage, match=r"pip install 'wfm\[kfp\]'"):
        emit(flow, SETTINGS)


def test_a_run_by_the_clock_is_what_kfps_api_takes(tmp_path: Path) -> None:
    import kfp_server_api as api

    made = emit(flow_of(tmp_path, "curate", times=Times(("0 12 * * 1-5", "0 15 * * 1-5"), "Etc/UTC")), SETTINGS)
    assert [name for name in made if "recurring" in name] == ["recurringrun-1.yaml"], "one, so one run at a time"
    run = api.V2beta1RecurringRun(
        **yaml.safe_load(in_yaml(made["recurringrun-1.yaml"]))
    )  # of another field it knows nothing
    trigger = api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(**run.trigger["cron_schedule"]))
    assert trigger.cron_schedule.cron == "0 0 12,15 * * 1-5", "seconds first"
    assert (run.max_concurrency, run.no_catchup, run.mode) == ("1", True, api.RecurringRunMode.ENABLE)
    assert run.service_account == "launcher"
    Package.parse([run.pipeline_spec["pipeline_spec"], run.pipeline_spec["platform_spec"]])


@pytest.mark.parametrize(
    ("lines", "one"),
    [
        (("30 3 * * *",), "0 30 3 * * *"),
        (("0 3 * * *", "0 12,15 * * *", "0 3 * * *", "0 15,22 * * *"), "0 0 3,12,15,22 * * *"),
        (("0 3 * * 1", "30 3 * * 1", "0,30 3 * * 5"), "0 0,30 3 * * 1,5"),
    ],
)
def test_lines_that_differ_in_one_field_are_one(lines: tuple[str, ...], one: str) -> None:
    assert _lines(Times(lines, "Etc/UTC")) == [one]


@pytest.mark.parametrize(
    ("times", "says"),
    [
        (Times(("30 3 * *",), "Etc/UTC"), "--cron '30 3 * *': it has 4 fields"),
        (Times(("61 3 * * *",), "Etc/UTC"), "'61' is no minute"),
        (Times(("@daily",), "Etc/UTC"), "--cron '@daily': give five fields"),
        (Times(("0 3 * * 7",), "Etc/UTC"), "with 0 for Sunday"),
        (Times(("0 3 * * *",), "Europe/Berlin"), "CRON_SCHEDULE_TIMEZONE"),
        (Times(("0 3 * * *",), "Etc/UTC", 3), "--stop-after-failures 3"),
        (Times(("30 3 * * *", "0 12 * * 1-5"), "Etc/UTC"), "nothing keeps runs of two from going on at once"),
        (Times(("0 3 1 * *", "0 3 * * 1"), "Etc/UTC"), "--cron '0 3 1 * *' --cron '0 3 * * 1': KFP starts each line"),
        (Times(("0 3 * * *", "0 3 * * 1"), "Etc/UTC"), "one CronWorkflow has all of them and one run at a time"),
    ],
)
def test_times_that_kfp_cannot_keep_are_refused(times: Times, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        emit(Flow("nightly", "curate", "demo_cluster", (), times=times), SETTINGS)


def test_no_secret_gets_into_a_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "credentials"
    secret.write_text(f"[default]\naws_secret_access_key = {CANARY}\n")
    for name, value in {
        "AWS_SECRET_ACCESS_KEY": CANARY, "AWS_SESSION_TOKEN": CANARY, "AWS_SHARED_CREDENTIALS_FILE": str(secret),
        "WFM_STORE_OPTIONS": json.dumps({"secret": CANARY}), "KF_PIPELINES_ENDPOINT": f"https://x:{CANARY}@kfp.example",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    flow = flow_of(tmp_path / "store", "curate", times=Times(("0 3 * * *",), "Etc/UTC"))
    text = json.dumps(emit(flow, SETTINGS))
    assert CANARY not in text
    assert str(secret) not in text
    for given in ({"videos": f"https://me:{CANARY}@films.example/raw"}, {"store": f"s3://me:{CANARY}@bucket/store"}):
        with pytest.raises(ConfigError, match="carries credentials") as told:
            emit(Flow("name", "curate", "demo_cluster", (), **given), SETTINGS)
        assert CANARY not in str(told.value)
    leaky = SETTINGS.model_copy(update={"environment": {"AWS_SECRET_ACCESS_KEY": CANARY}})
    with pytest.raises(ConfigError, match="AWS_SECRET_ACCESS_KEY stands here for all to read") as told:
        emit(flow, leaky)
    assert CANARY not in str(told.value)
