"""A witness of each process that works on items under the poison guard: it outlives the process, and tells why it died.

A worker may vanish for many reasons that are nobody's fault: an eviction, a spot machine, a neighbour's memory, a kill of the
whole run. So a death counts against an item only with evidence, which is seen beside the process, in the same container:

- the process crashed by a signal of its own (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT), before anybody asked it to stop;
- its memory reached the limit of its worker, or that of its container, and what is left there is the lesser half;
- it ended itself, because the item took too long (`Witness.gives_up`).

The witness is a small process (standard library only until there is something to write) at the other end of a pipe. Lines of
JSON tell it which items are at work; Python's fault handler writes its report of a crash into the same pipe; its end is the
death. What it saw of an item it writes to the store beside the item's note, ``poison/<step>/<id>.<token>.death``. When the
container goes as a whole, so does the witness: nothing is written, nobody is blamed.
"""

import contextlib
import dataclasses
import faulthandler
import json
import os
import select
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from wfm import container, stopping
from wfm.log import get_logger
from wfm.process import python, safe_environment

if TYPE_CHECKING:
    from wfm.artifacts import Store

NEAR = 0.9
"""A process that died with more than this share of its limit died of its memory: Dask stops a worker at 0.95 of its own."""
_LOOK_SECONDS = 0.1  # between looks at the process's memory, as often as Dask's nanny
_CRASH = b"Fatal Python error: "


class Witness:
    """The end of the pipe that is held by the process at work. Thread-safe; a forked child gets a witness of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._pipe = -1

    @property
    def pid(self) -> int:
        """Its process id; 0 when there is none."""
        return self._process.pid if self._process is not None and self._owner == os.getpid() else 0

    def begins(self, store: "Store", path: str, memory: int | None) -> None:
        """The process begins to work on the item of this note; ``memory``: what the process may hold [bytes]."""
        self._tell({"begins": path, "store": store.url, "options": store.options, "memory": memory}, start=True)

    def ends(self, path: str) -> None:
        """It is done with the item, well or with an exception."""
        self._tell({"ends": path})

    def gives_up(self, path: str, why: str) -> None:
        """The process is about to end itself because of this item."""
        self._tell({"gives_up": path, "why": why})

    def asked(self) -> None:
        """The process was asked to stop: whatever ends it from now on is nobody's fault."""
        with contextlib.suppress(OSError):  # without the lock: called by a signal's handler
            if self.pid:
                os.write(self._pipe, b'{"asked": 1}\n')

    def _tell(self, line: dict[str, Any], *, start: bool = False) -> None:
        data = json.dumps(line).encode() + b"\n"
        with self._lock:
            if start and not self.pid:
                self._start()
            if not self.pid:
                return
            try:
                os.write(self._pipe, data)
            except OSError as error:  # killed: a death of this process will not be explained, and blames nobody
                get_logger(__name__).warning("the witness is gone (%s)", error)
                self._process = None

    def _start(self) -> None:
        end, self._pipe = os.pipe()
        try:
            self._process = subprocess.Popen(
                python("-m", __name__, str(os.getpid())),
                stdin=end,
                stdout=subprocess.DEVNULL,
                env=safe_environment(os.environ),
                start_new_session=True,  # a signal to the group of the process is not for its witness
            )
        except OSError as error:
            get_logger(__name__).warning("no witness could be started (%s): a crash here will blame nobody", error)
            return
        finally:
            os.close(end)
        self._owner = os.getpid()
        faulthandler.enable(self._pipe)
        stopping.when_asked(self.asked)


@dataclasses.dataclass
class _Seen:
    """What the witness knows of the process."""

    pid: int
    items: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    "By note: the line that began it."
    why: dict[str, str] = dataclasses.field(default_factory=dict)
    crash: str = ""
    asked: bool = False
    fullest: float = 0.0
    "The largest share of its limit that the process has held since an item began."
    kills: tuple[int, int] = (0, 0)

    def hear(self, line: bytes) -> None:
        if line.startswith(_CRASH):
            self.crash = line.removeprefix(_CRASH).decode(errors="replace").strip()
        with contextlib.suppress(ValueError, AttributeError):
            said = json.loads(line)
            if "begins" in said:
                if not self.items:
                    self.fullest, self.kills = 0.0, container.kills()
                self.items[said["begins"]] = said
            self.items.pop(said.get("ends", ""), None)
            self.asked = self.asked or "asked" in said
            if "gives_up" in said:
                self.why[said["gives_up"]] = said["why"]

    def look(self) -> None:
        held = container.resident(self.pid)
        limits = [container.memory_limit(), *(item["memory"] for item in self.items.values())]
        self.fullest = max([self.fullest, *(held / limit for limit in limits if limit)])

    def verdict(self, path: str) -> str:
        """Why the process died, as far as it is the item's doing; "" when it is not, or nobody knows."""
        if path in self.why:
            return self.why[path]
        if len(self.items) > 1:  # a worker of several threads: nobody knows which item it was
            return ""
        if self.fullest >= NEAR:
            return f"held {self.fullest:.0%} of the memory it may have"
        if self.asked:
            return ""
        if self.crash:
            return self.crash
        limit, now = container.memory_limit(), container.kills()
        grown = all(after > before for before, after in zip(self.kills, now, strict=True))
        if limit and grown and sum(map(container.resident, container.processes())) < limit / 2:
            return f"killed by the kernel: its container met its limit of {limit:,} bytes, of which it held most"
        return ""


def _attend(pid: int) -> _Seen:
    """Listen until the process is gone."""
    seen, heard = _Seen(pid), b""
    while True:
        ready, _, _ = select.select([0], [], [], _LOOK_SECONDS if seen.items else None)
        if not ready:
            seen.look()
            continue
        data = os.read(0, 1 << 16)
        if not data:
            return seen
        *lines, heard = (heard + data).split(b"\n")
        for line in lines:
            if not line.startswith(b"{"):  # the report of a crash: into the log, where it would have gone
                sys.stderr.buffer.write(line + b"\n")
                sys.stderr.flush()
            seen.hear(line)


def _write(seen: _Seen) -> None:
    from wfm.artifacts import Store
    from wfm.artifacts.address import new_id

    for path, item in seen.items.items():
        why = seen.verdict(path)
        if why:
            store = Store.open(item["store"], item["options"])
            record = {"reason": why, "pid": seen.pid, "host": os.uname().nodename}
            store.objects.create(f"{path}.{new_id()}.death", json.dumps(record, sort_keys=True).encode())


if __name__ == "__main__":
    for _number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(_number, signal.SIG_IGN)  # it ends with the process that it watches
    _write(_attend(int(sys.argv[1])))
