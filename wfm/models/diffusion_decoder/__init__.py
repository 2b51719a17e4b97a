"""The diffusion decoder: discrete tokens -> latents of a continuous tokenizer, by diffusion (Cosmos section 5.2.5).

An autoregressive model speaks in tokens of a strong compression, which its own tokenizer decodes poorly. The decoder is a
diffusion transformer that denoises the latents of a better, continuous tokenizer, with the tokens' embedding shown as
further channels; that tokenizer then makes the video.

    config       DecoderConfig: a denoiser, the tokens it is shown; torch-free
    network      TokenEmbedding, DiffusionDecoder
    prior        the best linear guess at the latents from the tokens around them
    objective    the denoising loss, a share of the samples without their tokens, for guidance

Sampling, and long videos in overlapping windows, lie in `wfm.families.diffusion_decoder.draw`.
"""
