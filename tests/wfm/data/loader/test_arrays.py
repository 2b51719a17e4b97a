"""Samples in memory: what they say of themselves, and refusals."""

import numpy as np
import pytest
import torch

from wfm.data.captions import CaptionTable
from wfm.data.loader import ArrayDataset
from wfm.errors import DataError


def dataset(count: int = 10) -> ArrayDataset:
    return ArrayDataset(tuple(f"s{i}" for i in range(count)), {"value": torch.arange(count)})


def test_wrong_datasets_are_refused():
    with pytest.raises(DataError, match="3 rows for 2"):
        ArrayDataset(("a", "b"), {"x": torch.zeros(3)})
    with pytest.raises(DataError, match="unique"):
        ArrayDataset(("a", "a"), {"x": torch.zeros(2)})


@pytest.mark.parametrize(
    ("name", "shape", "wanted"),
    [("latents", (2, 8, 3, 4, 5), (3, 4, 5)), ("tokens", (2, 3, 4, 5), (3, 4, 5)), ("frames", (2, 7, 4, 5, 3), (7, 4, 5)),
     ("x", (2, 9), (1, 1, 1))],
)  # fmt: skip
def test_shapes_are_those_that_the_model_sees(name, shape, wanted):
    data = ArrayDataset(("a", "b"), {"other": torch.zeros(2, 6), name: torch.zeros(shape)})
    assert data.shapes.tolist() == [list(wanted)] * 2
    assert data.shapes.dtype == np.int64


def test_sizes_are_bytes_of_a_row_and_its_text():
    text = CaptionTable(torch.zeros(4, 5), torch.tensor([1, 3]), torch.tensor([1, 0, 1]))
    data = ArrayDataset(("a", "b", "c"), {"x": torch.zeros(3, 4), "fps": torch.zeros(3)}, text)
    assert data.sizes.tolist() == [sum(t.nbytes for t in data.read(row).values()) for row in range(3)] == [88, 48, 88]


def test_identity_is_of_ids_and_of_every_value():
    def of(ids=("a", "b"), x=0.0, text=0.0, name="x") -> str:
        table = CaptionTable(torch.full((2, 3), text), torch.tensor([1, 1]), torch.tensor([0, 1]))
        return ArrayDataset(ids, {name: torch.tensor([[0.0, 1.0], [x, 1.0]])}, table).identity

    assert of() == of()
    assert len({of(), of(ids=("a", "c")), of(x=1e-30), of(text=1.0), of(name="y")}) == 5


def test_rows_keep_order():
    assert dataset().rows(np.array([3, 1]))["value"].tolist() == [3, 1]
