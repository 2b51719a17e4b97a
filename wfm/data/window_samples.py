"""Windows of a data set's clips as samples: which there are is known from tables alone, a clip is decoded when one is wanted.

found = list_windows(dataset, "train", num_frames=33, stride_frames=32, most=2000)
samples = WindowSamples(dataset, found, size=(64, 64), cache_bytes=2**30)
samples.read(7)    # {"frames": uint8 [T, H, W, 3]}

A data set in a bucket: a shard is fetched whole when the first of its windows is wanted, once a machine, and compared with the
sha256 of the manifest; every window is then a range of that copy. Nothing says the hash of a part of a shard, so a range that
came over the network could not be believed; and all windows of a shard are wanted sooner or later. Samples that a tokenizer
encoded have hashes of their own and are asked for by their ranges alone (`wfm.data.reading`).
"""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from wfm.data.exclusions import read_exclusions
from wfm.data.shards import Sample, iter_samples, read_sample
from wfm.data.windows import decode_sample, hashed_place, require_split
from wfm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact


@dataclass(frozen=True)
class WindowList:
    """Windows by place, in the order of the hash of their ids."""

    num_frames: int
    shards: tuple[str, ...]
    "Paths in the data set."
    shard: np.ndarray
    "int64 [N]: of these."
    clips: tuple[str, ...]
    "Of each window."
    starts: np.ndarray
    "int64 [N]: first frame, counted within the clip."
    left_out: int
    "How many more there were."

    def __len__(self) -> int:
        return len(self.clips)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """As `wfm.data.windows.Window.sample_id`."""
        return tuple(f"{clip}:{start}" for clip, start in zip(self.clips, self.starts.tolist(), strict=True))


def list_windows(dataset: "Artifact", split: str, *, num_frames: int, stride_frames: int, most: int = 0) -> WindowList:
    """At most `most` windows (0: all) of a split, chosen and ordered by the hash of their ids, so that all clips have a share;
    starts are 0, stride, 2 stride ... What the data set excludes is left out. Nothing is decoded where the data set's table of
    clips, or the rows of its samples, say how many frames a clip has.

    Raises ConfigError for a split without shards, and where no clip is long enough.
    """
    shards: list[str] = []
    kept: list[tuple[bytes, str, int, int]] = []  # hash, clip, start, shard
    left = 0
    for shard, clip, frames in _clips(dataset, split):
        if not shards or shards[-1] != shard:
            shards.append(shard)
        for start in range(0, frames - num_frames + 1, stride_frames):
            kept.append((hashed_place(f"{clip}:{start}"), clip, start, len(shards) - 1))
        if most and len(kept) >= 2 * most + 4096:  # memory stays bounded on any data set
            kept.sort()
            left += len(kept) - most
            del kept[most:]
    kept.sort()
    left += max(0, len(kept) - most) if most else 0
    chosen = kept[:most] if most else kept
    if not chosen:
        raise ConfigError(
            f"split {split!r}: the data set has no clip long enough for one window of {num_frames} frames: use fewer frames or "
            "longer clips"
        )
    numbers = np.array([(start, shard) for _, _, start, shard in chosen], np.int64)
    return WindowList(num_frames, tuple(shards), numbers[:, 1], tuple(row[1] for row in chosen), numbers[:, 0], left)


def _clips(dataset: "Artifact", split: str) -> Iterator[tuple[str, str, int]]:
    """(shard, clip, frames) of each clip of a split that is not excluded, shard by shard."""
    names = require_split(dataset, split)
    exclude = read_exclusions(dataset)
    wanted = {name[name.index("shards/") :]: name for name in names if not exclude.leaves_out(name)}
    told: set[str] = set()
    for _, table in dataset.iterate_table("clips"):
        if not {"clip_id", "num_frames", "shard"} <= set(table.column_names):
            continue  # of another maker: the samples' own rows say it
        columns = (table.column(name).to_pylist() for name in ("shard", "clip_id", "num_frames"))
        rows = sorted(row for row in zip(*columns, strict=True) if row[0])
        for shard, clip, frames in rows:
            told.add(shard)
            if shard in wanted and clip not in exclude.keys:
                yield wanted[shard], clip, frames
    for shard, name in wanted.items():
        if shard not in told:
            for sample in iter_samples(dataset.fetch(name)):
                if sample.key not in exclude.keys:
                    yield name, sample.key, _frames_of(sample)


def _frames_of(sample: Sample) -> int:
    row = json.loads(sample.members.get("json", b"{}"))
    stated = row.get("num_frames")
    return stated if isinstance(stated, int) else len(decode_sample(sample, (8, 8)).frames)


class WindowSamples:
    """Samples (`wfm.data.samples`) of listed windows, frames resized to `size` (height, width).

    Reading one keeps all listed windows of its clip until they fill `cache_bytes`; what is there stays, so a set of fewer bytes
    is decoded once, and of a larger one that share of each epoch is read from memory. Of a clip only those frames are decoded
    that the window and what is kept with it need (`wfm.data.clip_frames`).
    """

    def __init__(self, dataset: "Artifact", found: WindowList, *, size: tuple[int, int], cache_bytes: int = 0) -> None:
        self._dataset, self._found, self._size = dataset, found, size
        self._bytes = found.num_frames * size[0] * size[1] * 3
        self._room = cache_bytes // self._bytes
        self._kept: dict[int, Tensor] = {}
        self._lock = threading.Lock()
        self._of_clip: dict[str, list[int]] = {}
        for row, clip in enumerate(found.clips):
            self._of_clip.setdefault(clip, []).append(row)

    @property
    def ids(self) -> tuple[str, ...]:
        """Of the windows."""
        return self._found.ids

    @property
    def left_out(self) -> int:
        """Windows of the split that are not among them."""
        return self._found.left_out

    def __len__(self) -> int:
        return len(self._found)

    @cached_property
    def shapes(self) -> np.ndarray:
        """int64 [N, 3]: frames, height, width."""
        return np.tile(np.array([self._found.num_frames, *self._size], np.int64), (len(self), 1))

    @cached_property
    def sizes(self) -> np.ndarray:
        """int64 [N]: bytes of a window's frames."""
        return np.full(len(self), self._bytes, np.int64)

    @cached_property
    def identity(self) -> str:
        """sha256 of the data set, the windows and their size."""
        facts = f"{self._dataset.manifest.digest}\x1f{self._size}\x1f{self._found.num_frames}\x1f"
        return sha256((facts + "\n".join(self.ids)).encode()).hexdigest()

    def read(self, row: int) -> dict[str, Tensor]:
        """`frames` uint8 `[T, H, W, 3]`. Raises DataError for a clip that cannot be decoded, or has fewer frames than the table
        says."""
        frames = self._kept.get(row)
        return {"frames": self._decoded(row) if frames is None else frames}

    def _decoded(self, row: int) -> Tensor:
        found, clip = self._found, self._found.clips[row]
        sample = read_sample(self._dataset.fetch(found.shards[found.shard[row]]), clip)
        rows = self._worth(row)
        first = min(int(found.starts[each]) for each in rows)
        last = max(int(found.starts[each]) for each in rows) + found.num_frames
        frames = decode_sample(sample, self._size, first, last).frames
        if len(frames) != last - first:
            there = len(decode_sample(sample, (8, 8)).frames)
            raise DataError(f"clip {clip} has {there} frames; the data set says that it has {last} or more")
        own = {}
        for each in rows:
            begin = int(found.starts[each]) - first
            # a view would keep all that was decoded as long as it lives
            own[each] = torch.from_numpy(frames[begin : begin + found.num_frames].copy())
            self._keep(each, own[each])
        return own[row]

    def _worth(self, row: int) -> list[int]:
        """The window and those of the same clip that there is room for: what is decoded together."""
        room = self._room - len(self._kept)
        others = [each for each in self._of_clip[self._found.clips[row]] if each != row and each not in self._kept]
        return [row, *others[: max(0, room - 1)]]

    def _has_room(self, row: int) -> bool:
        return row not in self._kept and len(self._kept) < self._room

    def _keep(self, row: int, frames: Tensor) -> None:
        with self._lock:
            if self._has_room(row):
                self._kept[row] = frames
