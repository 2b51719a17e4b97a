"""Bugs of a launcher among troubles: watches that end, requests that fail, machines, races, and launchers after another."""

import dataclasses
from typing import Any

import pytest

from tests.cluster import invariants
from tests.cluster.conftest import MakeWorld, follow
from tests.cluster.plants.noted import planted
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
    kinds,
    launcher,
    pod_states,
    refusals,
    request,
    states,
    verdict,
    watch,
)

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
