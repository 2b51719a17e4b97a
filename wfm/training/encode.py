"""Encode a data set's windows once, so that world models train on latents or tokens and never see a pixel.

Works in parts, those of the data set. Layout of a part (of an artifact of kind `latents`):

    <split>/shard-00000.safetensors   latents  float32 [N, C, t, h, w], or
                                      tokens   int32 [N, t, h, w] (int64 for a vocabulary beyond 2^31)
                                      extrapolated  like the latents or tokens: those of the window's constant-motion
                                               extrapolation, when `extrapolate_from` is set
    <split>/samples.parquet           one row a sample, in the same order
    moments.json                      sums of the train split's latents, from which statistics of the whole follow

Signals and text of the same samples are artifacts of their own (`wfm.data.signals`, `wfm.data.captions`): `encoded` joins them.
"""

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from wfm.data.motion import extrapolate
from wfm.data.pixels import as_video
from wfm.data.windows import Window, clip_windows, decoded_clips
from wfm.models.finite import require_finite
from wfm.models.folder import open_model, save_tensors, write_json
from wfm.models.video_tokenizer import VideoTokenizer
from wfm.parts.kept import Kept
from wfm.parts.part import PartLike
from wfm.training.encode_config import EncodingConfig
from wfm.training.moments import Moments

SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("clip_id", pa.string()),
        ("session_id", pa.string()),
        ("video_id", pa.string()),
        ("source", pa.string()),
        ("start_frame", pa.int64()),
        ("start_seconds", pa.float64()),
        ("fps", pa.float64()),
        ("num_frames", pa.int64()),
        ("mirrored", pa.bool_()),
    ],
    metadata={"schema_version": "2"},
)


_TOKENIZERS: Kept[VideoTokenizer] = Kept()


def encode_part(part: PartLike, shards: Mapping[str, Sequence[Path]], exclude: Collection[str]) -> dict[str, int]:
    """Make one part of the stage; the tokenizer stays open for the next. Returns counts as `encode_shards`."""
    config, store, key = part.config, part.open_store(), part.arguments["tokenizer"]
    if config.threads:
        torch.set_num_threads(config.threads)
    tokenizer = _TOKENIZERS.get(
        f"{store.url} {key}", lambda: open_model(store.artifact(key), config.tokenizer_family)[0]
    )
    return encode_shards(tokenizer, shards, config, part.out, exclude)


def encode_shards(
    tokenizer: VideoTokenizer,
    shards: Mapping[str, Sequence[Path]],
    config: EncodingConfig,
    out: Path,
    exclude: Collection[str] = (),
) -> dict[str, int]:
    """Encode the shards of each split into `out`, without the clips of `exclude`. Returns counts: clips, windows, and clips
    too short for a window."""
    read = functools.partial(decoded_clips, exclude=exclude) if exclude else decoded_clips
    counts = {"clips": 0, "windows": 0, "too_short": 0}
    moments = Moments(config.statistics_frames)
    for split, paths in sorted(shards.items()):
        found: list[Window] = []
        for path in paths:
            for clip in read(path, config.size):
                mine = list(clip_windows(clip, num_frames=config.num_frames, stride_frames=config.stride_frames))
                counts["clips"] += 1
                counts["too_short"] += not mine
                found += mine
        if not found:
            continue
        arrays, rows = encode_windows(tokenizer, found, config, mirror=config.mirror and split == "train")
        if split == "train" and "latents" in arrays:
            moments.add(arrays["latents"])
        folder = out / split
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(arrays, folder / "shard-00000.safetensors")
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "samples.parquet")
        counts["windows"] += len(rows)
    write_json(moments.values(), out / "moments.json")
    return counts


@torch.no_grad()
def encode_windows(
    tokenizer: VideoTokenizer, found: Sequence[Window], config: EncodingConfig, *, mirror: bool
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Arrays and rows of windows; with `mirror` those of their mirror images follow."""
    frames = torch.from_numpy(np.stack([window.frames for window in found]))
    name = "tokens" if tokenizer.config.discrete else "latents"
    pictures = [frames, frames.flip(3)] if mirror else [frames]
    arrays = {name: torch.cat([_encoded(tokenizer, each, config.batch_size) for each in pictures])}
    if config.extrapolate_from:
        extrapolated = [_extrapolated(each, config.extrapolate_from) for each in pictures]
        arrays["extrapolated"] = torch.cat([_encoded(tokenizer, each, config.batch_size) for each in extrapolated])
    rows = [_row(window, mirrored=False) for window in found]
    return arrays, [*rows, *(_row(window, mirrored=True) for window in found if mirror)]


def _extrapolated(frames: Tensor, given: int) -> Tensor:
    """uint8 `[N, T, H, W, 3]` whose frames after the first `given` are what constant motion makes of those."""
    pixels = frames.numpy()
    future = extrapolate(pixels[:, :given], pixels.shape[1] - given)
    return torch.from_numpy(np.concatenate([pixels[:, :given], future], axis=1))


def _encoded(tokenizer: VideoTokenizer, frames: Tensor, batch: int) -> Tensor:
    parts: Iterator[Tensor] = (as_video(part) for part in frames.split(batch))
    if tokenizer.config.discrete:
        kind = torch.int32 if tokenizer.vocabulary_size <= 2**31 else torch.int64
        return torch.cat([tokenizer.tokens(video).to(kind) for video in parts])
    return require_finite(torch.cat([tokenizer.encode(video) for video in parts]), "latents of the tokenizer")


def _row(window: Window, *, mirrored: bool) -> dict[str, Any]:
    return {
        **window.row(),
        "sample_id": window.sample_id + (":mirrored" if mirrored else ""),
        "num_frames": len(window.frames),
        "mirrored": mirrored,
    }
