"""KFP by its API, against a model of it that plays what was compiled, with real processes and a real store."""

import copy
import dataclasses
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.engines.connection import Server
from pipelines.engines.flow import Times
from pipelines.engines.held_jobs import Jobs
from pipelines.engines.kubeflow.emit import emit
from pipelines.engines.kubeflow.remote import VARIABLES, Kubeflow, connect, looked
from pipelines.engines.remote import Ask
from pipelines.request import Request
from tests.cluster.engines.kfp import KfpServer
from tests.cluster.engines.player import Workbench
from tests.pipelines.engines.argo.compiled import SETTINGS, flow
from wfm.artifacts import Store
from wfm.errors import InputError, TryAgain

TOKEN = "a-token-that-nobody-else-has"
SMOKE = Request("curate", profile="smoke")
Json = dict[str, Any]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", {"fsync": False})


@pytest.fixture(scope="module")
def compiled() -> dict[str, list[Json]]:
    return emit(flow("curate", "smoke", store="s3://bucket/store", times=Times(("0 3 * * *",), "Etc/UTC")), SETTINGS)


@pytest.fixture
def package(compiled: dict[str, list[Json]]) -> Json:
    spec, platform = copy.deepcopy(compiled["pipeline.yaml"])
    return {"pipeline_spec": spec, "platform_spec": platform}


@pytest.fixture
def server(tmp_path: Path, package: Json, monkeypatch: pytest.MonkeyPatch) -> Iterator[KfpServer]:
    """One whose controller does nothing."""
    made = KfpServer(Workbench(tmp_path / "bench", SETTINGS, "kubeflow"), token=TOKEN, plays=False)
    made.upload("curate-smoke", package)
    for name, value in {"KF_PIPELINES_ENDPOINT": made.url, "KF_PIPELINES_TOKEN": TOKEN}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("WFM_CLUSTER", raising=False)
    yield made
    made.close()
    assert made.http.broken == []


def ask(store: Store, run_id: str, request: Request = SMOKE, **more: str) -> Ask:
    return Ask(run_id, request, store.url, **more)


def test_asked_for_twice_it_is_one_run(server: KfpServer, store: Store) -> None:
    kfp = connect()
    name = kfp.submit(ask(store, "first"))
    assert kfp.submit(ask(store, "first")) == name
    assert len(server.runs) == 1
    assert kfp.look("first").address == f"{server.url}/#/runs/details/{name}"
    with pytest.raises(InputError, match=r"something else was asked of it: its dataset is '', now it is 'other'"):
        kfp.submit(ask(store, "first", dataclasses.replace(SMOKE, dataset="other")))
    server.runs[name]["state"] = "FAILED"
    for verb in (kfp.suspend, kfp.resume):
        with pytest.raises(InputError, match="`wfm rerun first` submits what is missing anew"):
            verb("first")


def test_one_that_does_not_end_by_its_mark_is_terminated(server: KfpServer, store: Store) -> None:
    kfp = Kubeflow(Server.here("the API of KFP", VARIABLES), "", Jobs("wfm"), patience=0.2)
    name = kfp.submit(ask(store, "first"))
    server.runs[name]["state"] = "RUNNING"
    assert kfp.suspend("first").startswith(
        "KFP knows no suspend: launchers of first that it still begins wait before they make a job; its jobs run on"
    )
    assert kfp.cancel("first").startswith(
        "KFP terminates first, which did not end by itself in 0 s; what its jobs still run"
    )
    assert kfp.look("first").phase == "cancelled"


def test_a_cancelled_run_that_ends_by_its_mark_is_not_terminated(server: KfpServer, store: Store) -> None:
    kfp = Kubeflow(Server.here("the API of KFP", VARIABLES), "", Jobs("wfm"), patience=30.0)
    name = kfp.submit(ask(store, "first"))
    server.runs[name]["state"] = "FAILED"
    assert kfp.cancel("first") == "KFP's run first is over (failed)"
    second = kfp.submit(ask(store, "second"))
    assert kfp.cancel("second") == "KFP terminates second, of which nothing had begun"
    assert server.runs[second]["state"] == "CANCELED"
    assert [path for _, path in server.http.requests if path.endswith(":terminate")] == [
        f"/apis/v2beta1/runs/{second}:terminate"
    ]
    assert kfp.look("third").phase == "unknown"
    assert kfp.cancel("third") == "KFP has no run third (any more): nothing is to be stopped there"
    with pytest.raises(InputError, match="KFP has no run third in the experiment 'wfm'"):
        kfp.resume("third")


def test_what_a_run_is_made_from(server: KfpServer, store: Store, package: Json, tmp_path: Path) -> None:
    """An uploaded pipeline by its newest version, or a package of this machine."""
    kfp = connect()
    server.upload("curate-smoke", package)
    made = server.runs[kfp.submit(ask(store, "first"))]
    newest = next(iter(server.versions.values()))[0]
    assert made["pipeline_version_reference"]["pipeline_version_id"] == newest["pipeline_version_id"]
    assert made["service_account"] == "launcher"
    assert made["runtime_config"]["parameters"] == {"run_id": "first", "store": store.url}
    folder = tmp_path / "kubeflow"
    folder.mkdir()
    (folder / "pipeline.yaml").write_text(yaml.safe_dump_all([package["pipeline_spec"], package["platform_spec"]]))
    local = ask(store, "second", template=str(folder), scheduled_at="2026-11-05T03:00:00Z")
    made = server.runs[kfp.submit(local)]
    assert made["pipeline_spec"]["platform_spec"] == package["platform_spec"]
    assert made["description"] == "stands for 2026-11-05T03:00:00Z"
    with pytest.raises(
        InputError, match="KFP has no pipeline 'world-model-demo': `wfm compile world_model --engine kubeflow"
    ):
        kfp.submit(ask(store, "third", Request("world_model")))
    with pytest.raises(InputError, match="compiled with --profile smoke, asked for is demo"):
        kfp.submit(ask(store, "third", Request("curate"), template=str(folder / "pipeline.yaml")))
    (folder / "pipeline.yaml").write_text("a: b: c")
    with pytest.raises(InputError, match="cannot be read"):
        kfp.submit(ask(store, "third", template=str(folder)))
    with pytest.raises(InputError, match="carries credentials"):
        kfp.submit(Ask("third", SMOKE, "s3://me:secret@bucket/store"))
    assert [one["display_name"] for one in server.experiments.values()] == ["wfm"]
    assert len(server.runs) == 2


def test_what_starts_by_the_clock(server: KfpServer, compiled: dict[str, list[Json]]) -> None:
    """A tick, one while another runs, several that were missed, and a pause."""
    kfp = connect()
    server._make_recurring(query={}, body=compiled["recurringrun-1.yaml"][0])
    (nightly,) = kfp.recurring()
    assert (nightly.name, nightly.template, nightly.lines) == ("curate-smoke-1", "curate-smoke", ("0 3 * * *",))
    assert (nightly.suspended, nightly.last) == (False, "")
    assert server.wake(at("2026-11-01T03:00")) == ["curate-smoke-1-0"]
    assert kfp.recurring()[0].last == "2026-11-01T03:00:00Z"
    assert server.wake(at("2026-11-02T03:00")) == [], "one at a time"
    for run in server.runs.values():
        run["state"] = "SUCCEEDED"
    assert server.wake(at("2026-11-05T09:00")) == ["curate-smoke-1-1"], "of those that were missed the last"
    assert kfp.recurring()[0].last == "2026-11-05T03:00:00Z"
    assert kfp.pause("curate-smoke-1", paused=True) == "curate-smoke-1 starts no more runs; those that run go on"
    assert kfp.recurring()[0].suspended
    for run in server.runs.values():
        run["state"] = "SUCCEEDED"
    assert server.wake(at("2026-11-06T03:00")) == []
    kfp.pause("curate-smoke-1", paused=False)
    assert server.wake(at("2026-11-06T03:10")) == ["curate-smoke-1-2"]
    with pytest.raises(InputError, match=r"no recurring run 'nightly'\. There are: curate-smoke-1"):
        kfp.pause("nightly", paused=True)


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}:00+00:00")


def test_many_runs_are_looked_through_page_by_page(server: KfpServer, store: Store) -> None:
    kfp = connect()
    name = kfp.submit(ask(store, "first"))
    for number in range(250):
        server.runs[str(number)] = {**server.runs[name], "run_id": str(number)}
    assert len(list(kfp._list("runs", kfp._runs.run_service_list_runs))) == 251
    for one in server.runs.values():
        one["experiment_id"] = "another"
    assert kfp.look("first").phase == "unknown", "what others call so is not ours"


@pytest.mark.parametrize(
    ("found", "phase", "words"),
    [
        ({}, "pending", "KFP has yet to begin it"),
        ({"state": "RUNNING"}, "running", ""),
        ({"state": "CANCELING"}, "running", "stopping"),
        ({"state": "FAILED", "error": {"message": "no such account"}}, "failed", "no such account"),
        ({"state": "FAILED", "run_details": {"task_details": [1, {"state": "FAILED", "display_name": "plan"}]}}, "failed",
         "plan: no reason given"),
        ({"state": ["odd"], "run_details": 3}, "pending", ""),
    ],
)  # fmt: skip
def test_a_run_in_our_words(found: Json, phase: str, words: str) -> None:
    now = looked(found)
    assert (now.phase, words in now.words) == (phase, True), now


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("drop", TryAgain, "does not answer"),
        ("503", TryAgain, "in trouble (503): try again later"),
        ("html", TryAgain, "broke off, or is no JSON"),
        ("forbidden", InputError, "the account of this token may not do that (403)"),
        ("redirect:http://127.0.0.1:9/elsewhere", InputError, "sends us elsewhere (307), which a token does not follow"),
    ],
)  # fmt: skip
def test_what_goes_wrong_between(
    server: KfpServer, store: Store, fault: str, error: type[Exception], words: str
) -> None:
    kfp = connect()
    server.http.faults.plan(fault, "GET")
    with pytest.raises(error) as told:
        kfp.look("first")
    assert words in str(told.value)
    assert TOKEN not in str(told.value)
    assert len(server.http.requests) == 1, "asked once"


def test_a_lost_answer_makes_no_second_run_and_another_token_none(
    server: KfpServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp = connect()
    server.http.faults.plan("lost", "POST", "/runs$")
    with pytest.raises(TryAgain):
        kfp.submit(ask(store, "first"))
    assert kfp.submit(ask(store, "first")) == next(iter(server.runs))
    assert len(server.runs) == 1
    monkeypatch.setenv("KF_PIPELINES_TOKEN", "another-token")
    with pytest.raises(InputError, match=r"does not take the token \(401\).* Give another in KF_PIPELINES_TOKEN"):
        connect().look("first")
