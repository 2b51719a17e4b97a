"""Configurations of the diffusion family: the network and its EDM objective. Torch-free."""

from typing import ClassVar, Literal, Self

import pydantic

from wfm.config import AtLeastZero, Config, Share, added
from wfm.models.slots import SlotConfig, of_slot, require_names


class DiffusionConfig(Config):
    """The network F alone; names follow diffusers' CosmosTransformer3DModel where it has the field.

    The defaults are those of Cosmos 1.0 except for the size (heads, layers), which is small.
    """

    FAMILY: ClassVar[str] = "diffusion"

    in_channels: int = pydantic.Field(16, ge=1)
    "Latent channels of the tokenizer, which are also the channels of the output."
    extra_channels: int = pydantic.Field(0, ge=0)
    "Further channels that the caller concatenates after the latents (what it shows of the past, tokens, ...)."
    condition_mask: bool = False
    """One more channel says which latent frames are given (video2world; diffusers counts it into in_channels: 17), in a product
    with the latents as in the published weights. (In a `DenoiserConfig`: that there is a past; see `published_mask`)"""
    concat_padding_mask: bool = True
    "One more channel, the last, says which pixels are padding."
    num_attention_heads: int = pydantic.Field(4, ge=1)
    "Attention heads a block."
    attention_head_dim: int = pydantic.Field(48, ge=6)
    "Width of one head, even and at least 6; the model's width is heads times this."
    num_layers: int = pydantic.Field(6, ge=1)
    "Transformer blocks."
    mlp_ratio: float = pydantic.Field(4.0, gt=0)
    "Hidden width of the feed-forward over the model's width."
    text_embed_dim: int = pydantic.Field(1024, ge=0)
    "Width of the text embeddings (T5-11B: 1024). 0: no cross-attention at all, and no text."
    adaln_lora_dim: int = pydantic.Field(256, ge=1)
    "Rank of the AdaLN-LoRA."
    max_size: tuple[int, int, int] = (128, 240, 240)
    "Largest latents (t, h, w) that fit: what the learned positions cover."
    patch_size: tuple[int, int, int] = (1, 2, 2)
    "Latent positions (t, h, w) folded into one token; t must be 1."
    rope_scale: tuple[float, float, float] = (2.0, 1.0, 1.0)
    "NTK extension of the rotary positions for (t, h, w). Cosmos: (2, 1, 1) in the 7B models, (2, 2, 2) in the 14B ones."
    rope_theta: float = pydantic.Field(10000.0, gt=1)
    "Base of the rotary frequencies (Cosmos: 10000). On a grid of a few tokens a side a lower one tells places apart better."
    extra_pos_embed: bool = True
    "Learned absolute positions, added at the input of every block."
    qk_norm_eps: float = pydantic.Field(1e-6, gt=0)
    "Epsilon of the norms of queries and keys: 1e-6 in Cosmos's own code, 1e-5 in diffusers."
    action_dim: int = pydantic.Field(0, ge=0)
    "Width of the action features that join the time embedding; 0: no action."
    conditions: dict[str, SlotConfig] = added({})
    """Further conditions by name: vectors that join the time embedding, contexts that every block attends to, channels that
    join the tokens by a product of their own."""
    open_gates: bool = False
    "Start with the gates of all blocks at 1 and not near 0 (Cosmos): a short run cannot wait for them to open."
    zero_output: bool = False
    "Start with an output of exactly 0 (Cosmos: not): where a guess stands already, the network begins as no change to it."

    @pydantic.field_validator("attention_head_dim")
    @classmethod
    def _head_is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError(f"a head of {value} cannot be rotated in pairs; use an even number")
        return value

    @pydantic.field_validator("max_size", "patch_size")
    @classmethod
    def _sizes_are_positive(cls, value: tuple[int, int, int]) -> tuple[int, int, int]:
        if min(value) < 1:
            raise ValueError(f"{value} has a size below 1")
        return value

    @pydantic.field_validator("rope_scale")
    @classmethod
    def _scales_are_positive(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if min(value) <= 0:
            raise ValueError(f"{value} has a factor that is not positive")
        return value

    @pydantic.model_validator(mode="after")
    def _patch_fits(self) -> Self:
        if self.patch_size[0] != 1:
            raise ValueError(f"patch_size[0] is {self.patch_size[0]}; a token must not span latent frames, use 1")
        if any(size < patch for size, patch in zip(self.max_size, self.patch_size, strict=True)):
            raise ValueError(f"max_size {self.max_size} is smaller than one patch {self.patch_size}")
        return self

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def latent_channels(self) -> int:
        """Channels of the latents that the caller gives: the tokenizer's and what it adds to them."""
        return self.in_channels + self.extra_channels

    @property
    def patch_channels(self) -> int:
        """Channels that are cut into patches: those given and the two masks."""
        return self.latent_channels + self.condition_mask + self.concat_padding_mask

    @property
    def channels(self) -> dict[str, int]:
        """Name -> channels of every condition that stands beside the latents, in order."""
        return {name: one.width for name, one in of_slot(self.conditions, "channels").items()}

    @property
    def vectors(self) -> dict[str, int]:
        """Name -> features of every condition that joins the time embedding."""
        own = {"action": self.action_dim} if self.action_dim else {}
        return own | {name: one.width for name, one in of_slot(self.conditions, "vector").items()}

    @property
    def contexts(self) -> dict[str, int]:
        """Name -> width of a token of every condition that the blocks attend to, in order."""
        own = {"text": self.text_embed_dim} if self.text_embed_dim else {}
        return own | {name: one.width for name, one in of_slot(self.conditions, "context").items()}

    @property
    def max_grid(self) -> tuple[int, int, int]:
        """`max_size` in tokens."""
        (t, h, w), (p, q, r) = self.max_size, self.patch_size
        return t // p, h // q, w // r


class DenoiserConfig(Config):
    """What a denoiser is: the network, the formulation around it, and what of the past it is shown. Cosmos's models
    are this with the defaults (`uncertainty=128` in training); the other options help small models."""

    FAMILY: ClassVar[str] = "diffusion"

    network: DiffusionConfig = DiffusionConfig()
    "The transformer. `extra_channels` and `action_dim` follow from the options below: leave them at 0."
    objective: Literal["edm", "flow"] = "edm"
    "What the network predicts: edm (Cosmos) or the velocity of rectified flow."
    sigma_data: float = pydantic.Field(0.5, gt=0)
    "Standard deviation that latents are normalised to."
    statistics_frames: int = pydantic.Field(16, ge=1)
    "Columns of the latent statistics (Cosmos: 16 latent frames); later frames take the last one."
    image_statistics: bool = False
    "Whether single images are normalised by statistics of their own (Cosmos: yes)."
    uncertainty: int = pydantic.Field(0, ge=0)
    "Random Fourier features of the learned uncertainty u(sigma) that weighs the loss (Cosmos: 128); 0: none."
    action_width: int = pydantic.Field(0, ge=0)
    "Components of the action vector; 0: no actions."
    temporal_compression: int = pydantic.Field(8, ge=1)
    "Video frames per latent frame after the first: how many actions lead to one latent frame."
    fps: float = pydantic.Field(24.0, gt=0)
    "Frames a second of the training video [1/s]; with actions given as rates, one action acts for 1 / fps seconds."
    fps_positions: bool = False
    "Rotary time in seconds, by `fps` or what a call says (Cosmos: yes, for video); off: it counts latent frames."
    repeat_last: bool = False
    "Concatenate the last given latent frame to the input of every frame."
    extrapolate: bool = False
    "Show the network, and the prior, the latents of the past's constant-motion extrapolation (wfm.data.motion)."
    published_mask: bool = added(False)
    """Which frames are given stands in one product with the latents, as Cosmos's published weights have it, and not in one of
    its own, which a model without a given frame does without."""
    hint_channels: int = pydantic.Field(0, ge=0)
    "Channels of a hint that the caller puts beside the latents (`Prepared.extra`): the diffusion decoder's tokens."
    linear_prior: bool = False
    "Denoise around the best linear guess from the last given frame, fitted in closed form before training."
    conditions: dict[str, SlotConfig] = added({})
    "Further conditions by name, which the fields above know nothing of (`wfm.conditions`)."

    @property
    def slots(self) -> dict[str, SlotConfig]:
        """Every condition by name: those that have fields of their own, then `conditions`."""
        found, channels = {}, self.network.in_channels
        if self.network.condition_mask:
            found["past"] = SlotConfig(slot="sequence", width=channels, tensors=("past", "given"))
        if self.extrapolate:
            found["extrapolation"] = SlotConfig(slot="channels", width=channels, tensors=("extrapolated",))
        if self.network.text_embed_dim:
            found["text"] = SlotConfig(
                slot="context", width=self.network.text_embed_dim, tensors=("text", "text_lengths")
            )
        if self.action_width:
            found["action"] = SlotConfig(slot="vector", width=self.action_dim, tensors=("actions",))
        return found | self.conditions

    @property
    def extra_channels(self) -> int:
        """Channels that are concatenated after the latents."""
        return self.hint_channels

    @property
    def action_dim(self) -> int:
        """Width of the action feature vector of one latent frame (see `wfm.conditions.action`)."""
        return self.action_width * (7 + self.temporal_compression)

    @property
    def network_config(self) -> DiffusionConfig:
        """The network with what follows from the other fields filled in."""
        mask = self.network.condition_mask
        widths = {
            "past": self.network.in_channels * self.repeat_last,
            "extrapolation": self.network.in_channels * self.extrapolate,
            **dict.fromkeys(self.conditions, 0),
            "given": int(mask and not self.published_mask),
        }
        made = {
            name: SlotConfig(slot="channels", width=width, tensors=(name,)) for name, width in widths.items() if width
        }
        derived = {
            "extra_channels": self.extra_channels,
            "action_dim": self.action_dim,
            "condition_mask": mask and self.published_mask,
            "conditions": {
                name: made.get(name) or self.conditions[name] for name in widths if name in made | self.conditions
            },
        }
        return DiffusionConfig.parse({**self.network.resolved(), **derived})

    @pydantic.model_validator(mode="after")
    def _one_story(self) -> Self:
        for name, nothing in (("extra_channels", 0), ("action_dim", 0), ("conditions", {})):
            stated, derived = getattr(self.network, name), getattr(self, name)
            if stated not in (nothing, derived):
                raise ValueError(
                    f"network.{name} is {stated} and follows from the other fields, which make it {derived}: leave it {nothing}"
                )
        fields = {
            "past": "network.condition_mask and repeat_last", "given": "network.condition_mask", "extrapolation": "extrapolate",
            "text": "network.text_embed_dim", "action": "action_width",
        }  # fmt: skip
        require_names(self.conditions, fields, ("vector", "context", "channels"))
        reads = [name for name in ("repeat_last", "extrapolate", "linear_prior") if getattr(self, name)]
        if reads and not self.network.condition_mask:
            raise ValueError(f"{', '.join(reads)} need a given past: set network.condition_mask, or switch them off")
        return self


class ObjectiveConfig(Config):
    """What both objectives share: what of the past is given, what is dropped, and how errors count."""

    sigma_max: float = pydantic.Field(80.0, gt=0)
    "Largest noise level; the one-step mean is the prediction from it."
    pure_noise_probability: float = pydantic.Field(0.3, ge=0, le=1)
    "Share of samples trained at sigma_max itself, where the best prediction is the mean of all futures (Cosmos: 0)."
    per_frame: bool = False
    "Draw a noise level of its own for every latent frame, not one for the sample (Cosmos: no)."
    condition_latents: tuple[int, ...] = (2,)
    "Numbers of given latent frames; each sample draws one of them. 9 video frames are 2 latents at compression 8."
    augment_mean: float = -4.0
    "Mean of ln sigma of the small noise put on the given latents (Cosmos: -3)."
    augment_std: AtLeastZero = 1.0
    "Standard deviation of the same (Cosmos: 2)."
    pixel_share: Share = 0.0
    "How far errors count by channel as they count in pixels: 0 all channels alike (Cosmos), 1 by their variance."
    action_dropout: float = pydantic.Field(0.1, ge=0, le=1)
    "Share of samples trained without their actions."
    text_dropout: float = pydantic.Field(0.2, ge=0, le=1)
    "Share of samples trained with an empty text in place of their own (Cosmos code: 0.2; paper: 0)."
    loss_scale: float = pydantic.Field(1.0, gt=0)
    "Factor of the loss (Cosmos paper: 10, post-training code: 1)."

    @pydantic.model_validator(mode="after")
    def _something_given(self) -> Self:
        if not self.condition_latents or min(self.condition_latents) < 0:
            raise ValueError(f"condition_latents is {self.condition_latents}; give at least one count, none negative")
        return self


class EDMConfig(ObjectiveConfig):
    """The EDM objective (Karras et al. 2022, as in Cosmos section 5.1.1)."""

    noise_mean: float = 0.0
    "Mean of ln sigma."
    noise_std: float = pydantic.Field(1.0, gt=0)
    "Standard deviation of ln sigma."
    adjust_video_noise: bool = False
    "Multiply sigma by the root of the number of latent frames (Cosmos: in video2world post-training)."

    @classmethod
    def cosmos(cls, *, video2world: bool) -> Self:
        """The values of Cosmos's released training code: text2world, or video2world with 0 to 2 given latents."""
        given = {"condition_latents": (0, 1, 2), "augment_mean": -3.0, "augment_std": 2.0, "adjust_video_noise": True}
        return cls.parse({"pure_noise_probability": 0.0, **(given if video2world else {"condition_latents": (0,)})})


class FlowConfig(ObjectiveConfig):
    """The rectified-flow objective: times between data (0) and noise (1), shifted(sigmoid(mean + std * normal))."""

    time_mean: float = 0.0
    "Mean of the logit of t."
    time_std: float = pydantic.Field(1.0, gt=0)
    "Standard deviation of the logit of t."
    shift: float = pydantic.Field(1.0, gt=0)
    "How far times are moved towards noise: t -> s t / (1 + (s - 1) t); 1: not at all."
