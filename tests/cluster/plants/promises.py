"""Bugs that break a promise of the launcher: one job at a time, ends with their reasons, time and tries counted right."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster import invariants
from tests.cluster.conftest import MakeWorld, follow
from tests.cluster.plants.noted import deciding, planted
from tests.cluster.scenarios import (
    test_launchers,
    test_machines,
    test_ordinary_ways,
    test_queues,
    test_what_conditions_say,
)
from wfm.cluster import (
    api,
    decide,
    entry,
    job_over,
    kinds,
    launcher,
    records,
    refusals,
    verdict,
)
from wfm.cluster.view import Decision, End

# -- at most one live job per key and generation


@planted(
    invariants.ONE_JOB,
    lambda make: test_launchers.test_two_launchers_of_one_run_make_one_job(make()),
    longest=1600,
)
def creates_without_a_fixed_name(patch: pytest.MonkeyPatch) -> None:
    right = entry.build

    def build(*arguments: Any, **more: Any) -> Any:
        body = right(*arguments, **more)
        body["metadata"]["generateName"] = body["metadata"].pop("name") + "-"
        return body

    patch.setattr(entry, "build", build)
    patch.setattr(entry, "check", lambda *arguments: None)


@planted(
    invariants.ONE_JOB,
    lambda make: test_what_conditions_say.test_pods_that_outlive_their_failed_job_hold_the_next_try_back(make()),
)
def begins_beside_the_pods_of_the_last_try(patch: pytest.MonkeyPatch) -> None:
    """By another name, as one would who wants to be quick."""
    right, made = entry.build, []

    def build(*arguments: Any, **more: Any) -> Any:
        body = right(*arguments, **more)
        made.append(1)
        body["metadata"]["name"] += f"-{len(made)}"
        return body

    patch.setattr(entry, "build", build)
    deciding(patch, lambda view, right: right(dataclasses.replace(view, pods=() if view.job is None else view.pods)))
    patch.setattr(api.Api, "pages", _without_pods(api.Api.pages))


def _without_pods(right: Any) -> Any:
    def pages(self: Any, resource: Any, selector: str = "", limit: int = 250) -> Any:
        if limit == 1:
            return iter([api.Listing([], "")])
        return right(self, resource, selector, limit)

    return pages


# -- nothing holds a GPU one grace period after a cancel


@planted(
    invariants.CANCEL,
    lambda make: test_launchers.test_after_a_cancel_nothing_holds_a_gpu(make, "container", "pytorchjob", False),
)
def leaves_pods_after_a_cancel(patch: pytest.MonkeyPatch) -> None:
    right = api.Api.delete

    def delete(self: Any, resource: Any, name: str, **more: Any) -> Any:
        if resource is kinds.POD:
            return True
        body = {"propagationPolicy": "Orphan"}
        try:
            self._json("DELETE", "delete", resource, name, body=body)
        except (refusals.NotFound, refusals.Conflict):
            return False
        return True

    assert right is not delete
    patch.setattr(api.Api, "delete", delete)


@planted(
    invariants.CANCEL,
    lambda make: test_launchers.test_after_a_cancel_nothing_holds_a_gpu(make, "torchjob", "pytorchjob", True),
)
def does_not_hear_a_cancel(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(entry.Entry, "look_for_cancel", lambda self, now: None)


@planted(
    invariants.NEEDED, lambda make: test_launchers.test_a_cancel_does_not_take_the_job_of_another_run(make(), "other")
)
def cancels_the_job_of_another_run(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(launcher, "still_need", lambda *arguments: [])


# -- a committed key ends every wait


@planted(
    invariants.COMMITTED,
    lambda make: test_what_conditions_say.test_a_key_that_another_engine_commits_ends_the_wait(make()),
)
def waits_for_a_condition_though_the_key_is_committed(patch: pytest.MonkeyPatch) -> None:
    def other(view: Any, right: Callable[[Any], Decision]) -> Decision:
        if view.committed and view.job is not None and not view.job.over:
            return Decision("waiting for its condition")
        return right(view)

    deciding(patch, other)


@planted(
    invariants.COMMITTED, lambda make: test_launchers.test_the_next_launcher_adopts(make(), "torchjob", "crash", 620)
)
def makes_again_what_is_made(patch: pytest.MonkeyPatch) -> None:
    deciding(patch, lambda view, right: right(dataclasses.replace(view, committed=False)))


# -- a final outcome is never rerun


@planted(
    invariants.FINAL,
    lambda make: test_ordinary_ways.test_what_is_final_is_not_tried_again(
        make, "torchjob", "pytorchjob", "wrong_input", 1
    ),
)
def tries_again_what_is_final(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(verdict, "is_final", lambda outcomes: False)


@planted(
    invariants.FINAL,
    lambda make: test_ordinary_ways.test_retries_are_bounded(make()),
    longest=1500,
)
def tries_without_end(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decide, "verdict", lambda view: None)


# -- conditions, deletion, TTL and "not found" are no verdicts


@planted(
    invariants.VERDICT,
    lambda make: test_what_conditions_say.test_one_worker_that_is_through_makes_an_elastic_job_succeeded(make()),
)
def trusts_succeeded(patch: pytest.MonkeyPatch) -> None:
    def other(view: Any, right: Callable[[Any], Decision]) -> Decision:
        if view.job is not None and view.job.over == "succeeded":
            return Decision("succeeded", end=End.of("done"))
        return right(view)

    deciding(patch, other)


@planted(
    invariants.VERDICT,
    lambda make: test_ordinary_ways.test_a_try_that_failed_is_followed_by_another(make, "torchjob", "pytorchjob"),
)
def trusts_failed(patch: pytest.MonkeyPatch) -> None:
    def other(view: Any, right: Callable[[Any], Decision]) -> Decision:
        if view.job is not None and view.job.over == "failed":
            return Decision("failed", end=End.of("bug", "its job has failed"))
        return right(view)

    deciding(patch, other)


@planted(
    invariants.VERDICT,
    lambda make: test_what_conditions_say.test_a_job_that_failed_before_this_launcher_came_is_not_adopted(make()),
    longest=2400,
)
def adopts_a_failed_job(patch: pytest.MonkeyPatch) -> None:
    """It is there, so it is followed."""
    right = decide.over
    patch.setattr(decide, "over", lambda view, job: None if job.over == "failed" else right(view, job))


@planted(
    invariants.VERDICT,
    lambda make: test_what_conditions_say.test_a_job_that_somebody_deletes_is_made_again(make(), "torchjob"),
)
def takes_a_deletion_for_a_verdict(patch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()

    def other(view: Any, right: Callable[[Any], Decision]) -> Decision:
        if view.job is not None:
            seen.add(view.name)
        elif view.name in seen and not view.committed:
            return Decision("deleted", end=End.of("cancelled", "its job was deleted"))
        return right(view)

    deciding(patch, other)


@planted(
    invariants.VERDICT,
    lambda make: test_what_conditions_say.test_a_failed_job_that_its_ttl_takes_away_is_tried_again(make()),
)
def takes_not_found_after_a_try_for_a_verdict(patch: pytest.MonkeyPatch) -> None:
    """What its TTL took away must have been through."""

    def other(view: Any, right: Callable[[Any], Decision]) -> Decision:
        if view.job is None and view.tries and not view.committed:
            return Decision("gone", end=End.of("done"))
        return right(view)

    deciding(patch, other)


# -- queue time never counts as run time


@planted(invariants.QUEUE, lambda make: test_queues.test_time_in_the_queue_is_no_running_time(make(), "torchjob"))
def counts_the_time_in_the_queue(patch: pytest.MonkeyPatch) -> None:
    right = job_over.running_since

    def since(view: Any, pods: Any) -> Any:
        return None if right(view, pods) is None else view.job.created

    patch.setattr(job_over, "running_since", since)


@planted(
    invariants.QUEUE,
    lambda make: test_queues.test_a_training_that_is_suspended_and_resumed_has_its_whole_time_again(make()),
)
def counts_what_ran_before_a_suspension(patch: pytest.MonkeyPatch) -> None:
    right, first = job_over.running_since, {}

    def since(view: Any, pods: Any) -> Any:
        found = right(view, pods)
        return None if found is None else first.setdefault(view.job.uid, found)

    patch.setattr(job_over, "running_since", since)


@planted(
    invariants.QUEUE,
    lambda make: test_ordinary_ways.test_a_try_that_hangs_is_stopped_after_its_time(make()),
    longest=2000,
)
def counts_no_time_at_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(job_over, "running_since", lambda view, pods: None)
    patch.setattr(job_over, "_late", lambda view, pods: None)


# -- every end has an attempt record with its reason


@planted(
    invariants.RECORDED,
    lambda make: test_machines.test_a_pod_that_is_taken_away_costs_an_interval(
        make(), "out of memory", True, "torchjob"
    ),
)
def ends_without_a_record(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(records.Records, "tell", lambda self, death, key, now: True)
    patch.setattr(decide, "still_open", lambda tries: [])


@planted(
    invariants.RECORDED,
    lambda make: test_machines.test_an_image_that_cannot_be_pulled_is_said(make()),
    longest=1500,
)
def tells_of_no_try_that_never_began(patch: pytest.MonkeyPatch) -> None:
    right = records.Records.tell
    patch.setattr(
        records.Records, "tell", lambda self, death, key, now: not death.number or right(self, death, key, now)
    )


@planted(
    invariants.RECORDED,
    lambda make: test_machines.test_a_pod_that_is_taken_away_costs_an_interval(
        make(), "evicted by its node", False, "torchjob"
    ),
)
def forgets_the_reason(patch: pytest.MonkeyPatch) -> None:
    right = records.Records.tell
    patch.setattr(
        records.Records,
        "tell",
        lambda self, death, key, now: right(self, dataclasses.replace(death, reason=""), key, now),
    )


# -- N preemptions lose at most N checkpoint intervals


@planted(
    invariants.PREEMPTIONS, lambda make: test_launchers.test_the_next_launcher_adopts(make(), "torchjob", "crash", 100)
)
def does_not_adopt_but_begins_anew(patch: pytest.MonkeyPatch) -> None:
    seen: set[tuple[int, str]] = set()

    def other(view: Any, right: Callable[[Any], Decision]) -> Decision:
        if view.job is not None and view.job.created < view.now - 60 and (id(right), view.job.uid) not in seen:
            seen.add((id(right), view.job.uid))
            return Decision("one of another launcher", remove=True)
        return right(view)

    deciding(patch, other)


def an_eviction_costs_no_retry(make: MakeWorld) -> None:
    """A pod is put out by its node, of a stage that may not be tried again for faults of its own."""
    world = make()
    asked = world.ask("node", retries=0)
    world.at(150, lambda: world.kubelet.evict(world.running(asked.key)[0]["metadata"]["name"]))
    assert follow(world, asked, lost=1)[asked.key].outcome == "done"


@planted(invariants.PREEMPTIONS, an_eviction_costs_no_retry)
def counts_a_preemption_against_the_stage(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(verdict, "_counts", lambda one: True)
