"""Encoders stay what everything else on the machine is.

SVT-AV1 makes its threads, and the one that opens it, real-time ones of the highest priority (SCHED_FIFO, 99) wherever it may,
as it may for root, so in most containers. All that such a process starts afterwards is the same, and whatever of it waits by
looking again and again leaves a processor to nobody else.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TASKS = Path("/proc/self/task")


@contextmanager
def ordinary_threads() -> Iterator[None]:
    """Whatever threads turned real-time inside, or began so, have the schedule again that this thread had before."""
    if not hasattr(os, "sched_setscheduler"):  # a system without such schedules
        yield
        return
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    before = {task for task in _tasks() if _is_real_time(task)}
    try:
        yield
    finally:
        turned = {0} if (os.sched_getscheduler(0), os.sched_getparam(0)) != (policy, priority) else set()
        for task in turned | set(filter(_is_real_time, _tasks() - before)):
            with suppress(ProcessLookupError, PermissionError):  # it has ended; a sandbox that lets nobody ask
                os.sched_setscheduler(task, policy, priority)


def _tasks() -> set[int]:
    return {int(task.name) for task in _TASKS.iterdir()} if _TASKS.exists() else {0}


def _is_real_time(task: int) -> bool:
    try:
        return os.sched_getscheduler(task) in (os.SCHED_FIFO, os.SCHED_RR)
    except ProcessLookupError:
        return False
