"""Kubeflow Pipelines: a flow as a template of KFP (v2), which serves all its runs by their parameters.

    root ─┬─ plan
          └─ stages: if anything is missing ─┬─ simulate_videos: if it has to run ─ launch
                                             ├─ ingest_videos:   if it has to run ─ launch      (after simulate_videos)
                                             └─ ...

A task is never a stage: KFP gives a container no grace on SIGTERM and blurs how it ended, so each starts the thin launcher
(`components.launch_job`, of the control image), and a stage of one pod is a job too (an Indexed Job of one). First comes the
plan step; its outputs say which nodes have to run, so what is made already starts nothing, and under which keys, so that no
task reads another's outputs: KFP lets none out of a condition. A node is a small pipeline of its own with the condition inside,
for what follows a task that was skipped would never run (its back end makes ``depends: a.Succeeded`` of it), while a pipeline
in which all was skipped has succeeded.

KFP's cache is off everywhere: ours is the store. No task has a retry policy, which would retry wrong input as well: a stage is
tried again by its launcher, and a run by starting it once more under its id (`docs/cluster.md`). No task that waits for a queue
has a deadline.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from pipelines.engines.argo.emit import settings_map
from pipelines.engines.argo.templates import SETTINGS_FILE
from pipelines.engines.flow import Flow, Task
from wfm.cluster import pod
from wfm.cluster.lint import RULES
from wfm.cluster.lint.seen import look
from wfm.cluster.names import LABEL_NODE, LABEL_ROLE, LABEL_STAGE, label_value
from wfm.cluster.settings import VARIABLE, ClusterSettings
from wfm.credentials import carries_credentials
from wfm.errors import ConfigError, MissingPackage

Json = dict[str, Any]

CONTAINER = ("python", "-m", "pipelines.engines.kubeflow_container")
ANYTHING, SPECS = "anything", "specs"
"""Outputs of the plan: whether anything has to run, and the folder of the specs. Then `make_` and `key_` of each node."""
YES = "true"
SETTINGS_FOLDER = "/etc/wfm/cluster"
"""Where tasks find the settings of the cluster."""
SECRETS_FOLDER = "/etc/wfm/secrets"
"""Where tasks find the secrets that settings name, a folder each."""
SAID = f"{pod.TEMPORARY}/plan"
"""Where the plan step writes what it has to say, a file each."""
PLAN_SECONDS = 3600
"""The most that a plan may take: it waits for no queue."""
ACCOUNT = "launcher"
"""The service account of a run (docs/cluster.md): KFP has one for all tasks."""
_CPU, _MEMORY = 0.5, "2Gi"
"""What planning and launching take."""
_FOLDERS = {"home": (pod.HOME, "1Gi"), "cache": (pod.CACHE, "2Gi"), "tmp": (pod.TEMPORARY, "2Gi")}


def emit(flow: Flow, settings: ClusterSettings) -> dict[str, list[Json]]:
    """Name of a file -> its documents: the settings that tasks read, and the package of a template, as KFP takes it. Raises
    ConfigError for a secret where all could read it, and where settings name no control image; MissingPackage without kfp."""
    return {"settings.yaml": [settings_map(flow, settings)], "pipeline.yaml": list(template(flow, settings))}


def template(flow: Flow, settings: ClusterSettings) -> tuple[Json, Json]:
    """(pipeline spec, platform spec), as plain dicts. Raises as `emit` does."""
    _refuse_secrets(flow, settings)
    dsl = _kfp().dsl
    whole = _whole(flow, _Tasks(flow, settings, dsl), dsl)
    plain = import_module("google.protobuf.json_format").MessageToDict
    return plain(whole.pipeline_spec), plain(whole.platform_spec)


def recurring_run(flow: Flow, settings: ClusterSettings, cron: str) -> Json:
    """What KFP's API takes to run a flow by the clock (``POST /apis/v2beta1/recurringruns``): one run at a time, and of several
    missed times the last. ``cron`` has five fields, in the zone of KFP's controller."""
    _refuse_cron(cron)
    pipeline, platform = template(flow, settings)
    return {
        "display_name": flow.name,
        "mode": "ENABLE",
        "max_concurrency": "1",
        "no_catchup": True,
        "trigger": {"cron_schedule": {"cron": f"0 {cron}"}},  # theirs begins with seconds
        "service_account": ACCOUNT,
        "runtime_config": {"parameters": {}},
        "pipeline_spec": {"pipeline_spec": pipeline, "platform_spec": platform},
    }


class _Tasks:
    """The tasks of a template: each a container of the control image."""

    def __init__(self, flow: Flow, settings: ClusterSettings, dsl: Any) -> None:
        self._flow, self._settings, self._dsl = flow, settings, dsl
        self._image = settings.image("control")

    def plan(self, **given: Any) -> Any:
        """The plan step."""
        flow = self._flow
        fixed = ["python", "-m", "pipelines.plan_step", "--pipeline", flow.pipeline, "--profile", flow.profile]
        fixed += ["--expects", flow.expects(self._settings), "--out", SAID]
        inputs = dict.fromkeys(("run_id", "job", "store", "videos", "dataset", "overrides"), str)
        files = {ANYTHING: ANYTHING, SPECS: SPECS}
        files |= {make(task.node): f"make-{task.name}" for task in flow.tasks}
        files |= {key(node): f"key-{name}" for node, name in read_nodes(flow).items()}

        def words(place: Mapping[str, Any]) -> list[Any]:
            taken = [word for name, file in files.items() for word in ("--take", f"{SAID}/{file}", place[name])]
            asked = [f"--{name}={place[name]}" for name in ("store", "videos", "dataset", "overrides")]
            return [*taken, "--either", "run-id", place["run_id"], place["job"], "--", *fixed, *asked]

        task = self._furnished(self._component("plan", inputs, tuple(files), words)(**given), "planner")
        import_module("kfp.kubernetes").set_timeout(task, PLAN_SECONDS)
        return task

    def launch(self, one: Task, **given: Any) -> Any:
        """The launcher of a node."""
        sources = dict.fromkeys(one.inputs.values())

        def words(place: Mapping[str, Any]) -> list[Any]:
            spec = ["--spec", f"{place[SPECS]}/{one.node}.json"]
            inputs = [
                word for name, node in sorted(one.inputs.items()) for word in ("--input", f"{name}={place[key(node)]}")
            ]
            return ["--", "python", "-m", "components.launch_job", *spec, *inputs, "--key-out", place["key"]]

        kinds = dict.fromkeys((SPECS, *map(key, sources)), str)
        task = self._furnished(self._component(f"launch_{one.node}", kinds, ("key",), words)(**given), "launcher")
        kubernetes = import_module("kfp.kubernetes")
        task.set_display_name(one.node)
        kubernetes.add_pod_label(task, LABEL_NODE, label_value(one.node))
        kubernetes.add_pod_label(task, LABEL_STAGE, label_value(one.stage))
        return task

    def _component(
        self,
        name: str,
        inputs: Mapping[str, Any],
        outputs: tuple[str, ...],
        words: Callable[[Mapping[str, Any]], list[Any]],
    ) -> Callable[..., Any]:
        """A component of these inputs and outputs (text all); ``words``: where each is found -> the command line."""
        dsl = self._dsl
        kinds = {**inputs, **dict.fromkeys(outputs, dsl.OutputPath(str))}

        def component(*places: Any) -> Any:
            command = [*CONTAINER, "--secrets", SECRETS_FOLDER] if self._settings.secrets else list(CONTAINER)
            return dsl.ContainerSpec(
                self._settings.image("control"), command, words(dict(zip(kinds, places, strict=True)))
            )

        component.__name__ = name
        made: Callable[..., Any] = dsl.container_component(_with_signature(component, kinds))
        return made

    def _furnished(self, task: Any, role: str) -> Any:
        """The pod of a task: its share, as nobody, with settings and secrets by reference, on machines it may use."""
        settings, kubernetes = self._settings, import_module("kfp.kubernetes")
        kubernetes.add_pod_label(task, LABEL_ROLE, role)
        task.set_caching_options(False)
        cpu = f"{_CPU * 1000:.0f}m"
        task.set_cpu_request(cpu).set_cpu_limit(cpu).set_memory_request(_MEMORY).set_memory_limit(_MEMORY)
        for name, value in _environment(settings).items():
            task.set_env_variable(name, value)
        kubernetes.use_field_path_as_env(task, "POD_NAME", "metadata.name")
        kubernetes.use_config_map_as_volume(task, self._flow.name, SETTINGS_FOLDER)
        for secret in settings.secrets:
            kubernetes.use_secret_as_volume(task, secret, f"{SECRETS_FOLDER}/{secret}")
        for name, (place, size) in _FOLDERS.items():
            kubernetes.empty_dir_mount(task, name, place, size_limit=size)
        kubernetes.set_security_context(task, run_as_user=pod.USER, run_as_group=pod.USER, run_as_non_root=True)
        if settings.image_pull_secrets:
            kubernetes.set_image_pull_secrets(task, list(settings.image_pull_secrets))
        for label, value in settings.node_selector.items():
            kubernetes.add_node_selector(task, label, value)
        for borne in settings.tolerations:
            kubernetes.add_toleration(task, **{"key": "", **borne.plain()})
        return task


def make(node: str) -> str:
    """Output of the plan: whether a node has to run."""
    return f"make_{node}"


def key(node: str) -> str:
    """Output of the plan: the key of a node."""
    return f"key_{node}"


def read_nodes(flow: Flow) -> dict[str, str]:
    """Node whose artifact some task reads -> its name in a flow."""
    named = {task.node: task.name for task in flow.tasks}
    return {node: named.get(node, node) for task in flow.tasks for node in task.inputs.values()}


def _whole(flow: Flow, tasks: _Tasks, dsl: Any) -> Any:
    """The template as a component of KFP."""
    stages = _stages(flow, tasks, dsl)

    def whole(run_id: str, store: str, videos: str, dataset: str, overrides: str) -> None:
        planned = tasks.plan(
            run_id=run_id,
            job=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            store=store,
            videos=videos,
            dataset=dataset,
            overrides=overrides,
        )
        stages(**planned.outputs).set_caching_options(False)

    whole.__defaults__ = ("", flow.store, flow.videos, flow.dataset, json.dumps(list(flow.overrides)))
    return dsl.pipeline(name=flow.name, description=f"{flow.pipeline} with the profile {flow.profile}")(whole)


def _stages(flow: Flow, tasks: _Tasks, dsl: Any) -> Any:
    """The pipeline of all nodes, which starts nothing if nothing is missing; its inputs are what the plan says. (KFP's local
    runner takes a condition on a task's output for false, one on a pipeline's input as it is.)"""
    nodes = {task.node: _node(task, tasks, dsl) for task in flow.tasks}
    names = (ANYTHING, SPECS, *map(make, nodes), *map(key, read_nodes(flow)))

    def stages(*told: Any) -> None:
        said = dict(zip(names, told, strict=True))
        started: dict[str, Any] = {}
        with dsl.If(said[ANYTHING] == YES, name="anything-missing"):
            for task in flow.tasks:
                sources = dict.fromkeys(task.inputs.values())
                given = {
                    "to_make": said[make(task.node)],
                    SPECS: said[SPECS],
                    **{key(of): said[key(of)] for of in sources},
                }
                made = nodes[task.node](**given).set_display_name(task.node)
                made.set_caching_options(False)
                started[task.node] = made.after(*(started[of] for of in sources if of in started))

    return dsl.pipeline(name="stages")(_with_signature(stages, dict.fromkeys(names, str)))


def _node(task: Task, tasks: _Tasks, dsl: Any) -> Any:
    """The pipeline of one node: its launcher, if it has to run."""
    names = ("to_make", SPECS, *map(key, dict.fromkeys(task.inputs.values())))

    def alone(*told: Any) -> None:
        said = dict(zip(names, told, strict=True))
        with dsl.If(said.pop("to_make") == YES, name="has-to-run"):
            tasks.launch(task, **said)

    return dsl.pipeline(name=task.name)(_with_signature(alone, dict.fromkeys(names, str)))


def _with_signature(function: Callable[..., Any], kinds: Mapping[str, Any]) -> Callable[..., Any]:
    """Give a function these parameters: KFP reads the interface of a component there."""
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter(name, keyword, annotation=kind) for name, kind in kinds.items()]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return function


def _environment(settings: ClusterSettings) -> Mapping[str, str]:
    """The variables of a task."""
    own = {VARIABLE: f"{SETTINGS_FOLDER}/{SETTINGS_FILE}", "WFM_ENGINE": "kubeflow"}
    return {**pod.threads(_CPU), **settings.environment, **pod.places(settings, "control"), **own}


def _refuse_secrets(flow: Flow, settings: ClusterSettings) -> None:
    """Raises ConfigError for what would stand in a template, where everybody who may see pipelines reads it."""
    texts = {"--store": flow.store, "--videos": flow.videos, "--set": " ".join(flow.overrides)}
    for option, text in texts.items():
        if carries_credentials(text):
            raise ConfigError(
                f"{option} carries credentials, which a template would show to everybody: give the address without them, and "
                "name a secret that holds them in `secrets` of the cluster's settings"
            )
    one = {"name": "task", "env": pod.variables(_environment(settings))}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "task"}, "spec": {"containers": [one]}}
    for found in RULES["literal-secret"].look(look([body], settings)):
        raise ConfigError(f"environment of the cluster's settings: {found.says}: name a secret in `secrets` instead")


def _refuse_cron(cron: str) -> None:
    body = {
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "cron"}, "spec": {"schedule": cron},
    }  # fmt: skip
    for found in RULES["cron-schedule"].look(look([body], None)):
        raise ConfigError(f"--cron {cron!r}: {found.says}")
    if cron.startswith("@"):
        raise ConfigError(f"--cron {cron!r}: give a line of five fields, such as '0 3 * * *'")


def _kfp() -> Any:
    try:
        found = import_module("kfp")
        import_module("kfp.kubernetes")
    except ImportError as error:
        raise MissingPackage(str(error.name), extra="kfp", purpose="a template for Kubeflow Pipelines") from error
    return found
