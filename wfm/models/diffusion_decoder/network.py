"""The diffusion decoder's network: a denoiser that is shown tokens as further channels."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wfm.errors import ConfigError
from wfm.models.at_hand import at_hand
from wfm.models.diffusion.conditioning import Conditions
from wfm.models.diffusion.denoiser import Denoiser, Prepared
from wfm.models.diffusion_decoder.config import DecoderConfig
from wfm.models.diffusion_decoder.prior import TokenPrior
from wfm.models.tokenizer.quantizer import FiniteScalarQuantizer


class TokenEmbedding(nn.Module):
    """Token ids int64 `[B, t, h, w]` -> channels `[B, E, t, h, w]`: a learned row each, started at zero as Cosmos's, or a
    linear layer over FSQ codes."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.quantizer = FiniteScalarQuantizer(config.levels)
        self.table: nn.Embedding | None = None
        self.linear: nn.Linear | None = None
        if config.embedding == "table":
            self.table = nn.Embedding(config.vocabulary_size, config.token_channels)
            nn.init.zeros_(self.table.weight)
        else:
            self.linear = nn.Linear(len(config.levels), config.token_channels)

    def forward(self, ids: Tensor) -> Tensor:
        if self.table is not None:
            return self.table(ids).movedim(-1, 1)
        assert self.linear is not None
        return self.linear(self.quantizer.codes(ids).to(next(self.linear.parameters())).movedim(1, -1)).movedim(-1, 1)


class DiffusionDecoder(Denoiser):
    """A `Denoiser` of continuous latents `[B, C, T, H, W]` shown tokens int64 `[B, T, h, w]`, whose grid divides the latents'.

    ready = model.conditioned(tokens, like)            # once; what `denoise` and the samplers take as conditions
    latents = model.denoise(noisy, sigma, ready)
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config.denoiser_config)
        self.decoder_config = config
        self.embedding = TokenEmbedding(config)
        self.token_prior: TokenPrior | None = None
        if config.linear_prior:
            self.token_prior = TokenPrior(len(config.levels), self.config.network.in_channels, self.config.sigma_data)

    def conditioned(self, tokens: Tensor, like: Tensor, *, keep: Tensor | None = None, start: int = 0) -> Prepared:
        """Conditions for latents of the shape, dtype and device of `like`.

        keep bool `[B]`: where False nothing is shown (zeros, and no guess), as guidance's other half wants it. start: which
        latent frame of its video the first is. Raises ConfigError for ids out of range and a grid that does not fit.
        """
        self.require_tokens(tokens, like)
        batch, frames = like.shape[0], like.shape[2]
        keep = torch.ones(batch, dtype=torch.bool, device=like.device) if keep is None else keep.to(like.device)
        kept = keep[:, None, None, None, None]
        first = torch.arange(start, start + frames, device=like.device) == 0
        shown = on_grid(self.embedding(tokens), like) * kept
        if self.decoder_config.mark_first:
            mark = first.to(shown)[None, None, :, None, None].expand(batch, 1, -1, *like.shape[3:])
            shown = torch.cat([shown, mark], dim=1)
        ready = replace(self.prepare(Conditions(), like), extra=shown.to(like.dtype))
        if self.token_prior is None:
            return ready
        codes = on_grid(self.embedding.quantizer.codes(tokens).to(like), like)
        mean, deviation = self.token_prior(codes, first)
        plain = torch.full_like(deviation, self.config.sigma_data)
        return replace(ready, mean=mean * kept, deviation=torch.where(kept, deviation, plain))

    def require_tokens(self, tokens: Tensor, like: Tensor) -> None:
        """Raise ConfigError unless tokens are ids of this vocabulary on a grid that divides that of the latents."""
        grid, wanted = tuple(tokens.shape), (like.shape[0], *like.shape[2:])
        if tokens.ndim != 4 or tokens.is_floating_point():
            raise ConfigError(f"tokens {tokens.dtype} {list(grid)}: wanted integers [B, T, h, w]")
        if grid[:2] != wanted[:2] or any(big % small for big, small in zip(wanted[2:], grid[2:], strict=True)):
            raise ConfigError(
                f"tokens {list(grid)} do not fit latents {list(like.shape)}: the same samples and latent frames are wanted, "
                "and sides that divide those of the latents (tokens of another clip or tokenizer?)"
            )
        if not at_hand(tokens):
            return
        size, low, high = self.decoder_config.vocabulary_size, int(tokens.min()), int(tokens.max())
        if low < 0 or high >= size:
            raise ConfigError(f"token ids from {low} to {high}: this decoder's are 0 to {size - 1}")


def on_grid(values: Tensor, like: Tensor) -> Tensor:
    """`[B, E, T, h, w]` on the finer grid of `like`, bilinearly within each frame (Cosmos)."""
    if values.shape[3:] == like.shape[3:]:
        return values
    frames = values.transpose(1, 2).flatten(0, 1)  # [B T, E, h, w]
    finer = F.interpolate(frames, size=like.shape[3:], mode="bilinear", align_corners=False)
    return finer.unflatten(0, (values.shape[0], -1)).transpose(1, 2)
