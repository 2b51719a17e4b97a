"""Kueue: what holds the devices waits in the queue, and nothing else; nobody but Kueue says when it runs."""

from collections.abc import Iterator
from typing import Any

from wfm.cluster.lint.demand import has_devices
from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.naming import KINDS
from wfm.cluster.lint.quantity import amount
from wfm.cluster.lint.seen import HOLDERS, WORKFLOWS, Seen, Thing, at, rows, table, word, words
from wfm.cluster.pod import QUEUE, WORKLOAD_PRIORITY

_PREFIX = "kueue.x-k8s.io/"
_WORKERS = "spec.cluster.spec.worker.metadata"
_SUSPENDED = {"PyTorchJob": "spec.runPolicy", "Job": "spec", "JobSet": "spec", "TrainJob": "spec"}
_INTEGRATIONS = {
    "PyTorchJob": ("pytorchjob",),
    "TrainJob": ("trainjob",),
    "Job": ("job",),
    "JobSet": ("jobset",),
    "DaskJob": ("pod", "deployment"),
    "Deployment": ("deployment",),
}
_PAST_THE_QUEUE = (
    *("runner", "scheduler", "stage", "launcher", "pipeline", "planner", "notice", "exporter", "scaler", "retention"),
)
"""Roles of pods that wait in no queue."""
_KNOWN_LABELS = {
    QUEUE,
    WORKLOAD_PRIORITY,
    *(f"{_PREFIX}{name}" for name in ("max-exec-time-seconds", "managed", "pod-group-name")),
}


@rule("queue-label", "what holds devices names its queue")
def queue_label(seen: Seen) -> Iterator[Found]:
    """``kueue.x-k8s.io/queue-name`` on the job, or on the workers of a DaskJob, naming the queue of the settings."""
    queues = {thing.name for thing in seen.of("LocalQueue")}
    wanted = seen.settings.queue
    for thing, path, labels in _holders(seen):
        value = labels.get(QUEUE)
        if not wanted and seen.known:
            if value is not None:
                says = "the settings of the cluster name no queue, so nothing would ever admit it: set queue there, or drop it"
                yield Found(thing.where(f"{path}[{QUEUE}]"), value, says)
            continue
        if not isinstance(value, str) or not value:
            if wanted or queues or _anybody_waits(seen):
                near = [label for label in labels if label.startswith(_PREFIX) and label not in _KNOWN_LABELS]
                says = (
                    f"without it it takes devices past the queue: set it to {wanted or 'a LocalQueue of the namespace'}"
                )
                says += f" (it has {', '.join(near)}, which nobody reads)" if near else ""
                yield Found(thing.where(f"{path}[{QUEUE}]"), value, says)
        elif (wanted and value != wanted) or (queues and value not in queues):
            choices = wanted or ", ".join(sorted(queues))
            yield Found(thing.where(f"{path}[{QUEUE}]"), value, f"no such queue is known here: choices {choices}")
    for pod in seen.pods:
        for each in pod.containers if pod.role in _PAST_THE_QUEUE else ():
            for name in (seen.settings.gpu_resource, seen.settings.rdma_resource):
                if amount(each.amount_of("limits", name)):
                    says = "it waits in no queue, so these devices are taken past it: leave them to a job's own pods"
                    yield Found(f"{each.where}.resources.limits.{name}", each.amount_of("limits", name), says)


@rule("priority-label", "what waits in the queue has the priority of the settings")
def priority_label(seen: Seen) -> Iterator[Found]:
    """``kueue.x-k8s.io/priority-class``, where the settings name one."""
    classes = {thing.name for thing in seen.of("WorkloadPriorityClass")}
    for thing, path, labels in _holders(seen):
        value = labels.get(WORKLOAD_PRIORITY)
        if QUEUE not in labels:
            continue
        wanted = seen.settings.workload_priority
        if (wanted and not value) or (value is not None and not (isinstance(value, str) and value)):
            says = f"it would wait behind everything else: set it to {wanted or 'a WorkloadPriorityClass, or leave it out'}"
            yield Found(thing.where(f"{path}[{WORKLOAD_PRIORITY}]"), value, says)
        elif value and classes and value not in classes:
            says = f"there is no such WorkloadPriorityClass: choices {', '.join(sorted(classes))}"
            yield Found(thing.where(f"{path}[{WORKLOAD_PRIORITY}]"), value, says)


@rule("queue-place", "queue and priority stand only on what holds devices")
def queue_place(seen: Seen) -> Iterator[Found]:
    """On a launcher, a runner, a scheduler, a workflow or a pod's template a label makes it wait a second time, each for the
    other; as an annotation nobody reads it."""
    cure = "leave it to what holds the devices (the job; of a DaskJob its workers)"
    holders = {(id(thing), path) for thing, path, _ in _holders(seen)}
    for thing in seen.of(*KINDS):
        for path, labels in _metadata_of(seen, thing, "labels"):
            for label in labels:
                if label.startswith(_PREFIX) and (id(thing), path) not in holders:
                    yield Found(
                        thing.where(f"{path}[{label}]"), labels[label], f"it would wait in the queue itself: {cure}"
                    )
        for path, told in _metadata_of(seen, thing, "annotations"):
            for label in (QUEUE, WORKLOAD_PRIORITY):
                if label in told:
                    yield Found(
                        thing.where(f"{path}[{label}]"), told[label], f"it is a label, not an annotation: {cure}"
                    )
        scheduling = table(thing.content, "spec.runPolicy.schedulingPolicy")
        if scheduling.get("queue"):
            path = "spec.runPolicy.schedulingPolicy.queue"
            yield Found(
                thing.where(path), scheduling["queue"], f"this is for Volcano and Kueue does not read it: {cure}"
            )


@rule("integration", "Kueue takes up the kind here")
def integration(seen: Seen) -> Iterator[Found]:
    """A label on a kind whose integration is off is read by nobody: the job runs past the queue."""
    for thing, path, labels in _holders(seen):
        needed = _INTEGRATIONS.get(thing.kind, ())
        if QUEUE in labels and seen.known and not set(needed) & set(seen.settings.integrations):
            says = (
                f"Kueue takes up {', '.join(seen.settings.integrations) or 'nothing'} here: have {' or '.join(needed)} "
                "switched on, and say so in integrations of the cluster's settings, or choose another kind of job"
            )
            yield Found(thing.where(f"{path}[{QUEUE}]"), labels[QUEUE], says)


@rule("suspend", "nobody but Kueue suspends a job in a queue")
def suspend(seen: Seen) -> Iterator[Found]:
    """``suspend`` is Kueue's own word; where there is no queue, true would keep the job from ever running."""
    for thing in seen.things:
        base = _SUSPENDED.get(thing.kind)
        value = at(thing.content, f"{base}.suspend") if base else None
        queued = QUEUE in table(thing.content, "metadata.labels")
        if value is not None and (queued or value is not False):
            says = "Kueue sets it when it admits the job and takes it back: leave it out"
            yield Found(thing.where(f"{base}.suspend"), value, says)
        for place, each in enumerate(at(thing.content, "spec.replicatedJobs") or () if thing.kind == "JobSet" else ()):
            if at(each, "template.spec.suspend") is not None:
                path = f"spec.replicatedJobs.{place}.template.spec.suspend"
                yield Found(thing.where(path), at(each, "template.spec.suspend"), "the JobSet sets it: leave it out")
        flow = WORKFLOWS.get(thing.kind)
        for path in {flow, "spec"} if flow else ():
            if at(thing.content, f"{path}.suspend"):
                says = "nothing of it would ever start: leave it out"
                yield Found(thing.where(f"{path}.suspend"), at(thing.content, f"{path}.suspend"), says)


@rule("managed-by", "a job is left to its own controller")
def managed_by(seen: Seen) -> Iterator[Found]:
    """``managedBy`` hands it to another, and without that one it stands still."""
    for thing in seen.things:
        base = _SUSPENDED.get(thing.kind)
        value = at(thing.content, f"{base}.managedBy") if base else None
        if value is not None and value not in (
            "trainer.kubeflow.org/trainjob-controller",
            "kubeflow.org/training-operator",
        ):
            yield Found(
                thing.where(f"{base}.managedBy"), value, "no such controller is reckoned with here: leave it out"
            )


@rule("open-queue", "the queue is open")
def open_queue(seen: Seen) -> Iterator[Found]:
    """``stopPolicy`` keeps everything out; so do a selector of no namespaces, and flavours that cover something else."""
    for thing in seen.of("ClusterQueue", "LocalQueue"):
        value = at(thing.content, "spec.stopPolicy")
        if value not in (None, "None"):
            says = "nothing would be admitted: None, or leave it out"
            yield Found(thing.where("spec.stopPolicy"), value, says)
    for thing in seen.of("ClusterQueue"):
        if not isinstance(at(thing.content, "spec.namespaceSelector"), dict):
            says = "without one it takes nothing from any namespace: {} is all of them"
            yield Found(thing.where("spec.namespaceSelector"), at(thing.content, "spec.namespaceSelector"), says)
        named = table(thing.content, "spec.namespaceSelector.matchLabels").get("kubernetes.io/metadata.name")
        if seen.known and named not in (None, seen.settings.namespace):
            says = f"it takes nothing from the namespace {seen.settings.namespace}: name that, or {{}} for all"
            yield Found(thing.where("spec.namespaceSelector.matchLabels"), named, says)
        for place, group in rows(thing.content, "spec.resourceGroups"):
            covered = words(group, "coveredResources")
            for number, flavour in rows(group, "flavors"):
                listed = [word(each, "name") for _, each in rows(flavour, "resources")]
                if sorted(listed) != sorted(covered):
                    says = f"it must list what the group covers, {', '.join(covered)}: the webhook refuses it"
                    yield Found(thing.where(f"spec.resourceGroups.{place}.flavors.{number}.resources"), listed, says)
    clusters = {thing.name for thing in seen.of("ClusterQueue")}
    for thing in seen.of("LocalQueue"):
        value = word(thing.content, "spec.clusterQueue")
        if clusters and value not in clusters:
            yield Found(
                thing.where("spec.clusterQueue"), value, f"no such ClusterQueue; choices: {', '.join(sorted(clusters))}"
            )


def _holders(seen: Seen) -> Iterator[tuple[Thing, str, dict[str, Any]]]:
    """Where the queue's label belongs: the thing, the path of the labels, the labels."""
    for thing in seen.of(*HOLDERS, "DaskJob", "Deployment"):
        if not (seen.is_of_a_stage(thing) or _serves_models(seen, thing)):
            continue
        path = f"{_WORKERS}.labels" if thing.kind == "DaskJob" else "metadata.labels"
        yield thing, path, table(thing.content, path)


def _serves_models(seen: Seen, thing: Thing) -> bool:
    """Whether it is the captioning service, with devices: Kueue takes up a Deployment by its own label."""
    return any(pod.role == "captioning" and has_devices(pod) for pod in seen.pods_of(thing))


def _anybody_waits(seen: Seen) -> bool:
    return any(QUEUE in labels for _, _, labels in _holders(seen))


def _metadata_of(seen: Seen, thing: Thing, what: str) -> list[tuple[str, dict[str, Any]]]:
    """All places of an object where labels (or annotations) stand that its pods get."""
    paths = [f"metadata.{what}", f"spec.{what}", f"spec.workflowMetadata.{what}"]
    paths += [f"{pod.metadata_path}.{what}" for pod in seen.pods_of(thing)]
    if thing.kind in WORKFLOWS:
        paths += [f"{WORKFLOWS[thing.kind]}.{name}.{what}" for name in ("podMetadata", "workflowMetadata")]
    if thing.kind in ("JobSet", "TrainingRuntime", "ClusterTrainingRuntime"):
        base = "spec" if thing.kind == "JobSet" else "spec.template.spec"
        several = at(thing.content, f"{base}.replicatedJobs")
        for place in range(len(several) if isinstance(several, list) else 0):
            paths.append(f"{base}.replicatedJobs.{place}.template.metadata.{what}")
    return [(path, table(thing.content, path)) for path in dict.fromkeys(paths)]
