"""What the loop makes of data that is late or damaged: it waits, can be stopped meanwhile, and says what was skipped."""

import re
import threading
import time

import pytest
import torch

from tests.wfm.parallel.threads import in_threads
from tests.wfm.training.rank_runs import worst
from tests.wfm.training.test_loop import Network, Regression, configuration, loader, run, same
from wfm.data.loader import ArrayDataset, Loader, LoaderConfig
from wfm.data.order import one_shape
from wfm.errors import Cancelled, DataError, TryAgain
from wfm.parallel.ranks import Ranks
from wfm.training.loop import CLOCK, train
from wfm.training.metrics import read_curve


class Held:
    """Samples of an `ArrayDataset`, read one by one; from the `first` read on they hang until `go`."""

    def __init__(
        self,
        held: ArrayDataset,
        first: int = 0,
        damaged: frozenset[int] = frozenset(),
        hangs: threading.Event | None = None,
    ) -> None:
        self._held, self._damaged, self._left = held, damaged, first
        self.ids, self.shapes, self.sizes, self.identity = held.ids, held.shapes, held.sizes, held.identity
        self.hangs, self.go = hangs or threading.Event(), threading.Event()

    def read(self, row: int) -> dict[str, torch.Tensor]:
        self._left -= 1
        if self._left < 0:
            self.hangs.set()
            self.go.wait()
        if row in self._damaged:
            raise DataError(f"row {row} is torn")
        return self._held.read(row)


def held(first: int = 10**6, damaged: frozenset[int] = frozenset(), **how: int) -> tuple[Held, Loader]:
    data = Held(loader().sources["samples"], first, damaged)
    return data, Loader(data, one_shape(data.ids, 4, 0), LoaderConfig(workers=1, prefetch_bytes=200, **how))


def test_a_stop_while_the_training_waits_for_data_keeps_the_step(tmp_path):
    whole, _ = run(tmp_path / "whole")
    data, late = held(first=40)
    began = time.monotonic()
    with late, pytest.raises(Cancelled, match=r"step 10 of 24 is kept"):
        run(tmp_path / "parts", data=late, stop_at=10 + 1)  # asked once a step, and then by whoever waits
    assert time.monotonic() - began < 30, "it did not wait for the sample"
    data.go.set()
    parts, result = run(tmp_path / "parts", data=held()[1])
    assert result.resumed_from == 10
    assert same(whole, parts)


@pytest.mark.parametrize(
    "asked", [(0, 1), (0,), (1,)], ids=["both", "the one that has its batch", "the one that waits"]
)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_stop_while_one_of_two_ranks_waits_for_data_ends_both(tmp_path, asked, workers):
    """Rank 1 hangs in a read of step 10 or so; rank 0 has its batch and waits for it."""
    hangs = threading.Event()
    networks = []
    for _ in range(2):  # here: threads share torch's generator
        torch.manual_seed(0)
        networks.append(Network())

    def work(ranks: Ranks) -> float:
        data = Held(loader().sources["samples"], 10**6 if ranks.leads else 20, hangs=hangs)
        mine = Loader(data, one_shape(data.ids, 4, 0), LoaderConfig(workers=workers, prefetch_bytes=200))
        stopping = hangs.is_set if ranks.rank in asked else lambda: False
        network = networks[ranks.rank]
        try:
            train(network, Regression(), mine, configuration(), scratch=tmp_path, stopping=stopping, ranks=ranks)
        finally:
            data.go.set()
            mine.close()
        raise AssertionError("it went on")

    began = time.monotonic()
    found = in_threads(2, work, seconds=60)
    assert [type(error) for error in found] == [Cancelled, Cancelled], found
    assert len({str(error) for error in found}) == 1
    assert re.search(r"step \d+ of 24 is kept", str(found[0]))
    assert time.monotonic() - began < 30, "it did not wait for the sample"
    whole, _ = run(tmp_path / "whole")
    parts, result = run(tmp_path, data=held()[1])
    assert 5 <= result.resumed_from < 12
    assert worst(whole.state_dict(), parts.state_dict()) < 1e-6, "shares of a batch are added up in another order"


def test_a_rank_whose_data_hang_for_good_ends_all(tmp_path):
    def work(ranks: Ranks) -> None:
        data = Held(loader().sources["samples"], 10**6 if ranks.leads else 20)
        mine = Loader(data, one_shape(data.ids, 4, 0), LoaderConfig(workers=1, prefetch_bytes=200))
        config = configuration(stall_seconds=1.5)
        try:
            train(Network(), Regression(), mine, config, scratch=tmp_path, ranks=ranks)
        finally:
            data.go.set()
            mine.close()

    found = in_threads(2, work, seconds=60)
    assert [type(error) for error in found] == [TryAgain, TryAgain], found
    assert all("rank 1 waits for a batch, and nothing was read for" in str(error) for error in found)


def test_waiting_and_skipped_samples_are_told(tmp_path):
    data, late = held(first=40, damaged=frozenset({3, 7}))

    def free() -> None:
        data.hangs.wait()
        time.sleep(0.5)
        data.go.set()

    threading.Thread(target=free, daemon=True).start()
    with late:
        _, result = run(tmp_path, data=late)
    assert 0.2 < result.waited_for_data < result.seconds
    assert sum(result.skipped.values()) == 2, "each once, however often drawn"
    assert set(result.skipped) == {"DataError"} or len(result.skipped) == 1
    points = read_curve(tmp_path / CLOCK)
    assert [point["step"] for point in points] == [5, 10, 15, 20, 24]
    assert points[-1]["waited"] >= 0.2
    assert points[-1]["skipped"] == sum(result.skipped.values())
    assert not {"waited", "skipped"} & set(read_curve(tmp_path / "metrics.jsonl")[-1]), (
        "these depend on nothing but the run"
    )


def test_too_many_damaged_samples_end_it(tmp_path):
    _, late = held(damaged=frozenset(range(6)), skipped_count=3)
    with late, pytest.raises(DataError, match=r"could not be read, at most 3 may be replaced"):
        run(tmp_path, data=late, config=configuration(steps=40))


def test_a_resume_knows_what_was_replaced_before_it(tmp_path):
    """Steps 0 to 10 meet two damaged samples; what goes on has no cap of its own, and tells of all."""
    damaged = frozenset({3, 7})
    first = held(damaged=damaged)[1]
    with first, pytest.raises(Cancelled, match=r"step \d+ of 24 is kept"):
        run(tmp_path, data=first, stop_at=20)
    assert len(first.replaced) == 2
    after = held(damaged=damaged)[1]
    with after:
        _, result = run(tmp_path, data=after, config=configuration())
    assert result.resumed_from > 5
    assert result.skipped == {"DataError": 2}, "each once, of the whole run"
    assert set(after.replaced) == set(first.replaced)
