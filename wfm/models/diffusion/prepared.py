"""What depends on the shape, the prompt or the noise level alone: computed once, used by many calls.

    shape = model.prepare_shape(latents.shape[2:], fps)        rotary tables and learned positions
    text  = model.prepare_text(embeddings, lengths)            keys and values of every block's cross-attention
    noise = model.prepare_noise(c_noise, action)               shift, scale and gate of every block
    model(latents, noise, text, shape=shape)                   the same numbers as the plain call

Over the steps of a sampler shape and text stay; a conditional and an unconditional branch in one batch share shape and
noise. Prepared values belong to the weights they were made with: make them anew after a training step.
"""

from dataclasses import dataclass

from torch import Tensor

from wfm.models.diffusion.inputs import Grid
from wfm.models.layers import Modulation
from wfm.models.rotary import Rope


@dataclass(frozen=True)
class PreparedShape:
    """Of a dense batch (one grid, alike for all samples) or of a pack (one grid a segment).

    rope of N positions and positions `[N, d]` (None without learned ones), N tokens of all `grids`.
    """

    grids: tuple[Grid, ...]
    rope: Rope
    positions: Tensor | None


@dataclass(frozen=True)
class PreparedText:
    """Keys and values of each block, `[sum of lengths, H, head_dim]`, and the lengths of the prompts. One prompt serves
    a batch of any size."""

    heads: tuple[tuple[Tensor, Tensor], ...]
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class PreparedNoise:
    """The modulations of every block, by norm, and of the final norm."""

    blocks: tuple[tuple[Modulation, ...], ...]
    final: Modulation

    @property
    def rows(self) -> int:
        """G: 1, the number of samples, or of latent frames."""
        return self.final.shift.shape[0]


@dataclass(frozen=True)
class Conditioning:
    """What all blocks of one call are told; M tokens of S segments.

    segments: tokens of each segment. rope of N positions and positions `[N, d]`, N dividing M. embedding `[G, d]` and
    lora `[G, 3d]`, or None where modulations are prepared. rows: row G of each token, int64 `[M]`, where the groups
    differ in size. text `[K, text_embed_dim]`, or None where prepared; text_lengths, and how many queries see each text.
    noise, prompts: what was prepared, or None.
    """

    segments: tuple[int, ...]
    rope: Rope
    positions: Tensor | None
    embedding: Tensor | None
    lora: Tensor | None
    rows: Tensor | None
    text: Tensor | None
    text_lengths: tuple[int, ...]
    text_queries: tuple[int, ...]
    noise: PreparedNoise | None = None
    prompts: PreparedText | None = None

    def prepared(self, block: int) -> tuple[tuple[Modulation, ...] | None, tuple[Tensor, Tensor] | None]:
        """Modulations, and keys and values of the text, that were prepared for a block."""
        noise, prompts = self.noise, self.prompts
        return None if noise is None else noise.blocks[block], None if prompts is None else prompts.heads[block]
