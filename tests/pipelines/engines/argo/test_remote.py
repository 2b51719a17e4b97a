"""Argo by its REST calls, against a model of its server that plays what was compiled, with real processes and a real store."""

import dataclasses
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.engines.argo import remote
from pipelines.engines.argo.remote import Argo, connect, workflow_name
from pipelines.engines.argo.seen import looked
from pipelines.engines.flow import Times
from pipelines.engines.held_jobs import Jobs
from pipelines.engines.remote import Ask
from pipelines.request import Request
from tests.cluster.engines.argo import ArgoServer
from tests.cluster.engines.player import Workbench
from tests.cluster.world import NAMESPACE, World
from tests.pipelines.engines.argo.compiled import SETTINGS, emit, flow, template_of
from wfm.artifacts import Store
from wfm.errors import ConfigError, InputError, TryAgain

TOKEN = "a-token-that-nobody-else-has"
SMOKE = Request("curate", profile="smoke")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", {"fsync": False})


@pytest.fixture
def server(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArgoServer]:
    """One whose controller does nothing."""
    made = ArgoServer(Workbench(tmp_path / "bench", SETTINGS, "argo"), token=TOKEN, plays=False)
    one = flow("curate", "smoke", store=store.url, times=Times(("0 3 * * *",), "Etc/UTC"))
    made.apply(template_of(one))
    made.apply(emit(one, SETTINGS)["cronworkflow.yaml"][0])
    for name, value in {"ARGO_SERVER": made.url, "ARGO_TOKEN": TOKEN, "ARGO_NAMESPACE": "wfm"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    yield made
    made.close()
    assert made.http.broken == []


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path / "world") as made:
        yield made


def ask(store: Store, run_id: str, request: Request = SMOKE, **more: str) -> Ask:
    return Ask(run_id, request, store.url, **more)


def test_asked_for_twice_it_is_one_run(server: ArgoServer, store: Store) -> None:
    argo = connect()
    assert argo.submit(ask(store, "20261122T122100123-9f3ac21b")) == "20261122t122100123-9f3ac21b"
    assert argo.submit(ask(store, "first")) == argo.submit(ask(store, "first")) == "first"
    assert len(server.workflows) == 2
    assert argo.look("first").address == f"{server.url}/workflows/wfm/first"
    with pytest.raises(InputError, match=r"something else was asked of it: its dataset is '', .* is 'other'"):
        argo.submit(ask(store, "first", dataclasses.replace(SMOKE, dataset="other")))
    redo = dataclasses.replace(SMOKE, redo={"ingest_videos": "f00d"}, overrides=("split_clips.cut.uncommon=encode",))
    argo.submit(ask(store, "again", redo))
    given = {one["name"]: one["value"] for one in server.workflows["again"]["spec"]["arguments"]["parameters"]}
    assert (given["redo"], given["overrides"]) == ('{"ingest_videos": "f00d"}', '["split_clips.cut.uncommon=encode"]')
    server.workflows["first"]["status"]["phase"] = "Failed"
    assert argo.cancel("first") == "Argo's workflow first is over (failed)"
    for verb in (argo.suspend, argo.resume):
        with pytest.raises(InputError, match="`wfm rerun first` submits what is missing anew"):
            verb("first")


def test_what_ends_between_two_questions(server: ArgoServer, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    argo = connect()
    argo.submit(ask(store, "first"))
    found = server.http.answer

    def ends(method: str, path: str, query: Any, body: Any) -> Any:
        if method == "PUT":
            server.workflows["first"]["status"]["phase"] = "Succeeded"
        return found(method, path, query, body)

    monkeypatch.setattr(server.http, "answer", ends)
    assert argo.cancel("first") == "Argo's workflow first ended by itself meanwhile"
    server.workflows["first"]["status"].pop("phase")
    with pytest.raises(InputError, match="ended meanwhile: there is nothing to suspend"):
        argo.suspend("first")


def test_a_stop_alone_leaves_a_suspended_workflow_as_it_is(server: ArgoServer, store: Store) -> None:
    """What the model does as Argo does, and what a person then reads."""
    argo = connect()
    argo.submit(ask(store, "first"))
    server.workflows["first"]["spec"] |= {"suspend": True, "shutdown": "Stop"}
    now = argo.look("first")
    assert (now.phase, "`wfm cancel` once more takes that back" in now.words) == ("suspended", True)
    argo.cancel("first")
    assert "suspend" not in server.workflows["first"]["spec"]


def test_what_starts_by_the_clock(server: ArgoServer, store: Store) -> None:
    """A tick, a tick that was missed within the deadline and one beyond it, one while another runs, and a pause."""
    argo = connect()
    (nightly,) = argo.recurring()
    assert (nightly.name, nightly.template, nightly.lines) == ("curate-smoke", "curate-smoke", ("0 3 * * *",))
    assert (nightly.zone, nightly.suspended, nightly.last) == ("Etc/UTC", False, "")
    assert server.wake(at("2026-11-01T03:00")) == ["curate-smoke-1793502000"]
    (nightly,) = argo.recurring()
    assert (nightly.last, nightly.words) == ("2026-11-01T03:00:00Z", "running now: curate-smoke-1793502000")
    assert argo.look("curate-smoke-1793502000").phase == "pending"
    assert server.wake(at("2026-11-02T03:00")) == [], "one at a time"
    server.workflows["curate-smoke-1793502000"]["status"]["phase"] = "Succeeded"
    assert server.wake(at("2026-11-03T03:40")) == ["curate-smoke-1793674800"], "made up for within the hour"
    server.workflows["curate-smoke-1793674800"]["status"]["phase"] = "Succeeded"
    assert server.wake(at("2026-11-05T09:00")) == [], "that of the fourth and of the fifth are missed"
    missed = ask(store, "nightly-20261105", scheduled_at="2026-11-05T03:00:00Z")
    assert argo.submit(missed) == "nightly-20261105"
    notes = server.workflows["nightly-20261105"]["metadata"]["annotations"]
    assert notes == {"wfm.dev/run-id": "nightly-20261105", "wfm.dev/scheduled-at": "2026-11-05T03:00:00Z"}
    assert argo.pause("curate-smoke", paused=True) == "curate-smoke starts no more workflows; those that run go on"
    assert argo.recurring()[0].suspended
    assert server.wake(at("2026-11-06T03:00")) == []
    argo.pause("curate-smoke", paused=False)
    assert server.wake(at("2026-11-06T03:10")) == ["curate-smoke-1793934000"]
    with pytest.raises(InputError, match=r"no CronWorkflow 'nightly' in wfm\. There are: curate-smoke"):
        argo.pause("nightly", paused=True)
    status = server.crons["curate-smoke"]["status"]
    status |= {"phase": "Stopped", "failed": 3, "succeeded": 1, "active": []}
    assert argo.recurring()[0].words == (
        "stopped by its own rule after failures: it starts none until it is deleted and applied again; 3 of 4 failed"
    )


def at(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}:00+00:00")


def test_a_template_that_is_missing_or_of_another_pipeline(server: ArgoServer, store: Store) -> None:
    argo = connect()
    with pytest.raises(InputError) as told:
        argo.submit(ask(store, "first", Request("world_model", profile="demo_cluster")))
    assert str(told.value) == (
        "Argo has no WorkflowTemplate 'world-model-demo-cluster' in wfm: `wfm compile world_model --engine argo --profile "
        "demo_cluster -o argo`, then `kubectl -n wfm apply -f argo`, or name another"
    )
    with pytest.raises(InputError, match="compiled with --pipeline curate, asked for is world_model"):
        argo.submit(ask(store, "first", Request("world_model", profile="smoke"), template="curate-smoke"))
    with pytest.raises(InputError, match="carries credentials"):
        argo.submit(Ask("first", SMOKE, "s3://me:secret@bucket/store"))
    assert server.workflows == {}
    assert argo.look("first").phase == "unknown"
    assert "was never submitted there, or its time is over" in argo.look("first").words
    assert argo.cancel("first").endswith("(any more): nothing is to be stopped there")
    with pytest.raises(InputError, match="Argo has no workflow first"):
        argo.resume("first")


@pytest.mark.parametrize(
    ("found", "phase", "words"),
    [
        ({"status": {}}, "pending", "Argo has yet to begin it"),
        ({"status": {"phase": "Pending", "message": "too many workflows are already running"}}, "pending", "too many"),
        (
            {"status": {"phase": "Running", "nodes": {"a": {"type": "Pod", "displayName": "plan", "phase": "Pending",
                "message": 'pods "a" is forbidden: exceeded quota: all, requested: cpu=1'}}}},
            "running", "plan: waiting for quota: pods",
        ),
        ({"status": {"phase": "Error", "message": "invalid spec: templates.plan"}}, "failed", "before any pod began: invalid"),
        ({"status": {"phase": "Failed", "message": "m"}, "spec": {"shutdown": "Stop"}}, "cancelled", "stopped (Stop): m"),
        ({"status": {"phase": "Succeeded"}, "spec": {"suspend": True}}, "done", ""),
        ({"status": {"phase": ["odd"], "nodes": [1]}, "spec": "x"}, "pending", "yet to begin"),
        ({"status": {"phase": "Running"}, "spec": {"shutdown": "Stop"}}, "running", "stopping"),
    ],
)  # fmt: skip
def test_a_workflow_in_our_words(found: dict[str, Any], phase: str, words: str) -> None:
    now = looked(found)
    assert (now.phase, words in now.words) == (phase, True), now


def test_names_of_workflows() -> None:
    assert workflow_name("nightly-1") == "nightly-1"
    assert workflow_name("20261122T122100123-9f3ac21b") == "20261122t122100123-9f3ac21b"
    long, dotted = workflow_name("a" * 100), workflow_name("v1.2_b")
    assert len({long, dotted, workflow_name("v1-2_b"), workflow_name("a" * 101)}) == 4
    assert all(len(name) <= 63 for name in (long, dotted))


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ("drop", TryAgain, "does not answer"),
        ("503", TryAgain, "in trouble (503): try again later"),
        ("429", TryAgain, "in trouble (429)"),
        ("html", TryAgain, "broke off, or is no JSON"),
        ("forbidden", InputError, "the account of this token may not do that (403): workflows.argoproj.io is forbidden"),
        ("redirect:http://127.0.0.1:9/elsewhere", InputError, "sends us elsewhere (307), which a token does not follow"),
    ],
)  # fmt: skip
def test_what_goes_wrong_between(
    server: ArgoServer, store: Store, fault: str, error: type[Exception], words: str
) -> None:
    argo = connect()
    server.http.faults.plan(fault, "GET")
    with pytest.raises(error) as told:
        argo.look("first")
    assert words in str(told.value)
    assert TOKEN not in str(told.value)
    assert len(server.http.requests) == 1, "asked once"


def test_an_answer_that_is_lost_makes_no_second_run(server: ArgoServer, store: Store) -> None:
    argo = connect()
    server.http.faults.plan("lost", "POST")
    with pytest.raises(TryAgain):
        argo.submit(ask(store, "first"))
    assert argo.submit(ask(store, "first")) == "first"
    assert list(server.workflows) == ["first"]


def test_a_server_that_is_slow(server: ArgoServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.engines.connection.LIMITS", (1.0, 0.2))
    server.http.faults.slow_seconds = 1.0
    with pytest.raises(TryAgain, match="does not answer"):
        connect().look("first")


def test_another_token_is_refused_and_none_is_shown(
    server: ArgoServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("ARGO_TOKEN")
    (tmp_path / "token").write_text("Bearer another-token\n")
    monkeypatch.setenv("ARGO_TOKEN_FILE", str(tmp_path / "token"))
    argo = connect()
    server.http.no_token_says = "token another-token not valid"
    with pytest.raises(
        InputError, match=r"does not take the token \(401\): token \*\*\* not valid. Give another in ARGO_TOKEN"
    ):
        argo.look("first")
    assert "another-token" not in repr(argo.server)
    assert server.http.tokens == ["Bearer another-token"]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "no address of Argo's server: set ARGO_SERVER, such as https://argo.example:2746"),
        ({"ARGO_SERVER": "http://argo.example:2746"}, "plain HTTP shows the token"),
        ({"ARGO_SERVER": "https://me:secret-word@argo.example"}, "the address holds more than host, port and path"),
        ({"ARGO_SERVER": "ftp://argo.example"}, "is no address"),
        ({"ARGO_SERVER": "https://argo.example:port"}, "ARGO_SERVER is no address"),
        ({"ARGO_SERVER": "argo:1", "ARGO_TOKEN": "two words"}, "the token in ARGO_TOKEN is more than one word"),
        ({"ARGO_SERVER": "argo:1", "ARGO_TOKEN": "a", "ARGO_TOKEN_FILE": "b"}, "both set: keep one"),
        ({"ARGO_SERVER": "argo:1", "ARGO_TOKEN_FILE": "/none"}, "ARGO_TOKEN_FILE='/none' cannot be read"),
        ({"ARGO_SERVER": "argo:1", "ARGO_CA_FILE": "/none"}, "ARGO_CA_FILE='/none' is no file"),
        ({"ARGO_SERVER": "argo:1", "ARGO_NAMESPACE": "A b"}, "ARGO_NAMESPACE='A b' is no name of a namespace"),
        ({"ARGO_SERVER": "argo:1"}, "no cluster is described"),
    ],
)
def test_an_environment_that_does_not_say_how_it_is_reached(
    environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*dataclasses.asdict(remote.VARIABLES).values(), remote.NAMESPACE, "WFM_CLUSTER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError if "NAMESPACE" not in words else InputError) as told:
        connect()
    assert words in str(told.value)
    assert "secret-word" not in str(told.value)


@pytest.mark.parametrize("held", [True, False])
def test_suspend_frees_the_gpus_of_its_jobs(world: World, server: ArgoServer, held: bool) -> None:
    """With the model of Kubernetes beside it: a launched job leaves its GPUs, and has them again."""
    asked = world.ask("node")
    argo = Argo(connect().server, "wfm", Jobs(NAMESPACE, world.url if held else "http://127.0.0.1:9"))
    server._make(workflow_name(asked.run.id), "curate-smoke", {})
    world.launcher(asked)
    world.until(lambda: world.running(asked.key), 600)
    said = argo.suspend(asked.run.id)
    world.go(60)
    if not held:
        assert "its jobs run on, and GPUs are NOT freed: the API server at http://127.0.0.1:9 does not answer" in said
        assert world.running(asked.key)
        assert "jobs that were held back stay so" in argo.resume(asked.run.id)
        return
    assert said.endswith("is put out of the queue, and gives back what it holds")
    assert world.running(asked.key) == []
    assert "waits for its turn in the queue again; Argo goes on with" in argo.resume(asked.run.id)
    world.until(lambda: world.running(asked.key), 600)
