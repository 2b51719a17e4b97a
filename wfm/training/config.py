"""Configurations of training runs. Torch-free. The budget is in steps, never in time: a result must not depend on
the machine's load."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

import pydantic

from wfm.conditions.condition import CONDITIONS
from wfm.config import AboveZero, AtLeastZero, Config, Count, Decay, Natural, Seed, Share, added, how
from wfm.data.loader.config import LoaderConfig
from wfm.data.reading.config import ReadingConfig
from wfm.errors import ConfigError
from wfm.models.family import FAMILIES, Family, FamilyConfig
from wfm.models.parallel_config import ParallelConfig
from wfm.registry import Named
from wfm.training.data_config import DataConfig
from wfm.training.guard_config import GuardConfig
from wfm.training.profile_config import ProfileConfig

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
    decay_shape: Literal["linear", "cosine"] = added("linear")
    "How it falls: along a line, or half a cosine."
    final_share: Share = 0.02
    "Learning rate at the end over its peak, before any cool-down."
    cooldown_share: Share = added(0.0)
    """Last share of the steps, after the decay, over which the learning rate falls from `final_share` of its peak (above
    0) to nothing, linearly; 0: none. With `decay_share` at most 1."""
    gradient_clip: AtLeastZero = 1.0
    "Largest norm of the gradient; 0: no limit."
    ema_share: float = pydantic.Field(0.05, ge=0, le=WIDEST)
    """Width of the running average of the weights over the length of training so far (power EMA), at most 0.3: no power gives a
    wider one; 0: no average."""
    ema: Literal["power", "constant"] = added("power")
    "power: an average as wide as `ema_share` says; constant: with the decay `ema_decay`."
    ema_decay: Decay = added(0.9999)
    "Decay a step of a constant average; the first steps forget faster."
    precision: Literal["auto", "fp32", "bf16"] = added("auto")
    """What a model computes in (torch.autocast); weights, their average and the optimiser's state are in fp32 whatever stands
    here. auto: bf16 on a GPU, fp32 on a CPU."""
    log_every: Count = 10
    "Steps between points of the curves."
    validate_every: Natural = 150
    "Steps between validations; the last step always validates. 0: only the last."
    data: DataConfig = added(DataConfig())
    "Which samples it reads, at what rates, in batches or packs, and in which phases."
    loader: LoaderConfig = added(LoaderConfig())
    "How its samples are read ahead."
    reading: ReadingConfig = added(ReadingConfig())
    "How records are read from disk and buckets."
    guard: GuardConfig = added(GuardConfig())
    "Which batches are left out because they would spoil the weights."
    mixture: str = how("")
    """Table of clip_id and weight, such as the mixture.parquet of `wfm taxonomy`: how often each clip is drawn. Empty: all
    alike. It enters the key by its sha256."""
    checkpoint_every: Count = how(100)
    "Steps between checkpoints."
    checkpoint_seconds: AtLeastZero = how(60.0)
    "Seconds after which a checkpoint is written at the next step even so."
    checkpoint_store_seconds: AtLeastZero = how(0.0)
    """Least seconds between checkpoints that go to the store, where they outlive the machine; 0: each, as fast as the store
    takes them. The last one before a stop always goes."""
    checkpoint_drain_seconds: AtLeastZero = how(15.0)
    """Longest wait for the store at a stop and at the end. Of the grace between SIGTERM and SIGKILL (``WFM_GRACE_SECONDS``) it
    gets what step and save have left at most."""
    device: Annotated[str, pydantic.Field(pattern=r"^(|cpu|cuda(:\d{1,3})?)$")] = how("")
    """Where it trains: cpu, cuda, cuda:1; of several ranks on a machine, cuda is to each its own (LOCAL_RANK). Empty: where
    `loader.device` puts the batches."""
    accumulation: Count = how(1)
    """Micro-batches that a rank's part of each global batch goes through the model in, one after the other: less memory, the
    same step. Never more than the rank that has most of a step has samples of it, or packs. Ranks share gradients once a
    step."""
    peak_flops: AtLeastZero = how(0.0)
    "Peak arithmetic of a rank's device at the type it trains in [FLOP/s]: what MFU is of; 0: none is told."
    tensorboard: str = how("")
    "Folder that gets the curves as TensorBoard's event files too, in a folder for each training; empty: none."
    profile: ProfileConfig = added(ProfileConfig())
    "Which steps are looked at closely."
    threads: Natural = how(0)
    "CPU threads of torch; 0: as torch chooses."
    stall_seconds: AboveZero = how(600.0)
    """Seconds without a step, a validation or a save after which a run counts as hanging; its first step may take three times
    as long."""

    @pydantic.model_validator(mode="after")
    def _sane(self) -> Self:
        for name in ("steps", "batch_size", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.decay_share <= 1:
            raise ValueError(f"decay_share is {self.decay_share}; it is a share between 0 and 1")
        if self.decay_share + self.cooldown_share > 1 and self.cooldown_share:
            raise ValueError(
                f"decay_share {self.decay_share} and cooldown_share {self.cooldown_share} are more than all steps: the decay "
                "ends where the cool-down begins, so make them 1 together at most"
            )
        if self.cooldown_share and self.decay_share and not self.final_share:
            raise ValueError(
                f"final_share is 0 and cooldown_share {self.cooldown_share}: the decay ends at a rate of 0, and the steps of "
                "the cool-down would learn nothing; set final_share above 0, or cooldown_share=0"
            )
        if self.ema == "constant" and not self.ema_share:
            raise ValueError(
                "ema is 'constant' and ema_share 0, which means no average: leave ema_share out (a constant average goes by "
                "ema_decay alone), or set ema='power' and keep none"
            )
        if self.device and self.loader.device not in ("cpu", self.device):
            raise ValueError(
                f"device is {self.device!r} and loader.device {self.loader.device!r}: say one of them; batches go where it "
                "trains"
            )
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


class WorldTrainingConfig(ContinuedConfig):
    """What training a world model of any family has in common."""

    tokenizer_family: Annotated[str, Named(FAMILIES, "network")] = "tokenizer"
    "Family of the tokenizer that made the latents and decodes what is watched."
    conditions: Annotated[dict[str, dict[str, Any]], Named(CONDITIONS)] = added({})
    """What the model is conditioned on besides its past, text and actions: a condition's name (`wfm.conditions`, or another
    package's) -> its fields."""
    parallel: ParallelConfig = ParallelConfig()
    "Activation checkpointing and compiled blocks of the transformer."
    unfrozen_layers: int = pydantic.Field(-1, ge=-1)
    """Transformer blocks, counted from the last, that learn, with what stands behind them (Cosmos trains Medusa heads with
    2); -1: everything learns."""
    validation_windows: Natural = 32
    "Windows of the val split that are watched; 0: all."

    @pydantic.model_validator(mode="before")
    @classmethod
    def _slots_follow(cls, given: Any) -> Any:
        """What a network calls its conditions are the slots of those above, which follow from the data: whoever states some
        there means these."""
        for name, section in given.items() if isinstance(given, Mapping) else ():
            network = section.get("network") if isinstance(section, Mapping) else None
            for path, stated in ((name, section), (f"{name}.network", network)):
                if name != "conditions" and isinstance(stated, Mapping) and stated.get("conditions"):
                    raise ValueError(
                        f"{path}.conditions is {stated['conditions']!r} and follows from the stage's own field 'conditions' "
                        'and the data: leave it out, and name there what the model is told, as in conditions={"camera":{}}'
                    )
        return given


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
