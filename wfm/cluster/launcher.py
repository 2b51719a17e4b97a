"""The launcher: makes or adopts the job of a request, and follows it until the store has the key, or nothing helps any more.

    launcher = Launcher(api, store, settings, RealClock())
    end = launcher.run(request)                 # one request; or for many:
    launcher.add(request); wait = launcher.tick(); launcher.ended[key]

It keeps no state that matters: a launcher that is killed is followed by another, which finds the job by its name, the tries in
the store, and goes on. What to do is decided in `decide.py`, a pure function; here it is looked at and done. SIGTERM only
detaches. One process follows any number of requests, with one watch for each kind of object.

What a launcher says of a node stands in its run (``launcher/<node>.json``), so that `wfm status` shows "queued" and "pulling
image" from anywhere; in the log each state is told once.
"""

import dataclasses
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from wfm import stopping
from wfm.cluster.actions import Actions
from wfm.cluster.api import Api, Backoff
from wfm.cluster.decide import decide
from wfm.cluster.entry import API_PATIENCE_SECONDS, LOOK_SECONDS, RESOURCES, Entry, phases, signature
from wfm.cluster.kinds import POD, WORKLOAD, Resource
from wfm.cluster.names import LABEL_JOB
from wfm.cluster.pod_states import Pod, read_pod
from wfm.cluster.records import Records, Said, read_said, still_need, write_said
from wfm.cluster.refusals import Busy, Conflict, NotFound
from wfm.cluster.request import JobRequest, kind_of
from wfm.cluster.settings import ClusterSettings
from wfm.cluster.states import Job, Workload, read_job, read_workload, runs_of
from wfm.cluster.view import Decision, End, View, try_of
from wfm.cluster.watch import Clock, Mirror
from wfm.errors import InputError, TryAgain
from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts import Store

__all__ = ["Clock", "End", "Launcher", "RealClock"]

_BUSY_IN_A_ROW = 3
"""So many requests that are not served in one pass: it is the server, and not what was asked."""
_SHORTEST_REST = 0.2
_BEHIND_SECONDS = 2.0
"""A view that is behind is looked at again after [s], or when there is news."""
_LOOKERS = 16
_log = get_logger("wfm.launcher")


class RealClock:
    """The time of this machine."""

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait, or until the process is asked to stop."""
        stopping.asked.wait(seconds)


class Launcher:
    """Follows requests against one API server and one store."""

    def __init__(self, api: Api, store: "Store", settings: ClusterSettings, clock: Clock, threads: bool = True) -> None:
        """`threads`: mirrors stream in threads of their own; without, each tick reads what there is."""
        self.ended: dict[str, End] = {}
        self._api, self._store, self._settings, self._clock, self._threads = api, store, settings, clock, threads
        api.clock = clock.now
        self._actions = Actions(api, settings)
        self._entries: dict[tuple[str, str, str], Entry] = {}
        self._mirrors: dict[Resource, Mirror[Any]] = {}
        self._server = Backoff(first=1.0, longest=60.0, patience=API_PATIENCE_SECONDS)
        self._wake = threading.Event()
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(_LOOKERS) if threads else None

    # -- from outside

    def add(self, request: JobRequest) -> None:
        """Follow a request from the next tick on. Raises what the store raises for a run that cannot be made."""
        nodes = [{"name": request.node, "stage": request.stage, "key": request.key}]
        run = self._store.runs.create({"pipeline": "", "engine": "launcher", "nodes": nodes}, request.run_id, same=())
        before = read_said(run, request.node)
        said = Said(request.key, job=request.name(self._settings), nodes=before.nodes if before else {})
        entry = Entry(request, self._store, self._settings, run, Records(run, request.node), said)
        entry.swept = kind_of(request, self._settings) != "daskjob"
        self._entries[request.key, request.run_id, request.node] = entry
        self.ended.pop(request.key, None)
        for resource in self._needs(entry):
            self._mirror(resource)

    def tick(self) -> float:
        """One pass: hear what is new, decide, act. Returns how long until the next is due [s], unless something happens."""
        poll = self._settings.patience.poll_seconds
        now = self._now()
        if now < self._server.until:
            return self._server.until - now
        try:
            self._catch_up()
            waits = self._pass_over(self._now())
            self._server.worked()
        except Busy as error:
            return self._not_now(error)
        return max(min([poll, *waits]), _SHORTEST_REST)

    def run(self, request: JobRequest) -> End:
        """Follow one request to its end. SIGTERM detaches: the job goes on, the next launcher adopts it (outcome try_again),
        unless the run is cancelled: then the job is stopped first."""
        self.add(request)
        while request.key not in self.ended:
            wait = self.tick()
            if request.key in self.ended:
                break
            if stopping.asked.is_set() and not self._is_cancelled(request):
                self.detach()
                return End.of("try_again", "asked to stop: detached; the job goes on, and the next launcher adopts it")
            self._rest(min(wait, 1.0) if stopping.asked.is_set() else wait)
        self.detach()
        return self.ended[request.key]

    def detach(self) -> None:
        """Stop following; jobs are not touched."""
        for mirror in self._mirrors.values():
            mirror.stop()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._wake.set()

    def _now(self) -> float:
        """By the API server's clock, which is in all that its objects say."""
        return self._clock.now() + self._api.skew

    def _is_cancelled(self, request: JobRequest) -> bool:
        try:
            return bool(self._store.runs.of(request.run_id).cancelled_by())
        except (TryAgain, OSError):
            return False

    def _rest(self, seconds: float) -> None:
        if not self._threads:
            self._clock.sleep(seconds)
            return
        if not stopping.asked.is_set():  # once it is, it would wake this at once, each time
            stopping.when_asked(self._wake.set)
        self._wake.wait(seconds)
        self._wake.clear()

    # -- mirrors

    def _mirror(self, resource: Resource) -> None:
        keep: Any = {POD: read_pod, WORKLOAD: read_workload}.get(resource, read_job)
        selector = "" if resource == WORKLOAD else LABEL_JOB
        if resource not in self._mirrors:
            mirror: Mirror[Any] = Mirror(self._api, resource, selector, self._clock, keep=keep, changed=self._wake.set)
            self._mirrors[resource] = mirror
            if self._threads:
                mirror.start()

    def _catch_up(self) -> None:
        for resource, mirror in list(self._mirrors.items()):
            try:
                if not self._threads:
                    mirror.catch_up()
                elif mirror.trouble is not None:
                    raise mirror.trouble
            except InputError as error:
                self._give_up(resource, error)

    def _give_up(self, resource: Resource, error: InputError) -> None:
        """What this account may not read, or this cluster does not have, ends the requests that need it, and no other. One that
        comes later asks again."""
        self._mirrors.pop(resource).stop()
        for entry in list(self._entries.values()):
            if resource in self._needs(entry):
                self._end(entry, End.of(error.outcome, str(error)))

    def _needs(self, entry: Entry) -> set[Resource]:
        """Of what a request needs a mirror."""
        jobs = {RESOURCES[kind_of(phase, self._settings)] for phase in phases(entry.whole)}
        return {*jobs, POD, *([WORKLOAD] if self._settings.queue else [])}

    def _not_now(self, error: Busy) -> float:
        """The server does not answer as it should: for all requests alike."""
        now = self._now()
        wait = self._server.failed(now, error.retry_after)
        for entry in list(self._entries.values()):
            if self._server.over(now):
                self._end(entry, End.of("try_again", f"given up for now, the jobs go on: {error}"), through=False)
            else:
                entry.say(now, f"the API server is asked again in a moment: {error}")
        return wait

    def _pass_over(self, now: float) -> list[float]:
        if not self._entries:
            return []
        if not all(mirror.ready for mirror in self._mirrors.values()):
            return [1.0]
        pods = _by_job(self._mirrors[POD].objects().values())
        departed = _by_job(self._mirrors[POD].departed())
        jobs = {r: m.objects() for r, m in self._mirrors.items() if r not in (POD, WORKLOAD)}
        places: dict[str, Workload] = {}
        if WORKLOAD in self._mirrors:
            places = {one.owner: one for one in self._mirrors[WORKLOAD].objects().values()}
        entries = list(self._entries.values())
        if self._pool is not None:
            list(self._pool.map(lambda entry: entry.look_for_cancel(now), entries))
        waits: list[float] = []
        busy = 0
        for entry in entries:
            if self._pool is None:
                entry.look_for_cancel(now)
            until = max(entry.trouble.until, entry.unserved.until)
            if now < until:
                waits.append(until - now)
                continue
            try:
                waits.append(self._step(entry, now, jobs, pods, departed, places))
                entry.unserved.worked()
            except Busy as error:
                busy += 1
                waits.append(self._unserved(entry, error))
                if busy >= _BUSY_IN_A_ROW:
                    raise
        return waits

    def _unserved(self, entry: Entry, error: Busy) -> float:
        """The server did not serve this one request: a webhook that fails, a moment's trouble."""
        now = self._now()
        wait = entry.unserved.failed(now, error.retry_after)
        if entry.unserved.over(now):
            self._end(entry, End.of("try_again", f"given up for now, the job goes on: {error}"), through=False)
        else:
            entry.say(now, f"asked again in a moment: {error}")
        return wait

    # -- one request

    def _step(
        self,
        entry: Entry,
        now: float,
        jobs: dict[Resource, dict[str, Job]],
        pods: dict[str, list[Pod]],
        departed: dict[str, list[Pod]],
        places: dict[str, Workload],
    ) -> float:
        poll = self._settings.patience.poll_seconds
        try:
            shown = entry.shown(now, jobs, pods, departed, places)
            sign = signature(*shown)
            looked = entry.seen != sign or now - entry.looked_at >= LOOK_SECONDS or shown[0] is None
            if looked:
                entry.look(now, shown[0])
                entry.seen = sign
            if shown[0] is not None and not shown[1]:
                self._actions.ask_why(entry, now, shown[0])
            view = entry.view(now, *shown)
            decision = decide(view)
            if not looked and decision != Decision(decision.words, look_in=decision.look_in):
                entry.look(now, shown[0])  # never act on what the store said a while ago
                view = entry.view(now, *shown)
                decision = decide(view)
            self._act(entry, view, decision)
            entry.trouble.worked()
            return decision.look_in or poll
        except (Conflict, NotFound) as error:  # the view was behind: the next one is not
            _log.debug("%s: %s", entry.whole.node, error)
            return _BEHIND_SECONDS if self._threads else poll
        except Busy:
            raise
        except InputError as error:
            self._end(entry, End.of(error.outcome, str(error)))
        except (TryAgain, OSError) as error:  # the store
            wait = entry.trouble.failed(now)
            if entry.trouble.over(now):
                self._end(entry, End.of("try_again", f"the store does not answer: {error}"), through=False)
            entry.say(now, f"the store is asked again in a moment: {type(error).__name__}: {error}")
            return wait
        return poll

    # -- what is done

    def _act(self, entry: Entry, view: View, decision: Decision) -> None:
        if view.cancelled_by and not view.committed and view.job is not None:
            view, decision = self._ask_the_others(entry, view)
        if decision.end is None:
            entry.say(view.now, decision.words, decision.warning)
        if decision.deaths and view.job is not None:
            self._actions.now(view, view.job)  # what is written down stands: not from a view that is behind
        told = [self._actions.tell(entry, view, death) for death in decision.deaths]
        if not all(told):
            return  # another launcher is about to: looked at again
        if decision.blame and view.job is not None:
            entry.said.nodes[str(try_of(view.job))] = list(decision.blame)
            write_said(entry.run, entry.whole.node, entry.said, view.now)
        if decision.deaths:
            entry.looked_at = -1e18
        if (decision.note or decision.unnote) and view.job is not None:
            self._actions.note(view.job, entry.whole.run_id, view, there=decision.note)
        if decision.remove and view.job is not None:
            self._actions.remove(entry, view, view.job)
        for pod, grace in decision.stop_pods:
            self._actions.stop(entry, pod, grace, view.now)
        if decision.sweep:
            entry.swept = self._actions.sweep(view.name)
        if decision.create:
            self._actions.create(entry, view, decision)
        if decision.end is not None:
            if decision.warning:
                _log.warning("%s: %s", entry.whole.node, decision.warning)
            self._end(entry, decision.end)

    def _ask_the_others(self, entry: Entry, view: View) -> tuple[View, Decision]:
        """Before a job is stopped for a cancel: who else needs it, as noted on it at this moment."""
        assert view.job is not None
        found = self._actions.now(view, view.job)
        noted = [run for run in runs_of(found) if run != entry.whole.run_id]
        entry.others = tuple(still_need(self._store, noted, entry.whole.key))
        view = dataclasses.replace(view, job=found, others=entry.others)
        return view, decide(view)

    def _end(self, entry: Entry, end: End, *, through: bool = True) -> None:
        """The end of a request here; not ``through`` when the next launcher is to go on with its job."""
        entry.said.ended = end.outcome if through else ""
        entry.said.words = ""
        entry.say(self._now(), f"{end.outcome}: {end.reason}" if end.reason else end.outcome)
        self.ended[entry.whole.key] = end
        del self._entries[entry.whole.key, entry.whole.run_id, entry.whole.node]


def _by_job(pods: Iterable[Pod]) -> dict[str, list[Pod]]:
    found: dict[str, list[Pod]] = {}
    for pod in pods:
        found.setdefault(pod.job, []).append(pod)
    return found
