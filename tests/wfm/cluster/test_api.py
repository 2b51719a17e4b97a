"""Every refusal of an API server in words, over the official client and real HTTP."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.wfm.cluster.raw_server import Asked, served, status, whole
from wfm.cluster import refusals
from wfm.cluster.api import Api, Backoff
from wfm.cluster.kinds import JOB, POD, PYTORCHJOB
from wfm.cluster.refusals import meaning
from wfm.errors import InputError, TryAgain

FORBIDDEN = (
    'pytorchjobs.kubeflow.org is forbidden: User "system:serviceaccount:wfm:launcher" cannot create resource "pytorchjobs" '
    'in API group "kubeflow.org" in the namespace "wfm"'
)
QUOTA = 'pods "x" is forbidden: exceeded quota: team, requested: requests.nvidia.com/gpu=8, used: 56, limited: 56'


def said(code: int, reason: str, message: str, **more: Any) -> bytes:
    return json.dumps({"kind": "Status", "code": code, "reason": reason, "message": message, **more}).encode()


@pytest.mark.parametrize(
    ("code", "body", "name", "kind", "words"),
    [
        (403, said(403, "Forbidden", FORBIDDEN), "", refusals.Forbidden,
         ["no permission", "launcher", "may not create pytorchjobs.kubeflow.org", "namespace 'wfm'", "the verb 'create'"]),
        (403, said(403, "Forbidden", QUOTA), "", refusals.QuotaExceeded, ["waiting for quota", "limited: 56"]),
        (401, said(401, "Unauthorized", "Unauthorized"), "", refusals.Forbidden,
         ["does not know this account", "log in again"]),
        (404, b"404 page not found\n", "", refusals.NoSuchResource, ["does not know PyTorchJob", "CRD is not installed"]),
        (404, said(404, "NotFound", "the server could not find the requested resource"), "x", refusals.NoSuchResource, ["CRD"]),
        (404, said(404, "NotFound", 'pytorchjobs.kubeflow.org "x" not found'), "x", refusals.NotFound, ["no pytorchjobs"]),
        (404, said(404, "NotFound", 'namespaces "wfm" not found', details={"kind": "namespaces"}), "", refusals.NoSuchResource,
         ["no namespace 'wfm'", "create it"]),
        (409, said(409, "AlreadyExists", "x already exists"), "x", refusals.AlreadyExists, ["there already"]),
        (409, said(409, "Conflict", "the object has been modified"), "x", refusals.Conflict, ["changed meanwhile"]),
        (410, said(410, "Expired", "too old resource version"), "", refusals.Gone, ["too old"]),
        (422, said(422, "Invalid", "spec.replicas: must be positive"), "", refusals.Refused, ["spec.replicas"]),
        (400, b"<html>a proxy</html>", "", refusals.Refused, ["a proxy"]),
        (429, said(429, "TooManyRequests", "slow down"), "", refusals.Busy, ["429"]),
        (500, said(500, "InternalError", "failed calling webhook"), "", refusals.Busy, ["webhook"]),
        (503, b"upstream connect error", "", refusals.Busy, ["upstream"]),
        (504, said(504, "Timeout", "etcd"), "", refusals.Busy, ["504"]),
    ],
)  # fmt: skip
def test_a_refusal_in_words(code: int, body: bytes, name: str, kind: type, words: list[str]) -> None:
    found = meaning(code, {}, body, "create", PYTORCHJOB, "wfm", name)
    assert type(found) is kind
    for word in words:
        assert word in str(found)


def test_only_what_passes_is_tried_again() -> None:
    passing = {refusals.Busy, refusals.QuotaExceeded}
    final = {refusals.Forbidden, refusals.NoSuchResource, refusals.Refused}
    assert all(issubclass(one, TryAgain) for one in passing)
    assert all(issubclass(one, InputError) for one in final)


def test_retry_after_is_heard_and_bounded() -> None:
    assert meaning(429, {"Retry-After": "7"}, b"", "list", POD, "x").retry_after == 7  # type: ignore[attr-defined]
    assert meaning(429, {"retry-after": "999999"}, b"", "list", POD, "x").retry_after == 600  # type: ignore[attr-defined]
    assert meaning(503, {"Retry-After": "Fri, 01 Jan"}, b"", "list", POD, "x").retry_after == 0  # type: ignore[attr-defined]


def test_a_429_is_asked_once_and_waits_by_the_callers_clock() -> None:
    """The client's own retries would sleep here, and ask again."""
    with served(lambda asked: iter([whole({}, 429, Retry_After="30")])) as (url, asked):
        with pytest.raises(refusals.Busy) as caught:
            Api.connect(namespace="wfm", url=url).get(JOB, "x")
        assert caught.value.retry_after == 30
        assert len(asked) == 1


def test_lists_come_in_pages_and_begin_anew_when_forgotten() -> None:
    forgotten = []

    def answer(asked: Asked) -> Any:
        token = asked.query.get("continue")
        if token is None:
            yield whole(
                {"metadata": {"resourceVersion": "5", "continue": "more"}, "items": [{"metadata": {"name": "a"}}]}
            )
        elif not forgotten:
            forgotten.append(token)
            yield status(410, "Expired", "The provided continue parameter is too old")
        else:
            yield whole({"metadata": {"resourceVersion": "6"}, "items": [{"metadata": {"name": "b"}}]})

    with served(answer) as (url, asked):
        found = Api.connect(namespace="wfm", url=url).list(POD, "wfm.dev/job", limit=1)
    assert [one["metadata"]["name"] for one in found.objects] == ["a", "b"]
    assert found.version == "6"
    assert [one.query.get("limit") for one in asked] == ["1"] * 4
    assert {one.query["labelSelector"] for one in asked} == {"wfm.dev/job"}


def test_a_deletion_names_what_it_means() -> None:
    with served(lambda asked: iter([whole({"kind": "Status", "status": "Success"})])) as (url, asked):
        there = Api.connect(namespace="wfm", url=url)
        assert there.delete(JOB, "x", uid="u1", version="7", grace=0)
        assert there.patch(JOB, "x", {"metadata": {"resourceVersion": "7"}})
    assert asked[0].json == {
        "propagationPolicy": "Background", "preconditions": {"uid": "u1", "resourceVersion": "7"}, "gracePeriodSeconds": 0,
    }  # fmt: skip
    assert asked[0].path == "/apis/batch/v1/namespaces/wfm/jobs/x"
    assert asked[1].headers["Content-Type"] == "application/merge-patch+json"


@pytest.mark.parametrize("refusal", [(404, "NotFound", 'jobs "x" not found'), (409, "Conflict", "uid mismatch")])
def test_what_is_gone_or_another_is_not_deleted(refusal: tuple[int, str, str]) -> None:
    with served(lambda asked: iter([status(*refusal)])) as (url, _):
        assert not Api.connect(namespace="wfm", url=url).delete(JOB, "x", uid="u1")


@pytest.mark.parametrize("broken", [b"{nonsense", b"[]", b'"x"', b"[" * 100_000])
def test_an_answer_that_is_none_is_no_verdict(broken: bytes) -> None:
    with served(lambda asked: iter([whole(broken)])) as (url, _), pytest.raises(refusals.Busy):
        Api.connect(namespace="wfm", url=url).get(POD, "x")


def test_an_answer_that_breaks_off_is_no_verdict() -> None:
    with served(lambda asked: iter([whole({"a": 1})[:-3]])) as (url, _), pytest.raises(refusals.Busy):
        Api.connect(namespace="wfm", url=url).get(POD, "x")


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(refusals.Busy, match="does not answer"):
        Api.connect(namespace="wfm", url=url).get(POD, "x")


def test_a_token_that_ran_out_later_passes() -> None:
    """It is about to be replaced; one that never was accepted is wrong."""
    answers = [whole({"kind": "Pod"}), status(401, "Unauthorized", "Unauthorized")]
    with served(lambda asked: iter([answers.pop(0)])) as (url, _):
        there = Api.connect(namespace="wfm", url=url)
        there.get(POD, "x")
        with pytest.raises(refusals.Busy, match="any more"):
            there.get(POD, "x")


def test_no_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(InputError, match=r"no kubeconfig at .*none.*no pod with a service account"):
        Api.connect()


@pytest.mark.parametrize("text", ["", "{", "apiVersion: v1\nkind: Config\n", "- 1\n- 2\n"])
def test_a_kubeconfig_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(InputError, match="cannot be used"):
        Api.connect()


def test_a_kubeconfig_says_where_and_which_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(lambda asked: iter([whole({"kind": "Pod"})])) as (url, asked):
        (tmp_path / "config").write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": "secret-token"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "research"}}],
        }))  # fmt: skip
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
        Api.connect().get(POD, "x")
    assert asked[0].path == "/api/v1/namespaces/research/pods/x"
    assert asked[0].headers["authorization"] == "Bearer secret-token"


def test_waits_grow_have_an_end_and_an_at_least() -> None:
    backoff = Backoff(first=1.0, longest=8.0, patience=100.0)
    assert not backoff.over(0.0)
    waits = [backoff.failed(float(at)) for at in range(6)]
    assert all(0.5 * 2**n <= wait <= 1.5 * 2**n for n, wait in enumerate(waits[:4]))
    assert waits[5] <= 12.0
    assert backoff.failed(6.0, at_least=30.0) == 30.0
    assert not backoff.over(100.0)
    assert backoff.over(101.0)
    backoff.worked()
    assert not backoff.over(1e9)
