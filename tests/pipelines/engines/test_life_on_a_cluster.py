"""The life of a run by commands alone, on engines of a cluster: what a person reads at each moment.

Their servers are models (`tests/cluster/engines`) that play what was compiled: the plan step and stages are processes over a
real store. The same on this machine: `test_life_of_a_run.py`.
"""

import copy
import json
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipelines.engines.argo.emit import emit as for_argo
from pipelines.engines.flow import Times
from pipelines.engines.kubeflow.emit import emit as for_kubeflow
from pipelines.request import Request
from pipelines.runs.ledger import Ledger
from pipelines.runs.submission import asked_now, create_submission, submission_of, write_submission
from pipelines.runs.untold import Elsewhere, tell_untold
from pipelines.runs.webhook import verify
from pipelines.stages import STAGES
from pipelines.start_run import create_run
from pipelines.ticks import of_shard
from pipelines.verbs import failed_there
from tests.cluster.engines.argo import ArgoServer
from tests.cluster.engines.kfp import KfpServer
from tests.cluster.engines.player import Workbench
from tests.pipelines.engines.argo.compiled import SETTINGS, flow
from tests.pipelines.runs.hook import SECRET, Receiver
from wfm.artifacts import Store

COMPILED = "s3://bucket/store"
PLAYED = ("simulate_videos", "ingest_videos")
"""What has to run; the rest of the pipeline is made before."""


@dataclass
class Place:
    """An engine, its server, and its commands."""

    engine: str
    server: Any
    store: Store
    cli: Callable[..., tuple[int, str, str]]

    def wfm(self, *words: str, code: int = 0) -> str:
        """What a command says; its lines as they are, without the padding of tables."""
        ended, said, trouble = self.cli(*words)
        assert ended == code, (words, said, trouble)
        return "\n".join(line.rstrip() for line in (said + trouble).splitlines())

    def until(self, state: str, run: str) -> str:
        """Wait until `wfm status` calls a run so; what it says then."""
        said: list[str] = []

        def over() -> bool:
            said.append(self.wfm("status", run))
            return f") is {state}" in said[-1]

        self.server.until(over)
        return said[-1]

    def runs(self) -> list[Any]:
        """What its server has."""
        found: dict[str, Any] = self.server.workflows if self.engine == "argo" else self.server.runs
        return list(found.values())

    def outcomes(self, run: str) -> list[str]:
        return [(one.outcome or {}).get("outcome", "") for one in self.store.runs.of(run).read_outcomes()]

    def begun(self, run: str, stage: str) -> None:
        """Wait until a stage runs."""
        self.server.until(lambda: self.store.runs.of(run).nodes() == [stage])


@cache
def compiled(engine: str) -> dict[str, list[Any]]:
    """What `wfm compile` writes: once, it takes seconds."""
    one = flow("curate", "smoke", store=COMPILED, times=Times(("0 3 * * *",), "Etc/UTC"))
    return {"argo": for_argo, "kubeflow": for_kubeflow}[engine](one, SETTINGS)


@pytest.fixture
def place(engine: str, tmp_path: Path, workshop: Any, cli: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    store = workshop.store
    make_all(store, [name for name in STAGES if name not in PLAYED])
    bench = Workbench(tmp_path / "bench", SETTINGS, engine)
    server: Any
    if engine == "argo":
        server, made = ArgoServer(bench), copy.deepcopy(compiled(engine))
        (template,), (cron,) = made["workflowtemplate.yaml"], made["cronworkflow.yaml"]
        for parameter in template["spec"]["arguments"]["parameters"]:
            parameter["value"] = parameter["value"].replace(COMPILED, store.url)
        server.apply(template)
        server.apply(cron)
        monkeypatch.setenv("ARGO_SERVER", server.url)
        monkeypatch.setenv("ARGO_NAMESPACE", "wfm")
    else:
        server, made = KfpServer(bench), copy.deepcopy(compiled(engine))
        (nightly,) = made["recurringrun-1.yaml"]
        nightly["pipeline_spec"]["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]["store"]["defaultValue"] = (
            store.url
        )
        server.upload("curate-smoke", nightly["pipeline_spec"])
        server._make_recurring(query={}, body=nightly)
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    yield Place(engine, server, store, cli)
    server.close()
    assert server.http.broken == []


@pytest.mark.parametrize("engine", ["argo", pytest.param("kubeflow", marks=pytest.mark.long)])
def test_the_life_of_a_run(place: Place, tmp_path: Path) -> None:
    wfm, bench, engine = place.wfm, place.server.bench, place.engine
    asked = ("curate", "--profile", "smoke", "--engine", engine)
    # a stage fails
    bench.write(simulate_videos={"fail": ["wrong_input"]})
    said = wfm("submit", *asked, "--run-id", "first")
    assert re.match(rf"run first is (pending|running) on {engine}; it goes on by itself there\n", said)
    assert f"its page: {place.server.url}/" in said
    assert "to follow: wfm logs first -f\n" in said
    wfm("submit", *asked, "--run-id", "first")
    assert len(place.runs()) == 1, "asked for twice, it is one run"
    said = wfm("submit", *asked, "--run-id", "first", "--dataset", "other", code=78)
    assert "run first is there already, and something else was asked of it" in said
    said = place.until("failed", "first")
    assert re.search(r"simulate_videos +failed .* told to fail with wrong_input", said)
    assert "simulate_videos failed (wrong_input); its log: wfm logs first simulate_videos" in " ".join(said.split())
    assert "run first is failed: only one that is at work, or waits, can be suspended" in wfm(
        "suspend", "first", code=78
    )
    # asked for again: suspended while a stage runs
    bench.write(simulate_videos={"waits": str(tmp_path / "go")})
    second = named(wfm("rerun", "first", "--engine", engine))
    place.begun(second, "simulate_videos")
    assert re.search(r"simulate_videos +running", wfm("status", second))
    said = wfm("suspend", second)
    assert said.startswith(SUSPENDED[engine])
    assert "its jobs run on, and GPUs are NOT freed: no cluster to talk to" in said
    (tmp_path / "go").touch()
    place.server.until(lambda: "done" in place.outcomes(second))
    said = place.until("suspended", second)
    assert re.search(r"simulate_videos +done", said)
    assert "when it was suspended: " + SUSPENDED[engine] in said
    assert "GPUs are NOT freed: no cluster to talk to" in " ".join(said.split())
    assert "it holds nothing" not in said
    assert f"wfm resume {second}" in said
    assert place.store.runs.of(second).nodes() == ["simulate_videos"], "the next does not begin"
    said = wfm("resume", second)
    assert "jobs that were held back stay so: ask once more from where the cluster's API can be reached" in said
    said = place.until("done", second)
    assert re.search(r"ingest_videos +done", said)
    assert re.search(r"write_shards +cached", said)
    # cancelled while it is suspended
    bench.write(write_shards={"waits": str(tmp_path / "never")})
    third = named(wfm("rerun", second, "--from", "write_shards", "--engine", engine))
    place.begun(third, "write_shards")
    wfm("suspend", third)
    assert re.search(CANCELLED[engine], wfm("cancel", third))
    said = place.until("cancelled", third)
    assert "asked it to stop" in said
    assert re.search(r"write_shards +cancelled .* stopped on request", said)
    assert "in 1 that made nothing" in said
    assert "was cancelled and stays so" in wfm("resume", third, code=78)
    assert re.findall(r"curate +smoke +(\w+)", wfm("runs")) == ["cancelled", "done", "failed"]


@pytest.mark.parametrize("engine", ["argo", "kubeflow"])
def test_the_webhook_is_told_of_what_failed_on_a_cluster(
    place: Place, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its engine calls nobody, so whoever looks does: signed, once, and by the exporter without anybody looking."""
    store = place.store
    asked = ("curate", "--profile", "smoke", "--engine", place.engine)
    place.server.bench.write(simulate_videos={"fail": ["wrong_input"]})
    monkeypatch.setenv("WFM_WEBHOOK_SECRET", "of-another-who-only-waits")
    monkeypatch.delenv("WFM_WEBHOOK")
    place.wfm("submit", *asked, "--run-id", "first")
    place.until("failed", "first")
    assert receiver.came == [], "nobody of these wants to hear"
    # the exporter's look, with the engine in reach
    monkeypatch.setenv("WFM_WEBHOOK", receiver.url)
    monkeypatch.setenv("WFM_WEBHOOK_SECRET", SECRET)
    look_once(store, failed_there)
    (one,) = receiver.came
    told = verify(one[1], one[0], SECRET)["data"]
    assert (told["run"], told["state"], told["pipeline"]) == ("first", "failed", "curate")
    assert [(each["stage"], each["outcome"]) for each in told["failed"]] == [("simulate_videos", "wrong_input")]
    look_once(store, failed_there)
    assert "the webhook" not in place.wfm("runs")
    assert len(receiver.came) == 1, "each end is told once, whoever looks"
    # one whose engine cannot be asked: what failed for good stands in the store
    place.wfm("submit", *asked, "--run-id", "second")
    place.server.until(lambda: place.outcomes("second") == ["wrong_input"])
    monkeypatch.delenv("ARGO_SERVER" if place.engine == "argo" else "KF_PIPELINES_ENDPOINT")
    look_once(store, failed_there)
    assert [json.loads(body)["data"]["run"] for _, body in receiver.came] == ["first", "second"]


def look_once(store: Store, elsewhere: Elsewhere) -> None:
    """What `wfm metrics serve` does every half minute."""
    ledger = Ledger(store)
    ledger.look()
    tell_untold(ledger.newest, elsewhere=elsewhere)


def named(said: str) -> str:
    """The id of a run that was submitted."""
    found = re.match(r"run (\S+) is", said)
    assert found, said
    return found[1]


SUSPENDED = {
    "argo": "Argo begins no further pod of 20",
    "kubeflow": "KFP knows no suspend: launchers of 20",
}
CANCELLED = {
    "argo": r"Argo stops \S+, which was suspended: the suspension is taken back, so that it comes to its end",
    "kubeflow": r"KFP's run \S+ is over \(failed\)",  # its launchers heed the mark in the store
}


@pytest.mark.parametrize("engine", ["argo", "kubeflow"])
def test_times_that_pass(place: Place) -> None:
    """A tick, times that were missed, and the backfill of one; everything is made before, so a run is its plan step."""
    wfm, asked = place.wfm, ("curate", "--profile", "smoke", "--engine", place.engine)
    make_all(place.store, PLAYED)
    began = (datetime.now(UTC) - timedelta(days=3)).replace(hour=3, minute=0, second=0, microsecond=0)
    (tick,) = place.server.wake(began)
    said = wfm("schedule", "list", "--engine", place.engine)
    assert re.search(rf"{place.engine} +active +0 3 \* \* \* \S*UTC +{iso(began)} +\S+T03:00:00Z +[23]\n", said)
    missed = began + timedelta(days=1)
    assert re.search(rf"missed [23] times, {iso(missed)} to \S+; to fill: wfm backfill", said)
    day = f"{missed:%Y-%m-%d}"
    fill = ("backfill", *asked, "--every", "0 3 * * *", "--from", day, "--to", day)
    assert re.search(rf"{iso(missed)} +missing +start", wfm(*fill, "--dry-run"))
    said = wfm(*fill)
    assert re.search(rf"{iso(missed)} +begun +run \S+", said)
    assert "\n1 done\n" in said
    assert re.search(rf"{iso(missed)} +done +skip", wfm(*fill, "--dry-run"))
    assert any(iso(missed) in str(one) for one in place.runs()), "its engine says what it stands for"
    said = wfm("schedule", "list", "--engine", place.engine)
    rest = re.search(r"missed [^;]*; to fill: wfm (backfill .*)", said)
    assert rest, said
    assert iso(missed) not in rest[0], "it was filled"
    assert re.search(r"\n[12] done\n", wfm(*shlex.split(rest[1])))
    assert "to fill" not in wfm("schedule", "list", "--engine", place.engine)
    assert any(tick in str(one) for one in place.runs())
    (name,) = re.findall(
        r"^ *(curate-smoke\S*) +(?:argo|kubeflow) ", wfm("schedule", "list", "--engine", place.engine), re.MULTILINE
    )
    assert f"{name} starts no more" in wfm("schedule", "pause", name, "--engine", place.engine)
    assert re.search(rf"{place.engine} +paused", wfm("schedule", "list", "--engine", place.engine))
    assert "at its times again" in wfm("schedule", "resume", name, "--engine", place.engine)


@pytest.mark.parametrize("engine", ["argo", "kubeflow"])
def test_a_run_that_nobody_asked_the_engine_for_is_begun_by_the_next_backfill(place: Place) -> None:
    """Killed between its own note and the engine's answer: it neither waits for ever nor is begun twice."""
    make_all(place.store, PLAYED)
    fill = ("backfill", "curate", "--profile", "smoke", "--engine", place.engine, "--shards", "a,b")
    run_id = of_shard(Request("curate", profile="smoke"), "a").run_id
    run, asked = place.store.runs.of(run_id), asdict(Request("curate", profile="smoke"))
    note = asked_now(run, place.engine, asked)
    assert create_submission(run, note)
    assert re.search(r"a +pending +wait", place.wfm(*fill, "--dry-run")), "it may be on its way"
    write_submission(run, note.model_copy(update={"begun_at": note.begun_at - 600.0}))
    assert re.search(r"a +dead +go on", place.wfm(*fill, "--dry-run"))
    assert f"wfm rerun {run_id} asks for the same again" in place.wfm("status", run_id)
    assert "\n2 done\n" in place.wfm(*fill)
    assert len(place.runs()) == 2
    assert len(place.store.runs.list()) == 2


@pytest.mark.parametrize("engine", ["argo", "kubeflow"])
def test_a_run_whose_workflow_is_gone_is_lost_and_a_backfill_ends(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted between two stages: it was open for ever. In the wrong namespace one that works looks the same, so that nothing
    begins it again unasked."""
    fill = ("backfill", "curate", "--profile", "smoke", "--engine", place.engine, "--shards", "a")
    wanted = Request("curate", profile="smoke")
    run_id = of_shard(wanted, "a").run_id
    place.wfm("submit", "curate", "--profile", "smoke", "--engine", place.engine, "--run-id", run_id)
    (place.server.workflows if place.engine == "argo" else place.server.runs).clear()
    run = create_run(wanted, wanted.plan(place.store), place.store, "", run_id)
    run.write_outcome(PLAYED[0], run.append_attempt(PLAYED[0]), {"outcome": "done"})
    assert re.search(r"a +waiting +wait", place.wfm(*fill, "--dry-run")), "a moment ago there was a sign of it"
    note = submission_of(run)
    assert note is not None
    assert note.name
    write_submission(run, note.model_copy(update={"begun_at": note.begun_at - 3600.0}))
    monkeypatch.setattr("pipelines.verbs.LOST_SECONDS", 0.0)
    said = place.wfm("status", run_id)
    assert "is dead" in said
    assert re.search(r"nothing was heard of it for 0 min.*another namespace or server", said)
    left = place.wfm(*fill, code=1)
    assert re.search(r"a +dead +leave", left)
    assert "1 lost by the engine" in left
    assert place.runs() == []
    monkeypatch.setattr("pipelines.verbs.LOST_SECONDS", 3600.0)
    assert re.search(r"a +waiting +wait", place.wfm(*fill, "--dry-run")), "the bound is that of its last sign"
    monkeypatch.setattr("pipelines.verbs.LOST_SECONDS", 0.0)
    assert re.search(r"a +dead +try again", place.wfm(*fill, "--dry-run", "--retry-lost"))
    assert "nothing is to be stopped there" in place.wfm("cancel", run_id)
    assert re.search(r"a +cancelled +leave", place.wfm(*fill, "--dry-run", "--retry-lost"))


@pytest.mark.parametrize("engine", ["argo", "kubeflow"])
def test_who_asks_once_more_spoils_nothing_of_what_is_there(place: Place) -> None:
    """For another engine's run, for one that was taken, and with a password in an address."""
    make_all(place.store, PLAYED)
    asked = ("submit", "curate", "--profile", "smoke", "--engine", place.engine, "--run-id")
    run = place.store.runs.of("here")
    assert create_submission(run, asked_now(run, "local", asdict(Request("curate", profile="smoke"))))
    assert "run here was asked of local already" in place.wfm(*asked, "here", code=78)
    assert place.runs() == [], "two engines would both make it"
    assert (found := submission_of(run)) is not None
    assert (found.engine, found.refused) == ("local", "")
    place.wfm(*asked, "there")
    if place.engine == "argo":
        assert "has no WorkflowTemplate" in place.wfm(*asked, "there", "--template", "nowhere", code=78)
    assert (found := submission_of(place.store.runs.of("there"))) is not None
    assert found.name
    assert not found.refused, "it was taken"
    assert "carries credentials" in place.wfm(*asked, "secret", "--videos", "https://u:hushhush@host/v", code=78)
    root = Path(place.store.url.removeprefix("file://"))
    assert not [path for path in root.rglob("*") if path.is_file() and b"hushhush" in path.read_bytes()]


def make_all(store: Store, nodes: Sequence[str]) -> None:
    """What these nodes of the pipeline make, without a stage."""
    for node in Request("curate", profile="smoke").plan(store).nodes:
        if node.name in nodes:
            with store.attempt(node.key or "") as making:
                making.commit(stage=node.stage, kind=STAGES[node.stage].output)


def iso(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")
