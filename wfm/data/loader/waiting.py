"""Whoever waits for what threads read: looks whether it is to stop, and gives signs of life as reads get on."""

import threading
from collections.abc import Callable
from typing import Any

from wfm.data.loader.work import Maker, Work
from wfm.errors import Cancelled
from wfm.pulse import beat, expecting, sign

POLL_SECONDS = 0.2
"""How often whoever waits looks whether it is to stop."""


class Waiting:
    """Works on their way, of threads that tell `_done` and count their reads in `_read`."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a collector of garbage may call `stop` anywhere, in any of the threads
        self._done = threading.Condition(self._lock)
        self._read = 0
        self._stopped = False
        self.bytes = 0
        "In flight."
        self.threads: list[threading.Thread] = []

    @property
    def read(self) -> int:
        """Runs of samples that were read so far: whether those who read get on."""
        return self._read

    def take(self, stopping: Callable[[], bool]) -> Work:
        """The next work, finished or failed; waits for it. Raises Cancelled when `stopping()` turns true meanwhile."""
        with self._lock:
            if self._is_ready():
                return self._hand_out()
        with expecting("data", sign().limit):
            while not self._wait(POLL_SECONDS):
                if stopping():
                    raise Cancelled("asked to stop while waiting for data")
            with self._lock:
                return self._hand_out()

    def ready(self, seconds: float) -> bool:
        """Whether `take` would return at once; waits at most `seconds` for that. No sign of life."""
        with self._lock:
            return self._done.wait_for(lambda: self._is_ready() or self._stopped, seconds)

    def _wait(self, seconds: float) -> bool:
        with self._lock:
            read = self._read
            ready = self._done.wait_for(self._is_ready, seconds)
            got_on, stopped = self._read != read, self._stopped
        if not ready and stopped:
            raise RuntimeError("the loader was closed while data was waited for")
        if not ready and got_on:
            beat("data")
        return ready

    def _is_ready(self) -> bool:
        raise NotImplementedError

    def _hand_out(self) -> Work:
        raise NotImplementedError


class OnDemand(Waiting):
    """The one work after a state of the order, read by one thread from now on, and nothing ahead of it."""

    def __init__(self, maker: Maker, state: Any) -> None:
        super().__init__()
        self._maker, self._work = maker, Work.failed(RuntimeError("not read"))
        self._ready = False
        self.threads = [threading.Thread(target=self._run, args=(state,), name="wfm-loader-now", daemon=True)]
        self.threads[0].start()

    def stop(self) -> None:
        """No further run is read; the thread ends with the one it is at."""
        with self._lock:
            self._stopped = True

    def _is_ready(self) -> bool:
        return self._ready

    def _hand_out(self) -> Work:
        return self._work

    def _run(self, state: Any) -> None:
        try:
            self._work = work = self._maker.lay_out(state)
        except BaseException as error:  # raised again by whoever takes it
            self._work = work = Work.failed(error)
        for run in work.runs:
            if self._stopped or work.error is not None:
                break
            self._maker.read(run)
            with self._lock:
                self._read += 1
        if not self._stopped:
            self._maker.finish(work)
            with self._lock:
                self._ready = True
                self._done.notify()
