"""Both engines on small pipelines of real processes: the same keys, attempts, outcomes, names and states."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from wfm_fakes.workshop import FAKES, ROOT, Nodes, Workshop

from pipelines.engines.engine import RunSummary, choose
from pipelines.runs.state import NodeState, RunState, read_state
from wfm.artifacts import Store
from wfm.errors import InputError, MissingPackage

SLEEPY: Nodes = {"a": ([], {}), "sleeper": (["a"], {"sleep": 60}), "after": (["sleeper"], {})}


def states(summary: Any) -> dict[str, str]:
    return {name: node.state for name, node in summary.state.nodes.items()}


@pytest.fixture(params=["prefect", "local"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def either(workshop: Workshop, engine: str) -> Workshop:
    workshop.engine = engine
    return workshop


def in_process(folder: Path, nodes: Nodes, engine: str) -> "subprocess.Popen[bytes]":
    (folder / "notes").mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FAKES), str(ROOT)])}
    command = [sys.executable, "-m", "wfm_fakes.workshop", str(folder), json.dumps(nodes), engine]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)


def wait_for_start(folder: Path, node: str) -> int:
    """The pid of a node's process once it is at work."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        if (folder / "notes" / "events").exists():
            for line in (folder / "notes" / "events").read_text().splitlines():
                event = json.loads(line)
                if (event["node"], event["event"]) == (node, "start"):
                    return int(event["pid"])
        time.sleep(0.05)
    raise AssertionError((folder / "log").read_text())


def gone(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_both_engines_make_the_same_of_the_same_pipeline(tmp_path: Path) -> None:
    """A diamond with a branch that fails for good, one that passes at the third try, and a name, in a store each."""
    nodes: Nodes = {
        "root": ([], {}), "left": (["root"], {"fail": ["try_again", "kill"]}), "right": (["root"], {}),
        "join": (["left", "right"], {}), "wrong": (["root"], {"fail": ["wrong_input"]}), "after_wrong": (["wrong", "join"], {}),
    }  # fmt: skip
    told = []
    for engine in ("prefect", "local"):
        (tmp_path / engine).mkdir()
        workshop = Workshop(tmp_path / engine, Store.open(tmp_path / engine / "store", {"fsync": False}), engine)
        plan = workshop.plan(nodes)
        plan.node("join").promote = "fake/joined"
        summary, run = workshop.run(plan)
        saved = read_state(run)
        assert saved is not None
        books = {
            name: (node.state, node.key, node.outcome, node.attempts, node.reason) for name, node in saved.nodes.items()
        }
        tries = [(one.node, one.number, (one.outcome or {})["outcome"]) for one in run.read_outcomes()]
        told.append((saved.state, summary.exit_code, books, tries, workshop.store.resolve("fake/joined")))
    assert told[0] == told[1]
    assert told[0][:2] == ("failed", 78)
    assert {name: state for name, (state, *_) in told[0][2].items()} == {
        "root": "done", "left": "done", "right": "done", "join": "done", "wrong": "failed", "after_wrong": "not_run",
    }  # fmt: skip


def test_without_prefect_the_plain_engine_runs_and_is_the_only_choice(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choose("") == "prefect"
    with pytest.raises(InputError, match=r"unknown engine 'argo'. Choices: prefect, local"):
        choose("argo")
    monkeypatch.setitem(sys.modules, "prefect", None)  # what Python takes for a package that is not there
    with pytest.raises(MissingPackage, match=r"--engine local needs no package"):
        choose("prefect")
    workshop.engine = ""
    summary, _ = workshop.run(workshop.plan({"a": ([], {}), "b": (["a"], {})}))
    assert (summary.engine, states(summary)) == ("local", {"a": "done", "b": "done"})


def test_what_fails_twice_passes_the_third_time(either: Workshop) -> None:
    summary, run = either.run(either.plan({"a": ([], {"fail": ["try_again", "kill"]}), "b": (["a"], {})}))
    assert states(summary) == {"a": "done", "b": "done"}
    assert (summary.exit_code, summary.engine) == (0, either.engine)
    assert either.started() == ["a", "a", "a", "b"]
    outcomes = [attempt.outcome for attempt in run.read_outcomes("a")]
    assert [one and one["outcome"] for one in outcomes] == ["try_again", "try_again", "done"]
    assert outcomes[1] is not None
    assert "SIGKILL" in outcomes[1]["reason"]
    assert outcomes[1]["written_by"] == "run"
    assert "hello from a" in run.read_log("a", 1)
    saved = read_state(run)
    assert saved is not None
    assert (saved.state, saved.nodes["a"].attempts) == ("done", 3)
    assert saved.nodes["a"].cpu_seconds > 0


def test_what_always_fails_stops_its_branch_only_and_rerun_does_the_rest(either: Workshop) -> None:
    nodes: dict[str, Any] = {
        "root": ([], {}),
        "bad": (["root"], {"fail": ["try_again"] * 9, "row": {"retries": 1}}),
        "after_bad": (["bad"], {}),
        "good": (["root"], {}),
        "after_good": (["good"], {}),
    }
    summary, _ = either.run(either.plan(nodes))
    assert states(summary) == {
        "root": "done", "bad": "failed", "after_bad": "not_run", "good": "done", "after_good": "done",
    }  # fmt: skip
    assert either.started().count("bad") == 2
    assert summary.exit_code == 75
    assert "bad" in summary.state.nodes["after_bad"].reason
    assert "told to fail" in summary.state.nodes["bad"].reason

    either.forget()
    nodes["bad"] = (["root"], {})  # mended
    summary, _ = either.run(either.plan(nodes))
    assert either.started() == ["bad", "after_bad"]
    assert summary.exit_code == 0
    assert states(summary)["good"] == "cached"


def test_the_outcome_decides_about_another_try(either: Workshop) -> None:
    nodes: Nodes = {how: ([], {"fail": [how] * 9}) for how in ("wrong_input", "bug", "exit_3")}
    summary, _ = either.run(either.plan(nodes))
    assert {how: either.started().count(how) for how in nodes} == {"wrong_input": 1, "bug": 2, "exit_3": 2}
    assert summary.exit_code == 1


def test_what_another_run_works_on_is_waited_for_and_costs_no_try(either: Workshop) -> None:
    plan = either.plan({"a": ([], {"fail": ["held", "held"], "row": {"retries": 0}})})
    other = either.store.lease(plan.node("a").key or "").acquire()
    released: list[float] = []

    def end() -> None:
        while len(either.started()) < 1:
            time.sleep(0.05)
        time.sleep(3.0)
        released.append(time.time())
        other.release()

    ending = threading.Thread(target=end)
    ending.start()
    summary, run = either.run(plan)
    ending.join()
    assert states(summary) == {"a": "done"}
    assert summary.state.nodes["a"].attempts == 1
    _, second, third = [event["time"] for event in either.events() if event["event"] == "start"]
    assert released[0] < second < third
    assert len(run.attempts("a")) == 3


def test_a_run_that_waits_for_another_can_be_stopped(workshop: Workshop) -> None:
    plan = workshop.plan({"a": ([], {"fail": ["held"] * 9})})

    def ask() -> None:
        while not any(run.read_outcomes("a") for run in workshop.store.runs.list()):
            time.sleep(0.1)
        time.sleep(1.0)
        workshop.store.runs.list()[0].request_cancel()

    asking = threading.Thread(target=ask)
    asking.start()
    with workshop.store.lease(plan.node("a").key or ""):
        summary, _ = workshop.run(plan)
    asking.join()
    assert (states(summary), summary.exit_code) == ({"a": "cancelled"}, 143)
    assert len(workshop.started()) == 1


@pytest.mark.parametrize(
    ("run", "outcomes", "code"),
    [
        ("done", [], 0),
        ("cancelled", ["bug"], 143),
        ("failed", ["wrong_input"], 78),
        ("failed", ["wrong_input", "try_again"], 75),
        ("failed", ["wrong_input", "bug"], 1),
        ("failed", [], 1),
    ],
)
def test_the_exit_code_of_a_run(run: str, outcomes: list[str], code: int) -> None:
    nodes = {str(n): NodeState(stage="s", state="failed", outcome=outcome) for n, outcome in enumerate(outcomes)}
    assert RunSummary("r", RunState(run_id="r", pipeline="p", state=run, nodes=nodes), True).exit_code == code


def test_a_stage_that_takes_too_long_is_stopped_and_tried_again(workshop: Workshop) -> None:
    row = {"timeout_seconds": 1.0, "retries": 1}
    summary, _ = workshop.run(workshop.plan({"a": ([], {"sleep": 60, "row": row})}))
    assert states(summary) == {"a": "failed"}
    assert workshop.started() == ["a", "a"]
    assert "longer than its 1 s" in summary.state.nodes["a"].reason
    assert all(gone(event["pid"], 1.0) for event in workshop.events())


def test_nothing_missing_starts_no_engine(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes: Nodes = {"a": ([], {}), "b": (["a"], {})}
    workshop.run(workshop.plan(nodes))
    monkeypatch.setattr("pipelines.engines.engine._drive", lambda *_: pytest.fail("an engine was started"))
    summary, run = workshop.run(workshop.plan(nodes))
    assert states(summary) == {"a": "cached", "b": "cached"}
    assert (summary.exit_code, summary.engine) == (0, "")
    assert run.nodes() == []


def test_planning_and_a_run_without_work_do_not_load_prefect(workshop: Workshop) -> None:
    code = """import sys, pipelines.commands.cli, pipelines.start_run
sys.exit(any(name in sys.modules for name in ("prefect", "torch", "dask")))"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_redo_runs_that_node_and_what_follows(workshop: Workshop) -> None:
    nodes: Nodes = {"a": ([], {}), "b": (["a"], {}), "c": (["b"], {}), "side": (["a"], {})}
    first, _ = workshop.run(workshop.plan(nodes))
    workshop.forget()
    again, _ = workshop.run(workshop.plan(nodes, redo={"b": "nonce"}))
    assert workshop.started() == ["b", "c"]
    assert again.state.nodes["b"].key != first.state.nodes["b"].key
    assert workshop.store.has(first.state.nodes["b"].key), "the old artifact stays"


@pytest.mark.parametrize(
    ("row", "cpu", "memory", "most"),
    [
        ({"cpu": 1, "memory_gib": 0.1}, 2.0, 8.0, 2),
        ({"cpu": 0.1, "memory_gib": 64}, 8.0, 4.0, 1),  # more than there is: it gets all of it
    ],
)
def test_the_budget_bounds_what_runs_side_by_side(
    workshop: Workshop, row: dict, cpu: float, memory: float, most: int
) -> None:
    nodes: Nodes = {name: ([], {"sleep": 0.4, "row": row}) for name in "abc"}
    summary, _ = workshop.run(workshop.plan(nodes), cpu=cpu, memory_gib=memory)
    assert summary.exit_code == 0
    moments = sorted((event["time"], 1 if event["event"] == "start" else -1) for event in workshop.events())
    running = peak = 0
    for _, change in moments:
        running += change
        peak = max(peak, running)
    assert peak == most


def test_names_follow_what_was_made_and_what_was_there(either: Workshop) -> None:
    store = either.store
    for value in (1, 2, 1):
        plan = either.plan({"a": ([], {"value": value})})
        plan.nodes[0].promote = "fake/thing"
        either.run(plan)
        assert store.resolve("fake/thing@latest") == plan.nodes[0].key
    assert len(either.started()) == 2, "the third run found what the first had made"


def test_a_cancel_request_in_the_store_stops_a_run(either: Workshop) -> None:
    def ask() -> None:
        wait_for_start(either.folder.parent, "sleeper")
        either.store.runs.list()[0].request_cancel("a test")

    asking = threading.Thread(target=ask)
    asking.start()
    summary, run = either.run(either.plan(SLEEPY))
    asking.join()
    assert states(summary) == {"a": "done", "sleeper": "cancelled", "after": "cancelled"}
    assert (summary.state.state, summary.exit_code) == ("cancelled", 143)
    assert run.read_outcomes("sleeper")[0].outcome["outcome"] == "cancelled"  # type: ignore[index]


def test_a_signal_stops_the_stages_in_order(tmp_path: Path, engine: str) -> None:
    process = in_process(tmp_path, SLEEPY, engine)
    try:
        stage = wait_for_start(tmp_path, "sleeper")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 143, (tmp_path / "log").read_text()
        assert gone(stage, 1.0)
        state = read_state(Store.open(tmp_path / "store").runs.list()[0])
        assert state is not None
        assert (state.state, state.nodes["sleeper"].outcome) == ("cancelled", "cancelled")
    finally:
        process.kill()
        process.wait()


def test_a_killed_run_is_seen_as_dead_and_leaves_no_orphan(tmp_path: Path, engine: str) -> None:
    process = in_process(tmp_path, SLEEPY, engine)
    try:
        stage = wait_for_start(tmp_path, "sleeper")
        run = Store.open(tmp_path / "store").runs.list()[0]
        before = read_state(run)
        assert before is not None
        assert before.seen() == "running"
        everyone = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        assert stage in everyone
        process.kill()
        process.wait()
        assert all(gone(pid, 8.0) for pid in everyone), "something outlived the run"
        after = read_state(run)
        assert after is not None
        assert (after.state, after.seen()) == ("running", "dead")
        other = "local" if engine == "prefect" else "prefect"  # the store knows what is there, not the engine
        workshop = Workshop(tmp_path / "notes", Store.open(tmp_path / "store"), other)
        workshop.forget()
        summary, _ = workshop.run(workshop.plan({**SLEEPY, "sleeper": (["a"], {})}))
        assert states(summary) == {"a": "cached", "sleeper": "done", "after": "done"}
        assert workshop.started() == ["sleeper", "after"]
    finally:
        process.kill()
        process.wait()


def test_a_stage_whose_artifact_is_not_there_is_a_bug(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = workshop.plan({"a": ([], {"row": {"retries": 0}})})
    real = workshop.store.has
    monkeypatch.setattr(
        workshop.store, "has", lambda key: False if sys._getframe(1).f_code.co_name == "_start" else real(key)
    )
    summary, _ = workshop.run(plan)
    assert summary.exit_code == 1
    assert "not in the store" in summary.state.nodes["a"].reason


def test_curation_stages_share_one_dask_cluster_that_goes_with_the_last_of_them(workshop: Workshop) -> None:
    dask = {"kind": "daskjob"}
    nodes: Nodes = {"a": ([], {"row": dask}), "b": (["a"], {"row": dask}), "training": (["b"], {"sleep": 1})}
    summary, run = workshop.run(workshop.plan(nodes), cpu=1)
    assert summary.exit_code == 0
    addresses = {node: run.read_log(node).partition("scheduler '")[2].partition("'")[0] for node in nodes}
    assert addresses["a"].startswith("tls://127.0.0.1:")
    for node in ("a", "b"):
        assert "workers say [3]" in run.read_log(node)  # the stage has the keys
        spec = workshop.store.objects.local_path(f"runs/{run.id}/specs/{node}.json")
        assert spec is not None
        assert addresses[node] not in spec.read_text()  # it was written before there was a cluster
        assert "PRIVATE KEY" not in spec.read_text() + run.read_log(node)
    assert addresses["b"] == addresses["a"]
    assert addresses["training"] == ""
    host, port = addresses["a"].removeprefix("tls://").split(":")
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((host, int(port)), timeout=2)


def test_a_stage_imports_nothing_from_the_current_folder(
    either: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "videos").mkdir()
    for name in ("hashlib", "argparse", "wfm_fakes"):
        (tmp_path / "videos" / f"{name}.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w').close()\n")
    monkeypatch.chdir(tmp_path / "videos")
    summary, _ = either.run(either.plan({"a": ([], {})}))
    assert not (tmp_path / "mark").exists()  # it ran before, and the stage failed
    assert "." not in sys.path  # Prefect's migrations put it there, and Dask's workers got it
    assert summary.exit_code == 0


def test_one_figure_for_peak_memory_and_who_made_it(workshop: Workshop) -> None:
    """Status shows what manifest and page do: workers on Dask are in it. The old code showed the stage's own process alone
    (some 60 MiB here), and called "done" what the stage found another run had made."""
    peak = 7 * 2**30
    plan = workshop.plan({"a": ([], {"peak": peak}), "b": ([], {"peak": peak, "says": "cached"})})
    summary, run = workshop.run(plan)
    assert states(summary) == {"a": "done", "b": "cached"}
    saved = read_state(run)
    assert saved is not None
    assert saved.nodes["a"].peak_bytes == peak
    assert 0 < saved.nodes["b"].peak_bytes < peak, "what it used itself to find out"
