"""Data order as a pure function: which samples make up global batch k, for ever the same.

The order is never the state of some library's generator. V virtual streams share the samples (stream v owns those
with index % V == v) and each has its own counter-based shuffle for every epoch: position p of epoch e is a keyed
permutation of p, computed directly. The state is one small record a stream, so a resumed run continues with the very
next batch, and any number of ranks or loader workers sees the same global batches.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wfm.errors import ConfigError

VERSION = 1
"""Version of the order: a change of the algorithm must change it, so that an old state is refused."""


def mix(*parts: int | str) -> int:
    """A 63-bit hash of integers and strings: what seeds the noise, crop or dropout of (seed, sample, epoch)."""
    text = "\x1f".join(f"{type(part).__name__[0]}{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


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
        """The share of one data-parallel rank: every world-th sample from `rank` on."""
        if len(self.indices) % world:
            raise ConfigError(f"a batch of {len(self.indices)} cannot be shared by {world} ranks; use a multiple")
        return PlannedBatch(self.indices[rank::world], self.epochs[rank::world], self.seeds[rank::world])


@dataclass(frozen=True)
class DataPlan:
    """The order of samples. `sample_ids` name them; the seed of a sample depends on its id, never on its place in
    the list."""

    sample_ids: Sequence[str]
    batch_size: int
    seed: int
    streams: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.streams:
            raise ConfigError(
                f"batch_size: {self.batch_size} must be a positive multiple of the {self.streams} streams"
            )
        if len(self.sample_ids) < self.streams:
            raise ConfigError(
                f"{len(self.sample_ids)} samples cannot fill {self.streams} streams: there is too little data"
            )

    def start(self) -> PlanState:
        """The state before the first batch."""
        return (StreamState(),) * self.streams

    def next(self, state: PlanState) -> tuple[PlannedBatch, PlanState]:
        """The next global batch and the state after it. Item i of the batch comes from stream i % streams."""
        stands = list(state)
        indices, epochs = [], []
        for item in range(self.batch_size):
            stream = item % self.streams
            now = stands[stream]
            size = len(range(stream, len(self.sample_ids), self.streams))
            place = permute(now.cursor, size, mix(self.seed, "order", VERSION, stream, now.epoch))
            indices.append(stream + place * self.streams)
            epochs.append(now.epoch)
            at_end = now.cursor + 1 == size
            stands[stream] = StreamState(now.epoch + 1, 0) if at_end else StreamState(now.epoch, now.cursor + 1)
        seeds = [
            mix(self.seed, "sample", self.sample_ids[index], epoch)
            for index, epoch in zip(indices, epochs, strict=True)
        ]
        return PlannedBatch(np.array(indices), np.array(epochs), np.array(seeds, dtype=np.int64)), tuple(stands)

    def save(self, state: PlanState) -> dict[str, object]:
        """The state as JSON values."""
        return {
            "version": VERSION,
            "num_samples": len(self.sample_ids),
            "seed": self.seed,
            "streams": [[stream.epoch, stream.cursor] for stream in state],
        }

    def restore(self, values: dict[str, object]) -> PlanState:
        """The inverse of `save`. Raises ConfigError for a state of another order, corpus or seed."""
        mine = {"version": VERSION, "num_samples": len(self.sample_ids), "seed": self.seed}
        for name, value in mine.items():
            if values.get(name) != value:
                raise ConfigError(f"data order: the saved state has {name} {values.get(name)!r}, this run {value!r}")
        streams = values["streams"]
        if not isinstance(streams, list) or len(streams) != self.streams:
            raise ConfigError(f"data order: the saved state is not of {self.streams} streams: {streams!r}")
        return tuple(StreamState(int(epoch), int(cursor)) for epoch, cursor in streams)
