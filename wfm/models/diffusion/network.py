"""The diffusion transformer: Cosmos 1.0's DiT (section 2.1) without text, with actions.

`forward` is the raw network F of the EDM formulation: scaled latents in, one tensor of the same shape out. `denoise`
is D of it, in the tokenizer's own units, with the past given: what samplers call.

    noise level -> sinusoid (+ actions of each latent frame) -> RMSNorm -> embedding [B, t, d] -> AdaLN-LoRA of every
    block latents + mask of given frames (+ last given frame) -> patches -> + positions -> blocks -> AdaLN -> linear
    -> latents

The modulation is one per latent frame, because frames differ in their action (and Cosmos's action models do the
same).
"""

import torch
from torch import Tensor, nn

from wfm.errors import ConfigError
from wfm.models.diffusion.conditioning import ActionConditioning
from wfm.models.diffusion.config import DiffusionConfig
from wfm.models.diffusion.prior import LinearPrior
from wfm.models.layers import (
    AdaLayerNormLoRA,
    Attention,
    FeedForward,
    LearnablePositions,
    TimestepEmbedding,
    grid_positions,
    rope_3d,
)


class PatchEmbed(nn.Module):
    """Fold (1, p, p) latent positions into one token and project; order inside a token is (channel, row, column)."""

    def __init__(self, channels: int, dim: int, patch: tuple[int, int, int]) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Linear(channels * patch[1] * patch[2], dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, t, H, W]` -> `[B, t, h, w, d]`."""
        _, p, q = self.patch
        batch, channels, frames, rows, columns = x.shape
        if rows % p or columns % q:
            raise ConfigError(f"latents of {rows}x{columns} cannot be cut into patches of {p}x{q}")
        x = x.reshape(batch, channels, frames, rows // p, p, columns // q, q)
        return self.proj(x.permute(0, 2, 3, 5, 1, 4, 6).flatten(4))


class Block(nn.Module):
    """Self-attention then feed-forward, each behind an AdaLN-LoRA norm and a gate. (`norm2`/`attn2` are text's,
    absent here.)"""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        dim, rank = config.width, config.adaln_lora_dim
        self.norm1 = AdaLayerNormLoRA(dim, rank)
        self.attn1 = Attention(dim, config.num_attention_heads)
        self.norm3 = AdaLayerNormLoRA(dim, rank)
        self.ff = FeedForward(dim, config.mlp_ratio)

    def forward(
        self, x: Tensor, embedding: Tensor, lora: Tensor, rope: tuple[Tensor, Tensor], positions: Tensor
    ) -> Tensor:
        """x `[B, t, hw, d]`, embedding `[B, t, d]`, lora `[B, t, 3d]`, positions `[t, hw, d]` (added at every block
        input)."""
        x = x + positions
        y, gate = self.norm1(x, embedding, lora)
        x = x + gate * self.attn1(y.flatten(1, 2), rope=rope).view_as(x)
        y, gate = self.norm3(x, embedding, lora)
        return x + gate * self.ff(y)


class DiffusionTransformer(nn.Module):
    """See the module. Latents are `[B, C, t, H, W]`; buffers `latents_mean`, `latents_std` `[C, 2]` hold their
    statistics for the first latent frame (column 0, an image) and all later ones (column 1)."""

    latents_mean: Tensor
    latents_std: Tensor

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.width
        channels = config.in_channels * (1 + config.repeat_last + config.extrapolate) + 1  # + mask of given frames
        self.patch_embed = PatchEmbed(channels, dim, config.patch_size)
        self.learnable_pos_embed = LearnablePositions(config.max_size, dim)
        self.time_embed = TimestepEmbedding(dim)
        self.action_embed = ActionConditioning(config.action_width, dim, config.temporal_compression, config.fps)
        self.transformer_blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm_out = AdaLayerNormLoRA(dim, config.adaln_lora_dim, chunks=2)
        self.proj_out = nn.Linear(dim, config.in_channels * config.patch_size[1] * config.patch_size[2], bias=False)
        self.prior = LinearPrior(config.in_channels, config.max_size[0], config.sigma_data, guess=config.extrapolate)
        self.register_buffer("latents_mean", torch.zeros(config.in_channels, 2))
        self.register_buffer("latents_std", torch.ones(config.in_channels, 2))
        self._initialise()

    def _initialise(self) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear) and not name.startswith("action_embed."):
                nn.init.xavier_uniform_(module.weight)
        for weight in self.time_embed.t_embedder.parameters():
            nn.init.normal_(weight, std=0.02)
        for module in self.modules():
            if isinstance(module, AdaLayerNormLoRA):
                nn.init.zeros_(module.linear_2.weight)
        for table in self.learnable_pos_embed.parameters():
            nn.init.trunc_normal_(table, std=0.02)
        nn.init.zeros_(self.proj_out.weight)
        if self.config.open_gates:
            self._open_gates()

    @torch.no_grad()
    def _open_gates(self) -> None:
        """Start every gate near 1: the rows of `linear_2` that make the shared gate are set to answer 1 to the
        middle noise level, and noise levels look much alike to the sinusoid. (All zero, a gate lets its block learn
        only once it has opened.)"""
        dim, layers = self.config.width, self.time_embed.t_embedder
        hidden = nn.functional.silu(layers["linear_1"](self.time_embed.sinusoid(torch.zeros(()))))
        weight = dict(layers.named_parameters())["linear_2.weight"]
        weight[2 * dim :] = hidden / hidden.square().sum()

    # Units

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Statistics `[C, 2]` of the tokenizer's latents, first frame and later ones."""
        self.latents_mean.copy_(mean)
        self.latents_std.copy_(std)

    def normalise(self, latents: Tensor) -> Tensor:
        """Tokenizer's units -> standard deviation sigma_data. `[B, C, t, H, W]`."""
        mean, std = self._statistics(latents.shape[2])
        return (latents - mean) / std * self.config.sigma_data

    def denormalise(self, latents: Tensor) -> Tensor:
        """The inverse of `normalise`."""
        mean, std = self._statistics(latents.shape[2])
        return latents / self.config.sigma_data * std + mean

    def _statistics(self, frames: int) -> tuple[Tensor, Tensor]:
        column = [0] + [1] * (frames - 1)
        return self.latents_mean[:, column][None, :, :, None, None], self.latents_std[:, column][None, :, :, None, None]

    # The network

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        *,
        condition: Tensor,
        given: Tensor,
        actions: Tensor | None = None,
        known: Tensor | None = None,
    ) -> Tensor:
        """F. hidden_states `[B, C, t, H, W]` scaled by c_in (given frames already replaced by the caller), timestep
        c_noise `[B]`, condition `[B, C, t, H, W]` normalised (its given frames; the others are the guess, read by a model
        that is shown one), given int64 `[B]`, actions `[B, T, A]` normalised or None, known bool `[B]`. Returns
        `[B, C, t, H, W]`."""
        frames, rows, columns = hidden_states.shape[2:]
        mask = given_mask(given, frames).to(hidden_states.dtype)  # [B, 1, t, 1, 1]
        inputs = [hidden_states, mask.expand(-1, 1, -1, rows, columns)]
        if self.config.repeat_last:
            last = (given - 1).clamp(min=0)[:, None, None, None, None].expand(-1, condition.shape[1], 1, rows, columns)
            seen = condition.gather(2, last) * (given > 0)[:, None, None, None, None] / self.config.sigma_data
            inputs.append(seen.expand(-1, -1, frames, -1, -1))
        if self.config.extrapolate:
            inputs.append(condition / self.config.sigma_data)
        x = self.patch_embed(torch.cat(inputs, dim=1))  # [B, t, h, w, d]
        grid = (frames, x.shape[2], x.shape[3])
        x = x.flatten(2, 3)
        extra, extra_lora = self.action_embed(actions, known, frames, given)
        embedding, lora = self.time_embed(timestep[:, None].expand(-1, frames), extra, extra_lora)
        rope = rope_3d(
            grid_positions(grid, device=x.device),
            self.config.attention_head_dim,
            theta=self.config.rope_theta,
            ratio=self.config.rope_scale,
            dtype=x.dtype,
        )
        positions = self.learnable_pos_embed(grid).unflatten(0, (frames, -1))  # [t, hw, d]
        for block in self.transformer_blocks:
            x = block(x, embedding, lora, rope, positions)
        x, _ = self.norm_out(x, embedding, lora)
        return self._unpatch(self.proj_out(x), grid)

    def _unpatch(self, x: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """`[B, t, hw, p*q*C]` (order: row, column, channel) -> `[B, C, t, H, W]`."""
        frames, rows, columns = grid
        _, p, q = self.config.patch_size
        x = x.view(x.shape[0], frames, rows, columns, p, q, self.config.in_channels)
        return x.permute(0, 6, 1, 2, 4, 3, 5).reshape(x.shape[0], -1, frames, rows * p, columns * q)

    def denoise(
        self,
        noisy: Tensor,
        sigma: Tensor | float,
        *,
        condition: Tensor,
        given: Tensor | int,
        actions: Tensor | None = None,
        known: Tensor | None = None,
        augment: Tensor | None = None,
    ) -> Tensor:
        """D(noisy; sigma): the clean latents, normalised units, `[B, C, t, H, W]`.

        Given frames of the input are replaced by `condition` (plus `augment`, already scaled noise, in training) and
        of the output by `condition` itself. sigma is `[B]` or a number; given is int64 `[B]` or a number.
        Preconditioning: Karras et al. 2022, table 1, around the prior; replacement: Cosmos section 2.4.
        """
        batch, frames = noisy.shape[0], noisy.shape[2]
        sigma = torch.as_tensor(sigma, dtype=noisy.dtype, device=noisy.device).expand(batch)
        given = torch.as_tensor(given, dtype=torch.int64, device=noisy.device).expand(batch)
        s = sigma[:, None, None, None, None]
        mask = given_mask(given, frames)
        shown = condition if augment is None else condition + augment * mask
        mean, data = self.prior(shown, given)  # of each element, given the past: `sigma_data` in EDM's formulas
        total = (s.square() + data.square()).sqrt()
        left = noisy - mean
        # given frames are nearly clean: scaled as clean latents are, to unit deviation
        inputs = torch.where(mask, shown / self.config.sigma_data, left / total)
        out = self(inputs, sigma.log() / 4, condition=shown, given=given, actions=actions, known=known)
        clean = mean + data.square() / total.square() * left + s * data / total * out
        return torch.where(mask, condition, clean)


def given_mask(given: Tensor, frames: int) -> Tensor:
    """Which latent frames are given: bool `[B, 1, t, 1, 1]`."""
    return (torch.arange(frames, device=given.device)[None] < given[:, None])[:, None, :, None, None]
