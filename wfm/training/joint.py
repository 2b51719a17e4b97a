"""Joint training on images and videos: now and then a batch of single frames, by the step alone."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from wfm.models.loss import Mean, Summed
from wfm.training.objective import SummedObjective

ValueT = TypeVar("ValueT")


class AdversarialObjective(SummedObjective, Protocol):
    """An objective that may have a discriminator, the second player."""

    def rival_loss(self, step: int, *, penalty_step: int | None = None) -> tuple[Tensor, dict[str, Tensor]] | None:
        """As of `TokenizerObjective`."""
        ...


class JointObjective(Summed):
    """An objective that sees single frames at every `every`-th step (0, every, 2 every, ...) and videos at the others.

    Which step it is decides alone, so a resumed run goes on as it would have. Numbers of image steps are named
    `image_...`, for they cannot be compared with a video's.
    """

    def __init__(self, objective: AdversarialObjective, *, every: int, per_window: int, penalty_every: int = 1) -> None:
        self.objective, self.every, self.per_window = objective, every, per_window
        self.penalty_every = penalty_every

    def is_image_step(self, step: int) -> bool:
        """Whether the batch of this step is of images."""
        return bool(self.every) and step % self.every == 0

    def counts(self, model: Any, batch: Mapping[str, Tensor], step: int) -> dict[str, float]:
        """Of the objective, on what it is shown: each frame of an image step is a video of its own."""
        each = self.per_window if self.is_image_step(step) else 1
        return {name: each * count for name, count in self.objective.counts(model, batch, step).items()}

    def sums(self, model: Any, batch: Mapping[str, Tensor], step: int) -> tuple[dict[str, Tensor], dict[str, Mean]]:
        """Of the objective, on what it is shown."""
        if not self.is_image_step(step):
            return self.objective.sums(model, batch, step)
        images = {"video": single_frames(batch["video"], batch["seeds"], self.per_window)}
        sums, values = self.objective.sums(model, images, step)
        return sums, _of_images(values)

    def rival_loss(self, step: int) -> tuple[Tensor, dict[str, Tensor]] | None:
        """The second player's loss on what `loss` has just made. Its penalty on real videos, due at every so many-th step,
        waits for the next step where that step is of images: it would else meet nothing but images when one interval
        divides the other."""
        if self.is_image_step(step):
            given = self.objective.rival_loss(step, penalty_step=-1)  # nobody's turn
            return None if given is None else (given[0], _of_images(given[1]))
        waited = step > 0 and self.is_image_step(step - 1)
        due = step - 1 if waited and (step - 1) % self.penalty_every == 0 else step
        return self.objective.rival_loss(step, penalty_step=due)


def _of_images(values: Mapping[str, ValueT]) -> dict[str, ValueT]:
    return {f"image_{name}": value for name, value in values.items()}


def single_frames(video: Tensor, seeds: Tensor, count: int) -> Tensor:
    """`count` evenly spaced frames of each video `[B, C, T, H, W]`, as videos of one frame `[B count, C, 1, H, W]`; where
    they begin follows from the seeds."""
    frames = video.shape[2]
    # bits that neither the crop's place nor the mirror uses up
    places = [[((seed >> 24) + k * frames // count) % frames for k in range(count)] for seed in seeds.tolist()]
    index = torch.tensor(places, device=video.device)[:, None, :, None, None]  # [B, 1, count, 1, 1]
    taken = video.take_along_dim(index, dim=2)  # [B, C, count, H, W]
    return taken.transpose(1, 2).flatten(0, 1).unsqueeze(2)
