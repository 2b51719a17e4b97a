"""Dask on a cluster: a worker that lost its scheduler ends, a cluster nobody uses ends, and all have our settings."""

from collections.abc import Iterator
from typing import Any

from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.quantity import amount, seconds, whole
from wfm.cluster.lint.seen import Container, Pod, Seen, at, option, table, words
from wfm.cluster.lint.volumes import can_write
from wfm.cluster.names import LONGEST_DASK
from wfm.parts.dask_settings import PRELOAD, WORKER_LOSSES_ALLOWED, dask_environment, variable

_BASES = {"DaskJob": "spec.cluster.spec", "DaskCluster": "spec"}
_LEAST_IDLE, _MOST_IDLE = 600, 7 * 86400
_MOST_DEATH = 3600
_LOSSES = variable("distributed.scheduler.allowed-failures")
_ANY_VALUE = {_LOSSES, variable("temporary-directory"), variable("distributed.worker.preload"), "PYTHONSAFEPATH"}


@rule("idle-cluster", "a Dask cluster that nobody uses ends")
def idle_cluster(seen: Seen) -> Iterator[Found]:
    """``idleTimeout``: a cluster whose runner was taken away is left by the operator for ever (0, the default)."""
    for thing in seen.of(*_BASES):
        path = f"{_BASES[thing.kind]}.idleTimeout"
        value = whole(at(thing.content, path))
        if value is None or not _LEAST_IDLE <= value <= _MOST_IDLE:
            says = f"give {_LEAST_IDLE} to {_MOST_IDLE} s: by default (0) nobody ends it"
            yield Found(thing.where(path), at(thing.content, path), says)


@rule("worker-command", "a Dask worker has one thread, a folder of its own, and ends with its scheduler")
def worker_command(seen: Seen) -> Iterator[Found]:
    """``--nthreads 1 --local-directory FOLDER --death-timeout SECONDS --memory-limit BYTES``; with devices ``dask cuda``."""
    for pod in seen.pods:
        main = pod.main
        if pod.role != "worker" or main is None:
            continue
        where = f"{main.where}.command"
        if option(main, "nthreads") != "1":
            says = "1: of two items in a process that crashed nobody knows which it was"
            yield Found(f"{where}[--nthreads]", option(main, "nthreads"), says)
        folder = option(main, "local-directory")
        if not folder or not can_write(pod, main, folder):
            says = (
                "name a folder on a volume that can be written: by default it is the current one, on a read-only root"
            )
            yield Found(f"{where}[--local-directory]", folder, says)
        wait = seconds(option(main, "death-timeout"))
        if not wait or wait > _MOST_DEATH:
            says = f"give up to {_MOST_DEATH} s: a worker whose scheduler is gone would hold its devices for ever"
            yield Found(f"{where}[--death-timeout]", option(main, "death-timeout"), says)
        yield from _processes(seen, main, where)


def _processes(seen: Seen, main: Container, where: str) -> Iterator[Found]:
    """One process for each device, and a bound for each of them below what the container may hold."""
    devices = amount(main.amount_of("limits", seen.settings.gpu_resource)) or 0.0
    given = [*words(main.content, "command"), *words(main.content, "args")]
    if devices and "cuda" not in given and not any("dask_cuda" in each or "dask-cuda" in each for each in given):
        says = "dask cuda worker: an ordinary worker does not tell its processes which device is theirs"
        yield Found(where, " ".join(given[:3]), says)
    for name in ("nworkers", "nprocs"):
        if option(main, name) not in (None, "1"):
            yield Found(f"{where}[--{name}]", option(main, name), "1, or leave it out: each worker is a pod")
    bound, limit = option(main, "memory-limit"), amount(main.amount_of("limits", "memory"))
    found = _bytes(bound)
    if not found or (limit and found * max(devices, 1.0) > limit):
        says = "give each process bytes, together below the container's limit: else the kernel ends it, and nobody knows why"
        yield Found(f"{where}[--memory-limit]", bound, says)


def _bytes(text: Any) -> float | None:
    """``1000B``, ``4GiB``, ``4Gi`` -> bytes; None for what bounds nothing (``0``, ``auto``, a share)."""
    given = str(text or "").strip()
    return amount(given.removesuffix("B").replace("iB", "i").strip()) if given.endswith(("B", "i")) else None


@rule("scheduler-service", "the scheduler is found by its own cluster, and by nobody outside")
def scheduler_service(seen: Seen) -> Iterator[Found]:
    """Whoever reaches a scheduler runs code on its workers. The selector names this cluster; there is a worker at least."""
    for thing in seen.of(*_BASES):
        base = _BASES[thing.kind]
        service = table(thing.content, f"{base}.scheduler.service")
        if service.get("type") not in (None, "ClusterIP"):
            says = "ClusterIP: whoever reaches a scheduler runs code on its workers"
            yield Found(thing.where(f"{base}.scheduler.service.type"), service["type"], says)
        wanted = {"dask.org/cluster-name": thing.name, "dask.org/component": "scheduler"}
        if service and len(thing.name) <= LONGEST_DASK and table(service, "selector") != wanted:
            says = f"workers and runner would find another scheduler, or none: {wanted}"
            yield Found(thing.where(f"{base}.scheduler.service.selector"), service.get("selector"), says)
        count = whole(at(thing.content, f"{base}.worker.replicas"))
        if count is not None and count < 1:
            yield Found(
                thing.where(f"{base}.worker.replicas"), count, "give 1 or more: without workers nothing is computed"
            )


@rule("dask-environment", "scheduler and workers have our settings of Dask")
def dask_environment_(seen: Seen) -> Iterator[Found]:
    """Those of `wfm.parts.dask_settings`: where machines come and go, a lost worker is nobody's fault."""
    wanted = dask_environment("/")
    for pod in seen.pods:
        main = pod.main
        if pod.role not in ("scheduler", "worker") or main is None:
            continue
        for name, value in wanted.items():
            given = _set(main, name)
            if name == variable("distributed.worker.preload"):
                if pod.role == "worker" and PRELOAD not in (given or "") and PRELOAD not in main.command:
                    yield Found(f"{main.where}.env[{name}]", given, f"workers load {PRELOAD}: name it")
            elif given is None:
                yield Found(
                    f"{main.where}.env[{name}]", None, f"set it, such as to {value}: it acts only where the pod has it"
                )
        losses = whole(_set(main, _LOSSES))
        if _set(main, _LOSSES) is not None and (losses is None or losses < WORKER_LOSSES_ALLOWED):
            says = f"give {WORKER_LOSSES_ALLOWED} or more: with fewer a drained machine ends the stage"
            yield Found(f"{main.where}.env[{_LOSSES}]", _set(main, _LOSSES), says)
        if pod.role == "worker":
            yield from _folder(pod, main)


def _folder(pod: Pod, main: Container) -> Iterator[Found]:
    name = variable("temporary-directory")
    given = main.value(name)
    if given and not can_write(pod, main, given):
        yield Found(f"{main.where}.env[{name}]", given, "it lies on no volume that can be written")


def _set(main: Container, name: str) -> str | None:
    return main.value(name) if name in main.env else None
