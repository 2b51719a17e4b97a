"""What rules look at: the objects of one set, and every pod that any of them would make, wherever its template stands.

Objects are data from outside: every look into one goes through `at`, `table`, `rows`, `word` and `texts`, which give an
empty answer where something of another type stands (that is the schema's part) and never fail.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from wfm.cluster.lint.quantity import whole
from wfm.cluster.settings import ClusterSettings

Role = Literal["rank", "worker", "index", "runner", "scheduler", "launcher", "step", "other"]
STAGE_ROLES: tuple[Role, ...] = ("rank", "worker", "index", "runner", "scheduler")
"""Pods that run a stage or a part of one. A ``launcher`` watches a job, a ``step`` is another pod of a workflow."""
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
_OWN_TEMPLATE = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")


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

    @cached_property
    def _by_owner(self) -> dict[int, list[Pod]]:
        found: dict[int, list[Pod]] = {id(thing): [] for thing in self.things}
        for pod in self.pods:
            found[id(pod.owner)].append(pod)
        return found


def look(objects: Sequence[Any], settings: ClusterSettings | None) -> Seen:
    """Sort out what there is. A ``List`` counts as what is in it."""
    things: list[Thing] = []
    odd: list[tuple[str, Any]] = []
    for place, each in enumerate(_flat(objects)):
        if not isinstance(each, dict) or not (word(each, "kind") and word(each, "apiVersion")):
            odd.append((f"object {place}", each if not isinstance(each, dict) else at(each, "kind")))
            continue
        metadata = table(each, "metadata")
        things.append(Thing(each, word(each, "kind"), word(metadata, "name"), word(metadata, "namespace")))
    pods = [pod for thing in things for pod in _pods(thing)]
    return Seen(tuple(things), tuple(pods), settings or ClusterSettings(), settings is not None, tuple(odd))


def _flat(objects: Sequence[Any]) -> Iterator[Any]:
    for each in objects:
        if isinstance(each, dict) and word(each, "kind") == "List" and isinstance(each.get("items"), list):
            yield from each["items"]
        else:
            yield each


def replicas_at(value: Any, path: str, default: int = 1) -> int:
    """A number of replicas; the default where none, or something else, stands."""
    found = whole(at(value, path))
    return default if found is None or found < 0 else found


def _pods(thing: Thing) -> Iterator[Pod]:
    content = thing.content
    if thing.kind == "PyTorchJob":
        for name, replica in table(content, "spec.pytorchReplicaSpecs").items():
            count = replicas_at(replica, "replicas")
            yield _of_template(thing, f"spec.pytorchReplicaSpecs.{name}.template", "rank", count, main="pytorch")
    elif thing.kind == "TrainJob":
        yield _of_train_job(thing)
    elif thing.kind in ("TrainingRuntime", "ClusterTrainingRuntime"):
        yield from _of_job_set(thing, "spec.template.spec", "rank")
    elif thing.kind == "JobSet":
        yield from _of_job_set(thing, "spec", "rank")
    elif thing.kind in ("DaskJob", "DaskCluster", "DaskWorkerGroup"):
        yield from _of_dask(thing)
    elif thing.kind == "Job":
        yield _of_template(thing, "spec.template", "index", replicas_at(content, "spec.parallelism"))
    elif thing.kind == "CronJob":
        yield _of_template(thing, "spec.jobTemplate.spec.template", "other", 1)
    elif thing.kind == "Pod":
        yield _pod(thing, "spec", "metadata", "other", 1)
    elif thing.kind in _OWN_TEMPLATE:
        yield _of_template(thing, "spec.template", "other", replicas_at(content, "spec.replicas"))
    elif thing.kind in WORKFLOWS:
        yield from _of_workflow(thing, WORKFLOWS[thing.kind])


def _of_template(thing: Thing, path: str, role: Role, replicas: int, main: str = "") -> Pod:
    return _pod(thing, f"{path}.spec", f"{path}.metadata", role, replicas, main)


def _of_job_set(thing: Thing, path: str, role: Role) -> Iterator[Pod]:
    half: Literal["", "runtime"] = "" if thing.kind == "JobSet" else "runtime"
    for place, each in rows(thing.content, f"{path}.replicatedJobs"):
        job = f"{path}.replicatedJobs.{place}.template.spec"
        count = replicas_at(each, "replicas") * replicas_at(thing.content, f"{job}.parallelism")
        yield replace(_of_template(thing, f"{job}.template", role, count, main="node"), half=half)


def _of_dask(thing: Thing) -> Iterator[Pod]:
    base = "spec.cluster.spec" if thing.kind == "DaskJob" else "spec"
    if thing.kind == "DaskJob":
        yield _pod(thing, "spec.job.spec", "spec.job.metadata", "runner", 1)
    if thing.kind != "DaskWorkerGroup":
        yield _pod(thing, f"{base}.scheduler.spec", f"{base}.scheduler.metadata", "scheduler", 1)
    count = replicas_at(thing.content, f"{base}.worker.replicas")
    yield _pod(thing, f"{base}.worker.spec", f"{base}.worker.metadata", "worker", count)


def _of_train_job(thing: Thing) -> Pod:
    """The trainer's container with what patches of the runtime add to it."""
    trainer = table(thing.content, "spec.trainer")
    container: dict[str, Any] = {
        "name": "node",
        **{name: trainer[name] for name in ("image", "command", "args", "env") if name in trainer},
        "resources": trainer.get("resourcesPerNode"),
    }
    spec: dict[str, Any] = {}
    path, metadata_path = "spec.trainer", "spec.podMetadata"
    for place, patch in rows(thing.content, "spec.runtimePatches"):
        jobs = "trainingRuntimeSpec.template.spec.replicatedJobs"
        for number, job in rows(patch, jobs):
            if word(job, "name") != "node":
                continue
            template = f"spec.runtimePatches.{place}.{jobs}.{number}.template.spec.template"
            path, metadata_path = f"{template}.spec", f"{template}.metadata"
            patched = table(job, "template.spec.template.spec")
            spec |= {name: each for name, each in patched.items() if name != "containers"}
            for _, more in rows(patched, "containers"):
                if word(more, "name") == "node":
                    added = {name: each for name, each in more.items() if name not in ("name", "env")}
                    both = [*(e for _, e in rows(container, "env")), *(e for _, e in rows(more, "env"))]
                    container = {**container, **added, "env": both}
    # what a patch adds may stand in the trainer's place too: the path of a fault names the half it is mostly written in
    containers = [Container(container, thing.where("spec.trainer"), "main"), *_containers(thing, path, spec, "")]
    count = replicas_at(thing.content, "spec.trainer.numNodes")
    metadata = table(thing.content, metadata_path)
    return Pod(thing, path, spec, metadata, metadata_path, "rank", count, tuple(containers), half="job")


def _pod(thing: Thing, path: str, metadata_path: str, role: Role, replicas: int, main: str = "") -> Pod:
    spec = table(thing.content, path)
    containers = tuple(_containers(thing, path, spec, main))
    if role in ("index", "other") and any(LAUNCHER in each.command for each in containers):
        role = "launcher"
    return Pod(thing, path, spec, table(thing.content, metadata_path), metadata_path, role, replicas, containers)


def _containers(thing: Thing, path: str, spec: dict[str, Any], main: str) -> Iterator[Container]:
    several = rows(spec, "containers")
    named = [place for place, each in several if word(each, "name") == main]
    first = named[0] if named else 0
    for place, each in several:
        yield Container(each, thing.where(f"{path}.containers.{place}"), "main" if place == first else "sidecar")
    for place, each in rows(spec, "initContainers"):
        lasting = each.get("restartPolicy") == "Always"
        yield Container(each, thing.where(f"{path}.initContainers.{place}"), "sidecar" if lasting else "init")


def _of_workflow(thing: Thing, base: str) -> Iterator[Pod]:
    whole_flow = table(thing.content, base)
    defaults = table(whole_flow, "templateDefaults")
    for place, template in rows(whole_flow, "templates"):
        path = f"{base}.templates.{place}"
        containers = list(_of_argo_template(thing, path, {**defaults, **template}))
        if not any(each.kind == "main" for each in containers):
            continue
        spec = {**defaults, **template}
        for name in ("securityContext", "automountServiceAccountToken", "hostNetwork", "serviceAccountName"):
            if name in whole_flow and name not in spec:
                spec[name] = whole_flow[name]
        spec["volumes"] = [each for flow in (whole_flow, spec) for _, each in rows(flow, "volumes")]
        role: Role = "launcher" if any(LAUNCHER in each.command for each in containers) else "step"
        metadata = table(spec, "metadata")
        yield Pod(thing, path, spec, metadata, f"{path}.metadata", role, 1, tuple(containers))


def _of_argo_template(thing: Thing, path: str, template: dict[str, Any]) -> Iterator[Container]:
    for name in ("container", "script"):
        if isinstance(template.get(name), dict):
            yield Container(template[name], thing.where(f"{path}.{name}"), "main")
    for place, each in rows(template, "containerSet.containers"):
        yield Container(each, thing.where(f"{path}.containerSet.containers.{place}"), "main")
    for group, kind in (("sidecars", "sidecar"), ("initContainers", "init")):
        for place, each in rows(template, group):
            yield Container(each, thing.where(f"{path}.{group}.{place}"), "init" if kind == "init" else "sidecar")


def option(main: Container, name: str) -> Any:
    """The value of an option in a command line; None where it is not given."""
    given = [*words(main.content, "command"), *words(main.content, "args")]
    for place, each in enumerate(given):
        if each == f"--{name}":
            return given[place + 1] if place + 1 < len(given) else ""
        if each.startswith(f"--{name}="):
            return each.partition("=")[2]
    return None
