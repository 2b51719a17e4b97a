"""The diffusion family: a transformer (DiT) that removes noise from latents, given past latents and actions.

    config         DiffusionConfig: the network; torch-free
    conditioning   actions per video frame -> one vector per latent frame
    prior          the linear guess of the future that the network improves on, in closed form
    network        DiffusionTransformer: the raw network F of the EDM formulation, plus `denoise` = D
    edm            preconditioning, noise law, and the training objective

Latents enter and leave every public method in the tokenizer's own units; the network holds their statistics.
"""

from typing import Any

__all__ = ["DiffusionConfig", "DiffusionTransformer", "EDMConfig", "EDMObjective"]

_HOMES = {
    "DiffusionConfig": "config",
    "EDMConfig": "config",
    "DiffusionTransformer": "network",
    "EDMObjective": "edm",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
