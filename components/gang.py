"""One stage of several processes, as each of them sees it: who does what, who is late, and how all end together.

Rank 0 takes the lease, the attempt, commits and tells the outcome. The others derive the key too, hear from rank 0 whether
there is anything to make, work with it, and end with its outcome and exit code. What ends one ends all:

- A rank that fails says so on the board. Rank 0 writes that down as the outcome, with who it was.
- A rank that died or hangs is seen by its silence: rank 0 watches all, all watch rank 0 (`wfm.pulse`). Whoever sees it has the
  stacks of the living gathered, writes the outcome as ``try_again`` with the name of the late one, kills it where that is on
  the same machine, and leaves. So an attempt ends even when rank 0 itself is the one that hangs.
- SIGTERM to any rank stops all of them (the training loop agrees on the step). Where the grace comes to its end before that is
  through, the rank that was told writes the outcome and leaves. One whose work is done by then leaves, and rank 0 commits.

None of this needs a collective, and the end is ``os._exit``: a process that waits in one for a rank that is gone cannot return
from it. Two threads do it: one writes and reads the board and may be held up by it (`other_ranks.py`), the other judges and is
not.

A process alone is a gang of one: it watches itself only.
"""

import contextlib
import dataclasses
import math
import os
import signal
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from components.board import open_board, place
from components.other_ranks import LAST_WORDS_SECONDS, LONGEST_TICK, Others, tick
from components.rank_words import End, stacks_of_all_threads
from components.stage_attempt import StageAttempt
from components.stage_log import StageLog
from wfm import pulse, stopping
from wfm.artifacts.lease import start_of, this_process
from wfm.crash_points import crash_point
from wfm.errors import Cancelled, ConfigError, InputError, TryAgain, WfmError
from wfm.log import get_logger
from wfm.pulse import Watch

if TYPE_CHECKING:
    from wfm.artifacts import Store
    from wfm.artifacts.lease import Lease

__all__ = ["End", "Gang"]

_START_SECONDS = 600.0
"""How long a rank may take to its first word, where the config has no `stall_seconds`: pods of one job start minutes apart."""
_SHORTEST_START = 10.0
"""However short a step may be: an interpreter and its libraries take their time."""
_PATIENCE = {"cancelled": 20.0}
"""How long rank 0 may take to end by itself after another rank has said it ended with this [s]: to keep a checkpoint."""
_USUAL_PATIENCE = 3.0
_LEAVE_SECONDS = 90.0
"""For a lease of another machine to be seen alive, or not to be; ranks wait for none that is."""
_STORE_SECONDS = 150.0
"""For a store that does not answer, to take the outcome; the exit code tells too."""
_NO_RUN_IDS = ("", "none")
"""What torchrun says where it was given none."""
_log = get_logger("wfm.stage")


class Gang:
    """The ranks of this stage. Raises nothing by itself; a process of it leaves by `end`, or is ended by its watch."""

    def __init__(
        self, spec: Mapping[str, Any], log: StageLog, stop: threading.Event, *, parts: str | None = None
    ) -> None:
        """`spec` is that of the stage, `log` what it prints, `stop` set where it is asked to stop, `parts` a range of a stage
        in parts."""
        self._misplaced: ConfigError | None = None
        try:
            self.rank, self.size = place()
        except ConfigError as error:
            self.rank, self.size, self._misplaced = 0, 1, error
        self.attempt = StageAttempt(spec, log, parts, rank=self.rank, size=self.size)
        self._stop, self._start_seconds = stop, _start_seconds(spec)
        self._others = Others(self.rank, self.size, self._start_seconds)
        self._ending = threading.Lock()
        self._signs, self._marks = Watch[int](3 * LONGEST_TICK), Watch[int](3 * LONGEST_TICK)
        self._silent: set[int] = set()
        self._failed_since = 0.0
        self._began = time.time()

    @property
    def leads(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def start(self, ranks: bool, component: str) -> None:
        """Open the attempt, as rank 0; say that this rank is here, and begin to watch: the latter not for a component that has
        no `ranks`. Raises ConfigError for an environment that does not fit, BoardLost when the others cannot be reached, and
        what `StageAttempt.open` raises."""
        if self.leads:
            self.attempt.open()
            # in its first word: who misses it later knows where to say so
            self._others.own["attempt"] = self.attempt.number
        if self._misplaced is not None:
            raise self._misplaced
        stopping.grace_seconds()  # where it is no number, that is better said now
        threading.Thread(target=self._keep_time, name="grace", daemon=True).start()
        if not ranks:
            if self.size > 1:
                raise ConfigError(
                    f"WORLD_SIZE is {self.size}, and {component} is one process: start it without torchrun"
                )
            return
        if not self.leads:
            self.attempt.look_around()
        if self.size > 1:
            self._others.board = open_board(self.rank, self.size, self._start_seconds)
        for work in (self._others.exchange_for_ever, self._judge_for_ever):
            if self._others.board is not None or work == self._judge_for_ever:
                threading.Thread(target=work, name=work.__name__.strip("_"), daemon=True).start()
        if self._others.board is not None and self._others.board.hosted:
            self._meet()

    def _meet(self) -> None:
        """Wait for the first word of each rank: one that comes when this process has ended would find no board. The watch ends
        the wait for one that does not come. Raises Cancelled on SIGTERM."""
        with pulse.waiting("the other ranks"):
            while len(self._others.seen) < self.size - 1:
                if self._stop.is_set():
                    raise Cancelled("asked to stop before all ranks had come")
                self._others.look_soon()

    # What rank 0 does alone

    def lease(self, store: "Store", key: str, inputs: tuple[str, ...]) -> "Lease":
        """The lease of a key. A process alone waits for another that works on it; ranks do not, nor does what a cluster or
        torchrun started as a job of ranks, if only of one: they would hold devices meanwhile. Raises LeaseHeld then."""
        elastic = "TORCHELASTIC_RUN_ID" in os.environ
        waits = self._others.board is None and "WORLD_SIZE" not in os.environ
        lease = store.lease(key, inputs=inputs, owner=_owner() if elastic else "")
        return lease.acquire(None if waits else _LEAVE_SECONDS, self._stop.is_set, leave=not waits)

    def announce(self, plan: Literal["make", "leave"], key: str) -> None:
        """Tell the others what is to be done."""
        crash_point("before_ranks_are_told")
        self._others.say(plan=plan, key=key)

    def hear(self, key: str) -> bool:
        """Wait for rank 0's word; True when there is something to make. Raises InputError when it derived another key,
        Cancelled on SIGTERM. When rank 0 fails before it tells, this process ends with it."""
        with pulse.waiting("rank 0's word"):
            while True:
                said = self._others.seen.get(0)
                if said is not None and said.plan:
                    break
                if said is not None and said.end is not None:
                    self._leave(said.end)
                if self._stop.is_set():
                    raise Cancelled("asked to stop before rank 0 told what to do")
                self._others.look_soon()
        self.attempt.joins(said.attempt)
        if said.key != key:
            raise InputError(
                f"this rank derives the key {key[:12]}, rank 0 on host {said.host} {said.key[:12]}: their code, spec or inputs "
                "differ. Start all ranks from one image with the same command"
            )
        return said.plan == "make"

    # How it ends

    def end(self, end: End, key: str = "") -> NoReturn:
        """The end of this rank's work: rank 0 writes the outcome down, the others wait for it, where they can hear it. Never
        returns."""
        if not self.leads and self._others.board is None:  # it never came to a place where it could
            if end.outcome == TryAgain.outcome:  # rank 0 was waited for, and nobody else may have seen that
                self._conclude(end)
            self._leave(end)
        if self.leads:
            if end.borrowed or end.outcome == "cancelled":
                end = self._cause(end)
            self._conclude(end, key)
        self._others.say(end=end.told)
        with pulse.waiting("rank 0's outcome"):
            while True:
                said = self._others.seen.get(0)
                if said is not None and said.end is not None:
                    self._leave(said.end)
                self._others.look_soon()

    def _cause(self, end: End) -> End:
        """The end of the rank that made rank 0 end so, where one said it or was seen to die; else `end`. A launcher that sees a
        rank die stops the others: that is no wish of anybody's."""
        deadline = time.monotonic() + (_USUAL_PATIENCE if end.borrowed else 0.0)
        while True:
            found = self._others.failed()
            if found is not None and not found.borrowed and found.outcome != end.outcome:
                return found
            if found is not None and end.borrowed and not found.borrowed:
                return found
            if self._others.board is None or time.monotonic() >= deadline:
                return end
            self._others.look_soon()

    def _conclude(self, end: End, key: str = "", stacks: Mapping[str, str] | None = None) -> NoReturn:
        """Write the outcome down, tell the others, leave. One thread gets through."""
        if not self._ending.acquire(blocking=False):
            time.sleep(3600.0)  # another thread is at it, and takes this one along
        answer = {**dataclasses.asdict(end), "key": key, "seconds": time.time() - self._began}
        if stacks:
            answer["stacks"] = dict(stacks)
        if self.rank:
            answer["written_by"] = f"rank {self.rank}"
        writing = threading.Thread(target=self._write, args=(answer,), daemon=True)
        writing.start()
        writing.join(_STORE_SECONDS)
        crash_point("after_outcome")
        self._leave(end)

    def _write(self, answer: dict[str, Any]) -> None:
        if self.rank and not self.attempt.number:
            try:
                answer["reason"] += f"; {self.attempt.stands_in()}"
            except (WfmError, OSError) as error:  # the exit code still tells
                _log.error("nobody notes this end: %s: %s", type(error).__name__, error)
        self.attempt.close(answer)

    def _leave(self, end: End) -> NoReturn:
        """Exit as all do, once the others can know how."""
        if 0 not in self._silent:  # else nobody reads it
            self._others.say(end=end.told, heard=True)
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        if self.leads and self._others.board is not None and self._others.board.hosted:
            while time.monotonic() < deadline and not all(
                r in self._silent or (r in self._others.seen and self._others.seen[r].heard)
                for r in self._others.watched
            ):
                self._others.look_soon()
        self.attempt.leave()
        os._exit(end.exit_code)  # not sys.exit: threads of libraries must not keep a finished stage alive

    # The watch

    def _judge_for_ever(self) -> None:
        while True:
            time.sleep(tick(pulse.sign()))
            late = self._late()
            if self.leads:
                self._judge_the_others()
            else:
                self._judge_rank_0()
            if late:
                self._end_as_stalled(late)

    def _late(self) -> dict[int, str]:
        """Who does not get on (rank -> words), and is not only waiting for somebody who does not."""
        mine = pulse.sign()
        signs = {rank: said.sign for rank, said in self._others.seen.items() if said.end is None} | {self.rank: mine}
        late = {one.name: one for one in self._signs.look(signs)}
        silent = self._marks.look(self._others.marks())
        self._silent = {one.name for one in silent}
        if silent:
            return {
                one.name: f"{self._others.name(one.name)} did not {self._others.what_is_silent(one)}" for one in silent
            }
        if not self.leads:  # a rank that hangs in sight of rank 0 is for that to judge
            return {}
        stuck = [one for one in late.values() if not one.sign.waits]
        if not stuck and len(late) == len(signs):  # each waits for the others: the one that got least far first
            stuck = sorted(late.values(), key=lambda one: one.sign.count)
        return {one.name: f"{self._others.name(one.name)} {one}" for one in stuck}

    def _judge_the_others(self) -> None:
        failed = self._others.failed()
        if failed is None:
            return
        if failed.outcome == "cancelled":
            self._stop.set()
        now = time.monotonic()
        self._failed_since = self._failed_since or now
        if now - self._failed_since > _PATIENCE.get(failed.outcome, _USUAL_PATIENCE):
            _log.error("%s; this rank is at %r and ends with it", failed.reason, pulse.sign().what)
            self._conclude(failed)

    def _judge_rank_0(self) -> None:
        first = self._others.seen.get(0)
        if first is None:
            return
        self.attempt.joins(first.attempt)
        if first.asks and not self._others.own.get("stacks"):
            self._others.say(stacks=stacks_of_all_threads())
        if first.end is not None:
            now = time.monotonic()
            self._failed_since = self._failed_since or now
            if now - self._failed_since > _USUAL_PATIENCE:  # the main thread waits in something that never comes
                self._leave(first.end)
        failed = self._others.failed() if first.end is None else None
        if failed is not None:
            self._conclude(failed)

    def _keep_time(self) -> NoReturn:
        """Write the outcome of a stop while there is time for that, wherever the work is."""
        while seconds := stopping.left(stopping.FOR_THE_OUTCOME):
            stopping.rest(min(seconds, LONGEST_TICK))
        said = self._others.own.get("end")
        if not self.leads and said is not None and said.good:  # its work is done; what is left is rank 0's, and goes on
            self.attempt.leave()
            os._exit(said.exit_code)
        reason = (
            f"asked to stop, and {self._others.name(self.rank)} was at {pulse.sign().what!r} when the "
            f"{stopping.grace_seconds():g} s of grace ({stopping.GRACE}) came to their end: "
            "what was not kept by then is made again"
        )
        _log.warning("%s", reason)
        self._conclude(End(Cancelled.outcome, reason, Cancelled.exit_code))

    def _end_as_stalled(self, late: Mapping[int, str]) -> NoReturn:
        """End the attempt for all, with the stacks of those that live."""
        reason = "; ".join(list(late.values())[:8])
        _log.error("%s", reason)
        stacks = {self._others.name(self.rank): stacks_of_all_threads()}
        if self.leads:
            self._others.say(asks=True)
            deadline = time.monotonic() + LAST_WORDS_SECONDS
            while time.monotonic() < deadline and not all(
                rank in self._silent or said.stacks for rank, said in self._others.seen.items()
            ):
                self._others.look_soon()
            stacks |= {self._others.name(rank): said.stacks for rank, said in self._others.seen.items() if said.stacks}
        for name, text in stacks.items():
            _log.error("stacks of %s:\n%s", name, text)
        for rank in late.keys() & self._others.seen.keys():
            said = self._others.seen[rank]
            if self._others.is_here(said) and start_of(said.pid) == said.pid_start:
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    os.kill(said.pid, signal.SIGKILL)  # it would hold its memory and devices, and waits for nobody
        self._conclude(End("try_again", reason, TryAgain.exit_code), stacks=stacks)


def _owner() -> str:
    """What the restarts of one elastic job have in common: its id, or where it was given none, its launcher on this machine."""
    run_id, here = os.environ["TORCHELASTIC_RUN_ID"], this_process()
    launcher = f"{here['machine']} {os.getppid()} {start_of(os.getppid())}"
    return f"torchelastic {run_id if run_id not in _NO_RUN_IDS else launcher}"


def _start_seconds(spec: Mapping[str, Any]) -> float:
    """How long a rank may take to its first word [s]: as long as one may be silent later. The config is not checked yet."""
    config = spec.get("config")
    training = config.get("training") if isinstance(config, dict) else None
    given = training.get("stall_seconds") if isinstance(training, dict) else None
    if isinstance(given, int | float) and 0 < given < math.inf:
        return max(float(given), _SHORTEST_START)
    return _START_SECONDS
