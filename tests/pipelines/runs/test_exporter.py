"""The exporter says what the tries in a real store add up to, each once, and answers those alone who have the token."""

import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from wfm_fakes.workshop import Workshop

from pipelines.runs import exporter
from pipelines.runs.exporter import TOKEN, check_token, names, served
from pipelines.runs.ledger import GIVEN_UP_SECONDS, SILENT_SECONDS, Ledger
from wfm.artifacts import Store
from wfm.artifacts.runs import Run
from wfm.cluster.records import Said, write_said
from wfm.errors import ConfigError, InputError

SECRET = "a-token-of-the-tests"
ELSEWHERE = {"machine": "another boot", "host": "node-7", "pid": 7, "pid_start": "1", "ranks": 1}
NODES = [
    {"name": "clips", "stage": "split_clips", "sources": {}},
    {"name": "a_train", "stage": "train_world_model", "sources": {"clips": "clips"}},
    {"name": "odd", "stage": 'x"} 1', "sources": {}},
]


class Clock:
    """Goes on when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def stamp(unix: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(unix)) + f".{int(unix % 1 * 1e6):06d}Z"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", {"fsync": False})


@pytest.fixture
def run(store: Store) -> Run:
    return store.runs.create({"pipeline": "p", "profile": "demo", "nodes": NODES})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(store: Store, clock: Clock) -> Ledger:
    return Ledger(store, clock)


def begin(run: Run, node: str, began: float, beat: str = "2026-01-01T00:00:00.000000Z", **more: object) -> int:
    number = run.append_attempt(node, {**ELSEWHERE, "started_at": stamp(began), **more})
    run.write_usage(node, number, {"at": beat, "every": 10.0, "seconds": 50.0, "gpu_seconds": 400.0})
    return number


def end(run: Run, node: str, number: int, outcome: str, finished: float, seconds: float, **more: object) -> None:
    told = {"outcome": outcome, "finished_at": stamp(finished), "seconds": seconds, "gpu_seconds": 8 * seconds, **more}
    run.write_outcome(node, number, told)


@pytest.fixture
def told(run: Run) -> float:
    """A stage that was done, one that was preempted, failed and is at it again; returns when the run was made."""
    made = time.time()
    end(run, "clips", begin(run, "clips", made + 40), "done", made + 100, 60.0)
    end(run, "a_train", begin(run, "a_train", made + 130), "try_again", made + 200, 70.0, disruption=True)
    end(run, "a_train", begin(run, "a_train", made + 260), "bug", made + 300, 40.0)
    begin(run, "a_train", made + 310)
    return made


def test_tries_by_stage_and_outcome_seconds_devices_and_waiting(ledger: Ledger, told: float) -> None:
    ledger.look()
    ledger.look()  # nothing is counted twice
    totals = ledger.totals
    assert totals.attempts == {
        ("split_clips", "done"): 1,
        ("train_world_model", "try_again"): 1,
        ("train_world_model", "bug"): 1,
    }
    assert totals.lost_seconds == {("train_world_model", "try_again"): 70.0, ("train_world_model", "bug"): 40.0}
    assert totals.gpu_seconds["split_clips", "done"] == 480.0
    assert totals.disruptions == {"train_world_model": 1}
    assert totals.waited_seconds["split_clips"] == pytest.approx(40, abs=1), "from when the run was made"
    assert totals.waited_seconds["train_world_model"] == pytest.approx(30 + 60, abs=1), (
        "from its inputs, then its last try"
    )
    assert totals.last_success == {"split_clips": pytest.approx(told + 100, abs=1)}
    assert ledger.now.open == {("train_world_model", "running"): 1}
    assert ledger.now.gpu_seconds == {"train_world_model": 400.0}


def test_a_try_whose_beat_stands_still_is_silent_by_our_clock_alone(
    run: Run, told: float, ledger: Ledger, clock: Clock
) -> None:
    ledger.look()
    assert ledger.now.open == {("train_world_model", "running"): 1}, "its clock is a year behind: that accuses nobody"
    clock.now = SILENT_SECONDS + 1
    ledger.look()
    assert ledger.now.open == {("train_world_model", "silent"): 1}
    assert ledger.now.silent_seconds == {"train_world_model": clock.now}
    run.write_usage("a_train", 3, {"at": "2026-01-01T00:00:10.000000Z", "every": 10.0})
    ledger.look()
    assert ledger.now.open == {("train_world_model", "running"): 1}


def test_one_that_was_replaced_is_lost_once_whatever_is_told_of_it_later(
    run: Run, told: float, ledger: Ledger, clock: Clock
) -> None:
    ledger.look()
    begin(run, "a_train", told + 900)
    ledger.look()
    assert ledger.now.open == {("train_world_model", "running"): 2}, "not silent yet"
    clock.now = SILENT_SECONDS + 1
    run.write_usage("a_train", 4, {"at": "2026-01-01T00:00:20.000000Z", "every": 10.0})
    ledger.look()
    assert ledger.totals.attempts["train_world_model", "lost"] == 1
    assert ledger.totals.lost_seconds["train_world_model", "lost"] == 50.0
    assert ledger.totals.gpu_seconds["train_world_model", "lost"] == 400.0
    end(run, "a_train", 3, "try_again", told + 950, 50.0)
    ledger.look()
    assert ledger.totals.attempts["train_world_model", "try_again"] == 1
    clock.now += GIVEN_UP_SECONDS + 1  # the last one, too: nobody waits for it any more
    ledger.look()
    assert ledger.totals.attempts["train_world_model", "lost"] == 2


def test_what_waits_in_the_queue_is_said(run: Run, ledger: Ledger) -> None:
    write_said(run, "clips", Said("k", "queued: insufficient unused quota"), time.time())
    write_said(run, "a_train", Said("k", "waiting for quota: exceeded quota"), time.time())
    write_said(run, "odd", Said("k", "pulling image r/wfm"), time.time())
    ledger.look()
    assert ledger.now.waiting == {("split_clips", "queue"): 1, ("train_world_model", "quota"): 1, ("other", "other"): 1}
    run.request_cancel("a test")
    ledger.look()
    assert ledger.now.waiting == {}


def test_a_deleted_run_takes_nothing_from_the_totals_and_a_broken_one_hides_no_other(
    store: Store, run: Run, told: float, ledger: Ledger
) -> None:
    broken = store.runs.create({"pipeline": "p", "nodes": NODES})
    begin(broken, "clips", told)
    store.objects.replace(f"runs/{broken.id}/nodes/clips/attempts/0001/attempt.json", b"{")
    ledger.look()
    assert (ledger.now.runs, ledger.now.unreadable) == (2, 1)
    before = dict(ledger.totals.attempts)
    assert sum(before.values()) == 3
    store.objects.delete_tree(f"runs/{run.id}")
    ledger.look()
    assert ledger.totals.attempts == before
    assert ledger.now.open == {}


def test_words_in_the_store_make_no_labels(run: Run, told: float, ledger: Ledger) -> None:
    end(run, "odd", begin(run, "odd", told), "something\nelse", told, 1.0)
    ledger.look()
    assert ledger.totals.attempts["other", "other"] == 1


def test_a_run_that_rests_is_looked_at_rarely(store: Store, run: Run, clock: Clock, ledger: Ledger) -> None:
    long_ago = time.time() - 3 * 86400
    end(run, "clips", begin(run, "clips", long_ago), "done", long_ago, 5.0)
    spec = {**run.spec(), "created_at": stamp(long_ago)}
    run.write("spec.json", json.dumps(spec))
    ledger.look()
    end(run, "odd", begin(run, "odd", long_ago), "done", long_ago, 5.0)
    ledger.look()
    assert sum(ledger.totals.attempts.values()) == 1
    clock.now += 3601
    ledger.look()
    assert sum(ledger.totals.attempts.values()) == 2


def get(url: str, token: str = "") -> tuple[int, str]:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def address(ledger: Ledger) -> Iterator[str]:
    with served(ledger, "127.0.0.1", 0, SECRET, 30.0) as port:
        yield f"http://127.0.0.1:{port}"


def test_whoever_has_the_token_reads_and_nobody_else(address: str, ledger: Ledger, told: float) -> None:
    assert get(f"{address}/healthz")[0] == 503, "it has not looked yet"
    ledger.look()
    assert get(f"{address}/healthz") == (200, "ok\n")
    for wrong in ("", "another-token-of-tests", SECRET[:-1], SECRET + "x"):
        status, body = get(f"{address}/metrics", wrong)
        assert (status, "wfm_" in body) == (401, False)
    assert get(f"{address}/other", SECRET)[0] == 404
    status, body = get(f"{address}/metrics", SECRET)
    assert status == 200
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }
    assert samples["wfm_attempts_total", "done", "split_clips"] == 1
    assert samples["wfm_lost_seconds_total", "bug", "train_world_model"] == 40
    assert samples["wfm_open_attempts", "running", "train_world_model"] == 1
    assert {name for name, *_ in samples} <= names()


def test_what_prometheus_sees_first_is_whole_and_what_never_happened_is_zero(
    address: str, ledger: Ledger, told: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of totals in the middle of the first look the rest would be an increase; a series that begins with a failure has none."""
    seen = []
    book = Ledger._book

    def booked(*words: Any) -> None:
        book(*words)
        seen.append(get(f"{address}/metrics", SECRET)[1])

    monkeypatch.setattr(Ledger, "_book", booked)
    ledger.look()
    assert seen
    assert all("wfm_exporter_last_look" in each and "wfm_attempts_total{" not in each for each in seen)
    body = get(f"{address}/metrics", SECRET)[1]
    for never in ("attempts", "lost_seconds", "gpu_seconds"):
        assert f'wfm_{never}_total{{outcome="bug",stage="split_clips"}} 0.0' in body


def test_who_says_nothing_keeps_others_waiting_no_longer_than_a_request_may_take(
    address: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.look()
    port, before = int(address.rpartition(":")[2]), threading.active_count()
    with contextlib.ExitStack() as stack:
        for _ in range(3 * exporter._AT_ONCE):
            silent = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            silent.sendall(b"GET /heal")
        with pytest.raises(OSError):  # one more than there may be
            get(f"{address}/healthz")
        assert threading.active_count() - before <= exporter._AT_ONCE
        monkeypatch.setattr(exporter, "_REQUEST_SECONDS", 0.1)
        patience = time.monotonic() + 30
        while time.monotonic() < patience:
            with contextlib.suppress(OSError):
                assert get(f"{address}/healthz") == (200, "ok\n")
                return
            time.sleep(0.1)
    raise AssertionError("nobody is answered any more")


def test_beyond_this_machine_there_is_a_token() -> None:
    assert check_token("", "127.0.0.1") == ""
    for host in ("0.0.0.0", "::", "10.0.0.1", "metrics.example"):
        with pytest.raises(ConfigError, match=TOKEN):
            check_token("", host)
    for token in ("short", "with a space in it", "ümläut-ümläut"):
        with pytest.raises(ConfigError, match=TOKEN):
            check_token(token, "127.0.0.1")


def test_a_port_that_is_taken_is_said(address: str, ledger: Ledger) -> None:
    port = int(address.rpartition(":")[2])
    with pytest.raises(InputError, match="cannot listen"), served(ledger, "127.0.0.1", port, SECRET, 30.0):
        pass


def test_real_stages_leave_what_is_counted(workshop: Workshop) -> None:
    summary, _ = workshop.run(workshop.plan({"one": ([], {}), "two": (["one"], {})}))
    assert summary.exit_code == 0
    ledger = Ledger(workshop.store)
    ledger.look()
    assert sum(ledger.totals.attempts.values()) == 2
    assert {outcome for _, outcome in ledger.totals.attempts} == {"done"}
    assert sum(ledger.totals.seconds.values()) > 0
