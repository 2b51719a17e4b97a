"""Checkpoints go to the store behind the training's back: one thread, one upload at a time, one that waits.

Who offers one does not wait for the store (how far a training may be ahead of it is said in `wfm.training.pace`). A checkpoint
that is offered while one is on its way waits; a newer one takes its place (`replaced` counts those). An upload that fails is
tried again with growing pauses, and given up when a newer one waits. Nothing that happens here ends the training: it is logged.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wfm.artifacts.checkpoint_record import CheckpointRecord
from wfm.artifacts.checkpoints import Checkpoints, FenceLost, Name
from wfm.errors import WfmError
from wfm.log import get_logger

_log = get_logger(__name__)


class CutShort(WfmError):
    """An upload ends before its time, and commits nothing."""


@dataclass(frozen=True)
class _Job:
    folder: Path
    record: CheckpointRecord
    name: Name
    sent: set[str] = field(default_factory=set)
    cut: threading.Event = field(default_factory=threading.Event)
    """Set where it is not to be sent any more, even if it is on its way."""

    def go_on(self) -> None:
        """Asked again and again while it is sent."""
        if self.cut.is_set():
            raise CutShort(f"the checkpoint of step {self.record.step} gives way to a newer one")


class Uploads:
    """`offer` from the training's thread; `drain` waits."""

    def __init__(self, place: Checkpoints, *, first_pause: float = 1.0, longest_pause: float = 15.0) -> None:
        self.safe: int | None = None
        """Step of the newest checkpoint that is committed in the store; None: none is known to be."""
        self.replaced = 0
        """Checkpoints that were never sent, or never got through, because a newer one took their place."""
        self.lost = ""
        """Why nothing is sent any more; empty as long as the lease is ours."""
        self.failing = (0.0, "")
        """For how long every try at the one that is sent had failed when the last one did [s], and how that one did."""
        self._place = place
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._changed = threading.Condition()
        self._waiting: _Job | None = None
        self._current: _Job | None = None
        self._working = False
        self._failing_since: float | None = None
        self._hurried = False
        """Somebody waits: what failed is tried again now, and not after its pause."""

    def offer(self, folder: Path, record: CheckpointRecord, *, urgent: bool = False) -> None:
        """Send a checkpoint when its turn comes. `urgent`: that is now, and one that is on its way is cut short: what it left
        there has no record, and goes with the next commit. `folder` must stay as long as `using` names it."""
        with self._changed:
            if self.lost or record.step == self.safe:
                return
            if urgent and self._current is not None and self._current.record.step not in (self.safe, record.step):
                self._current.cut.set()
            if record.step == self._last():  # it waits already, or is on its way
                return
            if self._waiting is not None:
                self._replace(self._waiting)
            self._waiting = _Job(folder, record, self._place.new_name(record.step))
            if not self._working:
                self._working = True
                threading.Thread(target=self._work, name="checkpoints", daemon=True).start()
            self._changed.notify_all()

    def using(self) -> set[Path]:
        """Folders that are not to be deleted now."""
        with self._changed:
            return {job.folder for job in (self._waiting, self._current) if job is not None}

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is on its way that is not committed yet."""
        with self._changed:
            return any(job is not None and job.record.step != self.safe for job in (self._waiting, self._current))

    def wait(self, until: Callable[[], bool], seconds: float) -> None:
        """Wait at most so long for something that a commit, or the end of an upload, may bring about."""
        with self._changed:
            self._changed.wait_for(until, seconds)

    def drain(self, seconds: float) -> bool:
        """Wait at most so long until everything offered is in the store; whether it is. What rests after a failure is tried at
        once: the store may have been back for most of its pause."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: self._waiting is None and self._current is None, seconds)
            return done and not self.lost

    def _last(self) -> int | None:
        job = self._waiting or self._current
        return job.record.step if job else None

    def _replace(self, job: _Job) -> None:
        self.replaced += 1
        _log.warning(
            "the store is slower than checkpoints are made: that of step %d is not sent (%d so far)",
            job.record.step, self.replaced,
        )  # fmt: skip

    def _note_failure(self, error: Exception) -> None:
        now = time.monotonic()
        with self._changed:
            self._failing_since = now if self._failing_since is None else self._failing_since
            self.failing = (now - self._failing_since, f"{type(error).__name__}: {error}")

    def _work(self) -> None:
        while True:
            with self._changed:
                self._current, self._waiting = self._waiting, None
                self.failing, self._failing_since = (0.0, ""), None  # of the one before: the store may be back since
                self._changed.notify_all()
                job = self._current
                if job is None:
                    self._working = False
                    return
            self._send(job)

    def _send(self, job: _Job) -> None:
        began, pause, tries = time.monotonic(), self._first_pause, 0
        while True:
            tries += 1
            try:
                if self.safe != job.record.step:
                    self._place.send(job.folder, job.record, job.name, job.sent, job.go_on)
                    with self._changed:
                        self.safe, self.failing, self._failing_since = job.record.step, (0.0, ""), None
                        self._changed.notify_all()
                    _log.info("step %d is in the store (%.1f s)", self.safe, time.monotonic() - began)
                self._place.prune(job.record.fingerprint)
                return
            except FenceLost as error:
                with self._changed:
                    self.lost, self._waiting = str(error), None
                _log.warning("%s: nothing more is sent", error)
                return
            except CutShort:
                self._replace(job)
                return
            except Exception as error:  # whatever it is: what came of the checkpoint is for the training to ask
                if not job.folder.exists():  # the key was finished meanwhile
                    return
                kept = self.safe == job.record.step
                if not kept:
                    self._note_failure(error)
                what = "is in the store, older ones could not be deleted" if kept else "could not be sent"
                _log.warning(
                    "the checkpoint of step %d %s (try %d): %s: %s; again in %.3g s",
                    job.record.step, what, tries, type(error).__name__, error, pause,
                )  # fmt: skip
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._hurried, pause)
                if self._waiting is not None:
                    if self.safe != job.record.step:
                        self._replace(job)
                    return
                pause = self._first_pause if self._hurried else min(2 * pause, self._longest_pause)
                self._hurried = False
