"""Whether this process was asked to stop: SIGTERM or SIGINT, to it alone or to its whole group.

    listen()                          # the first thing of a stage or of a worker
    while not asked.is_set(): ...

A stage looks at `asked` between its steps, saves what is whole and ends in order. A second signal changes nothing: whoever
loses patience has SIGKILL. `when_asked` tells others at once.
"""

import contextlib
import signal
import threading
from collections.abc import Callable

asked = threading.Event()
_told: list[Callable[[], None]] = []


def listen(*, then: bool = False) -> None:
    """Take SIGTERM and SIGINT for a wish to stop. Only in the main thread. ``then``: what stood there before is called too."""
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)

        def hear(number: int, frame: object, before: object = before) -> None:
            ask()
            if not then:
                return
            if callable(before):
                before(number, frame)
            elif before == signal.SIG_DFL:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)

        signal.signal(number, hear)


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
