"""One stage of several processes, as each of them sees it: who does what, who is late, and how all end together.

Rank 0 takes the lease, the attempt, commits and tells the outcome. The others derive the key too, hear from rank 0 whether
there is anything to make, work with it, and end with its outcome and exit code. What ends one ends all:

- A rank that fails says so on the board. Rank 0 writes that down as the outcome, with who it was.
- A rank that died or hangs is seen by its silence: rank 0 watches all, all watch rank 0 (`wfm.pulse`). Whoever sees it has the
  stacks of the living gathered, writes the outcome as ``try_again`` with the name of the late one, kills it where that is on
  the same machine, and leaves. So an attempt ends even when rank 0 itself is the one that hangs.
- SIGTERM to any rank stops all of them (the training loop agrees on the step). Where the grace comes to its end before that is
  through, the rank that was told writes the outcome and leaves.

None of this needs a collective, and the end is ``os._exit``: a process that waits in one for a rank that is gone cannot return
from it. Two threads do it: one writes and reads the board and may be held up by it, the other judges and is not.

A process alone is a gang of one: it watches itself only.
"""

import dataclasses
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from components.board import Board, open_board, place
from components.rank_words import End, Said, stacks_of_all_threads
from components.stage_attempt import StageAttempt
from components.stage_log import StageLog
from wfm import pulse, stopping
from wfm.artifacts import schema
from wfm.artifacts.lease import start_of, this_process
from wfm.crash_points import crash_point
from wfm.errors import Cancelled, ConfigError, InputError, TryAgain, WfmError
from wfm.log import get_logger
from wfm.pulse import Late, Sign, Watch

if TYPE_CHECKING:
    from wfm.artifacts import Store
    from wfm.artifacts.lease import Lease

__all__ = ["End", "Gang"]

_VERSION = 1
_START_SECONDS = 600.0
"""How long a rank may take to its first word, where the config has no `stall_seconds`: pods of one job start minutes apart."""
_SHORTEST_START = 10.0
"""However short a step may be: an interpreter and its libraries take their time."""
_TICKS = 20
"""Looks within the time that a process may be silent."""
_SHORTEST_TICK, _LONGEST_TICK = 0.1, 2.0
_PATIENCE = {"cancelled": 20.0}
"""How long rank 0 may take to end by itself after another rank has said it ended with this [s]: to keep a checkpoint."""
_USUAL_PATIENCE = 3.0
_LEAVE_SECONDS = 90.0
"""For a lease of another machine to be seen alive, or not to be; ranks wait for none that is."""
_LAST_WORDS_SECONDS = 3.0
"""For the others to show their stacks, or to hear the outcome."""
_ANSWER_SECONDS = 10.0
"""Silence of rank 0 that is enough for one that lost some rank."""
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
        self._watched = range(1, self.size) if self.rank == 0 else range(1)
        self.attempt = StageAttempt(spec, log, parts, rank=self.rank, size=self.size)
        self._stop, self._start_seconds = stop, _start_seconds(spec)
        self._board: Board | None = None
        self._own: dict[str, Any] = {}
        self._seen: dict[int, Said] = {}
        self._notes: dict[int, int] = {}
        self._rounds = 0
        self._poke = threading.Event()
        self._ending = threading.Lock()
        self._signs, self._marks = Watch[int](3 * _LONGEST_TICK), Watch[int](3 * _LONGEST_TICK)
        self._gone: dict[int, tuple[int, float]] = {}
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
            self._own["attempt"] = self.attempt.number  # in its first word: who misses it later knows where to say so
        if self._misplaced is not None:
            raise self._misplaced
        stopping.grace_seconds()  # it is no number: better said now
        if not ranks:
            if self.size > 1:
                raise ConfigError(
                    f"WORLD_SIZE is {self.size}, and {component} is one process: start it without torchrun"
                )
            return
        if not self.leads:
            self.attempt.look_around()
        if self.size > 1:
            self._board = open_board(self.rank, self.size, self._start_seconds)
        for work in (self._exchange_for_ever, self._judge_for_ever):
            if self._board is not None or work == self._judge_for_ever:
                threading.Thread(target=work, name=work.__name__.strip("_"), daemon=True).start()
        if self._board is not None and self._board.hosted:
            self._meet()

    def _meet(self) -> None:
        """Wait for the first word of each rank: one that comes when this process has ended would find no board. The watch ends
        the wait for one that does not come. Raises Cancelled on SIGTERM."""
        with pulse.waiting("the other ranks"):
            while len(self._seen) < self.size - 1:
                if self._stop.is_set():
                    raise Cancelled("asked to stop before all ranks had come")
                self._look_soon()

    # What rank 0 does alone

    def lease(self, store: "Store", key: str, inputs: tuple[str, ...]) -> "Lease":
        """The lease of a key. A process alone waits for another that works on it; ranks do not, nor does what a cluster or
        torchrun started as a job of ranks, if only of one: they would hold devices meanwhile. Raises LeaseHeld then."""
        elastic = "TORCHELASTIC_RUN_ID" in os.environ
        waits = self._board is None and "WORLD_SIZE" not in os.environ
        lease = store.lease(key, inputs=inputs, owner=_owner() if elastic else "")
        return lease.acquire(None if waits else _LEAVE_SECONDS, self._stop.is_set, leave=not waits)

    def announce(self, plan: Literal["make", "leave"], key: str) -> None:
        """Tell the others what is to be done."""
        crash_point("before_ranks_are_told")
        self._say(plan=plan, key=key)

    def hear(self, key: str) -> bool:
        """Wait for rank 0's word; True when there is something to make. Raises InputError when it derived another key,
        Cancelled on SIGTERM. When rank 0 fails before it tells, this process ends with it."""
        with pulse.waiting("rank 0's word"):
            while True:
                said = self._seen.get(0)
                if said is not None and said.plan:
                    break
                if said is not None and said.end is not None:
                    self._leave(said.end)
                if self._stop.is_set():
                    raise Cancelled("asked to stop before rank 0 told what to do")
                self._look_soon()
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
        if not self.leads and self._board is None:  # it never came to a place where it could
            if end.outcome == TryAgain.outcome:  # rank 0 was waited for, and nobody else may have seen that
                self._conclude(end)
            self._leave(end)
        if self.leads:
            if end.borrowed or end.outcome == "cancelled":
                end = self._cause(end)
            self._conclude(end, key)
        self._say(end=end.told)
        with pulse.waiting("rank 0's outcome"):
            while True:
                said = self._seen.get(0)
                if said is not None and said.end is not None:
                    self._leave(said.end)
                self._look_soon()

    def _cause(self, end: End) -> End:
        """The end of the rank that made rank 0 end so, where one said it or was seen to die; else `end`. A launcher that sees a
        rank die stops the others: that is no wish of anybody's."""
        deadline = time.monotonic() + (_USUAL_PATIENCE if end.borrowed else 0.0)
        while True:
            found = self._failed()
            if found is not None and not found.borrowed and found.outcome != end.outcome:
                return found
            if found is not None and end.borrowed and not found.borrowed:
                return found
            if self._board is None or time.monotonic() >= deadline:
                return end
            self._look_soon()

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
            self._say(end=end.told, heard=True)
        deadline = time.monotonic() + _LAST_WORDS_SECONDS
        if self.leads and self._board is not None and self._board.hosted:
            while time.monotonic() < deadline and not all(
                r in self._silent or (r in self._seen and self._seen[r].heard) for r in self._watched
            ):
                self._look_soon()
        self.attempt.leave()
        os._exit(end.exit_code)  # not sys.exit: threads of libraries must not keep a finished stage alive

    # The board

    def _say(self, **more: Any) -> None:
        """Rewrite this rank's word and wait until it stands, or the board is seen not to take it."""
        self._own.update(more)
        if self._board is None:
            return
        before, deadline = self._rounds, time.monotonic() + _LAST_WORDS_SECONDS
        while self._rounds < before + 2 and time.monotonic() < deadline:
            self._look_soon()

    def _look_soon(self) -> None:
        self._poke.set()
        time.sleep(_SHORTEST_TICK)

    def _exchange_for_ever(self) -> None:
        assert self._board is not None
        here, mark = this_process(), 0
        while True:
            mark, now = mark + 1, pulse.sign()
            try:
                said = Said(mark=mark, sign=now, **{**here, **self._own})
                self._board.put(self.rank, schema.encode({"schema_version": _VERSION, **dataclasses.asdict(said)}))
                notes = self._board.ended()  # before the words: whoever ended had said why by then
                for rank, data in self._board.read(self._watched).items():
                    self._seen[rank] = schema.read(Said, data, f"the word of rank {rank}", _VERSION)
                self._notes = notes
                self._rounds += 1
            except (WfmError, OSError) as error:
                _log.debug("rank %d: %s", self.rank, error)
            self._rest(now)

    def _rest(self, told: Sign) -> None:
        """Until the next word is due, somebody waits for it, or less silence is allowed than the others were told."""
        deadline = time.monotonic() + _tick(told)
        while time.monotonic() < deadline and pulse.sign().limit >= told.limit and not self._poke.wait(_SHORTEST_TICK):
            pass
        self._poke.clear()

    # The watch

    def _judge_for_ever(self) -> None:
        while True:
            stopping.rest(min(_tick(pulse.sign()), stopping.left(stopping.FOR_THE_OUTCOME)))
            if not stopping.left(stopping.FOR_THE_OUTCOME):
                self._end_in_time()
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
        signs = {rank: said.sign for rank, said in self._seen.items() if said.end is None} | {self.rank: mine}
        late = {one.name: one for one in self._signs.look(signs)}
        silent = self._marks.look(self._all_marks())
        self._silent = {one.name for one in silent}
        if silent:
            return {one.name: f"{self.name(one.name)} did not {self._what_is_silent(one)}" for one in silent}
        if not self.leads:  # a rank that hangs in sight of rank 0 is for that to judge
            return {}
        stuck = [one for one in late.values() if not one.sign.waits]
        if not stuck and len(late) == len(signs):  # each waits for the others: the one that got least far first
            stuck = sorted(late.values(), key=lambda one: one.sign.count)
        return {one.name: f"{self.name(one.name)} {one}" for one in stuck}

    def _what_is_silent(self, late: Late[int]) -> str:
        if late.name not in self._seen:
            return f"come within {late.seconds:.0f} s: it never started, or died before it said anything"
        return f"answer for {late.seconds:.0f} s; the last it said was {late.sign.what!r}"

    def _all_marks(self) -> dict[int, Sign]:
        """A sign for each rank that this one looks at: that it answers.

        It may be silent for as long as it last said, or as this one may be, where this one's work waits for the others: what
        was last heard of a rank may be older than its work, and of a longer patience than what they are both at now."""
        if self._board is None:
            return {}
        unseen = Sign(0, "start", self._start_seconds)
        marks = {}
        ended = self._own.get("end")  # one that has lost another does not wait as long to see which
        answers = _ANSWER_SECONDS if ended is not None and ended.borrowed else math.inf
        mine = pulse.sign()
        answers = min(answers, mine.limit) if mine.waits else answers
        for rank in self._watched:
            said = self._seen.get(rank)
            marks[rank] = unseen if said is None else Sign(said.mark, said.sign.what, min(said.sign.limit, answers))
        return marks

    def _failed(self) -> End | None:
        """What another rank ended with, if not well: first what nothing can be done about, last what only tells of another."""
        found = []
        for rank in self._watched:
            said = self._seen.get(rank)
            if said is not None and said.end is not None:
                if not said.end.good:
                    found.append(dataclasses.replace(said.end, reason=f"{self.name(rank)}: {said.end.reason}"))
            elif self._has_died(rank, said):
                code = self._notes.get(rank, 0)
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                found.append(End("try_again", f"{self.name(rank)} {how if code else 'is gone'}", TryAgain.exit_code))
        found.sort(key=lambda end: (end.borrowed, end.outcome not in ("wrong_input", "bug")))
        return next(iter(found), None)

    def _has_died(self, rank: int, said: Said | None) -> bool:
        """Whether a rank ended without a word: as the guard noted, or as seen here, and the board was read since."""
        if self._notes.get(rank):
            return True
        if said is None or not self._is_here(said) or start_of(said.pid) == said.pid_start:
            return False
        rounds, since = self._gone.setdefault(rank, (self._rounds, time.monotonic()))
        return self._rounds >= rounds + 2 or time.monotonic() - since > 2 * _LONGEST_TICK

    def _judge_the_others(self) -> None:
        failed = self._failed()
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
        first = self._seen.get(0)
        if first is None:
            return
        self.attempt.joins(first.attempt)
        if first.asks and not self._own.get("stacks"):
            self._say(stacks=stacks_of_all_threads())
        if first.end is not None:
            now = time.monotonic()
            self._failed_since = self._failed_since or now
            if now - self._failed_since > _USUAL_PATIENCE:  # the main thread waits in something that never comes
                self._leave(first.end)
        failed = self._failed() if first.end is None else None
        if failed is not None:
            self._conclude(failed)

    def _end_in_time(self) -> NoReturn:
        """Write the outcome of a stop while there is time for that, wherever the work is."""
        reason = (
            f"asked to stop, and {self.name(self.rank)} was at {pulse.sign().what!r} when the {stopping.grace_seconds():g} s "
            f"of grace ({stopping.GRACE}) came to their end: what was not kept by then is made again"
        )
        _log.warning("%s", reason)
        self._conclude(End(Cancelled.outcome, reason, Cancelled.exit_code))

    def _end_as_stalled(self, late: Mapping[int, str]) -> NoReturn:
        """End the attempt for all, with the stacks of those that live."""
        reason = "; ".join(list(late.values())[:8])
        _log.error("%s", reason)
        stacks = {self.name(self.rank): stacks_of_all_threads()}
        if self.leads:
            self._say(asks=True)
            deadline = time.monotonic() + _LAST_WORDS_SECONDS
            while time.monotonic() < deadline and not all(
                rank in self._silent or said.stacks for rank, said in self._seen.items()
            ):
                self._look_soon()
            stacks |= {self.name(rank): said.stacks for rank, said in self._seen.items() if said.stacks}
        for name, text in stacks.items():
            _log.error("stacks of %s:\n%s", name, text)
        for rank in late.keys() & self._seen.keys():
            said = self._seen[rank]
            if self._is_here(said) and start_of(said.pid) == said.pid_start:
                os.kill(said.pid, signal.SIGKILL)  # it would hold its memory and devices, and waits for nobody
        self._conclude(End("try_again", reason, TryAgain.exit_code), stacks=stacks)

    def _is_here(self, said: Said) -> bool:
        return bool(said.machine) and said.machine == this_process()["machine"]

    def name(self, rank: int) -> str:
        """``rank 1 on host X``."""
        if self.size == 1:
            return "the process"
        host = socket.gethostname() if rank == self.rank else self._seen[rank].host if rank in self._seen else ""
        return f"rank {rank} on host {host}" if host else f"rank {rank}"


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


def _tick(sign: Sign) -> float:
    return min(max(sign.limit / _TICKS, _SHORTEST_TICK), _LONGEST_TICK)
