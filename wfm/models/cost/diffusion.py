"""The diffusion transformer in closed formulas.

M tokens in all (batch times t h w), N of one sample, G rows of modulation (one a sample), L text tokens, d width
r AdaLN rank, f hidden width of the feed-forward, D width of the text

a block    norms    3 * G (d r + 3 r d)            self    M 4 d d + 2 M N d
           text     M 2 d d + B L 2 D d + 2 M L d     feed-forward    2 M d f        times 2 for multiply and add
"""

from dataclasses import dataclass, replace

from wfm.models.cost.parts import Part, attention, product
from wfm.models.diffusion.config import DenoiserConfig, DiffusionConfig

PAPER_SAVED = 15
"""Numbers a token and a layer, over d, that the Cosmos paper counts as kept for the backward pass (section 5.1.4). Ours, more
because norms and gates are not recomputed, are in `_block`."""


@dataclass(frozen=True)
class Tokens:
    """What goes through the network at once."""

    batch: int
    grid: tuple[int, int, int]
    "Tokens of one sample along (t, h, w)."
    text: int
    "Text tokens of one sample that are attended to."

    @property
    def each(self) -> int:
        """Tokens of one sample."""
        t, h, w = self.grid
        return t * h * w

    @property
    def all(self) -> int:
        """Tokens of the batch."""
        return self.batch * self.each


def linear(
    inputs: int, outputs: int, rows: int, *, bias: bool = False, fixed_input: bool = False, saved: int = 0
) -> Part:
    """A linear layer over `rows` vectors."""
    return product(inputs * outputs + outputs * bias, 2 * rows * inputs * outputs, fixed_input=fixed_input, saved=saved)


def transformer_parts(config: DiffusionConfig, tokens: Tokens) -> tuple[Part, ...]:
    """The parts of the raw network, blocks by kind of layer."""
    d, patch, rows, samples = config.width, config.patch_size[1] * config.patch_size[2], tokens.all, tokens.batch
    values = config.patch_channels * patch
    last = _modulation(d, config.adaln_lora_dim, 2, samples) + linear(
        d, config.in_channels * patch, rows, saved=3 * rows * d
    )
    parts = [
        _named("patches in", linear(values, d, rows, fixed_input=True, saved=rows * values)),
        Part("positions", sum(config.max_grid) * d if config.extra_pos_embed else 0),
        _named("time embedding", linear(d, d, samples, fixed_input=True) + linear(d, 3 * d, samples) + Part("", d)),
        *(part.times(config.num_layers) for part in _block(config, tokens)),
        _named("last layer", last),
    ]
    if config.action_dim:
        for out in (d, 3 * d):
            mlp = linear(config.action_dim, 4 * d, samples, bias=True, fixed_input=True)
            parts.append(_named("action", mlp + linear(4 * d, out, samples, bias=True)))
        parts[-2:] = [parts[-2] + parts[-1]]
    return tuple(part for part in parts if part.parameters)


_SAVED_SELF, _SAVED_TEXT, _SAVED_FEED = 10, 6, 2
"""Numbers a token that a block keeps for the backward pass, over d, beside the feed-forward's hidden ones before and after
GELU: norms their inputs and outputs, attention q and k before and after their norms, v and its output, gates what they
multiply. Statistics of norms and scores are left out. Counted from what autograd holds, to which a test compares."""


def _block(config: DiffusionConfig, tokens: Tokens) -> list[Part]:
    """One block, by kind of layer."""
    d, rows, text = config.width, tokens.all, config.text_embed_dim
    hidden, gains = int(d * config.mlp_ratio), Part("", 2 * config.attention_head_dim)
    norms = _modulation(d, config.adaln_lora_dim, 3, tokens.batch).times(3 if text else 2)
    own = linear(d, d, rows).times(4) + attention(rows, tokens.each, d, saved=_SAVED_SELF * rows * d) + gains
    kept = rows * (2 * hidden + _SAVED_FEED * d)
    parts = [
        _named("adaptive norms", norms),
        _named("self-attention", own),
        _named("feed-forward", linear(d, hidden, rows) + linear(hidden, d, rows, saved=kept)),
    ]
    if text:
        context = tokens.batch * tokens.text
        cross = linear(d, d, rows).times(2) + linear(text, d, context, fixed_input=True).times(2)
        kept = _SAVED_TEXT * rows * d + 4 * context * d
        parts.insert(2, _named("cross-attention", cross + attention(rows, tokens.text, d, saved=kept) + gains))
    return parts


def _modulation(dim: int, rank: int, chunks: int, rows: int) -> Part:
    return linear(dim, rank, rows) + linear(rank, chunks * dim, rows)


def _named(name: str, part: Part) -> Part:
    return replace(part, name=name)


def denoiser_parts(config: DenoiserConfig, tokens: Tokens) -> tuple[Part, ...]:
    """The network of a denoiser and what it learns beside it: the null action and the uncertainty. (The linear prior is
    fitted, not learned.)"""
    null = config.action_dim
    beside = Part("beside the network", null + config.uncertainty)
    return (*transformer_parts(config.network_config, tokens), *([beside] if beside.parameters else []))
