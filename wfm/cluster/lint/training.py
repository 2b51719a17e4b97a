"""Trainings: how ranks find each other, and what ends and restarts them."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.quantity import amount, whole
from wfm.cluster.lint.seen import Pod, Seen, Thing, at, rows, table, word, words

_RESERVED = re.compile(
    r"PET_\w+|MASTER_(ADDR|PORT)|(LOCAL_)?(RANK|WORLD_SIZE)|GROUP_RANK|JOB_COMPLETION_INDEX|DASK_WORKER_NAME|(NVIDIA|CUDA)_VISIBLE_DEVICES"
)

_LEAST_JOIN = 60
"""So long ranks wait for each other at least [s]."""


@rule("clean-pods", "pods that are left when a training ends are ended")
def clean_pods(seen: Seen) -> Iterator[Found]:
    """``cleanPodPolicy: Running``: by default survivors keep their devices."""
    for thing in seen.of("PyTorchJob"):
        value = at(thing.content, "spec.runPolicy.cleanPodPolicy")
        if value != "Running":
            says = "Running: with None (the default) survivors of a failed training keep their devices, All takes their logs"
            yield Found(thing.where("spec.runPolicy.cleanPodPolicy"), value, says)


@rule("restart-policy", "no controller brings a pod back without our bound")
def restart_policy(seen: Seen) -> Iterator[Found]:
    """``Never``, so that a try is a try; the launcher makes the next one."""
    bound = "nothing bounds how often the operator brings it back, and torchrun ends with 1 whatever the reason"
    for thing in seen.of("PyTorchJob"):
        for name, replica in table(thing.content, "spec.pytorchReplicaSpecs").items():
            path = f"spec.pytorchReplicaSpecs.{name}.restartPolicy"
            if at(replica, "restartPolicy") != "Never":
                yield Found(thing.where(path), at(replica, "restartPolicy"), f"Never: {bound}")
    for pod in seen.pods:
        value = pod.content.get("restartPolicy")
        wrong = (
            value not in (None, "Never") if pod.owner.kind in ("PyTorchJob", "TrainJob")
            else value not in (None, "Always") if pod.role in ("scheduler", "worker")
            else value != "Never" if pod.role in ("rank", "index", "runner")
            else False
        )  # fmt: skip
        if wrong:
            choice = (
                "leave it out: a Deployment keeps it"
                if pod.role in ("scheduler", "worker")
                else "Never: tries are counted by us"
            )
            yield Found(pod.where("restartPolicy"), value, choice)


@rule("ranks", "how many ranks a machine has is a number")
def ranks(seen: Seen) -> Iterator[Found]:
    """``auto`` counts processors where there are no devices. With devices there is a rank for each."""
    for thing in seen.of("PyTorchJob"):
        pods = seen.pods_of(thing)
        yield from _ranks(seen, thing, pods, "spec.nprocPerNode")
        if at(thing.content, "spec.elasticPolicy.nProcPerNode") is not None:
            path = "spec.elasticPolicy.nProcPerNode"
            yield Found(
                thing.where(path),
                at(thing.content, path),
                "two fields say it: leave this one out, and set spec.nprocPerNode",
            )
    for thing in seen.of("TrainJob"):
        nodes = at(thing.content, "spec.trainer.numNodes")
        if (whole(nodes) or 0) < 1:
            yield Found(
                thing.where("spec.trainer.numNodes"),
                nodes,
                "give 1 or more: else the runtime's own number counts",
            )
        yield from _ranks(seen, thing, seen.pods_of(thing), "spec.trainer.numProcPerNode")
    for pod in seen.pods:
        if pod.role == "rank" and pod.main is not None:
            given = _flag(pod, "nproc-per-node")
            if given is not None:
                says = "the job's own field says it (nprocPerNode, numProcPerNode): leave it out"
                yield Found(f"{pod.main.where}.args[--nproc-per-node]", given, says)


@rule("rendezvous", "ranks of one try meet under the job's name")
def rendezvous(seen: Seen) -> Iterator[Found]:
    """An id that is not set is one that another job may have too."""
    for thing in seen.of("PyTorchJob"):
        policy = table(thing.content, "spec.elasticPolicy")
        if policy.get("rdzvId") != thing.name:
            says = f"ranks of two jobs would meet: set it to the job's name, {thing.name}"
            yield Found(thing.where("spec.elasticPolicy.rdzvId"), policy.get("rdzvId"), says)
        if policy.get("rdzvBackend") != "c10d":
            says = "c10d: etcd would be one more server, static meets nobody again"
            yield Found(thing.where("spec.elasticPolicy.rdzvBackend"), policy.get("rdzvBackend"), says)
        if policy.get("standalone"):
            path = "spec.elasticPolicy.standalone"
            yield Found(thing.where(path), policy["standalone"], "each machine would train for itself: leave it out")
    for thing in seen.of("TrainJob"):
        for pod in seen.pods_of(thing):
            if (
                "torch.distributed.run" in (pod.main.command if pod.main else "")
                and _flag(pod, "rdzv-id") != thing.name
            ):
                says = f"ranks of two jobs would meet: give --rdzv-id {thing.name}"
                yield Found(thing.where("spec.trainer.args[--rdzv-id]"), _flag(pod, "rdzv-id"), says)


@rule("hang", "ranks whose peers are gone end")
def hang(seen: Seen) -> Iterator[Found]:
    """``TORCH_NCCL_ASYNC_ERROR_HANDLING``: else they wait for ever and hold their devices. And time to find each other."""
    for pod in seen.furnished:
        main = pod.main
        if main is None or pod.owner.kind not in ("PyTorchJob", "TrainJob"):
            continue
        name = "TORCH_NCCL_ASYNC_ERROR_HANDLING"
        if amount(main.amount_of("limits", seen.settings.gpu_resource)) and main.value(name) in ("", "0"):
            says = "1: else a rank that lost another waits for ever, and holds its devices"
            yield Found(f"{main.where}.env[{name}]", main.value(name) or None, says)
    for thing in seen.of("PyTorchJob"):
        told = [word(each, "key") for _, each in rows(thing.content, "spec.elasticPolicy.rdzvConf")]
        if "join_timeout" not in told:
            says = "give join_timeout: how long the first rank waits for the last, whose image may still be pulled"
            yield Found(thing.where("spec.elasticPolicy.rdzvConf"), told or None, says)
        for place, each in rows(thing.content, "spec.elasticPolicy.rdzvConf"):
            given = whole(each.get("value"))
            if word(each, "key") in ("join_timeout", "read_timeout", "timeout") and (given or 0) < _LEAST_JOIN:
                says = f"give {_LEAST_JOIN} s or more: names of pods come late, and the first rank would give up"
                yield Found(thing.where(f"spec.elasticPolicy.rdzvConf.{place}.value"), each.get("value"), says)


@rule("elastic", "an elastic training keeps to its bounds")
def elastic(seen: Seen) -> Iterator[Found]:
    """Workers alone, both bounds their number (a gang starts whole or not at all), and no restarts beside ours."""
    for thing in seen.of("PyTorchJob"):
        replicas = table(thing.content, "spec.pytorchReplicaSpecs")
        for name in replicas:
            if name != "Worker":
                says = "workers alone: beside a master each of them waits in an init container of an image of the operator's"
                yield Found(thing.where(f"spec.pytorchReplicaSpecs.{name}"), at(replicas, f"{name}.replicas"), says)
        count = at(replicas, "Worker.replicas")
        least, most = (at(thing.content, f"spec.elasticPolicy.{name}Replicas") for name in ("min", "max"))
        numbers = [whole(each) for each in (least, count, most)]
        if numbers[0] is None or numbers[0] < 1 or len(set(numbers)) > 1:
            says = "one number, 1 or more, for minReplicas, Worker.replicas, maxReplicas: with fewer it is another training"
            yield Found(
                thing.where("spec.elasticPolicy.minReplicas"), {"min": least, "replicas": count, "max": most}, says
            )
        if at(thing.content, "spec.elasticPolicy.maxRestarts") != 0:
            says = "0: torchrun would restart ranks whatever the reason, and nobody would count it as a try"
            yield Found(
                thing.where("spec.elasticPolicy.maxRestarts"), at(thing.content, "spec.elasticPolicy.maxRestarts"), says
            )
        if at(thing.content, "spec.elasticPolicy.metrics"):
            says = "an autoscaler would change what the queue has admitted: leave it out"
            yield Found(
                thing.where("spec.elasticPolicy.metrics"), at(thing.content, "spec.elasticPolicy.metrics"), says
            )
    for pod in seen.pods:
        given = _flag(pod, "max-restarts") if pod.role == "rank" else None
        if given not in (None, "0") and pod.main is not None:
            says = "0: torchrun would restart ranks whatever the reason, and nobody would count it as a try"
            yield Found(f"{pod.main.where}.args[--max-restarts]", given, says)


@rule("reserved-variable", "variables that a controller sets are left to it")
def reserved_variable(seen: Seen) -> Iterator[Found]:
    """Ranks, addresses, indices, and which devices are seen (``NVIDIA_VISIBLE_DEVICES=all``: all of them): the webhook of
    Trainer refuses them, the others are overridden or override."""
    for pod in seen.pods:
        for each in pod.containers:
            for place, entry in rows(each.content, "env"):
                if _RESERVED.fullmatch(word(entry, "name")):
                    yield Found(
                        f"{each.where}.env.{place}.name",
                        word(entry, "name"),
                        "the job's controller sets it: leave it out",
                    )


@rule("runtime", "a TrainJob refers to the runtime of the settings")
def runtime(seen: Seen) -> Iterator[Found]:
    """It holds what a TrainJob cannot say: rights, the policy of failures, no token."""
    known = {(thing.kind, thing.name) for thing in seen.of("TrainingRuntime", "ClusterTrainingRuntime")}
    for thing in seen.of("TrainJob"):
        name = word(thing.content, "spec.runtimeRef.name")
        kind = word(thing.content, "spec.runtimeRef.kind") or "ClusterTrainingRuntime"
        wanted = seen.settings.training_runtime if seen.known else ""
        if (wanted and name != wanted) or (known and (kind, name) not in known):
            choices = wanted or ", ".join(f"{kind} {name}" for kind, name in sorted(known))
            says = f"what its pods may do stands there, and nobody has looked at that one: choices {choices}"
            yield Found(thing.where("spec.runtimeRef"), f"{kind} {name}", says)


def _ranks(seen: Seen, thing: Thing, pods: Sequence[Pod], path: str) -> Iterator[Found]:
    value = at(thing.content, path)
    number = whole(value)
    if number is None or number < 1:
        says = "give a number, 1 or more: auto counts processors where there are no devices"
        yield Found(thing.where(path), value, says)
        return
    for pod in pods:
        devices = amount(pod.main.amount_of("limits", seen.settings.gpu_resource)) if pod.main else None
        if devices and int(devices) != number:
            says = f"the pod has {int(devices)} devices: a rank for each, no more and no less"
            yield Found(thing.where(path), value, says)


def _flag(pod: Pod, name: str) -> Any:
    """The value of an option of torchrun in a pod's command line, however it is written; None where it is not given."""
    content = pod.main.content if pod.main else {}
    given = [*words(content, "command"), *words(content, "args")]
    for place, each in enumerate(given):
        option, equals, value = each.replace("_", "-", each.partition("=")[0].count("_")).partition("=")
        if option.lstrip("-") == name and option.startswith("-"):
            return value if equals else (given[place + 1] if place + 1 < len(given) else "")
        if each in ("--module", "-m") and place and given[place - 1] != "python":
            break
    return None
