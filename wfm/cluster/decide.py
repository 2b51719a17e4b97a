"""What a launcher does next, as a pure function of what the cluster shows, what the store says, and the time.

    decision = decide(view)

The store alone says what is made (`View.committed`) and how tries ended (`View.tries`): no condition of a job, no deletion, no
"not found" is a verdict. A job that is over, for whatever reason, has its death written down, is deleted and waited for, pods
and all; only then comes the next try, under the same name, so that the API server itself keeps it to one.

What counts against a stage's ``retries``: tries that ended with try_again or bug. Tries that were nobody's fault (preempted,
evicted, a lost node, stopped from outside) and those that left for another process at the key do not; `MOST_DISRUPTIONS` bounds
them. Running time is counted from the moment all pods of a try run: queueing, scheduling and pulling have patience of their
own.
"""

import dataclasses
from collections.abc import Sequence

from wfm.cluster.names import ANNOTATION_CODE, ANNOTATION_GENERATION, ANNOTATION_KEY, ANNOTATION_TRY
from wfm.cluster.records import Death, Try
from wfm.cluster.request import JobKind, JobRequest
from wfm.cluster.settings import Patience
from wfm.cluster.states import RUNNER, Job, Pod, PodEnd, Workload, words_of
from wfm.errors import BUG_RETRIES, exit_code_of, is_final

MOST_DISRUPTIONS = 100
"""Tries that were nobody's fault, before a launcher gives up all the same."""
LINGER_SECONDS = 30.0
"""For a stage whose work is in the store, or whose job is over, to say its last words [s]."""
QUIET_SECONDS = 60.0
"""A job whose pods are all gone or through, and whose controller says nothing, is over after this [s]."""
_REMEMBERED_TRIES = 3
"""The nodes that failed in so many tries are avoided."""
_NEVER = ("not found", "manifest unknown", "unauthorized", "denied", "authentication required", "does not exist")
"""What a registry says when waiting does not help."""
GOOD = ("done", "cached")


@dataclasses.dataclass(frozen=True)
class End:
    """How a launcher came to its end with a request."""

    outcome: str
    reason: str
    exit_code: int

    @classmethod
    def of(cls, outcome: str, reason: str = "") -> "End":
        """With the exit code that says the same."""
        return cls(outcome, reason, exit_code_of(outcome))


@dataclasses.dataclass(frozen=True)
class View:
    """All that a decision is made from."""

    request: JobRequest
    "What is to be made now: ranges of parts first, then the stage itself."
    name: str
    "Of its job."
    kind: JobKind
    image: str
    "Of its pods, by digest."
    patience: Patience
    queued: bool
    "Whether its kind waits in a queue here."
    now: float
    committed: bool = False
    committed_since: float = 0.0
    cancelled_by: str = ""
    cancelled_since: float = 0.0
    tries: tuple[Try, ...] = ()
    "Of this run at this node."
    job: Job | None = None
    mine: bool = True
    "Whether the job was made for this run (and its tries are `tries`)."
    noted: bool = True
    "Whether this run is noted on the job."
    job_tries: tuple[Try, ...] = ()
    "Tries of the run that the job was made for."
    others: tuple[str, ...] = ()
    "Other runs that need the job, as far as it matters (when this one is cancelled)."
    pods: tuple[Pod, ...] = ()
    departed: tuple[Pod, ...] = ()
    "Pods of the job that were deleted, as they were last seen."
    workload: Workload | None = None
    quiet_since: float = 0.0
    "Since when the job has nothing that runs or is to run; 0: it has."
    told_since: float = 0.0
    "Since when the last try of the job has an outcome that the stage wrote; 0: it has none."
    pause_until: float = 0.0
    pause_words: str = ""
    swept: bool = True
    "Whether nothing of a DaskJob's cluster is left behind."
    nodes: tuple[tuple[int, tuple[str, ...]], ...] = ()
    "(try, nodes that failed in it)."


@dataclasses.dataclass(frozen=True)
class Decision:
    """What to do, in this order: `deaths`, `blame`, `note` or `unnote`, `remove`, `stop_pods`, `sweep`, `create`, `end`."""

    words: str
    "What people are told."
    deaths: tuple[Death, ...] = ()
    blame: tuple[str, ...] = ()
    "Nodes that may be why this try ended."
    note: bool = False
    unnote: bool = False
    remove: bool = False
    "Delete the job."
    stop_pods: tuple[tuple[Pod, float | None], ...] = ()
    "Pods to be deleted, and their grace (None: their own)."
    sweep: bool = False
    create: int = 0
    "Number of the try to be made."
    avoid: tuple[str, ...] = ()
    end: End | None = None
    warning: str = ""
    look_in: float = 0.0
    "Seconds after which something may be due though nothing happens; 0: at the next poll."


def decide(view: View) -> Decision:
    """The next step."""
    if view.committed:
        return _clean_up(view)
    if view.cancelled_by:
        return _cancel(view)
    if view.job is None:
        return _without_job(view)
    return _with_job(view, view.job)


def next_request(whole: JobRequest, tries: Sequence[Try]) -> JobRequest:
    """What is to be made now: a stage in ranges as long as one of them is not made, then the stage itself, which finds the
    parts and commits. That is a job of its own, of one pod without devices: the launcher's own pod has neither the stage's
    image nor its memory."""
    if not whole.parts:
        return whole
    made = {one.parts for one in tries if one.outcome in GOOD and one.key == whole.key and one.parts}
    return whole if any(f"{i}/{whole.parts}" not in made for i in range(whole.parts)) else whole.closing()


def try_of(job: Job) -> int:
    """Number of the first attempt that a job may have opened."""
    text = job.annotations.get(ANNOTATION_TRY, "")
    return int(text) if text.isdecimal() and len(text) < 10 else 1


# -- ends


def _clean_up(view: View) -> Decision:
    """The key is there: nothing of the job may hold on to devices."""
    job, waited = view.job, view.now - view.committed_since
    end = End.of("done" if view.tries else "cached")
    if job is None and not view.pods:
        return Decision("made", end=end) if view.swept else Decision("made; clearing up", sweep=True)
    if waited > LINGER_SECONDS + view.request.resources.grace_seconds + view.patience.lost_node_seconds:
        warning = f"the artifact is there, but its job {view.name} does not go: {words_of(job, view.pods, None, False)}"
        return Decision("made", end=end, warning=warning)
    writes = any(not one.outcome and one.number >= try_of(job) for one in view.job_tries) if job is not None else False
    if writes and any(pod.live for pod in view.pods) and waited < LINGER_SECONDS:
        return Decision("made; the stage is about to end", look_in=LINGER_SECONDS - waited)
    return Decision("made; clearing up", remove=job is not None, stop_pods=_leaving(view, slack=LINGER_SECONDS))


def _cancel(view: View) -> Decision:
    """Somebody asked this run to stop."""
    job, by = view.job, view.cancelled_by
    if job is not None and view.others:
        words = f"{by} asked this run to stop; the job goes on: run {', '.join(view.others[:4])} needs it too"
        return Decision(words, unnote=True, end=End.of("cancelled", words))
    gone = job is None and not any(pod.live or pod.state in ("unschedulable", "pending", "gated") for pod in view.pods)
    waited = view.now - view.cancelled_since
    late = waited > view.request.resources.grace_seconds + view.patience.lost_node_seconds
    reason = f"{by} asked this run to stop"
    if gone or late:
        deaths = tuple(Death(reason, "cancelled", number=one.number, parts=one.parts) for one in _open(view.tries))
        warning = f"pods of {view.name} do not go" if late and not gone else ""
        if not view.swept:
            return Decision(reason, deaths=deaths, sweep=True)
        return Decision(reason, deaths=deaths, end=End.of("cancelled", reason), warning=warning)
    return Decision(
        f"{reason}: stopping", remove=job is not None, stop_pods=_leaving(view, slack=0.0, all_at_once=True)
    )


def _leaving(view: View, slack: float, all_at_once: bool = False) -> tuple[tuple[Pod, float | None], ...]:
    """Pods that must be told to go, now that their job goes: those that nobody told (once the job is gone, or
    ``all_at_once``), and without grace those that are over their time by ``slack`` seconds."""
    found: list[tuple[Pod, float | None]] = []
    for pod in view.pods:
        if not pod.deleting and (view.job is None or all_at_once):
            found.append((pod, None))
        elif pod.deleting and view.now >= pod.deleting + slack:
            found.append((pod, 0.0))
    return tuple(found)


# -- no job


def _without_job(view: View) -> Decision:
    if view.pods:
        words = words_of(None, view.pods, None, view.queued)
        return Decision(words, stop_pods=_leaving(view, slack=LINGER_SECONDS))
    open_tries = _open(view.tries)
    if open_tries:
        return Decision("its job is gone", deaths=tuple(_death_of(view, one) for one in open_tries))
    if not view.swept:
        return Decision("clearing up what the last try left", sweep=True)
    end = verdict(view)
    if end is not None:
        return Decision(end.reason or end.outcome, end=end)
    if view.now < view.pause_until:
        wait = view.pause_until - view.now
        return Decision(f"next try in {wait:.0f} s{view.pause_words}", look_in=wait)
    number = max((one.number for one in view.tries), default=0) + 1
    avoid = avoided(view)
    away = f", not on {', '.join(avoid)}" if avoid else ""
    return Decision(f"making {view.kind} {view.name}, try {number}{away}", create=number, avoid=avoid)


def _death_of(view: View, one: Try) -> Death:
    """The death of a try whose job is gone, by whatever hand."""
    end = _end_of(view, one)
    reason = end.words if end is not None else "its job and its pods are gone; how they ended was not seen"
    return Death(
        reason, end.outcome if end is not None else "try_again", number=one.number, parts=one.parts,
        disruption=end.disruption if end is not None else False,
    )  # fmt: skip


def _end_of(view: View, one: Try) -> PodEnd | None:
    """How the pod of a try ended, where that was seen."""
    pods = [pod for pod in (*view.departed, *view.pods) if pod.end is not None]
    own = [pod for pod in pods if pod.name == one.pod] or ([] if one.parts else pods)
    found = worst(own)
    return found.end if found is not None else None


def worst(pods: Sequence[Pod]) -> Pod | None:
    """Of pods of one try the one whose end is the cause: memory and machines before exit codes, which follow from them."""

    def weight(pod: Pod) -> tuple[int, float]:
        end = pod.end
        assert end is not None
        order = {"memory": 0, "lost": 1, "evicted": 2, "exit": 3, "unknown": 4, "deleted": 5}
        return order[end.cause], pod.created

    ended = [pod for pod in pods if pod.end is not None]
    return min(ended, key=weight, default=None)


def _open(tries: Sequence[Try]) -> list[Try]:
    return [one for one in tries if not one.outcome]


# -- what the tries say


def verdict(view: View) -> End | None:
    """What the tries of this run say together: an end, or None when another try may help."""
    key, request = view.request.key, view.request
    same = [one for one in view.tries if one.outcome and one.key in ("", key)]
    last = view.tries[-1] if view.tries else None
    if last is not None and last.outcome in GOOD and last.key not in ("", key):
        return End.of("wrong_input", _other_code(view, last))
    if sum(one.disruption or _from_outside(one) for one in same) > MOST_DISRUPTIONS:
        return End.of(
            "try_again", f"{MOST_DISRUPTIONS} tries were cut short by the cluster; the last: {same[-1].reason}"
        )
    ranges = [f"{i}/{request.parts}" for i in range(request.parts)]
    for parts in ("", *ranges):
        end = _verdict_of([one for one in same if one.parts == parts], request.retries, parts)
        if end is not None:
            return end
    return None


def _verdict_of(tries: Sequence[Try], retries: int, parts: str) -> End | None:
    if parts and tries and tries[-1].outcome in GOOD:
        return None
    counted = [one for one in tries if not (one.disruption or one.held or _from_outside(one))]
    if not counted:
        return None
    outcomes = ["bug" if one.outcome in GOOD else one.outcome for one in counted]
    last, which = counted[-1], f"range {parts}: " if parts else ""
    reason = last.reason
    if last.outcome in GOOD:
        reason = "the stage says that it is through, but its artifact is not in the store"
    if is_final(outcomes):
        return End.of(outcomes[-1], f"{which}{reason}")
    if len(counted) > retries:
        outcome = outcomes[-1] if outcomes[-1] in ("bug", "wrong_input") else "try_again"
        return End.of(outcome, f"{which}tried {len(counted)} times; the last time: {reason}")
    return None


def _from_outside(one: Try) -> bool:
    """Whether a try was stopped though nobody asked its run to (asked here of runs that nobody did): by a drain, a
    preemption."""
    return one.outcome == "cancelled"


def _other_code(view: View, last: Try) -> str:
    return (
        f"the stage made the key {last.key[:12]}, this launcher asked for {view.request.key[:12]}: the image of the stage "
        f"({view.request.image}) holds other code than the launcher's (code id {view.request.code or 'not given'}). Name one "
        "image digest for planner, launcher and stages"
    )


def avoided(view: View) -> tuple[str, ...]:
    """Nodes that the next try is kept from. When no node could take the last try, from none."""
    ended = [one for one in view.tries if one.outcome]
    if ended and ended[-1].unschedulable:
        return ()
    since = max((one.number for one in ended if one.unschedulable), default=0)
    recent = sorted(entry for entry in view.nodes if entry[0] > since)[-_REMEMBERED_TRIES:]
    return tuple(sorted({node for _, nodes in recent for node in nodes}))


# -- a job


def _with_job(view: View, job: Job) -> Decision:
    words = words_of(job, view.pods, view.workload, view.queued)
    stranger = _differs(view, job)
    if job.deleting:
        return Decision(words, stop_pods=_leaving(view, slack=LINGER_SECONDS))
    over = _over(view, job)
    if over is not None:
        return _put_down(view, job, over)
    if stranger:
        return Decision(stranger, end=End.of("wrong_input", stranger))
    if job.name != view.name and view.mine:  # ranges that are all made: the stage itself comes next
        return Decision("all ranges are made", remove=True)
    deaths, stop = _dead_within(view, job)
    warning = _ignored(view, job) or _other_image(view, job)
    if warning:
        words = f"{words}; {warning}"
    return Decision(words, deaths=deaths, note=not view.noted, stop_pods=stop, warning=warning)


def _differs(view: View, job: Job) -> str:
    """What of a job of our name is not what we ask for; empty when all is."""
    request, told = view.request, job.annotations
    for name, what, asked in (
        (ANNOTATION_KEY, "key", request.key),
        (ANNOTATION_GENERATION, "generation", str(request.generation)),
        (ANNOTATION_CODE, "code id", request.code),
    ):
        found = told.get(name, "")
        if asked and found != asked and (found or what == "key"):
            return (
                f"the job {job.name} is there already, and was made for something else: its {what} is "
                f"{found[:64] or 'not given'}, asked for is {asked[:64]}; its images are {', '.join(job.images)}. Wait until "
                "it is through, or cancel the run that it is for"
            )
    return ""


def _other_image(view: View, job: Job) -> str:
    """Said of a job of the same key and code in another image: what it makes is the same."""
    if not job.images or view.image in job.images:
        return ""
    return f"the job is of the image {', '.join(job.images)}, and here {view.image} is named; both hold the same code"


def _put_down(view: View, job: Job, over: Death) -> Decision:
    """Write the deaths down, delete the job."""
    first = try_of(job)
    tries = [one for one in view.job_tries if one.number >= first]
    deaths = [dataclasses.replace(over, number=one.number, pod=one.pod, parts=one.parts) for one in _open(tries)]
    if not tries:
        deaths.append(dataclasses.replace(over, token=job.uid))
    if not view.mine and view.noted:
        deaths += _inherited(view, job, tries)
    pods = [pod for pod in (*view.pods, *view.departed) if pod.end is not None and pod.created >= job.created]
    return Decision(over.reason, deaths=tuple(deaths), blame=blamed(pods) or over.nodes, remove=True)


def _inherited(view: View, job: Job, tries: Sequence[Try]) -> list[Death]:
    """A job of another run that this one waited for ended for good: so does this one, instead of doing the same again."""
    outcomes = [one.outcome for one in tries if one.outcome and one.key in ("", view.request.key)]
    if not is_final(outcomes):
        return []
    why = f"the job that this run shared with another ended so: {tries[-1].reason}"
    # as often as it takes to be final: the other run tried that often
    count = 1 + BUG_RETRIES if outcomes[-1] == "bug" else 1
    return [Death(why, outcomes[-1], token=f"{job.uid}-shared-{i}") for i in range(count)]


def blamed(pods: Sequence[Pod]) -> tuple[str, ...]:
    """Nodes that may be why these pods ended. When one rank fails all do: of exit codes alone nothing follows for several."""
    lost = {pod.node for pod in pods if pod.end is not None and pod.end.blames and pod.end.cause != "exit" and pod.node}
    exits = [pod for pod in pods if pod.end is not None and pod.end.cause == "exit"]
    if not lost and len(exits) == 1 and exits[0].end is not None and exits[0].end.blames and exits[0].node:
        lost = {exits[0].node}
    return tuple(sorted(lost))


def _over(view: View, job: Job) -> Death | None:
    """Why a job is over, in the words of its record; None while it is not. Whether it made anything is not asked here."""
    tries = [one for one in view.job_tries if one.number >= try_of(job)]
    ended = next((one for one in tries if one.ends_job), None)
    if ended is not None:
        return Death(ended.reason, ended.outcome, ends_job=True)
    live = [pod for pod in view.pods if pod.live]
    if job.over:
        # an elastic job has succeeded when one of its pods has; a failed one may have survivors that hold devices
        if live and view.now - (job.over_at or view.now) < LINGER_SECONDS and not (tries and tries[-1].outcome):
            return None
        return _by_pods(view, job)
    workload = view.workload
    if workload is not None and workload.state == "deactivated":
        return Death(workload.words, ends_job=True)
    if job.suspended:
        unheard = _unheard(view, job)
        return Death(unheard, "wrong_input", ends_job=True) if unheard else None
    stuck = _stuck(view, job)
    if stuck is not None:
        return stuck
    if view.told_since and view.now - view.told_since > LINGER_SECONDS + view.request.resources.grace_seconds:
        return _by_pods(view, job)
    if view.quiet_since and view.now - view.quiet_since > QUIET_SECONDS and (view.pods or tries or view.departed):
        return _by_pods(view, job)
    return None


def _by_pods(view: View, job: Job) -> Death:
    """The death of a job whose pods, or whose controller, have ended it."""
    pods = [pod for pod in (*view.pods, *view.departed) if pod.created >= job.created - 1]
    found = worst(pods)
    if found is not None and found.end is not None and not (found.end.cause == "deleted" and job.words):
        end = found.end
        who = f"{found.name}: " if len(pods) > 1 else ""
        return Death(f"{who}{end.words}", end.outcome, disruption=end.disruption, nodes=blamed(pods), pod=found.name)
    if job.over == "failed":
        return Death(f"its controller says that it failed: {job.words or 'no reason'}")
    if job.over == "succeeded":
        return Death("its controller says that it succeeded, but the artifact is not in the store")
    return Death("its pods are gone, and nobody said why", disruption=True)


def _stuck(view: View, job: Job) -> Death | None:
    """Pods that will not come, or do not end."""
    now, patience, pods = view.now, view.patience, [pod for pod in view.pods if not pod.deleting]
    some_run = any(pod.state == "running" and _one_of_many(view, pod) for pod in pods)
    for pod in pods:
        since = now - max(pod.since, job.created)
        if some_run and _one_of_many(view, pod) and pod.state in ("unschedulable", "creating", "no_image"):
            continue  # the others do the work
        if pod.state == "bad_image":
            return Death(pod.words, "wrong_input", ends_job=True)
        if pod.state == "bad_config" and since > patience.start_seconds:
            return Death(pod.words, "wrong_input", ends_job=True)
        if pod.state == "no_image" and since > patience.image_pull_seconds:
            final = any(word in pod.words.lower() for word in _NEVER)
            return Death(pod.words, "wrong_input" if final else "try_again", ends_job=True)
        if pod.state == "unschedulable" and since > patience.unschedulable_seconds:
            return Death(pod.words, unschedulable=True, ends_job=True)
        if pod.state == "creating" and since > patience.start_seconds:
            return Death(f"{pod.words}, for {since:.0f} s on node {pod.node}", nodes=(pod.node,), ends_job=True)
    lost = [pod for pod in view.pods if _is_lost(view, pod) and not _one_of_many(view, pod)]
    if lost:
        words = f"its node {lost[0].node} is lost: nothing was heard of it for {patience.lost_node_seconds:.0f} s"
        return Death(words, disruption=True, nodes=tuple(sorted({pod.node for pod in lost})), ends_job=True)
    since = began_waiting(view, job)
    ever = [pod for pod in (*view.pods, *view.departed) if view.kind != "daskjob" or pod.role == RUNNER]
    if not ever and now - since > patience.start_seconds:
        return Death(
            f"its controller has made no pods in {now - since:.0f} s: is the operator of {view.kind} running?",
            ends_job=True,
        )
    return None if view.request.parts else _late(view, pods)


def _one_of_many(view: View, pod: Pod) -> bool:
    """Whether the others go on without it: a range of parts, a worker of Dask."""
    return bool(view.request.parts) or (view.kind == "daskjob" and pod.role != RUNNER)


def _late(view: View, pods: Sequence[Pod]) -> Death | None:
    """A try that runs longer than it may, or of which some pods never came."""
    began = running_since(view, pods)
    if began is not None and view.now - began > view.request.timeout_seconds:
        limit = view.request.timeout_seconds
        return Death(f"ran longer than its {limit:g} s and was stopped", ends_job=True)
    running = [pod for pod in pods if pod.state == "running"]
    first = min((pod.started for pod in running if pod.started), default=0.0)
    if began is None and first and view.now - first > view.patience.start_seconds:
        words = f"only {len(running)} of {_expected(view)} pods came in {view.now - first:.0f} s"
        return Death(words, ends_job=True)
    return None


def running_since(view: View, pods: Sequence[Pod]) -> float | None:
    """When the try that runs now began to: the last of its pods came. None while it does not run. What it waited for before,
    and runs before a suspension, whose pods are gone, count for nothing."""
    if view.kind == "daskjob":
        return next(
            (pod.started for pod in pods if pod.role == RUNNER and pod.state == "running" and pod.started), None
        )
    running = [pod for pod in pods if pod.state == "running" and pod.started]
    if not running:
        return None
    if len(running) >= _expected(view):
        return max(pod.started for pod in running)
    opened = bool(view.job is not None and [one for one in view.job_tries if one.number >= try_of(view.job)])
    return min(pod.started for pod in running) if opened else None


def _expected(view: View) -> int:
    return view.request.resources.replicas if view.request.kind == "torchjob" else 1


def _is_lost(view: View, pod: Pod) -> bool:
    if pod.deleting:
        return pod.live and view.now - pod.deleting > view.patience.lost_node_seconds
    return pod.state == "lost" and view.now - pod.since > view.patience.lost_node_seconds


def began_waiting(view: View, job: Job) -> float:
    """When its controller could begin to make pods."""
    admitted = view.workload.since if view.workload is not None and view.workload.state == "admitted" else 0.0
    return max(job.created, job.resumed_at, admitted)


def _dead_within(view: View, job: Job) -> tuple[tuple[Death, ...], tuple[tuple[Pod, float | None], ...]]:
    """Tries that ended while their job goes on: preempted and resumed, or one range of many; and pods that are to be
    stopped."""
    first, now = try_of(job), view.now
    deaths, stop = [], []
    pods = {pod.name: pod for pod in view.pods}
    tries = [one for one in view.job_tries if one.number >= first]
    for one in _open(tries):
        pod = pods.get(one.pod)
        newer = any(other.number > one.number and other.pod == one.pod and other.parts == one.parts for other in tries)
        if not newer and pod is not None and pod.live and view.request.parts and pod.started:
            if now - pod.started > view.request.timeout_seconds:
                limit = view.request.timeout_seconds
                deaths.append(
                    Death(f"ran longer than its {limit:g} s and was stopped", number=one.number, parts=one.parts)
                )
                stop.append((pod, None))
            continue
        present = pod is not None and pod.state not in ("failed", "succeeded")
        if not one.pod:
            present = any(pod.live for pod in view.pods)
        if newer or not present:
            deaths.append(_within(view, job, one))
    told = {one.pod for one in tries}
    for pod in (*view.pods, *view.departed):  # of ranges: pods that died before they opened an attempt
        if view.request.parts and pod.end is not None and pod.name not in told and pod.created >= job.created:
            deaths.append(
                Death(
                    pod.end.words, pod.end.outcome, token=pod.uid, pod=pod.name, disruption=pod.end.disruption,
                    parts=f"{pod.index}/{view.request.parts}" if pod.index else "",
                )
            )  # fmt: skip
    late = [(pod, 0.0) for pod in view.pods if _is_lost(view, pod)]
    return tuple(deaths), (*stop, *late)


def _within(view: View, job: Job, one: Try) -> Death:
    end, workload = _end_of(view, one), view.workload
    if job.suspended and workload is not None and workload.preemption:
        return Death(
            f"sent back to the queue: {workload.preemption}", number=one.number, parts=one.parts, disruption=True
        )
    if end is None:
        words = "suspended, and its pods taken away" if job.suspended else "its pod is gone; how it ended was not seen"
        return Death(words, number=one.number, parts=one.parts, disruption=True)
    return Death(end.words, end.outcome, number=one.number, parts=one.parts, disruption=end.disruption)


# -- the queue


def _unheard(view: View, job: Job) -> str:
    """Why a suspended job will never get its turn; empty while it may."""
    waited = view.now - max(job.created, job.resumed_at)
    if not view.queued or waited < view.patience.queue_ignored_seconds:
        return ""
    if view.workload is None:
        return (
            f"the queue label admits nothing: {view.kind} {job.name} is suspended, and no Workload has appeared in "
            f"{waited:.0f} s. Does Kueue run, and is its integration for this kind switched on?"
        )
    words = view.workload.words
    gone = "doesn't exist" in words or "does not exist" in words
    if view.workload.state in ("inadmissible", "pending") and gone:
        return f"the queue label admits nothing: {words}"
    return ""


def _ignored(view: View, job: Job) -> str:
    """Said of a job that runs although a queue should hold it back."""
    waited = view.now - job.created
    if not view.queued or view.workload is not None or job.suspended or waited < view.patience.queue_ignored_seconds:
        return ""
    return (
        f"the queue label is ignored: no Workload has appeared in {view.patience.queue_ignored_seconds:.0f} s, and the job "
        f"was not held back. Is Kueue's integration for {view.kind} switched on?"
    )
