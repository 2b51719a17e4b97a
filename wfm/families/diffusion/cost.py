"""The diffusion transformer in closed formulas.

M tokens in all (batch times t h w), N of one sample, G rows of modulation (one a sample), L text tokens, d width
r AdaLN rank, f hidden width of the feed-forward, D width of the text

a block    norms    3 * G (d r + 3 r d)            self    M 4 d d + 2 M N d
           text     M 2 d d + B L 2 D d + 2 M L d     feed-forward    2 M d f        times 2 for multiply and add
"""

from dataclasses import dataclass, replace

from wfm.errors import ConfigError
from wfm.models.cost.parts import Part, Video, attention, encoders_apart, product, total
from wfm.models.cost.report import Cost, latent_size
from wfm.models.cost.work import Work
from wfm.models.diffusion.config import DenoiserConfig, DiffusionConfig
from wfm.models.tokenizer.config import TokenizerConfig
from wfm.models.video_tokenizer import TokenizerCard

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
    "Tokens of one sample's text, and of any other context, that are attended to."

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
    for name, width in config.channels.items():
        beside = linear(width * patch, d, rows, fixed_input=True, saved=rows * width * patch)
        parts.append(_named(f"{name} channels", beside))
    for name, width in config.vectors.items():
        mlps = [
            linear(width, 4 * d, samples, bias=True, fixed_input=True) + linear(4 * d, out, samples, bias=True)
            for out in (d, 3 * d)
        ]
        parts.append(_named(name, mlps[0] + mlps[1]))
    return tuple(part for part in parts if part.parameters)


_SAVED_SELF, _SAVED_TEXT, _SAVED_FEED = 10, 7, 4
"""Numbers a token that a block keeps for the backward pass, over d, beside the feed-forward's hidden ones before and after
GELU: of norms their inputs, and outputs before and after scale and shift, of attention q and k before and after their norms, v
and its output, of gates what they multiply. Statistics of norms and scores are left out. This is the plain model with norms of
one kernel each, as a GPU has them, because that is where memory is planned for; `fast_cpu` keeps up to a tenth less. Counted
from what autograd holds, to which a test compares."""


def _block(config: DiffusionConfig, tokens: Tokens) -> list[Part]:
    """One block, by kind of layer."""
    d, rows, contexts = config.width, tokens.all, config.contexts
    hidden, gains = int(d * config.mlp_ratio), Part("", 2 * config.attention_head_dim)
    norms = _modulation(d, config.adaln_lora_dim, 3, tokens.batch).times(2 + len(contexts))
    own = linear(d, d, rows).times(4) + attention(rows, tokens.each, d, saved=_SAVED_SELF * rows * d) + gains
    kept = rows * (2 * hidden + _SAVED_FEED * d)
    parts = [
        _named("adaptive norms", norms),
        _named("self-attention", own),
        _named("feed-forward", linear(d, hidden, rows) + linear(hidden, d, rows, saved=kept)),
    ]
    context = tokens.batch * tokens.text
    for name, width in contexts.items():
        cross = linear(d, d, rows).times(2) + linear(width, d, context, fixed_input=True).times(2)
        kept = _SAVED_TEXT * rows * d + 4 * context * d
        part = cross + attention(rows, tokens.text, d, saved=kept) + gains
        parts.insert(-1, _named("cross-attention" + ("" if name == "text" else f" to {name}"), part))
    return parts


def _modulation(dim: int, rank: int, chunks: int, rows: int) -> Part:
    return linear(dim, rank, rows) + linear(rank, chunks * dim, rows)


def _named(name: str, part: Part) -> Part:
    return replace(part, name=name)


def denoiser_parts(config: DenoiserConfig, tokens: Tokens) -> tuple[Part, ...]:
    """The network of a denoiser and what it learns beside it: the uncertainty. (The linear prior is fitted, not learned.)"""
    beside = Part("beside the network", config.uncertainty)
    return (*transformer_parts(config.network_config, tokens), *([beside] if beside.parameters else []))


def cost(
    config: DiffusionConfig | DenoiserConfig,
    video: Video | None,
    *,
    batch: int,
    text_tokens: int,
    tokenizer: TokenizerCard | None,
) -> Cost:
    """Of one denoising of latents of `tokenizer`, or of CV8x8x8's; without a video the largest that fits."""
    network = config.network_config if isinstance(config, DenoiserConfig) else config
    tokenizer = tokenizer or TokenizerConfig()
    if isinstance(config, DenoiserConfig) and isinstance(
        tokenizer, TokenizerConfig
    ):  # it knows the compression in time
        tokenizer = TokenizerConfig.parse({**tokenizer.resolved(), "temporal_compression": config.temporal_compression})
    if getattr(tokenizer, "dimensions", 3) != 3:
        raise ConfigError("tokenizer: images alone; a diffusion model works on a video tokenizer's latents")
    if video is None:
        video = _largest(network, tokenizer)
    size = latent_size(tokenizer, video, multiple=network.patch_size[1:])
    over = [f"{here} of {most}" for here, most in zip(size, network.max_size, strict=True) if here > most]
    if over:
        raise ConfigError(
            f"video {video}: latents {size} exceed the model's max_size {network.max_size} ({', '.join(over)})"
        )
    text = text_tokens if network.contexts else 0
    grid = tuple(side // patch for side, patch in zip(size, network.patch_size, strict=True))
    tokens = Tokens(batch, (grid[0], grid[1], grid[2]), text)
    parts = denoiser_parts(config, tokens) if isinstance(config, DenoiserConfig) else transformer_parts(config, tokens)
    heads, layers = network.num_attention_heads, network.num_layers
    words = (
        f"{layers} layers, width {network.width}, {heads} heads of {network.attention_head_dim}, feed-forward "
        f"{int(network.width * network.mlp_ratio)}, AdaLN-LoRA rank {network.adaln_lora_dim}, "
        + (f"text {network.text_embed_dim} wide" if network.text_embed_dim else "no text")
        + (", a channel for given frames" if network.condition_mask or "given" in network.channels else "")
        + encoders_apart(network.conditions)
    )
    per_layer = tokens.all * network.width
    whole = total(parts).saved
    inside = ("self-attention", "cross-attention", "feed-forward")
    blocks = sum(part.saved for part in parts if part.name.startswith(inside))
    return Cost(
        "diffusion",
        words,
        parts,
        video,
        batch,
        (network.in_channels, *size),
        tokens.each,
        text,
        checkpointed=whole - blocks + blocks // layers + layers * per_layer,
        paper_saved=PAPER_SAVED * layers * per_layer,
        notes={"tokenizer": f"latents of {tokenizer.temporal_compression}x{tokenizer.spatial_compression}"},
    )


def work(config: DenoiserConfig, shape: tuple[int, int, int], text_tokens: int) -> Work:
    """Of a sample of latents (frames, rows, columns)."""
    network = config.network_config
    t, h, w = (side // patch for side, patch in zip(shape, network.patch_size, strict=True))
    tokens = Tokens(1, (t, h, w), text_tokens if network.contexts else 0)
    whole = total(denoiser_parts(config, tokens))
    return Work(tokens.each, whole.flops + whole.backward)


def _largest(network: DiffusionConfig, tokenizer: TokenizerCard) -> Video:
    """Cosmos's 121 frames of 704x1280, or what a smaller model's positions cover."""
    t, h, w = network.max_size
    frames = min(121, 1 + (t - 1) * tokenizer.temporal_compression)
    unit = tokenizer.spatial_compression
    steps = [unit * patch for patch in network.patch_size[1:]]
    sides = [min(most, side * unit) // step * step for most, side, step in zip((704, 1280), (h, w), steps, strict=True)]
    return Video(frames, sides[0], sides[1])
