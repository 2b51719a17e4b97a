"""The order of samples as it was before `wfm.data.order`: what `order.py` measures the speed of against. Not to be mended."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from wfm.data.seeds import mix
from wfm.errors import ConfigError

VERSION = 1
"""Version of the order: a change of the algorithm must change it, so that an old state is refused."""


def permute(position: int, size: int, key: int) -> int:
    """The value at `position` of a pseudo-random permutation of range(size) given by `key`.

    A four-round Feistel network over the smallest even number of bits that holds `size`; values beyond it walk on
    until they fall inside (cycle walking), which keeps it a permutation.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    value = position
    while True:
        left, right = value >> half, value & mask
        for round_ in range(4):
            left, right = right, left ^ (_scramble(right + (round_ << 32), key) & mask)
        value = (left << half) | right
        if value < size:
            return value


def epoch_rows(sample_ids: Sequence[str], weights: Sequence[float], epoch: int, seed: int) -> np.ndarray:
    """int64: rows of ``sample_ids``, each as often as its weight lets it stand in the epoch, in their order."""
    whole = np.floor(weights).astype(np.int64)
    left = np.asarray(weights) - whole
    chances = np.array([mix(seed, "mixture", sample_id, epoch) for sample_id in sample_ids]) / 2**63
    return np.repeat(np.arange(len(sample_ids)), whole + (chances < left))


def _scramble(value: int, key: int) -> int:
    """splitmix64's finaliser of value + key."""
    value = (value * 0x9E3779B97F4A7C15 + key) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)


@dataclass(frozen=True)
class StreamState:
    """Where one stream stands: the next sample is position `cursor` of epoch `epoch`."""

    epoch: int = 0
    cursor: int = 0


PlanState = tuple[StreamState, ...]


@dataclass(frozen=True)
class PlannedBatch:
    """Samples of one global batch, by index, with the epoch each is in and the seed of its randomness."""

    indices: np.ndarray
    epochs: np.ndarray
    seeds: np.ndarray

    def of_rank(self, rank: int, world: int) -> "PlannedBatch":
        """The share of one data-parallel rank: every world-th sample from `rank` on. Shares differ by one sample where the
        ranks do not divide the batch, and some are empty where there are more ranks than samples."""
        return PlannedBatch(self.indices[rank::world], self.epochs[rank::world], self.seeds[rank::world])


@dataclass(frozen=True)
class DataPlan:
    """The order of samples. `sample_ids` name them; the seed of a sample depends on its id, never on its place in
    the list."""

    sample_ids: Sequence[str]
    batch_size: int
    seed: int
    streams: int = 1
    weights: tuple[float, ...] | None = None
    "How often each sample is drawn, relative to the mean of 1; None: all alike, each once an epoch."
    _epochs: dict[int, list[np.ndarray]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.streams:
            raise ConfigError(
                f"batch_size: {self.batch_size} must be a positive multiple of the {self.streams} streams"
            )
        if len(self.sample_ids) < self.streams:
            raise ConfigError(
                f"{len(self.sample_ids)} samples cannot fill {self.streams} streams: there is too little data"
            )
        if self.weights is None:
            return
        if len(self.weights) != len(self.sample_ids):
            raise ConfigError(f"{len(self.weights)} weights for {len(self.sample_ids)} samples")
        if min(sum(self.weights[stream :: self.streams]) for stream in range(self.streams)) < 1 - 1e-9:
            raise ConfigError(
                f"the weights leave one of {self.streams} streams less than one sample an epoch: there is too little data"
            )

    def start(self) -> PlanState:
        """The state before the first batch."""
        return (StreamState(),) * self.streams

    def next(self, state: PlanState) -> tuple[PlannedBatch, PlanState]:
        """The next global batch and the state after it. Item i of the batch comes from stream i % streams."""
        stands = list(state)
        indices, epochs, seeds = [], [], []
        for item in range(self.batch_size):
            stream = item % self.streams
            now = stands[stream]
            while not len(rows := self._rows(stream, now.epoch)):  # by the luck of small weights
                now = StreamState(now.epoch + 1, 0)
            place = permute(now.cursor, len(rows), mix(self.seed, "order", VERSION, stream, now.epoch))
            index = int(rows[place])
            indices.append(index)
            epochs.append(now.epoch)
            again = place - int(np.searchsorted(rows, index)) if self.weights is not None else 0
            seeds.append(mix(self.seed, "sample", self.sample_ids[index], now.epoch, *([again] if again else [])))
            at_end = now.cursor + 1 == len(rows)
            stands[stream] = StreamState(now.epoch + 1, 0) if at_end else StreamState(now.epoch, now.cursor + 1)
        return PlannedBatch(np.array(indices), np.array(epochs), np.array(seeds, dtype=np.int64)), tuple(stands)

    def _rows(self, stream: int, epoch: int) -> Sequence[int] | np.ndarray:
        """The samples of a stream in an epoch, ascending, one that stands several times so often."""
        if self.weights is None:
            return range(stream, len(self.sample_ids), self.streams)
        if epoch not in self._epochs:
            for old in [known for known in self._epochs if known < epoch - 1]:
                del self._epochs[old]
            rows = epoch_rows(self.sample_ids, self.weights, epoch, self.seed)
            self._epochs[epoch] = [rows[rows % self.streams == own] for own in range(self.streams)]
        return self._epochs[epoch][stream]
