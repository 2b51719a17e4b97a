"""A pipeline for an engine on a cluster: compiled once, without keys, and run as often as one likes.

`compile` writes down one run; here is what all runs of a pipeline and profile have in common: which tasks there are, after whom
each comes, in which image, and whether it is a pod of the engine's own or a launcher that makes a job. What a run makes, and
what is there already, its first task finds out (`pipelines.plan_step`), and refuses where the run it is asked for has other
tasks than these.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.nodes import Node
from pipelines.stages import STAGES, Kind, Resources, StageRow
from wfm.cluster.names import is_dns_1035, node_name
from wfm.cluster.settings import ClusterSettings, Image
from wfm.errors import ConfigError

if TYPE_CHECKING:
    from pipelines.nodes import Plan

EMITTERS = {"argo": "pipelines.engines.argo.emit", "kubeflow": "pipelines.engines.kubeflow.emit"}
"""Engine that ``wfm compile`` writes for -> module with ``emit(flow, settings) -> {name of a file: its objects}``."""
SETTINGS_FILE = "cluster.json"
"""What the settings are called in their ConfigMap."""
LONGEST_NAME = 52
"""Of a flow: what starts it at times appends eleven characters."""


@dataclass(frozen=True)
class Task:
    """One node, whatever a run makes of it."""

    name: str
    "As a cluster writes it."
    node: str
    stage: str
    component: str
    inputs: Mapping[str, str]
    "Input name -> node that makes it."
    image: Image
    kind: Kind
    resources: Resources
    retries: int
    timeout_seconds: float

    @property
    def launched(self) -> bool:
        """Whether a launcher makes a job of it. Whatever holds devices, is several pods or waits in a queue is one: pods of
        the engine itself hold none and wait for nobody."""
        return self.kind != "container" or self.resources.gpu > 0 or self.resources.parts > 0

    def digest(self, settings: ClusterSettings) -> str:
        """Of all that is written into the compiled task: a plan whose tasks have other digests needs another flow. What a
        launched one needs stands in its spec, which each run writes anew."""
        told = [self.node, self.component, sorted(self.inputs.items()), self.launched, settings.image(self.image)]
        if not self.launched:
            told += [self.resources.resolved(), self.retries, self.timeout_seconds]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Times:
    """When an engine starts a flow by itself."""

    lines: tuple[str, ...]
    "Five fields each: minute hour day month weekday."
    zone: str
    "Of IANA."
    stop_after_failures: int = 0
    "After so many failed runs no other is started; 0: however many."


@dataclass(frozen=True)
class Notice:
    """Who is told how a run ended. It may be lost, and nothing depends on it: `wfm status` knows."""

    image: str
    "Of another's, by digest, with a shell and curl in it."
    secret: str
    "Name of a Secret whose entry ``url`` is the address that is posted to: for many it is a password."

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[^\s@]+@sha256:[0-9a-f]{64}", self.image):
            raise ConfigError(f"notice = {self.image!r}: give --notice an image by its digest, name@sha256:…")
        if not is_dns_1035(self.secret):
            raise ConfigError(
                f"notice secret = {self.secret!r}: give --notice-secret the name of a Secret whose entry url is where to post"
            )


@dataclass(frozen=True)
class Flow:
    """A pipeline with a profile, and the values that a run has unless it says others."""

    name: str
    pipeline: str
    profile: str
    tasks: tuple[Task, ...]
    "Each after those it needs."
    given: tuple[str, ...] = ()
    "Nodes whose artifact was named, and which have no task."
    store: str = ""
    videos: str = ""
    dataset: str = ""
    overrides: tuple[str, ...] = ()
    called: str = ""
    "What the results are called in place of the recipe's names."
    promote: bool = True
    times: Times | None = None
    "None: it is started by whoever wants a run."
    notice: Notice | None = None
    "None: nobody is told at the end."

    def __post_init__(self) -> None:
        if not is_dns_1035(self.name, LONGEST_NAME):
            raise ConfigError(
                f"name = {self.name!r}: give --template of a-z, 0-9 and -, a letter first, at most {LONGEST_NAME} long"
            )

    def parameters(self) -> dict[str, str]:
        """What a run may be given beside its id, by the names of the plan step's options: its store, videos, dataset, options
        as a list of JSON (``["train_diffusion.steps=100"]``), what is made again (node -> nonce), what its results are
        called, and whether they are."""
        return {
            "store": self.store,
            "videos": self.videos,
            "dataset": self.dataset,
            "overrides": json.dumps(list(self.overrides)),
            "redo": "{}",
            "name": self.called,
            "promote": str(self.promote).lower(),
        }

    def expects(self, settings: ClusterSettings) -> str:
        """``node=digest`` of every task, for the plan step."""
        return ",".join(f"{task.node}={task.digest(settings)}" for task in self.tasks)


def tasks_of(nodes: Sequence[Node], rows: Mapping[str, StageRow] = STAGES) -> tuple[Task, ...]:
    """The nodes of a plan as tasks."""
    return tuple(
        Task(
            name=node_name(node.name),
            node=node.name,
            stage=node.stage,
            component=node.component,
            inputs=dict(node.inputs),
            image=rows[node.stage].image,
            kind=rows[node.stage].kind,
            resources=node.resources,
            retries=rows[node.stage].retries,
            timeout_seconds=rows[node.stage].timeout_seconds,
        )
        for node in nodes
    )


def settings_map(flow: Flow, settings: ClusterSettings) -> dict[str, Any]:
    """The settings as they were compiled, for the plan step and the launchers: what they name is what the template has."""
    text = json.dumps(settings.resolved(), indent=1, sort_keys=True) + "\n"
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": flow.name, "namespace": settings.namespace},
        "data": {SETTINGS_FILE: text},
    }


def check_literal(flow: Flow, settings: ClusterSettings) -> None:
    """Raises ConfigError where a value has ``{{``: both engines take that for a place of their own to fill in."""
    given = {
        "--store": flow.store,
        "--videos": flow.videos,
        "--dataset": flow.dataset,
        "--name": flow.called,
        "--set": " ".join(flow.overrides),
    }
    own = {f"environment.{name} of the cluster's settings": value for name, value in settings.environment.items()}
    for what, value in {**given, **own}.items():
        if "{{" in value:
            raise ConfigError(f"{what}: {value!r} has {{{{ in it, which the engine would fill in: write it without")


def check_expected(plan: "Plan", settings: ClusterSettings, expected: Mapping[str, str]) -> None:
    """Raises ConfigError where a plan has other tasks than those that were compiled."""
    found = {task.node: task.digest(settings) for task in tasks_of(plan.nodes)}
    more, fewer = sorted(found.keys() - expected.keys()), sorted(expected.keys() - found.keys())
    other = sorted(name for name in found.keys() & expected.keys() if found[name] != expected[name])
    told = [
        f"{what} {', '.join(names)}"
        for what, names in (("it has also", more), ("it has no", fewer), ("another need, input or image has", other))
        if names
    ]
    if told:
        raise ConfigError(
            f"this run of {plan.pipeline} ({plan.profile}) is another graph than the compiled one: {'; '.join(told)}. "
            "Compile it with these options (wfm compile … --set, --videos, --dataset), or leave them out"
        )
