"""What all the tries in a store add up to, for whoever watches a cluster: what was lost, devices, waiting, the last success.

    ledger = Ledger(store)
    ledger.look()              # again and again; each ended try is read once
    ledger.totals              # what ended: these only grow, also when a run is deleted
    ledger.now                 # what is open, or waits, at the last look

A try counts once it has ended. One without an end counts as ``lost`` when its beat has stood still for long by *our* clock and
another try was begun in its place, or its run is over: clocks that disagree accuse nobody, so just after a start all that is
open counts as running. An end that is told after that changes nothing any more.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.runs.seen import BEAT_SECONDS, Try, try_of, unix
from pipelines.runs.state import FINISHED, GOOD, read_state
from pipelines.stages import STAGES
from wfm.artifacts.runs import AttemptRecord
from wfm.cluster.records import said_of
from wfm.errors import WfmError
from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run

OUTCOMES = ("done", "cached", "wrong_input", "try_again", "cancelled", "bug", "lost")
OTHER = "other"
"""A stage or an outcome that is none of ours: what stands in the store makes no labels."""
SILENT_SECONDS = 180.0
"""A beat that stands still for longer (or for 18 of its own intervals) is of a try that is gone, or hangs [s]."""
GIVEN_UP_SECONDS = 86400.0
"""After so long nobody waits for it any more [s]."""
REST_SECONDS = 3600.0
"""How often a run is looked at in which nothing is open and nothing happened for a day [s]."""
_WAITS = {"queued": "queue", "suspended": "queue", "waiting for quota": "quota", "the queue cannot take it": "queue"}
_log = get_logger(__name__)


@dataclass
class Totals:
    """Of tries that have ended; by (stage, outcome) or by stage."""

    attempts: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    seconds: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    gpu_seconds: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    lost_seconds: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    "Of those that made nothing."
    disruptions: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    "That were nobody's fault."
    waited_seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    "From when its inputs were there, or the try before had ended, to the beginning of each try."
    last_success: dict[str, float] = field(default_factory=dict)
    "Unix time."


@dataclass
class Now:
    """At the last look."""

    open: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    "(stage, running | silent)"
    gpu_seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    "Of open tries until now."
    silent_seconds: dict[str, float] = field(default_factory=dict)
    "Stage -> the longest that a beat of it stands still."
    waiting: defaultdict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    "(stage, queue | quota | other): nodes whose launcher waits."
    runs: int = 0
    unreadable: int = 0
    "Runs that cannot be read."


@dataclass
class _Known:
    """A run as it was at the last look."""

    stages: dict[str, str]
    "Node -> stage."
    sources: dict[str, list[str]]
    created: float
    ended: dict[tuple[str, int], Try] = field(default_factory=dict)
    finished: dict[tuple[str, int], float] = field(default_factory=dict)
    open: int = 0
    changed: float = 0.0
    "Unix time of the last end of a try."
    looked: float = -1e18


class Ledger:
    """See the module. `clock` goes on by itself and never back (seconds); `look` is for one thread, the rest for any."""

    def __init__(self, store: "Store", clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._runs: dict[str, _Known] = {}
        self._beats: dict[tuple[str, str, int], tuple[str, float]] = {}
        "Of open tries: the last beat, and since when it stands, by our clock."
        self.lock = threading.Lock()
        "Held while figures change."
        self.totals, self.now = Totals(), Now()
        self.looked_at = 0.0
        "Unix time of the last whole look; 0 before the first."
        self.look_seconds = 0.0
        self.failed_looks = 0

    def look(self) -> None:
        """See what is new. Raises what the store raises when it cannot be listed; a run that cannot be read is counted."""
        began, now = time.monotonic(), Now()
        try:
            runs = self._store.runs.list()
        except (WfmError, OSError):
            self.failed_looks += 1
            raise
        for run in runs:
            now.runs += 1
            try:
                self._look_at(run, now)
            except (WfmError, OSError) as error:
                now.unreadable += 1
                _log.warning("run %s is passed over at this look: %s", run.id, error)
        alive = {run.id for run in runs}
        self._runs = {name: known for name, known in self._runs.items() if name in alive}
        self._beats = {place: beat for place, beat in self._beats.items() if place[0] in alive}
        with self.lock:
            self.now, self.looked_at, self.look_seconds = now, time.time(), time.monotonic() - began

    def _look_at(self, run: "Run", now: Now) -> None:
        known, clock = self._runs.get(run.id), self._clock()
        if known is None:
            known = self._runs[run.id] = _known(run.spec())
        rests = not known.open and time.time() - known.changed > GIVEN_UP_SECONDS
        if rests and clock - known.looked < REST_SECONDS:
            return
        records = [
            run.read_whole(node, number)
            for node in run.nodes()
            for number in run.attempts(node)
            if (node, number) not in known.ended
        ]
        over = bool(run.cancelled_by()) or _is_over(run)
        known.looked, known.open = clock, 0
        for record in sorted(records, key=lambda one: try_of(one).started):  # what a try waited for comes before it
            open_ended = record.outcome is None
            self._take(run.id, known, record, over or (open_ended and _is_replaced(record, records, known)), now)
        for node, said in said_of(run).items() if not over else ():
            if not said.ended and said.words and node in known.stages:
                known.open += 1
                reason = next((of for words, of in _WAITS.items() if said.words.startswith(words)), OTHER)
                now.waiting[known.stages[node], reason] += 1

    def _take(self, run_id: str, known: _Known, record: AttemptRecord, replaced: bool, now: Now) -> None:
        one, place = try_of(record), (record.node, record.number)
        if record.outcome is not None:
            self._book(known, record, one, one.state if one.state in OUTCOMES else OTHER)
            self._beats.pop((run_id, *place), None)
            return
        clock = self._clock()
        beat, since = self._beats.get((run_id, *place), ("", clock))
        if beat != one.beat:
            since = clock
        self._beats[run_id, *place] = (one.beat, since)
        silent = clock - since
        limit = max(SILENT_SECONDS, 18.0 * min(one.every, 10 * BEAT_SECONDS))
        if silent > GIVEN_UP_SECONDS or (silent > limit and replaced):
            self._book(known, record, one, "lost")
            self._beats.pop((run_id, *place), None)
            return
        stage = known.stages.get(record.node, OTHER)
        known.open += 1
        now.open[stage, "silent" if silent > limit else "running"] += 1
        now.gpu_seconds[stage] += one.gpu_seconds
        now.silent_seconds[stage] = max(now.silent_seconds.get(stage, 0.0), silent)

    def _book(self, known: _Known, record: AttemptRecord, one: Try, outcome: str) -> None:
        """Count a try that has ended, once."""
        stage, at = known.stages.get(record.node, OTHER), (record.node, record.number)
        outcome_record: Mapping[str, Any] = record.outcome or {}
        finished = unix(str(outcome_record.get("finished_at") or "")) or (one.started + one.seconds)
        waited = self._waited(known, record, one)
        known.ended[at], known.finished[at], known.changed = one, finished, max(known.changed, finished)
        with self.lock:
            totals = self.totals
            totals.attempts[stage, outcome] += 1
            totals.seconds[stage, outcome] += one.seconds
            totals.gpu_seconds[stage, outcome] += one.gpu_seconds
            if outcome not in GOOD:
                totals.lost_seconds[stage, outcome] += one.seconds
            if outcome_record.get("disruption") is True:
                totals.disruptions[stage] += 1
            totals.waited_seconds[stage] += waited
            if outcome == "done" and not one.parts:
                totals.last_success[stage] = max(totals.last_success.get(stage, 0.0), finished)

    def _waited(self, known: _Known, record: AttemptRecord, one: Try) -> float:
        """Seconds from when this try could have begun: its inputs were there, and the try before had ended."""
        before = [at for (node, number), at in known.finished.items() if node == record.node and number < record.number]
        inputs = [
            known.finished[at] for at, other in known.ended.items()
            if at[0] in known.sources.get(record.node, ()) and other.state in GOOD and not other.parts
        ]  # fmt: skip
        could = max([known.created, *inputs, *before])
        return max(one.started - could, 0.0) if one.started and could else 0.0


def _known(spec: Mapping[str, Any]) -> _Known:
    """What of a run's spec is needed here. Of what cannot be read nothing is believed."""
    created = unix(str(spec.get("created_at") or ""))
    found = _Known({}, {}, created, changed=created)
    nodes = spec.get("nodes")
    for node in nodes if isinstance(nodes, list) else ():
        if isinstance(node, dict) and isinstance(node.get("name"), str):
            stage, sources = node.get("stage"), node.get("sources")
            found.stages[node["name"]] = stage if isinstance(stage, str) and stage in STAGES else OTHER
            found.sources[node["name"]] = list(_texts(sources))
    return found


def _texts(table: object) -> Iterator[str]:
    yield from (one for one in (table.values() if isinstance(table, dict) else ()) if isinstance(one, str))


def _is_replaced(record: AttemptRecord, others: list[AttemptRecord], known: _Known) -> bool:
    """Whether a later try at the same node (and range of its parts) was begun."""
    parts = record.record.get("parts")
    later = [one for one in others if one.number > record.number and one.record.get("parts") == parts]
    ended = [at for at, one in known.ended.items() if at[0] == record.node and at[1] > record.number]
    return bool(later or any(known.ended[at].parts == (parts or "") for at in ended))


def _is_over(run: "Run") -> bool:
    """Whether an engine of ours wrote down that all of it is over."""
    state = read_state(run)
    return state is not None and state.state in FINISHED
