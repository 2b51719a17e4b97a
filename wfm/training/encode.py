"""Encode a data set's windows once, so that world models train on latents or tokens and never see a pixel.

Works in parts, those of the data set. Layout of a part (and of an artifact without parts):

    <split>/shard-00000.safetensors   latents fp32 [N, C, t, h, w] or tokens int32 [N, t, h, w] (int64 for a vocabulary
                                      beyond 2^31); actions fp32 [N, T, A] raw units;
                                      has_actions bool [N]; guess, like the latents or tokens: those of the window's
                                      constant-motion extrapolation, when `guess_from` is set
    <split>/samples.parquet           one row a sample, in the same order
    <split>/captions.safetensors      with a text encoder: token embeddings of the split's distinct captions; and
    <split>/captions.parquet          their texts (see wfm.data.captions)
    moments.json                      sums of the train split's latents, from which statistics of the whole follow
    action_spec.json                  what the actions mean
"""

import functools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from wfm.actions import ActionSpec
from wfm.data.captions import mirrored_caption
from wfm.data.loader import as_video
from wfm.data.motion import extrapolate
from wfm.data.windows import Window, clip_windows, constant_rate, decoded_clips
from wfm.errors import ConfigError, DataError
from wfm.models.finite import require_finite
from wfm.models.folder import save_tensors, write_json
from wfm.models.text.cache import CaptionCache
from wfm.models.text.config import TextConfig
from wfm.models.text.encoders import normalised, open_encoder
from wfm.models.video_tokenizer import VideoTokenizer
from wfm.training.config import EncodingConfig

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
        ("moving", pa.bool_()),
        ("orbit_rate", pa.float64()),
        ("mirrored", pa.bool_()),
        ("has_actions", pa.bool_()),
        ("caption", pa.string()),
    ],
    metadata={"schema_version": "1"},
)


def encode_shards(
    tokenizer: VideoTokenizer,
    shards: Mapping[str, Sequence[Path]],
    config: EncodingConfig,
    out: Path,
    exclude: Collection[str] = (),
) -> dict[str, int]:
    """Encode the shards of each split into `out`, without the clips of `exclude`. Returns counts: clips, windows, clips
    too short for a window, and distinct captions that were encoded."""
    read = functools.partial(decoded_clips, exclude=exclude) if exclude else decoded_clips
    counts = {"clips": 0, "windows": 0, "too_short": 0, "captions": 0}
    cache = caption_cache(config.text) if config.text.used else None
    spec = ActionSpec.null()
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
        spec = common_spec([spec, *(window.action_spec for window in found)])
        mirrored = config.mirror and split == "train"
        arrays, rows = encode_windows(tokenizer, found, spec, config, mirror=mirrored)
        if split == "train" and "latents" in arrays:
            moments.add(arrays["latents"])
        folder = out / split
        folder.mkdir(parents=True, exist_ok=True)
        save_tensors(arrays, folder / "shard-00000.safetensors")
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), folder / "samples.parquet")
        counts["captions"] += write_captions(cache, [row["caption"] for row in rows], folder) if cache else 0
        counts["windows"] += len(rows)
    write_json(moments.values(), out / "moments.json")
    write_json(spec.resolved(), out / "action_spec.json")
    return counts


@functools.lru_cache(maxsize=1)
def caption_cache(config: TextConfig) -> CaptionCache:
    """The encoder of a configuration, opened once a process: a stage makes many parts, and T5-11B takes minutes to load."""
    return CaptionCache(open_encoder(config), config)


def write_captions(cache: CaptionCache, captions: Sequence[str], folder: Path) -> int:
    """Embeddings of the distinct `captions`, as wfm.data.captions reads them; returns how many there are."""
    made = cache.encode(captions)
    save_tensors(
        {"embeddings": made.embeddings, "lengths": made.lengths.to(torch.int32)}, folder / "captions.safetensors"
    )
    pq.write_table(pa.table({"caption": pa.array(made.captions, pa.string())}), folder / "captions.parquet")
    return len(made.captions)


@torch.no_grad()
def encode_windows(
    tokenizer: VideoTokenizer, found: Sequence[Window], spec: ActionSpec, config: EncodingConfig, *, mirror: bool
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Arrays and rows of windows; with `mirror` those of their mirror images follow."""
    actions = torch.from_numpy(np.stack([_widened(window.actions, spec.width) for window in found]))
    frames = torch.from_numpy(np.stack([window.frames for window in found]))
    known = torch.tensor([window.action_spec.width > 0 for window in found])
    name = "tokens" if tokenizer.config.discrete else "latents"
    pictures = [frames, frames.flip(3)] if mirror else [frames]
    arrays = {name: torch.cat([_encoded(tokenizer, each, config.batch_size) for each in pictures])}
    if config.guess_from:
        guessed = [_extrapolated(each, config.guess_from) for each in pictures]
        arrays["guess"] = torch.cat([_encoded(tokenizer, each, config.batch_size) for each in guessed])
    rows = [_row(window, spec, mirrored=False) for window in found]
    if mirror:
        if spec.width and len(config.mirror_signs) != spec.width:
            raise ConfigError(
                f"mirror_signs has {len(config.mirror_signs)} entries for {spec.width} actions "
                f"({', '.join(spec.names)}): give one each, -1 where left and right change places, or switch mirror off"
            )
        signs = torch.tensor(config.mirror_signs, dtype=actions.dtype) if spec.width else actions.new_zeros(0)
        actions = torch.cat([actions, actions * signs])
        known = torch.cat([known, known])
        rows += [_row(window, spec, mirrored=True) for window in found]
    return {**arrays, "actions": actions, "has_actions": known}, rows


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


def _row(window: Window, spec: ActionSpec, *, mirrored: bool) -> dict[str, Any]:
    return {
        "sample_id": window.sample_id + (":mirrored" if mirrored else ""),
        "clip_id": window.clip_id,
        "session_id": window.session_id,
        "video_id": window.video_id,
        "source": window.source,
        "start_frame": window.start_frame,
        "start_seconds": window.start_seconds,
        "fps": window.fps,
        "moving": window.moving,
        "orbit_rate": constant_rate(window.actions, window.action_spec, "camera_orbit_rate"),
        "mirrored": mirrored,
        "has_actions": window.action_spec.width > 0,
        "caption": normalised(mirrored_caption(window.caption) if mirrored else window.caption),
    }


def _widened(actions: np.ndarray, width: int) -> np.ndarray:
    """Actions `[T, A]`, or zeros `[T, width]` for a window without any."""
    return actions if actions.shape[1] == width else np.zeros((len(actions), width), np.float32)


def common_spec(specs: Iterable[ActionSpec]) -> ActionSpec:
    """The one spec of all that have actions; null if none has. Raises InputError for two that differ."""
    found = ActionSpec.null()
    for spec in specs:
        if not spec.width:
            continue
        if not found.width:
            found = spec
        elif spec != found:
            found.require_same(spec, whose="another clip of the data set")
    return found


class Moments:
    """Sums of latents by channel and latent frame, in fp64: a column for each of the first, and the last column for all from
    there on."""

    def __init__(self, columns: int, values: dict[str, Any] | None = None) -> None:
        self.count = np.array(values["count"]) if values else np.zeros(columns)
        self.total = np.array(values["total"]) if values and values["total"] else None
        self.square = np.array(values["square"]) if values and values["square"] else None

    def add(self, latents: Tensor) -> None:
        """Latents `[N, C, t, h, w]`."""
        last = len(self.count) - 1
        columns = [latents[:, :, i : i + 1 if i < last else None].double() for i in range(last + 1)]
        total = np.stack([x.sum((0, 2, 3, 4)).numpy() for x in columns], axis=1)  # [C, F]
        square = np.stack([x.square().sum((0, 2, 3, 4)).numpy() for x in columns], axis=1)
        self._merge(np.array([x[:, 0].numel() for x in columns], dtype=float), total, square)

    def merge(self, other: "Moments") -> None:
        """Take in the sums of another part."""
        if other.total is not None and other.square is not None:
            self._merge(other.count, other.total, other.square)

    def _merge(self, count: np.ndarray, total: np.ndarray, square: np.ndarray) -> None:
        self.count = self.count + count
        self.total = total if self.total is None else self.total + total
        self.square = square if self.square is None else self.square + square

    def values(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "count": self.count.tolist(),
            "total": [] if self.total is None else self.total.tolist(),
            "square": [] if self.square is None else self.square.tolist(),
        }

    def statistics(self) -> dict[str, Any]:
        """`mean` and `std` `[C][f]`, f the columns that windows of this length have. Empty without latents."""
        if self.total is None or self.square is None:
            return {"mean": [], "std": []}
        seen = self.count > 0
        mean = self.total[:, seen] / self.count[seen]
        variance = np.maximum(self.square[:, seen] / self.count[seen] - mean**2, 1e-12)
        return {"mean": mean.tolist(), "std": np.sqrt(variance).tolist()}


def write_summary(parts: Iterable[Path], out: Path) -> ActionSpec:
    """`latent_statistics.json` and `action_spec.json` of the whole from the parts' folders, in the order given."""
    moments, specs = None, []
    for part in parts:
        values = json.loads((part / "moments.json").read_text())
        found = Moments(len(values["count"]), values)
        moments = moments or Moments(len(found.count))
        moments.merge(found)
        specs.append(ActionSpec.parse(json.loads((part / "action_spec.json").read_text())))
    if moments is None:
        raise DataError("no parts to summarise: nothing was encoded")
    spec = common_spec(specs)
    write_json(moments.statistics(), out / "latent_statistics.json")
    write_json(spec.resolved(), out / "action_spec.json")
    return spec
