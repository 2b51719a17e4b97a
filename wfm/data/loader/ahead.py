"""Threads that read ahead of use: planned in order, read in any, taken in order, in bounded memory.

A thread that finds nothing left to read plans the next steps, from lengths alone; one that reads the last sample of a step
makes the batch. Python runs one thread at a time, but reading, decoding and stacking are done by numpy, libav, sockets and
torch, which let others run meanwhile; so threads are enough, and nothing is sent between processes.

The bound: a run of samples is begun only if it fits into what is left of `most_bytes`, or belongs to the step that is taken
next. Runs are begun in the order's order, so in flight (being read, or read and not taken) is never more than `most_bytes` and
the bytes of a single step, whichever is more; and the step that is waited for can always be read.

What is read in microseconds gains nothing from a second thread, which would only ask for the interpreter: then one reads, the
others look now and then whether it got on, and whoever waits is given several steps at a time.
"""

import atexit
import math
import threading
import time
import weakref
from collections import deque
from functools import cache
from typing import Any

from wfm.data.loader.waiting import Waiting
from wfm.data.loader.work import Maker, Run, Work

_LOOK_SECONDS = 0.05
"""How often a thread that waits looks for itself whether there is something to read."""
_QUICK_SECONDS = 0.001
"""Where a run of samples is read so quickly, from memory that holds the file, a second thread costs more than it brings."""
_PAUSE_SECONDS = 0.005
"""Between two times that whoever waits for a batch is woken: where steps are that quick, it is given several at once. What is
ready is seen by whoever comes, and at the next look at the latest."""
_PLANNED_RUNS = 16
_EXIT_SECONDS = 1.0
"""How long the process waits at its exit for threads that were not ended: one that is inside of torch when the interpreter goes
would take the process down with it. One that hangs in a socket does not matter."""
_running: "weakref.WeakSet[Ahead]" = weakref.WeakSet()


class Ahead(Waiting):
    """Works of one rank from a state of the order on. Ends with `stop`, for good."""

    def __init__(self, maker: Maker, state: Any, workers: int, most_bytes: int) -> None:
        super().__init__()
        self._maker, self._state, self._most = maker, state, most_bytes
        self._room = threading.Condition(self._lock)
        self._works: deque[Work] = deque()
        self._runs: deque[Run] = deque()
        self._planning = self._ended = False
        self._took, self._told, self._busy = math.inf, 0.0, workers
        self.threads = [
            threading.Thread(target=self._run, name=f"wfm-loader-{number}", daemon=True) for number in range(workers)
        ]
        _running.add(self)
        _end_at_exit()
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """No further read is begun; threads end with the one they are at."""
        with self._lock:
            self._stopped = True
            self._room.notify_all()

    def _is_ready(self) -> bool:
        return bool(self._works) and self._works[0].ready

    def _hand_out(self) -> Work:
        work = self._works.popleft()
        self.bytes -= work.bytes
        if not (self._is_quick and self._busy):
            self._room.notify()
        return work

    def _run(self) -> None:
        looked = 0  # runs that all of them had read when this thread looked last, and its own since
        while True:
            with self._lock:
                self._busy -= 1
                while not (self._stopped or self._is_wanted(looked)):
                    self._tell(at_once=True)
                    looked = self._read
                    self._room.wait(_LOOK_SECONDS)
                if self._stopped:
                    return
                self._busy += 1
                looked = self._read + bool(self._runs)
                run = self._runs.popleft() if self._runs else None
                if run is None:
                    self._planning = True
                    self._tell(at_once=True)
                else:
                    self.bytes += run.bytes
                if not self._is_quick and (self._may_read() or self._may_plan()):
                    self._room.notify()  # one wakes the next, as long as there is something to do
            if run is None:
                self._plan()
            else:
                self._fulfil(run)

    @property
    def _is_quick(self) -> bool:
        return self._took <= _QUICK_SECONDS

    def _is_wanted(self, looked: int) -> bool:
        """Whether there is something for one more thread: not where others are quick enough, and got on since this one `looked`
        last."""
        crowd = self._is_quick and self._busy and self._read != looked
        return not crowd and (self._may_read() or self._may_plan())

    def _may_read(self) -> bool:
        return bool(self._runs) and self._fits(self._runs[0])

    def _fits(self, run: Run) -> bool:
        return self.bytes + run.bytes <= self._most or (bool(self._works) and run.work is self._works[0])

    def _may_plan(self) -> bool:
        wanted = not self._works or self.bytes < self._most
        return not (self._runs or self._planning or self._ended) and wanted

    def _plan(self) -> None:
        """Steps with a run for each thread at least, and so many that the next plan is not soon."""
        works: list[Work] = []
        while not self._ended and sum(len(work.runs) for work in works) < max(len(self.threads), _PLANNED_RUNS):
            try:
                works.append(self._maker.lay_out(self._state))
                self._state = works[-1].after
            except BaseException as error:  # raised again by whoever takes it
                works.append(Work.failed(error))
                self._ended = works[-1].ready = True
        with self._lock:
            self._planning = False
            if self._stopped:
                return
            self._works.extend(works)
            self._runs.extend(run for work in works for run in work.runs)
            self._tell(at_once=self._ended)

    def _fulfil(self, run: Run) -> None:
        began = time.monotonic()
        more, work = self._maker.read(run), run.work
        with self._lock:
            self._took = time.monotonic() - began
            self._read += 1
            work.left -= 1
            work.bytes += more
            self.bytes += more
            last = not work.left
            if work.error is not None:
                work.ready, last = True, False  # whatever else of it still hangs
                self._tell(at_once=True)
        if last:
            self._maker.finish(work)
            with self._lock:
                work.ready = True
                self._tell()

    def _tell(self, *, at_once: bool = False) -> None:
        now = time.monotonic()
        if self._is_ready() and (at_once or now - self._told > _PAUSE_SECONDS):
            self._told = now
            self._done.notify()


@cache
def _end_at_exit() -> None:
    atexit.register(_end_all)


def _end_all() -> None:
    left = list(_running)
    for each in left:
        each.stop()
    wait_for_end([thread for each in left for thread in each.threads], _EXIT_SECONDS)


def wait_for_end(threads: list[threading.Thread], seconds: float) -> list[threading.Thread]:
    """Those that still run after `seconds`: they hang in a read."""
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return [thread for thread in threads if thread.is_alive()]
