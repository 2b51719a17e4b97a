"""Encoding and decoding of endless video, group by group, in memory that does not grow with its length.

    encoder = StreamingEncoder(tokenizer, attention_latents=16)
    latents = [encoder.push(first_frame), *(encoder.push(group) for group in groups)]   # ct frames a group, or m * ct
    decoder = StreamingDecoder(tokenizer, attention_latents=16)
    frames = [decoder.push(each) for each in latents]

    for latents in encode_video(tokenizer, chunks): ...     # chunks of any length, cut into groups here
    for frames in decode_video(tokenizer, latents): ...

What a group needs of its past is small and exact: two frames in front of each 3x1x1 convolution, one at each halving
and doubling of time. Only the temporal attention of the middle blocks looks all the way back, through keys and values
at the latents' resolution.

- `attention_latents=0` keeps them all. Every result equals that of the whole clip (measured, of the largest value:
  9e-15 in fp64, 4e-6 in fp32), and memory grows by 2 * width * h * w numbers a latent frame and side.
- `attention_latents=N` keeps a window: a query sees itself and the N - 1 latent frames before. Up to N latent frames
  this is the same computation as the whole clip, so just as exact; past N the attention forgets, and memory stands
  still. What forgetting costs is stated at `StreamingEncoder`.

However the frames are grouped, results are the same. A stream can be saved between two groups (`state`, a flat dict of
tensors for safetensors) and continued in another process (`restore`).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from wfm.errors import ConfigError, DataError
from wfm.models.tokenizer.convolution import Stream
from wfm.models.tokenizer.network import Tokenizer

_FORMAT = 2
"""Which layer keeps what: another number, another state."""
_ABOUT = "stream"


class _Coder:
    """What both directions share: the stream, its checks, saving and restoring."""

    side: ClassVar[str]

    def __init__(self, tokenizer: Tokenizer, attention_latents: int = 0) -> None:
        if attention_latents < 0:
            raise ConfigError(
                f"attention_latents is {attention_latents}; give the latent frames that attention sees, or 0 for all of them"
            )
        self.tokenizer = tokenizer
        self.attention_latents = attention_latents
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next group opens a new video."""
        self._stream = Stream(self.attention_latents)
        self._shape: tuple[int, ...] = ()  # batch and sides of the groups, once there was one
        self.latents = 0  # latent frames that went through

    @property
    def bytes(self) -> int:
        """Memory held for the groups to come [bytes]."""
        return self._stream.bytes

    def _check(self, group: Tensor, what: str) -> None:
        """Refuse a group that cannot continue this stream. (Channels and frame counts are the tokenizer's to check.)"""
        if group.ndim not in (4, 5) or group.shape[-3] == 0:
            raise ConfigError(
                f"{what} of shape {list(group.shape)}: push at least one frame, as [B, C, t, height, width]"
            )
        shape = (group.shape[0], *group.shape[-2:])
        if self._shape and shape != self._shape:
            raise ConfigError(
                f"{what} of batch and sides {shape} in a stream that began with {self._shape}: a stream belongs to one "
                "batch of videos; call reset(), or make another, for the next"
            )

    def _passed(self, group: Tensor, latents: int) -> None:
        self._shape = (group.shape[0], *group.shape[-2:])
        self.latents += latents

    def state(self) -> dict[str, Tensor]:
        """Everything needed to continue, as a flat dict of tensors of their own, fit for safetensors.

        Weights are not in it, and are not checked: continue with the tokenizer that began.
        """
        state = {
            f"{name}.{index}": tensor.detach().clone().contiguous()
            for name, module in self.tokenizer.named_modules()
            for index, tensor in enumerate(self._stream.recall(module) or ())
        }
        counts = (self._stream.groups, self.latents, self.attention_latents, *self._shape)
        state[f"{_ABOUT}.counts"] = torch.tensor(counts, dtype=torch.int64)
        state[f"{_ABOUT}.identity"] = self._identity(state)
        return state

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Continue where the stream that gave `state` stood. Raises DataError for another side, tokenizer or window."""
        counts, identity = (state.get(f"{_ABOUT}.{name}") for name in ("counts", "identity"))
        if counts is None or identity is None:
            raise DataError(
                f"not a stream's state: {_ABOUT}.counts or {_ABOUT}.identity is missing; pass what state() gave"
            )
        if not torch.equal(identity.cpu(), self._identity(state)):
            raise DataError(
                f"the state is not one of a {self.side} of this tokenizer: its side, the tokenizer's config or precision, "
                "or the tensors in it differ; pass the whole of what state() gave, to the same kind of coder"
            )
        groups, latents, window, *shape = counts.tolist()
        if window != self.attention_latents:
            raise DataError(
                f"the state was kept with attention_latents {window}, this {self.side} has {self.attention_latents}; "
                "make it with the same"
            )
        self.reset()
        self._stream.groups, self.latents, self._shape = groups, latents, tuple(shape)
        device = self.tokenizer.quant_conv.weight.device
        modules = dict(self.tokenizer.named_modules())
        kept: dict[str, list[Tensor]] = {}
        for key in sorted(key for key in state if not key.startswith(f"{_ABOUT}.")):
            kept.setdefault(key.rpartition(".")[0], []).append(state[key].to(device, copy=True))
        for name, tensors in kept.items():
            self._stream.keep(modules[name], *tensors)

    def _identity(self, state: Mapping[str, Tensor]) -> Tensor:
        """uint8 `[32]`: a hash of what a state must fit: side, the tokenizer's config and precision, its own tensors."""
        shapes = {key: list(each.shape) for key, each in state.items() if key != f"{_ABOUT}.identity"}
        precision = str(self.tokenizer.quant_conv.weight.dtype)
        text = json.dumps([_FORMAT, self.side, self.tokenizer.config.what(), precision, shapes], sort_keys=True)
        return torch.tensor(list(hashlib.sha256(text.encode()).digest()), dtype=torch.uint8)


class StreamingEncoder(_Coder):
    """Frames to latents, group by group.

    With `attention_latents=N` a query of the temporal attention sees itself and the N - 1 latent frames before: exact up
    to N latent frames, an approximation past them. Measured error against the whole clip:

    - a small tokenizer of Cosmos's structure (widths 16 to 32, linear code, 200 steps on moving waves), 121 frames:
      reconstructions streamed both ways differ from the whole clip's by a PSNR of 56, 57, 60, 66 dB for N = 1, 2, 4, 8,
      while its own error is 31.1 dB and changes by at most 0.05;
    - random weights on noise, the worst seen, 6 latent frames: latents by 0.107, 0.094, 0.015 of their largest value for
      N = 1, 2, 4, frames (of given latents) by 0.021, 0.010, 0.003. The tests hold bounds a little above.

    Published weights were not at hand: measure with them (`push` both ways) before choosing N below a clip's length.
    """

    side = "encoder"

    @torch.no_grad()
    def push(self, video: Tensor) -> Tensor:
        """The next frames `[B, C, t, H, W]` -> their latents `[B, K, t', h, w]` (discrete: quantised codes).

        The first group has 1 + m * ct frames (one frame, at least), later ones m * ct. Raises ConfigError for other
        counts, and for a batch or sides other than the first group's.
        """
        self._check(video, "video")
        latents = self.tokenizer.encode(video, stream=self._stream)
        self._passed(video, latents.shape[2])
        return latents

    @torch.no_grad()
    def push_tokens(self, video: Tensor) -> Tensor:
        """As `push`, giving token ids int64 `[B, t', h, w]`. Raises ConfigError for a continuous tokenizer."""
        self._check(video, "video")
        ids = self.tokenizer.tokens(video, stream=self._stream)
        self._passed(video, ids.shape[1])
        return ids


class StreamingDecoder(_Coder):
    """Latents to frames, group by group: the first latent frame gives one frame, each later one ct."""

    side = "decoder"

    @torch.no_grad()
    def push(self, latents: Tensor) -> Tensor:
        """The next latents `[B, K, t', h, w]`, any number of frames -> their video `[B, C, t, H, W]`, not clamped."""
        self._check(latents, "latents")
        video = self.tokenizer.decode(latents, stream=self._stream)
        self._passed(latents, latents.shape[2])
        return video

    @torch.no_grad()
    def push_tokens(self, ids: Tensor) -> Tensor:
        """As `push`, of token ids `[B, t', h, w]`. Raises ConfigError for a continuous tokenizer."""
        self._check(ids, "ids")
        video = self.tokenizer.decode_tokens(ids, stream=self._stream)
        self._passed(ids, ids.shape[1])
        return video


def encode_video(
    tokenizer: Tokenizer,
    chunks: Iterable[Tensor],
    *,
    group_latents: int = 1,
    attention_latents: int = 0,
    pad: bool = False,
) -> Iterator[Tensor]:
    """Latents `[B, K, t', h, w]` of one video that comes in chunks `[B, C, t, H, W]` of any length, one a group.

    `group_latents` latent frames go through at a time (the first one alone): more is faster and takes more memory. At
    the end, frames that do not fill a group are refused with ConfigError, or with `pad` filled up by the last frame.
    """
    if group_latents < 1:
        raise ConfigError(f"group_latents is {group_latents}; it must be at least 1")
    ct = tokenizer.config.temporal_compression
    encoder = StreamingEncoder(tokenizer, attention_latents)
    waiting: list[Tensor] = []
    for chunk in chunks:
        if not chunk.shape[2]:  # a reader's last chunk may be empty
            continue
        waiting.append(chunk)
        have, want = sum(each.shape[2] for each in waiting), ct * group_latents if encoder.latents else 1
        if have < want:
            continue
        frames = torch.cat(waiting, dim=2)
        while frames.shape[2] >= want:
            yield encoder.push(frames[:, :, :want])
            frames, want = frames[:, :, want:], ct * group_latents
        waiting = [frames] if frames.shape[2] else []
    if waiting:
        rest = torch.cat(waiting, dim=2)
        missing = -rest.shape[2] % ct
        if missing and not pad:
            raise ConfigError(
                f"the video ends {rest.shape[2] % ct} frames into a group of {ct}: give 1 + {ct}n frames, or pass pad=True, "
                "which repeats the last frame"
            )
        yield encoder.push(torch.cat([rest, rest[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2))


def decode_video(tokenizer: Tokenizer, latents: Iterable[Tensor], *, attention_latents: int = 0) -> Iterator[Tensor]:
    """Frames `[B, C, t, H, W]` of one video whose latents come in groups `[B, K, t', h, w]`, one for each."""
    decoder = StreamingDecoder(tokenizer, attention_latents)
    for group in latents:
        yield decoder.push(group)
