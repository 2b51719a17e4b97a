"""The launcher's part of the attempt records: the first word stands, and a death is told once."""

from pathlib import Path

import pytest

from wfm.artifacts import Store
from wfm.artifacts.runs import Run
from wfm.cluster.records import Death, Records, Said, read_said, said_of, still_need, write_said

KEY = "a" * 64


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", {"fsync": False})


def run_of(store: Store) -> Run:
    return store.runs.create({"pipeline": "test"})


def test_a_stage_that_wrote_its_end_is_believed(store: Store) -> None:
    run = run_of(store)
    number = run.append_attempt("train", {"pod": "p"})
    run.write_outcome("train", number, {"outcome": "wrong_input", "reason": "the stage's own", "key": KEY})
    records = Records(run, "train")
    assert records.tell(Death("the launcher's", number=number), KEY, 0.0)
    assert [(one.outcome, one.reason) for one in records.read()] == [("wrong_input", "the stage's own")]


def test_a_stage_that_comes_late_finds_the_launchers_word(store: Store) -> None:
    run = run_of(store)
    number = run.append_attempt("train", {"pod": "p"})
    records = Records(run, "train")
    assert records.read()[0].outcome == ""
    records.tell(Death("its node is lost", number=number, disruption=True, nodes=("n1",), ends_job=True), KEY, 0.0)
    assert not run.write_outcome("train", number, {"outcome": "done"})
    told = records.read()[0]
    assert (told.outcome, told.reason, told.disruption, told.nodes, told.ends_job) == (
        "try_again", "its node is lost", True, ("n1",), True,
    )  # fmt: skip


def test_a_pod_that_died_before_it_opened_an_attempt_gets_one_record(store: Store) -> None:
    run = run_of(store)
    death = Death("out of memory", token="uid-1", pod="p", parts="3/7")
    for _ in range(3):  # and the launchers after it
        assert Records(run, "train").tell(death, KEY, 0.0)
    (told,) = run.read_outcomes("train")
    assert (told.record["token"], told.record["parts"], told.record["pod"]) == ("uid-1", "3/7", "p")
    assert told.outcome is not None
    assert (told.outcome["reason"], told.outcome["key"], told.outcome["written_by"]) == (
        "out of memory",
        KEY,
        "launcher",
    )


def test_a_launcher_killed_while_it_told_is_followed_by_another(store: Store) -> None:
    """It made the mark and no record: the next one waits a while, for a launcher that may be at it, then tells."""
    run = run_of(store)
    run.create("launcher/train/uid-1.json", b'{"schema_version": 1, "at": 1000.0}')
    death = Death("out of memory", token="uid-1")
    assert not Records(run, "train").tell(death, KEY, 1010.0)
    assert run.attempts("train") == []
    assert Records(run, "train").tell(death, KEY, 1200.0)
    assert Records(run, "train").tell(death, KEY, 1201.0)
    assert run.attempts("train") == [1]


def test_killed_between_record_and_outcome(store: Store) -> None:
    run = run_of(store)
    run.create("launcher/train/uid-1.json", b'{"schema_version": 1, "at": 1000.0}')
    run.append_attempt("train", {"token": "uid-1"})
    assert Records(run, "train").tell(Death("why", token="uid-1"), KEY, 1001.0)
    assert [one.outcome["reason"] for one in run.read_outcomes("train") if one.outcome] == ["why"]


def test_who_still_needs_a_job(store: Store) -> None:
    waits, ended, cancelled, over, silent = (run_of(store) for _ in range(5))
    write_said(waits, "train", Said(KEY, "queued"), 0.0)
    write_said(ended, "train", Said(KEY, ended="wrong_input"), 0.0)
    write_said(cancelled, "train", Said(KEY, "queued"), 0.0)
    cancelled.request_cancel("a test")
    over.write("state.json", b'{"schema_version": 1, "state": "failed"}')
    noted = [one.id for one in (waits, ended, cancelled, over, silent)]
    assert still_need(store, [*noted, "no-such-run", "../../etc"], KEY) == [waits.id, silent.id]


def test_what_a_launcher_says_is_read_back(store: Store) -> None:
    run = run_of(store)
    write_said(run, "train", Said(KEY, "queued", "job", "", ["queue ignored"], {"2": ["n1"]}), 5.0)
    assert said_of(run) == {"train": Said(KEY, "queued", "job", "", ["queue ignored"], {"2": ["n1"]})}
    run.write("launcher/other.json", b"{nonsense")
    assert list(said_of(run)) == ["train"]
    assert read_said(run, "none") is None
