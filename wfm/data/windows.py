"""Windows of a data set's clips: a fixed number of frames with the actions that act between them.

A window never crosses a clip's border. Its source and place in the original recording travel with it, so that a
generated video can be traced back. Clips shorter than a window give none, and are counted by whoever asks (`short`).
"""

import hashlib
import io
import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wfm.actions import ActionSpec
from wfm.data.exclusions import read_exclusions
from wfm.data.signals import ClipSignals, Track
from wfm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from wfm.artifacts import Artifact
    from wfm.data.shards import Sample


NO_ACTIONS = ActionSpec.null()
ORBIT = "camera_orbit_rate"


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
    actions: np.ndarray
    "float32 [T, A] in raw units; width 0 without actions."
    moving: bool
    "Whether any camera action in the window is not zero; without actions, whether any action is known to act."
    action_spec: ActionSpec = NO_ACTIONS
    "What the actions mean."
    caption: str = ""
    "The caption of the whole clip."

    @property
    def sample_id(self) -> str:
        """A name that no other window has."""
        return f"{self.clip_id}:{self.start_frame}"

    def row(self) -> dict[str, Any]:
        """What tables of windows say of one (`window_row`)."""
        return window_row(vars(self), self.start_frame, self.start_seconds, self.actions, self.action_spec)


def window_row(
    clip: Mapping[str, Any], start_frame: int, start_seconds: float, actions: np.ndarray, spec: ActionSpec
) -> dict[str, Any]:
    """What tables of windows say of one: what it is and where it comes from. `actions` `[T, A]` are those of the window."""
    return {
        "sample_id": f"{clip['clip_id']}:{start_frame}",
        "clip_id": clip["clip_id"],
        "session_id": str(clip["session_id"]),
        "video_id": str(clip["video_id"]),
        "source": str(clip["source"]),
        "start_frame": start_frame,
        "start_seconds": start_seconds,
        "fps": clip["fps"],
        "moving": is_moving(actions[:-1], spec),
        "orbit_rate": constant_rate(actions, spec, ORBIT),
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
    actions: np.ndarray
    action_spec: ActionSpec


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
    names = sorted({e.path for e in dataset.files() if f"shards/{split}/" in f"/{e.path}" and e.path.endswith(".tar")})
    if not names:
        found = sorted({e.path.split("shards/")[1].split("/")[0] for e in dataset.files() if "shards/" in e.path})
        raise ConfigError(f"split: {split!r} has no shards in this data set; it has {', '.join(found) or 'none'}")
    return [dataset.fetch(name) for name in names if not left_out.leaves_out(name)]


def decoded_clips(shard: Path, size: tuple[int, int], exclude: Collection[str] = ()) -> Iterator[DecodedClip]:
    """The clips of one shard with frames uint8 `[T, H, W, 3]` and actions float32 `[T, A]`, without the keys of `exclude`."""
    from wfm.data.shards import iter_samples

    for sample in iter_samples(shard):
        if sample.key not in exclude:
            yield decode_sample(sample, size)


def decode_sample(sample: "Sample", size: tuple[int, int]) -> DecodedClip:
    """Decode one sample. Raises DataError when a member is missing or actions and frames do not match."""
    from wfm.data.decode import read_frames

    for part in ("mp4", "json"):
        if part not in sample.members:
            raise DataError(f"sample {sample.key}: no member {part!r}; it has {', '.join(sorted(sample.members))}")
    row = json.loads(sample.members["json"])
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(sample.members["mp4"])
        file.flush()
        frames, _ = read_frames(file.name, size=size)
    actions, spec = read_actions(sample.members.get("actions.parquet"), len(frames), sample.key)
    return DecodedClip(sample.key, row, frames, actions, spec)


def read_actions(table: bytes | None, num_frames: int, name: str) -> tuple[np.ndarray, ActionSpec]:
    """Actions `[T, A]` of a clip and what they mean; width 0 and the null spec without a table."""
    if table is None:
        return np.zeros((num_frames, 0), np.float32), ActionSpec.null()
    import pyarrow.parquet as pq

    rows = pq.read_table(io.BytesIO(table))
    note = json.loads((rows.schema.metadata or {}).get(b"wfm", b"{}"))
    if "action_spec" not in note:
        raise DataError(
            f"sample {name}: its actions do not say what they mean (no action_spec in the table's metadata)"
        )
    spec = ActionSpec.parse(note["action_spec"])
    actions = np.array(rows.column("action").to_pylist(), np.float32).reshape(len(rows), spec.width)
    if len(actions) != num_frames:
        raise DataError(
            f"sample {name}: {num_frames} frames but {len(actions)} actions; cut the clip and its actions alike"
        )
    return actions, spec


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
    row.setdefault("num_frames", len(next(iter(tracks.values())).values) if tracks else _count_frames(sample))
    row.setdefault("caption", "")
    row.setdefault("clip_sha256", hashlib.sha256(sample.members["mp4"]).hexdigest())
    return ClipSignals(row, tracks)


def _count_frames(sample: "Sample") -> int:
    return len(decode_sample(sample, (8, 8)).frames)


def clip_windows(clip: DecodedClip, *, num_frames: int, stride_frames: int) -> Iterator[Window]:
    """The windows of one decoded clip."""
    row, fps = clip.row, float(clip.row["fps"])
    for start in range(0, len(clip.frames) - num_frames + 1, stride_frames):
        actions = clip.actions[start : start + num_frames]
        yield Window(
            clip_id=clip.clip_id,
            session_id=str(row["session_id"]),
            video_id=str(row["video_id"]),
            source=str(row["source"]),
            start_frame=start,
            start_seconds=float(row["start_seconds"]) + start / fps,
            fps=fps,
            frames=clip.frames[start : start + num_frames],
            actions=actions,
            moving=is_moving(actions[:-1], clip.action_spec),
            action_spec=clip.action_spec,
            caption=str(row.get("caption", "")),
        )


def is_moving(actions: np.ndarray, spec: ActionSpec) -> bool:
    """Whether the camera moves by the actions `[T, A]`; without a camera action, whether anything does."""
    camera = [i for i, name in enumerate(spec.names) if name.startswith("camera")] or list(range(spec.width))
    return bool(np.any(np.abs(actions[:, camera]) > 1e-6))


def constant_rate(actions: np.ndarray, spec: ActionSpec, name: str) -> float | None:
    """The value of action `name` over a window when it never changes, else None; None for a spec without it."""
    if name not in spec.names or not len(actions):
        return None
    values = actions[:-1, spec.names.index(name)]
    return float(values[0]) if np.allclose(values, values[0], rtol=0, atol=1e-4) else None
