"""How long the others are waited for: by what they said last, and by what this rank waits in itself."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterable

import pytest

from components import other_ranks
from components.board import StoreBoard
from components.other_ranks import Others
from components.rank_words import End, Said
from wfm import pulse
from wfm.pulse import Sign, Watch


class Silent:
    """A board on which nobody says anything any more."""

    hosted = False

    def put(self, rank: int, data: bytes) -> None: ...

    def read(self, ranks: Iterable[int]) -> dict[int, bytes]:
        return {}

    def ended(self) -> dict[int, int]:
        return {}


def others(limit: float) -> Others:
    """Rank 1 of two; rank 0 was last heard with this patience."""
    found = Others(1, 2, start_seconds=50.0)
    found.board = Silent()
    found.seen[0] = Said(mark=7, sign=Sign(3, "start", limit), machine="other", host="h", pid=1, pid_start="1")
    return found


def silent_after(marks: dict[int, Sign]) -> float:
    """Seconds of silence until somebody is late."""
    now = [0.0]
    watch = Watch[int](1.0, clock=lambda: now[0])
    while not watch.look(marks):
        now[0] += 1.0
    return now[0]


def test_one_that_is_waited_for_may_be_silent_no_longer_than_who_waits() -> None:
    """What it last said was at the start, which may take an hour; the work has gone on since, and it was stopped."""
    found = others(limit=3600.0)
    with pulse.expecting("step", 4.0):
        assert silent_after(found.marks()) > 3600.0, "this rank is at work: how long the other takes is its own affair"
        with pulse.waiting("gradients"):
            assert silent_after(found.marks()) <= 6.0
    with pulse.waiting("rank 0's word"):  # of the start, which may take long for both
        assert silent_after(found.marks()) > 3600.0


def test_one_that_lost_another_waits_for_no_long_answer_and_none_waits_longer_than_was_said() -> None:
    found = others(limit=3600.0)
    found.own["end"] = End("try_again", "rank 1 of 2, at 'step': another rank died", 75)
    assert silent_after(found.marks()) <= 12.0
    assert silent_after(others(limit=2.0).marks()) <= 4.0


def test_who_never_came_has_the_time_of_the_start() -> None:
    found = others(limit=1.0)
    del found.seen[0]
    assert silent_after(found.marks()) == pytest.approx(51.0, abs=1.0)


_HOST = """
import sys, time
from torch.distributed import TCPStore
store = TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
print(store.port, flush=True)
time.sleep(600)
"""


def test_rank_0_whose_machine_is_gone_with_the_board_is_waited_for_no_longer_than_an_answer_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the start, too, which may take an hour: on another machine its death is seen by this alone."""
    from torch.distributed import TCPStore

    monkeypatch.setattr(other_ranks, "_ANSWER_SECONDS", 1.0)
    host = subprocess.Popen([sys.executable, "-c", _HOST], stdout=subprocess.PIPE, text=True)
    assert host.stdout is not None
    found = others(limit=3600.0)
    found.board = StoreBoard(TCPStore("127.0.0.1", int(host.stdout.readline()), None, False), hosted=False)
    threading.Thread(target=found.exchange_for_ever, daemon=True).start()
    found.say()
    assert silent_after(found.marks()) > 3600.0, "it is there: how long it takes is its own affair"
    host.kill()
    host.wait()
    deadline = time.monotonic() + 120.0
    try:
        while silent_after(found.marks()) > 3.0:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        found.board = Silent()  # the thread outlives the test, in no code of torch's
        found.say()
