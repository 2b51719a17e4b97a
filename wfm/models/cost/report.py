"""What a model costs for a video: parameters and FLOPs by part, memory, latents and tokens."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from wfm.config import Config
from wfm.errors import ConfigError
from wfm.models.autoregressive.config import AutoregressiveConfig
from wfm.models.cost.autoregressive import autoregressive_parts
from wfm.models.cost.diffusion import PAPER_SAVED, Tokens, denoiser_parts, transformer_parts
from wfm.models.cost.parts import Part, Video, total
from wfm.models.cost.tokenizer import Size, decoder_parts, encoder_parts, linear_code_parts
from wfm.models.diffusion.config import DenoiserConfig, DiffusionConfig
from wfm.models.tokenizer.config import TokenizerConfig

STATE_BYTES = {
    "weights fp32": 4,
    "weights bf16": 2,
    "running average fp32": 4,
    "gradients bf16": 2,
    "Adam's moments": 8,
}
"""Bytes a parameter that training in mixed precision holds: 20, as Cosmos counts them (section 5.1.4). Training in fp32
without a bf16 copy takes 4 + 4 + 4 + 8: the same."""


@dataclass(frozen=True)
class Cost:
    """One model and one batch of videos."""

    family: str
    layers: str
    "The network in words."
    parts: tuple[Part, ...]
    video: Video
    batch: int
    latents: tuple[int, int, int, int]
    "Channels, frames, rows, columns of one video's latents."
    tokens: int
    "What the transformer sees of one video; for a tokenizer, positions of its latents."
    text_tokens: int = 0
    checkpointed: int = 0
    "Numbers kept for the backward pass of the batch when only the inputs of blocks are, and one block is recomputed."
    paper_saved: int = 0
    "The same without checkpointing as the Cosmos paper counts it; 0 where it does not."
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Learnable numbers."""
        return total(self.parts).parameters

    @property
    def flops(self) -> int:
        """Of one forward pass (of encoding and decoding, for a tokenizer)."""
        return total(self.parts).flops

    @property
    def training_flops(self) -> int:
        """Of one training step, forward and backward. Checkpointing adds nearly a forward pass more."""
        whole = total(self.parts)
        return whole.flops + whole.backward

    @property
    def saved(self) -> int:
        """Numbers kept for the backward pass without checkpointing."""
        return total(self.parts).saved

    def memory(self) -> dict[str, int]:
        """Bytes by what they are for; activations in bf16, 2 bytes a number."""
        found = {
            "inference weights, bf16": 2 * self.parameters,
            "inference weights, fp32": 4 * self.parameters,
            **{f"training {name}": size * self.parameters for name, size in STATE_BYTES.items()},
            "training states, all": sum(STATE_BYTES.values()) * self.parameters,
        }
        if self.saved:
            found["training activations, bf16"] = 2 * self.saved
        if self.checkpointed:
            found["training activations, checkpointed"] = 2 * self.checkpointed
        if self.paper_saved:
            found["training activations, paper's count"] = 2 * self.paper_saved
        return found

    def values(self) -> dict[str, Any]:
        """Everything as plain JSON values."""
        return {
            "family": self.family,
            "layers": self.layers,
            "parameters": self.parameters,
            "parts": [dataclasses.asdict(part) for part in self.parts],
            "video": str(self.video),
            "batch": self.batch,
            "latents": list(self.latents),
            "tokens": self.tokens,
            "text_tokens": self.text_tokens,
            "flops_forward": self.flops,
            "flops_training_step": self.training_flops,
            "memory_bytes": self.memory(),
            "activation_bytes_per_latent_token": 2 * self.saved / (self.batch * self.tokens),
            "notes": self.notes,
        }


def cost_of(
    config: Config,
    video: Video | None = None,
    *,
    batch: int = 1,
    text_tokens: int = 512,
    tokenizer: TokenizerConfig | None = None,
) -> Cost:
    """The cost of a model for `batch` videos; without a video, Cosmos's (or the largest that a smaller model takes).

    tokenizer: whose latents a diffusion model works on; None: CV8x8x8's compression. text_tokens: attended to in each
    sample. Raises ConfigError for a video that does not fit, naming the nearest that do, and for other families.
    """
    if batch < 1:
        raise ConfigError(f"batch is {batch}; it must be at least 1")
    if isinstance(config, TokenizerConfig):
        return _tokenizer_cost(config, video or Video(1 if config.dimensions == 2 else 49, 720, 1280), batch)
    if isinstance(config, DiffusionConfig | DenoiserConfig):
        return _diffusion_cost(config, video, batch, text_tokens, tokenizer or TokenizerConfig())
    if isinstance(config, AutoregressiveConfig):
        return _autoregressive_cost(config, video, batch, text_tokens)
    raise ConfigError(f"{type(config).__name__}: costs are known of tokenizers and world models only")


def latent_size(config: TokenizerConfig, video: Video, *, multiple: tuple[int, int] = (1, 1)) -> tuple[int, int, int]:
    """(frames, rows, columns) of a video's latents. Raises ConfigError naming the nearest that fit; `multiple`: of latent
    positions that sides must be (a transformer's patch)."""
    try:
        frames = config.latent_frames(video.frames) if config.dimensions == 3 else video.frames
    except ValueError as error:
        raise ConfigError(f"video {video}: {error}") from None
    sides = []
    for name, side, patch in (("height", video.height, multiple[0]), ("width", video.width, multiple[1])):
        step = config.spatial_compression * patch
        if side % step:
            below = max(side // step, 1) * step
            near = f"{below} or {below + step}" if below < side else str(below)
            raise ConfigError(f"video {video}: {name} {side} must be a multiple of {step}; nearest: {near}")
        sides.append(side // config.spatial_compression)
    return frames, sides[0], sides[1]


def _tokenizer_cost(config: TokenizerConfig, video: Video, batch: int) -> Cost:
    frames, rows, columns = latent_size(config, video)
    p, video_frames = config.patch_size, video.frames
    if config.dimensions == 3:
        video_frames = 1 + (video.frames - 1) // p
    patches = Size(batch, video_frames, video.height // p, video.width // p)
    latents = Size(batch, frames, rows, columns)
    parts = [*encoder_parts(config, patches), *decoder_parts(config, latents)]
    if config.linear_code:
        parts += linear_code_parts(config, latents)
    kind = f"FSQ {list(config.levels)}: {config.vocabulary_size:,} symbols" if config.discrete else "continuous"
    words = (
        f"{'video' if config.dimensions == 3 else 'image'} tokenizer {config.temporal_compression}x"
        f"{config.spatial_compression}x{config.spatial_compression}, widths {list(config.channels)}, "
        f"Haar patches of {p}, {kind}"
    )
    return Cost(
        "tokenizer",
        words,
        tuple(parts),
        video,
        batch,
        (config.latent_channels, frames, rows, columns),
        frames * rows * columns,
    )


def _autoregressive_cost(config: AutoregressiveConfig, video: Video | None, batch: int, text_tokens: int) -> Cost:
    """Of one pass over a whole video of DV8x16x16's tokens. What training keeps for the backward pass is not counted."""
    tokenizer = TokenizerConfig(
        temporal_compression=config.temporal_compression, spatial_compression=16, latent_channels=len(config.levels)
    )
    video = video or Video(33, 640, 1024)
    size = latent_size(tokenizer, video, multiple=(config.patch, config.patch))
    positions = math.prod(size) // config.patch**2
    if positions > config.context_positions:
        raise ConfigError(
            f"video {video}: {positions} positions exceed the model's context of {config.context_positions}"
        )
    text = text_tokens if config.text_embed_dim else 0
    if config.vocabulary != "flat" or config.patch > 1 or config.action_width:
        raise ConfigError("costs are known of autoregressive models over plain tokens, without patches or actions")
    words = (
        f"{config.layers} layers, width {config.dim}, {config.heads} heads of {config.head_dim} over {config.kv_heads} of "
        f"keys, feed-forward {config.ffn_dim}, {config.vocabulary_size:,} symbols, "
        + ("a token to begin with, " if config.begin_token else "")
        + (f"text {config.text_embed_dim} wide" if text else "no text")
    )
    return Cost(
        "autoregressive",
        words,
        autoregressive_parts(config, batch=batch, positions=positions, text=text),
        video,
        batch,
        (1, *size),
        positions,
        text,
        notes={"tokenizer": f"tokens of {config.temporal_compression}x16x16"},
    )


def _diffusion_cost(
    config: DiffusionConfig | DenoiserConfig,
    video: Video | None,
    batch: int,
    text_tokens: int,
    tokenizer: TokenizerConfig,
) -> Cost:
    network = config.network_config if isinstance(config, DenoiserConfig) else config
    if isinstance(config, DenoiserConfig):  # it knows its tokenizer's compression in time
        tokenizer = TokenizerConfig.parse({**tokenizer.resolved(), "temporal_compression": config.temporal_compression})
    if tokenizer.dimensions != 3:
        raise ConfigError("tokenizer: images alone; a diffusion model works on a video tokenizer's latents")
    if video is None:
        video = _largest(network, tokenizer)
    size = latent_size(tokenizer, video, multiple=network.patch_size[1:])
    over = [f"{here} of {most}" for here, most in zip(size, network.max_size, strict=True) if here > most]
    if over:
        raise ConfigError(
            f"video {video}: latents {size} exceed the model's max_size {network.max_size} ({', '.join(over)})"
        )
    text = text_tokens if network.text_embed_dim else 0
    grid = tuple(side // patch for side, patch in zip(size, network.patch_size, strict=True))
    tokens = Tokens(batch, (grid[0], grid[1], grid[2]), text)
    parts = denoiser_parts(config, tokens) if isinstance(config, DenoiserConfig) else transformer_parts(config, tokens)
    heads, layers = network.num_attention_heads, network.num_layers
    words = (
        f"{layers} layers, width {network.width}, {heads} heads of {network.attention_head_dim}, feed-forward "
        f"{int(network.width * network.mlp_ratio)}, AdaLN-LoRA rank {network.adaln_lora_dim}, "
        + (f"text {network.text_embed_dim} wide" if network.text_embed_dim else "no text")
        + (", a channel for given frames" if network.condition_mask else "")
    )
    per_layer = tokens.all * network.width
    whole = total(parts).saved
    blocks = sum(part.saved for part in parts if part.name in ("self-attention", "cross-attention", "feed-forward"))
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


def _largest(network: DiffusionConfig, tokenizer: TokenizerConfig) -> Video:
    """Cosmos's 121 frames of 704x1280, or what a smaller model's positions cover."""
    t, h, w = network.max_size
    frames = min(121, 1 + (t - 1) * tokenizer.temporal_compression)
    unit = tokenizer.spatial_compression
    steps = [unit * patch for patch in network.patch_size[1:]]
    sides = [min(most, side * unit) // step * step for most, side, step in zip((704, 1280), (h, w), steps, strict=True)]
    return Video(frames, sides[0], sides[1])
