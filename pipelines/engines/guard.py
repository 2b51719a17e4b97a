"""The small process that stands between a run and one of its stages, so that nothing is ever left running.

Started as a script (``python -S guard.py REPORT_FD GRACE_SECONDS RANKS FOLDER COMMAND...``), standard library only, one
thread. Its standard input is a pipe whose other end only the run holds: end of file means that the run is dead, however it
died. RANKS above 1 starts the command so many times: the ranks of one stage, each with its number in ``RANK``. FOLDER is where
they meet; nothing listens for that.

- SIGTERM, or the run's death: SIGTERM to the stage alone, each of its ranks (its helpers must not vanish while it saves a
  checkpoint), then after the grace (at most 5 s for an orphan) SIGKILL to everything the stage ever started.
- A rank ends: how is noted in FOLDER (``ended-<rank>``), where the others look. Those that do not end soon after rank 0, or
  after one that failed, are killed: they wait for one that is gone.
- The stage ends: what it left behind is killed (after a crash, those who saw it may first write down what they saw);
  children that fled to a session of their own are re-parented to the guard (it is a sub-reaper), so they are found too.
- The guard itself is killed: the kernel kills the stage (PR_SET_PDEATHSIG), and the run kills the stage's group.

It writes two JSON lines to REPORT_FD: ``{"pid": ...}`` at the start; exit code, signal (of rank 0, or of the rank that made it
be killed, then with its number), cpu seconds, peak memory at the end.
"""

import contextlib
import ctypes
import json
import math
import os
import resource
import select
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_FOLDER = "WFM_RANKS_FOLDER"
_ORPHAN_GRACE_SECONDS = 5.0
_LOG_PROCESS = "wfm-log"
_LOG_SECONDS = 4.0
"""What the process that ships a stage's log (`components/stage_log.py`) gets to bring the last lines home [s]."""
_KILL_SECONDS = 2.0
_AFTER_RANK_0_SECONDS = 5.0
"""For the other ranks to see that rank 0 is through."""
_AFTER_A_FAILURE_SECONDS = 12.0
"""For the other ranks to keep what is whole, and for rank 0 to write the outcome."""
_WITNESS_SECONDS = 10.0
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT)
"""Signals of a process's own making."""


def _prctl(option: int, value: int) -> None:
    """Linux only; elsewhere the pipe and the process group still do their part."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _start(command: list[str], group: int, environment: dict[str, str]) -> int:
    """Fork and exec ``command`` in a process group (0: one of its own), tied to this process's life."""
    guard = os.getpid()
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):  # both sides say it: whoever comes first
            os.setpgid(pid, group)
        return pid
    try:
        with contextlib.suppress(OSError):  # the group's first process may be gone by now; children are found anyway
            os.setpgid(0, group)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # the guard died before the line above
            os._exit(143)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(command[0], command, {**os.environ, **environment})
    except OSError as error:
        os.write(2, f"cannot start {command[0]!r}: {error}\n".encode())
    os._exit(78)


def _start_ranks(command: list[str], ranks: int, folder: str) -> list[int]:
    """The processes of the stage, in order of their ranks; the first one's id is that of their group."""
    if ranks == 1:
        return [_start(command, 0, {})]
    pids: list[int] = []
    for rank in range(ranks):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, _FOLDER: folder}
        pids.append(_start(command, pids[0] if pids else 0, {name: str(value) for name, value in place.items()}))
    return pids


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


def _hear_witnesses() -> None:
    """A stage that crashed may have somebody beside it who now writes down at what (`wfm.curation.witness`)."""
    until = time.monotonic() + _WITNESS_SECONDS
    while _children() and time.monotonic() < until:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
        time.sleep(0.02)


def _watch(stage: list[int], grace: float, folder: str) -> dict[int, int]:
    """Wait for the ranks of the stage, passing a stop on; returns the wait status of each, in the order of their ends."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    stop = [False]
    signal.signal(signal.SIGTERM, lambda *_: stop.__setitem__(0, True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    watched, deadline, told = [0, wake_read], math.inf, False
    ended: dict[int, int] = {}
    while True:
        for rank, status in _reap(stage, ended):
            _note(folder, rank, status)
            if rank == 0 or status:
                after = _AFTER_A_FAILURE_SECONDS if rank else _AFTER_RANK_0_SECONDS
                deadline = min(deadline, time.monotonic() + after)
        living = [pid for rank, pid in enumerate(stage) if rank not in ended]
        if not living:
            return ended
        if stop[0] and not told:
            told = True
            deadline = min(deadline, time.monotonic() + (grace if 0 in watched else min(grace, _ORPHAN_GRACE_SECONDS)))
            _send(living, signal.SIGTERM)
        if time.monotonic() >= deadline:
            _send(living, signal.SIGKILL)
            deadline = math.inf
        ready, _, _ = select.select(watched, [], [], min(max(deadline - time.monotonic(), 0.0), 1.0))
        if wake_read in ready:
            os.read(wake_read, 512)
        if 0 in ready and not os.read(0, 512):
            stop[0] = True
            watched = [wake_read]


def _reap(stage: list[int], ended: dict[int, int]) -> list[tuple[int, int]]:
    """Take the ends of children; adds those of ranks to ``ended`` and returns them as (rank, wait status)."""
    new = []
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid in stage:
                new.append((stage.index(pid), status))
    except ChildProcessError:  # no child at all: whatever is not known to have ended has
        new += [(rank, 0) for rank in range(len(stage)) if rank not in ended and rank not in dict(new)]
    ended.update(new)
    return new


def _send(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _note(folder: str, rank: int, status: int) -> None:
    """Tell the other ranks how one ended; whole at once, since they look at any moment."""
    if not folder:
        return
    path = os.path.join(folder, f"ended-{rank}")
    with contextlib.suppress(OSError):  # they have other ways to see it, only slower
        with open(path + ".new", "w") as file:
            file.write(str(os.waitstatus_to_exitcode(status)))
        os.rename(path + ".new", path)


def _decisive(ended: dict[int, int]) -> int:
    """The rank that tells how the stage ended: rank 0, or whose failure made rank 0 be killed."""
    first = next((rank for rank, status in ended.items() if status), 0)
    return first if os.WIFSIGNALED(ended[0]) else 0


def main() -> None:
    """Run the command of ``sys.argv`` under watch and exit as it did (128 + signal when a signal ended it)."""
    report_fd, grace, ranks, folder, command = (
        int(sys.argv[1]),
        float(sys.argv[2]),
        int(sys.argv[3]),
        sys.argv[4],
        sys.argv[5:],
    )
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.set_inheritable(report_fd, False)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    stage = _start_ranks(command, ranks, folder)
    _report(report_fd, {"pid": stage[0]})
    ended = _watch(stage, grace, folder)
    if any(os.WIFSIGNALED(status) and os.WTERMSIG(status) in _CRASHES for status in ended.values()):
        _hear_witnesses()
    _kill_all(stage[0])
    rank = _decisive(ended)
    code = os.waitstatus_to_exitcode(ended[rank])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    _report(
        report_fd,
        {
            "exit_code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "rank": rank,
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
