"""Data sets of one clip a part, as write_shards leaves them: 10 frames of 16x16 with a caption and an action."""

import hashlib
import io
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from wfm.actions import ActionSpec
from wfm.artifacts import Artifact, Store
from wfm.data.shards import ShardWriter
from wfm.generation.write_video import write_mp4

SPEC = ActionSpec(names=("turn",), units=("deg/s",), frame="camera", rate_hz=24.0, mean=(0.0,), scale=(30.0,))


def members(
    number: int, caption: str, rate: float, shape: tuple[int, int, int] = (10, 16, 16), fps: float = 24.0
) -> dict[str, bytes]:
    """A clip of 10 frames of 16x16; its caption and its action do not touch its frames. Of one frame: a still image, which has
    no action."""
    frames = np.random.default_rng(number).integers(0, 256, (*shape, 3), dtype=np.uint8)
    facts = {"session_id": f"s{number}", "video_id": f"v{number}", "source": "a", "start_seconds": 0.0, "fps": fps}
    if len(frames) == 1:
        picture = io.BytesIO()
        Image.fromarray(frames[0]).save(picture, "png")
        image = {**facts, "fps": 0.0, "kind": "image", "num_frames": 1, "caption": caption}
        return {"png": picture.getvalue(), "json": json.dumps(image).encode()}
    with tempfile.TemporaryDirectory() as folder:  # other processes make the same clip at the same time
        path = Path(folder) / "clip.mp4"
        write_mp4(path, frames, fps)
        video = path.read_bytes()
    table = pa.table({"pts_seconds": np.arange(len(frames)) / fps, "action": [[rate]] * len(frames)})
    actions = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata({b"wfm": json.dumps({"action_spec": SPEC.resolved()}).encode()}), actions
    )
    return {
        "mp4": video,
        "json": json.dumps({**facts, "caption": caption}).encode(),
        "actions.parquet": actions.getvalue(),
    }


def dataset(
    store: Store,
    numbers: Iterable[int],
    captions: Mapping[int, str] = {},
    rates: Mapping[int, float] = {},
    splits: Sequence[str] = ("train", "train", "train", "val"),
    shapes: Mapping[int, tuple[tuple[int, int, int], float]] = {},
) -> Artifact:
    """One clip a part, as write_shards leaves them; `shapes`: frames, height, width and rate of some."""
    entries = []
    for number in numbers:
        caption, rate, split = (
            captions.get(number, "a ball rolls"),
            rates.get(number, 7.0),
            splits[number % len(splits)],
        )
        name = f"{number:04x}"
        shape, fps = shapes.get(number, ((10, 16, 16), 24.0))
        key = hashlib.sha256(f"{name} {caption} {rate} {shape} {fps}".encode()).hexdigest()
        if not store.has_part(key):
            with store.part_attempt(key) as attempt:
                sample = members(number, caption, rate, shape, fps)
                with ShardWriter(attempt.path / "shards" / split, name) as writer:
                    shard = writer.write(f"clip{number}", sample)
                row = {**json.loads(sample["json"]), "clip_id": f"clip{number}", "split": split}
                row |= {
                    "clip_sha256": hashlib.sha256(next(iter(sample.values()))).hexdigest(),
                    "shard": f"shards/{split}/{shard}",
                }
                pq.write_table(pa.Table.from_pylist([row]), attempt.path / "clips.parquet")
                attempt.commit(stage="write_shards", kind="part")
        entries.append(store.part(key).entry(name))
    key = hashlib.sha256("".join(entry.key for entry in entries).encode()).hexdigest()
    return store.attempt(key).commit(stage="write_shards", kind="dataset", parts=entries)
