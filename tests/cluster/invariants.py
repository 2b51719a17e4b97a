"""What must hold whatever happens (`Invariants.NAMES`), looked at while a world goes on, and once more when it is over."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tests.cluster.controllers.pods import annotations
from tests.cluster.server.api import holds
from tests.cluster.server.storage import ADDED, Change, Json
from tests.cluster.stage import GENERATION, KEY, Stage
from tests.cluster.world import KINDS, Asked, Launching, World
from wfm.errors import is_final

ONE_JOB = "at most one live job per key and generation"
CANCEL = "nothing holds a GPU one grace period after a cancel"
COMMITTED = "a committed key ends every wait"
FINAL = "a final outcome is never rerun"
VERDICT = "deletion, TTL or not found is never a verdict"
QUEUE = "queue time never counts as run time"
RECORDED = "every end has an attempt record with its reason"
PREEMPTIONS = "N preemptions lose at most N checkpoint intervals and poison nothing"
NEEDED = "a job that another run needs is not cancelled"
GOOD = ("done", "cached")
CANCEL_SLACK, COMMIT_SLACK = 90.0, 240.0
"""What a launcher may take to hear of a cancel and to act, and to see a commit, while it lives and is answered [s]."""


@dataclass
class Invariants:
    """`broken`: what did not hold, as (name, words)."""

    NAMES = (ONE_JOB, CANCEL, COMMITTED, FINAL, VERDICT, QUEUE, RECORDED, PREEMPTIONS, NEEDED)
    world: World
    asked: list[Asked] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)
    cancelled: dict[str, float] = field(default_factory=dict)
    "Run -> when it was."
    hangs: int = 0
    "Tries that were to hang: a launcher stops them for their running time."
    excused: set[str] = field(default_factory=set)
    "Keys whose end may be another than done: somebody put them out for good."
    _waited: dict[tuple[int, str, str], float] = field(default_factory=dict)
    _last: float = 0.0
    _polled: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._last = self.world.clock.now()
        self.world.kubelet.started.append(self._started)
        self.world.watchers.append(self._look)
        if self.world.model is not None:
            self.world.storage.listeners.append(self._changed)

    def fail(self, name: str, words: str) -> None:
        if all(one[0] != name for one in self.broken):
            self.world.tell(f"BROKEN {name}: {words}")
        self.broken.append((name, words))

    # -- while it goes on

    def _changed(self, change: Change) -> None:
        if change.type != ADDED or change.key.resource not in KINDS or KEY not in annotations(change.new.object):
            return
        job = change.new.object
        if any(owner["kind"] in ("JobSet", "TrainJob") for owner in job["metadata"].get("ownerReferences", ())):
            return
        self._made(job, self.world.jobs_stored())

    def poll(self) -> None:
        """The same where the server is another process."""
        jobs = self.world.jobs()
        for job in jobs:
            if job["metadata"]["uid"] not in self._polled:
                self._polled.add(job["metadata"]["uid"])
                self._made(job, jobs)

    def _made(self, job: Json, jobs: list[Json]) -> None:
        self.world.tell(
            f"{job['kind']} {job['metadata']['name']} is created, try {annotations(job).get('wfm.dev/try')}"
        )
        same = [one for one in jobs if _identity(one) == _identity(job) and _live(one)]
        if len({one["metadata"]["uid"] for one in same}) > 1:
            self.fail(ONE_JOB, f"{' and '.join(one['metadata']['name'] for one in same)} live at once")
        run_id, node = _origin(job)
        told = [
            str(one.outcome["outcome"]) for one in self.world.store.runs.of(run_id).read_outcomes(node)
            if one.outcome and one.outcome.get("key") == annotations(job)[KEY] and not one.record.get("parts")
        ]  # fmt: skip
        if is_final(told):
            self.fail(FINAL, f"{job['metadata']['name']} is made after {told}")

    def _started(self, pod: Json) -> None:
        """No two jobs work on a key at once, but for what runs unseen on a machine that is lost."""
        here = Stage.identity(pod)
        if not _words(pod["spec"]):
            return  # a scheduler or a worker
        for process in self.world.kubelet.processes.values():
            same = process.works and not process.ended and Stage.identity(process.pod) == here and here[0]
            if same and Stage.owner(process.pod) != Stage.owner(pod):
                self.fail(ONE_JOB, f"{pod['metadata']['name']} starts while {process.name} of another job works")

    def _look(self) -> None:
        now = self.world.clock.now()
        spent, self._last = now - self._last, now
        answered = self.world.front.up
        for one in self.asked:
            known = [each for each in self.world.launchers if one in each.asked] if answered else []
            if self.cancelled.get(one.run.id) is not None and not self._others_need(one):
                if known:
                    self._wait(one, "cancel", spent)
                if self._waited.get((0, one.key, "cancel"), 0.0) > one.request.resources.grace_seconds + self._slack(
                    CANCEL_SLACK
                ):
                    reached = {name for name, machine in self.world.kubelet.machines.items() if machine.up}
                    for pod in self.world.holding(one.key):
                        if pod["spec"]["nodeName"] in reached:
                            self.fail(CANCEL, f"{pod['metadata']['name']} still holds its GPUs")
            if known and self._committed(one):
                for each in known:
                    if one.key not in each.ended:
                        self._wait_of(each, one, spent)

    def _committed(self, one: Asked) -> bool:
        if (0, one.key, "committed") not in self._waited and self.world.store.has(one.key):
            self._waited[0, one.key, "committed"] = 1.0
        return (0, one.key, "committed") in self._waited

    def _slack(self, seconds: float) -> float:
        own = 120.0 if self.world.real else 0.0  # what a launcher waits by constants of its own has no other pace
        return max(seconds * self.world.pace, 10.0) + own

    def _wait(self, one: Asked, what: str, spent: float) -> None:
        self._waited[0, one.key, what] = self._waited.get((0, one.key, what), 0.0) + spent

    def _wait_of(self, each: Launching, one: Asked, spent: float) -> None:
        place = (id(each), one.key, "commit")
        self._waited[place] = self._waited.get(place, 0.0) + spent
        if self._waited[place] > self._slack(COMMIT_SLACK):
            self.fail(COMMITTED, f"{each.name} still waits for {self.world.called(one)}")

    def _others_need(self, one: Asked) -> bool:
        return any(other.key == one.key and other.run.id not in self.cancelled for other in self.asked)

    def cancel(self, one: Asked) -> None:
        """Cancel its run, and remember it. Only an explicit cancel may end a job, and only if no other run needs it."""
        self.world.cancel(one)
        self.cancelled[one.run.id] = self.world.clock.now()

    # -- when it is over

    def finish(self, ends: dict[tuple[str, str], Any], *, lost: int = 0) -> None:
        """`ends`: (run, node) -> the launcher's End. `lost`: disruptions that were made, and tries that were to fail."""
        for one in self.asked:
            self._judge(one, ends.get((one.run.id, one.request.node)))
            self._records(one)
        for key, script in self.world.desk.scripts.items():
            worked = sum(p.worked for (k, _), p in self.world.desk.progress.items() if k == key)
            kept = sum(p.kept for (k, _), p in self.world.desk.progress.items() if k == key)
            if any(one.run.id in self.cancelled for one in self.asked if one.key == key) or not self.world.store.has(
                key
            ):
                continue
            if worked - kept > (lost + 1) * script.interval + 1:
                self.fail(PREEMPTIONS, f"{worked - kept:.0f} s of {key[:6]} were lost by {lost} disruptions")
        if self.world.store.objects.names("poison"):
            self.fail(PREEMPTIONS, "an input is poisoned")

    def _judge(self, one: Asked, end: Any) -> None:
        made = self.world.store.has(one.key)
        if end is None:
            self.fail(COMMITTED if made else VERDICT, f"{self.world.called(one)} never came to an end")
            return
        if (end.outcome in GOOD) != made and one.run.id not in self.cancelled:
            self.fail(
                VERDICT, f"{one.request.node} ended as {end.outcome}, and is {'' if made else 'not '}made: {end.reason}"
            )
        told = self.world.outcomes(one)
        if end.outcome not in GOOD and one.run.id not in self.cancelled and one.key not in self.excused:
            final = end.outcome in told and (is_final(told) or end.outcome in ("try_again", "bug"))
            if not final:
                self.fail(VERDICT, f"{one.request.node} ended as {end.outcome} ({end.reason}) after {told}")

    def _records(self, one: Asked) -> None:
        for record in self.world.records(one):
            outcome = record.outcome or {}
            if not outcome.get("outcome"):
                self.fail(RECORDED, f"try {record.number} of {one.request.node} has no end")
            elif outcome["outcome"] not in GOOD and not str(outcome.get("reason", "")).strip():
                self.fail(
                    RECORDED, f"try {record.number} of {one.request.node} ended as {outcome['outcome']} for no reason"
                )
            late = "ran longer" in str(outcome.get("reason", ""))
            if late and not self.hangs:
                self.fail(QUEUE, f"try {record.number} of {one.request.node}: {outcome['reason']}")

    def names(self) -> set[str]:
        return {name for name, _ in self.broken}

    def check(self) -> None:
        """Fails with the timeline when anything did not hold."""
        if self.broken:
            raise AssertionError(f"{self.broken[0][0]}: {self.broken[0][1]}\n{self.world.timeline()}")


def _identity(found: Json) -> tuple[str, str]:
    return annotations(found)[KEY], annotations(found).get(GENERATION, "1")


def _live(job: Json) -> bool:
    status = job.get("status", {})
    ended = any(holds(job, kind) for kind in ("Succeeded", "Failed", "Complete"))
    return (
        not ended
        and status.get("jobStatus") not in ("Successful", "Failed")
        and "deletionTimestamp" not in job["metadata"]
    )


def _origin(job: Json) -> tuple[str, str]:
    """(run, node) for which a job was made: its stage's spec tells."""
    words = _words(job["spec"])
    steps = urlsplit(words[words.index("--spec") + 1]).path.split("/")
    return steps[-3], steps[-1].removesuffix(".json")


def _words(found: Any) -> list[str]:
    if isinstance(found, dict):
        own = [*found.get("command", ()), *found.get("args", ())] if "command" in found or "args" in found else []
        if "--spec" in own:
            return own
        found = list(found.values())
    if isinstance(found, list):
        for each in found:
            if words := _words(each):
                return words
    return []
