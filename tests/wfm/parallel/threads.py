"""Ranks that are threads of one process: the same calls as of processes, more of them than this machine has processors."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from wfm.parallel.ranks import RankLost, Ranks, Row

T = TypeVar("T")


class _Meeting:
    """Where threads wait for each other and see what each has brought."""

    def __init__(self, size: int, seconds: float) -> None:
        self.barrier = threading.Barrier(size, timeout=seconds)
        self.brought: list[Any] = [None] * size


class ThreadRanks(Ranks):
    """One thread of `size`."""

    def __init__(self, rank: int, meeting: _Meeting) -> None:
        super().__init__(rank, len(meeting.brought))
        self.meeting = meeting

    def _meet(self, mine: T, label: str) -> list[T]:
        try:
            self.meeting.brought[self.rank] = mine
            self.meeting.barrier.wait()
            found = list(self.meeting.brought)
            self.meeting.barrier.wait()
        except threading.BrokenBarrierError as error:
            self._over = True
            raise RankLost(f"rank {self.rank} of {self.size}, at {label!r}: another thread is gone") from error
        return found

    def _rows(self, row: Row, label: str) -> list[Row]:
        rows = self._meet(list(row), label)
        assert len({len(one) for one in rows}) == 1, f"rows of different lengths at {label!r}"
        return rows

    def _sum(self, tensor: Tensor, label: str) -> None:
        tensor.copy_(torch.stack(self._meet(tensor.clone(), label)).sum(0))

    def _from_first(self, tensor: Tensor, label: str) -> None:
        tensor.data.copy_(self._meet(tensor.detach().clone(), label)[0])


def in_threads(size: int, work: Callable[[Ranks], T], seconds: float = 20.0) -> list[T | Exception]:
    """What `work` gives, or raises, on each of `size` ranks."""
    meeting = _Meeting(size, seconds)

    def one(rank: int) -> T | Exception:
        try:
            return work(ThreadRanks(rank, meeting))
        except Exception as error:
            return error

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(one, range(size)))
