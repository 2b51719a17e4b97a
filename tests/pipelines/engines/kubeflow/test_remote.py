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
from pipelines.start_run import Request
from tests.cluster.engines.kfp import KfpServer
from tests.cluster.engines.player import Workbench
from tests.pipelines.engines.argo.compiled import SETTINGS, flow
from wfm.artifacts import Store
from wfm.errors import InputError, TryAgain

TOKEN = "a-token-that-nobody-else-has"
SMOKE = Request("curate", profile="smoke")
PLAYED = ("simulate-videos", "ingest-videos")
Json = dict[str, Any]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", {"fsync": False})


@pytest.fixture(scope="module")
def compiled() -> dict[str, list[Json]]:
    return emit(flow("curate", "smoke", store="s3://bucket/store", times=Times(("0 3 * * *",), "Etc/UTC")), SETTINGS)


@pytest.fixture
def package(compiled: dict[str, list[Json]]) -> Json:
    """With two stages: simulate_videos, and ingest_videos after it."""
    spec, platform = copy.deepcopy(compiled["pipeline.yaml"])
    for component in spec["components"].values():
        tasks = component.get("dag", {}).get("tasks", {})
        if any(name.startswith(PLAYED) for name in tasks):
            component["dag"]["tasks"] = {name: task for name, task in tasks.items() if name.startswith(PLAYED)}
    return {"pipeline_spec": spec, "platform_spec": platform}


@pytest.fixture
def server(
    tmp_path: Path, package: Json, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[KfpServer]:
    plays = getattr(request, "param", True)
    made = KfpServer(Workbench(tmp_path / "bench", SETTINGS, "kubeflow"), token=TOKEN, plays=plays)
    made.upload("curate-smoke", package)
    for name, value in {"KF_PIPELINES_ENDPOINT": made.url, "KF_PIPELINES_TOKEN": TOKEN}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("WFM_CLUSTER", raising=False)
    yield made
    made.close()
    assert made.http.broken == []


still = pytest.mark.parametrize("server", [False], indirect=True)
"""Of a server whose controller does nothing."""


def ask(store: Store, run_id: str, request: Request = SMOKE, **more: str) -> Ask:
    return Ask(run_id, request, store.url, **more)


def quick(server: KfpServer) -> Kubeflow:
    return Kubeflow(Server.here("the API of KFP", VARIABLES), "", Jobs("wfm"), patience=0.5)


def test_the_life_of_a_run(server: KfpServer, store: Store, tmp_path: Path) -> None:
    kfp, bench = quick(server), server.bench
    # a stage fails
    bench.write(simulate_videos={"fail": ["wrong_input"]})
    name = kfp.submit(ask(store, "first"))
    assert kfp.submit(ask(store, "first")) == name, "asked for twice, it is one run"
    assert len(server.runs) == 1
    with pytest.raises(InputError, match=r"something else was asked of it: its dataset is '', now it is 'other'"):
        kfp.submit(ask(store, "first", dataclasses.replace(SMOKE, dataset="other")))
    server.until(lambda: kfp.look("first").phase == "failed")
    assert kfp.look("first").words == "launch-simulate-videos: main: Error (exit code 78)"
    assert kfp.look("first").address == f"{server.url}/#/runs/details/{name}"
    (tried,) = store.runs.of("first").read_outcomes()
    assert (tried.node, (tried.outcome or {})["outcome"]) == ("simulate_videos", "wrong_input")
    with pytest.raises(InputError, match="`wfm rerun first` submits what is missing anew"):
        kfp.suspend("first")
    assert kfp.cancel("first") == "KFP's run first is over (failed)"
    # once more, to its end
    bench.write(simulate_videos={})
    kfp.submit(ask(store, "second"))
    server.until(lambda: kfp.look("second").phase == "done")
    outcomes = {one.node: (one.outcome or {})["outcome"] for one in store.runs.of("second").read_outcomes()}
    assert outcomes == {"simulate_videos": "done", "ingest_videos": "done"}
    # one that is suspended is cancelled
    bench.write(simulate_videos={"waits": str(tmp_path / "never")})
    kfp.submit(ask(store, "third", dataclasses.replace(SMOKE, redo={"simulate_videos": "f00d"})))
    server.until(lambda: store.runs.of("third").nodes() == ["simulate_videos"])
    said = kfp.suspend("third")
    assert said.startswith(
        "KFP knows no suspend: launchers of third that it still begins wait before they make a job; "
    )
    assert "GPUs are NOT freed: no cluster to talk to" in said
    store.runs.of("third").request_cancel("maria")
    assert kfp.cancel("third").startswith(
        "KFP terminates third, which did not end by itself in 0 s; what its jobs still run"
    )
    server.until(lambda: kfp.look("third").phase == "cancelled")
    (tried,) = store.runs.of("third").read_outcomes()
    assert (tried.outcome or {})["outcome"] == "cancelled"


@still
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


@still
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


@still
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


@still
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


@still
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


@still
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
