"""What a run that is not over has planned stays, however many runs came after it; what is over, or given up, holds nothing."""

import time

import pytest

from wfm.artifacts import Store, open_runs
from wfm.artifacts.runs import Run
from wfm.artifacts.schema import encode

KEY, NEXT = "a" * 64, "b" * 64
DAY = 86_400.0


def stamp(age: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() - age))


def planned(store: Store, run_id: str = "nightly", age: float = 0.0) -> Run:
    """As a plan step writes one: the first node is there, two are to be made of it."""
    run = store.runs.create(
        {
            "created_at": stamp(age),
            "nodes": [
                {"name": "videos", "key": KEY, "done": True, "sources": {}},
                {"name": "train", "key": NEXT, "done": False, "sources": {"videos": "videos"}},
                {"name": "score", "key": None, "done": False, "sources": {"model": "train"}},
            ],
        },
        run_id,
    )
    run.write("specs/train.json", b"{}")
    return run


def says(run: Run, node: str, age: float, ended: str = "") -> None:
    run.write(f"launcher/{node}.json", encode({"schema_version": 1, "at": time.time() - age, "ended": ended}))


def tried(run: Run, node: str, outcome: str, age: float = 0.0, **record: str) -> None:
    number = run.append_attempt(node, {"started_at": stamp(age), **record})
    if outcome:
        run.write_outcome(node, number, {"outcome": outcome, "finished_at": stamp(age)})


def state(run: Run, word: str, age: float = 0.0) -> None:
    run.write("state.json", encode({"schema_version": 1, "state": word, "updated": time.time() - age}))


def test_a_planned_run_keeps_what_it_will_read_after_twenty_later_ones(tmp_path):
    store = Store.open(tmp_path)
    (attempt := store.attempt(KEY)).commit(stage="ingest_videos", kind="videos")
    assert attempt
    run = planned(store, age=20 * DAY)
    for _ in range(21):
        store.runs.create({})
    report = store.gc(wait_seconds=0.0, min_age_seconds=0.0)
    assert store.has(KEY), "its plan said that this is there: its stages are handed the key"
    assert report.live[KEY] == "run nightly, which is not over"
    tried(run, "train", "done")
    tried(run, "score", "done")
    store.gc(wait_seconds=0.0, min_age_seconds=0.0)
    assert not store.has(KEY)


OPEN = {
    "planned a month ago, queued since": lambda run: None,
    "its launcher waits, and began long ago": lambda run: says(run, "train", 29 * DAY),
    "one node is through": lambda run: tried(run, "train", "done", 5 * DAY),
    "a range of parts is not the node": lambda run: (
        tried(run, "train", "done", 5 * DAY),
        tried(run, "score", "done", 5 * DAY, parts="0/2"),
    ),
    "a try that passes": lambda run: tried(run, "train", "try_again", 5 * DAY),
    "a bug that its launcher tries again": lambda run: (tried(run, "train", "bug", 5 * DAY), says(run, "train", 5 * DAY)),
    "a try without an end": lambda run: tried(run, "train", "", 5 * DAY),
    "failed an hour ago": lambda run: tried(run, "train", "wrong_input", 3600.0),
    "an engine that beats": lambda run: state(run, "running", 60.0),
    "stopped until somebody lets it go on": lambda run: state(run, "suspended", 5 * DAY),
    "the same, in the middle of a stage": lambda run: (
        tried(run, "train", "cancelled", 5 * DAY),
        state(run, "suspended", 5 * DAY),
    ),
    "the same, by an engine that keeps no state": lambda run: (
        run.request_suspend(),
        tried(run, "train", "cancelled", 5 * DAY),
    ),
}  # fmt: skip
OVER = {
    "nothing was heard for longer than a queue is waited for": (40 * DAY, lambda run: says(run, "train", 32 * DAY)),
    "nothing was ever heard": (32 * DAY, lambda run: None),
    "all is made": (0.0, lambda run: (tried(run, "train", "done"), tried(run, "score", "cached"))),
    "what is left needs what failed": (5 * DAY, lambda run: tried(run, "train", "wrong_input", 2 * DAY)),
    "its launcher is through": (
        5 * DAY,
        lambda run: (tried(run, "train", "bug", 2 * DAY), says(run, "train", 2 * DAY, ended="bug")),
    ),
    "cancelled": (0.0, lambda run: run.request_cancel()),
    "its engine said done": (0.0, lambda run: state(run, "done")),
    "its engine said failed": (0.0, lambda run: state(run, "failed")),
    "suspended, and nobody came back": (
        40 * DAY,
        lambda run: (tried(run, "train", "cancelled", 35 * DAY), state(run, "suspended", 35 * DAY)),
    ),
    "its engine is dead": (5 * DAY, lambda run: state(run, "running", 2 * DAY)),
}  # fmt: skip


@pytest.mark.parametrize("case", OPEN)
def test_is_open(tmp_path, case):
    run = planned(Store.open(tmp_path), age=29 * DAY)
    OPEN[case](run)
    assert open_runs.is_open(run)


@pytest.mark.parametrize("case", OVER)
def test_is_over(tmp_path, case):
    age, happens = OVER[case]
    run = planned(Store.open(tmp_path), age=age)
    happens(run)
    assert not open_runs.is_open(run)


def test_one_that_never_began_holds_nothing_and_one_that_cannot_be_read_may_need_anything(tmp_path):
    store = Store.open(tmp_path)
    assert not open_runs.is_open(store.runs.create({"nodes": [{"name": "train", "key": KEY}]}))
    run = planned(store)
    says(run, "train", 0.0)
    run.write("launcher/train.json", b"{")
    unread: list[str] = []
    assert list(open_runs.open_runs([run], unread)) == []
    assert "launcher/train.json" in unread[0]
