"""One request of a launcher: what it remembers of it, what it looks at in the store, and what it sees of the cluster."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wfm.cluster.api import Backoff
from wfm.cluster.job_over import ANNOTATION_AVOID, lost_now
from wfm.cluster.kinds import DASKJOB, JOB, PYTORCHJOB, TRAINJOB, Resource
from wfm.cluster.lint import check
from wfm.cluster.names import LABEL_NODE, PREFIX
from wfm.cluster.objects import build
from wfm.cluster.pod_states import RUNNER, Pod
from wfm.cluster.records import Records, Said, Try, write_said
from wfm.cluster.request import JobKind, JobRequest, kind_of
from wfm.cluster.settings import ClusterSettings
from wfm.cluster.states import Job, Workload, runs_of
from wfm.cluster.verdict import next_request
from wfm.cluster.view import GOOD, View, try_of
from wfm.errors import TryAgain, WfmError
from wfm.log import get_logger

if TYPE_CHECKING:
    from wfm.artifacts import Store
    from wfm.artifacts.runs import Run

RESOURCES: dict[JobKind, Resource] = {
    "pytorchjob": PYTORCHJOB, "trainjob": TRAINJOB, "daskjob": DASKJOB, "indexed_job": JOB,
}  # fmt: skip
ANNOTATION_OWNER = f"{PREFIX}owner"
"Annotation: ``run/node`` that a job was made for; the tries of its pods stand there."
LOOK_SECONDS = 60.0
"""How often the store is asked about a job of which nothing is heard [s]; a change at its job asks at once."""
API_PATIENCE_SECONDS = 900.0
STORE_PATIENCE_SECONDS = 900.0
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0
"""Between a try and the next [s]: doubled each time that it counts against the stage."""
HELD_PAUSE = 60.0
"""After one that left because another process works on the key [s]."""
_log = get_logger("wfm.launcher")


@dataclasses.dataclass
class Entry:
    """One request, and what this launcher remembers of it: nothing that the next one could not do without."""

    whole: JobRequest
    store: "Store"
    settings: ClusterSettings
    run: "Run"
    records: Records
    said: Said
    tries: tuple[Try, ...] = ()
    committed: bool = False
    made_key: str = ""
    committed_since: float = 0.0
    cancelled_by: str = ""
    cancelled_since: float = 0.0
    suspended_by: str = ""
    others: tuple[str, ...] = ()
    looked_at: float = -1e18
    seen: Any = None
    "What the cluster showed at the last look."
    job_records: Records | None = None
    job_tries: tuple[Try, ...] = ()
    shared: tuple[str, int] = ("", 0)
    fresh: Job | None = None
    fresh_until: float = 0.0
    asked: dict[str, float] = dataclasses.field(default_factory=dict)
    quiet_since: float = 0.0
    told_since: float = 0.0
    told_pods: frozenset[str] = frozenset()
    ended_tries: int = -1
    pause_until: float = 0.0
    pause_words: str = ""
    refused: str = ""
    asked_why: float = -1e18
    swept: bool = True
    quota: Backoff = dataclasses.field(default_factory=lambda: Backoff(first=5.0, longest=120.0))
    unserved: Backoff = dataclasses.field(default_factory=lambda: Backoff(patience=API_PATIENCE_SECONDS))
    trouble: Backoff = dataclasses.field(
        default_factory=lambda: Backoff(first=1.0, longest=30.0, patience=STORE_PATIENCE_SECONDS)
    )

    def shown(
        self,
        now: float,
        jobs: dict[Resource, dict[str, Job]],
        pods: dict[str, list[Pod]],
        departed: dict[str, list[Pod]],
        places: dict[str, Workload],
    ) -> tuple[Job | None, tuple[Pod, ...], tuple[Pod, ...], Workload | None]:
        """What the cluster shows of a request: its job, pods, pods that are gone, place in the queue."""
        job: Job | None = None
        own: list[Pod] = []
        gone: list[Pod] = []
        for request in phases(self.whole):
            name = request.name(self.settings)
            job = job or jobs[RESOURCES[kind_of(request, self.settings)]].get(name)
            own += pods.get(name, [])
            gone += departed.get(name, [])
        fresh = self.fresh
        if fresh is not None:
            known = job is not None and (job.uid == fresh.uid or job.created > fresh.created)
            if known or now >= self.fresh_until:
                self.fresh = None
            else:  # made a moment ago: the mirror is behind
                job = fresh
        place = places.get(job.uid) if job is not None else None
        for pod in own:  # of a DaskJob each worker has its own place
            found = places.get(pod.uid)
            if found is not None and (place is None or found.state != "admitted"):
                place = found
        return job, tuple(sorted(own, key=lambda pod: pod.name)), tuple(gone), place

    def say(self, now: float, words: str, warning: str = "") -> None:
        """Tell a state once: in the log, and in the run."""
        node = self.whole.node
        if warning and warning not in self.said.warnings:
            self.said.warnings.append(warning)
            _log.warning("%s: %s", node, warning)
        if words != self.said.words:
            self.said.words = words
            _log.info("%s: %s", node, words)
            try:
                write_said(self.run, node, self.said, now)
            except (TryAgain, OSError) as error:
                _log.debug("%s: its state cannot be written now: %s", node, error)

    def look_for_cancel(self, now: float) -> None:
        """Whether somebody asked the run to stop."""
        if self.cancelled_by:
            return
        try:
            self.cancelled_by = self.run.cancelled_by()
        except (WfmError, OSError) as error:
            _log.debug("%s: cannot look for a wish to stop: %s", self.whole.node, error)
            return
        if self.cancelled_by:
            self.cancelled_since = now

    def look(self, now: float, job: Job | None) -> None:
        """Ask the store."""
        self.tries = self.records.read()
        owner = owner_of(job) if job is not None else ("", "")
        if owner == (self.whole.run_id, self.whole.node):
            self.job_records = None
        elif owner[0] and (self.job_records is None or (self.job_records.run.id, self.job_records.node) != owner):
            self.job_records = Records(self.store.runs.of(owner[0]), owner[1])
        self.job_tries = self.tries if self.job_records is None else self.job_records.read()
        if not self.committed and self.store.has(self.whole.key):  # after the tries: a stage commits before it says so
            self.committed, self.committed_since = True, now
        elif not self.committed:
            self.made_key = self._made_otherwise()
            self.committed, self.committed_since = bool(self.made_key), now
        self.suspended_by = self.run.suspended_by() if job is None else ""  # a job is held by itself (`holding`)
        self.looked_at = now
        ended = sum(bool(one.outcome) for one in self.tries)
        if self.ended_tries not in (-1, ended) and ended:
            last, wait = _pause(self.tries)
            self.pause_until = now + wait
            self.pause_words = f"next try in {wait:.0f} s: the last one ended with {last.outcome}: {last.reason}"
        self.ended_tries = ended

    def _made_otherwise(self) -> str:
        """The key that the stage made instead of the one asked for, by the same code: it looks at files outside, which have
        changed since; empty when it did not."""
        last = self.tries[-1] if self.tries else None
        if last is None or last.outcome not in GOOD or last.key in ("", self.whole.key) or last.parts:
            return ""
        if not self.whole.code or not self.store.has(last.key):
            return ""
        return last.key if self.store.artifact(last.key).manifest.code_id == self.whole.code else ""

    def view(
        self,
        now: float,
        job: Job | None,
        pods: tuple[Pod, ...],
        departed: tuple[Pod, ...],
        place: Workload | None,
    ) -> View:
        """All that a decision is made from, at the last look."""
        request = next_request(self.whole, self.tries)
        kind = kind_of(request, self.settings)
        there = [pod for pod in pods if not lost_now(pod, now, self.settings.patience)]
        quiet = job is not None and not job.suspended and not job.over and _is_quiet(job, kind, there, departed)
        self.quiet_since = (self.quiet_since or now) if quiet else 0.0
        self.swept = self.swept and (job is None or kind != "daskjob")
        of_job = [one for one in self.job_tries if job is not None and one.number >= try_of(job)]
        live = frozenset(pod.uid for pod in pods if pod.live)
        told = bool(of_job) and bool(live) and all(one.outcome for one in of_job) and not self.whole.parts
        if not told or (job is not None and job.suspended):
            self.told_since, self.told_pods = 0.0, frozenset()
        elif not self.told_since or not live <= self.told_pods:  # pods that came since have yet to open their attempt
            self.told_since, self.told_pods = now, live
        runs = runs_of(job) if job is not None else ()
        if job is not None and self.job_records is not None and self.whole.run_id in runs:
            self.shared = (job.uid, try_of(job))
        return View(
            request=request, name=request.name(self.settings), kind=kind, image=self.settings.image(request.image),
            patience=self.settings.patience, queued=bool(self.settings.queue) and kind != "daskjob", now=now,
            committed=self.committed, made_key=self.made_key, committed_since=self.committed_since,
            cancelled_by=self.cancelled_by, cancelled_since=self.cancelled_since, suspended_by=self.suspended_by,
            tries=self.tries, job=job, mine=self.job_records is None, shared=self.shared,
            noted=self.whole.run_id in runs, job_tries=self.job_tries, others=self.others, pods=pods, departed=departed,
            refused=self.refused if job is not None and not pods else "",
            workload=place, quiet_since=self.quiet_since, told_since=self.told_since, pause_until=self.pause_until,
            pause_words=self.pause_words, swept=self.swept,
            nodes=tuple((int(number), tuple(names)) for number, names in self.said.nodes.items()),
        )  # fmt: skip


def phases(whole: JobRequest) -> tuple[JobRequest, ...]:
    return (whole, whole.closing()) if whole.parts else (whole,)


def object_of(
    request: JobRequest, settings: ClusterSettings, *, attempt: int = 1, avoid: Sequence[str] = ()
) -> dict[str, Any]:
    """The job of one of the `phases`, as it is created. Raises ConfigError that lists what a cluster would punish later."""
    body = build(request, settings, attempt=attempt, avoid=avoid)
    body["metadata"]["annotations"][ANNOTATION_OWNER] = f"{request.run_id}/{request.node}"
    if avoid:
        body["metadata"]["annotations"][ANNOTATION_AVOID] = ",".join(avoid)
    check([body], settings)
    return body


def owner_of(job: Job) -> tuple[str, str]:
    """(run, node) that a job was made for."""
    run_id, _, node = job.annotations.get(ANNOTATION_OWNER, "").partition("/")
    if run_id and node:
        return run_id, node
    runs = runs_of(job)
    return (runs[0], job.labels.get(LABEL_NODE, "")) if runs and job.labels.get(LABEL_NODE) else ("", "")


def _is_quiet(job: Job, kind: JobKind, pods: Sequence[Pod], departed: Sequence[Pod]) -> bool:
    """Whether nothing of a job runs or is about to, although it should."""
    if kind == "daskjob":
        there = [pod for pod in (*pods, *departed) if pod.role == RUNNER]
        if not there and job.status != "Running":
            return False  # its runner is yet to come
        pods = [pod for pod in pods if pod.role == RUNNER]
    return all(pod.state in ("failed", "succeeded") for pod in pods)


def signature(
    job: Job | None, pods: tuple[Pod, ...], departed: tuple[Pod, ...], place: Workload | None
) -> tuple[Any, ...]:
    """What must change for the store to be asked at once."""
    of_pods = tuple((pod.uid, pod.state, bool(pod.deleting)) for pod in pods)
    return job and (job.uid, job.over, job.suspended, job.deleting), of_pods, len(departed), place and place.state


def _pause(tries: Sequence[Try]) -> tuple[Try, float]:
    """(the last try that ended, how long to wait after it [s])."""
    ended = [one for one in tries if one.outcome]
    last = ended[-1]
    if last.held:
        return last, HELD_PAUSE
    if last.disruption or last.outcome == "cancelled":
        return last, FIRST_PAUSE
    failed = sum(not (one.disruption or one.held or one.parts) for one in ended)
    return last, min(FIRST_PAUSE * 2.0 ** min(max(failed - 1, 0), 10), LONGEST_PAUSE)
