"""Dask on a cluster: a worker that lost its scheduler ends, a cluster nobody uses ends, and all have our settings."""

from collections.abc import Iterator
from typing import Any

from wfm.cluster.lint.fault import Found, rule
from wfm.cluster.lint.quantity import seconds, whole
from wfm.cluster.lint.seen import Container, Pod, Seen, at, words
from wfm.cluster.lint.volumes import can_write
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
    """``--nthreads 1 --local-directory FOLDER --death-timeout SECONDS``."""
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


def option(main: Container, name: str) -> Any:
    """The value of an option of Dask's in a command line; None where it is not given."""
    given = [*words(main.content, "command"), *words(main.content, "args")]
    for place, each in enumerate(given):
        if each == f"--{name}":
            return given[place + 1] if place + 1 < len(given) else ""
        if each.startswith(f"--{name}="):
            return each.partition("=")[2]
    return None
