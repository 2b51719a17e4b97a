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

from wfm.cluster.job_over import LINGER_SECONDS, ignored, is_lost, over
from wfm.cluster.names import ANNOTATION_CODE, ANNOTATION_GENERATION, ANNOTATION_KEY
from wfm.cluster.pod_states import Pod
from wfm.cluster.records import Death, Try
from wfm.cluster.states import Job, words_of
from wfm.cluster.verdict import avoided, blamed, end_of, verdict
from wfm.cluster.view import Decision, End, View, still_open, try_of
from wfm.errors import BUG_RETRIES, is_final

SUSPENDED_SECONDS = 15.0
"""How often a run that is suspended is looked at [s]."""


def decide(view: View) -> Decision:
    """The next step."""
    if view.committed:
        return _clean_up(view)
    if view.cancelled_by:
        return _cancel(view)
    if view.job is None:
        return _without_job(view)
    return _with_job(view, view.job)


# -- ends


def _clean_up(view: View) -> Decision:
    """The key is there: nothing of the job may hold on to devices."""
    job, waited = view.job, view.now - view.committed_since
    end = End.of("done" if view.tries else "cached", key=view.made_key)
    if job is None and not view.pods:
        last = "its work was in the store, and its last words never came"
        return Decision(
            "made", deaths=_silent(view, last, "done"), sweep=not view.swept, end=end if view.swept else None
        )
    if waited > LINGER_SECONDS + view.request.resources.grace_seconds + view.patience.lost_node_seconds:
        warning = f"the artifact is there, but its job {view.name} does not go: {words_of(job, view.pods, None, False)}"
        return Decision("made", end=end, warning=warning)
    writes = any(not one.outcome and one.number >= try_of(job) for one in view.job_tries) if job is not None else False
    if writes and any(pod.live for pod in view.pods) and waited < LINGER_SECONDS:
        return Decision("made; the stage is about to end", look_in=LINGER_SECONDS - waited)
    stop, sweep = _leaving(view, slack=LINGER_SECONDS), job is None and not view.swept
    return Decision("made; clearing up", remove=job is not None, stop_pods=stop, sweep=sweep)


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
        deaths = _silent(view, reason, "cancelled")
        warning = f"pods of {view.name} do not go" if late and not gone else ""
        if not view.swept:
            return Decision(reason, deaths=deaths, sweep=True)
        return Decision(reason, deaths=deaths, end=End.of("cancelled", reason), warning=warning)
    stop, sweep = _leaving(view, slack=0.0, all_at_once=True), job is None and not view.swept
    return Decision(f"{reason}: stopping", remove=job is not None, stop_pods=stop, sweep=sweep)


def _silent(view: View, reason: str, outcome: str) -> tuple[Death, ...]:
    """Deaths of all tries that said nothing to the end."""
    theirs = [] if view.mine else still_open(view.job_tries)
    return (
        *(Death(reason, outcome, number=one.number, parts=one.parts) for one in still_open(view.tries)),
        *(Death(reason, outcome, number=one.number, parts=one.parts, theirs=True) for one in theirs),
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
        # what an operator left behind makes pods again and again
        return Decision(words, stop_pods=_leaving(view, slack=LINGER_SECONDS), sweep=not view.swept)
    deaths = [_death_of(view, one) for one in still_open(view.tries)]
    if not view.mine:
        deaths += [dataclasses.replace(_death_of(view, one), theirs=True) for one in still_open(view.job_tries)]
    deaths += _inherited(view)
    if deaths:
        return Decision("its job is gone", deaths=tuple(deaths))
    if not view.swept:
        return Decision("clearing up what the last try left", sweep=True)
    end = verdict(view)
    if end is not None:
        return Decision(end.reason or end.outcome, end=end)
    if view.now < view.pause_until:
        return Decision(view.pause_words, look_in=view.pause_until - view.now)
    if view.suspended_by:
        words = f"{view.suspended_by} suspended this run: no job is made until `wfm resume` lets it go on"
        return Decision(words, look_in=SUSPENDED_SECONDS)
    number = max((one.number for one in view.tries), default=0) + 1
    avoid = avoided(view)
    away = f", not on {', '.join(avoid)}" if avoid else ""
    return Decision(f"making {view.kind} {view.name}, try {number}{away}", create=number, avoid=avoid)


def _death_of(view: View, one: Try) -> Death:
    """The death of a try whose job is gone, by whatever hand."""
    end = end_of(view, one)
    reason = end.words if end is not None else "its job and its pods are gone; how they ended was not seen"
    if end is None:
        return Death(reason, number=one.number, parts=one.parts, absent=one.pod)
    return Death(reason, end.outcome, number=one.number, parts=one.parts, disruption=end.disruption)


# -- a job


def _with_job(view: View, job: Job) -> Decision:
    words = view.refused or words_of(job, view.pods, view.workload, view.queued)
    stranger = _differs(view, job)
    if job.deleting:
        return Decision(words, stop_pods=_leaving(view, slack=LINGER_SECONDS))
    ended = over(view, job)
    if ended is not None:
        return _put_down(view, job, ended)
    if stranger:
        return Decision(stranger, end=End.of("wrong_input", stranger))
    if job.name != view.name and view.mine:  # ranges that are all made: the stage itself comes next
        return Decision("all ranges are made", remove=True)
    deaths, stop = _dead_within(view, job)
    warning = ignored(view, job) or _other_image(view, job)
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


def _put_down(view: View, job: Job, ended: Death) -> Decision:
    """Write the deaths down, delete the job."""
    tries = [one for one in view.job_tries if one.number >= try_of(job)]
    death = dataclasses.replace(ended, theirs=not view.mine)
    deaths = [dataclasses.replace(death, number=one.number, pod=one.pod, parts=one.parts) for one in still_open(tries)]
    deaths += [dataclasses.replace(one, theirs=not view.mine) for one in _unrecorded(view, job, tries)]
    started = [pod for pod in (*view.pods, *view.departed) if pod.leads and pod.started and pod.created >= job.created]
    if not deaths and not ended.number and (ended.ends_job or len(tries) < max(1, len({pod.uid for pod in started}))):
        # none was opened that could say it: by no pod, or not by the one that came after a suspension
        deaths.append(dataclasses.replace(death, token=job.uid))
    told = [one for one in tries if one.outcome]
    words = ended.reason if deaths or not told else f"its try ended with {told[-1].outcome}: {told[-1].reason}"
    deaths += _inherited(view, ended.gives_up)
    pods = [pod for pod in (*view.pods, *view.departed) if pod.end is not None and pod.created >= job.created]
    return Decision(words.removesuffix(": "), deaths=tuple(deaths), blame=blamed(pods) or ended.nodes, remove=True)


def _inherited(view: View, gives_up: bool = False) -> list[Death]:
    """A job of another run that this one waited for ended for good: so does this one, instead of doing the same again."""
    uid, first = view.shared
    if view.mine or not uid or any(one.token.startswith(uid) for one in view.tries):
        return []
    tries = [one for one in view.job_tries if one.number >= first and one.outcome and one.key in ("", view.request.key)]
    why = f"the job that this run shared with another ended so: {tries[-1].reason}" if tries else ""
    if gives_up or (tries and tries[-1].gives_up):
        return [Death(why or "the job that this run shared was put out of the queue", token=uid, gives_up=True)]
    outcomes = [one.outcome for one in tries]
    if not is_final(outcomes):
        return []
    # as often as it takes to be final: the other run tried that often
    count = 1 + BUG_RETRIES if outcomes[-1] == "bug" else 1
    return [Death(why, outcomes[-1], token=f"{uid}.{i}") for i in range(count)]


def _dead_within(view: View, job: Job) -> tuple[tuple[Death, ...], tuple[tuple[Pod, float | None], ...]]:
    """Tries that ended while their job goes on: preempted and resumed, or one range of many; and pods that are to be
    stopped."""
    first, now = try_of(job), view.now
    deaths, stop = [], []
    pods = {pod.name: pod for pod in view.pods}
    tries = [one for one in view.job_tries if one.number >= first]
    for one in still_open(tries):
        pod = pods.get(one.pod)
        newer = any(other.number > one.number and other.pod == one.pod and other.parts == one.parts for other in tries)
        if not newer and pod is not None and pod.live and view.request.parts and pod.started and not pod.deleting:
            if now - pod.started > view.request.timeout_seconds:
                limit = view.request.timeout_seconds
                deaths.append(
                    Death(f"ran longer than its {limit:g} s and was stopped", number=one.number, parts=one.parts)
                )
                stop.append((pod, None))
            continue
        if not newer and pod is not None and is_lost(view, pod):
            words = f"its node {pod.node} is lost: nothing was heard of it for {view.patience.lost_node_seconds:.0f} s"
            deaths.append(Death(words, number=one.number, parts=one.parts, disruption=True, nodes=(pod.node,)))
            continue
        present = pod is not None and pod.state not in ("failed", "succeeded")
        if not one.pod:
            present = any(pod.live for pod in view.pods)
        if newer or not present:
            deaths.append(_within(view, job, one))
    deaths += _unrecorded(view, job, tries)
    late = [(pod, 0.0) for pod in view.pods if is_lost(view, pod)]
    return tuple(dataclasses.replace(death, theirs=not view.mine) for death in deaths), (*stop, *late)


def _unrecorded(view: View, job: Job, tries: Sequence[Try]) -> list[Death]:
    """Of ranges: pods that died before they opened an attempt."""
    told = {one.pod for one in tries} | {one.token for one in tries}
    of = view.request.parts
    return [
        Death(
            pod.end.words, pod.end.outcome, token=pod.uid, pod=pod.name, disruption=pod.end.disruption,
            parts=f"{pod.index}/{of}" if pod.index else "",
        )
        for pod in (*view.pods, *view.departed)
        if of and pod.end is not None and not {pod.name, pod.uid} & told and pod.created >= job.created
    ]  # fmt: skip


def _within(view: View, job: Job, one: Try) -> Death:
    end, workload = end_of(view, one), view.workload
    if job.suspended and workload is not None and workload.preemption:
        return Death(
            f"sent back to the queue: {workload.preemption}", number=one.number, parts=one.parts, disruption=True
        )
    if end is None:
        words = "suspended, and its pods taken away" if job.suspended else "its pod is gone; how it ended was not seen"
        return Death(words, number=one.number, parts=one.parts, disruption=True, absent=one.pod)
    return Death(end.words, end.outcome, number=one.number, parts=one.parts, disruption=end.disruption)
