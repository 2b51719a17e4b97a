"""Checkpoints of a key in the store: what a stage goes on from that has lost its machine.

    checkpoints/<key>/<fence>-<step>-<id>/…        the files
    checkpoints/<key>/<fence>-<step>-<id>.json     their record, written last and if absent: the commit

**Who may.** The fence is the number of the lease under which a process works at the key. Whoever is not the holder of the
highest lease any more neither commits nor deletes (`FenceLost`): it looks right before each. A lease may still change hands
between that look and the write; the rule of reading makes this harmless.

**Which counts.** The highest fence first, then the highest step: what a holder has committed stands above all that came from
holders before it, later steps included. So a late commit of a process that was thought dead, or a damaged checkpoint of a later
step, cannot win over the one that works now, nor push its checkpoints out. All of them are states of one run, so the first
commit of a new holder loses nothing: it went on from the newest. A fence above the reader's own has no lease behind it (a store
that was copied without its leases) and counts as 0. No clock is compared anywhere.

**What stays.** After a commit: that one, and the one which this holder committed, or went on from, before it; without one the
next newest. Others of the same run go, and so do unfinished uploads of this and older fences; a checkpoint of another
run (`fingerprint`) under this key is not resumed, and stays until the key is committed or collected. The record goes first, so
that what is half deleted is an unfinished upload.

On a disk, files are hard links to those of the scratch folder, which lies in the same store: nothing is written twice.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from wfm.artifacts import generations, lease
from wfm.artifacts.address import ID_PATTERN, id_time, new_id
from wfm.artifacts.atomic import delete_folder, fsync_folder, second_name
from wfm.artifacts.checkpoint_record import RECORD, CheckpointRecord, verify
from wfm.artifacts.objects import GoOn, Objects, going_on
from wfm.crash_points import crash_point
from wfm.errors import DataError, TryAgain, WfmError
from wfm.log import get_logger

AREA = "checkpoints"
_NAME = re.compile(rf"([0-9]{{8,15}})-([0-9]{{10,19}})-({ID_PATTERN.pattern})")
_log = get_logger(__name__)


class FenceLost(TryAgain):
    """Another process has taken the key over: this one keeps nothing in the store any more."""


class Name(NamedTuple):
    """Which checkpoint: parsed from its name."""

    fence: int
    step: int
    id: str

    def __str__(self) -> str:
        return f"{self.fence:08d}-{self.step:010d}-{self.id}"


class Checkpoints:
    """Checkpoints of one key under one fence, and the folder of this machine beside them. Used by one thread at a time."""

    def __init__(
        self, objects: Objects, key: str, fence: int, scratch: Path, taken_over: Callable[[], str] = lambda: ""
    ) -> None:
        self.key = key
        self.fence = fence
        self.scratch = scratch
        """Folder of this machine that stays between the attempts at the key."""
        self.taken_over = taken_over
        """Who has taken over the lease that the fence is the number of; empty as long as nobody has."""
        self._objects = objects
        self._folder = f"{AREA}/{key}"
        self._vouched: list[Name] = []
        self._prints: dict[Name, str] = {}

    def committed(self) -> list[Name]:
        """Those with a record, the one that counts most first."""
        return sorted(_names(self._objects, self.key)[0], key=self.rank, reverse=True)

    def rank(self, name: Name | CheckpointRecord) -> tuple[int, int]:
        """Of two checkpoints the one with the higher rank counts."""
        return (name.fence if name.fence <= self.fence else 0, name.step)

    def record(self, name: Name) -> CheckpointRecord:
        """Raises DataError when there is none that can be used."""
        path = f"{self._folder}/{name}.json"
        try:
            data = self._objects.read(path)
        except FileNotFoundError:
            raise DataError(f"{self._objects.address.url}/{path} is gone") from None
        where = f"{self._objects.address.url}/{path}"
        return CheckpointRecord.from_bytes(data, where, key=self.key, fence=name.fence, step=name.step)

    def fetch(self, name: Name, record: CheckpointRecord, into: Path) -> None:
        """Put the files and the record into the empty folder `into`, checked. Raises DataError for a missing or damaged one."""
        for entry in record.files:
            path = f"{self._folder}/{name}/{entry.path}"
            here = self._objects.local_path(path)
            try:
                if here is None or not second_name(here, into / entry.path):
                    self._objects.download(path, into / entry.path)
            except FileNotFoundError:
                raise DataError(f"{self._objects.address.url}/{path} is missing") from None
            crash_point("half_checkpoint_fetch")
        verify(into, record)
        (into / RECORD).write_bytes(record.to_bytes())

    def vouch(self, name: Name) -> None:
        """The training goes on from this one: it is whole."""
        self._vouched = [name]

    def new_name(self, step: int) -> Name:
        """A name for an upload, which no other has."""
        return Name(self.fence, step, new_id())

    def send(self, folder: Path, record: CheckpointRecord, name: Name, sent: set[str], go_on: GoOn = going_on) -> None:
        """Upload the files of `folder` and commit them. `sent` remembers what is there, for a second call after an error.
        `go_on` is called between files and pieces of them, and before the commit: what it raises ends the upload.

        Raises FenceLost when the key is another's by now, TryAgain or another WfmError when the store does not take it.
        """
        self._require_fence()
        where = f"{self._folder}/{name}"
        for entry in record.files:
            if entry.path in sent:
                continue
            go_on()
            here = self._objects.local_path(f"{where}/{entry.path}")
            if here is None or not second_name(folder / entry.path, here):
                self._objects.upload(folder / entry.path, f"{where}/{entry.path}", go_on)
            sent.add(entry.path)
            crash_point("half_checkpoint_upload")
        here = self._objects.local_path(where)
        if here is not None and self._objects.fsync:
            fsync_folder(here)
        crash_point("before_checkpoint_manifest")
        go_on()
        self._require_fence()
        ours = dataclasses.replace(record, key=self.key, fence=self.fence)
        self._objects.create(f"{where}.json", ours.to_bytes())
        crash_point("after_checkpoint_manifest")
        self._prints[name] = record.fingerprint
        if name not in self._vouched:
            self._vouched = [*self._vouched[-1:], name]

    def prune(self, fingerprint: str) -> None:
        """After a commit: delete what no longer counts of this run. Raises as `send`."""
        committed, unfinished = _names(self._objects, self.key)
        others = [name for name in committed if name not in self._vouched and self._print_of(name) in (fingerprint, "")]
        others.sort(key=self.rank)
        spared = [name for name in others if self._print_of(name)][-1:] if len(self._vouched) == 1 else []
        doomed = [name for name in others if name not in spared] + [
            name for name in unfinished if name.fence <= self.fence
        ]
        if doomed:
            self._require_fence()
        for name in doomed:
            self._delete(name)

    def _print_of(self, name: Name) -> str:
        """The run that a checkpoint is of; empty for one that nobody can use."""
        if name not in self._prints:
            try:
                self._prints[name] = self.record(name).fingerprint
            except DataError:
                self._prints[name] = ""
        return self._prints[name]

    def _delete(self, name: Name) -> None:
        self._objects.delete(f"{self._folder}/{name}.json")
        crash_point("half_checkpoint_prune")
        self._objects.delete_tree(f"{self._folder}/{name}")

    def _require_fence(self) -> None:
        highest = max(lease.numbers(self._objects, f"leases/{self.key}"), default=0)
        if highest > self.fence:
            raise FenceLost(
                f"the lease of {self.key[:12]} (number {self.fence}) was lost: number {highest} has taken it over"
            )

    def clear(self) -> None:
        """The key is committed: nothing of this is of use any more, here or in the store. Never fails: gc takes what stays."""
        try:
            delete_folder(self.scratch)
            self._require_fence()
            remove(self._objects, self.key)
        except (WfmError, OSError) as error:
            _log.warning(
                "checkpoints of %s stay until the next `wfm artifacts gc`: %s: %s",
                self.key[:12], type(error).__name__, error,
            )  # fmt: skip


def keys(objects: Objects) -> Iterator[str]:
    """Keys that have checkpoints, or uploads of some, in the store."""
    return generations.keys(objects, AREA)


def newest_time(objects: Objects, key: str) -> float:
    """Unix seconds at which the newest checkpoint of a key was begun, by the clock of its writer; 0.0 without any."""
    committed, unfinished = _names(objects, key)
    return max((id_time(name.id) for name in committed + unfinished), default=0.0)


def remove(objects: Objects, key: str) -> None:
    """Delete all checkpoints of a key, records first."""
    for name in _names(objects, key)[0]:
        objects.delete(f"{AREA}/{key}/{name}.json")
    objects.delete_tree(f"{AREA}/{key}")


def _names(objects: Objects, key: str) -> tuple[list[Name], list[Name]]:
    """(with a record, without) in one listing; what else lies there is not ours."""
    files: set[Name] = set()
    folders: set[Name] = set()
    for listed in objects.names(f"{AREA}/{key}"):
        match = _NAME.fullmatch(listed.removesuffix("/").removesuffix(".json"))
        if match:
            (folders if listed.endswith("/") else files).add(Name(int(match[1]), int(match[2]), match[3]))
    return list(files), list(folders - files)
