"""How many stages may run side by side: a budget of processors and memory that stages draw from."""

import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pipelines.nodes import Node
from pipelines.stages import Image
from wfm.errors import Cancelled, InputError


class Budget:
    """Processors and memory that running stages share.

    A stage that asks for more than there is gets all of it, hence runs alone: on a laptop a row sized for a cluster
    still runs. Whoever fits goes first; a large stage waits until enough has come back.
    """

    def __init__(self, cpu: float, memory_gib: float) -> None:
        if cpu <= 0 or memory_gib <= 0:
            raise ValueError(f"a budget of {cpu} cpu and {memory_gib} GiB lets nothing run; both must be above 0")
        self.cpu, self.memory_gib = cpu, memory_gib
        self._free_cpu, self._free_memory = cpu, memory_gib
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, cpu: float, memory_gib: float, stop: threading.Event) -> Iterator[None]:
        """Wait until the amounts are free, hold them inside the block; raises `Cancelled` when ``stop`` is set first."""
        cpu, memory_gib = min(cpu, self.cpu), min(memory_gib, self.memory_gib)
        with self._changed:
            while not stop.is_set() and (cpu > self._free_cpu + 1e-9 or memory_gib > self._free_memory + 1e-9):
                self._changed.wait(timeout=0.2)
            if stop.is_set():
                raise Cancelled("stopped while waiting for processors and memory")
            self._free_cpu -= cpu
            self._free_memory -= memory_gib
        try:
            yield
        finally:
            with self._changed:
                self._free_cpu += cpu
                self._free_memory += memory_gib
                self._changed.notify_all()


LEAST_GIB = 0.5
"""Memory without which no stage begins, nor a worker of one [GiB]."""
WITH_TORCH_GIB = 2.0
"""What a worker needs that holds a model and a batch [GiB]: 1.1 in the demo (LOG.md), and room."""
SIDE_BY_SIDE = 2
"""Stages of the main job that run at a time after the data set: one of each family."""
_TIMES_THE_MACHINE = 8
"""More than that many times what there is cannot be meant: a worker is started for each processor of the budget."""


def check_budget(cpu: float | None, memory_gib: float | None) -> None:
    """Raise `InputError` for an amount that lets nothing run, or that no machine like this can give; None stands for this
    machine's."""
    import psutil

    there = {"--cpu": machine()[0], "--memory": psutil.virtual_memory().total / 2**30}
    for option, amount, unit in (("--cpu", cpu, "processors"), ("--memory", memory_gib, "GiB")):
        if amount is not None and not (amount > 0 and math.isfinite(amount)):
            raise InputError(
                f"{option} {amount:g} lets nothing run: give a number of {unit} above 0, or leave it out for this machine's"
            )
        most = _TIMES_THE_MACHINE * there[option]
        if amount is not None and amount > most:
            raise InputError(
                f"{option} {amount:g} is far more than this machine's {there[option]:.3g} {unit}: give {most:.3g} at most, "
                "or leave it out for this machine's"
            )
    if memory_gib is not None and memory_gib < LEAST_GIB:
        raise InputError(f"--memory {memory_gib:g} lets no stage run: give {LEAST_GIB:g} GiB at least, or leave it out")


def check_ranks(nodes: Iterable[Node], cpu: float, memory_gib: float) -> None:
    """Raise `InputError` for a node with more ranks than this machine carries: each is a process at work all the time."""
    most = max(1, int(min(cpu, memory_gib / LEAST_GIB)))
    for node in nodes:
        if node.resources.ranks > most:
            raise InputError(
                f"{node.name}.ranks is {node.resources.ranks}, and this run has {cpu:g} processors and {memory_gib:.3g} GiB: "
                f"each rank wants a processor of its own. Give {most} at most, or raise --cpu and --memory if there are more"
            )


def devices() -> int:
    """CUDA devices of this machine, by their device files: torch is not loaded to count them."""
    import os

    return sum(name.startswith("nvidia") and name[6:].isdigit() for name in os.listdir("/dev"))


def check_devices(nodes: Iterable[Node]) -> None:
    """Raise `InputError` for nodes that need devices, each of their ranks its own, which this machine does not have. Processors
    and memory beyond it only mean that a stage runs alone (`Budget`); a device cannot be shared out like that."""
    here = devices()
    for node in nodes:
        gpu, ranks = node.resources.gpu, node.resources.ranks
        if gpu * ranks > here:
            of_ranks = f" for each of {ranks} ranks, {gpu * ranks} together," if ranks > 1 else ","
            fewer = " or fewer ranks" if ranks > 1 else ""
            raise InputError(
                f"{node.name}.resources.gpu is {gpu}{of_ranks} and this machine has {here or 'no'} CUDA "
                f"device{'s' * (here != 1)}: give {here // ranks} with --set {node.name}.resources.gpu={here // ranks}{fewer}, "
                "or run it where they are"
            )


def workers(cpu: float, memory_gib: float, image: Image) -> int:
    """How many Dask workers a budget carries for stages of an image: one a processor, each with the memory that one needs. 0: a
    stage works in its own process. A worker that loads torch takes seconds to start, and where the two branches of the main job
    fill the machine they would be paid for nothing."""
    if image != "training":
        return max(1, int(min(cpu, memory_gib / LEAST_GIB)))
    count = int(min(cpu, memory_gib / WITH_TORCH_GIB))
    return count if count > SIDE_BY_SIDE else 0


def machine() -> tuple[float, float]:
    """Processors this process may use, and the memory free now [GiB] (a container's limits respected)."""
    import os

    import psutil

    cpu = float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)
    memory = float(psutil.virtual_memory().available)
    limits = {"/sys/fs/cgroup/memory.max": "/sys/fs/cgroup/memory.current"}
    for limit_path, used_path in limits.items():
        try:
            with open(limit_path) as limit, open(used_path) as used:
                text = limit.read().strip()
                if text != "max":
                    memory = min(memory, float(text) - float(used.read()))
        except (OSError, ValueError):
            continue
    try:
        with open("/sys/fs/cgroup/cpu.max") as quota_file:
            quota, period = quota_file.read().split()
            if quota != "max":
                cpu = min(cpu, max(float(quota) / float(period), 1.0))
    except (OSError, ValueError):
        pass
    return cpu, max(memory / 2**30, LEAST_GIB)
