"""The life of a run on this machine, by Prefect for real and by the plain engine: what a person reads at each moment."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from wfm_fakes import cli as fakes
from wfm_fakes.workshop import FAKES, ROOT, Workshop

from pipelines import background
from pipelines.engines.schedule_book import forget, kept
from pipelines.runs.submission import submission_of
from pipelines.verbs import look, resume
from pipelines.wfm_home import home, write_private
from tests.pipelines.engines.life_of_a_run import (
    NODES,
    Nodes,
    answer,
    backfill,
    life_of_a_run,
    read,
    submit,
    ticks,
    until,
    write_nodes,
)
from wfm.artifacts import Store
from wfm.errors import TryAgain

Cli = Callable[..., tuple[int, str, str]]


@dataclass
class Here:
    """An engine of this machine: commands in this process, runs in processes of their own."""

    name: str
    cli: Cli
    store: Store
    file: Path
    serving: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def wfm(self, *words: str) -> tuple[int, str, str]:
        return self.cli(*words)

    def make(self, nodes: Nodes) -> None:
        write_nodes(self.file, nodes)

    def tick(self) -> str:
        """Served by a process of its own, as a user leaves it running; one time a day, soon."""
        for ahead in (75, 150, 300):  # a machine that is busy may take longer to begin
            found = self._served(ahead)
            if found:
                until(self, found, "done")
                return found
            self.end()
            for late in kept():
                forget(late.name)
        raise AssertionError(self.file.with_name("schedule.log").read_text())

    def _served(self, ahead: float) -> str:
        """The run of a time so far ahead [s]; empty where the time had passed before it was served."""
        due = (datetime.now(UTC) + timedelta(seconds=ahead)).replace(second=0, microsecond=0)
        cron = f"{due.minute} {due.hour} * * *"
        command = [sys.executable, "-m", "wfm_fakes.cli", "schedule", "curate", "--cron", cron, "--videos", "/v/{date}"]
        log = self.file.with_name("schedule.log")
        with log.open("wb") as into:
            process = subprocess.Popen([*command, "--store", self.store.url], stdout=into, stderr=into)
        self.serving.append(process)
        while True:
            assert process.poll() is None, log.read_text()
            (found, *_) = answer(self, "schedule", "list")["schedules"] or [None]
            if found and found["last"]:
                assert (found["state"], found["missed"]) == ("served", [])
                (run,) = [one["run"] for one in answer(self, "runs")["runs"] if one["scheduled_at"] == found["last"]]
                return str(run)
            if datetime.now(UTC) > due and (not kept() or kept()[0].since > due.timestamp() - 5):
                return ""
            time.sleep(0.5)

    def miss(self) -> None:
        """Nobody serves it for two days: it was served first before, which is written down."""
        self.end()
        (one,) = kept()
        earlier = one.model_copy(update={"since": one.since - 2 * 86400})
        write_private(home().parent / "schedules" / f"{one.name}.json", earlier.model_dump_json())

    def end(self) -> None:
        for process in self.serving:
            process.terminate()
            process.wait(timeout=60)
        self.serving.clear()


@pytest.fixture
def here(
    cli: Cli, workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Here]]:
    for where, name, what in fakes.PATCHES:
        monkeypatch.setattr(where, name, what)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FAKES), str(ROOT)]))
    monkeypatch.setenv(fakes.NODES, str(tmp_path / "notes" / "nodes.json"))
    made: list[Here] = []

    def make(engine: str) -> Here:
        made.append(Here(engine, cli, workshop.store, tmp_path / "notes" / "nodes.json"))
        write_nodes(made[0].file, NODES)
        return made[0]

    yield make
    for one in made:
        one.end()
    for run in workshop.store.runs.list():  # what a test that failed left at work
        submission = submission_of(run)
        if submission is not None and submission.pid and submission.begins():
            os.kill(submission.pid, signal.SIGTERM)


@pytest.mark.long
@pytest.mark.parametrize("engine", ["prefect", "local"])
@pytest.mark.timeout(600)
def test_the_life_of_a_run(here: Callable[[str], Here], engine: str) -> None:
    life_of_a_run(here(engine))


def test_days_without_a_run_are_filled(here: Callable[[str], Here]) -> None:
    backfill(here("local"))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_clock_begins_a_run_and_what_it_missed_is_filled(
    here: Callable[[str], Here], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By Prefect: its clock, its runs, and those of the backfill."""
    on = here("prefect")
    monkeypatch.setenv("WFM_HOME", str(tmp_path / "home"))
    ticks(on)
    told = read(on, "schedule", "list")
    assert "not served" in told
    found = re.search(r"missed 2 times, .*; to fill: wfm (backfill .*)", told)
    assert found, told
    assert "2 missing" in read(on, *shlex.split(found[1]), "--dry-run")
    assert "2 done" in read(on, *shlex.split(found[1]))
    assert "missed" not in read(on, "schedule", "list").replace(" missed", "", 1), "but for the heading"
    (name,) = [one.name for one in kept()]
    read(on, "schedule", "forget", name)
    assert kept() == []


def test_a_run_that_is_killed_is_dead_and_goes_on_as_the_same_or_anew(here: Callable[[str], Here]) -> None:
    """Its process is killed before its first stage, then in the middle of one."""
    on = here("local")
    on.make({**NODES, "train": (["cut"], {"sleep": 600})})
    run = on.store.runs.open(submit(on))
    submission = submission_of(run)
    assert submission is not None
    os.kill(submission.pid, signal.SIGKILL)
    until(on, run.id, "dead")
    told = read(on, "status", run.id)
    assert "its process ended before its first stage" in told
    assert f"wfm resume {run.id}" in told
    assert "begins again" in read(on, "resume", run.id)
    until(on, run.id, "running", stage="train")
    stage = look(run).state
    assert stage is not None
    on.make(NODES)
    assert f"run {run.id} is still running" in read(on, "rerun", run.id, code=78)
    os.kill(stage.pid, signal.SIGKILL)
    until(on, run.id, "dead")
    assert f"its process (pid {stage.pid} on {stage.host}) was killed or lost" in read(on, "events", run.id)
    assert not [
        one for one in psutil.process_iter() if one.pid == stage.nodes["train"].pid and one.status() != "zombie"
    ]
    told = read(on, "rerun", run.id)
    again = re.match(r"run (\S+) is", told)
    assert again
    assert again[1] != run.id
    assert until(on, again[1], "done|failed") == "done"
    assert answer(on, "status", again[1])["rerun_of"] == run.id
    assert "begins again" in read(on, "resume", run.id)
    assert "already" in read(on, "resume", run.id), "its process is there, and has not written a word yet"
    assert until(on, run.id, "done|failed") == "done"


def test_of_two_that_resume_at_once_one_begins_it(here: Callable[[str], Here]) -> None:
    on = here("local")
    on.make({**NODES, "cut": ([], {"sleep": 600})})
    run = on.store.runs.open(submit(on))
    until(on, run.id, "running", stage="cut")
    read(on, "suspend", run.id)
    on.make({**NODES, "cut": ([], {"sleep": 1})})
    said: list[str] = []

    def ask() -> None:
        try:
            said.append(resume(run, on.store))
        except TryAgain as error:
            said.append(str(error))

    both = [threading.Thread(target=ask) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sum("goes on" in words for words in said) == 1, said
    assert until(on, run.id, "done|failed") == "done"
    assert [mark["verb"] for mark in run.marks()] == ["suspend", "resume"]
    events = [json.loads(line) for line in on.file.with_name("events").read_text().splitlines()]
    begun = [event for event in events if (event["node"], event["event"]) == ("cut", "start")]
    assert len(begun) == 2, (
        "the one that was stopped, and one more (a try that waits for the lease of the first begins none)"
    )
    log = background.log_of(run.id).read_text()
    assert log.count("[judge] done") == 1


def test_suspended_before_its_first_stage_it_begins_none(here: Callable[[str], Here]) -> None:
    on = here("local")
    run = on.store.runs.open(submit(on))
    read(on, "suspend", run.id)
    assert answer(on, "status", run.id)["state"] == "suspended"
    assert run.nodes() == []
    read(on, "resume", run.id)
    assert until(on, run.id, "done|failed") == "done"


def test_asked_for_twice_under_one_id_it_is_one_run_and_its_record_is_not_believed(here: Callable[[str], Here]) -> None:
    on = here("local")
    on.make({"cut": ([], {})})
    assert submit(on, "--run-id", "mine") == "mine"
    until(on, "mine", "done")
    assert "run mine is done on local" in read(on, "submit", "curate", "--engine", "local", "--run-id", "mine")
    told = read(on, "submit", "curate", "--engine", "local", "--run-id", "mine", "--videos", "/v", code=78)
    assert "something else was asked of it" in told
    (run,) = on.store.runs.list()
    whole = run.read("engine.json") or b""
    run.write("engine.json", whole.replace(b'"mine"', b'"other"'))
    assert "it is the record of something else" in read(on, "status", run.id)
    run.write("engine.json", whole.replace(b'"local"', b'"../../etc"'))
    assert "cannot be read" in read(on, "runs")
    run.write("engine.json", whole)


def test_a_backfill_that_was_killed_goes_on(here: Callable[[str], Here]) -> None:
    """What it had begun goes on without it, and is not begun twice."""
    on = here("local")
    on.make({"cut": ([], {"sleep": 1.0})})
    words = [
        "backfill",
        "curate",
        "--engine",
        "local",
        "--shards",
        "a,b,c",
        "--videos",
        "/v/{shard}",
        "--store",
        on.store.url,
    ]
    process = subprocess.Popen([sys.executable, "-m", "wfm_fakes.cli", *words], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert "a  begun" in process.stderr.readline()
    process.kill()
    process.wait()
    assert "3 done" in read(on, *words)
    assert {one["tries"] for one in answer(on, *words, "--dry-run")["points"]} == {1}
    events = [json.loads(line) for line in (on.file.with_name("events")).read_text().splitlines()]
    assert [event["event"] for event in events].count("start") == 3


def test_an_engine_that_is_not_there_and_options_of_another_are_said(here: Callable[[str], Here]) -> None:
    on = here("local")
    assert "Choices: prefect, local, argo, kubeflow" in read(on, "submit", "curate", "--engine", "nope", code=78)
    assert "leave them out" in read(on, "submit", "curate", "--engine", "argo", "--cpu", "2", code=78)
    days = ["--from", "2026-11-01", "--every", "0 3 * * *"]
    assert "unknown engine 'nope'" in read(on, "backfill", "curate", "--engine", "nope", *days, code=78)
    assert "an engine of this machine has none" in read(on, "submit", "curate", "--template", "x", code=78)
    assert "wfm submit --engine argo" in read(on, "run", "curate", "--engine", "argo", code=78)
    assert on.store.runs.list() == []
