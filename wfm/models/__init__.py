"""The networks: what they compute, on one device, with nothing about data, training or parallelism.

Rooms, in reading order:

    linear            one matrix product for all linear layers, on the library that is fastest
    rotary            positions in three axes
    fused             norms, rotations and gates in few passes over memory
    presence          which samples of a batch have which conditions, and which training drops
    slots             where a condition enters a model: named tensors; torch-free
    layers            attention, feed-forward, adaptive norms: what the transformers share
    tokenizer/        video <-> latents or tokens: Cosmos's causal networks, with a start from principal components
    diffusion/        the diffusion transformer (DiT) over latents, and the denoiser around it: EDM or rectified flow
    text/             captions -> embeddings that the transformer attends to: T5 or MiniLM, and a cache
    autoregressive/   the causal transformer over FSQ tokens, with a key/value cache
    presets           the published models by name: family and configuration; torch-free
    cost/             parameters, FLOPs, memory and tokens of any configuration, in closed form; torch-free
    convert/          weights of diffusers folders and original Cosmos checkpoints, in and out
    seeding  finite   generators that take 64 bits of a seed; what is no number ends the work
    folder            how a model is kept: `config.json` + `model.safetensors`, every key accounted for

Each family has the same files: `config` (torch-free), `network`, `objective` (its training loss).
"""

__all__ = [
    "autoregressive",
    "convert",
    "cost",
    "diffusion",
    "folder",
    "fused",
    "layers",
    "linear",
    "presence",
    "presets",
    "rotary",
    "slots",
    "text",
    "tokenizer",
]
