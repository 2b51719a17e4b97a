"""Leases: a long stage says that it is being worked on, so that a second starter waits, or takes over from a dead one.

`leases/<key>/<n>.json` is created if absent: n is the fencing number, and who created the highest one holds the
lease. The holder
rewrites `<n>.beat` (nobody else does) and creates `<n>.released` at the end. A lease is over when it was released;
when its holder
was a process of this machine that is gone; or when its beat did not change for `ttl_seconds` of the watcher's own
clock, so that
clocks that disagree cannot cost anybody a lease.

A lease saves work, it does not guard data: commits are atomic and made from the same inputs, so even two holders do
no harm.
"""

import json
import math
import os
import random
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any

from pydantic import Field

from wfm.artifacts import generations, schema
from wfm.artifacts.address import new_id, utc_now
from wfm.artifacts.objects import Objects
from wfm.artifacts.schema import Key, Number, Short
from wfm.crash_points import crash_point
from wfm.errors import Cancelled, DataError, InputError, TryAgain, WfmError
from wfm.log import get_logger

SCHEMA_VERSION = 1
_RECORD = re.compile(r"([0-9]{8}|[1-9][0-9]{8,13})\.(json|beat|released)")
_LONGEST_BEAT = 10_000  # bytes
_TTL, _TTL_VARIABLE = 30.0, "WFM_LEASE_SECONDS"
_log = get_logger(__name__)


class LeaseHeld(TryAgain):
    """Another process holds the lease."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lease: what its record says."""

    number: Number
    token: Short
    machine: Short
    """Boot and process namespace: two processes with equal ones see each other's ids."""
    host: Short
    pid: Annotated[int, Field(ge=0, lt=2**31)]
    pid_start: Short
    acquired_at: Short
    ttl_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    inputs: tuple[Key, ...]
    owner: Short = ""
    """The job that this is the lease of, where it may be started again while its last processes still seem to live: ranks whose
    launcher restarts them. Empty, and in records from before there was such a thing: this process alone."""


class Lease:
    """The lease of one key. A context manager: enters when it is ours, releases at the end.

    After `acquire`: `number` is the fencing number, `adopted` says that a holder before us died, `check()` raises
    when it was lost.
    """

    def __init__(
        self, objects: Objects, key: str, ttl_seconds: float, *, inputs: tuple[str, ...] = (), owner: str = ""
    ) -> None:
        self.key = key
        self.ttl_seconds = ttl_seconds
        self.number = 0
        self.adopted = False
        self.taken_over = ""
        "Who has taken it from us, and is at the work now; empty as long as nobody has."
        self._objects = objects
        self._folder = f"leases/{key}"
        self._inputs = inputs
        self._owner = owner
        self._token = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._last_beat = 0.0
        self._lost = ""
        self._beaten = False

    def acquire(
        self,
        wait_seconds: float | None = None,
        stopping: Callable[[], bool] | None = None,
        *,
        leave: bool = False,
    ) -> "Lease":
        """Take the lease, waiting while another holds it (for ever with None). `leave`: not for one that is seen to be alive;
        whether a holder on another machine is takes until its next beat to see, or its `ttl_seconds` when it is not.

        Raises LeaseHeld (a TryAgain) when `wait_seconds` are over or it is to leave, Cancelled when `stopping()` turns true.
        """
        watch = _Watch(self._objects, self._folder)
        start = time.monotonic()
        told = 0.0
        while True:
            number, free = watch.look()
            if (free or watch.is_of(self._owner)) and self._take(number + 1):
                self.adopted = watch.abandoned
                crash_point("after_lease")
                return self
            now = time.monotonic()
            if stopping is not None and stopping():
                raise Cancelled(f"stopped while waiting for the lease of {self.key[:12]}")
            if (wait_seconds is not None and now - start >= wait_seconds) or (leave and watch.alive):
                waited = f"; waited {now - start:.0f} s for it" if now - start >= 1 else ""
                raise LeaseHeld(f"another process works on {self.key[:12]} ({watch.describe()}){waited}")
            if now - told > 30:
                told = now
                _log.info("waiting for %s: %s works on it", self.key[:12], watch.describe())
            time.sleep(min(self.ttl_seconds / 8, 1.0) * random.uniform(0.5, 1.0))

    def await_end(self, stopping: Callable[[], bool]) -> None:
        """Wait until nobody holds the lease any more, or `stopping()` turns true. It is not taken."""
        watch = _Watch(self._objects, self._folder)
        while not stopping() and not watch.look()[1]:
            time.sleep(min(self.ttl_seconds / 8, 1.0) * random.uniform(0.5, 1.0))

    def _take(self, number: int) -> bool:
        self._token = new_id()
        record = {
            "schema_version": SCHEMA_VERSION,
            "number": number,
            "token": self._token,
            **this_process(),
            "acquired_at": utc_now(),
            "ttl_seconds": self.ttl_seconds,
            "inputs": list(self._inputs),
            "owner": self._owner,
        }
        if not self._objects.create(f"{self._folder}/{number:08d}.json", schema.encode(record)):
            return False
        crash_point("lease_recorded")
        # Old numbers may have been collected: a number that was free proves nothing while a higher one stands.
        if max(numbers(self._objects, self._folder), default=0) > number:
            self._objects.delete(f"{self._folder}/{number:08d}.json")
            return False
        self.number = number
        self._last_beat = time.monotonic()
        self._lost = self.taken_over = ""
        self._beaten = False
        self._stop.clear()
        self._thread = threading.Thread(target=self._beat, name=f"lease-{self.key[:8]}", daemon=True)
        self._thread.start()
        return True

    def _beat(self) -> None:
        count = 0
        while not self._stop.wait(self.ttl_seconds / 4):
            count += 1
            self._beaten = True  # also when it seems to fail: it may have come through
            try:
                self._objects.replace(f"{self._folder}/{self.number:08d}.beat", json.dumps({"count": count}).encode())
                highest = max(numbers(self._objects, self._folder), default=0)
                if highest > self.number:
                    self._lost = "another process took it over"
                    try:
                        self.taken_over = describe(read_holder(self._objects, self._folder, highest))
                    except (WfmError, OSError):  # whoever it is: ours is gone
                        self.taken_over = "a process whose record cannot be read"
                    return
                self._last_beat = time.monotonic()
            except (WfmError, OSError) as error:  # it goes on trying; check() tells the holder when that took too long
                _log.warning("the lease of %s could not be renewed: %s", self.key[:12], error)

    def check(self) -> None:
        """Raise TryAgain when the lease is no longer ours: stop, somebody else does the work."""
        if not self.number:
            raise TryAgain(f"the lease of {self.key[:12]} is not held")
        silent = time.monotonic() - self._last_beat
        if not self._lost and silent > self.ttl_seconds:
            self._lost = f"it could not be renewed for {silent:.0f} s"
        if self._lost:
            raise TryAgain(f"the lease of {self.key[:12]} (number {self.number}) was lost: {self._lost}")

    def release(self) -> None:
        """Give the lease back. A second call does nothing."""
        if not self.number:
            return
        crash_point("before_release")
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=self.ttl_seconds)
        number, self.number = self.number, 0
        try:
            self._objects.create(f"{self._folder}/{number:08d}.released", self._token.encode())
            crash_point("lease_released")
            if self._beaten:
                self._objects.delete(f"{self._folder}/{number:08d}.beat")
        except (WfmError, OSError) as error:  # the work is done; the lease runs out by itself
            _log.warning("the lease of %s could not be released and runs out: %s", self.key[:12], error)

    def __enter__(self) -> "Lease":
        return self if self.number else self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def ttl_of_environment() -> float:
    """How long a lease may be silent before it is over [s]: ``WFM_LEASE_SECONDS``, else 30. Raises InputError."""
    given = os.environ.get(_TTL_VARIABLE, "")
    try:
        seconds = float(given or _TTL)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InputError(f"{_TTL_VARIABLE} is {given!r}: give seconds, such as {_TTL:g}")
    return seconds


class _Watch:
    """Watches the highest lease of a key, to say when it is over."""

    def __init__(self, objects: Objects, folder: str) -> None:
        self.abandoned = False
        self.alive = False
        "Whether the holder is seen to be: its process on this machine, or a beat while we watch."
        self._objects = objects
        self._folder = folder
        self._holder: Holder | None = None
        self._beat = b""
        self._since = 0.0

    def look(self) -> tuple[int, bool]:
        """(highest number, whether the lease is free)."""
        names = set(self._objects.names(self._folder))
        number = max((int(m[1]) for m in map(_RECORD.fullmatch, names) if m and m[2] == "json"), default=0)
        self.abandoned = False
        if number == 0 or f"{number:08d}.released" in names:
            return number, True
        now = time.monotonic()
        if self._holder is None or self._holder.number != number:
            self._holder = read_holder(self._objects, self._folder, number)
            self._beat, self._since = self._read_beat(number), now
            self.alive = self._holder is not None and is_here(self._holder) and not is_gone(self._holder)
        if self._holder is None:  # released and collected between the two requests
            return number, False
        beat = self._read_beat(number)
        if beat != self._beat:
            self._beat, self._since, self.alive = beat, now, True
        self.abandoned = is_gone(self._holder) or now - self._since > self._holder.ttl_seconds
        return number, self.abandoned

    def _read_beat(self, number: int) -> bytes:
        try:
            return self._objects.read(f"{self._folder}/{number:08d}.beat", _LONGEST_BEAT)
        except FileNotFoundError:
            return b""

    def is_of(self, owner: str) -> bool:
        """Whether the lease that was looked at is of this job: it was started again, and its last start is over."""
        return bool(owner) and self._holder is not None and self._holder.owner == owner

    def describe(self) -> str:
        return describe(self._holder)


def describe(holder: Holder | None) -> str:
    """Who it is, for people."""
    return f"process {holder.pid} on {holder.host} since {holder.acquired_at}" if holder else "another process"


def read_holder(objects: Objects, folder: str, number: int) -> Holder | None:
    """The record of one lease, or None when it is not there. Raises DataError when it is not that of a lease of this number."""
    path = f"{folder}/{number:08d}.json"
    where = f"{objects.address.url}/{path}"
    try:
        return schema.read(Holder, objects.read(path), where, SCHEMA_VERSION, number=number)
    except FileNotFoundError:
        return None
    except DataError as error:
        raise DataError(f"{error}; delete this lease when nothing runs on its key") from None


def is_gone(holder: Holder) -> bool:
    """True when the holder was a process of this machine, and that process has ended."""
    return is_here(holder) and start_of(holder.pid) != holder.pid_start


def is_here(holder: Holder) -> bool:
    """Whether the holder is a process of this machine, which can be seen from here."""
    return bool(holder.machine) and holder.machine == _machine()


def numbers(objects: Objects, folder: str) -> list[int]:
    """Numbers of the leases in a key's folder; what else lies there is not ours."""
    return [int(m[1]) for m in map(_RECORD.fullmatch, objects.names(folder)) if m and m[2] == "json"]


def this_process() -> dict[str, str | int]:
    """Names this process so that another one of the same machine can see whether it has ended."""
    pid = os.getpid()
    return {"machine": _machine(), "host": socket.gethostname(), "pid": pid, "pid_start": start_of(pid)}


def _machine() -> str:
    """Boot id and process namespace (Linux); "" elsewhere, where only silence tells that a holder died."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + " " + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def start_of(pid: Any) -> str:
    """When a process started, in ticks since boot; "" when there is none (or only its zombie), or `pid` is no number."""
    if not isinstance(pid, int):  # it comes from a record, and becomes a path
        return ""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def held(objects: Objects, problems: list[str] | None = None, patience: float = 0.0) -> dict[str, Holder | None]:
    """Leases that are not over, by key, for garbage collection. A holder on another machine cannot be seen to be gone: its
    lease counts as held, unless it stays silent for its `ttl_seconds` while we watch, `patience` seconds at most. One that
    cannot be read counts too, with None; why goes into `problems`, or is logged."""
    found: dict[str, Holder | None] = {}
    for key in generations.keys(objects, "leases"):
        folder = f"leases/{key}"
        names = objects.names(folder)
        number = _highest(names)
        if not number or f"{number:08d}.released" in names:
            continue
        try:
            holder = read_holder(objects, folder, number)
        except InputError as error:
            found[key] = None
            if problems is None:
                _log.warning("%s", error)
            else:
                problems.append(str(error))
            continue
        if holder is not None and not is_gone(holder):
            found[key] = holder
    for key in _silent(objects, {key: holder for key, holder in found.items() if holder}, patience):
        del found[key]
    return found


def _silent(objects: Objects, holders: dict[str, Holder], patience: float) -> list[str]:
    """Keys of the leases, of holders on other machines, that ran out while we watched."""
    began, over = time.monotonic(), []
    elsewhere = [key for key, holder in holders.items() if not is_here(holder) and holder.ttl_seconds <= patience]
    watches = {key: _Watch(objects, f"leases/{key}") for key in elsewhere}
    while watches:
        late = time.monotonic() - began > patience + 1.0
        for key, watch in list(watches.items()):
            _, free = watch.look()
            if free:
                over.append(key)
            if free or late or watch.alive:
                del watches[key]
        time.sleep(min([holders[key].ttl_seconds / 8 for key in watches] + [1.0]) if watches else 0.0)
    return over


def trim(objects: Objects, key: str) -> None:
    """Of a key's leases only the highest number is needed; it stays, so that fencing numbers only grow."""
    folder = f"leases/{key}"
    names = objects.names(folder)
    highest = _highest(names)
    for name in names:
        match = _RECORD.fullmatch(name)
        if match and int(match[1]) < highest:
            objects.delete(f"{folder}/{name}")


def _highest(names: list[str]) -> int:
    return max((int(m[1]) for m in map(_RECORD.fullmatch, names) if m and m[2] == "json"), default=0)
