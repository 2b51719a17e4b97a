"""Configurations of training runs. Torch-free. The budget is in steps, never in time: a result must not depend on
the machine's load."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

import pydantic

from wfm.config import AtLeastZero, Config, Count, Decay, Natural, Seed, Share, how
from wfm.errors import ConfigError
from wfm.models.family import FAMILIES, Family, FamilyConfig
from wfm.models.parallel_config import ParallelConfig
from wfm.models.text.config import TextConfig
from wfm.models.video_tokenizer import TokenizerCard
from wfm.registry import Named

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


class TrainedConfig(FamilyConfig):
    """What training stages of every kind have in common; a family's own fields stand beside these, in its card."""

    family: Annotated[str, Named(FAMILIES, "fit")]
    "The family that is trained."
    training: TrainingConfig = TrainingConfig()
    "Steps, batch and optimiser."

    @classmethod
    def of_family(cls, family: Family) -> type[Config] | None:
        """Its training config."""
        return family.training

    def own_files(self) -> dict[str, tuple[str, str]]:
        """Further files from outside that this family reads: field -> (path, what to say when it is no file)."""
        return {}


class ContinuedConfig(TrainedConfig):
    """Training that may go on from a model."""

    initial: str = how("")
    """Folder of a trained model of the same network to go on from; empty: none. What it learned comes along, statistics too,
    and its files enter the key by sha256."""


class TokenizerTraining(ContinuedConfig):
    """What training a tokenizer of any family has in common."""

    family: Annotated[str, Named(FAMILIES, "fit")] = "tokenizer"


class EncodingConfig(Config):
    """Which windows a tokenizer encodes for the world models."""

    tokenizer_family: Annotated[str, Named(FAMILIES, "network")] = "tokenizer"
    "Family of the tokenizer."
    splits: tuple[str, ...] = ("train", "val")
    "Splits of the data set to encode. Evaluation reads the test split itself, from frames."
    size: tuple[int, int] = (64, 64)
    "Height and width that frames are resized to [pixels]."
    num_frames: Count = 33
    "Frames of a window, given and predicted together."
    stride_frames: Count = 8
    "Distance between the starts of windows within a clip [frames]."
    guess_from: Natural = 0
    """Encode too what constant motion makes of a window's first so many frames, 2 or more, for models that are shown it; 0:
    no."""
    statistics_frames: int = pydantic.Field(2, ge=1)
    """Columns of the latent statistics (Cosmos: 16): one for each of the first latent frames, the last one for all from there
    on. Only the first latent frame is of another kind, so 2 are enough; it holds one frame and serves images too."""
    mirror: bool = False
    "Add the left-right mirror of every training window."
    mirror_signs: tuple[float, ...] = ()
    "What mirroring multiplies each action component by: -1 where left and right change places. Needed with actions."
    text: TextConfig = TextConfig()
    "Encode the clips' captions too, for models that follow text."
    batch_size: Count = how(32)
    "Windows encoded at once."
    threads: Natural = how(0)
    "CPU threads of torch; 0: as torch chooses."

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Self:
        if self.guess_from == 1 or self.guess_from >= self.num_frames:
            raise ValueError(
                f"guess_from is {self.guess_from}; give 0 for no guess, or 2 to {self.num_frames - 1} frames: one frame has no "
                f"motion to go on, and something must follow within the {self.num_frames}"
            )
        return self

    def grid(self, tokenizer: TokenizerCard) -> tuple[int, int, int] | None:
        """Latents (t, h, w) of a window; None where the tokenizer cannot take so many frames."""
        try:
            frames = tokenizer.latent_frames(self.num_frames)
        except ValueError:
            return None
        return frames, self.size[0] // tokenizer.spatial_compression, self.size[1] // tokenizer.spatial_compression


class WorldTrainingConfig(ContinuedConfig):
    """What training a world model of any family has in common."""

    tokenizer_family: Annotated[str, Named(FAMILIES, "network")] = "tokenizer"
    "Family of the tokenizer that made the latents and decodes what is watched."
    parallel: ParallelConfig = ParallelConfig()
    "Activation checkpointing and compiled blocks of the transformer."
    unfrozen_layers: int = pydantic.Field(-1, ge=-1)
    """Transformer blocks, counted from the last, that learn, with what stands behind them (Cosmos trains Medusa heads with
    2); -1: everything learns."""
    validation_windows: Natural = 32
    "Windows of the val split that are watched; 0: all."


class DecoderTraining(TrainedConfig):
    """What training a decoder of any family has in common."""

    family: Annotated[str, Named(FAMILIES, "fit")] = "diffusion_decoder"

    tokenizer_family: Annotated[str, Named(FAMILIES, "network")] = "tokenizer"
    "Family of both tokenizers."


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


def misstated(config: Config, known: dict[str, Any], name: str) -> Iterator[tuple[str, str]]:
    """The problem that `filled` would raise, as a family's `problems` tell it; nothing where there is none."""
    try:
        filled(config, known, name)
    except ConfigError as error:
        yield "", str(error)
