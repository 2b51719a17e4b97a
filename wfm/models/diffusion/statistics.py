"""Latents in the tokenizer's units <-> latents of one deviation: statistics by channel and latent frame.

Cosmos normalises video by a table of 16 channels x 16 latent frames and single images by a row of their own (section
5.1.3 of the paper; its files mean_std.pt and image_mean_std.pt). Here:

    image (one latent frame)     the image row where the model has one, else column 0
    video, latent frame i        column i; past the end of the table its last column
                                 (only the first latent frame, which holds one video frame, is of another kind: later
                                 columns of a causal tokenizer differ little, so the last one stands for all that follow)

A table of two columns (first latent frame, all later ones) is what the encoding stage's moments give.
"""

import torch
from torch import Tensor, nn

from wfm.errors import ConfigError


class LatentStatistics(nn.Module):
    """Buffers `mean`, `std` `[C, F]` and, with `image`, `image_mean`, `image_std` `[C]`, in the tokenizer's units;
    `scale` is the deviation that normalised latents have (sigma_data)."""

    mean: Tensor
    std: Tensor
    image_mean: Tensor
    image_std: Tensor

    def __init__(self, channels: int, frames: int, scale: float, *, image: bool = False) -> None:
        super().__init__()
        self.scale, self.has_image = scale, image
        self.register_buffer("mean", torch.zeros(channels, frames))
        self.register_buffer("std", torch.ones(channels, frames))
        if image:
            self.register_buffer("image_mean", torch.zeros(channels))
            self.register_buffer("image_std", torch.ones(channels))

    @torch.no_grad()
    def set(
        self, mean: Tensor, std: Tensor, *, image_mean: Tensor | None = None, image_std: Tensor | None = None
    ) -> None:
        """Take over a table `[C, f]`, f at most F; the last column fills what is left. Image rows are `[C]`.

        Raises ConfigError for another shape, a deviation that is not positive, or image rows that are missing or have
        no place.
        """
        channels, frames = self.mean.shape
        for name, table in (("mean", mean), ("std", std)):
            if table.ndim != 2 or table.shape[0] != channels or not 1 <= table.shape[1] <= frames:
                raise ConfigError(
                    f"latent statistics: {name} is {list(table.shape)}, wanted [{channels}, 1 to {frames}]; set "
                    f"statistics_frames to the number of columns"
                )
        if (image_mean is None) == self.has_image or (image_std is None) == self.has_image:
            raise ConfigError(
                f"latent statistics: image_statistics is {self.has_image} and image rows were "
                f"{'not ' if self.has_image else ''}given: change the one or the other"
            )
        rows = [std] if image_std is None else [std, image_std]
        if any(not (row > 0).all() for row in rows):
            raise ConfigError("latent statistics: a deviation is not positive; was the tokenizer's channel ever used?")
        column = torch.arange(frames)
        self.mean.copy_(mean[:, column.clamp(max=mean.shape[1] - 1)])
        self.std.copy_(std[:, column.clamp(max=std.shape[1] - 1)])
        if image_mean is not None and image_std is not None:
            self.image_mean.copy_(image_mean)
            self.image_std.copy_(image_std)

    def of(self, frames: int) -> tuple[Tensor, Tensor]:
        """Mean and deviation of a video of so many latent frames (1: an image), each `[C, frames]`."""
        if frames == 1 and self.has_image:
            return self.image_mean[:, None], self.image_std[:, None]
        column = torch.arange(frames, device=self.mean.device).clamp(max=self.mean.shape[1] - 1)
        return self.mean[:, column], self.std[:, column]

    def normalise(self, latents: Tensor, *, video: bool | None = None) -> Tensor:
        """Tokenizer's units -> deviation `scale`, `[B, C, T, H, W]`. A first latent frame cut from a video is one frame
        and no image: say video=True then."""
        mean, std = self._of(latents, video)
        return (latents - mean) / std * self.scale

    def denormalise(self, latents: Tensor, *, video: bool | None = None) -> Tensor:
        """The inverse of `normalise`."""
        mean, std = self._of(latents, video)
        return latents / self.scale * std + mean

    def _of(self, latents: Tensor, video: bool | None) -> tuple[Tensor, Tensor]:
        if latents.ndim != 5 or latents.shape[1] != len(self.mean):
            raise ConfigError(f"latents have shape {list(latents.shape)}, wanted [B, {len(self.mean)}, T, H, W]")
        frames = latents.shape[2]
        mean, std = self.of(2 if video and frames == 1 else frames)
        return mean[None, :, :frames, None, None], std[None, :, :frames, None, None]
