"""The model server under the official client: what a real API server does, it does."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client, watch
from kubernetes.client.exceptions import ApiException

from tests.cluster.server.api import Api
from tests.cluster.server.faults import Faults
from tests.cluster.server.http import HttpServer
from tests.cluster.server.storage import Key, Storage

NOW = [1_800_000_000.0]
JOB = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "job"}, "spec": {"a": 1}}
WHERE = {"group": "kubeflow.org", "version": "v1", "namespace": "default", "plural": "pytorchjobs"}


@pytest.fixture
def server() -> Iterator[HttpServer]:
    storage = Storage()
    storage.put(Key("namespaces", "", "default"), {"metadata": {"name": "default", "uid": "u"}})
    found = HttpServer(Api(storage, lambda: NOW[0], random.Random(0)), Faults(random.Random(0)), streams=False).start()
    yield found
    found.stop()


@pytest.fixture
def connection(server: HttpServer) -> client.ApiClient:
    settings = client.Configuration(host=server.url)
    settings.retries = False
    return client.ApiClient(settings)


@pytest.fixture
def core(connection: client.ApiClient) -> client.CoreV1Api:
    return client.CoreV1Api(connection)


@pytest.fixture
def custom(connection: client.ApiClient) -> client.CustomObjectsApi:
    return client.CustomObjectsApi(connection)


def pod(name: str = "", **metadata: Any) -> dict[str, Any]:
    named = {"name": name} if name else {"generateName": "pod-"}
    spec = {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 30}
    return {"metadata": {**named, **metadata}, "spec": spec}


def refused(call: Any, *arguments: Any, **more: Any) -> ApiException:
    with pytest.raises(ApiException) as error:
        call(*arguments, **more)
    return error.value


def test_create_names_and_numbers(core: client.CoreV1Api) -> None:
    made = [core.create_namespaced_pod("default", pod()) for _ in range(3)]
    assert len({one.metadata.name for one in made}) == len({one.metadata.uid for one in made}) == 3
    versions = [int(one.metadata.resource_version) for one in made]
    assert versions == sorted(set(versions))
    assert made[0].status.phase == "Pending"
    core.create_namespaced_pod("default", pod("twice"))
    error = refused(core.create_namespaced_pod, "default", pod("twice"))
    assert error.status == 409
    assert "AlreadyExists" in error.body
    assert refused(core.create_namespaced_pod, "default", {"metadata": {}, "spec": {}}).status == 422
    assert refused(core.create_namespaced_pod, "nowhere", pod("p")).status == 404


def test_updates_of_what_was_changed_meanwhile_are_refused(custom: client.CustomObjectsApi) -> None:
    made = custom.create_namespaced_custom_object(**WHERE, body=JOB)
    changed = custom.replace_namespaced_custom_object(**WHERE, name="job", body={**made, "spec": {"a": 2}})
    assert changed["metadata"]["generation"] == 2
    assert (
        refused(custom.replace_namespaced_custom_object, **WHERE, name="job", body={**made, "spec": {"a": 3}}).status
        == 409
    )
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"], "labels": {"a": "b"}}}
    assert refused(custom.patch_namespaced_custom_object, **WHERE, name="job", body=stale).status == 409
    without = {**changed, "metadata": {"name": "job"}}
    assert refused(custom.replace_namespaced_custom_object, **WHERE, name="job", body=without).status == 422


def test_status_is_written_by_its_subresource_alone(custom: client.CustomObjectsApi) -> None:
    custom.create_namespaced_custom_object(**WHERE, body={**JOB, "status": {"lies": True}})
    custom.patch_namespaced_custom_object(**WHERE, name="job", body={"status": {"lies": True}, "spec": {"a": 7}})
    found = custom.get_namespaced_custom_object(**WHERE, name="job")
    assert (found["spec"], found.get("status")) == ({"a": 7}, {})
    custom.patch_namespaced_custom_object_status(**WHERE, name="job", body={"status": {"true": 1}, "spec": {"a": 8}})
    found = custom.get_namespaced_custom_object(**WHERE, name="job")
    assert (found["spec"], found["status"]) == ({"a": 7}, {"true": 1})


def test_three_ways_to_patch(core: client.CoreV1Api, connection: client.ApiClient) -> None:
    core.create_namespaced_pod("default", pod("p", labels={"a": "1", "b": "2"}, finalizers=["x/y"]))

    def patch(way: str, body: Any, path: str = "/api/v1/namespaces/default/pods/p") -> Any:
        return connection.call_api(
            path,
            "PATCH",
            body=body,
            header_params={"Content-Type": way},
            response_type="object",
            _return_http_data_only=True,
        )

    found = patch("application/merge-patch+json", {"metadata": {"labels": {"a": None}, "finalizers": ["v/w"]}})
    assert (found["metadata"]["labels"], found["metadata"]["finalizers"]) == ({"b": "2"}, ["v/w"])
    found = patch("application/json-patch+json", [{"op": "add", "path": "/metadata/labels/c", "value": "3"}])
    assert found["metadata"]["labels"] == {"b": "2", "c": "3"}
    more = {
        "metadata": {"finalizers": ["x/y"]},
        "spec": {"containers": [{"name": "c", "image": "j"}, {"name": "d", "image": "k"}]},
    }
    found = patch("application/strategic-merge-patch+json", more)
    assert found["metadata"]["finalizers"] == ["v/w", "x/y"]
    assert [one["image"] for one in found["spec"]["containers"]] == ["j", "k"]
    assert refused(patch, "application/json-patch+json", [{"op": "test", "path": "/spec", "value": 1}]).status == 422
    jobs = "/apis/kubeflow.org/v1/namespaces/default/pytorchjobs"
    connection.call_api(jobs, "POST", body=JOB)
    assert refused(patch, "application/strategic-merge-patch+json", {}, f"{jobs}/job").status == 415


def test_deletion_has_preconditions_grace_and_finalizers(core: client.CoreV1Api) -> None:
    first = core.create_namespaced_pod("default", pod("p"))
    wrong = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="another"))
    assert refused(core.delete_namespaced_pod, "p", "default", body=wrong).status == 409
    core.delete_namespaced_pod("p", "default")  # it was on no node: it goes at once
    assert refused(core.read_namespaced_pod, "p", "default").status == 404
    again = core.create_namespaced_pod("default", pod("p", finalizers=["x/y"]))
    assert again.metadata.uid != first.metadata.uid
    core.patch_namespaced_pod("p", "default", {"spec": {"nodeName": "n"}})
    core.delete_namespaced_pod("p", "default")
    held = core.read_namespaced_pod("p", "default").metadata
    assert held.deletion_timestamp.timestamp() == NOW[0] + 30
    core.delete_namespaced_pod("p", "default", grace_period_seconds=0)
    assert core.read_namespaced_pod("p", "default").metadata.deletion_grace_period_seconds == 0
    core.patch_namespaced_pod("p", "default", {"metadata": {"finalizers": None}})
    assert refused(core.read_namespaced_pod, "p", "default").status == 404


def test_a_job_that_is_deleted_without_a_policy_orphans(connection: client.ApiClient) -> None:
    batch = client.BatchV1Api(connection)
    body = {"metadata": {"name": "j"}, "spec": {"template": {"spec": pod()["spec"]}}}
    batch.create_namespaced_job("default", body)
    batch.delete_namespaced_job("j", "default")
    assert batch.read_namespaced_job("j", "default").metadata.finalizers == ["orphan"]


def test_pages_selectors_and_a_list_that_is_forgotten(core: client.CoreV1Api, server: HttpServer) -> None:
    for number in range(7):
        core.create_namespaced_pod("default", pod(f"p{number}", labels={"n": str(number), "odd": str(number % 2)}))
    first = core.list_namespaced_pod("default", limit=3)
    core.create_namespaced_pod("default", pod("p9"))  # later than the list
    core.delete_namespaced_pod("p4", "default")
    rest = core.list_namespaced_pod("default", limit=10, _continue=first.metadata._continue)
    assert [one.metadata.name for one in first.items + rest.items] == [f"p{number}" for number in range(7)]
    server.api.storage.compact()
    core.create_namespaced_pod("default", pod("p8"))
    assert refused(core.list_namespaced_pod, "default", limit=1, _continue=first.metadata._continue).status == 410

    def named(**more: str) -> list[str]:
        return [one.metadata.name for one in core.list_namespaced_pod("default", **more).items]

    assert named(label_selector="odd=1,n notin (3,5)") == ["p1"]
    assert named(label_selector="n in (1, 2)") == ["p1", "p2"]
    assert named(label_selector="!n") == ["p8", "p9"]
    assert named(field_selector="metadata.name=p3") == ["p3"]
    assert refused(core.list_namespaced_pod, "default", label_selector="a b c").status == 400


def test_watches(core: client.CoreV1Api, server: HttpServer) -> None:
    start = core.list_namespaced_pod("default").metadata.resource_version
    core.create_namespaced_pod("default", pod("p", labels={"a": "1"}))
    core.patch_namespaced_pod("p", "default", {"metadata": {"labels": {"a": "2"}}})
    core.create_namespaced_pod("default", pod("q"))
    core.delete_namespaced_pod("p", "default")

    def seen(**more: Any) -> list[tuple[str, str]]:
        options = {"resource_version": start, "timeout_seconds": 1, **more}
        found = []
        for event in watch.Watch().stream(core.list_namespaced_pod, "default", **options):
            found.append((event["type"], event["raw_object"]["metadata"].get("name", "")))
            if len(found) == more.get("limit_of_test", 99):
                break
        return found

    assert seen()[:4] == [("ADDED", "p"), ("MODIFIED", "p"), ("ADDED", "q"), ("DELETED", "p")]
    assert seen(label_selector="a=1")[:2] == [("ADDED", "p"), ("DELETED", "p")], "it left the selector"
    assert ("BOOKMARK", "") in seen(allow_watch_bookmarks=True)
    server.api.storage.compact()
    for way in ("http", "event"):
        server.faults.gone_as = way
        assert refused(seen).status == 410


def test_what_goes_wrong_on_purpose(core: client.CoreV1Api, server: HttpServer) -> None:
    server.faults.plan("429", "list")
    error = refused(core.list_namespaced_pod, "default")
    assert (error.status, error.headers["Retry-After"]) == (429, "1")
    for code in ("500", "503", "504"):
        server.faults.plan(code)
        assert refused(core.list_namespaced_pod, "default").status == int(code)
    server.faults.plan("lost", "create")
    with pytest.raises(Exception, match="Connection"):
        core.create_namespaced_pod("default", pod("p"))
    assert core.read_namespaced_pod("p", "default")
    server.faults.plan("drop", "create")
    with pytest.raises(Exception, match="Connection"):
        core.create_namespaced_pod("default", pod("q"))
    assert refused(core.read_namespaced_pod, "q", "default").status == 404


def test_who_may_what(core: client.CoreV1Api, custom: client.CustomObjectsApi, server: HttpServer) -> None:
    server.forbidden.add(("create", "pytorchjobs.kubeflow.org"))
    error = refused(custom.create_namespaced_custom_object, **WHERE, body=JOB)
    assert error.status == 403
    assert 'cannot create resource "pytorchjobs" in API group "kubeflow.org"' in json.loads(error.body)["message"]
    review = {"spec": {"resourceAttributes": {"verb": "create", "resource": "pytorchjobs", "group": "kubeflow.org"}}}
    authorization = client.AuthorizationV1Api(core.api_client)
    assert authorization.create_self_subject_access_review(review).status.allowed is False
    server.forbidden.clear()
    assert authorization.create_self_subject_access_review(review).status.allowed is True
    server.api.quota["pytorchjobs.kubeflow.org"] = 0
    assert "exceeded quota" in refused(custom.create_namespaced_custom_object, **WHERE, body=JOB).body
    server.api.installed.discard("pytorchjobs.kubeflow.org")
    error = refused(custom.list_namespaced_custom_object, **WHERE)
    assert (error.status, error.body.strip()) == (404, "404 page not found")
    server.token = "secret"
    assert refused(core.list_namespaced_pod, "default").status == 401


def test_an_eviction_tells_why(core: client.CoreV1Api) -> None:
    core.create_namespaced_pod("default", pod("p"))
    core.patch_namespaced_pod("p", "default", {"spec": {"nodeName": "n"}})
    core.create_namespaced_pod_eviction("p", "default", {"metadata": {"name": "p", "namespace": "default"}})
    found = core.read_namespaced_pod("p", "default")
    assert found.status.conditions[0].reason == "EvictionByEvictionAPI"
    assert found.metadata.deletion_timestamp is not None


def test_a_restart_keeps_what_is_stored(core: client.CoreV1Api, server: HttpServer) -> None:
    core.create_namespaced_pod("default", pod("p"))
    server.stop()
    with pytest.raises(Exception, match="refused"):
        core.list_namespaced_pod("default", _request_timeout=1)
    server.start()
    assert [one.metadata.name for one in core.list_namespaced_pod("default").items] == ["p"]
