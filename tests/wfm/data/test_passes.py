"""Passes over samples: each once, in batches of one shape, and what cannot be read is told."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from wfm.data.passes import _awaited, batches, chosen, read_rows, stoppable, stops_passes, tensors_of
from wfm.errors import Cancelled, DataError, TryAgain


@dataclass
class Clips:
    """Samples of two shapes, some of them damaged."""

    count: int
    damaged: frozenset[int] = frozenset()
    error: type[Exception] = DataError

    identity = "clips"

    @property
    def ids(self) -> list[str]:
        return [f"s{row}" for row in range(self.count)]

    @property
    def shapes(self) -> np.ndarray:
        return np.array([[1 + 2 * (row % 2), 2, 2] for row in range(self.count)])

    @property
    def sizes(self) -> np.ndarray:
        return self.shapes.prod(1) * 4

    def read(self, row: int) -> dict[str, torch.Tensor]:
        if row in self.damaged:
            raise self.error(f"row {row} is torn")
        length = row % 3 + 1
        latents = torch.full(tuple(self.shapes[row]), row)
        return {"latents": latents, "text": torch.ones(length, 4), "text_lengths": torch.tensor(length)}


def test_every_sample_stands_in_one_batch_of_its_shape():
    found = list(batches(Clips(101), size=10))
    rows = [row for mine, _ in found for row in mine]
    assert sorted(rows) == list(range(101))
    assert max(len(mine) for mine, _ in found) == 10
    for mine, batch in found:
        assert batch["latents"].flatten(1)[:, 0].tolist() == mine == sorted(mine)
        assert batch["text"].sum((1, 2)).tolist() == [4 * (row % 3 + 1) for row in mine], "padded with zeros"
    assert [list(batch) for _, batch in batches(Clips(3), ("latents",))] == [["latents"]] * 2
    assert [mine for mine, _ in batches(Clips(9), rows=[7, 5, 8])] == [[8], [7, 5]]


def test_damaged_samples_are_left_out_and_too_many_end_the_pass(caplog):
    assert [row for row, _ in read_rows(Clips(5, frozenset({1})), range(5))] == [0, 2, 3, 4]
    assert "1 of 5 samples cannot be read, such as s1 (row 1 is torn)" in caplog.text
    with pytest.raises(DataError, match="3 of 200 samples cannot be read, such as s4"):
        list(read_rows(Clips(200, frozenset({4, 9, 77})), range(200)))
    with pytest.raises(TryAgain):
        list(read_rows(Clips(5, frozenset({1}), TryAgain), range(5)))
    assert tensors_of(Clips(3, frozenset({0}))) == {"latents", "text", "text_lengths"}
    with pytest.raises(DataError, match="none of 1 samples can be read"):
        tensors_of(Clips(1, frozenset({0})))


def test_the_chosen_do_not_depend_on_order_or_on_how_many_there_are():
    names = [Clips(40).ids[row] for row in chosen(Clips(40), 5)]
    assert len(chosen(Clips(40), 0)) == 40
    assert names == [f"s{row}" for row in chosen(Clips(90), 0) if row < 40][:5]


class Hanging(Clips):
    """The read of row 40 hangs until `go`."""

    go = threading.Event()

    def read(self, row: int) -> dict[str, torch.Tensor]:
        if row == 40:
            self.go.wait(30)
        return super().read(row)


def note(seen: list[int], samples: Clips) -> None:
    for row, _ in read_rows(samples, range(len(samples.ids))):
        seen.append(row)


def test_a_pass_is_stopped_while_it_waits_for_a_read_that_hangs():
    asked = threading.Event()
    threading.Timer(0.3, asked.set).start()
    seen = []
    began = time.monotonic()
    with stoppable(asked.is_set), pytest.raises(Cancelled, match="asked to stop during a pass"):
        note(seen, Hanging(100))
    assert time.monotonic() - began < 10
    assert 40 not in seen
    Hanging.go.set()
    assert [row for row, _ in read_rows(Hanging(100), range(100))] == list(range(100)), "outside of it nothing is asked"


def test_a_pass_that_gets_on_is_stopped_too_and_its_threads_end():
    calls = iter(range(10**6))
    seen = []
    with stoppable(lambda: next(calls) >= 7), pytest.raises(Cancelled):
        note(seen, Clips(1000))
    assert seen == list(range(7))
    for thread in threading.enumerate():
        if thread.name.startswith("pass-"):
            thread.join(5)
            assert not thread.is_alive()


def test_a_function_with_such_an_argument_stops_its_passes():
    @stops_passes
    def fit(samples: Clips, *, stopping: Callable[[], bool] = lambda: False) -> int:
        return sum(1 for _ in read_rows(samples, range(len(samples.ids))))

    assert fit(Clips(9)) == 9
    with pytest.raises(Cancelled):
        fit(Clips(9), stopping=lambda: True)
    assert fit(Clips(9)) == 9, "it is over with the call"


def test_what_a_read_raises_of_time_is_no_wait_for_it():
    with stoppable(lambda: False), pytest.raises(TimeoutError):
        list(read_rows(Clips(3, frozenset({1}), error=TimeoutError), range(3)))


def test_a_read_that_ends_as_its_wait_does_is_no_error():
    class JustNow(Future):
        def result(self, timeout=None):
            if timeout is None:
                return super().result()
            self.set_result({"row": 1})
            raise TimeoutError

    assert _awaited(JustNow()) == {"row": 1}
