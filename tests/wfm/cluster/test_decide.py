"""What a launcher does next: a table of what is seen, what the store says and what time it is, and of what must come of it."""

import dataclasses
from typing import Any

import pytest

from tests.wfm.cluster.requests import DIGEST, KEY, request
from wfm.cluster.decide import decide
from wfm.cluster.names import ANNOTATION_CODE, ANNOTATION_GENERATION, ANNOTATION_KEY, ANNOTATION_RUNS, ANNOTATION_TRY
from wfm.cluster.pod_states import Pod, PodEnd
from wfm.cluster.records import Try
from wfm.cluster.settings import Patience
from wfm.cluster.states import Job, Workload
from wfm.cluster.verdict import MOST_DISRUPTIONS, next_request
from wfm.cluster.view import Decision, View

NOW = 1_000_000.0
IMAGE = f"registry.example/wfm-training@{DIGEST}"
OURS = {
    ANNOTATION_KEY: KEY,
    ANNOTATION_GENERATION: "1",
    ANNOTATION_TRY: "1",
    ANNOTATION_RUNS: "r",
    ANNOTATION_CODE: "1",
}
TRAIN = request(
    "train_world_model", resources={"gpu": 8, "replicas": 2, "grace_seconds": 60}, timeout_seconds=3600.0, retries=2
)
RANGES = request("encode_latents", parts=3, retries=1)


def job(**more: Any) -> Job:
    given: dict[str, Any] = {
        "name": "train-x", "uid": "job-1", "version": "7", "job": "train-x", "created": NOW - 500, "deleting": False,
        "annotations": OURS, "labels": {}, "images": (IMAGE,), "suspended": False, "over": "", "over_at": 0.0, "words": "",
        "status": "",
    }  # fmt: skip
    return Job(**{**given, **more})


def pod(name: str = "train-x-worker-0", state: str = "running", **more: Any) -> Pod:
    given: dict[str, Any] = {
        "name": name, "uid": f"uid-{name}", "job": "train-x", "role": "", "index": name[-1], "node": "n1", "state": state,
        "words": f"it is {state}", "created": NOW - 400, "scheduled": NOW - 390, "started": NOW - 380, "since": NOW - 390,
        "deleting": 0.0, "going_since": 0.0, "end": None,
    }  # fmt: skip
    return Pod(**{**given, **more})


def died(words: str = "why", cause: str = "exit", name: str = "train-x-worker-0", **more: Any) -> Pod:
    end = {name: more.pop(name) for name in ("disruption", "blames", "exit_code") if name in more}
    return pod(name, "failed", end=PodEnd(words, cause, **end), **more)  # type: ignore[arg-type]


BOTH = (pod(), pod("train-x-worker-1"))
OPEN = Try(1, "t", "train-x-worker-0")


def ended(number: int, outcome: str, **more: Any) -> Try:
    return Try(number, "t", "train-x-worker-0", outcome=outcome, reason=f"reason {number}", key=KEY, **more)


def view(**more: Any) -> View:
    given: dict[str, Any] = {
        "request": TRAIN, "name": "train-x", "kind": "pytorchjob", "image": IMAGE, "patience": Patience(), "queued": True,
        "now": NOW,
    }  # fmt: skip
    given |= more
    given.setdefault("job_tries", given.get("tries", ()) if given.get("mine", True) else ())
    return View(**given)


def nothing_but_words(decision: Decision) -> bool:
    return decision == Decision(decision.words, look_in=decision.look_in, warning=decision.warning)


# -- making, and making again


def test_the_first_try_is_made() -> None:
    assert decide(view()).create == 1


@pytest.mark.parametrize(
    ("tries", "create", "outcome", "code"),
    [
        (["try_again"], 2, "", 0),
        (["try_again", "try_again"], 3, "", 0),
        (["try_again"] * 3, 0, "try_again", 75),  # as often as it may
        (["bug"], 2, "", 0),  # it may have been the machine
        (["bug", "bug"], 0, "bug", 1),
        (["wrong_input"], 0, "wrong_input", 78),
        (["try_again", "wrong_input"], 0, "wrong_input", 78),
        (["cancelled"], 2, "", 0),  # nobody cancelled this run: it was stopped from outside
        (["cancelled"] * 20, 21, "", 0),
        (["cancelled"] * (MOST_DISRUPTIONS + 1), 0, "try_again", 75),
        (["done"], 2, "", 0),  # it says so, and nothing is there
        (["done", "done"], 0, "bug", 1),
    ],
)  # fmt: skip
def test_tries_in_the_store_decide(tries: list[str], create: int, outcome: str, code: int) -> None:
    decision = decide(view(tries=tuple(ended(n + 1, one) for n, one in enumerate(tries))))
    assert decision.create == create
    end = decision.end
    assert ((end.outcome, end.exit_code) if end else ("", 0)) == (outcome, code)


def test_tries_that_were_nobodys_fault_do_not_count() -> None:
    tries = [ended(n, "try_again", disruption=True) for n in range(1, 30)]
    tries += [ended(30, "try_again", held=True), ended(31, "try_again"), ended(32, "try_again")]
    assert decide(view(tries=tuple(tries))).create == 33
    broken = [dataclasses.replace(one, disruption=False, held=False) for one in tries]
    assert decide(view(tries=tuple(broken))).end is not None


def test_a_cluster_that_has_no_room_is_no_fault_of_the_stage_but_has_an_end() -> None:
    full = tuple(ended(n, "try_again", unschedulable=True) for n in range(1, 5))
    assert decide(view(tries=(*full[:2], ended(3, "try_again")))).create == 4
    assert decide(view(tries=full[:2])).create == 3
    assert decide(view(tries=full)).end is not None


def test_tries_of_other_code_are_not_ours() -> None:
    other = dataclasses.replace(ended(1, "wrong_input"), key="f" * 64)
    assert decide(view(tries=(other,))).create == 2


def test_an_image_of_other_code_is_named() -> None:
    """Its stage is through, under another key: waiting for ours would never end."""
    made = dataclasses.replace(ended(1, "done"), key="f" * 64)
    end = decide(view(tries=(made,))).end
    assert end is not None
    assert (end.outcome, "other code" in end.reason, "ffffffffffff" in end.reason) == ("wrong_input", True, True)


def test_between_tries_is_a_pause() -> None:
    decision = decide(view(tries=(ended(1, "try_again"),), pause_until=NOW + 7, pause_words="next try in 10 s"))
    assert nothing_but_words(decision)
    assert decision.look_in == 7


def test_the_next_try_avoids_the_nodes_that_failed() -> None:
    tries = (ended(1, "try_again"), ended(2, "try_again", disruption=True))
    assert decide(view(tries=tries, nodes=((1, ("n1",)), (2, ("n2",))))).avoid == ("n1", "n2")
    unplaced = (*tries, dataclasses.replace(ended(3, "try_again"), unschedulable=True))
    assert decide(view(tries=unplaced, nodes=((1, ("n1",)), (2, ("n2",))))).avoid == ()


@pytest.mark.parametrize("left", [pod(), pod(state="lost"), died(), pod(state="succeeded"), pod(state="unschedulable")])
def test_no_try_begins_beside_what_is_left_of_the_last(left: Pod) -> None:
    decision = decide(view(pods=(left,), tries=(ended(1, "try_again"),)))
    assert (decision.create, decision.end, decision.stop_pods) == (0, None, ((left, None),))


def test_pods_that_do_not_go_are_deleted_without_grace() -> None:
    stays = pod(deleting=NOW - 40)
    assert decide(view(pods=(stays,))).stop_pods == ((stays, 0.0),)
    assert decide(view(pods=(pod(deleting=NOW + 40),))).stop_pods == ()


# -- "not found" is no verdict


def test_a_job_that_is_gone_is_a_death_to_be_written_down_and_made_again() -> None:
    decision = decide(view(tries=(OPEN,)))
    assert [(one.number, one.outcome, one.absent) for one in decision.deaths] == [(1, "try_again", "train-x-worker-0")]
    assert (decision.create, decision.end) == (0, None)


def test_the_death_of_a_job_that_is_gone_is_told_by_its_last_pod() -> None:
    decision = decide(
        view(tries=(OPEN,), departed=(died("evicted by its node", "lost", disruption=True, deleting=NOW),))
    )
    assert [(one.reason, one.disruption) for one in decision.deaths] == [("evicted by its node", True)]


def test_the_last_pod_is_that_of_the_last_try() -> None:
    """Pods of a PyTorchJob have the same names in every try."""
    before = died("out of memory", "memory", created=NOW - 4000, uid="before")
    last = died("its pod was deleted", "deleted", disruption=True, deleting=NOW)
    decision = decide(view(tries=(ended(1, "try_again"), dataclasses.replace(OPEN, number=2)), departed=(before, last)))
    assert [one.reason for one in decision.deaths] == ["its pod was deleted"]


def test_nothing_is_made_before_a_dask_cluster_is_swept() -> None:
    assert decide(view(swept=False)) == Decision("clearing up what the last try left", sweep=True)


# -- it is made


def test_a_committed_key_ends_the_wait() -> None:
    assert decide(view(committed=True)).end == decide(view(committed=True, cancelled_by="x")).end
    end = decide(view(committed=True)).end
    assert end is not None
    assert (end.outcome, end.exit_code) == ("cached", 0)
    assert decide(view(committed=True, tries=(ended(1, "wrong_input"),))).end is not None


def test_a_stage_says_its_last_words_and_then_its_job_goes() -> None:
    there = {"committed": True, "job": job(), "pods": BOTH, "tries": (OPEN,)}
    assert nothing_but_words(decide(view(**there, committed_since=NOW - 5)))
    assert decide(view(**there, committed_since=NOW - 31)).remove
    assert decide(view(**{**there, "tries": (ended(1, "done"),)}, committed_since=NOW)).remove
    assert decide(view(**{**there, "job": None}, committed_since=NOW)).end is None
    late = decide(view(**there, committed_since=NOW - 10_000))
    assert (late.end is not None, "does not go" in late.warning) == (True, True)


def test_a_try_that_died_after_its_commit_has_an_end_too() -> None:
    decision = decide(view(committed=True, tries=(OPEN,)))
    assert [(one.number, one.outcome) for one in decision.deaths] == [(1, "done")]
    assert decision.end is not None


# -- a cancel


def test_a_cancel_deletes_job_and_pods_at_once() -> None:
    decision = decide(view(cancelled_by="somebody", cancelled_since=NOW, job=job(), pods=BOTH, tries=(OPEN,)))
    assert (decision.remove, decision.stop_pods, decision.end) == (True, tuple((one, None) for one in BOTH), None)


def test_after_one_grace_period_nothing_may_be_left() -> None:
    stays = pod(deleting=NOW)
    decision = decide(view(cancelled_by="somebody", cancelled_since=NOW - 60, pods=(stays,), tries=(OPEN,)))
    assert decision.stop_pods == ((stays, 0.0),)
    decision = decide(view(cancelled_by="somebody", cancelled_since=NOW - 60, tries=(OPEN,)))
    assert [(one.number, one.outcome) for one in decision.deaths] == [(1, "cancelled")]
    assert decision.end is not None
    assert decision.end.exit_code == 143


def test_a_job_that_another_run_needs_goes_on() -> None:
    decision = decide(view(cancelled_by="somebody", job=job(), pods=BOTH, others=("other",)))
    assert (decision.remove, decision.stop_pods, decision.unnote) == (False, (), True)
    assert decision.end is not None
    assert (decision.end.outcome, "run other needs it too" in decision.end.reason) == ("cancelled", True)


# -- whose job it is


def test_a_job_that_is_there_is_adopted_and_noted_on() -> None:
    decision = decide(view(job=job(), pods=BOTH, mine=False, noted=False, queued=False))
    assert decision == Decision("running: 2 of 2 pods", note=True)


@pytest.mark.parametrize(("annotation", "value", "word"), [
    (ANNOTATION_KEY, "e" * 64, "its key is eeee"), (ANNOTATION_GENERATION, "2", "its generation is 2"),
    (ANNOTATION_CODE, "f00", "its code id is f00"),
])  # fmt: skip
def test_a_job_of_something_else_is_not_adopted(annotation: str, value: str, word: str) -> None:
    decision = decide(view(job=job(annotations={**OURS, annotation: value}), pods=BOTH, mine=False))
    assert (decision.remove, decision.note) == (False, False)
    assert decision.end is not None
    assert decision.end.outcome == "wrong_input"
    assert word in decision.end.reason


def test_another_image_of_the_same_code_is_told() -> None:
    decision = decide(view(job=job(images=("registry.example/other@sha256:b",)), pods=BOTH, queued=False))
    assert "registry.example/other@sha256:b" in decision.warning
    assert IMAGE in decision.warning
    assert decision.end is None


def test_a_job_that_has_failed_is_never_adopted() -> None:
    """Also one of a run that is long over: it is put away, and another made."""
    dead = job(over="failed", over_at=NOW - 90, words="worker-0 failed")
    decision = decide(view(job=dead, mine=False, noted=False))
    assert (decision.remove, decision.note, decision.end) == (True, False, None)
    assert [(one.token, one.theirs) for one in decision.deaths] == [("job-1", True)]


def test_what_ended_a_shared_job_for_good_ends_this_run_too() -> None:
    theirs = (ended(1, "wrong_input"),)
    for there in (job(over="failed", over_at=NOW - 90), None):
        decision = decide(view(job=there, mine=False, shared=("job-1", 1), job_tries=theirs))
        assert [(one.outcome, one.theirs) for one in decision.deaths] == [("wrong_input", False)]
    told = dataclasses.replace(ended(1, "wrong_input"), token="job-1.0")
    assert decide(view(mine=False, shared=("job-1", 1), job_tries=theirs, tries=(told,))).end is not None
    passing = (ended(1, "try_again"),)
    assert (
        decide(
            view(job=job(over="failed", over_at=NOW - 90), mine=False, shared=("job-1", 1), job_tries=passing)
        ).deaths
        == ()
    )
    assert decide(view(mine=False, shared=("job-1", 1), job_tries=passing)).create == 1
    out = Workload("w", "w", "job-1", "deactivated", "deactivated: by hand", NOW, "")
    stopped = decide(
        view(job=job(suspended=True), workload=out, mine=False, shared=("job-1", 1), job_tries=(ended(1, "cancelled"),))
    )
    assert [(one.gives_up, one.theirs) for one in stopped.deaths] == [(True, True), (True, False)]


# -- conditions are no verdict


def test_an_elastic_job_has_succeeded_when_one_pod_has() -> None:
    one_done = job(over="succeeded", over_at=NOW - 5)
    decision = decide(view(job=one_done, pods=(pod(), pod("train-x-worker-1", "succeeded")), tries=(OPEN,)))
    assert nothing_but_words(decision)
    late = decide(view(job=job(over="succeeded", over_at=NOW - 60), pods=(pod(),), tries=(OPEN,)))
    assert (late.remove, late.end, [one.outcome for one in late.deaths]) == (True, None, ["try_again"])


def test_a_failed_job_with_live_pods_lets_go_of_its_devices() -> None:
    survivors = (died("out of memory", "memory"), pod("train-x-worker-1"))
    decision = decide(view(job=job(over="failed", over_at=NOW - 60), pods=survivors, tries=(OPEN,)))
    assert decision.remove
    assert [one.reason for one in decision.deaths] == ["train-x-worker-0: out of memory"]


def test_the_cause_is_memory_or_the_machine_before_the_exit_codes_that_follow() -> None:
    pods = (
        died("exit code 1", "exit", blames=True),
        died("node lost", "lost", "train-x-worker-1", disruption=True, blames=True, node="n2"),
    )
    decision = decide(view(job=job(over="failed", over_at=NOW - 60), pods=pods, tries=(OPEN,)))
    assert [(one.reason, one.disruption) for one in decision.deaths] == [("train-x-worker-1: node lost", True)]
    assert decision.blame == ("n2",)


def test_of_ranks_that_all_fail_no_machine_is_blamed() -> None:
    pods = (died(blames=True, exit_code=139), died(name="train-x-worker-1", blames=True, exit_code=139, node="n2"))
    assert decide(view(job=job(over="failed", over_at=NOW - 60), pods=pods, tries=(OPEN,))).blame == ()
    assert decide(view(job=job(over="failed", over_at=NOW - 60), pods=pods[:1], tries=(OPEN,))).blame == ("n1",)


def test_a_pod_that_died_before_it_opened_an_attempt_is_told_of() -> None:
    decision = decide(view(job=job(over="failed", over_at=NOW - 60), pods=(died("no such file"),)))
    assert [(one.token, one.number, one.reason) for one in decision.deaths] == [("job-1", 0, "no such file")]


def test_a_stage_that_said_how_it_ended_is_not_told_of_again() -> None:
    decision = decide(view(job=job(over="failed", over_at=NOW - 60), pods=(died(),), tries=(ended(1, "try_again"),)))
    assert (decision.remove, decision.deaths) == (True, ())


def test_pods_that_live_on_after_their_stage_has_said_its_end() -> None:
    """And those that came back after a suspension: they have as long to open their attempt."""
    there = {"job": job(), "pods": BOTH, "tries": (ended(1, "try_again"),)}
    assert not decide(view(**there, told_since=NOW - 900)).remove
    decision = decide(view(**there, told_since=NOW - 901))
    assert (decision.remove, decision.deaths) == (True, ())


def test_a_controller_that_says_nothing_does_not_hold_up_the_next_try() -> None:
    """A DaskJob whose runner is gone is Running for ever."""
    asked = request("split_clips", resources={"replicas": 2})
    worker = pod("dask-worker-1", role="worker")
    runner = died("its pod was deleted", "deleted", "dask-runner", role="job-runner", disruption=True)
    stuck = {
        "request": asked,
        "kind": "daskjob",
        "job": job(status="Running"),
        "pods": (worker,),
        "departed": (runner,),
    }
    tries = (dataclasses.replace(OPEN, pod="dask-runner"),)
    assert not decide(view(**stuck, tries=tries, quiet_since=NOW - 30)).remove
    decision = decide(view(**stuck, tries=tries, quiet_since=NOW - 61))
    assert (decision.remove, decision.end) == (True, None)
    assert decide(view(**{**stuck, "departed": ()}, tries=tries, quiet_since=NOW - 61)).remove


# -- patience


@pytest.mark.parametrize(
    ("found", "after", "outcome"),
    [
        (pod(state="bad_image"), 0, "wrong_input"),
        (pod(state="bad_config", since=NOW - 900), 1, "wrong_input"),
        (pod(state="no_image", since=NOW - 600), 1, "try_again"),
        (pod(state="no_image", since=NOW - 600, words="manifest unknown"), 1, "wrong_input"),
        (pod(state="unschedulable", since=NOW - 900, node=""), 1, "try_again"),
        (pod(state="creating", since=NOW - 900), 1, "try_again"),
        (pod(state="lost", since=NOW - 300), 1, "try_again"),
        (pod(deleting=NOW - 300), 1, "try_again"),
    ],
)  # fmt: skip
def test_what_does_not_come_is_waited_for_so_long(found: Pod, after: int, outcome: str) -> None:
    there = {"job": job(created=NOW - 2000), "pods": (found,), "tries": (OPEN,)}
    if after:
        assert not decide(view(**there)).remove
    decision = decide(view(**there, now=NOW + after))
    assert decision.remove
    assert [(one.number, one.outcome, one.ends_job) for one in decision.deaths] == [(1, outcome, True)]


def test_a_lost_node_is_nobodys_fault_and_is_avoided() -> None:
    decision = decide(view(job=job(), pods=(pod(state="lost", since=NOW - 301),), tries=(OPEN,)))
    assert [(one.disruption, one.nodes) for one in decision.deaths] == [(True, ("n1",))]
    assert decision.blame == ("n1",)


def test_pods_that_nobody_makes() -> None:
    assert not decide(view(job=job(created=NOW - 899), queued=False)).remove
    decision = decide(view(job=job(created=NOW - 901), queued=False))
    assert "is the operator of pytorchjob running?" in decision.deaths[0].reason
    resumed = job(created=NOW - 5000, resumed_at=NOW - 10)
    assert not decide(view(job=resumed, queued=False)).remove


def test_pods_that_the_quota_does_not_let_be_are_waited_for() -> None:
    full = "waiting for quota: pods are forbidden: exceeded quota: team"
    assert decide(view(job=job(created=NOW - 9000), queued=False, refused=full)) == Decision(full)


def test_a_gang_of_which_some_never_come() -> None:
    alone = pod(started=NOW - 901)
    decision = decide(view(job=job(), pods=(alone,)))
    assert decision.deaths[0].reason == "only 1 of 2 pods came in 901 s"


def test_one_kept_from_nodes_does_not_wait_as_long_for_others() -> None:
    waits = pod(state="unschedulable", since=NOW - 121, node="")
    assert not decide(view(job=job(), pods=(waits,))).remove
    kept = job(annotations={**OURS, "wfm.dev/avoid": "n1"})
    assert decide(view(job=kept, pods=(waits,))).deaths[0].unschedulable


def test_a_pod_deleted_by_hand_is_why_its_job_failed_and_one_that_its_controller_deleted_is_not() -> None:
    taken = died("its pod was deleted", "deleted", disruption=True, deleting=NOW - 60, going_since=NOW - 90)
    failed = job(over="failed", over_at=NOW - 80, words="too many failed indexes")
    assert decide(view(job=failed, pods=(taken,))).deaths[0].disruption
    deadline = dataclasses.replace(failed, words="Job was active longer than specified deadline")
    for found in (deadline, dataclasses.replace(failed, over_at=NOW - 100)):
        (death,) = decide(view(job=found, pods=(taken,))).deaths
        assert (death.disruption, found.words in death.reason) == (False, True)


# -- running time


def test_a_try_runs_so_long_and_no_longer() -> None:
    long = tuple(dataclasses.replace(one, started=NOW - 3601) for one in BOTH)
    decision = decide(view(job=job(created=NOW - 9000), pods=long, tries=(OPEN,)))
    assert [(one.number, one.reason) for one in decision.deaths] == [(1, "ran longer than its 3600 s and was stopped")]


@pytest.mark.parametrize(
    "pods",
    [
        (),  # in the queue
        (pod(state="unschedulable", created=NOW - 9000, since=NOW - 800, started=0.0, node=""),),
        (pod(state="creating", created=NOW - 9000, since=NOW - 800, started=0.0),),
        tuple(dataclasses.replace(one, created=NOW - 9000, started=NOW - 100) for one in BOTH),  # pulled for hours
        (pod(started=NOW - 9000), pod("train-x-worker-1", started=NOW - 100)),  # the last of the gang came late
    ],
)  # fmt: skip
def test_what_comes_before_counts_for_nothing(pods: tuple[Pod, ...]) -> None:
    waits = Workload("w", "w", "job-1", "pending", "queued: 3rd", NOW - 8900, "")
    found = job(created=NOW - 9000, suspended=not pods, resumed_at=NOW - 1000 if pods else 0.0)
    decision = decide(view(job=found, pods=pods, workload=waits, tries=(OPEN,) if pods else ()))
    assert (decision.remove, decision.deaths) == (False, ())


def test_a_preempted_try_is_told_of_and_its_job_waits_on() -> None:
    again = Workload("w", "w", "job-1", "evicted", "preempted in the queue", NOW, "Preempted: to accommodate another")
    decision = decide(view(job=job(suspended=True), workload=again, tries=(OPEN,)))
    assert not decision.remove
    assert [(one.number, one.disruption, "Preempted" in one.reason) for one in decision.deaths] == [(1, True, True)]
    assert decide(view(job=job(suspended=True), workload=again, tries=(OPEN,), pods=BOTH)).deaths == ()


def test_a_pod_that_came_back_under_its_name_has_a_try_of_its_own() -> None:
    tries = (OPEN, dataclasses.replace(OPEN, number=2))
    assert [one.number for one in decide(view(job=job(), pods=BOTH, tries=tries)).deaths] == [1]


# -- the queue


def test_a_queue_label_that_admits_nothing() -> None:
    held = job(created=NOW - 121, suspended=True)
    assert nothing_but_words(decide(view(job=job(created=NOW - 100, suspended=True))))
    decision = decide(view(job=held))
    assert decision.remove
    assert "no Workload has appeared in 121 s" in decision.deaths[0].reason
    assert (decision.deaths[0].outcome, decision.deaths[0].unschedulable) == ("try_again", True), "it may only be late"
    none = Workload(
        "w", "w", "job-1", "inadmissible", "the queue cannot take it: LocalQueue research doesn't exist", NOW, ""
    )
    assert "LocalQueue research doesn't exist" in decide(view(job=held, workload=none)).deaths[0].reason
    full = Workload("w", "w", "job-1", "inadmissible", "the queue cannot take it: insufficient quota", NOW, "")
    assert nothing_but_words(decide(view(job=job(created=NOW - 90_000, suspended=True), workload=full)))


def test_a_queue_label_that_is_ignored() -> None:
    runs = decide(view(job=job(created=NOW - 121), pods=BOTH))
    assert "the queue label is ignored" in runs.warning
    assert (runs.remove, runs.end) == (False, None)
    assert decide(view(job=job(created=NOW - 121), pods=BOTH, queued=False)).warning == ""


def test_a_workload_that_was_put_out_of_the_queue_ends_it() -> None:
    out = Workload("w", "w", "job-1", "deactivated", "deactivated: requeued too often", NOW, "")
    decision = decide(view(job=job(suspended=True), workload=out, tries=(ended(1, "cancelled"),)))
    assert [(one.token, one.gives_up) for one in decision.deaths] == [("job-1", True)]
    end = decide(view(tries=(dataclasses.replace(ended(1, "try_again"), gives_up=True),))).end
    assert end is not None
    assert end.exit_code == 75


# -- ranges of parts


def made(*parts: int) -> tuple[Try, ...]:
    return tuple(ended(n + 1, "done", parts=f"{index}/3") for n, index in enumerate(parts))


def test_ranges_come_first_and_then_the_stage_itself() -> None:
    assert next_request(RANGES, ()).parts == 3
    assert next_request(RANGES, made(0, 2)).parts == 3
    closing = next_request(RANGES, made(0, 2, 1))
    assert (closing.parts, closing.resources.gpu) == (0, 0)
    assert decide(view(request=RANGES, tries=made(0, 2))).create == 3
    assert decide(view(request=closing, tries=made(0, 2, 1))).create == 4


def test_each_range_has_its_own_tries() -> None:
    twice = (*made(0), *(ended(n, "try_again", parts="1/3") for n in (2, 3)))
    end = decide(view(request=RANGES, tries=twice)).end
    assert end is not None
    assert end.reason == "range 1/3: tried 2 times; the last time: reason 3"
    assert decide(view(request=RANGES, tries=twice[:2])).create == 3
    final = decide(view(request=RANGES, tries=(*made(0), ended(2, "wrong_input", parts="2/3")))).end
    assert final is not None
    assert final.outcome == "wrong_input"


def test_a_range_that_hangs_is_stopped_and_the_others_go_on() -> None:
    hangs = pod("parts-1-abc", started=NOW - 90_000)
    works = pod("parts-2-def")
    tries = (Try(1, "t", "parts-1-abc", "1/3"), Try(2, "t", "parts-2-def", "2/3"))
    asked = dataclasses.replace(RANGES, timeout_seconds=3600.0)
    decision = decide(
        view(request=asked, kind="indexed_job", job=job(created=NOW - 99_000), pods=(hangs, works), tries=tries)
    )
    assert ([one.number for one in decision.deaths], decision.stop_pods, decision.remove) == (
        [1],
        ((hangs, None),),
        False,
    )


def test_a_range_that_died_before_it_opened_an_attempt_is_told_of() -> None:
    lost = died("no room", "lost", "parts-1-abc", index="1", disruption=True)
    decision = decide(view(request=RANGES, kind="indexed_job", job=job(), pods=(lost, pod("parts-2-def"))))
    assert [(one.token, one.parts, one.disruption) for one in decision.deaths] == [("uid-parts-1-abc", "1/3", True)]
