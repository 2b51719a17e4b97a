"""What a stage and its native libraries print, on its way into the store: a small process beside the stage.

`StageLog.begin` turns file descriptors 1 and 2 into a pipe whose other end a forked child reads. The child passes everything on
to where it would have gone (a terminal, the engine, a pod's log) and, once it knows the attempt, ships it
(`wfm.artifacts.attempt_log`), each line with the time it came (UTC). It is a process and not a thread, because the lines that
matter most come at the end: those of a library that aborts, of an interpreter that crashes, of a stage killed by SIGKILL, all
are in the pipe by then and are still brought home. A store that is down never stops the stage: the child keeps what it may keep
(`KEPT_BYTES`) and tries again.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import re
import select
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING

from wfm import stopping
from wfm.artifacts.attempt_log import LogPieces
from wfm.artifacts.environment import store_options
from wfm.crash_points import VARIABLE

if TYPE_CHECKING:
    from wfm.artifacts import Store

PROCESS_NAME = "wfm-log"
"""By which `pipelines/engines/guard.py` knows the child, and gives it a moment to end by itself."""
FIRST_SECONDS, SECONDS_BETWEEN_SHIPMENTS, SECONDS_BETWEEN_UPLOADS = 0.5, 2.0, 5.0
"""Into a folder, into a bucket [s]."""
DRAIN_SECONDS = 0.3
"""A pipe that others still hold (workers of the stage) counts as dry when nothing came for this long after its end [s]."""
LAST_SECONDS = 15.0
"""How long the last lines may take into a store that does not answer [s]."""
_SHORTEST_SECONDS = 0.2
_PR_SET_NAME = 15
_PIPE_BYTES = 2**20
_NEWLINES = re.compile(rb"[\r\n]+")
_TWICE = re.compile(rb"^([0-9T:-]{19}Z )[0-9:]{8} (?=[A-Z]+ +wfm\b)", re.MULTILINE)
"""A line of our own logging says the time itself."""


class StageLog:
    """The stage's side."""

    def __init__(self, control: socket.socket, child: int) -> None:
        self._control, self._child = control, child

    @classmethod
    def begin(cls) -> "StageLog":
        """Take over this process's output. To be called before there are threads, or a client of a store."""
        sys.stdout.flush()
        sys.stderr.flush()
        ours, theirs = socket.socketpair()
        read, write = os.pipe()
        with contextlib.suppress(OSError):
            fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        child = os.fork()
        if child == 0:
            ours.close()
            os.close(write)
            _keep(read, theirs)
        theirs.close()
        os.close(read)
        for descriptor in (1, 2):
            os.dup2(write, descriptor)
        os.close(write)
        for stream in (sys.stdout, sys.stderr):  # no longer a terminal, if it was one: still line by line
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(line_buffering=True)
        return cls(ours, child)

    def ship_to(self, store_url: str, run_id: str, node: str, attempt: int, rank: int = 0) -> None:
        """Say which attempt's log this is, and which rank's."""
        self._say({"store": store_url, "run": run_id, "node": node, "attempt": attempt, "rank": rank})

    def flush(self) -> None:
        """Wait until what was printed lies in the store, or the child has given up."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._say({})
        self._control.settimeout(max(min(LAST_SECONDS, stopping.left() / 3), _SHORTEST_SECONDS))
        with contextlib.suppress(OSError):
            self._control.recv(1)

    def end(self) -> None:
        """Let go of the output, and wait for the child to end, for as long as it may take."""
        sys.stdout.flush()
        sys.stderr.flush()
        null = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(null, descriptor)
        self._control.close()
        until = time.monotonic() + min(LAST_SECONDS + 5.0, stopping.left() / 2)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(self._child, os.WNOHANG) == (0, 0) and time.monotonic() < until:
                time.sleep(0.01)

    def _say(self, words: dict[str, object]) -> None:
        with contextlib.suppress(OSError):  # a child that is gone: the stage goes on
            self._control.sendall(json.dumps(words).encode() + b"\n")


def _keep(pipe: int, control: socket.socket) -> None:
    """The child: never returns."""
    code = 1
    try:
        os.environ.pop(VARIABLE, None)  # it is the stage that a test wants to see dead
        os.setsid()  # a signal to the stage's group is not meant for it, and it must outlive the stage by a moment
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_NAME, PROCESS_NAME.encode(), 0, 0, 0)
        _Keeper(pipe, control).run()
        code = 0
    finally:
        os._exit(code)


class _Keeper:
    """The child's side: one thread reads and passes on, another ships."""

    def __init__(self, pipe: int, control: socket.socket) -> None:
        self._pipe, self._control = pipe, control
        self._stage = os.getppid()
        self._heard = b""
        self._pieces = LogPieces()
        self._at_line_start = True
        self._wake, self._over, self._asked = threading.Event(), threading.Event(), threading.Event()
        self._shipper: threading.Thread | None = None

    def run(self) -> None:
        """Until the stage has let go of the pipe, or is dead."""
        left_at = 0.0
        while True:
            watched = [self._pipe] if left_at else [self._pipe, self._control.fileno()]
            ready, _, _ = select.select(watched, [], [], DRAIN_SECONDS if left_at else 1.0)
            if self._pipe in ready and not self._take():
                break
            if left_at and (not ready or time.monotonic() - left_at > LAST_SECONDS / 3):
                break  # workers of the stage still hold the other end
            heard = self._control.fileno() not in ready or self._listen()
            if not left_at and (not heard or os.getppid() != self._stage):
                left_at = time.monotonic()
        self._over.set()
        self._wake.set()
        if self._shipper is not None:
            self._shipper.join(LAST_SECONDS)

    def _take(self) -> bool:
        """Read once, pass it on, keep it; False at the end."""
        data = os.read(self._pipe, _PIPE_BYTES)
        view = memoryview(data)
        with contextlib.suppress(OSError):  # nobody listens any more where it would have gone
            while view:
                view = view[os.write(2, view) :]
        self._pieces.add(self._stamped(data))
        return bool(data)

    def _stamped(self, data: bytes) -> bytes:
        """Each line with the time, once; a carriage return (a progress bar's redraw) ends a line too, and empty ones go."""
        lines = _NEWLINES.sub(b"\n", data)
        if self._at_line_start:
            lines = lines.removeprefix(b"\n")
        if not lines:
            return b""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ ", time.gmtime()).encode()
        begun = b"" if not self._at_line_start else stamp
        self._at_line_start = lines.endswith(b"\n")
        body = _TWICE.sub(rb"\1", begun + lines.removesuffix(b"\n").replace(b"\n", b"\n" + stamp))
        return body + b"\n" if self._at_line_start else body

    def _listen(self) -> bool:
        """Read what the stage says; False when it is gone."""
        try:
            data = self._control.recv(65536)
        except OSError:
            data = b""
        *lines, self._heard = (self._heard + data).split(b"\n")
        for words in map(json.loads, lines):
            if words:
                self._shipper = threading.Thread(target=self._ship, kwargs=words, daemon=True)
                self._shipper.start()
            else:  # what is in the pipe now is to be shipped before the answer
                while select.select([self._pipe], [], [], 0)[0] and self._take():
                    pass
                self._asked.set()
                self._wake.set()
        return bool(data)

    def _ship(self, store: str, run: str, node: str, attempt: int, rank: int) -> None:
        """Ship every few seconds what has come; after the end once more, until that is through."""
        opened: Store | None = None
        wait, told = FIRST_SECONDS, False
        while True:
            self._wake.wait(wait)
            self._wake.clear()
            over, asked = self._over.is_set(), self._asked.is_set()
            try:
                opened = opened or open_store(store)
                opened.runs.of(run).ship_log(node, attempt, self._pieces, rank)
            except Exception as error:
                if not told:  # once, and not each second while a disk is full
                    with contextlib.suppress(OSError):
                        os.write(2, f"the log cannot be shipped now: {type(error).__name__}: {error}\n".encode())
                told = True
                wait = 1.0 if over or asked else SECONDS_BETWEEN_UPLOADS
                continue
            told = False
            if over:
                return
            if asked:
                self._asked.clear()
                with contextlib.suppress(OSError):
                    self._control.sendall(b".")
            local = opened.objects.local_path("runs") is not None
            wait = SECONDS_BETWEEN_SHIPMENTS if local else SECONDS_BETWEEN_UPLOADS


def open_store(url: str) -> "Store":
    """The store of a stage."""
    from wfm.artifacts import Store

    return Store.open(url, store_options())
