"""The diffusion decoder: the tokens of a discrete tokenizer to latents of a continuous one.

Read `card` first; it opens the others.
"""
