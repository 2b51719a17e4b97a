"""Rows of the table of lengths and records of made-up latents, for tests."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from wfm.artifacts import Artifact, Store
from wfm.data.energon import write_energon
from wfm.data.records import RecordWriter


def record_row(clip: str, start: int = 0, *, kind: str = "video", fps: float = 24.0) -> dict[str, Any]:
    """What the encoder knows of a sample."""
    return {
        "sample_id": f"{clip}:{start}", "clip_id": clip, "session_id": "s", "video_id": "v", "source": "x.mp4",
        "start_frame": start, "start_seconds": 0.5, "fps": fps, "num_frames": 9, "mirrored": False, "kind": kind,
    }  # fmt: skip


def latents(number: int, shape: tuple[int, int, int]) -> np.ndarray:
    """fp32 `[3, t, h, w]`."""
    return np.random.default_rng(number).standard_normal((3, *shape)).astype(np.float32)


SHAPES = [(1, 4, 6), (3, 2, 2), (5, 2, 4), (1, 2, 2)]


def write_records(out: Path, part: str, numbers: range, *, maximum_shard_bytes: int = 6000) -> None:
    """A part of samples of four shapes, images among them, every fourth of split `val`."""
    with RecordWriter(out, part, maximum_shard_bytes=maximum_shard_bytes) as records:
        for number in numbers:
            shape = SHAPES[number % 4]
            kind, fps = ("image", 0.0) if shape[0] == 1 else ("video", 24.0 + number)
            row = record_row(f"clip{number:02d}", kind=kind, fps=fps)
            records.write("val" if number % 4 == 3 else "train", row, {"latents": latents(number, shape)})


TRAIN = [number for number in range(11) if number % 4 != 3]
"""Those of split `train` of what `committed` makes."""


def committed(store: Store) -> Artifact:
    """Eleven samples in two parts, as encode_latents leaves them."""
    entries = []
    for part, which in (("0a", range(6)), ("f3", range(6, 11))):
        key = hashlib.sha256(part.encode()).hexdigest()
        with store.part_attempt(key) as attempt:
            write_records(attempt.path, part, which)
            attempt.commit(stage="encode_latents", kind="part")
        entries.append(store.part(key).entry(part))
    whole = store.attempt("a" * 64)
    write_energon((store.part(entry.key).table("members") for entry in entries), ("train", "val"), Path(whole.path))
    return whole.commit(stage="encode_latents", kind="latents", parts=entries)
