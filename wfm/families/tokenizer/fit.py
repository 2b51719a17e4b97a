"""Train a tokenizer on a data set: read windows, start from principal components or from another tokenizer, train, save.

fit_tokenizer(dataset, config, out=..., scratch=...) -> counts
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from wfm.data.loader.arrays import ArrayDataset
from wfm.data.loader.loading import Loader
from wfm.data.mixture import Mixture
from wfm.data.pixels import as_video, video_batch
from wfm.data.psnr import psnr
from wfm.data.windows import Window, windows
from wfm.errors import ConfigError
from wfm.families.tokenizer.card import TokenizerTrainingConfig
from wfm.models.folder import count_parameters, load_model, save_model
from wfm.models.seeding import seed_everything
from wfm.models.tokenizer.network import Tokenizer
from wfm.models.tokenizer.objective import TokenizerObjective
from wfm.parallel.ranks import ALONE, Ranks
from wfm.pulse import beat
from wfm.training.checkpoint import Scratch
from wfm.training.external_files import external_files
from wfm.training.joint import JointObjective
from wfm.training.loop import train
from wfm.training.objective import Rival
from wfm.training.order import data_plan, mixture_note

if TYPE_CHECKING:
    from wfm.artifacts import Artifact

START_BATCH = 32


@dataclass(frozen=True)
class Kept:
    """Windows kept for training: frames in memory, and how many more there were."""

    dataset: ArrayDataset
    left_out: int


def fit_tokenizer(
    dataset: "Artifact",
    config: TokenizerTrainingConfig,
    *,
    out: Path,
    scratch: Scratch,
    stopping: Callable[[], bool] = lambda: False,
    mixture: Mixture | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Train on the train split, drawn by `mixture`, watch the val split; rank 0 writes `out/model/` and `out/metrics.jsonl`.
    Returns what was counted."""
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    data = keep(_read(dataset, "train", config), config.max_windows)
    held = keep(_read(dataset, "val", config), config.validation_windows)
    seed_everything(config.training.seed)
    tokenizer = first_weights(config, data.dataset.arrays["frames"])
    objective = TokenizerObjective(config.loss, channels=config.model.in_channels, ranks=ranks)
    joint = JointObjective(
        objective,
        every=config.image_every,
        per_window=config.images_per_window,
        penalty_every=config.loss.adversarial.r1_every,
    )
    loader = Loader(
        data.dataset,
        data_plan(data.dataset.sample_ids, config.training, mixture),
        transform=video_batch(config.crop_frames),
    )
    note = mixture_note(data.dataset.sample_ids, mixture)
    watched = held.dataset.arrays["frames"]
    result = train(
        tokenizer,
        joint,
        loader,
        config.training,
        scratch=scratch,
        stopping=stopping,
        validate=lambda model: {"psnr": reconstruction_psnr(model, watched)},
        rival=rival_of(objective, config, joint),
        run={"config": config.what(), "files": external_files(config), **note},
        description="tokenizer",
        ranks=ranks,
    )
    if ranks.leads:
        save_model(tokenizer, config.model, out / "model", extra={"validation": result.final})
        shutil.copyfile(result.curve, out / "metrics.jsonl")
    return {
        "windows": len(data.dataset),
        "windows_left_out": data.left_out,
        "parameters": count_parameters(tokenizer),
        "steps": result.steps,
        "resumed_from": result.resumed_from,
        "samples_per_second": result.samples_per_second,
        "validation": result.final,
        **note,
    }


def first_weights(config: TokenizerTrainingConfig, frames: Tensor) -> Tokenizer:
    """The tokenizer as training finds it: `initial`'s, or a new one started from windows uint8 `[N, T, H, W, 3]`.

    Raises ConfigError when `initial` holds another model than `model`.
    """
    if not config.initial:
        tokenizer = Tokenizer(config.model)
        tokenizer.start([as_video(part) for part in frames[: config.start_windows].split(START_BATCH)])
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


def _read(dataset: "Artifact", split: str, config: TokenizerTrainingConfig) -> Iterable[Window]:
    return windows(dataset, split, num_frames=config.num_frames, stride_frames=config.stride_frames, size=config.size)


def keep(found: Iterable[Window], limit: int) -> Kept:
    """At most `limit` windows (0: all), chosen and ordered by the hash of their ids, so that all clips have a share.

    Raises ConfigError when there is none.
    """
    order: list[tuple[bytes, str, np.ndarray]] = []
    left = 0
    for window in found:
        order.append((hashlib.sha256(window.sample_id.encode()).digest(), window.sample_id, window.frames))
        if limit and len(order) >= 2 * limit:  # memory stays bounded on any data set
            order.sort(key=lambda row: row[0])
            left += len(order) - limit
            del order[limit:]
    order.sort(key=lambda row: row[0])
    kept = order[:limit] if limit else order
    if not kept:
        raise ConfigError("the data set has no clip long enough for one window: use fewer frames or longer clips")
    frames = torch.from_numpy(np.stack([row[2] for row in kept]))
    return Kept(ArrayDataset(tuple(row[1] for row in kept), {"frames": frames}), left + len(order) - len(kept))


@torch.no_grad()
def reconstruction_psnr(model: Tokenizer, frames: Tensor) -> float:
    """Mean over videos `[N, T, H, W, 3]` (uint8) of the PSNR of their reconstruction [dB]."""
    values = []
    for part in frames.split(16):
        video = as_video(part)
        values.append(psnr((model(video).clamp(-1, 1) - video).square().mean(dim=(1, 2, 3, 4)), peak=2.0))
        beat("validation")
    return float(torch.cat(values).mean())
