"""The second player: a 3-D patch discriminator, and the losses of both players.

Its verdict is one number for each patch of space and time (Isola et al. 2017, in 3-D), positive for a video, negative for a
reconstruction. Hinge losses; R1 (Mescheder et al. 2018) keeps it smooth at real videos. GroupNorm and not BatchNorm, so
that a verdict does not depend on the other videos of a batch.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wfm.models.tokenizer.loss_config import AdversarialConfig

_GROUPS = 8


class PatchDiscriminator(nn.Module):
    """Video `[B, C, T, H, W]` -> verdicts `[B, 1, t, h, w]`: each level halves height and width, each but the first
    time too, rounded up, so that an image (T = 1) is judged as well."""

    def __init__(self, config: AdversarialConfig, in_channels: int = 3) -> None:
        super().__init__()
        widths = [config.channels * min(8, 2**level) for level in range(config.levels)]
        layers: list[nn.Module] = [
            nn.Conv3d(in_channels, widths[0], (3, 4, 4), stride=(1, 2, 2), padding=1),
            nn.LeakyReLU(0.2),
        ]
        for before, after in pairwise(widths):
            groups = _GROUPS if after % _GROUPS == 0 else 1
            layers += [
                nn.Conv3d(before, after, (3, 4, 4), stride=2, padding=1),
                nn.GroupNorm(groups, after),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv3d(widths[-1], 1, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, video: Tensor) -> Tensor:
        return self.layers(video)


def discriminator_loss(real: Tensor, rebuilt: Tensor) -> Tensor:
    """Hinge loss of the discriminator from its verdicts."""
    return (F.relu(1 - real).mean() + F.relu(1 + rebuilt).mean()) / 2


def generator_loss(rebuilt: Tensor) -> Tensor:
    """What the tokenizer minimises: the negative mean verdict on its reconstructions."""
    return -rebuilt.mean()


def accuracy(real: Tensor, rebuilt: Tensor) -> Tensor:
    """Share of right verdicts, both kinds counting the same; 0.5 is a guess, and a verdict of exactly 0 counts half."""
    hits = [((sign * verdict.detach()).sign() + 1).mean() / 2 for sign, verdict in ((1, real), (-1, rebuilt))]
    return (hits[0] + hits[1]) / 2


def r1_penalty(discriminator: nn.Module, video: Tensor) -> Tensor:
    """Half the squared norm of the gradient of the summed verdict at real videos, for each patch and video: the same for
    any size of video, which a norm over the whole of it is not."""
    video = video.detach().requires_grad_(True)
    verdict = discriminator(video)
    (slope,) = torch.autograd.grad(verdict.sum(), video, create_graph=True)
    return slope.square().sum() / verdict.numel() / 2
