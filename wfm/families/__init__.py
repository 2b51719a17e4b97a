"""The model families, a folder each; `wfm.models.family` says what every one of them is.

    tokenizer           video <-> latents or tokens
    diffusion           a denoiser over latents: EDM or rectified flow
    autoregressive      a causal transformer over tokens
    diffusion_decoder   tokens -> latents of a continuous tokenizer: what the autoregressive family says, shown better

In each: `card` (what planners and pages read; no torch), `cost` (closed formulas), `fit` (training) and, for world models,
`draw`. Nothing outside imports a family's module: it asks `FAMILIES` for the card, and the card for the rest.
"""

__all__ = ["autoregressive", "diffusion", "diffusion_decoder", "tokenizer"]
