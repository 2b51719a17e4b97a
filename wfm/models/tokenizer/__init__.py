"""The video tokenizer: causal, patch-based, started from principal components.

    config     TokenizerConfig: continuous latents, or FSQ tokens when `levels` is given; torch-free
    patches    video <-> causal patches, and the closed-form start (principal components)
    quantizer  finite scalar quantisation
    network    Tokenizer: linear patches plus residual networks that start as no-ops
    objective  the reconstruction loss

1 + ct * n frames become 1 + n latent frames; latent frame i depends on frames 0 ... ct * i and no later one.
"""

from typing import Any

__all__ = ["FiniteScalarQuantizer", "Tokenizer", "TokenizerConfig", "TokenizerObjective"]

_HOMES = {
    "FiniteScalarQuantizer": "quantizer",
    "Tokenizer": "network",
    "TokenizerConfig": "config",
    "TokenizerObjective": "objective",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
