"""The stage contract, with real processes: outcomes, keys, parts, leases, stopping."""

import ast
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from components.derivation import ROOT
from pipelines.stages import TABLE
from wfm.artifacts import Store
from wfm.artifacts.runs import Run
from wfm.errors import InputError

TOY = '''
"""A stage for tests."""
import errno, os, pathlib, time
from components.entrypoint import Context, PartContext, Result, main
from wfm.config import Config, how
from wfm.errors import Cancelled, InputError, TryAgain

class ToyConfig(Config):
    act: str = "write"
    number: int = 1
    parts: tuple[str, ...] = ()
    seconds: float = how(0.0)
    log_level: str = how("INFO")

def part(ctx):
    (ctx.out / "value.txt").write_text(ctx.inputs * ctx.config.number)
    time.sleep(ctx.config.seconds)
    with open(os.environ["WFM_TOY_TRACE"], "a") as trace:
        trace.write(ctx.name + "\\n")
    return Result(counts={"inputs": 1, "outputs": 1})

def run(ctx):
    if ctx.config.act == "wrong":
        raise InputError("field 'act' = 'wrong': choose another")
    if ctx.config.act == "again":
        raise TryAgain("the peer went away")
    if ctx.config.act == "full":
        (ctx.out / "half.bin").write_bytes(b"x" * 1000)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if ctx.config.act == "bug":
        raise ZeroDivisionError("ours")
    if ctx.config.act == "nothing":
        return Result(counts={"inputs": 3, "outputs": 0}, skipped={"too_dark": 3})
    if ctx.config.act == "truth":
        ctx.inputs["raw"].fetch("truth/known.txt")
    if ctx.config.act == "wait":
        (ctx.scratch / "checkpoint").write_text("kept")
        pathlib.Path(os.environ["WFM_TOY_TRACE"]).write_text("waiting")
        while not ctx.stopping():
            time.sleep(0.02)
        raise Cancelled("asked to stop")
    if ctx.config.act == "resume":
        return Result(counts={}, extra={})
    entries = ctx.map_parts({name: name for name in ctx.config.parts}, part) if ctx.config.parts else []
    (ctx.out / "answer.txt").write_text(str(ctx.config.number))
    return Result(counts={"inputs": 1, "outputs": 1}, parts=entries)

CONFIG = ToyConfig
if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
'''
START = """
import runpy, components, components.part_range
components.part_range.IN_PARTS += ("toy",)
components.__path__.append({folder!r})
runpy.run_module('components.toy', run_name='__main__')
"""


class Stage:
    """A toy component on a store of its own, started as an engine would."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store.open(folder / "store")
        self.trace = folder / "trace.txt"
        (folder / "toy.py").write_text(textwrap.dedent(TOY))

    def start(
        self, *extra: str, redo: str = "", inputs: dict[str, str] | None = None, **config: Any
    ) -> tuple[Any, Run]:
        run = self.store.runs.create({"pipeline": "toy"})
        spec = {
            "schema_version": 1, "store": self.store.url, "options": {}, "run_id": run.id, "node": "toy", "stage": "toy",
            "component": "toy", "kind": "toys", "config": config, "redo": redo, "promote": "toys/named",
            "reads_truth": False,
        }  # fmt: skip
        url = run.write("specs/toy.json", json.dumps(spec))
        command = [sys.executable, "-c", START.format(folder=str(self.folder)), "--spec", url]
        command += [*([] if "--parts" in extra else ["--key-out", str(self.folder / "key")]), *extra]
        for name, key in (inputs or {}).items():
            command += ["--input", f"{name}={key}"]
        environment = {**os.environ, "WFM_TOY_TRACE": str(self.trace)}
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ), run

    def run(self, *extra: str, **more: Any) -> tuple[int, dict[str, Any], str]:
        process, run = self.start(*extra, **more)
        out, err = process.communicate(timeout=60)
        records = run.read_outcomes("toy") if "toy" in run.nodes() else []
        return process.returncode, dict(records[-1].outcome or {}) if records else {}, out + err

    @property
    def key(self) -> str:
        return (self.folder / "key").read_text()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_done_then_cached_and_named(stage: Stage) -> None:
    code, outcome, _ = stage.run(number=3)
    assert (code, outcome["outcome"], outcome["key"]) == (0, "done", stage.key)
    artifact = stage.store.artifact(stage.key)
    assert artifact.fetch("answer.txt").read_text() == "3"
    assert json.loads(artifact.fetch("config.json").read_text())["number"] == 3
    assert artifact.manifest.extra["node"] == "toy"
    assert stage.store.resolve("toys/named@latest") == stage.key
    code, outcome, _ = stage.run(number=3)
    assert (code, outcome["outcome"]) == (0, "cached")


def test_checkpoints_of_a_finished_key_are_of_no_more_use(stage: Stage) -> None:
    """Here and in the store; those of another key stay."""
    stage.run(number=3)
    stage.store.invalidate(stage.key, "to be made again")
    for key in (stage.key, "e" * 64):
        (stage.store.scratch(key) / "checkpoint").write_text("here")
        stage.store.objects.replace(f"checkpoints/{key}/00000001-0000000007-20260101T000000000-00000000.json", b"there")
    assert stage.run(number=3)[1]["outcome"] == "done"
    assert [stat.path.split("/")[1] for stat in stage.store.objects.walk("checkpoints")] == ["e" * 64]
    assert [path.parent.name for path in stage.folder.glob("store/scratch/*/checkpoint")] == ["e" * 64]


def test_how_does_not_move_the_key_and_redo_does(stage: Stage) -> None:
    stage.run(number=3)
    first = stage.key
    assert stage.run(number=3, log_level="DEBUG")[1]["outcome"] == "cached"
    assert stage.run(number=3, redo="n1")[1]["outcome"] == "done"
    assert stage.key != first
    assert stage.store.has(first)


@pytest.mark.parametrize(
    ("act", "code", "outcome", "says"),
    [
        ("wrong", 78, "wrong_input", "choose another"),
        ("again", 75, "try_again", "the peer went away"),
        ("full", 75, "try_again", "No space left"),
        ("bug", 1, "bug", "ZeroDivisionError: ours"),
        ("nothing", 78, "wrong_input", "3 inputs gave no output at all. Skipped by reason: too_dark: 3"),
    ],
)
def test_failures_say_what_they_are_and_leave_nothing(
    stage: Stage, act: str, code: int, outcome: str, says: str
) -> None:
    returned, answer, _ = stage.run(act=act)
    assert (returned, answer["outcome"]) == (code, outcome)
    assert says in answer["reason"]
    assert answer["exit_code"] == code
    assert list(stage.store.committed_keys()) == []
    assert not list(stage.folder.glob("store/artifacts/*/attempts/*"))
    with pytest.raises(Exception, match="named"):
        stage.store.resolve("toys/named@latest")


def test_wrong_config_field_names_the_choices(stage: Stage) -> None:
    code, answer, _ = stage.run(nubmer=3)
    assert code == 78
    assert "Did you mean 'number'" in answer["reason"]


def test_dry_run_prints_the_resolved_config_and_does_nothing(stage: Stage) -> None:
    code, answer, printed = stage.run("--dry-run", number=5)
    assert code == 0
    assert json.loads(printed)["number"] == 5
    assert answer == {}
    assert list(stage.store.committed_keys()) == []


def test_parts_are_made_once_and_shared(stage: Stage) -> None:
    stage.run(parts=["a", "b"])
    one = stage.store.artifact(stage.key)
    assert [part.name for part in one.parts] == ["a", "b"]
    assert one.part("b").fetch("value.txt").read_text() == "b"
    with stage.store.attempt("0" * 64) as attempt:
        attempt.commit(stage="other", kind="others")
    stage.run(parts=["a", "b"], inputs={"raw": "0" * 64})
    assert stage.store.artifact(stage.key).manifest.inputs == {"raw": "0" * 64}
    assert stage.trace.read_text().split() == ["a", "b"], "the same parts of another key are taken as they are"
    stage.run(parts=["a", "b"], redo="again")
    assert stage.trace.read_text().split() == ["a", "b", "a", "b"], "what is asked for again is made again, parts too"


def test_term_keeps_the_scratch_and_says_cancelled(stage: Stage) -> None:
    process, run = stage.start(act="wait")
    until = time.monotonic() + 30
    while not stage.trace.exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    outcome = run.read_outcomes("toy")[-1].outcome
    assert process.returncode == 143
    assert outcome is not None
    assert outcome["outcome"] == "cancelled"
    assert list(stage.folder.glob("store/scratch/*/checkpoint"))


def test_a_home_that_cannot_be_written_to_is_no_trouble(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/dev/null/x")
    monkeypatch.setenv("TMPDIR", str(stage.folder))
    assert stage.run()[1]["outcome"] == "done"
    monkeypatch.setenv("WFM_CACHE", "/dev/null/y")
    code, outcome, _ = stage.run(number=2)
    assert (code, outcome["outcome"]) == (InputError.exit_code, "wrong_input")
    assert "WFM_CACHE is '/dev/null/y'" in outcome["reason"]


def test_a_user_without_name_and_home_is_no_trouble(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod may run under any number; before, opening the store to note the try asked for a home, and that was a bug."""
    unknown = "import pwd\ndef nobody(number):\n    raise KeyError(number)\npwd.getpwuid = nobody\n"
    monkeypatch.setitem(globals(), "START", unknown + START)
    monkeypatch.delenv("HOME")
    monkeypatch.delenv("WFM_CACHE", raising=False)
    monkeypatch.setenv("TMPDIR", str(stage.folder))
    code, outcome, printed = stage.run()
    assert (code, outcome["outcome"]) == (0, "done"), printed
    assert "cannot be shipped" not in printed
    monkeypatch.setenv("TMPDIR", "/dev/null")
    code, _, printed = stage.run(number=2)
    assert (code, "set WFM_CACHE" in printed) == (InputError.exit_code, True), printed


def test_a_kill_leaves_a_record_of_the_try(stage: Stage) -> None:
    """Whoever started it took no number: before, it was taken for the outcome, which a killed process never wrote."""
    process, run = stage.start(act="wait")
    until = time.monotonic() + 30
    while not stage.trace.exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=30)
    assert [(one.number, one.outcome) for one in run.read_outcomes("toy")] == [(1, None)]


def test_truth_is_closed(stage: Stage) -> None:
    with stage.store.attempt("0" * 64) as attempt:
        (attempt.path / "truth").mkdir()
        (attempt.path / "truth" / "known.txt").write_text("secret")
        attempt.commit(stage="simulate", kind="raw_videos")
    code, answer, _ = stage.run(act="truth", inputs={"raw": "0" * 64})
    assert code == 78
    assert "truth" in answer["reason"]


def test_two_starters_do_the_work_once(stage: Stage) -> None:
    processes = [stage.start(parts=["a", "b", "c", "d"])[0] for _ in range(2)]
    assert [process.communicate(timeout=60) and process.returncode for process in processes] == [0, 0]
    assert sorted(stage.trace.read_text().split()) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("component", sorted({row.component for row in TABLE}))
def test_every_function_of_a_stage_is_one_that_somebody_calls(component: str) -> None:
    """`run` and `external_inputs` are called by the contract; a misspelt one would be a stage whose key forgets its files."""
    tree = ast.parse((ROOT / f"components/{component}.py").read_text())
    own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert own - named - {"run", "external_inputs"} == set()
