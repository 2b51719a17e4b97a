"""A trial: a suspect file is decoded in a process of its own, which may crash without harm.

What a crash of it proves, and what it does not: a signal of its own (SIGSEGV …), memory beyond what a worker may have, or time
beyond what the slowest decoding takes speak against the file. SIGKILL or SIGTERM came from outside (the kernel of a full
machine, an eviction), and so did a refusal where the container's memory was taken by others: neither proves anything.
"""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from wfm import container
from wfm.log import get_logger
from wfm.process import python, safe_environment, signal_name

TRIAL_SECONDS = 3600.0
"""A trial that takes longer than this hangs, and counts as a crash [s]; that of a small file sooner, see `trial_seconds`."""
TRIAL_BYTES = 4 << 30
"""A trial that needs more memory than this counts as a crash [bytes]: the 17 pictures of 8K that a decoder may keep fit."""

_LEAST_SECONDS, _SLOWEST = 120.0, 50_000  # bytes of video a second, of the slowest decoding there is
_LOOK_SECONDS = 0.02  # between looks at its memory
_ROOM = 0.95  # of what a container may hold: a trial must not be what fills it
_OUT_OF_MEMORY = 86
"""Exit code of a trial that was refused memory."""
_OWN_SIGNALS = {
    *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGSYS, signal.SIGTRAP),
}


def decode_in_own_process(path: Path, memory: int | None = None, *, command: Sequence[str] = ()) -> str:
    """Decode every frame in a process of its own, of bounded memory and time: "" when that went well or proves nothing, else
    what ended it. Python's errors are no crash: whoever decodes next reports them.

    ``memory``: what a worker may hold here [bytes]. ``command``: another program than the decoder's.
    """
    seconds, log = trial_seconds(path), get_logger(__name__)
    most, proves = _room(memory)
    process = subprocess.Popen(
        command or python("-m", __name__, str(path)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=safe_environment(os.environ), start_new_session=True,  # a signal to the group of a stage would look like a crash
    )  # fmt: skip
    try:
        code, full = _follow(process, seconds, most)
    except subprocess.TimeoutExpired:
        return f"decoding took longer than {seconds:g} s"
    finally:
        process.kill()
        process.wait()
    if full or code == _OUT_OF_MEMORY:
        if full and not proves:
            log.warning("%s: the trial met the end of this container's memory, most of which is taken", path)
            return ""
        return f"decoding took more than {most if full else TRIAL_BYTES:,} bytes of memory"
    if code >= 0:
        return ""
    ended = signal_name(-code)
    if -code not in _OWN_SIGNALS:
        log.warning("%s: the trial was ended from outside, by %s, which proves nothing", path, ended)
        return ""
    return f"decoding ended by {ended}"


def trial_seconds(path: Path) -> float:
    """How long the trial of a file may take [s]: what the slowest decoding takes, two minutes at least."""
    size = path.stat().st_size if path.exists() else 0
    return min(TRIAL_SECONDS, _LEAST_SECONDS + round(size / _SLOWEST))


def _room(memory: int | None) -> tuple[int | None, bool]:
    """(what a trial may hold [bytes], whether a need of more speaks against the file). A container of which others hold more
    than half proves nothing."""
    limit = container.memory_limit()
    if limit is None:
        return memory, True
    room = int(_ROOM * limit) - container.memory_used()
    if memory is not None and memory <= room:
        return memory, True
    return max(room, 1), 2 * room >= limit


def _follow(process: "subprocess.Popen[bytes]", seconds: float, most: int | None) -> tuple[int, bool]:
    """(exit code, whether it was killed because it held more than it may). Raises TimeoutExpired."""
    until = time.monotonic() + seconds
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(_LOOK_SECONDS if most else seconds), False
        if most and container.resident(process.pid) > most:
            process.kill()
            return process.wait(), True
        if time.monotonic() > until:
            raise subprocess.TimeoutExpired(process.args, seconds)


def _decode(path: str) -> None:
    from wfm.data.decode import VideoError, open_video
    from wfm.data.images import format_of, read_image

    _be_first_to_go()
    _bound_memory()
    try:
        if format_of(path):
            read_image(path)
            return
        with open_video(path) as video:
            for _ in video.shown():
                pass
    except MemoryError:
        sys.exit(_OUT_OF_MEMORY)
    except VideoError as error:
        if isinstance(error.__cause__, MemoryError) and error.code != "too_large":
            sys.exit(_OUT_OF_MEMORY)


def _be_first_to_go() -> None:
    """When memory runs out, the kernel takes the trial and not the worker beside it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _bound_memory() -> None:
    """At most `TRIAL_BYTES` beyond what the libraries have mapped by now; the decoder is refused more."""
    import psutil

    most = psutil.Process().memory_info().vms + TRIAL_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    _decode(sys.argv[1])
