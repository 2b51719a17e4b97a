"""The command line: what a user types, reads and gets as exit code."""

import os
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from wfm_fakes.workshop import Workshop

from pipelines.request import Request
from pipelines.runs.state import NodeState, RunState, StateWriter, read_state
from pipelines.start_run import create_run, for_itself
from wfm.artifacts import Store
from wfm.artifacts.attempt_log import LogPieces

ROOT = Path(__file__).parents[3]
Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["status"], 78, "no runs yet"),
        (["runs"], 0, "no runs yet"),
        (["run", "nope"], 78, "Choices: world_model, curate, decoder"),
        (["run", "world_model", "--profile", "nope"], 78, "unknown profile 'nope'"),
        (["run", "world_model", "--engine", "nope"], 78, "unknown engine 'nope'. Choices: prefect, local"),
        (["bogus"], 78, "bogus"),
        (["statsu"], 78, "Did you mean 'status'"),
        (["artifacts", "lst"], 78, "Did you mean 'list'"),
        (["run"], 78, "Missing argument"),
        (["artifacts", "show", "model/none"], 78, "model/none"),
        (["artifacts", "verify"], 78, "--all"),
        (["logs", "20200101", "x"], 78, "20200101"),
        (["--store"], 78, "--store"),
    ],
)
def test_wrong_input_is_one_message(cli: Cli, words: list[str], code: int, expected: str) -> None:
    got, out, err = cli(*words)
    assert got == code
    assert expected in out + err
    assert "Traceback" not in out + err


def test_a_store_that_is_read_is_there(cli: Cli, tmp_path: Path) -> None:
    """A misspelt one was an empty one, in which nothing had happened yet."""
    Store.open(tmp_path / "my-store").runs.create({"pipeline": "p", "nodes": []})
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.mp4").write_bytes(b"")
    for words in (["runs"], ["status"], ["artifacts", "list"], ["artifacts", "gc"], ["search", "x"], ["rerun"]):
        code, _, err = cli(*words, "--store", str(tmp_path / "my-stroe"))
        assert (code, f"does not exist. Did you mean '{tmp_path / 'my-store'}'?" in err) == (78, True), (words, err)
        assert not (tmp_path / "my-stroe").exists()
    code, _, err = cli("runs", "--store", str(tmp_path / "films"))
    assert (code, "is no store: it holds none of the folders of one" in err) == (78, True)
    assert cli("runs", "--store", str(tmp_path / "my-store"))[0] == 0
    dry = ("run", "curate", "--profile", "smoke", "--dry-run", "--store", str(tmp_path / "new"))
    assert cli(*dry)[0] == 0, "what writes makes it"


def test_a_terminal_without_unicode_gets_ascii(tmp_path: Path) -> None:
    """The marks ended the command with UnicodeEncodeError, and so did a name."""
    store = Store.open(tmp_path / "store", {"fsync": False})
    state = a_run(store, a=NodeState(stage="a", state="done", note="高 → 1", started=1.0, ended=2.0))
    store.runs.open(state.run_id).write("state.json", state.model_dump_json())
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "WFM_STORE": store.url}
    command = [sys.executable, "-m", "pipelines.commands.cli", "status"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode("ascii").splitlines()[3].split() == [
        "+",
        "a",
        "done",
        "1.0",
        "s",
        "\\u9ad8",
        ">",
        "1",
    ]


def test_a_bug_is_said_and_its_trace_kept(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.commands.doctor.examine", lambda: 1 / 0)
    code, out, err = cli("doctor")
    assert code == 1
    assert "Traceback" not in out + err
    where = Path(err.rsplit(" ", 1)[1].strip())
    assert "ZeroDivisionError" in where.read_text()
    assert "wfm doctor" in where.read_text()


@pytest.mark.parametrize("group", [[], ["artifacts"]])
def test_every_command_has_a_help(cli: Cli, group: list[str]) -> None:
    from pipelines.commands.artifacts import app as artifacts
    from pipelines.commands.cli import app

    commands = (artifacts if group else app).registered_commands
    names = [command.name or str(getattr(command.callback, "__name__", "")) for command in commands]
    assert len(names) >= 10
    for name in names:
        code, out, _ = cli(*group, name.rstrip("_"), "--help")
        assert code == 0
        assert "Usage" in out


def test_doctor_lists_every_extra_and_what_is_missing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import metadata

    from pipelines.commands import doctor

    code, out, _ = cli("doctor")
    assert code == 0
    extras = set(metadata("wfm").get_all("Provides-Extra") or ())
    assert extras == set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    assert extras == set(doctor.PURPOSES) - {""}, "each says what it is for"
    assert {f"wfm[{extra}]" for extra in extras} <= set(out.split())
    for extra, code_of in (("train", 78), ("gpu", 0)):
        monkeypatch.setattr(doctor, "requirements", lambda extra=extra: [doctor.Requirement(extra, "no-such-package")])
        code, out, _ = cli("doctor")
        assert (code, f"missing no-such-package: pip install -c constraints.txt 'wfm[{extra}]'" in out) == (
            code_of,
            True,
        )


def test_doctor_says_what_a_cgroup_allows(tmp_path: Path) -> None:
    from pipelines.commands.doctor import _limit

    for name, text, says in (
        ("cpu.max", "150000 100000\n", "; this cgroup has 1.5"),
        ("cpu.max", "max 100000\n", ""),
        ("memory.max", str(2**31), "; this cgroup has 2.0 GiB"),
        ("memory.max", "nonsense", ""),
    ):
        (tmp_path / name).write_text(text)
        assert _limit(name, str(tmp_path)) == says
    assert _limit("none", str(tmp_path)) == ""


def test_doctor_tells_what_is_other_in_a_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.commands import doctor

    for name in ("WFM_CACHE", "WFM_STORE_OPTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(Path.cwd()))
    monkeypatch.setattr(doctor, "_LEAST_SHARED_BYTES", 0)
    assert [(each.state, each.what) for each in doctor._pod()] == [("ok", "shared memory")]
    monkeypatch.setattr(doctor, "_LEAST_SHARED_BYTES", 1 << 60)
    monkeypatch.setenv("HOME", "/dev/null/x")
    monkeypatch.setenv("WFM_STORE_OPTIONS", '{"key": "k", "secret": "hush"}')
    found = list(doctor._pod())
    assert [each.what for each in found if each.state == "look"] == ["shared memory", "HOME", "keys of the store"]
    words = " ".join(f"{each.purpose} {each.cure}" for each in found)
    assert "emptyDir of medium Memory" in words
    assert "set WFM_CACHE" in words
    assert "key, secret: leave them to a profile" in words
    assert "hush" not in words


def test_doctor_knows_the_versions_that_break_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.commands import doctor

    versions = {"fastapi": "0.155.1", "sqlalchemy": "2.0.99"}
    monkeypatch.setattr(doctor.importlib.metadata, "version", versions.__getitem__)
    assert [each.what for each in doctor._clashes()] == ["fastapi"]


def a_run(store: Store, **nodes: NodeState) -> RunState:
    run = store.runs.create({"pipeline": "p", "profile": "demo", "nodes": []})
    return RunState(run_id=run.id, pipeline="p", profile="demo", nodes=nodes)


def test_status_runs_and_logs_of_a_run_that_failed(cli: Cli, workshop: Workshop) -> None:
    store = workshop.store
    bad = NodeState(stage="bad", state="failed", outcome="bug", reason="it [broke]", attempts=1, started=1.0, ended=3.5)
    state = a_run(store, bad=bad, good=NodeState(stage="good", state="done", key="1" * 64, started=1.0, ended=2.0))
    run = store.runs.open(state.run_id)
    run.write_log("bad", run.append_attempt("bad"), "what the stage said\n")
    with StateWriter(run, state, lambda: None):
        state.state = "failed"
    code, out, _ = cli("status", run.id[:14])
    assert code == 0
    assert "is failed" in out
    assert "it [broke]" in out
    assert f"wfm logs {run.id} bad" in out
    assert cli("logs", "last", "bad")[1] == "what the stage said\n"
    code, _, err = cli("logs", "last", "good")
    assert (code, "no log" in err) == (78, True)
    code, _, err = cli("logs", "last", "spilt")
    assert (code, "Choices: bad, good" in err) == (78, True)
    code, out, _ = cli("runs")
    assert out.splitlines()[1].split()[:4] == [run.id, "p", "demo", "failed"]
    assert "1 made, 1 failed" in out
    assert f"run {run.id}" in cli("status", run.id[-8:-3])[1]
    code, _, err = cli("cancel", run.id)
    assert (code, "is failed" in err) == (78, True)


def test_status_of_a_run_that_was_killed(cli: Cli, workshop: Workshop) -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", "pass"])
    state = a_run(workshop.store, one=NodeState(stage="one", state="running", started=time.time() - 5))
    with StateWriter(workshop.store.runs.open(state.run_id), state, lambda: None):
        child.wait()
        state.pid, state.process_started = child.pid, time.time()
    code, out, _ = cli("status")
    assert code == 0
    assert "is dead" in out
    assert f"wfm rerun {state.run_id}" in out
    assert "dead" in cli("runs")[1]


def test_a_run_on_another_machine_is_dead_when_it_is_silent(workshop: Workshop) -> None:
    state = a_run(workshop.store)
    state.host, state.updated = "elsewhere", time.time()
    assert state.seen() == "running"
    state.updated -= 1000
    assert state.seen() == "dead"


def test_a_run_that_never_began(cli: Cli, workshop: Workshop) -> None:
    run = workshop.store.runs.create({"pipeline": "p", "nodes": []})
    assert "never began" in cli("status")[1]
    assert "never began" in cli("runs")[1]
    assert run.id in cli("runs")[1]


def test_logs_of_all_stages_are_in_the_order_of_the_work_and_say_how_it_ended(cli: Cli, workshop: Workshop) -> None:
    done = {name: NodeState(stage=name, state="done") for name in ("second", "first")}
    run = workshop.store.runs.open(a_run(workshop.store, **done).run_id)
    state = RunState(run_id=run.id, pipeline="p", state="done", nodes=done)
    with StateWriter(run, state, lambda: None):
        pass
    for name in ("first", "second"):
        run.write_log(name, run.append_attempt(name), f"of {name}\n")
    assert cli("logs")[1] == "[second] of second\n[first] of first\n", "of the newest run"
    code, _, err = cli("logs", "--follow")
    assert (code, f"run {run.id} is done" in err) == (0, True)
    code, _, err = cli("logs", "second")
    assert (code, "wfm logs last second" in err) == (78, True)
    assert "is not the id of a run" in cli("logs", "third")[2]


def test_runs_beyond_the_limit_are_counted(cli: Cli, workshop: Workshop) -> None:
    old, new = (a_run(workshop.store).run_id for _ in range(2))
    _, out, err = cli("runs", "--limit", "1")
    assert (new in out, old in out, "1 older" in err) == (True, False, True)
    assert "older" not in cli("runs", "--limit", "2")[2]
    assert cli("runs", "--limit", "0")[0] != 0, "none is not the same as no runs"


def test_logs_follow_until_the_stage_ends(cli: Cli, workshop: Workshop) -> None:
    state = a_run(workshop.store, one=NodeState(stage="one", state="running", started=time.time()))
    run = workshop.store.runs.open(state.run_id)
    log, number = LogPieces(), run.append_attempt("one")
    log.add(b"first\n")
    run.ship_log("one", number, log)
    with StateWriter(run, state, lambda: None) as states:

        def work() -> None:
            time.sleep(0.7)
            log.add(b"second\n")
            run.ship_log("one", number, log)
            with states.change("one") as node:
                node.state, node.ended = "done", time.time()

        worker = threading.Thread(target=work)
        worker.start()
        _, out, _ = cli("logs", run.id, "one", "--follow")
        worker.join()
    assert out == "first\nsecond\n"


def test_artifacts_from_the_cradle_to_the_grave(cli: Cli, workshop: Workshop, tmp_path: Path) -> None:
    store, keys = workshop.store, ["a" * 64, "b" * 64]
    for number, key in enumerate(keys):
        with store.attempt(key) as attempt:
            (attempt.path / "card.json").write_text(f'{{"n": {number}}}')
            (attempt.path / "same.bin").write_bytes(b"same")
            attempt.commit(
                stage="make", kind="thing", config={"n": number}, counts={"outputs": 1}, skipped={"dark": number},
                inputs={"before": keys[0]} if number else {},
            )  # fmt: skip
    assert "thing/x@latest is aaaaaaaaaaaa" in cli("artifacts", "promote", "aaaaaaaa", "thing/x")[1]
    code, out, _ = cli("artifacts", "list")
    assert "thing/x@latest" in out
    assert "bbbbbbbbbbbb" not in out
    assert "bbbbbbbbbbbb" in cli("artifacts", "list", "--all")[1]
    assert '"dark": 1' in cli("artifacts", "show", "bbbbbbbb")[1]
    assert "same.bin" in cli("artifacts", "files", "thing/x")[1]
    out = cli("artifacts", "diff", "aaaaaaaa", "bbbbbbbb")[1]
    assert "config.n: 0 -> 1" in out
    assert "inputs.before: (absent) -> aaaaaaaa" in out
    assert "~ card.json" in out
    assert "files: 1 the same, 1 not" in out
    out = cli("artifacts", "lineage", "bbbbbbbb")[1]
    assert "from before=aaaaaaaaaaaa" in out
    code, out, _ = cli("artifacts", "pull", "thing/x@latest", str(tmp_path / "out"), "--what", "tables")
    assert (code, (tmp_path / "out" / "card.json").exists()) == (0, True)
    assert not (tmp_path / "out" / "same.bin").exists()
    assert cli("artifacts", "pull", "thing/x@latest", str(tmp_path / "out"))[0] == 0
    assert (tmp_path / "out" / "same.bin").exists(), "all of it unless told otherwise"
    assert cli("artifacts", "verify", "--all")[0] == 0
    next((tmp_path / "store" / "artifacts" / keys[0]).rglob("same.bin")).write_bytes(b"sane")
    code, out, _ = cli("artifacts", "verify", "thing/x")
    assert (code, "DAMAGED" in out, "same.bin" in out) == (78, True, True)
    assert cli("artifacts", "invalidate", "thing/x", "--reason", "bits fell over")[0] == 0
    assert not store.has(keys[0])
    assert cli("artifacts", "gc", "--dry-run", "--min-age-hours", "0")[0] == 0


@pytest.mark.parametrize("verb", ["cancel", "suspend", "resume", "rerun"])
def test_one_letter_changes_no_run(cli: Cli, workshop: Workshop, verb: str) -> None:
    run = workshop.store.runs.create({"pipeline": "p", "nodes": []})
    for short in (run.id[-8], run.id[:3]):
        code, _, err = cli(verb, short)
        assert (code, "is too short to change a run by" in err) == (78, True), err
        assert cli("events", short)[0] == 0, "to look at one it is enough"
    assert not run.cancelled_by()
    assert not run.marks()
    assert len(workshop.store.runs.list()) == 1


def test_cancel_stops_a_process_on_this_machine(cli: Cli, workshop: Workshop) -> None:
    code = """if True:
        import sys, threading
        from pipelines.engines.engine import _signals
        from pipelines.runs.state import NodeState, RunState, StateWriter
        from wfm.artifacts import Store
        run = Store.open(sys.argv[1]).runs.create({"pipeline": "p", "nodes": []})
        stop = threading.Event()
        state = RunState(run_id=run.id, pipeline="p", nodes={"one": NodeState(stage="one", state="running")})
        with _signals(stop), StateWriter(run, state, stop.set):
            print("up", flush=True)
            stop.wait(30)
            state.state = "cancelled"
    """
    process = subprocess.Popen([sys.executable, "-c", code, workshop.store.url], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        code_, out, _ = cli("cancel")
        assert (code_, "is cancelled" in out) == (0, True)
        assert process.wait(timeout=10) == 0
        state = read_state(workshop.store.runs.list()[0])
        assert state is not None
        assert state.state == "cancelled"
    finally:
        process.kill()
        process.wait()


def test_the_store_comes_from_the_option_then_the_environment(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert str(tmp_path / "other") in cli("runs", "--store", str(tmp_path / "other"))[1]
    assert os.environ["WFM_STORE"] in cli("runs")[1]


def test_a_run_of_a_given_id_is_one_run(cli: Cli, workshop: Workshop) -> None:
    """A cron's tick told twice, a workflow's step tried again: the same run, unless something else is asked of it."""
    wanted = Request("world_model", profile="smoke")
    plan = wanted.plan(workshop.store)
    assert {create_run(wanted, plan, workshop.store, run_id="tick-1").id for _ in range(2)} == {"tick-1"}
    assert [run.id for run in workshop.store.runs.list()] == ["tick-1"]
    ask = ("run", "world_model", "--profile", "smoke", "--engine", "local", "--run-id")
    code, _, err = cli(*ask, "tick-1", "--set", "train_diffusion.training.steps=3")
    assert (code, "tick-1 is there already, and something else was asked of it" in err) == (78, True)
    code, _, err = cli(*ask, "../tick")
    assert (code, "run id '../tick' is not allowed" in err) == (78, True)
    run = workshop.store.runs.open("tick-1")
    with StateWriter(run, RunState(run_id=run.id, pipeline="world_model"), lambda: None):
        code, _, err = cli(*ask, "tick-1")
    assert (code, "tick-1 is at work already (pid" in err) == (75, True)
    other = create_run(
        wanted, plan, workshop.store, run_id="tick-2"
    )  # at the same moment: neither has written its state
    with for_itself(other, workshop.store):
        code, _, err = cli(*ask, "tick-2")
    assert (code, "tick-2 is at work already: another process" in err) == (75, True)
    run.request_cancel("me")
    code, _, err = cli(*ask, "tick-1")
    assert (code, "was cancelled (me asked for it) and stays so" in err) == (78, True)
