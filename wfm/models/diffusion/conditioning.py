"""What a denoiser is conditioned on: the past, text, and actions per video frame -> one vector per latent frame.

An action at frame t acts between frames t and t + 1. Latent frame i (i > 0) shows frames (i - 1) c + 1 ... i c at
temporal compression c, so the actions that lead to it are those at frames (i - 1) c ... i c - 1. What a latent frame
needs to know is how far the camera has come since the last frame that is given (the accumulated action) and how it
moves now; both are sums that a network would otherwise have to learn to take.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from wfm.errors import ConfigError


def actions_by_latent(actions: Tensor, latent_frames: int, compression: int) -> Tensor:
    """Actions `[B, T, A]` grouped by the latent frame they lead to: `[B, t, c, A]`; the first latent frame has zeros.

    Only the (t - 1) c actions that act inside the video are used. Raises ConfigError when there are fewer.
    """
    needed = (latent_frames - 1) * compression
    if actions.shape[1] < needed:
        raise ConfigError(
            f"actions: {actions.shape[1]} frames given, {needed} needed for {latent_frames} latent frames of {compression}"
        )
    groups = actions[:, :needed].unflatten(1, (latent_frames - 1, compression))  # [B, t - 1, c, A]
    return (
        torch.cat([torch.zeros_like(groups[:, :1]), groups], dim=1)
        if latent_frames > 1
        else groups.new_zeros(actions.shape[0], 1, compression, actions.shape[2])
    )


def accumulated(groups: Tensor, given: Tensor) -> Tensor:
    """Actions summed up from the last given frame to the end of each latent frame: `[B, t, A]`, negative before it.

    groups `[B, t, c, A]`, given int64 `[B]` (latent frames given; 0 counts from the first frame).
    """
    total = groups.sum(2).cumsum(1)  # [B, t, A]
    last = (given - 1).clamp(min=0)[:, None, None].expand(-1, 1, total.shape[-1])
    return total - total.gather(1, last)


class ActionFeatures(nn.Module):
    """The action vector of each latent frame that the network reads, `[B, T, features]`.

    [1, accumulated, its sines and cosines, the actions that lead to the frame]; where no action is known a learned
    vector stands in its place (its first entry starts at 0). The network's action layers turn it into what joins the
    time embedding and the AdaLN vector (Cosmos action models, section 6.2).
    """

    FREQUENCIES = (1.0, 2.0, 4.0)

    def __init__(self, width: int, compression: int, fps: float) -> None:
        super().__init__()
        self.width, self.compression, self.fps = width, compression, fps
        self.null = nn.Parameter(torch.zeros(1 + width * (1 + 2 * len(self.FREQUENCIES) + compression)))

    def features(self, actions: Tensor, latent_frames: int, given: Tensor) -> Tensor:
        """`[B, T, features]` of normalised actions `[B, frames, A]`."""
        groups = actions_by_latent(actions, latent_frames, self.compression)
        total = accumulated(groups, given) / self.fps  # seconds times the typical rate
        waves = [f(total * k) for k in self.FREQUENCIES for f in (torch.sin, torch.cos)]
        return torch.cat([torch.ones_like(total[..., :1]), total, *waves, groups.flatten(2)], dim=-1)

    def forward(self, actions: Tensor | None, known: Tensor | None, latent_frames: int, given: Tensor) -> Tensor:
        """actions `[B, frames, A]` normalised or None; known bool `[B]`: where False the null vector is used; given
        int64 `[B]`. Raises ConfigError for another width, batch, or too few frames."""
        batch = len(given)
        null = self.null.expand(batch, latent_frames, -1)
        if actions is None:
            return null
        if actions.ndim != 3 or actions.shape[0] != batch or actions.shape[-1] != self.width:
            raise ConfigError(
                f"actions have shape {list(actions.shape)}, wanted [{batch}, frames, {self.width}]: the model was built "
                f"for {self.width} components"
            )
        found = self.features(actions, latent_frames, given)
        return found if known is None else torch.where(known[:, None, None], found, null)


@dataclass(frozen=True)
class Conditions:
    """Everything but the noisy latents that a denoiser is told. B samples, T latent frames; units as the model's."""

    past: Tensor | None = None
    """Latents `[B, C, T, H, W]`, normalised: their first `given` frames are the past, the others the guess, which only
    a model that is shown one reads."""
    given: Tensor | int = 0
    "Given latent frames, int64 `[B]` or one number for all."
    text: Tensor | None = None
    "Text embeddings `[B, L, D]`; None with a model that reads text: the empty text, all zeros."
    text_lengths: Tensor | None = None
    "int64 `[B]`: embeddings from there on are not seen; None: all are, as Cosmos does with zeros past the end."
    actions: Tensor | None = None
    "Normalised actions `[B, frames, A]`."
    known: Tensor | None = None
    "bool `[B]`: where False the null action stands in place of `actions`."
    fps: float | Tensor | None = None
    """Frames a second [1/s] for the rotary positions, a number or `[B]`; None: the model's own rate with
    `fps_positions`, else plain positions."""
    padding_mask: Tensor | None = None
    "`[B, 1, h, w]` in pixels, 0 where the picture is real; None: all of it."
    augment_sigma: Tensor | float = 0.0
    "Level of the noise on the given frames, `[B]` or a number."
    augment_noise: Tensor | None = None
    "Unit noise `[B, C, T, H, W]` for the given frames; needed where augment_sigma is not 0."
    release_given: bool = False
    """Denoise the given frames along with the others once the noise level has come down to augment_sigma (Cosmos at
    inference; the mask channel goes on saying that they are given). Training always holds them."""

    def without(self, *names: str, text: Tensor | None = None, text_lengths: Tensor | None = None) -> Self:
        """The unconditional twin for guidance: without `text`, `actions` or both. The given frames stay, as in Cosmos.
        `text` is a negative prompt, used in place of the empty text."""
        for name in names:
            if name not in ("text", "actions"):
                raise ConfigError(f"guidance drops {name!r}: choose from text, actions")
        changes: dict[str, Tensor | None] = {}
        if "text" in names:
            changes |= {"text": text, "text_lengths": text_lengths}
        if "actions" in names:
            changes |= {"actions": None, "known": None}
        return replace(self, **changes)  # type: ignore[arg-type]


def given_mask(given: Tensor, frames: int) -> Tensor:
    """Which latent frames are given: bool `[B, 1, T, 1, 1]`."""
    return (torch.arange(frames, device=given.device)[None] < given[:, None])[:, None, :, None, None]


def last_given(past: Tensor, given: Tensor) -> Tensor:
    """The last given frame of each sample `[B, C, 1, H, W]`, zeros where none is given."""
    place = (given - 1).clamp(min=0)[:, None, None, None, None].expand(-1, past.shape[1], 1, *past.shape[3:])
    return past.gather(2, place) * (given > 0)[:, None, None, None, None]
