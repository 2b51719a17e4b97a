"""Video of discrete tokens by a diffusion decoder: latents of a continuous tokenizer are drawn, which that then decodes.

A video longer than the decoder was trained on is drawn in windows of latent frames that overlap. All windows draw from one
noise, and in an overlap the two results are blended linearly, so that one hands over to the next (Cosmos: 8 latent frames,
2 of them shared). The tokenizer decodes the whole at once.
"""

from pathlib import Path
from typing import NamedTuple, Self

import torch
from torch import Tensor

from wfm.errors import ConfigError
from wfm.generation.sampler_config import GuidanceConfig, SamplerConfig
from wfm.generation.samplers import Denoise, noise_levels, sample, seeded_noise
from wfm.models.diffusion_decoder.network import DiffusionDecoder
from wfm.models.fast_cpu import fast_cpu
from wfm.models.finite import require_finite
from wfm.models.folder import load_model
from wfm.models.tokenizer.network import Tokenizer

COSMOS = SamplerConfig(sampler="res_2ab", steps=15, sigma_max=8.0, guidance=GuidanceConfig(scale=1.8))
"""What Cosmos draws with: 15 steps from sigma 8, and its guidance of 1.8 taken in the standard convention."""


class TokenDecoder(NamedTuple):
    """A decoder, the tokenizer whose latents it draws, and how."""

    decoder: DiffusionDecoder
    tokenizer: Tokenizer
    sampling: SamplerConfig = SamplerConfig()
    mode: str = "mean"
    window: int = 0
    "Latent frames drawn together; 0: all."
    overlap: int = 2

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The decoder of a `train_decoder` artifact's files: `model/` and `tokenizer/`, with the one-step mean, which is what
        a decoder trained for minutes does best."""
        return cls(fast_cpu(load_model(folder / "model")[0]), fast_cpu(load_model(folder / "tokenizer")[0]))

    @property
    def levels(self) -> tuple[int, ...]:
        """Levels of the tokens that it reads."""
        return tuple(self.decoder.decoder_config.levels)

    def decode(self, tokens: Tensor, size: tuple[int, int], *, seeds: list[int]) -> Tensor:
        """`decode_tokens` with all that is known here."""
        how = {"sampling": self.sampling, "mode": self.mode, "window": self.window, "overlap": self.overlap}
        return decode_tokens(self.decoder, self.tokenizer, tokens, size, seeds=seeds, **how)


@torch.no_grad()
def decode_to_latents(
    decoder: DiffusionDecoder,
    tokens: Tensor,
    grid: tuple[int, int],
    *,
    seeds: list[int],
    sampling: SamplerConfig,
    mode: str = "sample",
    window: int = 0,
    overlap: int = 2,
) -> Tensor:
    """Latents `[B, C, T, H, W]` (the continuous tokenizer's units) of tokens int64 `[B, T, h, w]`, one sequence a seed.

    grid: H and W. Mode "sample" integrates from noise, with guidance; "mean" is the prediction from sigma_max, the best
    single guess. window: latent frames drawn together, 0: all. Raises ConfigError for a mode, window or overlap that
    cannot be, and for tokens that do not fit the decoder.
    """
    if mode not in ("sample", "mean"):
        raise ConfigError(f"mode {mode!r}: a diffusion decoder can do sample, mean")
    weight = next(decoder.network.parameters())
    frames = tokens.shape[1]
    shape = (decoder.config.network.in_channels, frames, *grid)
    noise = seeded_noise(shape, seeds, device=weight.device, dtype=torch.promote_types(weight.dtype, torch.float32))
    total = torch.zeros_like(noise)
    sigmas = noise_levels(sampling, steps=1 if mode == "mean" else None, sigma_data=decoder.config.sigma_data)
    scale = sampling.guidance.standard_scale if mode == "sample" else 1.0
    for (start, end), share in zip(*windows(frames, window, overlap), strict=True):
        like = noise[:, :, start:end]
        denoise = _denoiser(decoder, tokens[:, start:end], like, start, scale)
        drawn = sample(sampling.sampler, denoise, like, sigmas, sigma_data=decoder.config.sigma_data)
        total[:, :, start:end] += drawn * share.to(drawn)[:, None, None]
    return decoder.denormalise(total)


def decode_tokens(
    decoder: DiffusionDecoder, tokenizer: Tokenizer, tokens: Tensor, size: tuple[int, int], **how: object
) -> Tensor:
    """Video `[B, 3, 1 + (T - 1) c, H, W]` in [-1, 1] of tokens int64 `[B, T, h, w]`, frames of `size`, by the continuous
    tokenizer whose latents the decoder draws; further arguments as in `decode_to_latents`. Raises ConfigError for another
    tokenizer."""
    s, wanted = tokenizer.config.spatial_compression, decoder.config.network.in_channels
    if tokenizer.config.discrete or tokenizer.config.latent_channels != wanted:
        raise ConfigError(
            f"the decoder draws latents of {wanted} channels; this tokenizer has "
            f"{tokenizer.config.latent_channels}{' and is discrete' if tokenizer.config.discrete else ''}: give the continuous "
            "one that it was trained with"
        )
    latents = decode_to_latents(decoder, tokens, (size[0] // s, size[1] // s), **how)  # type: ignore[arg-type]
    with torch.no_grad():
        return require_finite(tokenizer.decode(latents), "the decoded future").clamp(-1, 1)


def windows(frames: int, window: int, overlap: int) -> tuple[list[tuple[int, int]], list[Tensor]]:
    """(start, end) of windows that cover `frames` latent frames, and the share `[end - start]` that each has of its own:
    rising and falling linearly over overlaps, 1 in sum everywhere. The last window is moved back to be whole."""
    if window == 0 or window >= frames:
        return [(0, frames)], [torch.ones(frames)]
    if not 1 <= overlap < window:
        raise ConfigError(f"overlap is {overlap}; windows of {window} latent frames can share 1 to {window - 1}")
    starts = [*range(0, frames - window, window - overlap), frames - window]
    spans = [(start, start + window) for start in starts]
    shares = [torch.ones(window) for _ in spans]
    for (_, end), (start, _), before, after in zip(spans, spans[1:], shares, shares[1:], strict=False):
        shared = end - start
        rise = torch.arange(1, shared + 1) / (shared + 1)
        after[:shared] = rise
        before[window - shared :] = before[window - shared :] * (1 - rise)
    total = torch.zeros(frames)
    for (start, end), share in zip(spans, shares, strict=True):
        total[start:end] += share
    return spans, [share / total[start:end] for (start, end), share in zip(spans, shares, strict=True)]


def _denoiser(decoder: DiffusionDecoder, tokens: Tensor, like: Tensor, start: int, scale: float) -> Denoise:
    """The denoiser of a window; with guidance both predictions run in one batch."""
    if scale == 1.0:
        ready = decoder.conditioned(tokens, like, start=start)
        return lambda x, sigma: decoder.denoise(x, sigma, ready)
    keep = torch.arange(2 * len(like), device=like.device) < len(like)
    both = decoder.conditioned(torch.cat([tokens, tokens]), torch.cat([like, like]), keep=keep, start=start)

    def denoise(x: Tensor, sigma: Tensor | float) -> Tensor:
        conditional, unconditional = decoder.denoise(torch.cat([x, x]), sigma, both).chunk(2)
        return torch.lerp(unconditional, conditional, scale)

    return denoise
