"""One stage as a process that can always be killed: started, followed line by line, timed out, cancelled.

``run_process`` blocks the calling thread until the process and everything it started are gone. Between the two stands
``guard.py``, so that a stage dies with the run even when the run is killed with SIGKILL.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wfm.process import python

_GUARD = str(Path(__file__).with_name("guard.py"))
_LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
_POLL_SECONDS = 0.1
_GUARD_SECONDS = 5.0
"""Time beyond the grace in which the guard must have killed all; then the guard itself is killed."""


@dataclass(frozen=True)
class Ended:
    """How a process came to its end."""

    exit_code: int | None
    "Its own exit code; None when a signal ended it."
    signal: int | None
    "The signal that ended it, if one did."
    stopped_by: str
    "`itself`, `timeout` or `cancel`: whose wish it was."
    seconds: float
    "Wall time [s]."
    cpu_seconds: float
    "User and system time of the process and its children [s]."
    peak_bytes: int
    "Largest resident set among the process and its children [bytes]."
    rank: int = 0
    "Of several ranks, whose end this is: that of rank 0, unless it had to be killed because another one failed."


def run_process(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    on_line: Callable[[str], None],
    stop: threading.Event,
    timeout_seconds: float | None = None,
    grace_seconds: float = 20.0,
    on_start: Callable[[int], None] = lambda pid: None,
    directory: Path | None = None,
    ranks: int = 1,
) -> Ended:
    """Run ``command`` to its end; ``on_line`` gets each line of its output (both streams), from another thread.

    When ``stop`` is set or ``timeout_seconds`` have passed the process gets SIGTERM, and after ``grace_seconds`` SIGKILL
    together with all it started. ``on_start`` is told the process id. ``ranks`` above 1: so many processes of this command,
    which meet in a folder of their own that only this user can open (`guard.py`) and end together; what torch makes them
    listen at is bound to this machine (``GLOO_SOCKET_IFNAME``).
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="wfm-ranks-")) if ranks > 1 else ""
        of_ranks = {"GLOO_SOCKET_IFNAME": _LOOPBACK} if ranks > 1 else {}
        guarded = [str(grace_seconds), str(ranks), folder, *command]
        return _run(
            guarded, {**environment, **of_ranks}, on_line, stop, timeout_seconds, grace_seconds, on_start, directory
        )


def _run(
    guarded: Sequence[str],
    environment: Mapping[str, str],
    on_line: Callable[[str], None],
    stop: threading.Event,
    timeout_seconds: float | None,
    grace_seconds: float,
    on_start: Callable[[int], None],
    directory: Path | None,
) -> Ended:
    report_read, report_write = os.pipe()
    started = time.monotonic()
    try:
        guard = subprocess.Popen(
            [*python("-S", "-E", _GUARD), str(report_write), *guarded],
            stdin=subprocess.PIPE,  # never written to: its end of file tells the guard that the run is dead
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=directory,
            pass_fds=(report_write,),
            start_new_session=True,  # Ctrl-C on the terminal reaches the run alone, which then stops its stages in order
        )
    finally:
        os.close(report_write)
    with os.fdopen(report_read) as report:
        first = report.readline()
        stage = int(json.loads(first)["pid"]) if first else guard.pid
        on_start(stage)
        reader = threading.Thread(target=_read_lines, args=(guard, on_line), daemon=True)
        reader.start()
        try:
            stopped_by = _wait(guard, stop, timeout_seconds, grace_seconds)
        finally:
            _bury(guard, stage)
        reader.join(timeout=5.0)
        last = report.readline()
    assert guard.stdin is not None
    guard.stdin.close()
    usage = json.loads(last) if last else {}
    code, number = usage.get("exit_code"), usage.get("signal")
    if not usage:  # the guard itself was killed, and the stage with it
        number = -guard.returncode if guard.returncode < 0 else signal.SIGKILL
    return Ended(
        exit_code=code,
        signal=number,
        stopped_by=stopped_by,
        seconds=time.monotonic() - started,
        cpu_seconds=float(usage.get("cpu_seconds", 0.0)),
        peak_bytes=int(usage.get("peak_bytes", 0)),
        rank=int(usage.get("rank", 0)),
    )


def _read_lines(guard: "subprocess.Popen[bytes]", on_line: Callable[[str], None]) -> None:
    """Pass on each line; a carriage return (a progress bar's redraw) ends a line too."""
    assert guard.stdout is not None
    for raw in guard.stdout:
        for line in raw.decode("utf-8", "replace").rstrip("\n").split("\r"):
            if line:
                on_line(line)
    guard.stdout.close()


def _wait(
    guard: "subprocess.Popen[bytes]", stop: threading.Event, timeout_seconds: float | None, grace_seconds: float
) -> str:
    """Wait for the guard; returns whose wish the end was."""
    deadline = time.monotonic() + timeout_seconds if timeout_seconds else None
    while True:
        try:
            guard.wait(timeout=_POLL_SECONDS)
            return "itself"
        except subprocess.TimeoutExpired:
            pass
        late = deadline is not None and time.monotonic() >= deadline
        if stop.is_set() or late:
            guard.terminate()
            try:
                guard.wait(timeout=grace_seconds + _GUARD_SECONDS)
            except subprocess.TimeoutExpired:
                guard.kill()
                guard.wait()
            return "cancel" if stop.is_set() else "timeout"


def _bury(guard: "subprocess.Popen[bytes]", stage: int) -> None:
    """After the guard's end, or on an exception here: no process of the stage may stay."""
    if guard.poll() is None:
        guard.kill()
        guard.wait()
    if guard.returncode < 0 and stage != guard.pid:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(stage, signal.SIGKILL)
