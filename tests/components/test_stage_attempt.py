"""The record of a try, with real processes: kept by the stage whoever starts it, however it ends, whatever the store does."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from components.derivation import ROOT
from components.stage_attempt import TOKEN
from wfm.artifacts import Store
from wfm.artifacts.attempt_log import KEPT_BYTES
from wfm.artifacts.runs import Run

TOY = '''
"""A stage for tests."""
import ctypes, os, pathlib, subprocess, sys, time
from components.entrypoint import Context, Result, main
from wfm.config import Config, how
from wfm.errors import Cancelled, InputError
from wfm.log import progress

class ToyConfig(Config):
    act: str = "write"
    word: str = how("")

def run(ctx):
    print("said by print"); print("said to stderr", file=sys.stderr)
    ctypes.CDLL(None).puts(b"said by a library"); ctypes.CDLL(None).fflush(None)
    subprocess.run(["/bin/echo", "said by a child"])
    if ctx.config.act == "bug":
        raise ZeroDivisionError("ours")
    if ctx.config.act == "wrong":
        raise InputError("field 'act' = 'wrong': choose another")
    if ctx.config.act == "abort":
        os.write(2, b"terminate called after throwing\\n"); ctypes.string_at(0)
    if ctx.config.act == "flood":
        block = b"".join(b"%079d\\n" % number for number in range(12_500))
        for turn in range(100):
            os.write(1, b"turn %d\\n" % turn); os.write(1, block)
        os.write(1, b"the last line\\n")
    if ctx.config.act == "wait":
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass
        print("at work", flush=True)
        pathlib.Path(os.environ["WFM_TOY_SIGN"]).write_text("waiting")
        for number in range(3000):
            print("round", number)
            time.sleep(0.02)
            if ctx.stopping():
                raise Cancelled("asked to stop")
            if pathlib.Path(os.environ["WFM_TOY_SIGN"]).read_text() == "enough":
                break
    (ctx.out / "answer.txt").write_text("42")
    return Result(counts={"inputs": 1, "outputs": 1})

CONFIG = ToyConfig
if __name__ == "__main__":
    main(__spec__.name, CONFIG, run)
'''
START = """
import runpy, components, components.stage_attempt as attempt
attempt.BEAT_SECONDS, attempt.PATIENCE_SECONDS, attempt.LAUNCHER_SECONDS = {beat}, {patience}, 2.0
components.__path__.append({folder!r})
runpy.run_module('components.toy', run_name='__main__')
"""


class Trial:
    """A toy stage in one run, started as any engine would."""

    def __init__(self, folder: Path, store: Store, options: dict[str, Any] | None = None) -> None:
        self.folder, self.store, self.sign = folder, store, folder / "sign"
        self.run: Run = store.runs.create({"pipeline": "toy", "nodes": [{"name": "toy", "stage": "toy"}]})
        self.environment = {**os.environ, "WFM_TOY_SIGN": str(self.sign), "PYTHONPATH": str(ROOT)}
        if options:
            self.environment["WFM_STORE_OPTIONS"] = json.dumps(options)
        self.beat, self.patience = 0.2, 20.0
        (folder / "toy.py").write_text(TOY)

    def start(self, run: Run | None = None, **config: Any) -> "subprocess.Popen[str]":
        run = run or self.run
        spec = {
            "schema_version": 1, "store": self.store.url, "run_id": run.id, "node": "toy", "stage": "toy", "component": "toy",
            "kind": "toys", "config": config, "promote": "", "reads_truth": False,
        }  # fmt: skip
        path = self.folder / "spec.json"
        path.write_text(json.dumps(spec))
        code = START.format(folder=str(self.folder), beat=self.beat, patience=self.patience)
        return subprocess.Popen(
            [sys.executable, "-c", code, "--spec", str(path)],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def end(self, process: "subprocess.Popen[str]") -> tuple[int, str]:
        out, _ = process.communicate(timeout=90)
        return process.returncode, out

    def at_work(self, process: "subprocess.Popen[str]") -> None:
        until = time.monotonic() + 60
        while not self.sign.exists():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < until
            time.sleep(0.02)

    def outcomes(self) -> list[str | None]:
        return [one.outcome and one.outcome["outcome"] for one in self.run.read_outcomes("toy")]


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    return Trial(tmp_path, Store.open(tmp_path / "store", {"fsync": False}))


def until(true: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_all_that_is_printed_is_in_the_log_once_and_goes_on_to_where_it_would_have_gone(trial: Trial) -> None:
    trial.environment |= {TOKEN: "given", "WFM_ENGINE": "argo", "POD_NAME": "toy-0"}
    code, out = trial.end(trial.start())
    (one,) = trial.run.read_outcomes("toy")
    assert (code, one.outcome and one.outcome["outcome"]) == (0, "done")
    told = [one.record[name] for name in ("token", "engine", "pod", "ranks")]
    assert told == ["given", "argo", "toy-0", 1]
    assert one.record["pid"] > 0
    log = trial.run.read_log("toy")
    for line in ("said by print", "said to stderr", "said by a library", "said by a child"):
        assert (log.count(line), out.count(line)) == (1, 1), log
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ .", line) for line in log.splitlines())


def test_a_stage_killed_leaves_record_log_and_cost(trial: Trial) -> None:
    process = trial.start(act="wait")
    trial.at_work(process)
    until(lambda: (trial.run.read_usage("toy", 1) or {}).get("cpu_seconds", 0) > 0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: "at work" in trial.run.read_log("toy"))
    (one,) = trial.run.read_outcomes("toy")
    assert one.outcome is None
    assert one.usage is not None
    assert one.usage["peak_bytes"] > 10e6
    rounds = [int(number) for number in re.findall(r"round (\d+)", trial.run.read_log("toy"))]
    assert rounds == list(range(len(rounds))), "no line twice, none missing"


def test_the_last_words_of_a_crash_are_in_the_log(trial: Trial) -> None:
    code, _ = trial.end(trial.start(act="abort"))
    assert code == -signal.SIGSEGV
    until(lambda: "Segmentation fault" in trial.run.read_log("toy"))
    assert "terminate called after throwing" in trial.run.read_log("toy")
    assert 'toy.py", line' in trial.run.read_log("toy")


def test_a_log_of_a_hundred_megabytes_keeps_head_and_tail(trial: Trial) -> None:
    process = trial.start(act="flood")
    for _ in process.stdout or ():
        pass
    assert process.wait(timeout=90) == 0
    log = trial.run.read_log("toy")
    assert len(log) < KEPT_BYTES + 1000
    assert "said by print" in log
    assert log.rstrip().endswith("the last line")
    (left_out,) = re.findall(r"\[\.\.\. ([0-9,]+) bytes of this log are left out here", log)
    stamped = 100 * (12_500 * (80 + 21))
    assert abs(int(left_out.replace(",", "")) + KEPT_BYTES - stamped) < 1e6


def test_a_final_outcome_is_not_redone_by_any_engine_and_another_run_tries_again(trial: Trial) -> None:
    assert [trial.end(trial.start(act="wrong"))[0] for _ in range(3)] == [78, 78, 78]
    tries = [one.outcome or {} for one in trial.run.read_outcomes("toy")]
    assert ["said by print" in trial.run.read_log("toy", number) for number in (1, 2, 3)] == [True, False, False]
    assert [one.get("repeats") for one in tries] == [None, 1, 1]
    assert "try 1 of this run ended for good" in tries[2]["reason"]
    assert tries[2]["reason"].count("ended for good") == 1
    assert trial.end(trial.start())[0] == 0, "redone with another key"
    again = trial.store.runs.create({"pipeline": "toy"})
    assert trial.end(trial.start(again, act="wrong"))[0] == 78
    assert "said by print" in again.read_log("toy")


def test_a_bug_is_tried_once_more_and_then_never(trial: Trial) -> None:
    assert [trial.end(trial.start(act="bug"))[0] for _ in range(3)] == [1, 1, 1]
    assert ["said by print" in trial.run.read_log("toy", number) for number in (1, 2, 3)] == [True, True, False]


def test_a_cancel_is_heard_with_no_engine_alive(trial: Trial) -> None:
    process = trial.start(act="wait")
    trial.at_work(process)
    trial.run.request_cancel("a test")
    assert trial.end(process)[0] == 143
    assert trial.outcomes() == ["cancelled"]
    assert trial.end(trial.start(act="wait"))[0] == 143, "none that follows begins"


@pytest.mark.parametrize(
    ("said", "left"),
    [('{"schema_version": 1, "ended": "cancelled"}', True), ("", False), ("[1]", False), ("no record", False)],
)
def test_a_cancel_on_a_cluster_is_for_the_launcher(trial: Trial, said: str, left: bool) -> None:
    """It leaves the job to another run that needs it, and says so; where no launcher does anything the stage stops itself."""
    trial.environment["WFM_ENGINE"] = "kubernetes"
    process = trial.start(act="wait")
    trial.at_work(process)
    if said:
        trial.run.write("launcher/toy.json", said)
    trial.run.request_cancel("a test")
    if left:
        time.sleep(3.0)
        trial.sign.write_text("enough")
    assert trial.end(process)[0] == (0 if left else 143)


def test_a_run_that_is_not_there_is_wrong_input(trial: Trial) -> None:
    gone = trial.store.runs.create({})
    trial.store.objects.delete_tree(f"runs/{gone.id}")
    code, out = trial.end(trial.start(gone))
    assert (code, "is not the id of a run" in out) == (78, True)
    trial.store.runs.create({}, f"{gone.id}-other")
    code, out = trial.end(trial.start(gone))
    assert (code, f"there is no run {gone.id} in" in out) == (78, True)
