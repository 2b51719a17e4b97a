"""Causal patches, and the closed-form start of a tokenizer: the principal components of the patches.

The first frame is cut into patches of 1 x s x s pixels, each later group of c frames into patches of c x s x s.
Either kind has a linear code of its own. The best linear code of k numbers in squared error is the projection on the
first k principal components, which is an eigenvalue problem and takes seconds; a network then only has to learn what
a linear map cannot do. (Cosmos has no such start: its networks begin at random behind fixed Haar wavelets.)
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from wfm.errors import ConfigError


def cut(video: Tensor, temporal: int, spatial: int, *, opening: bool = True) -> tuple[Tensor, Tensor]:
    """Video `[B, C, 1 + c n, H, W]` -> first patches `[B, 1, h, w, C s s]` and later ones `[B, n, h, w, C c s s]`.

    Not `opening`: frames `c n` that continue a video, without first patches (`[B, 0, ...]`).
    """
    batch, channels, frames, height, width = video.shape
    if (frames - opening) % temporal or height % spatial or width % spatial:
        raise ConfigError(
            f"video of {frames} frames of {height}x{width}: frames must be 1 + {temporal}n and sides multiples of {spatial}"
        )
    h, w = height // spatial, width // spatial
    tiles = video.reshape(batch, channels, frames, h, spatial, w, spatial).permute(0, 2, 3, 5, 1, 4, 6)  # B T h w C s s
    first = tiles[:, : int(opening)].flatten(4)
    later = tiles[:, int(opening) :].unflatten(1, (-1, temporal)).permute(0, 1, 3, 4, 2, 5, 6, 7).flatten(4)
    return first, later


def join(first: Tensor, later: Tensor, temporal: int, spatial: int) -> Tensor:
    """The inverse of `cut`."""
    tiles = first.unflatten(4, (-1, spatial, spatial))  # B 1 h w C s s
    grouped = later.unflatten(4, (temporal, -1, spatial, spatial)).permute(0, 1, 4, 2, 3, 5, 6, 7)  # B n c h w C s s
    video = torch.cat([tiles, grouped.flatten(1, 2)], dim=1).permute(0, 4, 1, 2, 5, 3, 6)  # B C T h s w s
    return video.flatten(5, 6).flatten(3, 4)


class LinearCode(nn.Module):
    """A linear code of patches: `encode` to k numbers, `decode` back. Starts empty; `start` fits it in closed
    form."""

    def __init__(self, patch_size: int, channels: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(patch_size, channels)
        self.decoder = nn.Linear(channels, patch_size)

    def encode(self, patches: Tensor) -> Tensor:
        return self.encoder(patches)

    def decode(self, codes: Tensor) -> Tensor:
        return self.decoder(codes)

    @torch.no_grad()
    def start(self, mean: Tensor, covariance: Tensor, *, whiten: bool) -> None:
        """Set both maps from the mean `[P]` and covariance `[P, P]` (fp64) of the patches.

        Components come in order of variance, each with the sign that makes its largest entry positive (so that the
        result does not depend on the solver). `whiten` divides each by its standard deviation, as a quantiser wants.
        """
        channels = self.encoder.out_features
        values, vectors = torch.linalg.eigh(covariance)
        components = vectors.flip(-1)[:, :channels].T  # [k, P]
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        components = components * largest.sign()
        deviation = values.flip(-1)[:channels].clamp(min=1e-8).sqrt()
        scale = deviation if whiten else torch.ones_like(deviation)
        encoder = components / scale[:, None]
        self.encoder.weight.copy_(encoder)
        self.encoder.bias.copy_(-encoder @ mean)
        self.decoder.weight.copy_((components * scale[:, None]).T)
        self.decoder.bias.copy_(mean)

    @torch.no_grad()
    def refit_decoder(self, codes: Tensor, patches: Tensor) -> None:
        """The best linear decoder, in squared error, of codes `[N, k]` as they really are (quantised) to patches
        `[N, P]`."""
        ones = torch.cat([codes, codes.new_ones(codes.shape[0], 1)], dim=1).double()
        gram = ones.T @ ones + 1e-6 * codes.shape[0] * torch.eye(ones.shape[1], dtype=torch.float64)
        solution = torch.linalg.solve(gram, ones.T @ patches.double())  # [k + 1, P]
        self.decoder.weight.copy_(solution[:-1].T)
        self.decoder.bias.copy_(solution[-1])


class Moments:
    """Running mean and covariance of rows, in fp64."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.total = torch.zeros(size, dtype=torch.float64)
        self.outer = torch.zeros(size, size, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Rows `[N, size]`; products in fp32 or better."""
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        self.count += rows.shape[0]
        self.total += rows.sum(0, dtype=torch.float64)
        self.outer += (rows.T @ rows).double()

    def mean(self) -> Tensor:
        return self.total / self.count

    def covariance(self) -> Tensor:
        mean = self.mean()
        return self.outer / self.count - torch.outer(mean, mean)


def patch_moments(videos: Iterable[Tensor], channels: int, temporal: int, spatial: int) -> tuple[Moments, Moments]:
    """Moments of the first and the later patches over batches of videos `[B, channels, T, H, W]`.

    Every frame that starts a group counts as a first frame too, since any frame may open a video.
    """
    first = Moments(channels * spatial**2)
    later = Moments(channels * temporal * spatial**2)
    for video in videos:
        opening, groups = cut(video, temporal, spatial)
        later.add(groups.flatten(0, 3))
        first.add(opening.flatten(0, 3))
        first.add(groups.unflatten(-1, (temporal, -1))[..., 0, :].flatten(0, 3))
    return first, later
