"""Each pod by what it is for: a stage, a launcher, a planner, a notice, a server (`wfm.cluster.names.ROLES`)."""

from collections.abc import Iterator

from wfm.cluster.lint.demand import has_devices
from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.quantity import amount, seconds, whole
from wfm.cluster.lint.seen import SERVERS, STAGE_ROLES, WORKFLOWS, Container, Pod, Seen, at, table, word
from wfm.cluster.lint.templates import started_role
from wfm.cluster.lint.workflows import is_ours
from wfm.cluster.names import LABEL_ROLE, ROLES

_WORKERS = (*STAGE_ROLES, "stage", "launcher", "pipeline", "planner")
"""Pods that work to an end, and may be silent for long."""
_LOADING = 600
"""A model of tens of GB is read before its server answers [s]."""
_PERIOD, _FAILURES = 10, 3
"""Of a probe that does not say."""


@rule("pod-role", "a pod says what it is for, and does that")
def pod_role(seen: Seen) -> Iterator[Found]:
    """The label `LABEL_ROLE`: network policies let in and out by it, and each role has rules of its own."""
    choices = ", ".join(ROLES)
    for pod in seen.pods:
        told = {**_given_labels(pod), **table(pod.metadata, "labels")}.get(LABEL_ROLE)
        where = pod.owner.where(f"{pod.metadata_path}.labels[{LABEL_ROLE}]")
        started = "stage" if pod.role in STAGE_ROLES else started_role(pod.containers)
        if told is not None and told not in ROLES:
            yield Found(where, told, f"there is no such role; choices: {choices}")
        elif told is not None and started not in (None, told):
            says = f"what it starts is a {started}: say that, else it is held to the rules of another, and reached by others"
            yield Found(where, told, says)
        elif told is None and pod.half != "runtime" and (pod.role != "other" or is_ours(seen, pod) or has_devices(pod)):
            known = "stage" if pod.role in STAGE_ROLES else pod.role
            says = f"name its role, {known if known != 'other' else choices}: policies of the network let it in and out by it"
            yield Found(where, told, says)


def _given_labels(pod: Pod) -> dict[str, object]:
    """Labels that a pod gets from its owner: a DaskJob hands its own to all, a workflow those of ``podMetadata``."""
    if pod.owner.kind == "DaskJob":
        return table(pod.owner.content, "metadata.labels")
    return table(pod.owner.content, f"{WORKFLOWS.get(pod.owner.kind, 'spec')}.podMetadata.labels")


@rule("probe", "nothing ends a pod that works in silence, and a server is asked whether it is ready")
def probe(seen: Seen) -> Iterator[Found]:
    """No liveness probe on what works to an end: one long step looks like a hang, and the watchdog is the stage's own. A server
    has a readiness probe; its liveness probe leaves it the time to load."""
    for pod in seen.pods:
        for each in pod.containers if pod.role in _WORKERS and pod.role != "scheduler" else ():
            for name in ("livenessProbe", "startupProbe"):
                if each.content.get(name) is not None:
                    says = "it ends a stage whose one step, or upload, takes long: leave it out (a stage has its own watchdog)"
                    yield Found(f"{each.where}.{name}", each.content[name], says)
        if pod.role not in SERVERS or pod.main is None:
            continue
        if not isinstance(pod.main.content.get("readinessProbe"), dict):
            says = "give one: else it is asked before it can answer"
            yield Found(f"{pod.main.where}.readinessProbe", pod.main.content.get("readinessProbe"), says)
        patience = _patience(pod.main)
        if pod.role == "captioning" and patience is not None and patience < _LOADING:
            says = f"it ends the server while it loads its model: give a startupProbe of {_LOADING} s or more"
            yield Found(f"{pod.main.where}.livenessProbe", pod.main.content["livenessProbe"], says)


def _patience(main: Container) -> float | None:
    """How long a server may take to come up before a probe ends it [s]; None where none does."""
    probes = [table(main.content, name) for name in ("startupProbe", "livenessProbe") if main.content.get(name)]
    if not probes:
        return None
    first = probes[0]
    period = seconds(first.get("periodSeconds")) or _PERIOD
    failures = whole(first.get("failureThreshold")) or _FAILURES
    return (seconds(first.get("initialDelaySeconds")) or 0) + period * failures


@rule("server", "a server holds devices only while a run needs it")
def server(seen: Seen) -> Iterator[Found]:
    """The captioning service stands at zero in its manifest, and is not doubled by a rollout; metrics have one source."""
    for pod in seen.pods:
        if pod.role not in SERVERS or pod.owner.kind != "Deployment":
            continue
        thing = pod.owner
        wanted, count = (0,) if pod.role == "captioning" else (0, 1), at(thing.content, "spec.replicas")
        if (whole(count) if count is not None else 1) not in wanted:
            says = (
                "0: the run that needs it raises it; else it holds devices whenever the manifest is applied"
                if pod.role == "captioning"
                else "1: of two exporters each counts everything"
            )
            yield Found(thing.where("spec.replicas"), count, says)
        kind = word(thing.content, "spec.strategy.type")
        surge = at(thing.content, "spec.strategy.rollingUpdate.maxSurge")
        devices = pod.main and amount(pod.main.amount_of("limits", seen.settings.gpu_resource))
        if devices and kind != "Recreate" and str(surge) not in ("0", "0%"):
            says = "Recreate: by default a new pod is made beside the old one, and waits for devices that the old one holds"
            yield Found(thing.where("spec.strategy.type"), kind or None, says)
