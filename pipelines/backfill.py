"""Many runs of one pipeline, over times or shards: what is there is left, what failed is tried again, what is missing is begun.

The store is all that is remembered: a backfill that was killed and is started again goes on, and two at once share the work.
A run that failed is tried again under its id with ``-2``, ``-3`` behind it, once each time the backfill is started. One that
its engine on a cluster lost is left until somebody says that it is to be tried again: where the wrong namespace is asked, it
works all the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.ticks import Point
from pipelines.verbs import Standing, look, submit
from wfm.artifacts.runs import SUBMISSION
from wfm.errors import InputError, TryAgain

if TYPE_CHECKING:
    import threading

    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run

MISSING = "missing"
_OPEN = ("pending", "planned", "running", "waiting")
_AGAIN = ("failed", "dead", "never began", "cannot be read")
_POLL_SECONDS = 1.0
_MOST_TRIES = 1000
_REFUSALS = 20
"""Looks in a row at which an engine does not answer, until the backfill gives up."""


@dataclass
class Found:
    """A point as it stands."""

    point: Point
    run_id: str
    "Of its last try; of the first, where there is none."
    tries: int
    state: str
    "As `wfm status` says, or `missing`."
    reason: str = ""
    begun: bool = False
    "Whether this backfill has begun it."
    lost: bool = False
    "Whether its engine has it no more (`verbs.Standing.lost`)."
    retry_lost: bool = False
    "Whether it is tried again then."

    @property
    def open(self) -> bool:
        """Whether it is at work, or about to be."""
        return self.state in _OPEN

    @property
    def action(self) -> str:
        """What there is to do."""
        if self.begun or self.state not in (MISSING, *_AGAIN):
            return "skip" if self.state == "done" else "wait" if self.open else "leave"
        if self.lost:
            return "try again" if self.retry_lost else "leave"
        return "start" if self.state == MISSING else "go on" if self.state == "dead" else "try again"

    @property
    def next_id(self) -> str:
        """The id that its next try has."""
        return self.run_id if self.action in ("start", "go on") else f"{self.point.run_id}-{self.tries + 1}"


def survey(store: "Store", points: Sequence[Point], *, retry_lost: bool = False) -> list[Found]:
    """How each point stands."""
    table = [_find(store, point) for point in points]
    for found in table:
        found.retry_lost = retry_lost
    return table


def _find(store: "Store", point: Point) -> Found:
    last: Run | None = None
    for number in range(1, _MOST_TRIES):
        run = store.runs.of(point.run_id if number == 1 else f"{point.run_id}-{number}")
        if run.read(SUBMISSION) is None and run.read("spec.json") is None:
            break
        last, tries = run, number
    if last is None:
        return Found(point, point.run_id, 0, MISSING)
    return _stands(Found(point, last.id, tries, ""), last)


def _stands(found: Found, run: "Run") -> Found:
    try:
        standing = look(run)
    except InputError as error:
        found.state, found.reason = "cannot be read", str(error)
        return found
    return _take(found, standing)


def _take(found: Found, standing: Standing) -> Found:
    found.state, found.lost = standing.word, standing.lost
    found.reason = standing.trouble or (standing.state.reason if standing.state is not None else "")
    if standing.state is not None and not found.reason:
        failed = [f"{name}: {node.reason}" for name, node in standing.state.nodes.items() if node.state == "failed"]
        found.reason = "; ".join(failed)
    return found


def go_on(
    store: "Store",
    points: Sequence[Point],
    *,
    at_most: int,
    stop: "threading.Event",
    tell: Callable[[Found, str], None],
    retry_lost: bool = False,
    **how: Any,
) -> list[Found]:
    """Begin what is to be begun, oldest first and at most so many at once, until nothing is left or `stop` is set; returns how
    each point stands then. `tell` hears what became of a point; `how` goes to `verbs.submit`. Runs that were begun go on
    without us. Raises TryAgain when the engine stays away."""
    table, silent = survey(store, points, retry_lost=retry_lost), 0
    while not stop.is_set():
        for found in table:
            if found.open:
                _stands(found, store.runs.of(found.run_id))
                if not found.open:
                    tell(found, found.state)
                    found.begun = True  # one that ends while we look is not tried again by us
        at_work = sum(found.open for found in table)
        waiting = [found for found in table if found.action in ("start", "go on", "try again")]
        if not waiting and not at_work:
            break
        for found in waiting[: max(at_most - at_work, 0)]:
            try:
                _begin(store, found, tell, how)
                silent = 0
            except TryAgain as error:  # the engine, or another backfill at this moment: looked at again
                silent += 1
                if silent > _REFUSALS:
                    raise TryAgain(f"{error}; {len(waiting)} runs are to be begun yet: start this again") from None
                break
        stop.wait(_POLL_SECONDS)
    return table


def _begin(store: "Store", found: Found, tell: Callable[[Found, str], None], how: dict[str, Any]) -> None:
    run_id, action = found.next_id, found.action
    first = store.runs.of(found.point.run_id)
    try:
        standing = submit(
            found.point.request, store, run_id=run_id, scheduled_at=found.point.scheduled_at,
            rerun_of=first.id if action == "try again" else "", **how,
        )  # fmt: skip
    except InputError as error:  # of this point alone: the others may be right
        found.state, found.reason, found.begun = "failed", str(error), True
        tell(found, "cannot begin")
        return
    found.tries += action != "go on"
    found.run_id, found.begun = run_id, True
    _take(found, standing)
    tell(found, {"start": "begun", "go on": "goes on", "try again": "tried again"}[action])
