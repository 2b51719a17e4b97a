"""A training whose store goes away in the middle: it waits, an interval ahead at most, and goes on when the store is back."""

import shutil

import pytest
import torch

from tests.wfm.training.test_loop import Network, Regression, configuration, loader, same
from wfm.errors import Cancelled, TryAgain
from wfm.training.loop import train

KEY = "d" * 64


def run(place, objective=None, stop_at=None, **training):
    torch.manual_seed(0)
    network, steps = Network(), iter(range(10**6))
    result = train(
        network, objective or Regression(), loader(), configuration(**training), scratch=place,
        stopping=lambda: next(steps) == stop_at,
    )  # fmt: skip
    return network, result


class Away(Regression):
    """The store is away from a step on, until `back()`."""

    def __init__(self, proxy, gone: int, back=lambda: False) -> None:
        self.proxy, self.gone, self.back, self.done = proxy, gone, back, 0

    def loss(self, model, batch, step):
        if step == self.gone:
            self.proxy.plan = staticmethod(
                lambda method, path: "503" if "checkpoints/" in path and not self.back() else None
            )
        self.done += 1
        return super().loss(model, batch, step)


def test_a_store_that_is_away_for_a_while(proxy, tmp_path, caplog):
    whole, _ = run(tmp_path / "whole")
    place = proxy.open(retry_seconds=0.2).checkpoints(KEY, fence=1)
    words = "could not be sent (try 1): TryAgain"
    network, result = run(place, Away(proxy, 5, lambda: words in caplog.text))
    assert same(network, whole), "nothing of it reaches the weights"
    assert result.waited > 0
    assert words in caplog.text
    assert place.committed()[0].step == 24, "and the last one is there"


def test_a_store_that_stays_away_does_not_hold_up_the_stop(proxy, tmp_path):
    place = proxy.open(retry_seconds=0.2).checkpoints(KEY, fence=1)
    with pytest.raises(Cancelled, match=r"step 14 of 24 is kept; the newest checkpoint in the store is that of step 7 "
                                        r"\(the upload took more than 0\.5 s\)"):  # fmt: skip
        run(place, Away(proxy, 12), stop_at=16, checkpoint_drain_seconds=0.5)  # asked each second while it waits
    assert run(place.scratch)[1].resumed_from == 14, "this machine has it"


def test_a_store_that_stays_away_ends_the_training_for_now(proxy, tmp_path):
    """It neither runs ahead of what is safe nor waits for ever."""
    place, objective = proxy.open(retry_seconds=0.2).checkpoints(KEY, fence=1), Away(proxy, 5)
    with pytest.raises(
        TryAgain, match=r"has taken no checkpoint for .* the training ends at step 7, which this machine keeps"
    ):
        run(place, objective, stall_seconds=4)
    assert objective.done == 7
    assert run(place.scratch)[1].resumed_from == 7


@pytest.mark.parametrize("fault", ["drop_reply", "cut"])
def test_lost_replies_and_cut_bodies_change_nothing(proxy, tmp_path, fault):
    """Each first request of a kind: a commit that went through unheard is ours, a download that broke off is asked again."""
    whole, _ = run(tmp_path / "whole")
    seen = set()

    def plan(method, path):
        first = (method, path) not in seen and "checkpoints/" in path
        seen.add((method, path))
        return fault if first else None

    proxy.plan = staticmethod(plan)
    place = proxy.open().checkpoints(KEY, fence=1)
    with pytest.raises(Cancelled, match="the newest checkpoint in the store is that of step 16"):
        run(place, stop_at=16)
    shutil.rmtree(place.scratch)
    seen.clear()
    network, result = run(proxy.open().checkpoints(KEY, fence=2))
    assert result.resumed_from == 16
    assert same(network, whole)
    assert seen


def test_a_store_that_is_away_at_the_start_is_no_damage(proxy):
    """Its checkpoints are not given up: the attempt ends as try_again, and begins nothing anew."""
    place = proxy.open().checkpoints(KEY, fence=1)
    with pytest.raises(Cancelled):
        run(place, stop_at=16)
    proxy.plan = staticmethod(lambda method, path: "503" if "checkpoints/" in path else None)
    with pytest.raises(TryAgain):
        run(proxy.open(retry_seconds=0.2).checkpoints(KEY, fence=2))
    proxy.plan = staticmethod(lambda method, path: None)
    assert run(proxy.open().checkpoints(KEY, fence=2))[1].resumed_from == 16
