"""The networks: what they compute, on one device, with nothing about data, training or parallelism.

Rooms, in reading order:

    layers            norms, rotary positions, attention, adaptive norms: what the transformers share
    tokenizer/        video <-> latents or tokens: causal, patch-based, started from principal components
    diffusion/        the diffusion transformer (DiT) over latents, its EDM preconditioning and objective
    autoregressive/   the causal transformer over FSQ tokens, with a key/value cache
    folder            how a model is kept: `config.json` + `model.safetensors`, every key accounted for

Each family has the same files: `config` (torch-free), `network`, `objective` (its training loss).
"""

__all__ = ["autoregressive", "diffusion", "folder", "layers", "tokenizer"]
