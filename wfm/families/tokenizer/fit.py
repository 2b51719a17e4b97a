"""How a tokenizer is trained: its windows, its start from principal components or from another tokenizer, what is watched.

open_tokenizer(inputs, config, ranks) -> what `wfm.training.fit` trains
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wfm.data.passes import batches
from wfm.data.pixels import as_video, video_batch
from wfm.data.psnr import psnr
from wfm.data.samples import Samples
from wfm.data.window_samples import WindowSamples, list_windows
from wfm.errors import ConfigError
from wfm.families.tokenizer import cost
from wfm.families.tokenizer.card import TokenizerTrainingConfig
from wfm.models.folder import load_model
from wfm.models.tokenizer.network import Tokenizer
from wfm.models.tokenizer.objective import TokenizerObjective
from wfm.parallel.ranks import ALONE, Ranks
from wfm.pulse import beat
from wfm.training.device import device_of
from wfm.training.joint import JointObjective
from wfm.training.objective import Rival
from wfm.training.order import require_buckets
from wfm.training.task import Learner, Task

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

START_BATCH = 32


def open_tokenizer(inputs: "Mapping[str, Artifact]", config: TokenizerTrainingConfig, ranks: Ranks = ALONE) -> Task:
    """A tokenizer on the windows of the train split of `inputs["dataset"]`; the val split is watched."""
    require_buckets(config.training, config.family)
    dataset = inputs["dataset"]
    samples = windows_of(dataset, "train", config, config.max_windows, config.window_cache_bytes)
    held = windows_of(dataset, "val", config, config.validation_windows, 0)

    def begin() -> Learner:
        tokenizer = first_weights(config, samples)
        objective = TokenizerObjective(config.loss, channels=config.model.in_channels, ranks=ranks)
        joint = JointObjective(
            objective,
            every=config.image_every,
            per_window=config.images_per_window,
            penalty_every=config.loss.adversarial.r1_every,
        )
        watched = [batch["frames"] for _, batch in batches(held)]
        return Learner(
            tokenizer,
            joint,
            config.model,
            lambda model: {"psnr": reconstruction_psnr(model, watched)},
            rival_of(objective, config, joint),
            work=partial(cost.work, config.model),
        )

    counts = {"windows": len(samples), "windows_left_out": samples.left_out}
    return Task({"windows": samples}, begin, counts, video_batch(config.crop_frames))


def first_weights(config: TokenizerTrainingConfig, samples: Samples) -> Tokenizer:
    """The tokenizer as training finds it: `initial`'s, or a new one started from the first windows (`frames` uint8
    `[T, H, W, 3]`).

    Raises ConfigError when `initial` holds another model than `model`.
    """
    if not config.initial:
        tokenizer = Tokenizer(config.model)
        first = range(min(config.start_windows, len(samples.ids)))
        tokenizer.start([as_video(batch["frames"]) for _, batch in batches(samples, size=START_BATCH, rows=first)])
        return tokenizer
    tokenizer, card = load_model(config.initial)
    if card.family != config.family:
        raise ConfigError(f"initial = {config.initial!r} holds a model of family {card.family!r}, not a tokenizer")
    held, wanted = card.config.resolved(), config.model.resolved()
    other = [f"{name}: {held[name]!r}, model has {wanted[name]!r}" for name in held if held[name] != wanted[name]]
    if other:
        raise ConfigError(f"initial = {config.initial!r} is another tokenizer than `model`: {'; '.join(other)}")
    found: Tokenizer = tokenizer
    return found


def rival_of(
    objective: TokenizerObjective, config: TokenizerTrainingConfig, joint: JointObjective | None = None
) -> Rival | None:
    """The discriminator as the loop's second player, if the loss has one: AdamW at its own rate and moments. `joint`: what
    mixes images into its videos, if anything does."""
    if objective.discriminator is None:
        return None
    own = config.loss.adversarial
    changed = {"optimizer": "adamw", "learning_rate": own.learning_rate, "betas": own.betas}
    return Rival(objective.discriminator, (joint or objective).rival_loss, config.training.model_copy(update=changed))


def windows_of(
    dataset: "Artifact", split: str, config: TokenizerTrainingConfig, most: int, cache_bytes: int
) -> WindowSamples:
    """At most `most` windows of a split (0: all), decoded when they are read. Raises ConfigError when there is none."""
    found = list_windows(dataset, split, num_frames=config.num_frames, stride_frames=config.stride_frames, most=most)
    return WindowSamples(dataset, found, size=config.size, cache_bytes=cache_bytes)


@torch.no_grad()
def reconstruction_psnr(model: Tokenizer, videos: Iterable[Tensor]) -> float:
    """Mean over videos, batches `[N, T, H, W, 3]` (uint8), of the PSNR of their reconstruction [dB]."""
    values, device = [], device_of(model)
    for part in (part for frames in videos for part in frames.split(16)):
        video = as_video(part.to(device))
        values.append(psnr((model(video).clamp(-1, 1) - video).square().mean(dim=(1, 2, 3, 4)), peak=2.0))
        beat("validation")
    return float(torch.cat(values).mean())
