"""A training that another process has taken the work from leaves it to that one; one whose lease only ran out goes on."""

import time

import pytest

from tests.wfm.parallel.threads import in_threads
from tests.wfm.training.rank_runs import run as rank_run
from tests.wfm.training.test_loop import Regression, run
from wfm.artifacts import Store
from wfm.artifacts.lease import LeaseHeld
from wfm.errors import TryAgain
from wfm.training.checkpoint import Keeper

KEY = "f" * 64


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "store")


@pytest.fixture
def lease(store):
    with store.lease(KEY, ttl_seconds=0.4, owner="job") as lease:
        yield lease


class Taken(Regression):
    """At step 5 another start of the same job takes the lease; the steps take their time until it is seen."""

    def __init__(self, store, lease) -> None:
        self.store, self.lease, self.done, self.other = store, lease, 0, None

    def loss(self, model, batch, step):
        if step == 5:
            self.other = self.store.lease(KEY, owner="job").acquire(wait_seconds=0)
            until = time.monotonic() + 20
            while not self.lease.taken_over and time.monotonic() < until:
                time.sleep(0.01)
        self.done += 1
        return super().loss(model, batch, step)


def place_of(store, lease):
    return store.checkpoints(KEY, fence=lease.number, taken_over=lambda: lease.taken_over)


def test_it_ends_at_the_next_step_and_keeps_nothing(store, lease):
    objective = Taken(store, lease)
    with pytest.raises(LeaseHeld, match=r"left at step 6, since another process has taken it over \(process \d+ on "):
        run(place_of(store, lease), objective=objective)
    objective.other.release()
    assert objective.done == 6
    assert not list(store.scratch(KEY).glob("checkpoint-*"))


def test_the_twin_that_does_not_look_goes_on_to_its_end(store, lease, monkeypatch):
    monkeypatch.setattr(Keeper, "taken_over", lambda self: "")
    objective = Taken(store, lease)
    run(place_of(store, lease), objective=objective)
    objective.other.release()
    assert objective.done == 24


def test_an_upload_that_meets_another_s_lease_tells_too(store, lease):
    """Whoever holds no lease object, only its number."""
    objective = Taken(store, lease)
    with pytest.raises(LeaseHeld, match=r"number 2 has taken it over"):
        run(store.checkpoints(KEY, fence=lease.number), objective=objective)
    objective.other.release()
    assert 7 <= objective.done <= 8, "the first checkpoint is made after seven steps"


def test_all_ranks_leave(store, lease, tmp_path):
    class Other:
        """Takes the lease when it is asked whether to stop before the third step."""

        def __init__(self):
            self.asked, self.lease = 0, None

        def __call__(self):
            self.asked += 1
            if self.asked == 3:
                self.lease = store.lease(KEY, owner="job").acquire(wait_seconds=0)
            time.sleep(0.1)
            return False

    other = Other()

    def work(ranks):
        place = place_of(store, lease) if ranks.leads else store.checkpoints(KEY)
        return rank_run(
            "counted", place, ranks, steps=500, checkpoint_every=500, stopping=other if ranks.leads else lambda: False
        )

    ends = in_threads(2, work)
    other.lease.release()
    assert all(isinstance(end, LeaseHeld) for end in ends), ends


def test_a_lease_that_only_ran_out_costs_nothing(store, lease, monkeypatch):
    """The store did not answer for longer than the lease lasts; nobody came."""

    class Silent(Regression):
        def loss(self, model, batch, step):
            if step == 5:
                with monkeypatch.context() as away:
                    away.setattr(lease, "_objects", Away())
                    time.sleep(3 * lease.ttl_seconds)
            return super().loss(model, batch, step)

    class Away:
        def replace(self, *_):
            raise TryAgain("the store is away")

    place = place_of(store, lease)
    assert run(place, objective=Silent())[1].steps == 24
    assert place.committed()[0].step == 24
    assert lease.taken_over == ""  # no `check()`: on a busy machine it may not have beaten for 0.4 s now
