"""The autoregressive family: a causal transformer that predicts the FSQ tokens of a video one by one, or frame by
frame.

    config         AutoregressiveConfig: the network; torch-free
    vocabulary     token ids as symbols: flat, or the FSQ digits they are made of
    conditioning   features of a condition -> what is added to the tokens that predict each latent frame; a context as a pack
    positions      where tokens stand: patches, positions, places, their rotation
    cache          keys and values of earlier positions
    blocks         attention, feed-forward; packs of videos
    medusa         heads that draft further tokens
    network        AutoregressiveTransformer
    pack           the same over packs of videos of any sizes
    objective      its training loss: cross-entropy and z-loss

Decoding (greedy, sampled) lies in `wfm.families.autoregressive.decoding`.
"""

from typing import Any

__all__ = [
    "AutoregressiveConfig",
    "AutoregressiveObjective",
    "AutoregressiveObjectiveConfig",
    "AutoregressiveTransformer",
]

_HOMES = {
    "AutoregressiveConfig": "config",
    "AutoregressiveObjective": "objective",
    "AutoregressiveObjectiveConfig": "config",
    "AutoregressiveTransformer": "network",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
