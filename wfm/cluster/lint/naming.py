"""What objects are called and labelled with: names, namespaces, labels, and what the launcher finds them by."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.quantity import whole
from wfm.cluster.lint.seen import HOLDERS, WORKFLOWS, Seen, Thing, at, rows, table, word
from wfm.cluster.names import (
    ANNOTATION_GENERATION,
    ANNOTATION_KEY,
    ANNOTATION_RUNS,
    ANNOTATION_TRY,
    LABEL_JOB,
    LONGEST,
    LONGEST_CRON,
    LONGEST_DASK,
    PREFIX,
    is_dns_1035,
    job_name,
)

_ARGO, _KUEUE = ("argoproj.io/v1alpha1",), ("kueue.x-k8s.io/v1beta2",)
_TRAINER, _DASK = ("trainer.kubeflow.org/v1alpha1",), ("kubernetes.dask.org/v1",)
KINDS: dict[str, tuple[str, ...]] = {
    "PyTorchJob": ("kubeflow.org/v1",),
    **dict.fromkeys(("TrainJob", "TrainingRuntime", "ClusterTrainingRuntime"), _TRAINER),
    **dict.fromkeys(("DaskJob", "DaskCluster", "DaskWorkerGroup"), _DASK),
    "JobSet": ("jobset.x-k8s.io/v1alpha2",),
    **dict.fromkeys(("Job", "CronJob"), ("batch/v1",)),
    **dict.fromkeys(("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"), ("apps/v1",)),
    **dict.fromkeys(
        (
            "Pod",
            "PersistentVolumeClaim",
            "ConfigMap",
            "Secret",
            "Service",
            "ServiceAccount",
            "Namespace",
            "ResourceQuota",
            "LimitRange",
        ),
        ("v1",),
    ),
    **dict.fromkeys(("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"), ("rbac.authorization.k8s.io/v1",)),
    "PodDisruptionBudget": ("policy/v1",),
    "PriorityClass": ("scheduling.k8s.io/v1",),
    "NetworkPolicy": ("networking.k8s.io/v1",),
    **dict.fromkeys(("PrometheusRule", "ServiceMonitor", "PodMonitor"), ("monitoring.coreos.com/v1",)),
    **dict.fromkeys(WORKFLOWS, _ARGO),
    **dict.fromkeys(
        ("ClusterQueue", "LocalQueue", "ResourceFlavor", "Cohort", "Topology", "WorkloadPriorityClass"), _KUEUE
    ),
}
"""Kinds that are looked at, and the versions of the API that are known of each."""
_CLUSTER_WIDE = {
    *("ClusterQueue", "ResourceFlavor", "Cohort", "Topology", "WorkloadPriorityClass", "PriorityClass", "Namespace"),
    *("ClusterTrainingRuntime", "ClusterWorkflowTemplate", "ClusterRole", "ClusterRoleBinding"),
}
_LONGEST = {
    "CronWorkflow": LONGEST_CRON,
    "CronJob": LONGEST_CRON,
    "DaskJob": LONGEST_DASK,
    "DaskCluster": LONGEST_DASK,
    **dict.fromkeys(("PyTorchJob", "TrainJob", "JobSet", "Job", *WORKFLOWS, "LocalQueue"), LONGEST),
}
_LONGEST["CronWorkflow"] = LONGEST_CRON
_DNS_1035 = {*HOLDERS, "DaskJob", "DaskCluster", "Service"}
_DNS_1123 = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
_ARGO_NAME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9]{0,127}")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LABEL_NAME = re.compile(r"([a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_KEY = re.compile(r"[0-9a-f]{64}")
_LIKE_A_KEY = re.compile(r"[0-9a-f]{40,}")
_MOST_BYTES = 2**20
NAME_KINDS = {
    "PyTorchJob": ("pytorchjob",),
    "TrainJob": ("trainjob",),
    "DaskJob": ("daskjob",),
    "Job": ("indexed_job", "parts"),
}
JOBS = tuple(NAME_KINDS)
"""Kinds that the launcher makes."""


@rule("object", "each is an object of a kind that is looked at here")
def object_(seen: Seen) -> Iterator[Found]:
    """What is of another kind could hold anything, and nobody would have looked."""
    for where, value in seen.odd:
        yield Found(where, value, "this is no object of Kubernetes: it needs apiVersion, kind and metadata")
    for thing in seen.things:
        versions = KINDS.get(thing.kind)
        if versions is None:
            says = f"objects of this kind are not looked at; choices: {', '.join(sorted(KINDS))}"
            yield Found(thing.where("kind"), thing.kind, says)
        elif word(thing.content, "apiVersion") not in versions:
            says = f"of a {thing.kind} these are known: {', '.join(versions)}"
            yield Found(thing.where("apiVersion"), at(thing.content, "apiVersion"), says)


@rule("fixed-name", "each object has a name of its own choosing")
def fixed_name(seen: Seen) -> Iterator[Found]:
    """With ``generateName`` a request that is sent twice makes two."""
    for thing in seen.things:
        if at(thing.content, "metadata.generateName") is not None:
            says = "a request that is sent twice makes two of them: give metadata.name"
            yield Found(thing.where("metadata.generateName"), at(thing.content, "metadata.generateName"), says)
        elif not thing.name:
            yield Found(thing.where("metadata.name"), at(thing.content, "metadata.name"), "give a name")


@rule("name", "names are short enough for what is appended to them")
def name(seen: Seen) -> Iterator[Found]:
    """63 characters at most; 52 of what makes jobs at times, 40 of a DaskJob; less where a pod's own name grows from it."""
    for thing in seen.things:
        fault = _name_fault(thing, seen)
        if thing.name and fault:
            yield Found(thing.where("metadata.name"), thing.name, fault)


@rule("inner-name", "what stands inside an object has a name that can be")
def inner_name(seen: Seen) -> Iterator[Found]:
    """Containers and volumes; templates and tasks of a workflow, which take no ``_``."""
    for pod in seen.pods:
        listed = [(each.where, each.content) for each in pod.containers] + [
            (pod.where(f"volumes.{place}"), each) for place, each in rows(pod.content, "volumes")
        ]
        for where, each in listed:
            given = at(each, "name")
            if given is None and pod.owner.kind in WORKFLOWS:
                continue
            if not (isinstance(given, str) and len(given) <= LONGEST and _DNS_1123.fullmatch(given)):
                yield Found(f"{where}.name", given, "give a name of a-z, 0-9 and -, at most 63 long")
    for thing in seen.of(*WORKFLOWS):
        base = WORKFLOWS[thing.kind]
        for place, template in rows(thing.content, f"{base}.templates"):
            several = [(f"templates.{place}", template)]
            several += [(f"templates.{place}.dag.tasks.{number}", task) for number, task in rows(template, "dag.tasks")]
            for path, each in several:
                given = at(each, "name")
                if not (isinstance(given, str) and _ARGO_NAME.fullmatch(given)):
                    says = (
                        "give a name of letters, digits and -, at most 128 long (wfm.cluster.names.node_name makes one)"
                    )
                    yield Found(thing.where(f"{base}.{path}.name"), given, says)


@rule("job-name", "a job is called after what it makes")
def job_name_(seen: Seen) -> Iterator[Found]:
    """One name for a key and generation: so the API server itself keeps it to one living job."""
    for thing in seen.of(*JOBS):
        told = table(thing.content, "metadata.annotations")
        key, generation = told.get(ANNOTATION_KEY), whole(told.get(ANNOTATION_GENERATION))
        if not isinstance(key, str) or generation is None or not thing.name or _name_fault(thing, seen):
            continue
        names = [job_name(kind, key, generation) for kind in NAME_KINDS[thing.kind]]
        if thing.name not in names:
            says = f"of this key and generation it is {' or '.join(names)}: another name could live beside it"
            yield Found(thing.where("metadata.name"), thing.name, says)


@rule("annotations", "a job says in full which key it makes")
def annotations(seen: Seen) -> Iterator[Found]:
    """Key (64 digits), generation, try and runs: by these a launcher adopts it."""
    for thing in seen.of(*JOBS):
        if not seen.is_of_a_stage(thing):
            continue
        told = table(thing.content, "metadata.annotations")
        key, runs = told.get(ANNOTATION_KEY), told.get(ANNOTATION_RUNS)
        if not (isinstance(key, str) and _KEY.fullmatch(key)):
            yield Found(
                thing.where(f"metadata.annotations[{ANNOTATION_KEY}]"), key, "give the whole key, 64 digits of it"
            )
        for each in (ANNOTATION_GENERATION, ANNOTATION_TRY):
            if not isinstance(told.get(each), str) or (whole(told[each]) or 0) < 1:
                says = "give a whole number from 1 on, as text"
                yield Found(thing.where(f"metadata.annotations[{each}]"), told.get(each), says)
        if not (isinstance(runs, str) and runs.strip()):
            says = "name the runs that need it: a cancel of one must not end it for the others"
            yield Found(thing.where(f"metadata.annotations[{ANNOTATION_RUNS}]"), runs, says)
        for pod in seen.pods_of(thing):
            for each, value in table(pod.metadata, "annotations").items():
                if (
                    each.startswith(PREFIX)
                    and each in (ANNOTATION_KEY, ANNOTATION_GENERATION, ANNOTATION_TRY)
                    and value != told.get(each)
                ):
                    says = f"the job itself has {told.get(each)!r}"
                    yield Found(thing.where(f"{pod.metadata_path}.annotations[{each}]"), value, says)


@rule("job-label", "a job and its pods are found by one label")
def job_label(seen: Seen) -> Iterator[Found]:
    """The label `LABEL_JOB` is the job's name, on the job and on the templates of its pods."""
    for thing in seen.of(*JOBS):
        if not seen.is_of_a_stage(thing):
            continue
        places = [("metadata.labels", table(thing.content, "metadata.labels"))]
        for pod in seen.pods_of(thing):
            if pod.role in ("rank", "index", "worker"):
                places.append((f"{pod.metadata_path}.labels", table(pod.metadata, "labels")))
        for path, found in places:
            if found.get(LABEL_JOB) != thing.name and thing.name:
                says = f"the launcher looks for {LABEL_JOB}={thing.name}: set it"
                yield Found(thing.where(f"{path}[{LABEL_JOB}]"), found.get(LABEL_JOB), says)


@rule("twice", "no two objects of one name")
def twice(seen: Seen) -> Iterator[Found]:
    """The second would replace the first, or be refused. The same object twice is one: what several flows share is compiled
    with each."""
    found: dict[tuple[str, str, str], list[Any]] = {}
    for thing in seen.things:
        if thing.name:
            found.setdefault((thing.kind, thing.namespace, thing.name), []).append(thing.content)
    for (kind, _, called), several in found.items():
        if any(each != several[0] for each in several):
            says = f"{len(several)} objects have it, and are not the same: name each by what it makes"
            yield Found(f"{kind}/{called}: metadata.name", called, says)


@rule("namespace", "everything lies in one namespace")
def namespace(seen: Seen) -> Iterator[Found]:
    """That of the settings; without settings, that of most."""
    local = [thing for thing in seen.things if thing.kind in KINDS and thing.kind not in _CLUSTER_WIDE]
    given = Counter(thing.namespace for thing in local if thing.namespace)
    wanted = seen.settings.namespace if seen.known else given.most_common(1)[0][0] if given else ""
    for thing in local:
        if thing.namespace != wanted:
            says = f"everything of a run lies in {wanted!r}: a queue, a secret or a job elsewhere is not found"
            yield Found(thing.where("metadata.namespace"), at(thing.content, "metadata.namespace"), says)


@rule("label-form", "labels are what Kubernetes takes for labels")
def label_form(seen: Seen) -> Iterator[Found]:
    """A value has 63 characters at most, of letters, digits, ``-``, ``_`` and ``.``."""
    for where, label, value in _labels(seen):
        if not _LABEL_NAME.fullmatch(label):
            yield Found(
                f"{where}[{label[:80]}]", value, "this name of a label is none: prefix/name, 63 characters for the name"
            )
        if isinstance(value, str) and _LIKE_A_KEY.search(value):
            continue
        if not (isinstance(value, str) and _VALUE.fullmatch(value)):
            says = "at most 63 letters, digits, -, _ and . stand in a label; longer text goes into an annotation"
            yield Found(f"{where}[{label[:80]}]", value, says)


@rule("key-in-label", "no key stands in a label")
def key_in_label(seen: Seen) -> Iterator[Found]:
    """It has 64 digits, one too many; a part of it is no key. The whole stands in an annotation."""
    for where, label, value in _labels(seen):
        if isinstance(value, str) and _LIKE_A_KEY.search(value):
            says = f"a key has 64 digits, one more than fits: put the whole into annotation {ANNOTATION_KEY}"
            yield Found(f"{where}[{label[:80]}]", value, says)


@rule("size", "an object fits into the cluster's database")
def size(seen: Seen) -> Iterator[Found]:
    """1 MiB as JSON: beyond 1.5 MB etcd refuses it, and a workflow's status grows on top."""
    for thing in seen.things:
        try:
            bytes_ = len(json.dumps(thing.content, ensure_ascii=False, allow_nan=False).encode())
        except (TypeError, ValueError, RecursionError) as error:
            yield Found(thing.where("(whole)"), type(error).__name__, f"it cannot be written as JSON: {error}")
            continue
        if bytes_ > _MOST_BYTES:
            says = f"at most {_MOST_BYTES} bytes: put work that is counted by the corpus into ranges of parts, not into tasks"
            yield Found(thing.where("(whole)"), bytes_, says)


def _name_fault(thing: Thing, seen: Seen) -> str:
    """What is wrong with an object's name; empty when nothing is."""
    longest = _LONGEST.get(thing.kind, 253)
    suffix = _suffix(thing, seen)
    room = min(longest, LONGEST - suffix if suffix else longest)
    if len(thing.name) > room:
        more = f", since {suffix} are appended for its pods" if room < longest else ""
        return (
            f"it has {len(thing.name)} characters, a {thing.kind} may have {room}{more}: wfm.cluster.names makes such"
        )
    if thing.kind in _DNS_1035 and not is_dns_1035(thing.name):
        return "a job's name has a-z, 0-9 and -, a letter first and no - at the end: wfm.cluster.names makes such names"
    if thing.kind not in _DNS_1035 and not _SUBDOMAIN.fullmatch(thing.name):
        return "give a name of a-z, 0-9, - and ., a letter or digit at both ends"
    return ""


def _suffix(thing: Thing, seen: Seen) -> int:
    """How many characters a controller appends where the pod's name is also its host's, or a service's."""
    pods = seen.pods_of(thing)
    most = max((pod.replicas for pod in pods), default=1)
    digits = len(str(max(most - 1, 0)))
    if thing.kind == "PyTorchJob":
        return len("-worker-") + digits
    if thing.kind == "TrainJob":
        return len("-node-0-") + digits
    if thing.kind == "Job":
        return 1 + len(str(max((whole(at(thing.content, "spec.completions")) or 1) - 1, 0)))
    return 0


def _labels(seen: Seen) -> Iterator[tuple[str, str, Any]]:
    """Every label: where it stands, its name, its value."""
    for thing in seen.things:
        paths = [
            "metadata.labels",
            "spec.selector.matchLabels",
            f"{WORKFLOWS.get(thing.kind, 'spec')}.podMetadata.labels",
        ]
        paths += ["spec.labels", "spec.workflowMetadata.labels", "spec.podLabels"]
        paths += [f"{pod.metadata_path}.labels" for pod in seen.pods_of(thing)]
        for path in dict.fromkeys(paths):
            for label, value in table(thing.content, path).items():
                yield thing.where(path), label, value
