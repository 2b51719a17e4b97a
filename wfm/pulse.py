"""Signs of life: what a process says of how far it got, and a watch that tells who did not get on, for how long.

    beat("step")                                  something got done
    with expecting("compile", seconds=1800): ...  this one thing may be silent for so long
    with waiting("gradients"): ...                what comes now depends on other processes

A process may be silent for as long as the innermost `expecting` around it says, `START_SECONDS` outside of any. A beat costs
well under a microsecond. Whoever wants to know reads `sign()` in a thread and passes it on; `Watch` judges signs of any
process by its own clock, so that clocks that disagree accuse nobody.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

START_SECONDS = 3600.0
"""How long a process may be silent while nothing said what to expect: it reads, builds, prepares."""


@dataclass(frozen=True)
class Sign:
    """How far a process got."""

    count: int
    "Beats so far."
    what: str
    "What it did last, or is at."
    limit: float
    "Seconds for which it may be silent now."
    waits: bool = False
    "Whether it waits for other processes: then another one is to blame."


NameT = TypeVar("NameT")


@dataclass(frozen=True)
class Late(Generic[NameT]):
    """A process that did not get on."""

    name: NameT
    sign: Sign
    seconds: float
    "For how long."

    def __str__(self) -> str:
        verb = "waits for others in" if self.sign.waits else "is at"
        return f"did not get on for {self.seconds:.0f} s: it {verb} {self.sign.what!r} (beat {self.sign.count})"


_now = Sign(0, "start", START_SECONDS)
"""Of this process. Replaced as a whole, so that a thread that reads sees one or the other."""


def sign() -> Sign:
    """How far this process is."""
    return _now


def beat(what: str) -> None:
    """This process got on: it did `what` (step, validation, save, load)."""
    global _now
    _now = Sign(_now.count + 1, what, _now.limit, _now.waits)


@contextmanager
def expecting(what: str, seconds: float) -> Iterator[None]:
    """Inside, this process may be silent for `seconds` at a time. Raises ValueError for a limit that is none."""
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError(f"{what} may be silent for {seconds} s: that is no limit; give a number above 0")
    yield from _inside(what, seconds, False)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Inside, this process waits for others, under the limit it had."""
    yield from _inside(what, _now.limit, True)


def _inside(what: str, seconds: float, waits: bool) -> Iterator[None]:
    global _now
    outer = _now
    _now = Sign(outer.count + 1, what, seconds, waits)
    try:
        yield
    finally:
        _now = Sign(_now.count + 1, outer.what, outer.limit, outer.waits)


class Watch(Generic[NameT]):
    """Looks at signs again and again and says who is late.

    Silence is counted from look to look, `longest` seconds a look at most: a watcher that was stopped itself, or starved, has
    seen nothing in the meantime and holds it against nobody.
    """

    def __init__(self, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest, self._clock = longest, clock
        self._looked = clock()
        self._seen: dict[NameT, tuple[Sign | None, float]] = {}

    def look(self, signs: Mapping[NameT, Sign]) -> list[Late[NameT]]:
        """Those that are late, the longest silent first."""
        now = self._clock()
        passed, self._looked = min(now - self._looked, self._longest), now
        late = []
        for name, one in signs.items():
            before, silent = self._seen.get(name, (None, 0.0))
            silent = silent + passed if before == one else 0.0
            self._seen[name] = one, silent
            if silent > one.limit:
                late.append(Late(name, one, silent))
        return sorted(late, key=lambda found: -found.seconds)
