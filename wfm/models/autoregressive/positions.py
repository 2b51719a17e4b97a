"""Where the tokens of a video stand in the sequence: patches, positions, places, and their rotation."""

import torch
from torch import Tensor

from wfm.errors import ConfigError
from wfm.models.autoregressive.cache import KeyValueCache
from wfm.models.autoregressive.config import AutoregressiveConfig
from wfm.models.rotary import Rope, Yarn, rope_3d, sinusoids_3d


class Positions:
    """The part of the transformer that knows no weight. slots: tokens of one position."""

    config: AutoregressiveConfig
    slots: int

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Positions per latent frame ``(rows, columns)`` for token frames of ``height x width``."""
        patch = self.config.patch
        if min(height, width) < 1 or height % patch or width % patch:
            raise ConfigError(f"token frames of {height} x {width} do not divide into patches of {patch} x {patch}")
        return height // patch, width // patch

    def stride(self, height: int, width: int) -> int:
        """How many positions one step predicts: 1 in raster order, a whole frame in frame order."""
        rows, columns = self.grid(height, width)
        return rows * columns if self.config.order == "frame" else 1

    def patchify(self, tokens: Tensor) -> Tensor:
        """tokens ``[B, t, h, w]`` -> ``[B, t * rows * columns, slots]`` in raster order."""
        batch, frames, height, width = tokens.shape
        rows, columns = self.grid(height, width)
        patch = self.config.patch
        x = tokens.view(batch, frames, rows, patch, columns, patch).permute(0, 1, 2, 4, 3, 5)
        return x.reshape(batch, frames * rows * columns, self.slots)

    def unpatchify(self, patches: Tensor, height: int, width: int) -> Tensor:
        """The inverse: ``[B, t * rows * columns, slots, ...]`` -> ``[B, t, h, w, ...]``."""
        rows, columns = self.grid(height, width)
        patch, batch, rest = self.config.patch, patches.shape[0], patches.shape[3:]
        x = patches.reshape(batch, -1, rows, columns, patch, patch, *rest).transpose(3, 4)
        return x.reshape(batch, -1, height, width, *rest)

    def _require_positions(
        self, inputs: Tensor, start: int, stride: int, cache: KeyValueCache | None, size: tuple[int, int]
    ) -> None:
        config, end = self.config, start + inputs.shape[1]
        if cache is not None:
            cache.require(config.layers, inputs.shape[0], config.kv_heads, config.head_dim, size)
        if inputs.shape[1] % stride or not inputs.shape[1]:
            raise ConfigError(
                f"{inputs.shape[1]} new positions are no whole number of blocks of {stride}: give whole latent frames"
            )
        if end > config.context_positions:
            raise ConfigError(
                f"{end} positions are more than this model's context of {config.context_positions}: give fewer latent frames, "
                "or go on from the last of them"
            )

    def _rope(self, place: Tensor, dtype: torch.dtype) -> Rope:
        """Rotary tables of input patches at the places (t, h, w) ``[n, 3]``."""
        config, yarn = self.config, None
        if config.yarn is not None:
            frames, rows, _ = config.yarn.original_shape  # Cosmos's code measures both sides by the rows
            yarn = Yarn((frames, rows, rows), config.yarn.beta_fast, config.yarn.beta_slow, config.yarn.scale)
        place = place.clamp(min=0) if config.begin_token else place
        return rope_3d(place, config.head_dim, theta=config.rope_theta, yarn=yarn, dtype=dtype)

    def _fixed(self, place: Tensor, dtype: torch.dtype) -> Tensor:
        """Fixed sinusoids of the places ``[n, 3]``, zeros for the token to begin with: ``[n, dim]``."""
        return sinusoids_3d(place, self.config.dim, dtype=dtype) * (place[:, :1] >= 0)

    def _places(self, positions: Tensor, columns: int, places: int) -> Tensor:
        """The place (t, h, w) ``[n, 3]`` of the input patches at positions ``[n]``; -1 all of the token to begin with, whose
        position is -1."""
        inside = positions % places
        place = torch.stack([positions // places, inside // columns, inside % columns], dim=-1)
        return place.where(positions[:, None] >= 0, -1) if self.config.begin_token else place
