"""Jobs that take fewer pods (tasks/run/jobs.md, "Partial admission"), and what hangs on what is not known."""

from typing import Any

import pytest

from tests.wfm.cluster.quota.jobs import job, workload
from tests.wfm.cluster.quota.test_waiting import TOLD
from wfm.cluster.quota import gangs, judge, read_cluster
from wfm.cluster.quota.waiting import Waiting, wait

LEAST = "kueue.x-k8s.io/job-min-parallelism"
ONE = {"nvidia.com/gpu": 1}


def a_job(pods: int, least: str | None = None, queue: str = "apart", **more: Any) -> dict[str, Any]:
    made = job({"name": "j", "queue": queue, "pods": pods, "requests": ONE, **more})
    if least is not None:
        made["metadata"]["annotations"] = {LEAST: least}
    return made


def found(made: dict[str, Any], *more: dict[str, Any]) -> tuple[Any, Waiting]:
    cluster = read_cluster([*TOLD["objects"], *more])
    (gang,) = gangs([made], None)
    verdict = judge(gang, cluster)
    return verdict, wait(verdict, cluster)


@pytest.mark.parametrize(
    ("pods", "least", "state", "with_pods"),
    [
        (8, "2", "fits", 0),  # all of them fit
        (12, "2", "fits", 8),  # the documentation's: as many as there is quota for
        (12, "8", "fits", 8),
        (12, "9", "never", 0),
        (12, None, "never", 0),
        (12, "12", "never", 0),  # no fewer than all
        (12, "0", "never", 0),
        (12, "some", "never", 0),
    ],
)
def test_as_many_as_there_is_quota_for(pods: int, least: str | None, state: str, with_pods: int) -> None:
    verdict, waiting = found(a_job(pods, least))
    assert (verdict.state, verdict.pods) == (state, with_pods)
    assert waiting.state == ("free" if state == "fits" else "none")
    assert any(f"admitted with {with_pods} of its {pods} pods" in note for note in verdict.notes) == bool(with_pods)


def test_its_gate_may_be_off() -> None:
    off = {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2", "kind": "Configuration", "featureGates": {"PartialAdmission": False},
    }  # fmt: skip
    assert found(a_job(12, "2"), off)[0].state == "never"


def held(name: str, gpus: int, queue: str = "apart", **more: Any) -> dict[str, Any]:
    return workload({"job": name, "queue": queue, "gpus": gpus, "priority": 0, "since": "2026-11-30T08:00:00Z", **more})


def test_fewer_come_in_where_there_is_no_room_for_all_and_nobody_goes() -> None:
    _, waiting = found(a_job(8, "2"), held("other", 5))
    assert (waiting.state, waiting.why) == ("free", ("there is room now for 3 of its 8 pods, which may be 2 at least",))
    assert found(a_job(8, "4"), held("other", 5))[1].state == "waits"
    _, waiting = found(a_job(8, "2", "ours"), held("borrower", 20, "theirs"))
    assert waiting.preempts == ("borrower",), "borrowing and preemption come first"


def test_whom_fair_sharing_would_put_out_is_said_where_it_is_known_and_else_that_it_hangs_on_it() -> None:
    """ "the share of the preempting ClusterQueue": who wants to borrow puts out who borrows more, and else nobody."""
    objects = [held("theirs-1", 8, "theirs"), held("theirs-2", 8, "theirs"), held("theirs-3", 4, "theirs")]
    asks = a_job(18, None, "ours")
    fair = {"apiVersion": "config.kueue.x-k8s.io/v1beta2", "kind": "Configuration", "fairSharing": {}}
    classic = {key: value for key, value in fair.items() if key != "fairSharing"}
    assert found(asks, *objects, classic)[1].preempts == ()
    assert set(found(asks, *objects, fair)[1].preempts) > set()
    _, unknown = found(asks, *objects)
    assert unknown.preempts == ()
    assert (
        "hangs on fairSharing, which its configuration says, and that is not known here: nobody without it"
        in unknown.why[-1]
    )
    same = found(a_job(8, None, "ours"), *objects)[1]
    assert same.preempts, "whichever it is"


def test_who_is_ahead_by_usage_is_not_guessed() -> None:
    objects = [*TOLD["objects"], *map(workload, TOLD["workloads"])]
    other = {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "LocalQueue",
        "metadata": {"name": "two", "namespace": "wfm"},
    }
    objects.append({**other, "spec": {"clusterQueue": "ours"}})
    for each in objects:
        if each["kind"] == "ClusterQueue" and each["metadata"]["name"] == "ours":
            objects[objects.index(each)] = {
                **each, "spec": {**each["spec"], "admissionScope": {"admissionMode": "UsageBasedAdmissionFairSharing"}},
            }  # fmt: skip
    cluster = read_cluster(objects)
    for queue, ahead in (("ours", ("our-first",)), ("two", ())):
        (gang,) = gangs([job({"name": "j", "queue": queue, "pods": 1, "requests": ONE})], None)
        waiting = wait(judge(gang, cluster), cluster)
        assert waiting.ahead == ahead
        assert any("is not known: by what each queue used of late" in why for why in waiting.why) == (queue == "two")


def test_a_check_that_may_say_no_is_named() -> None:
    check = {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "AdmissionCheck",
        "metadata": {"name": "machines"},
        "spec": {},
    }
    objects = [
        {**each, "spec": {**each["spec"], "admissionChecksStrategy": {"admissionChecks": [{"name": "machines"}]}}}
        if each["kind"] == "ClusterQueue" else each
        for each in TOLD["objects"]
    ]  # fmt: skip
    (gang,) = gangs([a_job(1)], None)
    assert any(
        "AdmissionCheck machines has its say" in note for note in judge(gang, read_cluster([*objects, check])).notes
    )


DASK = {"name": "d", "kind": "DaskJob", "queue": "apart", "pods": 3, "requests": ONE}


@pytest.mark.parametrize(
    ("states", "state", "says"),
    [
        (
            "admitted deactivated admitted",
            "deactivated",
            "2 of its 3 workloads have their quota; 1 of its 3 workloads are",
        ),
        ("deactivated admitted admitted", "deactivated", "1 of its 3 workloads are deactivated"),
        ("over admitted admitted", "admitted", "2 of its 3 workloads have their quota; 1 of its 3 workloads ended"),
        ("over over over", "over", "it ended"),
    ],
)
def test_the_worst_of_several_workloads_tells(states: str, state: str, says: str) -> None:
    kinds: dict[str, dict[str, Any]] = {"admitted": {}, "deactivated": {"active": False}, "over": {"finished": True}}
    several = [held(f"d-worker-{place}", 1, **kinds[each]) for place, each in enumerate(states.split())]
    (gang,) = gangs([job(DASK)], None)
    cluster = read_cluster([*TOLD["objects"], *several])
    waiting = wait(judge(gang, cluster), cluster)
    assert waiting.state == state
    assert says in "; ".join(waiting.why)


def test_of_a_job_that_was_made_again_the_latest_workload_counts() -> None:
    old = held("j", 1, finished=True, created="2026-11-29T08:00:00Z")
    new = {**held("j", 1, created="2026-11-30T08:30:00Z"), "status": {}}
    new["metadata"] = {**new["metadata"], "name": "job-j-9f9f9"}
    for several in ([old, new], [new, old]):
        assert found(a_job(1), *several)[1].state == "free"
