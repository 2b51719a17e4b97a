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
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfm.curation.step import Skip
from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts import Store

TRIES = 3
CODE = "poisoned"
TRIAL_SECONDS = 3600.0
"""A trial that takes longer than this hangs, and counts as a crash [s]."""

_FOLDER = "poison"
Trial = Callable[[Path], str]
"""Local file -> "" when it can be decoded without a crash, else what ended the process."""


@dataclasses.dataclass(frozen=True)
class Note:
    """What the store knows of an item that is worked on, is suspect, or is on the list."""

    step: str
    item: str
    source: str
    deaths: int = 0
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
    """Decode every frame in a process of its own. Python's errors are no crash: whoever decodes next reports them."""
    command = [sys.executable, "-m", "wfm.curation.poison", str(path)]
    try:
        code = subprocess.run(command, capture_output=True, timeout=TRIAL_SECONDS, check=False).returncode
    except subprocess.TimeoutExpired:
        return f"decoding took longer than {TRIAL_SECONDS:g} s"
    return f"decoding ended by {signal.Signals(-code).name}" if code < 0 else ""


@contextlib.contextmanager
def watch(
    store: "Store", step: str, item: str, path: Path, source: str, *, trial: Trial = decode_in_own_process
) -> Iterator[None]:
    """Guard the work on one item (``item``: 64 hex digits). Raises `Skip` with the code ``poisoned``."""
    note = _read(store, step, item) or Note(step, item, source)
    if note.poisoned:
        raise Skip(CODE, note.poisoned)
    if note.worker and not _lives(note.worker):
        note = _judge(note, path, trial)
        if note.poisoned:
            note.write(store)
            raise Skip(CODE, note.poisoned)
    dataclasses.replace(note, worker=_this_worker()).write(store)
    try:
        yield
    finally:  # also after an exception, which is not a crash
        store.objects.delete(note.path)


def listed(store: "Store", step: str) -> frozenset[str]:
    """Items of a step that the store has a note of: on the list, suspect, or at work."""
    return frozenset(name.removesuffix(".json") for name in store.objects.names(f"{_FOLDER}/{step}"))


def poisoned(store: "Store") -> list[Note]:
    """The list, in order of step and item."""
    found = []
    for folder in store.objects.names(_FOLDER):
        step = folder.rstrip("/")
        for name in store.objects.names(f"{_FOLDER}/{step}"):
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
    try:
        return Note(**json.loads(store.objects.read(f"{_FOLDER}/{step}/{item}.json")))
    except FileNotFoundError:
        return None


def _this_worker() -> dict[str, Any]:
    from wfm.artifacts.lease import start_of, this_process

    parent = os.getppid()
    return {**this_process(), "parent": parent, "parent_start": start_of(parent)}


def _lives(worker: dict[str, Any]) -> bool:
    """Whether the process is seen to be alive; on another machine it cannot be seen, and a trial does no harm."""
    from wfm.artifacts.lease import start_of, this_process

    here = this_process()
    return worker["machine"] == here["machine"] and start_of(worker["pid"]) == worker["pid_start"]


def _was_its_fault(worker: dict[str, Any]) -> bool:
    """A worker whose parent outlived it died alone; when both are gone the run was killed."""
    from wfm.artifacts.lease import start_of, this_process

    if worker["machine"] != this_process()["machine"]:
        return True
    return bool(worker["parent_start"]) and start_of(worker["parent"]) == worker["parent_start"]


def _decode(path: str) -> None:
    from wfm.data.decode import VideoError, open_video

    with contextlib.suppress(VideoError), open_video(path) as video:
        for _ in video.shown():
            pass


if __name__ == "__main__":
    _decode(sys.argv[1])
