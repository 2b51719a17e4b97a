"""What a process, and a stage with all its helpers, has used: processor time, memory, devices held.

Devices are counted through torch, or through pynvml where that is installed; neither ever ran on a machine with a device here.
"""

import importlib.util
import resource
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any

_KINDS = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


class Usage:
    """What this process and its children have used since it was made."""

    def __init__(self) -> None:
        self._before, self._began = _cpu_seconds(), time.monotonic()

    def read(self) -> dict[str, float]:
        """``cpu_seconds``, ``gpu_seconds`` (of holding one) since the start, ``peak_bytes`` of the largest process so far."""
        return {
            "cpu_seconds": _cpu_seconds() - self._before,
            "gpu_seconds": time.monotonic() - self._began if _torch_holds_one() else 0.0,
            "peak_bytes": _peak_bytes(),
        }


def no_usage() -> dict[str, float]:
    """What `Usage.read` says of nothing."""
    return {"cpu_seconds": 0.0, "gpu_seconds": 0.0, "peak_bytes": 0.0}


def add_usage(total: dict[str, float], more: Mapping[str, float]) -> None:
    """Add what another process used to `total`."""
    for name in ("cpu_seconds", "gpu_seconds"):
        total[name] += more.get(name, 0.0)
    total["peak_bytes"] = max(total["peak_bytes"], more.get("peak_bytes", 0.0))


class StageUsage:
    """What a stage process (each rank for itself) has used since it began: itself, its children that ended and those that run,
    its parts on Dask workers (whoever hands them out adds to `remote`). Devices are integrated over the times it is read."""

    def __init__(self) -> None:
        self.remote = no_usage()
        self._lock = threading.Lock()
        self._most = no_usage()
        self._held_seconds = 0.0
        self._looked = time.monotonic()

    def read(self) -> dict[str, float]:
        """``cpu_seconds``, ``gpu_seconds`` (time x devices held), ``peak_bytes`` of the largest process; none ever falls."""
        with self._lock:
            family = _family()
            now = time.monotonic()
            self._held_seconds += (now - self._looked) * _devices_held([pid for pid, _, _ in family])
            self._looked = now
            used = {
                "cpu_seconds": _cpu_seconds() + sum(seconds for _, seconds, _ in family),
                "gpu_seconds": self._held_seconds,
                "peak_bytes": max([_peak_bytes(), *(peak for _, _, peak in family)]),
            }
            add_usage(used, self.remote)
            self._most = {name: max(value, self._most[name]) for name, value in used.items()}
            return dict(self._most)


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in _KINDS]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _peak_bytes() -> float:
    return max(resource.getrusage(who).ru_maxrss for who in _KINDS) * 1024.0


def _family() -> list[tuple[int, float, float]]:
    """(pid, processor seconds with those of its ended children, resident bytes) of every process below this one."""
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            times, memory = process.cpu_times(), process.memory_info()
        except psutil.Error:  # it ended meanwhile
            continue
        seconds = times.user + times.system + times.children_user + times.children_system
        found.append((process.pid, seconds, float(memory.rss)))
    return found


def _torch_holds_one() -> bool:
    cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)
    return cuda is not None and cuda.is_initialized()


def _devices_held(children: Iterable[int]) -> int:
    """How many GPUs this process and its children hold: one once torch has taken it, else as the driver sees it."""
    return 1 if _torch_holds_one() else _devices_by_driver({*children})


def _devices_by_driver(children: set[int]) -> int:
    global _no_driver
    if _no_driver or importlib.util.find_spec("pynvml") is None:
        return 0
    import os

    import pynvml

    ours = {os.getpid(), *children}
    try:
        pynvml.nvmlInit()
        devices = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
        users = [{one.pid for one in pynvml.nvmlDeviceGetComputeRunningProcesses(device)} for device in devices]
    except pynvml.NVMLError:  # no driver, or one that does not tell
        _no_driver = True
        return 0
    return sum(bool(pids & ours) for pids in users)


_no_driver = False
