"""Poison: a video or clip that crashes the decoder takes its worker with it. It is found and left out, and the rest goes on.

    with watch(store, "split", row.video_id, path, row.source):
        …                                 # raises Skip("poisoned") instead, for a video that is on the list

While an item is worked on, a note with the process's id lies in the store. A note whose process is gone names the suspect, so
no part has to be split to find it. (Clips have notes only in a part at which a worker has died: see `per_clip`.) A suspect is
first decoded in a process of its own (`trial`): when that crashes `TRIES` times, or the item has taken `TRIES` workers although
the trial goes well, it enters the list, ``poison/<step>/<id>.json``.

A worker that vanished is no death of the item's: evictions, spot machines, a neighbour's memory, another container and killed
runs are nobody's fault, and an item may meet any number of them. What counts is what a `witness` saw beside the worker.
`forget` (``--retry-failed``) takes items off the list.
"""

import contextlib
import dataclasses
import json
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wfm.artifacts import schema
from wfm.artifacts.address import NAME_PATTERN
from wfm.artifacts.schema import Count, Short
from wfm.crash_points import crash_point
from wfm.curation.step import Skip
from wfm.curation.trial import decode_in_own_process
from wfm.curation.witness import Witness
from wfm.errors import DataError
from wfm.log import get_logger
from wfm.parts.workers import own_memory

if TYPE_CHECKING:
    from wfm.artifacts import Store

TRIES = 3
CODE = "poisoned"

_FOLDER = "poison"
_ITEM = re.compile(r"[0-9a-f]{64}\.json")
_DEATH = re.compile(r"[0-9a-f]{64}\.[0-9A-Za-z-]+\.death")
_LEAST_PROBE_SECONDS = 300.0
_WITNESS_SECONDS = 10.0
"""How long a witness of this machine may take to write what it saw [s]."""
_witness = Witness()
Trial = Callable[[Path], str]
"""Local file -> "" when it can be decoded without a crash, else what ended the process."""


@dataclasses.dataclass(frozen=True)
class Note:
    """What the store knows of an item that is worked on, is suspect, or is on the list."""

    step: str
    item: str
    source: str
    deaths: Count = 0
    "Workers that it has taken, by the evidence there was when it was last judged."
    worker: dict[str, Any] = dataclasses.field(default_factory=dict)
    "The process at work on it: machine, pid, pid_start, and the same of its witness."
    poisoned: str = ""
    "Why it is on the list; empty when it is not."

    @property
    def path(self) -> str:
        """Where it lies in the store."""
        return f"{_FOLDER}/{self.step}/{self.item}.json"

    @property
    def stem(self) -> str:
        """How the names of its note and of what witnesses wrote of it begin."""
        return self.path.removesuffix(".json")

    def write(self, store: "Store") -> None:
        """Write over what is there."""
        store.objects.replace(self.path, json.dumps(dataclasses.asdict(self), sort_keys=True).encode())


@dataclasses.dataclass(frozen=True)
class Death:
    """A worker that an item has taken: what its witness wrote."""

    reason: Short
    pid: Count = 0
    host: Short = ""


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
    trial: Trial | None = None,
    seconds: float | None = None,
) -> Iterator[None]:
    """Guard the work on one item (``item``: 64 hex digits). Raises `Skip` with the code ``poisoned``.

    ``seconds``: this process ends itself when the work takes longer, since a call of the codec library cannot be broken off;
    the item is a suspect then, as after any crash. ``trial``: another one than decoding it in a process of its own.
    """
    note = _read(store, step, item) or Note(step, item, source)
    if note.poisoned:
        raise Skip(CODE, note.poisoned)
    suspect = bool(note.worker) and not _lives(note.worker)
    if suspect:
        note = _judge(store, note, path, trial or (lambda path: decode_in_own_process(path, own_memory())))
        if note.poisoned:
            note.write(store)
            raise Skip(CODE, note.poisoned)
    _witness.begins(store, note.stem, own_memory())
    dataclasses.replace(note, worker=_this_worker()).write(store)
    crash_point("item_noted")
    end = threading.Timer(seconds or 0, _give_up, (note.stem, seconds))
    end.daemon = True
    if seconds:
        end.start()
    try:
        yield
    finally:  # also after an exception, which is not a crash
        end.cancel()
        _witness.ends(note.stem)
        crash_point("item_done")
        store.objects.delete(note.path)
        if suspect:
            _delete_deaths(store, note)


def _give_up(stem: str, seconds: float) -> None:
    _witness.gives_up(stem, f"took longer than {seconds:g} s")
    os.kill(os.getpid(), signal.SIGKILL)


def listed(store: "Store", step: str) -> frozenset[str]:
    """Items of a step that the store has a note of: on the list, suspect, or at work."""
    return frozenset(
        name.removesuffix(".json") for name in store.objects.names(f"{_FOLDER}/{step}") if _ITEM.fullmatch(name)
    )


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
        _delete_deaths(store, note)
    return found


def _judge(store: "Store", note: Note, path: Path, trial: Trial) -> Note:
    """The note of a suspect after its trial: poisoned, or with the deaths that speak against it."""
    log = get_logger(__name__)
    log.warning("%s: a process vanished at it in step %r: trying it in a process of its own", note.source, note.step)
    ends: list[str] = []
    while len(ends) < TRIES and (end := trial(path)):
        ends.append(end)
    _wait_for_witness(note.worker)
    deaths = _deaths(store, note)
    note = dataclasses.replace(note, deaths=len(deaths))
    if len(ends) == TRIES:
        return dataclasses.replace(note, worker={}, poisoned=f"{ends[-1]}, {TRIES} times")
    if len(deaths) >= TRIES:
        words = f"{len(deaths)} workers died at it, though it can be decoded by itself ({deaths[-1].reason})"
        return dataclasses.replace(note, worker={}, poisoned=words)
    return note


def _deaths(store: "Store", note: Note) -> list[Death]:
    """What witnesses wrote of an item, in order of time."""
    found = []
    for name in _death_names(store, note):
        try:
            path = f"{_FOLDER}/{note.step}/{name}"
            found.append(schema.fit(Death, schema.parse(store.objects.read(path), path), path))
        except (DataError, FileNotFoundError) as error:
            get_logger(__name__).warning("%s: this death counts for nothing", error)
    return found


def _death_names(store: "Store", note: Note) -> list[str]:
    return [name for name in store.objects.names(f"{_FOLDER}/{note.step}", note.item) if _DEATH.fullmatch(name)]


def _delete_deaths(store: "Store", note: Note) -> None:
    for name in _death_names(store, note):
        store.objects.delete(f"{_FOLDER}/{note.step}/{name}")


def _wait_for_witness(worker: dict[str, Any]) -> None:
    """Let a witness of this machine finish; one elsewhere has had the time of the trial."""
    from wfm.artifacts.lease import start_of, this_process

    until = time.monotonic() + _WITNESS_SECONDS
    here = worker.get("machine") == this_process()["machine"] and worker.get("witness_start")
    while here and start_of(worker.get("witness")) == worker["witness_start"] and time.monotonic() < until:
        time.sleep(0.02)


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

    return {**this_process(), "witness": _witness.pid, "witness_start": start_of(_witness.pid)}


def _lives(worker: dict[str, Any]) -> bool:
    """Whether the process is seen to be alive; on another machine it cannot be seen, and a trial does no harm."""
    from wfm.artifacts.lease import start_of, this_process

    here = this_process()
    return worker.get("machine") == here["machine"] and start_of(worker.get("pid")) == worker.get("pid_start")
