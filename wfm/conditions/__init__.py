"""What a model is conditioned on: one object, one file each. A model sees named tensors in slots (`wfm.models.slots`) and
knows none of these; the data carry named tensors, and each condition reads its own.

    condition        Condition: the protocol; View, what it may read of a window; the registry and its entry points
    past             the given frames, in pixels, latents or tokens
    extrapolation    what constant motion makes of them
    text             the caption's embeddings
    action           the action vector of each frame; action_features: a vector of each latent frame of it
    camera           the camera's rates alone
    tracks           the signals that conditions make of a clip's frames

A new one is one file: a class with its reads, encoder, slot, null, dropout and spec, registered here or, from another
package, by an entry point of group `wfm.conditions`.
"""

from typing import Any

__all__ = ["CONDITIONS", "Condition", "View", "condition_class", "encoders", "of_slots", "parse"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from wfm.conditions import condition

    return getattr(condition, name)
