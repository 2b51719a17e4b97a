"""A training and a store that is slower than it: at no moment would more than one interval be lost; the result is the same."""

import threading
import time

import pytest

from tests.wfm.parallel.threads import in_threads
from tests.wfm.training.rank_runs import run as rank_run
from tests.wfm.training.test_loop import Regression, configuration, run, same
from wfm.artifacts import Store
from wfm.artifacts.checkpoints import Checkpoints
from wfm.artifacts.objects import going_on
from wfm.errors import Cancelled
from wfm.training import pace
from wfm.training.pace import Pace

KEY = "e" * 64
EVERY = 7


class Slow(Checkpoints):
    """A store that takes so long for a checkpoint."""

    seconds = 0.3
    took = 0.0
    "In all [s]: longer on a busy machine."

    def send(self, folder, record, name, sent, go_on=going_on):
        began = time.monotonic()
        while time.monotonic() < began + self.seconds:
            go_on()
            time.sleep(0.01)
        super().send(folder, record, name, sent, go_on)
        self.took += time.monotonic() - began


class Watched(Regression):
    """Notes at each step how many would be made again if the machine were lost right after it."""

    def __init__(self, store: Store, seconds: float = 0.0) -> None:
        self.place, self.seconds = store.checkpoints(KEY, fence=1), seconds
        self.lost: list[int] = []

    def loss(self, model, batch, step):
        safe = max((name.step for name in self.place.committed()), default=0)
        self.lost.append(step + 1 - safe)
        time.sleep(self.seconds)
        return super().loss(model, batch, step)


def slow(store: Store) -> Slow:
    return Slow(store.objects, KEY, 1, store.scratch(KEY))


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "store")


def test_at_most_one_interval_would_be_lost_at_any_step(store, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(pace, "LONG_SECONDS", 0.1)
    whole, _ = run(tmp_path / "whole")
    objective = Watched(store)
    network, result = run(slow(store), objective=objective)
    assert len(objective.lost) == 24
    assert max(objective.lost) <= EVERY
    assert same(network, whole)
    assert result.waited > 3 * 0.3 / 2
    assert "step 8 waits for the store, which has step 0" in caplog.text
    assert "s in all)" in caplog.text


def test_the_twin_that_never_waits_would_lose_several(store, monkeypatch):
    monkeypatch.setattr(Pace, "behind", lambda self, done: False)
    objective = Watched(store)
    run(slow(store), objective=objective)
    assert max(objective.lost) > 2 * EVERY


def test_a_training_that_had_to_wait_saves_earlier_and_waits_no_more(store, monkeypatch):
    monkeypatch.setattr(pace, "LONG_SECONDS", 0.05)
    place, objective = slow(store), Watched(store, seconds=0.05)
    place.seconds = 0.15  # three steps of ten
    _, result = run(place, objective=objective, config=configuration(steps=90, checkpoint_every=10))
    assert max(objective.lost) <= 10
    assert place.took > 0.15 * 9
    assert result.waited < place.took / 2, "of nine intervals, each of which would have had to wait"
    assert any(name.step % 10 for name in place.committed())


def test_seconds_between_checkpoints_of_the_store_are_an_interval_too(store):
    """Nobody waits for what was not to be sent yet."""
    objective = Watched(store)
    _, result = run(slow(store), objective=objective, config=configuration(checkpoint_store_seconds=3600))
    assert result.waited == 0
    assert max(objective.lost) > EVERY


def test_what_only_this_machine_has_is_brought_to_safety_first(store):
    with pytest.raises(Cancelled):
        run(store.scratch(KEY), stop_at=16)  # never sent
    objective = Watched(store)
    assert run(slow(store), objective=objective)[1].resumed_from == 16
    assert max(objective.lost) <= EVERY


def test_all_ranks_wait_and_one_that_is_asked_to_stop_ends_the_wait(store, tmp_path):
    asked = threading.Event()

    class Held(Slow):
        def send(self, folder, record, name, sent, go_on=going_on):
            asked.set()
            time.sleep(1.5)
            super().send(folder, record, name, sent, go_on)

    def work(ranks):
        place = Held(store.objects, KEY, 1 if ranks.leads else 0, tmp_path / f"machine {ranks.rank}")
        stopping = asked.is_set if ranks.rank else lambda: False
        return rank_run("counted", place, ranks, steps=12, checkpoint_every=5, stopping=stopping)

    ends = in_threads(2, work)
    assert all(isinstance(end, Cancelled) for end in ends), ends
    assert "step 5 of 12 is kept; the newest checkpoint in the store is that of step 5" in str(ends[0])
