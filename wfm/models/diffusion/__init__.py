"""The diffusion family: a transformer (DiT) that removes noise from latents, given past latents, text and actions.

    config         DiffusionConfig: the network; DenoiserConfig: everything around it; EDMConfig, FlowConfig; torch-free
    inputs         what enters the network, checked and cut into patches, and what leaves it
    prepared       what depends on the shape, the prompt or the noise level alone, computed once
    blocks         one transformer block
    initial        what the network's weights begin as
    network        DiffusionTransformer: the raw network F, of a dense batch or a pack
    statistics     the tokenizer's units <-> latents of one deviation, by channel and latent frame
    conditioning   Conditions: given frames, and named tensors in slots; what stands for those that are absent
    prior          the linear guess of the future that the network improves on, in closed form (an option)
    edm, flow      the two formulations: preconditioning and the law of the noise
    denoiser       Denoiser: F inside its formulation, D(x; sigma); what training saves and samplers call
    objective      DenoisingObjective: the training loss of both

`Denoiser` works in normalised latents; `normalise` and `denormalise` lead from and to the tokenizer's units.
"""

from typing import Any

__all__ = [
    "Conditions",
    "Denoiser",
    "DenoiserConfig",
    "DenoisingObjective",
    "DiffusionConfig",
    "DiffusionTransformer",
    "EDMConfig",
    "FlowConfig",
]

_HOMES = {
    "Conditions": "conditioning",
    "Denoiser": "denoiser",
    "DenoiserConfig": "config",
    "DenoisingObjective": "objective",
    "DiffusionConfig": "config",
    "DiffusionTransformer": "network",
    "EDMConfig": "config",
    "FlowConfig": "config",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
