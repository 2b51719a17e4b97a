"""The networks: what they compute, on one device, with nothing about data, training or parallelism.

Rooms, in reading order:

    rotary            positions in three axes
    presence          which samples of a batch have which conditions, and which training drops
    slots             where a condition enters a model: named tensors; torch-free
    layers            attention, feed-forward, adaptive norms: what the transformers share
    tokenizer/        video <-> latents or tokens: Cosmos's causal networks, with a start from principal components
    diffusion/        the diffusion transformer (DiT) over latents, and the denoiser around it: EDM or rectified flow
    text/             captions -> embeddings that the transformer attends to: T5 or MiniLM, and a cache
    autoregressive/   the causal transformer over FSQ tokens, with a key/value cache
    family            what a model family is to the rest of the house, and the registry of them (`wfm/families`); torch-free
    video_tokenizer   what world models know of a tokenizer
    presets           the published models by name: family and configuration; torch-free
    cost/             parameters, FLOPs, memory and tokens of any configuration, in closed form; torch-free
    convert/          weights of diffusers folders and original Cosmos checkpoints, in and out
    fast_cpu          applied to any of them from outside: what makes calls on a CPU fast; the model files know nothing of it
    product  fused    its matrix product, and its norms, rotations and gates in few passes over memory
    least_squares     what is fitted in closed form before training, from batches that are not kept
    parallelize       activation checkpointing and compilation, from outside too
    at_hand           whether numbers may be looked at without waiting for a device
    loss              what a loss gives: sums, and of how many
    seeding  finite   generators that take 64 bits of a seed; what is no number ends the work
    folder            how a model is kept: `config.json` + `model.safetensors`, every key accounted for

Each family has the same files: `config` (torch-free), `network`, `objective` (its training loss).
"""

__all__ = [
    "at_hand",
    "autoregressive",
    "convert",
    "cost",
    "diffusion",
    "family",
    "fast_cpu",
    "folder",
    "fused",
    "layers",
    "least_squares",
    "loss",
    "parallelize",
    "presence",
    "presets",
    "product",
    "rotary",
    "slots",
    "text",
    "tokenizer",
    "video_tokenizer",
]
