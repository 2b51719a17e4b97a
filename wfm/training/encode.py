"""Encode a data set's clips once, so that world models train on latents or tokens and never see a pixel.

Works in parts, those of the data set. A part holds records (`wfm.data.records`), and of the latents of the train split

    moments.json    their sums, from which statistics of the whole follow

Clips are encoded as they come: what is in memory at one time is one clip, what waits for others of its shape (`_HELD`), and a
batch. Signals and text of the same samples are artifacts of their own (`wfm.data.signals`, `wfm.data.captions`).
"""

import math
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wfm.data.motion import extrapolate
from wfm.data.own_shape import OwnShape, OwnSize
from wfm.data.pixels import as_video
from wfm.data.records import RecordWriter
from wfm.data.windows import Window, clip_windows, decoded_clips
from wfm.errors import ConfigError
from wfm.models.finite import require_finite
from wfm.models.folder import open_model, write_json
from wfm.models.video_tokenizer import TokenizerCard, VideoTokenizer
from wfm.parts.kept import Kept
from wfm.parts.part import PartLike
from wfm.training.encode_config import EncodingConfig
from wfm.training.moments import Moments

_TOKENIZERS: Kept[VideoTokenizer] = Kept()
_HELD = 512 << 20
"Frames that wait for others of their shape, and what waits for those that came before [bytes]."
REASONS = ("too_short", "too_small")
"""Why nothing is taken of a clip (`wfm.data.own_shape`)."""
Picture = tuple[dict[str, Any], np.ndarray]
"""What is encoded: a row of the table of lengths as far as it is known, and uint8 frames `[T, H, W, 3]`."""


def encode_part(part: PartLike, shards: Mapping[str, Sequence[Path]], exclude: Collection[str]) -> dict[str, int]:
    """Make one part of the stage; the tokenizer stays open for the next. Returns counts as `encode_shards`."""
    config, store, key = part.config, part.open_store(), part.arguments["tokenizer"]
    if config.threads:
        torch.set_num_threads(config.threads)
    tokenizer = _TOKENIZERS.get(
        f"{store.url} {key}", lambda: open_model(store.artifact(key), config.tokenizer_family)[0]
    )
    return encode_shards(tokenizer, shards, config, part.out, exclude, name=part.name)


def encode_shards(
    tokenizer: VideoTokenizer,
    shards: Mapping[str, Sequence[Path]],
    config: EncodingConfig,
    out: Path,
    exclude: Collection[str] = (),
    *,
    name: str = "all",
) -> dict[str, int]:
    """Encode the shards of each split into the part `name` at `out`, without the clips of `exclude`. Returns counts: clips,
    those of which nothing was taken by reason (`REASONS`), frames left over at their ends, and `windows`, the samples."""
    tokenizer.to(chosen_device(config.device))
    counts = Counter(dict.fromkeys(("clips", "windows", "frames_left_over", *REASONS), 0))
    moments = Moments(config.statistics_frames)
    with RecordWriter(out, name, maximum_shard_bytes=config.maximum_shard_bytes) as records:
        for split, paths in sorted(shards.items()):
            found = samples_of(paths, config, tokenizer.config, exclude, counts)
            pictures = _pictures(found, mirror=config.mirror and split == "train")
            for row, arrays in encode_pictures(tokenizer, pictures, config):
                if split == "train" and "latents" in arrays:
                    moments.add(torch.from_numpy(arrays["latents"])[None])
                records.write(split, row, arrays)
                counts["windows"] += 1
    write_json(moments.values(), out / "moments.json")
    return dict(counts)


def chosen_device(name: str) -> torch.device:
    """Where a tokenizer encodes. Raises ConfigError for a GPU that is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda': torch sees no GPU here; give 'cpu', or 'auto' for a GPU where there is one")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def samples_of(
    paths: Iterable[Path], config: EncodingConfig, card: TokenizerCard, exclude: Collection[str], counts: Counter[str]
) -> Iterator[Window]:
    """What is encoded of the clips of some shards, and in `counts` how many clips there were, and how many gave nothing, by
    reason."""
    if config.take == "clips":
        size = OwnSize(config.max_pixels, card.spatial_compression)
        yield from OwnShape(size, card.temporal_compression, config.max_frames).samples(paths, exclude, counts)
        return
    for path in paths:
        for clip in decoded_clips(path, config.size, exclude):
            found = list(clip_windows(clip, num_frames=config.num_frames, stride_frames=config.stride_frames))
            counts["clips"] += 1
            counts["too_short"] += not found
            yield from found


def _pictures(windows: Iterable[Window], *, mirror: bool) -> Iterator[Picture]:
    """Each, and with `mirror` its left-right mirror image after it."""
    for window in windows:
        row = {**window.row(), "num_frames": len(window.frames), "mirrored": False, "kind": window.kind}
        yield row, window.frames
        if mirror:
            row = {**row, "sample_id": f"{row['sample_id']}:mirrored", "mirrored": True}
            yield row, window.frames[:, :, ::-1]


@dataclass
class _Waiting:
    row: dict[str, Any]
    frames: np.ndarray | None
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in (self.frames, *self.arrays.values()) if array is not None)


def encode_pictures(
    tokenizer: VideoTokenizer, pictures: Iterable[Picture], config: EncodingConfig
) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """(row, arrays) of each, in the order in which they come; arrays are `latents` fp32 `[C, t, h, w]` or `tokens` `[t, h, w]`,
    and `extrapolated`. Batches are of one shape; a picture waits for others of its own until `_HELD` is reached.

    Raises DataError for latents that are not finite.
    """
    line: deque[_Waiting] = deque()
    groups: dict[tuple[int, ...], list[_Waiting]] = {}
    held = 0

    def encode(shape: tuple[int, ...]) -> int:
        """Encode a group; returns how much less is held."""
        group = groups.pop(shape)
        before = sum(one.bytes for one in group)
        found = _encoded(tokenizer, np.stack([one.frames for one in group if one.frames is not None]), config)
        for number, one in enumerate(group):
            one.frames, one.arrays = None, {name: array[number].copy() for name, array in found.items()}
        return before - sum(one.bytes for one in group)

    for row, frames in pictures:
        line.append(_Waiting(row, frames))
        group = groups.setdefault(frames.shape, [])
        group.append(line[-1])
        held += frames.nbytes
        if len(group) >= min(config.batch_size, config.batch_pixels // math.prod(frames.shape[:3])):
            held -= encode(frames.shape)
        while line and (line[0].frames is None or held > _HELD):
            if (first := line[0].frames) is not None:
                held -= encode(first.shape)
            done = line.popleft()
            held -= done.bytes
            yield done.row, done.arrays
    for shape in list(groups):
        encode(shape)
    yield from ((done.row, done.arrays) for done in line)


@torch.no_grad()
def _encoded(tokenizer: VideoTokenizer, frames: np.ndarray, config: EncodingConfig) -> dict[str, np.ndarray]:
    """Arrays of a batch of frames uint8 `[N, T, H, W, 3]`, `[N, ...]` each."""
    discrete, on = tokenizer.config.discrete, chosen_device(config.device)

    def encode(pixels: np.ndarray) -> np.ndarray:
        video = as_video(torch.from_numpy(pixels).to(on))
        if discrete:
            kind = torch.int32 if tokenizer.vocabulary_size <= 2**31 else torch.int64
            return tokenizer.tokens(video).to(kind).cpu().numpy()
        return require_finite(tokenizer.encode(video).float(), "latents of the tokenizer").cpu().numpy()

    found = {"tokens" if discrete else "latents": encode(frames)}
    if config.extrapolate_from:
        found["extrapolated"] = encode(_extrapolated(frames, config.extrapolate_from))
    return found


def _extrapolated(frames: np.ndarray, given: int) -> np.ndarray:
    """uint8 `[N, T, H, W, 3]` whose frames after the first `given` are what constant motion makes of those."""
    future = extrapolate(frames[:, :given], frames.shape[1] - given)
    return np.concatenate([frames[:, :given], future], axis=1)
