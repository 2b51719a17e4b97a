"""Finds the pods that objects would make, wherever their templates stand, and says what each is for (its role)."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

from wfm.cluster.lint.quantity import whole
from wfm.cluster.lint.seen import LAUNCHER, WORKFLOWS, Container, Pod, Role, Seen, Thing, at, rows, table, word
from wfm.cluster.names import ANNOTATION_KEY, LABEL_JOB, LABEL_ROLE, ROLES
from wfm.cluster.settings import ClusterSettings

_STAGE = re.compile(r"(?<![\w.])components\.(?!launch_job\b)\w")
_WHOLE_RUN = re.compile(r"(?<![\w./-])wfm (?:cluster steps|run)\b")
_OF_A_FLOW = (
    *("securityContext", "automountServiceAccountToken", "hostNetwork", "serviceAccountName"),
    *("nodeSelector", "affinity", "tolerations", "schedulerName", "dnsPolicy"),
)
"""What a workflow says for all its pods, where a template does not."""
_OWN_TEMPLATE = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")


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
    spec, metadata = table(thing.content, path), table(thing.content, metadata_path)
    containers = tuple(_containers(thing, path, spec, main))
    if role in ("index", "other"):
        ours = ANNOTATION_KEY in table(thing.content, "metadata.annotations") or LABEL_JOB in table(
            thing.content, "metadata.labels"
        )
        found = role_of(containers, table(metadata, "labels"), "stage" if ours and role == "index" else "other")
        role = role if found == "stage" and role == "index" else found
    return Pod(thing, path, spec, metadata, metadata_path, role, replicas, containers)


def role_of(containers: Sequence[Container], labels: dict[str, Any], otherwise: Role = "other") -> Role:
    """What a pod is for, of `ROLES`: what it starts says it; where that says nothing, its label does."""
    started = started_role(containers)
    told = labels.get(LABEL_ROLE)
    return started or (told if isinstance(told, str) and told in ROLES else otherwise)  # type: ignore[return-value]


def started_role(containers: Sequence[Container]) -> Role | None:
    """What a command line says of its pod; None where it is nothing of ours, or could be more than one thing."""
    commands = [each.command for each in containers]
    if any(map(_STAGE.search, commands)):
        return "stage"
    if any(LAUNCHER in each for each in commands):
        return "launcher"
    return "pipeline" if any(map(_WHOLE_RUN.search, commands)) else None


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
        spec |= {name: whole_flow[name] for name in _OF_A_FLOW if name in whole_flow and name not in spec}
        spec["volumes"] = [each for flow in (whole_flow, spec) for _, each in rows(flow, "volumes")]
        if "priorityClassName" not in spec and "podPriorityClassName" in whole_flow:
            spec["priorityClassName"] = whole_flow["podPriorityClassName"]
        for flow in (whole_flow, defaults, template):
            grace = patched(flow.get("podSpecPatch")).get("terminationGracePeriodSeconds")
            spec |= {} if grace is None else {"terminationGracePeriodSeconds": grace}
        labels = {**table(whole_flow, "podMetadata.labels"), **table(spec, "metadata.labels")}
        role = role_of(containers, labels)
        yield Pod(thing, path, spec, table(spec, "metadata"), f"{path}.metadata", role, 1, tuple(containers))


def patched(patch: Any) -> dict[str, Any]:
    """What a ``podSpecPatch`` sets, if it is written as JSON: else ``{"?": …}``, and nobody knows."""
    if patch is None:
        return {}
    try:
        found = json.loads(patch) if isinstance(patch, str) else None
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {"?": patch}


def _of_argo_template(thing: Thing, path: str, template: dict[str, Any]) -> Iterator[Container]:
    for name in ("container", "script"):
        if isinstance(template.get(name), dict):
            yield Container(template[name], thing.where(f"{path}.{name}"), "main")
    for place, each in rows(template, "containerSet.containers"):
        yield Container(each, thing.where(f"{path}.containerSet.containers.{place}"), "main")
    for group, kind in (("sidecars", "sidecar"), ("initContainers", "init")):
        for place, each in rows(template, group):
            yield Container(each, thing.where(f"{path}.{group}.{place}"), "init" if kind == "init" else "sidecar")
