"""Whether an API server would take an object, and keep every field of it: the full schemas of the custom kinds (`crds/`, Argo's
too), unknown fields refused (a real server drops them without a word), and what is a pod or of Kubernetes itself by
``kubernetes-validate``.

    assert faults(object) == []     # for any kind: WorkflowTemplate, CronWorkflow, ClusterQueue, NetworkPolicy, PyTorchJob …

Rules in CEL are a table of Python functions (`RULES`): those that compare with an older object (``oldSelf``) say nothing of one
that is created. `NOT_CHECKED` names those that are left out, and a rule that is in neither is an error.
"""

import functools
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import kubernetes_validate
import kubernetes_validate.utils
import yaml

CRDS = Path(__file__).with_name("crds")
_ARGO = "argoproj.io"
VERSION = "1.34"
"Of Kubernetes, whose own kinds and pods are meant."
kubernetes_validate.utils.schema_contents = functools.cache(kubernetes_validate.utils.schema_contents)
"Else it parses its megabytes again for each pod."
_ONE_TEMPLATE = ("container", "script", "dag", "steps", "resource", "suspend", "containerSet", "data", "http", "plugin")
_ONE_SOURCE = ("s3", "git", "http", "artifactory", "hdfs", "raw", "oss", "gcs", "azure", "plugin")
_OPEN = {"x-kubernetes-preserve-unknown-fields": True}
"Within ``anyOf`` and the like a schema says only what it says: other fields are the business of the outer one."
_RESERVED = ("apiVersion", "kind", "metadata")
_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, Mapping),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
}
_FORMATS: dict[str, Callable[[Any], bool]] = {
    "int32": lambda value: -(2**31) <= value < 2**31,
    "int64": lambda value: -(2**63) <= value < 2**63,
    "date-time": lambda value: _is_moment(value),
    "int-or-string": lambda value: True,
}


def _is_moment(text: str) -> bool:
    try:
        return "T" in text and datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _among(*choices: str) -> Callable[[Any], bool]:
    return lambda value: value in choices


def _all(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda values: all(map(check, values))


def _count(of: str, names: Sequence[str]) -> str:
    """How CEL counts which of several fields there are."""
    return " + ".join(f"(has({of}.{name}) ? 1 : 0)" for name in names)


RULES: dict[str, Callable[[Any], bool]] = {
    "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')": lambda it: bool(
        re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", it["metadata"]["name"])
    ),
    "size(self.metadata.name) <= 63": lambda it: len(it["metadata"]["name"]) <= 63,
    "self == '' || self.matches('^[A-Za-z][A-Za-z0-9+.-]*://.+$')": lambda it: (
        it == "" or bool(re.search(r"^[A-Za-z][A-Za-z0-9+.-]*://.+$", it))
    ),
    "self in ['trainer.kubeflow.org/trainjob-controller', 'kueue.x-k8s.io/multikueue']": _among(
        "trainer.kubeflow.org/trainjob-controller", "kueue.x-k8s.io/multikueue"
    ),
    "has(self.lastUpdatedTime)": lambda it: "lastUpdatedTime" in it,
    "[has(self.torch), has(self.mpi), has(self.jax), has(self.xgboost),has(self.flux)].filter(x, x).size() <= 1": lambda it: (
        len({"torch", "mpi", "jax", "xgboost", "flux"} & set(it)) <= 1
    ),
    "self >= 1": lambda it: it >= 1,
    "!self.exists(c, c == 'node')": lambda it: "node" not in it,
    "!(has(self.startupPolicy) && self.startupPolicy.startupPolicyOrder == 'InOrder' && "
    "self.replicatedJobs.exists(x, has(x.dependsOn)))": lambda it: (
        it.get("startupPolicy", {}).get("startupPolicyOrder") != "InOrder"
        or not any("dependsOn" in job for job in it.get("replicatedJobs", []))
    ),
    "self.templates.all(t, !has(t.metadata.namespace) || size(t.metadata.namespace) == 0)": lambda it: all(
        not template.get("metadata", {}).get("namespace") for template in it["templates"]
    ),
    "has(self.priorityClassName) ? has(self.priority) : true": lambda it: (
        "priorityClassName" not in it or "priority" in it
    ),
    "has(self.minCount) ? self.minCount <= self.count : true": lambda it: it.get("minCount", 0) <= it["count"],
    "self.all(x, !has(x.key) ? x.operator == 'Exists' : true)": _all(
        lambda one: "key" in one or one.get("operator") == "Exists"
    ),
    "self.all(x, has(x.tolerationSeconds) ? x.effect == 'NoExecute' : true)": _all(
        lambda one: "tolerationSeconds" not in one or one.get("effect") == "NoExecute"
    ),
    "self.all(x, !has(x.operator) || x.operator in ['Equal', 'Exists'])": _all(
        lambda one: one.get("operator", "Equal") in ("Equal", "Exists")
    ),
    "self.all(x, has(x.operator) && x.operator == 'Exists' ? !has(x.value) : true)": _all(
        lambda one: one.get("operator") != "Exists" or "value" not in one
    ),
    "self.all(x, !has(x.effect) || x.effect in ['NoSchedule', 'PreferNoSchedule', 'NoExecute'])": _all(
        lambda one: one.get("effect", "NoSchedule") in ("NoSchedule", "PreferNoSchedule", "NoExecute")
    ),
    "self.all(x, x.effect in ['NoSchedule', 'PreferNoSchedule', 'NoExecute'])": _all(
        lambda one: one.get("effect") in ("NoSchedule", "PreferNoSchedule", "NoExecute")
    ),
    "!has(self.priorityClassRef) || has(self.priority)": lambda it: "priorityClassRef" not in it or "priority" in it,
    "(self.group == 'scheduling.k8s.io') ? self.kind == 'PriorityClass' : true": lambda it: (
        it["group"] != "scheduling.k8s.io" or it["kind"] == "PriorityClass"
    ),
    "(self.group == 'kueue.x-k8s.io') ? self.kind == 'WorkloadPriorityClass' : true": lambda it: (
        it["group"] != "kueue.x-k8s.io" or it["kind"] == "WorkloadPriorityClass"
    ),
    "self.flavors.all(x, size(x.resources) == size(self.coveredResources))": lambda it: all(
        len(flavor["resources"]) == len(it["coveredResources"]) for flavor in it["flavors"]
    ),
    "size(self.filter(i, size(self.filter(j, j == i)) > 1)) == 0": lambda it: all(it.count(one) == 1 for one in it),
    "size(self.filter(i, i.nodeLabel == 'kubernetes.io/hostname')) == 0 || "
    "self[size(self) - 1].nodeLabel == 'kubernetes.io/hostname'": lambda it: all(
        one["nodeLabel"] != "kubernetes.io/hostname" for one in it[:-1]
    ),
    **{
        f"!has(self.{cohort}) && has(self.resourceGroups) ? self.resourceGroups.all(rg, rg.flavors.all(f, f.resources.all(r, "
        "!has(r.borrowingLimit)))) : true": lambda it, cohort=cohort: (  # type: ignore[misc]
            cohort in it
            or not any(
                "borrowingLimit" in one
                for group in it.get("resourceGroups", [])
                for flavor in group["flavors"]
                for one in flavor["resources"]
            )
        )
        for cohort in ("cohort", "cohortName")
    },
    "!has(self.preference) || (self.whenCanBorrow == 'TryNextFlavor' && self.whenCanPreempt == 'TryNextFlavor')": lambda it: (
        "preference" not in it or it.get("whenCanBorrow") == it.get("whenCanPreempt") == "TryNextFlavor"
    ),
    "!(self.reclaimWithinCohort == 'Never' && has(self.borrowWithinCohort) &&  "
    "self.borrowWithinCohort.policy != 'Never')": lambda it: (
        it.get("reclaimWithinCohort", "Never") != "Never"
        or it.get("borrowWithinCohort", {}).get("policy", "Never") == "Never"
    ),
    "!has(self.topologyName) || self.nodeLabels.size() >= 1": lambda it: (
        "topologyName" not in it or bool(it.get("nodeLabels"))
    ),
    "!has(self.clusterName) || (!has(self.nominatedClusterNames) || (has(self.nominatedClusterNames) && "
    "size(self.nominatedClusterNames) == 0))": lambda it: (
        "clusterName" not in it or not it.get("nominatedClusterNames")
    ),
    f"self.all(t, {_count('t', _ONE_TEMPLATE)} <= 1)": _all(lambda one: len({*_ONE_TEMPLATE} & set(one)) <= 1),
    f"{_count('self', _ONE_SOURCE)} <= 1": lambda it: len({*_ONE_SOURCE} & set(it)) <= 1,
    "self.all(t, !(has(t.activeDeadlineSeconds) && (has(t.steps) || has(t.dag))))": _all(
        lambda one: "activeDeadlineSeconds" not in one or not {"steps", "dag"} & set(one)
    ),
    'self.all(t, !(has(t.timeout) && t.timeout != "" && (has(t.steps) || has(t.dag))))': _all(
        lambda one: not one.get("timeout") or not {"steps", "dag"} & set(one)
    ),
    "!has(self.depends) || !has(self.dependencies)": lambda it: not {"depends", "dependencies"} <= set(it),
    "!has(self.depends) || !has(self.continueOn)": lambda it: not {"depends", "continueOn"} <= set(it),
    "!(has(self.depends) || has(self.dependencies)) || !self.name.matches('^[0-9]')": lambda it: (
        not {"depends", "dependencies"} & set(it) or not re.match("[0-9]", it["name"])
    ),
    "!(has(self.count) && has(self.end))": lambda it: not {"count", "end"} <= set(it),
    "(has(self.manifest) && !has(self.manifestFrom)) || (!has(self.manifest) && has(self.manifestFrom)) || "
    "(!has(self.manifest) && !has(self.manifestFrom))": lambda it: not {"manifest", "manifestFrom"} <= set(it),
    "!has(self.realtime) || !self.realtime || !self.value.contains('resourcesDuration.')": lambda it: (
        not it.get("realtime") or "resourcesDuration." not in it["value"]
    ),
}
NOT_CHECKED = (
    "has(self.status) && has(self.status.conditions) && self.status.conditions.exists(c, c.type == 'QuotaReserved' && "
    "c.status == 'True') && has(self.status.admission) ? size(self.spec.podSets) == "
    "size(self.status.admission.podSetAssignments) : true",
    "self.slices.all(x, size(x.valuesPerLevel) == size(self.levels))",
    "!has(self.podCounts.individual) || size(self.podCounts.individual) == self.domainCount",
    "self.valuesPerLevel.all(x, !has(x.individual) || size(x.individual.roots) == self.domainCount)",
    "[has(self.universal),has(self.individual)].filter(x,x==true).size() == 1",
    "has(self.universal) != has(self.individual)",
)
"""Of the status of a Workload, which Kueue alone writes."""


def faults(made: Mapping[str, Any]) -> list[str]:
    """What an API server would refuse or drop, by path; empty for an object that it takes as it is."""
    group, _, version = str(made.get("apiVersion", "")).rpartition("/")
    schema = (argo() if group == _ARGO else schemas()).get((group, version, str(made.get("kind"))))
    if schema is None:
        return list(_of_kubernetes(made))
    found = list(_checked(schema, made, str(made["kind"]), top=True))
    found += _metadata(made.get("metadata", {}), str(made["kind"]))
    for path, pod in pods(made) if group != _ARGO else ():  # its schema says all of its containers, which are no pods
        found += [f"{path}: {fault}" for fault in _of_kubernetes(_as_pod(pod))]
    return found


@functools.cache
def schemas() -> dict[tuple[str, str, str], dict[str, Any]]:
    """(group, version, kind) -> schema of every custom kind in `crds/`, but Argo's."""
    return _served(file.read_bytes() for file in sorted(CRDS.glob("*/*.yaml")))


@functools.cache
def argo() -> dict[tuple[str, str, str], dict[str, Any]]:
    """The same of Argo's kinds: read by themselves, since they take seconds."""
    with tarfile.open(CRDS / "argo.tar.xz") as packed:
        files = [packed.extractfile(member) for member in packed if member.isfile()]
        return _served(file.read() for file in files if file)


def _served(files: Iterable[bytes]) -> dict[tuple[str, str, str], dict[str, Any]]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = {}
    for file in files:
        spec = yaml.load(file, Loader=loader)["spec"]
        for version in spec["versions"]:
            if version["served"]:
                found[spec["group"], version["name"], spec["names"]["kind"]] = version["schema"]["openAPIV3Schema"]
    return found


def pods(made: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(path, pod template) of every whole pod within an object: of patches, which are parts of one, none."""
    if isinstance(made, Mapping):
        if isinstance(made.get("containers"), list) and all("image" in one for one in made["containers"]):
            yield path, {"spec": made}
        for name, inner in made.items():
            yield from pods(inner, f"{path}.{name}".lstrip("."))
    elif isinstance(made, list):
        for index, inner in enumerate(made):
            yield from pods(inner, f"{path}[{index}]")


def rules() -> set[str]:
    """Every rule in CEL of every schema that says something of a new object."""

    def within(schema: Any) -> Iterator[str]:
        if isinstance(schema, Mapping):
            told = schema.get("x-kubernetes-validations")
            yield from (rule["rule"] for rule in told or () if isinstance(told, list))
            for inner in schema.values():
                yield from within(inner)
        elif isinstance(schema, list):
            for inner in schema:
                yield from within(inner)

    return {
        rule for schema in (*schemas().values(), *argo().values()) for rule in within(schema) if "oldSelf" not in rule
    }


def _of_kubernetes(made: Mapping[str, Any]) -> Iterator[str]:
    try:
        kubernetes_validate.validate(dict(made), VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        yield error.message


def _as_pod(template: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": template["spec"]}


def _metadata(metadata: Mapping[str, Any], kind: str) -> list[str]:
    """Custom schemas say of it no more than that it is an object."""
    found = [
        f"{kind}.metadata: {fault}"
        for fault in _of_kubernetes({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    ]
    name = metadata.get("name", metadata.get("generateName", ""))
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", str(name)):
        found.append(f"{kind}.metadata.name: {name!r} is no name")
    value = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
    found += [
        f"{kind}.metadata.labels[{label}]: {text!r} is no value of a label"
        for label, text in metadata.get("labels", {}).items()
        if not (isinstance(text, str) and value.fullmatch(text))
    ]
    return found


def _checked(schema: Mapping[str, Any], value: Any, path: str, *, top: bool = False) -> Iterator[str]:
    """Faults of a value by a structural schema."""
    if value is None:
        if not schema.get("nullable"):
            yield f"{path}: null"
        return
    if schema.get("x-kubernetes-int-or-string"):
        if not (_TYPES["integer"](value) or _TYPES["string"](value)):
            yield f"{path}: {value!r} is neither a whole number nor text"
            return
    elif "type" in schema and not _TYPES[schema["type"]](value):
        yield f"{path}: {value!r} is no {schema['type']}"
        return
    yield from _bounds(schema, value, path)
    if isinstance(value, Mapping):
        yield from _fields(schema, value, path, top)
    elif isinstance(value, list):
        yield from _items(schema, value, path)
    for name in ("allOf", "anyOf", "oneOf"):
        fitting = sum(not list(_checked({**each, **_OPEN}, value, path)) for each in schema.get(name, []))
        least = {"allOf": len(schema.get(name, [])), "anyOf": 1, "oneOf": 1}[name]
        if name in schema and (fitting < least or (name == "oneOf" and fitting > 1)):
            yield f"{path}: {value!r} fits {fitting} of {name}"
    for rule in schema.get("x-kubernetes-validations", []):
        words = rule["rule"]
        if "oldSelf" not in words and words not in NOT_CHECKED and not RULES[words](value):
            yield f"{path}: {rule.get('message') or words}"


def _bounds(schema: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"{path}: {value!r} is not of the form {schema['pattern']}"
        yield from _sized(schema, len(value), "Length", path)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and (value < schema.get("minimum", value) or value > schema.get("maximum", value)):
        yield f"{path}: {value} is out of bounds"
    told = schema.get("format")
    if told in _FORMATS and (told != "date-time" or isinstance(value, str)) and not _FORMATS[told](value):
        yield f"{path}: {value!r} is no {told}"


def _sized(schema: Mapping[str, Any], size: int, what: str, path: str) -> Iterator[str]:
    if not schema.get(f"min{what}", 0) <= size <= schema.get(f"max{what}", size):
        yield f"{path}: {size} of {schema.get(f'min{what}', 0)} to {schema.get(f'max{what}', 'any')} ({what})"


def _fields(schema: Mapping[str, Any], value: Mapping[str, Any], path: str, top: bool) -> Iterator[str]:
    yield from (f"{path}: {name!r} is missing" for name in schema.get("required", []) if name not in value)
    yield from _sized(schema, len(value), "Properties", path)
    known = schema.get("properties", {})
    rest = schema.get("additionalProperties")
    for name, inner in value.items():
        if top and name in _RESERVED:
            continue  # `_metadata`
        if name in known:
            yield from _checked(known[name], inner, f"{path}.{name}")
        elif isinstance(rest, Mapping):
            yield from _checked(rest, inner, f"{path}.{name}")
        elif not (rest or schema.get("x-kubernetes-preserve-unknown-fields")):
            yield f"{path}: unknown field {name!r}"


def _items(schema: Mapping[str, Any], value: Sequence[Any], path: str) -> Iterator[str]:
    yield from _sized(schema, len(value), "Items", path)
    for index, inner in enumerate(value):
        yield from _checked(schema.get("items", {}), inner, f"{path}[{index}]")
    kind = schema.get("x-kubernetes-list-type")
    if kind == "map":
        names = schema["x-kubernetes-list-map-keys"]
        defaults = {name: schema["items"]["properties"][name].get("default") for name in names}
        places = [tuple(one.get(name, defaults[name]) for name in names) for one in value if isinstance(one, Mapping)]
        yield from (
            f"{path}: {place} stands there twice"
            for place in sorted(map(str, places))
            if list(map(str, places)).count(place) > 1
        )
    elif kind == "set" and len({str(one) for one in value}) < len(value):
        yield f"{path}: an item stands there twice"
