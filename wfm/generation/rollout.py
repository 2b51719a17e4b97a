"""A future of any length from a model of any family: window by window, each in the tokenizer's space."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from wfm.data.loader import as_frames, as_video
from wfm.data.motion import extrapolate
from wfm.data.seeds import derived_seed
from wfm.errors import ConfigError
from wfm.generation.config import SamplingConfig
from wfm.models.family import Ask, Drawing
from wfm.models.finite import require_finite
from wfm.models.video_tokenizer import VideoTokenizer


class Told(NamedTuple):
    """Embeddings `[B, L, D]` and lengths `[B]` of the captions, and of the negative prompt (one row for all); None: none."""

    text: Tensor | None = None
    lengths: Tensor | None = None
    negative: Tensor | None = None
    negative_lengths: Tensor | None = None

    def shown(self) -> dict[str, Tensor | None]:
        """As `Ask.shown` has it: what is there, by name."""
        named = {
            "text": self.text,
            "text_lengths": self.lengths,
            "negative_text": self.negative,
            "negative_lengths": self.negative_lengths,
        }
        return {name: value for name, value in named.items() if value is not None}


class Shows(Protocol):
    """What turns tokens into video in place of their tokenizer."""

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels of the tokens that it reads."""

    def decode(self, tokens: Tensor, size: tuple[int, int], *, seeds: list[int]) -> Tensor:
        """Video ``[B, 3, T, H, W]`` in [-1, 1] of tokens ``[B, t, h, w]``, frames of `size`."""


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
    decoder: Shows | None = None
    "What shows tokens in place of the tokenizer."

    def run(self, past: Tensor, actions: Tensor | None, text: Told, total: int, seeds: list[int], mode: str) -> Tensor:
        """``[B, 3, total, H, W]``, window by window."""
        if self.stays_encoded:
            return self._encoded_windows(past, actions, text, total, seeds, mode)
        video, given, window = past, past.shape[2], 0
        while video.shape[2] < total:
            start = video.shape[2] - given
            length = min(self.num_frames, self._whole(total - start))
            acts = None if actions is None else _window(actions, start, length)
            drawn = [seed if window == 0 else derived_seed(seed, window) for seed in seeds]
            future = self._one_window(video[:, :, start:], acts, text, length, drawn, mode)
            video = torch.cat([video, future[:, :, given : given + total - video.shape[2]]], dim=2)
            window += 1
        return video

    @property
    def stays_encoded(self) -> bool:
        """Whether a long future stays in the tokenizer's space. (A model that is shown the extrapolated past needs frames.)"""
        return self.drawing.keeps_tokens and not self.drawing.shown_motion(self.model)

    def _encoded_windows(
        self, past: Tensor, actions: Tensor | None, text: Told, total: int, seeds: list[int], mode: str
    ) -> Tensor:
        """The same in the tokenizer's space: each window goes on from the last positions of the one before, which are never
        decoded and encoded again, and the whole is decoded at once."""
        known, step = self._encoded(past), self.tokenizer.config.temporal_compression
        given, wanted = known.shape[-3], latent_frames(self.tokenizer, self._whole(total))
        longest, window = latent_frames(self.tokenizer, self.num_frames), 0
        while known.shape[-3] < wanted:
            start = known.shape[-3] - given
            frames = min(longest, wanted - start)
            ask = Ask(
                past=known[..., start:, :, :],
                frames=frames,
                seeds=[seed if window == 0 else derived_seed(seed, window) for seed in seeds],
                mode=mode,
                sampling=self.sampling,
                actions=None if actions is None else _window(actions, start * step, 1 + (frames - 1) * step),
                shown=text.shown(),
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

    def _one_window(
        self, past: Tensor, actions: Tensor | None, text: Told, length: int, seeds: list[int], mode: str
    ) -> Tensor:
        """The decoded window ``[B, 3, length, H, W]``, clamped to [-1, 1]; its first frames are the tokenizer's
        reconstruction."""
        guess = self._extrapolated(past, length)
        shown = {} if guess is None else {"guess": self._encoded(guess)}
        ask = Ask(
            past=self._encoded(past),
            frames=latent_frames(self.tokenizer, length),
            seeds=seeds,
            mode=mode,
            sampling=self.sampling,
            actions=actions,
            shown={**shown, **text.shown()},
        )
        return self._decoded(self.drawing.draw(self.model, ask), seeds)

    def _extrapolated(self, past: Tensor, length: int) -> Tensor | None:
        """``past`` followed by what constant motion makes of it, ``[B, 3, length, H, W]``, for a model that is shown it."""
        if not self.drawing.shown_motion(self.model):
            return None
        frames = as_frames(past).cpu().numpy()
        future = torch.from_numpy(extrapolate(frames, length - frames.shape[1]))
        return torch.cat([past, as_video(future).to(past)], dim=2)

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


def _window(actions: Tensor, start: int, length: int) -> Tensor:
    """Rows start..start + length of ``[B, T, A]``; past the end the last row is repeated."""
    index = torch.arange(start, start + length, device=actions.device).clamp(max=actions.shape[1] - 1)
    return actions[:, index]
