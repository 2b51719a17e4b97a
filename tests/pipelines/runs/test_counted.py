"""No counter falls, whatever is deleted, told late or restarted; what is kept of a run does not grow with its tries."""

import itertools
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.runs import counted
from pipelines.runs.ledger import SILENT_SECONDS, Ledger, Now, _known
from pipelines.runs.submission import asked_now, create_submission
from tests.pipelines.runs.test_exporter import NODES, Clock, begin, end, stamp
from wfm.artifacts import Store
from wfm.artifacts.runs import AttemptRecord, Run
from wfm.artifacts.schema import encode
from wfm.errors import InputError


class Forgetful(Ledger):
    """A broken twin: it writes nothing down."""

    def _write_down(self) -> None:
        pass


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", {"fsync": False})


def increase(values: list[float]) -> float:
    """As Prometheus reckons it: one that is lower than before began anew at zero."""
    return sum(now - before if now >= before else now for before, now in itertools.pairwise(values))


def told(store: Store, outcome: str = "bug") -> Run:
    run = store.runs.create({"nodes": NODES})
    for _ in range(3):
        end(run, "clips", begin(run, "clips", 10.0), outcome, 20.0, 10.0)
    return run


def deleted_then_restarted(store: Store, kind: type[Ledger]) -> list[float]:
    scraped = []
    runs = [told(store), told(store)]
    ledger = kind(store)
    for step in ("first", "restart", "delete and restart", "new run", "restart"):
        if step.startswith("delete"):
            store.objects.delete_tree(f"runs/{runs[0].id}")
        if step == "new run":
            told(store)
        if step.endswith("restart"):
            ledger = kind(store)
        ledger.look()
        scraped.append(ledger.totals.attempts["split_clips", "bug"])
    return scraped


def lost_then_told(store: Store, kind: type[Ledger]) -> list[float]:
    """One that counted as lost says how it ended; and a restart knows no beats."""
    clock, scraped = Clock(), []
    run = store.runs.create({"nodes": NODES})
    begin(run, "clips", 10.0)
    begin(run, "clips", 20.0)
    ledger = kind(store, clock)
    ledger.look()
    clock.now = SILENT_SECONDS + 1
    for restart in (False, True, False):
        ledger = kind(store, clock) if restart else ledger
        run.write_usage("clips", 2, {"at": stamp(time.time()), "every": 10.0})
        ledger.look()
        scraped.append(ledger.totals.attempts["split_clips", "lost"])
    end(run, "clips", 1, "try_again", 30.0, 20.0)
    ledger = kind(store, clock)
    ledger.look()
    scraped.append(ledger.totals.attempts["split_clips", "lost"])
    return scraped


@pytest.mark.parametrize(("happens", "truth"), [(deleted_then_restarted, 3.0), (lost_then_told, 0.0)])
def test_no_counter_falls_over_a_restart(
    store: Store, tmp_path: Path, happens: Callable[[Store, type[Ledger]], list[float]], truth: float
) -> None:
    scraped = happens(store, Ledger)
    assert scraped == sorted(scraped)
    assert increase(scraped) == truth
    broken = happens(Store.open(tmp_path / "twin", {"fsync": False}), Forgetful)
    assert broken != sorted(broken), "what is shown to Prometheus falls without it"


def test_what_was_shown_was_written_down_before(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    told(store)
    ledger, shown = Ledger(store), []
    write = counted.write
    monkeypatch.setattr(counted, "write", lambda *words: (shown.append(dict(ledger.totals.attempts)), write(*words)))
    ledger.look()
    assert shown == [{}]
    ledger.look()
    assert len(shown) == 1, "nothing new, nothing to write"


def test_one_that_goes_on_counts_all_figures_and_what_came_meanwhile(store: Store) -> None:
    run = told(store, "done")
    end(run, "a_train", begin(run, "a_train", 25.0), "try_again", 30.0, 5.0, disruption=True)
    first = Ledger(store)
    first.look()
    end(run, "a_train", begin(run, "a_train", 40.0), "bug", 50.0, 10.0)
    whole, second = Ledger(Store.open(store.url)), Ledger(store)
    second.look()
    store.objects.delete(counted.PATH)
    whole.look()
    assert second.totals == whole.totals
    assert second.totals.attempts["train_world_model", "bug"] == 1


def test_a_later_try_that_is_counted_still_tells_that_one_was_replaced(store: Store) -> None:
    clock = Clock()
    run = store.runs.create({"nodes": NODES})
    begin(run, "clips", 10.0)
    end(run, "clips", begin(run, "clips", 20.0), "bug", 30.0, 10.0)
    Ledger(store, clock).look()
    ledger = Ledger(store, clock)
    ledger.look()
    clock.now = SILENT_SECONDS + 1
    ledger.look()
    assert ledger.totals.attempts == {("split_clips", "bug"): 1, ("split_clips", "lost"): 1}


def test_a_try_at_another_node_replaces_none(store: Store) -> None:
    clock = Clock()
    run = store.runs.create({"nodes": NODES})
    begin(run, "clips", 10.0)
    begin(run, "odd", 20.0)
    begin(run, "odd", 20.0)
    ledger = Ledger(store, clock)
    ledger.look()
    clock.now = SILENT_SECONDS + 1
    ledger.look()
    assert ledger.now.open["split_clips", "silent"] == 1


def test_a_range_waits_from_its_own_last_end(store: Store) -> None:
    made = time.time()
    run = store.runs.create({"nodes": NODES})
    end(run, "clips", begin(run, "clips", made + 10, parts="0/2"), "try_again", made + 100, 90.0)
    end(run, "clips", begin(run, "clips", made + 90, parts="1/2"), "done", made + 95, 5.0)
    end(run, "clips", begin(run, "clips", made + 130, parts="0/2"), "done", made + 140, 10.0)
    ledger = Ledger(store)
    ledger.look()
    assert ledger.totals.waited_seconds["split_clips"] == pytest.approx(10 + 90 + 30, abs=1)


def test_what_cannot_be_read_is_counted_anew_and_a_newer_one_is_not_written_over(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    told(store)
    store.objects.replace(counted.PATH, b'{"schema_version": 1, "totals": {"attempts": {"a": -1}}, "runs": {}}')
    ledger = Ledger(store)
    ledger.look()
    assert "counted anew" in caplog.text
    assert ledger.totals.attempts["split_clips", "bug"] == 3
    assert counted.read(store)[0] == ledger.totals
    newer = encode({"schema_version": counted.SCHEMA_VERSION + 1})
    store.objects.replace(counted.PATH, newer)
    with pytest.raises(InputError, match="newer wfm"):
        Ledger(store).look()
    assert store.objects.read(counted.PATH) == newer


def test_words_of_the_store_do_not_make_it_unreadable(store: Store) -> None:
    run = store.runs.create({"nodes": [{"name": "a b/c", "stage": "split_clips", "sources": {"x": "../y"}}, *NODES]})
    end(run, "clips", begin(run, "clips", -9e9, parts="p" * 50_000), "x y", -8e9, 1.0)
    Ledger(store).look()
    totals, runs, _ = counted.read(store)
    assert (totals.attempts, list(runs)) == ({("split_clips", "other"): 1}, [run.id])


def test_a_store_that_takes_nothing_is_said_and_read_all_the_same(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told(store)
    Path(store.url.removeprefix("file://"), "exporter").write_text("a file is in the way")
    ledger = Ledger(store)
    ledger.look()
    assert "not written down" in caplog.text
    assert ledger.totals.attempts["split_clips", "bug"] == 3


def record(number: int) -> AttemptRecord:
    outcome = {"outcome": "done", "finished_at": "2026-01-01T00:00:09.000Z", "seconds": 5.0, "reason": f"r{number}"}
    started = {"started_at": "2026-01-01T00:00:00.000Z", "parts": f"{number}/100000", "host": f"node-{number}"}
    return AttemptRecord("clips", number, started, outcome)


class Hoarder(Ledger):
    """A broken twin: it keeps each try, and looks through all of them for what the next has waited for."""

    kept: dict[tuple[str, int], Any]

    def _book(self, known: Any, record: AttemptRecord, one: Any, outcome: str) -> None:
        kept = self.__dict__.setdefault("kept", {})
        max(
            [one.started for (node, number), one in kept.items() if node == record.node and number < record.number]
            or [0]
        )
        kept[record.node, record.number] = one
        super()._book(known, record, one, outcome)


def book(kind: type[Ledger], many: int) -> float:
    """Seconds of processor time for so many ended tries at the ranges of one node."""
    ledger, now = kind(None), Now()  # type: ignore[arg-type]
    ledger._counted = counted.Totals()
    known = _known({"nodes": NODES}, counted.OfRun())
    began = time.process_time()
    for number in range(1, many):
        ledger._take("r", known, record(number), False, now)
    return time.process_time() - began


def kept(kind: type[Ledger]) -> int:
    """Bytes that stay of 400 tries beyond the first hundred."""
    ledger, now = kind(None), Now()  # type: ignore[arg-type]
    ledger._counted = counted.Totals()
    known = _known({"nodes": NODES}, counted.OfRun())
    for number in range(1, 500):
        if number == 100:
            before = tracemalloc.get_traced_memory()[0]
        ledger._take("r", known, record(number), False, now)
    return tracemalloc.get_traced_memory()[0] - before


def old(store: Store) -> Run:
    """A run of long ago with a try that failed."""
    run = store.runs.create({"nodes": NODES, "created_at": "2026-01-01T00:00:00.000Z"})
    end(run, "clips", begin(run, "clips", 10.0), "bug", 20.0, 10.0)
    return run


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.runs.ledger._MANY_RESTING", 20)
    monkeypatch.setattr("pipelines.runs.counted._RUNS_A_FILE", 25)


def bytes_of_a_look(store: Store, ledger: Ledger) -> int:
    """Of the document, when one try was counted."""
    told(store)
    ledger.look()
    return len(store.objects.read(counted.PATH))


@pytest.mark.usefixtures("few")
def test_what_is_written_at_a_look_does_not_grow_with_the_runs_that_rest(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(60):
        old(store)
    ledger = Ledger(store)
    assert bytes_of_a_look(store, ledger) < 3000
    assert len(counted.read(store)[1]) == 61, "none is forgotten"
    again = Ledger(store)
    assert bytes_of_a_look(store, again) < 3000
    assert again.totals.attempts["split_clips", "bug"] == 60 + 6
    monkeypatch.setattr("pipelines.runs.ledger._MANY_RESTING", 10**9)
    store.objects.delete(counted.PATH)
    assert bytes_of_a_look(store, Ledger(store)) > 4000, "a twin that lays none to rest writes all of them"


@pytest.mark.usefixtures("few")
def test_a_run_that_rests_and_goes_on_counts_each_try_once(store: Store) -> None:
    runs = [old(store) for _ in range(30)]
    Ledger(store).look()
    end(runs[0], "clips", begin(runs[0], "clips", 30.0), "bug", 40.0, 10.0)
    for _ in range(3):
        ledger = Ledger(store)
        ledger.look()
        assert ledger.totals.attempts["split_clips", "bug"] == 31
    store.objects.delete_tree(f"runs/{runs[1].id}")
    told(store)
    ledger.look()
    again = Ledger(store)
    again.look()
    assert again.totals == ledger.totals
    assert again.totals.attempts["split_clips", "bug"] == 34
    assert runs[1].id not in {name for of in again._resting.values() for name in of}


def test_a_name_that_is_none_of_ours_leads_nowhere(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    told(store)
    document = {"schema_version": 2, "totals": {}, "runs": {}, "resting": ["../../secret"]}
    store.objects.replace(counted.PATH, encode(document))
    Ledger(store).look()
    assert "counted anew" in caplog.text


@pytest.mark.usefixtures("few")
def test_an_id_that_is_given_anew_is_another_run(store: Store) -> None:
    asked = {"nodes": NODES, "created_at": "2026-01-01T00:00:00.000Z"}
    store.runs.create(asked, "tick")
    for run in (store.runs.open("tick"), *(old(store) for _ in range(30))):
        end(run, "clips", begin(run, "clips", 30.0), "bug", 40.0, 10.0)
    ledger = Ledger(store)
    ledger.look()
    store.objects.delete_tree("runs/tick")
    ledger.look()
    store.runs.create(asked, "tick")
    told(store)
    ledger.look()
    run = store.runs.open("tick")
    end(run, "clips", begin(run, "clips", 30.0), "bug", 40.0, 10.0)
    again = Ledger(store)
    again.look()
    assert again.totals.attempts["split_clips", "bug"] == 1 + 30 * 2 + 3 + 1


@pytest.mark.usefixtures("few")
def test_one_killed_before_the_document_named_the_file_counts_as_before(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(30):
        old(store)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(counted, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            Ledger(store).look()
    assert store.objects.names(counted.RESTING)
    for _ in range(2):
        ledger = Ledger(store)
        ledger.look()
        assert ledger.totals.attempts["split_clips", "bug"] == 30


@pytest.mark.usefixtures("few")
def test_a_file_that_is_gone_has_all_counted_anew(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(30):
        old(store)
    Ledger(store).look()
    store.objects.delete_tree(counted.RESTING)
    ledger = Ledger(store)
    ledger.look()
    assert "counted anew" in caplog.text
    assert ledger.totals.attempts["split_clips", "bug"] == 30


@pytest.mark.alone
def test_what_is_kept_of_a_run_does_not_grow_with_its_ranges() -> None:
    tracemalloc.start()
    assert kept(Ledger) < 20_000
    assert kept(Hoarder) > 10 * 20_000


def test_the_time_for_each_range_does_not_grow_with_their_number() -> None:
    assert book(Ledger, 2000) < 3 * 8 * book(Ledger, 250)
    assert book(Hoarder, 2000) > 8 * 1.5 * book(Hoarder, 250)


def test_a_run_that_its_engine_has_yet_to_plan_is_not_unreadable(store: Store) -> None:
    """An alert hangs on that figure, and a queue may be long."""
    run, ledger = store.runs.of("waits"), Ledger(store)
    assert create_submission(run, asked_now(run, "argo", {"pipeline": "curate"}))
    ledger.look()
    assert ledger.now.unreadable == 0
    store.runs.create({"nodes": NODES}, run.id)
    end(run, "clips", begin(run, "clips", 10.0), "bug", 20.0, 10.0)
    ledger.look()
    assert ledger.totals.attempts["split_clips", "bug"] == 1
