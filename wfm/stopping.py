"""Whether this process was asked to stop: SIGTERM or SIGINT, to it alone or to its whole group.

    listen()                          # the first thing of a stage or of a worker
    while not asked.is_set(): ...

A stage looks at `asked` between its steps, saves what is whole and ends in order. A second signal changes nothing: whoever
loses patience has SIGKILL. `when_asked` tells others at once.

Whoever sends the signal waits for ``WFM_GRACE_SECONDS`` (30, as Kubernetes does, where nobody says otherwise) before SIGKILL.
That is one span for everything: the step being made, the save, the store, the outcome. It is counted from the signal itself,
which is noted even while the main thread is in a call that lets no handler run. `left` says what there is of it yet. A wish to
stop that came by no signal has no such end.
"""

import contextlib
import math
import os
import select
import signal
import threading
import time
from collections.abc import Callable

from wfm.errors import Cancelled, InputError

GRACE = "WFM_GRACE_SECONDS"
CANCELLED = "WFM_CANCELLED_EXIT"
"""An engine that tries again whatever a signal ended may name another exit code for what ended since its run was cancelled."""
_GRACE_SECONDS = 30.0
FOR_THE_END, FOR_THE_OUTCOME = 0.3, 0.15
"""Shares of the grace that are kept: work ends with the first, and where it does not, the outcome is written at the second."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_NOBODY = -1

asked = threading.Event()
_came: float | None = None
"""When the first signal came (`time.monotonic`)."""
_wake = _NOBODY
"""Where the kernel's side of Python writes down a signal at once."""
_told: list[Callable[[], None]] = []


def exit_when_cancelled() -> int:
    """The exit code of a process whose run was cancelled (a signal alone says nothing of that)."""
    return int(os.environ.get(CANCELLED) or Cancelled.exit_code)


def listen(*, then: bool = False) -> None:
    """Take SIGTERM and SIGINT for a wish to stop. Only in the main thread. ``then``: what stood there before is called too."""
    if not then:
        _note_at_once()
    for number in _SIGNALS:
        before = signal.getsignal(number)

        def hear(number: int, frame: object, before: object = before) -> None:
            _note()
            ask()
            if not then:
                return
            if callable(before):
                before(number, frame)
            elif before == signal.SIG_DFL:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)

        signal.signal(number, hear)


def _note_at_once() -> None:
    """Have signals written to a pipe as they come; a forked child, which would write to it too, is kept from that."""
    global _wake
    if _wake != _NOBODY:
        return
    _wake, write = os.pipe()
    for end in (_wake, write):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=_leave_it_to_the_parent)


def _leave_it_to_the_parent() -> None:
    with contextlib.suppress(ValueError):  # of a thread that forked: it is the main one now
        signal.set_wakeup_fd(-1)


def _note() -> None:
    global _came
    _came = time.monotonic() if _came is None else _came


def rest(seconds: float) -> None:
    """Sleep; a signal ends it."""
    if _wake == _NOBODY:
        time.sleep(seconds)
    elif select.select([_wake], [], [], seconds)[0] and set(os.read(_wake, 512)) & set(_SIGNALS):
        _note()


def grace_seconds() -> float:
    """Between the signal and SIGKILL [s]: ``WFM_GRACE_SECONDS``, else 30; 0 where SIGKILL comes at once. Raises InputError."""
    given = os.environ.get(GRACE, "")
    try:
        seconds = float(given or _GRACE_SECONDS)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(f"{GRACE} is {given!r}: give seconds, 0 or more, such as {_GRACE_SECONDS:g}")
    return seconds


def left(keeping: float = 0.0) -> float:
    """Until SIGKILL is to be expected, without the share of the grace that is kept [s]: 0.0 when that is over, inf as long as
    no signal came."""
    return math.inf if _came is None else max(_came + (1.0 - keeping) * grace_seconds() - time.monotonic(), 0.0)


def ask() -> None:
    """Set `asked`, and tell whoever wants to know."""
    asked.set()
    for tell in list(_told):
        with contextlib.suppress(OSError):
            tell()


def when_asked(tell: Callable[[], None]) -> None:
    """Call ``tell`` from the signal's handler: it must be short. At once, when the wish is there already."""
    if tell not in _told:
        _told.append(tell)
    if asked.is_set():
        tell()
