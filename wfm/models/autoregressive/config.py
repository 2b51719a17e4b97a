"""The configuration of the autoregressive family and of its objective; the network's defaults are Cosmos 1.0's 4B
model, its flags make small models learn.

Torch-free, so that keys and emitters can read it.
"""

import math
from typing import ClassVar, Literal, Self

import pydantic
from pydantic import model_validator

from wfm.config import AboveZero, AtLeastZero, Config, Count, Natural, Share, added
from wfm.models.slots import SlotConfig, of_slot, require_names


class YarnConfig(Config):
    """How far rotary frequencies are stretched for videos longer than those of the first training. The defaults are Cosmos's
    12B: its code stretches all three axes (the paper says time alone), taking the height for the width, and leaves the
    attention's temperature as it is."""

    original_shape: tuple[int, int, int] = (3, 40, 64)
    """Latent frames, rows and columns of the first training."""
    beta_fast: float = pydantic.Field(4.0, gt=0)
    """Turns from which a frequency is kept."""
    beta_slow: float = pydantic.Field(1.0, gt=0)
    """Turns up to which a frequency is divided by ``scale``."""
    scale: float = pydantic.Field(2.0, gt=0)
    """By how much low frequencies are divided."""

    @model_validator(mode="after")
    def _sane(self) -> Self:
        if min(self.original_shape) < 1 or self.beta_fast <= self.beta_slow:
            raise ValueError(
                f"original_shape {self.original_shape} must be positive, beta_fast {self.beta_fast} above beta_slow "
                f"{self.beta_slow}"
            )
        return self


class AutoregressiveConfig(Config):
    """A causal transformer over the tokens ``[B, t, h, w]`` of a finite-scalar-quantised (FSQ) video tokenizer.

    Two independent choices separate the large model from the small one. ``order``: ``"raster"`` predicts one token at
    a time (Cosmos); ``"frame"`` predicts all tokens of the next latent frame at once from all earlier frames, so a
    frame costs one forward pass and attention is causal by blocks of a frame. ``vocabulary``: ``"flat"`` has one
    embedding row and one logit per token id (64,000 in Cosmos); ``"digits"`` embeds and predicts the FSQ digits of a
    token separately, given the past independently of each other: 39 logits in place of 64,000, which is what a model
    that trains for minutes can fill. Cosmos is raster + flat.
    """

    FAMILY: ClassVar[str] = "autoregressive"

    levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)
    """FSQ levels of the tokenizer, lowest digit first; the vocabulary is their product (64,000)."""
    dim: Count = 4096
    """Width of the residual stream."""
    layers: Count = 16
    """Number of transformer blocks."""
    heads: Count = 32
    """Query heads."""
    kv_heads: Count = 8
    """Key and value heads (grouped-query attention); divides ``heads``."""
    head_dim: int = 128
    """Width of one head; even, and at least 6 so that each of the three RoPE axes has a pair. heads * head_dim may
    differ from dim."""
    ffn_dim: Count = 14336
    """Inner width of the SwiGLU feed-forward."""
    rope_theta: float = pydantic.Field(500_000.0, gt=1)
    """Base of the rotary frequencies on all three axes."""
    yarn: YarnConfig | None = None
    """Stretched rotary frequencies (Cosmos: in the 12B alone); None: plain ones."""
    absolute_embedding: bool = False
    """Adds fixed sinusoids of the place (t, h, w) at the input of every layer (Cosmos: in the 5B and the 13B)."""
    text_embed_dim: int = pydantic.Field(0, ge=0)
    """Width of the text embeddings that every layer attends to (T5-11B: 1024, in the 5B and the 13B); 0: no text."""
    begin_token: bool = added(False)
    """Every sequence begins with a token of its own, the id after the vocabulary's (64,000), from which the first token is
    predicted too; the table of embeddings has rows for it, up to a multiple of 64, the output has none (Cosmos: in the
    5B and the 13B). Needs ``order="raster"`` and ``vocabulary="flat"``."""
    context_positions: int = pydantic.Field(12_800, ge=2)
    """Positions of the longest video (Cosmos: 5 latent frames of 40 x 64), a token to begin with not counted."""
    norm_eps: AboveZero = 1e-5
    """Epsilon of every RMSNorm."""
    order: Literal["raster", "frame"] = "raster"
    """What one step predicts: the next token in raster order, or the whole next latent frame (see the class)."""
    vocabulary: Literal["flat", "digits"] = "flat"
    """How tokens are embedded and predicted (see the class)."""
    patch: int = 1
    """Tokens per side that share one transformer position: patch x patch tokens enter and leave together. 1 = Cosmos;
    more than 1 needs ``order="frame"``, whose tokens are predicted in parallel anyhow."""
    copy_bias: bool = False
    """Adds to the logits a learned score for each pair (level of this digit now, level predicted), so that "nothing
    changes" need not be learned through all layers. Needs ``vocabulary="digits"``."""
    extrapolate: bool = False
    """Adds to the input that predicts a token the token which the past's constant-motion extrapolation has at its place
    (wfm.data.motion); with ``copy_bias`` its levels score the next ones too."""
    medusa_heads: int = pydantic.Field(0, ge=0)
    """Medusa heads, each of which drafts one token more after the next (Cosmos: 9 serve best); 0: none. They need
    ``order="raster"``: in frame order a step predicts a whole frame as it is."""
    action_width: Natural = 0
    """Numbers per video frame in the action spec; 0: no actions."""
    action_hidden: Count = 512
    """Inner width of the two-layer embedding of the action, and of every other vector."""
    fps: AboveZero = 24.0
    """Frames a second of the training video [1/s]; an action given as a rate acts for 1 / fps seconds."""
    temporal_compression: Count = 8
    """Video frames per latent frame after the first (the tokenizer's), so how many actions lead to one latent frame."""
    conditions: dict[str, SlotConfig] = added({})
    """Further conditions by name, which the fields above know nothing of (`wfm.conditions`): vectors that are added to the
    inputs which predict a latent frame, contexts that every layer attends to."""

    @classmethod
    def cosmos(cls, name: Literal["4b", "5b", "12b", "13b"]) -> Self:
        """The network of a published model: 4b and 12b continue video, 5b and 13b follow text too."""
        larger, reads = name in ("12b", "13b"), name in ("5b", "13b")
        return cls(
            dim=5120 if larger else 4096,
            layers=40 if larger else 16,
            yarn=YarnConfig() if name == "12b" else None,
            absolute_embedding=reads,
            text_embed_dim=1024 if reads else 0,
            begin_token=reads,
        )

    @property
    def slots(self) -> dict[str, SlotConfig]:
        """Every condition by name: those that have fields of their own, then `conditions`."""
        found = {"past": SlotConfig(slot="sequence", width=1, tensors=("past",))}
        if self.extrapolate:
            found["extrapolation"] = SlotConfig(slot="channels", width=1, tensors=("extrapolated",))
        if self.text_embed_dim:
            found["text"] = SlotConfig(slot="context", width=self.text_embed_dim, tensors=("text", "text_lengths"))
        if self.action_width:
            width = self.action_width * (7 + self.temporal_compression)
            found["action"] = SlotConfig(slot="vector", width=width, tensors=("actions",))
        return found | self.conditions

    @property
    def contexts(self) -> dict[str, int]:
        """Name -> width of a token of every condition that the layers attend to, in order."""
        return {name: one.width for name, one in of_slot(self.slots, "context").items()}

    @property
    def vocabulary_size(self) -> int:
        """How many token ids there are: the product of the levels."""
        return math.prod(self.levels)

    @property
    def embedding_rows(self) -> int:
        """Rows of the table of embeddings of a flat vocabulary without patches."""
        return (self.vocabulary_size // 64 + 1) * 64 if self.begin_token else self.vocabulary_size

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads={self.heads} is not a multiple of kv_heads={self.kv_heads}")
        if self.head_dim % 2 or self.head_dim < 6:
            raise ValueError(f"head_dim={self.head_dim}: must be even and at least 6 (three RoPE axes)")
        if self.patch < 1 or (self.patch > 1 and self.order != "frame"):
            raise ValueError(f'patch={self.patch} with order={self.order!r}: more than 1 needs order="frame"')
        if self.medusa_heads and self.order != "raster":
            raise ValueError(f'medusa_heads={self.medusa_heads} with order={self.order!r}: they need order="raster"')
        if self.begin_token and (self.order, self.vocabulary, self.extrapolate) != ("raster", "flat", False):
            raise ValueError(
                f"begin_token=True with order={self.order!r}, vocabulary={self.vocabulary!r}, extrapolate={self.extrapolate}: "
                'it needs order="raster", vocabulary="flat" and no extrapolation'
            )
        if self.copy_bias and self.vocabulary != "digits":
            raise ValueError('copy_bias=True needs vocabulary="digits"')
        if min(self.levels, default=0) < 2:
            raise ValueError(f"levels={self.levels}: each FSQ digit needs at least 2 levels")
        fields = {
            "past": "its order", "extrapolation": "extrapolate", "text": "text_embed_dim", "action": "action_width",
        }  # fmt: skip
        require_names(self.conditions, fields, ("vector", "context"))
        return self


class AutoregressiveObjectiveConfig(Config):
    """Weights of the loss and the noise on its inputs; the defaults are Cosmos's, which has no input noise."""

    z_loss: AtLeastZero = 1e-4
    """Weight of the mean squared logsumexp."""
    input_noise: Share = 0.0
    """Highest share of input symbols that is moved to a neighbouring level (digits) or replaced by any id (flat); each
    sample draws its share between 0 and this. A model that continues its own predictions reads errors, which clean
    training never shows it."""
    label_smoothing: Share = 0.0
    """Probability mass of the target that is spread over all choices."""
    ordinal_smoothing: AtLeastZero = 0.0
    """Width of the Gaussian, in levels, that replaces the one-hot target of a digit; 0 = one-hot. Neighbouring levels
    are nearly right."""
    action_dropout: Share = 0.1
    """Share of samples trained without their actions."""
    text_dropout: float = pydantic.Field(0.2, ge=0, le=1)
    """Share of samples trained with an empty text in place of their own."""
    medusa_weight: float = pydantic.Field(0.2, ge=0)
    """Weight of the Medusa heads' cross-entropies beside the model's own."""
    medusa_decay: float = pydantic.Field(0.8, gt=0, le=1)
    """How much less each head counts than the one before."""
