"""Runs under a given id, marks of a cancel, attempts found by their token."""

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from wfm.artifacts import Store
from wfm.errors import InputError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", {"fsync": False})


def create(url: str, number: int) -> str:
    run = Store.open(url, {"fsync": False}).runs.create({"asked": "x", "by": number}, "tick-1", same=("asked",))
    return str(run.spec()["by"])


def test_the_same_id_from_many_processes_at_once_is_one_run(store: Store) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        told = pool.starmap(create, [(store.url, number) for number in range(9)])
    assert len(set(told)) == 1, "all see the spec of the one that was first"
    assert [run.id for run in store.runs.list()] == ["tick-1"]


def test_the_same_id_with_another_spec_is_refused_with_words(store: Store) -> None:
    store.runs.create({"pipeline": "curate", "request": {"videos": "a"}, "done": 1}, "tick-1")
    assert store.runs.create({"pipeline": "curate", "request": {"videos": "a"}, "done": 1}, "tick-1").id == "tick-1"
    asked = ("pipeline", "request")
    assert store.runs.create({"pipeline": "curate", "request": {"videos": "a"}, "done": 2}, "tick-1", same=asked)
    with pytest.raises(InputError, match=r"tick-1 is there already.*its request is \{'videos': 'a'\}, now it is .*'b'"):
        store.runs.create({"pipeline": "curate", "request": {"videos": "b"}}, "tick-1", same=asked)


@pytest.mark.parametrize("wrong", ["../x", "a/b", "-x", "a b", "x" * 129, "\u0430"])
def test_an_id_that_is_no_plain_word_is_refused(store: Store, wrong: str) -> None:
    with pytest.raises(InputError, match=r"run id .* is not allowed"):
        store.runs.create({}, wrong)


def test_given_ids_are_listed_by_their_time_among_our_own(store: Store) -> None:
    ids = []
    for given in ("zz-first", "", "aa-third", ""):
        ids.append(store.runs.create({}, given).id)
        time.sleep(0.002)
    assert [run.id for run in store.runs.list()] == ids[::-1]
    assert store.runs.open("zz").id == "zz-first"
    store.objects.replace("runs/notes/spec.json", b"{")
    store.objects.replace("runs/stolen/spec.json", json.dumps({"schema_version": 1, "run_id": "aa-third"}).encode())
    assert [run.id for run in store.runs.list()] == ids[::-1], "a folder is a run when its spec says so"
    with pytest.raises(InputError, match="not the id of a run"):
        store.runs.open("notes")


def test_a_mark_asks_a_run_to_stop(store: Store) -> None:
    run = store.runs.create({})
    assert run.cancelled_by() == ""
    run.request_cancel("me")
    assert store.runs.open(run.id).cancelled_by() == "me"
    run.write("cancel.json", b"{")
    assert run.cancelled_by() == "somebody", "a mark that cannot be read is one"


def test_an_attempt_is_found_by_its_token(store: Store) -> None:
    run = store.runs.create({})
    numbers = [run.append_attempt("n", {"token": token}) for token in ("a", "b")]
    assert [run.attempt_with("n", token) for token in ("a", "b", "c")] == [*numbers, 0]


def note(url: str, run_id: str, once: bool) -> int:
    run = Store.open(url, {"fsync": False}).runs.of(run_id)
    return run.append_attempt("n", {"token": "a"}, unless_after=1 if once else None)


@pytest.mark.parametrize("once", [True, False], ids=["once", "the twin: each its own"])
def test_of_many_that_note_the_same_attempt_at_once_one_does(store: Store, once: bool) -> None:
    run = store.runs.create({})
    run.append_attempt("n", {"token": "a"})  # of an earlier start
    run.append_attempt("n", {"token": "b"})  # of another job
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        told = pool.starmap(note, [(store.url, run.id, once)] * 9)
    assert sorted(told) == ([3] * 9 if once else list(range(3, 12)))
    assert run.attempts("n") == [1, 2, *sorted(set(told))]


def test_what_an_attempt_uses_is_there_while_it_runs(store: Store) -> None:
    run = store.runs.create({})
    number = run.append_attempt("n")
    for seconds in (1.0, 2.0):
        run.write_usage("n", number, {"cpu_seconds": seconds})
    (found,) = run.read_outcomes()
    assert (found.outcome, (found.usage or {})["cpu_seconds"]) == (None, 2.0)


def counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths that are read from now on."""
    paths: list[str] = []
    read = type(store.objects).read

    def noting(self: Any, path: str, *more: Any) -> bytes:
        paths.append(path)
        return read(self, path, *more)

    monkeypatch.setattr(type(store.objects), "read", noting)
    return paths


def test_a_list_of_given_ids_reads_no_spec(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for number in range(60):
        ids.append(store.runs.create({}, f"tick-{number % 7}-{number}").id)
        time.sleep(0.0015)
    paths = counted(store, monkeypatch)
    assert [run.id for run in store.runs.list()] == ids[::-1]
    assert store.runs.list(limit=1)[0].id == ids[-1]
    assert store.runs.open("tick-6-5").id == "tick-6-55"
    with pytest.raises(InputError, match="'tick-3-' means any of 9 runs"):
        store.runs.open("tick-3-")
    assert paths == []
    assert store.runs.open("tick-1-1").id == "tick-1-1"
    assert len(paths) <= 1, "an exact id costs one look, whatever else begins so"
    store.objects.delete_tree("runs/.by-time")  # as an older wfm left it
    del paths[:]
    assert [run.id for run in store.runs.list()] == ids[::-1]
    assert len(paths) == len(ids), "without the names each spec has to be read"


def test_a_run_killed_before_its_time_was_noted_stands_in_its_place(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_one = store.objects.create

    def killed(path: str, data: bytes, *more: Any) -> bool:
        if ".by-time" in path:
            raise KeyboardInterrupt
        return create_one(path, data, *more)

    store.runs.create({}, "first")
    time.sleep(0.002)
    with monkeypatch.context() as patched:
        patched.setattr(store.objects, "create", killed)
        with pytest.raises(KeyboardInterrupt):
            store.runs.create({}, "killed")
    time.sleep(0.002)
    store.runs.create({}, "last")
    there = ["last", "killed", "first"]
    assert [run.id for run in store.runs.list()] == there
    store.runs.create({}, "killed")  # begun again: noted now, at its own time
    paths = counted(store, monkeypatch)
    assert [run.id for run in store.runs.list()] == there
    assert paths == []


def test_the_time_of_a_run_that_was_deleted_is_not_that_of_the_next_of_its_id(store: Store) -> None:
    store.runs.create({}, "again")
    time.sleep(0.002)
    store.runs.create({}, "other")
    store.objects.delete_tree("runs/again")
    assert [run.id for run in store.runs.list()] == ["other"]
    time.sleep(0.002)
    store.runs.create({}, "again")
    assert [run.id for run in store.runs.list()] == ["again", "other"]


def test_what_is_no_time_of_ours_among_the_names_is_passed_over(store: Store) -> None:
    store.runs.create({}, "one")
    for name in ("notes.txt", "20261122T122100123-", "20261122T122100123-../x".replace("/", "_"), "2026-one"):
        store.objects.replace(f"runs/.by-time/{name}", b"")
    assert [run.id for run in store.runs.list()] == ["one"]


def test_who_changes_a_run_names_it_with_four_letters(store: Store) -> None:
    run = store.runs.create({})
    assert store.runs.open(run.id[0]).id == run.id
    for short in (run.id[0], run.id[:3], run.id[-8:][:3]):
        with pytest.raises(InputError, match=rf"'{short}' is too short to change a run by: give 4 letters.*{run.id}"):
            store.runs.open(short, at_least=4)
    assert store.runs.open(run.id[-8:][:4], at_least=4).id == run.id
    store.runs.create({}, "ab")
    assert store.runs.open("ab", at_least=4).id == "ab", "a whole id is no beginning of one"
