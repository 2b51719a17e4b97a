"""What the container of this process (its control group) may have of memory, has, and was killed for.

Reads cgroup v2 and v1; on a machine without a limit, or not Linux, there is none.
"""

import contextlib
import resource
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60
"""v1 writes "no limit" as the largest number of pages."""


def memory_limit(folder: Path | None = None) -> int | None:
    """The most memory that the container may hold [bytes]; None when nothing limits it."""
    group = folder or own_group()
    for name in ("memory.max", "memory.limit_in_bytes"):
        limit = _number(group / name)
        if limit is not None and limit < _NO_LIMIT:
            return limit
    return None


def memory_used(folder: Path | None = None) -> int:
    """What it holds now, without files that may be dropped [bytes]."""
    group = folder or own_group()
    for name, droppable in (("memory.current", "inactive_file"), ("memory.usage_in_bytes", "total_inactive_file")):
        used = _number(group / name)
        if used is not None:
            return max(0, used - _field(group / "memory.stat", droppable))
    return 0


def kills(folder: Path | None = None) -> tuple[int, int]:
    """(how often the container met its limit, how many of its processes the kernel killed for memory). When both have grown,
    the container itself held too much; when the kills alone have, the whole machine did, through a neighbour."""
    group = folder or own_group()
    events = group / "memory.events"
    if events.exists():
        return _field(events, "oom"), _field(events, "oom_kill")
    return _number(group / "memory.failcnt") or 0, _field(group / "memory.oom_control", "oom_kill")


def processes(folder: Path | None = None) -> list[int]:
    """Ids of the processes in the container."""
    try:
        return [int(word) for word in ((folder or own_group()) / "cgroup.procs").read_text().split()]
    except (OSError, ValueError):
        return []


def own_group() -> Path:
    """The folder of this process's control group of memory: in a container, what is mounted is its own."""
    place = _ROOT
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers not in ("", "memory"):
                continue
            base = _ROOT / "memory" if controllers else _ROOT
            named = base / path.lstrip("/")
            found = named if named.is_dir() else base
            if (found / "memory.limit_in_bytes").exists() or (found / "memory.events").exists():
                place = found
    return place


def resident(pid: int) -> int:
    """What a process holds [bytes]; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max"
        return None


def _field(path: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            found, _, value = line.partition(" ")
            if found == name:
                return int(value)
    return 0
