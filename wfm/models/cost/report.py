"""What a model costs for a video: parameters and FLOPs by part, memory, latents and tokens."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from wfm.config import Config
from wfm.errors import ConfigError
from wfm.models.cost.parts import Part, Video, total
from wfm.models.family import family_of
from wfm.models.video_tokenizer import TokenizerCard

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
    once: str = "one forward"
    "What `flops` is of, in words."
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
    tokenizer: TokenizerCard | None = None,
) -> Cost:
    """The cost of a model for `batch` videos; without a video, Cosmos's (or the largest that a smaller model takes).

    tokenizer: whose latents a world model works on; None: that of its published models. text_tokens: attended to in each
    sample. Raises ConfigError for a video that does not fit, naming the nearest that do, and for families whose costs are not
    known.
    """
    if batch < 1:
        raise ConfigError(f"batch is {batch}; it must be at least 1")
    found: Cost = family_of(config).cost(config, video, batch=batch, text_tokens=text_tokens, tokenizer=tokenizer)
    return found


def latent_size(config: TokenizerCard, video: Video, *, multiple: tuple[int, int] = (1, 1)) -> tuple[int, int, int]:
    """(frames, rows, columns) of a video's latents. Raises ConfigError naming the nearest that fit; `multiple`: of latent
    positions that sides must be (a transformer's patch)."""
    try:
        frames = config.latent_frames(video.frames)
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
