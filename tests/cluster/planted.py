"""The suite tested itself: bugs planted into the launcher, each of which must turn a scenario red that is green without it.

A bug is a patch of a named seam of the launcher (`wfm/cluster/`), by which the line that prevents it is as good as gone. The
scenario is one of `scenarios/`, or a short one here, called as a function.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster import invariants
from tests.cluster.conftest import MakeWorld, follow
from tests.cluster.scenarios import (
    test_launchers,
    test_machines,
    test_ordinary_ways,
    test_queues,
    test_races,
    test_server_troubles,
    test_what_conditions_say,
)
from tests.cluster.stage import End as Ending
from tests.cluster.stage import Script
from wfm.cluster import (
    actions,
    api,
    decide,
    entry,
    job_over,
    kinds,
    launcher,
    pod_states,
    records,
    refusals,
    request,
    states,
    verdict,
    watch,
)
from wfm.cluster.view import Decision, End

Plant = Callable[[pytest.MonkeyPatch], None]
Scenario = Callable[[MakeWorld], object]
PLANTS: list[tuple[str, str, Plant, Scenario, float]] = []


def planted(invariant: str, scenario: Scenario, longest: float = 1e9) -> Callable[[Plant], Plant]:
    """Note a bug: which promise it breaks, and what finds it. `longest`: twice what the scenario takes without it [s], where
    the bug would make it long."""

    def note(plant: Plant) -> Plant:
        PLANTS.append((plant.__name__, invariant, plant, scenario, longest))
        return plant

    return note


def _deciding(patch: pytest.MonkeyPatch, other: Callable[[Any, Callable[[Any], Decision]], Decision]) -> None:
    """Put a decision of its own before the launcher's."""
    right = decide.decide
    patch.setattr(launcher, "decide", lambda view: other(view, right))


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
    _deciding(patch, lambda view, right: right(dataclasses.replace(view, pods=() if view.job is None else view.pods)))
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

    _deciding(patch, other)


@planted(
    invariants.COMMITTED, lambda make: test_launchers.test_the_next_launcher_adopts(make(), "torchjob", "crash", 620)
)
def makes_again_what_is_made(patch: pytest.MonkeyPatch) -> None:
    _deciding(patch, lambda view, right: right(dataclasses.replace(view, committed=False)))


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

    _deciding(patch, other)


@planted(
    invariants.VERDICT,
    lambda make: test_ordinary_ways.test_a_try_that_failed_is_followed_by_another(make, "torchjob", "pytorchjob"),
)
def trusts_failed(patch: pytest.MonkeyPatch) -> None:
    def other(view: Any, right: Callable[[Any], Decision]) -> Decision:
        if view.job is not None and view.job.over == "failed":
            return Decision("failed", end=End.of("bug", "its job has failed"))
        return right(view)

    _deciding(patch, other)


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

    _deciding(patch, other)


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

    _deciding(patch, other)


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

    _deciding(patch, other)


def an_eviction_costs_no_retry(make: MakeWorld) -> None:
    """A pod is put out by its node, of a stage that may not be tried again for faults of its own."""
    world = make()
    asked = world.ask("node", retries=0)
    world.at(150, lambda: world.kubelet.evict(world.running(asked.key)[0]["metadata"]["name"]))
    assert follow(world, asked, lost=1)[asked.key].outcome == "done"


@planted(invariants.PREEMPTIONS, an_eviction_costs_no_retry)
def counts_a_preemption_against_the_stage(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(verdict, "_counts", lambda one: True)


# -- watches, and requests that fail


def a_crash_unseen(make: MakeWorld, way: str) -> None:
    """A try crashes while the history is compacted all the time, or a watch ends without a word."""
    world = make()
    asked = world.ask("node", script=Script(300, ends=(Ending("crash", 100), Ending())))
    world.faults.gone_as = way
    for at in range(10, 1000, 7):
        if way == "mute":
            world.at(at, lambda: world.faults.plan("mute", "watch", times=3) if len(world.faults.planned) < 1 else None)
        else:
            world.at(at, world.storage.compact)
    assert follow(world, asked, lost=1)[asked.key].outcome == "done"


@planted("watch", lambda make: a_crash_unseen(make, "http"), longest=2000)
def ignores_410(patch: pytest.MonkeyPatch) -> None:
    """It takes the answer for an end like any other, and asks from the same place for ever."""
    right = watch.Mirror._watch

    def again(self: Any) -> None:
        try:
            right(self)
        except refusals.Gone:
            return

    patch.setattr(watch.Mirror, "_watch", again)


@planted("watch", lambda make: a_crash_unseen(make, "event"), longest=2000)
def ignores_an_error_event(patch: pytest.MonkeyPatch) -> None:
    right = watch.Mirror._hear

    def hear(self: Any, line: bytes) -> None:
        if b'"ERROR"' not in line[:20]:
            right(self, line)

    patch.setattr(watch.Mirror, "_hear", hear)


@planted("watch", lambda make: a_crash_unseen(make, "mute"), longest=2000)
def ignores_silent_ends(patch: pytest.MonkeyPatch) -> None:
    """A watch that ended without a word is not taken up again."""
    right = watch.Mirror._watch

    def once(self: Any) -> None:
        if getattr(self, "_silent", False):
            return
        heard: list[bytes] = []
        hear = self._hear
        self._hear = lambda line: (heard.append(line), hear(line))
        try:
            right(self)
        finally:
            self._hear = hear
        self._silent = not heard

    patch.setattr(watch.Mirror, "_watch", once)


@planted("server", lambda make: test_server_troubles.test_a_create_whose_answer_is_lost_makes_one_job(make()))
def takes_a_lost_answer_for_a_refusal(patch: pytest.MonkeyPatch) -> None:
    right = api.Api.create

    def create(self: Any, resource: Any, body: Any) -> Any:
        try:
            return right(self, resource, body)
        except refusals.Busy as error:
            raise refusals.Refused(str(error)) from None

    patch.setattr(api.Api, "create", create)


@planted("server", lambda make: test_queues.test_no_quota_for_objects_is_waited_for(make()))
def takes_a_full_quota_for_a_refusal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(refusals, "QuotaExceeded", refusals.Forbidden)
    right = api.Api.create

    def create(self: Any, resource: Any, body: Any) -> Any:
        try:
            return right(self, resource, body)
        except refusals.Busy as error:
            raise refusals.Refused(str(error)) from None

    patch.setattr(api.Api, "create", create)


@planted(
    "machines",
    lambda make: test_machines.test_a_machine_that_is_lost_is_left_behind(make, "torchjob"),
    longest=2800,
)
def waits_for_ever_for_a_lost_machine(patch: pytest.MonkeyPatch) -> None:
    right = api.Api.delete

    def delete(self: Any, resource: Any, name: str, *, grace: Any = None, **more: Any) -> Any:
        return right(self, resource, name, **more)  # never without grace

    patch.setattr(api.Api, "delete", delete)


@planted("machines", lambda make: test_machines.test_the_next_try_avoids_the_machine_of_the_last(make))
def avoids_no_machine(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decide, "avoided", lambda view: ())


@planted(
    "states",
    lambda make: test_what_conditions_say.test_a_daskjob_whose_runner_is_deleted_stays_running_for_ever(make()),
    longest=2400,
)
def believes_a_daskjob_that_says_running(patch: pytest.MonkeyPatch) -> None:
    right = decide.over
    patch.setattr(decide, "over", lambda view, job: None if job.status == "Running" else right(view, job))
    patch.setattr(decide, "_dead_within", lambda view, job: ((), ()))


@planted("states", lambda make: test_queues.test_a_workload_that_is_deactivated_ends_the_wait_in_plain_words(make()))
def does_not_see_a_deactivation(patch: pytest.MonkeyPatch) -> None:
    right = states._queue_state
    patch.setattr(
        states, "_queue_state",
        lambda *arguments: ("evicted", *right(*arguments)[1:]) if right(*arguments)[0] == "deactivated" else right(*arguments),
    )  # fmt: skip


# -- races, and launchers that come after another


@planted(invariants.ONE_JOB, lambda make: test_races.test_the_job_of_the_next_try_is_not_deleted(make()))
def deletes_whatever_has_the_name(patch: pytest.MonkeyPatch) -> None:
    right = api.Api.delete

    def delete(self: Any, resource: Any, name: str, *, grace: Any = None, **more: Any) -> Any:
        return right(self, resource, name, grace=grace)

    patch.setattr(api.Api, "delete", delete)


@planted(invariants.RECORDED, lambda make: test_races.test_a_view_that_is_behind_writes_no_end_of_the_next_try(make()))
def writes_ends_from_an_old_view(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(actions.Actions, "now", lambda self, view, job: job)


@planted(invariants.NEEDED, lambda make: test_races.test_two_runs_that_note_themselves_at_once_are_both_noted(make()))
def overwrites_what_others_noted(patch: pytest.MonkeyPatch) -> None:
    right = api.Api.patch

    def unconditional(self: Any, resource: Any, name: str, body: Any) -> Any:
        body["metadata"].pop("resourceVersion", None)
        return right(self, resource, name, body)

    patch.setattr(api.Api, "patch", unconditional)


@planted(
    "races", lambda make: test_races.test_a_job_that_another_launcher_has_just_made_is_adopted(make()), longest=1500
)
def takes_a_job_that_is_there_for_a_refusal(patch: pytest.MonkeyPatch) -> None:
    right = api.Api.create

    def create(self: Any, resource: Any, body: Any) -> Any:
        try:
            return right(self, resource, body)
        except refusals.AlreadyExists as error:
            raise refusals.Refused(str(error)) from None

    patch.setattr(api.Api, "create", create)


@planted(
    "races",
    lambda make: test_races.test_a_job_that_is_gone_as_soon_as_it_is_made_is_made_again(make()),
    longest=1500,
)
def believes_for_ever_that_what_it_made_is_there(patch: pytest.MonkeyPatch) -> None:
    right = entry.Entry.shown

    def shown(self: Any, now: float, *seen: Any) -> Any:
        self.fresh_until = 1e18
        return right(self, now, *seen)

    patch.setattr(entry.Entry, "shown", shown)


@planted(invariants.ONE_JOB, lambda make: test_launchers.test_another_generation_has_a_job_of_its_own(make()))
def names_all_generations_alike(patch: pytest.MonkeyPatch) -> None:
    right = request.job_name
    patch.setattr(request, "job_name", lambda kind, key, generation: right(kind, key, 1))
    patch.setattr(entry, "check", lambda *arguments: None)


@planted("machines", lambda make: test_machines.test_the_next_launcher_knows_the_machine_of_the_last_try(make))
def forgets_machines_with_its_process(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(launcher, "read_said", lambda run, node: None)


@planted("server", lambda make: test_queues.test_no_quota_for_objects_is_waited_for(make()), longest=2000)
def asks_for_quota_without_a_pause(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(api.Backoff, "failed", lambda self, now, at_least=0.0: 0.2)


@planted("server", lambda make: test_server_troubles.test_a_missing_crd_ends_the_requests_of_its_kind_alone(make()))
def ends_all_for_want_of_one_crd(patch: pytest.MonkeyPatch) -> None:
    right = launcher.Launcher._give_up

    def give_up(self: Any, resource: Any, error: Any) -> None:
        self._needs = lambda entry: {resource}
        right(self, resource, error)

    patch.setattr(launcher.Launcher, "_give_up", give_up)


@planted("states", lambda make: test_what_conditions_say.test_a_dask_cluster_that_is_swept_is_the_own_one(make()))
def sweeps_every_dask_cluster(patch: pytest.MonkeyPatch) -> None:
    right = api.Api.list
    swept = (kinds.DASKCLUSTER, kinds.DEPLOYMENT, kinds.SERVICE)

    def everything(self: Any, resource: Any, selector: str = "", limit: int = 250) -> Any:
        return right(self, resource, "" if resource in swept else selector, limit)

    patch.setattr(api.Api, "list", everything)


@planted("server", lambda make: test_launchers.test_another_engine_at_the_key_is_waited_for(make()))
def counts_a_lease_that_is_held_against_the_stage(patch: pytest.MonkeyPatch) -> None:
    right = verdict._counts
    patch.setattr(verdict, "_counts", lambda one: right(dataclasses.replace(one, held=False)))


@planted(
    invariants.CANCEL,
    lambda make: test_launchers.test_when_all_runs_that_need_a_job_are_cancelled_it_goes(make()),
    longest=600,
)
def takes_cancelled_runs_for_needy(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(launcher, "still_need", lambda store, runs, key: list(runs))


@planted(
    "states", lambda make: test_what_conditions_say.test_a_dask_cluster_that_its_operator_left_behind_is_swept(make())
)
def leaves_what_an_operator_left(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(actions.Actions, "sweep", lambda self, name: True)


@planted(invariants.RECORDED, lambda make: test_ordinary_ways.test_ranges_of_parts_then_one_pod_that_commits(make()))
def takes_one_range_for_all(patch: pytest.MonkeyPatch) -> None:
    def after_the_first(whole: Any, tries: Any) -> Any:
        made = any(one.parts and one.outcome in ("done", "cached") for one in tries)
        return whole.closing() if whole.parts and made else whole

    patch.setattr(entry, "next_request", after_the_first)


@planted(
    invariants.RECORDED,
    lambda make: test_ordinary_ways.test_a_try_that_failed_is_followed_by_another(make, "torchjob", "pytorchjob"),
)
def numbers_every_try_alike(patch: pytest.MonkeyPatch) -> None:
    right = entry.build
    patch.setattr(entry, "build", lambda *given, attempt=1, **more: right(*given, attempt=1, **more))


def _impatient(patch: pytest.MonkeyPatch, name: str) -> None:
    from tests.cluster import world

    patch.setattr(world, "PATIENCE", {**world.PATIENCE, name: 0.001})


@planted("machines", lambda make: test_machines.test_a_launchers_clock_may_be_wrong(make(), 3000.0), longest=3000)
def takes_its_own_clock_for_the_servers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(api.Api, "_measure", lambda self, date, asked: None)


@planted("machines", lambda make: test_machines.test_a_launchers_clock_may_be_wrong(make(), -3000.0), longest=3000)
def waits_by_a_clock_that_is_behind(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(api.Api, "_measure", lambda self, date, asked: None)


@planted("machines", lambda make: test_machines.test_a_node_that_is_silent_is_said_before_its_pods_are_told_to_go(make))
def does_not_say_that_a_node_is_silent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pod_states, "_is_silent", lambda conditions, statuses: False)


@planted("machines", lambda make: test_machines.test_an_image_that_comes_late_is_waited_for(make()))
def gives_an_image_no_time(patch: pytest.MonkeyPatch) -> None:
    _impatient(patch, "image_pull_seconds")


@planted("machines", lambda make: test_machines.test_room_that_comes_late_is_waited_for(make))
def gives_the_scheduler_no_time(patch: pytest.MonkeyPatch) -> None:
    _impatient(patch, "unschedulable_seconds")
