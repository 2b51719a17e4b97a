"""A training of two processes: rank 0 alone leases, commits and tells; whatever happens to one ends both, soon, and rightly."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.derivation import ROOT
from components.stage_attempt import TOKEN
from tests.components.rank_jobs import FOR_EVER, STALL_SECONDS, Job, copy_of
from tests.components.test_train_tokenizer import dataset
from wfm.artifacts import Store

SOON = 10.0
"""How long after a stall is seen everything may still take [s]."""
Start = Callable[..., Job]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("ranks")
    return folder / "store", dataset(Store.open(folder / "store"), folder, "a", dark=False).key


@pytest.fixture
def job(base: tuple[Path, str], tmp_path: Path) -> Start:
    """``job("torchrun", steps=20)``: a training, on the way."""
    store = copy_of(base[0], tmp_path / "store")

    def start(launcher: str, held_by: str = "", ended_before: str = "", **more: Any) -> Job:
        training = Job(store, base[1], launcher, **more)
        if ended_before:  # an earlier start of the same job, which has the same token
            number = training.run.append_attempt("train", {"token": ended_before})
            training.run.write_outcome("train", number, {"outcome": "try_again", "reason": "evicted"})
        if held_by:
            held_elsewhere(training, held_by)
        return training.start()

    return start


def test_two_processes_make_it_once_and_find_it_made_then(job: Start) -> None:
    first = job("guard", steps=8)
    outcome = first.wait(120)
    assert (first.code, outcome["outcome"]) == (0, "done"), first.log
    assert first.store.artifact(first.key).manifest.counts["steps"] == 8
    assert len(first.run.attempts("train")) == 1
    leases = first.store.objects.names(f"leases/{first.key}")
    assert [name for name in leases if name.endswith(".json")] == ["00000001.json"]
    again = job("guard", steps=8)
    assert (again.wait(60)["outcome"], again.code) == ("cached", 0), again.log
    assert len(again.run.attempts("train")) == 1


@pytest.mark.parametrize(
    ("launcher", "number", "rank"),
    [
        ("guard", signal.SIGSTOP, 0),
        pytest.param("guard", signal.SIGSTOP, 1, marks=pytest.mark.long),
        pytest.param("guard", signal.SIGKILL, 0, marks=pytest.mark.long),
        pytest.param("guard", signal.SIGKILL, 1, marks=pytest.mark.long),
        pytest.param("torchrun", signal.SIGSTOP, 0, marks=pytest.mark.long),
        pytest.param("torchrun", signal.SIGSTOP, 1, marks=pytest.mark.long),
        pytest.param("torchrun", signal.SIGKILL, 0, marks=pytest.mark.long),
        pytest.param("torchrun", signal.SIGKILL, 1, marks=pytest.mark.long),
        pytest.param("operator", signal.SIGSTOP, 0, marks=pytest.mark.long),
        pytest.param("operator", signal.SIGSTOP, 1, marks=pytest.mark.long),
        pytest.param("operator", signal.SIGKILL, 0, marks=pytest.mark.long),
    ],
)
def test_a_rank_that_dies_or_hangs_ends_all_as_try_again(
    job: Start, launcher: str, number: signal.Signals, rank: int
) -> None:
    training = job(launcher)
    # right after the first step, which may take longer: what the others have heard by then allows for more than `stall_seconds`
    ranks = training.in_training(steps=1)
    assert sorted(r for r in ranks if r >= 0) == [0, 1]
    ranks[rank].send_signal(number)
    outcome = training.wait(STALL_SECONDS + SOON)
    assert outcome["outcome"] == "try_again", training.log
    assert f"rank {rank} on host" in outcome["reason"]
    says = {signal.SIGSTOP: "did not answer for", signal.SIGKILL: "SIGKILL" if launcher == "guard" else "is gone"}
    assert says[number] in outcome["reason"]
    if number == signal.SIGSTOP:
        (stacks,) = outcome["stacks"].values()
        assert "loop.py" in stacks, "the living rank shows where it waits"
        assert "stacks of rank" in training.log or (launcher, rank) == ("operator", 0)  # where only rank 0 is heard


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_whose_work_hangs_is_named_and_shows_where(job: Start, rank: int, tmp_path: Path) -> None:
    training = job("guard", python=at_sigusr1(tmp_path, "time.sleep(3600)"))  # the main thread, the others go on
    training.in_training()[rank].send_signal(signal.SIGUSR1)
    outcome = training.wait(STALL_SECONDS + SOON)
    assert outcome["outcome"] == "try_again", training.log
    assert f"rank {rank} on host " in outcome["reason"]  # both, where the sleeper was caught inside of a call of all
    assert "did not get on for" in outcome["reason"]
    assert len(outcome["stacks"]) == 2
    (where,) = (text for name, text in outcome["stacks"].items() if name.startswith(f"rank {rank} "))
    assert "happens_here" in where


START_SECONDS, LOADING = 10.0, 20.0
"""For a rank to come: its `stall_seconds`; for interpreter and torch, which come before, on a machine that is busy [s]."""


@pytest.mark.parametrize("missing", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_rank_that_never_comes_is_named_and_ends_all(job: Start, missing: bool, tmp_path: Path) -> None:
    """Not started, or dead before its first word. Before: the others waited for it in torch's rendezvous, or for an hour."""
    dies = f'#!/bin/sh\nif [ "$RANK" = 1 ]; then kill -9 $$; fi\nexec {sys.executable} "$@"\n'
    training = job(
        "operator", missing=missing, python=script(tmp_path, dies), training={"stall_seconds": START_SECONDS}
    )
    outcome = training.wait(LOADING + START_SECONDS + SOON)
    assert (training.code, outcome["outcome"]) == (75, "try_again"), training.log
    assert outcome["reason"].startswith("rank 1 did not come within 1"), outcome["reason"]
    assert not training.store.objects.names(f"leases/{training.key}"), "nothing was begun"


@pytest.mark.parametrize("moment", ["before", "after_attempt_open", pytest.param("told", marks=pytest.mark.long)])
def test_another_rank_tells_the_end_of_rank_0_that_dies_before_it_told_anything(
    job: Start, moment: str, tmp_path: Path
) -> None:
    """Before: nobody did, and where rank 0 had opened no attempt there was none."""
    dies = f'#!/bin/sh\nif [ "$RANK" = 0 ]; then kill -9 $$; fi\nexec {sys.executable} "$@"\n'
    more: dict[str, Any] = {
        "before": {"python": script(tmp_path, dies), "environment": {TOKEN: "job-1"}, "ended_before": "job-1"},
        "after_attempt_open": {"environment": {"WFM_CRASH_AT": "after_attempt_open/0"}},
        "told": {"environment": {"WFM_CRASH_AT": "before_ranks_are_told/0"}},
    }[moment]
    training = job("operator", size=3, training={"stall_seconds": START_SECONDS}, **more)
    training.wait(LOADING + START_SECONDS + SOON)
    assert training.code == -signal.SIGKILL
    assert [other.wait(5.0) for other in training.others] == [75, 75]
    *earlier, record = training.run.read_outcomes("train")
    assert len(earlier) == (moment == "before"), "one for this start"
    assert record.outcome is not None
    reason = record.outcome["reason"]
    assert (record.outcome["outcome"], record.record["ranks"]) == ("try_again", 3)
    assert record.outcome["written_by"] in ("rank 1", "rank 2")
    assert record.record.get("opened_by", "rank 0") in (("rank 1", "rank 2") if moment == "before" else ("rank 0",))
    if moment == "told":
        assert (reason.startswith("rank 0 on host"), "is gone" in reason) == (True, True), reason
        return
    assert "rank 0 did not come within 10 s: nothing listens at 127.0.0.1:" in reason
    heard = "rank 0 opened no attempt" if moment == "before" else "rank 0 opened this attempt on host "
    assert heard in reason
    assert moment == "before" or f"and was last heard at {(record.usage or {})['at']}" in reason


@pytest.mark.long
def test_the_others_end_when_rank_0_and_torchs_store_die_on_another_machine(job: Start, tmp_path: Path) -> None:
    elsewhere = (
        f"#!{sys.executable}\nimport os, runpy, sys\n"
        "from wfm.artifacts import lease\n"
        "lease._machine = lambda: 'machine ' + os.environ['RANK']\n"
        "module, sys.argv = sys.argv[2], sys.argv[2:]\n"
        "runpy.run_module(module, run_name='__main__', alter_sys=True)\n"
    )
    training = job("operator", python=script(tmp_path, elsewhere), training={"stall_seconds": 600.0})
    training.in_training()[0].send_signal(signal.SIGKILL)
    outcome = training.wait(30.0 + SOON)  # it does not wait for `stall_seconds`: what it lost, nobody else can mend
    assert outcome["outcome"] == "try_again"
    assert outcome["reason"].startswith("rank 0 on host"), outcome["reason"]
    assert outcome["written_by"] == "rank 1"
    assert [other.wait(5.0) for other in training.others] == [75]


@pytest.mark.long
def test_a_disk_that_is_full_for_another_rank_is_nobodys_bug(job: Start, tmp_path: Path) -> None:
    training = job("guard", python=at_sigusr1(tmp_path, "raise OSError(28, 'No space left on device', '/tmp/x')"))
    training.in_training()[1].send_signal(signal.SIGUSR1)
    outcome = training.wait(30.0)
    assert (training.code, outcome["outcome"]) == (75, "try_again"), training.log
    assert outcome["reason"].startswith("rank 1 on host"), outcome["reason"]
    assert "No space left on device" in outcome["reason"]


def at_sigusr1(folder: Path, act: str) -> str:
    """An interpreter whose main thread does something at SIGUSR1."""
    return script(
        folder,
        f"#!{sys.executable}\nimport runpy, signal, sys, time\n"
        f"def happens_here(*_):\n    {act}\n"
        "signal.signal(signal.SIGUSR1, happens_here)\n"
        "module, sys.argv = sys.argv[2], sys.argv[2:]\n"
        "runpy.run_module(module, run_name='__main__', alter_sys=True)\n",
    )


def script(folder: Path, text: str) -> str:
    """A program that a rank is started with, in place of the interpreter."""
    path = folder / "rank"
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_what_a_rank_cannot_read_is_final_for_all(job: Start, tmp_path: Path) -> None:
    script = tmp_path / "rank"
    spoils = f'#!/bin/sh\nif [ "$RANK" = 1 ]; then export WFM_STORE_OPTIONS=spoilt; fi\nexec {sys.executable} "$@"\n'
    script.write_text(spoils)
    script.chmod(0o755)
    training = job("guard", python=str(script))
    outcome = training.wait(60)
    assert outcome["outcome"] == "wrong_input", training.log
    assert outcome["reason"].startswith("rank 1 on host ")
    assert "WFM_STORE_OPTIONS is not a JSON object" in outcome["reason"]


def test_a_rank_of_other_inputs_is_refused(job: Start, tmp_path: Path) -> None:
    script = tmp_path / "rank"
    script.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "arguments = sys.argv[1:]\n"
        "if os.environ['RANK'] == '1':\n"
        "    at = arguments.index('--spec') + 1\n"
        f"    spec = {{**json.load(open(arguments[at].removeprefix('file://'))), 'redo': 'other'}}\n"
        f"    json.dump(spec, open({str(tmp_path / 'spec.json')!r}, 'w'))\n"
        f"    arguments[at] = {str(tmp_path / 'spec.json')!r}\n"
        "os.execv(sys.executable, [sys.executable, *arguments])\n"
    )
    script.chmod(0o755)
    outcome = job("guard", python=str(script)).wait(60)
    assert outcome["outcome"] == "wrong_input"
    assert "this rank derives the key" in outcome["reason"]
    assert outcome["reason"].startswith("rank 1 on host ")


@pytest.mark.long
@pytest.mark.parametrize("launcher", ["guard", "torchrun"])
def test_no_number_is_a_bug_for_all(job: Start, launcher: str) -> None:
    training = job(launcher, training={"learning_rate": 1e30, "optimizer": "adamw", "gradient_clip": 0.0})
    outcome = training.wait(90)
    assert outcome["outcome"] == "bug", training.log
    assert "TrainingDiverged" in outcome["reason"]


@pytest.mark.parametrize(
    ("launcher", "told"),
    [
        ("guard", [1]),
        pytest.param("guard", [0], marks=pytest.mark.long),
        pytest.param("guard", [0, 1], marks=pytest.mark.long),
        pytest.param("guard", [], marks=pytest.mark.long),
        pytest.param("torchrun", [0], marks=pytest.mark.long),
        pytest.param("torchrun", [1], marks=pytest.mark.long),
        pytest.param("torchrun", [-1], marks=pytest.mark.long),
        pytest.param("torchrun", [-1, 0, 1], marks=pytest.mark.long),
    ],
)
def test_whoever_is_told_to_stop_all_keep_a_checkpoint_and_say_cancelled(
    job: Start, launcher: str, told: list[int]
) -> None:
    training = job(launcher, training={"checkpoint_every": FOR_EVER, "checkpoint_seconds": 3600.0})
    ranks = training.in_training()
    scratch = training.store.scratch(training.key)
    assert not list(scratch.rglob("*.safetensors"))
    for rank in told:
        ranks[rank].send_signal(signal.SIGTERM)
    if not told:  # `wfm cancel` from anywhere: rank 0 alone looks for it
        training.run.request_cancel()
    outcome = training.wait(30)
    assert outcome["outcome"] == "cancelled", (outcome, training.log)
    assert list(scratch.rglob("*.safetensors")), "a checkpoint is kept"
    assert launcher == "torchrun" or training.code == 143


@pytest.mark.long
def test_a_rank_whose_work_is_done_may_go_while_rank_0_commits(job: Start, tmp_path: Path) -> None:
    """Its pod is evicted. Before: it called the try cancelled when its grace ended, and rank 0 left, even out of the commit."""
    begun = tmp_path / "begun"
    slow = (
        f"#!{sys.executable}\nimport os, pathlib, runpy, sys, time\n"
        "from wfm.artifacts.attempt import Attempt\n"
        "commit = Attempt.commit\n"
        "def slowly(self, **facts):\n"
        f"    pathlib.Path({str(begun)!r}).touch()\n"
        "    time.sleep(8.0)\n"
        "    return commit(self, **facts)\n"
        "Attempt.commit = slowly\n"
        "module, sys.argv = sys.argv[2], sys.argv[2:]\n"
        "runpy.run_module(module, run_name='__main__', alter_sys=True)\n"
    )
    training = job("operator", steps=4, python=script(tmp_path, slow), environment={"WFM_GRACE_SECONDS": "3"})
    until = time.monotonic() + 120
    while not begun.exists():
        assert time.monotonic() < until, training.log
        time.sleep(0.05)
    time.sleep(1.0)  # rank 1 says that it is done
    training.others[0].send_signal(signal.SIGTERM)
    assert training.others[0].wait(7.0) == 0
    outcome = training.wait(60)
    assert (training.code, outcome["outcome"]) == (0, "done"), (outcome, training.log)
    assert training.store.has(training.key)


def test_a_job_of_ranks_does_not_wait_for_another_that_works_on_it(job: Start) -> None:
    holder = job("alone")
    holder.in_training()
    second = job("guard")
    outcome = second.wait(60)
    assert outcome["outcome"] == "try_again", second.log
    assert f"another process works on {second.key[:12]}" in outcome["reason"]
    assert second.code == 75
    holder.processes()[-1].send_signal(signal.SIGTERM)
    assert holder.wait(20)["outcome"] == "cancelled"


@pytest.mark.parametrize(
    ("component", "says"),
    [("split_clips", "is one process: start it without torchrun"), ("train_tokenizer", "MASTER_ADDR")],
)
def test_a_rank_that_can_hear_nobody_ends_by_itself(tmp_path: Path, component: str, says: str) -> None:
    spec = tmp_path / "spec.json"
    told = {"store": str(tmp_path / "store"), "run_id": "r", "node": component, "stage": component, "config": {}}
    spec.write_text(json.dumps(told))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MASTER_")}
    ended = subprocess.run(
        [sys.executable, "-m", f"components.{component}", "--spec", str(spec)], cwd=ROOT, capture_output=True, text=True,
        env={**environment, "RANK": "1", "WORLD_SIZE": "2"}, timeout=90,
    )  # fmt: skip
    assert (ended.returncode, says in ended.stderr) == (78, True), ended.stderr


def test_a_job_of_one_rank_does_not_wait_either(job: Start) -> None:
    training = job("alone", environment={"RANK": "0", "WORLD_SIZE": "1"}, held_by="another")
    outcome = training.wait(60)
    assert (outcome["outcome"], outcome["lease_held"]) == ("try_again", True), training.log
    assert "process 1 on pod-7" in outcome["reason"]


def held_elsewhere(training: Job, owner: str) -> None:
    """A lease of the job's key that a live process of another machine holds."""
    record = {
        "schema_version": 1, "number": 1, "token": "20261129T224126671-58e8af9f", "machine": "another", "host": "pod-7",
        "pid": 1, "pid_start": "1", "acquired_at": "2026-11-29T22:41:26.671Z", "ttl_seconds": 3600.0, "inputs": [],
        "owner": owner,
    }  # fmt: skip
    training.store.objects.create(f"leases/{training.key}/00000001.json", json.dumps(record).encode())

    def beat() -> None:
        for count in itertools.count():
            training.store.objects.replace(f"leases/{training.key}/00000001.beat", str(count).encode())
            time.sleep(0.3)

    threading.Thread(target=beat, daemon=True).start()


@pytest.mark.long
def test_an_elastic_job_takes_its_own_lease_up_at_each_start(job: Start) -> None:
    training = job(
        "torchrun", steps=40, training={"checkpoint_every": 10}, environment={"WFM_CRASH_AT": "after_step:25/0"},
        options=("--max-restarts", "1", "--monitor-interval", "0.1", "--rdzv-id", "job-1"), held_by="torchelastic job-1",
    )  # fmt: skip
    outcomes = [training.wait(180), *[record.outcome for record in training.run.read_outcomes("train")]]
    assert [outcome["outcome"] for outcome in outcomes if outcome] == ["done", "try_again", "done"], training.log
    assert "resumed at step 20" in training.log
    assert "rank 0 on host" in outcomes[1]["reason"]
    assert training.code == 0
    leases = [name for name in training.store.objects.names(f"leases/{training.key}") if name.endswith(".json")]
    assert leases == ["00000001.json", "00000002.json", "00000003.json"]


@pytest.mark.long
def test_an_elastic_job_leaves_at_once_where_another_one_works(job: Start) -> None:
    training = job("torchrun", options=("--rdzv-id", "job-2"), held_by="torchelastic job-1")
    outcome = training.wait(60)
    assert outcome["outcome"] == "try_again", training.log
    assert "process 1 on pod-7" in outcome["reason"]
