"""What a denoiser is conditioned on: the given frames, named tensors in slots."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from wfm.models.slots import SlotConfig


@dataclass(frozen=True)
class Conditions:
    """Everything but the noisy latents that a denoiser is told. B samples, T latent frames."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """Of the conditions, by the names of their tensors, `[B, ...]` each; a condition whose tensors are not here is absent.
    Latents (`past` `[B, C, P, H, W]`, P at most T, of which the first `given` int64 `[B]`, or all, are read) are in the
    tokenizer's units. Those of a context are its tokens `[B or 1, L, D]` and, where not all are used, their number `[B]`."""
    present: Mapping[str, Tensor] = field(default_factory=dict)
    "bool `[B]` by name of the condition: where False it is absent; none: all have it."
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

    def without(
        self, slots: Mapping[str, SlotConfig], *names: str, instead: Mapping[str, Tensor] | None = None
    ) -> Self:
        """The unconditional twin for guidance, without the conditions `names` of a model's `slots`. The given frames stay, as
        in Cosmos. instead: tensors in their place, such as a negative prompt's in place of the empty text."""
        dropped = {tensor for name in names if name in slots for tensor in slots[name].tensors}
        kept = {name: x for name, x in self.tensors.items() if name not in dropped} | dict(instead or {})
        return replace(self, tensors=kept, present={k: v for k, v in self.present.items() if k not in names})


def given_mask(given: Tensor, frames: int) -> Tensor:
    """Which latent frames are given: bool `[B, 1, T, 1, 1]`."""
    return (torch.arange(frames, device=given.device)[None] < given[:, None])[:, None, :, None, None]


def last_given(past: Tensor, given: Tensor) -> Tensor:
    """The last given frame of each sample `[B, C, 1, H, W]`, zeros where none is given."""
    place = (given - 1).clamp(min=0)[:, None, None, None, None].expand(-1, past.shape[1], 1, *past.shape[3:])
    return past.gather(2, place) * (given > 0)[:, None, None, None, None]
