"""Configurations of training runs. Torch-free. The budget is in steps, never in time: a result must not depend on
the machine's load."""

from typing import Any, Literal, Self

import pydantic

from wfm.config import AtLeastZero, Config, Count, Decay, Natural, Seed, Share, how
from wfm.errors import ConfigError
from wfm.models.autoregressive.config import AutoregressiveConfig, AutoregressiveObjectiveConfig
from wfm.models.diffusion.config import DenoiserConfig, DiffusionConfig, EDMConfig, FlowConfig
from wfm.models.diffusion_decoder.config import DecoderConfig
from wfm.models.parallel_config import ParallelConfig
from wfm.models.tokenizer.config import TokenizerConfig
from wfm.models.tokenizer.loss_config import ReconstructionConfig

WIDEST = 0.3
"""Largest `ema_share`; see `wfm.training.ema`."""


class TrainingConfig(Config):
    """What a run does; the same for every family."""

    steps: int = 600
    "Optimiser steps."
    batch_size: int = 16
    "Samples a step, over all ranks."
    seed: Seed = 0
    "Seed of initialisation, data order and everything random of each sample."
    optimizer: Literal["adamw", "muon"] = "adamw"
    "adamw, or muon: orthogonalised momentum for the hidden matrices and AdamW for the rest."
    learning_rate: float = pydantic.Field(2e-3, gt=0)
    "Peak learning rate of AdamW."
    matrix_learning_rate: float = pydantic.Field(0.02, gt=0)
    "Peak learning rate of Muon's matrices."
    weight_decay: AtLeastZero = 0.01
    "Decoupled weight decay of matrices."
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    "Decay rates of AdamW's two moments."
    warmup_steps: int = pydantic.Field(30, ge=0)
    "Steps of linear warm-up; 0: none."
    decay_share: float = 0.7
    "Last share of the steps over which the learning rate falls to `final_share` of its peak, linearly."
    final_share: Share = 0.02
    "Learning rate at the end over its peak."
    gradient_clip: AtLeastZero = 1.0
    "Largest norm of the gradient; 0: no limit."
    ema_share: float = pydantic.Field(0.05, ge=0, le=WIDEST)
    """Width of the running average of the weights over the length of training so far (power EMA), at most 0.3: no power gives a
    wider one; 0: no average."""
    log_every: Count = 10
    "Steps between points of the curves."
    validate_every: Natural = 150
    "Steps between validations; the last step always validates. 0: only the last."
    mixture: str = how("")
    """Table of clip_id and weight, such as the mixture.parquet of `wfm taxonomy`: how often each clip is drawn. Empty: all
    alike. It enters the key by its sha256."""
    checkpoint_every: Count = how(100)
    "Steps between checkpoints."
    checkpoint_seconds: AtLeastZero = how(60.0)
    "Seconds after which a checkpoint is written at the next step even so."
    threads: Natural = how(0)
    "CPU threads of torch; 0: as torch chooses."

    @pydantic.model_validator(mode="after")
    def _sane(self) -> Self:
        for name in ("steps", "batch_size", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.decay_share <= 1:
            raise ValueError(f"decay_share is {self.decay_share}; it is a share between 0 and 1")
        return self


class TokenizerTrainingConfig(Config):
    """What a tokenizer is, what it learns from, and how."""

    model: TokenizerConfig = TokenizerConfig(
        patch_size=8,
        channels=(192, 192),
        encoder_blocks=1,
        mid_blocks=0,
        mid_attention=False,
        end_kernel=1,
        z_channels=64,  # 16 would be a bottleneck beside the linear code, whose networks start at zero
        linear_code=True,
    )
    "The network; the default is the demo's. Stated in part, the rest is Cosmos's CV8x8x8."
    loss: ReconstructionConfig = ReconstructionConfig()
    "What counts as a good reconstruction."
    training: TrainingConfig = TrainingConfig(
        steps=500, batch_size=8, learning_rate=1e-3, matrix_learning_rate=0.01, validate_every=100
    )
    "Steps, batch and optimiser."
    size: tuple[int, int] = (64, 64)
    "Height and width that frames are resized to [pixels]."
    num_frames: int = 33
    "Frames of a window read from the data set; 1 + temporal_compression * n."
    stride_frames: Count = 32
    "Distance between the starts of windows within a clip [frames]."
    crop_frames: int = 17
    "Frames of a training crop within a window; 1 + temporal_compression * n."
    max_windows: Natural = 2000
    "Most windows kept in memory, chosen by hash; 0: all."
    validation_windows: Natural = 32
    "Windows of the val split that are watched; 0: all."
    start_windows: Count = 256
    "Windows from which the principal components are taken."
    image_every: int = 0
    "One batch in so many, from the first on, is of single frames of the windows (Cosmos's joint training); 0: none."
    images_per_window: Count = 4
    "Frames that an image batch takes from each window, evenly spaced."
    initial: str = how("")
    """Folder of a tokenizer to go on from, such as a published one for another domain; empty: none. `model` must be what it
    holds, and its files enter the key by sha256."""

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Self:
        for name in ("num_frames", "crop_frames"):
            try:
                self.model.latent_frames(getattr(self, name))
            except ValueError as error:
                raise ValueError(f"{name} = {getattr(self, name)}: {error}") from None
        if self.crop_frames > self.num_frames:
            raise ValueError(f"crop_frames {self.crop_frames} is more than num_frames {self.num_frames}")
        if 1 < self.model.temporal_compression >= self.crop_frames:
            raise ValueError(f"crop_frames {self.crop_frames} holds no latent frame after the first: use more")
        for side in self.size:
            if side % self.model.spatial_compression:
                raise ValueError(f"size {self.size} is not a multiple of {self.model.spatial_compression}")
        if self.model.in_channels != 3:
            raise ValueError(f"model.in_channels is {self.model.in_channels}; the frames of a data set have 3")
        if self.image_every < 0 or self.image_every == 1:
            raise ValueError(f"image_every is {self.image_every}; give 0 for videos only, or 2 and more")
        if self.image_every and not 1 <= self.images_per_window <= self.crop_frames:
            raise ValueError(
                f"images_per_window is {self.images_per_window}; a crop has 1 to {self.crop_frames} frames to take"
            )
        return self


class WorldTrainingConfig(Config):
    """What a world model is and how it learns. Fields that follow from the data (latent channels, columns of the
    statistics, FSQ levels, action width, text width, compression, rate, masks) are filled in from the latents, the
    signals and text that are joined to them, and the tokenizer."""

    family: Literal["diffusion", "autoregressive"] = "diffusion"
    "Which of the two is trained; the other's configuration is not used."
    diffusion: DenoiserConfig = DenoiserConfig(
        network=DiffusionConfig(
            condition_mask=True,
            adaln_lora_dim=64,
            max_size=(16, 64, 64),
            rope_scale=(1.0, 1.0, 1.0),
            zero_output=True,
        ),
        repeat_last=True,
        linear_prior=True,
    )
    "The diffusion transformer and what is around it. Stated in part, the rest is a plain Cosmos denoiser's."
    edm: EDMConfig = EDMConfig()
    "Its objective where `diffusion.objective` is edm."
    flow: FlowConfig = FlowConfig()
    "Its objective where `diffusion.objective` is flow."
    autoregressive: AutoregressiveConfig = AutoregressiveConfig()
    "The causal transformer."
    cross_entropy: AutoregressiveObjectiveConfig = AutoregressiveObjectiveConfig()
    "Its objective."
    training: TrainingConfig = TrainingConfig()
    "Steps, batch and optimiser."
    parallel: ParallelConfig = ParallelConfig()
    "Activation checkpointing and compiled blocks of the transformer."
    initial: str = how("")
    """Folder of a trained model of the same network to go on from; empty: none. Medusa heads that it lacks start new. Its
    statistics and prior come along, and its files enter the key by sha256."""
    unfrozen_layers: int = pydantic.Field(-1, ge=-1)
    """Transformer blocks, counted from the last, that learn, with the norm, the output and the Medusa heads behind them
    (Cosmos trains Medusa heads with 2); -1: everything learns."""
    whitening: Share = 1.0
    "How far latent channels are brought to one deviation: 1 each on its own, 0 all by a common factor."
    validation_windows: Natural = 32
    "Windows of the val split that are watched; 0: all."

    @pydantic.model_validator(mode="after")
    def _sees_motion(self) -> Self:
        counts = self.denoising.condition_latents
        if self.family == "diffusion" and self.diffusion.extrapolate and max(counts) < 2:
            raise ValueError(
                f"diffusion.extrapolate shows what the given frames' motion leads to, and {self.diffusion.objective}."
                f"condition_latents is {counts}: give 2 or more latent frames (one holds a single frame), or switch "
                "extrapolate off"
            )
        return self

    @property
    def denoising(self) -> EDMConfig | FlowConfig:
        """The diffusion objective that is used."""
        return self.edm if self.diffusion.objective == "edm" else self.flow


class DecoderTrainingConfig(Config):
    """What a diffusion decoder is and how it learns. Fields that follow from the data (latent channels, columns of the
    statistics, FSQ levels) are filled in from the latents and the tokenizers."""

    model: DecoderConfig = DecoderConfig(
        denoiser=DenoiserConfig(
            network=DiffusionConfig(
                text_embed_dim=0,
                concat_padding_mask=False,
                adaln_lora_dim=64,
                max_size=(16, 64, 64),
                rope_scale=(1.0, 1.0, 1.0),
                zero_output=True,
            ),
        ),
        embedding="codes",
        mark_first=True,
        linear_prior=True,
    )
    "The denoiser and the tokens it is shown."
    objective: EDMConfig = EDMConfig(
        condition_latents=(0,), text_dropout=0.2, pixel_share=1.0, pure_noise_probability=0.3
    )
    "Its objective; `text_dropout` is the share of samples that are told nothing."
    training: TrainingConfig = TrainingConfig()
    "Steps, batch and optimiser."
    parallel: ParallelConfig = ParallelConfig()
    "Activation checkpointing and compiled blocks of the transformer."
    validation_windows: Natural = 32
    "Windows of the val split that are watched; 0: all."


def filled(config: Config, known: dict[str, Any], name: str) -> dict[str, Any]:
    """The values of `config` with what the data decide filled in. Raises ConfigError where it states something else: a
    value other than the field's default."""
    values, defaults = config.resolved(), type(config)().resolved()
    for field, value in known.items():
        stated = values[field]
        if stated not in (value, defaults[field]):
            raise ConfigError(
                f"{name}.{field} is {stated!r} and follows from the data and the tokenizer, which make it {value!r}: leave it "
                "out"
            )
    return {**values, **known}
