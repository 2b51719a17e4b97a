"""The life of a run by commands alone, as steps over whatever engine: what a person does, and reads at each moment.

    life_of_a_run(on)          # submit, follow, a stage fails, rerun, suspend, resume, cancel while suspended, backfill
    ticks(on)                  # a cron tick, a missed tick, and the backfill that fills it

`on` is one engine (`Engine`). The pipeline has three stages, `cut`, `train` and `judge`, one after the other; `train` works for
long or fails where a step says so.
"""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from wfm.artifacts import Store

Nodes = dict[str, tuple[list[str], dict[str, Any]]]
NODES: Nodes = {"cut": ([], {}), "train": (["cut"], {}), "judge": (["train"], {})}
FAILING: Nodes = {**NODES, "train": (["cut"], {"fail": ["wrong_input"]})}


class Engine(Protocol):
    """What the steps need of an engine."""

    name: str
    "As ``--engine`` takes it."
    store: Store

    def wfm(self, *words: str) -> tuple[int, str, str]:
        """A command as a user types it: exit code, output, errors."""

    def make(self, nodes: Nodes) -> None:
        """What the pipeline `curate` is from now on: `fail` is the outcomes of a stage's tries, `sleep` how long it works."""

    def tick(self) -> str:
        """Have a cron line of `curate` begin a run by itself; returns the run's id once it is done."""

    def miss(self) -> None:
        """Have times of that line pass without a run."""


def read(on: Engine, *words: str, code: int = 0) -> str:
    """What a person reads: output and errors, in one line without what only shows."""
    got, out, err = on.wfm(*words)
    assert got == code, (words, got, out, err)
    return " ".join(f"{out} {err}".split())


def answer(on: Engine, *words: str) -> Any:
    """What a script reads."""
    code, out, err = on.wfm(*words, "--json")
    assert code == 0, (words, out, err)
    return json.loads(out)


def until(on: Engine, run: str, states: str, seconds: float = 120.0, stage: str = "") -> str:
    """Look again and again until a run (a stage of it) is in one of these states; returns which."""
    deadline = time.monotonic() + seconds
    while True:
        told = answer(on, "status", run)
        found = told["state"]
        if stage:
            found = next((one["state"] for one in told["stages"] if one["stage"] == stage), "")
        if re.fullmatch(states, found):
            return str(found)
        assert time.monotonic() < deadline, told
        time.sleep(0.2)


def submit(on: Engine, *words: str) -> str:
    """Ask for a run; returns its id."""
    told = read(on, "submit", "curate", "--engine", on.name, *words)
    found = re.match(r"run (\S+) is (pending|planned|running) on (\w+)", told)
    assert found, told
    assert found[3] == on.name
    assert f"wfm logs {found[1]} -f" in told, "how to follow it"
    return found[1]


def life_of_a_run(on: Engine) -> None:
    """All of it, on a store of its own."""
    # a stage fails
    on.make(FAILING)
    failing = submit(on, "--team", "vision")
    assert until(on, failing, "failed|done") == "failed"
    told = read(on, "status", failing)
    assert f"run {failing} curate (demo) is failed" in told
    assert re.search(r"train failed .* told to fail with wrong_input", told)
    assert f"train failed (wrong_input); its log: wfm logs {failing} train" in told
    assert "[cut] " in read(on, "logs", failing, "-f"), "of all stages, and it ends with the run"
    told = read(on, "events", failing)
    assert re.search(
        rf"submitted to {on.name} by \S+, team vision .*cut: began.*train: failed \(wrong_input\): told to", told
    )
    assert "is failed: only one that is at work" in read(on, "suspend", failing, code=78)

    # again, with what was there; a person stops it in the middle
    on.make({**NODES, "train": (["cut"], {"sleep": 600})})
    told = read(on, "rerun", failing)
    again = re.match(r"run (\S+) is", told)
    assert again, told
    run = again[1]
    until(on, run, "running", stage="train")
    told = read(on, "status", run)
    assert "cut cached" in told, "what the store has is not made again"
    assert "train running" in told
    assert answer(on, "status", run)["rerun_of"] == failing
    told = read(on, "suspend", run)
    assert "suspend" in told or "begins no further" in told
    assert until(on, run, "suspended") == "suspended"
    told = read(on, "status", run)
    assert f"run {run} curate (demo) is suspended" in told
    assert f"wfm resume {run}" in told
    assert re.search(rf"{run} curate demo suspended", read(on, "runs"))

    # it goes on as the same run, and is done
    on.make(NODES)
    told = read(on, "resume", run)
    assert "goes on" in told
    assert until(on, run, "done|failed") == "done"
    events = read(on, "events", run)
    for words in (
        r"train: stopped",
        r"suspended by \S+",
        r"resumed by \S+",
        r"train: tried again, try 2",
        r"the run is done",
    ):
        assert re.search(words, events), (words, events)
    assert "is done, not suspended" in read(on, "resume", run, code=78)

    # cancelled while it is suspended, and that is the end of it
    on.make({**NODES, "train": (["cut"], {"sleep": 600, "value": 2})})
    stopped = submit(on)
    until(on, stopped, "running", stage="train")
    read(on, "suspend", stopped)
    until(on, stopped, "suspended")
    assert "cancel" in read(on, "cancel", stopped) or "stop" in told
    assert until(on, stopped, "cancelled") == "cancelled"
    assert "was cancelled and stays so" in read(on, "resume", stopped, code=78)
    assert re.search(r"suspended by .* asked it to stop", read(on, "events", stopped))

    # what all that has cost
    table = answer(on, "cost", "--by", "team")
    vision = next(line for line in table["lines"] if line["name"] == "vision")
    assert (vision["wasted_tries"], vision["stopped_tries"]) == (1, 1), "one failed, one was suspended and went on"
    assert table["all"]["tries"] == vision["tries"] + 1 == 6


def backfill(on: Engine) -> None:
    """Days with gaps: what is done is skipped, what failed is tried again, what is missing is begun, oldest first."""
    every = [
        "backfill",
        "curate",
        "--engine",
        on.name,
        "--every",
        "0 3 * * *",
        "--from",
        "2026-11-01",
        "--at-most",
        "2",
    ]
    every += ["--videos", "s3://b/{date:%Y-%m-%d}/"]
    asked = [*every, "--to", "2026-11-03"]
    on.make(FAILING)
    told = read(on, *every, "--to", "2026-11-01", code=1)
    assert re.search(
        r"2026-11-01T03:00:00Z failed leave curate-demo-20261101t0300z-\w+ train: told to fail with wrong_i", told
    )
    on.make(NODES)
    table = answer(on, *asked, "--dry-run")["points"]
    assert [(one["state"], one["action"]) for one in table] == [("failed", "try again"), *[("missing", "start")] * 2]
    told = read(on, *asked)
    assert "3 done" in told
    begun = re.findall(r"(\S+) (?:begun|tried again) run", told)
    assert begun == sorted(begun), "oldest first"
    table = answer(on, *asked, "--dry-run")["points"]
    assert [(one["state"], one["tries"]) for one in table] == [("done", 2), ("done", 1), ("done", 1)]
    assert table[0]["run"].endswith("-2")
    videos = {on.store.runs.open(one["run"]).spec()["request"]["videos"] for one in table}
    assert videos == {f"s3://b/2026-11-0{day}/" for day in (1, 2, 3)}


def ticks(on: Engine) -> None:
    """The clock begins a run; times that passed without one are named, and a backfill fills them."""
    on.make(NODES)
    run = on.tick()
    assert "done" in read(on, "status", run)
    assert re.search(r", for \d{4}-\d\d-\d\dT\d\d:\d\d:00Z", read(on, "events", run))
    on.miss()
    told = read(on, "schedule", "list")
    found = re.search(r"missed (?:\d+ times|\S+Z).*; to fill: (wfm backfill .*)", told)
    assert found, told


Step = Callable[[Engine], None]
STEPS: tuple[Step, ...] = (life_of_a_run, backfill, ticks)


def write_nodes(path: Path, nodes: Nodes) -> None:
    """For engines whose stages are the fakes of `wfm_fakes.cli`."""
    path.write_text(json.dumps(nodes))
