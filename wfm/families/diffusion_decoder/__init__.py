"""The diffusion decoder: the tokens of a discrete tokenizer to latents of a continuous one.

Read `card` first; it opens the others: `fit` (training), `draw` (video of tokens, long ones in overlapping windows).
"""
