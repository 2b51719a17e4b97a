"""What all the tries in a store add up to, for whoever watches a cluster: what was lost, devices, waiting, the last success.

    ledger = Ledger(store)
    ledger.look()              # again and again; each ended try is read once
    ledger.totals              # what ended: these only grow, also when a run is deleted, and when another ledger goes on
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

from pipelines.runs import counted
from pipelines.runs.counted import OfRun, Totals
from pipelines.runs.seen import BEAT_SECONDS, Try, try_of, unix
from pipelines.runs.state import FINISHED, GOOD, read_state
from pipelines.stages import STAGES
from wfm.artifacts.runs import FAILED_PLAN, SUBMISSION, AttemptRecord
from wfm.cluster.records import said_of
from wfm.errors import DataError, WfmError
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
_NEWEST = 20
_MANY_RESTING = 200
"""So many runs that rest are written into a file of their own, so that the document of all others need not hold them."""
_LONGEST = 200
"""Letters of the name of a range of parts that are told apart."""
REST_SECONDS = 3600.0
"""How often a run is looked at in which nothing is open and nothing happened for a day [s]."""
_WAITS = {"queued": "queue", "suspended": "queue", "waiting for quota": "quota", "the queue cannot take it": "queue"}
_log = get_logger(__name__)


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
    counted: OfRun
    open: int = 0
    looked: float = -1e18

    @property
    def rests(self) -> bool:
        """Whether nothing is open in it, and nothing happened for long."""
        return not self.open and time.time() - max(self.created, self.counted.changed) > GIVEN_UP_SECONDS


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
        self._counted: Totals | None = None
        "What `totals` will be once this look is through and written down; None before the first."
        self._before: dict[str, OfRun] = {}
        "Runs that an earlier ledger counted, and that were not looked at yet."
        self._resting: dict[str, set[str]] = {}
        "File of runs that rest -> those that it alone speaks of."
        self._news = False
        self.looked_at = 0.0
        "Unix time of the last whole look; 0 before the first."
        self.look_seconds = 0.0
        self.failed_looks = 0
        self.newest: list[Run] = []
        "Runs, at the last look."

    def look(self) -> None:
        """See what is new. Raises what the store raises when it cannot be listed; a run that cannot be read is counted."""
        began, now = time.monotonic(), Now()
        try:
            runs = self._store.runs.list()
            self._go_on()
        except (WfmError, OSError):
            self.failed_looks += 1
            raise
        self.newest = runs[:_NEWEST]
        for run in runs:
            now.runs += 1
            try:
                self._look_at(run, now)
            except (WfmError, OSError) as error:
                now.unreadable += 1
                _log.warning("run %s is passed over at this look: %s", run.id, error)
        alive = {run.id for run in runs}
        self._before = {name: known for name, known in self._before.items() if name in alive}
        self._runs = {name: known for name, known in self._runs.items() if name in alive}
        self._beats = {place: beat for place, beat in self._beats.items() if place[0] in alive}
        self._resting = {name: there for name, of in self._resting.items() if (there := of & alive)}
        self._write_down()
        with self.lock:
            self.totals = self._counted.copy() if self._counted else self.totals
            self.now, self.looked_at, self.look_seconds = now, time.time(), time.monotonic() - began

    def _go_on(self) -> None:
        """From what an earlier ledger counted."""
        if self._counted is not None:
            return
        try:
            self._counted, self._before, self._resting = counted.read(self._store)
        except DataError as error:
            _log.warning("%s: what is in the store now is counted anew", error)
            self._counted = Totals()

    def _write_down(self) -> None:
        """Before it is shown: what was shown is never taken back."""
        if not self._news or self._counted is None:
            return
        runs = {**self._before, **{name: known.counted for name, known in self._runs.items()}}
        for asleep in self._resting.values():
            for name in asleep:
                runs.pop(name, None)
        tired = {name: runs[name] for name, known in self._runs.items() if name in runs and known.rests}
        try:
            if len(tired) >= _MANY_RESTING:
                self._resting |= counted.lay_to_rest(self._store, tired)
                runs = {name: of for name, of in runs.items() if name not in tired}
            counted.write(self._store, self._counted, runs, self._resting)
            self._news = False
        except (WfmError, OSError) as error:
            _log.warning("what was counted is not written down, so that a restart may count it twice: %s", error)

    def _look_at(self, run: "Run", now: Now) -> None:
        known, clock = self._runs.get(run.id), self._clock()
        if (
            known is None
            and run.read("spec.json") is None
            and any(run.read(name) for name in (SUBMISSION, FAILED_PLAN))
        ):
            return  # its engine on a cluster has yet to plan it, or failed to
        if known is None:
            known = self._runs[run.id] = _known(run.spec(), self._before.pop(run.id, OfRun()))
        if known.rests and clock - known.looked < REST_SECONDS:
            return
        records = [
            run.read_whole(node, number)
            for node in run.nodes()
            for number in run.attempts(node)
            if not known.counted.has(node, number)
        ]
        if records:  # what is said of it will be another
            for asleep in self._resting.values():
                asleep.discard(run.id)
        over = bool(run.cancelled_by()) or _is_over(run)
        known.looked, known.open = clock, 0
        newest: dict[tuple[str, str], int] = {}
        for record in records:
            place = (record.node, _parts(record))
            newest[place] = max(record.number, newest.get(place, 0))
        for record in sorted(records, key=lambda one: try_of(one).started):  # what a try waited for comes before it
            place = (record.node, _parts(record))
            replaced = max(newest[place], known.counted.seen(record.node).replaced.get(place[1], 0)) > record.number
            self._take(run.id, known, record, over or replaced, now)
        _note_replaced(known, records)
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
        stage = known.stages.get(record.node, OTHER)
        outcome_record: Mapping[str, Any] = record.outcome or {}
        finished = max(unix(str(outcome_record.get("finished_at") or "")) or (one.started + one.seconds), 0.0)
        waited = _waited(known, record, one)
        of_node, parts = known.counted.of(record.node), _parts(record)
        of_node.add(record.number)
        before = of_node.failed.pop(parts, (0, 0.0))
        if one.state not in GOOD:
            of_node.failed[parts] = max(before, (record.number, finished))
        elif not one.parts:
            of_node.made = max(of_node.made, finished)
        known.counted.changed = max(known.counted.changed, finished)
        self._news, totals = True, self._counted
        assert totals is not None
        totals.attempts[stage, outcome] += 1
        totals.seconds[stage, outcome] += one.seconds
        totals.gpu_seconds[stage, outcome] += one.gpu_seconds
        if outcome not in GOOD:
            totals.lost_seconds[stage, outcome] += one.seconds
        if outcome_record.get("disruption") is True:
            totals.disruptions[stage] += 1
        totals.waited_seconds[stage] += waited
        if outcome == "done" and not one.parts:
            totals.last_success[stage] = max(totals.last_success[stage], finished)


def _waited(known: _Known, record: AttemptRecord, one: Try) -> float:
    """Seconds from when this try could have begun: its inputs were there, and the try before at the same (range of parts) had
    ended."""
    number, ended = known.counted.seen(record.node).failed.get(_parts(record), (0, 0.0))
    before = ended if number < record.number else 0.0
    inputs = [known.counted.seen(source).made for source in known.sources.get(record.node, ())]
    could = max([known.created, before, *inputs])
    return max(one.started - could, 0.0) if one.started and could else 0.0


def _known(spec: Mapping[str, Any], before: OfRun) -> _Known:
    """What of a run's spec is needed here. Of what cannot be read nothing is believed."""
    created = unix(str(spec.get("created_at") or ""))
    found = _Known({}, {}, created, before)
    nodes = spec.get("nodes")
    for node in nodes if isinstance(nodes, list) else ():
        if isinstance(node, dict) and isinstance(node.get("name"), str):
            stage, sources = node.get("stage"), node.get("sources")
            found.stages[node["name"]] = stage if isinstance(stage, str) and stage in STAGES else OTHER
            found.sources[node["name"]] = list(_texts(sources))
    return found


def _texts(table: object) -> Iterator[str]:
    yield from (one for one in (table.values() if isinstance(table, dict) else ()) if isinstance(one, str))


def _note_replaced(known: _Known, records: list[AttemptRecord]) -> None:
    """For tries that are open: which later one at the same is counted, which the next look does not read any more."""
    still = {(one.node, _parts(one)) for one in records if not known.counted.has(one.node, one.number)}
    for name, of_node in known.counted.nodes.items():
        of_node.replaced = {parts: number for parts, number in of_node.replaced.items() if (name, parts) in still}
    for one in records:
        if (one.node, _parts(one)) in still and known.counted.has(one.node, one.number):
            replaced = known.counted.of(one.node).replaced
            replaced[_parts(one)] = max(one.number, replaced.get(_parts(one), 0))


def _parts(record: AttemptRecord) -> str:
    """The range of parts that it is a try at; empty for the whole."""
    return try_of(record).parts[:_LONGEST]


def _is_over(run: "Run") -> bool:
    """Whether an engine of ours wrote down that all of it is over."""
    state = read_state(run)
    return state is not None and state.state in FINISHED
