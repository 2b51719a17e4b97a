"""A future of any length from a model of any family: window by window, each in the tokenizer's space."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from wfm.data.seeds import derived_seed
from wfm.errors import ConfigError
from wfm.generation.config import SamplingConfig
from wfm.models.family import PAST, Ask, Drawing
from wfm.models.finite import require_finite
from wfm.models.video_tokenizer import VideoTokenizer


class Given(NamedTuple):
    """What the caller gives beside the past, of B sequences."""

    actions: np.ndarray | None = None
    "Raw, `[B, T, A]`; None: none are known."
    text: Mapping[str, Tensor] = MappingProxyType({})
    "Tensors of the captions, `[B, ...]`."
    negative: Mapping[str, Tensor] = MappingProxyType({})
    "Tensors of the negative prompt, one row for all."
    signals: Mapping[str, np.ndarray] = MappingProxyType({})
    "What further conditions read, raw: `[B, T, ...]`, and `has_<name>` bool `[B]`."

    def rows(self, index: list[int]) -> "Given":
        """Of the sequences `index`."""
        actions = None if self.actions is None else self.actions[index]
        text = {name: x[index] for name, x in self.text.items()}
        return Given(actions, text, self.negative, {name: x[index] for name, x in self.signals.items()})


class Shows(Protocol):
    """What turns tokens into video in place of their tokenizer."""

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels of the tokens that it reads."""

    def decode(self, tokens: Tensor, size: tuple[int, int], *, seeds: list[int]) -> Tensor:
        """Video ``[B, 3, T, H, W]`` in [-1, 1] of tokens ``[B, t, h, w]``, frames of `size`."""


class Reading(Protocol):
    """What a model's conditions read of a window: `wfm.generation.reading`."""

    frames: bool
    "Whether one of them reads the given frames."
    encoded: tuple[str, ...]
    "Tensors that are video, for the tokenizer to encode."

    def tensors(self, past: Tensor | None, beside: Given, start: int, length: int) -> dict[str, Tensor]:
        """By name, of the window of `length` frames from `start` on; past `[B, 3, P, H, W]` its given frames, None where none
        reads them and they stay encoded."""


@dataclass(frozen=True)
class Rollout:
    """How futures are rolled out from one model."""

    tokenizer: VideoTokenizer
    model: nn.Module
    drawing: Drawing
    "How the family draws one window."
    sampling: SamplingConfig
    num_frames: int
    "Frames of a window: given and predicted together."
    size: tuple[int, int]
    "Height and width of a frame [pixels]."
    reading: Reading
    "What its conditions read of a window."
    decoder: Shows | None = None
    "What shows tokens in place of the tokenizer."

    def run(self, past: Tensor, beside: Given, total: int, seeds: list[int], mode: str) -> Tensor:
        """``[B, 3, total, H, W]``, window by window."""
        if self.stays_encoded:
            return self._encoded_windows(past, beside, total, seeds, mode)
        video, given, window = past, past.shape[2], 0
        while video.shape[2] < total:
            start = video.shape[2] - given
            length = min(self.num_frames, self._whole(total - start))
            drawn = [seed if window == 0 else derived_seed(seed, window) for seed in seeds]
            future = self._one_window(video[:, :, start:], beside, start, length, drawn, mode)
            video = torch.cat([video, future[:, :, given : given + total - video.shape[2]]], dim=2)
            window += 1
        return video

    @property
    def stays_encoded(self) -> bool:
        """Whether a long future stays in the tokenizer's space. (A condition that reads the given frames needs frames.)"""
        return self.drawing.keeps_tokens and not self.reading.frames

    def _encoded_windows(self, past: Tensor, beside: Given, total: int, seeds: list[int], mode: str) -> Tensor:
        """The same in the tokenizer's space: each window goes on from the last positions of the one before, which are never
        decoded and encoded again, and the whole is decoded at once."""
        known, step = self._encoded(past), self.tokenizer.config.temporal_compression
        given, wanted = known.shape[-3], latent_frames(self.tokenizer, self._whole(total))
        longest, window = latent_frames(self.tokenizer, self.num_frames), 0
        while known.shape[-3] < wanted:
            start = known.shape[-3] - given
            frames = min(longest, wanted - start)
            ask = Ask(
                frames=frames,
                seeds=[seed if window == 0 else derived_seed(seed, window) for seed in seeds],
                mode=mode,
                sampling=self.sampling,
                tensors={
                    **self.reading.tensors(None, beside, start * step, 1 + (frames - 1) * step),
                    PAST: known[..., start:, :, :],
                },
                negative=beside.negative,
            )
            found = self.drawing.draw(self.model, ask)
            known = torch.cat([known, found[..., given:, :, :]], dim=-3)
            window += 1
        video = self._decoded(known, seeds)
        return torch.cat([past, video[:, :, past.shape[2] : total]], dim=2)

    def _encoded(self, video: Tensor) -> Tensor:
        """Latents, or tokens, of a video."""
        return self.tokenizer.tokens(video) if self.tokenizer.config.discrete else self.tokenizer.encode(video)

    def _decoded(self, drawn: Tensor, seeds: list[int]) -> Tensor:
        """Video of latents or tokens, within [-1, 1]; of tokens by the decoder where there is one."""
        if self.decoder is not None:
            return self.decoder.decode(drawn, self.size, seeds=[derived_seed(seed, "decoder") for seed in seeds])
        discrete = self.tokenizer.config.discrete
        return _clamped(self.tokenizer.decode_tokens(drawn) if discrete else self.tokenizer.decode(drawn))

    def _one_window(self, past: Tensor, beside: Given, start: int, length: int, seeds: list[int], mode: str) -> Tensor:
        """The decoded window ``[B, 3, length, H, W]`` from frame ``start`` on, clamped to [-1, 1]; its first frames are the
        tokenizer's reconstruction."""
        tensors = self.reading.tensors(past, beside, start, length)
        ask = Ask(
            frames=latent_frames(self.tokenizer, length),
            seeds=seeds,
            mode=mode,
            sampling=self.sampling,
            tensors={name: self._encoded(x) if name in self.reading.encoded else x for name, x in tensors.items()},
            negative=beside.negative,
        )
        return self._decoded(self.drawing.draw(self.model, ask), seeds)

    def _whole(self, frames: int) -> int:
        """The next number of frames that the tokenizer takes."""
        step = self.tokenizer.config.temporal_compression
        return 1 + -(-(frames - 1) // step) * step


def latent_frames(tokenizer: VideoTokenizer, frames: int) -> int:
    """Latent frames of so many video frames. Raises ConfigError for a number that the tokenizer cannot take."""
    try:
        return tokenizer.config.latent_frames(frames)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _clamped(video: Tensor) -> Tensor:
    """Decoded frames within [-1, 1]. Raises DataError for what is not finite: clamped, infinity would be white."""
    return require_finite(video, "the decoded future").clamp(-1, 1)
