"""What goes wrong between a client and the server, on purpose: planned one by one, or at random by a seed."""

import random
from dataclasses import dataclass, field

BEFORE = ("429", "500", "503", "504", "drop")
"""The request is not done: throttled (with Retry-After), an error, or the connection closed without an answer."""
AFTER = ("lost",)
"""The request is done, and the connection closed before the answer."""
WATCH = ("mute", "cut", "gone", "gone_event", "no_bookmark")
"""A watch that ends without what it had to say, in the middle of it, with HTTP 410, with an ERROR event, or says all but the
bookmark."""


@dataclass
class Fault:
    """`times` requests of this verb and resource ("" for any) meet it."""

    what: str
    verb: str = ""
    resource: str = ""
    times: int = 1


@dataclass
class Faults:
    """`rate`: how many of a hundred requests meet one of `kinds` at random."""

    rng: random.Random
    planned: list[Fault] = field(default_factory=list)
    rate: float = 0.0
    kinds: tuple[str, ...] = BEFORE + AFTER + WATCH
    spared: str = ""
    "A client (its User-Agent) that meets none: the scenario's own."
    gone_as: str = ""
    "How a watch from before the history is refused: http (410), event (ERROR); either where nothing is said."
    met: dict[str, int] = field(default_factory=dict)

    def plan(self, what: str, verb: str = "", resource: str = "", times: int = 1) -> None:
        self.planned.append(Fault(what, verb, resource, times))

    def take(self, verb: str, resource: str) -> str:
        """The fault that this request meets; "" for none."""
        for fault in self.planned:
            if (
                fault.verb in ("", verb)
                and fault.resource in ("", resource)
                and (fault.what in WATCH) <= (verb == "watch")
            ):
                fault.times -= 1
                if fault.times <= 0:
                    self.planned.remove(fault)
                return self._count(fault.what)
        if self.rate and self.rng.random() * 100 < self.rate:
            return self._count(self.rng.choice([kind for kind in self.kinds if verb == "watch" or kind not in WATCH]))
        return ""

    def _count(self, what: str) -> str:
        self.met[what] = self.met.get(what, 0) + 1
        return what
