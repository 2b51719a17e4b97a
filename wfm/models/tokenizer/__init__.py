"""The tokenizers: video or images <-> latents or tokens, as in Cosmos; video causal in time.

    config       TokenizerConfig: every size, from the demo's to the published ones; torch-free
    haar         wavelet patches
    convolution  causal factorised convolutions over channels-last video; Stream: a video fed group by group
    blocks       norm, residual block, attention, halving and doubling
    image        the same in 2-D, for images
    patches      an optional linear code beside the networks, started from principal components
    quantizer    finite scalar quantisation
    network      Encoder, Decoder, Tokenizer
    streaming    endless video group by group, exactly or with a window of attention; saved and continued
    tiling       large frames in blended tiles, and what their seams cost
    loss_config  the terms of the loss, their weights over time, Cosmos's two stages; torch-free
    perceptual   feature nets (VGG16, VGG19, an offline one), distances of features and of their Gram matrices
    optical_flow a differentiable flow estimator, the distance of flows
    discriminator   the second player, and both players' losses
    objective    the loss of a training step, from all these
    fast_cpu     what makes the networks fast on a CPU: twins of their layers, put in from outside by `wfm.models.fast_cpu`

1 + ct * n frames become 1 + n latent frames; latent frame i depends on frames 0 ... ct * i and no later one, and the
frames of group i on latent frames 0 ... i.
"""

from typing import Any

__all__ = [
    "FiniteScalarQuantizer",
    "Stream",
    "StreamingDecoder",
    "StreamingEncoder",
    "Tokenizer",
    "TokenizerConfig",
    "TokenizerObjective",
    "fast_twins",
]

_HOMES = {
    "FiniteScalarQuantizer": "quantizer",
    "Stream": "convolution",
    "StreamingDecoder": "streaming",
    "StreamingEncoder": "streaming",
    "Tokenizer": "network",
    "TokenizerConfig": "config",
    "TokenizerObjective": "objective",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def fast_twins() -> Any:
    """What `wfm.models.fast_cpu` puts in place of the layers here."""
    from wfm.models.tokenizer.fast_cpu import TWINS

    return TWINS
