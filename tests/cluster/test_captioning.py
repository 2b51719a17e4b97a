"""The captioning service stands while a run needs it: on the model API server and a real store, with crashes in between."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.server.api import Api as Model
from tests.cluster.server.faults import Faults
from tests.cluster.server.http import HttpServer
from tests.cluster.server.storage import Key, Storage
from tests.cluster.test_permissions import rights, role
from wfm.artifacts import Store
from wfm.artifacts.runs import Run
from wfm.cluster.api import Api
from wfm.cluster.captioning import ANNOTATION_LEASES, LEASE_SECONDS, RENEW_SECONDS, Scaler, leases_of
from wfm.cluster.kinds import DEPLOYMENT
from wfm.cluster.records import Said, write_said
from wfm.cluster.refusals import Busy, NotFound
from wfm.errors import TryAgain

URL = "http://captioning.wfm.svc:8000/v1"
NODE = "caption_clips"
START = 1_800_000_000.0


class Cluster:
    """The model server with the Deployment, a store, and scalers that come and go."""

    def __init__(self, folder: Path) -> None:
        self.storage, self.now = Storage(), START
        self.storage.put(Key("namespaces", "", "wfm"), {"metadata": {"name": "wfm", "uid": "u"}})
        self.faults = Faults(random.Random(0))
        self.server = HttpServer(Model(self.storage, lambda: self.now, random.Random(0)), self.faults, streams=False)
        self.server.start()
        self.store = Store.open(folder / "store", {"fsync": False})
        self.api = Api.connect(namespace="wfm", url=self.server.url)
        pod = {"containers": [{"name": "vllm", "image": "i"}]}
        spec = {"replicas": 0, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod}}
        self.api.create(DEPLOYMENT, {"metadata": {"name": "captioning"}, "spec": spec})
        self.scaler = self.another()

    def another(self, **choices: Any) -> Scaler:
        """One that was just started: it remembers nothing."""
        return Scaler(Api.connect(namespace="wfm", url=self.server.url), self.store, URL, **choices)

    def run(self, url: str = URL, source: str = "endpoint", done: bool = False) -> Run:
        config = {"source": source, "endpoint": {"url": url, "model": "m"}}
        node = {"name": NODE, "stage": "caption_clips", "config": config, "done": done}
        return self.store.runs.create({"pipeline": "curate", "nodes": [{"name": "a", "stage": "split_clips"}, node]})

    @property
    def replicas(self) -> int:
        return int(self.api.get(DEPLOYMENT, "captioning")["spec"]["replicas"])

    def go(self, seconds: float) -> int:
        """Time passes, a step a minute."""
        for _ in range(max(1, round(seconds / 60))):
            self.now += 60
            self.scaler.step(self.now)
        return self.replicas


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(tmp_path)
    yield found
    found.server.stop()


def launched(run: Run, words: str = "makes the job", ended: str = "") -> None:
    write_said(run, NODE, Said("k", words, ended=ended), START)


def begun(run: Run) -> int:
    return run.append_attempt(NODE, {"ranks": 1})


def beat(run: Run, number: int, at: float) -> None:
    run.write_usage(NODE, number, {"at": str(at), "every": 10.0})


def ended(run: Run, number: int, outcome: str = "done") -> None:
    run.write_outcome(NODE, number, {"outcome": outcome})


def test_it_is_raised_when_a_run_comes_to_captions_and_lowered_when_it_is_through(cluster: Cluster) -> None:
    run = cluster.run()
    assert cluster.go(60) == 0, "it has clips to make first"
    launched(run)
    assert cluster.go(60) == 1
    number = begun(run)
    for _ in range(60):  # two hours
        beat(run, number, cluster.now)
        assert cluster.go(120) == 1
    ended(run, number)
    launched(run, "", ended="done")
    assert cluster.go(60) == 0
    assert leases_of(cluster.api.get(DEPLOYMENT, "captioning")) == {}


def test_a_try_without_a_launcher_needs_it_too(cluster: Cluster) -> None:
    run = cluster.run()
    number = begun(run)
    assert cluster.go(60) == 1
    ended(run, number)
    assert cluster.go(60) == 0


def test_of_two_runs_the_last_one_lowers_it(cluster: Cluster) -> None:
    one, other = cluster.run(), cluster.run()
    launched(one)
    launched(other)
    assert cluster.go(60) == 1
    launched(one, "", ended="done")
    assert cluster.go(60) == 1
    launched(other, "", ended="wrong_input")
    assert cluster.go(60) == 0


def test_between_two_tries_it_stays(cluster: Cluster) -> None:
    run = cluster.run()
    launched(run)
    number = begun(run)
    assert cluster.go(60) == 1
    ended(run, number, "try_again")
    assert cluster.go(600) == 1


def test_who_died_holds_it_no_longer_than_a_lease(cluster: Cluster) -> None:
    """The launcher and the try are gone without a word; scalers are killed in between, and none begins the lease again."""
    run = cluster.run()
    launched(run)
    beat(run, begun(run), cluster.now)
    assert cluster.go(60) == 1
    down = None
    for minutes in range(1, 90):
        cluster.scaler = cluster.another()
        if cluster.go(60) == 0:
            down = 60.0 * minutes
            break
    assert down is not None
    assert LEASE_SECONDS <= down <= LEASE_SECONDS + RENEW_SECONDS + 120
    assert cluster.go(3600) == 0, "nor does the same sign raise it again"
    launched(run, "is there again")  # the next launcher
    assert cluster.go(60) == 1


def test_a_twin_that_remembers_in_the_process_alone_would_hold_it_for_ever(cluster: Cluster) -> None:
    """What the annotation is for: without it each restart begins a new lease."""
    run = cluster.run()
    launched(run)
    for _ in range(90):
        cluster.scaler = cluster.another()
        cluster.go(60)
        there = cluster.api.get(DEPLOYMENT, "captioning")["metadata"]["resourceVersion"]
        patch = {"metadata": {"resourceVersion": there, "annotations": {ANNOTATION_LEASES: None}}}
        cluster.api.patch(DEPLOYMENT, "captioning", patch)
    assert cluster.replicas == 1


def test_a_cancelled_run_and_one_that_its_engine_ended_need_nothing(cluster: Cluster) -> None:
    run = cluster.run()
    begun(run)
    assert cluster.go(60) == 1
    run.request_cancel("a test")
    assert cluster.go(60) == 0
    other = cluster.run()
    begun(other)
    assert cluster.go(60) == 1
    other.write("state.json", '{"schema_version": 1, "state": "failed"}')
    assert cluster.go(60) == 0


@pytest.mark.parametrize("choices", [{"url": "http://elsewhere:8000/v1"}, {"source": "measured"}, {"done": True}])
def test_runs_that_do_not_ask_it_raise_nothing(cluster: Cluster, choices: dict[str, Any]) -> None:
    run = cluster.run(**choices)
    launched(run)
    begun(run)
    assert cluster.go(60) == 0


def test_a_step_that_is_lost_is_made_by_the_next(cluster: Cluster) -> None:
    run = cluster.run()
    launched(run)
    cluster.faults.plan("drop", "patch")  # killed, or cut off, before the server heard of it
    with pytest.raises(Busy):
        cluster.scaler.step(cluster.now)
    assert cluster.replicas == 0
    cluster.faults.plan("lost", "patch")  # done, and the answer never came
    with pytest.raises(Busy):
        cluster.scaler.step(cluster.now)
    assert cluster.replicas == 1
    cluster.scaler = cluster.another()
    assert cluster.go(60) == 1
    launched(run, "", ended="done")
    assert cluster.go(60) == 0


def test_two_at_once_do_no_harm(cluster: Cluster) -> None:
    """The second has read what the first one changes."""
    run = cluster.run()
    launched(run)
    right = cluster.scaler._api.get

    def late(*arguments: Any) -> Any:
        found = right(*arguments)
        cluster.another().step(cluster.now)
        return found

    cluster.scaler._api.get = late  # type: ignore[method-assign]
    assert cluster.scaler.step(cluster.now) == 0, "somebody changed it at this moment: nothing is said over it"
    assert cluster.replicas == 1


def test_more_servers_by_hand_stay_while_it_is_needed(cluster: Cluster) -> None:
    run = cluster.run()
    launched(run)
    cluster.go(60)
    cluster.api.patch(DEPLOYMENT, "captioning", {"spec": {"replicas": 3}})
    assert cluster.go(60) == 3
    launched(run, "", ended="done")
    assert cluster.go(60) == 0


@pytest.mark.parametrize(
    "words", ["{", "[]", '{"r": 1}', '{"r": {"sign": "s", "since": -1}}', '{"r": {"since": 1e400}}']
)
def test_what_others_write_into_the_annotation_is_no_lease(cluster: Cluster, words: str) -> None:
    cluster.api.patch(DEPLOYMENT, "captioning", {"metadata": {"annotations": {ANNOTATION_LEASES: words}}})
    launched(cluster.run())
    assert cluster.go(60) == 1


def test_a_lease_of_the_future_ends(cluster: Cluster) -> None:
    """Whoever wrote it had a clock ahead of ours."""
    run = cluster.run()
    launched(run)
    cluster.scaler.step(cluster.now + 10 * 86400)
    assert cluster.go(60) == 1
    assert cluster.go(LEASE_SECONDS + 120) == 0


def test_a_store_or_a_deployment_that_is_not_there_changes_nothing(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched(cluster.run())
    assert cluster.go(60) == 1

    def away(*_: object) -> list[str]:
        raise TryAgain("the store does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(type(cluster.store.objects), "names", away)
        with pytest.raises(TryAgain):
            cluster.scaler.step(cluster.now)
    assert cluster.replicas == 1
    with pytest.raises(NotFound):
        cluster.another(name="other").step(cluster.now)


def test_beats_are_not_requests(cluster: Cluster) -> None:
    run = cluster.run()
    number = begun(run)
    cluster.server.requests.clear()
    for _ in range(60):
        beat(run, number, cluster.now)
        assert cluster.go(60) == 1
    patches = [one for one in cluster.server.requests if one[0] == "patch"]
    assert len(patches) <= 60 * 60 / RENEW_SECONDS + 1


def test_an_end_is_read_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node made in ranges of parts has thousands of tries."""
    run, read = cluster.run(), []
    right = Run.read_outcome

    def counted(self: Run, node: str, number: int) -> Any:
        read.append(number)
        return right(self, node, number)

    for _ in range(5):
        ended(run, begun(run))
    last = begun(run)
    monkeypatch.setattr(Run, "read_outcome", counted)
    assert cluster.go(60) == 1
    read.clear()
    assert cluster.go(60) == 1
    assert read == [last]


def test_its_role_is_what_it_uses(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    used: set[tuple[str, str, str]] = set()
    call = Api._call

    def noted(self: Api, method: str, verb: str, resource: Any, name: str = "", **more: Any) -> Any:
        used.add((resource.group, resource.plural, verb))
        assert name == "captioning", "its role names this one alone"
        return call(self, method, verb, resource, name, **more)

    run = cluster.run()
    launched(run)
    with monkeypatch.context() as patch:
        patch.setattr(Api, "_call", noted)
        cluster.scaler.step(cluster.now)
        launched(run, "", ended="done")
        cluster.scaler.step(cluster.now)
    assert used == rights(role("scaler"))
    assert {name for rule in role("scaler")["rules"] for name in rule["resourceNames"]} == {"captioning"}
