"""What is seen of a run that no engine of ours looks after: by its tries, their beats and their outcomes."""

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.runs.seen import by_node, cost_in_words, read_tries, see
from pipelines.runs.state import NodeState, RunState, StateWriter
from wfm.artifacts import Store
from wfm.artifacts.lease import this_process
from wfm.artifacts.runs import Run
from wfm.cluster.records import Said, write_said

Cli = Callable[..., tuple[int, str, str]]
ELSEWHERE = {"machine": "another boot", "host": "node-7", "pid": 7, "pid_start": "1", "ranks": 1}
NODES = [{"name": name, "stage": name, "key": "", "done": name == "there"} for name in ("there", "split", "train")]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    store = Store.open(tmp_path / "store", {"fsync": False})
    monkeypatch.setenv("WFM_STORE", store.url)
    return store.runs.create({"pipeline": "p", "profile": "demo", "nodes": NODES})


def at(seconds_ago: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() - seconds_ago))


def a_try(run: Run, node: str, ago: float = 0.0, cpu: float = 1.0, outcome: str = "", **more: object) -> int:
    number = run.append_attempt(node, {**ELSEWHERE, **more})
    run.write_usage(node, number, {"at": at(ago), "every": 0.4, "seconds": 1.0, "cpu_seconds": cpu, "gpu_seconds": 2.0})
    if outcome:
        run.write_outcome(node, number, {"outcome": outcome, "reason": f"it ended with {outcome}", "cpu_seconds": cpu})
    return number


def states(run: Run, **more: bool) -> tuple[str, dict[str, str]]:
    state = see(run, **more)
    assert state is not None
    return state.state, {name: node.state for name, node in state.nodes.items()}


def test_a_run_without_an_engine_is_told_by_its_tries(run: Run) -> None:
    assert see(run) is None, "it never began"
    a_try(run, "split", outcome="try_again")
    assert states(run) == ("waiting", {"there": "cached", "split": "retrying", "train": "waiting"})
    a_try(run, "split")
    assert states(run) == ("running", {"there": "cached", "split": "running", "train": "waiting"})
    a_try(run, "split", outcome="done")
    run.write_outcome("split", 2, {"outcome": "try_again"})
    a_try(run, "train", outcome="wrong_input")
    assert states(run) == ("failed", {"there": "cached", "split": "done", "train": "failed"})
    a_try(run, "train", outcome="done")
    assert states(run) == ("done", {"there": "cached", "split": "done", "train": "done"})


def test_a_run_that_is_planned_for_an_engine_elsewhere_is_no_run_that_never_began(run: Run, cli: Cli) -> None:
    """Its plan has been written down with its stages' specs, and the workflow waits for its turn."""
    assert "never began" in cli("status", run.id)[1]
    run.write("specs/split.json", "{}", private=True)
    assert states(run) == ("planned", {"there": "cached", "split": "waiting", "train": "waiting"})
    told = cli("status", run.id)[1]
    assert "is planned" in told
    assert "none of its stages has begun" in told
    assert "never began" not in told + cli("runs")[1]
    code, out, _ = cli("cancel", run.id)
    assert (code, "is cancelled" in out) == (0, True)
    assert run.cancelled_by(), "whoever begins its stages is told so"
    assert states(run)[0] == "cancelled"


def test_the_page_of_a_run_elsewhere_is_told_when_it_is_made(run: Run, cli: Cli) -> None:
    """Where stages run as jobs nobody pulls it, and it has no name: its key is what a reader needs."""
    nodes = [{**node, "done": False} for node in NODES]
    other = Store.open(run.path_of().partition("/runs/")[0]).runs.create(
        {"pipeline": "p", "nodes": nodes, "page": "train"}
    )
    other.write_outcome("split", a_try(other, "split"), {"outcome": "done", "key": "a" * 64})
    assert "its page" not in cli("status", other.id)[1]
    other.write_outcome("train", a_try(other, "train"), {"outcome": "done", "key": "b" * 64})
    assert f"wfm artifacts pull {'b' * 12} page" in " ".join(cli("status", other.id)[1].split())


def test_what_a_launcher_waits_for_is_seen_before_any_stage_began(run: Run, cli: Cli) -> None:
    write_said(run, "split", Said("k", "queued: insufficient unused quota"), time.time())
    assert states(run) == ("waiting", {"there": "cached", "split": "waiting", "train": "waiting"})
    assert "queued: insufficient unused quota" in cli("status", run.id)[1]
    a_try(run, "split", outcome="cancelled")  # preempted: nobody cancelled this run
    write_said(run, "split", Said("k", "pulling image r/wfm"), time.time())
    assert states(run)[1]["split"] == "retrying"
    assert "pulling image r/wfm" in cli("status", run.id)[1]
    a_try(run, "split")
    assert states(run)[1]["split"] == "running"
    run.write_outcome("split", 2, {"outcome": "wrong_input", "reason": "why"})
    write_said(run, "split", Said("k", "wrong_input: why", ended="wrong_input"), time.time())
    assert states(run)[1]["split"] == "failed"


def test_a_range_of_parts_makes_no_node_done(run: Run) -> None:
    a_try(run, "split", outcome="done", parts="0/2")
    assert states(run)[1]["split"] == "waiting"
    a_try(run, "split", parts="1/2")
    assert states(run)[1]["split"] == "running"


def test_clocks_five_minutes_apart_turn_no_live_try_dead(run: Run) -> None:
    """It looks silent since 300 s; who waits for a beat sees that it lives. The twin whose beat stands still is lost."""
    number, over = a_try(run, "split", ago=300.0), threading.Event()
    assert states(run)[1]["split"] == "silent"

    def beat() -> None:
        while not over.wait(0.1):
            run.write_usage("split", number, {"at": at(300.0 - time.monotonic() % 100), "every": 0.4})

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        assert states(run, patient=True) == ("running", {"there": "cached", "split": "running", "train": "waiting"})
    finally:
        over.set()
        beating.join()
    state = see(run, patient=True)
    assert state is not None
    assert state.nodes["split"].state == "lost"
    assert "killed or lost: its last sign was" in state.nodes["split"].reason
    assert "node-7" in state.nodes["split"].reason


def test_a_beat_of_long_ago_is_lost_at_once(run: Run) -> None:
    a_try(run, "split", ago=7200.0)
    began = time.monotonic()
    assert states(run, patient=True)[1]["split"] == "lost"
    assert time.monotonic() - began < 30


def test_a_process_of_this_machine_is_looked_at_itself(run: Run) -> None:
    a_try(run, "split", ago=7200.0, **this_process())
    assert states(run)[1]["split"] == "running", "whatever its beat says"
    a_try(run, "train", **{**this_process(), "pid_start": "1"})
    assert states(run)[1]["train"] == "lost"


def test_all_tries_cost(run: Run) -> None:
    for outcome in ("try_again", "", "bug", "done"):
        a_try(run, "split", ago=7200.0, cpu=10.0, outcome=outcome)
    number = a_try(run, "train", cpu=1.0, outcome="done", ranks=3)
    for rank in (1, 2):
        run.write_usage("train", number, {"cpu_seconds": 5.0, "gpu_seconds": 2.0}, rank)
    tries = read_tries(run)
    told = cost_in_words(tries)
    assert told == "5 tries: cpu 51.0 s, gpu 14.0 s, of that cpu 30.0 s, gpu 6.0 s in 3 that made nothing"
    state = see(run)
    assert state is not None
    assert (state.nodes["split"].cpu_seconds, state.nodes["train"].cpu_seconds) == (40.0, 11.0)
    assert [one.state for one in by_node(tries)["split"]] == ["try_again", "lost", "bug", "done"]


def test_ranks_that_were_killed_are_not_counted_twice(run: Run) -> None:
    number = a_try(run, "train", cpu=1.0, ranks=2)
    run.write_usage("train", number, {"cpu_seconds": 5.0, "gpu_seconds": 2.0}, rank=1)
    run.write_outcome("train", number, {"outcome": "try_again", "cpu_seconds": 7.0, "written_by": "run"})  # of both
    (one,) = read_tries(run)
    assert (one.cpu_seconds, one.gpu_seconds) == (7.0, 4.0)


def test_a_log_that_is_not_there_is_not_an_empty_one(run: Run, cli: Cli) -> None:
    a_try(run, "split", outcome="done")
    a_try(run, "train", outcome="done", ranks=2)
    for arguments, says in (
        (("split", "--attempt", "9"), "--attempt 9: stage split of run .* its tries are 1"),
        (("split", "--rank", "1"), "--rank 1: try 1 at stage split .* one process"),
        (("train", "--rank", "2"), "--rank 2: try 1 at stage train .* 2 processes, 0 to 1"),
    ):
        code, _, err = cli("logs", run.id, *arguments)
        assert code == 78
        assert re.search(says, " ".join(err.split())), err
    assert cli("logs", run.id, "train", "--rank", "1")[0] == 0


def test_status_logs_and_cancel_need_no_engine(run: Run, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    number = a_try(run, "split", ago=-1.0)
    run.write_log("split", number, "on a cluster\n")
    code, out, _ = cli("status", run.id)
    assert (code, "is running" in out, "1 try: cpu 1.0 s" in out) == (0, True, True)
    assert cli("logs", run.id, "split")[1] == "on a cluster\n"
    assert run.id in cli("runs")[1]

    def stage() -> None:
        while not run.cancelled_by():
            time.sleep(0.05)
        run.write_outcome("split", number, {"outcome": "cancelled", "reason": "asked to stop"})

    listening = threading.Thread(target=stage)
    listening.start()
    code, out, _ = cli("cancel", run.id)
    listening.join()
    assert (code, "is cancelled" in out) == (0, True)
    code, _, err = cli("cancel", run.id)
    assert (code, "it is cancelled" in err) == (78, True)


def test_logs_follow_a_try_that_no_engine_looks_after(run: Run, cli: Cli) -> None:
    number = a_try(run, "split", ago=-60.0)
    run.write_log("split", number, "first\n")

    def stage() -> None:
        time.sleep(0.3)
        run.write_outcome("split", number, {"outcome": "done"})

    ending = threading.Thread(target=stage)
    ending.start()
    assert cli("logs", run.id, "split", "--follow")[1] == "first\n"
    ending.join()


def test_what_stages_wrote_is_not_believed(run: Run) -> None:
    number = run.append_attempt("split", {"machine": 7, "host": [], "ranks": "many", "pid": "x", "pod": None})
    run.write_usage(
        "split", number, {"at": "yesterday", "every": -1, "cpu_seconds": -5, "gpu_seconds": True, "peak_bytes": "1"}
    )
    (one,) = read_tries(run)
    assert (one.state, one.cpu_seconds, one.gpu_seconds, one.peak_bytes, one.every) == ("lost", 0.0, 0.0, 0.0, 10.0)


def test_a_state_that_cannot_be_saved_is_told_once_and_again_after_it_could(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk was told at each beat and each change, in lines without end."""
    where = Path(run.path_of("state.json").removeprefix("file://"))
    with StateWriter(run, RunState(run_id=run.id, pipeline="p"), lambda: None) as writer:
        for times in (1, 2):
            where.unlink()
            (where / "in the way").mkdir(parents=True)
            for _ in range(3):
                writer.save()
            assert caplog.text.count("could not be saved") == times
            (where / "in the way").rmdir()
            where.rmdir()
            writer.save()


def test_a_killed_engine_leaves_what_its_stages_say(run: Run) -> None:
    nodes = {name: NodeState(stage=name) for name in ("split", "train")}
    state = RunState(run_id=run.id, pipeline="p", nodes=nodes)
    with StateWriter(run, state, lambda: None):
        nodes["split"].state = "running"
        nodes["split"].started = time.time()
        state.pid, state.process_started = 2**30, time.time()
    a_try(run, "split", ago=7200.0)
    assert states(run) == ("dead", {"split": "lost", "train": "not_run"})
    a_try(run, "split")
    assert states(run)[0] == "running", "its stage lives on"
