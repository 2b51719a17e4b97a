"""The diffusion family: a denoiser over latents. Read `card` first; it opens the others."""
