"""The small process that stands between a run and one of its stages, so that nothing is ever left running.

Started as a script (``python -S guard.py REPORT_FD GRACE_SECONDS COMMAND...``), standard library only, one thread. Its
standard input is a pipe whose other end only the run holds: end of file means that the run is dead, however it died.

- SIGTERM, or the run's death: SIGTERM to the stage alone (its helpers must not vanish while it saves a checkpoint), then
  after the grace (at most 5 s for an orphan) SIGKILL to everything the stage ever started.
- The stage ends: what it left behind is killed; children that fled to a session of their own are re-parented to the
  guard (it is a sub-reaper), so they are found too.
- The guard itself is killed: the kernel kills the stage (PR_SET_PDEATHSIG), and the run kills the stage's group.

It writes two JSON lines to REPORT_FD: ``{"pid": ...}`` at the start; exit code, signal, cpu seconds, peak memory at the end.
"""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_ORPHAN_GRACE_SECONDS = 5.0
_LOG_PROCESS = "wfm-log"
_LOG_SECONDS = 4.0
"""What the process that ships a stage's log (`components/stage_log.py`) gets to bring the last lines home [s]."""
_KILL_SECONDS = 2.0


def _prctl(option: int, value: int) -> None:
    """Linux only; elsewhere the pipe and the process group still do their part."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _start(command: list[str]) -> int:
    """Fork and exec ``command`` in a process group of its own, tied to this process's life."""
    guard = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setpgid(0, 0)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # the guard died before the line above
            os._exit(143)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(command[0], command)
    except OSError as error:
        os.write(2, f"cannot start {command[0]!r}: {error}\n".encode())
    os._exit(78)


def _children() -> list[int]:
    """Direct children of this process, adopted ones too."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as listing:
            return [int(word) for word in listing.read().split()]
    except OSError:
        return []


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def _kill_all(group: int) -> None:
    """SIGKILL to the stage's group and to whatever has been re-parented here, until nothing is left; what ships the log ends by
    itself, if soon."""
    began = time.monotonic()
    while time.monotonic() - began < _LOG_SECONDS + _KILL_SECONDS:
        spared = time.monotonic() - began < _LOG_SECONDS
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        for pid in _children():
            if spared and _name(pid) == _LOG_PROCESS:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)


def _watch(stage: int, grace: float) -> int:
    """Wait for the stage, passing a stop on; returns its wait status."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    stop = [False]
    signal.signal(signal.SIGTERM, lambda *_: stop.__setitem__(0, True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    watched, deadline = [0, wake_read], 0.0
    while True:
        try:
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == stage:
                    return status
                if pid == 0:
                    break
        except ChildProcessError:
            return 0
        if stop[0] and not deadline:
            deadline = time.monotonic() + (grace if 0 in watched else min(grace, _ORPHAN_GRACE_SECONDS))
            os.kill(stage, signal.SIGTERM)
        if deadline and time.monotonic() >= deadline:
            os.kill(stage, signal.SIGKILL)
            deadline += 3600.0
        wait = min(max(deadline - time.monotonic(), 0.0), 1.0) if deadline else 1.0
        ready, _, _ = select.select(watched, [], [], wait)
        if wake_read in ready:
            os.read(wake_read, 512)
        if 0 in ready and not os.read(0, 512):
            stop[0] = True
            watched = [wake_read]


def main() -> None:
    """Run the command of ``sys.argv`` under watch and exit as it did (128 + signal when a signal ended it)."""
    report_fd, grace, command = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.set_inheritable(report_fd, False)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    stage = _start(command)
    _report(report_fd, {"pid": stage})
    status = _watch(stage, grace)
    _kill_all(stage)
    code = os.waitstatus_to_exitcode(status)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    _report(
        report_fd,
        {
            "exit_code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "peak_bytes": used.ru_maxrss * 1024,
        },
    )
    os._exit(code if code >= 0 else 128 - code)


def _report(descriptor: int, values: dict[str, object]) -> None:
    with contextlib.suppress(OSError):  # the run may be dead: nobody reads
        os.write(descriptor, json.dumps(values).encode() + b"\n")


if __name__ == "__main__":
    main()
