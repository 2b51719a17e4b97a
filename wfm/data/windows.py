"""Windows of a data set's clips: a fixed number of frames. What lies beside them by frame is read apart (`clip_signals`).

A window never crosses a clip's border. Its source and place in the original recording travel with it, so that a
generated video can be traced back. Clips shorter than a window give none, and are counted by whoever asks (`short`).
"""

import hashlib
import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.data.clip_frames import Size, open_frames, row_of
from wfm.data.exclusions import read_exclusions
from wfm.data.signals import ClipSignals, Track
from wfm.data.signatures import image_member
from wfm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact
    from wfm.data.shards import Sample


@dataclass(frozen=True)
class Window:
    """`num_frames` consecutive frames of a clip."""

    clip_id: str
    session_id: str
    video_id: str
    source: str
    start_frame: int
    "First frame, counted within the clip."
    start_seconds: float
    "Time of the first frame in the source video [s]."
    fps: float
    frames: np.ndarray
    "uint8 [T, H, W, 3]."
    caption: str = ""
    "The caption of the whole clip."
    kind: str = "video"
    "`image` for one that stands still: a single frame without a rate."

    @property
    def sample_id(self) -> str:
        """A name that no other window has."""
        return f"{self.clip_id}:{self.start_frame}"

    def row(self) -> dict[str, Any]:
        """What tables of windows say of one (`window_row`)."""
        return window_row(vars(self), self.start_frame, self.start_seconds)


def window_row(clip: Mapping[str, Any], start_frame: int, start_seconds: float) -> dict[str, Any]:
    """What tables of windows say of one: what it is and where it comes from."""
    return {
        "sample_id": f"{clip['clip_id']}:{start_frame}",
        "clip_id": clip["clip_id"],
        "session_id": str(clip["session_id"]),
        "video_id": str(clip["video_id"]),
        "source": str(clip["source"]),
        "start_frame": start_frame,
        "start_seconds": start_seconds,
        "fps": clip["fps"],
        "caption": clip["caption"],
    }


def hashed_place(sample_id: str) -> bytes:
    """Where a sample stands in an order that is as good as random, the same on every machine, and does not change for those
    that are there already when others come."""
    return hashlib.sha256(sample_id.encode()).digest()


@dataclass(frozen=True)
class DecodedClip:
    """One clip of a shard, decoded."""

    clip_id: str
    row: dict[str, Any]
    frames: np.ndarray


def windows(
    dataset: "Artifact", split: str, *, num_frames: int, stride_frames: int, size: tuple[int, int]
) -> Iterator[Window]:
    """Every window of a split, clip by clip in shard order; frames resized to `size` (height, width).

    Starts are 0, stride, 2 stride ... What the data set excludes is left out. Raises ConfigError for a split without shards.
    """
    exclude = read_exclusions(dataset).keys
    for path in split_shards(dataset, split):
        for clip in decoded_clips(path, size, exclude):
            yield from clip_windows(clip, num_frames=num_frames, stride_frames=stride_frames)


def split_shards(dataset: "Artifact", split: str) -> Sequence[Path]:
    """Local paths of a split's shards, fetched and verified, in name order, without those excluded whole."""
    left_out = read_exclusions(dataset)
    return [dataset.fetch(name) for name in require_split(dataset, split) if not left_out.leaves_out(name)]


def require_split(dataset: "Artifact", split: str) -> list[str]:
    """Paths of a split's shards in a data set, in name order. Raises ConfigError, naming the splits that there are, for one
    without."""
    names = sorted({e.path for e in dataset.files() if f"shards/{split}/" in f"/{e.path}" and e.path.endswith(".tar")})
    if not names:
        found = sorted({e.path.split("shards/")[1].split("/")[0] for e in dataset.files() if "shards/" in e.path})
        raise ConfigError(f"split: {split!r} has no shards in this data set; it has {', '.join(found) or 'none'}")
    return names


def decoded_clips(shard: Path, size: tuple[int, int], exclude: Collection[str] = ()) -> Iterator[DecodedClip]:
    """The clips of one shard with frames uint8 `[T, H, W, 3]`, without the keys of `exclude`."""
    from wfm.data.shards import iter_samples

    for sample in iter_samples(shard):
        if sample.key not in exclude:
            yield decode_sample(sample, size)


def decode_sample(sample: "Sample", size: Size, start: int = 0, stop: int | None = None) -> DecodedClip:
    """Decode one sample, or its frames `start` to `stop` (`wfm.data.clip_frames`); a still image is one frame. Raises DataError
    when a member is missing."""
    row = row_of(sample)
    with open_frames(sample, size, start, stop) as frames:
        found = list(frames)
    empty = (1, 1) if callable(size) else size
    return DecodedClip(sample.key, row, np.stack(found) if found else np.zeros((0, *empty, 3), np.uint8))


def clip_signals(sample: "Sample") -> ClipSignals:
    """A sample's row and the tracks of its sidecars, no frame decoded: of each member `<name>.parquet` the column whose
    meaning, `<column>_spec`, stands in the table's metadata. Raises DataError for a sidecar without one."""
    import pyarrow.parquet as pq

    row = {**json.loads(sample.members["json"]), "clip_id": sample.key}
    tracks: dict[str, Track] = {}
    for member in sorted(name for name in sample.members if name.endswith(".parquet")):
        table = pq.read_table(io.BytesIO(sample.members[member]))
        note = json.loads((table.schema.metadata or {}).get(b"wfm", b"{}"))
        column = next((name for name in table.column_names if f"{name}_spec" in note), None)
        if column is None:
            raise DataError(
                f"sample {sample.key}: its {member} does not say what it means (no spec in the table's metadata)"
            )
        values = np.array(table.column(column).to_pylist(), np.float32)
        tracks[member.removesuffix(".parquet")] = Track(values, note[f"{column}_spec"])
    shown = sample.members[image_member(sample.members) or "mp4"]
    row.setdefault("num_frames", len(next(iter(tracks.values())).values) if tracks else _count_frames(sample))
    row.setdefault("caption", "")
    row.setdefault("clip_sha256", hashlib.sha256(shown).hexdigest())
    return ClipSignals(row, tracks)


def _count_frames(sample: "Sample") -> int:
    return len(decode_sample(sample, (8, 8)).frames)


def clip_windows(clip: DecodedClip, *, num_frames: int, stride_frames: int, first: int = 0) -> Iterator[Window]:
    """The windows of one decoded clip from frame `first` on; a still image, which has no rate, has one of one frame."""
    for start in range(first, len(clip.frames) - num_frames + 1, stride_frames):
        frames = clip.frames[start : start + num_frames].copy()  # a view would keep the whole clip alive
        yield window_at(clip.clip_id, clip.row, start, frames)


def window_at(clip_id: str, row: Mapping[str, Any], start: int, frames: np.ndarray) -> Window:
    """The window of a clip that begins at frame `start`."""
    fps = float(row["fps"])
    return Window(
        clip_id=clip_id,
        session_id=str(row["session_id"]),
        video_id=str(row["video_id"]),
        source=str(row["source"]),
        start_frame=start,
        start_seconds=float(row["start_seconds"]) + (start / fps if start else 0.0),
        fps=fps,
        frames=frames,
        caption=str(row.get("caption", "")),
        kind=str(row.get("kind", "video")),
    )
