"""Poison: a video or clip that crashes the decoder takes its worker with it. It is found and left out, and the rest goes on.

    with watch(store, "split", row.video_id, path, row.source):
        …                                 # raises Skip("poisoned") instead, for a video that is on the list

While an item is worked on, a note with the process's id lies in the store. A note whose process is gone names the suspect, so
no part has to be split to find it. (Clips have notes only in a part at which a worker has died: see `per_clip`.) A suspect is
first decoded in a process of its own, which may crash without harm: when that process is killed by a signal `TRIES` times, or
the item has taken `TRIES` workers although the trial goes well, it enters the list, ``poison/<step>/<id>.json``. A worker
that died because its whole run was killed is no death of the item's. `forget` (``--retry-failed``) takes items off the list.
"""

import contextlib
import dataclasses
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfm.artifacts import schema
from wfm.artifacts.address import NAME_PATTERN
from wfm.artifacts.schema import Count
from wfm.curation.step import Skip
from wfm.errors import DataError
from wfm.log import get_logger
from wfm.process import python, safe_environment

if TYPE_CHECKING:
    from wfm.artifacts import Store

TRIES = 3
CODE = "poisoned"
TRIAL_SECONDS = 3600.0
"""A trial that takes longer than this hangs, and counts as a crash [s]; that of a small file sooner, see `trial_seconds`."""
TRIAL_BYTES = 4 << 30
"""A trial that needs more memory than this counts as a crash [bytes]: the 17 pictures of 8K that a decoder may keep fit."""

_FOLDER = "poison"
_ITEM = re.compile(r"[0-9a-f]{64}\.json")
_LEAST_SECONDS, _SLOWEST = 120.0, 50_000  # bytes of video a second, of the slowest decoding there is
_LEAST_PROBE_SECONDS = 300.0
_OUT_OF_MEMORY = 86
"""Exit code of a trial that was refused memory."""
Trial = Callable[[Path], str]
"""Local file -> "" when it can be decoded without a crash, else what ended the process."""


@dataclasses.dataclass(frozen=True)
class Note:
    """What the store knows of an item that is worked on, is suspect, or is on the list."""

    step: str
    item: str
    source: str
    deaths: Count = 0
    "Workers that it has taken."
    worker: dict[str, Any] = dataclasses.field(default_factory=dict)
    "The process at work on it: machine, pid, pid_start, and the same of its parent."
    poisoned: str = ""
    "Why it is on the list; empty when it is not."

    @property
    def path(self) -> str:
        """Where it lies in the store."""
        return f"{_FOLDER}/{self.step}/{self.item}.json"

    def write(self, store: "Store") -> None:
        """Write over what is there."""
        store.objects.replace(self.path, json.dumps(dataclasses.asdict(self), sort_keys=True).encode())


def decode_in_own_process(path: Path) -> str:
    """Decode every frame in a process of its own, of bounded memory and time. Python's errors are no crash: whoever decodes
    next reports them."""
    seconds = trial_seconds(path)
    command, environment = python("-m", "wfm.curation.poison", str(path)), safe_environment(os.environ)
    try:
        code = subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=seconds, check=False, env=environment
        ).returncode
    except subprocess.TimeoutExpired:
        return f"decoding took longer than {seconds:g} s"
    if code == _OUT_OF_MEMORY:
        return f"decoding took more than {TRIAL_BYTES:,} bytes of memory"
    return f"decoding ended by {signal.Signals(-code).name}" if code < 0 else ""


def trial_seconds(path: Path) -> float:
    """How long the trial of a file may take [s]: what the slowest decoding takes, two minutes at least."""
    size = path.stat().st_size if path.exists() else 0
    return min(TRIAL_SECONDS, _LEAST_SECONDS + round(size / _SLOWEST))


def probe_seconds(path: Path) -> float:
    """How long a file may be read without decoding it [s]: at 1 MB/s, five minutes at least."""
    return _LEAST_PROBE_SECONDS + path.stat().st_size / 1e6


@contextlib.contextmanager
def watch(
    store: "Store",
    step: str,
    item: str,
    path: Path,
    source: str,
    *,
    trial: Trial = decode_in_own_process,
    seconds: float | None = None,
) -> Iterator[None]:
    """Guard the work on one item (``item``: 64 hex digits). Raises `Skip` with the code ``poisoned``.

    ``seconds``: this process ends itself when the work takes longer, since a call of the codec library cannot be broken off;
    the item is a suspect then, as after any crash.
    """
    note = _read(store, step, item) or Note(step, item, source)
    if note.poisoned:
        raise Skip(CODE, note.poisoned)
    if note.worker and not _lives(note.worker):
        note = _judge(note, path, trial)
        if note.poisoned:
            note.write(store)
            raise Skip(CODE, note.poisoned)
    dataclasses.replace(note, worker=_this_worker()).write(store)
    end = threading.Timer(seconds or 0, os.kill, (os.getpid(), signal.SIGKILL))
    end.daemon = True
    if seconds:
        end.start()
    try:
        yield
    finally:  # also after an exception, which is not a crash
        end.cancel()
        store.objects.delete(note.path)


def listed(store: "Store", step: str) -> frozenset[str]:
    """Items of a step that the store has a note of: on the list, suspect, or at work."""
    return frozenset(name.removesuffix(".json") for name in store.objects.names(f"{_FOLDER}/{step}"))


def poisoned(store: "Store") -> list[Note]:
    """The list, in order of step and item."""
    found = []
    for folder in store.objects.names(_FOLDER):
        step = folder.rstrip("/")
        if not folder.endswith("/") or not NAME_PATTERN.fullmatch(step):
            continue  # not ours
        for name in store.objects.names(f"{_FOLDER}/{step}"):
            if not _ITEM.fullmatch(name):
                continue
            note = _read(store, step, name.removesuffix(".json"))
            if note is not None and note.poisoned:
                found.append(note)
    return found


def forget(store: "Store") -> list[Note]:
    """Take every item off the list; returns what was on it. The parts that left them out are the caller's to make again."""
    found = poisoned(store)
    for note in found:
        store.objects.delete(note.path)
    return found


def _judge(note: Note, path: Path, trial: Trial) -> Note:
    """The note of a suspect after its trial: poisoned, or with one death more."""
    deaths = note.deaths + _was_its_fault(note.worker)
    log = get_logger(__name__)
    log.warning("%s: a process died at it in step %r: trying it in a process of its own", note.source, note.step)
    ends: list[str] = []
    while len(ends) < TRIES and (end := trial(path)):
        ends.append(end)
    if len(ends) == TRIES:
        return dataclasses.replace(note, deaths=deaths, worker={}, poisoned=f"{ends[-1]}, {TRIES} times")
    if deaths >= TRIES:
        words = f"{deaths} workers died at it, though it can be decoded by itself (out of memory, or a crash elsewhere)"
        return dataclasses.replace(note, deaths=deaths, worker={}, poisoned=words)
    return dataclasses.replace(note, deaths=deaths)


def _read(store: "Store", step: str, item: str) -> Note | None:
    path = f"{_FOLDER}/{step}/{item}.json"
    try:
        data = store.objects.read(path)
    except FileNotFoundError:
        return None
    try:
        note = schema.fit(Note, schema.parse(data, path), path)
    except DataError as error:
        get_logger(__name__).warning("%s: this note counts as not there", error)
        return None
    return note if (note.step, note.item) == (step, item) else None


def _this_worker() -> dict[str, Any]:
    from wfm.artifacts.lease import start_of, this_process

    parent = os.getppid()
    return {**this_process(), "parent": parent, "parent_start": start_of(parent)}


def _lives(worker: dict[str, Any]) -> bool:
    """Whether the process is seen to be alive; on another machine it cannot be seen, and a trial does no harm."""
    from wfm.artifacts.lease import start_of, this_process

    here = this_process()
    return worker.get("machine") == here["machine"] and start_of(worker.get("pid")) == worker.get("pid_start")


def _was_its_fault(worker: dict[str, Any]) -> bool:
    """A worker whose parent outlived it died alone; when both are gone the run was killed."""
    from wfm.artifacts.lease import start_of, this_process

    if worker.get("machine") != this_process()["machine"]:
        return True
    return bool(worker.get("parent_start")) and start_of(worker.get("parent")) == worker["parent_start"]


def _decode(path: str) -> None:
    from wfm.data.decode import VideoError, open_video

    _bound_memory()
    try:
        with open_video(path) as video:
            for _ in video.shown():
                pass
    except MemoryError:
        sys.exit(_OUT_OF_MEMORY)
    except VideoError as error:
        if isinstance(error.__cause__, MemoryError) and error.code != "too_large":
            sys.exit(_OUT_OF_MEMORY)


def _bound_memory() -> None:
    """At most `TRIAL_BYTES` beyond what the libraries have mapped by now; the decoder is refused more."""
    import psutil

    most = psutil.Process().memory_info().vms + TRIAL_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    _decode(sys.argv[1])
