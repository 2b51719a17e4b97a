"""Conditions, deletions and disappearances are no verdicts: the store is."""

import pytest

from tests.cluster.conftest import finish, follow
from tests.cluster.invariants import Invariants
from tests.cluster.stage import End, Script, commit
from tests.cluster.world import NAMESPACE, Asked, World


def _begun(world: World, asked: Asked, seconds: float = 100.0) -> tuple[Invariants, object]:
    look = Invariants(world, [asked])
    launching = world.launcher(asked)
    world.until(lambda: world.running(asked.key), 600)
    world.go(seconds)
    return look, launching


def _to_the_end(world: World, asked: Asked, look: Invariants, launching: object, lost: int = 0) -> object:
    world.until(lambda: asked.key in launching.ended, 7200)  # type: ignore[attr-defined]
    end = launching.ended[asked.key]  # type: ignore[attr-defined]
    finish(world, look, {asked: end}, lost=lost)
    return end


def test_one_worker_that_is_through_makes_an_elastic_job_succeeded(world: World) -> None:
    """The other still works; the operator stops it (cleanPodPolicy Running) before it has committed."""
    asked = world.ask("node", replicas=2, gpu=4)
    look, launching = _begun(world, asked)
    rank1 = next(one for one in world.kubelet.processes.values() if one.rank == 1)
    rank1._die(0, "")
    world.go(60)
    assert asked.key not in launching.ended
    assert _to_the_end(world, asked, look, launching, lost=2).outcome == "done"
    assert len(world.records(asked)) == 2


def test_succeeded_without_an_artifact_is_no_success(world: World) -> None:
    asked = world.ask("node", script=Script(ends=(End("silent", 100), End())))
    assert follow(world, asked, lost=1)[asked.key].outcome == "done"
    assert len(world.records(asked)) == 2
    first = world.records(asked)[0].outcome
    assert first["outcome"] not in ("done", "cached")


def test_always_succeeded_and_never_made_comes_to_an_end(world: World) -> None:
    asked = world.ask("node", script=Script(ends=(End("silent", 100),)))
    assert follow(world, asked, lost=9)[asked.key].outcome not in ("done", "cached")


@pytest.mark.parametrize("how", ["commit_fail", "commit_hang"])
def test_what_is_committed_is_done_whatever_becomes_of_the_job(world: World, how: str) -> None:
    asked = world.ask("node", replicas=2, gpu=4, script=Script(200, ends=(End(how),)))
    look = Invariants(world, [asked])
    launching = world.launcher(asked)
    world.until(lambda: world.store.has(asked.key), 1200)
    made = world.clock.now()
    assert _to_the_end(world, asked, look, launching).outcome == "done"
    assert world.clock.now() - made < 400
    world.pass_time(asked.request.resources.grace_seconds + 120.0)
    assert not world.holding(asked.key)


def test_a_key_that_another_engine_commits_ends_the_wait(world: World) -> None:
    asked = world.ask("node", script=Script(seconds=3000))
    look, launching = _begun(world, asked)
    commit(world.store, asked.key, {})
    world.until(lambda: asked.key in launching.ended, 300)
    assert launching.ended[asked.key].outcome in ("done", "cached")
    world.pass_time(200)
    assert not world.holding(asked.key)
    assert not look.broken


def test_a_job_that_failed_before_this_launcher_came_is_not_adopted(world: World) -> None:
    asked = world.ask("node", script=Script(ends=(End("try_again", 100), End())))
    look, launching = _begun(world, asked, 20)
    world.crash(launching)
    world.pass_time(200)
    assert world.jobs(asked.key)
    again = world.launcher(asked)
    assert _to_the_end(world, asked, look, again, lost=1).outcome == "done"
    assert world.outcomes(asked) == ["try_again", "done"]


@pytest.mark.parametrize("kind", ["torchjob", "container", "daskjob"])
def test_a_job_that_somebody_deletes_is_made_again(world: World, kind: str) -> None:
    asked = world.ask("node", kind=kind)
    look, launching = _begun(world, asked)
    world.delete_job(asked.key)
    world.go(30)
    assert asked.key not in launching.ended
    assert _to_the_end(world, asked, look, launching, lost=1).outcome == "done"


def test_a_failed_job_that_its_ttl_takes_away_is_tried_again(world: World) -> None:
    """Nobody looks while the job fails and disappears."""
    asked = world.ask("node", script=Script(ends=(End("crash", 150), End())))
    look, launching = _begun(world, asked, 20)
    world.crash(launching)
    job = world.jobs(asked.key)[0]
    patch = {"spec": {"runPolicy": {"ttlSecondsAfterFinished": 30}}}
    world.door.patch("pytorchjobs.kubeflow.org", NAMESPACE, job["metadata"]["name"], patch)
    world.pass_time(300)
    assert not world.jobs(asked.key)
    again = world.launcher(asked)
    assert _to_the_end(world, asked, look, again, lost=1).outcome == "done"
    assert len(world.records(asked)) == 2


def test_a_finished_indexed_job_that_its_ttl_takes_away(world: World) -> None:
    asked = world.ask("node", kind="container", script=Script(ends=(End("silent", 100), End())))
    look, launching = _begun(world, asked, 20)
    world.crash(launching)
    job = world.jobs(asked.key)[0]
    world.door.patch("jobs.batch", NAMESPACE, job["metadata"]["name"], {"spec": {"ttlSecondsAfterFinished": 30}})
    world.pass_time(300)
    assert not world.jobs(asked.key)
    again = world.launcher(asked)
    assert _to_the_end(world, asked, look, again, lost=1).outcome == "done"


def test_pods_that_outlive_their_failed_job_hold_the_next_try_back(world: World) -> None:
    """cleanPodPolicy None, as somebody may set it: rank 0 works on while its job is Failed."""
    asked = world.ask("node", replicas=2, gpu=4, script=Script(heeds=False))
    look, launching = _begun(world, asked, 20)
    job = world.jobs(asked.key)[0]
    patch = {"spec": {"runPolicy": {"cleanPodPolicy": "None"}}}
    world.door.patch("pytorchjobs.kubeflow.org", NAMESPACE, job["metadata"]["name"], patch)
    next(one for one in world.kubelet.processes.values() if one.rank == 1)._die(1, "")
    assert _to_the_end(world, asked, look, launching, lost=2).outcome == "done"


def test_a_daskjob_whose_runner_is_deleted_stays_running_for_ever(world: World) -> None:
    asked = world.ask("node", kind="daskjob", replicas=2, gpu=1)
    look, launching = _begun(world, asked)
    runner = next(pod for pod in world.pods(asked.key) if pod["metadata"]["name"].endswith("-runner"))
    world.door.delete("pods", NAMESPACE, runner["metadata"]["name"])
    assert _to_the_end(world, asked, look, launching, lost=1).outcome == "done"
    assert len(world.records(asked)) == 2


def test_a_daskjob_whose_cluster_is_gone_never_says_that_it_ended(world: World) -> None:
    asked = world.ask("node", kind="daskjob", replicas=1, gpu=1, script=Script(ends=(End("try_again", 200), End())))
    look, launching = _begun(world, asked, 50)
    for cluster in world.door.all("daskclusters.kubernetes.dask.org", NAMESPACE):
        world.door.delete("daskclusters.kubernetes.dask.org", NAMESPACE, cluster["metadata"]["name"])
    assert _to_the_end(world, asked, look, launching, lost=2).outcome == "done"


def test_a_dask_cluster_that_is_swept_is_the_own_one(world: World) -> None:
    asked = world.ask("bad", kind="daskjob", gpu=1, script=Script(ends=(End("crash", 60), End())))
    other = world.ask("good", kind="daskjob", gpu=1, script=Script(seconds=900))
    look = Invariants(world, [asked, other])
    launching = world.launcher(asked, other)
    world.until(lambda: world.running(other.key), 600)
    own = other.request.name(world.settings)
    before = world.door.find("daskclusters.kubernetes.dask.org", NAMESPACE, own)
    world.until(lambda: len(world.records(asked)) == 2, 600)
    assert world.door.find("daskclusters.kubernetes.dask.org", NAMESPACE, own) == before is not None
    world.until(lambda: len(launching.ended) == 2, 3600)
    finish(world, look, {one: launching.ended[one.key] for one in (asked, other)}, lost=1)
    assert world.outcomes(other) == ["done"]


def test_a_dask_cluster_that_its_operator_left_behind_is_swept(world: World) -> None:
    asked = world.ask("node", kind="daskjob", gpu=1)
    look, launching = _begun(world, asked)
    clusters = "daskclusters.kubernetes.dask.org"
    for cluster in world.door.all(clusters, NAMESPACE):
        world.door.patch(clusters, NAMESPACE, cluster["metadata"]["name"], {"metadata": {"ownerReferences": None}})
    before = {one["metadata"]["uid"] for one in world.door.all(clusters, NAMESPACE)}
    world.delete_job(asked.key)
    world.until(lambda: world.jobs(asked.key), 600)
    assert not before & {one["metadata"]["uid"] for one in world.door.all(clusters, NAMESPACE)}
    assert _to_the_end(world, asked, look, launching, lost=1).outcome == "done"  # type: ignore[attr-defined]
    assert not world.door.all(clusters, NAMESPACE)
    assert not world.holding(asked.key)
