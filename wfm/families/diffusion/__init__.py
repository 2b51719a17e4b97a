"""The diffusion family: a denoiser over latents. Read `card` first; it opens the others.

card        configs, labels, what of a plan cannot work; `cost` in closed form
fit         how one is trained
draw        how one continues a past, by the samplers of `wfm.generation`
guidance    conditional and unconditional prediction in one batch
"""
