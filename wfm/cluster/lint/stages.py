"""The pod of a stage: the container that its controller looks for, what it runs, as whom, how urgent."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.naming import JOBS, NAME_KINDS
from wfm.cluster.lint.quantity import whole
from wfm.cluster.lint.seen import HOLDERS, STAGE_ROLES, Container, Pod, Seen, at, option, rows, table, word, words
from wfm.cluster.lint.volumes import can_write
from wfm.cluster.names import ANNOTATION_GENERATION, ANNOTATION_KEY, ANNOTATION_TRY, job_name
from wfm.cluster.pod import INIT

_NAMES = {"PyTorchJob": "pytorch", "TrainingRuntime": "node", "ClusterTrainingRuntime": "node"}
"""Names by which controllers find the container that they give ranks and addresses to."""
_NAMED = ("stage", "launcher", "pipeline", "planner", "exporter", "scaler", "retention")
_RUNS = {"rank": "torch.distributed.run", "index": "components.", "runner": "components."}
"""What stands in the command line of each role."""


@rule("main-container", "a pod has a container that works, under the name its controller looks for")
def main_container(seen: Seen) -> Iterator[Found]:
    """``pytorch`` for the training operator, ``node`` for Trainer: another gets no ranks and no addresses."""
    for pod in seen.pods:
        if pod.main is None:
            yield Found(pod.where("containers"), at(pod.content, "containers"), "give it a container")
            continue
        wanted, given = _NAMES.get(pod.owner.kind), word(pod.main.content, "name")
        if wanted and given != wanted:
            yield Found(f"{pod.main.where}.name", given, f"{wanted}: its controller looks for that name")


@rule("stage-command", "a pod of a stage starts the stage")
def stage_command(seen: Seen) -> Iterator[Found]:
    """Its command line stands in the object, whatever the image would start by itself."""
    for pod in seen.furnished:
        if pod.main is None or pod.owner.kind == "JobSet":
            continue
        for part in dict.fromkeys((_RUNS[pod.role], "components.")) if pod.role in _RUNS else ():
            if part not in pod.main.command:
                says = f"it does not start {part}: give the stage's own command line (wfm.cluster.pod.command)"
                yield Found(f"{pod.main.where}.command", pod.main.command or None, says)
        begins = words(pod.main.content, "command")
        if pod.role in _NAMED and not begins:
            says = "the image's own command would run, whatever that is: name what this pod is for"
            yield Found(f"{pod.main.where}.command", at(pod.main.content, "command"), says)
        elif pod.role in STAGE_ROLES and pod.half != "runtime" and begins[:1] != [INIT[0]]:
            says = f"begin with {' '.join(INIT)}: as process 1 a stage reaps nobody, and does not die of early signals"
            yield Found(f"{pod.main.where}.command", begins[:3] or None, says)
        if "components." in pod.main.command and pod.role in (*_RUNS, "stage", "launcher"):
            yield from _options(pod, pod.main)


def _options(pod: Pod, main: Container) -> Iterator[Found]:
    """The options of a stage: what it makes, and a place for the key that can be written."""
    spec = _given(main, "spec")
    if not spec or spec.startswith("-"):
        yield Found(f"{main.where}.command[--spec]", spec, "name the spec of the node: without it nothing starts")
    file = _given(main, "key-out")
    if file and not file.startswith("/tmp/") and not can_write(pod, main, str(PurePosixPath(file).parent)):
        says = "it lies on no volume that can be written: the stage would fail at its very end"
        yield Found(f"{main.where}.command[--key-out]", file, says)


def _given(main: Container, name: str) -> Any:
    """The value of an option, also within the line of a shell."""
    inside = re.search(rf"--{name}[= ]+([^\s;&|]+)", main.command)
    return option(main, name) or (inside[1] if inside else None)


@rule("attempt", "each try has a token of its own")
def attempt(seen: Seen) -> Iterator[Found]:
    """``WFM_ATTEMPT``: the job's name and the number of the try. With that of another a stage writes into its record."""
    for thing in seen.of(*JOBS):
        told = table(thing.content, "metadata.annotations")
        number, key, generation = (
            told.get(ANNOTATION_TRY),
            told.get(ANNOTATION_KEY),
            whole(told.get(ANNOTATION_GENERATION)),
        )
        names = [thing.name]
        if not seen.is_of_a_stage(thing):
            continue
        if isinstance(key, str) and generation is not None:
            names += [job_name(kind, key, generation) for kind in NAME_KINDS[thing.kind]]
        for pod in seen.pods_of(thing):
            if pod.main is None or pod.role not in _RUNS or not thing.name or not isinstance(number, str):
                continue
            given = pod.main.value("WFM_ATTEMPT")
            same = given in [f"{name}.{number}" for name in names] if len(names) > 1 else given.endswith(f".{number}")
            if not same and (whole(number) or 0) > 0:
                says = f"{names[-1]}.{number}: the job's name and its try"
                yield Found(f"{pod.main.where}.env[WFM_ATTEMPT]", given or None, says)


@rule("stage-account", "a pod of a stage has the account of the settings")
def stage_account(seen: Seen) -> Iterator[Found]:
    """By it the store lets the pod in; the default one is nobody there."""
    wanted = seen.settings.service_account
    for pod in _own(seen):
        given = pod.content.get("serviceAccountName")
        if wanted and given != wanted:
            yield Found(
                pod.where("serviceAccountName"),
                given,
                f"{wanted}, of the settings of the cluster: the store knows that one",
            )


@rule("stage-secret", "a pod of a stage has the secrets of the settings")
def stage_secret(seen: Seen) -> Iterator[Found]:
    """Their entries are its variables: the keys of the store."""
    for pod in _own(seen):
        main = pod.main
        if main is None or pod.role == "other":
            continue
        given = {word(each, "secretRef.name") for _, each in rows(main.content, "envFrom")}
        missing = [name for name in seen.settings.secrets if name not in given]
        if missing:
            says = f"{', '.join(missing)}, of the settings of the cluster: without the store's keys nothing is read"
            yield Found(f"{main.where}.envFrom", at(main.content, "envFrom"), says)


@rule("pod-priority", "a pod of a stage has a priority, where the settings name one")
def pod_priority(seen: Seen) -> Iterator[Found]:
    """Without one it is the first to be thrown out when a machine is full."""
    wanted = seen.settings.pod_priority
    for pod in _own(seen):
        given = pod.content.get("priorityClassName")
        if wanted and not given:
            yield Found(
                pod.where("priorityClassName"),
                given,
                f"{wanted}, of the settings of the cluster, or the node's own",
            )


def _own(seen: Seen) -> list[Pod]:
    """Pods of stages whose rights stand among the objects."""
    kinds = (*HOLDERS, "DaskJob", "TrainingRuntime", "ClusterTrainingRuntime")
    return [pod for pod in seen.confined if pod.role in STAGE_ROLES and pod.owner.kind in kinds]
