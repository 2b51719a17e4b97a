"""Joint training on images and videos: now and then a batch of single frames, by the step alone."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wfm.training.objective import Objective


class JointObjective:
    """An objective that sees single frames at every `every`-th step (0, every, 2 every, ...) and videos at the others.

    Which step it is decides alone, so a resumed run goes on as it would have. Numbers of image steps are named
    `image_...`, for they cannot be compared with a video's.
    """

    def __init__(self, objective: Objective, *, every: int, per_window: int) -> None:
        self.objective, self.every, self.per_window = objective, every, per_window

    def is_image_step(self, step: int) -> bool:
        """Whether the batch of this step is of images."""
        return bool(self.every) and step % self.every == 0

    def loss(self, model: Any, batch: Mapping[str, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
        if not self.is_image_step(step):
            return self.objective.loss(model, batch, step)
        images = {"video": single_frames(batch["video"], batch["seeds"], self.per_window)}
        loss, values = self.objective.loss(model, images, step)
        return loss, {f"image_{name}": value for name, value in values.items()}


def single_frames(video: Tensor, seeds: Tensor, count: int) -> Tensor:
    """`count` evenly spaced frames of each video `[B, C, T, H, W]`, as videos of one frame `[B count, C, 1, H, W]`; where
    they begin follows from the seeds."""
    frames = video.shape[2]
    # bits that neither the crop's place nor the mirror uses up
    places = [[((seed >> 24) + k * frames // count) % frames for k in range(count)] for seed in seeds.tolist()]
    index = torch.tensor(places, device=video.device)[:, None, :, None, None]  # [B, 1, count, 1, 1]
    taken = video.take_along_dim(index, dim=2)  # [B, C, count, H, W]
    return taken.transpose(1, 2).flatten(0, 1).unsqueeze(2)
