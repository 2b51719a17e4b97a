"""Passes over samples: each once, in batches of one shape, and what cannot be read is told."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from wfm.data.passes import batches, chosen, read_rows, tensors_of
from wfm.errors import DataError, TryAgain


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
