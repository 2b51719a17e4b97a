"""What a rank of a stage tells the others and knows of them: its word on the board, theirs, who ended, who must answer by when.

`gang.py` decides what follows from it. A thread of its own (`Others.exchange_for_ever`) writes and reads the board, and may be
held up by it.
"""

import dataclasses
import math
import socket
import threading
import time
from typing import Any

from components.board import Board, BoardLost, StoreBoard
from components.rank_words import End, Said
from wfm import pulse
from wfm.artifacts import schema
from wfm.artifacts.lease import start_of, this_process
from wfm.errors import TryAgain, WfmError
from wfm.log import get_logger
from wfm.process import signal_name
from wfm.pulse import Late, Sign

_VERSION = 1
_TICKS = 20
"""Looks within the time that a process may be silent."""
_SHORTEST_TICK, LONGEST_TICK = 0.1, 2.0
LAST_WORDS_SECONDS = 3.0
"""For the others to show their stacks, or to hear the outcome."""
_ANSWER_SECONDS = 10.0
"""Silence of rank 0 that is enough for one that lost some rank, or the board that rank 0 hosts."""
_log = get_logger("wfm.stage")


class Others:
    """The other ranks as this one sees them. Without a board, as where there is none other, nothing is said or seen."""

    def __init__(self, rank: int, size: int, start_seconds: float) -> None:
        """`start_seconds`: for a rank to come to its first word."""
        self.rank, self.size, self._start_seconds = rank, size, start_seconds
        self.board: Board | None = None
        self.watched = range(1, size) if rank == 0 else range(1)
        "Rank 0 looks at all, all look at rank 0."
        self.own: dict[str, Any] = {}
        "Fields of this rank's word."
        self.seen: dict[int, Said] = {}
        "The last word of each that said one."
        self._notes: dict[int, int] = {}
        self._rounds = 0
        self._lost_since = 0.0
        self._poke = threading.Event()
        self._gone: dict[int, tuple[int, float]] = {}

    def say(self, **more: Any) -> None:
        """Rewrite this rank's word and wait until it stands, or the board is seen not to take it."""
        self.own.update(more)
        if self.board is None:
            return
        before, deadline = self._rounds, time.monotonic() + LAST_WORDS_SECONDS
        while self._rounds < before + 2 and time.monotonic() < deadline:
            self.look_soon()

    def look_soon(self) -> None:
        """Have the board written and read now, and give that a moment."""
        self._poke.set()
        time.sleep(_SHORTEST_TICK)

    def exchange_for_ever(self) -> None:
        """Write this rank's word and read those of the others, as often as they must hear it; for a thread."""
        assert self.board is not None
        here, mark = this_process(), 0
        while True:
            mark, now = mark + 1, pulse.sign()
            try:
                said = Said(mark=mark, sign=now, **{**here, **self.own})
                self.board.put(self.rank, schema.encode({"schema_version": _VERSION, **dataclasses.asdict(said)}))
                notes = self.board.ended()  # before the words: whoever ended had said why by then
                for rank, data in self.board.read(self.watched).items():
                    self.seen[rank] = schema.read(Said, data, f"the word of rank {rank}", _VERSION)
                self._notes = notes
                self._rounds += 1
                self._lost_since = 0.0
            except (WfmError, OSError) as error:
                # a connection that broke stays broken
                if isinstance(error, BoardLost) and isinstance(self.board, StoreBoard):
                    self._lost_since = self._lost_since or time.monotonic()
                _log.debug("rank %d: %s", self.rank, error)
            self._rest(now)

    def _rest(self, told: Sign) -> None:
        """Until the next word is due, somebody waits for it, or less silence is allowed than the others were told."""
        deadline = time.monotonic() + tick(told)
        while time.monotonic() < deadline and pulse.sign().limit >= told.limit and not self._poke.wait(_SHORTEST_TICK):
            pass
        self._poke.clear()

    def what_is_silent(self, late: Late[int]) -> str:
        """What a rank did not do whose mark (`marks`) is late."""
        if late.name not in self.seen:
            return f"come within {late.seconds:.0f} s: it never started, or died before it said anything"
        return f"answer for {late.seconds:.0f} s; the last it said was {late.sign.what!r}"

    def marks(self) -> dict[int, Sign]:
        """A sign for each rank that this one looks at: that it answers.

        It may be silent for as long as it last said, or as this one may be, where this one's work waits for the others: what
        was last heard of a rank may be older than its work, and of a longer patience than what they are both at now. One whom
        nobody can reach any more, since who hosts the board went with it, is waited for no longer than it takes to answer."""
        if self.board is None:
            return {}
        unseen = Sign(0, "start", self._start_seconds)
        marks = {}
        ended = self.own.get("end")  # one that has lost another does not wait as long to see which
        lost = self._lost_since and time.monotonic() - self._lost_since > _ANSWER_SECONDS
        answers = _ANSWER_SECONDS if lost or (ended is not None and ended.borrowed) else math.inf
        mine = pulse.sign()
        answers = min(answers, mine.limit) if mine.waits else answers
        for rank in self.watched:
            said = self.seen.get(rank)
            marks[rank] = unseen if said is None else Sign(said.mark, said.sign.what, min(said.sign.limit, answers))
        return marks

    def failed(self) -> End | None:
        """What another rank ended with, if not well: first what nothing can be done about, last what only tells of another."""
        found = []
        for rank in self.watched:
            said = self.seen.get(rank)
            if said is not None and said.end is not None:
                if not said.end.good:
                    found.append(dataclasses.replace(said.end, reason=f"{self.name(rank)}: {said.end.reason}"))
            elif self._has_died(rank, said):
                code = self._notes.get(rank, 0)
                how = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
                found.append(End("try_again", f"{self.name(rank)} {how if code else 'is gone'}", TryAgain.exit_code))
        found.sort(key=lambda end: (end.borrowed, end.outcome not in ("wrong_input", "bug")))
        return next(iter(found), None)

    def _has_died(self, rank: int, said: Said | None) -> bool:
        """Whether a rank ended without a word: as the guard noted, or as seen here, and the board was read since."""
        if self._notes.get(rank):
            return True
        if said is None or not self.is_here(said) or start_of(said.pid) == said.pid_start:
            return False
        rounds, since = self._gone.setdefault(rank, (self._rounds, time.monotonic()))
        return self._rounds >= rounds + 2 or time.monotonic() - since > 2 * LONGEST_TICK

    def is_here(self, said: Said) -> bool:
        """Whether a rank is a process of this machine, which can be seen and killed."""
        return bool(said.machine) and said.machine == this_process()["machine"]

    def name(self, rank: int) -> str:
        """``rank 1 on host X``."""
        if self.size == 1:
            return "the process"
        host = socket.gethostname() if rank == self.rank else self.seen[rank].host if rank in self.seen else ""
        return f"rank {rank} on host {host}" if host else f"rank {rank}"


def tick(sign: Sign) -> float:
    """How often to look at what may be silent for so long [s]."""
    return min(max(sign.limit / _TICKS, _SHORTEST_TICK), LONGEST_TICK)
