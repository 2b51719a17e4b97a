"""A wish to stop that reaches one rank alone while it passes over the samples, before the first step: all end as asked."""

import threading
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.wfm.parallel.threads import in_threads
from tests.wfm.training.test_fit import SMALL, samples
from wfm.data.passes import read_rows
from wfm.errors import Cancelled
from wfm.families.diffusion.card import DiffusionTrainingConfig
from wfm.parallel.ranks import RankLost, Ranks
from wfm.training.fit import fit
from wfm.training.task import Learner, Task


class _Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))


def passing(asked: threading.Event, rank: int) -> Task:
    """What is to be trained on; before that all of it is read once. Rank 1 is asked to stop in the midst of that."""
    held = samples()

    def begin() -> Learner:
        for row, _ in read_rows(held, range(len(held.ids))):
            if rank == 1 and row == 2:
                asked.set()
        return Learner(_Linear(), objective=None, card=None)

    return Task({"latents": held}, begin, {})


def ended(tmp_path: Path) -> list[object]:
    asked = threading.Event()

    def one(ranks: Ranks) -> None:
        config = DiffusionTrainingConfig.parse({**SMALL, "training": {"steps": 4, "batch_size": 2}})
        scratch = tmp_path / str(ranks.rank)
        fit(
            passing(asked, ranks.rank), config, out=scratch, scratch=scratch, ranks=ranks,
            stopping=asked.is_set if ranks.rank == 1 else lambda: False,
        )  # fmt: skip

    return in_threads(3, one, seconds=5.0)


def test_all_ranks_end_as_asked_where_one_was_asked_in_a_pass(tmp_path) -> None:
    first, second, third = ended(tmp_path)
    assert isinstance(second, Cancelled)
    assert "asked to stop during a pass" in str(second)
    for other in (first, third):
        assert isinstance(other, Cancelled), other
        assert "rank 1 of 3: Cancelled: asked to stop during a pass" in str(other)


def test_without_a_word_the_others_lose_it(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin of before: the rank that was asked leaves, and says nothing."""
    own, entered = Ranks.telling, []

    def silent(self: Ranks):
        entered.append(self.rank)
        return own(self) if entered.count(self.rank) > 1 else nullcontext()

    monkeypatch.setattr(Ranks, "telling", silent)
    first, second, third = ended(tmp_path)
    assert isinstance(second, Cancelled)
    assert isinstance(first, RankLost)
    assert isinstance(third, RankLost)
