"""The template: its tasks, and the pipelines of KFP that they stand in."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from pipelines.engines.flow import SETTINGS_FILE, Flow, Task
from wfm.cluster import pod
from wfm.cluster.names import LABEL_NODE, LABEL_ROLE, LABEL_STAGE, label_value
from wfm.cluster.settings import VARIABLE, ClusterSettings
from wfm.errors import MissingPackage

CONTAINER = ("python", "-m", "pipelines.engines.kubeflow.container")
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
_TRIES = {"planner": 5, "launcher": 20}
"""Of a task, in its pod: a launcher that ends lets its job go on."""
_CPU, _MEMORY = 0.5, "2Gi"
"""What planning and launching take."""
_FOLDERS = {"home": (pod.HOME, "1Gi"), "cache": (pod.CACHE, "2Gi"), "tmp": (pod.TEMPORARY, "2Gi")}


def template(flow: Flow, settings: ClusterSettings) -> Any:
    """The template as a component of KFP, with its pipeline spec and platform spec. Raises MissingPackage without kfp,
    ConfigError where settings name no control image."""
    dsl = _kfp().dsl
    tasks = _Tasks(flow, settings, dsl)
    stages = _stages(flow, tasks, dsl)

    def whole(  # the parameters of `Flow.parameters`, which KFP reads from the signature
        run_id: str, store: str, videos: str, dataset: str, overrides: str, redo: str, name: str, promote: str
    ) -> None:
        planned = tasks.plan(
            run_id=run_id, job=dsl.PIPELINE_JOB_ID_PLACEHOLDER, store=store, videos=videos, dataset=dataset,
            overrides=overrides, redo=redo, name=name, promote=promote,
        )  # fmt: skip
        stages(**planned.outputs).set_caching_options(False)

    whole.__defaults__ = ("", *flow.parameters().values())
    return dsl.pipeline(name=flow.name, description=f"{flow.pipeline} with the profile {flow.profile}")(whole)


class _Tasks:
    """The tasks of a template: each a container of the control image."""

    def __init__(self, flow: Flow, settings: ClusterSettings, dsl: Any) -> None:
        self._flow, self._settings, self._dsl = flow, settings, dsl

    def plan(self, **given: Any) -> Any:
        """The plan step."""
        flow = self._flow
        fixed = ["python", "-m", "pipelines.plan_step", "--pipeline", flow.pipeline, "--profile", flow.profile]
        fixed += ["--expects", flow.expects(self._settings), "--out", SAID]
        files = {ANYTHING: ANYTHING, SPECS: SPECS}
        files |= {make(task.node): f"make-{task.name}" for task in flow.tasks}
        files |= {key(node): f"key-{name}" for node, name in read_nodes(flow).items()}

        def words(place: Mapping[str, str]) -> list[str]:
            taken = [word for name, file in files.items() for word in ("--take", f"{SAID}/{file}", place[name])]
            asked = [f"--{name}={place[name]}" for name in flow.parameters()]
            return [*taken, "--either", "run-id", place["run_id"], place["job"], "--", *fixed, *asked]

        task = self._task("planner", "plan", given, files, words)
        _kubernetes().set_timeout(task, PLAN_SECONDS)
        return task

    def launch(self, one: Task, **given: Any) -> Any:
        """The launcher of a node."""

        def words(place: Mapping[str, str]) -> list[str]:
            made = ["--", "python", "-m", "components.launch_job", "--spec", f"{place[SPECS]}/{one.node}.json"]
            for name, node in sorted(one.inputs.items()):
                made += ["--input", f"{name}={place[key(node)]}"]
            return [*made, "--key-out", place["key"]]

        task, kubernetes = self._task("launcher", f"launch_{one.node}", given, ("key",), words), _kubernetes()
        task.set_display_name(one.node)
        kubernetes.add_pod_label(task, LABEL_NODE, label_value(one.node))
        kubernetes.add_pod_label(task, LABEL_STAGE, label_value(one.stage))
        return task

    def _task(
        self,
        role: str,
        name: str,
        given: Mapping[str, Any],
        outputs: Iterable[str],
        words: Callable[[Mapping[str, str]], list[str]],
    ) -> Any:
        """A task that is given these inputs, and has these outputs (text all); ``words``: name of each -> where it is found ->
        the command line."""
        settings, dsl = self._settings, self._dsl
        kinds = {**dict.fromkeys(given, str), **dict.fromkeys(outputs, dsl.OutputPath(str))}
        command = [*CONTAINER, "--tries", str(_TRIES[role])]
        command += ["--secrets", SECRETS_FOLDER] if settings.secrets else []

        def component(*places: Any) -> Any:
            return dsl.ContainerSpec(settings.image("control"), command, words(dict(zip(kinds, places, strict=True))))

        component.__name__ = name
        return self._furnished(dsl.container_component(_with_signature(component, kinds))(**given), role)

    def _furnished(self, task: Any, role: str) -> Any:
        """The pod of a task: its share, as nobody, with settings and secrets by reference, on machines it may use."""
        settings, kubernetes = self._settings, _kubernetes()
        kubernetes.add_pod_label(task, LABEL_ROLE, role)
        task.set_caching_options(False)
        cpu = f"{_CPU * 1000:.0f}m"
        task.set_cpu_request(cpu).set_cpu_limit(cpu).set_memory_request(_MEMORY).set_memory_limit(_MEMORY)
        for name, value in environment(settings).items():
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


def environment(settings: ClusterSettings) -> Mapping[str, str]:
    """The variables of a task."""
    own = {VARIABLE: f"{SETTINGS_FOLDER}/{SETTINGS_FILE}", "WFM_ENGINE": "kubeflow"}
    return {**pod.threads(_CPU), **settings.environment, **pod.places(settings, "control"), **own}


def _kfp() -> Any:
    try:
        found = import_module("kfp")
        _kubernetes()
    except ImportError as error:
        raise MissingPackage(str(error.name), extra="kfp", purpose="a template for Kubeflow Pipelines") from error
    return found


def _kubernetes() -> Any:
    """What kfp-kubernetes adds to kfp."""
    return import_module("kfp.kubernetes")
