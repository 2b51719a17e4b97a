"""What depends on the shape, the prompt or the noise level alone: computed once, used by many calls.

    shape = model.prepare_shape(latents.shape[2:], fps)        rotary tables and learned positions
    text  = model.prepare_text(embeddings, lengths)            keys and values of every block's cross-attention
    noise = model.prepare_noise(c_noise, vectors)              shift, scale and gate of every block
    channels = model.prepare_channels(channels)                what stands beside the latents, as it joins the tokens
    model(latents, noise, text, shape=shape)                   the same numbers as the plain call

Over the steps of a sampler shape and text stay; a conditional and an unconditional branch in one batch share shape and
noise. Prepared values belong to the weights they were made with: make them anew after a training step.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from wfm.models.diffusion.by_rows import Rows
from wfm.models.diffusion.inputs import Grid
from wfm.models.layers import Modulation
from wfm.models.rotary import Rope
from wfm.parallel.segments import AnySegments


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
    """Keys and values of each block, `[sum of lengths, H, head_dim]`, and the lengths of the prompts (or of another context).
    One prompt serves a batch of any size."""

    heads: tuple[tuple[Tensor, Tensor], ...]
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class PreparedChannels:
    """What the channels of conditions add to the tokens, `[M, d]`; None: nothing."""

    added: Tensor | None


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
class ContextTokens:
    """A context as all blocks see it: tokens `[K, width]`, or None where keys and values are prepared; the lengths of its K
    tokens' segments, and how many queries see each."""

    tokens: Tensor | None
    lengths: AnySegments
    queries: AnySegments
    prepared: PreparedText | None = None


@dataclass(frozen=True)
class Conditioning:
    """What all blocks of one call share; M tokens of S segments.

    segments: tokens of each segment. rope of N positions and positions `[N, d]`, N dividing M. embedding `[G, d]` and
    lora `[G, 3d]`, or None where modulations are prepared. rows: which of the G rows each token takes, where they do not
    all serve equally many. contexts: what is attended to, by name; one that is absent is left out. noise: what was prepared,
    or None.
    """

    segments: AnySegments
    rope: Rope
    positions: Tensor | None
    embedding: Tensor | None
    lora: Tensor | None
    rows: Rows | None
    contexts: Mapping[str, ContextTokens]
    noise: PreparedNoise | None = None

    def prepared(self, block: int) -> tuple[tuple[Modulation, ...] | None, dict[str, tuple[Tensor, Tensor]]]:
        """Modulations, and keys and values of each context by name, that were prepared for a block."""
        ready = {name: one.prepared.heads[block] for name, one in self.contexts.items() if one.prepared is not None}
        return None if self.noise is None else self.noise.blocks[block], ready
