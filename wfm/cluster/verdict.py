"""What the tries of a run say together, and what the ends of their pods do: whether another try may help, and where."""

import itertools
from collections.abc import Sequence

from wfm.cluster.pod_states import Pod, PodEnd
from wfm.cluster.records import Try
from wfm.cluster.request import JobRequest
from wfm.cluster.view import GOOD, End, View
from wfm.errors import is_final

MOST_DISRUPTIONS = 100
"""Tries that were nobody's fault, before a launcher gives up all the same."""
_TOGETHER_SECONDS = 60.0
"""Pods of one try are made within so long."""
_REMEMBERED_TRIES = 3
"""The nodes that failed in so many tries are avoided."""


def next_request(whole: JobRequest, tries: Sequence[Try]) -> JobRequest:
    """What is to be made now: a stage in ranges as long as one of them is not made, then the stage itself, which finds the
    parts and commits. That is a job of its own, of one pod without devices: the launcher's own pod has neither the stage's
    image nor its memory."""
    if not whole.parts:
        return whole
    made = {one.parts for one in tries if one.outcome in GOOD and one.key == whole.key and one.parts}
    return whole if any(f"{i}/{whole.parts}" not in made for i in range(whole.parts)) else whole.closing()


def verdict(view: View) -> End | None:
    """What the tries of this run say together: an end, or None when another try may help."""
    key, request = view.request.key, view.request
    same = [one for one in view.tries if one.outcome and one.key in ("", key)]
    last = view.tries[-1] if view.tries else None
    if last is not None and last.outcome in GOOD and last.key not in ("", key):
        return End.of("wrong_input", _other_code(view, last))
    if same and same[-1].gives_up:
        return End.of(same[-1].outcome, same[-1].reason)
    unplaced = len(list(itertools.takewhile(lambda one: one.unschedulable, reversed(same))))
    if unplaced > request.retries:
        return End.of("try_again", f"tried {unplaced} times in a row; the last time: {same[-1].reason}")
    if sum(not _counts(one) for one in same) > MOST_DISRUPTIONS:
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
    counted = [one for one in tries if _counts(one)]
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


def _counts(one: Try) -> bool:
    """Whether a try counts against the stage: not one that was nobody's fault or found no room, that left for another
    process, or that was stopped though nobody asked its run to (asked here of runs that nobody did): by a drain, a
    preemption."""
    return not (one.disruption or one.held or one.unschedulable or one.outcome == "cancelled")


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


def end_of(view: View, one: Try) -> PodEnd | None:
    """How the pod of a try ended, where that was seen."""
    pods = [pod for pod in (*view.departed, *view.pods) if pod.end is not None]
    own = [pod for pod in pods if pod.name == one.pod] or ([] if one.parts else pods)
    newest = max((pod.created for pod in own), default=0.0)  # an earlier try's pods had the same names
    found = worst([pod for pod in own if pod.created > newest - _TOGETHER_SECONDS])
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


def blamed(pods: Sequence[Pod]) -> tuple[str, ...]:
    """Nodes that may be why these pods ended. When one rank fails all do: of exit codes alone nothing follows for several."""
    lost = {pod.node for pod in pods if pod.end is not None and pod.end.blames and pod.end.cause != "exit" and pod.node}
    if any(pod.end is not None and pod.end.cause == "memory" for pod in pods):
        return tuple(sorted(lost))
    exits = [pod for pod in pods if pod.end is not None and pod.end.cause == "exit"]
    if not lost and len(exits) == 1 and exits[0].end is not None and exits[0].end.blames and exits[0].node:
        lost = {exits[0].node}
    return tuple(sorted(lost))
