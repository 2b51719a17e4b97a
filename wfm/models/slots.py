"""Where a condition enters a model: named tensors in slots. Torch-free.

    vector      a feature vector of each latent frame, `[B, t, width]`: joins the time embedding and AdaLN (diffusion), or the
                inputs that predict that frame (autoregressive)
    context     tokens `[B, L, width]` that every block attends to, with keys and values of their own
    channels    what is aligned with the latents place by place: channels beside them `[B, width, t, h, w]`, or token ids
                `[B, t, h, w]`
    sequence    places of the sequence itself: latent frames, or tokens, that are given

A network knows a condition by its name, its slot and its width and nothing else. What the tensors mean, where they come from
and how they are encoded is `wfm.conditions`'.
"""

from collections.abc import Mapping
from typing import Any, Literal

import pydantic

from wfm.config import Config

Slot = Literal["vector", "context", "channels", "sequence"]
Null = Literal["nothing", "learned"]


class SlotConfig(Config):
    """One condition of a model that its configuration has no fields of its own for."""

    slot: Slot
    "Where it enters."
    width: int = pydantic.Field(ge=1, le=2**20)
    "Features of a latent frame, of a token or of a place."
    null: Null = "nothing"
    """What stands in its place where it is absent: nothing, so that the model is exactly the one without it, or (a vector
    only) something learned."""
    spec: dict[str, Any] = {}
    "What the condition means: the values of its class in `wfm.conditions`."

    @pydantic.model_validator(mode="after")
    def _null_fits(self) -> "SlotConfig":
        if self.null == "learned" and self.slot != "vector":
            raise ValueError(f"null is 'learned' in slot {self.slot!r}: only a vector has one; use 'nothing'")
        return self


def of_slot(conditions: Mapping[str, SlotConfig], slot: Slot) -> dict[str, SlotConfig]:
    """Those that enter at `slot`, in order."""
    return {name: one for name, one in conditions.items() if one.slot == slot}
