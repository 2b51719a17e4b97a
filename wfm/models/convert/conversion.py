"""What comes of reading a foreign checkpoint: the module, and everything that did not fit into it."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from wfm.config import Config
from wfm.errors import DataError

_MOST_NUMBERS = 1_000_000


@dataclass(frozen=True)
class Statistics:
    """Mean and deviation of a tokenizer's latents, in its own units: what a diffusion model normalises by.

    Cosmos keeps them beside the tokenizer (mean_std.pt), diffusers within its configuration (latents_mean).
    """

    mean: Tensor
    "`[C, F]`, F latent frames, or `[C, 1]`."
    std: Tensor
    "As `mean`."
    image_mean: Tensor | None = None
    "`[C]`: of single images (image_mean_std.pt)."
    image_std: Tensor | None = None

    @classmethod
    def table(cls, mean: object, std: object, channels: int, source: str) -> "Statistics":
        """From two flat tables of `channels` rows, as both peers keep them. Raises DataError for what is not that."""
        return cls(*_rows(mean, std, channels, source))

    def with_images(self, mean: object, std: object, channels: int, source: str) -> "Statistics":
        """The same with the rows of single images."""
        image_mean, image_std = _rows(mean, std, channels, source)
        if image_mean.shape[1] != 1:
            raise DataError(
                f"{source}: {image_mean.numel()} numbers for {channels} channels of an image; wanted one each"
            )
        return Statistics(self.mean, self.std, image_mean[:, 0], image_std[:, 0])


def _rows(mean: object, std: object, channels: int, source: str) -> tuple[Tensor, Tensor]:
    tables = []
    for name, values in (("mean", mean), ("std", std)):
        if isinstance(values, Tensor) and values.numel() > _MOST_NUMBERS:  # one number may claim to be any many
            raise DataError(
                f"{source}: the latents' {name} has {values.numel():,} numbers; at most {_MOST_NUMBERS:,} are read"
            )
        try:
            flat = torch.as_tensor(values, dtype=torch.float32).flatten()
        except (TypeError, ValueError, RuntimeError, OverflowError):
            raise DataError(
                f"{source}: the latents' {name} is a {type(values).__name__}, not a table of numbers"
            ) from None
        if not flat.isfinite().all():
            raise DataError(f"{source}: the latents' {name} holds a number that is NaN or infinite")
        if name == "std" and not (flat > 0).all():
            raise DataError(
                f"{source}: the latents' std holds {float(flat.min()):g}; a deviation is above 0. A channel that was never "
                "used has none: leave the table out (null)"
            )
        if flat.numel() == 0 or flat.numel() % channels:
            raise DataError(
                f"{source}: the latents' {name} has {flat.numel()} numbers, not so many for each of {channels} channels"
            )
        tables.append(flat.reshape(channels, -1))
    if tables[0].shape != tables[1].shape:
        raise DataError(f"{source}: the latents' mean is {list(tables[0].shape)}, their std {list(tables[1].shape)}")
    return tables[0], tables[1]


@dataclass(frozen=True)
class Conversion:
    """A module read from elsewhere, and what came with it."""

    module: nn.Module
    "In evaluation mode."
    config: Config
    "The module's own."
    statistics: Statistics | None = None
    "Of the tokenizer's latents, where the source has them."
    left_out: dict[str, str] = field(default_factory=dict)
    "Tensors of the source that have no place in the module, and why."
