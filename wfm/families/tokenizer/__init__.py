"""The tokenizers: video <-> latents or tokens. Read `card` first; it opens the others."""
