"""Who waits for whom: the eleventh cluster, in which two teams are at work; from files, and from an API server."""

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipelines.commands.cli import app
from tests.cluster import strict
from tests.cluster.server.api import Api
from tests.cluster.server.faults import Faults
from tests.cluster.server.http import HttpServer
from tests.cluster.server.kinds import BY_KIND
from tests.cluster.server.storage import Key, Storage
from tests.wfm.cluster.quota.jobs import job, workload
from wfm.cluster.quota import gangs, judge, read_cluster
from wfm.cluster.quota.waiting import wait
from wfm.errors import InputError

FILE = Path(__file__).parent / "clusters/11_waiting.yaml"
TOLD: dict[str, Any] = yaml.safe_load(FILE.read_text())
OBJECTS = [*TOLD["objects"], *map(workload, TOLD["workloads"])]


def test_workloads_are_as_kueue_keeps_them():
    assert [fault for each in OBJECTS for fault in strict.faults(each) if "restartPolicy" not in fault] == []


@pytest.mark.parametrize("told", TOLD["jobs"], ids=lambda told: told["name"])
def test_what_waits_for_what(told):
    cluster = read_cluster(OBJECTS)
    (gang,) = gangs([job(told)], None)
    found = wait(judge(gang, cluster), cluster)
    assert found.state == told["now"], found
    for name in ("ahead", "preempts"):
        if name in told:
            assert sorted(getattr(found, name)) == sorted(told[name]), found
    assert all(each in "; ".join(found.why) for each in told.get("says", ())), found


def test_what_others_hold_counts_where_the_queue_alone_tells_of_it():
    """An account that may not list workloads of other namespaces reads the queue's own status."""
    hidden = {"flavorsReservation": [{"name": "gpu", "resources": [{"name": "nvidia.com/gpu", "total": "3"}]}]}
    objects = [{**each, "status": hidden} if each["metadata"]["name"] == "apart" else each for each in OBJECTS]
    assert [fault for each in objects for fault in strict.faults(each) if "flavorsReservation" in fault] == []
    told = next(each for each in TOLD["jobs"] if each["name"] == "alone")
    (gang,) = gangs([job(told)], None)
    cluster = read_cluster(objects)
    found = wait(judge(gang, cluster), cluster)
    assert found.state == "waits"
    assert "nvidia.com/gpu 3 is missing (flavor gpu)" in found.why


@pytest.fixture
def server() -> Iterator[HttpServer]:
    storage = Storage()
    storage.put(Key("namespaces", "", "wfm"), {"metadata": {"name": "wfm", "uid": "u"}})
    for each in OBJECTS:
        row = BY_KIND[each["apiVersion"], each["kind"]]
        namespace = each["metadata"].get("namespace", "") if row.namespaced else ""
        kept = {**each, "metadata": {**each["metadata"], "uid": each["metadata"]["name"]}}
        storage.put(Key(row.name, namespace, each["metadata"]["name"]), kept)
    found = HttpServer(Api(storage, lambda: 1_800_000_000.0, Random(0)), Faults(Random(0)), streams=False).start()
    yield found
    found.stop()


def ask(server: HttpServer, tmp_path: Path, *words: str) -> tuple[int, str, str]:
    jobs = tmp_path / "jobs.json"
    jobs.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(map(job, TOLD["jobs"]))}))
    settings = tmp_path / "cluster.json"
    settings.write_text(json.dumps({"namespace": "wfm", "queue": "ours"}))
    asked = ["quota", "--online", "--api", server.url, "--manifests", str(jobs), "--cluster", str(settings), *words]
    done = CliRunner().invoke(app, asked)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_a_cluster_is_asked_and_nothing_in_it_changed(server, tmp_path):
    code, text, notes = ask(server, tmp_path, "--json")
    assert code == 78, "one of them can never be admitted, another is put out for good"
    found = {each["job"]: each for each in json.loads(text)["stages"]}
    for told in TOLD["jobs"]:
        row = found[told["name"]]
        assert (row["state"], row["now"]["state"]) == (told["expected"], told["now"]), row
        assert all(sorted(row["now"][name]) == sorted(told[name]) for name in ("ahead", "preempts") if name in told), (
            row
        )
    assert {verb for verb, resource, _ in server.requests if resource} == {"list"}
    assert "admissionchecks.kueue.x-k8s.io is left out" in notes, "which this server does not know"


def test_who_may_not_see_workloads_is_told_so_and_no_more(server, tmp_path):
    server.forbidden = {("list", "workloads.kueue.x-k8s.io")}
    code, text, notes = ask(server, tmp_path, "--json")
    assert code == 78
    assert all(each["now"] is None for each in json.loads(text)["stages"])
    assert "workloads.kueue.x-k8s.io is left out" in notes


def test_without_kueue_there_is_nothing_to_tell(server, tmp_path):
    server.forbidden = {("list", "*")}
    with pytest.raises(InputError, match="no ClusterQueue, ResourceQuota, LimitRange or Node"):
        ask(server, tmp_path)


@pytest.mark.parametrize(("used", "state"), [(None, "none"), ("8", "free"), ("9", "waits")])
def test_without_a_queue_it_waits_for_the_quota_of_its_namespace(used, state):
    quota: dict[str, Any] = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "wfm"}}
    quota |= {"spec": {"hard": {"requests.nvidia.com/gpu": "16"}}}
    quota |= {"status": {"used": {"requests.nvidia.com/gpu": used}}} if used else {}
    cluster = read_cluster([quota])
    (gang,) = gangs([job({"name": "j", "kind": "PyTorchJob", "pods": 1, "requests": {"nvidia.com/gpu": 8}})], None)
    found = wait(judge(gang, cluster), cluster)
    assert found.state == state
    says = "has requests.nvidia.com/gpu 16, 9 of it in use; 8 is asked for"
    assert (state == "waits") == any(says in why for why in found.why)


def test_a_queue_that_says_it_is_not_active_holds():
    told = {"type": "Active", "status": "False", "reason": "X", "message": "AdmissionCheck is inactive"}
    status = {"status": {"conditions": [told]}}
    objects = [{**each, **status} if each["kind"] == "ClusterQueue" else each for each in OBJECTS]
    (gang,) = gangs([job(TOLD["jobs"][0])], None)
    found = judge(gang, read_cluster(objects))
    assert (found.state, found.reasons) == ("held", ("ClusterQueue ours is not active: AdmissionCheck is inactive",))


def test_workers_of_dask_are_counted_one_by_one():
    """Each is a Workload of its own, named after its pod."""
    told = {"name": "d", "kind": "DaskJob", "queue": "apart", "pods": 3, "requests": {"nvidia.com/gpu": 1}}
    one = {"queue": "apart", "gpus": 1, "priority": 0, "since": "2026-11-30T08:00:00Z"}
    (gang,) = gangs([job(told)], None)
    for there, state in ((2, "free"), (3, "admitted")):
        several = [workload({**one, "job": f"d-default-worker-{number}"}) for number in range(there)]
        cluster = read_cluster([*TOLD["objects"], *several])
        found = wait(judge(gang, cluster), cluster)
        assert found.state == state
        assert there == 3 or "2 of its 3 workloads have their quota" in found.why
