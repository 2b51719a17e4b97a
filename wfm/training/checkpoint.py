"""Checkpoints: everything a killed run needs to go on as if nothing had happened.

    <scratch>/checkpoint-00000300/   model.safetensors  average.safetensors  optimizer.safetensors  metrics.jsonl  state.json
                                     with a second player: rival.safetensors  rival_optimizer.safetensors
                                     of a model spread over ranks: model.rank-00000-of-00004.safetensors ... (`sharded`)

A checkpoint is written beside its name on this machine and renamed into place, so a folder of that name is whole; the two
newest are kept. Where the scratch folder is that of a key in a store, each goes to the store too, behind the training's back
(`wfm.artifacts.uploads`), and outlives the machine. `state.json` has the sha256 of every file.

Restoring takes the newest that is whole, from here or from the store (`Checkpoints.rank`): every byte is compared, every
tensor's name and shape, and every parameter must have the optimiser's state that it had. One that is not whole is passed over
with a warning; when none is left the run begins anew, and says what was lost. A checkpoint of another run (`fingerprint`) is
never resumed; on this machine it is removed: it would take the place of this run's. With several ranks the first chooses, and
only what all can read counts: with scratch folders of their own that is what lies in the store.
"""

import errno
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wfm.artifacts import schema
from wfm.artifacts.atomic import create_folder
from wfm.artifacts.checkpoint_record import RECORD, CheckpointRecord, list_files, read_folder, verify
from wfm.artifacts.checkpoints import Checkpoints, Name
from wfm.artifacts.listing import FileEntry
from wfm.artifacts.uploads import Uploads
from wfm.artifacts.verified import hash_file
from wfm.crash_points import crash_point
from wfm.errors import DataError, TryAgain
from wfm.log import get_logger
from wfm.parallel.ranks import ALONE, Ranks
from wfm.parallel.spread import gathered_tensors
from wfm.training.behind import Writer
from wfm.training.config import TrainingConfig
from wfm.training.learning import Learning, Player, copied

KEPT = 2
CURVE = "metrics.jsonl"
_PREFIX = "checkpoint-"
_log = get_logger(__name__)

__all__ = ["CURVE", "KEPT", "Keeper", "Learning", "Player", "Scratch"]

Scratch = Path | Checkpoints
"""Where a training keeps what it would go on from: a folder of this machine, or the checkpoints of a key in a store."""


@dataclass(frozen=True)
class _State:
    """The plain values of a checkpoint."""

    data: dict[str, Any]
    """Where the loader stands."""
    stateless: dict[str, list[str]]
    """Parameters without an optimiser's state, by file."""
    meter: dict[str, list[float]] = field(default_factory=dict)
    """What was measured since the last point of the curves (`wfm.training.meter`)."""
    guard: dict[str, Any] = field(default_factory=dict)
    """What the guard goes on from (`wfm.training.guard`)."""


@dataclass(frozen=True)
class _Found:
    """A checkpoint that may be resumed: on this machine, or (with a `name`) in the store."""

    record: CheckpointRecord
    name: Name | None = None


class Keeper:
    """Keeps the checkpoints of one run. All ranks `resume`, once; the first alone keeps: `keep` now and then, `drain` before
    the end."""

    def __init__(
        self,
        scratch: Scratch,
        learning: Learning,
        fingerprint: str,
        config: TrainingConfig,
        ranks: Ranks = ALONE,
    ) -> None:
        self._store = scratch if isinstance(scratch, Checkpoints) else None
        self.folder: Path = scratch.scratch if isinstance(scratch, Checkpoints) else scratch
        self.folder.mkdir(parents=True, exist_ok=True)
        self.curve = self.folder / CURVE
        self._learning = learning
        self._fingerprint = fingerprint
        self._config = config
        self._ranks = ranks
        self.uploads = Uploads(self._store) if self._store is not None and ranks.leads else None
        "On their way to the store; None without one, and on other ranks."
        self._offered = -float("inf")
        self._passed: list[int] = []
        self.together = ranks.size > 1 and learning.spread
        "Whether all ranks `keep`, and not the first alone."
        self._one_folder = False
        self._writer = Writer(ranks, config.stall_seconds)

    # -- going on

    def resume(self) -> CheckpointRecord | None:
        """Put the newest whole checkpoint of this run back in place, curves included. None: there is none, nothing was touched.

        Raises TryAgain when the store does not answer, or where there is none and a rank cannot read what another can;
        RanksDiffer for ranks of different runs.
        """
        self._ranks.require_equal(self._fingerprint, "the fingerprint of data, model and config")
        self._one_folder = self.together and self._see_one_folder()
        candidates = iter(self._found() if self._ranks.leads else ())
        while (proposed := self._proposed(candidates)) is not None:
            found, folder = proposed
            if self._ranks.all(folder is not None, "checkpoint") and folder is not None:
                self._go_on(found, folder)
                return found.record
            self._require_store(found.record.step)
        if self._ranks.leads:
            self._clear_above(-1)
        if self._passed:
            _log.warning(
                "no whole checkpoint is left: the training begins anew, and up to %d steps are made again",
                max(self._passed),
            )
        return None

    def _see_one_folder(self) -> bool:
        """Whether all ranks see the same scratch folder, and no copies of it on machines of their own."""
        mark = self.folder / f".ranks-{os.getpid()}-{time.time_ns()}"
        if self._ranks.leads:
            mark.touch()
        name = self._ranks.broadcast(mark.name, "scratch folder")
        found = self._ranks.all((self.folder / name).exists(), "scratch folder")
        if self._ranks.leads:
            mark.unlink()
        return found

    def _require_store(self, step: int) -> None:
        """One that some ranks cannot read is passed over where there may be another in the store, which all can."""
        if self._store is None:
            raise TryAgain(f"rank 0 goes on from step {step}, and another rank cannot read that checkpoint")
        if self._ranks.leads:
            self._pass_over(step, DataError("it is not in the store, and another rank cannot read it here"))

    def _proposed(self, candidates: Iterator[_Found]) -> tuple[_Found, Path | None] | None:
        """The first rank's next candidate that it finds whole, and where this rank has it, if it has."""
        mine = next(((found, folder) for found in candidates if (folder := self._whole(found)) is not None), None)
        if self._ranks.size == 1:
            return mine
        record = "" if mine is None else mine[0].record.to_bytes().decode()
        record = self._ranks.broadcast_text(
            record, "checkpoint"
        )  # with open packs and replaced samples it may be large
        name = self._ranks.broadcast(mine and mine[0].name and list(mine[0].name), "checkpoint")
        if self._ranks.leads or not record:
            return mine
        found = _Found(CheckpointRecord.from_bytes(record.encode(), "what rank 0 says"), name and Name(*name))
        return found, self._whole(found)

    def _whole(self, found: _Found) -> Path | None:
        """The folder of this machine that holds a checkpoint, checked; None, with a warning, when it is not whole."""
        try:
            state = schema.fit(_State, found.record.state, f"the state of step {found.record.step}")
            if found.record.step > self._config.steps:
                raise DataError(f"the run has {self._config.steps} steps")
            folder = self._fetched(found)
            self._learning.check(folder, found.record.names, state.stateless)
        except (DataError, OSError) as error:
            if not _is_damage(error):
                raise
            self._pass_over(found.record.step, error)
            return None
        return folder

    def _go_on(self, found: _Found, folder: Path) -> None:
        again = max(self._passed, default=0) - found.record.step
        if self._passed:
            _log.warning(
                "the checkpoint of step %d is whole: %d steps are made again", found.record.step, max(again, 0)
            )
        state = schema.fit(_State, found.record.state, "its state")
        self._learning.load(folder, found.record.names, state.stateless)
        if not self._ranks.leads:
            return
        self._clear_above(found.record.step)
        if (folder / CURVE).exists():
            shutil.copyfile(folder / CURVE, self.curve)
        if self._store is None or self.uploads is None:
            return
        if found.name is None:
            self.uploads.offer(folder, found.record)
        else:
            self._store.vouch(found.name)
            self.uploads.safe = found.record.step

    def _pass_over(self, step: int, error: Exception) -> None:
        _log.warning("the checkpoint of step %d is passed over: %s", step, error)
        self._passed.append(step)

    def _clear_above(self, step: int) -> None:
        """Damaged ones, and those of a holder that does not count any more: they would pass for this one's."""
        for path in self._folders():
            if _step_of(path) > step:
                shutil.rmtree(path)

    def _found(self) -> list[_Found]:
        """What there is of this run, that which counts most first. What is here and in the store counts as the store's."""
        for leftover in self.folder.glob(f".{_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        here = list(self._here())
        if self._store is None:
            return sorted(here, key=lambda each: each.record.step, reverse=True)
        there = []
        for name in self._store.committed():
            try:
                record = self._store.record(name)
            except DataError as error:
                self._pass_over(name.step, error)
                continue
            if record.fingerprint == self._fingerprint:
                there.append(_Found(record, name))
            else:
                _log.warning("checkpoint %s in the store is of another run: it is left alone", name)
        sent = {(each.record.step, each.record.files) for each in there}
        found = there + [each for each in here if (each.record.step, each.record.files) not in sent]
        rank = self._store.rank
        return sorted(found, key=lambda each: rank(each.record), reverse=True)

    def _here(self) -> Iterator[_Found]:
        for path in self._folders():
            try:
                record = read_folder(path)
                if record.step != _step_of(path):
                    raise DataError(f"{path} is a checkpoint of step {record.step} under another name")
            except DataError as error:  # the one before it goes on; this would stand in the way of the next of its step
                self._pass_over(_step_of(path), error)
                shutil.rmtree(path)
                continue
            if record.fingerprint == self._fingerprint:
                yield _Found(record)
            else:
                _log.warning("%s is a checkpoint of another run: removed", path)
                shutil.rmtree(path)

    def _fetched(self, found: _Found) -> Path:
        """The folder of this machine that holds a checkpoint, checked byte by byte."""
        final = self._place(found.record.step)
        if found.name is None:
            verify(final, found.record)
            return final
        assert self._store is not None  # or it would have no name
        try:
            verify(final, found.record)  # it came from here
            return final
        except DataError:
            pass
        temporary = self._temporary(final)
        try:
            self._store.fetch(found.name, found.record, temporary)
            shutil.rmtree(final, ignore_errors=True)
            if not create_folder(temporary, final):  # another rank of this machine was first
                verify(final, found.record)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return final

    # -- keeping

    def keep(
        self,
        step: int,
        data: dict[str, Any],
        *,
        meter: Mapping[str, list[float]] | None = None,
        guard: Mapping[str, Any] | None = None,
        last: bool = False,
    ) -> None:
        """Write the state after `step` steps on this machine and offer it to the store (`last`: whatever the interval is). What
        is spread is written behind the training's back, and the last one waited for."""
        stateless = self._learning.stateless()
        state = _State(data, stateless, dict(meter or {}), dict(guard or {}))
        if self.together:
            self._keep_together(step, state, last)
        else:
            if not self._place(step).exists():
                temporary = self._temporary(self._place(step))
                self._learning.save(temporary)
                self._name(temporary, step, state, list_files(temporary))
            self._offer(step, last)

    def _keep_together(self, step: int, state: _State, last: bool) -> None:
        """`keep` of what is spread: all ranks are here. Each writes its parts where all see one folder; else they are put
        together on rank 0, which writes them as one process would."""
        self._writer.wait()
        final = self._place(step)
        begun = self._ranks.leads and not final.exists()
        name = self._ranks.broadcast(self._temporary(final).name if begun else "", "folder of a checkpoint")
        if name and self._one_folder:
            taken = {stem: copied(tensors, self._ranks.rank) for stem, tensors in self._learning.stems()}
            self._copy_curve(self.folder / name)

            def named(files: tuple[FileEntry, ...]) -> None:
                self._name(self.folder / name, step, state, (*files, *self._curve_in(self.folder / name)))
                self._offer(step, last)

            self._writer.begin(self.folder / name, taken, named)
            if last:
                self._writer.wait()
                self._ranks.barrier("the last checkpoint is written")
            return
        if name:
            keep = self._ranks.leads  # no other has the memory for all of it
            whole_ones = [
                (stem, gathered_tensors(tensors, self._ranks, keep=keep)) for stem, tensors in self._learning.stems()
            ]
            if self._ranks.leads:
                self._learning.save(self.folder / name, whole_ones)
                self._name(self.folder / name, step, state, list_files(self.folder / name))
        if self._ranks.leads:
            self._offer(step, last)
        self._ranks.barrier("a checkpoint is written")

    def _offer(self, step: int, last: bool) -> None:
        """A named checkpoint to the store; older ones go."""
        final, config, now = self._place(step), self._config, time.monotonic()
        if self.uploads is not None and (last or now - self._offered >= config.checkpoint_store_seconds):
            self._offered = now
            self.uploads.offer(final, read_folder(final), urgent=last)
        using = self.uploads.using() if self.uploads is not None else set()
        for old in self._folders()[:-KEPT]:
            if old not in using:
                shutil.rmtree(old, ignore_errors=True)

    def _copy_curve(self, folder: Path) -> None:
        if self.curve.exists() and self._ranks.leads:
            shutil.copyfile(self.curve, folder / CURVE)

    def _curve_in(self, folder: Path) -> list[FileEntry]:
        return [FileEntry(CURVE, *hash_file(folder / CURVE, fsync=True))] if (folder / CURVE).exists() else []

    def _name(self, temporary: Path, step: int, state: _State, files: tuple[FileEntry, ...]) -> None:
        """Give a folder with all its tensors a record and its name."""
        if not (temporary / CURVE).exists() and self.curve.exists():
            self._copy_curve(temporary)
            files = (*files, *self._curve_in(temporary))
        record = CheckpointRecord(
            step,
            self._fingerprint,
            tuple(sorted(files, key=lambda entry: entry.path)),
            asdict(state),
            fence=0 if self._store is None else self._store.fence,
            key="" if self._store is None else self._store.key,
        )
        with open(temporary / RECORD, "wb") as file:
            file.write(record.to_bytes())
            file.flush()
            os.fsync(file.fileno())
        crash_point("checkpoint_unnamed")
        create_folder(temporary, self._place(step))
        crash_point("checkpoint_named")

    def taken_over(self) -> str:
        """Who works at this now, in the place of whoever keeps these; empty as long as that is this process."""
        if self._store is None or self.uploads is None:
            return ""
        return self.uploads.lost or self._store.taken_over()

    def drain(self, seconds: float) -> str:
        """Wait for the store, at most so long; says which step is safe there, empty without a store."""
        if self.uploads is None:
            return ""
        done = self.uploads.drain(seconds)
        safe = "none" if self.uploads.safe is None else f"that of step {self.uploads.safe}"
        if done:
            return f"; the newest checkpoint in the store is {safe}"
        why = self.uploads.lost or f"the upload took more than {seconds:.3g} s"
        return f"; the newest checkpoint in the store is {safe} ({why})"

    def _place(self, step: int) -> Path:
        return self.folder / f"{_PREFIX}{step:08d}"

    def _temporary(self, final: Path) -> Path:
        temporary = final.with_name(f".{final.name}.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        return temporary

    def _folders(self) -> list[Path]:
        return sorted(
            path for path in self.folder.glob(f"{_PREFIX}*") if path.is_dir() and path.name[len(_PREFIX) :].isdigit()
        )


def _step_of(folder: Path) -> int:
    return int(folder.name[len(_PREFIX) :])


def _is_damage(error: Exception) -> bool:
    """Whether a checkpoint itself is at fault, and no trouble that passes."""
    gone = isinstance(error, FileNotFoundError | NotADirectoryError)
    return isinstance(error, DataError) or gone or (isinstance(error, OSError) and error.errno == errno.EIO)
