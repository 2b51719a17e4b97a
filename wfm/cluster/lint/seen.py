"""What rules look at: the objects of one set, and every pod that any of them would make, wherever its template stands.

Objects are data from outside: every look into one goes through `at`, `table`, `rows`, `word` and `texts`, which give an
empty answer where something of another type stands (that is the schema's part) and never fail.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from wfm.cluster.settings import ClusterSettings

Role = Literal[
    "rank", "worker", "index", "runner", "scheduler", "stage", "launcher", "pipeline", "planner", "notice", "exporter",
    "captioning", "scaler", "retention", "other",
]  # fmt: skip
STAGE_ROLES: tuple[Role, ...] = ("rank", "worker", "index", "runner", "scheduler")
"""Pods of the job of a stage. A ``stage`` is one without a job, in a workflow's pod; the others: `wfm.cluster.names.ROLES`."""
FOLLOWERS: tuple[Role, ...] = ("launcher", "pipeline")
"""Pods that wait for jobs: what they wait in the queue is no run time."""
SERVERS: tuple[Role, ...] = ("exporter", "captioning")
HOLDERS = ("PyTorchJob", "TrainJob", "Job", "JobSet")
"""Kinds that carry a queue's label themselves: they hold what the queue gives."""
WORKFLOWS = {
    "Workflow": "spec",
    "WorkflowTemplate": "spec",
    "ClusterWorkflowTemplate": "spec",
    "CronWorkflow": "spec.workflowSpec",
}
"""Kinds of Argo's, and where the workflow stands in each."""
LAUNCHER = "components.launch_job"


def at(value: Any, path: str = "") -> Any:
    """What stands at a dotted path below; None where there is nothing."""
    for name in path.split(".") if path else ():
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def table(value: Any, path: str = "") -> dict[str, Any]:
    """The object at a path; empty where there is none."""
    found = at(value, path)
    return {name: each for name, each in found.items() if isinstance(name, str)} if isinstance(found, dict) else {}


def rows(value: Any, path: str = "") -> list[tuple[int, dict[str, Any]]]:
    """The objects of the list at a path, with their places in it."""
    found = at(value, path)
    return (
        [(place, each) for place, each in enumerate(found) if isinstance(each, dict)] if isinstance(found, list) else []
    )


def words(value: Any, path: str = "") -> list[str]:
    """The strings of the list at a path."""
    found = at(value, path)
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def word(value: Any, path: str = "") -> str:
    """The string at a path; empty where there is none."""
    found = at(value, path)
    return found if isinstance(found, str) else ""


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every string below, with its path. Not by recursion: what is read from a file may be deep."""
    waiting = [(path, value)]
    while waiting:
        where, each = waiting.pop()
        if isinstance(each, str):
            yield where, each
        elif isinstance(each, dict):
            waiting += [(f"{where}.{name}".lstrip("."), inner) for name, inner in each.items()]
        elif isinstance(each, list):
            waiting += [(f"{where}.{place}".lstrip("."), inner) for place, inner in enumerate(each)]


@dataclass(frozen=True)
class Thing:
    """One object, and how it is named in a fault."""

    content: dict[str, Any]
    kind: str
    name: str
    namespace: str

    def where(self, path: str) -> str:
        """``Kind/name: path``."""
        return f"{self.kind}/{self.name or '?'}: {path}"


@dataclass(frozen=True)
class Container:
    """One container of a pod."""

    content: dict[str, Any]
    where: str
    kind: Literal["main", "sidecar", "init"]

    @property
    def env(self) -> dict[str, dict[str, Any]]:
        """Its variables by name; of two of one name the last counts, as for Kubernetes."""
        return {word(each, "name"): each for _, each in rows(self.content, "env") if word(each, "name")}

    def value(self, name: str) -> str:
        """The plain value of a variable; empty where it has none."""
        return word(self.env.get(name), "value")

    @property
    def words(self) -> list[str]:
        """Command and arguments, an option and its value apart (``--a=b`` as two)."""
        given = [*words(self.content, "command"), *words(self.content, "args")]
        return [part for each in given for part in (each.split("=", 1) if each.startswith("--") else (each,))]

    @property
    def command(self) -> str:
        """Command, arguments and script in one line."""
        return " ".join([*words(self.content, "command"), *words(self.content, "args"), word(self.content, "source")])

    def amount_of(self, kind: Literal["requests", "limits"], resource: str) -> Any:
        """What it asks for (or may have) of a resource, as written."""
        return table(self.content, f"resources.{kind}").get(resource)


@dataclass(frozen=True)
class Pod:
    """A pod as some object would make it."""

    owner: Thing
    path: str
    "Where its spec stands in the owner."
    content: dict[str, Any]
    "Its spec."
    metadata: dict[str, Any]
    metadata_path: str
    role: Role
    replicas: int
    containers: tuple[Container, ...] = ()
    half: Literal["", "job", "runtime"] = ""
    """A TrainJob says what runs and what it needs, its runtime what it may do: whichever of both this is, the other half stands
    elsewhere."""

    def where(self, path: str) -> str:
        """A path below its spec, named from its owner."""
        return self.owner.where(f"{self.path}.{path}" if path else self.path)

    @property
    def main(self) -> Container | None:
        """The container that does the work."""
        return next((each for each in self.containers if each.kind == "main"), None)

    @property
    def lasting(self) -> tuple[Container, ...]:
        """Its containers without those that only run before."""
        return tuple(each for each in self.containers if each.kind != "init")


@dataclass(frozen=True)
class Seen:
    """A set of objects that belong together, and what they are checked against."""

    things: tuple[Thing, ...]
    pods: tuple[Pod, ...]
    settings: ClusterSettings
    known: bool = True
    "Whether the settings are those of a cluster: else nothing is checked against them."
    odd: tuple[tuple[str, Any], ...] = field(default=())
    "What is no object at all: where, what."

    @property
    def confined(self) -> list[Pod]:
        """Pods whose rights stand among the objects."""
        return [pod for pod in self.pods if pod.half != "job"]

    @property
    def furnished(self) -> list[Pod]:
        """Pods whose needs (resources, volumes, variables, grace) stand among the objects."""
        return [pod for pod in self.pods if pod.half != "runtime"]

    def of(self, *kinds: str) -> Iterator[Thing]:
        """The objects of these kinds."""
        return (each for each in self.things if each.kind in kinds)

    def pods_of(self, thing: Thing) -> list[Pod]:
        """The pods that one object would make."""
        return self._by_owner[id(thing)]

    def is_of_a_stage(self, thing: Thing) -> bool:
        """Whether an object is the job of a stage: else none of what holds for those holds for it."""
        return any(pod.role in STAGE_ROLES for pod in self.pods_of(thing))

    @cached_property
    def _by_owner(self) -> dict[int, list[Pod]]:
        found: dict[int, list[Pod]] = {id(thing): [] for thing in self.things}
        for pod in self.pods:
            found[id(pod.owner)].append(pod)
        return found


def option(main: Container, name: str) -> Any:
    """The value of an option in a command line; None where it is not given."""
    given = [*words(main.content, "command"), *words(main.content, "args")]
    for place, each in enumerate(given):
        if each == f"--{name}":
            return given[place + 1] if place + 1 < len(given) else ""
        if each.startswith(f"--{name}="):
            return each.partition("=")[2]
    return None
